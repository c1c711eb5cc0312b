"""One process of this host, identified by its pid and start time, since the system gives a pid out again."""

import os
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

PROC = Path("/proc")
STAT_BYTES_MAX = 4_096  # of /proc/PID/stat: some fifty numbers, and a name of 64 bytes at most


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
        # Python's own files take ten system calls, and each pool reads some of these each second.
        descriptor = os.open(f"{PROC}/{pid}/stat", os.O_RDONLY)
        try:
            text = os.read(descriptor, STAT_BYTES_MAX)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return text.rpartition(b")")[2].decode("ascii").split()


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used so far; 0 when there is none."""
    fields = stat(pid)
    return 0.0 if fields is None else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Residents:
    """The memory of processes, each with all its descendants. A look reads only those, and what is new on this machine.

    That is enough, since no process becomes the descendant of another one later: it can only lose its parent. While nothing is
    new on the machine, /proc is not listed either.
    """

    def __init__(self) -> None:
        # Processes that belong to none of them: the inode of each one's folder, which no later process of its pid has.
        self._others: dict[str, int] = {}
        self._families: dict[int, list[int]] = {}  # at the last list of /proc
        self._newest = ""  # the newest process of the machine before that

    def resident_bytes(self, pids: Collection[int]) -> dict[int, int]:
        """The bytes of each; processes that have ended are left out. ``pids``: of earlier looks, or of processes started since."""
        newest = _newest()  # first, so that one that starts meanwhile is new at the next look
        if not newest or newest != self._newest or not self._families.keys() >= set(pids):
            self._list(pids)
            self._newest = newest
        sizes = {one: _resident_bytes(one) for pid in pids for one in self._families[pid]}
        return {pid: sum(sizes[one] for one in self._families[pid]) for pid in pids if sizes[pid]}

    def _list(self, pids: Collection[int]) -> None:
        """Finds the descendants of each."""
        with os.scandir(PROC) as entries:
            there = {entry.name: entry.inode() for entry in entries if entry.name.isdigit()}
        children: dict[int, list[int]] = defaultdict(list)
        for name, inode in there.items():
            pid = int(name)
            fields = None if self._others.get(name) == inode and pid not in pids else stat(pid)
            if fields is not None:
                children[int(fields[1])].append(pid)
        self._families = {pid: _family(pid, children) for pid in pids}
        ours = {str(one) for family in self._families.values() for one in family}
        self._others = {name: inode for name, inode in there.items() if name not in ours}


def _newest() -> str:
    """The pid or thread id that this machine gave last; "" if it does not tell (a sandbox may have 0 there)."""
    try:
        last = (PROC / "loadavg").read_text(encoding="ascii").split()[-1]
    except OSError:
        return ""
    return "" if last == "0" else last


def _resident_bytes(pid: int) -> int:
    """0 when the process has ended."""
    fields = stat(pid)
    return 0 if fields is None else int(fields[21]) * os.sysconf("SC_PAGE_SIZE")


def _family(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    return [pid, *(one for child in children.get(pid, ()) for one in _family(child, children))]


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


def renice(pid: int, nice: int) -> bool:
    """Gives all threads of a process this nice value: in Linux each thread has its own, and a new one has that of its creator.

    Returns False, and leaves the others as they are, at the first thread for which the system does not permit it: a smaller
    value needs a right (RLIMIT_NICE, setrlimit(2)).
    """
    done: set[str] = set()
    try:
        while found := {one.name for one in (PROC / str(pid) / "task").iterdir()} - done:
            for thread in found:
                with suppress(ProcessLookupError):
                    os.setpriority(os.PRIO_PROCESS, int(thread), nice)
            done |= found
    except PermissionError:
        return False
    except FileNotFoundError:  # it has ended
        pass
    return True


def may_raise_priority() -> bool:
    """Whether this process may make a nice value smaller again: root mostly, others by RLIMIT_NICE.

    Tried by a thread that ends, since each thread has a nice value of its own.
    """
    found: list[bool] = []

    def attempt() -> None:
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, own + 1)
        try:
            os.setpriority(os.PRIO_PROCESS, 0, own)
        except PermissionError:
            return
        found.append(True)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return bool(found)


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
