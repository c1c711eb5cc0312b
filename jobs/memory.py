"""Shares the memory of a worker process among its threads: a task waits for memory before it reads on, or parses.

    Runner.run → Budget.share        the thread's one share; given back when the task ends
      body.read, charset, page, …    reserve(bytes)     before the bytes are used; may wait
      Runner._page                   keep(held)         after a page: gives back the memory of its tree

The memory for a document is estimated from its bytes before it is parsed (jobs.page). Three rules prevent deadlocks, and keep
small pages from waiting:

- Each thread has ``small_bytes`` of its own. Most pages need no more, and take no lock.
- Anything above comes from the pool, while that lasts.
- When the pool is used up, one task at a time becomes the exclusive one: it leaves the pool for a part that is as large as the
  largest task allowed. So the exclusive task never waits. The others wait in the order in which they asked.
"""

import ctypes
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

from jobs.blocked import blocked
from jobs.errors import Cancelled, TimedOut, TooLarge

PROCESS_BYTES: Final = 100_000_000  # of a process without pages: 62 MB idle, data that waits for the disk, unused heap
SPARE: Final = 1 / 6  # of all memory, for what the allocator does not give back
SMALL_BYTES_MAX: Final = 500_000  # a page of 54 KB takes 440,000
POOL: Final = 1 / 8  # of the memory beyond the threads' own parts
CANCEL_CHECK_SECONDS: Final = 0.1  # a waiting task checks this often whether it was cancelled
TRIM_BYTES: Final = 4_000_000  # a share that shrinks by this much is returned to the system
# glibc keeps up to eight heaps per core, and keeps more free memory the larger the freed blocks were: see mallopt(3).
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
ARENAS: Final = 4
KEPT_BYTES: Final = 4_000_000

Pause = Callable[[], AbstractContextManager[None]]

_here = threading.local()


class Share:
    """The memory that one task holds. Only its own thread uses it."""

    def __init__(self, budget: "Budget", deadline: float, cancelled: Callable[[], bool]) -> None:
        """``deadline`` is on the monotonic clock."""
        self._budget = budget
        self.deadline = deadline
        self.cancelled = cancelled
        self.held = 0
        self.charged = 0  # bytes of it that come from the pool, or from the exclusive part
        self._inner = self._slack = 0

    def grow(self, size: int, what: str, pause: Pause = nullcontext) -> None:
        """Takes ``size`` more bytes. Waits inside ``pause()`` until they are free.

        Raises TooLarge if no task may hold so much, TimedOut (origin region) at the deadline, and Cancelled.
        """
        size = self._reuse(size)
        if self.held + size > self._budget.small_bytes:
            self._budget.take(self, size, what, pause)
        self.held += size

    def grow_now(self, size: int) -> bool:
        """Takes ``size`` more bytes if they are free now. Returns whether it did."""
        size = self._reuse(size)
        if self.held + size > self._budget.small_bytes and not self._budget.take_now(self, size):
            self._slack = 0
            return False
        self.held += size
        return True

    def shrink(self, held: int) -> None:
        """Gives back all but ``held`` bytes."""
        if self.held - held >= TRIM_BYTES:
            trim()  # first, since a waiting task takes the memory at once
        self._inner = self._slack = 0
        self.held = held
        if self.charged:
            self._budget.give_back(self)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Memory taken inside is for documents within the page. The next ones reuse it, since the earlier ones are gone by then."""
        before, self._slack = self.held, self._inner
        try:
            yield
        finally:
            self._slack = 0
            self._inner += self.held - before

    def _reuse(self, size: int) -> int:
        used = min(self._slack, size)
        self._slack -= used
        return size - used


class Budget:
    """The memory that all tasks of a process may hold together."""

    def __init__(self, memory_bytes: int, threads: int) -> None:
        """``memory_bytes`` is that of the whole process."""
        room = int(memory_bytes * (1 - SPARE)) - PROCESS_BYTES
        self.small_bytes = min(SMALL_BYTES_MAX, room // 4 // threads)
        rest = room - self.small_bytes * threads
        self.pool_bytes = int(rest * POOL)
        self.task_bytes = rest - self.pool_bytes
        self._pooled = 0
        self._exclusive: Share | None = None
        self._waiting: deque[Share] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def share(self, deadline: float, cancelled: Callable[[], bool]) -> Iterator[Share]:
        """The calling thread's share, until the end of the block. ``deadline`` is the task's, on the monotonic clock."""
        _here.share = share = Share(self, deadline, cancelled)
        try:
            yield share
        finally:
            _here.share = None
            share.shrink(0)

    def take_now(self, share: Share, size: int) -> bool:
        """Gives a share ``size`` more bytes if they are free now. Returns whether it did."""
        wanted = share.held + size - self.small_bytes
        with self._changed:
            return wanted <= self.task_bytes and self._may(share, wanted)

    def take(self, share: Share, size: int, what: str, pause: Pause) -> None:
        """Gives a share ``size`` more bytes, in its turn. Raises the errors of ``Share.grow``."""
        wanted = share.held + size - self.small_bytes
        if wanted > self.task_bytes:
            found = f"{what}, which would make it {_mb(share.held + size)}"
            most = _mb(self.task_bytes + self.small_bytes)
            raise TooLarge(f"expected a task that takes at most {most} of memory (workers.memory_mb), found {found}")
        with self._changed:
            if not self._waiting and self._may(share, wanted):
                return
        with pause(), blocked(), self._changed:
            self._waiting.append(share)
            try:
                while not self._may(share, wanted):
                    _check(share, what)
                    self._changed.wait(CANCEL_CHECK_SECONDS)
            finally:
                self._waiting.remove(share)
                self._changed.notify_all()

    def give_back(self, share: Share) -> None:
        """Takes back the memory that a share no longer holds. The exclusive task returns to the pool if it fits."""
        wanted = max(share.held - self.small_bytes, 0)
        with self._changed:
            if share is not self._exclusive:
                self._pooled += wanted - share.charged
            elif self._pooled + wanted <= self.pool_bytes:
                self._exclusive = None
                self._pooled += wanted
            share.charged = wanted
            if self._waiting:
                self._changed.notify_all()

    def _may(self, share: Share, wanted: int) -> bool:
        """Charges a share ``wanted`` bytes if it may have them now. Returns whether it did."""
        pooled = self._pooled - share.charged
        if share is self._exclusive:
            pass
        elif pooled + wanted <= self.pool_bytes:
            self._pooled = pooled + wanted
        elif self._exclusive is None and (not self._waiting or self._waiting[0] is share):
            self._exclusive, self._pooled = share, pooled
        else:
            return False
        share.charged = wanted
        return True


def reserve(size: int, what: str, pause: Pause = nullcontext) -> None:
    """``Share.grow`` of this thread's share. Does nothing outside a task."""
    share: Share | None = getattr(_here, "share", None)
    if share is not None:
        share.grow(size, what, pause)


