"""A region's day, minute by minute: tasks that came, ran and waited, and the number of processes. Without I/O."""

import math
from typing import Final

from msgspec import Struct, structs

from jobs.pool.scale import Observation, State

MINUTE: Final = 60.0  # seconds
KEPT: Final = 1_440  # minutes


class Minute(Struct, frozen=True):
    """One minute, from ``at`` (seconds since the epoch). ``arrived`` and ``ended`` are sums, the others highest values.

    ``task_seconds`` is how long a task held its thread on average. ``wanted`` and ``ready`` count processes.
    """

    at: float
    arrived: int = 0
    ended: int = 0
    waiting: int = 0
    oldest_seconds: float = 0.0
    running: int = 0
    task_seconds: float = 0.0
    wanted: int = 0
    ready: int = 0


COLUMNS: Final = tuple(one.name for one in structs.fields(Minute))


class Tally(Struct, frozen=True):
    """The current minute, and from the last observation the tasks that ever came (``total``) and ended (``finished``)."""

    minute: Minute
    total: int
    finished: int


def count(tally: Tally | None, seen: Observation, state: State) -> tuple[Tally, Minute | None]:
    """The current minute with one more observation, and the minute before it when that is over."""
    total = seen.waiting + seen.running + seen.ended
    begin = math.floor(seen.at / MINUTE) * MINUTE
    if tally is None or seen.ended < tally.finished:
        tally = Tally(Minute(begin), total, seen.ended)
    over = tally.minute if begin > tally.minute.at else None
    minute = Minute(begin) if over else tally.minute
    minute = Minute(
        at=minute.at,
        arrived=minute.arrived + max(0, total - tally.total),
        ended=minute.ended + seen.ended - tally.finished,
        waiting=max(minute.waiting, seen.waiting),
        oldest_seconds=round(max(minute.oldest_seconds, seen.oldest_seconds), 3),
        running=max(minute.running, seen.running),
        task_seconds=round(state.load.task_seconds, 4),
        wanted=max(minute.wanted, state.number),
        ready=max(minute.ready, seen.ready),
    )
    return Tally(minute, max(total, tally.total), seen.ended), over
