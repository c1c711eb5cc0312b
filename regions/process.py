"""One process of this host. A pid alone names nobody, since it is given out again; a pid with its start time does."""

import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """Its pid, and when it started (clock ticks since the boot)."""

    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.pid} {self.started}"

    @staticmethod
    def of(pid: int) -> Optional["Process"]:
        """The process that has this pid now; None for none, or a zombie."""
        fields = stat(pid)
        return None if fields is None or fields[0] == "Z" else Process(pid, int(fields[19]))

    @staticmethod
    def own() -> "Process":
        """The process that asks."""
        found = Process.of(os.getpid())
        assert found is not None, "a process that runs is in /proc"
        return found

    @staticmethod
    def read(file: Path) -> Optional["Process"]:
        """The process that a pid file names, whether it still runs or not."""
        try:
            pid, started = file.read_text(encoding="ascii").split()
            return Process(int(pid), int(started))
        except (OSError, ValueError):
            return None

    def write(self, file: Path) -> None:
        """Writes a pid file; a reader sees the old or the new one, never half of it."""
        new = file.with_name(f"{file.name}.new")
        new.write_text(f"{self}\n", encoding="ascii")
        new.replace(file)

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return Process.of(self.pid) == self

    @property
    def started_at(self) -> float:
        """When it started, in seconds since the epoch."""
        uptime = float((PROC / "uptime").read_text(encoding="ascii").split()[0])
        return time.time() - uptime + self.started / os.sysconf("SC_CLK_TCK")

    def signal(self, number: int) -> bool:
        """A signal to this very process, never to another one that has its pid by now; False when it has gone.

        Raises ``PermissionError`` where it is somebody else's.
        """
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


def stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on (a program's name may hold anything); None for no process."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def resident_bytes(pids: Collection[int]) -> dict[int, int]:
    """What processes hold in memory, each with all that came of it; those that are gone are left out."""
    found: dict[int, int] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for entry in os.scandir(PROC):
        fields = stat(int(entry.name)) if entry.name.isdigit() else None
        if fields is not None:
            found[int(entry.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            children[int(fields[1])].append(int(entry.name))

    def whole(pid: int) -> int:
        return found[pid] + sum(map(whole, children[pid]))

    return {pid: whole(pid) for pid in pids if pid in found}


def settle_on_processor(pid: int) -> None:
    """Keeps a process, which has just begun, on one processor: of those that it may use, where the fewest are kept so.

    For Python processes of many threads, of which one runs at a time: a system that has an idle processor wakes the next
    thread there, far from all that the last one had in its caches. And one that wakes interrupts nobody (``SCHED_BATCH``,
    sched(7)): it would have to wait for the interpreter at once. Who chose otherwise has the last word.
    """
    kept: Counter[int] = Counter()
    for entry in os.scandir(PROC):
        # Threads of the kernel are kept too, and have no command line.
        if entry.name.isdigit() and len(its := _processors(int(entry.name))) == 1 and _command(int(entry.name)):
            kept.update(its)
    allowed = _processors(pid)
    with suppress(OSError):
        if os.sched_getscheduler(pid) == os.SCHED_OTHER:
            os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
        if len(allowed) > 1:
            os.sched_setaffinity(pid, {min(sorted(allowed), key=kept.__getitem__)})


def _processors(pid: int) -> set[int]:
    try:
        return os.sched_getaffinity(pid)
    except OSError:
        return set()


def _command(pid: int) -> bytes:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""
