"""What is kept of answers: the cache, the raw pages, the tokens."""
