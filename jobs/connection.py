"""Connections that go only where their route leads, and that a deadline or a cancel cuts at any point.

    adapter.send → pool → GuardedConnection._new_conn     exchange.route.connect: the guard, a socket (jobs.route, jobs.proxy)
                        → GuardedConnection.request       the exchange holds the socket from here on
                        → Response.begin                  status and headers, their size capped

urllib3 has no public hook for the address that is connected to (its #3675 and #3781 are open): ``_new_conn`` is what its
own SOCKS module overrides too. A connection outside an exchange connects to nothing.
"""

import http.client
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final

import requests
from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from requests.models import PreparedRequest
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager
from urllib3.util.ssl_ import create_urllib3_context

from jobs.errors import ConnectionFailed, TooLarge
from jobs.exchange import current, let_go
from jobs.origin import PORTS, origin_of, path_of

HEADERS_BYTES_MAX: Final = 65_536  # status line and headers, early hints included; http.client allows 100 headers
READ_AHEAD_BYTES: Final = 65_536
POOLS: Final = 32  # hosts whose connections are kept
KNOWN_MAX: Final = 1_000  # hosts of which is remembered how their pool is called


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


class _Steady(socket.socket):
    """A socket of a kept connection: it waits until it is cut, and takes what is there in one call.

    Each call to the system lets the process's other threads run, and on the way back this one waits for them.
    """

    def settimeout(self, value: float | None) -> None:
        """Asks the system only for another one than there is."""
        if value != self.gettimeout():
            super().settimeout(value)

    def makefile(self, mode: Any = "r", buffering: Any = None, **options: Any) -> Any:
        """With a place for headers and the pages of most sites where http.client says nothing."""
        return super().makefile(mode, READ_AHEAD_BYTES if buffering is None else buffering, **options)


class _SteadyTLS(_Steady, ssl.SSLSocket):
    """The same with TLS."""


class _Guarded(HTTPConnection):
    """What both kinds of connection share.

    A connected socket has no time-out of its own, whatever urllib3 says of it: the exchange's watchdog cuts what is late.
    """

    response_class = Response
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
        exchange.is_fresh = True
        exchange.hold(made)

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
        path = path_of(request.url or "")
        return f"/{path.lstrip('/')}" if path.startswith("//") else path

    def build_response(self, req: PreparedRequest, resp: Any) -> requests.Response:
        """What we look at of an answer: requests' own also guesses its charset and collects its cookies."""
        response = requests.Response()
        response.status_code = resp.status
        response.headers = CaseInsensitiveDict(resp.headers)
        response.raw = resp
        response.url = req.url or ""
        return response

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing is left to do: requests would load the CAs again for each connection."""
