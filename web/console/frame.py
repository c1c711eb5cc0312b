"""What all pages have in common: head, navigation, headers of the answer; and small pieces that several pages show.

A page is a ``Page``: its title and what stands in ``<main>``. Scripts are ES modules of ``static/``, which add to what is
readable without them.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from jobs.definition.catalog import Catalog
from regions.settings import Settings
from web.api.faults import Faults
from web.api.overview import Overview
from web.api.poll import Poller
from web.api.recall import Recall
from web.api.region_stream import RegionStreams
from web.console.files import Files
from web.http.answer import Answer
from web.http.exchange import Exchange
from web.http.markup import NOTHING, Child, Html, join, tag
from web.http.problems import KINDS, Problem
from web.hub.ledger import Ledger
from web.hub.redis import Hub

CONTENT_SECURITY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", CONTENT_SECURITY),
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "same-origin"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)
NAVIGATION: Final = (
    ("/", "Try"),
    ("/requests", "Requests"),
    ("/sources", "Sources"),
    ("/regions", "Regions"),
    ("/alerts", "Alerts"),
    ("/day", "Day"),
)
TEXT_MAX: Final = 300  # characters of a text of a region or of a source
# What a status, a health or a severity looks like: a class of console.css.
TONES: Final = {
    "ok": "good", "up": "good", "succeeded": "good", "ready": "good",
    "degraded": "fair", "partial": "fair", "ticket": "fair", "expired": "fair",
    "failed": "bad", "failing": "bad", "broken": "bad", "down": "bad", "page": "bad",
    "running": "busy", "queued": "busy",
}  # fmt: skip


FOOT: Final = tag(
    "footer",
    tag("a", "HTTP interface", href="/docs"),
    tag("a", "Runbooks", href="/runbooks"),
    tag("a", "Kinds of problems", href="/problems"),
    class_="foot-links",
)


class Page(Struct, frozen=True):
    """A page: what stands in ``<main>``, and the scripts and style sheets that it needs besides frame.js and console.css."""

    title: str
    main: Html
    scripts: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    status: int = 200


class Parts(Struct, frozen=True):
    """What pages ask, in place of a client: the handlers of the calls that have the same figures."""

    settings: Settings
    overview: Overview
    streams: RegionStreams
    poller: Poller
    recall: Recall
    faults: Faults
    catalog: Catalog
    hub: Hub
    ledger: Ledger
    base: str
    files: Files

    def address(self, exchange: Exchange) -> str:
        """The beginning of this gateway's addresses, for lines to copy."""
        own = exchange.header("Host") or f"{self.settings.gateway.host}:{self.settings.gateway.port}"
        return self.base or f"http://{own}"


# (parts, exchange, …arguments of the path); None: answered, or parked and answered later.
Render = Callable[..., Page | None]


def document_of(answer: Answer) -> Any:
    """The JSON of an answer to a client's call."""
    return msgspec.json.decode(answer.body)


def answer(page: Page, exchange: Exchange, files: Files) -> Answer:
    """A page as an answer."""
    text = (
        '<!doctype html>\n<html lang="en">'
        + _head(page, files).text
        + tag("body", _header(exchange), tag("main", page.main, id="main", tabindex=-1), FOOT).text
        + "</html>\n"
    )
    return Answer(page.status, text.encode("utf-8"), list(HEADERS))


def problem_page(problem: Problem) -> Page:
    """A page in place of a problem document."""
    status, title = KINDS[problem.kind]
    return Page(
        title,
        join(tag("h1", title), tag("p", problem.detail), tag("p", tag("a", "Back to the start", href="/"))),
        status=status,
    )


def later(parts: Parts, exchange: Exchange, look: Callable[[], Answer]) -> None:
    """Answers from a thread that may wait for the history."""
    parts.recall.later(exchange, look, lambda problem: answer(problem_page(problem), exchange, parts.files))


