"""Feeds: RSS 0.9 to 2.0, Atom and RDF, the ill-formed ones too.

    read(utf8) → root element      strict; on failure repaired; then with markup in texts escaped; at last with recover
    entries(root) → [Entry]        children of channel, feed or RDF; never "any item"

A lenient parser alone would lose every bare "&" and what follows it, and put an entry into the one before where a text
has a ``<br>``. Repair goes by a list of known ills; see ``repaired`` and ``escaped``.
"""

import html
import re
from collections.abc import Callable
from typing import Any, Final

from lxml import etree

from jobs import budget
from jobs.errors import ParseFailed
from jobs.page import check_tags

REPAIRED: Final = 12  # times a feed, while it is repaired: the text and what was made of it

NAMESPACES: Final = {
    "atom": "http://www.w3.org/2005/Atom",
    "content": "http://purl.org/rss/1.0/modules/content/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "dcterms": "http://purl.org/dc/terms/",
    "geo": "http://www.w3.org/2003/01/geo/wgs84_pos#",
    "georss": "http://www.georss.org/georss",
    "itunes": "http://www.itunes.com/dtds/podcast-1.0.dtd",
    "media": "http://search.yahoo.com/mrss/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "rss": "http://purl.org/rss/1.0/",
    "slash": "http://purl.org/rss/1.0/modules/slash/",
    "sy": "http://purl.org/rss/1.0/modules/syndication/",
    "wfw": "http://wellformedweb.org/CommentAPI/",
    "yt": "http://www.youtube.com/xml/schemas/2015",
    "xlink": "http://www.w3.org/1999/xlink",
}
KEYS: Final = (
    "title", "link", "id", "published", "updated", "author", "summary", "content", "categories", "enclosures",
)  # fmt: skip

_ROOT: Final = re.compile(r"<(?:[A-Za-z][\w.-]*:)?(?:rss|feed|rdf)\b", re.IGNORECASE)
# Sections whose text is no markup; one that is never closed takes the rest, else the search were quadratic.
_SECTION: Final = re.compile(r"<!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z)", re.DOTALL)
_AMPERSAND: Final = re.compile(
    r"&(?!#\d{1,7};|#[xX][0-9a-fA-F]{1,6};|(?:amp|lt|gt|quot|apos);)(?:([A-Za-z][A-Za-z0-9]{1,31});)?"
)
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_CONTROL_ENTITY: Final = re.compile(r"&#(?:0*(?:[0-8]|1[124-9]|2\d|3[01])|[xX]0*(?:[0-8bcBCefEF]|1[0-9a-fA-F]));")
_BARE: Final = re.compile(r"<(?![A-Za-z_/!?])|</(?![A-Za-z_])")
_TAG: Final = re.compile(r"<[A-Za-z_][^<>]*>")
_UNQUOTED: Final = re.compile(r"""("[^"]*"|'[^']*')|(=\s*)([^\s"'<>]+)""")
# What holds HTML; Atom says by its type that markup is meant.
_TEXT: Final = re.compile(r"<(title|description|summary|content:encoded|content)\b([^<>]*)>")
_MARKUP: Final = re.compile(r"""\btype\s*=\s*["']?(?:xhtml|application/xhtml)""")
_PREFIX: Final = re.compile(r"[<\s/]([A-Za-z_][\w.-]*):[A-Za-z_]")
_DECLARED: Final = re.compile(r"xmlns:([A-Za-z_][\w.-]*)\s*=")

_string: Final = etree.XPath("string()", smart_strings=False)

Finder = Callable[[Any], Any]


def read(utf8: bytes) -> Any:
    """The root element of a feed. Raises ParseFailed where there is none."""
    root = _root(utf8)
    if _name(root) not in ("rss", "feed", "rdf", "channel"):
        raise ParseFailed(f"expected a feed (rss, feed or RDF), found {_name(root)[:40]}")
    return root


