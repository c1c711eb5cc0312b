"""A request to a source, and the page that answers it, read on demand as text, HTML, XML or JSON.

Each thread has its own parsers, since a shared one holds a lock. Documents that would take far more memory than their bytes
are refused before they are parsed. For all others the memory is reserved first (jobs.memory).
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

# Most memory that lxml and JSON take, measured: for an element, the text behind a tag, an attribute, a value.
ELEMENT_BYTES: Final = 130
TEXT_BYTES: Final = 150
ATTRIBUTE_BYTES: Final = 115
VALUED_BYTES: Final = 160  # in addition, for an attribute with a value
VALUE_BYTES: Final = 215
TEXT_GROWN: Final = 5 / 2  # libxml2 doubles its buffer for a text that comes in pieces
TAGS_MAX: Final = 400_000
VALUES_MAX: Final = 700_000
ALL_ATTRIBUTES_MAX: Final = 500_000
# libxml2 walks all attributes of an HTML element to append one: 80,000 took a minute, 5,000 take 40 ms.
ATTRIBUTES_MAX: Final = 5_000
LARGE_BYTES: Final = 1_000_000  # from this size on, memory is reserved for selecting the whole text, too
SMALL_BYTES: Final = 65_536  # up to this size a body can't hold enough attributes to matter

# Prefixes of JSON that keep other sites' pages from running it as a script.
_GUARD: Final = re.compile(rb"\A\s*(?:\)\]\}'?,?|for\s*\(\s*;\s*;\s*\)\s*;|while\s*\(\s*1\s*\)\s*;)")
_CALL: Final = re.compile(rb"\A\s*(?:/\*[^*]*\*/\s*)?[A-Za-z_$][\w$.]*\s*\(\s*(?=[{\[])")  # JSONP

LONG_TAG_BYTES: Final = 4_000  # a tag with ATTRIBUTES_MAX attributes is longer
_TAG_BEGINS: Final = re.compile(rb"<[A-Za-z]")
_AFTER_OR_NOT: Final = bytes(b" "[0] if byte in b" \t\n\f\r/'\"" else b"x"[0] for byte in range(256))
_QUOTED_END: Final = re2.compile(rb"""=\s*(?:"[^"]*>|'[^']*>)""")
_TAG: Final = re.compile(rb"""<[A-Za-z](?:[^>"'=]++|=\s*+"[^"]*+"?+|=\s*+'[^']*+'?+|["'=])*+""")
_QUOTED: Final = re.compile(rb"""=\s*+(?:"[^"]*+"?+|'[^']*+'?+)""")

# The end tags of body and html, outside of comments and of elements without markup.
_ENDS: Final = re.compile(
    rb"<!--.*?(?:-->|\Z)|<(script|style|textarea|title|xmp|iframe|noembed|noframes)\b.*?(?:</\1\b|\Z)|(</(?:body|html)\b[^>]*+>)",
    re.DOTALL | re.IGNORECASE,
)

# A parameter of a link, with or without a value (RFC 8288, 3). Possessive, so that it takes linear time.
_LINK_PARAM: Final = re.compile(r"""\s*+;\s*+([^\s=;,"<>]*+)(?:\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"?+|([^\s;,"<>]*+)))?+""")

Made = TypeVar("Made")


