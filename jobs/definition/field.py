"""What a selector and a field are.

SELECTOR = "…"  |  {css|xpath|jmes|key|jsonld|const = …, level, parse}
FIELD    = SELECTOR with keys  |  {template = …}  |  {each = SELECTOR, fields = {…}}  |  [FIELD, …]
"""

import re
from typing import Any, Final, Union

from msgspec import Struct

LANGUAGES: Final = ("css", "xpath", "jmes", "key", "jsonld", "const")
OWN: Final = "own"  # no selector: the key or member with the field's own name
DEFAULT_LANGUAGE: Final = {"html": "css", "xml": "css", "json": "jmes", "feed": "key", "csv": "key", "text": "key"}
# Fields and params have these types.
TYPES: Final = ("str", "url", "int", "decimal", "float", "bool", "date", "datetime", "duration")
NAME: Final = re.compile(r"[^\x00-\x1f\x7f{}]{1,64}")

# What a level's items are.
ELEMENT: Final = "element"
VALUE: Final = "value"  # a JSON value
ROW: Final = "row"  # a row of keys
Kinds = frozenset[str]
LOOKS_AT: Final = {"css": ELEMENT, "xpath": ELEMENT, "jsonld": ELEMENT, "jmes": VALUE, "key": ROW}
PAGE_KINDS: Final[dict[str, Kinds]] = {
    "html": frozenset({ELEMENT}),
    "xml": frozenset({ELEMENT}),
    "json": frozenset({VALUE}),
    "feed": frozenset({ELEMENT, ROW}),
    "csv": frozenset(),
    "text": frozenset(),
}
PARSED: Final = {"html": ELEMENT, "xml": ELEMENT, "json": VALUE}

PAGE_URL: Final = "page.url"  # the final address of the page in templates


class Selector(Struct, frozen=True):
    """``level`` is absolute: 0 is the page, -1 stands for const. ``expression`` is the constant, or the selector's text."""

    language: str
    expression: Any
    level: int
    parse: str = ""


class Value(Struct, frozen=True, kw_only=True):
    """One value: selected, or made by a ``template`` of texts, fields above it and params."""

    selector: Selector | None = None
    template: str = ""
    many: bool = False
    without: str = ""
    lines: bool = False
    fold: bool = True
    re: str = ""
    map: dict[str, Any] = {}
    type: str = ""  # "": a text, or the JSON value as it is
    scale: str = ""
    join: str | None = None
    default: Any = None
    decimal_mark: str = "."
    format: tuple[str, ...] = ()
    lang: str = ""
    tz: str = ""
    to_tz: str = ""


class Nested(Struct, frozen=True):
    """A list of nested records, one for each item of ``each``."""

    each: Selector
    fields: dict[str, "Field"]


class Choice(Struct, frozen=True):
    """The first of several fields that finds something."""

    options: tuple["Field", ...]


Field = Union[Value, Nested, Choice]  # noqa: UP007 - the names are not defined yet when | would be evaluated


def template_parts(template: str) -> list[str | tuple[str]] | None:
    """A template as a list of texts and names, each name in a tuple of one; None if a brace is out of place."""
    parts: list[str | tuple[str]] = []
    for index, piece in enumerate(re.split(r"\{([A-Za-z_][A-Za-z0-9_.-]*)\}", template)):
        if index % 2:
            parts.append((piece,))
        elif "{" in piece or "}" in piece:
            return None
        elif piece:
            parts.append(piece)
    return parts