def _root(utf8: bytes) -> Any:
    check_tags(utf8, "a feed", html=False)
    try:
        return etree.fromstring(utf8.strip(), _parser(recover=False))
    except etree.XMLSyntaxError:
        pass  # ill-formed feeds are what the rest of this is for
    budget.reserve(len(utf8) * REPAIRED, "a feed that has to be repaired")
    text = utf8.decode("utf-8", "replace")
    for mend, recover in ((repaired, False), (escaped, False), (str, True)):
        text = mend(text)
        try:
            root = etree.fromstring(text.encode(), _parser(recover=recover))
        except etree.XMLSyntaxError as error:
            failed = error
            continue
        if root is not None:
            return root
    raise ParseFailed(f"expected a feed, found: {failed}")


def _parser(*, recover: bool) -> etree.XMLParser:
    return etree.XMLParser(
        encoding="utf-8",
        resolve_entities="internal",
        no_network=True,
        load_dtd=False,
        recover=recover,
        collect_ids=False,
    )


def repaired(text: str) -> str:
    """A feed's text as XML takes it. Raises ParseFailed where there is no root.

    What stands before the root is cut, control characters go, bare "&" and "<" are escaped, HTML's entities become
    characters, values of attributes are quoted, and prefixes that nobody declares are declared.
    """
    found = _ROOT.search(text)
    if found is None:
        raise ParseFailed("expected a feed (rss, feed or RDF), found no such element")
    text = _CONTROL.sub("", text[found.start() :])
    pieces, at = [], 0
    for section in _SECTION.finditer(text):
        pieces += [_mended(text[at : section.start()]), section[0]]
        at = section.end()
    pieces.append(_mended(text[at:]))
    text = "".join(pieces)
    missing = set(_PREFIX.findall(text)) - set(_DECLARED.findall(text)) - {"xml", "xmlns"}
    if missing:
        end = re.search(r"/?>", text)
        place = end.start() if end else len(text)
        declared = "".join(f' xmlns:{name}="{NAMESPACES.get(name, f"urn:{name}")}"' for name in sorted(missing)[:100])
        text = text[:place] + declared + text[place:]
    return text


def escaped(text: str) -> str:
    """A feed's text with the markup in its titles, summaries and contents escaped, as RSS wants HTML to be.

    There a tag that is never closed would take the rest of the feed.
    """
    pieces, at = [], 0
    without_end: set[str] = set()  # looked for once, else the search were quadratic
    for found in _TEXT.finditer(text):
        name = found[1]
        if found.start() < at or name in without_end or found[2].endswith("/") or _MARKUP.search(found[2]):
            continue
        end = text.find(f"</{name}>", found.end())
        if end < 0:
            without_end.add(name)
            continue
        inner = text[found.end() : end]
        pieces += [text[at : found.end()], inner if "<![CDATA[" in inner else inner.replace("<", "&lt;")]
        at = end
    return "".join([*pieces, text[at:]])


def _mended(text: str) -> str:
    text = _AMPERSAND.sub(_ampersand, _CONTROL_ENTITY.sub("", text))
    return _TAG.sub(_quoted, _BARE.sub(lambda bare: f"&lt;{bare[0][1:]}", text))


def _quoted(tag: re.Match[str]) -> str:
    return _UNQUOTED.sub(lambda one: one[1] or f'{one[2]}"{one[3]}"', tag[0])


def _ampersand(found: re.Match[str]) -> str:
    character = html.unescape(found[0]) if found[1] else found[0]
    if character != found[0] and not character.endswith(";"):
        return character.replace("&", "&amp;").replace("<", "&lt;")
    return f"&amp;{found[0][1:]}"


class Entry:
    """An entry, or the feed itself: its element, and its keys as ``get`` finds them."""

    __slots__ = ("element",)

    def __init__(self, element: Any) -> None:
        self.element = element

    def get(self, key: str) -> Any:
        """A key's text, a list for categories and enclosures; None for none."""
        find = _KEYS.get(key)
        return find(self.element) if find is not None else None


def feed(root: Any) -> Entry:
    """The feed's own keys: of its channel, or of an Atom feed's root."""
    return Channel(root)


class Channel(Entry):
    """The feed: keys are the channel's, the element is the page's root."""

    __slots__ = ()

    def get(self, key: str) -> Any:
        """A key of the feed."""
        channel = next((child for child in self.element if _name(child) == "channel"), self.element)
        return Entry(channel).get(key)


