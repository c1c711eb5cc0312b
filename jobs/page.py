"""A request to a source, and the page that answered it, read on demand as text, HTML, XML or JSON.

What reads a page (``html``, ``xml``) is one parser a thread: a shared one holds a lock. Documents that would grow far
beyond their bytes are refused before they are read; the others take what they will need from the process's memory
(jobs.memory) first.
"""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as _replace
from typing import Any, Final, Generic, TypeVar

import re2
from lxml import etree
from requests.structures import CaseInsensitiveDict

from jobs import html5, memory
from jobs.errors import DecodeFailed, ParseFailed
from jobs.text import values
from jobs.text.charset import decode, text_bytes
from jobs.text.decoded import Decoded

# What lxml and JSON take at most, measured: for an element, for the text after a tag, for an attribute, for a value.
ELEMENT_BYTES: Final = 130
TEXT_BYTES: Final = 150
ATTRIBUTE_BYTES: Final = 115
VALUED_BYTES: Final = 160  # more, with a value
VALUE_BYTES: Final = 215
TEXT_GROWN: Final = 5 / 2  # libxml2 doubles what it has for a text that comes in pieces
TAGS_MAX: Final = 400_000
VALUES_MAX: Final = 700_000
ALL_ATTRIBUTES_MAX: Final = 500_000
# libxml2 walks an HTML element's attributes to append one: 80,000 took a minute, 5,000 take 40 ms.
ATTRIBUTES_MAX: Final = 5_000
LARGE_BYTES: Final = 1_000_000  # a body from here on may be selected as one text, which has to have its place too
SMALL_BYTES: Final = 65_536  # a body up to here can't hold enough of them to matter

# What stands before JSON so that no foreign page can run it as a script.
_GUARD: Final = re.compile(rb"\A\s*(?:\)\]\}'?,?|for\s*\(\s*;\s*;\s*\)\s*;|while\s*\(\s*1\s*\)\s*;)")
_CALL: Final = re.compile(rb"\A\s*(?:/\*[^*]*\*/\s*)?[A-Za-z_$][\w$.]*\s*\(\s*(?=[{\[])")  # of JSONP

LONG_TAG_BYTES: Final = 4_000  # one with as many attributes has more
_TAG_BEGINS: Final = re.compile(rb"<[A-Za-z]")
_AFTER_OR_NOT: Final = bytes(b" "[0] if byte in b" \t\n\f\r/'\"" else b"x"[0] for byte in range(256))
_QUOTED_END: Final = re2.compile(rb"""=\s*(?:"[^"]*>|'[^']*>)""")
_TAG: Final = re.compile(rb"""<[A-Za-z](?:[^>"'=]++|=\s*+"[^"]*+"?+|=\s*+'[^']*+'?+|["'=])*+""")
_QUOTED: Final = re.compile(rb"""=\s*+(?:"[^"]*+"?+|'[^']*+'?+)""")

# The ends of body and html, outside of comments and of elements that hold no markup.
_ENDS: Final = re.compile(
    rb"<!--.*?(?:-->|\Z)|<(script|style|textarea|title|xmp|iframe|noembed|noframes)\b.*?(?:</\1\b|\Z)|(</(?:body|html)\b[^>]*+>)",
    re.DOTALL | re.IGNORECASE,
)

# A parameter of a link, with a value or without (RFC 8288, 3); possessive, so that no header is read twice.
_LINK_PARAM: Final = re.compile(r"""\s*+;\s*+([^\s=;,"<>]*+)(?:\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"?+|([^\s;,"<>]*+)))?+""")

Made = TypeVar("Made")


class once(Generic[Made]):  # noqa: N801 - a decorator, like property
    """A property that is made when it is first asked for, by the one thread that has the object.

    ``functools.cached_property`` lets all threads wait for each other while one makes it, until Python 3.12.
    """

    def __init__(self, make: Callable[[Any], Made]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __get__(self, owner: Any, _kind: type | None = None) -> Made:
        made = owner.__dict__[self._make.__name__] = self._make(owner)
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is fetched. ``params`` are the source's, bound; ``body`` is sent as it is."""

    method: str = "GET"
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # they may hold secrets
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict)
    egress: str = "default"
    number: int = 1  # which page of the task's it is
    seen: frozenset[str] = frozenset()  # addresses of the pages before
    again: Callable[[Mapping[str, Any]], "Request"] | None = field(default=None, repr=False, compare=False)

    def replace(self, **changes: Any) -> "Request":
        """The same request but for ``changes``; other ``params`` make another address, unless that is given too."""
        if "params" in changes and "url" not in changes and self.again is not None:
            made = self.again(changes["params"])
            return _replace(made, number=self.number, seen=self.seen, **changes)
        return _replace(self, **changes)

    @property
    def address(self) -> str:
        """What tells one page of a task from another: the address, with the body where there is one."""
        return self.url if self.body is None else f"{self.url}\n{self.body!r}"


