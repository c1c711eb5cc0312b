"""The page *Sources*."""

from web.console.frame import Page, Parts, empty
from web.console.markup import join, tag
from web.http.exchange import Exchange


def page(_parts: Parts, _exchange: Exchange) -> Page:
    """``/sources``."""
    return Page("Sources", join(tag("h1", "Sources"), empty("Nothing here yet.")))
