"""What speaks for which charset of a body: what is said of it, and how its words read in each."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Final, NamedTuple

from jobs.text import bigrams, encodings, prescan
from jobs.text.bigrams import Reading
from jobs.text.encodings import FAULT, WESTERN, Encoding, TooManyFaults

# What a text is read as where nothing true is said, in this order where two are as good.
CANDIDATES: Final = (
    WESTERN, "windows-1251", "gb18030", "shift_jis", "euc-jp", "euc-kr", "big5", "windows-1250", "windows-1254",
    "windows-1253", "windows-1255", "windows-1256", "windows-874", "windows-1257", "windows-1258", "koi8-r", "koi8-u",
    "iso-8859-2", "iso-8859-5", "iso-8859-6", "iso-8859-7", "ibm866", "x-mac-cyrillic", "macintosh", "iso-8859-4",
    "iso-8859-13", "iso-8859-10", "iso-8859-16", "iso-8859-3", "iso-8859-14", "ibm855", "ibm852", "ibm850", "johab",
)  # fmt: skip
LIKELY: Final = CANDIDATES[: CANDIDATES.index("ibm866")]  # what a page of another word is taken for, if as good

_HEADER: Final = re.compile(r"""charset\s*+=\s*+["']?+\s*+([^\s"';,]+)""", re.IGNORECASE)


class Said(NamedTuple):
    """A charset that somebody named: the label, who did, and what it means."""

    label: str
    place: str
    encoding: Encoding

    @property
    def shown(self) -> str:
        """The label, with the standard's name where that is another one."""
        name = self.encoding.name
        return self.label if self.label == name else f"{self.label} ({name})"


def in_header(content_type: str) -> list[tuple[str, str]]:
    """The label of a Content-Type, none or one, with who says it."""
    found = _HEADER.search(content_type) if content_type else None
    return [("the header", found[1].lower())] if found else []


def known(labels: Sequence[tuple[str, str]]) -> Iterator[Said]:
    """What labels mean, without those that nobody knows."""
    for place, label in labels:
        encoding = encodings.lookup(label)
        if encoding is not None:
            yield Said(label, place, encoding)


class Evidence:
    """A body, what is said of its charset, and how its words read in each."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self.bytes, self.content_type = body, content_type
        self._read: dict[str, tuple[str, Reading]] = {}

    @cached_property
    def said(self) -> list[Said]:
        """What the header and the page call the charset, in that order; without labels that nobody knows."""
        return list(
            known([*in_header(self.content_type), *(("the page", label) for label in prescan.labels(self.bytes))])
        )

    @cached_property
    def sample(self) -> bytes:
        """Words of it."""
        return bigrams.sample(self.bytes)

    def read(self, encoding: Encoding) -> tuple[str, Reading]:
        """The sample in a charset, and how it reads."""
        if encoding.name not in self._read:
            try:
                text = encoding.decode(self.sample)
            except TooManyFaults:
                text = FAULT
            self._read[encoding.name] = text, bigrams.read(text)
        return self._read[encoding.name]

    def best(self, but: str, among: Sequence[str] = CANDIDATES) -> tuple[str, Reading]:
        """The charset that the sample reads best in, in other words than ``but``."""
        best, found = "", Reading(-1.0, 0.0)
        for name in among:
            text, reading = self.read(encoding_of(name))
            # A reading without letters says nothing; it is only taken where there is no other.
            better = (
                reading.score > found.score + 1e-6 if bool(reading.weight) == bool(found.weight) else reading.weight
            )
            if text != but and FAULT not in text and (better or not best):
                best, found = name, reading
        return best, found


def encoding_of(name: str) -> Encoding:
    """An encoding that there is."""
    found = encodings.lookup(name)
    assert found is not None
    return found
