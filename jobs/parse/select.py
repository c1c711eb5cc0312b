"""Compiles selectors for one thread: css and xpath (by lxml), jmes, key, jsonld, const.

A finder takes the levels of a row (a list with the item of each level) and returns what it finds: a text, a JSON value or
None; with ``many`` a list. A step returns the items of the next level.

``string((…)[1])`` reads an element's text, an attribute or the first text node in one call. Every ``XPath`` gives plain strings
(``smart_strings=False``), since lxml's smart ones keep their whole tree alive and msgspec refuses them.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from lxml import etree

from jobs import memory
from jobs.definition import css, field, jmes
from jobs.definition.field import OWN, Kinds, Selector
from jobs.errors import ParseFailed
from jobs.page import parse_html, parse_xml
from jobs.parse import element_text, feed_text, jsonld, markup
from jobs.parse.descendants import Seek, Words, seeker, string_of
from jobs.text.values import BadValue

Levels = Sequence[Any]
Find = Callable[[Levels], Any]
FindAll = Callable[[Levels], list[Any]]

_LITERAL: Final = re.compile(r""""[^"]*"|'[^']*'""")
_VARIABLE: Final = re.compile(r"\$\s*([\w.-]+)")


_PARSERS: Final[dict[str, Callable[[bytes], Any]]] = {"html": parse_html, "xml": parse_xml, "json": jsonld.parse}


class _OfRow(etree.XPath):
    """An XPath in which ``$row`` is its context element, since XPath 1.0 has no ``current()``."""

    def __call__(self, item: Any, /, **variables: Any) -> Any:
        return super().__call__(item, row=item, **variables)


