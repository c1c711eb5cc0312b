"""cheroot, changed so that a handler can park its request and any thread can answer it later.

    inlet's thread   accepts; collects a connection's next request until it is whole (web.http.inlet, web.http.receive)
    worker thread    communicate ─ Gateway.respond ─ the WSGI app ─ Exchange ─ put_conn (its last act: release)

Only ``web.http.exchange`` writes answers, never cheroot, so that neither a slow sender nor a slow reader holds a thread.
TLS belongs in front.
"""

import contextlib
import io
import queue
import resource
import socket as sockets
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from cheroot import server, wsgi

from regions import logs
from web.http import problems
from web.http.answer import Answer
from web.http.exchange import Exchange
from web.http.inlet import Inlet
from web.http.outlet import Outlet
from web.http.quota import FREE_BYTES, Over, Quota, network_of
from web.http.receive import Received, Receiver

EXCHANGE: Final = "nearfetch.exchange"  # the environ's key of the Exchange
BACKLOG: Final = 2048
RESERVED_FILES: Final = 256  # open files for other uses than clients' connections
UNSENT_BYTES: Final = 131_072  # of an answer that the kernel may hold unsent; by default it would be megabytes
TCP_NOTSENT_LOWAT: Final = 25  # Linux's; the module socket names it from 3.12 on

log = logs.get("http")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many connections there may be, and how many bytes may be held for them.

    The bytes are of incomplete requests and of answers not yet taken; ``address_share`` is the share of one address.
    """

    receiving_bytes_max: int = 64_000_000
    sending_bytes_max: int = 256_000_000
    address_share: float = 0.25
    connections_max: int = 60_000


DEFAULT_BOUNDS: Final = Bounds()


class BodyTooLarge(Exception):  # noqa: N818
    """A request's body is longer than it may be."""


def read_body(exchange: Exchange) -> bytes:
    """The request's body, which can be read once. Raises ``BodyTooLarge`` if it is longer than its call takes."""
    body, exchange.body = exchange.body, b""  # a parked request must not hold its body
    if body is None:
        raise BodyTooLarge
    return body


def connections_possible(wanted: int) -> int:
    """Raises this process's limit of open files for that many connections, as far as it may. Returns how many it then permits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + RESERVED_FILES if hard == resource.RLIM_INFINITY else min(wanted + RESERVED_FILES, hard)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return min(wanted, max(files - RESERVED_FILES, files // 2))


class Request(server.HTTPRequest):
    """cheroot's request, filled from what the inlet received."""

    def parse_request(self) -> None:
        """Fills the request from what was received."""
        received: Received = self.conn.received
        self.uri = received.target
        self.method = received.method.encode("ascii")
        self.path, self.qs = received.parts()
        self.request_protocol = b"HTTP/1.1" if received.is_http11 else b"HTTP/1.0"
        self.response_protocol = "HTTP/1.1" if received.is_http11 else "HTTP/1.0"
        self.inheaders = received.fields
        self.close_connection = not received.keep

    def respond(self) -> None:
        """Calls the app."""
        self.rfile = io.BytesIO()  # the app reads the body from the exchange
        self.server.gateway(self).respond()


