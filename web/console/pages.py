"""All pages on one screen, and how one becomes an answer."""

from collections.abc import Callable
from typing import Final

from web.console import alerts, day, frame, regions, requests, sources, try_sources
from web.console.frame import Parts, Render
from web.http.exchange import Answer, Exchange
from web.http.problems import Problem

PAGES: Final[tuple[tuple[str, Render], ...]] = (
    ("/", try_sources.start),
    ("/try", try_sources.page),
    ("/requests", requests.page),
    ("/requests/<request>", requests.one),
    ("/sources", sources.page),
    ("/regions", regions.page),
    ("/alerts", alerts.page),
    ("/day", day.page),
)
FILE: Final = "/console/<version>/<name>"

Handler = Callable[..., Answer | None]


class Console:
    """The console's calls. Whatever goes wrong with one of its pages is told by a page, too."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._firsts = {path.split("/")[1] for path, _ in PAGES}

    def routes(self) -> list[tuple[str, str, Handler]]:
        """(method, path, handler) of all its calls."""
        pages: list[tuple[str, str, Handler]] = [("GET", path, self._handler(render)) for path, render in PAGES]
        return [*pages, ("GET", FILE, self._parts.files.answer)]

    def is_looked_at(self, exchange: Exchange) -> bool:
        """Whether a person sees the answer: a browser asks for a page."""
        first = exchange.path.split("/", 2)[1]
        return first in self._firsts and "text/html" in exchange.header("Accept")

    def problem(self, exchange: Exchange, problem: Problem) -> Answer:
        """A page in place of a problem document."""
        return frame.answer(frame.problem_page(problem), exchange, self._parts.files)

    def _handler(self, render: Render) -> Handler:
        def handle(exchange: Exchange, **arguments: str) -> Answer | None:
            page = render(self._parts, exchange, **arguments)
            return None if page is None else frame.answer(page, exchange, self._parts.files)

        return handle
