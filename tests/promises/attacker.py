"""A client that means harm: silent sockets, slow heads and bodies, bodies without an end, readers that do not read.

    python -m tests.promises.attacker PORT PATH    PATH is a large answer

A process of its own; it ends with its input. Who is cut off comes back. It says ``standing`` when all are connected, and at
its end how it was answered, by kind and status.
"""

import json
import resource
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

ADDRESS = "127.0.0.66"  # its own, as it has in a network
SILENT, SLOW, READERS, ENDLESS = 3_000, 1_000, 500, 8
FILES = SILENT + SLOW + READERS + ENDLESS + 200
EVERY_SECONDS = 3.0  # a slow client's byte
AT_ONCE = 100  # connections that are opened between two looks at the others
FLOOD_BYTES = 100_000  # that an endless body sends at a time
FLOODS_A_SECOND = 20.0  # of all of them together: harm is done by what is held, not by how much this machine can copy

HEAD = b"POST /v1/requests HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
CHUNK = b"%x\r\n%b\r\n" % (FLOOD_BYTES, b" " * FLOOD_BYTES)
SLOW_BEGINNINGS = (
    b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
    HEAD + b"Content-Length: 900000\r\n\r\n" + b" " * 300_000,
    HEAD + b"Content-Length: 1000\r\n\r\n{",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
)
ENDLESS_BEGINNINGS = (
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    HEAD + b"Content-Length: -1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    HEAD + b"Content-Length: 300000000\r\n\r\n",
)


@dataclass
class Client:
    """One connection of a kind."""

    kind: str
    socket: socket.socket
    left: bytes  # to be sent at once, as far as the other side takes it
    again: bytes = b""  # to be sent again and again


class Attacker:
    """All of them, and what they were answered."""

    def __init__(self, port: int, path: str) -> None:
        self._port, self._path = port, path.encode()
        self._poll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._wanted = Counter(silent=SILENT, slow=SLOW, reader=READERS, endless=ENDLESS)
        self._number = 0
        self.answered: Counter[str] = Counter()

    def open_some(self) -> bool:
        """Connects who is missing, some at a time; whether all are there."""
        have = Counter(client.kind for client in self._clients.values())
        missing = list((self._wanted - have).elements())
        for kind in missing[:AT_ONCE]:
            self._open(kind)
        return not missing

    def _open(self, kind: str) -> None:
        self._number += 1
        one = socket.socket()
        if kind == "reader":
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        one.setblocking(False)
        one.bind((ADDRESS, 0))
        one.connect_ex(("127.0.0.1", self._port))
        left, again = {
            "silent": (b"", b""),
            "slow": (SLOW_BEGINNINGS[self._number % len(SLOW_BEGINNINGS)], b""),
            "reader": (b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % self._path, b""),
            "endless": (ENDLESS_BEGINNINGS[self._number % len(ENDLESS_BEGINNINGS)], CHUNK),
        }[kind]
        client = self._clients[one.fileno()] = Client(kind, one, left, again)
        # A reader does not read: it only notices when it is cut off.
        self._poll.register(one, select.EPOLLOUT | (0 if kind == "reader" else select.EPOLLIN))
        self.answered[f"{client.kind} began"] += 1

    def look(self) -> None:
        """Sends what stands to be sent, and takes what came."""
        for fd, events in self._poll.poll(0.05):
            client = self._clients[fd]
            try:
                if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                    self._read(client)
                elif client.left:
                    client.left = client.left[client.socket.send(client.left) :]
                if not client.left:
                    self._poll.modify(fd, 0 if client.kind == "reader" else select.EPOLLIN)
            except BlockingIOError:
                pass
            except OSError as error:
                self._end(client, type(error).__name__)

    def _read(self, client: Client) -> None:
        data = client.socket.recv(65_536)
        self._end(client, data[9:12].decode() if data.startswith(b"HTTP/1.1 ") else "closed")

    def _end(self, client: Client, how: str) -> None:
        if self._clients.pop(client.socket.fileno(), None) is not None:
            self.answered[f"{client.kind} {how}"] += 1
            client.socket.close()

    def drip(self) -> None:
        """A byte of each slow client."""
        for client in self._of("slow"):
            self._send(client, b"a")

    def flood(self) -> None:
        """More of a body that has no end."""
        for client in self._of("endless"):
            if not client.left:
                self._send(client, client.again)

    def _of(self, kind: str) -> Iterator[Client]:
        return iter([client for client in self._clients.values() if client.kind == kind])

    def _send(self, client: Client, data: bytes) -> None:
        try:
            client.socket.send(data)
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(client, type(error).__name__)


def main(port: int, path: str) -> None:
    """Attacks until its input ends."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    attacker = Attacker(port, path)
    is_standing, dripped, flooded = False, 0.0, 0.0
    while not select.select([sys.stdin], [], [], 0)[0]:
        is_all = attacker.open_some()
        if is_all and not is_standing:
            is_standing = True
            print("standing", flush=True)
        attacker.look()
        now = time.monotonic()
        if now - dripped > EVERY_SECONDS:
            dripped = now
            attacker.drip()
        if now - flooded > ENDLESS / FLOODS_A_SECOND:
            flooded = now
            attacker.flood()
    print(json.dumps(attacker.answered), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
