"""The clients: one asyncio loop, so that they cost little, the same for every contender.

    many    some clients at once, each posts a request of several sources and polls it until it is done, then the next
    alone   one client, one synchronous call after another, on an idle machine
    check   every answer: which tasks, what became of them, their records

Answers are kept as they came and looked at when the clock has stopped.
"""

import asyncio
import contextlib
import http.client
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from scripts.bench import rows
from scripts.bench.rows import Row

CLIENTS: Final = 32
SOURCES: Final = 6  # of a request
SAMPLE_SECONDS: Final = 0.5
LATEST_SECONDS: Final = 120.0


class Wrong(RuntimeError):  # noqa: N818
    """An answer that is not what was asked for; nothing that was measured with it counts."""


class Busy(Wrong):
    """503: nothing was accepted."""


class Call(NamedTuple):
    """One HTTP request."""

    method: str
    path: str
    body: bytes = b""
    headers: str = ""


class Result(NamedTuple):
    """What became of a task."""

    task: str
    status: str
    records: list[dict[str, Any]]


class Contender(Protocol):
    """Who is asked over HTTP, and how: both contenders have the same clients."""

    port: int
    poll_seconds: float  # between two polls; 0 where a poll waits by itself

    def post(self, row: Row, numbers: list[int]) -> Call:
        """A request of these pages."""

    def poll(self, accepted: bytes) -> Call:
        """How what it answered to a post is asked for."""

    def done(self, answer: bytes) -> bool:
        """Whether a poll has all of it."""

    def alone(self, row: Row, number: int) -> Call:
        """A synchronous call."""

    def tasks(self, accepted: bytes) -> list[str]:
        """The ids that a post got, in the order of its pages."""

    def results(self, answer: bytes) -> list[Result]:
        """What an answer tells."""


class Finished(NamedTuple):
    """A request that came to its end: when, what it asked for, what its post got (nothing where it was synchronous), what it got."""

    at: float
    numbers: list[int]
    accepted: bytes
    answer: bytes


class Window(Struct):
    """What was seen while the clock ran."""

    seconds: float
    jobs: int
    finished: list[Finished]


class Connection:
    """A client's connection; it is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, call: Call, *expected: int) -> bytes:
        """The body of the answer; raises ``Wrong`` where the status is not expected, ``Busy`` where it is 503."""
        kind = "Content-Type: application/json\r\n" if call.body else ""
        head = f"{call.method} {call.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}{call.headers}Content-Length: {len(call.body)}\r\n\r\n"
        self._writer.write(head.encode() + call.body)
        async with asyncio.timeout(LATEST_SECONDS):
            answer = await self._reader.readuntil(b"\r\n\r\n")
            lines = answer.decode("latin-1").lower().split("\r\n")
            lengths = [line.partition(":")[2] for line in lines if line.startswith("content-length:")]
            if not lengths:
                raise Wrong(f"{call.method} {call.path}: expected a Content-Length, found {lines}")
            body = await self._reader.readexactly(int(lengths[0]))
        status = int(lines[0].split()[1])
        if status not in expected:
            kind_of = Busy if status == http.client.SERVICE_UNAVAILABLE else Wrong
            raise kind_of(f"{call.method} {call.path}: expected {expected}, found {status}: {body[:500]!r}")
        return body


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """A new connection, until the end of the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class Told(Struct):
    """What the page server says: pages that are late at this moment, and all that it served."""

    held: int
    served: int


