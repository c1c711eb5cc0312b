"""A long poll or a synchronous request: one answer, at the news that a client waits for or at the end of its time."""

import time
from collections.abc import Callable

from msgspec import Struct

from web.api.wait import Next, Why
from web.http import problems
from web.http.answer import Answer
from web.http.exchange import Exchange
from web.hub.redis import HubUnavailable
from web.hub.view import START, STATE_ONLY, View


class Awaited(Struct, frozen=True, kw_only=True):
    """What a client waits for: results of a request after a cursor, or the request's end, for some seconds."""

    request: str
    seconds: float
    until_done: bool
    after: str = START
    total: int | None = None  # tasks of the request, where that is known
    needs_written: bool = True  # whether results are shown only when the hub has them in its file


class Wait:
    """A long poll or a synchronous request: one answer, at the news that it waits for or at the end of its time.

    ``render`` makes the answer from the request (None if there is none), ``away`` if the hub can't be asked at the end of the
    time. If either returns None, another thread gives the answer.
    """

    __slots__ = (
        "_after",
        "_away",
        "_exchange",
        "_is_looking",
        "_render",
        "needs_written",
        "owner",
        "request",
        "timer",
        "waits_for_end",
    )
    is_bulk = has_comments = False

    def __init__(
        self,
        exchange: Exchange,
        awaited: Awaited,
        render: Callable[[View | None], Answer | None],
        away: Callable[[HubUnavailable], Answer | None],
    ) -> None:
        self.request, self.timer = awaited.request, time.monotonic() + awaited.seconds
        self.waits_for_end, self.needs_written = awaited.until_done, awaited.needs_written
        self._exchange, self._after, self.owner = exchange, awaited.after, exchange.owner
        self._render, self._away = render, away
        # With several tasks, the first read is for the state only: results are read when the request has ended.
        self._is_looking = awaited.until_done and awaited.total != 1

    def cursor(self) -> str:
        """The cursor after which to read."""
        return STATE_ONLY if self._is_looking else self._after

    def is_behind(self) -> bool:
        """Never: nothing is sent before the one answer."""
        return False

    def take(self, view: View | None, why: Why) -> Next:
        """Answers at the news that it waits for, or when the time is over."""
        is_ready = view is None or view.done or (not self.waits_for_end and bool(view.results)) or why != "news"
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
        """Waits on, since the hub may be back in time; answers when the time is over."""
        if why == "news":
            return "wait"
        answer = self._away(error)
        if answer is not None:
            self._exchange.answer(answer)
        return "over"

    def fail(self) -> None:
        """Answers with 500."""
        self._exchange.answer(problems.internal().answer())
