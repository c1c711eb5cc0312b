"""All pages on one screen, and how one becomes an answer."""

import functools
from collections.abc import Callable
from typing import Final

from web.console import alerts, day, frame, one_request, regions, requests, signin, sources, try_sources
from web.console.frame import Page, Parts, Render
from web.console.signin import SignIn
from web.http.answer import Answer
from web.http.exchange import Exchange
from web.http.problems import Problem

PAGES: Final[tuple[tuple[str, Render], ...]] = (
    ("/", try_sources.start),
    ("/try", try_sources.page),
    ("/requests", requests.page),
    ("/requests/<request>", one_request.one),
    ("/requests/<request>/<task>.csv", one_request.csv),
    ("/sources", sources.page),
    ("/sources/<source>", sources.one),
    ("/regions", regions.page),
    ("/regions/live", regions.live),
    ("/alerts", alerts.page),
    ("/runbooks", alerts.runbooks),
    ("/day", day.page),
)
FILE: Final = "/console/<version>/<name>"

Handler = Callable[..., Answer | None]


class Console:
    """The console's calls. A problem with one of its pages is shown as a page, too."""

    def __init__(self, sign_in: SignIn, parts: Parts) -> None:
        self._sign_in, self._parts = sign_in, parts
        self._firsts = {path.split("/")[1] for path in (signin.PATH, signin.OUT, *(path for path, _ in PAGES))}

    def routes(self) -> list[tuple[str, str, Handler]]:
        """(method, path, handler) of all its calls."""
        pages: list[tuple[str, str, Handler]] = [("GET", path, self._handler(render)) for path, render in PAGES]
        others: list[tuple[str, str, Handler]] = [
            ("GET", signin.PATH, self._page(self._sign_in.page)),
            ("POST", signin.PATH, self._page(self._sign_in.sign_in)),
            ("POST", signin.OUT, self._sign_in.sign_out),
            ("GET", FILE, self._parts.files.answer),
        ]
        return [*pages, *others]

    def is_looked_at(self, exchange: Exchange) -> bool:
        """Whether a person sees the answer: a browser asks for a page."""
        first = exchange.path.split("/", 2)[1]
        return first in self._firsts and "text/html" in exchange.header("Accept")

    def problem(self, exchange: Exchange, problem: Problem) -> Answer:
        """A page in place of a problem document; without a session the way to the form."""
        if problem.kind == "unauthorized" and exchange.method in ("GET", "HEAD"):
            return self._sign_in.instead(exchange)
        return frame.answer(frame.problem_page(problem), exchange, self._parts.files)

    def _handler(self, render: Render) -> Handler:
        return self._page(functools.partial(render, self._parts))

    def _page(self, render: Callable[..., Page | Answer | None]) -> Handler:
        def handle(exchange: Exchange, **arguments: str) -> Answer | None:
            made = render(exchange, **arguments)
            return frame.answer(made, exchange, self._parts.files) if isinstance(made, Page) else made

        return handle
