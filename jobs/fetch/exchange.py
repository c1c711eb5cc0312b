"""One fetch on one thread: its deadline, its cancel, and the socket that either of them cuts.

Fetcher.fetch → Watchdog.watching(exchange)      makes it the thread's exchange
  … connect, send, receive                       hold its socket, and call ``check`` between two steps
Watchdog.run_once                                shuts down the socket of an exchange that is late or cancelled
"""

import contextlib
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from urllib3.connection import HTTPConnection

from jobs.errors import Cancelled, TimedOut
from regions import logs
from regions.loop import Loop

WATCH_SECONDS: Final = 0.1  # how late a cancel, or the deadline of a slow answer, is noticed
QUIET_SECONDS: Final = 5.0  # without any fetch, until the watchdog sleeps; to wake it costs the next fetch some 20 µs

log = logs.get("worker")
_here = threading.local()


class Route(Protocol):
    """How connections get to their targets: ``jobs.fetch.route.Direct``, or ``jobs.fetch.proxy.Proxied``."""

    def connect(self, exchange: "Exchange", connection: HTTPConnection) -> socket.socket:
        """A socket connected to the host and port of a connection. Raises TaskErrors that name the host."""


class Exchange:
    """One fetch on one thread.

    ``deadline`` is on the monotonic clock, as is ``latest``, the limit for moving the deadline by pauses. ``cancelled`` is
    also called from the watchdog's thread.
    """

    def __init__(self, route: Route, deadline: float, cancelled: Callable[[], bool], latest: float) -> None:
        self.route = route
        self.deadline = deadline
        self.latest = latest
        self.cancelled = cancelled
        self.is_fresh = False  # the connection in use was made for this request
        self.wants_fresh = False  # a kept connection was reset, so the next try opens a new one
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cut: type[Cancelled | TimedOut] | None = None
        self._between = ""  # the proxy, while it is waited for instead of the target

    def remaining(self) -> float:
        """The seconds that are left, at least 0.001: a socket time-out of 0 would make it non-blocking."""
        return max(self.deadline - time.monotonic(), 0.001)

    def reason(self) -> type[Cancelled | TimedOut] | None:
        """Why this exchange must end now, or None."""
        if self._cut is None:
            if self.cancelled():
                self._cut = Cancelled
            elif time.monotonic() >= self.deadline:
                self._cut = TimedOut
        return self._cut

    def check(self) -> None:
        """Raises Cancelled or TimedOut when the exchange must end."""
        reason = self.reason()
        if reason is Cancelled:
            raise Cancelled("cancelled during the fetch")
        if reason is TimedOut:
            seconds = self.deadline - self._began
            if self._between:
                message = f"{self._between} did not connect to the target within {seconds:.3g} s"
                raise TimedOut(message, origin="region")
            raise TimedOut(f"expected the whole answer within {seconds:.3g} s")

    @contextlib.contextmanager
    def at(self, between: str) -> Iterator[None]:
        """While the proxy ``between`` is waited for and not the target. A time-out is then the region's error."""
        self._between = between
        try:
            yield
        finally:
            self._between = ""

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the clock of the time-out while the target waits for us."""
        left = self.deadline - time.monotonic()
        self.deadline = self.latest
        try:
            yield
        finally:
            self.deadline = min(self.latest, time.monotonic() + left)

    def hold(self, held: socket.socket | None) -> None:
        """Remembers the socket that ``cut_if_over`` shuts down; None if there is none."""
        with self._lock:
            self._socket = getattr(held, "socket", held)  # urllib3's TLS inside TLS is not a socket but has one

    def cut_if_over(self) -> None:
        """Shuts down the socket when the exchange must end, so that the thread that reads from it wakes up."""
        with self._lock:
            if self._socket is not None and self.reason() is not None:
                # The plain socket's shutdown: the TLS one would change state that the reading thread uses.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def current() -> Exchange:
    """The exchange of this thread. Raises RuntimeError without one: nothing may connect outside an exchange."""
    exchange: Exchange | None = getattr(_here, "exchange", None)
    if exchange is None:
        raise RuntimeError("expected a fetch on this thread, found a connection without one")
    return exchange


def let_go() -> None:
    """Has the exchange of this thread, if there is one, hold no socket any more."""
    exchange: Exchange | None = getattr(_here, "exchange", None)
    if exchange is not None:
        exchange.hold(None)


def error_text(error: BaseException | None) -> str:
    """The text of a system's error, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


class Watchdog:
    """A thread for each fetcher that looks at all its exchanges ten times a second. It sleeps while there are none for long."""

    def __init__(self) -> None:
        self._watched: dict[int, Exchange] = {}
        self._since = time.monotonic()  # when it saw exchanges last
        self._sleeps = True
        self._loop = Loop("fetch-watchdog", self._turn)
        self._loop.start(math.inf)

    @contextlib.contextmanager
    def watching(self, exchange: Exchange) -> Iterator[None]:
        """Makes it the exchange of this thread, and watches it."""
        key = threading.get_ident()
        _here.exchange = self._watched[key] = exchange
        if self._sleeps:  # its thread looks at ``_watched`` once more after it has set this
            self._sleeps, self._since = False, time.monotonic()
            self._loop.wake()
        try:
            yield
        finally:
            exchange.hold(None)
            _here.exchange = None
            del self._watched[key]

    def _turn(self) -> float:
        self.run_once()
        now = time.monotonic()
        self._sleeps = now - self._since >= QUIET_SECONDS
        if self._watched:
            self._sleeps, self._since = False, now
        return math.inf if self._sleeps else WATCH_SECONDS

    def run_once(self) -> None:
        """Cuts exchanges that are late or cancelled."""
        for exchange in list(self._watched.values()):
            try:
                exchange.cut_if_over()
            except Exception:
                # No socket has a time-out of its own: without this thread any fetch of the process could wait for ever.
                log.exception("can't look at a fetch")

    def stop(self) -> None:
        """Ends the thread."""
        self._loop.stop()