class Connection:
    """A connection that can wait for its next request, and for its answer, without a worker thread.

    cheroot's thread pool calls ``communicate`` and ``close``. It is no ``HTTPConnection``: tens of thousands of them wait, and
    that one has two readers, two caches and cycles of references.
    """

    __slots__ = (
        "_held",
        "_receiver",
        "address",
        "deadline",
        "exchange",
        "has_unread",
        "keep",
        "received",
        "remote_addr",
        "remote_port",
        "server",
        "socket",
    )
    ssl_env: ClassVar = None  # cheroot reads these two
    rfile: ClassVar = io.BytesIO()

    def __init__(self, parent: "Server", socket: sockets.socket, address: tuple[str, int]) -> None:
        self.server, self.socket = parent, socket
        self.remote_addr, self.remote_port = sys.intern(address[0]), address[1]
        self.address = sys.intern(network_of(self.remote_addr))  # the one that quotas count
        self.deadline = 0.0  # monotonic; the inlet's
        self._receiver: Receiver | None = None  # only while it has a part of a request
        self.received: Received | None = None
        self.exchange: Exchange | None = None
        self.has_unread = self.keep = False
        self._held = 0

    @property
    def receiver(self) -> Receiver:
        """Receives its next request."""
        if self._receiver is None:
            self._receiver = Receiver(self.server.body_bytes_max, self.server.refuses)
        return self._receiver

    @property
    def received_bytes(self) -> int:
        """How many bytes of its next request are held."""
        return self._receiver.held if self._receiver is not None else 0

    def communicate(self) -> bool:
        """Serves one request. True hands the connection to ``put_conn``, which looks at the exchange."""
        request = Request(self.server, self)
        try:
            request.parse_request()
            request.respond()
        except Exception as error:
            log.exception("request failed", error=repr(error))
            request.close_connection = True
            if self.exchange is None:
                self.exchange = self.refusal(problems.internal().answer())
        self.keep = not request.close_connection
        return True

    def release(self) -> bool:
        """The worker thread's last act; False when there is no exchange to wait for."""
        exchange, self.exchange, self.received = self.exchange, None, None
        if not self.received_bytes:
            self._receiver = None
        self.hold(self.received_bytes)
        if exchange is not None:
            exchange.release(keep=self.keep)
        return exchange is not None

    def fileno(self) -> int:
        """The socket's descriptor."""
        return int(self.socket.fileno())

    def hand_back(self, *, keep: bool) -> None:
        """The exchange is over."""
        if keep:
            self.server.put_conn(self)
        else:
            self.close()

    def hold(self, size: int) -> Over:
        """Reserves room for received bytes, beyond ``FREE_BYTES``; returns whose share is used up, if there is none."""
        wanted = max(0, size - FREE_BYTES)
        quota: Quota = self.server.receiving
        if wanted > self._held and (over := quota.take(self.address, wanted - self._held)):
            return over
        if wanted < self._held:
            quota.give_back(self.address, self._held - wanted)
        self._held = wanted
        return ""

    def refuse(self, answer: Answer) -> None:
        """Answers bytes that never become a request; then the connection ends."""
        self.refusal(answer).release(keep=False)

    def refusal(self, answer: Answer) -> Exchange:
        """The same for a connection that a worker thread will release."""
        self.has_unread = True
        environ = {"REQUEST_METHOD": "", "PATH_INFO": ""}
        exchange = Exchange(self.server.outlet, self, environ, is_http11=True, keep=False)
        exchange.is_parked = True
        exchange.answer(answer)
        return exchange

    def close(self) -> None:
        """Closes the connection. It lingers if the client may still be sending a body that nobody will read."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:  # cheroot gave up within a request
            exchange.abort()
            exchange.release(keep=False)
            return
        if self.has_unread and self.server.ready:
            self.hold(0)
            try:
                self.socket.shutdown(sockets.SHUT_WR)
            except OSError:  # reset already
                self.close_now()
            else:
                self.server.outlet.linger(self)
        else:
            self.close_now()

    def close_now(self) -> None:
        """Closes it at once."""
        self.hold(0)
        self.server.connections.discard(self)
        with contextlib.suppress(OSError):  # the client is gone
            self.socket.shutdown(sockets.SHUT_RDWR)
        self.socket.close()


class Turns:
    """Connections that wait for a worker thread, taken in turn between their addresses, so that a busy client delays only itself.

    It replaces the queue of cheroot's thread pool, which puts one mark for each thread when the pool is to end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_address: dict[str, deque[Connection]] = {}  # the address whose turn is next comes first
        self._marks: deque[object] = deque()
        self._there: queue.SimpleQueue[None] = queue.SimpleQueue()  # one item for each that waits

    def put(self, one: object, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002
        """Adds a connection, or a mark."""
        with self._lock:
            if isinstance(one, Connection):
                self._by_address.setdefault(one.address, deque()).append(one)
            else:
                self._marks.append(one)
        self._there.put(None)

    def get(self) -> object:
        """Waits for the next connection; returns a mark if only marks are left."""
        self._there.get()
        with self._lock:
            for address, waiting in self._by_address.items():
                one = waiting.popleft()
                del self._by_address[address]
                if waiting:
                    self._by_address[address] = waiting
                return one
            return self._marks.popleft()


class Gateway(wsgi.Gateway_10):
    """Calls the app and gives its answer to the exchange."""

    def respond(self) -> None:
        """Handles one request. The app finds the exchange in ``environ[EXCHANGE]`` and may park it."""
        request = self.req
        connection: Connection = request.conn
        body = connection.received.body if connection.received is not None else b""
        exchange = Exchange(
            request.server.outlet,
            connection,
            self.env,
            is_http11=request.response_protocol == "HTTP/1.1",
            keep=not request.close_connection,
            body=body,
        )
        connection.exchange, connection.has_unread = exchange, body is None
        request.sent_headers = True  # cheroot must not write
        self.env[EXCHANGE] = exchange
        answer = b"".join(request.server.wsgi_app(self.env, self.start_response))
        if not exchange.is_parked:
            exchange.answer(Answer(self.status, answer, self.headers))

    def start_response(
        self,
        status: str,
        headers: Iterable[tuple[str, str]],
        exc_info: object = None,  # noqa: ARG002
    ) -> Callable[[bytes], None]:
        """WSGI's. It only remembers its arguments, since the exchange writes the answer."""
        self.status = int(status[:3])
        self.headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        return self._no_write

    @staticmethod
    def _no_write(_: bytes) -> None:
        raise NotImplementedError("answers are returned, not written")


class Server(wsgi.Server):
    """The gateway's HTTP server. ``app`` is a WSGI app; port 0 takes a free port, which ``bind_addr`` then names.

    ``body_bytes_max``: (method, path) → the longest body that this call takes. ``bounds``: how much may wait for clients.
    ``refuses``: whether the app refuses a head whatever its body is; for clients that wait for "100 Continue".
    """

    _connections: Any  # cheroot's name; it is the inlet here
    inlet: Inlet | None = None

    def __init__(
        self,
        host: str,
        port: int,
        app: Callable[..., Iterable[bytes]],
        threads: int,
        body_bytes_max: Callable[[str, str], int] = lambda *_: 0,
        bounds: Bounds = DEFAULT_BOUNDS,
        refuses: Callable[[Received], bool] = lambda _: False,
    ) -> None:
        super().__init__(
            (host, port),
            app,
            numthreads=threads,
            server_name="nearfetch",
            request_queue_size=BACKLOG,
            shutdown_timeout=2,
        )
        turns = Turns()
        self.requests._queue, self.requests.get = turns, turns.get  # noqa: SLF001 - the pool takes no other one
        self.gateway = Gateway
        self.body_bytes_max, self.refuses = body_bytes_max, refuses
        self.receiving = Quota(bounds.receiving_bytes_max, bounds.address_share)
        self.outlet = Outlet(Quota(bounds.sending_bytes_max, bounds.address_share), self.receiving)
        self.connections: set[Connection] = set()
        self.connections_max = bounds.connections_max  # as far as open files are permitted

    @property
    def full(self) -> str:
        """Why connections are refused or closed for want of room just now; empty if none is."""
        return self.inlet.full if self.inlet is not None else ""

    def prepare(self) -> None:
        """Binds the port, and starts the worker threads."""
        super().prepare()
        with contextlib.suppress(OSError):  # accepted connections inherit it
            self.socket.setsockopt(sockets.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._connections.close()
        wanted, self.connections_max = self.connections_max, connections_possible(self.connections_max)
        if self.connections_max < wanted:
            files = wanted + RESERVED_FILES
            log.warning("few connections possible", found=self.connections_max, wanted=wanted, open_files_needed=files)
        self._connections = self.inlet = Inlet(self, self.connections_max)

    def connect(self, socket: sockets.socket, address: tuple[str, int]) -> Connection:
        """Makes the connection of a socket that was just accepted."""
        connection = Connection(self, socket, address)
        self.connections.add(connection)
        return connection

    def put_conn(self, conn: Connection) -> None:
        """Takes a connection back, from a worker thread as its last act or from an exchange that is over."""
        if not conn.release():
            super().put_conn(conn)

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        """Logs cheroot's own messages. Broken connections are normal, and go to the debug level."""
        if level >= 40:
            log.error("http server", message=msg.strip(), exc_info=sys.exc_info() if traceback else None)
        else:
            log.debug("http server", message=msg.strip())
