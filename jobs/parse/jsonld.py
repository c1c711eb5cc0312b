"""Reads the JSON-LD of an HTML page: its nodes of a type, also those in lists and ``@graph``."""

import html
import json
import operator
import re
from collections.abc import Iterator
from typing import Any, Final

import chompjs
import msgspec
from lxml import etree

from jobs import memory
from jobs.errors import ParseFailed
from jobs.page import VALUE_BYTES, check_values, parse_json
from jobs.text import values

_SCRIPTS: Final = etree.XPath(
    "descendant-or-self::script[contains(translate(@type, 'LDJSON', 'ldjson'), 'ld+json')]", smart_strings=False
)
_DEPTH_MAX: Final = 32
JOINED_BYTES_MAX: Final = 1_000_000  # of JSON that resolved references may add
JOINED_DEEP_MAX: Final = 6  # references in a chain
_OF_REFERENCE: Final = frozenset({"@id", "@type"})
_LOADER: Final = {"strict": False, "parse_float": values.Number, "parse_constant": lambda _: None}
_DECODER: Final = json.JSONDecoder(strict=False, parse_float=values.Number, parse_constant=lambda _: None)
_BETWEEN: Final = re.compile(r"[\s,;]*+")
# A JavaScript string, a comment, or the word itself.
_UNDEFINED: Final = re.compile(
    r""""(?:[^"\\]|\\.)*+(?:"|\Z)|'(?:[^'\\]|\\.)*+(?:'|\Z)|`(?:[^`\\]|\\.)*+(?:`|\Z)|/\*.*?(?:\*/|\Z)|//[^\n]*+|(?<![\w$.])undefined(?![\w$])""",
    re.DOTALL,
)
# What pages put around a script's text for old parsers: CDATA or a comment, itself inside a JavaScript comment.
_OPENING: Final = re.compile(r"(?:(?://|/\*)\s*)?(?:<!\[CDATA\[|<!--)\s*(?:\*/)?")


def nodes(root: Any, wanted: str, warnings: list[str]) -> list[Any]:
    """The page's nodes whose ``@type`` is or includes ``wanted``, in document order, with their references resolved.

    ``warnings`` gets the scripts that can't be read, or not to their end. Raises ParseFailed if a script holds too many
    values, and the errors of ``memory.Share.grow``.
    """
    with memory.inside():
        texts = [script.text or "" for script in _SCRIPTS(root)]
        documents: list[Any] = []
        for number, text in enumerate(texts, 1):
            documents += _read(text, f"script {number} of JSON-LD", warnings)
        found = [node for document in documents for node in _opened(document) if _is(node, wanted)]
        if sum(text.count('"@id"') for text in texts) > 1:  # at least a node and a reference to it
            found = Joiner(documents, warnings).joined(found)
        return found


def from_javascript(text: str) -> Any:
    """The first object or list in JavaScript. Raises ValueError, and RecursionError for too deep nesting."""
    return _mended(chompjs.parse_js_object(_defined(text), loader_kwargs=_LOADER), text)


def _mended(found: Any, text: str) -> Any:
    """What was found in a text, without the lone surrogates that escapes in it may have made."""
    return values.mended(found) if "\\u" in text else found


def _defined(text: str) -> str:
    """JavaScript with null for undefined, which chompjs would read as a string."""
    if "undefined" not in text:
        return text
    return _UNDEFINED.sub(lambda found: found[0] if found[0] != "undefined" else "null", text)


def parse(body: bytes) -> Any:
    """JSON, or the first object or list in JavaScript (``var data = {…};``). Raises ParseFailed."""
    try:
        return parse_json(body)
    except ParseFailed as error:
        if error.__cause__ is None:
            raise  # it is too large
        try:
            return from_javascript(body.decode())
        except (ValueError, RecursionError):
            pass  # the first error says more
        raise


def _read(text: str, name: str, warnings: list[str]) -> list[Any]:
    """A script's values, which may be several, wrapped in comments or CDATA, escaped as HTML, or JavaScript."""
    check_values(text.encode())
    text = _unwrapped(text.strip("\ufeff\x00 \t\r\n"))
    if not text:
        return []
    try:
        return _values(text)
    except (ValueError, RecursionError) as error:
        fault = str(error) or "it is nested too deeply"
    if "&quot;" in text:
        try:
            return _values(html.unescape(text))
        except (ValueError, RecursionError):
            pass  # JavaScript, not JSON
    try:
        found: list[Any] = _mended(list(chompjs.parse_js_objects(_defined(text), loader_kwargs=_LOADER)), text)
    except (ValueError, RecursionError):
        found = []
    if not found:
        warnings.append(f"{name} can't be read: {fault}")
    elif text.count("@type") > sum(_types(value) for value in found):
        warnings.append(f"{name} can't be read to its end: {fault}")
    return found


