"""Counts what a process has done, in plain integers. Code that a task passes adds to them; a scrape reads them.

    observe        adds a duration to a histogram, which is a few cells of a row of integers
    Counter        numbers by label values; any thread adds
    Histogram      histograms of durations by label values; any thread adds

regions.metrics turns them into the text that Prometheus reads. Nothing here imports its client, so worker processes need none.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

# Upper bounds of a histogram's buckets, in seconds: from a hop on one machine to a deadline.
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
CELLS: Final = len(BUCKETS) + 2  # observations in each bucket, and beyond all of them; then their sum in µs
LABELS_MAX: Final = 10_000  # of one counter; what comes later counts under OTHER
OTHER: Final = "other"

Labels = tuple[str, ...]


def observe(row: list[int] | memoryview, at: int, seconds: float) -> None:
    """Adds a duration to the histogram whose cells begin ``at`` this place of a row. Only one thread at a time may."""
    row[at + bisect_left(BUCKETS, seconds)] += 1
    if seconds > 0:  # else clocks of two machines were compared
        row[at + CELLS - 1] += int(seconds * 1e6)


class Counter:
    """Numbers by label values. Any thread may add."""

    def __init__(self) -> None:
        self._counts: dict[Labels, int] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, count: int = 1) -> None:
        """Adds to the number with these label values."""
        self.add_all([(labels, count)])

    def add_all(self, counts: Iterable[tuple[Labels, int]]) -> None:
        """Adds several numbers at once."""
        with self._lock:
            for labels, count in counts:
                found = self._counts.get(labels)
                if found is None and len(self._counts) >= LABELS_MAX:
                    labels = (OTHER,) * len(labels)  # noqa: PLW2901
                    found = self._counts.get(labels)
                self._counts[labels] = (found or 0) + count

    def counts(self) -> list[tuple[Labels, int]]:
        """All numbers, with their label values."""
        with self._lock:
            return list(self._counts.items())


class Histogram:
    """Histograms of durations by label values. Any thread may add."""

    def __init__(self) -> None:
        self._rows: dict[Labels, list[int]] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, seconds: float) -> None:
        """Adds a duration."""
        self.add_all([(labels, seconds)])

    def add_all(self, durations: Iterable[tuple[Labels, float]]) -> None:
        """Adds several durations at once, in seconds."""
        with self._lock:
            for labels, seconds in durations:
                row = self._rows.get(labels)
                if row is None:
                    if len(self._rows) >= LABELS_MAX // CELLS:
                        labels = (OTHER,) * len(labels)  # noqa: PLW2901
                    row = self._rows.setdefault(labels, [0] * CELLS)
                observe(row, 0, seconds)

    def counts(self) -> list[tuple[Labels, Sequence[int]]]:
        """The cells of all histograms, with their label values."""
        with self._lock:
            return [(labels, tuple(row)) for labels, row in self._rows.items()]
