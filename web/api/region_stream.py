"""The event stream of ``GET /v1/regions``: each region as it is, and again when it has changed.

    handler ── park ──> RegionStreams ── one look a second at the hub, for all clients together; none without a client
                           ├ region       a region, without its sources; or what the console shows of it
                           ├ gone         a region is not served any more
                           └ unavailable  why the hub can't be asked; the regions are as they were

While a client does not take what it was sent, it gets nothing more. Afterwards it gets each region as it is by then.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from regions import logs
from regions.loop import Loop
from web.api.events import BEGIN, COMMENT, COMMENT_SECONDS, HEAD
from web.flow.keyring import Keyring
from web.http import problems
from web.http.exchange import Exchange
from web.hub.redis import HubUnavailable

EVERY_SECONDS: Final = 1.0
CLIENTS_MAX: Final = 200  # of one gateway
CLIENTS_OF_KEY_MAX: Final = 50  # of these, so that no key takes all
# Members of what parts report that change with each status, every 2 s, and are no news by themselves.
AGES: Final = frozenset({"reported_at", "age_seconds", "offset_ms", "redis_used", "redis_ms"})
OF_PARTS: Final = ("bridges", "workers", "scale")  # a region's members with these; others have the names of sources

View = Mapping[str, Any]
Shown = Callable[[View], Any]  # a region in the form in which a client wants it

log = logs.get("regions")


def as_it_is(view: View) -> View:
    """The form of ``GET /v1/regions``."""
    return view


class _Client:
    """A client, and what it knows: the number of the last event about each region, and about the hub."""

    __slots__ = ("exchange", "known", "shown", "spoken")

    def __init__(self, exchange: Exchange, shown: Shown) -> None:
        self.exchange, self.shown = exchange, shown
        self.known: dict[str, int] = {}
        self.spoken = time.monotonic()  # when it was sent something


class _News:
    """The last event about a region: its number, what it is compared by, and its bytes in each form that a client wants."""

    __slots__ = ("_document", "_made", "compared", "event", "number")

    def __init__(self, number: int, compared: bytes, event: str, document: View) -> None:
        self.number, self.compared, self.event, self._document = number, compared, event, document
        self._made: dict[Shown, bytes] = {}

    def shown(self, shown: Shown) -> bytes:
        """The event in a form, made once for all clients that want it."""
        if shown not in self._made:
            document = shown(self._document) if self.event == "region" else self._document
            data = msgspec.json.encode(document, enc_hook=str)
            self._made[shown] = b"event: %b\ndata: %b\n\n" % (self.event.encode(), data)
        return self._made[shown]


class RegionStreams:
    """All clients of the stream, and the thread that looks for them."""

    def __init__(self, read: Callable[[], Sequence[View]], keyring: Keyring) -> None:
        """``read``: the regions as the stream shows them; it may raise ``HubUnavailable``."""
        self._read, self._keyring = read, keyring
        self._lock = threading.Lock()
        self._clients: dict[_Client, None] = {}
        self.by_key: Counter[str] = Counter()
        self._now: dict[str, _News] = {}  # by region, and under "" for the hub
        self._number = 0
        self._is_closing = False
        self._loop = Loop("streams", self._turn)

    def __len__(self) -> int:
        return len(self._clients)

    def start(self) -> None:
        """Starts the thread."""
        self._loop.start()

    def stop(self) -> None:
        """Ends all streams and the thread."""
        with self._lock:
            self._is_closing = True
            clients, self._clients = self._clients, {}
            self.by_key.clear()
        for client in clients:
            client.exchange.close_stream()
        self._loop.stop()

    def open_if_asked(self, exchange: Exchange) -> bool:
        """Whether a call asks for a stream by its Accept header; then it is one now. Raises ``Problem`` as ``open`` does."""
        ranges = (one.partition(";")[0].strip().lower() for one in exchange.header("Accept").split(","))
        if "text/event-stream" not in ranges:
            return False
        self.open(exchange)
        return True

    def open(self, exchange: Exchange, shown: Shown = as_it_is) -> None:
        """Parks a call as a stream, whose regions are ``shown``. Raises ``Problem``: 429 or 503 if there are too many."""
        key = exchange.owner.key
        self._keyring.check_room(exchange.owner)
        with self._lock:
            if key and self.by_key[key] >= CLIENTS_OF_KEY_MAX:
                raise problems.limited("waiters", str(CLIENTS_OF_KEY_MAX), 1)
            if self._is_closing:
                raise problems.unavailable("this gateway is stopping")
            if len(self._clients) >= CLIENTS_MAX:
                raise problems.unavailable(f"this gateway has as many region streams as it serves: {CLIENTS_MAX}")
            exchange.park()
            client = _Client(exchange, shown)
            exchange.open_stream(HEAD, BEGIN)
            self._clients[client] = None
            self.by_key[key] += 1
        exchange.watch(self, client)
        self._loop.wake()

    def forget(self, client: _Client) -> None:
        """Its client has hung up."""
        with self._lock:
            if client in self._clients:
                del self._clients[client]
                self.by_key[client.exchange.owner.key] -= 1

    def again(self, client: _Client) -> None:
        """Its client has taken what it was sent; the next turn sends what is new."""

    def _turn(self) -> float:
        try:
            self.run_once()
        except Exception:
            log.exception("the region streams failed")
        return EVERY_SECONDS if self._clients else threading.TIMEOUT_MAX

    def run_once(self) -> None:
        """Looks once, and sends each client what it does not know."""
        with self._lock:
            clients = list(self._clients)
        if not clients:
            return
        self._look()
        for client in clients:
            if not self._tell(client):
                self.forget(client)

    def _look(self) -> None:
        try:
            views = self._read()
        except HubUnavailable as error:
            self._note("", "unavailable", {"reason": error.reason})
            for news in self._now.values():
                if news.event != "unavailable":
                    news.compared = b""  # it is told again when the hub is back
            return
        self._now.pop("", None)
        for view in views:
            self._note(view["name"], "region", view)
        there = {view["name"] for view in views}
        for name in self._now.keys() - there - {""}:
            self._note(name, "gone", {"name": name})

    def _note(self, key: str, event: str, document: View) -> None:
        compared = msgspec.json.encode([event, without_ages(document)], enc_hook=str)
        if key not in self._now or self._now[key].compared != compared:
            self._number += 1
            self._now[key] = _News(self._number, compared, event, document)

    def _tell(self, client: _Client) -> bool:
        """Sends what is new to a client, or a comment; False if it is gone, or its key is."""
        key = client.exchange.owner.key
        if key and not self._keyring.has(key):
            client.exchange.close_stream()
            return False
        if client.exchange.backlog:
            return True
        new = {
            key: news
            for key, news in self._now.items()
            if client.known.get(key) != news.number and (news.event != "gone" or key in client.known)
        }
        if "" not in self._now:
            client.known.pop("", None)
        now = time.monotonic()
        if not new and now - client.spoken < COMMENT_SECONDS:
            return True
        client.spoken = now
        client.known.update({key: news.number for key, news in new.items()})
        return client.exchange.send(b"".join(news.shown(client.shown) for news in new.values()) or COMMENT)


def without_ages(view: View) -> View:
    """A region without the members that change while nothing happens."""
    return {key: _without_ages(one) if key in OF_PARTS else one for key, one in view.items()}


def _without_ages(found: Any) -> Any:
    if isinstance(found, Mapping):
        return {key: _without_ages(one) for key, one in found.items() if key not in AGES}
    return [_without_ages(one) for one in found] if isinstance(found, list | tuple) else found
