"""The page *Day*."""

from web.console.frame import Page, Parts, empty
from web.console.markup import join, tag
from web.http.exchange import Exchange


def page(_parts: Parts, _exchange: Exchange) -> Page:
    """``/day``."""
    return Page("Day", join(tag("h1", "Day"), empty("Nothing here yet.")))
