"""The commands, and what scripts/up starts."""

VERSION = "0.1.0"  # scripts/up reads this line
