"""What a tenant notices of another one's 10,000 bulk tasks in the same region, and of its own.

Each round has the same measurement, of one tenant's synchronous calls and its bulk requests of 100 tasks, in four settings:

    alone       nobody else asks
    own         its own 10,000 tasks are open
    capped      another tenant's are, whose key has the default limit of open tasks: 429 keeps the rest outside
    uncapped    the same without a limit, as a key had it before there was a default

The load is kept up during the measurement. All of it is followed to its end, and the answers to the measured calls are checked.
"""

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import redis
from msgspec import Struct

from regions import connect, names
from regions.settings import PREFIX
from scripts.bench import load
from scripts.bench.extra import Extra
from scripts.bench.figures import Alone
from scripts.bench.load import Busy, Call, Connection, Finished, Result, Wrong, connected
from scripts.bench.ours import REGION, Ours, alone, body
from scripts.bench.rows import ROWS, Row
from scripts.bench.run import done
from scripts.terminal import Progress
from web.hub import keys
from web.hub.keys import OPEN_TASKS, Key, KeyLimits

ROW: Final = ROWS["tiny"]
TASKS: Final = 10_000
OF_A_REQUEST: Final = 100
CALLS: Final = 300
BULKS: Final = 5
PRESSERS: Final = 8
LOOK_SECONDS: Final = 0.05
TRIES: Final = 10
KNOWN_SECONDS: Final = 10.0
DRAIN_SECONDS: Final = 300.0
LOAD_DEADLINE_SECONDS: Final = 300
SETTINGS: Final = {f"{PREFIX}GATEWAY__KEYS": "true"}


class Tenant:
    """Our stack as the clients of one key ask it."""

    poll_seconds = 0.0

    def __init__(self, ours: Ours, tenant: str, limits: KeyLimits) -> None:
        """Makes the key."""
        secret = keys.new_secret()
        hub = ours.stack.redis("hub")
        made = Key(
            id=keys.new_id(),
            name="bench",
            tenant=tenant,
            scopes=("read", "submit"),
            digest=keys.digest_of(secret),
            created_ms=connect.redis_now_ms(hub),
            limits=limits,
        )
        keys.write(hub, [made])
        self._ours, self.port = ours, ours.port
        self._head = f"Authorization: Bearer {keys.text_of(made.id, secret)}\r\n"

    def post(self, row: Row, numbers: list[int]) -> Call:
        """The call that requests these pages."""
        return self._signed(self._ours.post(row, numbers))

    def poll(self, accepted: bytes) -> Call:
        """A long poll until the request is done."""
        return self._signed(self._ours.poll(accepted))

    def alone(self, row: Row, number: int) -> Call:
        """The synchronous call for one page."""
        return self._signed(self._ours.alone(row, number))

    def burden(self, numbers: list[int]) -> Call:
        """A post whose tasks may wait for long."""
        return self._signed(Call("POST", "/v1/requests", body(ROW, numbers, LOAD_DEADLINE_SECONDS)))

    def done(self, answer: bytes) -> bool:
        """Whether the answer to a poll has all results."""
        return self._ours.done(answer)

    def tasks(self, accepted: bytes) -> list[str]:
        """The ids of a post's tasks."""
        return self._ours.tasks(accepted)

    def results(self, answer: bytes) -> list[Result]:
        """The results in an answer."""
        return self._ours.results(answer)

    def _signed(self, call: Call) -> Call:
        return call._replace(headers=call.headers + self._head)


class Found(Struct):
    """The figures of one setting. ``before``: open tasks when the measurement began."""

    calls: Alone
    bulk_seconds: float
    before: int


def run(progress: Progress, rounds: int) -> Extra:
    """Measures in rounds. Raises ``Wrong``."""
    numbers = itertools.count(1)
    found: dict[str, list[Found]] = {}
    with alone(progress, SETTINGS) as (ours, _):
        bank = Tenant(ours, "bank", KeyLimits())
        settings = {
            "alone": None,
            "beside its own load": bank,
            f"beside another's, capped at {OPEN_TASKS:,}": Tenant(ours, "shop", KeyLimits(open_tasks=OPEN_TASKS)),
            "beside another's without a cap": Tenant(ours, "shop", KeyLimits()),
        }
        done(_known(settings.values()))
        for number in range(rounds):
            for name, other in settings.items():
                progress.waiting(f"tenants, round {number + 1} of {rounds}: {name}")
                found.setdefault(name, []).append(done(_measure(ours, bank, other, numbers)))
    lines = [_line(name, seen) for name, seen in found.items()]
    figures = {
        name: [{"p50_ms": one.calls.p50, "p99_ms": one.calls.p99, "bulk_seconds": one.bulk_seconds, "before": one.before} for one in seen]
        for name, seen in found.items()
    }  # fmt: skip
    return Extra(f"one tenant beside {TASKS:,} tasks of another", lines, figures)


