"""Translates CSS selectors to XPath. They end in ``::text`` (own text), ``::attr(x)``, or nothing (all text).

In XML, names match in any namespace. Inside a row a selector finds only descendants, so that a row does not match itself.
``::attr(x)`` alone and ``:scope`` mean the row's own element.
"""

import re
from typing import Any, Final, NamedTuple

import cssselect
from cssselect.parser import Attrib, Class, CombinedSelector, Element, FunctionalPseudoElement, Selector
from cssselect.xpath import XPathExpr
from msgspec import Struct

WHOLE: Final = "descendant-or-self::"  # in a page, including its root element
INSIDE: Final = "descendant::"
STEPS_MAX: Final = 2  # of a simple selector
WORD: Final = re.compile(r"[^ \t\r\n]+")  # separated by the white space of XPath's normalize-space
_PLAIN: Final = re.compile(r"[A-Za-z_-][A-Za-z0-9_-]*")
_OWN_ATTRIBUTE: Final = re.compile(r"::attr\(([A-Za-z][A-Za-z0-9_-]*)\)")


class Step(NamedTuple):
    """Matches elements with this tag ("" for any) and all these classes."""

    tag: str
    classes: tuple[str, ...] = ()

    def takes(self, element: Any) -> bool:
        """Whether an element matches."""
        if self.tag and element.tag != self.tag:
            return False
        if not self.classes:
            return True
        words = WORD.findall(element.get("class", ""))
        return all(one in words for one in self.classes)


class Simple(NamedTuple):
    """A selector of nested ``steps``. With an ``attribute``, the last element must have it, and the selector gives its value."""

    steps: tuple[Step, ...]
    attribute: str = ""


class Path(Struct, frozen=True):
    """An XPath. ``gives`` is element, text (the own text of the elements) or attr (attributes).

    ``first`` is the XPath of the first match only. If it has one step, libxml2 stops at the match.
    """

    xpath: str
    gives: str
    first: str


class _Classes(cssselect.GenericTranslator):
    """Tests classes without first testing whether there are any, which takes a quarter of the time."""

    def xpath_attrib_includes(self, xpath: XPathExpr, name: str, value: str | None) -> XPathExpr:
        if not value or value.split() != [value]:
            return super().xpath_attrib_includes(xpath, name, value)
        word, blank = self.xpath_literal(value), self.xpath_literal(f" {value} ")
        has_word = f"contains({name}, {word}) and contains(concat(' ', normalize-space({name}), ' '), {blank})"
        return xpath.add_condition(has_word)


class _Html(cssselect.HTMLTranslator, _Classes):
    """HTML: names are in lower case."""


class _Xml(_Classes):
    """XML: names without a prefix match in any namespace."""

    def xpath_element(self, selector: Element) -> XPathExpr:
        if selector.element and selector.namespace is None:
            selector = Element("*", selector.element)
        return super().xpath_element(selector)

    def xpath_attrib(self, selector: Attrib) -> XPathExpr:
        if selector.namespace is None:
            selector.namespace = "*"
        return super().xpath_attrib(selector)


_XML: Final = _Xml()
_HTML: Final = _Html()


def translate(expression: str, *, xml: bool, prefix: str) -> Path:
    """The XPath of a selector or a group of selectors. Raises ValueError that says what is wrong."""
    try:
        parsed = cssselect.parse(expression)
        paths = [_one(selector, xml=xml, prefix=prefix) for selector in parsed]
    except (cssselect.SelectorError, RecursionError, TypeError) as error:
        raise ValueError(str(error) or "nested too deeply") from error
    kinds = {path.gives for path in paths}
    if "text" in kinds and len(kinds) > 1:
        raise ValueError("::text in one part of a group and not in the others")
    if len(paths) == 1:
        return paths[0]
    xpath = " | ".join(path.xpath for path in paths)
    return Path(xpath, kinds.pop() if len(kinds) == 1 else "element", f"({xpath})[1]")


