"""Figures from measurements; pure. Each figure belongs to a round, and ratios are only made within a round."""

import math
import statistics
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

FAIR_SHARE: Final = 0.25  # of the bare loops' page rate; a peer below it must be badly set up


class Spread(Struct, frozen=True):
    """The median, the lowest and the highest of some rounds."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        return Spread(statistics.median(values), min(values), max(values))


class Unfair(RuntimeError):  # noqa: N818
    """The peer is too slow for a comparison: something is wrong with it, or with the machine."""


class Load(Struct, frozen=True):
    """One contender under load, in one row and one round."""

    jobs_per_second: float
    cpu_ms_per_job: dict[str, float]  # for each hop
    clients_ms_per_job: float  # CPU time of the clients, which is no part of the contender
    memory_bytes: float | None = None  # of the processes that fetch; only measured in rows with a delay
    held: float | None = None  # fetches in flight at the same moments

    @property
    def cpu_ms(self) -> float:
        """The sum of all hops."""
        return sum(self.cpu_ms_per_job.values())

    @property
    def memory_bytes_per_100(self) -> float | None:
        """The memory for 100 fetches in flight."""
        if self.memory_bytes is None or not self.held:
            return None
        return 100 * self.memory_bytes / self.held


class Alone(Struct, frozen=True):
    """The latencies of one contender's synchronous calls, in one row and one round, in ms."""

    p50: float
    p95: float
    p99: float

    @staticmethod
    def of(seconds: Sequence[float]) -> "Alone":
        """The latencies from the calls' durations in seconds."""
        return Alone(*(1000 * percentile(seconds, share) for share in (0.5, 0.95, 0.99)))


class Measured(Struct):
    """A contender in a row, with a figure for each round."""

    load: list[Load] = []
    alone: list[Alone] = []

    @property
    def rate(self) -> Spread:
        """Jobs per second."""
        return Spread.of([one.jobs_per_second for one in self.load])


class Beside(Struct, frozen=True):
    """One contender's synchronous calls beside a full bulk load, in one row and one round."""

    idle: Alone  # the same calls before the load began
    busy: Alone
    calls: int  # that were answered beside the load
    refused: int  # answers of 503, to calls and to posts of the load
    jobs_per_second: float  # of the load

    @property
    def times_idle(self) -> float:
        """How many times longer a call takes beside the load, by p50."""
        return self.busy.p50 / self.idle.p50


class Interactive(Struct):
    """The measurements of a row of synchronous calls beside a load. Without Celery, ``peer`` is empty."""

    name: str
    title: str
    ours: list[Beside] = []
    peer: list[Beside] = []

    def ratio(self, share: str) -> Spread:
        """Our latency beside the load divided by the peer's, in each round; ``share``: p50, p95 or p99."""
        pairs = zip(self.ours, self.peer, strict=True)
        return Spread.of([getattr(mine.busy, share) / getattr(other.busy, share) for mine, other in pairs])

    def rate_ratio(self) -> Spread:
        """Our jobs per second of the load divided by the peer's, in each round."""
        pairs = zip(self.ours, self.peer, strict=True)
        return Spread.of([mine.jobs_per_second / other.jobs_per_second for mine, other in pairs])


class Floor(Struct, frozen=True):
    """The bare loops in one round."""

    jobs_per_second: float
    cpu_ms_per_job: float


class Row(Struct):
    """The measurements of a row: ours, each of the peer's pools by name, and the bare loops on the same kind of page."""

    name: str
    title: str
    is_at_once: bool  # the page has no delay, so bare loops are comparable
    ours: Measured
    peer: dict[str, Measured]
    floor: list[Floor]

    @property
    def best(self) -> str:
        """The peer's pool with the most jobs per second."""
        return max(self.peer, key=lambda name: self.peer[name].rate.median)

    @property
    def quickest(self) -> str:
        """The peer's pool that answers a lone call soonest."""
        return min(self.peer, key=lambda name: statistics.median(one.p50 for one in self.peer[name].alone))

    def rate_ratio(self) -> Spread:
        """Our jobs per second divided by those of the peer's best pool, in each round."""
        theirs = self.peer[self.best].load
        pairs = zip(self.ours.load, theirs, strict=True)
        return Spread.of([mine.jobs_per_second / other.jobs_per_second for mine, other in pairs])

    def floor_ratio(self) -> Spread:
        """Our jobs per second divided by those of the bare loops, in each round. Means nothing for a row with a delay."""
        pairs = zip(self.ours.load, self.floor, strict=True)
        return Spread.of([mine.jobs_per_second / bare.jobs_per_second for mine, bare in pairs])

    def peer_floor_ratio(self) -> Spread:
        """The same for the peer's best pool."""
        pairs = zip(self.peer[self.best].load, self.floor, strict=True)
        return Spread.of([theirs.jobs_per_second / bare.jobs_per_second for theirs, bare in pairs])

    def over_floor(self, measured: Measured) -> Spread:
        """CPU ms for each job beyond that of the bare loops, in each round."""
        pairs = zip(measured.load, self.floor, strict=True)
        return Spread.of([one.cpu_ms - bare.cpu_ms_per_job for one, bare in pairs])

    def alone_ratio(self, share: str) -> Spread:
        """Our latency of a lone call divided by that of the peer's quickest pool, in each round; ``share``: p50, p95 or p99."""
        pairs = zip(self.ours.alone, self.peer[self.quickest].alone, strict=True)
        return Spread.of([getattr(mine, share) / getattr(other, share) for mine, other in pairs])


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median_within(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the 95 % confidence interval of the median of what these were drawn from: by ranks, whatever its distribution."""
    ordered, count = sorted(values), len(values)
    away = 1.96 * math.sqrt(count) / 2
    low, high = max(0, math.floor(count / 2 - away)), min(count - 1, math.ceil(count / 2 + away))
    return statistics.median(ordered), ordered[low], ordered[high]


def check_fair(row: Row) -> None:
    """Raises ``Unfair`` when the peer's best pool does less than a quarter of the bare loops' jobs, by the median."""
    share = row.peer_floor_ratio().median
    if share < FAIR_SHARE:
        raise Unfair(
            f"Unfair: Celery's best pool ({row.best}) does only {share:.2f} times the bare loops' jobs/s ({row.title}). "
            f"Below {FAIR_SHARE} it is set up badly, or the machine is too busy, so a ratio would mean nothing."
        )


def hops(measured: Measured) -> dict[str, float]:
    """Where the CPU time of a job goes: for each hop the median over the rounds, in ms."""
    return {
        hop: statistics.median(one.cpu_ms_per_job[hop] for one in measured.load)
        for hop in measured.load[0].cpu_ms_per_job
    }
