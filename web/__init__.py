"""The gateway: HTTP in front, the ledger behind."""
