"""What `scripts/up` starts and watches."""
