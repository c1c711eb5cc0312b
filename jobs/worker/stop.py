"""How a pool or a worker process ends: warm at the first signal, cold at a later one, or because a thread failed.

A warm stop lets running tasks end, up to a limit. A cold one gives them back at once. ``RETIRE`` is a warm stop without the
limit.
"""

import ctypes
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from regions.loop import end_with_thread

START_SECONDS: Final = 60.0  # from the start of a process to its first beat
DRAIN_SECONDS: Final = 30.0  # how long running tasks may take after a warm stop
# For the last results to reach the hub's file, which takes about a second for each of two batches. Others ship the rest.
FLUSH_SECONDS: Final = 4.0
POLL_SECONDS: Final = 0.05
SECOND_SIGNAL_SECONDS: Final = 1.0  # a supervisor's signal to a group arrives twice: directly, and from the pool
RETIRE: Final = signal.SIGUSR1
STUCK_BEAT: Final = b"!"  # the beat of a process that drains because one of its threads is stuck

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


class Stop:
    """Whether a process was asked to stop, and how. Signals set it, the process's loop reads it."""

    def __init__(self) -> None:
        self.asked: float | None = None  # monotonic seconds
        self.is_cold = False
        self.is_unhurried = False

    def request(self, signum: int = 0, frame: FrameType | None = None) -> None:  # noqa: ARG002 - a signal handler
        """Asks for a warm stop; the second call asks for a cold one.

        It only sets flags, so that a signal may call it.
        """
        now = time.monotonic()
        if signum == RETIRE:
            if self.asked is None:
                self.asked, self.is_unhurried = now, True
        elif self.asked is None or self.is_unhurried:
            self.asked, self.is_unhurried = now, False
        elif now - self.asked >= SECOND_SIGNAL_SECONDS:
            self.is_cold = True

    def wait(self, seconds: float) -> bool:
        """Waits, up to the first stop request.

        Returns whether there was one. It polls: a signal handler may take no lock.
        """
        end = time.monotonic() + seconds
        while self.asked is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, POLL_SECONDS))
        return self.asked is not None

    def install(self) -> None:
        """Handles SIGTERM, SIGINT and RETIRE.

        Ends the process when a thread fails.
        """
        signal.signal(signal.SIGTERM, self.request)
        signal.signal(signal.SIGINT, self.request)
        signal.signal(RETIRE, self.request)
        threading.excepthook = end_with_thread

    def ignore(self) -> None:
        """Ignores the signals from now on: the default action would kill an interpreter that is ending."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(RETIRE, signal.SIG_IGN)


@contextmanager
def signals_wake(waker: socket.socket) -> Iterator[None]:
    """Each signal that the process handles is written to ``waker``, so that a select ends: a handler may take no lock.

    Does nothing in a thread that is not the main one, since that gets no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)


def follow_parent() -> None:
    """Asks for SIGTERM when the thread that started this process ends (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
