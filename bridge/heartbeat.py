"""Heartbeat files: a process's loop renews its file, so that other processes of the host see that the loop goes on.

    FOLDER/REGION.PID-STARTED.beat   a bridge. If the file is removed, another bridge has taken over, and this one ends
    FOLDER/REGION.lock               the command that acts for the region now (bridge.ensure)

Times are on the monotonic clock, which all processes of a host share. A clock step or a suspended machine does not look
like a hang.
"""

import contextlib
import functools
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from regions import logs
from regions.faults import Fault, Faults
from regions.process import Process

EVERY_SECONDS: Final = 1.0
SIZE: Final = 256  # bytes of the file: each renewal is one write that does not grow it
STOPPING: Final = "stopping"
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Beat(msgspec.Struct, frozen=True):
    """One heartbeat.

    ``at_seconds`` is monotonic; ``kept``: bridge.ensure started the process; ``state``: of a bridge.
    """

    pid: int
    started: int
    boot: str
    at_seconds: float
    kept: bool = False
    state: str = ""

    @property
    def process(self) -> Process:
        """The process that wrote it."""
        return Process(self.pid, self.started)

    @property
    def alive(self) -> bool:
        """Whether its process exists, even if stopped. Its loop may hang."""
        return self.boot == boot() and self.process.alive

    @property
    def age_seconds(self) -> float:
        """How long ago it was written."""
        return time.monotonic() - self.at_seconds


@functools.cache
def boot() -> str:
    """The id of the machine's current boot. After another boot, a pid and start time may belong to another process."""
    return BOOT_ID.read_text(encoding="ascii").strip()


@functools.lru_cache(1)
def _own(_pid: int) -> Process:
    """The calling process, as long as it has this pid."""
    return Process.own()


def write(descriptor: int, *, kept: bool = False, state: str = "") -> None:
    """Renews a file for this process. Raises ``OSError``."""
    me = _own(os.getpid())
    beat = Beat(me.pid, me.started, boot(), time.monotonic(), kept, state)
    os.pwrite(descriptor, msgspec.json.encode(beat).ljust(SIZE), 0)


def read(file: Path) -> Beat | None:
    """The heartbeat in a file. None when there is no file, or nothing in it yet."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Beat)
    except (OSError, msgspec.DecodeError):
        return None


def files(folder: Path, region: str = "*") -> list[Path]:
    """The heartbeat files of bridges, also of dead ones."""
    return list(folder.glob(f"{region}.*.beat"))


class Heartbeat:
    """The heartbeat file of a bridge."""

    def __init__(self, folder: Path, region: str, *, kept: bool) -> None:
        """Creates the file. Raises ``Faults`` when that fails: nobody would see that the bridge is alive."""
        me = Process.own()
        self.file = folder / f"{region}.{me.pid}-{me.started}.beat"
        self._kept, self._state, self._due = kept, "", 0.0
        self._log = logs.get("bridge")
        self._failed = False
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600)
            write(self._descriptor, kept=kept, state="starting")
        except OSError as error:
            with contextlib.suppress(OSError):
                self.file.unlink()
            message = f"expected a folder that can be written to, found: {error}"
            raise Faults([Fault("bridges.path", None, "", message)]) from error

    def beat(self, state: str) -> bool:
        """Renews the file once a second, and when the state changes. False when the file was removed."""
        now = time.monotonic()
        if now < self._due and state == self._state:
            return True
        self._due, self._state = now + EVERY_SECONDS, state
        if os.fstat(self._descriptor).st_nlink == 0:
            return False
        try:
            write(self._descriptor, kept=self._kept, state=state)
        except OSError as error:
            if not self._failed:
                self._log.warning("its heartbeat can't be written", file=str(self.file), reason=str(error))
            self._failed = True
        else:
            self._failed = False
        return True

    def close(self) -> None:
        """Removes the file."""
        self.file.unlink(missing_ok=True)
        os.close(self._descriptor)
