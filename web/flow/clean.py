"""Takes refused requests back from the hub, and sends cancels to regions, until the hub and the broker confirm.

    Acceptor   answered 503; the hub or a region may have a part of the request ── add ──┬─ refusal: the hub
    DELETE, sweep   the hub has ended these tasks already ── cancel ─────────────────────┴─ cancel: each task's region

All of it runs on one thread. Many refusals share one round trip, which comes first; then cancels go to the publisher.
A failure is tried again after ``AGAIN_SECONDS``, whatever else comes meanwhile. Each region has a queue of its own here, so
that a region whose broker queue is silent does not hold up the others.

The memory is bounded: past ``KEPT_MAX`` tasks the gateway takes no new requests (``full``), so nothing more is added.
"""

import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from jobs import contract
from regions import logs, names
from regions.durability import File
from regions.loop import Loop
from web.flow.confirms import Batch, Message
from web.flow.publish import Publisher
from web.hub.faults import Found
from web.hub.ledger import Ledger
from web.hub.new_request import New, Times
from web.hub.redis import Hub, HubUnavailable

AGAIN_SECONDS: Final = 1.0
REFUSALS_AT_ONCE: Final = 200  # requests in one round trip
CANCELS_AT_ONCE: Final = 1_000  # unconfirmed ones of a region; more would hold up accepts, which share the channel
SHOWN: Final = 20  # requests in a log line
KEPT_MAX: Final = 50_000  # tasks to take back or cancel; each takes about 300 bytes
FINISH_SECONDS: Final = 3.0  # how long a gateway that ends tries to tell a hub that is away, or whose disk is slow
FINISH_AGAIN_SECONDS: Final = 0.1
CANCEL_ROOM_MS: Final = 5_000  # how much longer a region keeps the mark of a cancel than its task may live

log = logs.get("clean")


class _Cancel(Struct, frozen=True):
    """Tasks of one request in one region, which live until ``deadline_ms`` (hub ms). Pointless after ``give_up`` (monotonic seconds)."""

    request: str
    tasks: list[str]
    give_up: float
    deadline_ms: int


class _Lane:
    """The cancels of one region. Used with the Cleaner's lock held."""

    def __init__(self) -> None:
        self.waiting: deque[_Cancel] = deque()
        self.unconfirmed = 0  # tasks
        self.again_at = 0.0

    @property
    def due(self) -> float:
        """When the next cancel is due (monotonic seconds)."""
        if not self.waiting:
            return float("inf")
        return self.again_at if self.unconfirmed < CANCELS_AT_ONCE else self.waiting[0].give_up


