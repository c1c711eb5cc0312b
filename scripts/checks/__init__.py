"""Checks of servers, hosts and this checkout: what ``nearfetch doctor`` runs, and of it ``nearfetch config check`` what is set."""
