"""The page *Alerts*: what fires now, what it costs, and what mends it. Without a fault it says what is looked at.

/alerts         what fires now
/runbooks#NAME  what a fault of this name costs, and what mends it
"""

from collections.abc import Iterable, Sequence
from typing import Final

from web.console.frame import Page, Parts, badge, cut, empty, moment
from web.http.exchange import Exchange
from web.http.markup import Child, Html, join, tag
from web.http.problems import Problem
from web.hub.faults import KINDS, RUNBOOKS, Fault, Kind

REFRESH_SECONDS: Final = 1
SEVERITIES: Final = {"page": "page: somebody should be woken", "ticket": "ticket: it can wait for the day"}
SHOWN_MAX: Final = 20  # faults of a name


def page(parts: Parts, exchange: Exchange) -> Page:
    """``/alerts``. With keys, only for the scope admin: faults name other tenants' sources."""
    if not exchange.owner.sees_all:
        raise Problem("forbidden", "expected a key with the scope admin")
    faults = parts.faults.now
    counted = {kind: sum(one.severity == kind for one in faults) for kind in SEVERITIES}
    told = (
        ", ".join(f"{count:,} {kind}{'s' if count > 1 else ''}" for kind, count in counted.items() if count)
        or "nothing fires"
    )
    main = join(
        tag("h1", "Alerts"),
        tag("p", f"Now: {told}.", id="told", class_="muted", role="status", data_refresh=REFRESH_SECONDS),
        tag("div", _list(faults) if faults else _nothing(), id="faults", data_refresh=REFRESH_SECONDS),
        tag("h2", "What is looked at"),
        tag(
            "p", "Every second, each of these. The name is that of the alert and of its runbook.", class_="muted small"
        ),
        _kinds(),
    )
    return Page("Alerts", main, styles=("figures.css",))


def _list(faults: Sequence[Fault]) -> Html:
    """A card for each name: with many sources, many have the same fault."""
    by_name: dict[str, list[Fault]] = {}
    for one in faults:
        by_name.setdefault(one.name, []).append(one)
    return tag("ul", (_faults(found) for found in by_name.values()), class_="faults")


def _faults(found: Sequence[Fault]) -> Html:
    first = found[0]
    more = len(found) - SHOWN_MAX
    lines = [tag("li", _line(one)) for one in found[:SHOWN_MAX]]
    if more > 0:
        lines.append(tag("li", f"and {more:,} more: GET /v1/faults"))
    mend = first.mend if len(found) == 1 else general(KINDS[first.name].mend)
    return tag(
        "li",
        tag(
            "div",
            tag("h2", first.name),
            badge(first.severity),
            tag("span", f"{len(found):,} times", class_="muted small") if len(found) > 1 else None,
            class_="row",
        ),
        tag("ul", lines, class_="messages"),
        tag(
            "dl",
            tag("div", tag("dt", "It costs"), tag("dd", cut(first.cost))),
            tag("div", tag("dt", "What mends it"), tag("dd", cut(mend))),
            class_="pairs",
        ),
        tag("p", tag("a", f"Runbook of {first.name}", href=first.runbook), class_="small"),
        class_=f"card fault {first.severity}",
    )


def _line(one: Fault) -> list[Child]:
    """What is wrong, where, and since when."""
    about: list[Child] = []
    if one.region:
        about.append((" in ", tag("a", one.region, href="/regions")))
    if one.source:
        about.append((" of ", tag("a", one.source, href=f"/sources/{one.source}")))
    if one.part and one.part not in (one.region, one.source):
        about.append((" ", tag("code", cut(one.part))))
    since = tag("span", " since ", moment(one.since), class_="muted small")
    return [tag("strong", cut(one.message)), about, since]


def _nothing() -> Html:
    return empty(
        ("Nothing fires. ", tag("span", f"{len(KINDS)} kinds of faults are looked for every second.", class_="muted"))
    )


def _kinds() -> Html:
    """Links to all runbooks."""
    return tag(
        "dl",
        (tag("div", tag("dt", about), tag("dd", _names(names))) for about, names in _by_about().items()),
        class_="pairs",
    )


def _names(names: Iterable[str]) -> list[Child]:
    return [(", " if number else "", tag("a", name, href=f"{RUNBOOKS}#{name}")) for number, name in enumerate(names)]


def _by_about() -> dict[str, list[str]]:
    """The names of all faults, by what they are about."""
    found: dict[str, list[str]] = {}
    for name in KINDS:
        found.setdefault(_about(name), []).append(name)
    return found


def _about(name: str) -> str:
    first = name.partition("-")[0]
    return {"region": "Each region", "source": "Each source", "standby": "Each source"}.get(
        first, "The hub and its gateways"
    )


def runbooks(parts: Parts, exchange: Exchange) -> Page:
    """``/runbooks``: a section for each fault, whether it fires or not."""
    now = parts.faults.now if exchange.owner.sees_all else ()
    sections: list[Html] = []
    for about, names in _by_about().items():
        sections.append(tag("h2", about))
        sections += [_runbook(name, KINDS[name], [one for one in now if one.name == name]) for name in names]
    main = join(
        tag("h1", "Runbooks"),
        tag("p", "Each fault by its name: what clients notice, and what mends it. ", tag("a", "What fires now", href="/alerts"), "."),
        sections,
    )  # fmt: skip
    return Page("Runbooks", main, styles=("figures.css",))


def _runbook(name: str, kind: Kind, firing: Sequence[Fault]) -> Html:
    places = ", ".join(dict.fromkeys(one.region or one.source or one.part or "here" for one in firing))
    return tag(
        "section",
        tag("div", tag("h3", name, id=f"name-{name}"), badge(kind.severity), class_="row"),
        tag("p", f"It fires now: {cut(places)}.", class_="notice bad") if firing else None,
        tag(
            "dl",
            tag("div", tag("dt", "It costs"), tag("dd", kind.cost)),
            tag("div", tag("dt", "What mends it"), tag("dd", general(kind.mend))),
            class_="pairs",
        ),
        class_="runbook",
        id=name,
        aria_labelledby=f"name-{name}",
    )


def general(mend: str) -> str:
    """What mends a fault, in general terms: without the name of a region or source."""
    return mend.format(region="REGION", source="SOURCE")
