"""Reads feeds: RSS 0.9 to 2.0, Atom and RDF, ill-formed ones included.

    read(utf8) → root element      strictly; on failure after each step of feed_repair; at last with libxml2's recovery
    Channel(root).entries() → Entry …   children of channel, feed or RDF, but no items inside items

A lenient parser alone would lose every bare "&" with the text behind it, and would nest an entry in the one before if a text
has a ``<br>``. So feed_repair first mends a list of known faults.
"""

import html
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final
from urllib.parse import urljoin

import re2
from lxml import etree

from jobs import memory
from jobs.errors import ParseFailed
from jobs.page import check_tags
from jobs.parse import feed_namespaces, feed_repair, feed_text, markup
from jobs.parse.feed_namespaces import NAMESPACES

REPAIRED: Final = 12  # times its bytes: memory of a feed under repair, the text and its mended copies
REPAIRED_TAG_BYTES: Final = 160  # memory for each tag besides: the pieces of text between tags

_WINDOWS_1252: Final = re2.compile(rb"&#(?:0*1(?:2[89]|[345]\d)|[xX]0*[89][0-9a-fA-F]);")  # 128 to 159
_CDATA: Final = re2.compile(rb"!\[CDATA\[")  # many times as fast as a search in bytes
_SECTION_MARKS: Final = re.compile(r"<!\[CDATA\[|\]\]>", re.IGNORECASE)

_PAGES: Final = ("text/html", "application/xhtml+xml")
_RELATIONS: Final = "http://www.iana.org/assignments/relation/"


Parts = dict[str, list[Any]]  # the children of an entry by their lower-case names
Finder = Callable[[Parts], Any]


def read(utf8: bytes, warnings: list[str] | None = None, kept: Collection[str] = ()) -> Any:
    """The root element of a feed. ``warnings`` gets every doubtful repair.

    In the tree, known namespaces have their usual addresses, except those in ``kept``. Raises ParseFailed if there is no feed.
    """
    found: list[str] = [] if warnings is None else warnings
    root = _root(utf8, found)
    if feed_text.name_of(root) not in ("rss", "feed", "rdf", "channel"):
        raise ParseFailed(f"expected a feed (rss, feed or RDF), found {feed_text.name_of(root)[:40]}")
    feed_namespaces.by_meaning(root, utf8, kept, found)
    return root


def _root(utf8: bytes, warnings: list[str]) -> Any:
    check_tags(utf8, "a feed", html=False)
    if _WINDOWS_1252.search(utf8) is not None:
        utf8 = _WINDOWS_1252.sub(_character, utf8)
    faults, opened = feed_repair.Faults(), utf8.count(b"![CDATA[") if _CDATA.search(utf8) is not None else 0
    # A section inside another one, or an escaped one.
    is_odd = opened > 0 and not opened == utf8.count(b"<![CDATA[") == utf8.count(b"]]>")
    try:
        root = etree.fromstring((_closed(utf8, faults) if is_odd else utf8).strip(), _parser(recover=False))
        if opened and not is_odd and _has_swallowed(root, utf8):
            root = etree.fromstring(_closed(utf8, faults).strip(), _parser(recover=False))
    except etree.XMLSyntaxError:
        faults = feed_repair.Faults()
        root, is_odd = _mended(utf8, faults), True  # the feed is ill-formed
    warnings += faults.warnings()
    if is_odd:
        _unwrap(root)
    return root


def _closed(utf8: bytes, faults: feed_repair.Faults) -> bytes:
    memory.reserve(_taken(utf8), "a feed that has to be repaired")
    return feed_repair.closed(utf8.decode("utf-8", "replace"), faults).encode()


def _has_swallowed(root: Any, utf8: bytes) -> bool:
    """Whether a CDATA section may hold whole entries: the text has more end tags of entries than the tree has entries."""
    return utf8.count(b"</item>") + utf8.count(b"</entry>") > sum(1 for _ in root.iter("{*}item", "{*}entry"))


def _mended(utf8: bytes, faults: feed_repair.Faults) -> Any:
    """The root of an ill-formed feed, after the first repair step that makes it parse. Raises ParseFailed."""
    memory.reserve(_taken(utf8), "a feed that has to be repaired")
    text = utf8.decode("utf-8", "replace")
    steps: tuple[tuple[Callable[[str], str], bool], ...] = (
        (lambda text: feed_repair.repaired(text, faults), False),
        (feed_repair.escaped, False),
        (lambda text: feed_repair.balanced(text, faults), False),
        (str, True),
    )
    for mend, recover in steps:
        text = mend(text)
        try:
            root = etree.fromstring(text.encode(), _parser(recover=recover))
        except etree.XMLSyntaxError as error:
            failed = error
            continue
        if root is not None:
            if recover:
                faults.add_line(failed.lineno or 1, failed.msg.partition(", line ")[0])
            return root
    raise ParseFailed(f"expected a feed, found: {failed}")


