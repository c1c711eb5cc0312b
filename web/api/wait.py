"""Everybody who waits for news of a request: long polls, synchronous requests, event streams. None of them has a thread.

    register ──┐                                  ┌─ over: answered, forgotten
    news ──────┼─ run_once: read_many, then take ─┼─ wait: for the next news, or its timer
    timer ─────┘                                  └─ again: there is more to read at once

No news is lost: a waiter is registered first and read then, and whatever says that a request has news only makes its
waiters read the request's own stream again (DESIGN rule 11). Reads of many waiters share their round trips. Who posts and waits
is expected before anybody else knows of the request: without news since then there is nothing to read yet.

A result is told once the hub has written it to its file. A hub that is killed forgets what it had not written. The same result
then comes again, with a later cursor, and a client that goes on from its cursor would get it twice.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Literal, Protocol

from msgspec import Struct, structs

from regions import logs, names
from regions.durability import File
from web.http import problems
from web.http.exchange import Answer, Exchange
from web.hub.ledger import Ledger, View
from web.hub.redis import Hub, HubUnavailable

READ_AT_ONCE: Final = 32  # pieces of answers, in memory meanwhile
PIECES_AT_ONCE: Final = 4  # of these for readers of large answers: all others' answers wait as long as they are read
TELL_AT_ONCE: Final = 512  # waiters, who may wait for the same answer
AFTER_FAULT_SECONDS: Final = 0.1  # so that a lasting one does not fill the log
WRITTEN_SECONDS: Final = 0.02  # between two looks whether the hub has written what was read
STALE_TIMERS: Final = 256  # of waiters that are gone, kept at least
LOOK: Final = "18446744073709551614-0"  # a cursor after every result: the state alone is read

Why = Literal["news", "timer", "closing"]
Next = Literal["over", "wait", "again"]

log = logs.get("wait")


class Waiter(Protocol):
    """One who waits. All but ``gone`` is called by the thread of ``Waiters`` alone."""

    request: str
    timer: float  # monotonic; when to read without news
    waits_for_end: bool  # of its request: what comes before is no news
    is_bulk: bool  # it goes on with a large answer; who waits for news comes first
    needs_written: bool  # its client may read on: a result is told it when the hub has it in its file

    def cursor(self) -> str:
        """Since when to read."""

    def is_behind(self) -> bool:
        """Whether its client has not taken what it was sent: it reads when that is gone, and not for news."""

    def take(self, view: View | None, why: Why) -> Next:
        """The request as it was just read; None when there is none."""

    def miss(self, error: HubUnavailable, why: Why) -> Next:
        """It could not be read."""

    def fail(self) -> None:
        """Something broke on the way to it."""


class _Unwritten(Struct, frozen=True):
    """What was read for a waiter and not written by then. ``file``: the hub's, as it was after the reading."""

    view: View
    why: Why
    file: File


