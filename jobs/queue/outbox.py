"""Results on their way to the hub.

    worker ── finish ──> outbox (region's Redis)                     kept until the hub has it in its file
       └──── put ─────> Shipper ── one MULTI ──> hub ── reply, WAITAOF ──> deleted from the outbox
                        Leftovers: results that no process shipped within ORPHAN_SECONDS (of a dead process, or after an outage)

While a near hub answers a batch, the next one forms. The answers of a far hub are not waited for: a batch leaves every few
milliseconds. A single result waits only in a busy process, for a moment; otherwise the thread that finished it sends it, so
that the Shipper's thread need not wake first. Sending a result twice is harmless: its key is written once, and readers of the out stream
ignore a repeat.
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import redis

from jobs.contract import Outcome
from jobs.queue.clock import TURN_MS
from jobs.queue.home import Home, Shipment, Started
from jobs.queue.script import load
from regions import logs, names

BATCH_MAX_BYTES: Final = 1_000_000  # of a batch: as much as a slow line carries within the client's time-out
BATCH_MAX: Final = 256
PACE_SECONDS: Final = 0.003  # between two batches while one is unanswered: a near hub has answered by then
FLYING_BYTES: Final = 4_000_000  # unanswered at once: what 150 Mbit/s carry in 220 ms
OWN_FLYING_MAX: Final = 128  # unanswered batches of a process's own results; across 400 ms one leaves every 3 ms
OPEN_SECONDS: Final = 4.0  # for the connections of a new process to the hub, until it claims without them
FLYING_MAX: Final = 16  # unanswered batches of orphans at once
PART_BYTES: Final = 250_000  # of one of them
ORPHAN_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 1.0
PAGE: Final = 1_000  # entries of the outbox read at once, in few bytes: a frame can be 5 MB
AT_ONCE_BYTES: Final = 16_000  # of frames: an idle connection takes them without a wait
GATHER_SECONDS: Final = 0.01  # for which results of a busy process gather: each batch wakes half a dozen processes

log = logs.get("outbox")

ORPHANS: Final = load("orphans")


class Shipper:
    """Ships this process's results from memory, as soon as they are finished."""

    def __init__(
        self,
        home: Home,
        gathers: Callable[[], bool] = lambda: False,
        shipped: Callable[[float], None] = lambda _: None,
    ) -> None:
        """``gathers`` says whether a result may wait a moment for others. ``shipped`` is told how many seconds each took."""
        self._home, self._gathers, self._shipped = home, gathers, shipped
        self._shipments: deque[Shipment] = deque()
        self._started: list[Started] = []
        self._flying: deque[list[Shipment]] = deque()  # sent and not answered
        self._sent = 0.0  # when the last batch left (monotonic)
        self._waits = False  # the thread uses the way home only to wait: ``put`` may send
        self._lock = threading.Lock()
        self._news = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._has_tried = threading.Event()  # to open the way home
        self._thread = threading.Thread(target=self.run, name="shipper", daemon=True)

    def start(self) -> None:
        """Starts the thread, and waits until the way home is open, so that the first result need not; not for long."""
        self._thread.start()
        self._has_tried.wait(OPEN_SECONDS)

    def put(self, shipments: Sequence[Shipment]) -> None:
        """Hands over finished results, or sends them if they are few bytes and nothing is unanswered; never waits for the hub."""
        with self._lock:
            self._shipments.extend(shipments)
            is_small = sum(len(one.outcome.frame) for one in self._shipments) <= AT_ONCE_BYTES
            if self._waits and self._shipments and is_small and not self._gathers() and self._home.is_at_hand:
                batch = _batch(self._shipments, AT_ONCE_BYTES)
                if self._home.begin(batch):
                    self._flew(batch)
                else:
                    self._shipments.extendleft(reversed(batch))
        os.eventfd_write(self._news, 1)

    def tell(self, started: Sequence[Started]) -> None:
        """Reports what runs, with the next batch. The report is lost if the hub is away."""
        with self._lock:
            self._started = list(started)
        os.eventfd_write(self._news, 1)

    def stop(self, seconds: float) -> None:
        """Ships what is left, for up to ``seconds``; the rest stays in the outbox for others."""
        self._stopping = True
        os.eventfd_write(self._news, 1)
        began = time.monotonic()
        self._thread.join(seconds)
        self._home.stop(max(0.0, seconds - time.monotonic() + began))

    def run(self) -> None:
        """Ships until it was stopped and nothing is left."""
        while self.run_once():
            pass

    def run_once(self) -> bool:
        """Sends a batch that may leave; else waits, and reads a reply. False when it was stopped and nothing is left."""
        leaves_at = self._leaves_at()
        if leaves_at <= time.monotonic():
            shipments, started = self._take()
            if not self._home.begin(shipments, started):
                return self._lose(shipments)
            self._flew(shipments)
            return True
        if self._stopping and leaves_at == math.inf and not self._flying:
            return False
        if not self._flying and not self._home.prepare():
            leaves_at = min(leaves_at, time.monotonic() + self._home.backoff_seconds)
        self._has_tried.set()
        if self._wait(leaves_at):
            if not self._home.end():
                return self._lose([])
            now = time.monotonic()
            for one in self._flying.popleft():
                self._shipped(now - one.since)
        return True

    def _flew(self, batch: list[Shipment]) -> None:
        self._flying.append(batch)
        self._sent = time.monotonic()

    def _wait(self, until: float) -> bool:
        """As ``Home.wait``; ``put`` may send meanwhile."""
        with self._lock:
            self._waits = True
        try:
            return self._home.wait(self._news, until)
        finally:
            with self._lock:
                self._waits = False

    def _leaves_at(self) -> float:
        """When the next batch may leave (monotonic): never while there is none, or too much is unanswered."""
        with self._lock:
            first = len(self._shipments[0].outcome.frame) if self._shipments else 0
            if not self._shipments and not self._started:
                return math.inf
        if not self._flying:
            return 0.0
        has_room = len(self._flying) < OWN_FLYING_MAX and self._home.flying_bytes + first <= FLYING_BYTES
        return self._sent + PACE_SECONDS if has_room else math.inf

    def _take(self) -> tuple[list[Shipment], list[Started]]:
        if self._gathers():
            time.sleep(GATHER_SECONDS)
        with self._lock:
            started, self._started = self._started, []
            return _batch(self._shipments, min(BATCH_MAX_BYTES, FLYING_BYTES - self._home.flying_bytes)), started

    def _lose(self, shipments: list[Shipment]) -> bool:
        """The hub is away: keeps what has no answer, and waits. False when it was stopped.

        Only young results are kept in memory. Older ones are orphans by now, which other processes ship, too.
        """
        oldest = time.monotonic() - ORPHAN_SECONDS
        lost = [shipment for batch in (*self._flying, shipments) for shipment in batch if shipment.since > oldest]
        self._flying.clear()
        with self._lock:
            self._shipments.extendleft(reversed(lost))
        time.sleep(self._home.backoff_seconds)
        return not self._stopping