def _taken(utf8: bytes) -> int:
    return len(utf8) * REPAIRED + utf8.count(b"<") * REPAIRED_TAG_BYTES


def _unwrap(root: Any) -> None:
    """Removes CDATA marks at the beginning of texts, which were wrapped or escaped twice."""
    for element in root.iter(etree.Element):
        if element.text and _SECTION_MARKS.match(element.text.lstrip()):
            element.text = _SECTION_MARKS.sub("", element.text)
            for child in element:
                child.tail = _SECTION_MARKS.sub("", child.tail or "")
            if not len(element):
                element.text = feed_repair.DAMAGED_CLOSING.sub("", element.text)


def _character(reference: re.Match[bytes]) -> bytes:
    """A reference's character as in HTML; in XML it would be a control character."""
    return html.unescape(reference[0].decode()).encode()


def _parser(*, recover: bool) -> etree.XMLParser:
    return etree.XMLParser(
        encoding="utf-8",
        resolve_entities="internal",
        no_network=True,
        load_dtd=False,
        recover=recover,
        collect_ids=False,
    )


class Entry:
    """An entry, or the feed itself: its element, and its keys through ``get``.

    With an ``address`` (the page's, if it has ``xml:base`` on some element) links and enclosures are absolute.
    """

    __slots__ = ("_address", "_parts", "element")

    def __init__(self, element: Any, address: str = "") -> None:
        self.element = element
        self._address = address
        self._parts: Parts | None = None

    def _named(self) -> Parts:
        """Its child elements by name."""
        if self._parts is None:
            self._parts = {}
            for child in self.element:
                self._parts.setdefault(feed_text.name_of(child), []).append(child)
        return self._parts

    def get(self, key: str) -> Any:
        """A key's text, or a list for categories and enclosures; None if there is none."""
        if key in _TEXTS:
            found = _TEXTS[key](self._named())
            return feed_text.text_of(found) if found is not None else None
        if key == "link":
            link = _link(self._named())
            return self._at(*link) if link is not None else None
        if key == "enclosures":
            return [self._at(*one) for one in _enclosures(self.element, self._named())]
        if key == "id":
            return _ID(self._named()) or self.element.get(f"{{{NAMESPACES['rdf']}}}about")
        if key == "categories":
            return _categories(self.element, self._named())
        find = _KEYS.get(key)
        return find(self._named()) if find is not None else None

    def as_html(self, key: str, warnings: list[str]) -> Any:
        """Like ``get``, but as HTML: a title, summary or content that is plain text is escaped."""
        if key not in _TEXTS:
            return self.get(key)
        found = _TEXTS[key](self._named())
        return feed_text.html_of(found, warnings) if found is not None else None

    def source_of(self, key: str) -> Any:
        """The element that holds a key's text; the entry's own if there is no single one."""
        found = _TEXTS[key](self._named()) if key in _TEXTS else None
        return self.element if found is None else feed_text.division(found)

    def _at(self, element: Any, address: str) -> str:
        try:
            return urljoin(markup.base(element, self._address), address) if self._address else address
        except ValueError:
            return address  # not a valid address


class Channel(Entry):
    """The feed itself: the channel's keys, the page's root as its element."""

    __slots__ = ("_channel",)

    def __init__(self, element: Any, address: str = "") -> None:
        super().__init__(element, address)
        self._channel = Entry(
            next((child for child in element if feed_text.name_of(child) == "channel"), element), address
        )

    def get(self, key: str) -> Any:
        """A key of the feed."""
        return self._channel.get(key)

    def as_html(self, key: str, warnings: list[str]) -> Any:
        """A key of the feed as HTML."""
        return self._channel.as_html(key, warnings)

    def source_of(self, key: str) -> Any:
        """The element that holds a key's text."""
        return self._channel.source_of(key)

    def entries(self) -> Iterator[Entry]:
        """The entries in document order: children of channel, feed or RDF, but no entries inside entries."""
        root = self.element
        for holder in (root, *(child for child in root if feed_text.name_of(child) == "channel")):
            for child in holder:
                if feed_text.name_of(child) in ("item", "entry"):
                    yield Entry(child, self._address)