def _values(text: str) -> list[Any]:
    """All values of a text, with or without commas between them. Raises ValueError."""
    try:
        return [values.from_json(text.encode())]
    except ValueError:
        pass  # several, or none
    found: list[Any] = []
    at = 0
    while at < len(text):
        value, at = _DECODER.raw_decode(text, at)
        found.append(values.mended(value))
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
    return found


def _types(value: Any, depth: int = 0) -> int:
    """How often ``@type`` occurs in a value."""
    if depth > _DEPTH_MAX:
        return 0
    if isinstance(value, list):
        return sum(_types(one, depth + 1) for one in value)
    if isinstance(value, dict):
        return int("@type" in value) + sum(_types(one, depth + 1) for one in value.values())
    return int(isinstance(value, str) and "@type" in value)


def _unwrapped(text: str) -> str:
    found = _OPENING.match(text)
    if found is None:
        return text
    text = text[found.end() :].removesuffix("*/").rstrip()
    for mark in ("]]>", "-->"):
        text = text.removesuffix(mark).rstrip()
    return text.removesuffix("//").removesuffix("/*")


def _opened(value: Any, depth: int = 0) -> Iterator[Any]:
    if depth > _DEPTH_MAX:
        return
    if isinstance(value, list):
        for one in value:
            yield from _opened(one, depth + 1)
    elif isinstance(value, dict):
        yield value
        if "@graph" in value:
            yield from _opened(value["@graph"], depth + 1)


def _is(node: dict[str, Any], wanted: str) -> bool:
    kind = node.get("@type")
    names = kind if isinstance(kind, list) else [kind]
    return any(isinstance(name, str) and name.rpartition("/")[2].rpartition(":")[2] == wanted for name in names)


class Joiner:
    """Resolves references: ``{"@id": "#me"}`` becomes the node of the page that has this ``@id``.

    The added JSON is limited, since a page may refer to a large node a thousand times. A reference to a node around it stays.
    """

    def __init__(self, documents: list[Any], warnings: list[str]) -> None:
        self._nodes: dict[str, dict[str, Any]] = {}
        self._sizes: dict[str, int] = {}
        self._left = JOINED_BYTES_MAX
        self._warnings = warnings
        for document in documents:
            self._learn(document, 0)

    def joined(self, found: list[Any]) -> list[Any]:
        """The nodes with their references resolved."""
        return [self._join(node, (), 0) for node in found] if self._nodes else found

    def _learn(self, value: Any, depth: int) -> None:
        if depth > _DEPTH_MAX:
            return
        if isinstance(value, list):
            for one in value:
                self._learn(one, depth + 1)
        elif isinstance(value, dict):
            name = value.get("@id")
            if isinstance(name, str) and not _is_reference(value):
                self._nodes.setdefault(name, value)
            for one in value.values():
                if isinstance(one, (list, dict)):
                    self._learn(one, depth + 1)

    def _join(self, value: Any, path: tuple[str, ...], depth: int) -> Any:
        """A value with its references resolved; the same object if it has none."""
        if depth > _DEPTH_MAX:
            return value
        if isinstance(value, list):
            items = [self._join(one, path, depth + 1) for one in value]
            return value if all(map(operator.is_, items, value)) else items
        if not isinstance(value, dict):
            return value
        name = value.get("@id")
        if isinstance(name, str):
            if _is_reference(value) and self._may_add(name, path):
                value = {**self._nodes[name], **value}
            path = (*path, name)
        members = {key: self._join(one, path, depth + 1) for key, one in value.items()}
        return value if all(map(operator.is_, members.values(), value.values())) else members

    def _may_add(self, name: str, path: tuple[str, ...]) -> bool:
        if name not in self._nodes or name in path or len(path) > JOINED_DEEP_MAX:
            return False
        if name not in self._sizes:
            try:
                self._sizes[name] = len(msgspec.json.encode(values.clean(self._nodes[name]), enc_hook=str))
            except RecursionError:
                self._sizes[name] = JOINED_BYTES_MAX
        size = self._sizes[name]
        if size > self._left:
            self._warnings.append(f"references of JSON-LD are joined up to {JOINED_BYTES_MAX} bytes; the others stay")
            return False
        self._left -= size
        memory.reserve(len(self._nodes[name]) * VALUE_BYTES, "references of JSON-LD")
        return True


def _is_reference(value: dict[str, Any]) -> bool:
    return value.keys() <= _OF_REFERENCE
