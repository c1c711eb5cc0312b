"""Whether a host keeps its speed while 10,000 tasks ask for a slow host in the same region.

Each round has two windows with the same few clients of one host: alone, and beside requests for the slow host, which are
spread over the window. Of the slow host's tasks a few run, a thousand wait, and the rest is refused at once, since no turn
would come in time. They are cancelled at the end of the window. The load leaves the machine idle half of the time, so
this compares what a region gives to a host, not what a full machine can do.
"""

import asyncio
import itertools
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from scripts.bench import load, rows
from scripts.bench.extra import Extra
from scripts.bench.load import Busy, Call, Window, Wrong, connected
from scripts.bench.ours import REGION, Ours, alone, page_server
from scripts.bench.rows import Row
from scripts.bench.run import done
from scripts.stack.ports import free_port
from scripts.stack.services import Running
from scripts.terminal import Progress

ROW: Final = Row("tiny-100ms", "tiny answer, 100 ms", "tiny", 0.1)
SLOW: Final = Row("slow", "tiny answer, 1 s, of a slow host", "slow", 1.0)
SLOW_ORIGIN: Final = "https://slow.example"
CLIENTS: Final = 2  # with six sources in each request
TASKS: Final = 10_000
OF_A_REQUEST: Final = 100
SECONDS: Final = 40.0
WARM_SECONDS: Final = 4.0
DEADLINE_SECONDS: Final = 300
KNOWN_SECONDS: Final = 30.0


def run(progress: Progress, rounds: int) -> Extra:
    """Measures in rounds. Raises ``Wrong``."""
    numbers = itertools.count(1)
    ratios: list[float] = []
    rates: list[tuple[float, float]] = []
    became: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="nearfetch-bench-slow-") as folder:
        port = free_port()
        pages = Running(page_server(port, Path(folder))).start()
        try:
            with alone(progress, others={SLOW_ORIGIN: port}) as (ours, pages_port):
                done(_make_known(ours))
                for number in range(rounds):
                    progress.waiting(f"a slow neighbour, round {number + 1} of {rounds}: without it")
                    before = done(_window(ours, numbers, pages_port))
                    progress.waiting(f"a slow neighbour, round {number + 1} of {rounds}: {TASKS:,} tasks for it")
                    beside, ends = done(_beside(ours, numbers, pages_port))
                    became += ends
                    rates.append((before.jobs / before.seconds, beside.jobs / beside.seconds))
                    ratios.append(rates[-1][1] / rates[-1][0])
        finally:
            pages.stop()
    ends_text = ", ".join(f"{count:,} {what}" for what, count in became.most_common())
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    alone_rate = statistics.median(one for one, _ in rates)
    return Extra(
        f"a host's speed while {TASKS:,} tasks are asked of a slow one",
        [
            f"{statistics.median(ratios):.3f} times its speed without them ({spread}), {alone_rate:.0f} jobs/s",
            f"the slow host's tasks: {ends_text}",
        ],
        {"ratios": ratios, "jobs_per_second": rates, "slow_tasks": dict(became)},
    )


def definition() -> str:
    """The definition of the slow host's source, with the default concurrency."""
    text = rows.TINY.replace(rows.ORIGIN, SLOW_ORIGIN)
    top, rest, fields = text.partition("[rows]")
    return f"{top}{rows.SOURCE.format(region=REGION).lstrip().replace('concurrency = 1024', '')}{rest}{fields}"


async def _make_known(ours: Ours) -> None:
    """Adds the slow host's source to the stack, and waits until its page was fetched once."""
    (ours.stack.sources / f"{rows.source(SLOW.kind)}.toml").write_text(definition(), encoding="utf-8")
    give_up = time.monotonic() + KNOWN_SECONDS
    async with connected(ours.port) as connection:
        while True:
            try:
                answer = await connection.ask(ours.alone(SLOW, 0), 200)
                if ours.results(answer)[0].status == "succeeded":
                    return
            except Wrong:
                if time.monotonic() > give_up:
                    raise
            await asyncio.sleep(0.2)


async def _window(ours: Ours, numbers: Iterator[int], pages_port: int) -> Window:
    found = await load.many(
        ours, ROW, numbers, warm_seconds=WARM_SECONDS, seconds=SECONDS, pages_port=pages_port, clients=CLIENTS
    )
    load.check(ours, ROW, found.finished)
    return found


async def _beside(ours: Ours, numbers: Iterator[int], pages_port: int) -> tuple[Window, Counter[str]]:
    """Measures the window while the slow host's tasks come, and counts how these ended. Raises ``Wrong`` unless each ended once."""
    asking = asyncio.create_task(_ask_slow(ours))
    found = await _window(ours, numbers, pages_port)
    requests = await asking
    ends: Counter[str] = Counter()
    seen: set[str] = set()
    async with connected(ours.port) as connection:
        for request in requests:
            await connection.ask(Call("DELETE", f"/v1/requests/{request}"), 200)
            answer = await connection.ask(Call("GET", f"/v1/requests/{request}?wait=10"), 200)
            for result in msgspec.json.decode(answer)["results"]:
                seen.add(result["task"])
                ends[(result["error"] or {"type": result["status"]})["type"]] += 1
    if len(seen) != TASKS or ends.total() != TASKS or ends.keys() - {"succeeded", "rate_limited", "cancelled"}:
        raise Wrong(f"expected each of {TASKS} slow tasks to succeed, or to be rate limited or cancelled, found {ends}")
    return found, ends


async def _ask_slow(ours: Ours) -> list[str]:
    """Posts the slow host's tasks evenly over the window. Returns the ids of the requests."""
    numbers = itertools.count(1)
    requests = []
    began, pause = time.monotonic() + WARM_SECONDS, SECONDS / (TASKS / OF_A_REQUEST)
    async with connected(ours.port) as connection:
        for number in range(TASKS // OF_A_REQUEST):
            await asyncio.sleep(max(0.0, began + number * pause - time.monotonic()))
            requests.append(await _post(connection, list(itertools.islice(numbers, OF_A_REQUEST))))
    return requests


async def _post(connection: load.Connection, wanted: list[int]) -> str:
    params: list[dict[str, Any]] = [{"n": number, "seconds": SLOW.delay_seconds} for number in wanted]
    sources = [{"source": rows.source(SLOW.kind), "params": one} for one in params]
    content = json.dumps({"sources": sources, "deadline": DEADLINE_SECONDS}).encode()
    while True:
        try:
            return str(msgspec.json.decode(await connection.ask(Call("POST", "/v1/requests", content), 202))["id"])
        except Busy:
            await asyncio.sleep(0.5)
