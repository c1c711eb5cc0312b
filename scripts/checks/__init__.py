"""Checks of servers, hosts and this checkout. ``nearfetch doctor`` runs all, ``nearfetch config check`` those of servers and settings.

finding                 what a check finds, and how checks run beside each other
servers                 every server that settings name, in short
redis_server, rabbitmq  one Redis; RabbitMQ, from outside and inside
clocks, certificates    compares clocks; until when certificates are valid, and whether they are trusted
host                    this machine and this checkout
"""
