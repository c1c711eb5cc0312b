"""Turns an element into a text: its own text, its text with lines, or its text without some descendants."""

import copy
import re
from typing import Any, Final

from lxml import etree

# With ``lines = true``, a new line begins before and after these elements.
BLOCKS: Final = frozenset(
    """
    address article aside blockquote body caption dd details dialog div dl dt fieldset figcaption figure footer form
    h1 h2 h3 h4 h5 h6 header hr legend li main menu nav ol option p pre section summary table tbody td tfoot th thead
    tr ul
    """.split()  # noqa: SIM905 - words read better than a list
)
_BREAK: Final = "\n"


def own_text(element: Any) -> str:
    """The text of an element without that of its child elements."""
    if isinstance(element, str):
        return element
    return (element.text or "") + "".join(child.tail or "" for child in element)


def trimmed(element: Any, unwanted: etree.XPath) -> Any:
    """A copy of an element without the descendants that an XPath finds. The text behind them stays."""
    if not unwanted(element):
        return element
    element = copy.deepcopy(element)
    element.tail = None
    for one in unwanted(element):
        parent, before, tail = one.getparent(), one.getprevious(), one.tail or ""
        if parent is None:
            continue  # the element itself, found by :scope
        if before is not None:
            before.tail = (before.tail or "") + tail
        else:
            parent.text = (parent.text or "") + tail
        parent.remove(one)
    return element


def lines(element: Any) -> str:
    """An element's text, with a line for each block and each ``<br>``."""
    pieces: list[str] = []
    for event, one in etree.iterwalk(element, events=("start", "end", "comment", "pi")):
        if event in ("comment", "pi"):
            pieces.append(one.tail or "")
            continue
        tag = one.tag if isinstance(one.tag, str) else ""
        breaks = tag.rpartition("}")[2] in BLOCKS
        if event == "start":
            pieces += [_BREAK if breaks or tag == "br" else "", _plain(one.text)]
        else:
            pieces += [_BREAK if breaks else "", _plain(one.tail) if one is not element else ""]
    return "".join(pieces)


def _plain(text: str | None) -> str:
    return re.sub(r"\s+", " ", text) if text else ""
