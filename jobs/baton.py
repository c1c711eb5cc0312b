"""One thread of a process parses at a time: Python runs one thread at a time anyway, and changing threads is not free.

lxml gives the interpreter away for each XPath, and where others wait for it, it comes back late: 64 threads that parsed pages
of 54 kB changed 60 to 250 times a page, and took half as much CPU again as one thread.

Who keeps the baton for long (a large page, one that waits for memory, an author's code that does not end) is left behind
with it: the others take a new one. So nobody can wait for somebody who waits for them.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LONG_SECONDS: Final = 0.1
RECENT_SECONDS: Final = 0.02


class Baton:
    """The baton of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken_at = 0.0
        self._waiting: dict[int, None] = {}  # threads, by their ids
        self._waited_at = -RECENT_SECONDS

    @property
    def is_wanted(self) -> bool:
        """Whether threads wait for it, or did a moment ago: there is more to do than the process can."""
        return bool(self._waiting) or time.monotonic() - self._waited_at < RECENT_SECONDS

    @contextmanager
    def carried(self) -> Iterator[None]:
        """In here the calling thread has the baton."""
        lock = self._lock
        if not lock.acquire(blocking=False):
            lock = self._waited_for()
        self._taken_at = time.monotonic()
        try:
            yield
        finally:
            lock.release()

    def _waited_for(self) -> threading.Lock:
        me = threading.get_ident()
        self._waiting[me] = None
        while True:
            lock = self._lock
            if not lock.acquire(timeout=LONG_SECONDS):
                # Several may do so at once: then there are more batons than one for a moment, which hurts nobody.
                if lock is self._lock and time.monotonic() - self._taken_at >= LONG_SECONDS:
                    self._lock = threading.Lock()
            elif lock is self._lock:
                del self._waiting[me]
                self._waited_at = time.monotonic()
                return lock
            else:
                lock.release()  # it was left behind meanwhile
