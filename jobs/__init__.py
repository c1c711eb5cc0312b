"""What: tasks, sources, and the workers that run them."""
