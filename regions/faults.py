"""Faults in files and in the environment, all reported at once, each with its place.

fra.toml:7: workers.threads: expected an int from 1 to 1024, found "many"
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

LISTED_MAX: Final = 30  # known names that a message lists


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: a file's name (or ``environment``), a line (from 1, or None), a key, and a message."""

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class Faults(Exception):  # noqa: N818 - plural says that it carries all of them
    """All faults of a set of files; never empty."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = list(faults)


def nearest(found: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown key: the nearest known key, or all known keys when they are few."""
    names = sorted(known)
    close = difflib.get_close_matches(found, names, n=1, cutoff=0.6)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; one of {', '.join(names)}" if len(names) <= LISTED_MAX else ""


def kind_of(value: Any) -> str:
    """A value that stands where a table is expected. A text is not shown, since it may be a secret."""
    return show(value) if isinstance(value, int | float) else f"a {type(value).__name__}"


def show(value: Any) -> str:
    """A value as messages show it: JSON, cut to 60 characters."""
    text: str = msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= 60 else text[:57] + "…"
