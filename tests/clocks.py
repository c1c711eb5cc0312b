"""Clock steps for tests: those of ``nearfetch chaos``."""

from scripts.chaos.clocks import CAN_STEP, step

__all__ = ["CAN_STEP", "step"]
