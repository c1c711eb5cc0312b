"""Mends the text of an ill-formed feed so that XML parsers accept it. Each step assumes more than the one before.

    closed(text)     CDATA sections that are not closed, or not properly, end with their element
    repaired(text)   junk around the feed, entities, bare "&", "<" and "]]>", quotes, prefixes: faults with only one meaning
    escaped(text)    markup in titles, summaries and contents becomes text, which is how RSS carries HTML
    balanced(text)   tags that close nothing are removed, and unclosed elements are closed

A step that has to guess notes that in its ``Faults``. Each reads its text once, so that no feed can make it slow.
"""

import html
import re
from collections import Counter
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Final

from jobs.errors import ParseFailed
from jobs.parse.feed_namespaces import NAMESPACES

OPENING, CLOSING = "<![CDATA[", "]]>"
PREFIXES_MAX: Final = 100  # undeclared prefixes that get a declaration
ENTITY_CHARACTERS_MAX: Final = 40  # of the text of an entity that the feed itself declares

_ROOT: Final = re.compile(r"<(?:[A-Za-z][\w.-]*:)?(?:rss|feed|rdf)\b", re.IGNORECASE)
_ENTRY: Final = re.compile(r"<(?:[A-Za-z][\w.-]*:)?(?:item|entry)\b", re.IGNORECASE)
_ENTRY_END: Final = re.compile(r"</(?:[A-Za-z][\w.-]*:)?(?:item|entry)\s*>", re.IGNORECASE)
_ENTITY: Final = re.compile(r"""<!ENTITY\s+([\w.-]{1,64})\s+(?:"([^"&<%]*)"|'([^'&<%]*)')\s*>""")
# Sections without markup. An unclosed one takes the rest of the text; otherwise the search would be quadratic.
_SECTION: Final = re.compile(r"<!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z)", re.DOTALL)
_DAMAGED_OPENING: Final = re.compile(r"<\s?!?\s?\[\s?CDATA\s?\[|<!\s?CDATA\s?\[", re.IGNORECASE)
DAMAGED_CLOSING: Final = re.compile(r"(?:\]\s?\]\s?>?|\]\s?>)\s*\Z")
_OPENER: Final = re.compile(r"<([A-Za-z_][\w.:-]*+)([^<>]*+)>")
_OPENER_CHARACTERS: Final = 1_000  # of the start tag before a section
_AMPERSAND: Final = re.compile(
    r"&(?!#\d{1,7};|#[xX][0-9a-fA-F]{1,6};|(?:amp|lt|gt|quot|apos);)(?:([A-Za-z][A-Za-z0-9_.-]{0,63});)?"
)
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_REFERENCE: Final = re.compile(r"&#(?:[xX]([0-9a-fA-F]{1,6})|(\d{1,7}));")
_BARE: Final = re.compile(r"<(?![A-Za-z_/!?])|</(?![A-Za-z_])|<\?|<!(?!DOCTYPE)")
_INSTRUCTION: Final = re.compile(r"<\?[^<>]*\?>")
_TAG_OR_CLOSING: Final = re.compile(r"(<[A-Za-z_/][^<>]*>)|\]\]>")
_UNQUOTED: Final = re.compile(r"""("[^"]*"|'[^']*')|(=\s*)([^\s"'<>]+)""")
_PREFIX: Final = re.compile(r"</?([A-Za-z_][\w.-]*):[A-Za-z_]|(?<=\s)([A-Za-z_][\w.-]*):[A-Za-z_][\w.-]*\s*=")
_NAMESPACE: Final = re.compile(r"""(\bxmlns(?::[\w.-]+)?\s*=\s*["'])([^"'<>]*)""")
_DECLARED: Final = re.compile(r"""xmlns:([A-Za-z_][\w.-]*)\s*=\s*(?:"([^"<]*)"|'([^'<]*)')""")
# Elements that hold HTML. In Atom their type may say that they hold real markup.
_TEXTS: Final = re.compile(
    r"<!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z)"
    r"|<(/?)(title|description|summary|content:encoded|content|item|entry)\b([^<>]*)>",
    re.DOTALL,
)
_MARKUP: Final = re.compile(r"""\btype\s*=\s*["']?(?:xhtml|application/xhtml)""")
_NAME: Final = r"[A-Za-z_][\w.-]*+(?::[A-Za-z_][\w.-]*+)?+"
_PIECE: Final = re.compile(
    rf"(?P<section><!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z))|<[!?][^<>]*>|</(?P<end>{_NAME})[^<>]*+>"
    rf"""|<(?P<start>{_NAME})(?P<attributes>(?:[^<>"']|"[^"<]*"|'[^'<]*')*+)>"""
    rf"|<(?P<odd>{_NAME})(?P<rest>[^<>]*+)>|(?P<bare><)",
    re.DOTALL,
)
_ATTRIBUTE: Final = re.compile(rf"""({_NAME})(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'<>]+)))?""")

