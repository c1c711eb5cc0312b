"""Sockets, requests, answers, problem documents."""