def _line(name: str, seen: list[Found]) -> str:
    p50, p99 = (statistics.median(getattr(one.calls, of) for one in seen) for of in ("p50", "p99"))
    bulk = statistics.median(one.bulk_seconds for one in seen)
    before = max(one.before for one in seen)
    return f"{name:<34} call p50 {p50:.1f} ms, p99 {p99:.1f} ms; {OF_A_REQUEST} tasks in {bulk:.2f} s; {before:,} open before"


async def _known(tenants: Any) -> None:
    """Until the gateway knows the keys, which it reads each second."""
    late = time.monotonic() + KNOWN_SECONDS
    async with connected(next(one for one in tenants if one is not None).port) as connection:
        for one in filter(None, tenants):
            while True:
                try:
                    await connection.ask(one._signed(Call("GET", "/v1/sources")), 200)  # noqa: SLF001
                    break
                except Wrong:
                    if time.monotonic() > late:
                        raise
                    await asyncio.sleep(LOOK_SECONDS)


async def _measure(ours: Ours, tenant: Tenant, other: Tenant | None, numbers: Iterator[int]) -> Found:
    async with _burdened(ours, other, numbers):
        before = _open(ours)
        took: list[float] = []
        called: list[Finished] = []
        bulks: list[tuple[float, Finished]] = []
        async with connected(tenant.port) as connection:
            for number in itertools.islice(numbers, CALLS):
                answer, seconds = await _asked(connection, tenant.alone(ROW, number), 200)
                took.append(seconds)
                called.append(Finished(time.monotonic(), [number], b"", answer))
            for _ in range(BULKS):
                wanted, began = list(itertools.islice(numbers, OF_A_REQUEST)), time.monotonic()
                accepted, _ = await _asked(connection, tenant.post(ROW, wanted), 202)
                bulks.append((began, await load.polled(tenant, connection, wanted, accepted)))
    load.check(tenant, ROW, [*called, *(one for _, one in bulks)])
    return Found(Alone.of(took), statistics.median(one.at - began for began, one in bulks), before)


@asynccontextmanager
async def _burdened(ours: Ours, by: Tenant | None, numbers: Iterator[int]) -> AsyncIterator[None]:
    """Keeps 10,000 tasks of a tenant open, or as many as its key may have, and waits for the last one in the end."""
    if by is None:
        yield
        return
    is_over, is_full = asyncio.Event(), asyncio.Event()

    async def press() -> None:
        async with connected(by.port) as connection:
            while not is_over.is_set():
                if _open(ours) >= TASKS:
                    is_full.set()
                    await asyncio.sleep(LOOK_SECONDS)
                    continue
                try:
                    answer = await connection.ask(by.burden(list(itertools.islice(numbers, OF_A_REQUEST))), 202, 429)
                except Busy:
                    await asyncio.sleep(LOOK_SECONDS)
                    continue
                if json.loads(answer).get("limit"):
                    is_full.set()
                    await asyncio.sleep(LOOK_SECONDS)

    async with asyncio.TaskGroup() as group:
        for _ in range(PRESSERS):
            group.create_task(press())
        await is_full.wait()
        yield
        is_over.set()
    late = time.monotonic() + DRAIN_SECONDS
    while left := _open(ours):
        if time.monotonic() > late:
            raise Wrong(f"expected the load to end within {DRAIN_SECONDS:.0f} s, found {left} open tasks")
        await asyncio.sleep(LOOK_SECONDS)


async def _asked(connection: Connection, call: Call, expected: int) -> tuple[bytes, float]:
    """The answer to a post and the seconds that it took. It is made again after a 503, of a machine that is too full."""
    while True:
        sent = time.monotonic()
        try:
            return await connection.ask(call, expected), time.monotonic() - sent
        except Busy:
            await asyncio.sleep(LOOK_SECONDS)


def _open(ours: Ours) -> int:
    """The tasks that wait or run; asked again where a full machine keeps the hub from answering in time."""
    for tries in range(TRIES):
        try:
            return int(ours.stack.redis("hub").zcard(names.open_tasks(REGION)))
        except redis.exceptions.TimeoutError:
            if tries == TRIES - 1:
                raise
    raise AssertionError