@dataclass
class Page:
    """An answer. ``url`` is the final address at the original origin; ``headers`` are found in any letter case."""

    request: Request
    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    params: Mapping[str, Any] = field(default_factory=dict)
    charset: str = ""  # overrides what the page says
    warnings: list[str] = field(default_factory=list)

    def header(self, name: str) -> str:
        """A header's value, "" where there is none."""
        found = self.headers.get(name)
        if found is None and not isinstance(self.headers, CaseInsensitiveDict):
            lowered = name.lower()
            found = next((value for key, value in self.headers.items() if key.lower() == lowered), None)
        return found or ""

    @once
    def text(self) -> str:
        """The body's text; raises DecodeFailed when it is none in any charset that it could be."""
        memory.reserve(text_bytes(self.utf8), "its text")
        return self._decoded.text

    @once
    def _decoded(self) -> Decoded:
        decoded = decode(self.body, self.header("content-type"), self.charset)
        if decoded.warning:
            self.warnings.append(decoded.warning)
        return decoded

    @once
    def utf8(self) -> bytes:
        """The body in UTF-8, without a byte order mark: the very bytes where they are that already."""
        return self._decoded.utf8

    @once
    def html(self) -> Any:
        """The root element of the HTML; raises ParseFailed for a document that is nested or filled without end."""
        return parse_html(self.utf8)

    @once
    def xml(self) -> Any:
        """The root element of the XML; raises ParseFailed with the place where it is not well-formed."""
        return parse_xml(self.utf8)

    @once
    def json(self) -> Any:
        """The JSON value; numbers with a fraction keep their digits (``values.Number``). Raises ParseFailed."""
        return parse_json(self.utf8, self.warnings)


class _Parsers(threading.local):
    """One of each for each thread."""

    def __init__(self) -> None:
        self.html = etree.HTMLParser(encoding="utf-8", huge_tree=True)
        self.xml = etree.XMLParser(
            encoding="utf-8", resolve_entities="internal", no_network=True, load_dtd=False, collect_ids=False
        )


_parsers = _Parsers()


def next_link(header: str) -> str:
    """The address of ``rel=next`` in a Link header (RFC 8288). Reads each character once: a target chose them."""
    at = 0
    while (start := header.find("<", at)) >= 0:
        at = header.find(">", start) + 1
        if not at:
            return ""
        address, rel = header[start + 1 : at - 1], None
        while (param := _LINK_PARAM.match(header, at)) is not None:
            at = param.end()
            if rel is None and param[1].lower() == "rel":  # only the first one counts
                rel = param[2] or param[3] or ""
        if rel is not None and "next" in rel.lower().split():
            return address
    return ""


def parse_html(body: bytes) -> Any:
    """The root element of HTML in UTF-8; an empty one for no bytes. Raises ParseFailed.

    What stands behind ``</body>`` and ``</html>`` is a part of the body, and of the elements that are open there, as in
    browsers (WHATWG HTML, 13.2.6.4.19 and .22); libxml2 puts it beside the root.
    """
    if len(body) > SMALL_BYTES:
        _check_attributes(body)
    if not body.strip():
        return etree.fromstring(b"<html/>", _parsers.html)
    check_tags(body, "HTML", html=True)
    root = _html_root(body)
    behind = html5.behind(root)
    if behind and not html5.take_in(root, behind):
        del root, behind  # there is memory for one
        root = _html_root(_ENDS.sub(lambda found: b"" if found[2] else found[0], body))
    html5.mend(root)
    return root


def _html_root(body: bytes) -> Any:
    try:
        root = etree.fromstring(body, _parsers.html)
    except etree.LxmlError as error:
        raise ParseFailed(f"expected HTML, found what is none: {error}") from error
    last = _parsers.html.error_log.last_error
    if last is not None and last.type == etree.ErrorTypes.ERR_RESOURCE_LIMIT:
        raise ParseFailed(f"expected HTML within a parser's limits: {last.message}")
    return root if root is not None else etree.fromstring(b"<html/>", _parsers.html)


def parse_xml(body: bytes) -> Any:
    """The root element of XML in UTF-8, its own entities resolved and nothing read from elsewhere."""
    check_tags(body, "XML", html=False)
    try:
        return etree.fromstring(body.lstrip(), _parsers.xml)
    except etree.LxmlError as error:
        raise ParseFailed(f"expected XML, found: {error}") from error


def parse_json(body: bytes, told: list[str] | None = None) -> Any:
    """A JSON value; also of JSON lines (a list), in a call (``cb({…});``), and after what guards it (``)]}'``).

    ``told`` gets what is no JSON and was read all the same. Raises ParseFailed.
    """
    check_values(body)
    try:
        return _json(body, told)
    except DecodeFailed:
        raise
    except RecursionError as error:
        raise ParseFailed("expected JSON, found what is nested without end") from error
    except ValueError as error:
        raise ParseFailed(f"expected JSON, found: {error}") from error


