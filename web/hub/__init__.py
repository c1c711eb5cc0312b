"""The hub's Redis: the ledger, its scripts, what runs showed."""
