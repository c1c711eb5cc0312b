"""Waits until the hub has an accepted request in its file; only then may a 202 be sent.

While an fsync is pending, Redis answers before it writes (``regions.durability``), and forgets that when it is killed. So the
hub is asked again and again how far it has written, and whether it still has the request: it may have been restarted.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from regions import durability, logs
from regions.durability import File
from regions.script import send, value
from web.hub.ledger import Ledger
from web.hub.redis import Hub, reason_of

# A Redis writes at the latest 2 s after its answer, or hangs in the write; its next tick may come 0.1 s later.
WRITE_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 0.05  # between two questions of a thread that waits for the file

log = logs.get("accept")


def is_written(hub: Hub, then: File, stopping: threading.Event) -> bool:
    """Waits until the hub's file holds what it had done at ``then``; False when the thread was stopped first.

    It is called before the history or a webhook gets something: a hub that is killed must not forget what they know.
    """
    now, since = then, None
    while not now.has(since):
        if stopping.wait(LOOK_SECONDS):
            return False
        with hub.asking() as client:
            (info,) = send(client, [durability.LOOK], [])
        now, since = durability.file_of(value(info)), then
    return True


class Kept:
    """Whether the hub has an accepted request in its file. That is known at once, unless the disk is slow."""

    def __init__(self, *, is_known: bool) -> None:
        self.is_known = is_known
        self.reason: str | None = None  # why it is lost, if it is
        self._calls: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def end(self, reason: str | None) -> None:
        """Notes that the request is kept (``reason`` is None), or why it is lost, and makes the calls that wait for that."""
        with self._lock:
            self.is_known, self.reason = True, reason
            calls, self._calls = self._calls, []
        for call in calls:
            try:
                call()
            except Exception:
                log.exception("answering failed")

    def then(self, call: Callable[[], None]) -> None:
        """Calls ``call`` when it is known: at once, or later on the accept's thread."""
        with self._lock:
            if not self.is_known:
                self._calls.append(call)
                return
        call()


class _One(Struct, frozen=True):
    """An accepted request; ``file`` as it was at the accept, ``give_up`` in monotonic seconds."""

    request: str
    kept: Kept
    file: File
    give_up: float


class Unwritten:
    """Accepted requests that the hub may hold only in memory. For one thread."""

    def __init__(self, hub: Hub, ledger: Ledger) -> None:
        self._hub, self._ledger = hub, ledger
        self._waiting: list[_One] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request: str, kept: Kept, file: File) -> None:
        """Adds a request that was accepted just now."""
        self._waiting.append(_One(request, kept, file, time.monotonic() + WRITE_SECONDS))

    def look(self) -> None:
        """Asks once how far the hub has written, and ends those requests whose outcome is then known.

        Only before the end it asks whether the hub still has a request, since many requests may wait for many looks.
        """
        waiting, self._waiting = self._waiting, []
        try:
            with self._hub.asking():
                _, file = self._ledger.accepted([])
                now = time.monotonic()
                due = [one for one in waiting if file.has(one.file) or now > one.give_up]
                answers, file = self._ledger.accepted([one.request for one in due]) if due else ([], file)
        except Exception as error:  # noqa: BLE001 - all waiting requests end, and this thread goes on
            reason = reason_of(error)
            for one in waiting:
                one.kept.end(reason)
            return
        are_there = dict(zip((one.request for one in due), answers, strict=True))
        for one in waiting:
            if not are_there.get(one.request, True):
                one.kept.end("the hub's Redis lost it")  # it was killed, and started again without it
            elif one.request in are_there and file.has(one.file):
                one.kept.end(None)
            elif now > one.give_up:
                one.kept.end("the hub's Redis could not write it to its disk in time")
            else:
                self._waiting.append(one)