def reserve_now(size: int) -> bool:
    """``Share.grow_now`` of this thread's share; True outside a task."""
    share: Share | None = getattr(_here, "share", None)
    return share is None or share.grow_now(size)


def held() -> int:
    """The bytes that this thread's share holds."""
    share: Share | None = getattr(_here, "share", None)
    return share.held if share is not None else 0


def keep(size: int) -> None:
    """Gives back all but ``size`` bytes of this thread's share."""
    share: Share | None = getattr(_here, "share", None)
    if share is not None:
        share.shrink(size)


def inside() -> AbstractContextManager[None]:
    """``Share.inside`` of this thread's share."""
    share: Share | None = getattr(_here, "share", None)
    return share.inside() if share is not None else nullcontext()


def rows_bytes(rows: Sequence[Any]) -> int:
    """About the memory that rows take, judged by every twentieth."""
    return 20 * sum(map(_weight, rows[::20])) if len(rows) >= 20 else sum(map(_weight, rows[:1])) * len(rows)


def _weight(value: Any) -> int:
    """The memory of a JSON value. Shared parts count each time."""
    size = sys.getsizeof(value)
    if type(value) is dict:
        return size + sum(map(_weight, value.values()))
    return size + sum(map(_weight, value)) if type(value) is list else size


def tune_allocator() -> None:
    """Makes glibc return freed memory. Call it before threads start. It does nothing on other systems."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((M_ARENA_MAX, ARENAS), (M_MMAP_THRESHOLD, KEPT_BYTES), (M_TRIM_THRESHOLD, KEPT_BYTES)):
            mallopt(option, value)


def trim() -> None:
    """Returns free memory inside heaps to the system (glibc only)."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def _check(share: Share, what: str) -> None:
    if share.cancelled():
        raise Cancelled("cancelled while it waited for memory")
    if time.monotonic() >= share.deadline:
        message = f"expected memory for {what} before the deadline, found it taken by other tasks of the process"
        raise TimedOut(message, origin="region")


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