class Waiters:
    """All waiters of a gateway."""

    def __init__(self, hub: Hub, ledger: Ledger) -> None:
        self._hub, self._ledger = hub, ledger
        self._changed = threading.Condition()
        self._by_request: dict[str, dict[Waiter, None]] = {}
        self._expected: dict[str, bool] = {}  # requests that begin, and whether there were news of them
        self._count = 0
        self._due: dict[Waiter, Why] = {}
        self._unwritten: dict[Waiter, _Unwritten] = {}  # none of them is due
        self._written_at = 0.0  # monotonic; when to look next
        self._timers: list[tuple[float, int, Waiter]] = []
        self._numbers = itertools.count()
        self._is_closing = self._is_stopped = False
        self._thread = threading.Thread(target=self.run, name="waiters", daemon=True)

    def __len__(self) -> int:
        return self._count

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Everybody is answered as if the wait had run out, whoever comes from now on at once."""
        with self._changed:
            self._is_closing = True
            for waiters in self._by_request.values():
                for waiter in waiters:
                    self._make_due(waiter, "closing")
            self._changed.notify()

    def stop(self) -> None:
        """Closes, and ends the thread."""
        self.close()
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        self._thread.join(5)

    def expect(self, request: str) -> None:
        """A request is about to begin, and its waiter to come."""
        with self._changed:
            self._expected[request] = False

    def expect_no_more(self, request: str) -> None:
        """Nobody will wait for it, or only for what may have been there before."""
        with self._changed:
            self._expected.pop(request, None)

    def register(self, waiter: Waiter, *, reads_first: bool = True) -> None:
        """From now on it is told; a first read follows at once, but for one that was expected and had no news."""
        with self._changed:
            self._by_request.setdefault(waiter.request, {})[waiter] = None
            self._count += 1
            if (
                len(self._timers) > 2 * self._count + STALE_TIMERS
            ):  # else the answered stay for as long as they might have waited
                self._timers = [timer for timer in self._timers if self._is_waiting(timer[2])]
                heapq.heapify(self._timers)
            heapq.heappush(self._timers, (waiter.timer, next(self._numbers), waiter))
            if self._is_closing or (reads_first and self._expected.pop(waiter.request, True)):
                self._due[waiter] = "closing" if self._is_closing else "news"
            if self._due or self._timers[0][2] is waiter:
                self._changed.notify()

    def forget(self, waiter: Waiter) -> None:
        """It does not wait any more."""
        with self._changed:
            self._due.pop(waiter, None)
            self._unwritten.pop(waiter, None)
            if self._is_waiting(waiter):
                self._count -= 1
                waiters = self._by_request[waiter.request]
                del waiters[waiter]
                if not waiters:
                    del self._by_request[waiter.request]

    def again(self, waiter: Waiter) -> None:
        """Reads for one waiter once more: its client has taken what it had."""
        with self._changed:
            if self._is_waiting(waiter):
                self._make_due(waiter, "news")
                self._changed.notify()

    def news(self, requests: Iterable[str]) -> None:
        """Something happened to these requests, or may have; as ``names.WAKE`` tells them.

        Who waits for a request's end alone does not read it for each of its tasks.
        """
        with self._changed:
            for told in requests:
                request = told.removesuffix(names.MORE)
                if request in self._expected:
                    self._expected[request] = True
                for waiter in self._by_request.get(request, ()):
                    if (told == request or not waiter.waits_for_end) and not waiter.is_behind():
                        self._make_due(waiter, "news")
            if self._due:
                self._changed.notify()

    def all(self) -> None:
        """News may have been missed: everybody reads again."""
        with self._changed:
            self._expected = dict.fromkeys(self._expected, True)
            for waiters in self._by_request.values():
                for waiter in waiters:
                    if not waiter.is_behind():
                        self._make_due(waiter, "news")
            self._changed.notify()

    def run(self) -> None:
        """Serves until it is stopped."""
        while not self._is_stopped or self._due or self._unwritten:
            try:
                self.run_once()
            except Exception:
                log.exception("waiters failed")
                time.sleep(AFTER_FAULT_SECONDS)

    def run_once(self) -> None:
        """Waits for somebody to be due, and reads for some of them in one round trip."""
        due = self._next_due()
        if self._unwritten and time.monotonic() >= self._written_at:
            self._look()
        if not due:
            return
        reads = list(dict.fromkeys((waiter.request, waiter.cursor()) for waiter in due))
        try:
            with self._hub.asking():
                looks = any(waiter.needs_written for waiter in due)
                found, file = self._ledger.read_many(reads, how="wait", looks=looks)
        except HubUnavailable as error:
            for waiter, why in due.items():
                self._tell(waiter, why, error)
            return
        except Exception:
            log.exception("reading failed", requests=[request for request, _ in reads])
            for waiter in due:
                self.forget(waiter)
                waiter.fail()
            return
        views, is_written = dict(zip(reads, found, strict=True)), file.has(None)
        for waiter, why in due.items():
            view = views[waiter.request, waiter.cursor()]
            if is_written or view is None or not view.results or not waiter.needs_written:
                self._tell(waiter, why, view)
            else:
                self._keep(waiter, _Unwritten(view, why, file))

    def _keep(self, waiter: Waiter, found: _Unwritten) -> None:
        """It is told when the hub has written that."""
        with self._changed:
            if self._is_waiting(waiter):
                if not self._unwritten:
                    self._written_at = time.monotonic() + WRITTEN_SECONDS
                since = self._due.pop(waiter, "news")  # what came while it was read; news are read for after it is told
                self._unwritten[waiter] = found if since == "news" else structs.replace(found, why=since)

    def _look(self) -> None:
        """Tells what the hub has written by now; what it has lost, or does not answer for, is read again."""
        self._written_at = time.monotonic() + WRITTEN_SECONDS
        with self._changed:
            kept = dict(self._unwritten)
        places = list(dict.fromkeys((one.view.id, one.view.last or one.view.cursor) for one in kept.values()))
        try:
            with self._hub.asking():
                answers, file = self._ledger.have_results(places)
        except Exception as error:
            if not isinstance(error, HubUnavailable):
                log.exception("looking for what is written failed")
            answers, file = [False] * len(places), File()
        are_there = dict(zip(places, answers, strict=True))
        for waiter, one in kept.items():
            is_there = are_there[one.view.id, one.view.last or one.view.cursor]
            if is_there and not file.has(one.file):
                continue
            with self._changed:
                told = self._unwritten.pop(waiter, None)
                if told is None:  # it was forgotten
                    continue
                if not is_there:
                    self._make_due(waiter, told.why)
                    continue
            self._tell(waiter, told.why, told.view)
            with self._changed:  # there may have been news meanwhile
                if self._is_waiting(waiter):
                    self._make_due(waiter, "closing" if self._is_closing else "news")

    def _make_due(self, waiter: Waiter, why: Why) -> None:
        """It is read for next; the condition's lock is held. What waits for the hub's file is read for after that."""
        if waiter in self._unwritten:
            if why != "news":
                self._unwritten[waiter] = structs.replace(self._unwritten[waiter], why=why)
        elif why == "news":
            self._due.setdefault(waiter, why)
        elif self._due.get(waiter) != "closing":
            self._due[waiter] = why

    def _tell(self, waiter: Waiter, why: Why, found: View | HubUnavailable | None) -> None:
        """Tells one waiter what was found and does what it says next; a fault of it stays its own."""
        try:
            following = waiter.miss(found, why) if isinstance(found, HubUnavailable) else waiter.take(found, why)
        except Exception:
            log.exception("answering failed", request=waiter.request)
            waiter.fail()
            following = "over"
        if following == "over":
            self.forget(waiter)
            return
        with self._changed:
            if not self._is_waiting(waiter):
                return
            if following == "again":
                self._make_due(waiter, why)
            elif why == "timer":
                heapq.heappush(self._timers, (waiter.timer, next(self._numbers), waiter))

    def _next_due(self) -> dict[Waiter, Why]:
        """Waits for somebody who is due, and takes a share of them off; none when it was woken for its end."""
        with self._changed:
            while not self._due and not (self._is_stopped and not self._unwritten):
                self._take_timers()
                if self._due or (self._unwritten and time.monotonic() >= self._written_at):
                    break
                self._changed.wait(self._next_seconds())
            self._take_timers()
            chosen = [*self._chosen(READ_AT_ONCE, is_bulk=False), *self._chosen(PIECES_AT_ONCE, is_bulk=True)]
            return {waiter: self._due.pop(waiter) for waiter in chosen}

    def _next_seconds(self) -> float | None:
        """Until a timer is over or the hub's file is looked at; the condition's lock is held."""
        moments = [self._timers[0][0]] if self._timers else []
        if self._unwritten:
            moments.append(self._written_at)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _chosen(self, most: int, *, is_bulk: bool) -> list[Waiter]:
        """Who of one kind is served next, with so many reads; the condition's lock is held."""
        chosen: list[Waiter] = []
        reads: set[tuple[str, str]] = set()
        for waiter in self._due:
            if waiter.is_bulk is is_bulk:
                reads.add((waiter.request, waiter.cursor()))
                if len(reads) > most or len(chosen) == TELL_AT_ONCE:
                    break
                chosen.append(waiter)
        return chosen

    def _is_waiting(self, waiter: Waiter) -> bool:
        """The condition's lock is held."""
        return waiter in self._by_request.get(waiter.request, ())

    def _take_timers(self) -> None:
        """Whose timer is over is due; the condition's lock is held."""
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            waiter = heapq.heappop(self._timers)[2]
            if self._is_waiting(waiter):
                self._make_due(waiter, "timer")


