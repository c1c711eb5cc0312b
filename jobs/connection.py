"""Connections that go only where the guard lets them, and that a deadline or a cancel cuts at any point.

    Fetcher.fetch → Watchdog.watching(exchange)             the thread's one exchange
      adapter.send → pool → GuardedConnection._new_conn     resolve, Guard.filter, connect to exactly those
                          → GuardedConnection.request       the exchange holds the socket from here on
                          → Response.begin                  status and headers, their size capped
    Watchdog.run_once                                       shuts the socket of an exchange that is late or cancelled

urllib3 has no public hook for the address that is connected to (its #3675 and #3781 are open): ``_new_conn`` is what its
own SOCKS module overrides too. A connection outside an exchange connects to nothing.
"""

import contextlib
import http.client
import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager
from urllib3.util.ssl_ import create_urllib3_context

from jobs.errors import Cancelled, ConnectionFailed, TimedOut, TooLarge
from jobs.guard import Guard, Target

CONNECT_SECONDS: Final = 10.0  # for one address; all addresses of a name share what is left of the time-out
WATCH_SECONDS: Final = 0.1  # how late a dripped answer or a cancel is noticed
HEADERS_BYTES_MAX: Final = 65_536  # status line and headers, early hints included; http.client allows 100 headers
POOLS: Final = 32  # hosts whose connections are kept

_here = threading.local()


class Exchange:
    """One fetch on one thread: until when, whether still wanted, and the socket that is to be cut otherwise.

    ``deadline`` is on the monotonic clock, and so is ``latest``, up to which a pause may move it; ``cancelled`` is called
    from the watchdog's thread too.
    """

    def __init__(self, guard: Guard, deadline: float, cancelled: Callable[[], bool], latest: float) -> None:
        self.guard = guard
        self.deadline = deadline
        self.latest = latest
        self.cancelled = cancelled
        self.is_fresh = False  # the connection in use was made for this request
        self.wants_fresh = False  # a kept connection was reset: don't take another one
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cut: type[Cancelled | TimedOut] | None = None

    def remaining(self) -> float:
        """Seconds that are left, never below 1 ms (a socket's time-out of 0 would mean: don't block)."""
        return max(self.deadline - time.monotonic(), 0.001)

    def reason(self) -> type[Cancelled | TimedOut] | None:
        """Why this exchange has to end now, or None."""
        if self._cut is None:
            if self.cancelled():
                self._cut = Cancelled
            elif time.monotonic() >= self.deadline:
                self._cut = TimedOut
        return self._cut

    def check(self) -> None:
        """Raises Cancelled or TimedOut where the exchange has to end."""
        reason = self.reason()
        if reason is Cancelled:
            raise Cancelled("cancelled while it was fetched")
        if reason is TimedOut:
            raise TimedOut(f"expected the whole answer within {self.deadline - self._began:.3g} s")

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The deadline stands still in here: where we keep the target waiting, its time-out does not run."""
        left = self.deadline - time.monotonic()
        self.deadline = self.latest
        try:
            yield
        finally:
            self.deadline = min(self.latest, time.monotonic() + left)

    def hold(self, held: socket.socket | None) -> None:
        """From now on this socket is the one to cut; None is no socket."""
        with self._lock:
            self._socket = held

    def cut_if_over(self) -> None:
        """Shuts the socket where the exchange has to end, so that the thread that reads from it wakes up."""
        with self._lock:
            if self._socket is not None and self.reason() is not None:
                # The plain socket's shutdown: a TLS one would change state that its reader is using.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def connect(self, connection: HTTPConnection) -> socket.socket:
        """A connected socket to one of the permitted addresses; raises TaskErrors that name the host."""
        host, port = connection._dns_host.strip("[]"), connection.port  # noqa: SLF001 - with the dot of a full name
        targets = self.guard.filter(host, port, self._lookup(host, port))
        fault: OSError | None = None
        for left, target in zip(range(len(targets), 0, -1), targets, strict=True):
            self.check()
            try:
                return self._connect_one(target, min(CONNECT_SECONDS, self.remaining() / left), connection)
            except OSError as error:
                fault = error
        self.check()
        if isinstance(fault, TimeoutError):
            raise TimedOut(f"could not connect to {host} port {port}: no answer") from fault
        raise ConnectionFailed(f"could not connect to {host} port {port}: {said(fault)}") from fault

    def _connect_one(self, target: Target, seconds: float, connection: HTTPConnection) -> socket.socket:
        family, address = target
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            for option in connection.socket_options or ():
                made.setsockopt(*option)
            made.settimeout(seconds)
            self.hold(made)
            if connection.source_address:
                made.bind(connection.source_address)
            made.connect(address)
            made.settimeout(self.remaining())
        except OSError:
            self.hold(None)
            made.close()
            raise
        return made

    def _lookup(self, host: str, port: int) -> list[Target]:
        """A name's addresses; the system's look-up has no time-out, so it runs beside and is left behind when late."""
        with contextlib.suppress(ValueError):
            version = ipaddress.ip_address(host).version
            return [(socket.AF_INET, (host, port))] if version == 4 else self.guard.resolve(host, port)
        answers: queue.SimpleQueue[list[Target] | Exception] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                answers.put(self.guard.resolve(host, port))
            except (OSError, UnicodeError) as error:
                answers.put(error)

        threading.Thread(target=look_up, name="look-up", daemon=True).start()
        while True:
            self.check()
            with contextlib.suppress(queue.Empty):
                answer = answers.get(timeout=min(self.remaining(), WATCH_SECONDS))
                break
        if isinstance(answer, Exception):
            raise ConnectionFailed(f"the name {host} could not be resolved: {said(answer)}") from answer
        return answer


def said(error: BaseException | None) -> str:
    """What an error of the system says, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


