"""Process groups as /proc shows them: how to list and end them. Also finds which process listens on a port.

A group outlives its leader. While a group has members, the kernel gives its number to no new process.
"""

import os
import signal
import time
from collections.abc import Iterable, Iterator

from regions.process import PROC, Process, stat


def group(leader: Process) -> list[int]:
    """The living members of the group that a process led, including the leader."""
    found = Process.of(leader.pid)
    if found is not None and found != leader:
        return []  # another process has this pid now, so the group has no members left
    members = []
    for pid in pids():
        fields = stat(pid)
        if (
            fields is not None
            and int(fields[2]) == leader.pid
            and fields[0] != "Z"
            and int(fields[19]) >= leader.started
        ):
            members.append(pid)
    return members


def end_groups(leaders: Iterable[Process], seconds: float) -> int:
    """Sends SIGTERM to the groups, and SIGKILL to the rest after ``seconds``. Returns how many processes there were."""
    groups = {leader: group(leader) for leader in leaders}
    for leader, members in groups.items():
        if members:
            signal_group(leader.pid, signal.SIGTERM)
            signal_group(leader.pid, signal.SIGCONT)  # a stopped process can't handle SIGTERM
    deadline = time.monotonic() + seconds
    left = [leader for leader, members in groups.items() if members]
    while left:
        if time.monotonic() > deadline:
            for leader in left:
                signal_group(leader.pid, signal.SIGKILL)
            deadline += 5.0
        time.sleep(0.02)
        left = [leader for leader in left if group(leader)]
    return sum(map(len, groups.values()))


def signal_group(leader: int, number: int) -> None:
    """Sends a signal to a group, if it still exists."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return


def pids() -> list[int]:
    """The pids of all processes in /proc."""
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def listener(port: int) -> str:
    """The process that listens on a TCP port, like ``process 812 (nginx)``; ``another process`` when /proc does not tell."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for pid in pids() if wanted else []:
        if wanted & set(_open_files(pid)):
            return f"process {pid} ({_program(pid)})"
    return "another process"


def _open_files(pid: int) -> Iterator[str]:
    """The files behind a process's descriptors; none when the process has ended or is another user's."""
    try:
        entries = list((PROC / str(pid) / "fd").iterdir())
    except OSError:
        return
    for entry in entries:
        try:
            yield str(entry.readlink())
        except OSError:
            continue  # it was closed meanwhile


def _program(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "ended"


def _listening_inodes(port: int) -> list[str]:
    inodes = []
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.append(fields[9])
    return inodes
