"""The server: ``/{host}/…`` answers like that host would, on loopback addresses only.

    Site._page → Fetches.add → Behaviour.take → pages.*.answer → delay → 304, gzip, cut, drip
                            → delay → hostile.answer

``NEARFETCH__FETCH__ORIGINS`` = ``origins(port)`` redirects fetches of those hosts to the site. Besides the pages:

    GET    /_site/fetches?since=N   {"cursor": N, "fetches": {"/host/path?query": count}}
    POST   /_site/behave            adds a rule (scripts.site.behave.Rule)
    GET    /_site/behave            shows the rules in force
    DELETE /_site/behave            removes all rules
"""

import contextlib
import email.utils
import gzip
import hashlib
import html
import ipaddress
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from types import ModuleType
from typing import Any, Final

import bottle
import msgspec
from cheroot import server, wsgi

from regions import logs
from scripts.site import hostile
from scripts.site.behave import Behaviour, Drip, Fetches, Rule
from scripts.site.pages import (
    arxiv,
    bench,
    books,
    charset,
    crossref,
    ecb,
    guardian,
    hn,
    hn_item,
    line,
    nws,
    quakes,
    quotes,
    reel,
    sitemap,
    slow,
    taste,
    unlocode,
)
from scripts.site.pages.page import Answer, Asked

THREADS: Final = 256  # a slow answer holds a thread; there are more than the workers of all regions use at once
IDLE_SECONDS: Final = 75
MADE: Final = 1_795_492_800  # 2026-11-24 00:00 UTC: when the pages last changed
KINDS: Final[tuple[ModuleType, ...]] = (
    ecb, quakes, hn, hn_item, books, quotes, arxiv, guardian, sitemap, nws, unlocode, crossref, line, reel, charset,
    taste, slow, bench,
)  # fmt: skip
HOSTS: Final[dict[str, list[ModuleType]]] = {
    host: [kind for kind in KINDS if host in kind.ORIGINS] for one in KINDS for host in one.ORIGINS
}
STARTS: Final = {
    "www.ecb.europa.eu": ecb.PATH,
    "earthquake.usgs.gov": quakes.FEED,
    "books.toscrape.com": "/catalogue/category/books/poetry_23/index.html",
    "export.arxiv.org": arxiv.START,
    "www.theguardian.com": guardian.PATH,
    "www.sitemaps.org": sitemap.PATH,
    "api.weather.gov": nws.START,
    "raw.githubusercontent.com": unlocode.PATH,
    "api.crossref.org": crossref.START,
    "api.line.example": line.START,
    "tracking.reel.example": reel.START,
    "charset.example": charset.START,
    "www.tasteatlas.com": taste.START,
    "bench.example": "/page",
}


def origins(port: int, host: str = "127.0.0.1") -> str:
    """The value of ``NEARFETCH__FETCH__ORIGINS`` that sends fetches of all hosts here, by http and https."""
    return ",".join(f"{scheme}://{name}=http://{host}:{port}/{name}" for name in HOSTS for scheme in ("https", "http"))


class _Gateway(wsgi.Gateway_10):
    """Gives the application cheroot's request object, so that it can end the connection."""

    def get_environ(self) -> Any:
        environ: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        environ["site.request"] = self.req
        return environ


class _Connection(server.HTTPConnection):
    """cheroot's connection, but it closes its writer at once.

    cheroot leaves the writer to the garbage collector, which would flush what a broken socket did not take.
    """

    def close(self) -> None:
        """Drops the data that was not taken."""
        with contextlib.suppress(OSError):
            self.wfile.close()
        super().close()


class _Server(wsgi.Server):
    """cheroot's server, without a limit of idle connections, and with our log."""

    ConnectionClass = _Connection
    keep_alive_conn_limit: Any = None

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        """Logs at debug level only, since a client that disconnects in the middle is nothing special."""
        logs.get("site").debug("cheroot", message=msg, level=level, traceback=traceback)