def entries(root: Any) -> list[Entry]:
    """The entries, in document order: children of channel, feed or RDF. An entry in an entry is none."""
    holders = [root, *(child for child in root if _name(child) == "channel")]
    return [Entry(child) for holder in holders for child in holder if _name(child) in ("item", "entry")]


def _name(element: Any) -> str:
    tag = element.tag
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else ""


def _space(element: Any) -> str:
    return str(element.tag).rpartition("}")[0][1:]


def _text(element: Any) -> str:
    """All text of an element, as XPath's string() gives it."""
    return str(_string(element)) if len(element) else element.text or ""


def _first(*names: str) -> Finder:
    """The first of several names that is there and not empty, the plain ones before those of extensions."""
    wanted = [tuple(name.split(":")) if ":" in name else ("", name) for name in names]

    def find(element: Any) -> str | None:
        children = [child for child in element if isinstance(child.tag, str)]
        for prefix, name in wanted:
            for child in children:
                if _name(child) == name and _is_of(child, prefix):
                    text = _text(child)
                    if text.strip():
                        return text
        return None

    return find


def _is_of(element: Any, prefix: str) -> bool:
    """Whether an element is of an extension, or (with no prefix) of the feed's own vocabulary."""
    space = _space(element)
    if prefix:
        return space == NAMESPACES[prefix]
    return space in _OWN or space.startswith(
        ("http://purl.org/rss/", "http://my.netscape.com/", "http://backend.userland")
    )


_OWN: Final = frozenset(
    {
        "",
        NAMESPACES["atom"],
        NAMESPACES["rss"],
        "http://purl.org/atom/ns#",
        "http://channel.netscape.com/rdf/simple/0.9/",
    }
)


def _link(element: Any) -> str | None:
    """Atom's alternate link, else RSS's text; a guid that says that it is an address comes last."""
    other = None
    for child in element:
        if _name(child) != "link" or (not _is_of(child, "") and _space(child) != NAMESPACES["atom"]):
            continue
        href, text = child.get("href"), (child.text or "").strip()
        if href is None and text:
            return text
        if href and child.get("rel", "alternate") == "alternate":
            if child.get("type", "text/html") in ("text/html", "application/xhtml+xml"):
                return str(href)
            other = other or str(href)
    if other:
        return other
    for child in element:
        if _name(child) == "guid" and child.get("isPermaLink", "true").lower() == "true":
            text = (child.text or "").strip()
            return text if text.startswith(("http://", "https://")) else None
    return None


def _author(element: Any) -> str | None:
    for child in element:
        if _name(child) == "author" and _is_of(child, ""):
            name = next((_text(part) for part in child if _name(part) == "name"), "")
            if (name or _text(child)).strip():
                return name or _text(child)
    return _first("dc:creator", "itunes:author")(element)  # type: ignore[no-any-return]


def _categories(element: Any) -> list[str]:
    found = []
    for child in element:
        name = _name(child)
        if (name == "category" and _is_of(child, "")) or (name == "subject" and _is_of(child, "dc")):
            found.append(child.get("term") or child.get("label") or _text(child))
    return [text for text in found if text and text.strip()]


def _enclosures(element: Any) -> list[str]:
    found = []
    for child in element:
        if _name(child) == "enclosure" and child.get("url"):
            found.append(child.get("url"))
        elif _name(child) == "link" and child.get("rel") == "enclosure" and child.get("href"):
            found.append(child.get("href"))
    return found


def _id(element: Any) -> str | None:
    about = element.get(f"{{{NAMESPACES['rdf']}}}about")
    found: str | None = _first("id", "guid", "dc:identifier")(element)
    return found or about


_KEYS: Final[dict[str, Finder]] = {
    "title": _first("title", "dc:title", "media:title"),
    "link": _link,
    "id": _id,
    "published": _first(
        "published", "pubdate", "issued", "dcterms:issued", "dc:date", "created", "updated", "modified"
    ),
    "updated": _first("updated", "modified", "dcterms:modified", "lastbuilddate", "dc:date", "pubdate", "published"),
    "author": _author,
    "summary": _first(
        "summary", "description", "subtitle", "tagline", "dc:description", "itunes:summary", "media:description"
    ),
    "content": _first("content:encoded", "content", "description", "summary"),
    "categories": _categories,
    "enclosures": _enclosures,
}
