"""Compares the clocks of this host and of all servers that tell the time. Most of them are right."""

import platform
import statistics
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from scripts.checks.finding import Finding

BETTER_MS: Final = 1_000
WRONG_MS: Final = 30_000  # reports of a region more than a minute ahead of the hub are refused
THIS: Final = "this host"


class _Clock(NamedTuple):
    where: str
    ahead_ms: float  # of this host's
    error_ms: float


class Clocks:
    """Clocks as they were seen, by what they belong to. Several threads may note them."""

    def __init__(self) -> None:
        self._seen: dict[str, _Clock] = {}

    def note(self, what: str, where: str, ahead_ms: float, error_ms: float) -> None:
        """Takes a clock: how far it is ahead of this host's, give or take ``error_ms``."""
        self._seen[what] = _Clock(where, ahead_ms, error_ms)

    def findings(self) -> Iterator[Finding]:
        """Each clock against the middle one of three or more; a single one against this host's."""
        if not self._seen:
            return
        clocks = {THIS: _Clock(platform.node(), 0.0, 0.0), **self._seen}
        right_ms = statistics.median_low(one.ahead_ms for one in clocks.values()) if len(self._seen) > 1 else 0.0
        for what, one in clocks.items():
            off_ms = one.ahead_ms - right_ms
            yield from _judged(what, one.where, off_ms, max(0.0, abs(off_ms) - one.error_ms))


def _judged(what: str, where: str, off_ms: float, beyond_ms: float) -> Iterator[Finding]:
    common: dict[str, Any] = {"check": "clock", "what": what, "where": where}
    shown = f"{abs(off_ms) / 1000:.3f} s {'ahead' if off_ms > 0 else 'behind'}"
    if beyond_ms <= BETTER_MS:
        yield Finding(severity="fine", note=shown, **common)
        return
    is_wrong = beyond_ms > WRONG_MS
    yield Finding(
        severity="wrong" if is_wrong else "better",
        expected="the time of the other clocks, within a second",
        found=shown,
        cost="a region that is more than a minute ahead of the hub has its reports refused, and looks dead; times in logs do not fit together"
        if is_wrong
        else "times in logs and in nearfetch where do not fit together; deadlines are right all the same",
        mend="timedatectl set-ntp true on that host; chronyc tracking says how far it is off",
        **common,
    )
