"""The bytes behind settled tasks, summed by source, region and day, in the central Redis.

    Runs.add ── Traffic.add, for each settled task ──> Traffic.commands, which go with what Runs.flush writes once a second
        nf:traffic:{region}        sums since ever, by source
        nf:traffic:{region}:{day}  those of one day (UTC, by the hub's clock), for ``DAYS``; under "", those of all sources

A region spares the ocean the bytes that it received, and those of pages that it did not have to fetch again; less what it sent
to the hub for them. A task counts with its last attempt: what earlier attempts received is left out.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import redis

from jobs.contract import Run
from regions import names
from regions.script import send, value

SUMS: Final = ("runs", "failed", "raw", "received", "spared", "records", "wire")
DAYS: Final = 14  # with today
DAY_SECONDS: Final = 86_400
ALL: Final = ""  # in place of a source

Sums = dict[str, int]  # each of ``SUMS``
Days = dict[str, Sums]  # by day, as "2026-11-29", the latest first; days without a task are left out


class Traffic:
    """Sums that one gateway has not written yet. For one thread; ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ahead = time.time() - clock()  # of the hub's clock; from the first write on it is the hub's own
        self._new: dict[tuple[int, str, str], list[int]] = {}  # by day, region and source
        self._refused: Counter[tuple[str, str]] = Counter()  # by key and field

    def add(self, region: str, run: Run) -> None:
        """Adds a settled task."""
        day = int((self._ahead + self._clock()) // DAY_SECONDS)
        sums = self._new.setdefault((day, region, run.source), [0] * len(SUMS))
        more = (
            1, bool(run.error), run.raw_bytes, run.received_bytes, run.spared_bytes, run.records_bytes, run.wire_bytes,
        )  # fmt: skip
        for index, count in enumerate(more):
            sums[index] += count

    def __bool__(self) -> bool:
        return bool(self._new or self._refused)

    def commands(self) -> list[tuple[Any, ...]]:
        """The commands that write what is new, which then counts as written. Their replies are for ``replied``."""
        adding, self._refused = self._refused, Counter()
        new, self._new = self._new, {}
        kept: set[str] = set()
        for (number, region, source), sums in new.items():
            of_day = names.traffic_of_day(region, _day(number))
            kept.add(of_day)
            for what, count in zip(SUMS, sums, strict=True):
                if count:
                    adding[names.traffic(region), f"{what}:{source}"] += count
                    adding[of_day, f"{what}:{source}"] += count
                    adding[of_day, f"{what}:{ALL}"] += count
        expiring = [("EXPIRE", key, (DAYS + 1) * DAY_SECONDS) for key in kept]
        return [*(("HINCRBY", *place, count) for place, count in adding.items()), *expiring]

    def replied(self, commands: Iterable[tuple[Any, ...]], replies: Iterable[Any], now_ms: int) -> None:
        """Keeps what the hub refused, for the next time. ``now_ms``: the hub's clock."""
        self._ahead = now_ms / 1000 - self._clock()
        for command, reply in zip(commands, replies, strict=False):
            if command[0] == "HINCRBY" and isinstance(reply, Exception):
                _, key, field, count = command
                if "overflow" not in str(reply):  # that sum has reached its maximum
                    self._refused[key, field] += count


def sums_of(fields: Mapping[bytes, bytes]) -> dict[str, Sums]:
    """The sums of a hash, by source."""
    found: dict[str, Sums] = {}
    for field, total in fields.items():
        what, _, source = field.decode().partition(":")
        if what in SUMS:
            found.setdefault(source, dict.fromkeys(SUMS, 0))[what] = int(total)
    return found


def kept_off_wan(sums: Mapping[str, int]) -> int:
    """The bytes that did not cross the WAN. 0, and not less, where more was sent home than the pages had."""
    return max(0, sums["received"] + sums["spared"] - sums["wire"])


def total(found: Iterable[Mapping[str, int]]) -> Sums:
    """The sum of sums."""
    counted = Counter(dict.fromkeys(SUMS, 0))
    for sums in found:
        counted.update(sums)
    return dict(counted)


def read_days(client: redis.Redis, now_ms: int, asked: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Days]:
    """The days of each (region, source), in one round trip; the source ``ALL`` is all of them. Raises what redis-py raises."""
    today = now_ms // 1000 // DAY_SECONDS
    days = [_day(today - back) for back in range(DAYS)]
    commands = [
        ("HMGET", names.traffic_of_day(region, day), *(f"{what}:{source}" for what in SUMS))
        for region, source in asked
        for day in days
    ]
    replies = map(value, send(client, commands, []))
    return {
        one: {
            day: dict(zip(SUMS, (int(count or 0) for count in reply), strict=True))
            for day, reply in zip(days, replies, strict=False)
            if any(reply)
        }
        for one in asked
    }


def read_today(client: redis.Redis, now_ms: int, regions: Sequence[str]) -> dict[str, dict[str, Sums]]:
    """Today's sums by region and source, in one round trip. Raises what redis-py raises."""
    day = _day(now_ms // 1000 // DAY_SECONDS)
    replies = send(client, [("HGETALL", names.traffic_of_day(region, day)) for region in regions], [])
    found = {}
    for region, reply in zip(regions, replies, strict=True):
        pairs = value(reply)
        found[region] = sums_of(dict(zip(pairs[::2], pairs[1::2], strict=True)))
        found[region].pop(ALL, None)
    return found


def _day(number: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=number)).date().isoformat()


def traffic_view(sums: Mapping[str, int]) -> dict[str, int]:
    """A source's sums in a region, and how many bytes did not cross the WAN."""
    return {**sums, "kept_off_wan": kept_off_wan(sums)}


def days_view(days: Days) -> list[dict[str, Any]]:
    """Sums by day, the latest first."""
    return [{"day": day, **traffic_view(sums)} for day, sums in days.items()]