_ENTRIES: Final = frozenset({"item", "entry"})
_HOLDERS: Final = _ENTRIES | {"channel", "feed", "rss", "rdf"}
# Children of an entry that hold text only, and those that hold HTML.
_PLAIN: Final = frozenset(
    """
    title link guid pubdate id published updated issued modified created name uri email category enclosure comments
    creator date subject
    """.split()  # noqa: SIM905 - words read better than a list
)
_OF_HTML: Final = frozenset({"description", "summary", "content", "encoded"})
_PLAIN_KIND, _HTML_KIND, _ENTRY_KIND = "plain text", "text or HTML", "an entry"  # no element's name has a blank
_NO_HTML: Final = (_PLAIN | _OF_HTML | {"author"}) - {"title", "link", "name", "summary", "content"}


class Faults:
    """The doubtful repairs of a feed. All are counted; the warning shows the first with its line."""

    def __init__(self) -> None:
        self.lines_cut = 0  # lines removed before the root
        self.breaks_off = ""
        self._first = ""
        self._count = 0

    def add(self, text: str, place: int, what: str) -> None:
        """Notes a fault at a character of the text that the step was given. Steps keep the line numbers."""
        self.add_line(text.count("\n", 0, place) + 1 if not self._count else 0, what)

    def add_line(self, line: int, what: str) -> None:
        """Notes a fault at a line."""
        if not self._count:
            self._first = f"line {self.lines_cut + line}: {what}"
        self._count += 1

    def warnings(self) -> list[str]:
        """The warnings, one for each kind."""
        found = []
        if self.breaks_off:
            found.append(f"the feed breaks off {self.breaks_off}; what should follow is missing")
        if self._count:
            more = f" (and {self._count - 1} more)" if self._count > 1 else ""
            found.append(f"the feed is not well-formed: {self._first}{more}; a text there may be cut or lie elsewhere")
        return found


def closed(text: str, faults: Faults) -> str:
    """A feed's text in which each CDATA section ends inside its element.

    To XML, an unclosed section runs to the end of the next one, whole entries included, which is no error. A section that
    quotes a feed stays as it is: it has the start tag of the element as well.
    """
    pieces, at, end, following = [], 0, 0, 0
    while (start := text.find(OPENING, at)) >= 0:
        inside = start + len(OPENING)
        end = text.find(CLOSING, inside) if 0 <= end < inside else end
        following = text.find(OPENING, inside) if 0 <= following < inside else following
        name = _opener(text, start)
        if end < 0 or 0 <= following < end or _ENTRY_END.search(text, inside, end) is not None:
            close = _end_of(name, text, inside, len(text) if end < 0 else following if 0 <= following < end else end)
            if close >= 0 and text.find(f"<{name}", inside, close) < 0:
                faults.add(text, start, "a CDATA section is never closed")
                pieces += [text[at:inside], DAMAGED_CLOSING.sub("", text[inside:close]), CLOSING]
                at = close
                continue
        if end < 0:
            faults.breaks_off = "inside a CDATA section"
            return "".join([*pieces, text[at:], CLOSING])
        last = end
        while name and (later := text.find(CLOSING, last + 3)) >= 0 and _is_one(name, text, last + 3, later):
            last = later  # the last end mark in the element is the one that was meant
        content = text[inside:last].replace(CLOSING, f"]]{CLOSING}{OPENING}>")
        pieces += [text[at:inside], content, CLOSING]
        at = last + len(CLOSING)
    return "".join([*pieces, text[at:]])