def _json(body: bytes, told: list[str] | None) -> Any:
    try:
        return values.from_json(body, told)
    except ValueError:
        guard, call, end = _GUARD.match(body), _CALL.match(body), body.rstrip(b"; \t\r\n")
        if guard is not None:
            return values.from_json(body[guard.end() :], told)
        if call is not None and end.endswith(b")"):
            return values.from_json(end[call.end() : -1], told)
        # A record separator may stand before each (RFC 7464).
        lines = [
            (number, line.lstrip(b"\x1e")) for number, line in enumerate(body.splitlines(), 1) if line.strip(b"\x1e \t")
        ]
        if not lines or not _is_json(lines[0][1]) or (len(lines) < 2 and body[:1] != b"\x1e"):
            raise
    found: list[Any] = []
    for number, line in lines:
        try:
            found.append(values.from_json(line, told))
        except ValueError as error:
            raise ValueError(f"JSON lines, and in line {number}: {error}") from error
        if isinstance(found[0], dict | list) and not isinstance(found[-1], type(found[0])):
            raise ParseFailed(f"expected JSON, found text behind its end in line {number}, no JSON line like the first")
    return found


def _is_json(body: bytes) -> bool:
    try:
        values.from_json(body)
    except ValueError:
        return False
    return True


def check_values(body: bytes) -> None:
    """Refuses JSON that would grow far beyond its bytes, and takes the memory for the values of any other.

    Raises ParseFailed, and what ``memory.Share.grow`` raises.
    """
    found = body.count(b",") + body.count(b"[") + body.count(b"{")
    if found > VALUES_MAX:
        raise ParseFailed(f"expected JSON of at most {VALUES_MAX} values, found more")
    memory.reserve(found * VALUE_BYTES + text_bytes(body), f"JSON of {found} values")


def check_tags(body: bytes, what: str, *, html: bool) -> None:
    """Refuses markup that would grow far beyond its bytes, and takes the memory for the tree of any other.

    Raises ParseFailed, and what ``memory.Share.grow`` raises.
    """
    tags = body.count(b"<")
    if tags > TAGS_MAX:
        raise ParseFailed(f"expected a document of at most {TAGS_MAX} tags, found more")
    nodes = tags * (ELEMENT_BYTES + TEXT_BYTES)
    if len(body) <= SMALL_BYTES:
        memory.reserve(nodes + int(len(body) * TEXT_GROWN), what)
        return
    valued = body.count(b"=")
    most = _attributes_most(body) if html else valued
    taken = nodes + valued * VALUED_BYTES + most * ATTRIBUTE_BYTES + _text_taken(body, len(body))
    if most <= ALL_ATTRIBUTES_MAX and memory.reserve_now(taken):
        return
    # Only where there may be many, or not enough memory, is it worth to look at each tag: that takes longer than the parse.
    found = in_tags = 0
    for tag in _TAG.finditer(body):
        found += _attributes(tag[0])
        in_tags += len(tag[0])
    if found > ALL_ATTRIBUTES_MAX:
        raise ParseFailed(f"expected a document of at most {ALL_ATTRIBUTES_MAX} attributes, found more")
    taken = nodes - body.count(b"</") * ELEMENT_BYTES + valued * VALUED_BYTES + found * ATTRIBUTE_BYTES
    taken += in_tags + _text_taken(body, len(body) - in_tags)
    memory.reserve(taken, f"{what} of {len(body)} bytes with {tags} tags")


def _text_taken(body: bytes, size: int) -> int:
    """What so many bytes of text take in a tree; in a large document also as a text of ours, when it is selected whole."""
    return int(size * (TEXT_GROWN + (text_bytes(body) / len(body) if len(body) > LARGE_BYTES else 0)))


def _attributes_most(body: bytes) -> int:
    """How many attributes HTML can have at most, found in a hundredth of the parse.

    Each follows white space, a slash or the end of a quoted value; in XML each has its "=".
    """
    return body.translate(_AFTER_OR_NOT).count(b" x")


def _check_attributes(body: bytes) -> None:
    """Refuses an element with so many attributes that reading it would take minutes.

    The exact look at all tags costs more than the parse; it is only taken where a tag is long, or may hide its end.
    """
    if not _has_long_tag(body) and _QUOTED_END.search(body) is None:
        return
    for tag in _TAG.finditer(body):
        if tag.end() - tag.start() > ATTRIBUTES_MAX and _attributes(tag[0]) > ATTRIBUTES_MAX:
            raise ParseFailed(f"expected elements of at most {ATTRIBUTES_MAX} attributes, found one with more")


def _has_long_tag(body: bytes) -> bool:
    """Whether more than ``LONG_TAG_BYTES`` lie between the beginning of a tag and the next ">"."""
    at = 0
    while at + LONG_TAG_BYTES < len(body):
        last = body.rfind(b">", at, at + LONG_TAG_BYTES)
        if last >= 0:
            at = last + 1
            continue
        end = body.find(b">", at)
        end = len(body) if end < 0 else end
        tag = _TAG_BEGINS.search(body, at, end)
        if tag is not None and end - tag.start() > LONG_TAG_BYTES:
            return True
        at = end + 1
    return False


def _attributes(tag: bytes) -> int:
    """How many attributes a tag has, or a few more."""
    return len(_QUOTED.sub(b"= ", tag).replace(b"/", b" ").split()) - 1
