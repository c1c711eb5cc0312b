"""One request and its answer. Any thread may give the answer, so a waiting client needs no thread.

    worker thread   handler ─┬─ answer ───────────── written at once, as far as the socket takes it
                             └─ park … any thread: answer, or open_stream, send, close_stream
                    release (the worker's last act) ──┐
    Outlet          the rest, if the socket was full ─┴─ whichever comes last: hand_back (next request, or close)

Sockets are non-blocking, so ``os.write`` never blocks.
"""

import fcntl
import os
import select
import sys
import termios
import threading
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import parse_qsl

import msgspec

from regions import logs
from web.http import coding
from web.http.answer import Answer
from web.http.owner import EVERYBODY
from web.http.quota import FREE_BYTES, Over

if TYPE_CHECKING:  # the outlet imports this module
    from web.http.outlet import Outlet

STALL_SECONDS: Final = 30.0  # how often a client's progress with waiting bytes is checked
RATE_MIN: Final = 1_000  # bytes a second: a client that takes less counts as gone
HANG_UP: Final = select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP
WITHOUT_BODY: Final = frozenset({204, 304})
CODED_AT_ONCE_BYTES: Final = 300_000  # coding more takes ms, for which threads that serve others have no time
CLIENT_GONE: Final = 499  # in the log only

READINESS: Final = "/readyz"  # is asked all the time

log = logs.get("http")
refused_log = logs.get("refused")
REFUSALS: Final = frozenset({401, 403, 421, 429, 503})  # what is logged


class Head(Protocol):
    """The part of a request that is known before its body."""

    is_http11: bool

    def header(self, name: str) -> str:
        """A request header, empty when it was not sent."""


class Socket(Protocol):
    """The part of a connection that an exchange uses."""

    def fileno(self) -> int:
        """The socket's descriptor."""

    def hand_back(self, *, keep: bool) -> None:
        """The exchange is over: listen for the next request, or close."""

    @property
    def address(self) -> str:
        """The address whose share of a quota it uses."""


class Watcher(Protocol):
    """Is told about the client of a parked exchange. ``what`` is as it was given to ``Exchange.watch``."""

    def forget(self, what: Any) -> None:
        """The client has hung up."""

    def again(self, what: Any) -> None:
        """The client has taken what it was sent."""


