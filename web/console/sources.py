"""The page *Sources*: the catalogue with health and runs of the last day; and one source, with why it is not well.

    /sources?q=&health=&region=   all sources, those first that are not well; without a script the form asks again
    /sources/{source}             one source: figures, coverage of its fields, its last failure and where that page is kept

Sources for tests stand apart (web.api.source_view.is_for_tests).
"""

import contextlib
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from web.api.query import Query
from web.console import graphs
from web.console.frame import (
    Page,
    Parts,
    badge,
    bytes_text,
    code,
    cut,
    document_of,
    empty,
    facts,
    moment,
    ms_text,
    table,
)
from web.http.exchange import Exchange
from web.http.markup import NOTHING, Child, Html, join, tag
from web.http.problems import Problem
from web.hub.recent import Hour
from web.hub.redis import HubUnavailable

View = Mapping[str, Any]

REFRESH_SECONDS: Final = 15
HEALTHS: Final = ("broken", "failing", "degraded", "unknown", "ok")  # what needs somebody stands first


def page(parts: Parts, exchange: Exchange) -> Page:
    """``/sources``."""
    query = Query(exchange, ("q", "health", "region"))
    words, health, region = (query.text(name) or "" for name in ("q", "health", "region"))
    query.check()
    found: list[View] = document_of(parts.overview.sources())["sources"]
    hours = parts.overview.hours_of_all()
    found.sort(key=lambda one: (HEALTHS.index(one["health"]), one["id"]))
    shown = {one["id"] for one in found if _is_asked_for(one, words, health, region)}
    own, apart = [one for one in found if not one["test"]], [one for one in found if one["test"]]
    main = join(
        tag("h1", "Sources"),
        _form(found, words, health, region),
        tag("p", _count(len(shown), len(found)), id="count", class_="muted small", role="status"),
        _list(own, shown, hours, "Sources", id_="catalogue"),
        _tests(apart, shown, hours, is_open=bool(words)) if apart else NOTHING,
    )
    return Page("Sources", main, scripts=("sources.js",), styles=("figures.css",))


def _is_asked_for(one: View, words: str, health: str, region: str) -> bool:
    text = _findable(one)
    return (
        all(word in text for word in words.lower().split())
        and health in ("", one["health"])
        and region in ("", one["region"])
    )


def _findable(one: View) -> str:
    return f"{one['id']} {one['title']} {one['region']}".lower()


def _form(found: Sequence[View], words: str, health: str, region: str) -> Html:
    counts = {kind: sum(one["health"] == kind for one in found) for kind in HEALTHS}
    options = [(kind, f"{kind} ({count})") for kind, count in counts.items() if count or kind == health]
    regions = sorted({one["region"] for one in found} | ({region} if region else set()))
    return tag(
        "form",
        tag("div", tag("label", "Search", for_="q"), tag("input", id="q", name="q", type="search", value=words or None, autocomplete="off", placeholder="id, title or region")),
        tag("div", tag("label", "Health", for_="health"), _select("health", "all", options, health)),
        tag("div", tag("label", "Region", for_="region"), _select("region", "all", [(one, one) for one in regions], region)),
        tag("button", "Show", class_="quiet"),
        action="/sources", method="get", role="search", class_="find",
    )  # fmt: skip


def _select(name: str, every: str, options: Iterable[tuple[str, str]], chosen: str) -> Html:
    return tag(
        "select",
        tag("option", every, value=""),
        (tag("option", text, value=value, selected=value == chosen) for value, text in options),
        id=name,
        name=name,
    )


def _count(shown: int, total: int) -> str:
    return f"{total:,} sources" if shown == total else f"{shown:,} of {total:,} sources"


def _list(
    found: Sequence[View], shown: Container[str], hours: Mapping[str, list[Hour]], caption: str, *, id_: str
) -> Html:
    headings = ("source", "health", "last day", "ask")
    head = tag("tr", (tag("th", name, scope="col") for name in headings))
    return tag(
        "table",
        tag("caption", caption, class_="unseen"),
        tag("thead", head),
        tag("tbody", (_row(one, hours.get(one["id"], []), is_shown=one["id"] in shown) for one in found)),
        class_="catalogue",
        id=id_,
        data_refresh=REFRESH_SECONDS,
        hidden=not any(one["id"] in shown for one in found),
    )


