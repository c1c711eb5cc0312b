"""What files and the environment say wrong: all faults at once, each with its place.

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
    """One thing that is wrong: where (a file's name or ``environment``, a line from 1 or None), which key, what."""

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class Faults(Exception):  # noqa: N818 - plural says that it carries all of them
    """Everything that is wrong with a set of files; never empty."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = list(faults)


def nearest(found: str, known: Iterable[str]) -> str:
    """How a message ends that refuses an unknown key: the nearest known one, or all where a line holds them."""
    names = sorted(known)
    close = difflib.get_close_matches(found, names, n=1, cutoff=0.6)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; one of {', '.join(names)}" if len(names) <= LISTED_MAX else ""


def kind_of(value: Any) -> str:
    """What stands where a table is expected; a text may be a secret that belongs into it."""
    return show(value) if isinstance(value, int | float) else f"a {type(value).__name__}"


def show(value: Any) -> str:
    """A value as a message shows it: JSON, cut short."""
    text: str = msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= 60 else text[:57] + "…"
