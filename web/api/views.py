"""Requests as JSON. Results are spliced in as bytes, and their records never decoded."""

import hashlib
import re
import time
from typing import Final

import msgspec
from ulid import ULID

from jobs import contract
from web.http import problems
from web.http.answer import Answer
from web.hub.new_request import New, NewTask, Times
from web.hub.view import START, MovedView, TaskView, View
from web.hub.webhooks import WebhookView, message, shown

JSON: Final = ("Content-Type", "application/json")
RETRY_AFTER: Final = ("Retry-After", "1")
ID_PATTERN: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
ID: Final = "26 letters and digits, without I, L, O and U"


def first_view(new: New, times: Times) -> View:
    """A request as it was accepted."""
    return View(
        id=new.id,
        created_ms=times.created_ms,
        deadline_ms=times.deadline_ms,
        expires_ms=times.expires_ms,
        total=len(new.tasks),
        completed=0,
        succeeded=0,
        cancelled=0,
        tasks=[_first_task(task, times) for task in new.tasks],
        attrs=new.attrs,
        results=[],
        cursors=[],
        cursor=START,
        more=False,
        traceparent=new.traceparent,
        webhook=pending(new.webhook.url) if new.webhook else None,
    )


def pending(url: str) -> WebhookView:
    """The webhook of a request that has not ended."""
    return WebhookView(shown(url), "pending")


def _first_task(task: NewTask, times: Times) -> TaskView:
    moved = task.moved
    note = None
    if moved is not None:
        note = MovedView(moved.home, moved.to, moved.why, contract.rfc3339(times.created_ms), moved.asked)
    return TaskView(task.id, task.source, task.region, "queued", note)


def request_body(view: View, base: str, *, with_results: bool = True) -> bytes:
    """A request's JSON; ``base`` is the beginning of its links."""
    name = "body" if with_results else "body without results"
    if name not in view.made:
        view.made[name] = _request_body(view, base, with_results=with_results)
    return view.made[name]


def _request_body(view: View, base: str, *, with_results: bool) -> bytes:
    results = b'"results":[%b],' % b",".join(view.results) if with_results else b""
    return b"{%b,%b%b}" % (opening(view), results, closing(view, base, view.cursor, more=view.more))


def opening(view: View) -> bytes:
    """The members of a request's JSON before its results."""
    document = {
        "id": view.id,
        "status": view.status,
        "done": view.done,
        "total": view.total,
        "completed": view.completed,
        "created_at": contract.rfc3339(view.created_ms),
        "expires_at": contract.rfc3339(view.expires_ms),
        **({"traceparent": view.traceparent} if view.traceparent else {}),
    }
    return msgspec.json.encode(document)[1:-1]


def closing(view: View, base: str, cursor: str, *, more: bool) -> bytes:
    """The members of a request's JSON after its results."""
    document = {
        "cursor": cursor,
        "more": more,
        "tasks": view.tasks,
        "links": {"self": link(base, view.id), "events": f"{link(base, view.id)}/events"},
        "attrs": msgspec.Raw(view.attrs),
        **({} if view.webhook is None else {"webhook": view.webhook}),
    }
    return msgspec.json.encode(document)[1:-1]


def webhook_message(view: View, ended_ms: int, base: str) -> bytes:
    """What a request's webhook is told when the request has ended."""
    return message(ended_ms, request_body(view, base, with_results=False))


def link(base: str, request: str) -> str:
    """The address of a request."""
    return f"{base}/v1/requests/{request}"


def accepted(view: View, base: str) -> Answer:
    """202: the request is accepted, and ``Location`` says where to ask for it."""
    return Answer(202, request_body(view, base), accepted_headers(view, base))


def accepted_headers(view: View, base: str) -> list[tuple[str, str]]:
    """The headers of a 202."""
    return [JSON, ("Location", link(base, view.id)), RETRY_AFTER, ("Cache-Control", "no-store")]


def finished(view: View, base: str, seconds: float) -> Answer:
    """200 with the finished request, for a client that waited for up to this many seconds."""
    applied = ("Preference-Applied", f"wait={seconds:g}")
    return Answer(200, request_body(view, base), [JSON, applied, ("Cache-Control", "no-store")])


def polled(view: View, base: str, if_none_match: str) -> Answer:
    """200 with its ETag, or 304 if the client has this version."""
    body = request_body(view, base)
    if "etag" not in view.made:
        view.made["etag"] = _etag(body)
    headers, is_known = _validated(view.made["etag"], if_none_match)
    return Answer(304, b"", headers) if is_known else Answer(200, body, [JSON, *headers])


def polled_in_pieces(view: View, base: str, if_none_match: str) -> Answer:
    """The same if more results wait than were read: 200 without its body, or 304.

    Results never change, so an ETag of the other members tells one body from another.
    """
    whole = b"%b %b %b" % (view.cursors[0].encode(), opening(view), closing(view, base, view.last, more=False))
    headers, is_known = _validated(_etag(whole), if_none_match)
    return Answer(304, b"", headers) if is_known else Answer(200, b"", [JSON, *headers])


def _etag(body: bytes) -> bytes:
    return b'"%b"' % hashlib.blake2b(body, digest_size=12).hexdigest().encode()


def _validated(etag: bytes, if_none_match: str) -> tuple[list[tuple[str, str]], bool]:
    """Returns (the headers for a conditional request, whether the client has this version)."""
    tag = etag.decode()
    etags = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return [("ETag", tag), ("Cache-Control", "no-cache")], tag in etags or "*" in etags


def not_there(request: str, result_ttl_seconds: float) -> problems.Problem:
    """404, or 410 if the id's own time says that the request has expired."""
    if not ID_PATTERN.fullmatch(request):
        return problems.Problem("not-found", f"expected a request's id ({ID}), found {request[:60]!r}")
    age_seconds = time.time() - ULID.from_str(request).timestamp
    if age_seconds > result_ttl_seconds:
        return problems.Problem("expired", f"its results were kept for {result_ttl_seconds:g} s, and have expired")
    return problems.Problem("not-found", f"there is no request {request}")
