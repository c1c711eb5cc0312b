"""Asks a gateway for the same page again and again, and says how long each answer took.

    python -m tests.promises.meter PORT PATH    a line each: when it was asked (monotonic), and the seconds that it took

It is a process of its own, since a test's own threads would wait for each other. It ends with its input. An answer other
than 200 takes as long as none: ``LATE_SECONDS``.
"""

import http.client
import subprocess
import sys
import threading
import time
from typing import Self

from regions.settings import ROOT

PAUSE_SECONDS = 0.01
LATE_SECONDS = 10.0


class Meter:
    """Runs it; ``took`` says what it measured."""

    def __init__(self, port: int, path: str) -> None:
        words = [sys.executable, "-m", "tests.promises.meter", str(port), path]
        self._process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._seen: list[tuple[float, float]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(60)
        self._reader.join(60)
        self._process.stdout.close()

    def _read(self) -> None:
        for line in self._process.stdout:
            asked, seconds = line.split()
            self._seen.append((float(asked), float(seconds)))

    def took(self, since: float, until: float = float("inf")) -> list[float]:
        """The seconds of all that were asked between two moments."""
        return [seconds for asked, seconds in self._seen if since <= asked < until]


def once(port: int, path: str) -> float:
    """The seconds that one answer takes, with a connection of its own."""
    started = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LATE_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return time.monotonic() - started if response.status == 200 else LATE_SECONDS
    except (OSError, http.client.HTTPException):
        return LATE_SECONDS
    finally:
        connection.close()


def main(port: int, path: str) -> None:
    """Asks until its input ends."""
    is_over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
    while not is_over.wait(PAUSE_SECONDS):
        asked = time.monotonic()
        print(asked, once(port, path), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
