"""To the source and back: sockets, redirects, the guard of addresses (requests)."""
