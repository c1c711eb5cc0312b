"""What API keys cost a call: CPU time of a gateway and of the hub's Redis, with keys and without them.

One gateway runs in this process, on the hub of a stack whose own gateway is stopped. Blocks of synchronous calls are made to it in
turn: with keys, and as if it were open. Two gateways would not do: who settles a task is a race, and the loser's call costs more.
Other work on the machine only adds to what a block costs, so the cheapest fifth of the blocks of each side is compared. The open
gateway is measured as two sides: what these differ by is the noise.
"""

import contextlib
import copy
import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

from msgspec import structs

from regions import logs
from regions.settings import load
from scripts.bench import load as clients
from scripts.bench.extra import Extra
from scripts.bench.ours import Ours, alone
from scripts.bench.rows import ROWS
from scripts.bench.run import done
from scripts.bench.tenants import Tenant
from scripts.terminal import Progress
from web.gateway import Gateway
from web.hub.keys import KeyLimits

ROW: Final = ROWS["tiny"]
CALLS: Final = 50  # in each block
BLOCKS: Final = 40  # of each side, in each round
CHEAPEST: Final = 0.2
LIMITS: Final = KeyLimits(
    requests_per_second=1e6, open_tasks=10**6, bytes_kept=10**12, waiters=10**6, sources=("bench.*",)
)
READY_SECONDS: Final = 20.0


def run(progress: Progress, rounds: int) -> Extra:
    """Measures in rounds. Raises ``Wrong``."""
    numbers = itertools.count(1)
    found: dict[str, list[tuple[float, float]]] = {"without": [], "with": [], "without, again": []}
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
        sides = [("without", is_open, ours), ("with", of_keys, keyed), ("without, again", is_open, ours)]
        _ready(keyed, numbers)
        for number in range(rounds):
            progress.waiting(f"keys, round {number + 1} of {rounds}")
            for block in range(BLOCKS):
                first = block % len(sides)
                for name, app, side in sides[first:] + sides[:first]:
                    gateway.server.wsgi_app = app
                    found[name].append(_block(ours, side, numbers))
    cost = {
        name: {part: _cheapest([one[at] for one in blocks]) for at, part in enumerate(("gateway", "central Redis"))}
        for name, blocks in found.items()
    }
    lines = [_line(part, {name: one[part] for name, one in cost.items()}) for part in ("gateway", "central Redis")]
    lines.append(_line("together", {name: sum(one.values()) for name, one in cost.items()}))
    lines.append(f"{CALLS * len(found['with']):,} calls on each side")
    return Extra("CPU time of keys (the gateway's with its client's)", lines, {"us_a_call": cost, "blocks": found})


def _line(part: str, cost: dict[str, float]) -> str:
    base = statistics.mean((cost["without"], cost["without, again"]))
    noise = abs(cost["without"] - cost["without, again"])
    return f"{part:<14} {cost['with'] - base:+.0f} µs a call, noise {noise:.0f} µs; {base:.0f} µs without keys"


def _cheapest(found: list[float]) -> float:
    """The mean of the cheapest fifth."""
    return statistics.mean(sorted(found)[: max(1, round(CHEAPEST * len(found)))])


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


def _block(ours: Ours, side: Any, numbers: Iterator[int]) -> tuple[float, float]:
    """CPU µs a call: of this process, and of the hub's Redis."""
    before, used = _redis_us(ours), time.process_time()
    _, finished = done(clients.alone(side, ROW, numbers, calls=CALLS))
    used, after = time.process_time() - used, _redis_us(ours)
    count = len(finished)
    clients.check(side, ROW, finished)
    return used * 1e6 / count, (after - before) / count


def _redis_us(ours: Ours) -> float:
    found: Any = ours.stack.redis("hub").info("cpu")
    return 1e6 * float(found["used_cpu_user_main_thread"] + found["used_cpu_sys_main_thread"])
