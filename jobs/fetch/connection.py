"""Connections that go only where their route leads, and that a deadline or a cancel cuts at any point.

    Adapter.ask → Pool.ask → GuardedConnection._new_conn     exchange.route.connect: the guard, a socket (jobs.fetch.route, jobs.fetch.proxy)
                            → GuardedConnection.ask           the exchange holds the socket from here on
                            → jobs.fetch.answer                     what comes back

urllib3 has no public hook for the address that is connected to (its #3675 and #3781 are open): ``_new_conn`` is what its
own SOCKS module overrides too. A connection outside an exchange connects to nothing.

requests and urllib3 keep connections. What they do for any request besides (retries, redirects, proxies, bodies of unknown
length, warnings) has nothing to do here and took a third of a small task: a request is written by ``ask``.
"""

import contextlib
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

from jobs.fetch.answer import Response, is_answer
from jobs.fetch.exchange import current, let_go
from jobs.origin import PORTS, origin_of, path_of

SENT_AT_ONCE_BYTES: Final = 16_384  # what a socket takes without a wait
SEND_BYTES: Final = 65_536
INTERIM_BYTES: Final = 8_192  # of what comes while a body is sent and is no answer
POOLS: Final = 32  # hosts whose connections are kept
KNOWN_MAX: Final = 1_000  # hosts of which is remembered how their pool is called


class _Steady(socket.socket):
    """A socket of a kept connection: it waits until it is cut, and takes what is there in one call.

    Each call to the system lets the process's other threads run, and on the way back this one waits for them.
    """

    def settimeout(self, value: float | None) -> None:
        """Asks the system only for another one than there is."""
        if value != self.gettimeout():
            super().settimeout(value)


class _SteadyTLS(_Steady, ssl.SSLSocket):
    """The same with TLS."""


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """A request up to its body (RFC 9112). Raises InvalidHeader for what would be more lines, other ones, or no Latin-1."""
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
    """Sends until an answer begins: who refuses a body may say so before it has it, and read no more.

    What came meanwhile, and whether all was sent; of who closes before that, what came until then.
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

    A connected socket has no time-out of its own, whatever urllib3 says of it: the exchange's watchdog cuts what is late.
    """

    _handshaking: socket.socket | None = None
    timeout = property(lambda _: None, lambda _, _seconds: None)

    def _new_conn(self) -> socket.socket:
        exchange = current()
        made = exchange.route.connect(exchange, self)
        if isinstance(self, HTTPSConnection) and not isinstance(made, ssl.SSLSocket):
            # The handshake moves the descriptor into a TLS socket that nobody else sees yet; a copy can be cut.
            self._handshaking = made.dup()
            exchange.hold(self._handshaking)
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
        made: Any = self.sock
        made.settimeout(None)
        if type(made) is socket.socket:
            made = self.sock = _Steady(made.family, made.type, made.proto, fileno=made.detach())
        else:
            made.suppress_ragged_eofs = False  # an end that TLS does not say may be anybody's
        exchange.is_fresh = True
        exchange.hold(made)

    def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Response:
        """Sends a request, on a new connection where the exchange wants one, and reads the head of its answer.

        The headers say how long the body is. Raises as ``Response.begin`` does, and what sockets and ``ssl`` do.
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
        # Who has closed by now may have answered before it read everything.
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
    """A TLS connection; the name that it verifies stays the address's, whatever is connected to."""


class _Returning(HTTPConnectionPool):
    def ask(self, request: PreparedRequest, target: str) -> Response:
        """The answer to a request; its connection comes back. Raises as the connection's ``ask`` does."""
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
        """Takes a connection back; first its exchange lets go of it, since the next one may have it at once."""
        let_go()
        super()._put_conn(conn)


class Pool(_Returning):
    """The kept connections of a host."""

    ConnectionCls = GuardedConnection


class TLSPool(_Returning, HTTPSConnectionPool):
    """The same with TLS."""

    ConnectionCls = GuardedTLSConnection


POOLS_BY_SCHEME: Final[Mapping[str, type[HTTPConnectionPool]]] = {"http": Pool, "https": TLSPool}


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Verifies names and certificates, by the CAs of requests unless a file has others."""
    context: ssl.SSLContext = create_urllib3_context()
    context.sslsocket_class = _SteadyTLS
    context.options |= ssl.OP_NO_RENEGOTIATION  # it would have a sender wait for what may never come
    context.load_verify_locations(ca_file or DEFAULT_CA_BUNDLE_PATH)
    return context


class Adapter(HTTPAdapter):
    """requests' adapter on guarded connections, kept and shared by all threads; the CAs are loaded once."""

    def __init__(
        self,
        *,
        connections: int,
        context: ssl.SSLContext,
        pools: Mapping[str, type[HTTPConnectionPool]] = POOLS_BY_SCHEME,
    ) -> None:
        """``connections`` are kept for a host; ``pools``: the class by scheme."""
        self._context, self._pools = context, pools
        self._known: dict[str, tuple[Any, dict[str, Any]]] = {}
        super().__init__(pool_connections=POOLS, pool_maxsize=connections)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **_: Any) -> None:
        """Pools of guarded connections."""
        self.poolmanager = PoolManager(num_pools=connections, maxsize=maxsize, block=block, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = dict(self._pools)

    def get_connection_with_tls_context(
        self,
        request: PreparedRequest,
        verify: Any,
        proxies: Any = None,  # noqa: ARG002
        cert: Any = None,
    ) -> HTTPConnectionPool:
        """The pool of the request's host. What identifies it is made once a host, not once a request."""
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
        """What stands in the request line: the way out is the route's, not a proxy of requests'."""
        return path_of(request.url or "")

    def ask(self, request: PreparedRequest) -> Response:
        """The answer to a request, of which the head is read. Raises as ``Response.begin`` does, and what sockets and ``ssl`` do."""
        pool: Any = self.get_connection_with_tls_context(request, True)
        answer: Response = pool.ask(request, self.request_url(request, None))
        return answer

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing is left to do: requests would load the CAs again for each connection."""
