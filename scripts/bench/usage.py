"""CPU time and memory of processes from /proc. The CPU time of a process group includes its children that have ended."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from regions.process import PROC, stat
from scripts.stack import processes

TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
# Places in the fields of regions.process.stat; the times are utime, stime, and the same of children waited for.
PGRP, TIMES = 2, slice(11, 15)


def cpu_ms(hops: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """The CPU time that each hop has used so far, in ms. A hop is a set of process groups, given by their leaders' pids."""
    ticks: dict[int, int] = defaultdict(int)
    for pid in processes.pids():
        fields = stat(pid)
        if fields is not None:
            ticks[int(fields[PGRP])] += sum(map(int, fields[TIMES]))
    return {hop: 1000 * sum(ticks[leader] for leader in leaders) / TICKS_A_SECOND for hop, leaders in hops.items()}


def own_cpu_ms() -> float:
    """The CPU time of this process so far, in ms, which is that of the clients."""
    times = os.times()
    return 1000 * (times.user + times.system)


def members(leaders: Iterable[int]) -> list[int]:
    """All processes of some process groups."""
    wanted = set(leaders)
    return [pid for pid in processes.pids() if (fields := stat(pid)) is not None and int(fields[PGRP]) in wanted]


def memory_bytes(pids: Iterable[int]) -> int:
    """The memory of processes; memory that several share is counted once (PSS)."""
    return sum(map(_pss_bytes, pids))


def _pss_bytes(pid: int) -> int:
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)
