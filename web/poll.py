"""What a client asks about a request that it has: polls, long polls and event streams."""

from web import problems, views
from web.events import Stream
from web.exchange import Answer, Exchange
from web.hub import Hub, HubUnavailable
from web.ledger import START, Ledger, View
from web.wait import Wait, Waiters, park


class Poller:
    """``GET /v1/requests/{id}`` and ``…/events``. ``base`` is what links begin with."""

    def __init__(
        self,
        hub: Hub,
        ledger: Ledger,
        waiters: Waiters,
        base: str,
        *,
        wait_max_seconds: float,
        result_ttl_seconds: float,
    ) -> None:
        self._hub, self._ledger, self._waiters, self._base = hub, ledger, waiters, base
        self._wait_max_seconds, self._result_ttl_seconds = wait_max_seconds, result_ttl_seconds

    def get(self, exchange: Exchange, request: str) -> Answer | None:
        """The request with the results since a cursor: at once, or parked until there is news."""
        exchange.fields["request"] = request
        query = dict(query_of(exchange))
        after = views.cursor(query["after"]) if "after" in query else None
        wait = views.seconds("wait", query["wait"], self._wait_max_seconds) if "wait" in query else 0.0
        known = exchange.header("If-None-Match")
        if not views.ID_PATTERN.fullmatch(request):
            raise self._missing(request)

        def render(view: View | None) -> Answer:
            return self._missing(request).answer() if view is None else views.polled(view, self._base, known)

        if wait == 0:
            with self._hub.asking():
                return render(self._ledger.read(request, after or START))
        exchange.park()
        waiter = Wait(
            exchange,
            request,
            after=after or START,
            until_done=after is None,
            seconds=wait,
            render=render,
            away=_away,
        )
        park(self._waiters, waiter, exchange)
        return None

    def events(self, exchange: Exchange, request: str) -> Answer | None:
        """The request's event stream; always parked."""
        exchange.fields["request"] = request
        after = exchange.header("Last-Event-ID") or dict(query_of(exchange)).get("after") or START
        views.cursor(after)
        if not views.ID_PATTERN.fullmatch(request):
            raise self._missing(request)
        exchange.park()
        stream = Stream(exchange, request, after, self._base, lambda: self._missing(request))
        park(self._waiters, stream, exchange)
        return None

    def _missing(self, request: str) -> problems.Problem:
        return views.not_there(request, self._result_ttl_seconds)


def query_of(exchange: Exchange) -> list[tuple[str, str]]:
    """The query's pairs; raises ``Problem`` (400) when it can't be read."""
    try:
        return exchange.query()
    except ValueError as error:
        raise problems.Problem("bad-request", f"query: {error}") from error


def _away(error: HubUnavailable) -> Answer:
    return problems.unavailable(error.reason).answer()
