"""Authors' patterns, in RE2: linear in time, without look-around and back references."""

import re
from collections.abc import Callable
from typing import Any, Final

import re2

_NAMED: Final = re.compile(r"\(\?P?<([A-Za-z_]\w*)>")


def compiled(expression: str) -> Any:
    """An RE2 pattern; raises ValueError with what is wrong in it."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        raise ValueError(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from error


def searcher(expression: str) -> tuple[Callable[[str], Any], int]:
    """A search, and the number of the group that is wanted: the first, or the whole match. Raises ValueError."""
    made = compiled(expression)
    return made.search, 1 if made.groups else 0


def names(expression: str) -> list[str]:
    """The names of a pattern's groups, in their order."""
    return _NAMED.findall(expression)