class Compiler:
    """Compiles the selectors of one definition for the thread that calls it.

    ``kinds`` are those of the levels; ``documents`` are the levels whose item is a whole document, so that its root may match.
    Raises ValueError for a bad XPath, the only language that can't be checked without lxml when a definition is read.
    """

    def __init__(self, form: str, namespaces: Mapping[str, str]) -> None:
        self.form = form
        self.namespaces = dict(namespaces)
        self.string = self.xpath("string()")
        self.warnings: list[str] = []  # of the current page
        self._words = Words()

    @property
    def is_xml(self) -> bool:
        """Whether pages are XML: names are case-sensitive, and ``xml:base`` counts."""
        return self.form in ("xml", "feed")

    def xpath(self, expression: str, *, is_located: bool = False) -> etree.XPath:
        """A compiled XPath. EXSLT's regular expressions are off, since they are not linear in time.

        With ``is_located`` its texts know their element.
        """
        variables = set(_VARIABLE.findall(_LITERAL.sub("", expression)))
        if variables - {"row"}:
            raise ValueError(f'expected XPath 1.0 with no variable but $row, found "{expression}"')
        kind = _OfRow if variables else etree.XPath
        try:
            return kind(expression, namespaces=self.namespaces or None, regexp=False, smart_strings=is_located)
        except etree.XPathError as error:
            raise ValueError(f'expected XPath 1.0, found "{expression}": {error}') from error

    def text(self, element: Any) -> str:
        """The whole text of an element, like XPath's string()."""
        return element.text or "" if not len(element) else string_of(element, self.string)

    def _html_of(self, element: Any) -> str:
        return feed_text.html_of(element, self.warnings)

    def step(self, selector: Selector, kinds: Sequence[Kinds], documents: set[int]) -> FindAll:
        """A step: the items that a selector finds."""
        find = self._all(selector, "", kinds, documents, elements=True)
        if selector.parse:
            return self._parsed_items(selector, find, kinds, documents)
        if selector.language in ("css", "xpath"):
            return _elements(find, str(selector.expression))
        return find

    def one(
        self,
        selector: Selector,
        name: str,
        kinds: Sequence[Kinds],
        documents: set[int],
        *,
        lines: bool = False,
        without: str = "",
    ) -> Find:
        """A finder of the first match."""
        language, level = selector.language, selector.level
        if selector.parse or language not in ("css", "xpath"):
            find_all = self.all(selector, name, kinds, documents, lines=lines)
            if language in ("jmes", OWN) and not selector.parse:
                return self._json(selector, name)
            return lambda levels: next(iter(find_all(levels)), None)
        path = self.path(selector, documents)
        item = _viewer(kinds[level], level)
        if path.gives == "text":
            first = self.xpath(path.first)
            return lambda levels: next(map(element_text.own_text, _run(first, item(levels))), None)
        if lines or without:
            first, read = self.xpath(path.first), self._reader(lines=lines, without=without)
            return lambda levels: next(map(read, _listed(_run(first, item(levels)))), None)
        whole = self.xpath(f"string({path.first})")

        def find(levels: Levels) -> Any:
            return _run(whole, item(levels))

        own = css.own_attribute(str(selector.expression)) if language == "css" else ""
        return _attribute(own, level, find, is_xml=self.form == "xml") if own else find

    def whole(self, selector: Selector, kinds: Sequence[Kinds], documents: set[int]) -> etree.XPath | None:
        """The XPath from a level's element to the text of the first match; None if one XPath is not enough.

        It finds the same as ``one`` without a call around it, and raises lxml's own XPathError.
        """
        if selector.language not in ("css", "xpath") or selector.parse or field.ROW in kinds[selector.level]:
            return None
        path = self.path(selector, documents)
        if path.gives == "text" or (selector.language == "css" and css.own_attribute(str(selector.expression))):
            return None
        return self.xpath(f"string({path.first})")

    def seek(self, selector: Selector, kinds: Sequence[Kinds], documents: set[int]) -> Seek | None:
        """Like ``whole``, for simple CSS selectors inside the rows of an HTML page: a function of levels and ``Cache``."""
        level = selector.level
        is_inside = self.form == "html" and documents == {0} and level > 0 and kinds[level] == {field.ELEMENT}
        if selector.language != "css" or selector.parse or not is_inside:
            return None
        simple = css.simple(str(selector.expression))
        return seeker(simple, level, self._words, self.text) if simple is not None else None

    def located(
        self, selector: Selector, name: str, kinds: Sequence[Kinds], documents: set[int], *, lines: bool, without: str
    ) -> Callable[[Levels], list[tuple[Any, Any]]]:
        """A finder of all matches in XML, each with its element (the row's if the match has none)."""
        item = _viewer(kinds[selector.level], selector.level)
        if selector.language in ("css", "xpath") and not selector.parse and not lines and not without:
            path = self.path(selector, documents)
            run, text = (
                self.xpath(path.xpath, is_located=True),
                element_text.own_text if path.gives == "text" else self.text,
            )
            return lambda levels: [_placed(one, item(levels), text) for one in _listed(_run(run, item(levels)))]
        find = self.all(selector, name, kinds, documents, lines=lines, without=without)
        return lambda levels: [(one, item(levels)) for one in find(levels)]

    def finds(self, selector: Selector, kinds: Sequence[Kinds]) -> Find:
        """Whether a selector finds something on the page. An element without text counts."""
        if selector.language in ("css", "xpath") and not selector.parse:
            path = self.path(selector, {0})
            if path.gives != "text":
                run, item = self.xpath(f"boolean({path.xpath})"), _viewer(kinds[0], 0)
                return lambda levels: _run(run, item(levels))
        find = self.one(selector, "", kinds, {0})
        return lambda levels: found_something(find(levels))

    def all(
        self,
        selector: Selector,
        name: str,
        kinds: Sequence[Kinds],
        documents: set[int],
        *,
        lines: bool = False,
        without: str = "",
    ) -> FindAll:
        """A finder of all matches, as texts and JSON values."""
        is_markup = selector.language in ("css", "xpath")
        is_read = is_markup and not selector.parse and (lines or bool(without))
        find = self._all(selector, name, kinds, documents, elements=is_read)
        if is_read:
            one = self._reader(lines=lines, without=without)
            return lambda levels: list(map(one, find(levels)))
        if not selector.parse:
            return find
        parse = _PARSERS[selector.parse]
        read: Callable[[Any], Any] = (
            _itself if selector.parse == "json" else element_text.lines if lines else self.string
        )

        def found(levels: Levels) -> list[Any]:
            with memory.inside():
                return [read(parse(text.encode())) for text in _texts(find(levels), is_markup)]

        return found

    def _reader(self, *, lines: bool, without: str) -> Callable[[Any], str]:
        """A function from an element to its text, with ``lines`` or ``without`` some of its descendants. A text stays a text."""
        text = element_text.lines if lines else self.text
        if not without:
            return lambda found: found if isinstance(found, str) else text(found)
        unwanted = self.xpath(self.path(Selector("css", without, -1), set()).xpath)

        def read(found: Any) -> str:
            return found if isinstance(found, str) else text(element_text.trimmed(found, unwanted))

        return read

    def _all(
        self, selector: Selector, name: str, kinds: Sequence[Kinds], documents: set[int], *, elements: bool
    ) -> FindAll:
        language, level, expression = selector.language, selector.level, selector.expression
        if language in ("css", "xpath"):
            path = self.path(selector, documents)
            run, item, text = self.xpath(path.xpath), _viewer(kinds[level], level), self.text
            if path.gives == "text":
                return lambda levels: [element_text.own_text(one) for one in _run(run, item(levels))]
            if elements and not selector.parse:
                return lambda levels: _listed(_run(run, item(levels)))
            if self.form == "feed" and selector.parse == "html":
                text = self._html_of
            return lambda levels: [one if type(one) is str else text(one) for one in _listed(_run(run, item(levels)))]
        if language == "const":
            return lambda _: [expression]
        if language == "jsonld":
            item = _viewer(kinds[level], level)
            return lambda levels: jsonld.nodes(item(levels), str(expression), self.warnings)
        if self.form == "feed" and selector.parse == "html" and field.ROW in kinds[level]:
            key = name if language == OWN else str(expression)
            return lambda levels: _opened(levels[level].as_html(key, self.warnings))
        if language == "key":
            return lambda levels: _opened(levels[level].get(expression))
        find = self._json(selector, name)
        return lambda levels: _opened(find(levels))

    def _json(self, selector: Selector, name: str) -> Find:
        level = selector.level
        if selector.language == OWN:
            return lambda levels: _member(levels[level], name)
        run, expression = jmes.compiled(selector.expression), selector.expression

        def find(levels: Levels) -> Any:
            try:
                return run(levels[level])
            except jmes.FAILED as error:
                raise BadValue(str(error).splitlines()[0][:60], f'a value that "{expression}" accepts') from error

        return find

    def path(self, selector: Selector, documents: set[int]) -> css.Path:
        """The XPath of a selector. It gives element, text (own text) or attr for css, nodes, string, number or boolean for xpath.

        Raises ValueError for a bad XPath, and for an undeclared prefix.
        """
        expression = str(selector.expression)
        if selector.language == "css":
            prefix = css.WHOLE if selector.level in documents else css.INSIDE
            path = css.translate(expression, xml=self.is_xml, prefix=prefix)
            if "|" in expression:
                self.check(path.xpath)
            return path
        gives = self.check(expression)
        return css.Path(expression, gives, f"({expression})[1]" if gives == "nodes" else expression)

    def check(self, expression: str) -> str:
        """What an XPath gives (nodes, string, number or boolean), found out on an empty element. Raises ValueError."""
        try:
            sample = self.xpath(expression)(etree.Element("x"))
        except etree.XPathError as error:
            raise ValueError(f'expected XPath 1.0, found "{expression}": {error}') from error
        return {bool: "boolean", float: "number", str: "string"}.get(type(sample), "nodes")

    def _parsed_items(self, selector: Selector, find: FindAll, kinds: Sequence[Kinds], documents: set[int]) -> FindAll:
        parse, is_json = _PARSERS[selector.parse], selector.parse == "json"
        is_markup = selector.language in ("css", "xpath")

        def items(levels: Levels) -> list[Any]:
            with memory.inside():
                found = [parse(text.encode()) for text in _texts(find(levels), is_markup)]
            return [one for document in found for one in _opened(document)] if is_json else found

        is_found_in_xml = self.is_xml and selector.language in ("css", "xpath", "key")
        return self._located_items(selector, parse, kinds, documents) if is_found_in_xml and not is_json else items

    def _located_items(
        self, selector: Selector, parse: Callable[[bytes], Any], kinds: Sequence[Kinds], documents: set[int]
    ) -> FindAll:
        """Documents that stand as texts in an XML document. They remember the ``xml:base`` of their place."""
        level, key = selector.level, str(selector.expression)
        item = _viewer(kinds[level], level)
        as_html = self.form == "feed" and selector.parse == "html"
        is_key = selector.language == "key"
        run = None if is_key else self.xpath(self.path(selector, documents).xpath, is_located=True)

        def pairs(levels: Levels) -> list[tuple[Any, Any]]:
            if run is not None:
                text = self._html_of if as_html else self.text
                return [_placed(one, item(levels), text) for one in _listed(_run(run, item(levels)))]
            row = levels[level]
            return [(row.as_html(key, self.warnings) if as_html else row.get(key), row.source_of(key))]

        def items(levels: Levels) -> list[Any]:
            found = []
            with memory.inside():
                for text, element in pairs(levels):
                    if text and text.strip():
                        root = parse(text.encode())
                        root.getroottree().docinfo.URL = "\n".join(markup.bases(element)) or None
                        found.append(root)
            return found

        return items


