"""Takes values from a definition's tables, and collects all their faults, each with its line.

books.list.toml:9: fields.price.type: expected one of int, decimal, …, found "dezimal"; did you mean "decimal"?
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from regions import toml
from regions.faults import Fault, nearest

Where = tuple[str | int, ...]


class Reader:
    """Reads one file. A wrong value becomes a fault, and its default is used instead, so that reading goes on."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.faults: list[Fault] = []

    def fault(self, where: Where, message: str) -> None:
        """Adds a fault at a key."""
        self.faults.append(Fault(self.file, toml.line_of(self.text, where), _dotted(where), message))

    def table(self, value: Any, where: Where, known: Iterable[str], what: str = "key") -> "Table":
        """A table, with faults for unknown keys. An empty one if ``value`` is no table."""
        if not isinstance(value, dict):
            self.fault(where, f"expected a table, found {show(value)}")
            return Table(self, {}, where)
        names = set(known)
        for key in value:
            if key not in names:
                line = toml.line_of(self.text, (*where, key))
                message = f'unknown {what} "{key}"{nearest(key, names)}'
                self.faults.append(Fault(self.file, line, _dotted(where), message))
        return Table(self, value, where)


class Table(dict[str, Any]):
    """A table of the file, which knows where it stands. Its methods take a key and give the value."""

    def __init__(self, reader: Reader, values: Mapping[str, Any], where: Where) -> None:
        super().__init__(values)
        self.reader = reader
        self.where = where

    def at(self, *keys: str | int) -> Where:
        """Where a key stands, or what is inside its value."""
        return (*self.where, *keys)

    def fault(self, key: str, message: str) -> None:
        """Adds a fault at a key."""
        self.reader.fault((*self.where, key), message)

    def table(self, key: str, known: Iterable[str]) -> "Table":
        """A table in this one, like ``Reader.table``; an empty one if the key is absent."""
        return self.reader.table(self.get(key, {}), self.at(key), known)

    def of_type(self, key: str, kind: Any, default: Any, expected: str) -> Any:
        """A value, converted to ``kind`` by msgspec (strictly); ``default`` if the key is absent."""
        if key not in self:
            return default
        try:
            return msgspec.convert(self[key], kind, strict=True)
        except msgspec.ValidationError:
            self.fault(key, f"expected {expected}, found {show(self[key])}")
            return default

    def text(self, key: str, default: str = "") -> str:
        """A text that is not empty."""
        found: str = self.of_type(key, str, default, "a text")
        if found == "" and self.get(key) == "":
            self.fault(key, "expected a text, found an empty one")
        return found

    def one_of(self, key: str, known: Iterable[str], default: str = "") -> str:
        """One of the known words."""
        found = self.text(key, default)
        names = list(known)
        if key in self and found not in names and found != default:
            near = nearest(found, names)
            near = near if near.startswith("; did") else ""
            self.fault(key, f'expected one of {", ".join(names)}, found "{found}"{near}')
            return default
        return found

    def flag(self, key: str, *, default: bool = False) -> bool:
        """True or false."""
        found: bool = self.of_type(key, bool, default, "true or false")
        return found

    def whole(self, key: str, default: int, low: int = 0, high: int = 2**53) -> int:
        """A whole number within limits."""
        found: int = self.of_type(key, int, default, f"a whole number from {low}")
        if not low <= found <= high:
            self.fault(key, f"expected a whole number from {low} to {high}, found {found}")
            return default
        return found

    def number(self, key: str, default: float, low: float = 0.0) -> float:
        """A number not below ``low``."""
        found: float = self.of_type(key, float, default, f"a number from {low:g}")
        if not low <= found < float("inf"):
            self.fault(key, f"expected a number from {low:g}, found {found}")
            return default
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts. One text is a list of one; an absent key is an empty list."""
        if isinstance(self.get(key), str):
            return (self.text(key),)
        found: list[str] = self.of_type(key, list[str], [], "a text or a list of texts")
        return tuple(found)


def show(value: Any) -> str:
    """A value for messages: JSON, cut short."""
    try:
        text = msgspec.json.encode(value, enc_hook=str).decode()
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _dotted(where: Where) -> str:
    return ".".join(map(str, where))
