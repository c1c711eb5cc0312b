"""What a worker process did, as integers in a page of memory that it shares with its pool.

The pool makes the pages, one for each place of a process, and reads them when somebody asks. A process adds to its page where tasks
end, under the lock by which they end anyway. The page outlives the process, and the next process of the place goes on with it: nothing is
lost by a death, and nothing has to be cleaned up.
"""

import fcntl
import mmap
import os
from array import array
from collections.abc import Sequence
from typing import Final

from jobs import errors
from jobs.queue.claim import Ending, Job
from regions.counts import CELLS, observe

PAGE: Final = mmap.PAGESIZE
HOPS: Final = ("claim", "turn", "fetch", "parse", "ship")
OUTCOMES: Final = ("succeeded", *errors.TYPES)
BYTES: Final = ("raw", "home")

# Where in its page each is.
_HOP: Final = {hop: CELLS * number for number, hop in enumerate(HOPS)}
_OUTCOME: Final = {outcome: CELLS * len(HOPS) + number for number, outcome in enumerate(OUTCOMES)}
_RETRIES: Final = CELLS * len(HOPS) + len(OUTCOMES)
_BYTES: Final = _RETRIES + 1
_END: Final = _BYTES + len(BYTES)
assert _END * 8 <= PAGE
_CLAIM, _TURN, _FETCH, _PARSE, _SHIP = (_HOP[hop] for hop in HOPS)


class Meter:
    """One process's counts. ``ended`` is for one thread at a time, ``shipped`` for another one."""

    def __init__(self, page: tuple[int, int] | None = None) -> None:
        """``page``: the descriptor of the pool's memory and the number of this process's page; without it, nobody reads the counts."""
        self._row: list[int] | memoryview = [0] * _END
        if page is not None:
            descriptor, number = page
            self._row = memoryview(mmap.mmap(descriptor, PAGE, offset=number * PAGE)).cast("Q")

    def ended(self, job: Job, ending: Ending) -> None:
        """An attempt has ended."""
        row, run = self._row, ending.outcome.run
        if job.bridged_ms and job.offset_ms is not None:
            observe(row, _CLAIM, (job.claimed_ms + job.offset_ms - job.bridged_ms - job.turn_ms) / 1000)
        timing = ending.timing
        if timing is not None:
            if timing.turn_ms:
                observe(row, _TURN, timing.turn_ms / 1000)
            observe(row, _FETCH, timing.fetch_ms / 1000)
            observe(row, _PARSE, timing.parse_ms / 1000)
        if ending.retry is not None:
            row[_RETRIES] += 1
            outcome = ending.retry.error
        elif ending.outcome.status == "succeeded":
            outcome = "succeeded"
        else:
            outcome = run.error if run is not None else ""
        row[_OUTCOME.get(outcome, _OUTCOME["internal"])] += 1
        row[_BYTES] += ending.raw_bytes
        row[_BYTES + 1] += ending.wire_bytes

    def shipped(self, seconds: float) -> None:
        """The hub has a result, this long after its task ended."""
        observe(self._row, _SHIP, seconds)


class Pages:
    """The pool's side: memory for the counts of its processes, and their sums."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("nearfetch-meters", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # authors' code runs in the processes
        self._free: list[int] = []
        self._count = 0

    def take(self) -> int:
        """The number of a page that no living process has."""
        if self._free:
            return self._free.pop()
        os.ftruncate(self.descriptor, (self._count + 1) * PAGE)
        self._count += 1
        return self._count - 1

    def give_back(self, number: int) -> None:
        """The page's process has ended."""
        self._free.append(number)

    def sums(self) -> "Sums":
        """The sums of all pages."""
        cells = array("Q", os.pread(self.descriptor, self._count * PAGE, 0))
        each = PAGE // 8
        row = [sum(cells[at::each]) for at in range(_END)] if cells else [0] * _END
        return Sums(row)


class Sums:
    """What all processes of a pool did, those that have ended included."""

    def __init__(self, row: Sequence[int]) -> None:
        self.hops = {hop: row[at : at + CELLS] for hop, at in _HOP.items()}
        self.outcomes = {outcome: row[at] for outcome, at in _OUTCOME.items()}
        self.retries = row[_RETRIES]
        self.bytes = dict(zip(BYTES, row[_BYTES:_END], strict=True))
