"""Answers with more results than one piece: the rest is read from the hub as the client takes the answer.

    begin ─ the first piece ─┬─ taken at once ─┬─ run_once of web.api.wait ─ the next piece ─ … ─ the end of the document
                             └─ later: drained ┘

It is one JSON document that shows the request as it was at the first read, without results that came later. However long
the document is, a slow reader holds one piece in memory.
"""

import time
from collections.abc import Sequence
from typing import Final

from msgspec import structs

from web.api import views
from web.api.wait import Next, Waiters, Why, park
from web.http.answer import Answer
from web.http.exchange import Exchange
from web.hub.redis import HubUnavailable
from web.hub.view import View

AWAY_MAX_SECONDS: Final = 30.0  # a hub that is away for longer ends the answer


class Pieces:
    """One client's answer; a waiter of ``web.api.wait``. ``bytes_max`` bounds the results of the answer."""

    __slots__ = (
        "_after",
        "_base",
        "_exchange",
        "_first",
        "_is_begun",
        "_is_full",
        "_left",
        "owner",
        "request",
        "timer",
    )
    waits_for_end = has_comments = False
    is_bulk = needs_written = True

    def __init__(self, exchange: Exchange, view: View, after: str, base: str, bytes_max: int) -> None:
        """``view`` was read since the cursor ``after``."""
        self.request, self.timer, self.owner = view.id, time.monotonic() + AWAY_MAX_SECONDS, exchange.owner
        self._exchange, self._base, self._left = exchange, base, bytes_max
        self._after = after
        self._is_begun = self._is_full = False
        self._first = view

    def begin(self, head: Answer) -> bool:
        """Sends the head and the first piece; False when there is no more to do."""
        results = b",".join(self._fitting(self._first))
        self._first = structs.replace(self._first, results=[], cursors=[], made={})  # they need not be held any longer
        return self._exchange.open_stream(head, b'{%b,"results":[%b' % (views.opening(self._first), results))

    def cursor(self) -> str:
        """The cursor after which to read."""
        return self._after

    def is_behind(self) -> bool:
        """Whether its client has not taken what it was sent."""
        return self._exchange.backlog

    def take(self, view: View | None, why: Why) -> Next:
        """Sends the next piece, and after the last one the end of the document."""
        if view is None:  # the request has expired
            self._exchange.abort()
            return "over"
        if self._exchange.backlog:
            return self._later(why)
        results = self._fitting(view)
        data = b"".join(b",%b" % result for result in results)
        is_last = self._is_full or not view.more or self._after == self._first.last
        if is_last:
            data += b"],%b}" % views.closing(self._first, self._base, self._after, more=self._is_full)
        if not self._exchange.send(data):
            return "over"
        if is_last:
            self._exchange.close_stream()
            return "over"
        return self._later(why) if self._exchange.backlog else "again"

    def miss(self, error: HubUnavailable, why: Why) -> Next:  # noqa: ARG002
        """Waits for the hub to come back, for up to ``AWAY_MAX_SECONDS``."""
        if why == "news" or self._exchange.backlog:
            return self._later(why)
        self._exchange.abort()
        return "over"

    def fail(self) -> None:
        """Cuts the answer after an error; the client sees that the document has no end."""
        self._exchange.abort()

    def _fitting(self, view: View) -> Sequence[bytes]:
        """The results of a view that belong to the answer. Moves the cursor past them."""
        taken = 0
        for at, result in zip(view.cursors, view.results, strict=True):
            if _order(at) > _order(self._first.last):
                break
            if self._is_begun and len(result) > self._left:
                self._is_full = True
                break
            self._is_begun = True
            self._left -= len(result)
            self._after = at
            taken += 1
        return view.results[:taken]

    def _later(self, why: Why) -> Next:
        if why == "timer":
            self.timer = time.monotonic() + AWAY_MAX_SECONDS
        return "wait"


def answer(
    waiters: Waiters, exchange: Exchange, view: View, after: str, *, base: str, bytes_max: int, head: Answer
) -> None:
    """Answers with ``head`` and a view, read since the cursor ``after``, of which more results wait."""
    if not exchange.is_parked:
        exchange.park()
    pieces = Pieces(exchange, view, after, base, bytes_max)
    if pieces.begin(head):
        park(waiters, pieces, exchange, reads_first=False)


def _order(cursor: str) -> tuple[int, int]:
    """A cursor as a pair that sorts like the stream."""
    ms, _, number = cursor.partition("-")
    return int(ms), int(number)
