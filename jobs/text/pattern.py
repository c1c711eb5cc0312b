"""The patterns of definitions, in RE2: linear in time, without look-around and back references."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import re2

# Texts whose match a pattern remembers: ratings, states and units repeat within a page. Each thread has its own memory.
REMEMBERED: Final = 16
REMEMBERED_LENGTH: Final = 80  # of the longest remembered text

_NAMED: Final = re.compile(r"\(\?P?<([A-Za-z_]\w*)>")
_ONE_BYTE: Final = re.compile(r"(?<!\\)(?:\\\\)*\\C")


def compiled(expression: str) -> Any:
    """An RE2 pattern. Raises ValueError that says what is wrong with it."""
    if _ONE_BYTE.search(expression):
        raise ValueError("\\C is half a character")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        raise ValueError(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from error


def finder(expression: str) -> Callable[[str], str | None]:
    """A function from a text to the pattern's first match, or its group 1 if it has one; None for no match.

    A group that took no part is "". The function calls the layer below re2's own ``search``, which takes six times as long
    since it computes positions in characters. It remembers the matches of short texts, since each search releases the
    interpreter lock. Raises ValueError like ``compiled``.
    """
    made = compiled(expression)
    group = 1 if made.groups else 0
    match, anywhere = made._regexp.Match, re2._Anchor.UNANCHORED  # noqa: SLF001 - pinned by a test

    def find(text: str) -> str | None:
        data = text.encode()
        spans = match(anywhere, data, 0, len(data))
        if spans[0][0] < 0:
            return None
        start, end = spans[group]
        return data[start:end].decode() if start >= 0 else ""

    remembered = lru_cache(REMEMBERED)(find)
    return lambda text: remembered(text) if len(text) <= REMEMBERED_LENGTH else find(text)


def names(expression: str) -> list[str]:
    """The names of a pattern's groups, in order."""
    return _NAMED.findall(expression)
