"""Commands, and what scripts/up starts."""
