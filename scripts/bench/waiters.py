"""Clients that wait on one gateway process, half with event streams and half with long polls: 50,000, then all get news.

    run ─ here     the clients, in processes of their own, since a process may have only a limited number of open files
        ─ health   /healthz, for longer than the 15 s after which each stream gets a comment
        ─ release  the page server answers, and each client must hear of the very task that it waits for
        ─ leave    they all hang up at once, and memory is given back

The page server holds every page back, so there is no news until it releases them. Where the limit of open files permits the
gateway fewer clients, that many are measured, and the figures say so.
"""

import multiprocessing
import re
import resource
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Final

from scripts.bench import figures, usage
from scripts.bench.extra import Extra
from scripts.bench.load import Call, PageServer, Wrong, connected
from scripts.bench.ours import Ours, alone, body
from scripts.bench.rows import ROWS
from scripts.bench.run import done
from scripts.terminal import Progress, size
from web.http.server import connections_possible

WAITERS: Final = 50_000
REQUESTS: Final = 100
DEADLINE_SECONDS: Final = 240.0  # of these
CALM_SECONDS: Final = 3.0
HEALTH_SECONDS: Final = 20.0
HEALTH_PAUSE_SECONDS: Final = 0.02
NEWS_SECONDS: Final = 60.0
COME_SECONDS: Final = 120.0
LEFT_SECONDS: Final = 20.0  # after which memory counts as that which is not given back
SPARE: Final = 100  # connections of others: of this benchmark itself, of the stack
CROWD_MAX: Final = 15_000  # clients of one process
ADDRESSES: Final = 8  # 127.0.0.2 and so on: one address has 28,000 ports for clients by default
IP_BIND_ADDRESS_NO_PORT: Final = 24  # Linux's: the port is found by connect, which is quick
ANSWER: Final = re.compile(rb"content-length: (\d+)\r\n.*?\r\n\r\n", re.IGNORECASE | re.DOTALL)


class Waiter:
    """One client: the task that it waits for, the bytes it got, and when news arrived in them (0: not yet)."""

    __slots__ = ("asking", "heard_at", "socket", "task", "text")

    def __init__(self, port: int, number: int, request: str, task: str) -> None:
        self.task = task.encode()
        self.text = b""
        self.heard_at = 0.0
        path = f"/v1/requests/{request}{'?wait=60' if number % 2 else '/events'}"
        self.asking = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        self.socket.bind((f"127.0.0.{2 + number % ADDRESSES}", 0))
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(self.asking)

    def read(self) -> bool:
        """Receives what has arrived. Returns whether it contains the news now. A poll whose time was over is sent again."""
        data = self.socket.recv(65536)
        if not data:
            raise Wrong("waiters: a client was disconnected")
        self.text += data
        if self.task in self.text and b'"succeeded"' in self.text:
            self.heard_at = time.monotonic()
        elif (head := ANSWER.search(self.text)) and len(self.text) >= head.end() + int(head[1]):
            self.text = b""
            self.socket.sendall(self.asking)
        return bool(self.heard_at)


def crowd(pipe: Connection, port: int, numbers: Sequence[int], asked: Sequence[tuple[str, str]]) -> None:
    """A process of clients. Says when they have asked, then when each got its news; ends when it is told to, and so do they."""
    selector = selectors.DefaultSelector()
    heard: list[float] = []
    try:
        _allow_files(len(numbers) + SPARE)
        for number in numbers:
            one = Waiter(port, number, *asked[number % REQUESTS])
            selector.register(one.socket, selectors.EVENT_READ, one)
        pipe.send([])
        while len(heard) < len(numbers) and not pipe.poll():
            for key, _ in selector.select(0.1):
                if key.data.read():
                    selector.unregister(key.fileobj)
                    heard.append(key.data.heard_at)
        pipe.send(heard)
    except (Wrong, OSError) as error:
        pipe.send(str(error))
    pipe.recv()


