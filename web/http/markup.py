"""HTML that is escaped as it is made: a page can only be put together of tags, and every text in them is escaped.

    tag("a", "a < b", href="/sources")   ->  <a href="/sources">a &lt; b</a>
    tag("p", class_="muted", hidden=True), tag("input", aria_label="…")

Texts come from strangers' pages. Characters that nobody could see, or that change the direction of what follows, are shown as
escapes; CSS keeps the direction of each text to itself.
"""

import html
import re
from collections.abc import Iterable
from typing import Final, TypeAlias

VOID: Final = frozenset({"br", "hr", "img", "input", "link", "meta"})
LINKS: Final = frozenset({"href", "src", "action", "formaction"})
SCHEMES: Final = ("https://", "http://", "/", "#", "?")

# Control characters but for tab and line feed, marks that change the direction, line separators, halves of pairs.
_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


class Html:
    """Markup that is sent as it is. Only this module makes it of texts."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __bool__(self) -> bool:
        return bool(self.text)


Child: TypeAlias = "Html | str | float | Iterable[Child] | None"
NOTHING: Final = Html("")


def escaped(text: str) -> str:
    r"""A text as HTML, for elements and for attributes; ``\u202e`` and the like in place of what nobody can see."""
    return html.escape(visible(text))


def visible(text: str) -> str:
    """A text whose hidden characters are shown as escapes."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """An element. An attribute that is None or False is left out, one that is True has no value; ``class_`` is ``class``.

    ``_`` in a name stands for ``-``. A link that leads elsewhere than to http, https or this gateway is left out.
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        if attribute.lower().startswith("on") or attribute == "style":
            raise ValueError(f"expected no inline script or style, found {attribute}")
        if attribute in LINKS and not str(value).lower().startswith(SCHEMES):
            continue
        parts.append(f" {attribute}" if value is True else f' {attribute}="{escaped(str(value))}"')
    parts.append(">")
    if name in VOID:
        return Html("".join(parts))
    _add(parts, children)
    parts.append(f"</{name}>")
    return Html("".join(parts))


def style(sheet: str) -> Html:
    """A style sheet of ours in line, as it is. Raises ValueError if it would end the element."""
    if "</" in sheet:
        raise ValueError("expected a style sheet, found markup")
    return Html(f"<style>{sheet}</style>")


def join(*children: Child) -> Html:
    """Several elements and texts, one after the other."""
    parts: list[str] = []
    _add(parts, children)
    return Html("".join(parts))


def _add(parts: list[str], children: Iterable[Child]) -> None:
    for child in children:
        if isinstance(child, Html):
            parts.append(child.text)
        elif isinstance(child, str):
            parts.append(escaped(child))
        elif isinstance(child, int | float):
            parts.append(str(child))
        elif child is not None:
            _add(parts, child)
