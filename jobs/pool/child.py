"""A worker process as its pool sees it: how it starts, its beat, and the place that it has.

On each turn of its claim loop it writes a byte to a socket: its beat. The socket is local, so beats go on while Redis is away. Over
the same socket the pool tells it that definitions have changed.
"""

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from jobs.queue.claim import Kind
from jobs.queue.clock import LEASE_MS
from jobs.worker.fork_server import Forked, environment
from jobs.worker.stop import START_SECONDS
from regions import logs
from regions.process import settle_on_processor
from regions.settings import ROOT, Settings

SILENT_SECONDS: Final = 2 * LEASE_MS / 1000  # a child without a beat for this long hangs
STEADY_SECONDS: Final = 10.0  # a process that lived this long is replaced at once when it dies
BACKOFF_MAX_SECONDS: Final = 5.0  # before a child is replaced that died early again and again
CHANGED: Final = b"."  # what a process is told when definitions have changed
WORKER: Final = (sys.executable, "-m", "jobs.worker")

log = logs.get("workers")


@dataclass(slots=True)
class Child:
    """A worker process and its socket; times in monotonic seconds."""

    name: str
    process: subprocess.Popen[bytes] | Forked
    pipe: int
    started: float
    page: int  # where it counts (jobs.worker.meter)
    beat: float | None = None
    is_killed: bool = False
    nice: int = 0

    def beats(self) -> bytes:
        """What it has written to its socket since the last call."""
        # A reset: it has ended before it read what it was told.
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            return os.read(self.pipe, 65536)
        return b""

    def tell(self) -> None:
        """Tells it that definitions have changed."""
        with contextlib.suppress(OSError):  # it has ended, or has not read for long
            os.write(self.pipe, CHANGED)

    def is_silent(self, now: float) -> bool:
        """Whether its loop hangs and it was not killed yet."""
        if self.is_killed:
            return False
        return now - self.started > START_SECONDS if self.beat is None else now - self.beat > SILENT_SECONDS


@dataclass(slots=True, eq=False)
class Slot:
    """A place for one process. ``failures`` counts short lives in a row."""

    number: int
    kind: Kind = "normal"
    child: Child | None = None
    failures: int = 0
    not_before: float = 0.0

    def hold_off(self, started: float, now: float) -> float:
        """How many seconds the place waits after a child of that age: longer after several short lives. Sets ``not_before``."""
        self.failures = 0 if now - started >= STEADY_SECONDS else self.failures + 1
        delay: float = random.uniform(0.5, 1) * min(BACKOFF_MAX_SECONDS, 0.1 * 2 ** min(self.failures, 10))
        self.not_before = now + delay
        return delay


def spawn(
    command: Sequence[str], settings: Settings, *, beat: int, meters: int, page: int, ahead_ms: int | None
) -> subprocess.Popen[bytes]:
    """Starts a process that has everything to import. Raises ``OSError`` when it can't.

    ``command`` ends with the region's and the process's name. ``beat`` and ``meters`` are descriptors that the process gets,
    ``page`` is where it counts. ``ahead_ms``: what the region's clock is ahead of this machine's time since boot, if that is known.
    """
    known = [] if ahead_ms is None else ["--clock", str(ahead_ms)]
    process = subprocess.Popen(
        [*command, "--settings", "-", "--beat", str(beat), "--meters", str(meters), "--page", str(page), *known, *of()],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        pass_fds=[beat, meters],
    )
    settle_on_processor(process.pid)
    assert process.stdin is not None
    try:
        process.stdin.write(msgspec.json.encode(settings))
        process.stdin.close()
    except BrokenPipeError:
        log.warning("a worker ended before it read its settings", worker=command[-1])
    return process


def of() -> list[str]:
    """The part of a worker's command line that tells people whose it is: the file of its settings, if there is one."""
    file = os.environ.get("NEARFETCH_CONFIG", "")
    return ["--of", file] if file else []
