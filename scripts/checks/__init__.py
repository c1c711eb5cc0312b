"""Checks of servers, hosts and this checkout. ``nearfetch doctor`` runs all, ``nearfetch config check`` those of servers and settings."""
