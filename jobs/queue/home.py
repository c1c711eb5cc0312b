"""The way from a region to the hub: results are sent, and deleted from the outbox once the hub has them in its file.

begin ── MULTI: SET … NX, XADD ──> hub ── EXEC's reply ── end        on one connection
run_once ── SET, WAITAOF ────────> hub ── delete ──> outbox          on another, since a connection that waits takes no results

WAITAOF counts the writes of its own connection, so a fence is written before it. Both connections are open before the first
result is sent, and are given up together: a process that answers the fence has all that was taken before.

Across an ocean a reply takes one round trip, a new connection takes several, and an idle connection is slow at first (TCP's window). So
several batches may be unanswered, all on one connection, and both connections are open before the first result.
"""

import math
import os
import select
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import redis
from msgspec import Struct

from jobs.contract import VERSION, Outcome
from jobs.queue.script import load
from regions import connect, logs, names
from regions.link import Link
from regions.script import value

HUB_TIMEOUT_SECONDS: Final = 5.0
FILE_MS: Final = 2_000  # of one WAITAOF; with everysec it answers within about one
FENCE_MS: Final = 10_000  # that its key lives
DELETED_MAX: Final = 1_000  # entries at once, so that it never holds its Redis for long

Started = tuple[str, str, int, int, msgspec.Raw]  # request, task, attempt, started (hub ms), trail

log = logs.get("outbox")


class _DeliveredRow(Struct):
    """An entry of the outbox, and the bytes of its frame."""

    id: str
    size_bytes: int


DELIVERED: Final = load("delivered", entry=_DeliveredRow)


@dataclass(slots=True, frozen=True)
class Shipment:
    """An outcome and its entry in the outbox. ``since``: when it was put there (monotonic seconds)."""

    entry: str
    outcome: Outcome
    spliced_bytes: int
    since: float = 0.0


class _Way:
    """Two connections to one process of the hub's Redis, for results and for the file.

    ``taken``: the entries that the hub took and the file may lack (id, bytes). Opening it raises what ``Link`` raises.
    """

    def __init__(self, hub: redis.Redis, region: str) -> None:
        self.taken: list[tuple[str, int]] = []
        self._fence = names.result_fence(region, uuid.uuid4().hex)
        with ThreadPoolExecutor(2) as pool:  # at the same time, since each takes some round trips
            opening = [pool.submit(Link, hub) for _ in range(2)]
        try:
            self.results, self.file = (one.result() for one in opening)
            self._check()
        except BaseException:
            for one in opening:
                if one.exception() is None:
                    one.result().close()
            raise

    def _check(self) -> None:
        """Raises ConnectionError for two servers. A region may not read, but of two SET NX one does nothing if it sees the other."""
        command = ("SET", self._fence, 1, "NX", "PX", FENCE_MS)
        both = self.results, self.file
        for link in both:
            link.send([command])
        if [value(link.receive(1)[0]) for link in both].count(None) != 1:
            raise redis.exceptions.ConnectionError("two servers answer as the hub")

    @property
    def is_open(self) -> bool:
        """Whether neither connection is known to be lost."""
        return self.results.is_open and self.file.is_open

    def wait_for_file(self) -> Any:
        """WAITAOF's reply, for all that the hub took before the call: the files that have it, or the refusal."""
        wrote, waited = self.file.call([("SET", self._fence, 1, "PX", FENCE_MS), ("WAITAOF", 1, 0, FILE_MS)])
        value(wrote)
        return waited

    def close(self) -> None:
        """Closes both connections."""
        self.results.close()
        self.file.close()


@dataclass(slots=True, frozen=True)
class _Batch:
    """An unanswered batch: the way that it took, the number of replies that are due, its bytes, and when it was sent."""

    way: _Way
    shipments: Sequence[Shipment]
    replies: int
    size: int
    sent: float


