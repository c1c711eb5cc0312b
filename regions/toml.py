"""Reads TOML files and finds the line of a key, which tomllib does not keep.

A key's line is the last line of the shortest part of the file, from its beginning, that parses and holds the key. Finding
it is slow, since each line means a parse, and is done only to report a fault.
"""

import tomllib
from pathlib import Path
from typing import Any

from regions.faults import Fault, Faults

Path_ = tuple[str | int, ...]


def read(path: Path) -> dict[str, Any]:
    """Parses a file. Raises ``Faults``, with the file's name and line, when it can't be read or is not TOML."""
    return parse(path, text_of(path))


def text_of(path: Path) -> str:
    """The text of a file. Raises ``Faults`` when it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Faults([Fault(path.name, None, "", f"expected a readable UTF-8 file, found: {error}")]) from error


def parse(path: Path, text: str) -> dict[str, Any]:
    """Parses the text of a file. Raises ``Faults``, with the file's name and line, when it is not TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        raise Faults([Fault(path.name, _line_in(message, text), "", f"expected TOML, found: {message}")]) from error
    except RecursionError as error:
        raise Faults([Fault(path.name, None, "", "expected TOML, found it nested too deeply")]) from error


def line_of(text: str, key: Path_) -> int | None:
    """The line (from 1) on which a key first exists, else that of its nearest parent; None when neither exists."""
    lines = text.splitlines(keepends=True)
    for length in range(len(key), 0, -1):
        for end in range(1, len(lines) + 1):
            try:
                data: Any = tomllib.loads("".join(lines[:end]))
            except (tomllib.TOMLDecodeError, RecursionError):
                continue
            if _holds(data, key[:length]):
                return end
    return None


def _holds(data: Any, key: Path_) -> bool:
    for part in key:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _line_in(message: str, text: str) -> int | None:
    """The line that tomllib names in its message: ``… (at line 3, column 7)``, or ``(at end of document)``."""
    if "at end of document" in message:
        return max(len(text.splitlines()), 1)
    _, found, rest = message.partition("at line ")
    digits = rest.partition(",")[0]
    return int(digits) if found and digits.isdigit() else None
