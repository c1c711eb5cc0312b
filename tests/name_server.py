"""A name server on this machine, and how a thread is made to ask it: the real look-up of the C library, over real UDP."""

import ctypes
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable

Answer = Callable[
    [str, int], list[str] | None
]  # a name, how often it was asked for → addresses, [] for none, None for silence

A, NO_SUCH_NAME = 1, 3
# glibc's struct __res_state (resolv.h): two ints, the options, the number of servers, then their addresses.
RETRANS, RETRY, COUNT, SERVERS = 0, 4, 16, 20

_libc = ctypes.CDLL(None)


class NameServer:
    """Answers questions for IPv4 addresses; ``asked`` counts them by name, one that is sent again as the same."""

    def __init__(self, answer: Answer) -> None:
        self.asked: Counter[str] = Counter()
        self._answer = answer
        self._known: set[tuple[str, bytes]] = set()  # glibc sends a question again under the same id
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Answers nobody any more."""
        self._socket.close()

    def _run(self) -> None:
        while True:
            try:
                question, asker = self._socket.recvfrom(512)
                answer = self._answered(question)
                if answer is not None:
                    self._socket.sendto(answer, asker)
            except OSError:
                return

    def _answered(self, question: bytes) -> bytes | None:
        """The message of RFC 1035, 4; None for silence."""
        at, labels = 12, []
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode("ascii"))
            at += 1 + question[at]
        name, kind = ".".join(labels).lower(), int.from_bytes(question[at + 1 : at + 3])
        self.asked[name] += kind == A and (name, question[:2]) not in self._known
        self._known.add((name, question[:2]))
        addresses = self._answer(name, self.asked[name])
        if addresses is None:
            return None
        records = [b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 0, 4) + socket.inet_aton(one) for one in addresses]
        records = records if kind == A else []
        flags = 0x8180 | (0 if addresses else NO_SUCH_NAME)
        head = question[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0)
        return head + question[12 : at + 5] + b"".join(records)


def asking(port: int, *, seconds: int = 5, attempts: int = 1) -> None:
    """From now on this thread's look-ups go to the name server at a port of this machine (glibc)."""
    _libc.__res_state.restype = ctypes.c_void_p
    _libc.__res_init()
    state = _libc.__res_state()
    for offset, value in ((RETRANS, seconds), (RETRY, attempts), (COUNT, 1)):
        ctypes.c_int.from_address(state + offset).value = value
    server = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), socket.inet_aton("127.0.0.1"))
    ctypes.memmove(state + SERVERS, server, len(server))