def _opener(text: str, start: int) -> str:
    """The name of the element whose text begins with a section, "" if that is unclear."""
    before = text.rfind("<", max(0, start - _OPENER_CHARACTERS), start)
    found = _OPENER.match(text, before, start) if before >= 0 else None
    return found[1] if found is not None and not found[2].endswith("/") else ""


def _end_of(name: str, text: str, start: int, end: int) -> int:
    """The place of ``</name`` in a part of a text; -1 if there is none, or no name."""
    return text.find(f"</{name}", start, end) if name else -1


def _is_one(name: str, text: str, start: int, end: int) -> bool:
    """Whether between two places neither the element ends nor another section begins."""
    return _end_of(name, text, start, end) < 0 and text.find(OPENING, start, end) < 0


def repaired(text: str, faults: Faults) -> str:
    """A feed's text without XML errors that can have only one meaning. Raises ParseFailed without a root.

    It cuts what stands before and behind the root, and removes control characters, comments and processing instructions. It
    escapes bare "&", "<" and "]]>", turns HTML's entities and the feed's own into characters, mends CDATA marks, quotes
    attribute values, and declares missing prefixes at the root.
    """
    found = _ROOT.search(text)
    if found is None:
        raise ParseFailed("expected a feed (rss, feed or RDF), found no such element")
    entities = {one[1]: one[2] or one[3] or "" for one in _ENTITY.finditer(text[: found.start()])}
    faults.lines_cut = text.count("\n", 0, found.start())
    text = _DAMAGED_OPENING.sub(OPENING, _CONTROL.sub("", text[found.start() :]))
    text = _cut(closed(text, faults), found[0][1:], faults)
    if text.rfind("<") > text.rfind(">"):  # an incomplete tag at the end
        text = text[: text.rfind("<")]
    pieces, at = [], 0
    for section in _SECTION.finditer(text):
        pieces.append(_mended(text[at : section.start()], entities))
        if section[0].startswith(OPENING):
            pieces.append(section[0])
        else:
            pieces.append("\n" * section[0].count("\n"))
            if not section[0].endswith("-->"):
                faults.breaks_off = "inside a comment"
        at = section.end()
    text = "".join([*pieces, _mended(text[at:], entities)])
    return _declaring(_NAMESPACE.sub(lambda found: found[1] + "%20".join(found[2].split()), text))


def _cut(text: str, root: str, faults: Faults) -> str:
    """The text up to the end of the root."""
    end = text.rfind(f"</{root}")
    end = text.find(">", end) + 1 if end >= 0 else 0
    if not end:
        return text
    first = text.find(f"</{root}")
    if 0 <= first < end - 1 and (again := _ROOT.search(text, first)) is not None and again.start() < end:
        faults.add(text, again.start(), "another feed begins after the end of this one, and is left out")
        return text[: text.find(">", first) + 1]
    if (entry := _ENTRY.search(text, end)) is not None:
        faults.add(text, entry.start(), "entries after the end of the feed are left out")
    return text[:end]


def _mended(text: str, entities: dict[str, str]) -> str:
    text = _REFERENCE.sub(_character, _INSTRUCTION.sub(lambda found: "\n" * found[0].count("\n"), text))
    text = _AMPERSAND.sub(lambda found: _ampersand(found, entities), text)
    text = _BARE.sub(lambda bare: f"&lt;{bare[0][1:]}", text)
    return _TAG_OR_CLOSING.sub(lambda found: _quoted(found[1]) if found[1] else "]]&gt;", text)


