"""The page *Regions*."""

from web.console.frame import Page, Parts, empty
from web.console.markup import join, tag
from web.http.exchange import Exchange


def page(_parts: Parts, _exchange: Exchange) -> Page:
    """``/regions``."""
    return Page("Regions", join(tag("h1", "Regions"), empty("Nothing here yet.")))
