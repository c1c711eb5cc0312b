"""The page *Try*: find sources, ask them, see the results come in."""

from web.console.frame import Page, Parts, badge, document_of, table
from web.console.markup import join, tag
from web.http.exchange import Exchange


def start(parts: Parts, _exchange: Exchange) -> Page:
    """``/``: all sources."""
    found = document_of(parts.overview.sources())["sources"]
    rows = (
        (tag("a", one["id"], href=f"/try?source={one['id']}"), one["title"], one["region"], badge(one["health"]))
        for one in found
    )
    return Page(
        "Try", join(tag("h1", "Try a source"), table(("source", "title", "region", "health"), rows, label="Sources"))
    )


def page(parts: Parts, exchange: Exchange) -> Page:
    """``/try``: chosen sources with their params."""
    return start(parts, exchange)
