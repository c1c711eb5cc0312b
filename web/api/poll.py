"""Calls about one request: polls, long polls, event streams, cancels, and where a task is."""

import functools
from collections.abc import Callable
from typing import Final

import msgspec

from jobs.contract import FINAL
from jobs.errors import Cancelled
from regions.durability import File
from web.api import pieces, trail, views
from web.api.events import DONE, Stream
from web.api.long_poll import Awaited, Wait
from web.api.query import Query, is_cursor
from web.api.recall import Recall
from web.api.wait import Waiters, park
from web.flow.clean import Cleaner
from web.http import problems
from web.http.answer import Answer
from web.http.exchange import WITHOUT_BODY, Exchange
from web.http.owner import Owner
from web.hub import ids
from web.hub.frame import made as frame_made
from web.hub.ledger import Ledger
from web.hub.redis import Hub, HubUnavailable
from web.hub.settlement import Settlement
from web.hub.view import START, STATE_ONLY, TaskView, Unreadable, View

WHOLE: Final = [views.JSON, ("Cache-Control", "no-store")]  # headers


class Poller:
    """``GET`` and ``DELETE /v1/requests/{id}``, ``…/events`` and ``…/tasks/{task}``. ``base`` is the beginning of all links."""

    def __init__(
        self,
        hub: Hub,
        ledger: Ledger,
        waiters: Waiters,
        cleaner: Cleaner,
        recall: Recall,
        base: str,
        check_room: Callable[[Owner], None],
        *,
        wait_max_seconds: float,
    ) -> None:
        """``check_room`` raises ``Problem`` where no more clients may wait with a key."""
        self._hub, self._ledger, self._waiters, self._cleaner = hub, ledger, waiters, cleaner
        self._recall, self._base, self._wait_max_seconds = recall, base, wait_max_seconds
        self._check_room = check_room
        self._absent = recall.stream  # one object for all streams

    def get(self, exchange: Exchange, request: str) -> Answer | None:
        """The request with the results since a cursor: at once, or parked until there is news."""
        query = Query(exchange, ("after", "wait"))
        after, wait = query.cursor("after"), query.seconds("wait", 0.0, self._wait_max_seconds)
        query.check()
        etags = exchange.header("If-None-Match")
        request = self._check(exchange, request)

        # Not self._polled, which is an object more for each that waits.
        render = functools.partial(Poller._polled, self, exchange, request, after or START, etags)
        if wait == 0:
            with self._hub.asking():
                view, file = self._read(exchange, request, after or START, how="poll")
            if view is None or not view.results or file.has(None):
                return render(view)
        awaited = Awaited(request=request, seconds=wait, until_done=after is None, after=after or START)
        self._park(exchange, awaited, render)
        return None

    def _polled(self, exchange: Exchange, request: str, after: str, etags: str, view: View | None) -> Answer | None:
        """The answer to a poll since the cursor ``after``; None if it comes from another thread."""
        if view is None:
            made = functools.partial(views.polled, base=self._base, if_none_match=etags)
            return self._recall.instead(exchange, request, made, after)
        if not view.more:
            return views.polled(view, self._base, etags)
        return self._in_pieces(exchange, view, after, views.polled_in_pieces(view, self._base, etags))

    def events(self, exchange: Exchange, request: str) -> Answer | None:
        """The request's event stream, which is parked; 204 for a client that has its end, so that a browser stops asking."""
        query = Query(exchange, ("after",))
        last, asked = exchange.header("Last-Event-ID"), query.text("after")
        if asked is not None and not is_cursor(asked.removesuffix(DONE)):
            query.fault("after", "a cursor like 1732421640123-0")
        if last and not is_cursor(last.removesuffix(DONE)):
            query.faults.append(("", f"Last-Event-ID: expected the id of an event, found {last[:60]!r}"))
        query.check()
        after = last or asked or START
        request = self._check(exchange, request)
        if after.endswith(DONE):
            return Answer(204, b"", [("Cache-Control", "no-store")])
        self._check_room(exchange.owner)
        exchange.park()
        stream = Stream(exchange, request, after, self._base, self._absent)
        park(self._waiters, stream, exchange)
        return None

    def delete(self, exchange: Exchange, request: str) -> Answer | None:
        """Cancels tasks that have not ended: at the hub at once, in the regions as soon as they get the message.

        If all have ended, nothing changes; but the regions get the cancels again, since they may have missed them.
        """
        request = self._check(exchange, request)
        with self._hub.asking():
            view = self._ledger.read(request, STATE_ONLY)
            if view is not None and not view.done and exchange.owner.may_see(view.tenant):
                self._ledger.settle([_cancelled(view, task) for task in view.tasks if task.status not in FINAL])
            view, file = self._read(exchange, request, START)
            left_ms = view.deadline_ms - self._ledger.now_ms() if view is not None else 0
        if view is not None and left_ms > 0:
            ended = [
                (task.id, region)
                for task in view.tasks
                if task.status == "cancelled"
                for region in (task.moved.asked if task.moved is not None else (task.region,))
            ]
            if ended:
                self._cleaner.cancel(request, ended, view.deadline_ms, left_ms)

        def render(view: View | None) -> Answer | None:
            if view is None:
                return self._recall.instead(exchange, request, self._whole)
            if not view.done:
                return problems.unavailable("the hub's Redis lost the cancel before it had written it").answer()
            if view.more:
                return self._in_pieces(exchange, view, START, Answer(200, b"", WHOLE))
            return self._whole(view)

        if view is None or file.has(None):
            return render(view)
        self._park(exchange, Awaited(request=request, seconds=0, until_done=True), render)
        return None

    def _read(self, exchange: Exchange, request: str, after: str, *, how: str = "") -> tuple[View | None, File]:
        """The request, None also if it is another tenant's, and the hub's file after that. Raises what ``Ledger.read`` raises."""
        [view], file = self._ledger.read_many([(request, after)], how=how, looks=True)
        if isinstance(view, Unreadable):
            raise view
        return view if view is not None and exchange.owner.may_see(view.tenant) else None, file

    def _park(self, exchange: Exchange, awaited: Awaited, render: Callable[[View | None], Answer | None]) -> None:
        """Lets the exchange wait for its answer without a thread."""
        if awaited.seconds:
            self._check_room(exchange.owner)
        exchange.park()
        park(self._waiters, Wait(exchange, awaited, render, _away), exchange)

    def task(self, exchange: Exchange, request: str, task: str) -> Answer:
        """Where one task of a request is: every hop, every attempt, its error in full."""
        request, task = self._check(exchange, request), task[:60].upper()
        exchange.note(task=task)
        with self._hub.asking() as client:
            found = trail.whereabouts(client, request, task)
        if found is None or not exchange.owner.may_see(found.tenant):
            kind = self._recall.missing(request).kind
            raise problems.Problem(kind, f"there is no task {task} of request {request}, or it has expired")
        body = msgspec.json.encode(trail.document(found))
        return Answer(200, body, [views.JSON, ("Cache-Control", "no-store")])

    def where(self, exchange: Exchange, task: str) -> Answer:
        """Where a task is, by the task's id alone."""
        if not views.ID_PATTERN.fullmatch(task.upper()):
            raise problems.Problem("not-found", f"expected a task's id ({views.ID}), found {task[:60]!r}")
        return self.task(exchange, ids.request_of(task.upper()), task)

    def _check(self, exchange: Exchange, request: str) -> str:
        """The request's id in capitals, noted for the log.

        Raises 404 if it is no id, or was refused: its accept may have got through after its 503.
        """
        exchange.request = request = request[:60].upper()
        if not views.ID_PATTERN.fullmatch(request) or self._cleaner.is_refused(request):
            raise self._recall.missing(request)
        return request

    def _whole(self, view: View) -> Answer:
        return Answer(200, views.request_body(view, self._base), WHOLE)

    def _in_pieces(self, exchange: Exchange, view: View, after: str, head: Answer) -> Answer | None:
        """None if the body of ``head`` follows in pieces; ``head`` if it has no body."""
        if head.status in WITHOUT_BODY:
            return head
        most = self._ledger.answer_bytes_max
        pieces.answer(self._waiters, exchange, view, after, base=self._base, bytes_max=most, head=head)
        return None


def _cancelled(view: View, task: TaskView) -> Settlement:
    error = Cancelled("the client cancelled it")
    frame = frame_made(task.id, task.source, task.region, "cancelled", error)
    return Settlement(
        request=view.id,
        task=task.id,
        region=task.region,
        status="cancelled",
        finished_ms=view.created_ms,  # counts for successes only
        size_bytes=len(frame),
        frame=frame,
        source=task.source,
        origin=error.whose,
    )


def _away(error: HubUnavailable) -> Answer:
    return problems.unavailable(error.reason).answer()
