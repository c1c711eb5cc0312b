"""The CPU time of a whole ``up`` with the shipped regions while no request comes, by kind of process."""

import statistics
import time
from collections import defaultdict
from typing import Final

from regions.process import Process
from scripts.bench import usage
from scripts.bench.extra import Extra
from scripts.stack.own_stack import OwnStack
from scripts.terminal import Progress

SETTLE_SECONDS: Final = 20.0  # the sweep begins 15 s after the gateway
SECONDS: Final = 20.0
KINDS: Final = {"hub": "central Redis", "redis": "regions' Redis", "rabbitmq": "RabbitMQ", "store": "history"}


def run(progress: Progress, rounds: int) -> Extra:
    """Measures once each round, and takes medians."""
    stack = OwnStack("idle", progress=progress)
    try:
        stack.start()
        leaders = _leaders(stack)
        time.sleep(SETTLE_SECONDS)
        found: list[dict[str, float]] = []
        for number in range(rounds):
            progress.waiting(f"idle: {number + 1} of {rounds}")
            before = usage.cpu_ms(leaders)
            time.sleep(SECONDS)
            after = usage.cpu_ms(leaders)
            found.append({kind: (after[kind] - before[kind]) / SECONDS for kind in leaders})
    finally:
        stack.stop()
    total = statistics.median(sum(one.values()) for one in found)
    kinds = {kind: round(statistics.median(one[kind] for one in found), 1) for kind in leaders}
    shown = "   ".join(f"{kind} {ms:.1f}" for kind, ms in sorted(kinds.items(), key=lambda one: -one[1]) if ms >= 0.1)
    lines = [f"{total:.1f} ms of CPU a second, with {len(stack.regions)} regions", shown]
    figures = {"cpu_ms_per_second": round(total, 1), "by_kind": kinds}
    return Extra("an idle up", lines, figures)


def _leaders(stack: OwnStack) -> dict[str, list[int]]:
    """The processes that lead the groups of each kind of part."""
    found: dict[str, list[int]] = defaultdict(list)
    for part in ("supervisord", *stack.parts):
        process = Process.read(stack.data.pid_file(part))
        if process is not None:
            kind = part.partition("-")[0]
            found[KINDS.get(kind, kind)].append(process.pid)
    return found
