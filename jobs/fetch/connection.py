"""Connections that go only where their route leads, and that a deadline or a cancel can cut at any point.

    Adapter.ask → Pool.ask → GuardedConnection._new_conn   exchange.route.connect: guard, socket (jobs.fetch.route, .proxy)
                           → GuardedConnection.ask         from here on the exchange holds the socket
                           → jobs.fetch.answer             reads what comes back

urllib3 has no public hook for the address to connect to (its #3675 and #3781 are open); ``_new_conn`` is what its own SOCKS
module overrides, too. Outside an exchange a connection connects to nothing. Its other private names in use are ``_get_conn``,
``_put_conn`` (also in answer.py), ``_merge_pool_kwargs``, and ``_dns_host`` in route.py.

requests and urllib3 keep the connections. Everything else that they do for a request (retries, redirects, proxies, bodies of
unknown length, warnings) is not needed here and took a third of a small task's time. So ``ask`` writes the request itself.
"""

import contextlib
import functools
import select
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final

import requests
from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from requests.models import PreparedRequest
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager
from urllib3.util.ssl_ import create_urllib3_context

from jobs.blocked import blocked
from jobs.fetch.answer import Response, is_answer
from jobs.fetch.exchange import current, let_go
from jobs.origin import PORTS, origin_of, path_of

SENT_AT_ONCE_BYTES: Final = 16_384  # a socket takes this much without waiting
SEND_BYTES: Final = 65_536
INTERIM_BYTES: Final = 8_192  # of interim answers that arrive while a body is sent
POOLS: Final = 32  # hosts whose connections are kept
KNOWN_MAX: Final = 1_000  # hosts whose pool key is remembered


class _Steady(socket.socket):
    """The socket of a kept connection. It has no time-out of its own, and receives in one system call.

    Each system call lets the process's other threads run, and then has to wait for them.
    """

    def settimeout(self, value: float | None) -> None:
        """Calls the system only when the time-out changes."""
        if value != self.gettimeout():
            super().settimeout(value)


class _SteadyTLS(_Steady, ssl.SSLSocket):
    """The same with TLS."""


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """A request up to its body (RFC 9112). Raises InvalidHeader for line breaks, a bad request line, and no Latin-1."""
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()], "", ""]
    text = "\r\n".join(lines)
    breaks = len(lines) - 1
    if text.count("\n") != breaks or text.count("\r") != breaks or "\0" in text or lines[0].count(" ") != 2:
        raise requests.exceptions.InvalidHeader("expected a request line without blanks and headers of one line each")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        name = lines[text.count("\n", 0, error.start)].partition(":")[0]
    raise requests.exceptions.InvalidHeader(f"expected Latin-1 characters in the header {name}, found others")


def _sent(held: socket.socket, data: bytes) -> tuple[bytes, bool]:
    """Sends until an answer begins: a server may refuse a body before it has read all of it.

    Returns the bytes that arrived meanwhile, and whether all data was sent. Also when the server closes the connection.
    """
    poll = select.poll()
    poll.register(held, select.POLLIN | select.POLLOUT)
    left, came = memoryview(data), b""
    held.settimeout(0)
    try:
        while left and len(came) < INTERIM_BYTES and not is_answer(came):
            (_, events), *_ = poll.poll()
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if events == select.POLLOUT:
                    left = left[held.send(left[:SEND_BYTES]) :]
                elif found := held.recv(SEND_BYTES):
                    came += found
                else:
                    break
    except (BrokenPipeError, ConnectionResetError):
        return came, False
    finally:
        held.settimeout(None)
    return came, not left


class _Guarded(HTTPConnection):
    """What both kinds of connection share.

    A connected socket has no time-out of its own, whatever urllib3 asks for: the watchdog cuts late exchanges.
    """

    _handshaking: socket.socket | None = None
    timeout = property(lambda _: None, lambda _, _seconds: None)

    def _new_conn(self) -> socket.socket:
        exchange = current()
        made = exchange.route.connect(exchange, self)
        if isinstance(self, HTTPSConnection) and not isinstance(made, ssl.SSLSocket):
            # The handshake moves the descriptor into a TLS socket that the exchange can't see yet. It can cut a copy.
            self._handshaking = made.dup()
            exchange.hold(self._handshaking)
        return made

    def connect(self) -> None:
        """Connects, then has the exchange hold the socket."""
        exchange = current()
        try:
            with blocked():
                super().connect()
        finally:
            exchange.hold(None)
            if self._handshaking is not None:
                self._handshaking.close()
                self._handshaking = None
        made: Any = self.sock
        made.settimeout(None)
        if type(made) is socket.socket:
            made = self.sock = _Steady(made.family, made.type, made.proto, fileno=made.detach())
        else:
            made.suppress_ragged_eofs = False  # an end of the stream without TLS's notification may be forged
        exchange.is_fresh = True
        exchange.hold(made)

    def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Response:
        """Sends a request, on a new connection if the exchange wants one, and reads the head of its answer.

        The headers must say how long the body is. Raises what ``Response.begin``, sockets and ``ssl`` raise.
        """
        exchange = current()
        data = request_head(method, target, headers) + (body or b"")
        if exchange.wants_fresh and not exchange.is_fresh:
            self.close()
        if self.sock is None:
            self.connect()
        else:
            exchange.hold(self.sock)
        held: Any = self.sock
        came, was_sent = b"", True
        # A server that has closed by now may have answered before it read everything.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if len(data) > SENT_AT_ONCE_BYTES and isinstance(held, socket.socket):
                came, was_sent = _sent(held, data)
            else:
                held.sendall(data)
        made = Response(held, method, came)
        made.begin()
        made.will_close = made.will_close or not was_sent
        return made


