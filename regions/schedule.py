"""How many worker processes a region may have, and when: the ``[scale]`` table and its cron rules.

A rule applies from each time its ``cron`` matches until any rule next matches. Settings that it omits come from
``[scale]``, so a rule with nothing but ``cron`` ends the rule before it.
"""

import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from cronsim import CronSim, CronSimError
from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class ScaleRule(Struct, frozen=True, forbid_unknown_fields=True):
    """Another minimum or maximum from the times that ``cron`` matches."""

    cron: str = ""
    timezone: str = "UTC"
    min: Count | None = None
    max: Count | None = None

    def __str__(self) -> str:
        return f'"{self.cron}" {self.timezone}'


class Scale(Struct, frozen=True, forbid_unknown_fields=True):
    """How many worker processes the region has, on all its hosts together."""

    min: Count = 2
    max: Count = 4
    target_wait_seconds: Seconds = 2.0
    cooldown_seconds: Seconds = 300.0
    schedule: tuple[ScaleRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """The minimum and maximum number of processes, and the rule that set them; None for the table alone."""

    min: int
    max: int
    rule: ScaleRule | None = None

    @property
    def source(self) -> str:
        """Where the bounds come from, for people."""
        return f"the rule {self.rule}" if self.rule else "[scale]"


def bounds_at(scale: Scale, now: float) -> Bounds:
    """The bounds at ``now`` (seconds since the epoch). When several rules match at once, the last one in the file applies."""
    latest: tuple[float, int] | None = None
    for number, rule in enumerate(scale.schedule):
        began = _firing(rule, now, backwards=True)
        if began is not None and (latest is None or (began, number) > latest):
            latest = began, number
    return bounds_of(scale, None if latest is None else scale.schedule[latest[1]])


def bounds_of(scale: Scale, rule: ScaleRule | None) -> Bounds:
    """The rule's minimum and maximum, or the table's where the rule has none."""
    if rule is None:
        return Bounds(scale.min, scale.max)
    return Bounds(rule.min or scale.min, rule.max or scale.max, rule)


def next_change(scale: Scale, now: float) -> tuple[float, ScaleRule] | None:
    """The next time after ``now`` at which a rule begins, and that rule; None without rules."""
    times = [(when, rule) for rule in scale.schedule if (when := _firing(rule, now)) is not None]
    return min(times, key=lambda one: one[0], default=None)


def wrong_in_rule(rule: ScaleRule) -> Iterator[tuple[str, str]]:
    """Each wrong key of a rule, with a message."""
    try:
        CronSim(rule.cron, datetime.now(UTC))
    except CronSimError as error:
        expected = "expected five fields, minute hour day-of-month month day-of-week"
        yield "cron", f'{expected}, found "{rule.cron}" ({str(error).lower()})'
    try:
        zoneinfo.ZoneInfo(rule.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        yield "timezone", f'expected the name of a time zone, like "Europe/Berlin", found "{rule.timezone}"'


def wrong_in_bounds(scale: Scale) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Each pair of keys whose minimum exceeds its maximum: the path to the wrong key, and a message."""
    if scale.min > scale.max:
        yield ("max",), f"expected at least min, which is {scale.min}, found {scale.max}"
        return
    for number, rule in enumerate(scale.schedule):
        bounds = bounds_of(scale, rule)
        if bounds.min > bounds.max:
            key, message = (
                ("max", f"expected at least min, which is {bounds.min}, found {bounds.max}")
                if rule.max
                else ("min", f"expected at most max, which is {bounds.max}, found {bounds.min}")
            )
            yield ("schedule", number, key), message


def _firing(rule: ScaleRule, now: float, *, backwards: bool = False) -> float | None:
    """When the rule next begins after ``now``, or last began at or before it; None when it never does."""
    minute = datetime.fromtimestamp(now, UTC).replace(second=0, microsecond=0)
    # Backwards, cronsim yields times before its start, so the current minute is included by starting one later.
    start = (minute + timedelta(minutes=1) if backwards else minute).astimezone(zoneinfo.ZoneInfo(rule.timezone))
    found = next(CronSim(rule.cron, start, reverse=backwards), None)
    return None if found is None else found.timestamp()
