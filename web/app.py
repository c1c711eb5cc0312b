"""The gateway: all routes on one screen, the parts that it is made of, and its life from start to stop.

exchange (web.http.server) ─ Host ─ route ─ handler ─┬─ Answer
                                                     ├─ None: parked, answered later
                                                     └─ Problem, HubUnavailable, any other error: a problem document
"""

import ipaddress
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import bottle
import msgspec
import redis

from jobs import contract, memory
from jobs.definition.catalog import Catalog
from regions import connect, durability, logs
from regions.loop import Loop
from regions.process import settle_on_processor
from regions.settings import Again, Limits, Settings
from web.api import manual, openapi, views
from web.api.faults import Faults
from web.api.health import Health
from web.api.intake import Intake
from web.api.metrics import Metrics
from web.api.overview import Overview
from web.api.poll import Poller
from web.api.query import Query
from web.api.recall import Recall
from web.api.region_stream import RegionStreams
from web.api.repeat import Repeats
from web.api.submit import Rules
from web.api.wait import Waiters
from web.console import signin
from web.console.files import Files
from web.console.frame import Parts
from web.console.pages import Console
from web.console.signin import SignIn
from web.flow.accept import Acceptor
from web.flow.archive import Archiver
from web.flow.dead import DeadReader
from web.flow.history import History
from web.flow.holdings import Holdings
from web.flow.keyring import Keyring
from web.flow.listen import Listener
from web.flow.publish import Publisher
from web.flow.served import Served
from web.flow.settle import Settler
from web.flow.sweep import Sweeper
from web.flow.takeover import Takeover
from web.flow.webhooks import Webhooks
from web.http import problems, trace
from web.http.exchange import Answer, Exchange, Head
from web.http.owner import EVERYBODY, Owner
from web.http.problems import Problem
from web.http.receive import Received
from web.http.server import EXCHANGE, Bounds, Server
from web.hub import keys
from web.hub.faults import Found
from web.hub.keys import Scope
from web.hub.ledger import Ledger
from web.hub.redis import Hub, HubUnavailable, check_durability

CATALOG_SECONDS: Final = 1.0  # a changed definition is noticed within 2 s
DIFFERS_SECONDS: Final = 10.0  # between two looks at the definitions that regions have
WAITERS_SECONDS: Final = 8.0  # how long a stop waits until all waiting clients are answered
LAST_ANSWERS_SECONDS: Final = 1.5  # then, how long for answers on their way

# RFC 3986, 3.2.2 and 3.2.3: a port may be empty.
HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d*)?", re.ASCII)
EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - these are no names of this machine