def _row(one: View, hours: Sequence[Hour], *, is_shown: bool) -> Html:
    source = one["id"]
    runs, failed = sum(hour.runs for hour in hours), sum(hour.failed for hour in hours)
    day: list[Child] = [tag("span", f"{runs:,} runs" if runs else "no runs", class_="muted small")]
    if failed:
        day.append(tag("span", f"{failed:,} failed", class_="failed small"))
    return tag(
        "tr",
        tag("th", tag("a", source, href=f"/sources/{quote(source)}"), tag("span", cut(one["title"]), class_="muted"), scope="row"),
        tag("td", badge(one["health"]), tag("span", one["region"], class_="muted"), _sentence(one)),
        tag("td", graphs.spark(hours) if runs else NOTHING, day),
        tag("td", tag("a", "Try", href=f"/try?source={quote(source)}", aria_label=f"Try {source}")),
        data_find=_findable(one), data_health=one["health"], data_region=one["region"],
        hidden=not is_shown,
    )  # fmt: skip


def _sentence(one: View) -> Html:
    """The first reason, and how many there are."""
    reasons = one["reasons"]
    if not reasons:
        return NOTHING
    more = f" (and {len(reasons) - 1:,} more)" if len(reasons) > 1 else ""
    return tag("p", cut(reasons[0]), more, class_="small")


def _tests(found: Sequence[View], shown: Container[str], hours: Mapping[str, list[Hour]], *, is_open: bool) -> Html:
    return tag(
        "details",
        tag("summary", tag("h2", f"Sources for tests ({len(found):,})")),
        tag(
            "p",
            "Their hosts have names that are reserved for examples, or are loopback addresses: nobody asks them in earnest.",
            class_="muted small",
        ),
        _list(found, shown, hours, "Sources for tests", id_="catalogue-tests"),
        open=is_open,
        class_="tests",
    )


def one(parts: Parts, exchange: Exchange, source: str) -> Page:
    """``/sources/{source}``."""
    found = document_of(parts.overview.source(exchange, source))
    hours = [
        Hour(round(datetime.fromisoformat(hour["hour"]).timestamp()), hour["runs"], hour["failed"])
        for hour in found["hours"]
    ]
    learned = found["learned"]
    main = tag(
        "div",
        tag("p", tag("a", "Sources", href="/sources"), class_="small"),
        tag(
            "div",
            tag("div", tag("h1", found["id"]), badge(found["health"]), class_="row"),
            tag("a", "Try it", href=f"/try?source={quote(found['id'])}", class_="button"),
            class_="row spread",
        ),
        tag("p", cut(found["title"]), class_="muted"),
        _why(found),
        facts(_facts(found)),
        tag("h2", "The last day"),
        _day(parts, found["id"], hours),
        tag("h2", "The last failure"),
        _failure(parts, exchange, found["last_failure"]),
        tag("h2", "Compared with before"),
        _learned(learned),
        tag("h2", "Fields"),
        _fields(found["schema"], learned),
        tag("h2", "Bytes"),
        _traffic(found["traffic"]),
        id="source",
        data_refresh=REFRESH_SECONDS,
    )
    return Page(found["id"], main, styles=("figures.css",))


def _why(found: View) -> Html:
    reasons = [cut(reason) for reason in found["reasons"]]
    reasons += [
        f"{standby} could not take it over: {cut(why)}" for standby, why in found.get("standby_faults", {}).items()
    ]
    if not reasons:
        return NOTHING
    tone = {"ok": "", "unknown": "", "degraded": "fair"}.get(found["health"], "bad")
    return tag("ul", (tag("li", reason) for reason in reasons), class_=f"notice {tone}".strip())


def _facts(found: View) -> Iterable[tuple[str, Child]]:
    limits = found["limits"]
    yield "region", found["region"]
    yield "standby", ", ".join(found["standby"]) or ("never taken over" if found["pinned"] else "none")
    yield "params", ", ".join(found["params"]) or "none"
    if limits:
        yield "at once", f"{limits.get('concurrency', '')}"
        yield "rate", limits.get("rate") or "not limited"
    yield "definition", tag("code", found["definition"] or "none")
    for region, there in found["regions"].items():
        if there.get("definition") != found["definition"]:
            yield f"definition in {region}", tag("code", there.get("definition") or "none")


def _day(parts: Parts, source: str, hours: Sequence[Hour]) -> Html:
    runs = parts.overview.last_runs(source)
    if not any(hour.runs for hour in hours) and not runs:
        return empty("It has not been asked.")
    graph = tag("div", graphs.by_hour(hours), class_="figure-box")
    words = tag("p", graphs.told(hours), class_="small")
    if not runs:
        return join(graph, words)
    return join(
        graph,
        words,
        tag("h3", f"Its last {len(runs):,} runs"),
        tag("div", graphs.single_runs(runs), class_="figure-box"),
        tag(
            "p",
            "A bar is a run, the latest to the right: how long it fetched and parsed. Red ones failed.",
            class_="muted small",
        ),
    )