class Crowd:
    """All clients, in their processes."""

    def __init__(self, port: int, count: int, asked: Sequence[tuple[str, str]]) -> None:
        self._pipes: list[Connection] = []
        self._processes = []
        context = multiprocessing.get_context("spawn")
        for at in range(0, count, CROWD_MAX):
            own, its = context.Pipe()
            numbers = range(at, min(at + CROWD_MAX, count))
            process = context.Process(target=crowd, args=(its, port, numbers, asked), daemon=True)
            process.start()
            self._pipes.append(own)
            self._processes.append(process)

    def wait(self) -> None:
        """Waits until all have asked."""
        for pipe in self._pipes:
            self._told(pipe, COME_SECONDS)

    def heard(self) -> list[float]:
        """When each got its news. Raises ``Wrong`` when one has none in time."""
        found: list[float] = []
        deadline = time.monotonic() + NEWS_SECONDS
        for pipe in self._pipes:
            found += self._told(pipe, deadline - time.monotonic())
        return found

    def end(self) -> None:
        """All hang up at once."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()

    @staticmethod
    def _told(pipe: Connection, seconds: float) -> list[float]:
        if not pipe.poll(max(0.0, seconds)):
            raise Wrong("waiters: not all clients were served in time")
        told: list[float] | str = pipe.recv()
        if isinstance(told, str):
            raise Wrong(told)
        return told


@contextmanager
def crowded(ours: Ours, count: int, asked: Sequence[tuple[str, str]]) -> Iterator[Crowd]:
    """The clients; they are gone afterwards."""
    found = Crowd(ours.port, count, asked)
    try:
        yield found
    finally:
        found.end()


def run(progress: Progress, rounds: int) -> Extra:
    """Measures once, whatever ``rounds`` is. Raises ``Wrong``."""
    del rounds
    count = min(WAITERS, connections_possible(WAITERS + SPARE) - SPARE)
    with alone(progress) as (ours, pages_port):
        calm = _health(ours, CALM_SECONDS)
        before = _memory(ours)
        done(PageServer(pages_port).told("/_hold"))
        asked = done(_post(ours))
        progress.waiting(f"{count:,} clients come")
        began = time.monotonic()
        with crowded(ours, count, asked) as clients:
            clients.wait()
            come_seconds = time.monotonic() - began
            progress.waiting(f"{count:,} clients wait; asking /healthz for {HEALTH_SECONDS:.0f} s")
            cpu, began = usage.cpu_ms(ours.hops())["gateway"], time.monotonic()
            waiting = _health(ours, HEALTH_SECONDS)
            idle_ms = (usage.cpu_ms(ours.hops())["gateway"] - cpu) / (time.monotonic() - began)
            memory = _memory(ours)
            released = time.monotonic()
            done(PageServer(pages_port).told("/_release"))
            told = _health(ours, CALM_SECONDS)
            heard = [at - released for at in clients.heard()]
        left = _health(ours, CALM_SECONDS)
        time.sleep(LEFT_SECONDS)
        after = _memory(ours)
    times = {"calm": calm, "waiting": waiting, "told": told, "leaving": left}
    p50 = {name: round(1000 * figures.percentile(found, 0.5), 2) for name, found in times.items()}
    p99 = {name: round(1000 * figures.percentile(found, 0.99), 2) for name, found in times.items()}
    fewer = "" if count == WAITERS else f", of {WAITERS:,}: the limit of open files permits no more"
    each = (memory - before) / count
    return Extra(
        f"{count:,} waiting clients on one gateway process{fewer}",
        [
            f"memory {size(memory)} ({size(before)} without them, {size(after)} after they left): {each:,.0f} bytes a client",
            f"CPU {idle_ms:.0f} ms a second while they wait; they came in {come_seconds:.1f} s",
            f"/healthz p50 and p99 in ms: {_shown(p50, p99)}",
            f"news of {REQUESTS} tasks: half of the clients had it {figures.percentile(heard, 0.5):.2f} s after the pages were released",
            f"the first client after {min(heard):.2f} s, the last one after {max(heard):.2f} s",
        ],
        {
            "waiters": count,
            "memory_bytes": memory,
            "memory_before_bytes": before,
            "memory_after_bytes": after,
            "bytes_per_waiter": each,
            "healthz_p50_ms": p50,
            "healthz_p99_ms": p99,
            "cpu_ms_per_second": idle_ms,
            "news_seconds": {"first": min(heard), "median": figures.percentile(heard, 0.5), "last": max(heard)},
        },
    )


def _shown(p50: dict[str, float], p99: dict[str, float]) -> str:
    said = {
        "calm": "without them",
        "waiting": "while they wait",
        "told": "while they are told",
        "leaving": "while they leave",
    }
    return ", ".join(f"{p50[name]:.1f} and {p99[name]:.1f} {when}" for name, when in said.items())


async def _post(ours: Ours) -> list[tuple[str, str]]:
    """Posts all requests. Returns (request, its only task) for each."""
    found = []
    async with connected(ours.port) as connection:
        for number in range(REQUESTS):
            call = Call("POST", "/v1/requests", body(ROWS["tiny"], [number], DEADLINE_SECONDS))
            accepted = await connection.ask(call, 202)
            found.append((ours.request(accepted), ours.tasks(accepted)[0]))
    return found


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
