"""The clients, the same for every contender. They share one asyncio loop, so that they cost little.

    many    several clients at once; each posts a request of several sources, polls it until it is done, then posts the next
    alone   one client makes one synchronous call after another, on an idle machine
    check   checks every answer: the tasks, how they ended, and their records

Answers are stored as they came and checked after the measurement.
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
SOURCES: Final = 6  # in each request
SAMPLE_SECONDS: Final = 0.5
LATEST_SECONDS: Final = 120.0


class Wrong(RuntimeError):  # noqa: N818
    """An answer is not what was asked for, so the measurement does not count."""


class Busy(Wrong):
    """The answer was 503: nothing was accepted."""


class Call(NamedTuple):
    """One HTTP request."""

    method: str
    path: str
    body: bytes = b""
    headers: str = ""


class Result(NamedTuple):
    """The end of a task."""

    task: str
    status: str
    records: list[dict[str, Any]]


class Contender(Protocol):
    """A system that the clients ask over HTTP, and how. All contenders have the same clients."""

    port: int
    poll_seconds: float  # between two polls; 0 when a poll itself waits

    def post(self, row: Row, numbers: list[int]) -> Call:
        """The call that requests these pages."""

    def poll(self, accepted: bytes) -> Call:
        """The call that asks for the results of a post, given the answer to the post."""

    def done(self, answer: bytes) -> bool:
        """Whether the answer to a poll has all results."""

    def alone(self, row: Row, number: int) -> Call:
        """The synchronous call for one page."""

    def tasks(self, accepted: bytes) -> list[str]:
        """The ids of a post's tasks, in the order of its pages."""

    def results(self, answer: bytes) -> list[Result]:
        """The results in an answer."""


class Finished(NamedTuple):
    """A finished request: its time, its pages, the answer to its post (empty for a synchronous call), the last answer."""

    at: float
    numbers: list[int]
    accepted: bytes
    answer: bytes


class Window(Struct):
    """What was measured while the clock ran."""

    seconds: float
    jobs: int
    finished: list[Finished]


class Connection:
    """A client's persistent connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, call: Call, *expected: int) -> bytes:
        """The body of the answer. Raises ``Wrong`` for an unexpected status, ``Busy`` for a 503."""
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
    """A new connection, closed at the end of the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class Told(Struct):
    """The page server's counts: pages that it holds back at the moment, and pages served so far."""

    held: int
    served: int


class PageServer:
    """Asks the page server for its counts."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def told(self, path: str = "/_held") -> Told:
        """The counts."""
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
    """Keeps the clients busy for ``seconds``, after ``warm_seconds`` that do not count. Follows every request to its end.

    ``sample`` is called now and then during the measurement, with the number of pages that the page server holds back. Raises
    an ExceptionGroup of ``Wrong``, also when the page server served more pages than were requested.
    """
    finished: list[Finished] = []
    pages = PageServer(pages_port)
    before = await pages.told()
    over = time.monotonic() + warm_seconds + seconds

    async def follow(number: int) -> None:
        # Otherwise all pages of a row with a delay would end at once.
        await asyncio.sleep(row.delay_seconds * number / clients)
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
        ends_text = ", ".join(f"{count} {status}" for status, count in ends.most_common())
        raise Wrong(f"{row.name}: expected {asked} pages to be fetched, each once, found {served}; tasks: {ends_text}")
    jobs = sum(len(one.numbers) for one in finished if began < one.at <= ended)
    return Window(ended - began, jobs, finished)


async def polled(contender: Contender, connection: Connection, wanted: list[int], accepted: bytes) -> Finished:
    """Polls a posted request until it is done. Raises ``Wrong`` when it never is."""
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
    """The seconds of each synchronous call, without the first ones, which warm up."""
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
    """The number of answered tasks. Raises ``Wrong`` when one is not what was asked for."""
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
