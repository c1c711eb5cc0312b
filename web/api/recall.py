"""Answers from the history: requests that have left Redis, and the list of finished ones.

MongoDB may take seconds or never answer. So the exchange is parked first, and only two threads of this module wait.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

import msgspec
import redis

from regions import logs
from web.api import views
from web.api.events import Stream
from web.flow.history import History, HistoryAway, Wanted
from web.http import problems
from web.http.exchange import Answer, Exchange
from web.http.problems import Problem
from web.hub.ledger import START, Ledger, View

THREADS: Final = 2
STATUSES: Final = ("succeeded", "partial", "failed", "cancelled")
FILTERS: Final = ("source", "region", "status", "since", "cursor")

log = logs.get("history")


class Recall:
    """Answers from the history, or with 404 or 410. ``base`` is the beginning of all links."""

    def __init__(self, history: History, ledger: Ledger, base: str, result_ttl_seconds: float) -> None:
        self._history, self._ledger, self._base = history, ledger, base
        self._result_ttl_seconds = result_ttl_seconds
        self._threads = ThreadPoolExecutor(THREADS, "history")

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
            view = self._read(request, after)
            return self.missing(request).answer() if view is None else make(view)

        self._later(exchange, look)
        return None

    def stream(self, stream: Stream, exchange: Exchange) -> None:
        """Streams the events of a request that is not in Redis. A long stream ends early, and its client comes back."""
        if not self._history.is_on:
            exchange.answer(self.missing(stream.request).answer())
            return

        def look() -> Answer | None:
            view = self._read(stream.request, stream.cursor())
            if view is None:
                return self.missing(stream.request).answer()
            stream.take(view, "closing")
            return None

        self._later(exchange, look)

    def _read(self, request: str, after: str) -> View | None:
        """Reads from the history, unless Redis has the request: then it was refused, and will be removed from the history."""
        return None if self._ledger.tasks(request) is not None else self._history.read(request, after)

    def search(self, exchange: Exchange) -> Answer | None:
        """``GET /v1/requests``: finished requests, latest first."""
        wanted = _wanted(exchange)
        if not self._history.is_on:
            raise Problem("not-found", "no history is kept here: expected [hub] mongo in the settings, found none")

        def look() -> Answer:
            found, cursor = self._history.search(wanted)
            bodies = [msgspec.Raw(views.request_body(view, self._base, with_results=False)) for view in found]
            body = msgspec.json.encode({"requests": bodies, "cursor": cursor})
            return Answer(200, body, [views.JSON, ("Cache-Control", "no-store")])

        self._later(exchange, look)
        return None

    def _later(self, exchange: Exchange, look: Callable[[], Answer | None]) -> None:
        if not exchange.is_parked:
            exchange.park()
        self._threads.submit(_answer, exchange, look)


def _answer(exchange: Exchange, look: Callable[[], Answer | None]) -> None:
    try:
        answer = look()
    except HistoryAway as error:
        answer = problems.unavailable(error.reason).answer()
    except redis.exceptions.RedisError:
        answer = problems.unavailable("the hub's Redis does not answer").answer()
    except Exception:
        log.exception("reading the history failed", path=exchange.path[:200])
        answer = problems.internal().answer()
    if answer is not None:
        exchange.answer(answer)


def _wanted(exchange: Exchange) -> Wanted:
    """The filters of a query; raises ``Problem`` (400) with what is wrong."""
    given: dict[str, str] = {}
    for name, value in views.query_of(exchange):
        if name not in FILTERS or name in given:
            raise Problem("bad-request", f"expected each of {', '.join(FILTERS)} once at most, found {name[:60]!r}")
        given[name] = value
    status, cursor = given.get("status"), given.get("cursor")
    if status is not None and status not in STATUSES:
        raise Problem("bad-request", f"status: expected one of {', '.join(STATUSES)}, found {status[:60]!r}")
    if cursor is not None and not views.ID_PATTERN.fullmatch(cursor):
        raise Problem("bad-request", f"cursor: expected the cursor of an answer, found {cursor[:60]!r}")
    since = _since(given["since"]) if "since" in given else None
    return Wanted(given.get("source"), given.get("region"), status, since, cursor)


def _since(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # an offset may lead out of the years that there are
        raise Problem("bad-request", f"since: expected a time like 2026-11-24T04:14:00Z, found {text[:60]!r}") from None
