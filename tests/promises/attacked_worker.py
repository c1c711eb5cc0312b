"""A worker process whose resolver is an attacker's for names below ``.test``, and the system's for all others.

127-0-0-2.test       always that address
rebinding-N.test     127.0.0.1 at the first look-up, 127.0.0.2 from then on
mixed.test           127.0.0.2, then 127.0.0.1
"""

import socket
import sys
from collections import Counter
from typing import Any

from jobs import worker

GOOD, BAD = "127.0.0.1", "127.0.0.2"
_system = socket.getaddrinfo
_asked: Counter[str] = Counter()


def answer(name: str) -> list[str]:
    """The addresses of a name below ``.test``."""
    _asked[name] += 1
    if name.startswith("rebinding-"):
        return [GOOD if _asked[name] == 1 else BAD]
    if name == "mixed.test":
        return [BAD, GOOD]
    return [name.removesuffix(".test").replace("-", ".")]


def getaddrinfo(host: str, port: Any, *args: Any, **options: Any) -> Any:
    """As the system's."""
    name = str(host).rstrip(".").lower()
    if not name.endswith(".test"):
        return _system(host, port, *args, **options)
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer(name)]


if __name__ == "__main__":
    socket.getaddrinfo = getaddrinfo  # type: ignore[assignment]
    sys.exit(worker.main(sys.argv[1:]))
