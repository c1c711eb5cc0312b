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

    def table(self, value: Any, where: Where, known: Iterable[str], what: str = "key") -> dict[str, Any]:
        """A table, with faults for unknown keys. An empty one if ``value`` is no table."""
        if not isinstance(value, dict):
            self.fault(where, f"expected a table, found {show(value)}")
            return {}
        names = set(known)
        for key in value:
            if key not in names:
                line = toml.line_of(self.text, (*where, key))
                message = f'unknown {what} "{key}"{nearest(key, names)}'
                self.faults.append(Fault(self.file, line, _dotted(where), message))
        return value

    def of_type(self, table: Mapping[str, Any], key: str, where: Where, kind: Any, default: Any, expected: str) -> Any:
        """The value of a key, converted to ``kind`` by msgspec (strictly); ``default`` if the key is absent."""
        if key not in table:
            return default
        try:
            return msgspec.convert(table[key], kind, strict=True)
        except msgspec.ValidationError:
            self.fault((*where, key), f"expected {expected}, found {show(table[key])}")
            return default

    def text_at(self, table: Mapping[str, Any], key: str, where: Where, default: str = "") -> str:
        """A text that is not empty."""
        found: str = self.of_type(table, key, where, str, default, "a text")
        if key in table and found == "" and table[key] == "":
            self.fault((*where, key), "expected a text, found an empty one")
        return found

    def one_of(self, table: Mapping[str, Any], key: str, where: Where, known: Iterable[str], default: str = "") -> str:
        """One of the known words."""
        found = self.text_at(table, key, where, default)
        names = list(known)
        if key in table and found not in names and found != default:
            near = nearest(found, names)
            near = near if near.startswith("; did") else ""
            self.fault((*where, key), f'expected one of {", ".join(names)}, found "{found}"{near}')
            return default
        return found

    def flag(self, table: Mapping[str, Any], key: str, where: Where, *, default: bool = False) -> bool:
        """True or false."""
        found: bool = self.of_type(table, key, where, bool, default, "true or false")
        return found

    def whole(
        self, table: Mapping[str, Any], key: str, where: Where, default: int, low: int = 0, high: int = 2**53
    ) -> int:
        """A whole number within limits."""
        found: int = self.of_type(table, key, where, int, default, f"a whole number from {low}")
        if not low <= found <= high:
            self.fault((*where, key), f"expected a whole number from {low} to {high}, found {found}")
            return default
        return found

    def number(self, table: Mapping[str, Any], key: str, where: Where, default: float, low: float = 0.0) -> float:
        """A number not below ``low``."""
        found: float = self.of_type(table, key, where, float, default, f"a number from {low:g}")
        if not low <= found < float("inf"):
            self.fault((*where, key), f"expected a number from {low:g}, found {found}")
            return default
        return found

    def texts(self, table: Mapping[str, Any], key: str, where: Where) -> tuple[str, ...]:
        """A list of texts. One text is a list of one; an absent key is an empty list."""
        if isinstance(table.get(key), str):
            return (self.text_at(table, key, where),)
        found: list[str] = self.of_type(table, key, where, list[str], [], "a text or a list of texts")
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
