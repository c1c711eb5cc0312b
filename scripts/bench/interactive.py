"""Synchronous calls beside a full bulk load: one client makes one call after another while six keep 1,200 tasks open.

Each of the six has five connections, and on each a request of 40 tasks of one host: it posts the next one when all are done.
Answers with more tasks would be sent in chunks. The calls never ask for a late page, since its delay would hide what the
load costs; so late rows call the page without a delay. A post or a call that gets a 503 is counted, and made again.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from scripts.bench import load
from scripts.bench.load import Busy, Call, Contender, Finished, PageServer, Wrong, connected
from scripts.bench.rows import ROWS, Row

CONNECTIONS: Final = 30
TASKS: Final = 40  # in each request
BUSY_SECONDS: Final = 0.1  # before a refused post or call is made again


class Full(Struct, frozen=True):
    """A row: the kinds of pages that the load asks for, request by request in turn, and the page of the calls."""

    name: str
    title: str
    bulk: tuple[Row, ...]
    call: Row

    @property
    def delay_seconds(self) -> float:
        """The longest delay of a page."""
        return max(row.delay_seconds for row in self.bulk)


NAME: Final = "interactive"  # names all of these rows
FULL: Final = {
    row.name: row
    for row in (
        *(
            Full(f"{NAME}-{name}", row.title, (row,), ROWS["tiny" if name == "tiny" else "page"])
            for name, row in ROWS.items()
        ),
        Full(f"{NAME}-mix", "tiny answers and pages of 0 ms, 100 ms, 1 s in turn", tuple(ROWS.values()), ROWS["page"]),
    )
}


class Seen(Struct):
    """What was measured while the clock ran, and all answers, to be checked later. ``took`` is the seconds of each call."""

    took: list[float] = []
    called: list[Finished] = []
    posted: list[tuple[Row, Finished]] = []
    refused: int = 0
    jobs_per_second: float = 0.0

    def check(self, bulk: Contender, caller: Contender, row: Full) -> None:
        """Raises ``Wrong`` when an answer is not what was asked for."""
        load.check(caller, row.call, self.called)
        for kind in row.bulk:
            load.check(bulk, kind, [one for of, one in self.posted if of is kind])


async def beside(
    bulk: Contender,
    caller: Contender,
    row: Full,
    numbers: Iterator[int],
    *,
    warm_seconds: float,
    seconds: float,
    pages_port: int,
) -> Seen:
    """Keeps the load full, and makes the calls after ``warm_seconds``, for ``seconds``. Follows every request to its end.

    Raises an ExceptionGroup of ``Wrong``, also when the page server served other numbers of pages than were requested.
    """
    seen, pages = Seen(), PageServer(pages_port)
    before = (await pages.told()).served
    over = time.monotonic() + warm_seconds + seconds

    async def follow(number: int) -> None:
        # Spread out, since otherwise all late pages would come at once.
        await asyncio.sleep(row.delay_seconds * number / CONNECTIONS)
        async with connected(bulk.port) as connection:
            for turn in itertools.count(number):
                kind = row.bulk[turn % len(row.bulk)]
                wanted = list(itertools.islice(numbers, TASKS))
                accepted, _ = await _taken(seen, connection, bulk.post(kind, wanted))
                seen.posted.append((kind, await load.polled(bulk, connection, wanted, accepted)))
                if time.monotonic() >= over:
                    return

    async def call() -> None:
        await asyncio.sleep(warm_seconds)
        began, served = time.monotonic(), (await pages.told()).served
        async with connected(caller.port) as connection:
            while not seen.took or time.monotonic() < over:
                number = next(numbers)
                answer, seconds = await _taken(seen, connection, caller.alone(row.call, number))
                seen.took.append(seconds)
                seen.called.append(Finished(time.monotonic(), [number], b"", answer))
        jobs = (await pages.told()).served - served - len(seen.called)
        seen.jobs_per_second = jobs / (time.monotonic() - began)

    async with asyncio.TaskGroup() as group:
        group.create_task(call())
        for number in range(CONNECTIONS):
            group.create_task(follow(number))
    asked = len(seen.called) + sum(len(one.numbers) for _, one in seen.posted)
    fetched = (await pages.told()).served - before
    if fetched < asked or (fetched > asked and not seen.refused):  # pages of what was refused may have been fetched
        raise Wrong(f"{row.name}: expected {asked} pages to be fetched, each once, found {fetched}")
    return seen


async def _taken(seen: Seen, connection: load.Connection, asked: Call) -> tuple[bytes, float]:
    """The answer, and the seconds that it took. Asks again after a 503, which is counted."""
    while True:
        sent = time.monotonic()
        try:
            return await connection.ask(asked, 200, 202), time.monotonic() - sent
        except Busy:
            seen.refused += 1
            await asyncio.sleep(BUSY_SECONDS)
