"""One process of this host, identified by its pid and start time, since the system gives a pid out again."""

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
    """A process: its pid and its start time (clock ticks since boot)."""

    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.pid} {self.started}"

    @staticmethod
    def of(pid: int) -> Optional["Process"]:
        """The process that has this pid now; None when there is none, or a zombie."""
        fields = stat(pid)
        return None if fields is None or fields[0] == "Z" else Process(pid, int(fields[19]))

    @staticmethod
    def own() -> "Process":
        """The calling process."""
        found = Process.of(os.getpid())
        assert found is not None, "a running process is in /proc"
        return found

    @staticmethod
    def read(file: Path) -> Optional["Process"]:
        """The process that a pid file names, whether it still runs or not; None when the file can't be read."""
        try:
            pid, started = file.read_text(encoding="ascii").split()
            return Process(int(pid), int(started))
        except (OSError, ValueError):
            return None

    def write(self, file: Path) -> None:
        """Writes a pid file. Readers see the old or the new file, never half of one."""
        new = file.with_name(f"{file.name}.new")
        new.write_text(f"{self}\n", encoding="ascii")
        new.replace(file)

    @property
    def alive(self) -> bool:
        """Whether the process still runs; a zombie does not."""
        return Process.of(self.pid) == self

    @property
    def started_at(self) -> float:
        """The start time in seconds since the epoch."""
        uptime = float((PROC / "uptime").read_text(encoding="ascii").split()[0])
        return time.time() - uptime + self.started / os.sysconf("SC_CLK_TCK")

    def signal(self, number: int) -> bool:
        """Sends a signal to this very process, never to another one that has its pid by now. False when it has ended.

        Raises ``PermissionError`` when the process belongs to another user.
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
    """The fields of /proc/PID/stat from the state on; None when there is no process. The name before may hold anything."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def resident_bytes(pids: Collection[int]) -> dict[int, int]:
    """The memory of processes, each with all its descendants, in bytes; processes that have ended are left out."""
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
    """Pins a process that has just started to one processor: the permitted one to which the fewest processes are pinned.

    This is for Python processes with many threads, of which only one runs at a time. A system with an idle processor would
    wake the next thread there, far from the caches that the last one filled. The process also gets ``SCHED_BATCH``
    (sched(7)): a woken thread then interrupts no other, since it would at once have to wait for the interpreter. A process
    that was already given a policy or a processor keeps it.
    """
    kept: Counter[int] = Counter()
    for entry in os.scandir(PROC):
        # Kernel threads are pinned, too; they have no command line.
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