def _quoted(tag: str) -> str:
    return _UNQUOTED.sub(lambda one: one[1] or f'{one[2]}"{one[3]}"', tag)


def _character(reference: re.Match[str]) -> str:
    """A numeric reference; "" if XML does not allow its character."""
    number = int(reference[1], 16) if reference[1] else int(reference[2])
    is_one = number in (9, 10, 13) or 32 <= number < 0xD800 or 0xE000 <= number < 0xFFFE or 0x10000 <= number < 0x110000
    return f"&#{number};" if is_one else ""


def _ampersand(found: re.Match[str], entities: dict[str, str]) -> str:
    if found[1] in entities and len(entities[found[1]]) <= ENTITY_CHARACTERS_MAX:
        return entities[found[1]]
    character = html.unescape(found[0]) if found[1] else found[0]
    if character != found[0] and not character.endswith(";"):
        return character.replace("&", "&amp;").replace("<", "&lt;")
    return f"&amp;{found[0][1:]}"


def _declaring(text: str) -> str:
    """The text with all used prefixes declared at the root: with the feed's own address for it, or the usual one."""
    end = re.search(r"/?>", text)
    place = end.start() if end else len(text)
    used = dict.fromkeys(one[1] or one[2] for one in _PREFIX.finditer(text))
    elsewhere = {one[1]: one[2] or one[3] or "" for one in _DECLARED.finditer(text)}
    here = {one[1] for one in _DECLARED.finditer(text, 0, place)}
    missing = [name for name in used if name not in here and name not in ("xml", "xmlns")]
    missing.sort(key=lambda name: name not in NAMESPACES)
    declared = "".join(
        f' xmlns:{name}="{elsewhere.get(name) or NAMESPACES.get(name, f"urn:{name}")}"'
        for name in missing[:PREFIXES_MAX]
    )
    return text[:place] + declared + text[place:]


def escaped(text: str) -> str:
    """A feed's text with the markup in its titles, summaries and contents escaped, which is how RSS carries HTML.

    Otherwise an unclosed tag there would take the rest of the feed. An element stays as it is if it is not closed before the
    next one of its kind or before the end of its entry.
    """
    pieces, at = [], 0
    open_name, inside = "", 0
    for found in _TEXTS.finditer(text):
        name = found[2]
        if name is None:
            continue
        if found[1] and name == open_name:
            pieces += [text[at:inside], _as_text(text[inside : found.start()])]
            at, open_name = found.start(), ""
        elif name in _ENTRIES or name == open_name:
            open_name = ""
        if open_name or found[1] or name in _ENTRIES or found[3].endswith("/") or _MARKUP.search(found[3]):
            continue
        open_name, inside = name, found.end()
    return "".join([*pieces, text[at:]])


def _as_text(markup: str) -> str:
    if "<" not in markup:
        return markup
    pieces, at = [], 0
    for section in _SECTION.finditer(markup):
        pieces += [markup[at : section.start()].replace("<", "&lt;"), section[0]]
        at = section.end()
    return "".join([*pieces, markup[at:].replace("<", "&lt;")])


