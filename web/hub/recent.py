"""The last minutes and the last day, in the central Redis: how long tasks take, how many run, and what failed last.

    Runs.add ── Recent.add, for each settled task ──> Recent.commands, which go with what Runs.flush writes once a second
        nf:took:{region}:{minute}  tasks by their duration from the accept to their end in the region, for p95
        nf:hour:{hour}             runs, failed runs and busy ms of each source in an hour (UTC)
        nf:failure                 the last failure of each source
    Settler, with the status of a region's workers
        nf:day:{region}            the minutes of its day (jobs.pool.day)

People read these figures; nothing depends on them. So a write that is refused, or lost with a gateway, is not repeated.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import redis
from msgspec import Struct

from jobs.contract import DAY_MINUTES, MINUTE_SECONDS, Minute, Run
from regions import names
from regions.script import send, value
from web.hub import ids

HOURS: Final = 24  # that are shown, with the current one
HOUR_SECONDS: Final = 3_600
MINUTES: Final = 5  # p95 is that of the tasks in these minutes and in the current one
AHEAD_MS: Final = 120_000  # by how much a region's clock may be ahead of the hub's
OCTAVE: Final = 8  # buckets of durations between one and its double: a bound is at most 9 % above a duration
TOOK_MAX_MS: Final = 3_600_000
BUSY_MAX_MS: Final = 3_600_000  # of one run, so that no sum of a day overflows
COUNTED: Final = ("runs", "failed", "busy_ms")


class Failure(Struct, frozen=True, kw_only=True):
    """The last failure of a source. ``error`` and ``origin`` are those of ``contract.Error``, ``at_ms`` is hub ms."""

    at_ms: int
    region: str
    task: str
    error: str
    origin: str


class Hour(Struct, frozen=True):
    """A source's runs in the hour that begins at ``at`` (seconds since the epoch)."""

    at: int
    runs: int = 0
    failed: int = 0
    busy_ms: int = 0


_failure: Final = msgspec.json.Decoder(Failure)
_day_minute: Final = msgspec.json.Decoder(Minute)
_encode: Final = msgspec.json.Encoder().encode


class Recent:
    """What one gateway has not written yet. For one thread; ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ahead = time.time() - clock()  # of the hub's clock; from the first write on it is the hub's own
        self._took: Counter[tuple[int, str, int]] = Counter()  # by minute, region and bucket
        self._hours: dict[tuple[int, str], tuple[int, int, int]] = {}  # by hour and source, as COUNTED
        self._failures: dict[str, Failure] = {}

    def add(self, region: str, run: Run, finished_ms: int, task: str) -> None:
        """Adds a settled task. Its id says when it was accepted."""
        now = self._ahead + self._clock()
        if (took := took_ms(task, finished_ms)) is not None:
            self._took[_minute(now), region, bucket_of(took)] += 1
        hour = (int(now // HOUR_SECONDS), run.source)
        runs, failed, busy_ms = self._hours.get(hour, (0, 0, 0))
        self._hours[hour] = (runs + 1, failed + bool(run.error), busy_ms + min(run.busy_ms, BUSY_MAX_MS))
        if run.error and run.own:
            self._failures[run.source] = Failure(
                at_ms=round(now * 1000), region=region, task=task, error=run.error, origin=run.origin
            )

    def __bool__(self) -> bool:
        return bool(self._took or self._hours or self._failures)

    def commands(self) -> list[tuple[Any, ...]]:
        """The commands that write what is new, which then counts as written."""
        took, self._took = self._took, Counter()
        hours, self._hours = self._hours, {}
        failures, self._failures = self._failures, {}
        commands: list[tuple[Any, ...]] = []
        kept: dict[str, int] = {}
        for (minute, region, bucket), count in took.items():
            key = names.took(region, minute)
            kept[key] = (MINUTES + 2) * int(MINUTE_SECONDS)
            commands.append(("HINCRBY", key, bucket, count))
        for (hour, source), sums in hours.items():
            key = names.runs_of_hour(_hour(hour))
            kept[key] = (HOURS + 1) * HOUR_SECONDS
            commands += [
                ("HINCRBY", key, f"{what}:{source}", count) for what, count in zip(COUNTED, sums, strict=True) if count
            ]
        commands += [("HSET", names.FAILURE, source, _encode(one)) for source, one in failures.items()]
        return [*commands, *(("EXPIRE", key, seconds) for key, seconds in kept.items())]

    def replied(self, now_ms: int) -> None:
        """Follows the hub's clock."""
        self._ahead = now_ms / 1000 - self._clock()