def _failure(parts: Parts, exchange: Exchange, failure: View | None) -> Html:
    if failure is None:
        return empty("None is known.")
    rows: list[tuple[str, Child]] = [
        ("when", moment(failure["at"])),
        ("region", failure["region"]),
        ("error", tag("code", failure["type"])),
        ("origin", failure["origin"]),
    ]
    task, request = failure.get("task"), failure.get("request")
    if request:
        rows.append(("request", tag("a", tag("code", request), href=f"/requests/{request}")))
    parts_shown: list[Html] = [facts(rows)]
    if message := _message(parts, exchange, request, task):
        parts_shown.append(tag("p", cut(message), class_="notice bad"))
    if failure["page_kept"] and task:
        parts_shown += [
            tag(
                "p",
                f"If {failure['region']} keeps raw answers (raw.path in its file), the page is on the host where the task ran, for a day by default. There:",
                class_="small",
            ),
            code(
                f"nearfetch source replay {task}\nnearfetch source replay {task} --page 1", label="Show the kept page"
            ),
        ]
    elif not failure["page_kept"]:
        parts_shown.append(tag("p", "No page is kept: there was no answer.", class_="muted small"))
    return tag("div", parts_shown, class_="card")


def _message(parts: Parts, exchange: Exchange, request: str | None, task: str | None) -> str:
    """The error in full, "" if the request has expired or the hub is away."""
    if not request or not task:
        return ""
    with contextlib.suppress(Problem, HubUnavailable):
        error = document_of(parts.poller.task(exchange, request, task))["error"]
        return str(error["message"]) if error else ""
    return ""


def _learned(learned: View | None) -> Html:
    if learned is None:
        return empty("Nothing is known yet: no run has said anything about it.")

    def cell(value: float | None, form: Any) -> str:
        return "too few runs" if value is None else form(value)

    compared = (learned["success"], learned["rows"]["last"], learned["rows"]["before"])
    if compared == (None, None, None):
        return empty(f"It had too few runs to compare: {learned['runs'] + learned['before']}.")
    figures: list[tuple[str, str, Any]] = [
        ("records a run", "rows", lambda count: f"{count:,.0f}"),
        ("bytes fetched a run", "raw_bytes", bytes_text),
        ("fetching and parsing", "busy_ms", ms_text),
        ("times what goes home", "ratio", lambda times: f"{times:.1f}"),
    ]
    rows = [(name, cell(learned[key]["last"], form), cell(learned[key]["before"], form)) for name, key, form in figures]
    success = learned["success"]
    rows.insert(0, ("succeeded", "too few runs" if success is None else f"{success:.0%}", ""))
    headings = ("median", f"the last {learned['runs']} runs", f"the {learned['before']} runs before")
    since = tag("p", learned["health"], " since ", moment(learned["since"]), class_="muted small")
    return join(table(headings, rows, label="The last runs compared with those before", numbers=(1, 2)), since)


def _fields(schema: View, learned: View | None) -> Html:
    properties = schema.get("properties", {})
    if not properties:
        return empty("Its definition names no fields.")
    coverage = learned["coverage"] if learned is not None else {}
    # A field that no figure names stands in every record, if there were records.
    whole = {of: 1.0 if learned is not None and learned["rows"][of] is not None else None for of in ("last", "before")}
    rows = []
    for name, field in properties.items():
        figure = coverage.get(name)
        last, before = (figure.get(of) if figure is not None else whole[of] for of in ("last", "before"))
        rows.append(
            (
                tag("code", name),
                _type(field),
                tag("div", graphs.share(last), _share(last), class_="row"),
                _share(before),
            )
        )
    headings = ("field", "type", "in the last runs", "before")
    return table(headings, rows, label="In how many records each field stands", numbers=(3,))


def _share(of: float | None) -> str:
    return "unknown" if of is None else f"{of:.0%}" if of in (0.0, 1.0) else f"{of:.1%}"


def _type(field: View) -> str:
    kinds = field.get("type", "")
    found = kinds if isinstance(kinds, str) else ", ".join(kind for kind in kinds if kind != "null")
    return found or "several"


def _traffic(traffic: Mapping[str, View]) -> Html:
    if not traffic:
        return empty("No region has fetched it yet.")
    rows = [
        (region, f"{sums['runs']:,}", f"{sums['failed']:,}", bytes_text(sums["received"]), bytes_text(sums["spared"]), bytes_text(sums["wire"]), bytes_text(sums["kept_off_wan"]))
        for region, sums in traffic.items()
    ]  # fmt: skip
    headings = ("region", "runs", "failed", "fetched", "not again", "went home", "kept off the WAN")
    return table(headings, rows, label="Bytes so far, by region", numbers=range(1, 7))
