"""Free TCP ports on the loopback address."""

import os
import random
import socket
from collections import deque
from typing import Final

BLOCK: Final = 100
HELD_MAX: Final = 8  # blocks that a process keeps reserved; the servers in older ones listen by now
TRIES: Final = 2_000  # there are 220 possible places

# Descriptors of reserved blocks; the kernel closes them with this process, so nothing else must.
_held: deque[int] = deque()
_own: list[int] = []  # descriptors of the blocks whose ports free_port hands out one by one
_left: deque[int] = deque()  # ports of the latest such block that were not handed out yet


def free_port() -> int:
    """A TCP port on which nobody listens now. No other process gets it from this function while this process lives.

    It is outside of the range that the kernel gives to clients. A port from that range could be a client's by the time its
    server starts.
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
    """The first of ``count`` consecutive free ports, below the range that the kernel gives to clients.

    No other process gets the same ones meanwhile, since this process reserves its latest blocks until it ends. Raises
    RuntimeError when there are none.
    """
    for _ in range(TRIES):
        first = random.randrange(10_000, 32_000, BLOCK)
        if all(port_is_free(port) for port in range(first, first + count)) and _hold(first):
            return first
    raise RuntimeError(f"expected {count} free ports in a row from 10000 to 32000, found none in {TRIES} places")


def _hold(first: int) -> bool:
    """Reserves a block for this process by an abstract socket's name (unix(7)); False when it is reserved already."""
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