class Leftovers:
    """Ships what no process shipped. All processes look every second while the outbox holds anything; one at a time ships."""

    def __init__(self, client: redis.Redis, home: Home, worker: str) -> None:
        self._client, self._home, self._worker = client, home, worker
        self._stopping = False
        self._news = threading.Condition()
        self._may_be_left = True  # something may lie in the outbox
        self._thread = threading.Thread(target=self.run, name="leftovers", daemon=True)
        self._found: deque[Shipment] = deque()
        self._once = logs.Once()
        self._from = "-"  # where in the outbox it goes on: what it has sent lies there until the hub has it in its file

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the batch that is being sent."""
        with self._news:
            self._stopping = True
            self._news.notify()

    def see(self, *, has_left: bool) -> None:
        """The claim loop's look found the outbox like this. Call it once a second: nothing is looked for in an empty one."""
        if has_left and not self._may_be_left:
            with self._news:
                self._may_be_left = True
                self._news.notify()
        elif not has_left:
            self._may_be_left = False

    def run(self) -> None:
        """Looks until it is stopped."""
        pause = 0.0
        while self._is_due(pause):
            more = self.run_once()
            # Only one process of a region sends these at a time, so it may come back sooner than senders that all come at once.
            pause = min(self._home.backoff_seconds, LOOK_SECONDS) or (0.0 if more else LOOK_SECONDS)

    def _is_due(self, pause: float) -> bool:
        """Waits, also until something may be left; False when it is stopped."""
        with self._news:
            self._news.wait_for(lambda: self._stopping, pause)
            self._news.wait_for(lambda: self._stopping or self._may_be_left)
            return not self._stopping

    def run_once(self) -> bool:
        """Sends orphans while few bytes are unanswered, and reads one reply. Returns whether there may be more."""
        self._once.flush()
        try:
            while self._home.flying < FLYING_MAX and self._home.flying_bytes + PART_BYTES <= FLYING_BYTES:
                shipments = self._next()
                if shipments and not self._home.begin(shipments):
                    self._begin_anew()
                    return False
                if not shipments:
                    break
        except redis.exceptions.RedisError as error:
            self._once.tell("look", log.info, f"can't look for left results: {error}")
        if not self._home.flying:
            if self._home.is_clear:
                self._begin_anew()
            return False
        if not self._home.end():
            self._begin_anew()
            return False
        return True

    def _begin_anew(self) -> None:
        """Forgets what was found: another process may have sent it by the next try."""
        self._found.clear()
        self._from = "-"

    def _next(self) -> list[Shipment]:
        """The next batch; empty if there are no more."""
        if not self._found:
            self._found.extend(self._orphans())
        if self._found:
            self._from = f"({self._found[-1].entry}"
        return _batch(self._found, PART_BYTES)

    def _orphans(self) -> list[Shipment]:
        found = ORPHANS.call(
            self._client,
            outbox=names.OUTBOX,
            turn=names.OUTBOX_TURN,
            worker=self._worker,
            age_ms=int(ORPHAN_SECONDS * 1000),
            most=PAGE,
            turn_ms=TURN_MS,
            after=self._from,
            bytes_max=BATCH_MAX_BYTES,
        )
        return [_shipment(entry.decode(), fields) for entry, fields in found]


def _shipment(entry: str, pairs: list[bytes]) -> Shipment:
    fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
    outcome = Outcome(
        request=fields[b"q"].decode(),
        task=fields[b"t"].decode(),
        status=fields[b"s"].decode(),
        finished_ms=int(fields[b"f"]),
        expires_ms=int(fields[b"x"]),
        frame=fields[b"r"],
        trail=fields.get(b"h", b""),
    )
    return Shipment(entry, outcome, int(fields[b"b"]))


def _batch(shipments: deque[Shipment], bytes_max: int) -> list[Shipment]:
    """Takes from the left what fits into one MULTI, at least one if there is any."""
    batch: list[Shipment] = []
    size = 0
    while shipments and len(batch) < BATCH_MAX and (not batch or size + len(shipments[0].outcome.frame) <= bytes_max):
        shipment = shipments.popleft()
        size += len(shipment.outcome.frame)
        batch.append(shipment)
    return batch