class Home:
    """Sends results to the hub, clears the outbox, and says for how long not to try while the hub is away.

    One thread at a time sends; a thread of this object waits for the file.
    """

    def __init__(self, hub: redis.Redis, region: str, client: redis.Redis, *, waits: bool = True) -> None:
        """``client``: the region's Redis. ``waits``: for the hub's file, which a hub with relaxed durability may not have."""
        self._hub, self._stream, self._region, self._client = hub, names.out_stream(region), region, client
        self._waits = waits
        self._is_told = False  # it is logged that the hub does not say when it has something in its file
        self._failures = 0
        self._batches: deque[_Batch] = deque()  # unanswered ones
        self.flying_bytes = 0  # of their frames
        self._heard = 0.0  # when the last reply came (monotonic)
        self._is_prepared = False
        self._way: _Way | None = None
        self._waiting: _Way | None = None  # the one whose connection for the file is in use
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def flying(self) -> int:
        """The number of unanswered batches."""
        return len(self._batches)

    @property
    def is_at_hand(self) -> bool:
        """Whether nothing is unanswered and the connections are open: ``begin`` then sends few bytes without a wait."""
        return self._is_prepared and not self._batches

    @property
    def is_clear(self) -> bool:
        """Whether nothing that was sent waits for the hub's file: then all that is in the outbox is to be sent."""
        with self._changed:
            return self._waiting is None and (self._way is None or not self._way.taken)

    def prepare(self) -> bool:
        """Opens the connections that are not open, so that no result waits for that. Returns whether they are.

        Call it while no batch is unanswered.
        """
        if self._is_prepared:
            return True
        try:
            self._open()
        except redis.exceptions.RedisError as error:
            self._failed(error)
            return False
        self._is_prepared = True
        self._succeeded()
        return True

    def _open(self) -> _Way:
        """The way. A lost one is replaced; what it took and the file may lack stays in the outbox, and is sent again."""
        way = self._way
        if way is not None and not self._batches:
            with self._changed:  # no reply may be due on a connection that is looked at
                is_lost = way.results.is_lost() or (way is not self._waiting and way.file.is_lost())
            if is_lost:
                self._leave()
        if self._way is None:
            self._way = _Way(self._hub, self._region)
        elif not self._way.is_open:
            raise redis.exceptions.ConnectionError("the connection that waits for the hub's file was lost")
        return self._way

    def _leave(self) -> None:
        """Gives the way up. The thread that waits for the file closes what it uses."""
        with self._changed:
            way, self._way = self._way, None
            if way is not None and way is not self._waiting:
                way.close()
            elif way is not None:
                way.results.close()

    def wait(self, wake: int, until: float) -> bool:
        """Waits for news: a reply, ``wake`` (an eventfd, which is reset), the loss of an idle connection, or that time (monotonic).

        Returns whether ``end`` is to be called.
        """
        now, poll = time.monotonic(), select.poll()
        poll.register(wake, select.POLLIN)
        oldest = self._batches[0].way.results if self._batches else None
        if oldest is not None:
            if oldest.has_reply():
                return True
            poll.register(oldest, select.POLLIN)
            until = min(until, self._overdue())
        else:
            with self._changed:
                way, is_waiting = self._way, self._waiting is not None
            for link in () if way is None else (way.results, *(way.file,) * (not is_waiting)):
                if (descriptor := link.fileno()) >= 0:  # asked once: the other thread may close it at any time
                    poll.register(descriptor, select.POLLIN)
            if is_waiting:  # the other connection is idle soon
                until = min(until, now + FILE_MS / 1000)
        found = poll.poll(None if until == math.inf else max(0.0, until - now) * 1000)
        descriptors = {descriptor for descriptor, _ in found}
        if wake in descriptors:
            os.eventfd_read(wake)
        if oldest is None:
            self._is_prepared = self._is_prepared and not descriptors - {wake}
            return False
        return bool(descriptors - {wake}) or time.monotonic() >= self._overdue()

    def _overdue(self) -> float:
        """When the oldest batch is given up: a slow line may take that long for each."""
        return max(self._batches[0].sent, self._heard) + HUB_TIMEOUT_SECONDS

    def begin(self, shipments: Sequence[Shipment], started: Sequence[Started] = ()) -> bool:
        """Sends results, and what was started, in one MULTI, and leaves the reply to ``end``. False if the hub is away."""
        commands: list[tuple[Any, ...]] = [("MULTI",)]
        for shipment in shipments:
            outcome = shipment.outcome
            key = names.result(self._region, outcome.task)
            commands.append(("SET", key, outcome.frame, "NX", "PXAT", max(1, outcome.expires_ms)))
            commands.append(
                (
                    "XADD", self._stream, "*", "k", "result", "v", VERSION, "q", outcome.request, "t", outcome.task,
                    "s", outcome.status, "f", outcome.finished_ms, "b", shipment.spliced_bytes, "h", outcome.trail,
                )
            )  # fmt: skip
        if started:
            said = msgspec.json.encode(started)
            commands.append(("XADD", self._stream, "*", "k", "claims", "v", VERSION, "d", said))
        commands.append(("EXEC",))
        try:
            way = self._open()
            way.results.send(commands)
        except redis.exceptions.RedisError as error:
            self._failed(error)
            return False
        size = sum(len(shipment.outcome.frame) for shipment in shipments)
        self._batches.append(_Batch(way, shipments, len(commands), size, time.monotonic()))
        self.flying_bytes += size
        return True

    def end(self) -> bool:
        """Reads the reply to the oldest batch. Returns whether the hub has it; if not, nothing is known of the others either."""
        batch = self._batches[0]
        way, shipments = batch.way, batch.shipments
        try:
            if time.monotonic() >= self._overdue() and not way.results.has_reply():
                raise redis.exceptions.TimeoutError(f"no reply for {HUB_TIMEOUT_SECONDS:g} s")
            replies = value(way.results.receive(batch.replies)[-1])
        except redis.exceptions.RedisError as error:
            self._failed(error)
            return False
        self._batches.popleft()
        self.flying_bytes -= batch.size
        self._heard = time.monotonic()
        self._succeeded()
        for reply in replies:
            # Only this one, and also when it is sent again: the deadline ends its task.
            if isinstance(reply, Exception):
                log.error("the hub refused a result", region=self._region, error=str(reply))
        with self._changed:
            way.taken += [(shipment.entry, len(shipment.outcome.frame)) for shipment in shipments]
            if self._thread is None and way.taken:
                self._thread = threading.Thread(target=self.run, name="hub-file", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return True

    @property
    def backoff_seconds(self) -> float:
        """How long to wait before the next try; 0 if the last one worked."""
        return connect.backoff_seconds(self._failures) if self._failures else 0.0

    def stop(self, seconds: float) -> None:
        """Waits for the hub's file for up to ``seconds``; what is not in it by then stays in the outbox, and another process sends it."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._waiting is None and (self._way is None or not self._way.taken), seconds
            )

    def run(self) -> None:
        """Clears the outbox until the process ends."""
        while True:
            self.run_once()

    def run_once(self) -> None:
        """Deletes from the outbox what the hub took, once the hub has it in its file."""
        with self._changed:
            self._changed.wait_for(lambda: self._way is not None and self._way.taken)
            way = self._waiting = self._way
            assert way is not None
            taken, way.taken = way.taken, []
        try:
            self._wait_for_file(way)
            delete(self._client, taken)
        except redis.exceptions.RedisError as error:  # another process, or this one, finds and sends them again
            log.info("delivered results stay in the outbox", results=len(taken), error=str(error))
            way.file.close()
            self._is_prepared = False
        finally:
            with self._changed:
                self._waiting = None
                if way is not self._way:  # it was given up meanwhile
                    way.close()
                self._changed.notify_all()

    def _wait_for_file(self, way: _Way) -> None:
        """Waits until the hub has in its file what it took. Raises if that will not be known."""
        is_slow = False
        while self._waits:
            found = way.wait_for_file()
            if isinstance(found, redis.exceptions.ResponseError):
                # It has no file, or this user may not ask: then the reply has to do.
                if not self._is_told:
                    log.error(
                        "the hub does not say when it has results in its file", region=self._region, error=str(found)
                    )
                self._is_told = True
                return
            if int(found[0]) >= 1:
                return
            if not is_slow:
                log.warning("the hub's file is slow, results stay in the outbox", region=self._region)
            is_slow = True

    def _failed(self, error: Exception) -> None:
        """Forgets the unanswered batches: nothing is known of them, nor of what the file may lack."""
        if not self._failures:
            log.warning("the hub is away, results wait in the outbox", region=self._region, error=str(error))
        self._failures += 1
        self._is_prepared = False
        self._batches.clear()
        self.flying_bytes = 0
        self._leave()

    def _succeeded(self) -> None:
        if self._failures:
            log.info("the hub is back", region=self._region)
        self._failures = 0


def delete(client: redis.Redis, entries: Sequence[tuple[str, int]]) -> int:
    """Deletes delivered entries (id, bytes of the frame) from the outbox; returns their bytes. Raises what redis-py raises."""
    gone = 0
    for at in range(0, len(entries), DELETED_MAX):
        rows = [_DeliveredRow(*entry) for entry in entries[at : at + DELETED_MAX]]
        gone += int(DELIVERED.call(client, outbox=names.OUTBOX, outbox_bytes=names.OUTBOX_BYTES, entries=rows))
    return gone


def open_hub(url: str, name: str) -> redis.Redis:
    """A client of the hub for results, with time for a batch on a slow line."""
    return connect.open_redis(url, name=name, block_seconds=HUB_TIMEOUT_SECONDS - connect.TIMEOUT_SECONDS)
