"""The charsets that a body may be in: those that its header and its page declare, and those that its text reads well in."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Final, NamedTuple

from jobs.text import bigrams, encodings, prescan
from jobs.text.bigrams import Rating
from jobs.text.encodings import FAULT, WESTERN, Encoding, TooManyFaults

# The charsets to guess among when no declaration holds. Of two that read equally well the first counts.
CANDIDATES: Final = (
    WESTERN, "windows-1251", "gb18030", "shift_jis", "euc-jp", "euc-kr", "big5", "windows-1250", "windows-1254",
    "windows-1253", "windows-1255", "windows-1256", "windows-874", "windows-1257", "windows-1258", "koi8-r", "koi8-u",
    "iso-8859-2", "iso-8859-5", "iso-8859-6", "iso-8859-7", "ibm866", "x-mac-cyrillic", "macintosh", "iso-8859-4",
    "iso-8859-13", "iso-8859-10", "iso-8859-16", "iso-8859-3", "iso-8859-14", "ibm855", "ibm852", "ibm850", "johab",
)  # fmt: skip
LIKELY: Final = CANDIDATES[: CANDIDATES.index("ibm866")]  # guessed before the rarer ones

_HEADER: Final = re.compile(r"""charset\s*+=\s*+["']?+\s*+([^\s"';,]+)""", re.IGNORECASE)


class Declared(NamedTuple):
    """A charset that the header or the page declares: its label, which of the two (``place``), and its decoder."""

    label: str
    place: str
    encoding: Encoding

    @property
    def shown(self) -> str:
        """The label, with the standard's name in brackets when that differs."""
        name = self.encoding.name
        return self.label if self.label == name else f"{self.label} ({name})"


def header_label(content_type: str) -> list[tuple[str, str]]:
    """The label in a Content-Type as (place, label): a list of none or one."""
    found = _HEADER.search(content_type) if content_type else None
    return [("the header", found[1].lower())] if found else []


def declarations(labels: Sequence[tuple[str, str]]) -> Iterator[Declared]:
    """The charsets that (place, label) pairs name. Unknown labels are left out."""
    for place, label in labels:
        encoding = encodings.lookup(label)
        if encoding is not None:
            yield Declared(label, place, encoding)


class Candidates:
    """A body, the charsets that are declared for it, and how well a sample of it reads in a given charset."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self.bytes, self.content_type = body, content_type
        self._rated: dict[str, tuple[str, Rating]] = {}

    @cached_property
    def declared(self) -> list[Declared]:
        """The charsets that the header and then the page declare. Unknown labels are left out."""
        return list(
            declarations(
                [*header_label(self.content_type), *(("the page", label) for label in prescan.labels(self.bytes))]
            )
        )

    @cached_property
    def sample(self) -> bytes:
        """Words of the body that have bytes beyond ASCII."""
        return bigrams.sample(self.bytes)

    def rate(self, encoding: Encoding) -> tuple[str, Rating]:
        """The sample decoded in a charset, and how well it reads."""
        if encoding.name not in self._rated:
            try:
                text = encoding.decode(self.sample)
            except TooManyFaults:
                text = FAULT
            self._rated[encoding.name] = text, bigrams.rate(text)
        return self._rated[encoding.name]

    def best(self, but: str, among: Sequence[str] = CANDIDATES) -> tuple[str, Rating]:
        """The charset of ``among`` in which the sample reads best. Charsets that give the text ``but`` do not count."""
        best, found = "", Rating(-1.0, 0.0)
        for name in among:
            text, rating = self.rate(encoding_of(name))
            # A rating without letters says nothing. It counts only as long as there is no other.
            better = rating.score > found.score + 1e-6 if bool(rating.weight) == bool(found.weight) else rating.weight
            if text != but and FAULT not in text and (better or not best):
                best, found = name, rating
        return best, found


def encoding_of(name: str) -> Encoding:
    """The encoding of a name that is known to exist."""
    found = encodings.lookup(name)
    assert found is not None
    return found
