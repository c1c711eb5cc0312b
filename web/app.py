"""The gateway's WSGI app: all routes on one screen, and what holds for every call.

exchange (web.http.server) ─ Host ─ route ─ handler ─┬─ Answer
                                                     ├─ None: parked, answered later
                                                     └─ Problem, HubUnavailable, any other error: a problem document
"""

import re
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import bottle

from jobs import contract
from regions import logs
from regions.settings import Limits, Settings
from web.api import manual, openapi
from web.api.faults import Faults
from web.api.health import Health
from web.api.intake import Intake
from web.api.metrics import Metrics
from web.api.overview import Overview
from web.api.poll import Poller
from web.api.query import Query
from web.api.recall import Recall
from web.api.region_stream import RegionStreams
from web.api.webhooks import WebhookCalls
from web.console import signin
from web.console.pages import Console
from web.http import problems, trace
from web.http.answer import Answer
from web.http.exchange import Exchange, Head
from web.http.owner import EVERYBODY, Owner
from web.http.problems import Problem
from web.http.receive import Received
from web.http.server import EXCHANGE
from web.hub import keys
from web.hub.keys import Scope
from web.hub.redis import HubUnavailable

# RFC 3986, 3.2.2 and 3.2.3: a port may be empty.
HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d*)?", re.ASCII)
EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - these are no names of this machine

# A monitor needs no key, nor does a person who reads how to use the gateway.
WITHOUT_KEY: Final = ("/healthz", "/readyz", "/openapi.json", "/docs", "/problems")
# The console's style sheets and scripts, the way in, and the pages about problems: a 401 leads to one.
WITHOUT_KEY_BELOW: Final = ("/console/", signin.PATH, signin.OUT, "/problems/")
REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
PREFLIGHT: Final = [
    ("Access-Control-Allow-Methods", "GET, HEAD, POST, DELETE"),
    (
        "Access-Control-Allow-Headers",
        "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Prefer, traceparent, X-Request-Id",
    ),
    ("Access-Control-Max-Age", "600"),
]
EXPOSED: Final = (
    "Access-Control-Expose-Headers",
    (
        "Age, ETag, Idempotency-Replayed, Link, Location, Nearfetch-Count, Nearfetch-Partial, Nearfetch-Warnings, "
        "Preference-Applied, Retry-After, X-Request-Id"
    ),
)

Handler = Callable[..., Answer | None]
# How long the body of a call may be, and a check of its head, which raises Problem.
Body = tuple[int, Callable[[Head], object]]

log = logs.get("gateway")


def routes(
    intake: Intake,
    poller: Poller,
    recall: Recall,
    webhooks: WebhookCalls,
    overview: Overview,
    streams: RegionStreams,
    faults: Faults,
    health: Health,
    metrics: Metrics,
    limits: Limits,
) -> list[tuple[str, str, Handler]]:
    """(method, path, handler) of all calls."""
    with_query: list[tuple[str, str, Handler]] = [
        ("GET", "/v1/requests", recall.search),
        ("GET", "/v1/requests/<request>", poller.get),
        ("GET", "/v1/requests/<request>/events", poller.events),
        ("GET", "/v1/webhooks", webhooks.search),
        ("GET", "/v1/sources/<source>/records", intake.records),
    ]
    others: list[tuple[str, str, Handler]] = [
        ("POST", "/v1/requests", intake.post),
        ("DELETE", "/v1/requests/<request>", poller.delete),
        ("POST", "/v1/requests/<request>/webhook", webhooks.resend),
        ("GET", "/v1/requests/<request>/tasks/<task>", poller.task),
        ("GET", "/v1/tasks/<task>", poller.where),
        ("GET", "/v1/sources", lambda _: overview.sources()),
        ("GET", "/v1/sources/<source>", overview.source),
        ("GET", "/v1/regions", lambda exchange: None if streams.open_if_asked(exchange) else overview.regions()),
        ("GET", "/v1/regions/<region>", lambda _, region: overview.region(region)),
        ("GET", "/v1/regions/<region>/events", lambda _, region: faults.events(region)),
        ("GET", "/v1/faults", faults.answer),
        ("GET", "/v1/regions/<region>/day", lambda _, region: overview.day(region)),
        ("GET", "/healthz", lambda _: health.live()),
        ("GET", "/readyz", lambda _: health.ready()),
        ("GET", "/metrics", metrics.answer),
        ("GET", "/openapi.json", lambda _: openapi.answer(limits)),
        ("GET", "/docs", lambda _: manual.docs(limits)),
        ("GET", "/problems", manual.all_problems),
        ("GET", "/problems/<kind>", manual.problem),
        ("GET", "/problems/task/<kind>", manual.task_problem),
    ]
    return with_query + [(method, path, _without_query(handler)) for method, path, handler in others]