class Watchdog:
    """One thread a fetcher that looks at all its exchanges ten times a second."""

    def __init__(self) -> None:
        self._watched: dict[int, Exchange] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.run, name="fetch-watchdog", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def watching(self, exchange: Exchange) -> Iterator[None]:
        """Makes an exchange this thread's own and watches it."""
        key = threading.get_ident()
        _here.exchange = self._watched[key] = exchange
        try:
            yield
        finally:
            exchange.hold(None)
            _here.exchange = None
            del self._watched[key]

    def run(self) -> None:
        """Until stopped."""
        while not self._stopping.wait(WATCH_SECONDS):
            self.run_once()

    def run_once(self) -> None:
        """Cuts what is late or cancelled."""
        for exchange in list(self._watched.values()):
            exchange.cut_if_over()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopping.set()
        self._thread.join()


class _Capped:
    """A stream for status line and headers only: TooLarge past their limit, ConnectionFailed where they break off."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._left = HEADERS_BYTES_MAX

    def readline(self, limit: int) -> bytes:
        line: bytes = self._stream.readline(min(limit, self._left + 1))
        if not line.endswith(b"\n") and (line or self._left < HEADERS_BYTES_MAX) and len(line) <= self._left:
            current().check()
            raise ConnectionFailed("the headers were cut short")  # http.client takes this for their end
        self._left -= len(line)
        if self._left < 0:
            raise TooLarge(f"expected at most {HEADERS_BYTES_MAX} bytes of headers, found more")
        return line

    def close(self) -> None:
        self._stream.close()


class Response(http.client.HTTPResponse):
    """An answer whose headers are capped, and for which an early hint (1xx) is not the answer."""

    def begin(self) -> None:
        """Reads status line and headers."""
        stream: Any = self.fp
        self.fp = _Capped(stream)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            self.fp = None if stream.closed else stream  # type: ignore[assignment]

    def _read_status(self) -> tuple[str, int, str]:
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        while 100 < found[1] < 200 and found[1] != http.HTTPStatus.SWITCHING_PROTOCOLS:
            http.client.parse_headers(self.fp)
            found = super()._read_status()  # type: ignore[misc]
        return found


class _Guarded(HTTPConnection):
    """What both kinds of connection share."""

    response_class = Response
    _handshaking: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        made = current().connect(self)
        if isinstance(self, HTTPSConnection):
            # The handshake moves the descriptor into a TLS socket that nobody else sees yet; a copy can be cut.
            self._handshaking = made.dup()
            current().hold(self._handshaking)
        return made

    def connect(self) -> None:
        """Connects, and lets the exchange hold what came of it."""
        exchange = current()
        try:
            super().connect()
        finally:
            exchange.hold(None)
            if self._handshaking is not None:
                self._handshaking.close()
                self._handshaking = None
        exchange.is_fresh = True
        exchange.hold(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Sends a request, on a connection of its own where the exchange wants one."""
        exchange = current()
        if exchange.wants_fresh and not exchange.is_fresh:
            self.close()
        exchange.hold(self.sock)
        super().request(*args, **kwargs)


class GuardedConnection(_Guarded):
    """A plain connection."""


class GuardedTLSConnection(_Guarded, HTTPSConnection):
    """A TLS connection; the name that it verifies stays the address's, whatever is connected to."""


class _Returning(HTTPConnectionPool):
    def _put_conn(self, conn: Any) -> None:
        """Takes a connection back; first its exchange lets go of it, since the next one may have it at once."""
        exchange: Exchange | None = getattr(_here, "exchange", None)
        if exchange is not None:
            exchange.hold(None)
        super()._put_conn(conn)


class _Pool(_Returning):
    ConnectionCls = GuardedConnection


class _TLSPool(_Returning, HTTPSConnectionPool):
    ConnectionCls = GuardedTLSConnection


def current() -> Exchange:
    """The exchange of this thread; without one nothing may be connected to."""
    exchange: Exchange | None = getattr(_here, "exchange", None)
    if exchange is None:
        raise RuntimeError("expected a fetch on this thread, found a connection without one")
    return exchange


class Adapter(HTTPAdapter):
    """requests' adapter on guarded connections, kept and shared by all threads; the CAs are loaded once."""

    def __init__(self, *, connections: int, ca_file: str | None = None, source_address: str = "") -> None:
        self._context: ssl.SSLContext = create_urllib3_context()
        self._context.load_verify_locations(ca_file or DEFAULT_CA_BUNDLE_PATH)
        self._source = (source_address, 0) if source_address else None
        super().__init__(pool_connections=POOLS, pool_maxsize=connections)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **_: Any) -> None:
        """Pools of guarded connections."""
        self.poolmanager = PoolManager(
            num_pools=connections, maxsize=maxsize, block=block, ssl_context=self._context, source_address=self._source
        )
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing is left to do: requests would load the CAs again for each connection."""
