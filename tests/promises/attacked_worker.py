"""A worker process whose names are looked up at the name server of a test, on the port that ``NAME_SERVER`` says.

The look-up itself is the C library's own, over UDP, as in any other worker.
"""

import os
import socket
import sys
from typing import Any

from jobs.worker.__main__ import main
from tests.name_server import asking

PORT = int(os.environ["NAME_SERVER"])
_system = socket.getaddrinfo


def getaddrinfo(*args: Any, **options: Any) -> Any:
    """The system's, at another name server."""
    asking(PORT, attempts=4)  # of five seconds each: the server is a thread of a busy process
    return _system(*args, **options)


if __name__ == "__main__":
    socket.getaddrinfo = getaddrinfo  # type: ignore[assignment]
    sys.exit(main(sys.argv[1:]))
