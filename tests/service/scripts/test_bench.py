"""The parts of ``nearfetch bench`` against each other: the real page server, the bare loops, the clients' own HTTP."""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.definition.read import read
from jobs.page import Page
from jobs.parse.source import Source
from regions.process import Process
from scripts.bench import floor, interactive, rows, usage
from scripts.bench.interactive import FULL, Seen
from scripts.bench.load import Call, PageServer, Result, Wrong, connected
from scripts.bench.ours import page_server
from scripts.stack.ports import free_port
from scripts.stack.services import Running


@pytest.fixture
def pages(tmp_path: Path):
    port = free_port()
    running = Running(page_server(port, tmp_path)).start()
    yield port
    running.stop()


def get(port: int, *paths: str, expected: int = 200) -> list[bytes]:
    async def asking() -> list[bytes]:
        async with connected(port) as connection:
            return [await connection.ask(Call("GET", path), expected) for path in paths]

    return asyncio.run(asking())


@pytest.mark.parametrize("kind", ["tiny", "page"])
def test_a_definition_reads_of_the_page_server_what_a_hand_does(pages, tmp_path, kind):
    """So that contenders do the same work: ours by its definition, the others by hand."""
    file = tmp_path / f"{rows.source(kind)}.toml"
    file.write_text(dict(rows.definitions("fra"))[rows.source(kind)], encoding="utf-8")
    source = Source(read(file))
    request = source.first({"n": 41, "seconds": 0.0}, {})
    path = request.url.removeprefix(rows.ORIGIN)
    (body,) = get(pages, path)
    found = source.parse(Page(request, request.url, 200, {}, body))
    assert found.warnings == []
    assert [
        {key: value if isinstance(value, int | float) else str(value) for key, value in row.items()}
        for row in found.rows
    ] == (rows.records(kind, 41))
    assert rows.hand(kind)(body) == rows.records(kind, 41)


def test_pages_are_late_where_they_are_asked_to_be_and_held_until_the_release(pages):
    began = time.monotonic()
    get(pages, "/tiny?n=1&seconds=0.3")
    assert time.monotonic() - began >= 0.3

    async def holding() -> tuple[int, bytes]:
        server = PageServer(pages)
        async with connected(pages) as client, asyncio.timeout(60):
            await server.told("/_hold")
            asked = asyncio.create_task(client.ask(Call("GET", "/tiny?n=2&seconds=0.0"), 200))
            while not (await server.told()).held:
                assert not asked.done()
            await server.told("/_release")
            body = await asked
            return (await server.told()).held, body

    left, body = asyncio.run(holding())
    assert left == 0
    assert b"000000002" in body
    with pytest.raises(Wrong, match="expected \\(200,\\), found 404"):
        get(pages, "/nothing?n=1")


def test_bare_loops_fetch_what_they_say(pages):
    before = asyncio.run(PageServer(pages).told()).served
    found = floor.loop("page", pages, 0.2, 500)
    assert asyncio.run(PageServer(pages).told()).served - before == found["jobs"] + floor.WARM_JOBS
    assert found["jobs"] > 0
    assert found["seconds"] >= 0.2
    assert 0 < found["cpu_ms"] <= 1000 * found["seconds"] + 50


def test_cpu_of_a_group_has_that_of_children_that_ended():
    """A process that only waits for one that works."""
    code = "import subprocess, sys; input(); subprocess.run([sys.executable, '-c', 'sum(range(20_000_000))']); print('over', flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        before = usage.cpu_ms({"it": [process.pid], "nobody": []})
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "over\n"
        after = usage.cpu_ms({"it": [process.pid], "nobody": []})
        assert usage.members([process.pid]) == [process.pid]
        assert usage.memory_bytes([process.pid]) > 1_000_000
        process.communicate("\n")
    assert Process.of(process.pid) is None
    assert after["it"] - before["it"] > 100
    assert after["nobody"] == 0
    assert usage.memory_bytes([process.pid]) == 0


class Fetching:
    """A contender that fetches at once what is posted, and refuses some posts. ``twice``: it fetches the first page twice."""

    poll_seconds = 0.0

    def __init__(self, pages: int, *, refuses: int = 0, twice: bool = False) -> None:
        self.pages, self.refuses, self.twice = pages, refuses, twice
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            length = 0
            while (line := await reader.readline()) != b"\r\n":
                length = int(line.split()[1]) if line.startswith(b"Content-Length") else length
            asked = json.loads(await reader.readexactly(length)) if length else {}
            if asked and self.refuses:
                self.refuses -= 1
                writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
                continue
            if asked:
                answer = b",".join([await self.fetched(asked["kind"], number) for number in asked["numbers"]])
            else:
                answer = head.split()[1].removeprefix(b"/")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
        writer.close()

    async def fetched(self, kind: str, number: int) -> bytes:
        path = f"{rows.PATHS[kind]}?n={number}&seconds=0.0"
        async with connected(self.pages) as connection:
            body = await connection.ask(Call("GET", path), 200)
            if self.twice:
                self.twice = False
                await connection.ask(Call("GET", path), 200)
        assert rows.hand(kind)(body) == rows.records(kind, number)
        return f"{kind}-{number}".encode()

    def post(self, row: rows.Row, numbers: list[int]) -> Call:
        return Call("POST", "/", json.dumps({"kind": row.kind, "numbers": numbers}).encode())

    def alone(self, row: rows.Row, number: int) -> Call:
        return self.post(row, [number])

    def poll(self, accepted: bytes) -> Call:
        return Call("GET", f"/{accepted.decode()}")

    def done(self, answer: bytes) -> bool:
        return bool(answer)

    def tasks(self, accepted: bytes) -> list[str]:
        return accepted.decode().split(",")

    def results(self, answer: bytes) -> list[Result]:
        found = [(one, *one.split("-")) for one in self.tasks(answer)]
        return [Result(task, "succeeded", rows.records(kind, int(number))) for task, kind, number in found]


def beside(contender: Fetching, row: str) -> Seen:
    async def measuring() -> Seen:
        async with await asyncio.start_server(contender.serve, "127.0.0.1", 0) as server:
            contender.port = server.sockets[0].getsockname()[1]
            numbers, port = itertools.count(1), contender.pages
            return await interactive.beside(
                contender, contender, FULL[row], numbers, warm_seconds=0.2, seconds=2.0, pages_port=port
            )

    return asyncio.run(measuring())


def test_calls_beside_a_full_load_are_all_looked_at_and_refusals_counted(pages):
    contender = Fetching(pages, refuses=3)
    found = beside(contender, "interactive-tiny")
    found.check(contender, contender, FULL["interactive-tiny"])
    assert found.refused == 3
    assert len(found.took) == len(found.called) > 0
    assert len(found.posted) >= interactive.CONNECTIONS
    assert found.jobs_per_second > 0
    found.posted[0] = (found.posted[0][0], found.posted[1][1])
    with pytest.raises(Wrong, match="expected a new id for each task"):
        found.check(contender, contender, FULL["interactive-tiny"])


def test_a_page_that_is_fetched_twice_beside_the_load_ends_the_run(pages):
    with pytest.raises(Wrong, match=r"interactive-tiny: expected \d+ pages to be fetched, each once, found \d+"):
        beside(Fetching(pages, twice=True), "interactive-tiny")


def test_a_mixed_load_asks_for_each_kind_of_page(pages):
    contender = Fetching(pages)
    found = beside(contender, "interactive-mix")
    found.check(contender, contender, FULL["interactive-mix"])
    assert {kind.name for kind, _ in found.posted} == set(rows.ROWS)
