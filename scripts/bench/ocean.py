"""What an ocean between hub and region costs: synchronous calls, jobs/s, and the way home after an outage.

One stack of one region is behind links (scripts.stack.distance) for the whole run. Their round trip is set to each distance in
turn, 0 among them, which is the twin of all others.

    calls    synchronous, one after another, of the tiny answer; first those to a new gateway, a new bridge and new workers
    load     1,200 tiny answers asked for at any time (scripts.bench.interactive), so that the round trip alone does not limit them
    home     the way to the hub's Redis is cut while 10,000 tasks finish, and heals when the last result is in the outbox
"""

import itertools
import signal
import statistics
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from regions import connect, names
from scripts.bench import interactive, load
from scripts.bench.extra import Extra
from scripts.bench.figures import percentile
from scripts.bench.interactive import FULL
from scripts.bench.load import Call, Finished, Wrong, connected
from scripts.bench.ours import REGION, Ours, alone, body
from scripts.bench.rows import ROWS
from scripts.bench.run import done
from scripts.stack import distance
from scripts.stack.distance import Distance
from scripts.stack.probes import answers
from scripts.stack.wan_links import Control
from scripts.terminal import Progress, size

DISTANCES_MS: Final = (0.0, 20.0, 80.0, 220.0)
FAR_MS: Final = 220.0
CALLS: Final = 60
SECONDS: Final = 15.0
WARM_SECONDS: Final = 5.0
RESULTS: Final = 10_000
A_REQUEST: Final = 100
DEADLINE_SECONDS: Final = 300.0
LATEST_SECONDS: Final = 90.0
LOOK_SECONDS: Final = 0.05
ROW: Final = ROWS["tiny"]
LINKS: Final = tuple(distance.link(REGION, server) for server in (distance.RABBITMQ, distance.REDIS))


class Calls(Struct, frozen=True):
    """Milliseconds of synchronous calls; ``first``: of the first two to new parts."""

    first: tuple[float, float]
    p50: float
    p95: float
    most: float


class Load(Struct, frozen=True):
    """Jobs/s under a full load, and the median of the synchronous calls beside it in ms."""

    jobs_per_second: float
    call_p50: float


class Home(Struct, frozen=True):
    """Seconds after an outage until the hub had all results, and until all tasks had ended; and the bytes of the way there."""

    arrived: float
    settled: float
    link_bytes: int


