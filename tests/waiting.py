"""Waiting for conditions: with a deadline, never a guessed sleep."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
# Between two looks: what is looked at for long, or costs much, takes the processor from who is waited for.
PAUSE_SECONDS, PAUSE_MAX_SECONDS = 0.01, 0.1
PAUSE_BY_WAIT, PAUSE_BY_COST, COSTLY_SECONDS = 0.05, 4.0, 0.4
longest_seconds = float("inf")  # of any wait; less where a test is run that is expected to fail (tests.mutation)


@dataclass(frozen=True)
class Not:
    """A false answer of a condition that says what was seen instead."""

    seen: object

    def __bool__(self) -> bool:
        return False


def until(condition: Callable[[], T], what: str, seconds: float = 60.0) -> T:
    """The first true answer of ``condition``; fails the test with ``what`` when none came in time."""
    seconds = min(seconds, longest_seconds)
    began = looked = time.monotonic()
    answer = condition()
    while not answer:
        now = time.monotonic()
        if now > began + seconds:
            raise AssertionError(f"waited {seconds:g} s for {what}; last answer: {answer!r}")
        by_cost = min(PAUSE_BY_COST * (now - looked), COSTLY_SECONDS)
        time.sleep(max(PAUSE_SECONDS, by_cost, min(PAUSE_BY_WAIT * (now - began), PAUSE_MAX_SECONDS)))
        looked = time.monotonic()
        answer = condition()
    return answer


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def freeze(group: int) -> None:
    """Stops a process group, and returns when each of its threads has stopped.

    A signal is only sent when ``killpg`` returns: on a busy machine a broker's other threads still confirm a message or two.
    """
    os.killpg(group, signal.SIGSTOP)
    until(lambda: states(group) <= {"T", "Z", "X"}, f"all of the group {group} to have stopped")


def states(group: int) -> set[str]:
    """The states of all threads of a process group, as ps names them."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        if fields_of(path)[2:3] == [str(group)]:
            found |= {fields[0] for one in path.parent.glob("task/*/stat") if (fields := fields_of(one))}
    return found


def fields_of(path: Path) -> list[str]:
    """A stat file's fields from the state on; none of who is gone."""
    try:
        return path.read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
