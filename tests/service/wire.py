"""A client that sees HTTP byte by byte: pipelining, half-sent requests, slow reading, hanging up."""

import json
import socket
from dataclasses import dataclass
from typing import Self


@dataclass
class Reply:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


@dataclass
class Event:
    """One event of a stream; a comment has the kind ``:``."""

    kind: str
    id: str
    data: str

    def json(self):
        return json.loads(self.data)


class Wire:
    """One connection."""

    def __init__(
        self,
        port: int,
        timeout_seconds: float = 20.0,
        receive_bytes: int | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        """``address``: the client's own."""
        self.socket = socket.socket()
        self.socket.bind((address, 0))
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(timeout_seconds)
        self.socket.connect(("127.0.0.1", port))
        self.file = self.socket.makefile("rb", 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def send(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"", version="1.1"):
        self.socket.sendall(request(method, path, headers, body, version))

    def head(self) -> tuple[int, dict[str, str]]:
        status = self.file.readline()
        if not status:
            raise ConnectionError("closed without an answer")
        headers: dict[str, str] = {}
        while (line := self.file.readline().rstrip(b"\r\n")) != b"":
            name, _, value = line.decode("latin-1").partition(": ")
            headers[name.lower()] = value
        return int(status.split()[1]), headers

    def reply(self, *, is_head: bool = False) -> Reply:
        status, headers = self.head()
        if is_head or status in (204, 304):
            return Reply(status, headers, b"")
        if "content-length" in headers:
            return Reply(status, headers, self.file.read(int(headers["content-length"])))
        return Reply(status, headers, b"".join(self.chunks()) if "transfer-encoding" in headers else self.file.read())

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Reply:
        self.send(method, path, headers, body)
        return self.reply(is_head=method == "HEAD")

    def chunks(self):
        while (size := int(self.file.readline(), 16)) > 0:
            yield self.file.read(size)
            self.file.readline()
        self.file.readline()

    def events(self):
        """The events of a stream whose head was read, chunked or not."""
        text = b""
        for chunk in self.chunks():
            text += chunk
            while b"\n\n" in text:
                block, _, text = text.partition(b"\n\n")
                yield event(block.decode())

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


def event(block: str) -> Event:
    found = Event(":" if block.startswith(":") else "message", "", "")
    data = []
    for line in block.splitlines():
        name, _, value = line.partition(": ")
        if name == "event":
            found.kind = value
        elif name == "id":
            found.id = value
        elif name == "data":
            data.append(value)
    found.data = "\n".join(data)
    return found


def request(method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"", version="1.1") -> bytes:
    fields = {"Host": "127.0.0.1", **(headers or {})}
    if body and "Transfer-Encoding" not in fields:
        fields.setdefault("Content-Length", str(len(body)))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/{version}\r\n{lines}\r\n".encode() + body


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def ask(port: int, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Reply:
    """One request on a connection of its own."""
    with Wire(port) as wire:
        return wire.ask(method, path, headers, body)
