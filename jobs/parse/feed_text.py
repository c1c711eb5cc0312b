"""Reads the text constructs of feeds (RFC 4287, 3.1): a title, summary or content, according to its type.

text_of(element)    the text or the HTML, which may be written as XML elements
html_of(element)    the same as HTML: plain text is escaped
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
    """The text of a title, summary or content; HTML if it holds HTML, be it written as XML elements."""
    if not len(element) and element.tag[0] != "{":
        return element.text or ""
    kind, children = _kind(element), elements_in(element)
    if kind == "base64":
        return _decoded(whole(element))
    if kind != "xhtml":
        return markup.inner(element) if children else whole(element)
    return markup.inner(division(element), is_xml=True)


def html_of(element: Any, warnings: list[str]) -> str:
    """The same as HTML: declared plain text is escaped. ``warnings`` gets a line about text that is escaped twice."""
    text = text_of(element)
    if _kind(element) == "text":
        return html.escape(text, quote=False)
    if _ESCAPED.match(text) and text.rstrip().endswith("&gt;"):
        warnings.append(f"a <{name_of(element)}> of the feed is still HTML after it was unescaped: it is escaped twice")
    return text


def division(element: Any) -> Any:
    """The element that holds the XHTML: a single ``div`` child, which is no part of the text itself (RFC 4287, 3.1.1.3), or this one."""
    children = elements_in(element)
    is_one = len(children) == 1 and name_of(children[0]) == "div" and not own_text(element).strip()
    return children[0] if is_one else element


def _kind(element: Any) -> str:
    """The declared type of an element: text, html, xhtml or base64; "" if it declares none."""
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
    """An element's lower-case name without its namespace; "" for a comment."""
    tag = element.tag
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else ""


def space_of(element: Any) -> str:
    """An element's namespace, "" for none."""
    return str(element.tag).rpartition("}")[0][1:]


def whole(element: Any) -> str:
    """The whole text of an element, like XPath's string()."""
    return str(_string(element)) if len(element) else element.text or ""


def elements_in(element: Any) -> list[Any]:
    """The child elements, without comments."""
    return [child for child in element if isinstance(child.tag, str)] if len(element) else []
