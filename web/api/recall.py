"""Answers from the history: requests that have left Redis, and the list of requests.

The list has those that the history has, and those that it has not yet: they run, or have just ended (``names.LISTED``).

MongoDB may take seconds or never answer. So the exchange is parked first, and only two threads of this module wait. They serve
the clients in rotation, so that a client with many calls delays only itself.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Final

import msgspec
import redis
from msgspec import structs

from regions import logs, names
from web.api import views
from web.api.events import Stream
from web.api.query import Query
from web.flow.history import PAGE, PAGE_MAX, History, HistoryAway, Wanted
from web.http import problems
from web.http.answer import Answer
from web.http.exchange import Exchange
from web.http.problems import Problem
from web.hub.ledger import Ledger
from web.hub.view import START, STATE_ONLY, View

THREADS: Final = 2
LISTED_AT_ONCE: Final = 200  # requests that are read in one round trip
LOOKS_MAX: Final = 10_000  # requests that one search reads at most; its cursor leads to the others
RUNNING: Final = "running"
STATUSES: Final = ("succeeded", "partial", "failed", "cancelled")
FILTERS: Final = ("source", "region", "status", "since", "cursor", "limit")

_Call = Callable[[], None]

log = logs.get("history")


class Recall:
    """Answers from the history, or with 404 or 410. ``base`` is the beginning of all links."""

    def __init__(self, history: History, ledger: Ledger, base: str, result_ttl_seconds: float) -> None:
        self._history, self._ledger, self._base = history, ledger, base
        self._result_ttl_seconds = result_ttl_seconds
        self._threads = ThreadPoolExecutor(THREADS, "history")
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[_Call]] = {}  # by client, the next one first

    def stop(self) -> None:
        """Clients that still wait get no answer."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def missing(self, request: str) -> Problem:
        """404, or 410 if the id's own time says that the request has expired."""
        return views.not_there(request, self._result_ttl_seconds)

    def instead(
        self, exchange: Exchange, request: str, make: Callable[[View], Answer], after: str = START
    ) -> Answer | None:
        """The answer for a request that is not in Redis; None if another thread gives it."""
        if not self._history.is_on:
            return self.missing(request).answer()

        def look() -> Answer:
            view = self.read(exchange, request, after)
            return self.missing(request).answer() if view is None else make(view)

        self.later(exchange, look)
        return None

    def stream(self, stream: Stream, exchange: Exchange) -> None:
        """Streams the events of a request that is not in Redis. A long stream ends early, and its client comes back."""
        if not self._history.is_on:
            exchange.answer(self.missing(stream.request).answer())
            return

        def look() -> Answer | None:
            view = self.read(exchange, stream.request, stream.cursor())
            if view is None:
                return self.missing(stream.request).answer()
            stream.take(view, "closing")
            return None

        self.later(exchange, look)

    def read(self, exchange: Exchange, request: str, after: str = START) -> View | None:
        """Reads from the history what the client may see. It may take a while: call it in ``later``.

        Nothing if Redis has the request: then it was refused, and will be removed from the history, or is another tenant's.
        """
        view = None if self._ledger.tasks(request) is not None else self._history.read(request, after)
        if view is None or not exchange.owner.may_see(view.tenant):
            return None
        return structs.replace(view, webhook=self._ledger.webhook(request))

    @property
    def is_on(self) -> bool:
        """Whether a history is kept."""
        return self._history.is_on

    def search(self, exchange: Exchange) -> Answer | None:
        """``GET /v1/requests``: requests, the latest first. Without a history only those that run can be listed."""
        wanted = _wanted(exchange)
        if not self.is_on and wanted.status != RUNNING:
            raise Problem(
                "not-found",
                f"no history is kept here, so only status={RUNNING} can be listed: expected [hub] mongo in the settings, found none",
            )

        def look() -> Answer:
            found, cursor = self.found(wanted)
            bodies = [msgspec.Raw(views.request_body(view, self._base, with_results=False)) for view in found]
            body = msgspec.json.encode({"requests": bodies, "cursor": cursor})
            return Answer(200, body, [views.JSON, ("Cache-Control", "no-store")])

        self.later(exchange, look)
        return None

    def found(self, wanted: Wanted) -> tuple[list[View], str | None]:
        """Returns (a page of requests, the cursor of the next one); call it in ``later``.

        Redis is asked first: a request goes from there to the history. A page may be short, or empty, before the end.
        """
        end = None
        try:
            here, end = self._not_in_history(wanted)
        except redis.exceptions.RedisError:
            if wanted.status == RUNNING:
                raise
            here = []  # the history can be read without the hub
        there, more = ([], None) if wanted.status == RUNNING else self._history.search(wanted)
        views_by_id = {view.id: view for view in (*here, *there) if end is None or view.id >= end}
        found = [views_by_id[one] for one in sorted(views_by_id, reverse=True)]
        page = found[: wanted.limit]
        if len(found) <= wanted.limit and more is None and end is None:
            return page, None
        return page, page[-1].id if len(page) == wanted.limit else end

    def _not_in_history(self, wanted: Wanted) -> tuple[list[View], str | None]:
        """The latest requests that the history lacks: one more than a page has, if there are that many.

        The second is the last request looked at, if more are listed than one search reads.
        """
        listed = self._ledger.listed(wanted.tenant)
        members = [one for one in listed if wanted.before is None or names.request_of_listed(one) < wanted.before]
        end = names.request_of_listed(members[LOOKS_MAX - 1]) if len(members) > LOOKS_MAX else None
        del members[LOOKS_MAX:]
        found: list[View] = []
        for at in range(0, len(members), LISTED_AT_ONCE):
            part = {names.request_of_listed(member): member for member in members[at : at + LISTED_AT_ONCE]}
            read, _ = self._ledger.read_many([(request, STATE_ONLY) for request in part])
            found += [
                structs.replace(view, cursor=START) for view in read if isinstance(view, View) and _fits(view, wanted)
            ]
            unread = [request for request, view in zip(part, read, strict=True) if view is None]
            states = zip(unread, self._ledger.states(unread), strict=True)
            if gone := [part[request] for request, state in states if state is None]:
                self._ledger.unlist(gone)
            if len(found) > wanted.limit:
                return found[: wanted.limit + 1], None
        return found, end

    def later(
        self,
        exchange: Exchange,
        look: Callable[[], Answer | None],
        told: Callable[[Problem], Answer] = Problem.answer,
    ) -> None:
        """Answers from a thread that may wait for the history. ``told`` makes the answer if that fails."""
        if not exchange.is_parked:
            exchange.park()
        whose, call = exchange.whose, partial(_answer, exchange, look, told)
        with self._lock:
            self._waiting.setdefault(whose, deque()).append(call)
        exchange.watch(self, (whose, call))
        self._threads.submit(self._next)

    def forget(self, waiting: tuple[str, _Call]) -> None:
        """Its client has hung up: its call is not made, unless it has begun."""
        whose, call = waiting
        with self._lock:
            calls = self._waiting.get(whose, deque())
            if call in calls:
                calls.remove(call)
            if not calls:
                self._waiting.pop(whose, None)

    def again(self, waiting: tuple[str, _Call]) -> None:
        """Its client has taken a part of its answer, of which no more comes from here."""

    def _next(self) -> None:
        """Makes the next call."""
        with self._lock:
            whose = next(iter(self._waiting), None)
            if whose is None:  # its client has hung up
                return
            calls = self._waiting.pop(whose)
            call = calls.popleft()
            if calls:
                self._waiting[whose] = calls
        call()


