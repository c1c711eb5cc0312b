"""A request as its ledger tells it: its state, its tasks, and its results since a cursor."""

from typing import Any, Final

import msgspec
from msgspec import Struct

from jobs import contract
from web.hub import frame, takeover
from web.hub.takeover import Moved
from web.hub.webhooks import WebhookView, view_of

START: Final = "0-0"  # the cursor before the first result
STATE_ONLY: Final = "18446744073709551614-0"  # a cursor after every result, to read the request without results


class MovedView(Struct, frozen=True, rename={"home": "from"}):
    """Why a task was asked of another region than its source's, as its request's JSON shows it. ``asked``: all of them."""

    home: str
    to: str
    why: str
    at: str
    asked: tuple[str, ...]


class TaskView(Struct, frozen=True, omit_defaults=True):
    """A task as its request's JSON shows it. ``region`` is the one that answered, or was asked first; ``moved`` is left out if there is none."""

    id: str
    source: str
    region: str
    status: str
    moved: MovedView | None = None


class View(Struct, frozen=True, kw_only=True):
    """A request as it is now, with the whole JSON of each result since a cursor."""

    id: str
    created_ms: int
    deadline_ms: int
    expires_ms: int
    total: int
    completed: int
    succeeded: int
    cancelled: int
    tasks: list[TaskView]
    attrs: bytes
    results: list[bytes]
    cursors: list[str]  # of each result
    cursor: str
    more: bool
    last: str = ""  # the cursor after all results, also those that were not read (``more``)
    tenant: str = ""  # whose it is
    traceparent: str = ""  # as its client sent it
    webhook: WebhookView | None = None
    made: dict[str, bytes] = msgspec.field(default_factory=dict)  # bytes made of this view, once for all its readers

    @property
    def done(self) -> bool:
        """Whether every task is final."""
        return self.completed == self.total

    @property
    def status(self) -> str:
        """``running``, ``succeeded``, ``partial``, ``failed`` or ``cancelled``."""
        if not self.done:
            return "running"
        if self.cancelled:
            return "cancelled"
        if self.succeeded == self.total:
            return "succeeded"
        return "partial" if self.succeeded else "failed"


class Unreadable(Exception):  # noqa: N818
    """A request whose data can't be read, because something else stands where the hub keeps it."""


def mapping(flat: list[bytes]) -> dict[bytes, bytes]:
    """A reply of field, value, field, value, … as a dict."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def task_views(fields: dict[bytes, bytes]) -> list[TaskView]:
    """A request's tasks. ``fields``: its ledger."""
    views = []
    for task, source, home in msgspec.json.decode(fields[b"tasks"]):
        name, region = task.encode(), home
        status, _, asked = fields[b"t:" + name].decode().partition("|")
        moved = takeover.moved(fields.get(b"m:" + name))
        if moved is not None:
            region = asked.partition("|")[0].partition(",")[0]  # the one that answered, or was asked first
        views.append(TaskView(task, source, region, status, moved_view(moved, fields) if moved is not None else None))
    return views


def moved_view(moved: Moved, fields: dict[bytes, bytes]) -> MovedView:
    """How a task moved. ``fields``: its request's ledger."""
    at = contract.rfc3339(moved.at_ms or int(fields[b"created"]))
    return MovedView(moved.home, moved.to, moved.why, at, moved.asked)


def read_view(request: str, after: str, reply: list[Any], *, spliced: bool = True) -> View | None:
    """The view in a reply of ``read.lua``; None if there is none, or if a result of it is gone."""
    flat, found, more, last = reply
    frames = found[1::5]
    if None in frames:
        return None
    fields = mapping(flat)
    convert = frame.spliced_reply if spliced else frame.whole
    results = list(map(convert, *(found[at::5] for at in (1, 2, 3, 4))))
    if spliced and b"traceparent" in fields:
        results = [frame.traced(result, fields[b"traceparent"]) for result in results]
    return _view(request, after, fields, found[::5], results, last.decode() if more else "")


def view_without_results(request: str, flat: list[bytes]) -> View | None:
    """A request of which only the ledger is known, as HGETALL tells it; None if it was not accepted."""
    return _view(request, START, mapping(flat), [], [], "")


def _view(
    request: str, after: str, fields: dict[bytes, bytes], entries: list[bytes], results: list[bytes], last: str
) -> View | None:
    """None for a request that is unknown, expired or not accepted (yet). ``last`` is empty if no more results wait."""
    if fields.get(b"state") != b"accepted":
        return None
    cursors = [entry.decode() for entry in entries]
    return View(
        id=request,
        created_ms=int(fields[b"created"]),
        deadline_ms=int(fields[b"deadline"]),
        expires_ms=int(fields[b"expires"]),
        total=int(fields[b"total"]),
        completed=int(fields[b"completed"]),
        succeeded=int(fields.get(b"succeeded", 0)),
        cancelled=int(fields.get(b"cancelled", 0)),
        tasks=task_views(fields),
        attrs=fields[b"attrs"],
        results=results,
        cursors=cursors,
        cursor=cursors[-1] if cursors else after,
        tenant=fields.get(b"tenant", b"").decode(),
        traceparent=fields.get(b"traceparent", b"").decode(),
        webhook=view_of(fields, "webhook.") if b"webhook.url" in fields else None,
        more=bool(last),
        last=last,
    )
