"""Attackers beside the load: clients with raw sockets, and a region whose credentials were stolen.

Clients   sockets of each kind in ``CLIENTS`` at once, for as long as the plan says
commands  commands that the region's user must not be able to run on the hub
entries   what the thief writes to the region's own out stream, including results for other regions' open tasks
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any, Final

from regions import names

EACH: Final = 40  # sockets of each kind
TICK_SECONDS: Final = 0.25  # between two bytes of a slow client
READS: Final = 200  # pages that a client requests and does not read
FORGED: Final = 50  # open tasks of other regions that are claimed to have ended

_POST: Final = b"POST /v1/requests HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
# For each kind, what a client sends first, and then at each tick.
CLIENTS: Final[dict[str, tuple[bytes, bytes]]] = {
    "silent": (b"", b""),
    "slow head": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ", b"x"),
    "slow body": (_POST + b"Content-Length: 5000\r\n\r\n{", b" "),
    "endless body": (_POST + b"Transfer-Encoding: chunked\r\n\r\n", b"400\r\n" + b" " * 1024 + b"\r\n"),
    "deaf reader": (b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * READS, b""),
}


class Clients:
    """Opens all sockets. ``run`` keeps them busy, ``close`` closes them."""

    def __init__(self, port: int) -> None:
        self._open: list[tuple[socket.socket, bytes]] = []
        for first, then in CLIENTS.values():
            for _ in range(EACH):
                with contextlib.suppress(OSError):
                    self._open.append((_connect(port, first), then))

    def __len__(self) -> int:
        return len(self._open)

    def run(self, seconds: float) -> None:
        """Sends something at each tick. A client that was disconnected stays so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(TICK_SECONDS)
            for client, then in self._open:
                with contextlib.suppress(OSError):
                    client.send(then)

    def close(self) -> None:
        """Closes the sockets. A socket with unread data is reset."""
        for client, _ in self._open:
            client.close()


def _connect(port: int, first: bytes) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(1.0)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        client.send(first)
    return client


def open_tasks(hub: Any, regions: list[str]) -> list[tuple[str, str]]:
    """(request, task) of some unfinished tasks of these regions."""
    found: list[bytes] = []
    for region in regions:
        found += hub.zrange(names.open_tasks(region), 0, FORGED // len(regions))
    return [(request, task) for one in found for request, _, task in [one.decode().partition("/")]]


def commands(region: str) -> list[tuple[Any, ...]]:
    """Commands of which each would stop every region, or all readers of the region's own stream."""
    return [
        ("CLIENT", "PAUSE", 8_000),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("SET", names.out_stream(region), "x"),
        ("XADD", names.result(region, "x"), "*", "a", "b"),
        ("FLUSHALL",),
        ("CONFIG", "SET", "maxmemory", 1),
    ]


def entries(others: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Entries that must not be believed: wrong types, wrong sizes, and ends of tasks that belong to other regions."""
    now = int(time.time() * 1000)
    deep = "[" * 5_000
    result = {"k": "result", "v": 1, "q": "x", "t": "y", "s": "succeeded", "f": now, "b": 10, "h": ""}
    yield {"k": "result"}
    yield {"x": b"\xff\x00"}
    yield {"k": b"\xff", "v": 1}
    yield {"k": "nonsense", "v": 99}
    yield {**result, "v": "one"}
    yield {**result, "s": 5}
    yield {**result, "f": "soon"}
    yield {**result, "f": "9" * 400}
    yield {**result, "b": "1e30"}
    yield {**result, "b": -1}
    yield {**result, "q": b"\xff"}
    yield {**result, "h": deep}
    for kind in ("claims", "status", "sources"):
        for text in ("", "5", '{"a": 5}', '[["x"]]', deep, b"\xff", '{"at_ms": 1e999}'):
            yield {"k": kind, "v": 1, "part": "bridge", "name": "harm", "d": text}
    for request, task in others:
        yield {**result, "q": request, "t": task}
        yield {**result, "q": request, "t": task, "s": "failed"}
        yield {"k": "claims", "v": 1, "d": f'[["{request}","{task}",[]]]'}
