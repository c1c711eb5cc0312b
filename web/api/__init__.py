"""What clients ask, one file a question."""
