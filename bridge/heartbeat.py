"""Files by which processes of one host see that another one's loop goes on: the loop itself renews them.

    FOLDER/REGION.PID-STARTED.beat   a bridge. When the file is taken away, another one is in its place, and it ends
    FOLDER/REGION.lock               who acts for the region now (bridge.ensure)

Times are the monotonic clock's, which all processes of a host share, and which neither a step of the clock nor a night
of sleep makes look like a hang.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from regions import logs
from regions.faults import Fault, Faults
from regions.process import Process

EVERY_SECONDS: Final = 1.0
SIZE: Final = 256  # one write that never grows the file
STOPPING: Final = "stopping"
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Beat(msgspec.Struct, frozen=True):
    """``at_seconds``: on the monotonic clock; ``kept``: whether bridge.ensure started it; ``state``: a bridge's own word."""

    pid: int
    started: int
    boot: str
    at_seconds: float
    kept: bool = False
    state: str = ""

    @property
    def process(self) -> Process:
        """Who wrote it."""
        return Process(self.pid, self.started)

    @property
    def alive(self) -> bool:
        """Whether its process runs, or is stopped; not whether its loop goes on."""
        return self.boot == boot() and self.process.alive

    @property
    def age_seconds(self) -> float:
        """How long ago the loop was there."""
        return time.monotonic() - self.at_seconds


def boot() -> str:
    """Which boot of the machine it is: after the next one a pid and its start time may be somebody else's."""
    return BOOT_ID.read_text(encoding="ascii").strip()


def write(descriptor: int, *, kept: bool = False, state: str = "") -> None:
    """Renews a file for this process; raises ``OSError``."""
    me = Process.own()
    beat = Beat(me.pid, me.started, boot(), time.monotonic(), kept, state)
    os.pwrite(descriptor, msgspec.json.encode(beat).ljust(SIZE), 0)


def read(file: Path) -> Beat | None:
    """What a file says; None where there is none, or it says nothing yet."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Beat)
    except (OSError, msgspec.DecodeError):
        return None


def files(folder: Path, region: str = "*") -> list[Path]:
    """The files of bridges, also of those that died."""
    return list(folder.glob(f"{region}.*.beat"))


class Heartbeat:
    """A bridge's own file."""

    def __init__(self, folder: Path, region: str, *, kept: bool) -> None:
        """Makes the file; raises ``Faults`` where that is not possible, or nobody would see that it lives."""
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
        """Renews the file once a second, and when the state changes; False when somebody took it away."""
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