def simple(expression: str) -> Simple | None:
    """A selector for HTML that has only tags and classes, in two steps at most; None for any other.

    With more steps, nested elements would be searched again and again; XPath remembers those that it has seen.
    """
    try:
        selectors = cssselect.parse(expression)
    except (cssselect.SelectorError, RecursionError, TypeError):
        return None  # ``translate`` reports the fault
    steps: list[Step | None] = []
    tree, attribute = selectors[0].parsed_tree, _plain_attribute(selectors[0].pseudo_element)
    while isinstance(tree, CombinedSelector) and tree.combinator == " ":
        steps.append(_step(tree.subselector))
        tree = tree.selector
    steps.append(_step(tree))
    found = tuple(step for step in reversed(steps) if step is not None)
    if len(selectors) > 1 or attribute is None or len(found) < len(steps) or len(steps) > STEPS_MAX:
        return None
    return Simple(found, attribute)


def _step(tree: Any) -> Step | None:
    classes: list[str] = []
    while isinstance(tree, Class):
        classes.append(tree.class_name)
        tree = tree.selector
    if not isinstance(tree, Element) or tree.namespace is not None:
        return None
    tag = (tree.element or "").lower()
    if not (tag or classes) or not all(_PLAIN.fullmatch(one) for one in (tag or "x", *classes)):
        return None
    return Step(tag, tuple(reversed(classes)))


def _plain_attribute(ending: Any) -> str | None:
    """The attribute that a selector ends in, "" for no ending; None for any other ending."""
    if ending is None:
        return ""
    if not isinstance(ending, FunctionalPseudoElement) or ending.name != "attr" or len(ending.arguments) != 1:
        return None
    name = (ending.arguments[0].value or "").lower()
    return name if _PLAIN.fullmatch(name) else None


def check_elements(expression: str) -> None:
    """Raises ValueError for a bad selector, and for one that finds no elements."""
    if translate(expression, xml=False, prefix=INSIDE).gives != "element":
        raise ValueError("it ends in ::text or ::attr(…)")


def own_attribute(expression: str) -> str:
    """The name in ``::attr(name)`` alone, "" for any other selector."""
    found = _OWN_ATTRIBUTE.fullmatch(expression.strip())
    return found[1] if found else ""


def _one(selector: Selector, *, xml: bool, prefix: str) -> Path:
    tree = selector.parsed_tree
    bare = isinstance(tree, Element) and tree.element is None and tree.namespace is None
    if (bare and selector.pseudo_element) or selector.canonical().lstrip().startswith(":scope"):
        prefix = "self::"
    translator = _XML if xml else _HTML
    made = translator.xpath(tree)
    path, is_one_step = f"{prefix}{made}", not made.path
    first = f"{path}[1]" if is_one_step else f"({path})[1]"
    ending = selector.pseudo_element
    if ending is None:
        return Path(path, "element", first)
    if ending == "text":
        return Path(path, "text", first)
    if isinstance(ending, FunctionalPseudoElement) and ending.name == "attr":
        name = "".join(token.value or "" for token in ending.arguments)
        if not name or len(ending.arguments) != 1:
            raise ValueError("expected one name in ::attr(…)")
        name = name if xml else name.lower()
        test = f"@*[local-name() = {translator.xpath_literal(name)}]" if xml else f"@*[name() = '{name}']"
        plain = not xml and name.replace("-", "").replace("_", "").isalnum() and name[0].isalpha()
        attribute = f"@{name}" if plain else test
        if is_one_step:
            first = f"{prefix}{made.add_condition(attribute)}[1]/{attribute}"
        return Path(f"{path}/{attribute}", "attr", first if is_one_step else f"({path}/{attribute})[1]")
    shown = ending if isinstance(ending, str) else ending.name
    raise ValueError(f"unknown ending ::{shown}; one of ::text, ::attr(name)")
