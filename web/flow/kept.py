"""Whether the hub has in its file what it accepted: a 202 waits for that.

Redis answers before it writes while an fsync is pending (``regions.durability``), and forgets that when it is killed. So what
is not known to be written is looked at again and again, together with whether the hub still knows of it: another one may be
there by now.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from regions import logs
from regions.durability import File
from web.hub.ledger import Ledger
from web.hub.redis import Hub, reason_of

# A Redis writes 2 s after its answer at the latest, or hangs in the write; its next tick may come 0.1 s later.
WRITE_SECONDS: Final = 3.0

log = logs.get("accept")


class Kept:
    """Whether the hub has in its file that it accepted a request: known at once, but for a slow disk."""

    def __init__(self, *, is_known: bool) -> None:
        self.is_known = is_known
        self.reason: str | None = None  # why it is not kept, once that is known
        self._calls: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def tell(self, reason: str | None) -> None:
        """None where it is kept."""
        with self._lock:
            self.is_known, self.reason = True, reason
            calls, self._calls = self._calls, []
        for call in calls:
            try:
                call()
            except Exception:
                log.exception("answering failed")

    def then(self, call: Callable[[], None]) -> None:
        """Calls when it is known: here and now, or on the accept's thread."""
        with self._lock:
            if not self.is_known:
                self._calls.append(call)
                return
        call()


class _One(Struct, frozen=True):
    """An accepted request; ``file`` as it was then, ``give_up`` in monotonic seconds."""

    request: str
    kept: Kept
    file: File
    give_up: float


class Unwritten:
    """Accepted requests that the hub may have in memory alone. For one thread."""

    def __init__(self, hub: Hub, ledger: Ledger) -> None:
        self._hub, self._ledger = hub, ledger
        self._waiting: list[_One] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request: str, kept: Kept, file: File) -> None:
        """One that was accepted just now."""
        self._waiting.append(_One(request, kept, file, time.monotonic() + WRITE_SECONDS))

    def look(self) -> None:
        """Asks whether the hub has written what it accepted, and is still the one that did; tells who waits.

        Of which requests it knows is asked only when they can be told something: many may wait, and looks are many.
        """
        waiting, self._waiting = self._waiting, []
        try:
            with self._hub.asking():
                _, file = self._ledger.accepted([])
                now = time.monotonic()
                due = [one for one in waiting if file.has(one.file) or now > one.give_up]
                answers, file = self._ledger.accepted([one.request for one in due]) if due else ([], file)
        except Exception as error:  # noqa: BLE001 - who waits is told, and this thread goes on
            reason = reason_of(error)
            for one in waiting:
                one.kept.tell(reason)
            return
        known = dict(zip((one.request for one in due), answers, strict=True))
        for one in waiting:
            if not known.get(one.request, True):
                one.kept.tell("the hub's Redis lost it")  # it was killed, and what started again does not know it
            elif one.request in known and file.has(one.file):
                one.kept.tell(None)
            elif now > one.give_up:
                one.kept.tell("the hub's Redis could not write it to its disk in time")
            else:
                self._waiting.append(one)
