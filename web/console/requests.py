"""The page of all requests, with filters: those that run and those that ended, the latest first, a page at a time."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode

import msgspec

from jobs.contract import rfc3339
from web.api import views
from web.api.query import Query
from web.api.recall import RUNNING, STATUSES
from web.console import frame
from web.console.frame import Page, Parts, badge, empty, moment, table
from web.flow.history import HistoryAway, Wanted
from web.http.answer import Answer
from web.http.exchange import Exchange
from web.http.markup import NOTHING, Child, Html, join, tag
from web.hub.view import View

PAGE: Final = 50
SHOWN_STATUSES: Final = (RUNNING, *STATUSES)
SOURCES_SHOWN: Final = 3
REFRESH_SECONDS: Final = 5
HOURS: Final = ((1, "the last hour"), (24, "the last day"), (168, "the last week"), (720, "the last 30 days"))
HOURS_MAX: Final = 24 * 3660


def page(parts: Parts, exchange: Exchange) -> None:
    """``/requests``."""
    query = Query(exchange, ("source", "region", "status", "hours", "cursor"))
    asked = {name: text for name, text in query.pairs if text}  # a form sends its empty fields, too
    filters = {name: text for name, text in asked.items() if name != "cursor"}
    wanted = _wanted(query, asked, exchange)

    def look() -> Answer:
        found, cursor, notice = _found(parts, wanted)
        latest = older = None
        if cursor is not None:
            leads_to = f"/requests?{urlencode({**filters, 'cursor': cursor})}"
            older = tag("a", "Older requests", href=leads_to, rel="next", id="older", class_="button quiet")
        if wanted.before is not None:
            latest = tag("a", "Latest requests", href=f"/requests?{urlencode(filters)}", class_="button quiet")
        none = "No request is like that." if filters else "Nothing was asked yet."
        if cursor is not None:
            none = "None of the latest requests is like that; older ones may be."
        listed = _table(found) if found else empty(none)
        main = join(
            tag("h1", "Requests"),
            _filters(parts, filters),
            tag(
                "div",
                notice,
                listed,
                id="found",
                data_refresh=None if wanted.before and not notice else REFRESH_SECONDS,
            ),
            tag("div", latest, older, class_="row"),
        )
        return frame.answer(Page("Requests", main, ("more.js",)), exchange, parts.files)

    frame.later(parts, exchange, look)


def _found(parts: Parts, wanted: Wanted) -> tuple[list[View], str | None, Html]:
    """Returns (requests, the cursor of the next page, what to say if they are not all)."""
    if parts.recall.is_on:
        try:
            return *parts.recall.found(wanted), NOTHING
        except HistoryAway as error:
            said = tag("p", f"Finished requests can't be shown now: {error.reason}.", class_="notice bad")
    else:
        mongo = tag("code", "[hub] mongo")
        said = tag(
            "p",
            "No history is kept here, so only requests that run are shown. ",
            mongo,
            " in the settings names a MongoDB for it.",
            class_="notice",
        )
    if wanted.status not in (None, RUNNING):
        return [], None, said
    return *parts.recall.found(msgspec.structs.replace(wanted, status=RUNNING)), said


def _wanted(query: Query, asked: Mapping[str, str], exchange: Exchange) -> Wanted:
    """The filters; raises ``Problem`` (400) with all that is wrong."""
    status, cursor = asked.get("status"), asked.get("cursor", "").upper()
    if status is not None and status not in SHOWN_STATUSES:
        query.fault("status", f"one of {', '.join(SHOWN_STATUSES)}")
    if cursor and not views.ID_PATTERN.fullmatch(cursor):
        query.fault("cursor", "the cursor of a page")
    hours = query.number("hours", 1, HOURS_MAX) if "hours" in asked else 0
    query.check()
    return Wanted(
        source=asked.get("source"),
        region=asked.get("region"),
        status=status,
        since=datetime.now(UTC) - timedelta(hours=hours) if hours else None,
        before=cursor or None,
        limit=PAGE,
        tenant=None if exchange.owner.sees_all else exchange.owner.tenant,
    )


def _filters(parts: Parts, filters: Mapping[str, str]) -> Html:
    def select(name: str, label: str, anything: str, options: Iterable[tuple[str, str]]) -> Html:
        chosen = filters.get(name, "")
        made = [tag("option", anything, value="")]
        made += [tag("option", text, value=value, selected=value == chosen) for value, text in options]
        return tag("div", tag("label", label, for_=name), tag("select", made, id=name, name=name))

    sources = [tag("option", value=entry.id) for entry in parts.catalog.entries()]
    return tag(
        "form",
        tag(
            "div",
            tag("label", "Source", for_="source"),
            tag("input", id="source", name="source", value=filters.get("source", ""), list="known", autocomplete="off"),
            tag("datalist", sources, id="known"),
        ),
        select("status", "Status", "any", [(one, one) for one in SHOWN_STATUSES]),
        select("region", "Region", "any", [(one, one) for one in parts.settings.region]),
        select("hours", "Time", "any", [(str(hours), text) for hours, text in HOURS]),
        tag("button", "Show"),
        tag("a", "All", href="/requests", class_="button quiet") if filters else None,
        class_="filters", action="/requests", role="search",
    )  # fmt: skip


def _table(found: Sequence[View]) -> Html:
    def row(view: View) -> tuple[Child, ...]:
        sources = list(dict.fromkeys(task.source for task in view.tasks))
        names: list[Child] = [", ".join(sources[:SOURCES_SHOWN])]
        if len(sources) > SOURCES_SHOWN:
            names.append(tag("span", f" and {len(sources) - SOURCES_SHOWN} more", class_="muted"))
        return (
            tag("a", view.id, href=f"/requests/{view.id}", class_="mono id"),
            moment(rfc3339(view.created_ms)),
            badge(view.status),
            names,
            ", ".join(dict.fromkeys(task.region for task in view.tasks)),
            f"{view.succeeded} of {view.total}",
        )

    headings = ("request", "asked at", "status", "sources", "regions", "succeeded")
    return table(headings, map(row, found), label="Requests found", numbers=(5,))
