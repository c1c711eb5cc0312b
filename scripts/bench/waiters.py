"""10,000 clients wait on one gateway process, half with event streams and half with long polls. Then all get news.

The page server holds every page back, so there is no news until it releases them. Meanwhile ``/healthz`` is called, for
longer than the 15 s after which each stream gets a comment. Then each client must hear of the very task that it waits for.
"""

import resource
import selectors
import socket
import time
from typing import Final

from scripts.bench import figures, usage
from scripts.bench.extra import Extra
from scripts.bench.load import Call, PageServer, Wrong, connected
from scripts.bench.ours import Ours, alone
from scripts.bench.rows import ROWS
from scripts.bench.run import done
from scripts.terminal import Progress, size

WAITERS: Final = 10_000
REQUESTS: Final = 100
CALM_SECONDS: Final = 3.0
HEALTH_SECONDS: Final = 20.0
HEALTH_PAUSE_SECONDS: Final = 0.02
NEWS_SECONDS: Final = 30.0
FILES_SPARE: Final = 500


class Waiter:
    """One client: the task that it waits for, the bytes it got, and when news arrived in them (0: not yet)."""

    def __init__(self, port: int, request: str, task: str, *, streams: bool) -> None:
        self.task, self.streams = task, streams
        self.text = b""
        self.heard_at = 0.0
        path = f"/v1/requests/{request}{'/events' if streams else '?wait=60'}"
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())

    def read(self) -> bool:
        """Receives what has arrived. Returns whether it contains the news now."""
        self.text += self.socket.recv(65536)
        if not self.heard_at and self.task.encode() in self.text and b'"succeeded"' in self.text:
            self.heard_at = time.monotonic()
        return bool(self.heard_at)


def run(progress: Progress, rounds: int) -> Extra:
    """Measures once, whatever ``rounds`` is. Raises ``Wrong``."""
    del rounds
    _allow_files(WAITERS + FILES_SPARE)
    with alone(progress) as (ours, pages_port):
        calm = _health(ours, CALM_SECONDS)
        before = _memory(ours)
        done(PageServer(pages_port).told("/_hold"))
        asked = done(_post(ours))
        crowd: list[Waiter] = []
        try:
            for number in range(WAITERS):
                if not number % 200:
                    progress.waiting(f"{number:,} of {WAITERS:,} clients wait")
                request, task = asked[number % REQUESTS]
                crowd.append(Waiter(ours.port, request, task, streams=number % 2 == 0))
            progress.waiting(f"{WAITERS:,} clients wait; asking /healthz for {HEALTH_SECONDS:.0f} s")
            cpu, began = usage.cpu_ms(ours.hops())["gateway"], time.monotonic()
            waiting = _health(ours, HEALTH_SECONDS)
            idle_ms = (usage.cpu_ms(ours.hops())["gateway"] - cpu) / (time.monotonic() - began)
            memory = _memory(ours)
            released = time.monotonic()
            done(PageServer(pages_port).told("/_release"))
            _hear(crowd)
        finally:
            for one in crowd:
                one.socket.close()
    heard = [one.heard_at - released for one in crowd]
    p99 = {name: 1000 * figures.percentile(found, 0.99) for name, found in (("calm", calm), ("waiting", waiting))}
    return Extra(
        f"{WAITERS:,} waiting clients on one gateway process",
        [
            f"memory {size(memory)} ({size(before)} without them), CPU {idle_ms:.0f} ms a second while they wait",
            f"/healthz p99 {p99['waiting']:.1f} ms ({p99['calm']:.1f} ms without them)",
            f"news of {REQUESTS} tasks: half of the clients had it {figures.percentile(heard, 0.5):.2f} s after the pages were released",
            f"the first client after {min(heard):.2f} s, the last one after {max(heard):.2f} s",
        ],
        {
            "waiters": WAITERS,
            "memory_bytes": memory,
            "memory_before_bytes": before,
            "healthz_p99_ms": p99,
            "cpu_ms_per_second": idle_ms,
            "news_seconds": {"first": min(heard), "median": figures.percentile(heard, 0.5), "last": max(heard)},
        },
    )


async def _post(ours: Ours) -> list[tuple[str, str]]:
    """Posts all requests. Returns (request, its only task) for each."""
    found = []
    async with connected(ours.port) as connection:
        for number in range(REQUESTS):
            accepted = await connection.ask(ours.post(ROWS["tiny"], [number]), 202)
            found.append((ours.request(accepted), ours.tasks(accepted)[0]))
    return found


def _hear(crowd: list[Waiter]) -> None:
    """Reads until every client has its news. Raises ``Wrong`` when one has none in time."""
    selector = selectors.DefaultSelector()
    for one in crowd:
        selector.register(one.socket, selectors.EVENT_READ, one)
    left, deadline = len(crowd), time.monotonic() + NEWS_SECONDS
    while left:
        if time.monotonic() > deadline:
            raise Wrong(f"waiters: expected news for all within {NEWS_SECONDS:g} s, found {left} without")
        for key, _ in selector.select(0.1):
            if key.data.read():
                selector.unregister(key.fileobj)
                left -= 1
    selector.close()


def _health(ours: Ours, seconds: float) -> list[float]:
    """The seconds that each call took."""
    took: list[float] = done(_asked(ours, seconds))
    return took


async def _asked(ours: Ours, seconds: float) -> list[float]:
    took = []
    async with connected(ours.port) as connection:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.monotonic()
            await connection.ask(Call("GET", "/healthz"), 200)
            took.append(time.monotonic() - began)
            time.sleep(HEALTH_PAUSE_SECONDS)  # noqa: ASYNC251 - nothing else runs in this loop
    return took


def _memory(ours: Ours) -> int:
    return usage.memory_bytes(usage.members(ours.leaders("gateway")))


def _allow_files(count: int) -> None:
    """Raises the limit for open files. Raises ``Wrong`` when that is not permitted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise Wrong(f"waiters: expected to be allowed {count} open files, found {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
