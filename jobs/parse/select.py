"""Compiles selectors for one thread: css and xpath (by lxml), jmes, key, jsonld, const.

A finder takes the levels of a row (a list with the item of each level) and returns what it finds: a text, a JSON value or
None; with ``many`` a list. A step returns the items of the next level.

Which way a selector is evaluated is decided once, when it is compiled:

    its matches are those of one XPath      css and xpath, unless the text that they find is parsed
      the first of them                     ``Compiler.first``, by the quickest of three ways, which find the same
    values of other kinds                   jmes, key, own, jsonld, const, and what a text was parsed into

``string((…)[1])`` reads an element's text, an attribute or the first text node in one call. Every ``XPath`` gives plain strings
(``smart_strings=False``), since lxml's smart ones keep their whole tree alive and msgspec refuses them.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

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

_MARKUP: Final = ("css", "xpath")
_PARSERS: Final[dict[str, Callable[[bytes], Any]]] = {"html": parse_html, "xml": parse_xml, "json": jsonld.parse}


class Shape(NamedTuple):
    """What the levels of a row are: the kinds of their items, and which are whole documents, whose root may match."""

    kinds: tuple[Kinds, ...]
    documents: frozenset[int] = frozenset({0})

    def deeper(self, kinds: Kinds) -> "Shape":
        """With a level for rows that no selector finds."""
        return self._replace(kinds=(*self.kinds, kinds))

    def inside(self, step: Selector) -> "Shape":
        """With the level that a step adds."""
        is_element = step.parse in ("html", "xml") if step.parse else step.language in _MARKUP
        found = self.deeper(frozenset({field.ELEMENT if is_element else field.VALUE}))
        if is_element and step.parse:
            return found._replace(documents=self.documents | {len(self.kinds)})
        return found

    def item(self, level: int) -> Callable[[Levels], Any]:
        """A function from levels to a level's element. An entry of a feed is a row that has an element."""
        if field.ROW in self.kinds[level]:
            return lambda levels: levels[level].element
        return lambda levels: levels[level]


class Reading(NamedTuple):
    """How a field reads what its selector finds. ``name`` is the key of a selector that names none."""

    name: str = ""
    lines: bool = False
    without: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether an element's text is read as it stands."""
        return not (self.lines or self.without)


class First(NamedTuple):
    """Finds a selector's first match in one of three ways. A field adds its conversion to the way without a further call."""

    find: Find | None = None  # (levels) → a text, a JSON value or None
    whole: etree.XPath | None = None  # (the item of ``level``) → a text; raises lxml's own XPathError
    seek: Seek | None = None  # (levels, the cache of the row) → a text
    level: int = 0


class _OfRow(etree.XPath):
    """An XPath in which ``$row`` is its context element, since XPath 1.0 has no ``current()``."""

    def __call__(self, item: Any, /, **variables: Any) -> Any:
        return super().__call__(item, row=item, **variables)