class Exchange:
    """A request and its answer. Every method may be called from any thread; only the first answer counts.

    Tens of thousands of them may wait at the same time: what only the handler needs is dropped when it returns.
    """

    __slots__ = (
        "_answered_status",
        "_begun",
        "_coding",
        "_compressor",
        "_ended",
        "_fields",
        "_gone",
        "_handed",
        "_held",
        "_keep",
        "_lock",
        "_looked",
        "_outlet",
        "_pending",
        "_released",
        "_socket",
        "_started",
        "_taken",
        "_watched",
        "_watcher",
        "_written",
        "body",
        "environ",
        "extra",
        "is_http11",
        "is_parked",
        "mask",
        "method",
        "owner",
        "path",
        "request",
        "route",
    )

    def __init__(
        self,
        outlet: "Outlet",
        socket: Socket,
        environ: dict[str, Any],
        *,
        is_http11: bool,
        keep: bool,
        body: bytes | None = b"",
    ) -> None:
        """``body`` is None if it is longer than its call takes. Then the connection ends with the answer."""
        self.environ, self.is_http11, self.body = environ, is_http11, body  # the handler's only
        self.method: str = sys.intern(environ["REQUEST_METHOD"])
        self.path: str = environ["PATH_INFO"]
        self.route = ""  # the call's path as the app has it, for the count; empty if there is no such call
        self.request = ""  # the request that it is about, for the log line
        self._fields: dict[str, object] | None = None  # further fields of that
        self.extra: tuple[tuple[str, str], ...] = ()  # headers of its answer, whatever it is
        self.owner = EVERYBODY
        self.is_parked = False
        self.mask = 0  # epoll events; the outlet's
        self._outlet, self._socket, self._keep = outlet, socket, keep
        self._lock = threading.Lock()
        self._started = self._looked = time.monotonic()
        self._pending: tuple[memoryview, ...] = ()
        self._held = 0  # bytes of the outlet's quota
        self._written = self._taken = 0  # bytes: written by us, and taken by the client at the last check
        self._begun = self._ended = self._released = self._gone = self._handed = False
        self._answered_status = CLIENT_GONE
        self._coding = coding.chosen(environ.get("HTTP_ACCEPT_ENCODING", ""))
        self._compressor: coding.Compressor | None = None  # of a stream
        self._watcher: Watcher | None = None
        self._watched: object = None
        outlet.open.add(self)

    def header(self, name: str) -> str:
        """A request header, empty when it was not sent."""
        key = name.upper().replace("-", "_")
        return str(self.environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}", ""))

    def query(self) -> list[tuple[str, str]]:
        """The query's pairs in order. Raises ValueError if it is not UTF-8 or has more than 200 pairs."""
        text = self.environ.get("QUERY_STRING", "")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=200)

    @property
    def whose(self) -> str:
        """Who asks, where room and time are shared out: an API key, or the client's address without one."""
        return self.owner.key or self._socket.address

    @property
    def written_bytes(self) -> int:
        """How many bytes of the answer the kernel has taken."""
        return self._written

    @property
    def is_gone(self) -> bool:
        """Whether the client has hung up, as far as it is watched: no answer has to be made."""
        return self._gone

    @property
    def backlog(self) -> bool:
        """Whether bytes of the answer still wait for the client; then the watcher will be told when it has taken them.

        Bytes that a thread is writing at this moment do not count: if the kernel takes them all, nobody is told.
        """
        return bool(self._pending and self.mask & select.EPOLLOUT)

    def borrow(self, size: int) -> Over:
        """Takes room for bytes of which another thread will make the answer; returns whose share is used up, if there is none.

        That thread gives the room back, also if the client is gone.
        """
        return "" if size <= FREE_BYTES else self._outlet.quota.take(self._socket.address, size)

    def give_back(self, size: int) -> None:
        """Gives back what ``borrow`` took."""
        if size > FREE_BYTES:
            self._outlet.quota.give_back(self._socket.address, size)

    def park(self) -> None:
        """The answer will come later. The handler calls this before any other thread knows of the exchange."""
        self.is_parked = True

    def note(self, **fields: object) -> None:
        """Adds fields to the log line."""
        self._fields = {**(self._fields or {}), **fields}

    def watch(self, watcher: Watcher, what: object) -> None:
        """From now on tells ``watcher`` when the client hangs up, and when it has taken a backlog."""
        with self._lock:
            if not self._gone and not self._handed:
                self._watcher, self._watched = watcher, what
                self._outlet.want(self, self.mask | select.EPOLLRDHUP)
                return
        watcher.forget(what)

    def answer(self, answer: Answer) -> bool:
        """Gives the whole answer. False when there is one already, or the client is gone.

        If too many bytes wait for clients already, a 429 or 503 is sent instead.
        """
        if over := self._hold(len(answer.body)):
            answer = self._outlet.crowded(over)
        if len(answer.body) >= coding.MIN_BYTES and coding.is_codable(answer):
            answer = coding.varying(answer)
            if self._coding and self.is_parked and len(answer.body) > CODED_AT_ONCE_BYTES:
                self._outlet.code(self, answer, self._coding)
                return not self._gone
            answer = coding.coded(answer, self._coding)
        return self.give(answer)

    def give(self, answer: Answer) -> bool:
        """The same for an answer that is coded already, or need not be."""
        if answer.status in REFUSALS and self.path != READINESS:
            _tell_refusal(answer)
        # What HEAD says must be the length of GET's answer (RFC 9110, 8.6). Of records that nobody has fetched it is not known.
        is_unknown = self.method == "HEAD" and not answer.body
        data = self._head(answer, "" if is_unknown else f"Content-Length: {len(answer.body)}\r\n")
        if self.method != "HEAD" and answer.status not in WITHOUT_BODY:
            data += answer.body
        return self._put(data, answer.status, is_first=True, is_last=True)

    def open_stream(self, answer: Answer, data: bytes = b"") -> bool:
        """Gives the head of an answer that is not complete, and its first part. False as for ``answer``.

        False also if there is no room for that part; then a 429 or 503 is sent instead.
        """
        if over := self._hold(len(data)):
            self.answer(self._outlet.crowded(over))
            return False
        if not self.is_http11:
            self._keep = False
        if coding.is_codable(answer):
            answer = coding.head(coding.varying(answer), self._coding)
            self._compressor = coding.Compressor(self._coding) if self._coding else None
        head = self._head(answer, "Transfer-Encoding: chunked\r\n" if self.is_http11 else "")
        is_all = self.method == "HEAD"
        if data and not is_all:
            head += self._chunk(data)
        return self._put(head, answer.status, is_first=True, is_last=is_all)

    def send(self, data: bytes) -> bool:
        """Sends a part of a stream; False when the client is gone. If too much waits already, the connection is cut."""
        if self._hold(len(data)):
            self.abort()
            return False
        return self._put(self._chunk(data), None, is_first=False, is_last=False)

    def _chunk(self, data: bytes) -> bytes:
        if self._compressor is not None:
            data = self._compressor.add(data) + self._compressor.flush()
        return b"%x\r\n%b\r\n" % (len(data), data) if self.is_http11 else data

    def close_stream(self) -> bool:
        """Ends a stream."""
        rest = b""
        if self._compressor is not None:
            rest = self._compressor.end()
            rest = b"%x\r\n%b\r\n" % (len(rest), rest) if self.is_http11 else rest
        return self._put(rest + (b"0\r\n\r\n" if self.is_http11 else b""), None, is_first=False, is_last=True)

    def abort(self) -> None:
        """Cuts the connection, when an answer that was begun can't be completed."""
        self.hung_up(is_sure=True)

    def release(self, *, keep: bool) -> None:
        """The worker thread will not touch the connection again."""
        del self.environ
        self.body = b""
        with self._lock:
            self._released = True
            self._keep = self._keep and keep
            if not keep and not self.is_parked and not self._begun:
                self._gone = True  # the handler ended without any answer
            is_over = self._is_over()
        if is_over:
            self._finish()

    def writable(self) -> None:
        """Called by the outlet when the socket takes bytes again."""
        with self._lock:
            if self._handed:
                return
            self._write()
            is_over, watcher, what = self._is_over(), self._watcher, self._watched
            is_gone, is_drained = self._gone, not self._pending and not self._ended
        if is_over:
            self._finish()
        if watcher is not None and is_gone:
            watcher.forget(what)
        elif watcher is not None and is_drained:
            watcher.again(what)

    def hung_up(self, *, is_sure: bool = False) -> None:
        """Called by the outlet when the socket reports a hang-up, or (``is_sure``) when the client counts as gone."""
        with self._lock:
            # The descriptor may belong to another connection by now. With the lock held it can't change, so ask it again.
            if self._handed or self._gone or not (is_sure or self._is_hung_up()):
                return
            self._gone = True
            self._drop()
            self._outlet.forget(self)
            is_over, watcher, what = self._is_over(), self._watcher, self._watched
        if is_over:
            self._finish()
        if watcher is not None:
            watcher.forget(what)

    def is_stalled(self, now: float) -> bool:
        """Whether the client takes its backlog too slowly; checked once in ``STALL_SECONDS``."""
        with self._lock:
            if not self._pending or self._gone or now - self._looked < STALL_SECONDS:
                return False
            self._looked, before, self._taken = now, self._taken, self._written - self._unacknowledged()
            return self._taken - before < STALL_SECONDS * RATE_MIN

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def _hold(self, size: int) -> Over:
        """Reserves room for bytes that may have to wait; returns whose share is used up, if there is none."""
        if size <= FREE_BYTES:
            return ""
        with self._lock:
            if self._gone or self._ended:
                return ""
            over = self._outlet.quota.take(self._socket.address, size)
            self._held += 0 if over else size
            return over

    def _drop(self) -> None:
        """Drops waiting bytes and gives back their room; the lock is held."""
        self._pending = ()
        if self._held:
            self._outlet.quota.give_back(self._socket.address, self._held)
            self._held = 0

    def _unacknowledged(self) -> int:
        """How many written bytes the client's machine has not acknowledged; the lock is held."""
        left = bytearray(4)
        try:
            fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, left)
        except OSError:
            return 0
        return int.from_bytes(left, sys.byteorder)

    def _put(self, data: bytes, status: int | None, *, is_first: bool, is_last: bool) -> bool:
        with self._lock:
            if self._gone or self._ended or self._begun is is_first:
                return False
            self._begun, self._ended = True, is_last
            if status is not None:
                self._answered_status = status
            if data:
                self._pending += (memoryview(data),)
                if len(self._pending) == 1:
                    self._write()
            is_over, is_there = self._is_over(), not self._gone
        if is_over:
            self._finish()
        return is_there

    def _write(self) -> None:
        """Writes as much as the socket takes; the lock is held."""
        try:
            while self._pending:
                part = self._pending[0]
                written = os.write(self._socket.fileno(), part)
                self._written += written
                rest = (part[written:],) if written < len(part) else ()
                self._pending = (*rest, *self._pending[1:])
        except BlockingIOError:
            if not self.mask & select.EPOLLOUT:
                self._looked, self._taken = time.monotonic(), self._written - self._unacknowledged()
                self._outlet.want(self, self.mask | select.EPOLLOUT)
            return
        except OSError:  # the client is gone
            self._gone = True
            self._drop()
            self._outlet.forget(self)
            return
        self._drop()
        if self.mask & select.EPOLLOUT:
            self._outlet.want(self, self.mask & ~select.EPOLLOUT)

    def _is_hung_up(self) -> bool:
        poll = select.poll()
        poll.register(self._socket.fileno(), self.mask & select.EPOLLRDHUP)
        return any(events & HANG_UP for _, events in poll.poll(0))

    def _is_over(self) -> bool:
        """Whether to finish now. True only once; the lock is held."""
        is_over = self._released and not self._handed and (self._gone or (self._ended and not self._pending))
        if is_over:
            self._handed = True
            self._drop()
            self._outlet.forget(self)
        return is_over

    def _finish(self) -> None:
        self._watcher = self._watched = None
        # Before the log line, since the client may be about to ask again.
        self._socket.hand_back(keep=self._keep and not self._gone)
        took = time.monotonic() - self._started
        self._outlet.calls.add(self.route, str(self._answered_status), seconds=took)
        fields = {"request": self.request} if self.request else {}
        log.info(
            "request",
            method=self.method,
            path=self.path[:200],
            status=self._answered_status,
            ms=round(took * 1000, 1),
            bytes=self._written,
            **fields,
            **(self._fields or {}),
        )
        self._outlet.open.discard(self)

    def _head(self, answer: Answer, framing: str) -> bytes:
        """The status line and all headers of an answer; ``framing`` says how the body's end is found."""
        if answer.status in WITHOUT_BODY:
            framing = ""
        connection = "" if self.is_http11 else "Connection: keep-alive\r\n"
        if not self._keep or self._outlet.is_closing:
            self._keep = False
            connection = "Connection: close\r\n"
        fields = "".join(f"{name}: {value}\r\n" for name, value in (*answer.headers, *self.extra))
        status = f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
        return f"{status}{fields}{framing}{connection}Date: {_date()}\r\n\r\n".encode("latin-1")


class _Refusal(msgspec.Struct):
    """The members of a problem document that the log shows."""

    detail: str = ""
    result: msgspec.Raw | None = None  # of a task that failed: nothing was refused


_refusal: Final = msgspec.json.Decoder(_Refusal)
refused: Final = logs.Once()  # the causes for which calls are refused, for want of room or of a server


def _tell_refusal(answer: Answer) -> None:
    """Logs why a call is refused, once a cause."""
    try:
        found = _refusal.decode(answer.body)
    except ValueError:
        return
    if found.result is None and found.detail:
        # Clients that are over their limits, or may not ask, wake nobody.
        tell = refused_log.warning if answer.status == HTTPStatus.SERVICE_UNAVAILABLE else refused_log.info
        refused.tell(f"{answer.status} {found.detail}", tell, found.detail, answer=answer.status)


_date_of: tuple[int, str] = (0, "")


def _date() -> str:
    """The Date header's value, made once a second."""
    global _date_of  # noqa: PLW0603
    now = int(time.time())
    if _date_of[0] != now:
        _date_of = (now, formatdate(now, usegmt=True))
    return _date_of[1]
