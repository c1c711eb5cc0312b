"""What a gateway has done with requests and tasks, for ``/metrics``.

A task is counted by the gateway that ended it, when the hub's script says that it ended just now. So the sums of all gateways count
each task once.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from regions.counts import CELLS, LABELS_MAX, OTHER, Counter, Histogram, Labels, observe
from web.hub import ids
from web.hub.settlement import Settlement

if TYPE_CHECKING:  # Prometheus's client takes time to import
    from regions.metrics import Sample

BYTES: Final = ("raw", "received", "spared", "records", "home")
_TOOK: Final = 1 + len(BYTES)  # in a row: the number of tasks, their bytes, then the histogram of how long they took


class Tally:
    """Counts of one gateway. Any thread may add."""

    def __init__(self) -> None:
        self.hops = Histogram()  # hop, region
        self.requests = Counter()  # outcome
        self.refused = Counter()  # entries, by region and kind
        # By source, region, status and origin. One row for all that is counted of a task: it costs a look-up and a few additions.
        self._ended: dict[Labels, list[int]] = {}
        self._lock = threading.Lock()

    def ended(self, tasks: Iterable[Settlement]) -> None:
        """Counts tasks that have ended just now."""
        now_ms, rows = time.time_ns() / 1e6, self._ended
        with self._lock:
            for one in tasks:
                run, source, origin = one.run, one.source, one.origin
                if run is not None:
                    source, origin = source or run.source, origin or run.origin
                if one.status == "succeeded":
                    origin = ""  # of a failure in whose place an older answer came
                labels = (source, one.region, one.status, origin)
                row = rows.get(labels)
                if row is None:
                    row = rows.setdefault(labels if len(rows) < LABELS_MAX else (OTHER,) * 4, [0] * (_TOOK + CELLS))
                row[0] += 1
                if run is not None:
                    row[1] += run.raw_bytes
                    row[2] += run.received_bytes
                    row[3] += run.spared_bytes
                    row[4] += run.records_bytes
                    row[5] += run.wire_bytes
                observe(row, _TOOK, (now_ms - _made_ms(one.task, now_ms)) / 1000)

    def samples(self) -> Iterator["Sample"]:
        """All of it."""
        for name, counted in (
            ("nearfetch_hop_seconds", self.hops),
            ("nearfetch_requests_total", self.requests),
            ("nearfetch_entries_refused_total", self.refused),
        ):
            for labels, number in counted.counts():
                yield name, labels, number
        with self._lock:
            rows = [(labels, tuple(row)) for labels, row in self._ended.items()]
        took: dict[Labels, list[int]] = {}
        sizes: dict[Labels, int] = {}
        for (source, region, status, origin), row in rows:
            yield "nearfetch_results_total", (source, region, status, origin), row[0]
            for what, size in zip(BYTES, row[1:_TOOK], strict=True):
                if size:
                    sizes[source, region, what] = sizes.get((source, region, what), 0) + size
            before = took.get((region, status), [0] * CELLS)
            took[region, status] = [one + more for one, more in zip(before, row[_TOOK:], strict=True)]
        for labels, size in sizes.items():
            yield "nearfetch_source_bytes_total", labels, size
        for labels, cells in took.items():
            yield "nearfetch_task_seconds", labels, cells


def _made_ms(task: str, now_ms: float) -> float:
    try:
        return ids.made_ms(task)
    except ValueError:  # not an id of ours: a test's
        return now_ms
