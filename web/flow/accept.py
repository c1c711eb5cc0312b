"""Accepts requests. A 202 is kept; after any other answer nothing of the request is left.

    submit       (the handler's thread)   ledger: accepting ── publish all tasks, but those that web.hub.reuse can end
    _published   (the broker's thread)                            └─ all confirmed: hand over
    run_once     (own thread)             ledger: accepted ── in the hub's file ── done(Accepted)
    _out_of_time (own thread), nack, return, hub away ── done(Refused)
                                                        └─ web.flow.clean: refuse the ledger, cancel what was published

An accept takes at most 0.9 s in all, and its 503 never waits for the clean-up. Only if the hub has accepted and its disk
is too slow to write that in time, the answer waits longer. A client that waits for results has been promised nothing yet:
``done`` gets its ``Accepted`` at once, and ``promise`` says when a 202 is true.
"""

import functools
import heapq
import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from regions import logs
from web.flow.clean import Cleaner
from web.flow.confirms import Batch, Message, message
from web.flow.kept import Kept, Unwritten
from web.flow.publish import Publisher
from web.hub import reuse, scripts, webhooks
from web.hub.ledger import Ledger
from web.hub.new_request import Begun, Limited, New, NewTask, Repeated, Times, message_of
from web.hub.redis import Hub, HubUnavailable, reason_of
from web.hub.tally import Tally

BUDGET_SECONDS: Final = 0.9
COPIES_SHARE: Final = 0.5  # of a region's room at the hub: past it a result is not copied for another task, but fetched
FILE_LOOK_SECONDS: Final = 0.02  # between two questions whether the hub has written what it accepted

log = logs.get("accept")


class Accepted(Struct, frozen=True):
    """A request whose tasks will all end, once it is ``kept``. ``reused``: how many ended at once by an older result."""

    new: New
    times: Times
    kept: Kept
    reused: int = 0


class Refused(Struct, frozen=True):
    """A request of which nothing was accepted; the answer is 503 with its id and this reason."""

    new: New
    reason: str


Decided = Accepted | Refused | Repeated | Limited
Done = Callable[[Decided], None]
_OUTCOMES: Final = {Accepted: "accepted", Refused: "refused", Repeated: "repeated", Limited: "limited"}


class _Pending:
    """A request that is being accepted. Only its first end counts."""

    def __init__(self, new: New, done: Done, tally: Tally) -> None:
        self.new, self.done, self._tally = new, done, tally
        self.times: Times | None = None
        self.accept_by_ms = 0  # hub ms, not later than the end of its budget here
        self.batch: Batch | None = None  # None if nothing has to be published
        self.reused = 0
        self._began = time.monotonic()
        self.has_accept = False  # the hub has accepted it; its disk has yet to write that
        self._lock = threading.Lock()
        self._is_ended = False

    @property
    def is_ended(self) -> bool:
        return self._is_ended

    def end(self, how: Decided, before: Callable[[], None] | None = None) -> None:
        """Answers, unless an earlier call did. ``before`` is called first, and only by the call that answers."""
        with self._lock:
            if self._is_ended:
                return
            self._is_ended = True
        if before is not None:
            before()
        self._tally.requests.add(_OUTCOMES[type(how)])
        if isinstance(how, Accepted):
            regions = {task.region for task in self.new.tasks}
            region = regions.pop() if len(regions) == 1 else ""
            self._tally.hops.add("accept", region, seconds=time.monotonic() - self._began)
        try:
            self.done(how)
        except Exception:  # one answer that can't be given must not stop the answers of other requests
            log.exception("answering failed", request=self.new.id)


