"""The page of one request, hop by hop, and the records of a task of it as CSV.

    /requests/ID?task=       its tasks, and the way of each
    /requests/ID/TASK.csv    the records of one task, as the interface gives them

A request that has left Redis is read from the history, on a thread that may wait for it. Its hops are gone by then; what its
results say of their time is shown instead.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from jobs import contract, result_frame
from jobs.contract import rfc3339
from web.api import rows, trail, views
from web.api.query import Query
from web.console import frame
from web.console.frame import Page, Parts, badge, bytes_text, cut, facts, moment, ms_text, table
from web.http.answer import Answer
from web.http.exchange import Exchange
from web.http.markup import NOTHING, Child, Html, join, tag
from web.http.problems import Problem
from web.hub.faults import Fault
from web.hub.view import START, STATE_ONLY, TaskView, View

SHOWN_MAX: Final = 6  # tasks whose way is shown without being chosen
# What a task did until a hop: in words, and its colour. After a hop that says that it waits, it waited (``_did``).
UNTIL: Final = {
    "accepted": ("accepted", "publish"),
    "confirmed": ("to RabbitMQ", "publish"),
    "bridged": ("to the region", "publish"),
    "claimed": ("waiting for a worker", "queued"),
    "finished": ("fetching and parsing", "fetch"),
    "failed": ("fetching and parsing", "fetch"),
    "lost": ("in a process that died", "bad"),
    "put back": ("in a worker without a turn", "queued"),
    "settled": ("home", "home"),
    "delivered": ("until it was read", "other"),
}
WAITS: Final = ("waited", "joined")
NOW: Final = "now"
# What a task does since its last hop; after any other hop it waits for a worker.
SINCE: Final = {
    "accepted": ("to RabbitMQ", "publish"),
    "confirmed": ("waiting for its region's bridge", "queued"),
    "claimed": ("fetching and parsing", "fetch"),
    "failed": ("waiting for its next attempt", "queued"),
    "finished": ("home", "home"),
}
OF_HUB: Final = ("hub-redis-", "rabbitmq-")  # faults of servers that every task needs


class Told(Struct, frozen=True):
    """What is known of one task: its state, how long after the accept it ended, its way if that is kept, the head of its result."""

    task: TaskView
    ended_ms: float | None = None
    way: Mapping[str, Any] | None = None
    result: contract.Result | None = None


def one(parts: Parts, exchange: Exchange, request: str) -> Page | None:
    """``/requests/ID``."""
    query = Query(exchange, ("task",))
    query.check()
    chosen = (query.text("task") or "").upper()
    request = _id(parts, exchange, request)
    with parts.hub.asking() as client:
        view = parts.ledger.read(request, STATE_ONLY)
        if view is not None and exchange.owner.may_see(view.tenant):
            settled = trail.settled_at(client, request)
            ended = {task: at_ms - view.created_ms for task, at_ms in settled.items()}
            ways = {}
            for task in _shown(view, chosen):
                if (found := trail.whereabouts(client, request, task.id)) is not None:
                    way = msgspec.to_builtins(trail.document(found))
                    if found.result is None:
                        way["hops"].append(_now(way["hops"], time.time() * 1000 - view.created_ms))
                    ways[task.id] = Told(task, ended.get(task.id), way, found.result)
            told = [ways.get(task.id, Told(task, ended.get(task.id))) for task in view.tasks]
            return _request(view, told, chosen, parts.faults.now)
    if not parts.recall.is_on:
        raise parts.recall.missing(request)

    def look() -> Answer:
        view = parts.recall.read(exchange, request)
        if view is None:
            raise parts.recall.missing(request)
        heads = {head.task: head for head in map(result_frame.head_of, view.results)}
        made = _request(view, [_kept(task, heads.get(task.id)) for task in view.tasks], chosen)
        return frame.answer(made, exchange, parts.files)

    frame.later(parts, exchange, look)
    return None


def _kept(task: TaskView, result: contract.Result | None) -> Told:
    """A task of the history."""
    return Told(task, None if result is None else result.timing.total_ms, None, result)


def _id(parts: Parts, exchange: Exchange, request: str) -> str:
    exchange.request = request = request[:60].upper()
    if not views.ID_PATTERN.fullmatch(request):
        raise parts.recall.missing(request)
    return request


def _shown(view: View, chosen: str) -> list[TaskView]:
    """The tasks whose way is shown: the chosen one; without a choice all, if they are few, or those that failed first."""
    if chosen:
        return [task for task in view.tasks if task.id == chosen]
    order = {"failed": 0, "expired": 0, "running": 1}
    return sorted(view.tasks, key=lambda task: order.get(task.status, 2))[:SHOWN_MAX]


def _request(view: View, told: Sequence[Told], chosen: str, faults: Iterable[Fault] = ()) -> Page:
    """``faults``: what is wrong now, which may be why its tasks wait."""
    shown = {task.id for task in _shown(view, chosen)}
    many = len(view.tasks) > 1
    head = [
        tag("p", tag("a", "All requests", href="/requests"), class_="small back"),
        tag("div", tag("h1", "Request"), badge(view.status), class_="row"),
        tag("p", tag("code", view.id), class_="id"),
    ]
    summary: list[tuple[str, Child]] = [
        ("asked at", moment(rfc3339(view.created_ms))),
        ("tasks that ended", f"{view.completed} of {view.total}"),
        ("succeeded", str(view.succeeded)),
        ("deadline", f"{(view.deadline_ms - view.created_ms) / 1000:g} s"),
        ("results kept until", moment(rfc3339(view.expires_ms))),
    ]
    if view.tenant:
        summary.append(("tenant", view.tenant))
    attrs = view.attrs.decode("utf-8", "replace")
    if attrs.strip() not in ("", "{}"):
        summary.append(("attrs", tag("code", attrs)))
    listed = _tasks(view, told, chosen) if many else NOTHING
    ways = [_way(view.id, one, number) for number, one in enumerate(told, 1) if one.task.id in shown]
    if many and not chosen and len(view.tasks) > len(shown):
        ways.append(
            tag("p", f"The way of {len(shown)} tasks is shown. Choose another one above.", class_="muted small")
        )
    main = join(head, tag("div", facts(summary), class_="card"), _holding(view, faults), listed, ways)
    return Page(f"Request {view.id}", tag("div", main, id="request", data_refresh=None if view.done else 1))


def _tasks(view: View, told: Sequence[Told], chosen: str) -> Html:
    """All tasks side by side: when each of them ended."""
    whole = max([one.ended_ms or 0 for one in told] + ([] if view.done else [view.deadline_ms - view.created_ms]))
    parts = {"failed": "bad", "expired": "turn", "cancelled": "other"}

    def row(one: Told) -> tuple[Child, ...]:
        task = one.task
        is_chosen = "true" if task.id == chosen else None
        link = tag("a", task.source, href=f"/requests/{view.id}?task={task.id}", aria_current=is_chosen)
        if one.ended_ms is None:
            return link, task.region, badge(task.status), "", ""
        bar = _span(0, one.ended_ms, whole, parts.get(task.status, "publish"))
        return link, task.region, badge(task.status), ms_text(one.ended_ms), bar

    headings = ("task", "region", "status", "ended after", tag("span", "on one scale", class_="unseen"))
    listed = table(headings, map(row, told), label="Tasks", numbers=(3,), wide=4)
    return join(
        tag("h2", "Tasks"),
        listed,
        tag("p", tag("a", "All tasks", href=f"/requests/{view.id}"), class_="small") if chosen else None,
    )


def _holding(view: View, faults: Iterable[Fault]) -> Html:
    """What may hold the tasks that have not ended: what is wrong with their regions, their sources and the hub. Other faults are left out."""
    waiting = [task for task in view.tasks if task.status in ("queued", "running")]
    regions, sources = {task.region for task in waiting}, {None, *(task.source for task in waiting)}
    found = [
        one
        for one in faults
        if waiting
        and one.name != "region-taken-over"
        and (one.name.startswith(OF_HUB) or (one.region in regions and one.source in sources))
    ]
    if not found:
        return NOTHING
    lines = [
        tag("li", f"{one.region}: " if one.region else "", cut(one.message), ". ", tag("a", "What mends it", href=one.runbook))
        for one in found[:SHOWN_MAX]
    ]  # fmt: skip
    return tag("div", tag("p", tag("strong", "Why it may wait")), tag("ul", lines), class_="notice fair")


def _way(request: str, told: Told, number: int) -> Html:
    """One task: figures, its way as a picture and hop by hop, its attempts, and its error in full."""
    task, way, result = told.task, told.way, told.result
    heading = tag(
        "div",
        tag("h2", tag("a", task.source, href=f"/sources/{task.source}")),
        badge(task.status),
        tag("span", task.region, class_="muted small"),
        class_="row",
    )
    parts: list[Child] = [heading, tag("p", tag("code", task.id), class_="id")]
    if result is not None:
        parts.append(_figures(result))
    error = result.error if result is not None else None
    if error is not None:
        said: list[Child] = [tag("p", tag("strong", f"{error.type} ({error.origin}): "), error.message)]
        if error.http_status:
            said.append(tag("p", f"The target answered {error.http_status}."))
        if error.retry_after:
            said.append(tag("p", f"It may be asked again in {error.retry_after:g} s."))
        parts.append(tag("div", said, class_="notice bad"))
    if way is not None:
        parts += [_picture(way["hops"]), _hops(way["hops"], number)]
        if len(way["attempts"]) > 1 or any(one["error"] for one in way["attempts"]):
            parts.append(_attempts(way["attempts"], number))
    elif result is not None:
        parts += [
            _timing(result.timing),
            tag("p", "Its hops are kept for as long as its results; this is from the history.", class_="muted small"),
        ]
    if result is not None and result.warnings:
        parts.append(
            tag(
                "details",
                tag("summary", "Warnings"),
                tag("ul", (tag("li", one) for one in result.warnings)),
            )
        )
    if result is not None and error is None:
        parts.append(tag("p", tag("a", "Records as CSV", href=f"/requests/{request}/{task.id}.csv"), class_="small"))
    return tag("section", parts, class_="card way", aria_label=f"Task {number}: {task.source}")


def _figures(result: contract.Result) -> Html:
    figures: list[tuple[str, Child]] = [
        ("records", str(result.count)),
        ("time", ms_text(result.timing.total_ms)),
        ("fetched", "unchanged" if not result.bytes.raw and result.bytes.spared else bytes_text(result.bytes.raw)),
        ("sent home", bytes_text(result.bytes.wire)),
        ("attempts", str(result.attempts)),
    ]
    if result.timing.turn_ms:
        figures.append(("waited for its turn", ms_text(result.timing.turn_ms)))
    if result.cached or result.stale:
        figures.append(("age", f"{result.age:g} s{', stale' if result.stale else ''}"))
    if result.url:
        figures.append(("page", tag("a", result.url, href=result.url, rel="noreferrer noopener nofollow")))
    return facts(figures)


def _picture(hops: Sequence[Mapping[str, Any]]) -> Html:
    """The way as one bar: each piece is what the task did until a hop."""
    whole = max((one["after_ms"] for one in hops), default=0)
    if len(hops) < 2 or whole <= 0:
        return NOTHING
    sums: dict[tuple[str, str], float] = {}
    pieces = []
    for before, after in itertools.pairwise(hops):
        start = max(0, before["after_ms"])
        ms = max(0, after["after_ms"] - start)
        did = _did(before, after)
        sums[did] = sums.get(did, 0) + ms
        at, wide = round(100 * start / whole, 3), round(100 * ms / whole, 3)
        pieces.append(tag("rect", class_=f"part-{did[1]}", x=at, y=0, width=wide, height=6))
    return _bar(pieces, [(name, part, ms) for (name, part), ms in sums.items()])


def _now(hops: Sequence[Mapping[str, Any]], after_ms: float) -> dict[str, Any]:
    """The hop in which a task is that has not ended: it lasts until now."""
    return {"hop": NOW, "where": "", "after_ms": max([round(after_ms), *(one["after_ms"] for one in hops)])}


def _did(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """What a task did between two hops: in words, and its colour."""
    if before["hop"] in WAITS:
        return before.get("note", "").partition(": ")[0] or "waiting", "turn"
    if after["hop"] == NOW:
        return SINCE.get(before["hop"], ("waiting for a worker", "queued"))
    return UNTIL.get(after["hop"], ("in the region", "queued"))


def _timing(timing: contract.Timing) -> Html:
    told = [
        ("queued", "queued", timing.queued_ms),
        ("waiting for a turn", "turn", timing.turn_ms),
        ("fetching", "fetch", timing.fetch_ms),
        ("parsing", "parse", timing.parse_ms),
    ]
    parts = [(name, part, max(0.0, ms)) for name, part, ms in told]  # a region may say anything
    whole = max(timing.total_ms, sum(ms for _, _, ms in parts), 0.001)
    at, pieces = 0.0, []
    for _, part, ms in parts:
        pieces.append(
            tag("rect", class_=f"part-{part}", x=round(at, 3), y=0, width=round(100 * ms / whole, 3), height=6)
        )
        at += 100 * ms / whole
    return _bar(pieces, parts)


def _bar(pieces: Iterable[Child], legend: Iterable[tuple[str, str, float]]) -> Html:
    picture = tag("svg", pieces, class_="bar", viewBox="0 0 100 6", preserveAspectRatio="none", aria_hidden="true")
    named = (tag("span", f"{name} {ms_text(ms)}", class_=f"part-{part}") for name, part, ms in legend if ms > 0)
    return tag("div", picture, tag("p", named, class_="legend small muted"), class_="timing")


def _hops(hops: Sequence[Mapping[str, Any]], number: int) -> Html:
    whole = max((one["after_ms"] for one in hops), default=0)

    def row(hop: Mapping[str, Any], before: Mapping[str, Any] | None) -> tuple[Child, ...]:
        ms = hop["after_ms"]
        attempt = (
            tag("span", f" attempt {hop['attempt']}", class_="muted small") if hop.get("attempt", 1) != 1 else None
        )
        note = tag("div", hop["note"], class_="muted small") if hop.get("note") else None
        if before is None:
            return [hop["hop"], attempt, note], ms_text(ms), "", hop["where"], ""
        step = ms - before["after_ms"]
        bar = _span(before["after_ms"], ms, whole, _did(before, hop)[1])
        return [hop["hop"], attempt, note], ms_text(ms), f"+{ms_text(step)}", hop["where"], bar

    pairs = zip(hops, [None, *hops], strict=False)
    headings = ("hop", "after", "step", "where", tag("span", "on one scale", class_="unseen"))
    return table(
        headings,
        (row(hop, before) for hop, before in pairs),
        label=f"Task {number}, hop by hop",
        numbers=(1, 2),
        wide=4,
    )


def _span(start: float, end: float, whole: float, part: str) -> Html:
    """A piece of time on the scale of the whole."""
    if whole <= 0:
        return NOTHING
    at, wide = 100 * max(0, start) / whole, 100 * max(0, end - start) / whole
    piece = tag("rect", class_=f"part-{part}", x=round(min(at, 99.4), 3), y=0, width=round(max(wide, 0.6), 3), height=6)
    return tag("svg", piece, class_="bar", viewBox="0 0 100 6", preserveAspectRatio="none", aria_hidden="true")


def _attempts(attempts: Sequence[Mapping[str, Any]], number: int) -> Html:
    def row(attempt: Mapping[str, Any]) -> tuple[Child, ...]:
        error = attempt["error"]
        ended = moment(attempt["ended_at"]) if attempt["ended_at"] else "runs"
        said: Child = [tag("strong", error["type"]), f": {error['message']}"] if error else ""
        return (str(attempt["attempt"]), moment(attempt["started_at"]), ended, attempt["worker"], said)

    headings = ("attempt", "began", "ended", "worker process", "error")
    return join(tag("h3", "Attempts"), table(headings, map(row, attempts), label=f"Task {number}, attempts"))


def csv(parts: Parts, exchange: Exchange, request: str, task: str) -> None:
    """``/requests/ID/TASK.csv``."""
    Query(exchange, ()).check()
    request, task = _id(parts, exchange, request), task[:60].upper()
    missing = Problem("not-found", f"there is no result of task {task} of request {request}")

    def look() -> Answer:
        found = _result(functools.partial(_read, parts, exchange, request), task)
        if found is None:
            raise missing
        source, result = found
        error = result_frame.head_of(result).error
        if error is not None:  # an empty table would say that there are no records
            raise Problem("not-found", f"task {task} has no records: {frame.cut(error.message)}")
        entry = parts.catalog.get(source)
        columns = (
            list(entry.definition.schema()["properties"]) if entry is not None and entry.definition is not None else []
        )
        body = rows.csv(rows.records_of(result), columns)
        headers = [
            ("Content-Type", rows.CONTENT_TYPES[rows.CSV]),
            ("Content-Disposition", f'attachment; filename="{source}.csv"'),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        return Answer(200, body, headers)

    frame.later(parts, exchange, look)


def _read(parts: Parts, exchange: Exchange, request: str, after: str) -> View | None:
    """A piece of the results of a request, from Redis or from the history."""
    view = parts.ledger.read(request, after)
    if view is not None:
        return view if exchange.owner.may_see(view.tenant) else None
    return parts.recall.read(exchange, request, after) if parts.recall.is_on else None


def _result(read: Callable[[str], View | None], task: str) -> tuple[str, bytes] | None:
    """Returns (a task's source, its result), which is looked for piece by piece.

    The source is what was asked: a result may name any text, and this one is to stand in a header.
    """
    after = START
    while (view := read(after)) is not None:
        for result in view.results:
            if result_frame.head_of(result).task == task:
                return next(one.source for one in view.tasks if one.id == task), result
        if not view.more or view.cursor == after:
            return None
        after = view.cursor
    return None
