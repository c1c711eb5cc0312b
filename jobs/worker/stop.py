"""How a process of a region's running part ends: warmly at the first signal, coldly at a later one, or by a failed thread.

``RETIRE`` is a warm stop without hurry: what runs is ended, however long that takes, and not given back after a while.
"""

import ctypes
import os
import signal
import threading
import time
from types import FrameType
from typing import Final

from regions import logs

START_SECONDS: Final = 60.0  # from the start of a process to its first beat
DRAIN_SECONDS: Final = 30.0  # for what runs
FLUSH_SECONDS: Final = (
    4.0  # for the last results to be in the hub's file (a second each for two batches); others ship the rest
)
LOOK_SECONDS: Final = 0.05
SECOND_SIGNAL_SECONDS: Final = 1.0  # a supervisor's signal to a group comes twice: once by itself, once by the pool
RETIRE: Final = signal.SIGUSR1
STUCK_BEAT: Final = b"!"  # the beat of a process that drains, since a thread of it is stuck

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

log = logs.get("workers")


class Stop:
    """What was asked of a process; set by signals, read by its loop."""

    def __init__(self) -> None:
        self.asked: float | None = None  # monotonic seconds
        self.is_cold = False
        self.is_unhurried = False

    def request(self, signum: int = 0, frame: FrameType | None = None) -> None:  # noqa: ARG002 - a signal handler
        """Warm at the first call, cold at a second one. Only flags are set, so it may come at any point."""
        now = time.monotonic()
        if signum == RETIRE:
            self.is_unhurried = self.asked is None
            self.asked = self.asked or now
        elif self.asked is None or self.is_unhurried:
            self.asked, self.is_unhurried = now, False
        elif now - self.asked >= SECOND_SIGNAL_SECONDS:
            self.is_cold = True

    def wait(self, seconds: float) -> bool:
        """Waits; True as soon as a stop was asked for. It looks, since a signal handler that tells would need a lock."""
        end = time.monotonic() + seconds
        while self.asked is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))
        return self.asked is not None

    def install(self) -> None:
        """Listens to SIGTERM and SIGINT, and ends the process when a thread fails: without it, it would only look alive."""
        signal.signal(signal.SIGTERM, self.request)
        signal.signal(signal.SIGINT, self.request)
        signal.signal(RETIRE, self.request)
        threading.excepthook = _die

    def ignore(self) -> None:
        """Listens no longer: an interpreter that ends would take a signal for its death."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(RETIRE, signal.SIG_IGN)


def follow_parent() -> None:
    """Asks for SIGTERM when the thread that started this process ends (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _die(args: threading.ExceptHookArgs) -> None:
    thread = args.thread.name if args.thread else "unknown"
    log.error("a thread failed, the process ends", thread=thread, exc_info=args.exc_value)
    os._exit(os.EX_SOFTWARE)
