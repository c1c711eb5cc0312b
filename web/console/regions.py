"""The page *Regions*: a row for each region, from its queue to the records that went home, with the reasons for its state.

    /regions       all lanes, readable without a script
    /regions/live  the same lanes as an event stream, each when it has changed; regions.js puts them into the page

A lane is made once for all its viewers. Its texts come from the region, so they are cut and escaped.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from web.console.frame import Page, Parts, badge, bytes_text, cut, empty, moment, ms_text, seconds_text
from web.http.exchange import Exchange
from web.http.markup import NOTHING, Child, Html, join, tag

SHOWN_MAX: Final = 20  # entries of a list
EVENTS_SHOWN: Final = 5

View = Mapping[str, Any]


def page(parts: Parts, _exchange: Exchange) -> Page:
    """``/regions``."""
    views = parts.overview.lanes()
    lanes = [lane(view) for view in views]
    main = join(
        tag("h1", "Regions"),
        tag("p", "Each lane is a region: tasks wait, its bridge takes them, its workers fetch, and records go home."),
        tag("p", "As they were when this page was loaded.", id="live", class_="muted small", role="status"),
        tag("div", lanes or empty("This gateway serves no region."), id="lanes"),
    )
    return Page("Regions", main, scripts=("regions.js",), styles=("figures.css",))


def live(parts: Parts, exchange: Exchange) -> None:
    """``/regions/live``."""
    parts.streams.open(exchange, shown=shown)


def shown(view: View) -> dict[str, str]:
    """A region as an event of ``/regions/live``."""
    return {"name": view["name"], "title": cut(view["title"]), "status": view["status"], "html": lane(view).text}


def lane(view: View) -> Html:
    """A region. Its parts are replaced one by one, so that what has the focus stays."""
    name = view["name"]
    parts = [
        ("head", _head(view)),
        ("why", _reasons(view)),
        ("flow", _flow(view)),
        ("scale", _scale(view)),
        ("paused", _paused(view)),
        ("events", _events(view)),
    ]
    return tag(
        "section",
        (tag("div", found, data_part=part) for part, found in parts),
        class_="card lane", id=f"lane-{name}", data_name=name, data_status=view["status"], aria_labelledby=f"name-{name}",
    )  # fmt: skip


def _head(view: View) -> Html:
    name = view["name"]
    dashboard = view.get("dashboard")
    link = tag("a", "rq-dashboard", href=dashboard, rel="noreferrer", class_="small") if dashboard else NOTHING
    day = tag("a", "last day", href=f"/day?region={name}", class_="small")
    title = tag("h2", cut(view["title"]), " ", tag("code", name, class_="muted"), id=f"name-{name}")
    return tag(
        "div",
        tag("div", title, badge(view["status"]), class_="row"),
        tag("div", day, link, class_="row"),
        class_="row spread",
    )


def _reasons(view: View) -> Html:
    reasons = view["reasons"]
    if not reasons:
        return NOTHING
    tone = "bad" if view["status"] == "down" else "fair"
    return tag("ul", _items(map(cut, reasons)), class_=f"notice {tone}")


def _flow(view: View) -> Html:
    """The stages of a task's way, with their figures."""
    queue, through = view["queue"], view["throughput"]
    bridges, pools, scale = view["bridges"], view["workers"], view["scale"] or {}
    consuming = sum(one.get("state") == "consuming" for one in bridges)
    threads = sum(int(one.get("threads", 0)) for one in pools)
    processes = sum(int(one.get("processes", 0)) for one in pools)
    oldest = queue["oldest_seconds"]
    today = view["days"][0]["kept_off_wan"] if view["days"] else 0
    stages = (
        ("Queue", "", f"{queue['open']:,}", "open", (
            ("oldest", "none" if oldest is None else seconds_text(oldest)),
            ("ready in RQ", f"{queue['ready']:,}"),
            ("turns and retries", f"{queue['scheduled']:,}"),
        )),
        ("Bridge", "" if consuming else "bad", str(consuming), "consuming", (
            ("alive", str(len(bridges))),
            ("state", cut(", ".join(sorted({str(one.get("state", "unknown")) for one in bridges})) or "none")),
        )),
        ("Workers", "" if processes else "bad", f"{queue['running']:,}", "in flight", (
            ("threads", f"{threads:,}"),
            ("processes", f"{processes:,}" + (f" of {scale['number']:,} wanted" if scale else "")),
        )),
        ("Home", "", "none yet" if through["p95_ms"] is None else ms_text(through["p95_ms"]), "p95, 5 min", (
            ("tasks a second", "none yet" if through["per_second"] is None else f"{through['per_second']:g}"),
            ("kept off the WAN today", bytes_text(today)),
            ("in all", bytes_text(view["bytes"]["kept_off_wan"])),
        )),
    )  # fmt: skip
    return tag("ol", (_stage(*stage) for stage in stages), class_="flow")


