"""Output of the commands: quantities for people, and the lines of progress that ``scripts/up`` shows."""

import json
import re
import sys
import threading
import time
from typing import Any, Final

import click

from regions.printable import printable, printable_json

WIDTH: Final = 58  # like step_done in scripts/setup.sh
SPINNER: Final = "|/-\\"
UNITS: Final = ("B", "kB", "MB", "GB", "TB")


# A word in one of our colours. All other control characters are escaped, since texts of pages and regions stand between ours.
_COLOURED: Final = re.compile(r"(\x1b\[[0-9]{2}m[ \w]+\x1b\[0m)")


def say(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Prints lines for people, with control characters escaped."""
    click.echo(shown(text), err=err, nl=nl)


def say_json(value: Any) -> None:
    """Prints a line of JSON, which is safe on a terminal, too."""
    click.echo(printable_json(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))


def shown(text: str) -> str:
    """The lines with everything escaped that a terminal would obey."""
    if text.isprintable():
        return text
    return "\n".join(
        "".join(part if at % 2 else printable(part, len(part)) for at, part in enumerate(_COLOURED.split(line)))
        for line in text.split("\n")
    )


def size(count: float) -> str:
    """Bytes like ``1.7 kB``."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds like ``12 ms``, ``3.02 s`` or ``72 s``."""
    if seconds < 1.0:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10.0 else f"{seconds:.0f} s"


def counted(count: int, noun: str, plural: str = "s") -> str:
    """A number with a noun: ``1 record``, ``2 records``."""
    return f"{count} {noun}{'' if count == 1 else plural}"


def less(received: int, spared: int, wire: int) -> str:
    """The bytes that the region received, those of pages that it did not fetch again, and the bytes sent to the hub."""
    pages = received + spared
    again = f" and {size(spared)} not fetched again" if spared else ""
    times = f" ({pages / wire:.1f} times less)" if 0 < wire < pages else ""
    return f"{size(received)} fetched{again}, {size(wire)} crossed the sea{times}"


class Progress:
    """Lines for what is done and, only on a terminal, a last line for what is being waited for."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._waiting = ""
        self._turn = 0
        self._lock = threading.Lock()

    def done(self, text: str, seconds: float) -> None:
        """Reports that something is ready."""
        took = f"{seconds:.1f} s" if seconds < 10.0 else f"{seconds:.0f} s"
        self.line(f"  ok  {text:<{WIDTH}} {took:>10}")

    def line(self, text: str = "") -> None:
        """Prints any line."""
        with self._lock:
            self._clear()
            print(shown(text), flush=True)

    def event(self, text: str) -> None:
        """Prints an event, with the time, while everything runs."""
        self.line(f"{time.strftime('%H:%M:%S')}  {text}")

    def waiting(self, text: str) -> None:
        """Shows what is being waited for, if the output is a terminal."""
        if not self._live:
            return
        with self._lock:
            self._clear()
            self._turn += 1
            self._waiting = f"  {SPINNER[self._turn % 4]}   {text}"[:78]
            print(self._waiting, end="", flush=True)

    def _clear(self) -> None:
        if self._waiting:
            print("\r\x1b[K", end="")
            self._waiting = ""


class Quiet(Progress):
    """Prints nothing."""

    def line(self, text: str = "") -> None:
        """Prints nothing."""

    def waiting(self, text: str) -> None:
        """Prints nothing."""
