"""A region's day, minute by minute: tasks that came, ran and waited, and the number of processes. Without I/O."""

import math
from typing import Final

from msgspec import Struct, structs

from jobs.contract import MINUTE_SECONDS, Minute
from jobs.pool.scale import Observation, State

COLUMNS: Final = tuple(one.name for one in structs.fields(Minute))


class Tally(Struct, frozen=True):
    """The current minute, and from the last observation the tasks that ever came (``total``) and ended (``finished``)."""

    minute: Minute
    total: int
    finished: int


def count(tally: Tally | None, seen: Observation, state: State) -> tuple[Tally, Minute | None]:
    """The current minute with one more observation, and the minute before it when that is over."""
    total = seen.waiting + seen.running + seen.ended
    begin = math.floor(seen.at / MINUTE_SECONDS) * MINUTE_SECONDS
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
