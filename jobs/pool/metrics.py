"""``/metrics`` of a pool: what all its worker processes did, those that have ended included, and what the pool knows of its region."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jobs.worker.meter import Pages
from regions.counts import Counter
from regions.metrics import Sample

if TYPE_CHECKING:
    from jobs.pool.report import Reporter


class Metrics:
    """The pool adds to its counters; a scrape reads them, and the pages of its processes, on another thread."""

    def __init__(self, region: str) -> None:
        self._region = region
        self.pages = Pages()
        self.starts = Counter()  # of processes: kind
        self.deaths = Counter()  # how
        self.memory_bytes = 0  # of the processes, at the last look

    def samples(self, reporter: "Reporter") -> Iterator[Sample]:
        """All of it."""
        region, sums = (self._region,), self.pages.sums()
        for hop, cells in sums.hops.items():
            yield "nearfetch_hop_seconds", (hop, self._region), cells
        for outcome, count in sums.outcomes.items():
            if count:
                yield "nearfetch_attempts_total", (self._region, outcome), count
        yield "nearfetch_retries_total", region, sums.retries
        for what, size in sums.bytes.items():
            yield "nearfetch_attempt_bytes_total", (self._region, what), size
        for name, counter in (("starts", self.starts), ("deaths", self.deaths)):
            for labels, count in counter.counts():
                yield f"nearfetch_worker_{name}_total", (self._region, *labels), count
        yield "nearfetch_worker_memory_bytes", region, self.memory_bytes
        for name, number in reporter.known.items():
            yield f"nearfetch_{name}", region, number
