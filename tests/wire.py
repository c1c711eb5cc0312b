"""The HTTP client of the tests, and their reader of event streams.

ask(port, "POST", "/v1/requests", body={"sources": ["ecb.rates"]}).json()
events(port, "/v1/requests/ID/events")

A ``Wire`` is one connection, which sees HTTP byte by byte: pipelining, half-sent requests, slow reading, hanging up. A broken
connection is a ConnectionError. What is sent by ``send`` and answered is held against the OpenAPI document (tests.interface).
"""

import json
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from clients.python.nearfetch_client import Event, read_events
from tests import interface

ASK_SECONDS = 60.0  # longer than what most tests wait for, on a machine that has much else to do


@dataclass
class Reply:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


class Wire:
    """One connection."""

    def __init__(
        self,
        port: int,
        timeout_seconds: float = ASK_SECONDS,
        receive_bytes: int | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        """``address``: the client's own."""
        self.socket = socket.socket()
        self.socket.bind((address, 0))
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(timeout_seconds)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.file = self.socket.makefile("rb", 1)
        self._sent: deque[interface.Call] = deque()  # not answered yet
        self._answered: interface.Call | None = None  # whose answer is being read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def send(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"", version="1.1"):
        self._sent.append(interface.Call(method, path, headers or {}, body))
        self.socket.sendall(request(method, path, headers, body, version))

    def head(self) -> tuple[int, dict[str, str]]:
        status = self._line()
        headers: dict[str, str] = {}
        while (line := self._line().rstrip(b"\r\n")) != b"":
            name, _, value = line.decode("latin-1").partition(": ")
            headers[name.lower()] = value
        code = int(status.split()[1])
        if code != 100:
            self._answered = self._sent.popleft() if self._sent else None
        return code, headers

    def reply(self, *, is_head: bool = False) -> Reply:
        reply = self._reply(is_head=is_head)
        if self._answered is not None:
            interface.check(self._answered, reply.status, reply.headers, reply.body)
        return reply

    def _reply(self, *, is_head: bool) -> Reply:
        status, headers = self.head()
        if is_head or status in (204, 304):
            return Reply(status, headers, b"")
        if "content-length" in headers:
            return Reply(status, headers, self._exactly(int(headers["content-length"])))
        return Reply(status, headers, b"".join(self.chunks()) if "transfer-encoding" in headers else self.file.read())

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Reply:
        self.send(method, path, headers, body)
        return self.reply(is_head=method == "HEAD")

    def chunk(self) -> bytes:
        """One chunk, with all that belongs to it."""
        found = self._exactly(int(self._line(), 16))
        self._line()
        return found

    def chunks(self) -> Iterator[bytes]:
        while (size := int(self._line(), 16)) > 0:
            yield self._exactly(size)
            self._line()
        self._line()

    def events(self, *, comments: bool = False) -> Iterator[Event]:
        """The events of a stream whose head was read. With ``comments``, each of these is one whose name is a colon."""
        text = b""
        for chunk in self.chunks():
            text += chunk
            while b"\n\n" in text:
                block, _, text = text.partition(b"\n\n")
                if comments and block.startswith(b":"):
                    yield Event(":", "", block.decode())
                for event in read_events([*block.splitlines(), b""]):
                    if self._answered is not None:
                        interface.check_event(event.name, event.data)
                    yield event

    def _line(self) -> bytes:
        line = self.file.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError(f"closed after {line!r}")
        return line

    def _exactly(self, count: int) -> bytes:
        found = self.file.read(count)
        if len(found) < count:
            raise ConnectionError(f"closed after {len(found)} of {count} bytes")
        return found

    def has_answer(self) -> bool:
        """Whether something came by now; nothing of it is taken."""
        timeout = self.socket.gettimeout()
        self.socket.setblocking(False)
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        finally:
            self.socket.settimeout(timeout)

    def is_closed(self) -> bool:
        """Whether the server closed; waits for it."""
        try:
            return self.file.read(1) == b""
        except ConnectionError:
            return True


def request(method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"", version="1.1") -> bytes:
    fields = {"Host": "127.0.0.1", **(headers or {})}
    if body and "Transfer-Encoding" not in fields:
        fields.setdefault("Content-Length", str(len(body)))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/{version}\r\n{lines}\r\n".encode() + body


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def ask(
    port: int,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: object = None,
    *,
    timeout_seconds: float = ASK_SECONDS,
) -> Reply:
    """One request on a connection of its own. A body that is not bytes is sent as JSON."""
    if body is None:
        body = b""
    elif not isinstance(body, bytes):
        headers, body = {"Content-Type": "application/json", **(headers or {})}, json.dumps(body).encode()
    with Wire(port, timeout_seconds) as wire:
        return wire.ask(method, path, headers, body)


def events(port: int, path: str, after: str = "") -> Iterator[Event]:
    """The events of a stream until it ends, without comments. ``after``: the id of the last one that is known."""
    with Wire(port, ASK_SECONDS) as wire:
        wire.send("GET", path, {"Last-Event-ID": after} if after else {})
        status, headers = wire.head()
        assert (status, headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
        yield from wire.events()
