"""Finds the first match of a simple CSS selector without XPath: tags and classes, one or two steps.

XPath would walk the elements of a row again for each field, compare classes by string functions, and release the
interpreter lock for each call. Here the fields of a row share one pass over its elements, which goes only as far as needed.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from jobs.definition.css import WORD, Simple, Step

REMEMBERED: Final = 128  # class attributes whose words are remembered, for each thread and definition
REMEMBERED_LENGTH: Final = 80  # of the longest remembered attribute
LEAVES_MAX: Final = 4  # children of an element whose text is joined here

Cache = dict[object, tuple[Any, Any]]
Seek = Callable[[Sequence[Any], Cache], str]
Match = Callable[[Any], Any]


class Words(dict[str | None, tuple[str, ...]]):
    """Class attribute → the classes in it that the definition uses. Remembers its answers."""

    def __init__(self) -> None:
        self._wanted: set[str] = set()
        self[None] = ()

    def want(self, word: str) -> None:
        """Adds a class that is used. Call it before the first look-up."""
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
    """The descendants of an element by class, as far as the search has come."""

    __slots__ = ("_by_class", "_left", "_words")

    def __init__(self, item: Any, words: Words) -> None:
        self._left: Iterator[Any] = item.iterdescendants("*")
        self._words = words
        self._by_class: dict[str, list[Any]] = {}

    def first(self, word: str, match: Match | None) -> Any:
        """The first match in document order among the elements of a class, or None. Without ``match`` any of them matches."""
        by_class, all_words = self._by_class, self._words
        for element in by_class.get(word, ()):
            found = element if match is None else match(element)
            if found is not None:
                return found
        for element in self._left:
            words = all_words[element.get("class")]
            if not words:
                continue
            for one in words:
                by_class.setdefault(one, []).append(element)
            if word in words:
                found = element if match is None else match(element)
                if found is not None:
                    return found
        return None


def seeker(simple: Simple, level: int, words: Words, text: Callable[[Any], str]) -> Seek:
    """A function (levels, ``Cache``) → the attribute or text of the first match, "" for none."""
    steps, attribute = simple
    if not steps[0].classes:

        def seek_by_tag(levels: Sequence[Any], _cache: Cache) -> str:
            found = _below(levels[level], steps, attribute)
            if found is None:
                return ""
            return str(found.get(attribute)) if attribute else text(found)

        return seek_by_tag
    word, match = steps[0].classes[0], _match(simple)
    words.want(word)

    def seek(levels: Sequence[Any], cache: Cache) -> str:
        item = levels[level]
        known = cache.get(level)
        if known is None or known[0] is not item:
            known = cache[level] = (item, Descendants(item, words))
        found = known[1].first(word, match)
        if found is None:
            return ""
        return str(found.get(attribute)) if attribute else text(found)

    return seek


def string_of(element: Any, string: Callable[[Any], Any]) -> str:
    """The whole text of an element. It calls ``string``, XPath's string(), only for more than a few leaves."""
    if len(element) > LEAVES_MAX:
        return str(string(element))
    text: str = element.text or ""
    for child in element:
        if len(child) or type(child.tag) is not str:
            return str(string(element))
        text += (child.text or "") + (child.tail or "")
    return text


def _match(simple: Simple) -> Match | None:
    """A function from an element of the first step's class to the selector's match there; None if that is the element itself.

    The first element that gives a match gives the first match of all: matches inside a later element lie inside this one, too,
    or behind it.
    """
    steps, attribute = simple
    first, following = steps[0], steps[1:]
    takes = first.takes if first.tag or len(first.classes) > 1 else None
    if takes is None and not following and not attribute:
        return None

    def match(element: Any) -> Any:
        if takes is not None and not takes(element):
            return None
        if following:
            return _below(element, following, attribute)
        return element if not attribute or element.get(attribute) is not None else None

    return match


def _below(item: Any, steps: tuple[Step, ...], attribute: str) -> Any:
    step, following = steps[0], steps[1:]
    if not step.classes and not following and not attribute:
        return next(item.iterdescendants(step.tag or "*"), None)
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