class Wait:
    """A long poll or a synchronous request: one answer, when there is what it waits for or its time is over.

    ``render`` makes the answer of the request as it is (None when there is none), ``away`` when the time is over and the hub
    can't be asked; either may give none and see to it that another thread answers.
    """

    is_bulk = False

    def __init__(
        self,
        exchange: Exchange,
        request: str,
        *,
        after: str,
        until_done: bool,
        seconds: float,
        render: Callable[[View | None], Answer | None],
        away: Callable[[HubUnavailable], Answer | None],
        total: int | None = None,
        needs_written: bool = True,
    ) -> None:
        self.request, self.timer = request, time.monotonic() + seconds
        self.waits_for_end, self.needs_written = until_done, needs_written
        self._exchange, self._after, self._until_done = exchange, after, until_done
        self._render, self._away = render, away
        # What is there when it comes may be anything but all; the news that it waits for are those of the end.
        self._is_looking = until_done and total != 1

    def cursor(self) -> str:
        """Since when to read."""
        return LOOK if self._is_looking else self._after

    def is_behind(self) -> bool:
        """Never: it was sent nothing."""
        return False

    def take(self, view: View | None, why: Why) -> Next:
        """Answers when there is what it waits for, or the time is over."""
        is_ready = view is None or view.done or (not self._until_done and bool(view.results)) or why != "news"
        was_looking, self._is_looking = self._is_looking, False
        if not is_ready:
            return "wait"
        if was_looking and view is not None:
            return "again"
        answer = self._render(view)
        if answer is not None:
            self._exchange.answer(answer)
        return "over"

    def miss(self, error: HubUnavailable, why: Why) -> Next:
        """Waits on, since it may be back in time."""
        if why == "news":
            return "wait"
        answer = self._away(error)
        if answer is not None:
            self._exchange.answer(answer)
        return "over"

    def fail(self) -> None:
        """Answers that something broke."""
        self._exchange.answer(problems.internal().answer())


def park(waiters: Waiters, waiter: Waiter, exchange: Exchange, *, reads_first: bool = True) -> None:
    """Registers the waiter of a parked exchange; it is forgotten when its client hangs up.

    Without ``reads_first`` its first read follows when its client has taken what it was sent.
    """
    waiters.register(waiter, reads_first=reads_first)
    exchange.watch(lambda: waiters.forget(waiter), lambda: waiters.again(waiter))
    if not reads_first and not exchange.backlog:
        waiters.again(waiter)
