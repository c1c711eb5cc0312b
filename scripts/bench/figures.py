"""What is made of what was measured; pure. A figure is a round's; rounds are compared with each other, never across."""

import math
import statistics
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

FAIR_SHARE: Final = 0.25  # of the bare loops' page rate; a peer below it is set up badly


class Spread(Struct, frozen=True):
    """Of some rounds: the median, the lowest, the highest."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return Spread(statistics.median(values), min(values), max(values))


class Unfair(RuntimeError):  # noqa: N818
    """The peer is too slow to be compared with: something is wrong with it, or with the machine."""


class Load(Struct, frozen=True):
    """One contender, one row, one round under load."""

    jobs_per_second: float
    cpu_ms_per_job: dict[str, float]  # by hop
    clients_ms_per_job: float  # CPU of the clients, no part of the contender
    memory_bytes: float | None = None  # of whoever fetches; sampled on slow rows only
    held: float | None = None  # fetches in flight, at the same moments

    @property
    def cpu_ms(self) -> float:
        """All hops together."""
        return sum(self.cpu_ms_per_job.values())

    @property
    def memory_bytes_per_100(self) -> float | None:
        """For 100 fetches in flight."""
        if self.memory_bytes is None or not self.held:
            return None
        return 100 * self.memory_bytes / self.held


class Alone(Struct, frozen=True):
    """One contender, one row, one round of synchronous calls, in ms."""

    p50: float
    p95: float
    p99: float

    @staticmethod
    def of(seconds: Sequence[float]) -> "Alone":
        """Of the calls' seconds."""
        return Alone(*(1000 * percentile(seconds, share) for share in (0.5, 0.95, 0.99)))


class Measured(Struct):
    """A contender in a row: a figure a round."""

    load: list[Load] = []
    alone: list[Alone] = []

    @property
    def rate(self) -> Spread:
        """Jobs a second."""
        return Spread.of([one.jobs_per_second for one in self.load])


class Floor(Struct, frozen=True):
    """The bare loops in one round."""

    jobs_per_second: float
    cpu_ms_per_job: float


class Row(Struct):
    """What was measured of a row: ours, each of the peer's pools by name, and the floor of its kind of page."""

    name: str
    title: str
    is_at_once: bool  # the page is not late: bare loops can be compared with
    ours: Measured
    peer: dict[str, Measured]
    floor: list[Floor]

    @property
    def best(self) -> str:
        """The peer's pool that does most a second."""
        return max(self.peer, key=lambda name: self.peer[name].rate.median)

    @property
    def quickest(self) -> str:
        """The peer's pool that answers a lone call soonest."""
        return min(self.peer, key=lambda name: statistics.median(one.p50 for one in self.peer[name].alone))

    def rate_ratio(self) -> Spread:
        """Our jobs a second to those of the peer's best pool, by round."""
        theirs = self.peer[self.best].load
        pairs = zip(self.ours.load, theirs, strict=True)
        return Spread.of([mine.jobs_per_second / other.jobs_per_second for mine, other in pairs])

    def floor_ratio(self) -> Spread:
        """Our jobs a second to those of the bare loops, by round; says nothing of a row that is late."""
        pairs = zip(self.ours.load, self.floor, strict=True)
        return Spread.of([mine.jobs_per_second / bare.jobs_per_second for mine, bare in pairs])

    def peer_floor_ratio(self) -> Spread:
        """The same of the peer's best pool."""
        pairs = zip(self.peer[self.best].load, self.floor, strict=True)
        return Spread.of([theirs.jobs_per_second / bare.jobs_per_second for theirs, bare in pairs])

    def over_floor(self, measured: Measured) -> Spread:
        """CPU ms a job over the bare loops', by round."""
        pairs = zip(measured.load, self.floor, strict=True)
        return Spread.of([one.cpu_ms - bare.cpu_ms_per_job for one, bare in pairs])

    def alone_ratio(self, share: str) -> Spread:
        """Our time of a lone call to that of the peer's quickest pool, by round; ``share``: p50, p95 or p99."""
        pairs = zip(self.ours.alone, self.peer[self.quickest].alone, strict=True)
        return Spread.of([getattr(mine, share) / getattr(other, share) for mine, other in pairs])


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def check_fair(row: Row) -> None:
    """Raises ``Unfair`` where the peer's best pool does less than a quarter of what the bare loops do, in the median."""
    share = row.peer_floor_ratio().median
    if share < FAIR_SHARE:
        raise Unfair(
            f"Unfair: Celery's best pool ({row.best}) does {share:.2f} of what the bare loops do with the {row.title}; "
            f"below {FAIR_SHARE} it is set up badly, or the machine is too busy, and a ratio to it says nothing."
        )


def hops(measured: Measured) -> dict[str, float]:
    """Where a job's CPU goes: the median of each hop over the rounds, in ms."""
    return {
        hop: statistics.median(one.cpu_ms_per_job[hop] for one in measured.load)
        for hop in measured.load[0].cpu_ms_per_job
    }
