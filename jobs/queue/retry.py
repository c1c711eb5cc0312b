"""Decides whether a failed attempt is tried again, and when. ``jobs.errors.RETRIED`` says which failures are.

    Runner.run → decide → Retry → retry.lua puts the job into RQ's scheduled registry
                                     └─ each claim loop, once a second: due.lua puts it back into the queue

Full jitter over a doubling ceiling (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from jobs.contract import Attempt
from jobs.errors import RETRIED, TaskError

ROOM_SECONDS: Final = 1.0  # at least between a retry and the deadline: jobs are moved once a second
MESSAGE_MAX: Final = 300  # characters of an attempt's message


@dataclass(frozen=True, slots=True)
class Retry:
    """Another attempt: in how many seconds, and how this one failed."""

    wait_seconds: float
    error: str
    message: str


_decoder: Final = msgspec.json.Decoder(list[Attempt])


def line(attempt: Attempt) -> bytes:
    """An attempt as a line of a job's record, with times on the region Redis's clock."""
    return msgspec.json.encode(msgspec.structs.replace(attempt, message=attempt.message[:MESSAGE_MAX])) + b"\n"


def read_past(lines: bytes) -> list[Attempt]:
    """The attempts of a job's record, oldest first. Raises ``msgspec.DecodeError``."""
    return _decoder.decode(b"[" + b",".join(lines.splitlines()) + b"]") if lines else []


def decide(
    error: TaskError,
    *,
    failures: int,
    retries: int,
    left_seconds: float,
    draw: Callable[[float, float], float] = random.uniform,
) -> Retry | None:
    """The next attempt of a task that failed with ``error``; None if there is none.

    ``failures``: attempts that failed before this one; ``retries``: how many more than one the source allows;
    ``left_seconds``: until the deadline. It waits until the target's Retry-After has passed, and some more: others got it too.
    """
    backoff = RETRIED.get(error.type)
    if backoff is None or not error.is_retryable or failures >= retries:
        return None
    least = error.retry_after or 0.0
    room = left_seconds - ROOM_SECONDS - least
    if room < 0:
        return None
    ceiling = min(backoff.max_seconds, backoff.first_seconds * 2**failures, room)
    return Retry(least + draw(0.0, ceiling), error.type, str(error))
