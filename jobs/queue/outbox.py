"""Results on their way to the hub.

    worker ── finish ──> outbox (region's Redis)                     kept until the hub has it in its file
       └──── put ─────> Shipper ── one MULTI ──> hub ── reply, WAITAOF ──> deleted from the outbox
                        Leftovers: results that no process shipped within ORPHAN_SECONDS (of a dead process, or after an outage)

While the hub answers a batch, the next one forms. A single result waits only in a busy process, for a moment. After an outage several batches are sent at
once, since an ocean may lie in between. Sending a result twice is harmless: its key is written once, and readers of the out
stream ignore a repeat.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import redis

from jobs.contract import Outcome
from jobs.queue.home import Home, Shipment, Started
from jobs.queue.script import load
from regions import logs, names

BATCH_MAX_BYTES: Final = (
    1_000_000  # sent and not answered at once: as much as a slow line carries within the client's time-out
)
BATCH_MAX: Final = 256
FLYING_MAX: Final = 8  # unanswered batches at once, if there is much to ship
PART_BYTES: Final = 250_000  # of one of them
ORPHAN_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 1.0
PAGE: Final = 1_000  # entries of the outbox read at once, in few bytes: a frame can be 5 MB
TURN_MS: Final = 5_000
GATHER_SECONDS: Final = 0.01  # for which results of a busy process gather: each batch wakes half a dozen processes

log = logs.get("outbox")

ORPHANS: Final = load("orphans")


class Shipper:
    """Ships this process's results from memory, as soon as they are finished."""

    def __init__(self, home: Home, gathers: Callable[[], bool] = lambda: False) -> None:
        """``gathers`` says whether a result may wait a moment for others."""
        self._home, self._gathers = home, gathers
        self._shipments: deque[Shipment] = deque()
        self._started: list[Started] = []
        self._news = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self.run, name="shipper", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def put(self, shipments: Sequence[Shipment]) -> None:
        """Hands over finished results; never waits for the hub."""
        with self._news:
            self._shipments.extend(shipments)
            self._news.notify()

    def tell(self, started: Sequence[Started]) -> None:
        """Reports what runs, with the next batch. The report is lost if the hub is away."""
        with self._news:
            self._started = list(started)
            self._news.notify()

    def stop(self, seconds: float) -> None:
        """Ships what is left, for up to ``seconds``; the rest stays in the outbox for others."""
        with self._news:
            self._stopping = True
            self._news.notify()
        began = time.monotonic()
        self._thread.join(seconds)
        self._home.stop(max(0.0, seconds - time.monotonic() + began))

    def run(self) -> None:
        """Ships until it was stopped and nothing is left."""
        while self.run_once():
            pass

    def run_once(self) -> bool:
        """Ships one batch. False when it was stopped and nothing is left."""
        shipments, started = self._take()
        if not shipments and not started:
            return not self._stopping
        if self._home.post(shipments, started):
            return True
        self._keep(shipments)
        time.sleep(self._home.backoff_seconds)
        return not self._stopping

    def _take(self) -> tuple[list[Shipment], list[Started]]:
        with self._news:
            self._news.wait_for(lambda: self._shipments or self._started or self._stopping)
        if self._gathers():
            time.sleep(GATHER_SECONDS)
        with self._news:
            started, self._started = self._started, []
            return _batch(self._shipments, BATCH_MAX_BYTES), started

    def _keep(self, shipments: list[Shipment]) -> None:
        """Keeps the young ones in memory for the next try. Older ones are orphans by now, which other processes ship, too."""
        oldest = time.monotonic() - ORPHAN_SECONDS
        with self._news:
            self._shipments.extendleft(shipment for shipment in reversed(shipments) if shipment.since > oldest)


class Leftovers:
    """Ships what no process shipped. All processes look every second while the outbox holds anything; one at a time ships."""

    def __init__(self, client: redis.Redis, home: Home, worker: str) -> None:
        self._client, self._home, self._worker = client, home, worker
        self._stopping = False
        self._news = threading.Condition()
        self._may_be_left = True  # something may lie in the outbox
        self._thread = threading.Thread(target=self.run, name="leftovers", daemon=True)
        self._found: deque[Shipment] = deque()
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
            pause = self._home.backoff_seconds or (0.0 if more else LOOK_SECONDS)

    def _is_due(self, pause: float) -> bool:
        """Waits, also until something may be left; False when it is stopped."""
        with self._news:
            self._news.wait_for(lambda: self._stopping, pause)
            self._news.wait_for(lambda: self._stopping or self._may_be_left)
            return not self._stopping

    def run_once(self) -> bool:
        """Sends orphans while few bytes are unanswered, and reads one reply. Returns whether there may be more."""
        try:
            while self._home.flying < FLYING_MAX and self._home.flying_bytes + PART_BYTES <= BATCH_MAX_BYTES:
                shipments = self._next()
                if shipments and not self._home.begin(shipments):
                    self._begin_anew()
                    return False
                if not shipments:
                    break
        except redis.exceptions.RedisError as error:
            log.info("can't look for left results", error=str(error))
            self._begin_anew()
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
