"""A region's days as CSV, and simulations of a day with other settings: jobs.pool.scale applied to recorded arrivals.

The simulated region is a queue and the threads of its processes. A new process claims tasks some seconds after it was asked
for. A process that is given up claims no more at once.
"""

import csv
import random
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from jobs.contract import MINUTE_SECONDS, Minute
from jobs.pool.day import COLUMNS, Tally, count
from jobs.pool.scale import Observation, State, decide
from regions.faults import Fault, Faults
from regions.schedule import Scale, bounds_at

START_SECONDS: Final = 3.0  # from the order for a process to its first claim
MIN_TASK_SECONDS: Final = 0.001
NEEDED: Final = ("at", "arrived", "task_seconds")  # columns that a simulation reads


@dataclass(frozen=True, slots=True)
class Moment:
    """One step of a simulated day."""

    seen: Observation
    state: State


def to_csv(minutes: Iterable[Minute]) -> str:
    """A header line, then one line for each minute. ``at`` is a time of RFC 3339 in UTC."""
    rows = (",".join(_shown(name, getattr(minute, name)) for name in COLUMNS) for minute in minutes)
    return "\n".join([",".join(COLUMNS), *rows]) + "\n"


def _shown(name: str, value: float) -> str:
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if name == "at" else str(value)


def _seconds(text: str) -> str | float:
    """Seconds since the epoch of a time as RFC 3339 writes it; any other text as it is. Raises ValueError without a zone."""
    try:
        found = datetime.fromisoformat(text) if "-" in text[1:] else None
    except ValueError:
        return text
    if found is not None and found.tzinfo is None:
        raise ValueError(f"expected a time with its zone, like 2026-11-29T06:00:00Z, found {text}")
    return text if found is None else found.timestamp()


def read_csv(path: Path) -> list[Minute]:
    """Reads a CSV file with at least the columns of ``NEEDED``, such as ``to_csv`` writes. Raises ``Faults``, all at once."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
            rows = [] if missing else list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Faults([Fault(path.name, None, "", f"expected a readable CSV file, found: {error}")]) from error
    if missing or not rows:
        found = f"expected the columns {', '.join(NEEDED)}, found all but {', '.join(missing)}"
        raise Faults([Fault(path.name, 1, "", found if missing else "expected at least one minute, found none")])
    minutes, faults = [], []
    for line, row in enumerate(rows, 2):
        given = {name: row[name] for name in COLUMNS if row.get(name)}
        try:
            minutes.append(msgspec.convert({**given, "at": _seconds(given.get("at", ""))}, Minute, strict=False))
        except ValueError as error:  # msgspec's is one, too
            faults.append(Fault(path.name, line, "", f"expected a minute, found: {error}"))
    if faults:
        raise Faults(faults)
    return minutes


def simulate(
    minutes: Sequence[Minute],
    scale: Scale,
    threads: int,
    *,
    start_seconds: float = START_SECONDS,
    step_seconds: float = 1.0,
    at_once: bool = False,
) -> Iterator[Moment]:
    """The steps of a day. With ``at_once`` all tasks of a minute arrive in its first second, else at random times in it."""
    chance = random.Random(1)
    state: State | None = None
    looked_at, bounds = minutes[0].at // MINUTE_SECONDS, bounds_at(scale, minutes[0].at)
    ready = bounds.min
    starts: deque[float] = deque()  # when the processes that were asked for begin to claim
    queue: deque[tuple[float, float]] = deque()  # (when tasks arrived, how many)
    inside = ended = 0.0  # tasks that wait or run; tasks that have ended
    for minute in minutes:
        each = max(minute.task_seconds, MIN_TASK_SECONDS)
        for step, coming in enumerate(_spread(minute.arrived, step_seconds, chance, at_once=at_once)):
            now = minute.at + step * step_seconds
            while starts and starts[0] <= now:
                starts.popleft()
                ready += 1
            inside += coming
            ends = min(inside, min(inside, ready * threads) * step_seconds / each)
            inside, ended = inside - ends, ended + ends
            queue.append((now, coming))
            waiting = max(0.0, inside - ready * threads)
            _drop(queue, waiting)
            seen = Observation(
                at=now,
                waiting=round(waiting),
                oldest_seconds=now - queue[0][0] if queue and waiting >= 0.5 else 0.0,
                running=round(ends * each / step_seconds),
                ended=round(ended),
                ready=ready,
                threads=threads,
            )
            if now // MINUTE_SECONDS != looked_at:  # a rule begins at a whole minute
                looked_at, bounds = now // MINUTE_SECONDS, bounds_at(scale, now)
            state = decide(state, seen, bounds, scale)
            yield Moment(seen, state)
            starts.extend([now + start_seconds] * (state.number - ready - len(starts)))
            while ready + len(starts) > state.number:
                ready, _ = (ready, starts.pop()) if starts else (ready - 1, None)


def _spread(arrived: int, step_seconds: float, chance: random.Random, *, at_once: bool) -> list[int]:
    """The number of a minute's tasks that arrive in each step."""
    steps = range(round(MINUTE_SECONDS / step_seconds))
    many = Counter({0: arrived} if at_once else chance.choices(steps, k=arrived))
    return [many[step] for step in steps]


def _drop(queue: deque[tuple[float, float]], kept: float) -> None:
    """Removes the oldest tasks until ``kept`` are left."""
    surplus = sum(many for _, many in queue) - kept
    while queue and queue[0][1] <= surplus:
        surplus -= queue.popleft()[1]
    if queue and surplus > 0:
        queue[0] = queue[0][0], queue[0][1] - surplus


def by_minute(moments: Iterable[Moment]) -> Iterator[Minute]:
    """The minutes of a simulated day, as a region would record them."""
    tally: Tally | None = None
    for moment in moments:
        tally, over = count(tally, moment.seen, moment.state)
        if over is not None:
            yield over
    if tally is not None:
        yield tally.minute
