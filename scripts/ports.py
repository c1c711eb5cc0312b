"""TCP ports of the loopback address."""

import random
import socket
from typing import Final

BLOCK: Final = 100


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
    """The first of so many ports that are all free, below those that the kernel gives to clients."""
    while True:
        first = random.randrange(10_000, 32_000, BLOCK)
        if all(port_is_free(port) for port in range(first, first + count)):
            return first
