"""What API keys cost a call: CPU time of a gateway and of the hub's Redis, with keys and without them.

Two gateways run in this process, on the hub of a stack whose own gateway is stopped: one needs keys, the other does not. Blocks of
synchronous calls are made to each in turn, of which everything is the same but the key. The threads of both work all the time, so
what one of them does for the other costs both the same.
"""

import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any, Final

from msgspec import structs

from regions import logs
from regions.settings import Settings, load
from scripts.bench import load as clients
from scripts.bench.extra import Extra
from scripts.bench.ours import Ours, alone
from scripts.bench.rows import ROWS
from scripts.bench.run import done
from scripts.bench.tenants import Tenant
from scripts.stack.ports import free_port
from scripts.terminal import Progress
from web.app import Gateway
from web.hub.keys import KeyLimits

ROW: Final = ROWS["tiny"]
CALLS: Final = 200  # in each block
BLOCKS: Final = 10  # of each side, in each round
LIMITS: Final = KeyLimits(
    requests_per_second=1e6, open_tasks=10**6, bytes_kept=10**12, waiters=10**6, sources=("bench.*",)
)
READY_SECONDS: Final = 20.0


def run(progress: Progress, rounds: int) -> Extra:
    """Measures in rounds. Raises ``Wrong``."""
    numbers = itertools.count(1)
    gateway_us: list[float] = []
    redis_us: list[float] = []
    with alone(progress) as (ours, _):
        settings = load(ours.stack.parts["gateway"].environment)
        ours.stack.stop_part("gateway")
        logs.configure(
            "json", "warning"
        )  # the lines would be on this terminal; what they cost is the same with and without keys
        gateways = [Gateway(_with(settings, keys=has_keys)) for has_keys in (False, True)]
        try:
            for one in gateways:
                one.start()
            plain = _At(ours, gateways[0].settings.gateway.port)
            keyed = Tenant(ours, "bench", LIMITS)
            keyed.port = gateways[1].settings.gateway.port
            gateways[1].keyring.refresh()
            _ready(plain, keyed, numbers)
            for number in range(rounds):
                progress.waiting(f"keys, round {number + 1} of {rounds}")
                for block in range(BLOCKS):
                    costs = {}
                    for side in (plain, keyed) if block % 2 else (keyed, plain):
                        costs[side] = _block(ours, side, numbers)
                    gateway_us.append(costs[keyed][0] - costs[plain][0])
                    redis_us.append(costs[keyed][1] - costs[plain][1])
        finally:
            for one in gateways:
                one.stop()
    found = {"gateway": gateway_us, "central Redis": redis_us}
    lines = [f"{part:<14} {statistics.median(more):+.0f} µs a call ({_spread(more)})" for part, more in found.items()]
    both = [sum(pair) for pair in zip(gateway_us, redis_us, strict=True)]
    lines.append(
        f"{'together':<14} {statistics.median(both):+.0f} µs a call ({_spread(both)}), {CALLS * len(both):,} calls on each side"
    )
    return Extra("CPU time of keys", lines, {"us_a_call": found})


def _spread(found: list[float]) -> str:
    low, _, high = statistics.quantiles(found, n=4) if len(found) > 1 else (found[0],) * 3
    return f"half of the blocks between {low:+.0f} and {high:+.0f}"


class _At:
    """Our stack without keys, by a gateway at another port."""

    def __init__(self, ours: Ours, port: int) -> None:
        self._ours, self.port = ours, port

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ours, name)


def _with(settings: Settings, *, keys: bool) -> Settings:
    return structs.replace(settings, gateway=structs.replace(settings.gateway, port=free_port(), keys=keys))


def _ready(plain: Any, keyed: Any, numbers: Iterator[int]) -> None:
    """Until both answer; a region that was left alone for a moment may be away at first."""
    late = time.monotonic() + READY_SECONDS
    for side in (plain, keyed):
        while True:
            try:
                done(clients.alone(side, ROW, numbers, calls=4))
                break
            except clients.Wrong:
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
