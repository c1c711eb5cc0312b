"""TCP ports of the loopback address."""

import random
import socket
from collections import deque
from typing import Final

BLOCK: Final = 100
HELD_MAX: Final = 8  # of a process's blocks, the latest: what was taken before has its servers by now

_held: deque[socket.socket] = deque()
_left: deque[int] = deque()  # ports of such a block that were not given away yet


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now, and that nobody else gets from here while this process lives.

    It is none of those that the kernel gives to clients: one that was closed again may be a client's when its server starts.
    """
    while True:
        try:
            port = _left.popleft()
        except IndexError:
            first = free_block()
            _left.extend(range(first, first + BLOCK))
        else:
            if port_is_free(port):
                return port


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_block(count: int = BLOCK) -> int:
    """The first of so many ports that are all free, below those that the kernel gives to clients.

    Another process does not get the same ones meanwhile: this one holds a name for its latest blocks, until it ends.
    """
    while True:
        first = random.randrange(10_000, 32_000, BLOCK)
        if _hold(first) and all(port_is_free(port) for port in range(first, first + count)):
            return first


def _hold(first: int) -> bool:
    """Whether nobody else holds the block, and this process does from now on (an abstract socket's name, unix(7))."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0nearfetch-ports-{first}")
    except OSError:
        name.close()
        return False
    _held.append(name)
    if len(_held) > HELD_MAX:
        _held.popleft().close()
    return True
