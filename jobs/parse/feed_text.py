"""Feeds' text constructs (RFC 4287, 3.1): what a title, a summary or a content says, by its type.

text_of(element)    the text, or HTML where it is that, also where it is written as XML
html_of(element)    the same for a reader of HTML: plain text is escaped
"""

import base64
import html
import re
from typing import Any, Final

from lxml import etree

from jobs.parse import markup
from jobs.parse.element_text import own_text
from jobs.parse.feed_namespaces import ATOM_03, NAMESPACES

_MARKED: Final = ("text/html", "text/xml")
_ESCAPED: Final = re.compile(r"\s*+&lt;[A-Za-z]")
_string: Final = etree.XPath("string()", smart_strings=False)


def text_of(element: Any) -> str:
    """What a title, a summary or a content says: HTML where it is that, also where it is written as XML."""
    if not len(element) and element.tag[0] != "{":
        return element.text or ""
    kind, children = _kind(element), elements_in(element)
    if kind == "base64":
        return _decoded(whole(element))
    if kind != "xhtml":
        return markup.inner(element) if children else whole(element)
    return markup.inner(division(element), is_xml=True)


def html_of(element: Any, warnings: list[str]) -> str:
    """The same as HTML: where a feed says that it is plain text, that is escaped. ``warnings`` gets one where it still is HTML then."""
    text = text_of(element)
    if _kind(element) == "text":
        return html.escape(text, quote=False)
    if _ESCAPED.match(text) and text.rstrip().endswith("&gt;"):
        warnings.append(
            f"a <{name_of(element)}> of the feed is HTML still after it was read as HTML: it is escaped twice"
        )
    return text


def division(element: Any) -> Any:
    """What holds the XHTML of an element: the one ``div`` in it is no part of that (RFC 4287, 3.1.1.3)."""
    children = elements_in(element)
    is_one = len(children) == 1 and name_of(children[0]) == "div" and not own_text(element).strip()
    return children[0] if is_one else element


def _kind(element: Any) -> str:
    """What an element says that it holds: text, html, xhtml or base64; "" where it does not say."""
    space = space_of(element)
    said = (element.get("type") or "").partition(";")[0].strip().lower()
    if space not in (NAMESPACES["atom"], ATOM_03):
        return "text" if space == NAMESPACES["media"] and said in ("", "plain") else ""
    if space == ATOM_03 and element.get("mode") == "base64":
        return "base64"
    if elements_in(element):
        return "xhtml" if said in ("xhtml", "application/xhtml+xml") or space == ATOM_03 else "html"
    if said == "xhtml":
        return "xhtml"
    return "text" if said in ("", "text") or (said.startswith("text/") and said not in _MARKED) else "html"


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=False).decode()
    except ValueError:
        return text


def name_of(element: Any) -> str:
    """An element's name without its namespace, in lower case; "" for a comment."""
    tag = element.tag
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else ""


def space_of(element: Any) -> str:
    """An element's namespace, "" for none."""
    return str(element.tag).rpartition("}")[0][1:]


def whole(element: Any) -> str:
    """All text of an element, as XPath's string() gives it."""
    return str(_string(element)) if len(element) else element.text or ""


def elements_in(element: Any) -> list[Any]:
    """The elements in an element, without comments."""
    return [child for child in element if isinstance(child.tag, str)] if len(element) else []