class once(Generic[Made]):  # noqa: N801 - a decorator, like property
    """A property that is computed once, on first use. Only one thread may use the object.

    Until Python 3.12, ``functools.cached_property`` makes all threads wait while one of them computes a value.
    """

    def __init__(self, make: Callable[[Any], Made]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __get__(self, owner: Any, _kind: type | None = None) -> Made:
        made = owner.__dict__[self._make.__name__] = self._make(owner)
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request. ``params`` are the bound params of the source; ``body`` is sent as it is."""

    method: str = "GET"
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold secrets
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    params: Mapping[str, Any] = field(default_factory=dict)
    egress: str = "default"
    number: int = 1  # of the page, among those of the task
    seen: frozenset[str] = frozenset()  # addresses of the earlier pages
    again: Callable[[Mapping[str, Any]], "Request"] | None = field(default=None, repr=False, compare=False)

    def replace(self, **changes: Any) -> "Request":
        """A copy with ``changes``. New ``params`` make the request anew, unless ``url`` is given, too."""
        if "params" in changes and "url" not in changes and self.again is not None:
            made = self.again(changes["params"])
            return _replace(made, number=self.number, seen=self.seen, **changes)
        return _replace(self, **changes)

    @property
    def address(self) -> str:
        """Identifies a page of a task: its address, with the body if there is one."""
        return self.url if self.body is None else f"{self.url}\n{self.body!r}"


@dataclass
class Page:
    """An answer. ``url`` is the final address at the original origin. Header names have no letter case."""

    request: Request
    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    params: Mapping[str, Any] = field(default_factory=dict)
    charset: str = ""  # overrides what the page declares
    warnings: list[str] = field(default_factory=list)

    def header(self, name: str) -> str:
        """A header's value, "" if there is none."""
        found = self.headers.get(name)
        if found is None and not isinstance(self.headers, CaseInsensitiveDict):
            lowered = name.lower()
            found = next((value for key, value in self.headers.items() if key.lower() == lowered), None)
        return found or ""

    @once
    def text(self) -> str:
        """The body's text. Raises DecodeFailed if no charset fits."""
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
        """The body in UTF-8, without a byte order mark. The same object if it is UTF-8 already."""
        return self._decoded.utf8

    @once
    def html(self) -> Any:
        """The root element of the HTML. Raises ParseFailed for a document beyond the limits."""
        return parse_html(self.utf8)

    @once
    def xml(self) -> Any:
        """The root element of the XML. Raises ParseFailed with the place at which it is not well-formed."""
        return parse_xml(self.utf8)

    @once
    def json(self) -> Any:
        """The JSON value. Numbers with a fraction keep their digits (``values.Number``). Raises ParseFailed."""
        return parse_json(self.utf8, self.warnings)


class _Parsers(threading.local):
    """A thread's parsers."""

    def __init__(self) -> None:
        self.html = etree.HTMLParser(encoding="utf-8", huge_tree=True)
        self.xml = etree.XMLParser(
            encoding="utf-8", resolve_entities="internal", no_network=True, load_dtd=False, collect_ids=False
        )


_parsers = _Parsers()


def next_link(header: str) -> str:
    """The address of ``rel=next`` in a Link header (RFC 8288), "" for none. Takes linear time for any header."""
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
    """The root element of HTML in UTF-8; an empty one for an empty body. Raises ParseFailed.

    Content behind ``</body>`` and ``</html>`` belongs to the body and to the elements that are still open, as in browsers
    (WHATWG HTML, 13.2.6.4.19 and .22). libxml2 puts it beside the root.
    """
    if len(body) > SMALL_BYTES:
        _check_attributes(body)
    if not body.strip():
        return etree.fromstring(b"<html/>", _parsers.html)
    check_tags(body, "HTML", html=True)
    root = _html_root(body)
    behind = html5.behind(root)
    if behind and not html5.take_in(root, behind):
        del root, behind  # memory is reserved for one tree only
        root = _html_root(_ENDS.sub(lambda found: b"" if found[2] else found[0], body))
    html5.mend(root)
    return root


def _html_root(body: bytes) -> Any:
    try:
        root = etree.fromstring(body, _parsers.html)
    except etree.LxmlError as error:
        raise ParseFailed(f"expected HTML, found something else: {error}") from error
    last = _parsers.html.error_log.last_error
    if last is not None and last.type == etree.ErrorTypes.ERR_RESOURCE_LIMIT:
        raise ParseFailed(f"expected HTML within a parser's limits: {last.message}")
    return root if root is not None else etree.fromstring(b"<html/>", _parsers.html)


def parse_xml(body: bytes) -> Any:
    """The root element of XML in UTF-8. Its own entities are resolved; nothing is read from elsewhere. Raises ParseFailed."""
    check_tags(body, "XML", html=False)
    try:
        return etree.fromstring(body.lstrip(), _parsers.xml)
    except etree.LxmlError as error:
        raise ParseFailed(f"expected XML, found: {error}") from error


def parse_json(body: bytes, warnings: list[str] | None = None) -> Any:
    """A JSON value; a list for JSON lines. A call around it (``cb({…});``) or a guard before it (``)]}'``) is ignored.

    ``warnings`` gets a sentence about anything that is no JSON and was read anyway. Raises ParseFailed.
    """
    check_values(body)
    try:
        return _json(body, warnings)
    except DecodeFailed:
        raise
    except RecursionError as error:
        raise ParseFailed("expected JSON, found too deep nesting") from error
    except ValueError as error:
        raise ParseFailed(f"expected JSON, found: {error}") from error


def _json(body: bytes, warnings: list[str] | None) -> Any:
    try:
        return values.from_json(body, warnings)
    except ValueError:
        guard, call, end = _GUARD.match(body), _CALL.match(body), body.rstrip(b"; \t\r\n")
        if guard is not None:
            return values.from_json(body[guard.end() :], warnings)
        if call is not None and end.endswith(b")"):
            return values.from_json(end[call.end() : -1], warnings)
        # A record separator may stand before each value (RFC 7464).
        lines = [
            (number, line.lstrip(b"\x1e")) for number, line in enumerate(body.splitlines(), 1) if line.strip(b"\x1e \t")
        ]
        if not lines or not _is_json(lines[0][1]) or (len(lines) < 2 and body[:1] != b"\x1e"):
            raise
    found: list[Any] = []
    for number, line in lines:
        try:
            found.append(values.from_json(line, warnings))
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
    """Refuses JSON with too many values, and reserves the memory for the values of any other.

    Raises ParseFailed, and the errors of ``memory.Share.grow``.
    """
    found = body.count(b",") + body.count(b"[") + body.count(b"{")
    if found > VALUES_MAX:
        raise ParseFailed(f"expected JSON of at most {VALUES_MAX} values, found more")
    memory.reserve(found * VALUE_BYTES + text_bytes(body), f"JSON of {found} values")


def check_tags(body: bytes, what: str, *, html: bool) -> None:
    """Refuses markup with too many tags or attributes, and reserves the memory for the tree of any other.

    Raises ParseFailed, and the errors of ``memory.Share.grow``.
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
    # An exact count takes longer than the parse. It is worth it only if there may be too many, or too little memory.
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
    """The memory for this many bytes of text in a tree; in a large document also for selecting the whole text."""
    return int(size * (TEXT_GROWN + (text_bytes(body) / len(body) if len(body) > LARGE_BYTES else 0)))


def _attributes_most(body: bytes) -> int:
    """The most attributes that HTML can have, estimated in a hundredth of the time of the parse.

    Each attribute follows white space, a slash or the end of a quoted value. (In XML, each has a "=".)
    """
    return body.translate(_AFTER_OR_NOT).count(b" x")


def _check_attributes(body: bytes) -> None:
    """Refuses an element with so many attributes that parsing it would take minutes.

    Counting in all tags costs more than the parse. It is done only if a tag is long, or may have a ">" in a quoted value.
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
    """The number of attributes of a tag, or a few more."""
    return len(_QUOTED.sub(b"= ", tag).replace(b"/", b" ").split()) - 1
