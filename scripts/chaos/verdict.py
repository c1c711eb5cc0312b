"""The outcome of a comparison, and whether the run passed.

lost        a promised task without a result, or not in the history; an unreadable message that is no dead letter
doubled     a task that a reader got twice, or that the request's stream or the history has twice
changed     records other than the page's, or other than another reader got; another final state
unexpected  a result or a dead letter that nobody asked for, a refused request that can be read, a fetch of a page that
            nobody asked for
uncaused    an end other than the plan's, although the task had 30 s of peace, or for a reason that no fault explains
refetched   fetched more than once, although no fault touched it
strayed     a task that may not leave its region, and was answered by another one
late        ended after deadline + grace, and after the time that a gateway may wait after a fault
odd         answers that no client should ever get
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

OBLIGED_SHARE: Final = 0.9
SECOND_START_SECONDS: Final = 15.0
VIOLATIONS: Final = ("lost", "doubled", "changed", "unexpected", "uncaused", "refetched", "strayed", "late", "odd")


@dataclass
class Verdict:
    """The outcome. Violations are listed by id; the rest are figures."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    uncaused: list[str] = field(default_factory=list)
    refetched: list[str] = field(default_factory=list)
    strayed: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    promised: int = 0
    obliged: int = 0  # obliged to succeed
    planned: dict[str, int] = field(default_factory=dict)  # planned ends: error type → tasks that ended so
    letters: int = 0  # letters that had to become dead letters, and did
    archived: int = 0  # requests that the history lists
    statuses: dict[str, int] = field(default_factory=dict)
    excused: dict[str, int] = field(default_factory=dict)  # error type → exempt tasks that a fault explains
    refetches: int = 0  # of tasks that a fault touched, or that a standby was asked for, too
    moved: int = 0  # tasks that a standby answered
    left: list[str] = field(default_factory=list)  # refused, but not taken back by a gateway that died
    recovery: dict[str, list[float]] = field(default_factory=dict)  # kind → seconds to the next success
    second_starts: list[float] = field(default_factory=list)  # seconds from a worker's death to the start of its tasks
    slowest: list[tuple[float, str]] = field(default_factory=list)  # (seconds from accept to end, task)
    told_late: list[tuple[float, str]] = field(default_factory=list)  # (seconds until the reader knew, reader)
    still: list[str] = field(default_factory=list)  # regions that should have scaled, and did not
    missed: list[str] = field(default_factory=list)  # kinds of kills that hit nothing

    @property
    def faults(self) -> list[str]:
        """Why the run failed; empty when it passed."""
        found = [f"{len(getattr(self, name))} {name}" for name in VIOLATIONS if getattr(self, name)]
        if self.promised and self.obliged < OBLIGED_SHARE * self.promised:
            found.append(f"only {self.obliged} of {self.promised} tasks were obliged to succeed")
        if not self.promised:
            found.append("nothing was accepted")
        found += [f"no {kind} hit anything" for kind in self.missed]
        found += self.still
        slow = p99(self.second_starts)
        if slow is not None and slow > SECOND_START_SECONDS:
            found.append(
                f"second starts: p99 {slow:.1f} s after the death, expected {SECOND_START_SECONDS:.0f} s at most"
            )
        return found


def p99(figures: Iterable[float]) -> float | None:
    """The 99th percentile; None without values."""
    found = sorted(figures)
    return found[min(len(found) - 1, int(0.99 * len(found)))] if found else None