class PageServer:
    """The page server, asked about itself."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def told(self, path: str = "/_held") -> Told:
        """What it says."""
        async with connected(self._port) as connection:
            body = await connection.ask(Call("GET", path), 200)
        return msgspec.json.decode(body, type=Told)


async def many(
    contender: Contender,
    row: Row,
    numbers: Iterator[int],
    *,
    warm_seconds: float,
    seconds: float,
    pages_port: int,
    sample: Callable[[int], None] | None = None,
    clients: int = CLIENTS,
) -> Window:
    """Asks for ``seconds``, after ``warm_seconds`` that do not count; every request is followed to its end.

    ``sample`` is called now and then while the clock runs, with the number of pages that the page server holds. Raises
    ExceptionGroup of ``Wrong``, also where it served more pages than were asked for.
    """
    finished: list[Finished] = []
    pages = PageServer(pages_port)
    before = await pages.told()
    over = time.monotonic() + warm_seconds + seconds

    async def follow(number: int) -> None:
        await asyncio.sleep(row.delay_seconds * number / clients)  # else all pages of a slow row end at once
        async with connected(contender.port) as connection:
            while time.monotonic() < over:
                wanted = list(itertools.islice(numbers, SOURCES))
                accepted = await connection.ask(contender.post(row, wanted), 200, 202)
                finished.append(await polled(contender, connection, wanted, accepted))

    async def watch() -> tuple[float, float]:
        await asyncio.sleep(warm_seconds)
        began = time.monotonic()
        while sample is not None and time.monotonic() < over - SAMPLE_SECONDS:
            await asyncio.sleep(SAMPLE_SECONDS)
            sample((await pages.told()).held)
        await asyncio.sleep(max(0.0, over - time.monotonic()))
        return began, time.monotonic()

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        for number in range(clients):
            group.create_task(follow(number))
    began, ended = watching.result()
    asked, served = sum(len(one.numbers) for one in finished), (await pages.told()).served - before.served
    if asked != served:
        ends = Counter(result.status for one in finished for result in contender.results(one.answer))
        told = ", ".join(f"{count} {status}" for status, count in ends.most_common())
        raise Wrong(f"{row.name}: expected {asked} pages to be fetched, each once, found {served}; tasks: {told}")
    jobs = sum(len(one.numbers) for one in finished if began < one.at <= ended)
    return Window(ended - began, jobs, finished)


async def polled(contender: Contender, connection: Connection, wanted: list[int], accepted: bytes) -> Finished:
    """A request that was posted, when it is done; raises ``Wrong`` where it never is."""
    call, answer, late = contender.poll(accepted), b"", time.monotonic() + LATEST_SECONDS
    while not answer or not contender.done(answer):
        if time.monotonic() > late:
            raise Wrong(f"expected {call.path} to be done after {LATEST_SECONDS:.0f} s, found {answer[:300]!r}")
        if contender.poll_seconds:
            await asyncio.sleep(contender.poll_seconds)
        answer = await connection.ask(call, 200)
    return Finished(time.monotonic(), wanted, accepted, answer)


async def alone(
    contender: Contender, row: Row, numbers: Iterator[int], *, calls: int
) -> tuple[list[float], list[Finished]]:
    """Seconds that each synchronous call took; the first ones, which warm up, are not among them."""
    took, finished = [], []
    warm = min(10, calls // 4)
    async with connected(contender.port) as connection:
        for call in range(warm + calls):
            number = next(numbers)
            asked = contender.alone(row, number)
            began = time.monotonic()
            answer = await connection.ask(asked, 200)
            ended = time.monotonic()
            finished.append(Finished(ended, [number], b"", answer))
            if call >= warm:
                took.append(ended - began)
    return took, finished


def check(contender: Contender, row: Row, finished: list[Finished]) -> int:
    """How many tasks were answered; raises ``Wrong`` where one is not what was asked for."""
    seen: set[str] = set()
    for one in finished:
        results = contender.results(one.answer)
        tasks = contender.tasks(one.accepted) if one.accepted else [result.task for result in results]
        if sorted(tasks) != sorted(result.task for result in results) or len(tasks) != len(one.numbers):
            raise Wrong(f"{row.name}: expected the tasks {tasks}, found {[result.task for result in results]}")
        if seen.intersection(tasks):
            raise Wrong(f"{row.name}: expected a new id for each task, found {seen.intersection(tasks)} again")
        seen.update(tasks)
        by_task = {result.task: result for result in results}
        for task, number in zip(tasks, one.numbers, strict=True):
            result = by_task[task]
            if result.status != "succeeded":
                raise Wrong(f"{row.name}: task {task} of page {number}: expected succeeded, found {result.status}")
            if result.records != rows.records(row.kind, number):
                raise Wrong(
                    f"{row.name}: task {task}: expected the records of page {number}, found {result.records[:1]}…"
                )
    return len(seen)
