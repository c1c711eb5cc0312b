"""The gateway: the parts that it is made of, and its life from start to stop."""

import ipaddress
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import msgspec
import redis

from jobs import memory
from jobs.definition.catalog import Catalog
from regions import connect, durability, logs
from regions.loop import Loop, end_with_thread
from regions.process import settle_on_processor
from regions.settings import Again, Settings
from web.api import views
from web.api.faults import Faults
from web.api.health import Health
from web.api.intake import Intake
from web.api.metrics import Metrics
from web.api.overview import Overview
from web.api.poll import Poller
from web.api.recall import Recall
from web.api.region_stream import RegionStreams
from web.api.repeat import Repeats
from web.api.submit import Rules
from web.api.wait import Waiters
from web.api.webhooks import WebhookCalls
from web.app import App, Body, known_hosts, routes
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
from web.http.server import Bounds, Server
from web.hub import gateways
from web.hub.faults import Found
from web.hub.ledger import Ledger
from web.hub.redis import Hub, check_durability

CATALOG_SECONDS: Final = 1.5  # a changed definition is noticed within 2 s
DIFFERS_SECONDS: Final = 10.0  # between two looks at the definitions that regions have
WAITERS_SECONDS: Final = 8.0  # how long a stop waits until all waiting clients are answered
LAST_ANSWERS_SECONDS: Final = 1.5  # then, how long for answers on their way

log = logs.get("gateway")


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
        self.keyring = Keyring(self.hub, gateways.name_of(settings))
        self.archiver = Archiver(self.hub, self.ledger, self.history)
        self.webhooks = Webhooks(settings, self.hub, partial(views.webhook_message, base=base))
        self.recall = Recall(self.history, self.ledger, base, limits.result_ttl_seconds)
        self.publisher = Publisher(settings)
        self.served = Served(settings, self.hub, self.catalog, self.publisher, reload)
        self.acceptor = Acceptor(self.hub, self.ledger, self.publisher)
        self.ledger.left_out = self.acceptor.cleaner.cancel
        self.waiters = Waiters(self.hub, self.ledger)
        self.keyring.ended.append(self.waiters.close_ended)
        self.keyring.waiting.append(self.waiters.by_key)
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
        self.intake = Intake(rules, self.acceptor, self.waiters, repeats, self.keyring, base)
        poller = Poller(
            self.hub,
            self.ledger,
            self.waiters,
            self.acceptor.cleaner,
            self.recall,
            base,
            self.keyring.check_room,
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
            lambda: self.faults.now,
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
        self.keyring.waiting.append(self.region_streams.by_key)
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
        calls = WebhookCalls(self.hub, self.acceptor.cleaner, self.recall, settings.webhooks.retry_seconds)
        found = routes(
            self.intake,
            poller,
            self.recall,
            calls,
            overview,
            self.region_streams,
            self.faults,
            health,
            metrics,
            limits,
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
        # Side by side: each waits up to a second for its server's last reply.
        with ThreadPoolExecutor(len(readers)) as pool:
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


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT, then finishes what is at hand. 1 if it could not start, or the server ended by itself."""
    settle_on_processor(os.getpid())  # before it has threads
    memory.tune_allocator()
    threading.excepthook = end_with_thread
    if reason := why_not_open(settings):
        log.error("the gateway can't start", reason=reason)
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
        log.error("the gateway can't start", reason=str(error))
        return 1
    except redis.exceptions.RedisError as error:
        log.warning("redis away", error=str(error))  # requests are refused until it answers
    host, port = settings.gateway.host, settings.gateway.port
    try:
        gateway.start()
    except OSError as error:
        log.error("the gateway can't start", reason=f"can't listen on {host}:{port}: {error}")
        return 1
    most = gateway.server.connections_max
    log.info("serving", url=f"http://{host}:{port}/", threads=settings.gateway.threads, connections_max=most)
    gateway.ended.wait()
    log.info("stopping")
    gateway.stop()
    log.info("stopped")
    return 0 if asked else 1