class Site:
    """A running site; ``port`` 0 takes a free one."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"expected a loopback address, found {host}")
        self.behaviour = Behaviour()
        self.fetches = Fetches()
        self._server = _Server((host, port), self._application(), numthreads=THREADS, request_queue_size=1024)
        self._server.gateway = _Gateway
        self._server.timeout = IDLE_SECONDS
        self._server.shutdown_timeout = 1
        self._over = threading.Event()
        self._serving = threading.Thread(target=self._server.serve, name="site", daemon=True)

    def start(self) -> "Site":
        """Starts to listen. Raises OSError when the port is taken."""
        self._server.prepare()
        self._serving.start()
        return self

    def stop(self) -> None:
        """Ends all delays, then stops to listen."""
        self._over.set()
        self._server.stop()
        self._serving.join()

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self._server.bind_addr[1])

    def _application(self) -> bottle.Bottle:
        application = bottle.Bottle()
        application.get("/", callback=_index)
        application.get("/_site/fetches", callback=self._fetches)
        application.get("/_site/behave", callback=lambda: _json(self.behaviour.rules()))
        application.post("/_site/behave", callback=self._behave)
        application.delete("/_site/behave", callback=self._reset)
        application.route("/<host>/<path:path>", method=["GET", "HEAD", "POST"], callback=self._page)
        application.route("/<host>/", method=["GET", "HEAD", "POST"], callback=lambda host: self._page(host, ""))
        return application

    def _fetches(self) -> bytes:
        try:
            cursor, counts = self.fetches.since(int(bottle.request.query.get("since", 0)))
        except ValueError as error:
            raise bottle.HTTPResponse(f"since: expected a whole number, {error}\n", 400) from error
        return _json({"cursor": cursor, "fetches": counts})

    def _behave(self) -> bytes:
        _refuse_pages()
        try:
            rule = msgspec.json.decode(bottle.request.body.read(), type=Rule)
        except msgspec.DecodeError as error:
            raise bottle.HTTPResponse(f"expected a rule: {error}\n", 400) from error
        self.behaviour.add(rule)
        return _json(rule)

    def _reset(self) -> bytes:
        _refuse_pages()
        self.behaviour.reset()
        return _json(self.behaviour.rules())

    def _page(self, host: str, path: str) -> bytes | Iterator[bytes] | bottle.HTTPResponse:
        address = str(bottle.request.environ["REQUEST_URI"])
        self.fetches.add(address)
        rule = self.behaviour.take(address)
        answer = _answer(host, "/" + path)
        delay_seconds = answer.delay_seconds + (rule.delay_seconds if rule else 0.0)
        if delay_seconds:
            self._over.wait(delay_seconds)
        if rule is None:
            return _plain(answer)
        if rule.hostile:
            return hostile.answer(rule.hostile, address, self._over)
        return _bent(answer, rule, self._over)


def _refuse_pages() -> None:
    """Refuses requests from pages in a browser, whatever their origin. Only programs may set rules."""
    if bottle.request.get_header("Origin") or bottle.request.get_header("Sec-Fetch-Site", "none") != "none":
        raise bottle.HTTPResponse("expected a program, found a page that a browser shows\n", 403)


def _answer(host: str, path: str) -> Answer:
    """The origin's page, or a 404."""
    request = bottle.request
    asked = Asked(
        path=path,
        query=request.query,
        method=request.method,
        form=request.forms,
        headers=request.headers,
        cookies=request.cookies,
    )
    found = (kind.answer(asked) for kind in HOSTS.get(host, ()))
    return next(filter(None, found), None) or Answer(_missing(host, path), status=404)