class GuardedConnection(_Guarded):
    """A plain connection."""


class GuardedTLSConnection(_Guarded, HTTPSConnection):
    """A TLS connection. It verifies the name in the request's address, whatever it is connected to."""


class _Returning(HTTPConnectionPool):
    def ask(self, request: PreparedRequest, target: str) -> Response:
        """The answer to a request. Its connection returns to this pool. Raises as the connection's ``ask``."""
        connection: Any = self._get_conn()
        try:
            answer: Response = connection.ask(request.method, target, request.headers, request.body)
        except BaseException:
            connection.close()
            self._put_conn(None)
            raise
        answer.belongs_to(self, connection)
        return answer

    def _put_conn(self, conn: Any) -> None:
        """Takes a connection back. First the exchange drops its socket, since another one may use it at once."""
        let_go()
        super()._put_conn(conn)


class Pool(_Returning):
    """The kept connections of a host."""

    ConnectionCls = GuardedConnection


class TLSPool(_Returning, HTTPSConnectionPool):
    """The same with TLS."""

    ConnectionCls = GuardedTLSConnection


POOLS_BY_SCHEME: Final[Mapping[str, type[HTTPConnectionPool]]] = {"http": Pool, "https": TLSPool}


@functools.cache
def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """A context that verifies names and certificates, with the CAs of requests and those of a file.

    A process has one of each, since reading the CAs takes 15 ms.

    Raises OSError (``ssl.SSLError`` is one) if the file can't be read.
    """
    context: ssl.SSLContext = create_urllib3_context()
    context.sslsocket_class = _SteadyTLS
    context.options |= ssl.OP_NO_RENEGOTIATION  # a renegotiation could make a sender wait for ever
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


class Adapter(HTTPAdapter):
    """requests' adapter with guarded connections, which all threads share. It loads the CAs once."""

    def __init__(
        self,
        *,
        connections: int,
        context: ssl.SSLContext,
        pools: Mapping[str, type[HTTPConnectionPool]] = POOLS_BY_SCHEME,
    ) -> None:
        """``connections`` is how many are kept for a host, ``pools`` the pool class for each scheme."""
        self._context, self._pools = context, pools
        self._known: dict[str, tuple[Any, dict[str, Any]]] = {}
        super().__init__(pool_connections=POOLS, pool_maxsize=connections)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **_: Any) -> None:
        """Sets up pools of guarded connections."""
        self.poolmanager = PoolManager(num_pools=connections, maxsize=maxsize, block=block, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = dict(self._pools)

    def get_connection_with_tls_context(
        self,
        request: PreparedRequest,
        verify: Any,
        proxies: Any = None,  # noqa: ARG002
        cert: Any = None,
    ) -> HTTPConnectionPool:
        """The pool of the request's host. The key of the pool is made once for a host, not for each request."""
        origin = origin_of(request.url or "")
        known = self._known.get(origin)
        if known is None:
            host, settings = self.build_connection_pool_key_attributes(request, verify, cert)
            merged = self.poolmanager._merge_pool_kwargs(settings)  # noqa: SLF001 - as its connection_from_host does
            context = {**merged, **host, "port": host["port"] or PORTS[host["scheme"]]}
            known = self.poolmanager.key_fn_by_scheme[host["scheme"]](context), context
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[origin] = known
        key, context = known
        found: HTTPConnectionPool = self.poolmanager.connection_from_pool_key(key, request_context=dict(context))
        return found

    def request_url(self, request: PreparedRequest, proxies: Any) -> str:  # noqa: ARG002
        """The target in the request line. Proxies are the route's business, not that of requests."""
        return path_of(request.url or "")

    def ask(self, request: PreparedRequest) -> Response:
        """The answer to a request, with its head read. Raises what ``Response.begin``, sockets and ``ssl`` raise."""
        pool: Any = self.get_connection_with_tls_context(request, True)
        answer: Response = pool.ask(request, self.request_url(request, None))
        return answer

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Does nothing; requests would load the CAs again for each connection."""
