"""Our reading beside that of peers, on input that is generated or was recorded: ``python -m tests.differential``.

A module of this folder that has ``compare(seed, count)`` is one comparison, by its own name. It yields a sentence for each
difference: what was read, what we make of it, and what the peer does. ``count`` says how many inputs are made; the same
seed makes the same ones. A difference that is meant to be is ``Explained``, and its reason is listed beside the
comparison; any other one is a fault, ours or one of the list.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

Compare = Callable[[int, int], Iterator[str]]

FOLDER: Final = Path(__file__).parent
ALONE: Final = frozenset({"fetching"})  # has a short run of its own in the suite


class Explained(str):
    """A difference that has a reason."""

    __slots__ = ("reason",)
    reason: str

    def __new__(cls, sentence: str, reason: str) -> Self:
        """From what differs, and why that is meant to be."""
        made = super().__new__(cls, f"{sentence} ({reason})")
        made.reason = reason
        return made


def names() -> list[str]:
    """The comparisons that there are, by the modules of this folder."""
    found = [one.name for one in pkgutil.iter_modules(__path__) if not one.name.startswith("_")]
    return sorted(name for name in found if "\ndef compare(" in (FOLDER / f"{name}.py").read_text(encoding="utf-8"))


def comparison(name: str) -> Compare:
    """What compares; its peers are imported here and not before."""
    found: Compare = importlib.import_module(f"{__name__}.{name}").compare
    return found