def _stage(name: str, tone: str, figure: str, unit: str, rows: Iterable[tuple[str, str]]) -> Html:
    return tag(
        "li",
        tag("h3", name),
        tag("p", tag("strong", figure), " ", tag("span", unit, class_="muted"), class_="figure"),
        tag("dl", (tag("div", tag("dt", what), tag("dd", value)) for what, value in rows)),
        class_=f"stage {tone}".strip(),
    )


def _scale(view: View) -> Html:
    """Why there are so many worker processes."""
    scale = view["scale"]
    if scale is None:
        return NOTHING
    asked, decisions = scale.get("asked"), scale.get("decisions", [])
    lines: list[Child] = [
        f"{scale['number']:,} wanted, {scale['min']:,} to {scale['max']:,} allowed, {scale['needed']:,} needed for the load: {cut(scale['load'])}."
    ]
    if asked:
        until = f" until {cut(asked['until'])}" if asked["until"] else ""
        lines.append(f" An operator asked for {asked['number']:,}{until}.")
    if decisions:
        last = decisions[0]
        lines += [
            " Last change ",
            moment(cut(last["at"])),
            f", {last['was']:,} to {last['number']:,}: {cut(last['reason'])}.",
        ]
    fault = scale.get("fault")
    wrong = (
        tag("p", f"Its [scale] is wrong, so the previous one applies: {cut(fault)}", class_="notice fair")
        if fault
        else NOTHING
    )
    return join(tag("p", tag("strong", "Why so many workers: "), lines, class_="small"), wrong)


def _paused(view: View) -> Html:
    """The parts that stand still, and why, except for those that the region's reasons name already."""
    lines: list[Child] = []
    taken = view["takeover"]
    if taken:
        is_said = any(taken["detail"] in reason for reason in view["reasons"])
        detail = "" if is_said or not taken["detail"] else f": {cut(taken['detail'])}"
        well = (", nothing is wrong since ", moment(cut(taken["well_since"]))) if taken["well_since"] else ()
        what = "the new tasks of sources that have one" if view["not_movable"] else "its new tasks"
        since = moment(cut(taken["since"]))
        lines.append((f"Standbys take {what} since ", since, f" ({cut(taken['why'])})", detail, well, "."))
    lines += _by_trouble(view["left_alone"])
    if view["not_movable"] and (taken or view["status"] != "up"):
        lines.append(f"No standby could take over {_some(view['not_movable'])}.")
    if view["differs"]:
        lines.append(f"Other definitions there than at this gateway: {_some(view['differs'])}.")
    if not lines:
        return NOTHING
    return join(tag("h3", "Paused, or not as it should be"), tag("ul", _items(lines), class_="small"))


def _by_trouble(left_alone: Mapping[str, str]) -> Iterator[Child]:
    """Hosts that are left alone, each once with its sources."""
    by_trouble: dict[str, list[str]] = {}
    for source, trouble in left_alone.items():
        by_trouble.setdefault(trouble, []).append(source)
    for trouble, sources in by_trouble.items():
        yield (cut(trouble), " (", _links(sources), ")")


def _links(sources: Iterable[str]) -> Iterator[Child]:
    for number, source in enumerate(list(sources)[:SHOWN_MAX]):
        yield (", " if number else "", tag("a", source, href=f"/sources/{source}"))


def _events(view: View) -> Html:
    events = view.get("events", [])[:EVENTS_SHOWN]
    if not events:
        return NOTHING
    rows = (
        tag(
            "li",
            moment(cut(one["at"])),
            " ",
            tag("span", cut(one["kind"]), class_="badge none"),
            " ",
            cut(one["message"].removeprefix(f"{one['kind']}: ")),
        )
        for one in events
    )
    return tag("details", tag("summary", "Last events"), tag("ul", rows, class_="events small"), open=True)


def _items(lines: Iterable[Child]) -> list[Html]:
    found = list(lines)
    more = [tag("li", f"and {len(found) - SHOWN_MAX:,} more")] if len(found) > SHOWN_MAX else []
    return [*(tag("li", line) for line in found[:SHOWN_MAX]), *more]


def _some(found: Iterable[str]) -> str:
    names = list(found)
    more = f" and {len(names) - SHOWN_MAX:,} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(names[:SHOWN_MAX]) + more
