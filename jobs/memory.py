"""The memory of a worker process, shared by its threads: a task waits for its share before it reads on, or parses.

    Runner.run → Budget.share        the thread's one share; given back when the task ends
      body.read, charset, page, …    reserve(bytes)     before the bytes are taken; may wait
      Runner._page                   keep(held)         after a page: what its tree took is given back

What a document will take is estimated from its bytes before it is read (jobs.page). Three things keep this from a
deadlock and small pages from waiting:

- Each thread has ``small_bytes`` of its own. Most pages need no more: they take no lock.
- What is above comes from the pool, as long as that lasts.
- Where the pool is used up, one task at a time is alone: it moves from the pool into a room of its own, which holds the
  most that any task may have. So whoever is alone never waits, and the others come after it in the order they asked.
"""

import ctypes
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

from jobs.errors import Cancelled, TimedOut, TooLarge

PROCESS_BYTES: Final = 100_000_000  # without pages: 62 MB idle, what waits for the disk and what heaps hold back
SPARE: Final = 1 / 6  # of all, for what the allocator holds back
SMALL_BYTES_MAX: Final = 500_000  # a page of 54 KB takes 440,000
POOL: Final = 1 / 8  # of what the threads' own parts leave
LOOK_SECONDS: Final = 0.1  # how late a cancel is noticed by who waits
TRIM_BYTES: Final = 4_000_000  # given back at once, is given back to the system too
# glibc keeps up to eight heaps a core, and grows what it holds back with what was ever freed: see mallopt(3).
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
ARENAS: Final = 4
KEPT_BYTES: Final = 4_000_000

Pause = Callable[[], AbstractContextManager[None]]

_here = threading.local()


