"""The page *Alerts*."""

from web.console.frame import Page, Parts, empty
from web.console.markup import join, tag
from web.http.exchange import Exchange


def page(_parts: Parts, _exchange: Exchange) -> Page:
    """``/alerts``."""
    return Page("Alerts", join(tag("h1", "Alerts"), empty("Nothing here yet.")))