def found_something(value: Any) -> bool:
    """Whether a selector found anything. False, and an empty text or list, are nothing."""
    return value not in (None, False, "", [], {}, "false")


def _attribute(name: str, level: int, find: Find, *, is_xml: bool) -> Find:
    """An attribute of the item itself. In XML the one without a prefix comes first, then one with any."""
    if not is_xml:
        lowered = name.lower()
        return lambda levels: levels[level].get(lowered)

    def get(levels: Levels) -> Any:
        found = levels[level].get(name)
        return find(levels) if found is None else found

    return get


def _run(run: etree.XPath, item: Any) -> Any:
    try:
        return run(item)
    except etree.XPathError as error:
        raise ParseFailed(f'"{run.path}" failed on the page: {error}') from error


def _viewer(kinds: Kinds, level: int) -> Callable[[Levels], Any]:
    """A function from levels to a level's element. An entry of a feed is a row that has an element."""
    if field.ROW in kinds:
        return lambda levels: levels[level].element
    return lambda levels: levels[level]


def _listed(found: Any) -> list[Any]:
    """The result of an XPath as a list. A number or a boolean becomes one text."""
    if isinstance(found, list):
        return found
    if isinstance(found, bool):
        return ["true" if found else "false"]
    return [f"{found:.15g}" if isinstance(found, float) else found]


def _placed(found: Any, item: Any, text: Callable[[Any], str]) -> tuple[str, Any]:
    """The text of a match, and the element that it stands in."""
    if not isinstance(found, str):
        return text(found), found
    parent = getattr(found, "getparent", lambda: None)()
    if parent is not None and getattr(found, "is_tail", False):
        parent = parent.getparent()
    return str(found), item if parent is None else parent


def _opened(value: Any) -> list[Any]:
    """The items of a list, none for null, any other value alone."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _member(value: Any, name: str) -> Any:
    get = getattr(value, "get", None)
    return get(name) if get is not None else None


def _elements(find: FindAll, expression: str) -> FindAll:
    def items(levels: Levels) -> list[Any]:
        found = find(levels)
        if found and isinstance(found[0], str):
            raise ParseFailed(f'expected elements for "{expression}", found texts')
        return found

    return items


def _texts(found: Iterable[Any], is_markup: bool) -> list[str]:
    """The matches that are texts to parse. Raises BadValue for a JSON value that is no text."""
    texts = []
    for one in found:
        if isinstance(one, str):
            if one.strip():
                texts.append(one)
        elif one is not None and not is_markup:
            raise BadValue(one, "a text to parse")
    return texts


def _itself(value: Any) -> Any:
    return value
