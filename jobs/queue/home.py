"""The way from a region to the hub: results are sent, and deleted from the outbox once the hub has them in its file.

begin ── MULTI: SET … NX, XADD ──> hub ── EXEC's reply ── end      on one connection, while another one waits:
── WAITAOF ─────── run_once ── delete ──> outbox

Across an ocean a reply takes its time, and a new connection several times as much. So several batches are unanswered at once,
and both connections are open before the first result.
"""

import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Sequence
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


class _Line:
    """A connection to the hub, and the entries that the hub took on it (id, bytes), perhaps only into its memory."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.flying = 0  # batches without a reply yet, one that is being sent included
        self.taken: list[tuple[str, int]] = []

    def open(self, hub: redis.Redis) -> Link:
        """Its connection, for a batch that is counted already. What was taken on a lost one stays in the outbox, and is sent again."""
        if self.link is None or (self.flying == 1 and self.link.is_lost()):
            self.taken = []
            self.link = Link(hub)
        return self.link

    def drop(self) -> None:
        """Closes the connection: nothing is known any more of what was taken on it."""
        self.flying, self.taken = 0, []
        if self.link is not None:
            self.link.close()
            self.link = None


@dataclass(slots=True, frozen=True)
class _Batch:
    """An unanswered batch: the line that it was sent on, the number of replies that are due, its bytes, and when it was sent."""

    line: _Line
    shipments: Sequence[Shipment]
    replies: int
    size: int
    sent: float


class Home:
    """Sends results to the hub, clears the outbox, and says for how long not to try while the hub is away.

    It has two connections: while one waits until the hub has its writes in the file (``WAITAOF`` counts the writes of its
    own connection), results are sent on the other. One thread at a time sends, and a thread of this object waits.
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
        self._lines = _Line(), _Line()
        self._current = self._lines[0]
        self._waiting: _Line | None = None  # the line whose file is waited for
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
            return self._waiting is None and not any(line.taken for line in self._lines)

    def prepare(self) -> bool:
        """Opens the connections that are not open, so that no result waits for that. Returns whether they are.

        Call it while no batch is unanswered.
        """
        if self._is_prepared:
            return True
        with self._changed:  # the others are in use, or what they took is not safe yet
            idle = [line for line in self._lines if line is not self._waiting and not line.taken]
        for line in idle:
            line.flying += 1
            try:
                line.open(self._hub)
            except redis.exceptions.RedisError as error:
                self._failed(line, error)
                return False
            line.flying -= 1
        self._is_prepared = True
        self._succeeded()
        return True

    def wait(self, wake: int, until: float) -> bool:
        """Waits for news: a reply, ``wake`` (an eventfd, which is reset), the loss of an idle connection, or that time (monotonic).

        Returns whether ``end`` is to be called.
        """
        now, poll = time.monotonic(), select.poll()
        poll.register(wake, select.POLLIN)
        oldest = self._batches[0].line.link if self._batches else None
        if oldest is not None:
            if oldest.has_reply():
                return True
            poll.register(oldest, select.POLLIN)
            until = min(until, self._overdue())
        else:
            with self._changed:
                idle = [line.link for line in self._lines if line is not self._waiting and not line.taken]
            for link in idle:
                if link is not None and link.fileno() >= 0:
                    poll.register(link, select.POLLIN)
            if len(idle) < len(self._lines):  # the other one is idle soon
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
        with self._changed:
            line = self._current
            line.flying += 1  # first: the thread that waits may swap the lines at any time, and asks on the one without unanswered batches
        try:
            line.open(self._hub).send(commands)
        except redis.exceptions.RedisError as error:
            self._failed(line, error)
            return False
        size = sum(len(shipment.outcome.frame) for shipment in shipments)
        self._batches.append(_Batch(line, shipments, len(commands), size, time.monotonic()))
        self.flying_bytes += size
        return True

    def end(self) -> bool:
        """Reads the reply to the oldest batch. Returns whether the hub has it; if not, nothing is known of the others either."""
        batch = self._batches[0]
        line, shipments = batch.line, batch.shipments
        try:
            assert line.link is not None
            if time.monotonic() >= self._overdue() and not line.link.has_reply():
                raise redis.exceptions.TimeoutError(f"no reply for {HUB_TIMEOUT_SECONDS:g} s")
            replies = value(line.link.receive(batch.replies)[-1])
        except redis.exceptions.RedisError as error:
            self._failed(line, error)
            return False
        self._batches.popleft()
        self.flying_bytes -= batch.size
        self._heard = time.monotonic()
        self._succeeded()
        for reply in replies:
            if isinstance(
                reply, Exception
            ):  # only this one, and also when it is sent again: the deadline ends its task
                log.error("the hub refused a result", region=self._region, error=str(reply))
        with self._changed:
            line.flying -= 1
            line.taken += [(shipment.entry, len(shipment.outcome.frame)) for shipment in shipments]
            self._turn()
            self._changed.notify_all()
        return True

    @property
    def backoff_seconds(self) -> float:
        """How long to wait before the next try; 0 if the last one worked."""
        return connect.backoff_seconds(self._failures) if self._failures else 0.0

    def stop(self, seconds: float) -> None:
        """Waits for the hub's file for up to ``seconds``; what is not in it by then stays in the outbox, and another process sends it."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is None and not any(one.taken for one in self._lines), seconds)

    def _turn(self) -> None:
        """Swaps the lines if something was taken and the other line does not wait: this one waits for the file then.

        Its unanswered batches are answered first. The condition's lock is held.
        """
        line = self._current
        if self._waiting is not None or not line.taken:
            return
        self._waiting = line
        self._current = self._lines[1] if line is self._lines[0] else self._lines[0]
        if self._thread is None:
            self._thread = threading.Thread(target=self.run, name="hub-file", daemon=True)
            self._thread.start()

    def run(self) -> None:
        """Clears the outbox until the process ends."""
        while True:
            self.run_once()

    def run_once(self) -> None:
        """Deletes from the outbox what was taken on one line, once the hub has it in its file."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None and not self._waiting.flying)
            line = self._waiting
            assert line is not None
            link = line.link
        try:
            if link is not None:
                self._wait_for_file(link)
                delete(self._client, line.taken)
        except redis.exceptions.RedisError as error:  # another process, or this one, finds and sends them again
            log.info("delivered results stay in the outbox", results=len(line.taken), error=str(error))
            line.drop()
            self._is_prepared = False
        finally:
            with self._changed:
                line.taken, self._waiting = [], None
                self._turn()
                self._changed.notify_all()

    def _wait_for_file(self, link: Link) -> None:
        """Waits until the hub has it in its file. Raises if that will not be known."""
        is_slow = False
        try:
            while self._waits and int(link.one("WAITAOF", 1, 0, FILE_MS)[0]) < 1:
                if not is_slow:
                    log.warning("the hub's file is slow, results stay in the outbox", region=self._region)
                is_slow = True
        except redis.exceptions.ResponseError as refusal:
            # It has no file, or this user may not ask: then the reply has to do.
            if not self._is_told:
                log.error(
                    "the hub does not say when it has results in its file", region=self._region, error=str(refusal)
                )
            self._is_told = True

    def _failed(self, failed: _Line, error: Exception) -> None:
        """Forgets the unanswered batches of both lines: nothing is known of them."""
        if not self._failures:
            log.warning("the hub is away, results wait in the outbox", region=self._region, error=str(error))
        self._failures += 1
        self._is_prepared = False
        with self._changed:
            failed.drop()
            for batch in self._batches:
                batch.line.drop()
            self._batches.clear()
            self.flying_bytes = 0
            for line in self._lines:  # an idle one is lost, too, and would end each wait at once
                if line is not self._waiting and (line is self._current or not line.taken):
                    line.drop()
            self._changed.notify_all()

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