def _element(*names: str, is_text: bool = False) -> Callable[[Parts], Any]:
    """A function that finds the first element with one of these names that is not empty.

    With ``is_text`` an element needs a text; otherwise a child element (an image) is enough.
    """
    wanted = [tuple(name.split(":")) if ":" in name else ("", name) for name in names]

    def find(parts: Parts) -> Any:
        for prefix, name in wanted:
            for child in parts.get(name, ()):
                is_there = feed_text.whole(child).strip() or (not is_text and feed_text.elements_in(child))
                if is_there and _is_of(child, prefix):
                    return child
        return None

    return find


def _first(*names: str) -> Finder:
    """A function that gives the text of the element that ``_element`` finds."""
    find = _element(*names, is_text=True)

    def text(parts: Parts) -> str | None:
        found = find(parts)
        return feed_text.whole(found) if found is not None else None

    return text


def _is_of(element: Any, prefix: str) -> bool:
    """Whether an element belongs to an extension or, without a prefix, to the feed's own vocabulary.

    The parent's namespace is the feed's own, too: some feeds use a namespace of their own invention.
    """
    space = feed_text.space_of(element)
    if prefix:
        return space == NAMESPACES[prefix]
    return feed_namespaces.is_own(space) or space == feed_text.space_of(element.getparent())


def _link(parts: Parts) -> tuple[Any, str] | None:
    """The link of an entry with its element: Atom's alternate link or RSS's text, at last a guid that is an address."""
    other = None
    for child in parts.get("link", ()):
        if not _is_of(child, ""):  # an Atom link inside RSS counts
            continue
        href, text = (child.get("href") or "").strip(), feed_text.whole(child).strip()
        if _relation(child) != "alternate":
            continue
        if not href and text:
            return child, text
        if href:
            if child.get("type", "text/html").partition(";")[0].strip().lower() in _PAGES:
                return child, href
            other = other or (child, href)
    if other:
        return other
    for child in parts.get("guid", ()):
        if _is_address(child):
            text = feed_text.whole(child).strip()
            return (child, text) if text.startswith(("http://", "https://")) else None
    return None


def _relation(link: Any) -> str:
    """A link's relation, whether written as a name or as an address (RFC 4287, 4.2.7.2)."""
    said = link.get("rel")
    return said.strip().lower().removeprefix(_RELATIONS) if said else "alternate"


def _is_address(guid: Any) -> bool:
    """Whether a guid is an address, which it is unless it says otherwise."""
    return all(value.strip().lower() != "false" for key, value in guid.items() if key.lower() == "ispermalink")


def _author(parts: Parts) -> str | None:
    for child in parts.get("author", ()):
        if _is_of(child, ""):
            of_him = {feed_text.name_of(one): feed_text.whole(one) for one in reversed(feed_text.elements_in(child))}
            texts = [of_him.get(name) for name in ("name", "email", "uri")] if of_him else [feed_text.whole(child)]
            for text in texts:
                if text and text.strip():
                    return text
    return _CREATOR(parts)  # type: ignore[no-any-return]


def _categories(element: Any, parts: Parts) -> list[str]:
    found: list[str] = []
    if "category" not in parts and "subject" not in parts:
        return found
    for child in element:
        name = feed_text.name_of(child)
        if (name == "category" and _is_of(child, "")) or (name == "subject" and _is_of(child, "dc")):
            own = child.text or ""
            found.append(child.get("term") or child.get("label") or (own if own.strip() else feed_text.whole(child)))
    return [text for text in found if text and text.strip()]


def _enclosures(element: Any, parts: Parts) -> list[tuple[Any, str]]:
    found: list[tuple[Any, str]] = []
    if "enclosure" not in parts and "link" not in parts:
        return found
    for child in element:
        address = None
        if feed_text.name_of(child) == "enclosure":
            address = child.get("url") or child.get("href") or child.get(f"{{{NAMESPACES['rdf']}}}resource")
        elif feed_text.name_of(child) == "link" and _relation(child) == "enclosure":
            address = child.get("href") or feed_text.whole(child)
        if address and address.strip():
            found.append((child, address.strip()))
    return found


_ID: Final = _first("id", "guid", "dc:identifier")
_CREATOR: Final = _first("dc:creator", "itunes:author")
_KEYS: Final[dict[str, Finder]] = {
    "published": _first(
        "published", "pubdate", "issued", "dcterms:issued", "dc:date", "created", "updated", "modified"
    ),
    "updated": _first("updated", "modified", "dcterms:modified", "lastbuilddate", "dc:date", "pubdate", "published"),
    "author": _author,
}
# Keys whose text may be HTML.
_TEXTS: Final[dict[str, Callable[[Parts], Any]]] = {
    "title": _element("title", "dc:title", "media:title"),
    "summary": _element(
        "summary", "description", "subtitle", "tagline", "dc:description", "itunes:summary", "media:description"
    ),
    "content": _element("content:encoded", "content", "description", "summary"),
}
