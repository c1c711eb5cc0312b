"""Clients that wait for news of a request, without a thread each: long polls, synchronous requests, event streams.

    register ──┐                                  ┌─ over: answered, forgotten
    news ──────┼─ run_once: read_many, then take ─┼─ wait: for the next news, or its timer
    timer ─────┘                                  └─ again: there is more to read at once
      └─ of an event stream: comment, and a read only if more of its tasks have ended than it knows of
    news of a result that was read already ─ take, on the thread that read it

No news is lost. A waiter is registered before its first read, and news only makes it read the request's stream again
("An event is a hint", docs/architecture.md). Reads of many waiters share round trips. A client that posts and waits is expected
before the request begins; if no news came since then, its first read is left out.

A waiter gets a result only after the hub has written it to its file. A hub that is killed forgets what it had not written;
the same result would come again with a later cursor, and a client that reads on from its cursor would get it twice.

A result that is too large to be read together with others is read alone, one in each turn.
"""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, Protocol, cast

from msgspec import Struct, structs

from regions import logs, names
from regions.durability import File
from web.api.timers import Timers
from web.http.exchange import Exchange
from web.http.owner import Owner
from web.hub.ledger import Ledger
from web.hub.redis import Hub, HubUnavailable
from web.hub.view import START, Unreadable, View

READ_AT_ONCE: Final = 32  # (request, cursor) pairs; their results are in memory together
PIECES_AT_ONCE: Final = 4  # the same for readers of large answers, since all other answers wait while they are read
ANSWER_AT_ONCE: Final = 32  # waiters for one request; other threads get the processor between two turns
COMMENTS_AT_ONCE: Final = 256
AFTER_FAULT_SECONDS: Final = 0.1  # so that a lasting fault does not fill the log
FILE_LOOK_SECONDS: Final = 0.02  # between two questions whether the hub has written what was read

Why = Literal["news", "timer", "closing"]
Next = Literal["over", "wait", "again"]

log = logs.get("wait")


class Waiter(Protocol):
    """One waiting client. The thread of ``Waiters`` calls the methods; that of ``news`` may call ``take`` meanwhile."""

    request: str
    timer: float  # monotonic; when to read without news
    waits_for_end: bool  # of the request; single results are no news to it
    is_bulk: bool  # it reads a large answer piece by piece; waiters for news come first
    has_comments: bool  # it is ``Commented``, and its timer is that of its next comment
    needs_written: bool  # its client may read on from a cursor, so results must be in the hub's file
    owner: Owner  # of the call that waits

    def cursor(self) -> str:
        """The cursor after which to read."""

    def is_behind(self) -> bool:
        """Whether its client has not yet taken the last part. If so, it reads again after that, not when there is news."""

    def take(self, view: View | None, why: Why) -> Next:
        """Gets the request as it was just read; None if there is none."""

    def miss(self, error: HubUnavailable, why: Why) -> Next:
        """Gets the error if the request could not be read."""

    def fail(self) -> None:
        """Ends the answer after an unexpected error."""


class Commented(Waiter, Protocol):
    """An event stream, which gets a comment when it had no news for long. Most have none, so they are not read each time."""

    completed: int  # tasks of the request that had ended when it was last read

    def comment(self) -> Next:
        """Sends a comment, and sets the timer."""


class _Unwritten(Struct, frozen=True):
    """A view that was read before the hub had written it. ``file``: the hub's file after the read."""

    view: View
    why: Why
    file: File