def _answer(exchange: Exchange, look: Callable[[], Answer | None], told: Callable[[Problem], Answer]) -> None:
    try:
        answer = look()
    except Problem as problem:
        answer = told(problem)
    except HistoryAway as error:
        answer = told(problems.unavailable(error.reason))
    except redis.exceptions.RedisError:
        answer = told(problems.unavailable("the hub's Redis does not answer"))
    except Exception:
        log.exception("reading the history failed", path=exchange.path[:200])
        answer = told(problems.internal())
    if answer is not None:
        exchange.answer(answer)


def _fits(view: View, wanted: Wanted) -> bool:
    """Whether a request is one of those that a search wants, as the history would find it."""
    return (
        (wanted.status is None or view.status == wanted.status)
        and (wanted.source is None or any(task.source == wanted.source for task in view.tasks))
        and (wanted.region is None or any(task.region == wanted.region for task in view.tasks))
        and (wanted.since is None or view.created_ms >= wanted.since.timestamp() * 1000)
    )


def _wanted(exchange: Exchange) -> Wanted:
    """The filters of a query; raises ``Problem`` (400) with all that is wrong."""
    query = Query(exchange, FILTERS)
    status, before, since = query.text("status"), query.text("cursor"), query.text("since")
    if status is not None and status not in (RUNNING, *STATUSES):
        query.fault("status", f"one of {', '.join((RUNNING, *STATUSES))}")
    before = before and before.upper()
    if before is not None and not views.ID_PATTERN.fullmatch(before):
        query.fault("cursor", "the cursor of an answer")
    begin = None if since is None else _moment(since)
    if since is not None and begin is None:
        query.fault("since", "a time like 2026-11-24T04:14:00Z")
    limit = query.number("limit", PAGE, PAGE_MAX)
    query.check()
    owner = exchange.owner
    return Wanted(
        query.text("source"),
        query.text("region"),
        status,
        begin,
        before,
        limit,
        None if owner.sees_all else owner.tenant,
    )


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # an offset may lead out of the years that there are
        return None
