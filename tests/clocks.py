"""Clock steps for tests: those of ``nearfetch chaos``."""

from scripts.chaos.clocks import step

__all__ = ["step"]
