"""A TCP proxy in front of a gateway, as bad as some are: it holds answers back until they are whole, or loses them."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import BinaryIO, Self


class Proxy:
    """It notes the request lines that it passes on. ``lose``: beginnings of requests, each of which loses its answer once.

    ``holds``: an answer is passed on when all of it is there.
    """

    def __init__(self, behind: int, *, holds: bool = False, lose: tuple[str, ...] = ()) -> None:
        self.behind, self.holds, self.lose, self.lines = behind, holds, list(lose), list[str]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._run)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_) -> None:
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()

    def asked(self, beginning: str) -> int:
        """How many requests began like this."""
        return sum(line.startswith(beginning) for line in self.lines)

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            self._threads.append(threading.Thread(target=self._serve, args=(client,)))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError, ValueError),
            client,
            socket.create_connection(("127.0.0.1", self.behind)) as server,
        ):
            self._open.append(server)
            asking, answering = client.makefile("rb"), server.makefile("rb")
            while head := _head(asking):
                line = head.partition(b"\r\n")[0].decode()
                self.lines.append(line)
                server.sendall(head + asking.read(_length(head)))
                lost = next((one for one in self.lose if line.startswith(one)), None)
                answer = _answer(answering)
                if lost is not None:
                    self.lose.remove(lost)
                    b"".join(answer)
                    return
                for piece in [b"".join(answer)] if self.holds else answer:
                    client.sendall(piece)


def _head(file: BinaryIO) -> bytes:
    """A head; nothing at the end of the connection."""
    head = b""
    while line := file.readline():
        head += line
        if line == b"\r\n":
            return head
    return b""


def _length(head: bytes) -> int:
    fields = (line.partition(b":") for line in head.lower().split(b"\r\n"))
    return next((int(value) for name, _, value in fields if name == b"content-length"), 0)


def _answer(file: BinaryIO) -> Iterator[bytes]:
    """The pieces of an answer, as they come."""
    head = _head(file)
    if b"transfer-encoding: chunked" not in head.lower():
        yield head + file.read(_length(head))
        return
    yield head
    while True:
        line = file.readline()
        piece = line + file.read(int(line, 16) + 2)
        yield piece
        if int(line, 16) == 0:
            return
