"""cheroot, made to let sockets go: a handler can park its request and any thread can answer it later.

    selector thread   accept; a connection waits for its first bytes without a thread
    worker thread     communicate ─ Gateway.respond ─ the WSGI app ─ Exchange ─ put_conn (its last act: release)

Answers are written by ``web.exchange`` alone, never by cheroot, so that a slow reader holds no thread either. TLS
belongs in front.
"""

import contextlib
import resource
import socket as sockets
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

from cheroot import server, wsgi

from regions import logs
from web import problems
from web.exchange import Answer, Exchange
from web.outlet import Outlet

EXCHANGE: Final = "nearfetch.exchange"  # the environ's key of the Exchange
IDLE_SECONDS: Final = 60  # a kept connection without a request
READ_SECONDS: Final = 5.0  # between two reads of a request that has begun
DRAIN_BYTES: Final = 65_536  # of an unread body that are worth reading to keep the connection
BODY_BYTES_MAX: Final = 64_000_000  # far above what the app takes: its own limit answers, this one only protects
HEADER_BYTES_MAX: Final = 65_536
BACKLOG: Final = 2048
OPEN_FILES_WANTED: Final = 65_536

log = logs.get("http")


class BodyTooLarge(Exception):  # noqa: N818
    """A request's body is longer than it may be."""


class BodyBroken(Exception):  # noqa: N818
    """A request's body ended early or is not framed as HTTP wants it."""


def read_body(exchange: Exchange, bytes_max: int) -> bytes:
    """The request's body; raises ``BodyTooLarge`` and ``BodyBroken``."""
    stream = exchange.environ["wsgi.input"]
    is_chunked = bool(exchange.environ["wsgi.input_terminated"])
    length = int(exchange.header("Content-Length") or 0)
    if not is_chunked and length > bytes_max:
        raise BodyTooLarge
    pieces: list[bytes] = []
    size = 0
    try:
        while piece := stream.read(DRAIN_BYTES):
            size += len(piece)
            if size > bytes_max:
                raise BodyTooLarge
            pieces.append(piece)
    except (ValueError, TimeoutError) as error:
        exchange.give_up_input()
        raise BodyBroken(str(error)) from error
    except OSError as error:  # how cheroot says that a single chunk passes its limit
        exchange.give_up_input()
        raise BodyTooLarge from error
    if not is_chunked and size < length:
        exchange.give_up_input()
        raise BodyBroken(f"expected {length} bytes, found {size}")
    return b"".join(pieces)


def raise_open_files() -> int:
    """Raises this process's soft limit of open files to the hard one; logs when that is little. Returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, OPEN_FILES_WANTED)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < OPEN_FILES_WANTED:
        log.warning("few open files allowed", limit=wanted, wanted=OPEN_FILES_WANTED)
    return wanted


class Request(server.HTTPRequest):
    """cheroot's request; what it refuses by itself is refused as a problem document too."""

    def simple_response(self, status: object, msg: str = "") -> None:
        """Refuses what never becomes a request; the connection closes after it."""
        self.conn.has_unread = True
        self.close_connection = True
        answer = problems.protocol(int(str(status)[:3]), str(msg))
        exchange = Exchange(
            self.server.outlet,
            self.conn,
            {"REQUEST_METHOD": "", "PATH_INFO": ""},
            is_http11=True,
            keep=False,
        )
        self.sent_headers = True
        self.conn.exchange = exchange
        exchange.is_parked = True  # its body, if there is one, is not ours to read
        exchange.answer(answer)