# Whoever watches the gateway has no key, nor has who reads how to use it.
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
        ("GET", "/v1/sources/<source>/records", intake.records),
    ]
    others: list[tuple[str, str, Handler]] = [
        ("POST", "/v1/requests", intake.post),
        ("DELETE", "/v1/requests/<request>", poller.delete),
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
        """WSGI's. Every error becomes a problem document."""
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
        """A problem document, or a page of the console for those who look at one."""
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
        """What every answer to this client carries: its own id of the call, and whether a page may read it."""
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
        """Whose a call is. An open gateway is everybody's who reaches it by a name of this machine, and not from another site's page."""
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
        """Refuses a page of another site (Fetch Metadata) what makes or ends tasks: it may ask without reading, say by an image."""
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


class Gateway:
    """All parts of a gateway, and the order in which they start and stop."""

    def __init__(self, settings: Settings, reload: Callable[[], Settings] | None = None) -> None:
        """``reload`` reads the settings again, for the regions; without it they stay. ``settings.region`` changes by that."""
        self.settings = settings
        if reload is None:
            first = msgspec.structs.replace(settings, region=dict(settings.region))
            reload = lambda: first  # noqa: E731
        base = settings.gateway.public_url.rstrip("/")
        limits = settings.limits
        self.catalog = Catalog(settings.source_folders, settings.first_region)
        self.hub = Hub(settings)
        self.history = History(settings)
        self.ledger = Ledger(
            self.hub.client,
            limits,
            archives=self.history.is_on,
            webhook_retry_seconds=settings.webhooks.retry_seconds,
        )
        self.keyring = Keyring(self.hub)
        self.archiver = Archiver(self.hub, self.ledger, self.history)
        self.webhooks = Webhooks(settings, self.hub, partial(views.webhook_message, base=base))
        self.recall = Recall(self.history, self.ledger, base, limits.result_ttl_seconds)
        self.publisher = Publisher(settings)
        self.served = Served(settings, self.hub, self.catalog, self.publisher, reload)
        self.acceptor = Acceptor(self.hub, self.ledger, self.publisher)
        self.ledger.left_out = self.acceptor.cleaner.cancel
        self.waiters = Waiters(self.hub, self.ledger)
        self.keyring.ended.append(self.waiters.close_ended)
        self.settler = Settler(settings, self.hub, self.ledger, self.waiters, self.catalog)
        self.holdings = Holdings(settings, self.hub)
        self.listener = Listener(settings, self.waiters.news, self.waiters.all)
        self.sweeper = Sweeper(settings, self.hub, self.ledger, self.acceptor.cleaner, self.waiters.news)
        self.dead = DeadReader(settings, self.hub, self.ledger, self.waiters.news)
        self.hub.rehearse = self.ledger.rehearse
        self.hub.regained += [self.waiters.all, self.sweeper.grace.begin]
        self.publisher.regained.append(self.sweeper.grace.begin)
        self.takeover = Takeover(settings, self.hub, self.ledger, self.catalog, self.publisher, self.acceptor.cleaner)
        rules = Rules(self.catalog, limits, settings.region, self.takeover.route, settings.webhooks.plain_http)
        repeats = Repeats(self.hub, self.ledger, self.waiters, self.acceptor.cleaner, self.recall, base)
        self.intake = Intake(rules, self.acceptor, self.waiters, repeats, self.keyring.limits, base)
        poller = Poller(
            self.hub,
            self.ledger,
            self.waiters,
            self.acceptor.cleaner,
            self.recall,
            base,
            self.keyring.limits,
            wait_max_seconds=limits.wait_max_seconds,
        )
        self._differs_at = 0.0
        overview = self._overview = Overview(
            settings,
            self.hub,
            self.ledger,
            self.catalog,
            self.takeover,
            self.served.leaving,
            lambda: self.publisher.queued,
        )
        told = (
            self.hub.faults,
            self.publisher.faults,
            self.acceptor.cleaner.faults,
            self.history.faults,
            self.served.faults,
            self._room,
            self.webhooks.faults,
            *((self.keyring.faults,) if settings.gateway.keys else ()),
        )
        self.faults = Faults(settings, self.hub, self.ledger, self.catalog, self.takeover, self.publisher, told)
        self.region_streams = RegionStreams(overview.lanes, self.keyring)
        sign_in = SignIn(settings, self.hub, self.keyring)
        console = Console(
            sign_in,
            Parts(
                settings,
                overview,
                self.region_streams,
                poller,
                self.recall,
                self.faults,
                self.catalog,
                self.hub,
                self.ledger,
                base,
                Files(),
            ),
        )
        health = Health(self.hub, self.publisher, self.acceptor.cleaner, self.history, lambda: self.faults.now)
        metrics = Metrics(
            self.hub,
            self.ledger,
            self.publisher,
            self.acceptor.cleaner,
            self.history,
            self.waiters,
            overview,
            self.faults,
        )
        found = routes(
            self.intake, poller, self.recall, overview, self.region_streams, self.faults, health, metrics, limits
        )
        bodies: dict[tuple[str, str], Body] = {
            ("POST", "/v1/requests"): (limits.body_bytes_max, self.intake.check_head),
            ("POST", signin.PATH): (signin.BODY_BYTES_MAX, sign_in.check_own_page),
        }
        owner_of = sign_in.owner if settings.gateway.keys else None
        app = App(found, known_hosts(settings), bodies, settings.gateway.cors_origins, owner_of, console)
        gateway = settings.gateway
        bounds = Bounds(
            gateway.receiving_bytes_max, gateway.sending_bytes_max, gateway.address_share, gateway.connections_max
        )
        self.server = Server(gateway.host, gateway.port, app, gateway.threads, app.body_bytes_max, bounds, app.refuses)
        metrics.server = self.server
        self.ended = threading.Event()  # a signal came, or the server ended by itself
        self._serving = threading.Thread(target=self._serve, name="http", daemon=True)
        self._refreshing = Loop("catalog", self._refresh, end_seconds=CATALOG_SECONDS + 1)

    def start(self) -> None:
        """Binds the port first, since a taken port is a final error; then starts every part."""
        self.catalog.refresh()
        self.server.prepare()
        self.server.outlet.start()
        self.hub.start()
        if self.settings.gateway.keys:
            self.keyring.start()
        self.publisher.start()
        self.acceptor.start()
        self.waiters.start()
        self.region_streams.start()
        self.settler.start()
        self.holdings.start()
        self.takeover.start()
        self.listener.start()
        self.sweeper.start()
        self.dead.start()
        self.archiver.start()
        self.faults.start()
        self.webhooks.start()
        self._serving.start()
        self._refreshing.start(CATALOG_SECONDS)

    def stop(self) -> None:
        """Answers waiting clients as if their wait had run out, finishes accepts, then ends the parts."""
        self.ended.set()
        self._refreshing.ask_to_stop()
        self.server.outlet.is_closing = True  # answers say Connection: close from now on
        self.waiters.close()
        self.region_streams.stop()
        self.server.stop()  # no new requests
        _wait(lambda: not len(self.waiters), WAITERS_SECONDS)
        _wait(lambda: self.server.outlet.is_idle, LAST_ANSWERS_SECONDS)
        self.waiters.stop()
        self.intake.stop()
        self.recall.stop()
        readers = (
            *((self.keyring,) if self.settings.gateway.keys else ()),
            self.faults,
            self.archiver,
            self.webhooks,
            self.dead,
            self.sweeper,
            self.listener,
            self.takeover,
            self.holdings,
            self.settler,
        )
        with ThreadPoolExecutor(
            len(readers)
        ) as pool:  # side by side: each waits up to a second for its server's last reply
            list(pool.map(lambda part: part.stop(), readers))
        self.acceptor.stop()
        self.publisher.stop()
        self.hub.stop()
        self.server.outlet.stop()
        self._serving.join(CATALOG_SECONDS + 1)
        self._refreshing.join()

    def _room(self) -> list[Found]:
        return [Found("gateway-connections-full", f"too many connections: {why}")] if (why := self.server.full) else []

    def _serve(self) -> None:
        try:
            self.server.serve()
        except Exception:
            log.exception("http server ended")
        self.ended.set()

    def _refresh(self) -> float:
        try:
            if self.catalog.refresh():
                self._log_catalog()
            self.served.look()
            if time.monotonic() >= self._differs_at:
                self._differs_at = time.monotonic() + DIFFERS_SECONDS
                self._overview.tell()
        except Exception:
            log.exception("reading the sources or regions failed")
        return CATALOG_SECONDS

    def _log_catalog(self) -> None:
        entries = self.catalog.entries()
        broken = [str(fault) for entry in entries for fault in entry.faults]
        log.info("sources read", sources=len(entries), faults=broken)


def _wait(is_over: Callable[[], bool], seconds: float) -> None:
    """Waits until something is over, or the time is."""
    deadline = time.monotonic() + seconds
    while not is_over() and time.monotonic() < deadline:
        time.sleep(0.01)


def why_not_open(settings: Settings) -> str:
    """Why the gateway does not start with these settings, "" if it may: without keys only this machine may reach it."""
    host = settings.gateway.host
    try:
        is_own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_own = host == "localhost"
    if is_own or settings.gateway.keys:
        return ""
    return (
        f"everybody who reaches {host} could use the gateway, since it has no keys: set keys = true in [gateway], and make keys with "
        "nearfetch key create; or set host = 127.0.0.1"
    )


def log_durability(found: durability.Found) -> None:
    """Logs what the hub's Redis could lose."""
    for shortfall in found.shortfalls:
        log.warning("redis not durable; hub.durability is relaxed", shortfall=str(shortfall))
    if found.fsync == "everysec":
        log.info("the hub's Redis has appendfsync everysec", note=durability.POWER_LOSS)


def die(args: threading.ExceptHookArgs) -> None:
    """Ends the process after a thread failed: without that thread it would only look alive."""
    thread = args.thread.name if args.thread else "unknown"
    log.error("a thread failed, the process ends", thread=thread, exc_info=args.exc_value)
    os._exit(os.EX_SOFTWARE)


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT, then finishes what is at hand. 1 if it could not start, or the server ended by itself."""
    settle_on_processor(os.getpid())  # before it has threads
    memory.tune_allocator()
    threading.excepthook = die
    if reason := why_not_open(settings):
        log.error("not started", reason=reason)
        return 1
    gateway = Gateway(settings, Again())
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        asked.append(number)
        gateway.ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    try:
        connect.check_redis(gateway.hub.client, "hub")
        log_durability(check_durability(gateway.hub.client, settings.hub.durability))
    except (connect.TooOld, durability.NotDurable) as error:
        log.error("not started", reason=str(error))
        return 1
    except redis.exceptions.RedisError as error:
        log.warning("redis away", error=str(error))  # requests are refused until it answers
    host, port = settings.gateway.host, settings.gateway.port
    try:
        gateway.start()
    except OSError as error:
        log.error("not started", reason=f"can't listen on {host}:{port}: {error}")
        return 1
    most = gateway.server.connections_max
    log.info("serving", url=f"http://{host}:{port}/", threads=settings.gateway.threads, connections_max=most)
    gateway.ended.wait()
    log.info("stopping")
    gateway.stop()
    log.info("stopped")
    return 0 if asked else 1
