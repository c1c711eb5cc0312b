"""The charset that a document declares for itself: in a meta, found by WHATWG's prescan, or in an XML declaration."""

import re
from typing import Final

from jobs.text import encodings
from jobs.text.encodings import UTF_8, WESTERN

PRESCAN_BYTES: Final = 16_384  # WHATWG reads 1,024; real pages declare at 5,000

_DECLARATION: Final = re.compile(rb"""\A\s*+<\?xml\b[^>]*?\bencoding\s*+=\s*+["']([^"'<>]+)["']""")
_SPACE: Final = rb"\t\n\f\r "
# The steps of the standard: over a comment, a meta, another tag (whose attributes may hold anything), a declaration.
_STEP: Final = re.compile(
    rb"<!--(?:-?>|(?s:.*?)-->)|<!--(?s:.*)"
    rb"|<(meta)[" + _SPACE + rb"/]"
    rb"|</?[A-Za-z][^" + _SPACE + rb">]*+"
    rb"|<[!/?][^>]*+>?",
    re.IGNORECASE,
)
_ATTRIBUTE: Final = re.compile(
    rb"[" + _SPACE + rb"/]*+([^" + _SPACE + rb"/>][^=" + _SPACE + rb"/>]*+)[" + _SPACE + rb"]*+"
    rb"(?:=["
    + _SPACE
    + rb"]*+(?:\"([^\"]*+)(\")?+|'([^']*+)(')?+|([^"
    + _SPACE
    + rb">\"'][^"
    + _SPACE
    + rb">]*+)?+))?+"
)
# How most pages begin. Such a page is UTF-8, and the steps below are not needed.
_USUAL: Final = re.compile(
    rb"[\t\n\f\r ]*+(?:<!doctype html>[\t\n\f\r ]*+)?"
    rb"(?:<html(?:[\t\n\f\r ]++[a-z:-]++(?:=(?:\"[^\"]*+\"|'[^']*+'|[\w-]++))?+)*+[\t\n\f\r ]*+>[\t\n\f\r ]*+)?(?:<head>[\t\n\f\r ]*+)?"
    rb"<meta[\t\n\f\r ]++charset=(?:\"utf-8\"|'utf-8'|utf-8(?=[\t\n\f\r >]))[\t\n\f\r ]*+/?>",
    re.IGNORECASE,
)
_SPACES: Final = re.compile(rb"[" + _SPACE + rb"/]*+")
_IN_CONTENT: Final = re.compile(
    rb"charset["
    + _SPACE
    + rb"]*+=["
    + _SPACE
    + rb"]*+(?:\"([^\"]*+)\"|'([^']*+)'|([^"
    + _SPACE
    + rb";\"'][^"
    + _SPACE
    + rb";]*+))",
    re.IGNORECASE,
)


def labels(body: bytes) -> list[str]:
    """The labels that a document declares. On a page the meta comes first, in other XML the XML declaration."""
    if _USUAL.match(body) is not None:
        return [UTF_8]
    start = body[:PRESCAN_BYTES]
    found = _DECLARATION.match(start)
    in_xml = [_for_a_page(found[1].decode("ascii", "replace"))] if found else []
    # Most pages without the word have many tags to step over.
    label = prescan(start) if b"charset" in start.lower() else ""
    in_html = [_for_a_page(label)] if label else []
    if found and re.search(rb"<html\b", start[:2_048], re.IGNORECASE) is None:
        return in_xml + in_html
    return in_html + in_xml


def _for_a_page(label: str) -> str:
    """What a label inside a page means. UTF-16 becomes UTF-8: a label that could be read as ASCII does not stand in UTF-16."""
    label = label.strip("\t\n\f\r ").lower()
    found = encodings.lookup(label)
    if found is not None and found.name in ("utf-16le", "utf-16be"):
        return UTF_8
    return WESTERN if found is not None and found.name == "x-user-defined" else label


def prescan(start: bytes) -> str:
    """The label in a page's meta, "" for none (https://html.spec.whatwg.org/#prescan-a-byte-stream-to-determine-its-encoding)."""
    at = 0
    while (found := _STEP.search(start, at)) is not None:
        at = found.end()
        step = found[0]
        if step.startswith(b"<!--") or not (step[1:2].isalpha() or step[1:3].lstrip(b"/").isalpha()):
            continue
        attributes, at = _attributes(start, at)
        if attributes is None:
            return ""  # the bytes end inside the tag
        if found[1] and (label := _of_meta(attributes)):
            return label
    return ""


def _attributes(start: bytes, at: int) -> tuple[dict[bytes, bytes] | None, int]:
    """A tag's attributes in lower case, the first of each name, and their end. None if the bytes end first."""
    found: dict[bytes, bytes] = {}
    while (one := _ATTRIBUTE.match(start, at)) is not None:
        is_cut = (one[2] is not None and not one[3]) or (one[4] is not None and not one[5])
        if is_cut or one.end() == len(start):
            return None, len(start)
        at = one.end()
        found.setdefault(one[1].lower(), (one[2] or one[4] or one[6] or b"").lower())
    end = _SPACES.match(start, at)
    assert end is not None
    return (None if end.end() == len(start) else found), end.end()


def _of_meta(attributes: dict[bytes, bytes]) -> str:
    """The label in a meta's attributes, "" for none or an unknown one."""
    label = attributes.get(b"charset")
    if label is None and attributes.get(b"http-equiv") == b"content-type":
        content = _IN_CONTENT.search(attributes.get(b"content", b""))
        label = content and (content[1] or content[2] or content[3])
    text = (label or b"").decode("ascii", "replace").strip("\t\n\f\r ")
    return text if encodings.lookup(text) is not None else ""
