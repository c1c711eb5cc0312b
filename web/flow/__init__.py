"""The threads that move requests on: accept, publish, settle, sweep, archive."""
