"""The first descendant that a simple selector finds, without XPath: tags and classes, one or two steps.

For each field XPath looks at the elements of a row again, by string functions where a class is asked for, and lxml gives
the interpreter away for each of these calls. Here the fields of a row share one pass over its elements, which goes no
further than what they ask for.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from jobs.definition.css import WORD, Simple, Step

REMEMBERED: Final = 128  # texts of class attributes whose words are known: each thread has its own, of each definition
REMEMBERED_LENGTH: Final = 80  # of the longest of them
LEAVES_MAX: Final = 4  # in an element whose text is put together here

Kept = dict[object, tuple[Any, Any]]
Seek = Callable[[Sequence[Any], Kept], str]


class Words(dict[str | None, tuple[str, ...]]):
    """Which of the words that a definition asks for are in a class attribute; remembers what it was asked."""

    def __init__(self) -> None:
        self._wanted: set[str] = set()
        self[None] = ()

    def want(self, word: str) -> None:
        """Asks for one more; before the first look."""
        self._wanted.add(word)

    def __missing__(self, text: str) -> tuple[str, ...]:
        found = tuple(self._wanted.intersection(WORD.findall(text)))
        if len(text) <= REMEMBERED_LENGTH:
            if len(self) > REMEMBERED:
                self.clear()
                self[None] = ()
            self[text] = found
        return found


class Descendants:
    """The elements below one by their classes, as far as somebody has asked."""

    __slots__ = ("_by_class", "_left", "_words")

    def __init__(self, item: Any, words: Words) -> None:
        self._left: Iterator[Any] = item.iterdescendants("*")
        self._words = words
        self._by_class: dict[str, list[Any]] = {}

    def first(self, simple: Simple) -> Any:
        """The first that a selector finds, in the order of the document; None for none. Its first step has a class."""
        by_class, word, all_words = self._by_class, simple.steps[0].classes[0], self._words
        for element in by_class.get(word, ()):
            found = _from(element, simple)
            if found is not None:
                return found
        for element in self._left:
            words = all_words[element.get("class")]
            if not words:
                continue
            for one in words:
                by_class.setdefault(one, []).append(element)
            if word in words:
                found = _from(element, simple)
                if found is not None:
                    return found
        return None


def seeker(simple: Simple, level: int, words: Words, text: Callable[[Any], str]) -> Seek:
    """(levels, what the rows of a page keep) → the attribute or text of the first that is found, "" for none."""
    attribute, has_class = simple.attribute, bool(simple.steps[0].classes)
    if has_class:
        words.want(simple.steps[0].classes[0])

    def seek(levels: Sequence[Any], kept: Kept) -> str:
        item = levels[level]
        if has_class:
            known = kept.get(level)
            if known is None or known[0] is not item:
                known = kept[level] = (item, Descendants(item, words))
            found = known[1].first(simple)
        else:
            found = _below(item, simple.steps, attribute)
        if found is None:
            return ""
        return str(found.get(attribute)) if attribute else text(found)

    return seek


def string_of(element: Any, string: Callable[[Any], Any]) -> str:
    """All text of an element, as XPath's string() gives it; by ``string``, which is that, only where more than a few leaves lie in it."""
    if len(element) > LEAVES_MAX:
        return str(string(element))
    text: str = element.text or ""
    for child in element:
        if len(child) or type(child.tag) is not str:
            return str(string(element))
        text += (child.text or "") + (child.tail or "")
    return text


def _from(element: Any, simple: Simple) -> Any:
    """What a selector finds by this element as its first step.

    Of several such elements the first that gives something gives the first of all: what lies in a later one lies in
    this one as well, or behind it.
    """
    steps, attribute = simple
    if (steps[0].tag or len(steps[0].classes) > 1) and not steps[0].takes(element):
        return None
    if len(steps) > 1:
        return _below(element, steps[1:], attribute)
    return element if not attribute or element.get(attribute) is not None else None


def _below(item: Any, steps: tuple[Step, ...], attribute: str) -> Any:
    step, following = steps[0], steps[1:]
    for element in item.iterdescendants(step.tag or "*"):
        if step.classes and not step.takes(element):
            continue
        if following:
            found = _below(element, following, attribute)
            if found is not None:
                return found
        elif not attribute or element.get(attribute) is not None:
            return element
    return None