class Share:
    """What one task holds. Only its own thread uses it."""

    def __init__(self, budget: "Budget", deadline: float, cancelled: Callable[[], bool]) -> None:
        """``deadline`` is on the monotonic clock."""
        self._budget = budget
        self.deadline = deadline
        self.cancelled = cancelled
        self.held = 0
        self.charged = 0  # of it, from the pool or, when alone, from the room
        self._inner = self._slack = 0

    def grow(self, size: int, what: str, pause: Pause = nullcontext) -> None:
        """Takes so many bytes more; waits in ``pause()`` where they are not there.

        Raises TooLarge where no task may have so much, TimedOut (origin region) at the deadline, and Cancelled.
        """
        size = self._reuse(size)
        if self.held + size > self._budget.small_bytes:
            self._budget.take(self, size, what, pause)
        self.held += size

    def grow_now(self, size: int) -> bool:
        """Takes so many bytes more where that needs no wait; whether it did."""
        size = self._reuse(size)
        if self.held + size > self._budget.small_bytes and not self._budget.take_now(self, size):
            self._slack = 0
            return False
        self.held += size
        return True

    def shrink(self, held: int) -> None:
        """Gives back all but so many bytes."""
        if self.held - held >= TRIM_BYTES:
            trim()  # before the next one, which may wait for just that, begins to take it
        self._inner = self._slack = 0
        self.held = held
        if self.charged:
            self._budget.give_back(self)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What is taken in here is for documents in the page, which are gone when the next ones are read."""
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
    """What all tasks of a process may hold together."""

    def __init__(self, memory_bytes: int, threads: int) -> None:
        """``memory_bytes`` are the whole process's."""
        room = int(memory_bytes * (1 - SPARE)) - PROCESS_BYTES
        self.small_bytes = min(SMALL_BYTES_MAX, room // 4 // threads)
        rest = room - self.small_bytes * threads
        self.pool_bytes = int(rest * POOL)
        self.task_bytes = rest - self.pool_bytes
        self._pooled = 0
        self._alone: Share | None = None
        self._waiting: deque[Share] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def share(self, deadline: float, cancelled: Callable[[], bool]) -> Iterator[Share]:
        """The calling thread's share until the end of the block. ``deadline`` is the task's, on the monotonic clock."""
        _here.share = share = Share(self, deadline, cancelled)
        try:
            yield share
        finally:
            _here.share = None
            share.shrink(0)

    def take_now(self, share: Share, size: int) -> bool:
        """Whether a share got so much more without waiting."""
        wanted = share.held + size - self.small_bytes
        with self._changed:
            return wanted <= self.task_bytes and self._may(share, wanted)

    def take(self, share: Share, size: int, what: str, pause: Pause) -> None:
        """Gives a share so much more, in its turn; raises as ``Share.grow`` does."""
        wanted = share.held + size - self.small_bytes
        if wanted > self.task_bytes:
            found = f"{what}, which would make it {_mb(share.held + size)}"
            most = _mb(self.task_bytes + self.small_bytes)
            raise TooLarge(f"expected a task that takes at most {most} of memory (workers.memory_mb), found {found}")
        with self._changed:
            if not self._waiting and self._may(share, wanted):
                return
        with pause(), self._changed:
            self._waiting.append(share)
            try:
                while not self._may(share, wanted):
                    _check(share, what)
                    self._changed.wait(LOOK_SECONDS)
            finally:
                self._waiting.remove(share)
                self._changed.notify_all()

    def give_back(self, share: Share) -> None:
        """Takes back what a share no longer holds; who is alone goes back to the pool when there is place."""
        wanted = max(share.held - self.small_bytes, 0)
        with self._changed:
            if share is not self._alone:
                self._pooled += wanted - share.charged
            elif self._pooled + wanted <= self.pool_bytes:
                self._alone = None
                self._pooled += wanted
            share.charged = wanted
            if self._waiting:
                self._changed.notify_all()

    def _may(self, share: Share, wanted: int) -> bool:
        """Charges a share so much where it may have it now."""
        pooled = self._pooled - share.charged
        if share is self._alone:
            pass
        elif pooled + wanted <= self.pool_bytes:
            self._pooled = pooled + wanted
        elif self._alone is None and (not self._waiting or self._waiting[0] is share):
            self._alone, self._pooled = share, pooled
        else:
            return False
        share.charged = wanted
        return True


def reserve(size: int, what: str, pause: Pause = nullcontext) -> None:
    """``Share.grow`` of this thread's share; nothing outside a task."""
    share: Share | None = getattr(_here, "share", None)
    if share is not None:
        share.grow(size, what, pause)


def reserve_now(size: int) -> bool:
    """``Share.grow_now`` of this thread's share; True outside a task."""
    share: Share | None = getattr(_here, "share", None)
    return share is None or share.grow_now(size)


def held() -> int:
    """What this thread's share holds."""
    share: Share | None = getattr(_here, "share", None)
    return share.held if share is not None else 0


def keep(size: int) -> None:
    """Gives back all but so many bytes of this thread's share."""
    share: Share | None = getattr(_here, "share", None)
    if share is not None:
        share.shrink(size)


def inside() -> AbstractContextManager[None]:
    """``Share.inside`` of this thread's share."""
    share: Share | None = getattr(_here, "share", None)
    return share.inside() if share is not None else nullcontext()


def rows_bytes(rows: Sequence[Any]) -> int:
    """About what rows take, by every twentieth of them."""
    return 20 * sum(map(_weight, rows[::20])) if len(rows) >= 20 else sum(map(_weight, rows[:1])) * len(rows)


def _weight(value: Any) -> int:
    """What a JSON value takes; what is shared counts each time."""
    size = sys.getsizeof(value)
    if type(value) is dict:
        return size + sum(map(_weight, value.values()))
    return size + sum(map(_weight, value)) if type(value) is list else size


def tune_allocator() -> None:
    """Makes glibc give back what is freed. Call it before threads start; elsewhere it does nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((M_ARENA_MAX, ARENAS), (M_MMAP_THRESHOLD, KEPT_BYTES), (M_TRIM_THRESHOLD, KEPT_BYTES)):
            mallopt(option, value)


def trim() -> None:
    """Gives the system back what is free in the middle of heaps (glibc)."""
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