def _head(page: Page, files: Files) -> Html:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{page.title} · Nearfetch"),
        tag("link", rel="icon", href=files.address("mark.svg"), type="image/svg+xml"),
        (tag("link", rel="stylesheet", href=files.address(name)) for name in ("console.css", *page.styles)),
        (tag("script", type="module", src=files.address(name)) for name in ("frame.js", *page.scripts)),
    )


def _header(exchange: Exchange) -> Html:
    here = "/" + exchange.path.split("/", 2)[1]
    here = {"/try": "/"}.get(here, here)
    links = (
        tag("li", tag("a", title, href=path, aria_current="page" if path == here else None))
        for path, title in NAVIGATION
    )
    return join(
        tag("a", "Skip to the page", href="#main", class_="skip"),
        tag(
            "header",
            tag("div", tag("a", "Nearfetch", href="/", class_="mark"), class_="brand"),
            tag("nav", tag("ul", links), aria_label="Pages"),
            _who(exchange),
            class_="top",
        ),
    )


def _who(exchange: Exchange) -> Html:
    """Whose session it is, and the way out of it."""
    owner = exchange.owner
    if not owner.key:
        return NOTHING
    out = tag("form", tag("button", "Sign out", class_="quiet"), method="post", action="/signout")
    return tag("div", tag("span", owner.tenant, title=f"key {owner.key}", class_="muted"), out, class_="who")


# Pieces of several pages.


def badge(status: str, text: str | None = None) -> Html:
    """A status, with its colour."""
    return tag("span", status if text is None else text, class_=f"badge {TONES.get(status, 'none')}")


def table(
    headings: Iterable[Child],
    rows: Iterable[Iterable[Child]],
    *,
    label: str,
    numbers: Iterable[int] = (),
    wide: int | None = None,
) -> Html:
    """A table that scrolls by itself where it is too wide. ``numbers``: the columns that are aligned to the right.

    ``wide``: the column that takes the room that others leave, for pictures.
    """
    classes = dict.fromkeys(numbers, "number")
    if wide is not None:
        classes[wide] = "picture"

    def cell(name: str, at: int, child: Child) -> Html:
        return tag(name, child, class_=classes.get(at), scope="col" if name == "th" else None)

    head = tag("tr", (cell("th", at, one) for at, one in enumerate(headings)))
    body = (tag("tr", (cell("td", at, one) for at, one in enumerate(row))) for row in rows)
    made = tag("table", tag("thead", head), tag("tbody", body))
    return tag("div", made, class_="scroll", tabindex=0, role="region", aria_label=label)


def facts(rows: Iterable[tuple[str, Child]]) -> Html:
    """A list of names and values."""
    return tag("dl", (tag("div", tag("dt", name), tag("dd", value)) for name, value in rows), class_="facts")


def code(text: str, *, label: str, id_: str | None = None) -> Html:
    """Lines to copy; frame.js adds the button."""
    made = tag("pre", tag("code", text), tabindex=0, role="region", aria_label=label)
    return tag("div", made, class_="code", id=id_, data_copy=label)


def empty(text: Child) -> Html:
    """What stands in place of a list that is empty."""
    return tag("p", text, class_="empty")


def moment(text: str) -> Html:
    """A time of the API (RFC 3339); frame.js shows it in the reader's zone."""
    return tag("time", text.replace("T", " ").replace("Z", " UTC"), datetime=text)


def cut(text: object) -> str:
    """A text of a region or of a source, cut to ``TEXT_MAX`` characters."""
    found = str(text)
    return found if len(found) <= TEXT_MAX else f"{found[:TEXT_MAX]}…"


def bytes_text(count: float) -> str:
    """A number of bytes for people: 980 B, 54 kB, 1.2 MB."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" or abs(size) >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def ms_text(ms: float) -> str:
    """A number of ms for people: 0.4 ms, 41 ms, 1.25 s."""
    if abs(ms) >= 1000:
        return f"{ms / 1000:.2f} s"
    return f"{ms:.1f} ms" if abs(ms) < 10 else f"{ms:.0f} ms"


def seconds_text(count: float) -> str:
    """A duration for people: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if count < 10:
        return f"{count:.1f} s"
    whole = round(count)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