class Waiters:
    """All waiters of a gateway, and the thread that reads for them."""

    def __init__(self, hub: Hub, ledger: Ledger) -> None:
        self._hub, self._ledger = hub, ledger
        self._changed = threading.Condition()
        self._by_request: dict[str, dict[Waiter, None]] = {}
        # Requests of one task that are about to begin: whether they had news, or how they ended.
        self._expected: dict[str, bool | View] = {}
        self._takers: dict[str, Waiter] = {}  # by request: the waiter that takes its one result
        self._count = 0
        self.by_key: Counter[str] = Counter()  # of the counted, those with an API key
        # Waiters that are due; each is in one of these. A turn serves some of each kind, so that none crowds out another.
        self._calls: dict[Waiter, Why] = {}  # synchronous requests
        self._due: dict[Waiter, Why] = {}
        self._bulk: dict[Waiter, Why] = {}
        self._large: dict[Waiter, Why] = {}  # their next result is read alone
        self._comments: dict[Commented, None] = {}  # streams that get a comment; they may be due as well
        self._unwritten: dict[Waiter, _Unwritten] = {}  # these are not due at the same time
        self._written_at = 0.0  # monotonic; when to ask the hub next
        self._timers = Timers[Waiter]()
        self._is_closing = self._is_stopped = False
        self._thread = threading.Thread(target=self.run, name="waiters", daemon=True)

    def __len__(self) -> int:
        return self._count

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Answers all waiters as if their wait had run out; later ones are answered at once."""
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

    def close_ended(self, is_live: Callable[[str], bool]) -> None:
        """Answers those whose API key has ended as if their wait had run out: a stream closes, and its client comes back for a 401."""
        with self._changed:
            ended = {key for key, count in self.by_key.items() if count and not is_live(key)}
            if not ended:
                return
            for waiters in self._by_request.values():
                for waiter in waiters:
                    if waiter.owner.key in ended:
                        self._make_due(waiter, "closing")
            self._changed.notify()

    def expect(self, request: str) -> None:
        """Notes that a request is about to begin, and that its waiter will follow."""
        with self._changed:
            self._expected[request] = False

    def expect_no_more(self, request: str) -> None:
        """No waiter will follow, or one whose results may already be there."""
        with self._changed:
            self._expected.pop(request, None)

    def register(self, waiter: Waiter, *, reads_first: bool = True) -> None:
        """Adds a waiter. Its first read follows at once, unless it was expected and its request had no news."""
        with self._changed:
            self._by_request.setdefault(waiter.request, {})[waiter] = None
            self._count += 1
            if waiter.owner.key:
                self.by_key[waiter.owner.key] += 1
            if _takes_result(waiter):
                self._takers[waiter.request] = waiter
            is_first = self._timers.set(waiter)
            news = reads_first and self._expected.pop(waiter.request, True)
            ended = news if isinstance(news, View) else None
            is_due = ended is None and (self._is_closing or bool(news))
            if is_due:
                self._make_due(waiter, "closing" if self._is_closing else "news")
            if is_due or is_first:
                self._changed.notify()
        if ended is not None:
            self._answer(waiter, "news", ended)

    def forget(self, waiter: Waiter) -> None:
        """Removes a waiter."""
        with self._changed:
            for kept in (self._calls, self._due, self._bulk, self._large, self._unwritten, self._comments):
                kept.pop(waiter, None)  # type: ignore[call-overload]
            if self._takers.get(waiter.request) is waiter:
                del self._takers[waiter.request]
            if self._is_waiting(waiter):
                self._count -= 1
                if waiter.owner.key:
                    self.by_key[waiter.owner.key] -= 1
                self._timers.forget(waiter)
                waiters = self._by_request[waiter.request]
                del waiters[waiter]
                if not waiters:
                    del self._by_request[waiter.request]

    def again(self, waiter: Waiter) -> None:
        """Reads for one waiter once more, after its client has taken what it was sent."""
        with self._changed:
            if self._is_waiting(waiter):
                self._make_due(waiter, "news")
                self._changed.notify()

    def wanted(self, requests: Iterable[str]) -> list[str]:
        """Those of the requests whose only result a client waits for, and takes before it is in the hub's file.

        The thread that settles them reads them in the same round trip, and gives them to ``news``.
        """
        with self._changed:
            return [request for request in requests if request in self._expected or request in self._takers]

    def news(self, requests: Iterable[str], views: Mapping[str, View] | None = None) -> None:
        """Wakes the waiters of these requests, which may have news. The strings are those that ``names.WAKE`` carries.

        A waiter for the end of a request is not woken for each of its tasks. ``views``: requests as they were read when they ended.
        Clients that wait for their results are answered on the calling thread: an answer never blocks.
        """
        ended: list[tuple[Waiter, View]] = []
        with self._changed:
            for news in requests:
                request = news.removesuffix(names.MORE)
                view = views.get(request) if views else None
                if request in self._expected and not isinstance(self._expected[request], View):
                    self._expected[request] = view or True
                for waiter in self._by_request.get(request, ()):
                    if view is not None and _takes_result(waiter):
                        ended.append((waiter, view))
                    elif (news == request or not waiter.waits_for_end) and not waiter.is_behind():
                        self._make_due(waiter, "news")
            if self._is_any_due():
                self._changed.notify()
        for waiter, view in ended:
            self._answer(waiter, "news", view)

    def all(self) -> None:
        """Wakes all waiters, since news may have been missed."""
        with self._changed:
            self._expected = {request: known or True for request, known in self._expected.items()}
            for waiters in self._by_request.values():
                for waiter in waiters:
                    if not waiter.is_behind():
                        self._make_due(waiter, "news")
            self._changed.notify()

    def run(self) -> None:
        """Serves until it is stopped."""
        while not self._is_stopped or self._is_any_due() or self._unwritten:
            try:
                self.run_once()
            except Exception:
                log.exception("waiters failed")
                time.sleep(AFTER_FAULT_SECONDS)

    def run_once(self) -> None:
        """Waits until waiters are due, and reads for a share of them in one round trip, and for a large result in another."""
        shares, streams = self._next_due()
        if streams:
            self._comment(streams)
        if self._unwritten and time.monotonic() >= self._written_at:
            self._look()
        for share in shares:
            self._serve(share)

    def _serve(self, due: dict[Waiter, Why]) -> None:
        """Reads for these waiters in one round trip."""
        reads = list(dict.fromkeys((waiter.request, waiter.cursor()) for waiter in due))
        try:
            with self._hub.asking():
                looks = any(waiter.needs_written for waiter in due)
                found, file = self._ledger.read_many(reads, how="wait", looks=looks)
        except HubUnavailable as error:
            for waiter, why in due.items():
                self._answer(waiter, why, error)
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
            if isinstance(view, View) and view.more and not view.results:
                self._read_alone(waiter, why)
            elif not isinstance(view, View) or is_written or not (view.results and waiter.needs_written):
                self._answer(waiter, why, view)
            else:
                self._keep(waiter, _Unwritten(view, why, file))

    def _comment(self, streams: list[Commented]) -> None:
        """Sends comments, and reads for those streams whose request has changed: news may have been lost on its way."""
        requests = list(dict.fromkeys(stream.request for stream in streams))
        try:
            with self._hub.asking():
                found = dict(zip(requests, self._ledger.completed(requests), strict=True))
        except Exception as error:
            if not isinstance(error, HubUnavailable):
                log.exception("asking for changes failed")
            found = {}  # they read when the hub is back
        for stream in streams:
            with self._changed:
                if found.get(stream.request, stream.completed) != stream.completed and not stream.is_behind():
                    self._make_due(stream, "news")
            if stream.comment() == "over":
                self.forget(stream)
                continue
            with self._changed:
                if self._is_waiting(stream):
                    self._timers.set(stream)

    def _read_alone(self, waiter: Waiter, why: Why) -> None:
        """Makes a waiter due again, whose next result is too large to be read together with others."""
        with self._changed:
            if self._is_waiting(waiter):
                since = self._lane(waiter).pop(waiter, why)  # made due during the read
                self._large[waiter] = why if since == "news" else since

    def _keep(self, waiter: Waiter, found: _Unwritten) -> None:
        """Lets a waiter wait until the hub has written what was read for it."""
        with self._changed:
            if self._is_waiting(waiter):
                if not self._unwritten:
                    self._written_at = time.monotonic() + FILE_LOOK_SECONDS
                # It may have been made due during the read; news is read after the answer.
                since = self._lane(waiter).pop(waiter, "news")
                self._unwritten[waiter] = found if since == "news" else structs.replace(found, why=since)

    def _look(self) -> None:
        """Answers waiters whose results are written by now. Results that the hub has lost are read again.

        Whether results are still there is asked only when they can be shown, since many clients may wait and looks
        are frequent.
        """
        self._written_at = time.monotonic() + FILE_LOOK_SECONDS
        with self._changed:
            kept = dict(self._unwritten)
        try:
            with self._hub.asking():
                _, file = self._ledger.have_results([])
                due = {waiter: one for waiter, one in kept.items() if file.has(one.file)}
                places = list(dict.fromkeys((one.view.id, one.view.last or one.view.cursor) for one in due.values()))
                answers, file = self._ledger.have_results(places) if places else ([], file)
        except Exception as error:
            if not isinstance(error, HubUnavailable):
                log.exception("asking for the hub's file failed")
            due, places, answers, file = kept, [], [], File()
        are_there = dict(zip(places, answers, strict=True))
        for waiter, one in due.items():
            is_there = are_there.get((one.view.id, one.view.last or one.view.cursor), False)
            if is_there and not file.has(one.file):
                continue
            with self._changed:
                found = self._unwritten.pop(waiter, None)
                if found is None:  # it was forgotten
                    continue
                if not is_there:
                    self._make_due(waiter, found.why)
                    continue
            self._answer(waiter, found.why, found.view)
            with self._changed:  # there may have been news meanwhile
                if self._is_waiting(waiter):
                    self._make_due(waiter, "closing" if self._is_closing else "news")

    def _make_due(self, waiter: Waiter, why: Why) -> None:
        """Marks a waiter for the next read, or for the one after the hub's file is written; the condition's lock is held."""
        if waiter in self._unwritten:
            if why != "news":
                self._unwritten[waiter] = structs.replace(self._unwritten[waiter], why=why)
            return
        lane = self._lane(waiter)
        if why == "news":
            lane.setdefault(waiter, why)
        elif lane.get(waiter) != "closing":
            lane[waiter] = why

    def _lane(self, waiter: Waiter) -> dict[Waiter, Why]:
        """Where a waiter is, or is put, when it is due; the condition's lock is held."""
        if waiter in self._large:
            return self._large
        if waiter.is_bulk:
            return self._bulk
        return self._due if waiter.needs_written else self._calls

    def _is_any_due(self) -> bool:
        return bool(self._calls or self._due or self._bulk or self._large or self._comments)

    def _answer(self, waiter: Waiter, why: Why, found: View | Unreadable | HubUnavailable | None) -> None:
        """Gives one waiter what was read, and does what it returns. Its errors do not reach other waiters."""
        try:
            if isinstance(found, View) and not waiter.owner.may_see(found.tenant):
                found = None
            if isinstance(found, Unreadable):
                waiter.fail()
                following: Next = "over"
            else:
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
                self._timers.set(waiter)

    def _next_due(self) -> tuple[list[dict[Waiter, Why]], list[Commented]]:
        """Waits until waiters are due, and takes shares of them, and of the streams that get a comment.

        Both are empty when it was woken to end, or to ask for the file.
        """
        with self._changed:
            while not self._is_any_due() and not (self._is_stopped and not self._unwritten):
                self._take_timers()
                if self._is_any_due() or (self._unwritten and time.monotonic() >= self._written_at):
                    break
                self._changed.wait(self._next_seconds())
            self._take_timers()
            share = _taken(self._calls, READ_AT_ONCE)
            share |= _taken(self._due, READ_AT_ONCE)
            share |= _taken(self._bulk, PIECES_AT_ONCE)
            streams = list(itertools.islice(self._comments, COMMENTS_AT_ONCE))
            for stream in streams:
                del self._comments[stream]
            return [share for share in (share, self._take_large()) if share], streams

    def _take_large(self) -> dict[Waiter, Why]:
        """The waiters for the large result that is read next; the condition's lock is held."""
        read = next(((waiter.request, waiter.cursor()) for waiter in self._large), None)
        chosen = [waiter for waiter in self._large if (waiter.request, waiter.cursor()) == read]
        return {waiter: self._large.pop(waiter) for waiter in chosen}

    def _next_seconds(self) -> float | None:
        """How long until a timer ends or the file must be looked at; the condition's lock is held."""
        next_timer = self._timers.next()
        moments = [] if next_timer is None else [next_timer]
        if self._unwritten:
            moments.append(self._written_at)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _is_waiting(self, waiter: Waiter) -> bool:
        """Whether a waiter is still registered; the condition's lock is held."""
        return waiter in self._by_request.get(waiter.request, ())

    def _take_timers(self) -> None:
        """Makes waiters due whose timer is over; the condition's lock is held."""
        for waiter in self._timers.over():
            if waiter.has_comments:
                self._comments[cast("Commented", waiter)] = None
            else:
                self._make_due(waiter, "timer")


def _taken(lane: dict[Waiter, Why], most: int) -> dict[Waiter, Why]:
    """Takes the waiters out of a lane that are served next, with at most ``most`` reads."""
    chosen: list[Waiter] = []
    reads: set[tuple[str, str]] = set()
    for waiter in lane:
        reads.add((waiter.request, waiter.cursor()))
        if len(reads) > most or len(chosen) == ANSWER_AT_ONCE:
            break
        chosen.append(waiter)
    return {waiter: lane.pop(waiter) for waiter in chosen}


def _takes_result(waiter: Waiter) -> bool:
    """Whether it waits for the one result of its request, and takes it as soon as it is there."""
    return waiter.waits_for_end and not waiter.needs_written and waiter.cursor() == START


def park(waiters: Waiters, waiter: Waiter, exchange: Exchange, *, reads_first: bool = True) -> None:
    """Registers the waiter of a parked exchange, and removes it when the client hangs up.

    Without ``reads_first``, the first read follows when the client has taken what it was sent.
    """
    waiters.register(waiter, reads_first=reads_first)
    exchange.watch(waiters, waiter)
    # What was sent before the watch may be taken by now, and nobody was told.
    if (exchange.written_bytes or not reads_first) and not exchange.backlog:
        waiters.again(waiter)
