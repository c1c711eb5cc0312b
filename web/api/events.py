"""Event streams (Server-Sent Events): ``result`` for each task that ended, then ``done``.

``id:`` is the cursor. A client that comes back with ``Last-Event-ID`` (or ``?after=``) goes on where it was, also after the
end. ``retry`` stands first: it tells browsers when to come back, and a client that gets nothing at once that a proxy holds the
stream back. Every 15 s a comment keeps the connection alive, and the stream reads again if more tasks have ended.
"""

import time
from collections.abc import Callable
from typing import Final

from web.api import views
from web.api.wait import Next, Why
from web.http import problems
from web.http.answer import Answer
from web.http.exchange import Exchange
from web.hub.redis import HubUnavailable
from web.hub.view import View

COMMENT_SECONDS: Final = 15.0
DONE: Final = ".done"  # ends the id of the event ``done``: a client that has it needs nothing more
BEGIN: Final = b"retry: 2000\n\n"  # ms
COMMENT: Final = b":\n\n"
HEAD: Final = Answer(
    200,
    b"",
    [
        ("Content-Type", "text/event-stream; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("X-Accel-Buffering", "no"),
    ],
)


class Stream:
    """One client's stream; a waiter of ``web.api.wait``."""

    __slots__ = ("_absent", "_after", "_base", "_exchange", "_is_open", "completed", "owner", "request", "timer")
    waits_for_end = is_bulk = False
    has_comments = needs_written = True

    def __init__(
        self,
        exchange: Exchange,
        request: str,
        after: str,
        base: str,
        absent: Callable[["Stream", Exchange], None],
    ) -> None:
        """``absent`` answers if there is no such request, at once or later."""
        self.request, self.timer, self.owner = request, time.monotonic() + COMMENT_SECONDS, exchange.owner
        self._exchange, self._after, self._base, self._absent = exchange, after, base, absent
        self._is_open, self.completed = False, 0

    def cursor(self) -> str:
        """The cursor after which to read."""
        return self._after

    def is_behind(self) -> bool:
        """Whether its client has not taken what it was sent."""
        return self._exchange.backlog

    def take(self, view: View | None, why: Why) -> Next:
        """Sends new events. The head is sent only now, so that a missing request can still be a 404 or 410."""
        if view is None:
            if self._is_open:
                self._exchange.close_stream()
            else:
                self._absent(self, self._exchange)
            return "over"
        self._open()
        if self._exchange.backlog and why != "closing":  # a slow reader: it goes on when it has taken that
            return "wait"
        if "events" not in view.made:
            view.made["events"] = _events(view, self._base)
        events = view.made["events"]
        self._after, self.completed = view.cursor, -1 if view.more else view.completed
        is_end = view.done and not view.more
        if events and not self._exchange.send(events):
            return "over"
        if is_end or why == "closing":
            self._exchange.close_stream()
            return "over"
        return "again" if view.more and not self._exchange.backlog else "wait"

    def comment(self) -> Next:
        """Sends a comment, unless its client has yet to take what it was sent."""
        self.timer = time.monotonic() + COMMENT_SECONDS
        if self._is_open and not self._exchange.backlog and not self._exchange.send(COMMENT):
            return "over"
        return "wait"

    def miss(self, error: HubUnavailable, why: Why) -> Next:
        """Keeps an open stream through an outage; a stream that has not begun is refused."""
        if not self._is_open:
            self._exchange.answer(problems.unavailable(error.reason).answer())
            return "over"
        if why == "closing":
            self._exchange.close_stream()
            return "over"
        return "wait"

    def fail(self) -> None:
        """Cuts the stream after an error; the client comes back with its last id."""
        if self._is_open:
            self._exchange.abort()
        else:
            self._exchange.answer(problems.internal().answer())

    def _open(self) -> None:
        if not self._is_open:
            self._is_open = True
            self._exchange.open_stream(HEAD, BEGIN)


def _events(view: View, base: str) -> bytes:
    """The events of a view: its results, and ``done`` if it has ended."""
    events = [_event(b"result", at, result) for at, result in zip(view.cursors, view.results, strict=True)]
    if view.done and not view.more:
        events.append(_event(b"done", view.cursor + DONE, views.request_body(view, base, with_results=False)))
    return b"".join(events)


def _event(kind: bytes, at: str, data: bytes) -> bytes:
    """One event. Each line of the data gets its own ``data:``, since a line break would end the field."""
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (at.encode(), kind, data)
