"""Corrects trees in which libxml2 left an element open that HTML5 closes: its surplus content moves behind it.

mend(root)      <section> ends <p>, <dd> ends <dd>, <h2> ends <h1>; the head ends where the body's first element begins
"""

from typing import Any, Final

from lxml import etree

_HEADINGS: Final = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_ENDS_P: Final = (
    "article", "aside", "details", "dialog", "figcaption", "figure", "footer", "header", "hgroup", "main", "nav", "search", "section",
    "summary",
)  # fmt: skip
# An element, and the open elements that its start tag closes (WHATWG HTML, 13.2.6.4.7). libxml2 does not do these.
CLOSES: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys(_ENDS_P, frozenset({"p"})),
    **dict.fromkeys(("dd", "dt"), frozenset({"dd", "dt"})),
    **dict.fromkeys(("rt", "rp"), frozenset({"rt", "rp"})),
    **dict.fromkeys(_HEADINGS, _HEADINGS),
    "button": frozenset({"button"}),
    "optgroup": frozenset({"optgroup", "option"}),
}
_NAMES: Final = tuple(CLOSES)
_PARENTS: Final = frozenset().union(*CLOSES.values())
_UNSEEN: Final = frozenset({"link", "meta", "noscript", "script", "style"})
_OF_HEAD: Final = frozenset(
    {"base", "basefont", "bgsound", "link", "meta", "noframes", "noscript", "script", "style", "template", "title"}
)


def behind(root: Any) -> list[Any]:
    """The nodes behind the end of a page's body; none if they are only comments and white space, as on most pages."""
    found = []
    after = root.getnext()
    body = root.find("body") if after is not None or len(root) > 1 else None
    if body is not None:
        if body.tail and not body.tail.isspace():
            found.append(body)  # its tail
        found += body.itersiblings()
    while after is not None:
        if isinstance(after.tag, str):
            if after.text and not after.text.isspace():
                found.append(after)
            found += after
        after = after.getnext()
    return found if any(map(_is_something, found)) else []


def take_in(root: Any, nodes: list[Any]) -> bool:
    """Moves scripts and the like to the end of the body. False if there is anything else, which may belong into an open element."""
    body = root.find("body")
    if body is None or any(_is_something(one) and one.tag not in _UNSEEN for one in nodes):
        return False
    if any(one.tail and not one.tail.isspace() for one in nodes):
        return False
    body.extend(nodes)
    return True


def _is_something(node: Any) -> bool:
    """Whether a node is more than a comment without text behind it."""
    return isinstance(node.tag, str) or bool(node.tail and not node.tail.isspace())


def mend(root: Any) -> None:
    """Moves each element that should have closed its parent, with its following siblings, behind the parent. One pass."""
    head = root.find("head")
    if head is not None:
        for one in head.iterchildren(etree.Element):
            if one.tag not in _OF_HEAD:
                _begin_body(root, one)
                break
    parents = _PARENTS
    misplaced = [one for one in root.iter(*_NAMES) if one.getparent().tag in parents]
    for one in misplaced:
        parent = one.getparent()
        if parent.tag in CLOSES[one.tag]:  # otherwise it moved already with an earlier one
            moved = [one, *one.itersiblings()]
            tail, parent.tail = parent.tail, None
            for sibling in reversed(moved):
                parent.addnext(sibling)
            if tail:
                moved[-1].tail = (moved[-1].tail or "") + tail


def _begin_body(root: Any, first: Any) -> None:
    """Moves the head's elements from ``first`` on, which belongs into the body (13.2.6.4.4), to the beginning of the body."""
    body = root.find("body")
    if body is None:
        body = etree.SubElement(root, "body")
    moved = [first, *first.itersiblings()]
    body[:0] = moved
    moved[-1].tail = (moved[-1].tail or "") + (body.text or "")
    body.text = None
