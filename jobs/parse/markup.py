"""What an XML element has besides its text: its markup, written as HTML, and the base of its addresses (``xml:base``)."""

import html
import re
from typing import Any, Final
from urllib.parse import urljoin

from lxml import etree

_XML: Final = "{http://www.w3.org/XML/1998/namespace}"
_BASES: Final = (f"{_XML}base", "xml:base")  # in XML, and in XHTML that is read as HTML
XHTML: Final = "http://www.w3.org/1999/xhtml"
VOID: Final = frozenset("area base br col embed hr img input link meta param source track wbr".split())  # noqa: SIM905
_HTML_IN_TEXT: Final = re.compile(r"</?[A-Za-z][^<>]*>|&#?\w+;")


def inner(element: Any, *, is_xml: bool = False) -> str:
    """The markup inside an element, as HTML without prefixes, its text escaped.

    Unless ``is_xml`` (XHTML), text with tags or references stays as it is: the HTML was escaped only in part.
    """
    texts = [element.text or "", *(child.tail or "" for child in element)]
    stays = not is_xml and any(map(_HTML_IN_TEXT.search, texts))
    texts = texts if stays else [html.escape(text, quote=False) for text in texts]
    pieces = [texts[0]]
    for child, tail in zip(element, texts[1:], strict=True):
        pieces += [*(_pieces(child) if isinstance(child.tag, str) else ()), tail]
    return "".join(pieces)


def _pieces(top: Any) -> list[str]:
    pieces = []
    for event, element in etree.iterwalk(top, events=("start", "end", "comment", "pi")):
        if event in ("comment", "pi"):
            pieces.append(html.escape(element.tail or "", quote=False))
            continue
        name = str(element.tag).rpartition("}")[2]
        if event == "start":
            values = ((key.replace(_XML, "xml:").rpartition("}")[2], value) for key, value in element.items())
            attributes = "".join(f' {key}="{html.escape(value)}"' for key, value in values)
            pieces.append(f"<{name}{attributes}>{html.escape(element.text or '', quote=False)}")
            continue
        if name not in VOID or len(element) or element.text:
            pieces.append(f"</{name}>")
        if element is not top:
            pieces.append(html.escape(element.tail or "", quote=False))
    return pieces


def bases(element: Any) -> list[str]:
    """The values of ``xml:base`` around an element, outermost first; for a document that was a text, also those around the text."""
    found = [one.get(name) for one in (element, *element.iterancestors()) for name in _BASES if name in one.attrib]
    around = element.getroottree().docinfo.URL or ""
    return [*around.split("\n"), *reversed(found)] if around else found[::-1]


def base(element: Any, address: str) -> str:
    """The base of an element's addresses, in a document at ``address`` (XML Base; RFC 4287, 2)."""
    for one in bases(element):
        try:
            joined = urljoin(address, one.strip())
        except ValueError:
            continue  # not a valid address
        if joined.startswith(("http://", "https://")):
            address = joined
    return address
