"""One fetch on one thread: until when, whether it is still wanted, and the socket that a deadline or a cancel cuts.

Fetcher.fetch → Watchdog.watching(exchange)             the thread's one exchange
  … whatever connects, sends and receives               holds its socket, and calls check between two steps
Watchdog.run_once                                       shuts the socket of an exchange that is late or cancelled
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from urllib3.connection import HTTPConnection

from jobs.errors import Cancelled, TimedOut
from regions import logs

WATCH_SECONDS: Final = 0.1  # how late a dripped answer or a cancel is noticed

log = logs.get("worker")
_here = threading.local()


class Route(Protocol):
    """How connections get to their targets: ``jobs.fetch.route.Direct``, or ``jobs.fetch.proxy.Proxied``."""

    def connect(self, exchange: "Exchange", connection: HTTPConnection) -> socket.socket:
        """A socket that leads to the host and port of a connection; raises TaskErrors that name the host."""


class Exchange:
    """One fetch on one thread: until when, whether still wanted, and the socket that is to be cut otherwise.

    ``deadline`` is on the monotonic clock, and so is ``latest``, up to which a pause may move it; ``cancelled`` is called
    from the watchdog's thread too.
    """

    def __init__(self, route: Route, deadline: float, cancelled: Callable[[], bool], latest: float) -> None:
        self.route = route
        self.deadline = deadline
        self.latest = latest
        self.cancelled = cancelled
        self.is_fresh = False  # the connection in use was made for this request
        self.wants_fresh = False  # a kept connection was reset: don't take another one
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cut: type[Cancelled | TimedOut] | None = None
        self._between = ""  # us and the target: who is waited for instead

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
            seconds = self.deadline - self._began
            if self._between:
                message = f"{self._between} did not lead anywhere within {seconds:.3g} s"
                raise TimedOut(message, origin="region")
            raise TimedOut(f"expected the whole answer within {seconds:.3g} s")

    @contextlib.contextmanager
    def at(self, between: str) -> Iterator[None]:
        """In here somebody of ours is waited for, not the target: a time-out is the region's."""
        self._between = between
        try:
            yield
        finally:
            self._between = ""

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
            self._socket = getattr(held, "socket", held)  # urllib3's TLS inside of TLS is no socket, and has one

    def cut_if_over(self) -> None:
        """Shuts the socket where the exchange has to end, so that the thread that reads from it wakes up."""
        with self._lock:
            if self._socket is not None and self.reason() is not None:
                # The plain socket's shutdown: a TLS one would change state that its reader is using.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def current() -> Exchange:
    """The exchange of this thread; without one nothing may be connected to."""
    exchange: Exchange | None = getattr(_here, "exchange", None)
    if exchange is None:
        raise RuntimeError("expected a fetch on this thread, found a connection without one")
    return exchange


def let_go() -> None:
    """Where this thread has an exchange, it holds no socket any more."""
    exchange: Exchange | None = getattr(_here, "exchange", None)
    if exchange is not None:
        exchange.hold(None)


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
            try:
                exchange.cut_if_over()
            except Exception:
                # No socket has a time-out of its own: without this thread every fetch of the process could wait for ever.
                log.exception("can't look at a fetch")

    def stop(self) -> None:
        """Ends the thread."""
        self._stopping.set()
        self._thread.join()
