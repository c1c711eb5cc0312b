"""Connects through a proxy: what the proxy is asked for, and what its refusals mean.

    Exchange.route.connect → the target's permitted addresses, one after another
        → to the proxy, with TLS for an https one. Its own address is the operator's choice and is not judged
        → http, https    CONNECT address:port (RFC 9110, 9.3.6), also for plain targets
          socks5         RFC 1928 and 1929, by PySocks
    ForwardedConnection  for plain targets when an HTTP proxy looks names up: absolute URLs (RFC 9112, 3.2.2)

The proxy gets the judged address, not the name, so that nobody looks the name up again. Inside the tunnel, TLS verifies the
name and Host has it. That does not work for an absolute URL, since a proxy makes Host of it (RFC 9112).

A proxy's own faults are errors of the region: they neither open a host's breaker nor count against a source.
"""

import base64
import http
import http.client
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import socks
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from jobs.errors import ConnectionFailed, TaskError, TimedOut, TooLarge
from jobs.fetch.answer import Headers, Response
from jobs.fetch.connection import POOLS_BY_SCHEME, GuardedConnection, GuardedTLSConnection, Pool, TLSPool
from jobs.fetch.exchange import Exchange, current, error_text
from jobs.fetch.guard import Guard, Target, system_resolve
from jobs.fetch.route import addresses, from_source, look_up, place_of, ready, shared
from regions.egress import Proxy

CREDENTIALS: Final = (401, 407)  # statuses of a CONNECT; some proxies send the first where they mean the second
SQUIDS_OWN: Final = "x-squid-error"  # a header of Squid's own errors; by default Squid refuses CONNECT to port 80
# SOCKS replies: the target's machine refused, which only this reply says; and two that another try won't change.
REFUSED, NOT_ALLOWED, NOT_SUPPORTED = "0x05", "0x02", "0x07"

Connect = Callable[[socket.socket, Any], socket.socket]  # a new socket and the proxy's address → one that leads on


class _Elsewhere(ConnectionFailed):
    """The proxy could not reach this address; it may reach another one of the target."""


