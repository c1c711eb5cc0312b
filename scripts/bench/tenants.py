"""What a tenant notices of another one's 10,000 bulk tasks in the same region, and of its own.

Each round has the same measurement, of one tenant's synchronous calls and of a bulk request of 100 tasks, in four settings:

    alone       nobody else asks
    own         its own 10,000 tasks are posted
    capped      another tenant's are, whose key has the default limit of open tasks: 429 keeps the rest outside until there is room
    uncapped    the same without a limit, as a key had it before there was a default

The load is posted as fast as the gateway takes it. The measurement begins when all of it is posted, or when its key
gets a 429, and the calls end with it. On a machine that is too slow for that, it begins with the tasks that are open
by then, whose number the line shows. All requests are followed to their end, and the answers to the measured calls
are checked. Each setting ends within ``SETTING_SECONDS``, or the row fails.
"""

import asyncio
import contextlib
import itertools
import json
import statistics
import time
from collections.abc import Coroutine, Iterator
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
CALLS: Final = 200  # in each setting, or as many as are answered while there is load
CALLS_MIN: Final = 20
PRESSERS: Final = 8
LOOK_SECONDS: Final = 0.05
# Until a post that got 429 is made again: Retry-After says 1, but the region must not run dry.
REFUSED_SECONDS: Final = 0.25
LOOK_CALLS: Final = 5
TRIES: Final = 10
KNOWN_SECONDS: Final = 20.0
FILL_SECONDS: Final = 20.0
CALLS_SECONDS: Final = 20.0
SETTING_SECONDS: Final = 170.0
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
    """The figures of one setting. ``before``: open tasks when the measurement began; ``rate``: how many ended a second meanwhile."""

    calls: Alone
    count: int
    bulk_seconds: float
    before: int
    rate: float


def run(progress: Progress, rounds: int) -> Extra:
    """Measures in rounds. Raises ``Wrong``."""
    numbers = itertools.count(1)
    found: dict[str, list[Found]] = {}
    with alone(progress, SETTINGS) as (ours, _):
        bank = Tenant(ours, "bank", KeyLimits())
        settings = {
            "alone": None,
            "beside its own": bank,
            f"beside another's, capped at {OPEN_TASKS:,}": Tenant(ours, "shop", KeyLimits(open_tasks=OPEN_TASKS)),
            "beside another's without a cap": Tenant(ours, "shop", KeyLimits()),
        }
        done(_known([bank, *settings.values()]))
        for number in range(rounds):
            for name, other in settings.items():
                progress.waiting(f"tenants, round {number + 1} of {rounds}: {name}")
                found.setdefault(name, []).append(done(_within(_measure(ours, bank, other, numbers), name)))
    lines = [_line(name, seen) for name, seen in found.items()]
    figures = {
        name: [
            {
                "p50_ms": one.calls.p50, "p99_ms": one.calls.p99, "calls": one.count, "bulk_seconds": one.bulk_seconds, "before": one.before,
                "ended_a_second": one.rate,
            }
            for one in seen
        ]
        for name, seen in found.items()
    }  # fmt: skip
    return Extra(f"one tenant beside {TASKS:,} tasks of another", lines, figures)


def _line(name: str, seen: list[Found]) -> str:
    """The medians of the rounds. Open tasks take ``before / rate`` seconds, for which a bulk request may wait."""
    p50, p99 = (statistics.median(getattr(one.calls, of) for one in seen) for of in ("p50", "p99"))
    bulk, before = (statistics.median(getattr(one, of) for one in seen) for of in ("bulk_seconds", "before"))
    took = statistics.median(one.before / one.rate if one.rate else 0.0 for one in seen)
    behind = f", behind {before:,.0f} open ones, which take {took:.2f} s" if before else ""
    count = sum(one.count for one in seen)
    return f"{name:<34} {count} calls, p50 {p50:.1f} ms, p99 {p99:.1f} ms; {OF_A_REQUEST} tasks in {bulk:.2f} s{behind}"


