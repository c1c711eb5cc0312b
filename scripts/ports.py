"""TCP ports of the loopback address."""

import os
import random
import socket
from collections import deque
from typing import Final

BLOCK: Final = 100
HELD_MAX: Final = 8  # of a process's blocks, the latest: what was taken before has its servers by now
TRIES: Final = 2_000  # there are 220 places

_held: deque[int] = deque()  # descriptors, which the kernel closes with this process: nobody else has to
_own: list[int] = []  # names of the blocks whose ports are given one by one
_left: deque[int] = deque()  # ports of the last of these that were not given away yet


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now, and that nobody else gets from here while this process lives.

    It is none of those that the kernel gives to clients: one that was closed again may be a client's when its server starts.
    """
    while True:
        try:
            port = _left.popleft()
        except IndexError:
            first = free_block()
            _own.append(_held.pop())
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

    Another process does not get the same ones meanwhile: this one holds a name for its latest blocks, until it ends. Raises
    RuntimeError where there are none.
    """
    for _ in range(TRIES):
        first = random.randrange(10_000, 32_000, BLOCK)
        if all(port_is_free(port) for port in range(first, first + count)) and _hold(first):
            return first
    raise RuntimeError(f"expected {count} free ports in a row from 10000 to 32000, found none in {TRIES} places")


def _hold(first: int) -> bool:
    """Whether nobody else holds the block, and this process does from now on (an abstract socket's name, unix(7))."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0nearfetch-ports-{first}")
    except OSError:
        name.close()
        return False
    _held.append(name.detach())
    if len(_held) > HELD_MAX:
        os.close(_held.popleft())
    return True