def _plain(answer: Answer) -> bytes:
    """The page as it is, or 304 when the client has it."""
    response = bottle.response
    etag, packed = _packed(answer.body)
    response.status = answer.status
    response.content_type = answer.content_type
    for name, value in answer.headers:
        response.add_header(name, value)
    if answer.status == 200:
        response.set_header("ETag", etag)
        response.set_header("Last-Modified", email.utils.formatdate(MADE, usegmt=True))
        if _is_unchanged(etag):
            response.status = 304
            return b""
    if answer.may_gzip:
        response.set_header("Vary", "Accept-Encoding")
        if "gzip" in bottle.request.get_header("Accept-Encoding", ""):
            response.set_header("Content-Encoding", "gzip")
            return packed
    return answer.body


def _bent(answer: Answer, rule: Rule, over: threading.Event) -> bytes | Iterator[bytes]:
    """The page, changed by a rule."""
    bent = replace(
        answer,
        body=answer.body if rule.body is None else rule.body.encode(),
        status=rule.status or (302 if rule.redirect is not None else answer.status),
        may_gzip=answer.may_gzip and not (rule.cut is not None or rule.huge or rule.mislabel),
    )
    if rule.mislabel == "charset":
        bent = replace(bent, body=bent.body.decode(errors="replace").encode("windows-1252", "replace"))
    content = _plain(bent)
    if bottle.response.status_code == 304:
        return content
    if rule.mislabel == "type":
        bottle.response.content_type = "image/png"
    elif rule.mislabel == "encoding":
        bottle.response.set_header("Content-Encoding", "gzip")
    if rule.redirect is not None:
        bottle.response.set_header("Location", rule.redirect)
    for name, value in rule.headers.items():
        bottle.response.set_header(name, value)
    if rule.huge:
        return hostile.filled(content, rule.huge, over)
    if rule.cut is None and rule.drip is None:
        return content
    bottle.response.set_header("Content-Length", str(len(content)))
    if rule.cut is not None:
        bottle.request.environ["site.request"].close_connection = True
        content = content[: rule.cut]
    return _dripped(content, rule.drip or Drip(bytes=max(len(content), 1), seconds=0), over)


def _dripped(content: bytes, drip: Drip, over: threading.Event) -> Iterator[bytes]:
    for start in range(0, len(content), drip.bytes):
        if start:
            over.wait(drip.seconds)
        yield content[start : start + drip.bytes]


def _is_unchanged(etag: str) -> bool:
    """Whether the request's conditions say that the client has the page (RFC 9110, 13.1.2 before 13.1.3)."""
    known = bottle.request.get_header("If-None-Match")
    if known is not None:
        return etag in [tag.strip() for tag in known.split(",")] or known.strip() == "*"
    since = email.utils.parsedate_tz(bottle.request.get_header("If-Modified-Since", ""))
    return since is not None and email.utils.mktime_tz(since) >= MADE


@lru_cache(maxsize=512)
def _packed(body: bytes) -> tuple[str, bytes]:
    """A page's ETag, and the page compressed."""
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"', gzip.compress(body, 6, mtime=MADE)


def _missing(host: str, path: str) -> bytes:
    return f"<h1>Not found</h1><p>{html.escape(host)} has no /{html.escape(path)} here.</p>".encode()


def _index() -> str:
    places = ((host, html.escape(STARTS.get(host, "/"))) for host in HOSTS)
    links = "".join(f'<li><a href="/{host}{start}">{host}</a></li>' for host, start in places)
    return f"<!DOCTYPE html><title>Sample pages</title><h1>Sample pages</h1><ul>{links}</ul>"


def _json(value: object) -> bytes:
    bottle.response.content_type = "application/json"
    return msgspec.json.encode(value)


def run(host: str, port: int) -> int:
    """Serves until SIGTERM or SIGINT. Returns 0 then, and 1 when it could not listen."""
    log = logs.get("site")
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    site = Site(host, port)
    try:
        site.start()
    except OSError as error:
        log.error("cannot listen", host=host, port=port, error=str(error))
        return 1
    log.info("serving", host=host, port=site.port, hosts=len(HOSTS))
    over.wait()
    site.stop()
    return 0
