"""One thread waits for all sockets that are being answered.

It sends the rest of answers after short writes, notices clients that hang up while they wait, cuts clients that read next to
nothing, and reads refused bodies a little longer, so that their senders see the answer. After large requests and answers it
returns memory to the system.
"""

import contextlib
import os
import select
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from jobs import memory
from regions import logs
from regions.counts import Histogram
from regions.loop import Loop
from web.http import problems
from web.http.answer import Answer
from web.http.coding import Coding, coded
from web.http.exchange import HANG_UP, Exchange
from web.http.quota import Over, Quota

LINGER_SECONDS: Final = 2.0  # how long a refused body is read; closing at once would reset the connection
LINGER_BYTES: Final = 16_000_000  # of it, at most
READ_BYTES: Final = 65_536
BEAT_SECONDS: Final = 0.5
TRIM_BYTES: Final = 1_000_000  # held at once for clients: after that, free memory is returned to the system
TRIM_SECONDS: Final = 5.0  # between two times
CALM_SECONDS: Final = 2.0  # the same while no socket is waited for; what comes then has more time, or wakes the thread
AFTER_FAULT_SECONDS: Final = 0.1  # so that a lasting fault does not fill the log

log = logs.get("http")


class Lingering(Protocol):
    """A connection whose refused body is read a little longer before it is closed."""

    def fileno(self) -> int:
        """The socket's descriptor."""

    def close_now(self) -> None:
        """Closes it at once."""


class Outlet:
    """Waits for sockets: to write more, to notice hang-ups, to read the rest of refused bodies."""

    def __init__(self, quota: Quota, receiving: Quota) -> None:
        self.is_closing = False
        self.quota = quota  # for answers that clients have not taken yet
        self._quotas = (quota, receiving)
        self.open: set[Exchange] = set()  # exchanges that are not over
        self.calls = Histogram()  # of those that are over: route, status
        self._epoll = select.epoll()
        self._exchanges: dict[int, Exchange] = {}  # by descriptor; those that are waited for
        self._full: dict[int, Exchange] = {}  # those of them whose socket takes no more for now
        # By descriptor: when it ends, and how many bytes it may still send.
        self._lingering: dict[int, tuple[Lingering, float, int]] = {}
        self._beat = self._trimmed = time.monotonic()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._coders = ThreadPoolExecutor(1, "coding")
        self._loop = Loop("outlet", self._turn)

    def start(self) -> None:
        """Starts the thread."""
        self._loop.start()

    def stop(self) -> None:
        """Ends the thread; clients that have not read their whole answer do not get the rest."""
        self._loop.ask_to_stop()
        os.eventfd_write(self._wake, 1)
        self._loop.join()
        self._coders.shutdown(cancel_futures=True)
        for exchange in list(self.open):
            exchange.hung_up(is_sure=True)
        for fd, (lingering, *_) in list(self._lingering.items()):
            self._end_linger(fd, lingering)
        self._epoll.close()
        os.close(self._wake)

    @property
    def is_idle(self) -> bool:
        """Whether every exchange is over."""
        return not self.open

    def crowded(self, over: Over) -> Answer:
        """The 429 or 503 that replaces an answer for which there is no room."""
        return problems.crowded(over).answer()

    def code(self, exchange: Exchange, answer: Answer, form: Coding) -> None:
        """Codes a large answer on a thread of its own, then gives it."""

        def give() -> None:
            if exchange.is_gone:
                return
            try:
                exchange.give(coded(answer, form))
            except Exception:
                log.exception("coding an answer failed", path=exchange.path[:200])
                exchange.abort()

        self._coders.submit(give)

    def want(self, exchange: Exchange, mask: int) -> None:
        """Waits for these events of the exchange's socket; the exchange's lock is held."""
        fd = exchange.fileno()
        if exchange.mask:
            self._epoll.modify(fd, mask | select.EPOLLHUP)
        else:
            self._exchanges[fd] = exchange
            self._epoll.register(fd, mask | select.EPOLLHUP)
        exchange.mask = mask | select.EPOLLHUP
        if mask & select.EPOLLOUT:
            self._full[fd] = exchange
        else:
            self._full.pop(fd, None)

    def forget(self, exchange: Exchange) -> None:
        """Stops waiting for the exchange's socket; the exchange's lock is held."""
        if exchange.mask:
            exchange.mask = 0
            fd = exchange.fileno()
            del self._exchanges[fd]
            self._full.pop(fd, None)
            self._epoll.unregister(fd)

    def linger(self, connection: Lingering) -> None:
        """Reads and drops what still comes, for at most ``LINGER_SECONDS``, then closes."""
        fd = connection.fileno()
        is_first = not self._lingering
        self._lingering[fd] = (connection, time.monotonic() + LINGER_SECONDS, LINGER_BYTES)
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP)
        if is_first:
            with contextlib.suppress(OSError):  # it was stopped meanwhile
                os.eventfd_write(self._wake, 1)

    def _turn(self) -> float:
        try:
            self.run_once(BEAT_SECONDS if self._exchanges or self._lingering else CALM_SECONDS)
        except Exception:
            log.exception("outlet failed")
            return AFTER_FAULT_SECONDS
        return 0.0

    def run_once(self, timeout_seconds: float) -> None:
        """Handles one batch of events, and once a beat cuts clients that take too long."""
        for fd, events in self._epoll.poll(timeout_seconds):
            exchange = self._exchanges.get(fd)
            if fd == self._wake:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            elif fd in self._lingering:
                self._read_on(fd)
            elif exchange is not None:
                if events & HANG_UP:
                    exchange.hung_up()
                if events & select.EPOLLOUT:
                    exchange.writable()
        now = time.monotonic()
        if now - self._beat >= BEAT_SECONDS:
            self._beat = now
            for exchange in list(self._full.values()):
                if exchange.is_stalled(now):
                    exchange.hung_up(is_sure=True)
            for fd, (lingering, end, _) in list(self._lingering.items()):
                if now > end:
                    self._end_linger(fd, lingering)
            self._trim(now)

    def _trim(self, now: float) -> None:
        """Returns free memory to the system if much was held since the last time. Otherwise glibc would keep it."""
        if now - self._trimmed >= TRIM_SECONDS and any(quota.peak >= TRIM_BYTES for quota in self._quotas):
            self._trimmed = now
            for quota in self._quotas:
                quota.begin_peak()
            memory.trim()

    def _read_on(self, fd: int) -> None:
        lingering, end, left = self._lingering[fd]
        try:
            size = len(os.read(fd, READ_BYTES))
        except BlockingIOError:
            return
        except OSError:  # reset: the sender has closed without reading the answer
            size = 0
        if size == 0 or size >= left:
            self._end_linger(fd, lingering)
        else:
            self._lingering[fd] = (lingering, end, left - size)

    def _end_linger(self, fd: int, lingering: Lingering) -> None:
        del self._lingering[fd]
        self._epoll.unregister(fd)
        lingering.close_now()