def took_ms(task: str, finished_ms: int) -> int | None:
    """How long a task took from its accept, whose time stands in its id; None for an id or a time that can't be right."""
    try:
        took = finished_ms - ids.made_ms(task)  # a tenth of what ULID.from_str takes
    except ValueError:
        return None
    return max(took, 0) if took <= TOOK_MAX_MS else None


def bucket_of(ms: int) -> int:
    """The bucket of a duration; ``bound_ms`` of it is the duration or a little more."""
    return math.ceil(OCTAVE * math.log2(max(ms, 1)) - 1e-9)


def bound_ms(bucket: int) -> float:
    """The longest duration in a bucket."""
    return float(2 ** (bucket / OCTAVE))


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """The duration in ms that this share of the tasks did not exceed; None without any task."""
    total, seen = sum(counts.values()), 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= share * total:
            return round(bound_ms(bucket), 1)
    return None


def read_took(client: redis.Redis, now_ms: int, regions: Sequence[str]) -> dict[str, Counter[int]]:
    """The tasks of the last minutes by region and bucket, in one round trip. Raises what redis-py raises."""
    minute = _minute(now_ms / 1000)
    asked = [("HGETALL", names.took(region, minute - back)) for region in regions for back in range(MINUTES + 1)]
    replies = iter(send(client, asked, []))
    found: dict[str, Counter[int]] = {}
    for region in regions:
        found[region] = Counter()
        for _ in range(MINUTES + 1):
            pairs = value(next(replies))
            for bucket, count in zip(pairs[::2], pairs[1::2], strict=True):
                found[region][int(bucket)] += int(count)
    return found


def read_hours(client: redis.Redis, now_ms: int, source: str | None = None) -> dict[str, list[Hour]]:
    """The last hours of each source that ran, or of one, oldest first, all of them; one round trip. Raises what redis-py raises."""
    last = now_ms // 1000 // HOUR_SECONDS
    hours = range(last - HOURS + 1, last + 1)
    fields = [] if source is None else [f"{what}:{source}" for what in COUNTED]
    read: list[Any] = ["HMGET", *fields] if fields else ["HGETALL"]
    asked = [(read[0], names.runs_of_hour(_hour(hour)), *read[1:]) for hour in hours]
    sums: dict[str, dict[int, dict[str, int]]] = {}
    for hour, reply in zip(hours, map(value, send(client, asked, [])), strict=True):
        pairs = zip(fields, reply, strict=True) if fields else zip(map(_text, reply[::2]), reply[1::2], strict=True)
        for field, count in pairs:
            what, _, of = field.partition(":")
            if count is not None and what in COUNTED:
                sums.setdefault(of, {}).setdefault(hour, {})[what] = int(count)
    return {of: [Hour(hour * HOUR_SECONDS, **by_hour.get(hour, {})) for hour in hours] for of, by_hour in sums.items()}


def read_day(client: redis.Redis, now_ms: int, region: str) -> list[Minute]:
    """The minutes of a region's last day that are known, oldest first. Raises what redis-py raises."""
    texts: Any = client.hvals(names.day_at_hub(region))
    first = (now_ms / 1000 // MINUTE_SECONDS - DAY_MINUTES) * MINUTE_SECONDS
    found = [one for one in map(_day_minute.decode, texts) if first <= one.at <= (now_ms + AHEAD_MS) / 1000]
    return sorted(found, key=lambda one: one.at)


def read_failures(client: redis.Redis, sources: Sequence[str]) -> dict[str, Failure]:
    """The last failure of those of the sources that have one, in one round trip. Raises what redis-py raises."""
    if not sources:
        return {}
    found: Any = client.hmget(names.FAILURE, list(sources))
    kept = {source: _kept(text) for source, text in zip(sources, found, strict=True) if text is not None}
    return {source: one for source, one in kept.items() if one is not None}


def _kept(text: bytes) -> Failure | None:
    try:
        return _failure.decode(text)
    except msgspec.DecodeError:  # of another version
        return None


def _text(field: bytes) -> str:
    return field.decode(errors="replace")


def _minute(now: float) -> int:
    return int(now // MINUTE_SECONDS)


def _hour(number: int) -> str:
    return datetime.fromtimestamp(number * HOUR_SECONDS, UTC).strftime("%Y-%m-%dT%H")
