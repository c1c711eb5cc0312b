"""The page *Requests*: the history with filters, and one request hop by hop."""

from web.console.frame import Page, Parts, empty
from web.console.markup import join, tag
from web.http.exchange import Exchange


def page(_parts: Parts, _exchange: Exchange) -> Page:
    """``/requests``."""
    return Page("Requests", join(tag("h1", "Requests"), empty("Nothing here yet.")))


def one(_parts: Parts, _exchange: Exchange, request: str) -> Page:
    """``/requests/ID``."""
    return Page(request, join(tag("h1", request), empty("Nothing here yet.")))
