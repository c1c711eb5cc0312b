"""One process that serves all pages, on the loopback address: ``python -m scripts.bench.page_server PORT``.

All contenders fetch from it, so it must be cheap and delay nobody: it is an asyncio protocol, and makes each body once. Each
record holds its page's number, so that an answer delivered to the wrong task is noticed.

    GET /PATH?n=NUMBER&seconds=SECONDS   a page of a row (scripts.bench.rows), delayed by this many seconds
    GET /_held                           {"held": pages held back at the moment, "served": all pages so far}
    GET /_hold, /_release                from /_hold on, every page waits for /_release
"""

import asyncio
import json
import re
import signal
import ssl
import sys
from typing import Any, Final

from scripts.bench import rows

ASKED: Final = re.compile(rb"GET (/[^? ]*)(?:\?n=(\d+)(?:&seconds=([0-9.]+))?)? HTTP/1\.1\r\n")
HEAD: Final = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"


class Pages:
    """The state that all connections share: bodies, and counts of held and served pages."""

    def __init__(self) -> None:
        self.bodies = {path.encode(): (kind.encode(), pieces) for path, kind, pieces in rows.bodies()}
        self.held = 0
        self.served = 0
        self.release: asyncio.Event | None = None

    def body(self, path: bytes, number: int) -> list[bytes]:
        """Head and body of a page; 404 when there is none."""
        found = self.bodies.get(path)
        if found is None:
            return [HEAD % (b"404 Not Found", b"text/plain", 0)]
        kind, pieces = found
        self.served += 1
        body = rows.numeral(number).join(pieces)
        return [HEAD % (b"200 OK", kind, len(body)), body]

    def control(self, path: bytes) -> list[bytes]:
        """Answers the benchmark's questions to the server itself."""
        if path == b"/_hold":
            self.release = asyncio.Event()
        elif path == b"/_release" and self.release is not None:
            self.release.set()
            self.release = None
        counts = {"held": self.held, "served": self.served}
        body = json.dumps(counts).encode()
        return [HEAD % (b"200 OK", b"application/json", len(body)), body]


class Connection(asyncio.Protocol):
    """A client's connection, with one request after another."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._left = b""
        self._transport: Any = None
        self._waiting: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport for answers."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answers each complete request. Requests have no bodies."""
        self._left += data
        while (end := self._left.find(b"\r\n\r\n")) >= 0:
            asked, self._left = ASKED.match(self._left), self._left[end + 4 :]
            if asked is None:
                self._transport.close()
                return
            path, number, seconds = asked.groups()
            if path.startswith(b"/_"):
                self._transport.writelines(self._pages.control(path))
            elif self._pages.release is not None or (seconds is not None and float(seconds) > 0):
                task = asyncio.ensure_future(self._late(path, int(number or 0), float(seconds or 0)))
                self._waiting.add(task)
                task.add_done_callback(self._waiting.discard)
            else:
                self._transport.writelines(self._pages.body(path, int(number or 0)))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Cancels the answers that nobody waits for any more."""
        for task in self._waiting:
            task.cancel()

    async def _late(self, path: bytes, number: int, seconds: float) -> None:
        self._pages.held += 1
        try:
            await asyncio.sleep(seconds)
            if self._pages.release is not None:
                await self._pages.release.wait()
        finally:
            self._pages.held -= 1
        self._transport.writelines(self._pages.body(path, number))


async def serve(port: int, pages: Pages, context: ssl.SSLContext | None = None) -> None:
    """Serves until SIGTERM or SIGINT, with TLS if there is a context."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    server = await loop.create_server(lambda: Connection(pages), "127.0.0.1", port, backlog=4096, ssl=context)
    await over.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Pages()))