async def _within(measured: Coroutine[Any, Any, Found], name: str) -> Found:
    try:
        async with asyncio.timeout(SETTING_SECONDS):
            return await measured
    except TimeoutError:
        raise Wrong(f"expected {name!r} to end within {SETTING_SECONDS:.0f} s, which it did not") from None


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
    pressing = _Load(ours, other, numbers) if other is not None else None
    async with asyncio.TaskGroup() as group:
        if pressing is not None:
            await pressing.begin(group)
        before, began, ended = _open(ours), time.monotonic(), pressing.ended() if pressing is not None else 0
        wanted = list(itertools.islice(numbers, OF_A_REQUEST))
        bulk = group.create_task(_bulk(tenant, wanted))
        took, called = await _called(tenant, numbers, pressing)
        bulked = await bulk
        seconds = time.monotonic() - began
        rate = (pressing.ended() - ended) / seconds if pressing is not None else 0.0
        if pressing is not None:
            pressing.is_over = True
    await _drained(ours)
    load.check(tenant, ROW, [*called, bulked])
    return Found(Alone.of(took), len(took), bulked.at - began, before, rate)


async def _drained(ours: Ours) -> None:
    for _ in itertools.count():
        if not _open(ours):
            return
        await asyncio.sleep(LOOK_SECONDS)


async def _bulk(tenant: Tenant, wanted: list[int]) -> Finished:
    async with connected(tenant.port) as connection:
        accepted, _ = await _asked(connection, tenant.post(ROW, wanted), 202)
        return await load.polled(tenant, connection, wanted, accepted)


async def _called(
    tenant: Tenant, numbers: Iterator[int], pressing: "_Load | None"
) -> tuple[list[float], list[Finished]]:
    """The seconds of each call and its answer, one call after the other, for as long as there is load."""
    took: list[float] = []
    called: list[Finished] = []
    late = time.monotonic() + CALLS_SECONDS
    async with connected(tenant.port) as connection:
        for number in itertools.islice(numbers, CALLS):
            answer, seconds = await _asked(connection, tenant.alone(ROW, number), 200)
            took.append(seconds)
            called.append(Finished(time.monotonic(), [number], b"", answer))
            if len(took) < CALLS_MIN:
                continue
            is_look = pressing is not None and len(took) % LOOK_CALLS == 0
            if time.monotonic() > late or (is_look and pressing is not None and not pressing.is_left()):
                break
    return took, called


class _Load:
    """10,000 tasks of a tenant, of which as many are open as its key may have."""

    def __init__(self, ours: Ours, by: Tenant, numbers: Iterator[int]) -> None:
        self._ours, self._by, self._numbers = ours, by, numbers
        self._left = TASKS // OF_A_REQUEST  # requests that are not accepted yet
        self._accepted = 0
        self._is_posted = asyncio.Event()
        self.is_over = False

    async def begin(self, group: asyncio.TaskGroup) -> None:
        """Until all is posted, or the key may have no more, or the time is over."""
        for _ in range(PRESSERS):
            group.create_task(self._press())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_posted.wait(), FILL_SECONDS)

    def ended(self) -> int:
        """How many of its tasks have ended, about: what others have open counts as open."""
        return self._accepted * OF_A_REQUEST - _open(self._ours)

    def is_left(self) -> bool:
        """Whether much of it has not ended."""
        return self._left > 0 or _open(self._ours) > OF_A_REQUEST

    async def _press(self) -> None:
        async with connected(self._by.port) as connection:
            while self._left > 0 and not self.is_over:
                self._left -= 1
                try:
                    call = self._by.burden(list(itertools.islice(self._numbers, OF_A_REQUEST)))
                    answer = json.loads(await connection.ask(call, 202, 429))
                except Busy:
                    answer = {}
                if "id" in answer:
                    self._accepted += 1
                    continue
                self._left += 1
                if answer.get("limit"):
                    self._is_posted.set()
                await asyncio.sleep(REFUSED_SECONDS)
        if self._left <= 0:
            self._is_posted.set()


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