def _without_query(handler: Handler) -> Handler:
    """The handler of a call that takes no query: what has no meaning is refused, not ignored."""

    def handle(exchange: Exchange, **arguments: str) -> Answer | None:
        Query(exchange, ()).check()
        return handler(exchange, **arguments)

    return handle


class App:
    """The WSGI app. Bottle finds the route; the rest is our own."""

    def __init__(
        self,
        found: list[tuple[str, str, Handler]],
        hosts: Iterable[str],
        bodies: Mapping[tuple[str, str], Body] | None = None,
        origins: Iterable[str] = (),
        owner_of: Callable[[Head, Scope], Owner] | None = None,
        console: Console | None = None,
    ) -> None:
        """``found``: all calls but the console's. ``bodies``: (method, path) → the ``Body`` of this call; all other calls take none.

        ``origins``: whose pages may use the gateway by a browser. ``owner_of``: (its head, scope) → whose a call is, or a
        ``Problem``; without it the gateway is open.
        """
        self._hosts, self._origins, self._owner_of = frozenset(hosts), frozenset(origins), owner_of
        self._bodies, self._console = dict(bodies or {}), console
        self._router = bottle.Router()
        for method, path, handler in [*found, *(console.routes() if console is not None else ())]:
            route = f"{method} {path}".replace("<", "{").replace(">", "}")
            self._router.add(path, method, (route, handler))

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        """Serves a call, as WSGI has it. Every error becomes a problem document."""
        exchange: Exchange = environ[EXCHANGE]
        answer = self._answer(exchange)
        if exchange.is_parked:
            if answer is not None:  # an error after it was parked
                exchange.answer(answer)
            return []
        assert answer is not None
        start_response(f"{answer.status} ", answer.headers)
        return [answer.body]

    def body_bytes_max(self, method: str, path: str) -> int:
        """How many bytes a body of this call may have."""
        body = self._bodies.get((method, path))
        return body[0] if body else 0

    def refuses(self, received: Received) -> bool:
        """Whether a call that takes a body is refused by its head, so that its body need not be sent."""
        path = received.parts()[0].decode("latin-1")
        if received.header("Cookie"):  # whose session that is, only the hub knows: this thread must not wait for it
            return False
        try:
            self._owner(received, received.method, path)
            self._bodies[received.method, path][1](received)
        except Problem:
            return True
        return False

    def _answer(self, exchange: Exchange) -> Answer | None:
        self._add_headers(exchange)
        try:
            if exchange.method == "OPTIONS" and self._is_allowed(exchange):
                return Answer(204, b"", PREFLIGHT)
            exchange.owner = owner = self._owner(exchange, exchange.method, exchange.path)
            if owner.key:
                exchange.note(key=owner.key, tenant=owner.tenant)
            handler, arguments = self._route(exchange)
            if exchange.body is None and not self.body_bytes_max(exchange.method, exchange.path):
                raise Problem("too-large", f"expected no body with {exchange.method} {exchange.path[:200]}, found one")
            return handler(exchange, **arguments)
        except Problem as problem:
            if not exchange.owner.key and (claimed := keys.claimed(exchange.header("Authorization"))):
                exchange.note(claimed_key=claimed)
            return self._told(exchange, problem)
        except HubUnavailable as error:
            return self._told(exchange, problems.unavailable(error.reason))
        except Exception:
            log.exception("handler failed", method=exchange.method, path=exchange.path[:200])
            return self._told(exchange, problems.internal())

    def _told(self, exchange: Exchange, problem: Problem) -> Answer:
        """A problem document, or a page of the console if a person looks at the console."""
        if self._console is not None and self._console.is_looked_at(exchange):
            return self._console.problem(exchange, problem)
        return problem.answer()

    def _route(self, exchange: Exchange) -> tuple[Handler, dict[str, str]]:
        try:
            exchange.environ["PATH_INFO"] = exchange.path.encode("latin-1").decode("utf-8")
            (exchange.route, handler), arguments = self._router.match(exchange.environ)
        except UnicodeDecodeError:
            raise Problem("bad-request", "expected a path in UTF-8") from None
        except bottle.HTTPError as error:
            if error.status_code == 405:
                methods = [method.strip() for method in error.headers["Allow"].split(",")]
                allow = ", ".join(sorted({*methods, "HEAD"} if "GET" in methods else methods))
                raise Problem("method-not-allowed", f"expected {allow}", headers=[("Allow", allow)]) from None
            raise Problem("not-found", f"there is nothing at {exchange.path[:200]}") from None
        return handler, arguments

    def _add_headers(self, exchange: Exchange) -> None:
        """The headers of every answer to this client: its own id of the call, and whether a page may read the answer."""
        name = exchange.header("X-Request-Id")
        if REQUEST_ID.fullmatch(name):
            exchange.extra += (("X-Request-Id", name),)
            exchange.note(client_id=name)
        if traceparent := trace.read(exchange.header(trace.HEADER)):
            exchange.note(**contract.trace_of(traceparent))
        if self._origins:
            exchange.extra += (("Vary", "Origin"),)
        if self._is_allowed(exchange):
            exchange.extra += (("Access-Control-Allow-Origin", exchange.header("Origin")), EXPOSED)

    def _owner(self, head: Head, method: str, path: str) -> Owner:
        """The owner of a call. At an open gateway everybody may call by a name of this machine, but not from another site's page."""
        makes_tasks = method not in ("GET", "HEAD") or path.endswith("/records")
        if self._owner_of is None:
            self._check_host(head)
            self._check_site(head, makes_tasks=makes_tasks)
            return EVERYBODY
        if path in WITHOUT_KEY or path.startswith(WITHOUT_KEY_BELOW):
            return EVERYBODY
        return self._owner_of(head, "submit" if makes_tasks else "read")

    def _is_allowed(self, head: Head) -> bool:
        """Whether a page of an allowed origin asks."""
        return head.header("Origin") in self._origins

    def _check_site(self, head: Head, *, makes_tasks: bool) -> None:
        """Refuses calls of another site's page that make or end tasks (Fetch Metadata): it could make them by an image, unread."""
        if makes_tasks and head.header("Sec-Fetch-Site") == "cross-site" and not self._is_allowed(head):
            raise Problem("cross-site", "expected no page of another site to ask, found Sec-Fetch-Site: cross-site")

    def _check_host(self, head: Head) -> None:
        """Refuses a Host that is not a name of this machine, so that no web page can reach the gateway by a name of its own.

        Only HTTP/1.0, which no browser speaks, may leave the Host out.
        """
        host = head.header("Host")
        if (host or head.is_http11) and host_name(host) not in self._hosts:
            raise Problem("wrong-host", f"expected one of {', '.join(sorted(self._hosts))}, found {host[:100]!r}")


def host_name(host: str) -> str:
    """The name in a Host header, without its port, in lower case; empty if it can't be read."""
    found = HOST.fullmatch(host)
    return found.group(1).lower().strip("[]").rstrip(".") if found else ""


def known_hosts(settings: Settings) -> set[str]:
    """The names that this gateway answers to."""
    own = socket.gethostname().lower()
    public = urlsplit(settings.gateway.public_url).hostname
    names = {"localhost", "127.0.0.1", "::1", own, own.partition(".")[0]}
    if settings.gateway.host not in EVERYWHERE:
        names.add(settings.gateway.host.lower())
    return names | ({public} if public else set())
