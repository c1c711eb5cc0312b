"""The JSON-LD of an HTML page: its nodes of a type, with lists and ``@graph`` opened."""

import re
from collections.abc import Iterator
from typing import Any, Final

import chompjs
from lxml import etree

from jobs import budget, values
from jobs.errors import ParseFailed
from jobs.page import check_values, parse_json

_SCRIPTS: Final = etree.XPath(
    "descendant-or-self::script[contains(translate(@type, 'LDJSON', 'ldjson'), 'ld+json')]", smart_strings=False
)
_DEPTH_MAX: Final = 32
# What pages put around a script's text for parsers of old: CDATA or a comment, itself in a comment of JavaScript.
_OPENING: Final = re.compile(r"(?:(?://|/\*)\s*)?(?:<!\[CDATA\[|<!--)\s*(?:\*/)?")


def nodes(root: Any, wanted: str) -> list[Any]:
    """The page's nodes whose ``@type`` is (or holds) ``wanted``, in document order; what is no JSON is left out.

    Raises ParseFailed where a script holds too many values, and what ``budget.Share.grow`` raises.
    """
    found = []
    with budget.inside():
        for script in _SCRIPTS(root):
            document = _read(script.text or "")
            found += [node for node in _opened(document) if _is(node, wanted)]
    return found


def from_javascript(text: str) -> Any:
    """The first object or list in a text of JavaScript. Raises ValueError, and RecursionError for endless nesting."""
    return chompjs.parse_js_object(text, loader_kwargs={"strict": False, "parse_float": values.Number})


def parse(body: bytes) -> Any:
    """JSON, or the first object or list in JavaScript (``var data = {…};``), as pages have it in their scripts."""
    try:
        return parse_json(body)
    except ParseFailed as error:
        if error.__cause__ is None:
            raise  # it is too large, whatever it is
        try:
            return from_javascript(body.decode())
        except (ValueError, RecursionError):
            pass  # the first error says more
        raise


def _read(text: str) -> Any:
    """A script's value. Pages wrap it in comments or CDATA and write JavaScript; None where even that fails."""
    body = text.encode()
    check_values(body)
    try:
        return values.from_json(body)
    except (ValueError, RecursionError):
        pass  # the next reader takes what this one refuses
    text = _unwrapped(text.strip())
    try:
        return values.from_json(text.encode())
    except (ValueError, RecursionError):
        pass  # JavaScript, not JSON
    try:
        return from_javascript(text)
    except (ValueError, RecursionError):
        return None


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