class _Open:
    """The stack of open elements, with the number of each name and kind since the last entry began."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._counts: list[Counter[str]] = [Counter()]

    def push(self, name: str) -> None:
        self.names.append(name)
        if _local(name) in _ENTRIES:
            self._counts.append(Counter())
        self._counts[-1].update((name, _kind(name)))

    def pop(self) -> str:
        name = self.names.pop()
        self._counts[-1].subtract((name, _kind(name)))
        if _local(name) in _ENTRIES:
            self._counts.pop()
        return name

    def has(self, name: str) -> bool:
        """Whether an element is open: inside the current entry or, for an entry, channel or root, outside of it."""
        if self._counts[-1][name] > 0:
            return True
        return _local(name) in _HOLDERS and any(counts[name] > 0 for counts in self._counts)

    def has_kind(self, kinds: Collection[str]) -> bool:
        """Whether an element of one of these kinds is open in the current entry."""
        return any(self._counts[-1][kind] > 0 for kind in kinds)

    @property
    def is_in_entry(self) -> bool:
        return len(self._counts) > 1


def balanced(text: str, faults: Faults) -> str:
    """A feed's text in which each element is closed, and no attribute occurs twice.

    An entry ends where the next one begins; a title or an address, where the next part of the entry begins. A tag that
    closes nothing is left out. The texts between tags stay.
    """
    pieces: list[str] = []
    tags, at, last = _Open(), 0, text.rfind(">")
    for token in _PIECE.finditer(text, 0, last + 1):
        between = text[at : token.start()]
        at = token.end()
        if pieces and not tags.names:
            break
        pieces.append(between)
        if token["section"]:
            pieces.append(token[0])
        elif token["bare"]:
            pieces.append("&lt;")
        elif token["end"]:
            pieces += _ended(token["end"], token.start(), text, tags, faults)
        elif token["start"] or token["odd"]:
            name, attributes = token["start"] or token["odd"], token["attributes"] or token["rest"] or ""
            pieces += _begun(name, token.start(), text, tags, faults)
            is_empty = attributes.endswith("/")
            pieces.append(f"<{name}{_attributes(attributes)}{'/' * is_empty}>")
            if not is_empty:
                tags.push(name)
    if tags.names:
        pieces.append(text[at:].partition("<")[0])
        faults.breaks_off = faults.breaks_off or f"inside <{tags.names[-1]}>"
    while tags.names:
        pieces.append(f"</{tags.pop()}>")
    return "".join(pieces)


def _ended(name: str, place: int, text: str, tags: _Open, faults: Faults) -> Iterator[str]:
    """The end tags that stand for an end tag: those of elements that were left open, and its own."""
    if not tags.has(name) and tags.names and tags.names[-1].lower() == name.lower():
        name = tags.names[-1]
    if not tags.has(name):
        faults.add(text, place, f"</{name}> closes nothing")
        return
    while (closed := tags.pop()) != name:
        faults.add(text, place, f"<{closed}> is never closed")
        yield f"</{closed}>"
    yield f"</{name}>"


def _begun(name: str, place: int, text: str, tags: _Open, faults: Faults) -> Iterator[str]:
    """The end tags that have to come before a start tag."""
    local = _local(name)
    if local in _ENTRIES and tags.is_in_entry:
        until: Collection[str] = (_ENTRY_KIND,)
    elif local in _NO_HTML or local in ("title", "link"):
        until = (_PLAIN_KIND, _HTML_KIND) if local in _NO_HTML else (_PLAIN_KIND,)
        if not tags.has_kind(until) or name.lower() == "itunes:category":  # this one may be nested
            return
    else:
        return
    while tags.names:
        closed = tags.pop()
        faults.add(text, place, f"<{closed}> is never closed")
        yield f"</{closed}>"
        if _kind(closed) in until:
            return


def _attributes(text: str) -> str:
    found: dict[str, str] = {}
    for one in _ATTRIBUTE.finditer(text.removesuffix("/")):
        value = next((value for value in one.groups()[1:] if value is not None), one[1])
        found.setdefault(one[1], value.replace("<", "&lt;").replace('"', "&quot;"))
    return "".join(f' {name}="{value}"' for name, value in found.items())


@lru_cache(maxsize=256)
def _local(name: str) -> str:
    return name.rpartition(":")[2].lower()


@lru_cache(maxsize=256)
def _kind(name: str) -> str:
    local = _local(name)
    if local in _PLAIN:
        return _PLAIN_KIND
    return _HTML_KIND if local in _OF_HTML else _ENTRY_KIND if local in _ENTRIES else ""
