"""Waiting for conditions: with a deadline, never a guessed sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """The first true answer of ``condition``; fails the test with ``what`` when none came in time."""
    deadline = time.monotonic() + seconds
    answer = condition()
    while not answer:
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s for {what}; last answer: {answer!r}")
        time.sleep(0.01)
        answer = condition()
    return answer
