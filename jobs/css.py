"""CSS selectors as XPath: ``::text`` (own text), ``::attr(x)``, or nothing (all text).

In XML names are matched in any namespace. Inside a row only what lies below it is found, so that nested rows of one
class don't match themselves; ``::attr(x)`` alone and ``:scope`` are the row's own element.
"""

from typing import Final

import cssselect
from cssselect.parser import Attrib, Element, FunctionalPseudoElement, Selector
from cssselect.xpath import XPathExpr
from msgspec import Struct

WHOLE: Final = "descendant-or-self::"  # a page, its root element included
INSIDE: Final = "descendant::"


class Path(Struct, frozen=True):
    """An XPath. ``gives`` is element, text (the elements' own text is wanted) or attr (attributes are found)."""

    xpath: str
    gives: str


class _Xml(cssselect.GenericTranslator):
    """Names without a prefix mean any namespace."""

    def xpath_element(self, selector: Element) -> XPathExpr:
        if selector.element and selector.namespace is None:
            selector = Element("*", selector.element)
        return super().xpath_element(selector)

    def xpath_attrib(self, selector: Attrib) -> XPathExpr:
        if selector.namespace is None:
            selector.namespace = "*"
        return super().xpath_attrib(selector)


_XML: Final = _Xml()
_HTML: Final = cssselect.HTMLTranslator()


def translate(expression: str, *, xml: bool, prefix: str) -> Path:
    """The XPath of a selector or a group of them; raises ValueError with what is wrong."""
    try:
        parsed = cssselect.parse(expression)
        paths = [_one(selector, xml=xml, prefix=prefix) for selector in parsed]
    except (cssselect.SelectorError, RecursionError, TypeError) as error:
        raise ValueError(str(error) or "nested too deeply") from error
    kinds = {path.gives for path in paths}
    if "text" in kinds and len(kinds) > 1:
        raise ValueError("::text in one part of a group and not in the others")
    return Path(" | ".join(path.xpath for path in paths), kinds.pop() if len(kinds) == 1 else "element")


def _one(selector: Selector, *, xml: bool, prefix: str) -> Path:
    tree = selector.parsed_tree
    bare = isinstance(tree, Element) and tree.element is None and tree.namespace is None
    if (bare and selector.pseudo_element) or selector.canonical().lstrip().startswith(":scope"):
        prefix = "self::"
    translator = _XML if xml else _HTML
    path = translator.selector_to_xpath(selector, prefix=prefix)
    ending = selector.pseudo_element
    if ending is None:
        return Path(path, "element")
    if ending == "text":
        return Path(path, "text")
    if isinstance(ending, FunctionalPseudoElement) and ending.name == "attr":
        name = "".join(token.value or "" for token in ending.arguments)
        if not name or len(ending.arguments) != 1:
            raise ValueError("expected one name in ::attr(…)")
        name = name if xml else name.lower()
        test = f"@*[local-name() = {translator.xpath_literal(name)}]" if xml else f"@*[name() = '{name}']"
        plain = not xml and name.replace("-", "").replace("_", "").isalnum() and name[0].isalpha()
        return Path(f"{path}/{f'@{name}' if plain else test}", "attr")
    shown = ending if isinstance(ending, str) else ending.name
    raise ValueError(f"unknown ending ::{shown}; one of ::text, ::attr(name)")
