"""What API keys cost a call: CPU time of a gateway and of the hub's Redis, with keys and without them.

One gateway runs in this process, on the hub of a stack whose own gateway is stopped. Short blocks of synchronous calls are made to it
in turn: with keys, and as if it were open. Two gateways would not do: they race to settle a task, and the loser's call costs more.

Other work on the machine changes from second to second. So a block with keys is only compared with the mean of the
open blocks before and after it. The result is the median of these differences, with its 95 % confidence interval by
ranks. Open blocks are compared with their neighbours in the same way: this median must be 0, and its interval shows
which differences can be seen.
"""

import contextlib
import copy
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Final

from msgspec import Struct, structs

from regions import logs
from regions.process import PROC
from regions.settings import load
from scripts.bench import load as clients
from scripts.bench.extra import Extra
from scripts.bench.figures import median_within
from scripts.bench.ours import alone
from scripts.bench.rows import ROWS
from scripts.bench.run import done
from scripts.bench.tenants import Tenant
from scripts.terminal import Progress
from web.gateway import Gateway
from web.hub.keys import KeyLimits

ROW: Final = ROWS["tiny"]
CALLS: Final = 8  # in each block
BLOCKS: Final = 1_200  # in each round
SIDES: Final = 4  # each fourth block has keys
ROUND_SECONDS: Final = 75.0  # a slow machine makes fewer blocks, and the intervals say so
LIMITS: Final = KeyLimits(
    requests_per_second=1e6, open_tasks=10**6, bytes_kept=10**12, waiters=10**6, sources=("bench.*",)
)
READY_SECONDS: Final = 20.0


def run(progress: Progress, rounds: int) -> Extra:
    """Measures in rounds. Raises ``Wrong``."""
    numbers = itertools.count(1)
    blocks: list[tuple[float, float]] = []
    with alone(progress) as (ours, _), ExitStack() as stack:
        settings = load(ours.stack.parts["gateway"].environment)
        ours.stack.stop_part("gateway")
        with contextlib.redirect_stderr(stack.enter_context((ours.stack.folder / "gateway.log").open("w"))):
            logs.configure("json", "info", gathers=True)  # its lines are a part of the cost
        gateway = Gateway(structs.replace(settings, gateway=structs.replace(settings.gateway, keys=True)))
        gateway.start()
        stack.callback(gateway.stop)
        keyed = Tenant(ours, "bench", LIMITS)
        gateway.keyring.refresh()
        of_keys, is_open = gateway.server.wsgi_app, copy.copy(gateway.server.wsgi_app)
        is_open._owner_of = None  # noqa: SLF001 - as that of an open gateway
        _ready(keyed, numbers)
        [hub] = ours.leaders("hub")
        for number in range(rounds):
            late = time.monotonic() + ROUND_SECONDS
            progress.waiting(f"keys, round {number + 1} of {rounds}")
            while len(blocks) < (number + 1) * BLOCKS and time.monotonic() < late:
                gateway.server.wsgi_app, side = (of_keys, keyed) if len(blocks) % SIDES == 0 else (is_open, ours)
                blocks.append(_block(hub, side, numbers))
    parts = {"gateway": [one[0] for one in blocks], "central Redis": [one[1] for one in blocks]}
    parts["together"] = [sum(one) for one in blocks]
    found = {name: Cost.of(seen) for name, seen in parts.items()}
    lines = [_line(name, cost) for name, cost in found.items()]
    lines.append(
        f"{CALLS * len(blocks) // SIDES:,} calls with keys, {CALLS * len(blocks) * (SIDES - 1) // SIDES:,} without"
    )
    return Extra(
        "CPU time of keys (the gateway's with its client's)",
        lines,
        {name: structs.asdict(cost) for name, cost in found.items()},
    )


class Cost(Struct, frozen=True):
    """µs a call. ``keys`` and ``nothing``: (the median difference, from, to): of blocks with keys, and of open ones, to their neighbours."""

    base: float
    keys: tuple[float, float, float]
    nothing: tuple[float, float, float]

    @staticmethod
    def of(blocks: Sequence[float]) -> "Cost":
        """From the blocks in their order."""
        differences = [
            one - (before + after) / 2 for before, one, after in zip(blocks, blocks[1:], blocks[2:], strict=False)
        ]
        # Blocks 0, 4, 8, … have keys, between open ones; 2, 6, … are open, as are those before and after them.
        return Cost(
            statistics.median(one for at, one in enumerate(blocks) if at % SIDES),
            median_within(differences[SIDES - 1 :: SIDES]),
            median_within(differences[1::SIDES]),
        )


def _line(part: str, cost: Cost) -> str:
    most, low, high = cost.keys
    zero, least, top = cost.nothing
    told = f"{most:+.1f} µs a call ({low:+.1f} to {high:+.1f})"
    return f"{part:<14} {told}; nothing is {zero:+.1f} ({least:+.1f} to {top:+.1f}); {cost.base:.0f} µs without keys"


def _ready(side: Any, numbers: Iterator[int]) -> None:
    """Waits until it answers; a region may be away at first."""
    late = time.monotonic() + READY_SECONDS
    while True:
        try:
            done(clients.alone(side, ROW, numbers, calls=4))
            return
        except (clients.Wrong, OSError):
            if time.monotonic() > late:
                raise
            time.sleep(0.2)


def _block(hub: int, side: Any, numbers: Iterator[int]) -> tuple[float, float]:
    """CPU µs a call: of this process, and of the hub's Redis."""
    before, used = _main_thread_us(hub), time.process_time()
    _, finished = done(clients.alone(side, ROW, numbers, calls=CALLS))
    used, after = time.process_time() - used, _main_thread_us(hub)
    clients.check(side, ROW, finished)
    return used * 1e6 / len(finished), (after - before) / len(finished)


def _main_thread_us(pid: int) -> float:
    """The CPU time of a process's main thread so far, to the ns: asking Redis itself would cost it more than a key."""
    return int((PROC / str(pid) / "schedstat").read_text().split()[0]) / 1000
