"""How commands speak: quantities for people, and the lines of progress that ``scripts/up`` shows."""

import json
import re
import sys
import threading
import time
from typing import Any, Final

import click

from regions.printable import printable, printable_json

WIDTH: Final = 58  # as step_done in scripts/setup.sh
SPINNER: Final = "|/-\\"
UNITS: Final = ("B", "kB", "MB", "GB", "TB")


# A word in a colour of ours: what else would a terminal obey is shown, since texts of pages and regions are among ours.
_COLOURED: Final = re.compile(r"(\x1b\[[0-9]{2}m[ \w]+\x1b\[0m)")


def say(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Writes lines for people, with control characters as their escapes."""
    click.echo(shown(text), err=err, nl=nl)


def say_json(value: Any) -> None:
    """Writes a line for programs, which a person may read too."""
    click.echo(printable_json(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))


def shown(text: str) -> str:
    """Lines as a terminal may get them."""
    if text.isprintable():
        return text
    return "\n".join(
        "".join(part if at % 2 else printable(part, len(part)) for at, part in enumerate(_COLOURED.split(line)))
        for line in text.split("\n")
    )


def size(count: float) -> str:
    """Bytes as ``1.7 kB``: three digits where they say something."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds as ``12 ms``, ``3.02 s`` or ``72 s``."""
    if seconds < 1.0:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10.0 else f"{seconds:.0f} s"


def counted(count: int, noun: str, plural: str = "s") -> str:
    """``1 record``, ``2 records``."""
    return f"{count} {noun}{'' if count == 1 else plural}"


def less(raw: int, wire: int) -> str:
    """Bytes that were fetched, and what of them went home."""
    times = f" ({raw / wire:.1f} times less)" if 0 < wire < raw else ""
    return f"{size(raw)} fetched, {size(wire)} crossed the sea{times}"


class Progress:
    """Lines of what is done and, on a terminal only, a last line of what is waited for."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._waiting = ""
        self._turn = 0
        self._lock = threading.Lock()

    def done(self, text: str, seconds: float) -> None:
        """A thing is ready."""
        took = f"{seconds:.1f} s" if seconds < 10.0 else f"{seconds:.0f} s"
        self.line(f"  ok  {text:<{WIDTH}} {took:>10}")

    def line(self, text: str = "") -> None:
        """Any line."""
        with self._lock:
            self._clear()
            print(shown(text), flush=True)

    def event(self, text: str) -> None:
        """Something that happened while everything runs."""
        self.line(f"{time.strftime('%H:%M:%S')}  {text}")

    def waiting(self, text: str) -> None:
        """What is waited for; nothing where nobody watches."""
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
    """Says nothing."""

    def line(self, text: str = "") -> None:
        """Nothing."""

    def waiting(self, text: str) -> None:
        """Nothing."""