class Acceptor:
    """Accepts validated requests. Each is answered by one call of ``done``, within the budget, on any thread."""

    def __init__(self, hub: Hub, ledger: Ledger, publisher: Publisher) -> None:
        self._hub, self._ledger, self._publisher = hub, ledger, publisher
        self._confirmed: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._unwritten = Unwritten(hub, ledger)  # used by the accept's thread alone
        self.cleaner = Cleaner(hub, ledger, publisher)
        self._clock = _Clock(self._out_of_time)
        self._thread = threading.Thread(target=self.run, name="accept", daemon=True)

    def start(self) -> None:
        """Starts the threads."""
        self._thread.start()
        self._clock.start()
        self.cleaner.start()

    def stop(self) -> None:
        """Waits until every request at hand has ended, which its budget bounds; then ends the threads."""
        self._clock.stop()
        self._confirmed.put(None)
        self._thread.join(5)
        self.cleaner.stop()

    def submit(self, new: New, done: Done) -> None:
        """Writes the ledger and publishes; returns at once. It raises nothing: every failure is a ``Refused``."""
        pending = _Pending(new, done, self._ledger.tally)
        reason = self.cleaner.full or (None if new.max_age else self._unpublishable(new.tasks))
        if reason is not None:
            pending.end(Refused(new, reason))
            return
        started = time.monotonic()
        try:
            extra_bytes = len(new.attrs) + (webhooks.BYTES if new.webhook else 0)
            self._hub.admit([task.region for task in new.tasks], extra_bytes)
        except HubUnavailable as error:  # nothing was sent, so there is nothing to take back
            pending.end(Refused(new, error.reason))
            return
        try:
            with self._hub.accepting():
                begun = self._ledger.begin(new)
        except Exception as error:  # noqa: BLE001 - after any error the request is refused
            if getattr(error, "is_refusal", False):
                pending.end(Refused(new, reason_of(error)))
            else:  # the write may have arrived all the same
                self._refuse(pending, reason_of(error))
            return
        if isinstance(begun, Repeated | Limited):
            pending.end(begun)
            return
        pending.times = begun
        # The hub's clock was at ``created_ms`` before now. So what it accepts before this time is accepted before the budget ends here.
        pending.accept_by_ms = begun.created_ms + int((started + BUDGET_SECONDS - time.monotonic()) * 1000)
        self._clock.add(started + BUDGET_SECONDS, pending)
        try:
            ended = self._reuse(new, begun) if begun.latest else set()
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(pending, reason_of(error))
            return
        pending.reused = len(ended)
        rest = [task for task in new.tasks if task.id not in ended]
        if new.max_age and (reason := self._unpublishable(rest)) is not None:
            self._refuse(pending, reason)
            return
        if not rest:
            self._published(pending, None)
            return
        pending.batch = Batch(_messages(new, rest, begun), lambda reason: self._published(pending, reason))
        if not pending.is_ended:  # otherwise its time is over already
            self._publisher.publish(pending.batch)

    def _unpublishable(self, tasks: Sequence[NewTask]) -> str | None:
        """Why the broker would not confirm these tasks; None when it may, and for no tasks."""
        return self._publisher.unavailable_for({task.region for task in tasks}) if tasks else None

    def _reuse(self, new: New, begun: Begun) -> set[str]:
        """Ends the tasks for which the hub has a result and room for a copy of it; their ids. Raises HubUnavailable."""
        copies_max = int(COPIES_SHARE * self._hub.region_bytes_max)
        found = reuse.settlements(new, begun, self._ledger.request_bytes_max, copies_max)
        if not found:
            return set()
        with self._hub.asking():
            answers = self._ledger.settle(found)
        return {one.task for one, answer in zip(found, answers, strict=True) if answer in scripts.ENDED}

    def _published(self, pending: _Pending, reason: str | None) -> None:
        """Called on the broker's thread, which must not wait for a Redis."""
        if reason is None:
            self._confirmed.put(pending)
        else:
            self._refuse(pending, reason)

    def _refuse(self, pending: _Pending, reason: str) -> None:
        """Hands the request to the cleaner, then answers 503."""
        pending.end(Refused(pending.new, reason), functools.partial(self._take_back, pending))

    def _take_back(self, pending: _Pending) -> None:
        self.cleaner.add(pending.new, pending.times if pending.batch is not None else None)

    def _out_of_time(self, pending: _Pending) -> None:
        if pending.has_accept:
            return
        who = "broker did not confirm" if pending.batch is not None else "hub's Redis did not answer"
        self._refuse(pending, f"the {who} in time")

    def promise(self, accepted: Accepted, done: Done) -> None:
        """Calls ``done`` with ``Accepted`` as soon as a 202 is true, or takes the request back and calls it with ``Refused``."""
        accepted.kept.then(functools.partial(self._promised, accepted, done))

    def _promised(self, accepted: Accepted, done: Done) -> None:
        if accepted.kept.reason is None:
            done(accepted)
        else:
            self.cleaner.add(accepted.new, accepted.times)
            done(Refused(accepted.new, accepted.kept.reason))

    def run(self) -> None:
        """Accepts confirmed requests until it is stopped and nothing waits for the hub's file."""
        is_stopping, look_at = False, 0.0
        while not is_stopping or self._unwritten:
            try:
                wait = max(0.0, look_at - time.monotonic()) if self._unwritten else None
                pending = self._confirmed.get(timeout=wait)
                if pending is None:
                    is_stopping = True
                else:
                    self.run_once(pending)
            except queue.Empty:
                pass
            if self._unwritten and time.monotonic() >= look_at:
                self._unwritten.look()
                look_at = time.monotonic() + FILE_LOOK_SECONDS

    def run_once(self, first: _Pending) -> None:
        """Accepts all requests that are confirmed by now, in one round trip."""
        batch = [first]
        while not self._confirmed.empty():
            more = self._confirmed.get()
            if more is None:
                self._confirmed.put(None)
                break
            batch.append(more)
        batch = [pending for pending in batch if not pending.is_ended]
        try:
            with self._hub.accepting():
                answers, file = self._ledger.accept(
                    [pending.new.id for pending in batch], [pending.accept_by_ms for pending in batch]
                )
        except Exception as error:  # noqa: BLE001 - after any error these are refused, and the next ones are tried
            reason = reason_of(error)
            for pending in batch:
                self._refuse(pending, reason)
            return
        is_written = file.has(None)
        for pending, is_accepted in zip(batch, answers, strict=True):
            if not is_accepted:
                self._refuse(pending, "the accept took too long")
            elif pending.times is not None:
                accepted = Accepted(pending.new, pending.times, Kept(is_known=is_written), pending.reused)
                if not is_written:
                    self._unwritten.add(pending.new.id, accepted.kept, file)
                # If it was answered 503 while the script ran, the cleaner's refusal comes later, and counts.
                if is_written or pending.new.sync:
                    pending.end(accepted)
                else:
                    pending.has_accept = True
                    accepted.kept.then(functools.partial(self._kept, pending, accepted))

    def _kept(self, pending: _Pending, accepted: Accepted) -> None:
        if accepted.kept.reason is None:
            pending.end(accepted)
        else:
            self._refuse(pending, accepted.kept.reason)