class Cleaner:
    """Cleans in a thread of its own. The public methods may be called from any thread."""

    def __init__(self, hub: Hub, ledger: Ledger, publisher: Publisher) -> None:
        self._hub, self._ledger, self._publisher = hub, ledger, publisher
        self._refusals: dict[str, list[tuple[str, str]]] = {}  # by request: (task, region) of its tasks
        # Refusals that the hub may hold only in memory, with its file at that time.
        self._unwritten: dict[str, File] = {}
        self._lanes: dict[str, _Lane] = {}  # by region
        self._refuse_at = 0.0
        self._kept = 0  # tasks
        self._changed = threading.Condition()
        self._loop = Loop("accept-clean", self._turn, last=self._finish)

    @property
    def kept(self) -> int:
        """How many tasks wait here. A task that is to be refused and to be cancelled counts twice."""
        return self._kept

    @property
    def full(self) -> str | None:
        """Why the gateway may take no new requests; None while it may."""
        return "too many refused and cancelled tasks wait for their clean-up" if self._kept >= KEPT_MAX else None

    def faults(self) -> list[Found]:
        """What keeps the gateway from taking requests, by name."""
        figures = f"{self._kept:,} tasks, and {KEPT_MAX:,} may"
        return [Found("gateway-clean-up-full", f"{reason}: {figures}")] if (reason := self.full) else []

    def start(self) -> None:
        """Starts the thread."""
        self._loop.start()

    def stop(self) -> None:
        """Tries everything once more, then ends the thread."""
        with self._changed:
            self._loop.ask_to_stop()
            self._changed.notify()
        self._loop.join()

    def add(self, new: New, published: Times | None = None) -> None:
        """Takes back a request that was answered 503. ``published``: its times, if a region may have some of its tasks."""
        tasks = [(task.id, task.region) for task in new.tasks]
        with self._changed:
            self._refusals[new.id] = tasks
            self._kept += len(tasks)
            if published is not None:
                self._add_cancels(new.id, tasks, published.deadline_ms, new.deadline_ms)
            self._changed.notify()

    def is_refused(self, request: str) -> bool:
        """Whether this request was answered 503 and the hub does not know yet: its ledger may still say ``accepted``."""
        return request in self._refusals

    def cancel(self, request: str, tasks: Sequence[tuple[str, str]], deadline_ms: int, left_ms: int) -> None:
        """Tells the regions to drop these tasks, which the hub has ended already.

        ``tasks``: (id, region) of each; ``deadline_ms``: their latest deadline (hub ms); ``left_ms``: how long that is from
        now. If too much is kept already, the cancel is dropped, and the tasks run although nobody waits for them.
        """
        with self._changed:
            if self._kept >= KEPT_MAX:
                log.info("a cancel was dropped: too many wait", request=request, tasks=len(tasks))
                return
            self._add_cancels(request, tasks, deadline_ms, left_ms)
            self._changed.notify()

    def _turn(self) -> float:
        try:
            if self._wait():
                self.run_once()
        except Exception:
            log.exception("cleaning failed")
            self._refuse_at = time.monotonic() + AGAIN_SECONDS
        return 0.0

    def _finish(self) -> None:
        """Tries everything once more, whether it is due or not, and refusals until the hub has them: nobody else knows of them."""
        give_up = time.monotonic() + FINISH_SECONDS
        try:
            for lane in self._lanes.values():
                lane.again_at = 0.0
            while self._refusals:
                self._refuse_at = 0.0
                self._refuse_some()
                if self._refusals and self._refuse_at:  # the hub is away, or its file does not have them yet
                    if time.monotonic() >= give_up:
                        log.warning("the hub was not told what was refused", requests=list(self._refusals)[:SHOWN])
                        break
                    time.sleep(FINISH_AGAIN_SECONDS)
            self._send_cancels()
        except Exception:
            log.exception("the last clean-up failed", kept=self._kept)

    def run_once(self) -> None:
        """Sends one share of the refusals to the hub, and hands the due cancels to the publisher.

        The hub comes first: of what was refused nothing may be read, while a task that runs in vain costs a fetch.
        """
        self._refuse_some()
        self._send_cancels()

    def _wait(self) -> bool:
        """Waits until something is due; False when stopping."""
        with self._changed:
            while not self._loop.stopping.is_set():
                refuse_at = self._refuse_at if self._refusals else float("inf")
                due = min(refuse_at, *(lane.due for lane in self._lanes.values()), float("inf"))
                left = due - time.monotonic()
                if left <= 0:
                    return True
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            return False

    def _add_cancels(self, request: str, tasks: Sequence[tuple[str, str]], deadline_ms: int, left_ms: int) -> None:
        give_up = time.monotonic() + left_ms / 1000
        by_region: dict[str, list[str]] = {}
        for task, region in tasks:
            by_region.setdefault(region, []).append(task)
        for region, ids in by_region.items():
            lane = self._lanes.setdefault(region, _Lane())
            lane.waiting.append(_Cancel(request, ids, give_up, deadline_ms))
        self._kept += len(tasks)

    def _refuse_some(self) -> None:
        """Sends one share of the refusals to the hub; ``_refuse_at`` says when the next one is due.

        A refusal that the hub did not write to its file at once is sent again: a hub that was killed may have lost it.
        """
        with self._changed:
            if time.monotonic() < self._refuse_at:
                return
            some = list(itertools.islice(self._refusals.items(), REFUSALS_AT_ONCE))
        if not some:
            return
        try:
            with self._hub.asking():
                states, file = self._ledger.take_back(some)
        except HubUnavailable:
            self._refuse_at = time.monotonic() + AGAIN_SECONDS
            return
        if accepted := [request for (request, _), state in zip(some, states, strict=True) if state == b"accepted"]:
            log.info("refused requests were accepted before", requests=accepted[:SHOWN])
        with self._changed:
            for (request, tasks), state in zip(some, states, strict=True):
                then = self._unwritten.pop(request, None)
                if state is None or file.has(then if state == b"refused" else None):
                    del self._refusals[request]
                    self._kept -= len(tasks)
                else:
                    self._unwritten[request] = file
                    self._refusals[request] = self._refusals.pop(request)  # others come first
            if len(self._unwritten) == len(self._refusals):  # all of them are sent
                self._refuse_at = time.monotonic() + AGAIN_SECONDS

    def _send_cancels(self) -> None:
        now = time.monotonic()
        going: list[tuple[str, _Cancel]] = []
        with self._changed:
            for region, lane in self._lanes.items():
                while lane.waiting and lane.due <= now:
                    one = lane.waiting.popleft()
                    if one.give_up <= now:
                        self._kept -= len(one.tasks)
                        log.info("a cancel was given up: the deadline has passed", request=one.request)
                        continue
                    lane.unconfirmed += len(one.tasks)
                    going.append((region, one))
        for region, one in going:  # without the lock: when the broker is away, ``_cancelled`` is called on this thread
            messages = [_message(one, task, region) for task in one.tasks]
            self._publisher.publish(Batch(messages, functools.partial(self._cancelled, region, one)))

    def _cancelled(self, region: str, one: _Cancel, reason: str | None) -> None:
        """The broker's answer to a cancel."""
        with self._changed:
            lane = self._lanes[region]
            lane.unconfirmed -= len(one.tasks)
            if reason is None:
                self._kept -= len(one.tasks)
            else:
                lane.waiting.append(one)
                lane.again_at = time.monotonic() + AGAIN_SECONDS
            self._changed.notify()


def _message(one: _Cancel, task: str, region: str) -> Message:
    deadline_ms = one.deadline_ms + CANCEL_ROOM_MS
    body = contract.encode(contract.Cancel(task=task, request=one.request, deadline_ms=deadline_ms))
    return Message(names.routing_key(region, fast=True), body, task, one.request, "cancel")
