"""Texts and JSON values: how they are read, folded, shown, and refused."""

import json
import re
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, Self

import msgspec

from jobs import memory

TRUE: Final = frozenset({"true", "yes", "y", "1", "on"})
FALSE: Final = frozenset({"false", "no", "n", "0", "off"})
SHOWN_MAX: Final = 60
LONG: Final = 262_144  # characters: a longer text is folded in pieces
LINE_BYTES: Final = 64  # memory of a line beyond its characters
DEPTH_MAX: Final = 200  # levels of a value in a result, which every client has to parse
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class BadValue(ValueError):  # noqa: N818
    """A value that does not fit its field. ``hint`` says why, and which key of the field helps."""

    def __init__(self, found: object, expected: str, hint: str = "") -> None:
        text = found if isinstance(found, str) else msgspec.json.encode(clean(found), enc_hook=str).decode()
        self.found = text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 1] + "…"
        self.expected = expected
        self.hint = hint
        super().__init__(f'expected {expected}, found "{self.found}"{": " if hint else ""}{hint}')


class Number(float):
    """A JSON number with a fraction or an exponent that remembers its digits. In results it is a plain float."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Self:
        """From its digits in the JSON."""
        made = float.__new__(cls, text)
        made.text = text
        return made


_json_decoder = msgspec.json.Decoder(float_hook=Number)


def from_json(body: bytes, warnings: list[str] | None = None) -> Any:
    """A JSON value. NaN, Infinity and lone surrogates, which msgspec refuses and some sites write, are read, too.

    ``warnings`` gets a sentence for each of these. Raises ValueError, and RecursionError if the nesting is too deep.
    """
    try:
        return _json_decoder.decode(body)
    except msgspec.DecodeError:
        text = body.decode("utf-8-sig", "replace")
        constants: list[str] = []
        found = json.loads(text, parse_float=Number, parse_constant=constants.append, strict=False)
        whole = mended(found)
        if warnings is not None:
            warnings += [f"{constants[0]} is not JSON: it was read as null"] if constants else []
            warnings += ["a lone surrogate is not text: it was read as U+FFFD"] if whole != found else []
        return whole


def mended(value: Any) -> Any:
    """A JSON value with U+FFFD for lone surrogates, which UTF-8 has no bytes for."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    if isinstance(value, list):
        return [mended(one) for one in value]
    if isinstance(value, dict):
        return {mended(key): mended(one) for key, one in value.items()}
    return value


def clean(value: Any, depth: int = 0) -> Any:
    """A JSON value as results have it, with plain floats for ``Number``. Raises BadValue if it is nested too deeply."""
    kind = type(value)
    if kind is Number:
        return float(value) if abs(value) != float("inf") else value.text
    if kind is list or kind is dict:
        if depth >= DEPTH_MAX:
            raise BadValue(
                "one with more", f"a value of at most {DEPTH_MAX} levels", "a longer path selects what is in it"
            )
        inner = depth + 1
        return [clean(one, inner) for one in value] if kind is list else {k: clean(v, inner) for k, v in value.items()}
    return value


def folded(text: str) -> str:
    """A text with one blank for each run of white space, and none at its ends."""
    return " ".join(text.split()) if len(text) <= LONG else _folded_by_pieces(text)


def _folded_by_pieces(text: str) -> str:
    """``folded`` for long texts: splitting one into all its words at once would take many times its memory."""
    memory.reserve(2 * sys.getsizeof(text), f"a text of {len(text)} characters")
    pieces: list[str] = []
    is_in_word = False
    for start in range(0, len(text), LONG):
        piece = text[start : start + LONG]
        words = " ".join(piece.split())
        if words:
            pieces.append(words if not pieces or (is_in_word and not piece[0].isspace()) else f" {words}")
        is_in_word = not piece[-1].isspace()
    return "".join(pieces)


def text_of(value: Any) -> str:
    """The folded text of a selected value. Raises BadValue for a list or an object."""
    return folded(value) if type(value) is str else exact_of(value)


def exact_of(value: Any) -> str:
    """The text of a selected value with its white space. Raises BadValue for a list or an object."""
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is Number:
        return str(value.text)
    if kind is list or kind is dict:
        raise BadValue(value, "one value")
    return "" if value is None else str(value)


def lines_of(value: Any) -> str:
    """The text of a selected value with each line folded, without empty lines."""
    if not isinstance(value, str):
        return text_of(value)
    if len(value) > LONG:
        memory.reserve(sys.getsizeof(value) + value.count("\n") * LINE_BYTES, f"a text of {len(value)} characters")
    return "\n".join(line for raw in value.split("\n") if (line := folded(raw)))


def joined(values: Sequence[Any], by: str) -> str:
    """The texts of a list, joined."""
    return by.join(shown(value) for value in values)


def shown(value: Any) -> str:
    """A value as it appears inside other texts: its JSON without quotes."""
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return str(value)
    return msgspec.json.encode(value).decode()