class Ocean:
    """The stack behind its links."""

    def __init__(self, ours: Ours) -> None:
        self.ours = ours
        wan = ours.stack.ports.wan
        assert wan is not None
        self._control = Control(wan.control)
        self._numbers = itertools.count(1)
        self._hub, self._region = ours.stack.redis("hub"), ours.stack.redis(f"redis-{REGION}")

    def move(self, rtt_ms: float) -> None:
        """Moves the region."""
        for name in LINKS:
            self._control.rule(name, Distance(rtt_ms).rule)

    def calls(self) -> Calls:
        """Synchronous calls to new parts, and to those that are no longer new."""
        self._renew()
        first, seen = done(self._first())
        load.check(self.ours, ROW, seen)
        took, seen = done(load.alone(self.ours, ROW, self._numbers, calls=CALLS))
        load.check(self.ours, ROW, seen)
        return Calls(first, 1000 * percentile(took, 0.5), 1000 * percentile(took, 0.95), 1000 * max(took))

    def load(self, pages_port: int) -> Load:
        """A full load, and synchronous calls beside it."""
        seen = done(
            interactive.beside(
                self.ours,
                self.ours,
                FULL[f"{interactive.NAME}-{ROW.name}"],
                self._numbers,
                warm_seconds=WARM_SECONDS,
                seconds=SECONDS,
                pages_port=pages_port,
            )
        )
        seen.check(self.ours, self.ours, FULL[f"{interactive.NAME}-{ROW.name}"])
        return Load(seen.jobs_per_second, 1000 * percentile(seen.took, 0.5))

    def home(self, rtt_ms: float) -> Home:
        """Cuts the way home while tasks finish, heals it, and waits until all are there. Raises ``Wrong``."""
        self.move(rtt_ms)
        link = LINKS[1]
        self._control.rule(link, msgspec.structs.replace(Distance(rtt_ms).rule, accepts=False))
        self._control.cut(link)
        wanted = [list(itertools.islice(self._numbers, A_REQUEST)) for _ in range(RESULTS // A_REQUEST)]
        posted = done(self._post(wanted))
        _until(lambda: int(self._region.xlen(names.OUTBOX)) >= RESULTS, "every result to be in the outbox")
        before, bytes_before = self._added(), self._control.counts(link).there
        healed = time.monotonic()
        self._control.rule(link, Distance(rtt_ms).rule)
        _until(lambda: self._added() - before >= RESULTS, "every result to be at the hub")
        arrived = time.monotonic() - healed
        finished = done(self._follow(wanted, posted))
        settled = time.monotonic() - healed
        load.check(self.ours, ROW, finished)
        return Home(arrived, settled, self._control.counts(link).there - bytes_before)

    def close(self) -> None:
        """Closes the control connection."""
        self._control.close()

    def _added(self) -> int:
        """The number of entries that the region's out stream has got since its start."""
        found: dict[str, Any] = self._hub.xinfo_stream(names.out_stream(REGION))
        return int(found["entries-added"])

    def _renew(self) -> None:
        """Replaces the gateway, the bridge and the workers, and waits until the new ones are ready.

        Each worker process must be: one that still starts takes a processor from the others.
        """
        stack, parts = self.ours.stack, ("gateway", f"bridge-{REGION}", f"workers-{REGION}")
        old, pids = self._workers(), [stack.pid(part) for part in parts]
        for part in parts:
            stack.signal(part, signal.SIGKILL)  # the supervisor starts it again
        _until(lambda: all(stack.pid(part) not in (0, pid) for part, pid in zip(parts, pids, strict=True)), "new parts")
        not_ready = answers(self.ours.port, "/readyz")
        wanted = 1 + stack.settings.region[REGION].scale.min  # one for urgent tasks
        _until(
            lambda: not not_ready() and len(self._workers() - old) >= wanted and self._consumes(),
            "the new parts to be ready",
        )

    def _workers(self) -> set[str]:
        """The living worker processes that have their connections to the hub."""
        keys: Any = self._region.sunion([names.rq_workers_of(of) for of in (REGION, names.urgent(REGION))])
        workers = {names.worker_of(key.decode()) for key in keys}
        clients: Any = self._hub.client_list()
        return {
            one
            for one in workers
            if self._region.exists(names.lease(one)) and sum(of["name"] == one for of in clients) > 1
        }

    def _consumes(self) -> bool:
        """Whether a bridge takes urgent tasks."""
        with connect.open_broker(connect.amqp_parameters(self.ours.stack.broker.url, name="bench")) as connection:
            found = connection.channel().queue_declare(names.fast_queue(REGION), passive=True)
            return int(found.method.consumer_count) == 1

    async def _first(self) -> tuple[tuple[float, float], list[Finished]]:
        took, seen = [], []
        async with connected(self.ours.port) as connection:
            for number in itertools.islice(self._numbers, 2):
                asked, began = self.ours.alone(ROW, number), time.monotonic()
                seen.append(Finished(0.0, [number], b"", await connection.ask(asked, 200)))
                took.append(1000 * (time.monotonic() - began))
        return (took[0], took[1]), seen

    async def _post(self, wanted: list[list[int]]) -> list[bytes]:
        async with connected(self.ours.port) as connection:
            return [
                await connection.ask(Call("POST", "/v1/requests", body(ROW, numbers, DEADLINE_SECONDS)), 202)
                for numbers in wanted
            ]

    async def _follow(self, wanted: list[list[int]], posted: list[bytes]) -> list[Finished]:
        async with connected(self.ours.port) as connection:
            return [
                await load.polled(self.ours, connection, numbers, accepted)
                for numbers, accepted in zip(wanted, posted, strict=True)
            ]


def run(progress: Progress, rounds: int) -> Extra:
    """Measures in rounds. Raises ``Wrong``."""
    calls: dict[float, list[Calls]] = {far: [] for far in DISTANCES_MS}
    rates: list[tuple[Load, Load]] = []
    homes: list[Home] = []
    with alone(progress, wan=f"{REGION}=0") as (ours, pages_port):
        ocean = Ocean(ours)
        try:
            for number in range(rounds):
                for far in DISTANCES_MS:
                    progress.waiting(f"an ocean, round {number + 1} of {rounds}: calls across {far:g} ms")
                    ocean.move(far)
                    calls[far].append(ocean.calls())
                both = {}
                for far in (0.0, FAR_MS) if number % 2 == 0 else (FAR_MS, 0.0):
                    progress.waiting(f"an ocean, round {number + 1} of {rounds}: load across {far:g} ms")
                    ocean.move(far)
                    both[far] = ocean.load(pages_port)
                rates.append((both[0.0], both[FAR_MS]))
                progress.waiting(f"an ocean, round {number + 1} of {rounds}: results after an outage")
                homes.append(ocean.home(FAR_MS))
        finally:
            ocean.close()
    return Extra("an ocean between hub and region", list(_lines(calls, rates, homes)), _figures(calls, rates, homes))


def _lines(calls: dict[float, list[Calls]], rates: list[tuple[Load, Load]], homes: list[Home]) -> Iterator[str]:
    for far, found in calls.items():
        p50, p95, most = (statistics.median(getattr(one, name) for one in found) for name in ("p50", "p95", "most"))
        first = max(max(one.first) for one in found)
        yield (
            f"round trip {far:g} ms: a synchronous call takes {p50:.1f} ms (p50), {p95:.1f} (p95), {most:.1f} at most, "
            f"{first:.1f} as one of the first two to new parts; the bound is {1.05 * far + 10:.1f}"
        )
    ratios = [there.jobs_per_second / near.jobs_per_second for near, there in rates]
    near, there = (statistics.median(one.call_p50 for one in found) for found in zip(*rates, strict=True))
    yield (
        f"round trip {FAR_MS:g} ms: {statistics.median(ratios):.3f} of the jobs/s without it ({min(ratios):.3f} to "
        f"{max(ratios):.3f}), which are {statistics.median(one.jobs_per_second for one, _ in rates):.0f}; a synchronous call beside "
        f"them takes {there:.1f} ms (p50), {near:.1f} without it"
    )
    arrived, settled = (statistics.median(getattr(one, name) for one in homes) for name in ("arrived", "settled"))
    worst = max(one.arrived for one in homes)
    yield (
        f"{RESULTS:,} results after an outage, across {FAR_MS:g} ms: at the hub after {arrived:.1f} s ({worst:.1f} at most), "
        f"all tasks ended after {settled:.1f} s; {size(max(one.link_bytes for one in homes))} crossed the link"
    )


def _figures(calls: dict[float, list[Calls]], rates: list[tuple[Load, Load]], homes: list[Home]) -> dict[str, Any]:
    return {
        "calls_ms": {
            f"{far:g}": [{"first": list(one.first), "p50": one.p50, "p95": one.p95, "most": one.most} for one in found]
            for far, found in calls.items()
        },
        "load": [
            {f"{far:g}": {"jobs_per_second": one.jobs_per_second, "call_p50_ms": one.call_p50} for far, one in both}
            for both in (zip((0.0, FAR_MS), pair, strict=True) for pair in rates)
        ],
        "home": [
            {"arrived_seconds": one.arrived, "settled_seconds": one.settled, "link_bytes": one.link_bytes}
            for one in homes
        ],
    }


def _until(is_so: Any, what: str) -> None:
    deadline = time.monotonic() + LATEST_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise Wrong(f"wan: expected {what} within {LATEST_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)
