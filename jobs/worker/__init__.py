"""One worker process: its threads, its fork server, its end."""