class Connection(server.HTTPConnection):
    """A connection that can wait for its answer without a worker thread."""

    RequestHandlerClass = Request

    def __init__(self, parent: "Server", socket: sockets.socket, makefile: Callable[..., Any]) -> None:
        super().__init__(parent, socket, makefile)
        socket.settimeout(READ_SECONDS)
        self.exchange: Exchange | None = None
        self.request: Request | None = None
        self.has_unread = False
        self.keep = False

    def communicate(self) -> bool:
        """Serves one request; True hands the connection to ``put_conn``, which looks at the exchange."""
        keep = bool(super().communicate())  # type: ignore[no-untyped-call]
        if self.exchange is None:
            return keep
        self.keep = keep
        return True

    def release(self) -> bool:
        """The worker's last act; False when there is no exchange to wait for."""
        exchange, self.exchange, self.request = self.exchange, None, None
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

    def settle_input(self) -> bool:
        """Reads what is left of a short body; False, and the connection must close, when that is too much."""
        request = self.request
        if request is None:
            return not self.has_unread
        try:
            if request.chunked_read:
                if request.rfile.closed:
                    for _ in request.rfile.read_trailer_lines():
                        pass
                self.has_unread = not request.rfile.closed
            else:
                left = request.rfile.remaining
                self.has_unread = left > DRAIN_BYTES or len(request.rfile.read(left)) < left
        except (OSError, ValueError):
            self.has_unread = True
        self.request = None
        return not self.has_unread

    def give_up_input(self) -> None:
        """What is left of the body will not be read."""
        self.has_unread, self.request = True, None

    def close(self) -> None:
        """Closes, lingering when the client may still be sending what nobody will read."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:  # cheroot gave up in the middle of a request
            exchange.abort()
            exchange.release(keep=False)
            return
        if self.has_unread and self.server.ready:
            try:
                self.socket.shutdown(sockets.SHUT_WR)
            except OSError:  # reset already
                self.close_now()
            else:
                self.server.outlet.linger(self)
        else:
            self.close_now()

    def close_now(self) -> None:
        """Closes it without further ado."""
        # cheroot leaves its writer to the garbage collector, which would flush what a broken socket did not take.
        with contextlib.suppress(OSError):
            self.wfile.close()
        super().close()


class Gateway(wsgi.Gateway_10):
    """Calls the app and gives its answer to the exchange."""

    def respond(self) -> None:
        """One request. The app finds its exchange as ``environ[EXCHANGE]`` and may park it."""
        request = self.req
        connection = request.conn
        exchange = Exchange(
            request.server.outlet,
            connection,
            self.env,
            is_http11=request.response_protocol == "HTTP/1.1",
            keep=not request.close_connection,
        )
        connection.exchange, connection.request = exchange, request
        request.sent_headers = True  # cheroot must not write
        self.env[EXCHANGE] = exchange
        body = b"".join(request.server.wsgi_app(self.env, self.start_response))
        if not exchange.is_parked:
            exchange.answer(Answer(self.status, body, self.headers))

    def start_response(
        self,
        status: str,
        headers: Iterable[tuple[str, str]],
        exc_info: object = None,  # noqa: ARG002
    ) -> Callable[[bytes], None]:
        """WSGI's: only remembers, since the exchange writes."""
        self.status = int(status[:3])
        self.headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        return self._no_write

    @staticmethod
    def _no_write(_: bytes) -> None:
        raise NotImplementedError("answers are returned, not written")


class Server(wsgi.Server):
    """The gateway's HTTP server. ``app`` is a WSGI app; port 0 takes a free one (then ``bind_addr`` tells)."""

    ConnectionClass = Connection
    keep_alive_conn_limit = None  # type: ignore[assignment]
    max_request_header_size = HEADER_BYTES_MAX
    max_request_body_size = BODY_BYTES_MAX

    def __init__(self, host: str, port: int, app: Callable[..., Iterable[bytes]], threads: int) -> None:
        super().__init__(
            (host, port),
            app,
            numthreads=threads,
            server_name="nearfetch",
            request_queue_size=BACKLOG,
            timeout=IDLE_SECONDS,
            shutdown_timeout=2,
        )
        self.gateway = Gateway
        self.outlet = Outlet()

    def process_conn(self, conn: Connection) -> None:
        """A connection that was just accepted waits for its first bytes without a thread."""
        if conn.last_used is None:
            self._connections.put(conn)  # type: ignore[attr-defined]
        else:
            super().process_conn(conn)

    def put_conn(self, conn: Connection) -> None:
        """The worker's last act, and how an exchange hands a connection back."""
        if not conn.release():
            super().put_conn(conn)

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        """What cheroot itself has to say: broken connections are nobody's fault here."""
        if level >= 40:
            log.error("http server", message=msg.strip(), exc_info=sys.exc_info() if traceback else None)
        else:
            log.debug("http server", message=msg.strip())