class Compiler:
    """Compiles the selectors of one definition for the thread that calls it.

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

    def step(self, selector: Selector, shape: Shape) -> FindAll:
        """A step: the items that a selector finds."""
        if selector.parse:
            return self._parsed_items(selector, shape)
        path = self._path(selector, shape)
        if path is None:
            return self._values(selector, shape, "")
        return _elements(_matches(self.xpath(path.xpath), path, shape.item(selector.level)), str(selector.expression))

    def first(self, selector: Selector, shape: Shape, reading: Reading) -> First:
        """The first match, by the quickest way that finds it."""
        level, expression, path = selector.level, str(selector.expression), self._path(selector, shape)
        if path is None:
            return First(find=self._first_value(selector, shape, reading))
        if not reading.is_whole or path.gives == "text":
            texts = self._texts(path, shape.item(level), self._reader(path, reading), is_first=True)
            return First(find=lambda levels: next(iter(texts(levels)), None))
        if selector.language == "css" and self._is_in_html_row(level, shape) and (simple := css.simple(expression)):
            return First(seek=seeker(simple, level, self._words, self.text))
        whole = self.xpath(f"string({path.first})")
        own = css.own_attribute(expression) if selector.language == "css" else ""
        if not own and field.ROW not in shape.kinds[level]:
            return First(whole=whole, level=level)
        item = shape.item(level)

        def find(levels: Levels) -> Any:
            return _run(whole, item(levels))

        return First(find=_attribute(own, level, find, is_xml=self.form == "xml") if own else find)

    def _is_in_html_row(self, level: int, shape: Shape) -> bool:
        """Whether a selector looks in the rows of an HTML page, whose fields can share a pass over their elements."""
        is_page = self.form == "html" and shape.documents == {0}
        return is_page and level > 0 and shape.kinds[level] == {field.ELEMENT}

    def one(self, selector: Selector, shape: Shape) -> Find:
        """A finder of the first match on a page, which has one level."""
        first = self.first(selector, shape, Reading())
        if first.find is not None:
            return first.find
        whole = first.whole
        assert whole is not None
        return lambda levels: _run(whole, levels[0])

    def finds(self, selector: Selector, shape: Shape) -> Find:
        """Whether a selector finds something on the page. An element without text counts."""
        path = self._path(selector, shape)
        if path is not None and path.gives != "text":
            run, item = self.xpath(f"boolean({path.xpath})"), shape.item(0)
            return lambda levels: _run(run, item(levels))
        find = self.one(selector, shape)
        return lambda levels: found_something(find(levels))

    def located(self, selector: Selector, shape: Shape, reading: Reading) -> Callable[[Levels], list[tuple[Any, Any]]]:
        """A finder of all matches in XML, each with its element (the row's if the match has none)."""
        path, item = self._path(selector, shape), shape.item(selector.level)
        if path is not None and reading.is_whole:
            matches = _matches(self.xpath(path.xpath, is_located=True), path, item)
            read = self._reader(path, reading)
            return lambda levels: [_placed(one, item(levels), read) for one in matches(levels)]
        find = self.all(selector, shape, reading)
        return lambda levels: [(one, item(levels)) for one in find(levels)]

    def all(self, selector: Selector, shape: Shape, reading: Reading) -> FindAll:
        """A finder of all matches, as texts and JSON values."""
        path = self._path(selector, shape)
        if path is not None:
            return self._texts(path, shape.item(selector.level), self._reader(path, reading))
        if not selector.parse:
            return self._values(selector, shape, reading.name)
        parse, texts = _PARSERS[selector.parse], self._to_parse(selector, shape, reading.name)
        read: Callable[[Any], Any] = (
            _itself if selector.parse == "json" else element_text.lines if reading.lines else self.string
        )

        def found(levels: Levels) -> list[Any]:
            with memory.inside():
                return [read(parse(text.encode())) for text in texts(levels)]

        return found

    def _path(self, selector: Selector, shape: Shape) -> css.Path | None:
        """The XPath whose matches are what a selector finds; None if values of another kind are."""
        return self.path(selector, shape.documents) if selector.language in _MARKUP and not selector.parse else None

    def _texts(
        self, path: css.Path, item: Callable[[Levels], Any], read: Callable[[Any], str], *, is_first: bool = False
    ) -> FindAll:
        """A finder of the texts of all matches, or of the first one. ``read`` makes a text of an element."""
        matches = _matches(self.xpath(path.first if is_first else path.xpath), path, item)
        return lambda levels: [one if type(one) is str else read(one) for one in matches(levels)]

    def _reader(self, path: css.Path, reading: Reading) -> Callable[[Any], str]:
        """A function from an element that is found to its text."""
        if path.gives == "text":
            return element_text.own_text
        text = element_text.lines if reading.lines else self.text
        if not reading.without:
            return text
        unwanted = self.xpath(self.path(Selector("css", reading.without, -1), frozenset()).xpath)
        return lambda element: text(element_text.trimmed(element, unwanted))

    def _first_value(self, selector: Selector, shape: Shape, reading: Reading) -> Find:
        if selector.parse or selector.language not in ("jmes", OWN):
            find_all = self.all(selector, shape, reading)
            return lambda levels: next(iter(find_all(levels)), None)
        find, kinds = self._json(selector, reading.name), shape.kinds[selector.level]
        if selector.language == OWN and field.ROW in kinds and field.VALUE not in kinds:
            return lambda levels: _first(find(levels))
        return find

    def _values(self, selector: Selector, shape: Shape, name: str) -> FindAll:
        """A finder of what no XPath finds. ``name`` is the key of a selector that names none."""
        language, level, expression = selector.language, selector.level, selector.expression
        if language == "const":
            return lambda _: [expression]
        if language == "jsonld":
            item = shape.item(level)
            return lambda levels: jsonld.nodes(item(levels), str(expression), self.warnings)
        if language == "key":
            return lambda levels: _opened(levels[level].get(expression))
        find = self._json(selector, name)
        return lambda levels: _opened(find(levels))

    def _to_parse(self, selector: Selector, shape: Shape, name: str) -> Callable[[Levels], list[str]]:
        """A finder of the texts that are parsed."""
        level, as_html = selector.level, self._is_html_in_feed(selector)
        if selector.language in _MARKUP:
            path = self.path(selector, shape.documents)
            read = self._html_of if as_html and path.gives != "text" else self._reader(path, Reading())
            found = self._texts(path, shape.item(level), read)
            return lambda levels: [text for text in found(levels) if text.strip()]
        if as_html and field.ROW in shape.kinds[level]:
            key = name if selector.language == OWN else str(selector.expression)
            return lambda levels: _to_parse(_opened(levels[level].as_html(key, self.warnings)))
        find = self._values(selector, shape, name)
        return lambda levels: _to_parse(find(levels))

    def _is_html_in_feed(self, selector: Selector) -> bool:
        """Whether a text of a feed is parsed, whose type says whether it is HTML."""
        return self.form == "feed" and selector.parse == "html"

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

    def path(self, selector: Selector, documents: frozenset[int]) -> css.Path:
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

    def _parsed_items(self, selector: Selector, shape: Shape) -> FindAll:
        parse, is_json = _PARSERS[selector.parse], selector.parse == "json"
        if self.is_xml and selector.language in (*_MARKUP, "key") and not is_json:
            return self._located_items(selector, shape, parse)
        texts = self._to_parse(selector, shape, "")

        def items(levels: Levels) -> list[Any]:
            with memory.inside():
                found = [parse(text.encode()) for text in texts(levels)]
            return [one for document in found for one in _opened(document)] if is_json else found

        return items

    def _located_items(self, selector: Selector, shape: Shape, parse: Callable[[bytes], Any]) -> FindAll:
        """Documents that stand as texts in an XML document. They remember the ``xml:base`` of their place."""
        level, key, as_html = selector.level, str(selector.expression), self._is_html_in_feed(selector)
        item = shape.item(level)
        matches = None
        if selector.language in _MARKUP:
            path = self.path(selector, shape.documents)
            matches = _matches(self.xpath(path.xpath, is_located=True), path, item)

        def pairs(levels: Levels) -> list[tuple[Any, Any]]:
            if matches is not None:
                text = self._html_of if as_html else self.text
                return [_placed(one, item(levels), text) for one in matches(levels)]
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
        raise _failed(run, error) from error


def _failed(run: etree.XPath, error: etree.XPathError) -> ParseFailed:
    return ParseFailed(f'"{run.path}" failed on the page: {error}')


def _matches(run: etree.XPath, path: css.Path, item: Callable[[Levels], Any]) -> FindAll:
    """A function from levels to the matches of an XPath. A number or a boolean is one text."""
    if path.gives == "boolean":
        return lambda levels: ["true" if _run(run, item(levels)) else "false"]
    if path.gives == "number":
        return lambda levels: [f"{_run(run, item(levels)):.15g}"]
    if path.gives == "string":
        return lambda levels: [_run(run, item(levels))]

    def nodes(levels: Levels) -> Any:
        try:
            return run(item(levels))
        except etree.XPathError as error:
            raise _failed(run, error) from error

    return nodes


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


def _first(value: Any) -> Any:
    return (value[0] if value else None) if isinstance(value, list) else value


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


def _to_parse(found: Iterable[Any]) -> list[str]:
    """The values that are texts to parse. Raises BadValue for a value that is no text."""
    texts = []
    for one in found:
        if isinstance(one, str):
            if one.strip():
                texts.append(one)
        elif one is not None:
            raise BadValue(one, "a text to parse")
    return texts


def _itself(value: Any) -> Any:
    return value
