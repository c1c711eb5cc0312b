"""A definition compiled, and a page read into records by it (lxml)."""