class _Clock:
    """Calls ``call`` for every pending request whose budget is over, in a thread of its own: the accept's may wait for a Redis."""

    def __init__(self, call: Callable[[_Pending], None]) -> None:
        self._call = call
        self._heap: list[tuple[float, int, _Pending]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(target=self.run, name="accept-budget", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join(5)

    def add(self, when: float, pending: _Pending) -> None:
        with self._changed:
            heapq.heappush(self._heap, (when, next(self._numbers), pending))
            if self._heap[0][2] is pending:  # its begin may have taken longer than those of later requests
                self._changed.notify()

    def run(self) -> None:
        while (due := self._due()) is not None:
            for pending in due:
                try:
                    self._call(pending)
                except Exception:
                    log.exception("refusing failed", request=pending.new.id)

    def _due(self) -> list[_Pending] | None:
        """Waits until budgets are over, and takes those requests off; None when it is stopped and none is left."""
        with self._changed:
            while not self._heap or self._heap[0][0] > time.monotonic():
                if self._is_stopping and not self._heap:
                    return None
                wait = self._heap[0][0] - time.monotonic() if self._heap else None
                self._changed.wait(wait)
            due = []
            while self._heap and (self._heap[0][0] <= time.monotonic() or self._heap[0][2].is_ended):
                due.append(heapq.heappop(self._heap)[2])
            return [pending for pending in due if not pending.is_ended]


def _messages(new: New, tasks: Sequence[NewTask], times: Times) -> list[Message]:
    return [message(message_of(new, task, times)) for task in tasks]
