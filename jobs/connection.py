"""Connections that go only where their route leads, and that a deadline or a cancel cuts at any point.

    Adapter.ask → Pool.ask → GuardedConnection._new_conn     exchange.route.connect: the guard, a socket (jobs.route, jobs.proxy)
                            → GuardedConnection.ask           the exchange holds the socket from here on
                            → Response.begin                  status and headers, their size capped

urllib3 has no public hook for the address that is connected to (its #3675 and #3781 are open): ``_new_conn`` is what its
own SOCKS module overrides too. A connection outside an exchange connects to nothing.

requests and urllib3 keep connections and read answers. What they do for any request besides (retries, redirects, proxies,
bodies of unknown length, warnings) has nothing to do here and took a third of a small task: a request is written by ``ask``.
"""

import contextlib
import email.parser
import http.client
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final

import requests
from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from requests.models import PreparedRequest
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import InvalidHeader
from urllib3.poolmanager import PoolManager
from urllib3.util.ssl_ import create_urllib3_context

from jobs.errors import ConnectionFailed, TooLarge
from jobs.exchange import current, let_go
from jobs.origin import PORTS, origin_of, path_of

HEADERS_BYTES_MAX: Final = 65_536  # status line and headers, early hints included
HEADERS_MAX: Final = 100
LINE_BYTES_MAX: Final = 65_536
DIGITS_MAX: Final = 20  # of a Content-Length
WITHOUT_BODY: Final = (101, 204, 304)
READ_AHEAD_BYTES: Final = 65_536
_HEADER: Final = re.compile(r"([!-9;-~]+):[ \t]*([^\r\n]*)\r?\n")
_FOLD: Final = re.compile(r"[ \t]*\r?\n[ \t]+")
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
    """An answer whose headers are capped, and for which an early hint (1xx) is not the answer.

    Its connection goes back to its pool with the last piece of the body.
    """

    _home: tuple[HTTPConnectionPool, HTTPConnection] | None = None

    def begin(self) -> None:
        """Reads status line and headers, and how the body ends: RFC 9112, 6.3, as ``http.client`` does.

        That one takes every header through a parser for e-mail.
        """
        stream: Any = self.fp
        self.fp = _Capped(stream)  # type: ignore[assignment]
        try:
            version, self.status, reason = self._read_status()
            if not version.startswith(("HTTP/1.", "HTTP/0.9")):
                raise http.client.UnknownProtocol(version)
            self.headers = self.msg = read_headers(self.fp)
        finally:
            self.fp = None if stream.closed else stream  # type: ignore[assignment]
        self.code, self.reason = self.status, reason.strip()
        self.version = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        self.chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        self.will_close = self._check_close()  # type: ignore[attr-defined]
        self.length = None if self.chunked else self._announced()
        if self.status in WITHOUT_BODY or self._method == "HEAD":  # type: ignore[attr-defined]
            self.length = 0
        self.will_close = self.will_close or (not self.chunked and self.length is None)

    def comes_from(self, pool: HTTPConnectionPool, connection: HTTPConnection) -> None:
        """Whose connection it is."""
        self._home = pool, connection

    def piece(self, most: int) -> bytes:
        """What one receive brings of the body, at most so many bytes; b"" at its end. Raises IncompleteRead."""
        found = self.read1(most)
        if not found and self.length:
            raise http.client.IncompleteRead(b"", self.length)
        if not found or self.length == 0:
            self.close()
            if self._home is not None:
                (pool, connection), self._home = self._home, None
                pool._put_conn(connection)  # noqa: SLF001 - as urllib3's own responses do
        return found

    def give_up(self) -> None:
        """What is left of the body will not be read: nobody else may have its connection."""
        self.close()
        if self._home is not None:
            (pool, connection), self._home = self._home, None
            connection.close()
            pool._put_conn(None)  # noqa: SLF001

    def _announced(self) -> int | None:
        """The Content-Length; raises InvalidHeader for several that differ (RFC 9112, 6.3)."""
        lengths = {part.strip() for line in self.headers.get_all("content-length", ()) for part in line.split(",")}
        if len(lengths) > 1:
            raise InvalidHeader(f"expected one Content-Length, found {len(lengths)} that differ")
        text = next(iter(lengths), "")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else None

    def _read_status(self) -> tuple[str, int, str]:
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        while 100 < found[1] < 200 and found[1] != http.HTTPStatus.SWITCHING_PROTOCOLS:
            read_headers(self.fp)
            found = super()._read_status()  # type: ignore[misc]
        return found


def read_headers(stream: Any) -> http.client.HTTPMessage:
    """The headers of an answer up to the empty line. Raises LineTooLong, and HTTPException for more than 100 of them."""
    lines: list[str] = []
    while (line := stream.readline(LINE_BYTES_MAX + 1)) not in (b"\r\n", b"\n", b""):
        if len(line) > LINE_BYTES_MAX:
            raise http.client.LineTooLong("header line")
        lines.append(line.decode("latin-1"))
        if len(lines) > HEADERS_MAX:
            raise http.client.HTTPException(f"got more than {HEADERS_MAX} headers")
    message = http.client.HTTPMessage()
    for found in map(_HEADER.fullmatch, lines):
        if found is None:  # one of several lines, or none at all
            return _any_headers("".join(lines))
        message.set_raw(found[1], found[2])
    return message


def _any_headers(text: str) -> http.client.HTTPMessage:
    """As ``http.client`` reads them, but that each is one line."""
    parsed = email.parser.Parser(_class=http.client.HTTPMessage).parsestr(text)
    message = http.client.HTTPMessage()
    for name, value in parsed.items():
        message.set_raw(name, _FOLD.sub(" ", value))
    return message


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

    def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Response:
        """Sends a request, on a new connection where the exchange wants one, and reads the head of its answer.

        The headers say how long the body is. Raises what sockets, ``ssl`` and ``http.client`` do.
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
        # Who has closed by now may have answered before it read everything.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            held.sendall(data)
        made = Response(held, method=method)
        try:
            made.begin()
        except BaseException:
            made.close()
            raise
        if made.will_close:
            self.close()  # what reads the answer keeps the socket
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
        answer.comes_from(self, connection)
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

    def ask(self, request: PreparedRequest) -> Response:
        """The answer to a request, of which the head is read. Raises what sockets, ``ssl`` and ``http.client`` do."""
        pool: Any = self.get_connection_with_tls_context(request, True)
        answer: Response = pool.ask(request, self.request_url(request, None))
        return answer

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing is left to do: requests would load the CAs again for each connection."""