class Proxied:
    """The route through the proxy of the egress ``name``. ``context`` is for TLS to the proxy."""

    def __init__(
        self, proxy: Proxy, name: str, guard: Guard, context: ssl.SSLContext, source_address: str = ""
    ) -> None:
        self._proxy, self._guard, self._context, self._source = proxy, guard, context, source_address
        self._label = f"the proxy of egress {name}"
        self._is_socks = proxy.scheme == "socks5"
        pair = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        self.headers = {"Proxy-Authorization": f"Basic {pair}"} if proxy.user else {}
        forwards = proxy.resolves and not self._is_socks
        self.pools: dict[str, type[HTTPConnectionPool]] = {
            "http": _ForwardedPool if forwards else POOLS_BY_SCHEME["http"],
            "https": _NestedPool if proxy.scheme == "https" else POOLS_BY_SCHEME["https"],
        }

    def connect(self, exchange: Exchange, connection: HTTPConnection) -> socket.socket:
        """As ``Route`` says."""
        host, port = place_of(connection)
        asked = self._asked(exchange, host, port)
        fault: TaskError | None = None
        with exchange.at(self._label):
            for one in asked:
                connect = partial(self._by_socks if self._is_socks else self._by_connect, exchange, one, host, port)
                if isinstance(connection, ForwardedConnection):
                    connect = partial(self._only, exchange)
                try:
                    return self._through(exchange, connection, connect)
                except (_Elsewhere, TimedOut) as error:
                    exchange.check()
                    fault = error
        assert fault is not None
        raise fault

    def whole(self, connection: HTTPConnection, path: str) -> str:
        """The absolute URL to ask a forwarding proxy for. Raises BlockedAddress."""
        host, port = place_of(connection)
        asked = self._guard.named(host, port)[0].rstrip(".")
        return f"http://{_bracketed(asked)}{'' if port == http.client.HTTP_PORT else f':{port}'}{path}"

    def own_error(self, connection: HTTPConnection, status: int, headers: Headers) -> ConnectionFailed | None:
        """The error if an answer is clearly the proxy's own. Most of its answers can't be told from a target's."""
        if status == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            return self._unwelcome()
        return self._refusal(status, *place_of(connection)) if SQUIDS_OWN in headers else None

    def _unwelcome(self) -> ConnectionFailed:
        """The proxy wants other credentials."""
        return ConnectionFailed(f"{self._label} does not take its user and password", origin="region", retryable=False)

    def _refusal(self, status: int, host: str, port: int) -> ConnectionFailed:
        """The proxy refuses to connect. Its own text is not shown, since it might repeat credentials."""
        phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else ""
        message = f"{self._label} does not connect to {host} port {port}: {status} {phrase}".rstrip()
        if status >= 500:
            return _Elsewhere(message, origin="region")
        return ConnectionFailed(message, origin="region", retryable=status == http.HTTPStatus.TOO_MANY_REQUESTS)

    def _asked(self, exchange: Exchange, host: str, port: int) -> list[str]:
        """What to ask the proxy to connect to, one after another."""
        if self._proxy.resolves:
            return self._guard.named(host, port)
        targets = self._guard.filter(host, port, addresses(exchange, self._guard, host, port))
        return [str(address[0]).partition("%")[0] for _, address in targets]

    def _through(self, exchange: Exchange, connection: HTTPConnection, connect: Connect) -> socket.socket:
        """Calls ``connect`` on a socket to each of the proxy's addresses until one works.

        Failures here are the proxy's.
        """
        fault: OSError | http.client.HTTPException = OSError("no address")
        for seconds, (family, address) in shared(exchange, self._own(exchange)):
            made = (socks.socksocket if self._is_socks else socket.socket)(family, socket.SOCK_STREAM)
            try:
                ready(made, exchange, seconds, connection.socket_options or (), self._source)
                return connect(made, address)
            except (OSError, http.client.HTTPException, TaskError) as error:
                exchange.hold(None)
                made.close()
                exchange.check()
                if isinstance(error, TaskError):
                    raise
                fault = error
        if isinstance(fault, ssl.SSLCertVerificationError):
            message = f"the certificate of {self._label} was refused: {fault.verify_message}"
            raise ConnectionFailed(message, origin="region", retryable=False) from fault
        if isinstance(fault, TimeoutError):
            raise TimedOut(f"{self._label} did not answer", origin="region") from fault
        raise ConnectionFailed(f"{self._label} can't be reached: {error_text(fault)}", origin="region") from fault

    def _own(self, exchange: Exchange) -> list[Target]:
        """The proxy's own addresses. They are not judged."""
        try:
            found = look_up(exchange, system_resolve, self._proxy.host, self._proxy.port)
        except (OSError, UnicodeError) as error:
            message = f"the name of {self._label} could not be resolved: {error_text(error)}"
            raise ConnectionFailed(message, origin="region") from error
        return from_source(found, self._source, self._label)

    def _only(self, exchange: Exchange, made: socket.socket, address: Any) -> socket.socket:
        """Connects to the proxy."""
        made.connect(address)
        made.settimeout(exchange.remaining())
        return self._secured(exchange, made) if self._proxy.scheme == "https" else made

    def _secured(self, exchange: Exchange, made: socket.socket) -> socket.socket:
        """Starts TLS with the proxy. While the handshake moves the descriptor, the exchange can cut a copy."""
        with made.dup() as held:
            exchange.hold(held)
            try:
                secured = self._context.wrap_socket(made, server_hostname=self._proxy.host)
            finally:
                exchange.hold(None)
        exchange.hold(secured)
        return secured

    def _by_connect(
        self, exchange: Exchange, target: str, host: str, port: int, made: socket.socket, address: Any
    ) -> socket.socket:
        """Connects to the target by CONNECT."""
        led = self._only(exchange, made, address)
        try:
            status = self._status(led, f"{_bracketed(target)}:{port}")
            if status in CREDENTIALS:
                raise self._unwelcome()
            if not 200 <= status < 300:
                raise self._refusal(status, host, port)
        except BaseException:
            led.close()
            raise
        return led

    def _status(self, led: socket.socket, place: str) -> int:
        """The status that the proxy answers to a CONNECT."""
        headers = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        led.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{headers}\r\n".encode("ascii"))
        answer = Response(led, "CONNECT")
        try:
            answer.begin()
        except (ConnectionFailed, TooLarge) as error:
            raise http.client.HTTPException(str(error)) from error
        if answer.status < 300 and answer.rest:
            raise http.client.HTTPException("expected nothing after the answer to a CONNECT, found more bytes")
        return answer.status

    def _by_socks(
        self, exchange: Exchange, target: str, host: str, port: int, made: Any, address: Any
    ) -> socket.socket:
        """Connects to the target by SOCKS."""
        proxy = self._proxy
        made.set_proxy(socks.SOCKS5, address[0], address[1], True, proxy.user or None, proxy.password or None)
        made.settimeout(exchange.remaining())
        try:
            made.connect((target, port))
        except socks.ProxyError as error:
            inner: Any = error
            while isinstance(getattr(inner, "socket_err", None), OSError):  # PySocks wraps its own errors once more
                inner = inner.socket_err
            if isinstance(inner, socks.SOCKS5AuthError):
                raise self._unwelcome() from error
            if isinstance(inner, socks.SOCKS5Error):
                raise self._declined(str(inner), host, port) from error
            raise inner from error
        plain = socket.socket(made.family, made.type, made.proto, fileno=made.detach())
        plain.settimeout(exchange.remaining())
        exchange.hold(plain)
        return plain

    def _declined(self, reply: str, host: str, port: int) -> TaskError:
        """The error for a SOCKS reply ("0x05: Connection refused")."""
        code, _, text = reply.partition(": ")
        if code == REFUSED:
            return _Elsewhere(f"could not connect to {host} port {port}: {text}")
        message = f"{self._label} does not connect to {host} port {port}: {text}"
        if code in (NOT_ALLOWED, NOT_SUPPORTED):
            return ConnectionFailed(message, origin="region", retryable=False)
        return _Elsewhere(message, origin="region")


class ForwardedConnection(GuardedConnection):
    """A plain connection to a proxy that is asked for absolute URLs."""

    def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Response:
        """Asks for the absolute URL, with the credentials for the proxy. Raises the proxy's own errors."""
        route = current().route
        assert isinstance(route, Proxied)
        found = super().ask(method, route.whole(self, target), {**headers, **route.headers}, body)
        if (error := route.own_error(self, found.status, found.headers)) is not None:
            raise error
        return found


class _ForwardedPool(Pool):
    ConnectionCls = ForwardedConnection


class NestedTLSConnection(GuardedTLSConnection):
    """TLS with the target inside TLS with the proxy. urllib3 believes that it tunnels, but the route has done so already."""

    def connect(self) -> None:
        """Connects."""
        self._tunnel_host, self._tunnel_port, self._tunnel_scheme = self.host, self.port, "https"
        super().connect()

    def _connect_tls_proxy(self, _hostname: str, sock: Any) -> Any:
        return sock

    def _tunnel(self) -> None:
        """Does nothing: the route has made the tunnel."""


class _NestedPool(TLSPool):
    ConnectionCls = NestedTLSConnection


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
