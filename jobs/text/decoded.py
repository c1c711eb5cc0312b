"""A body's text in UTF-8, the warnings about faults in it, and the errors of a body without a text."""

from dataclasses import dataclass
from typing import Final

from jobs.errors import DecodeFailed
from jobs.text.candidates import Declared
from jobs.text.encodings import FAULT, Encoding, TooManyFaults

# Bad sequences per good one with which a body still counts as this charset. Words in another charset have more of them as
# UTF-8 (tried on two to sixty words in 35 languages). If the page declares UTF-8, more are accepted.
FAULTS_PER_GOOD: Final = 1 / 10
FAULTS_PER_GOOD_IF_DECLARED: Final = 1 / 3
RECODED: Final = 6  # times its bytes: what a body in another charset takes, as a text and in UTF-8


@dataclass
class Decoded:
    """A body's text as UTF-8. ``text`` decodes it on each call."""

    utf8: bytes
    encoding: str
    warning: str = ""

    @property
    def text(self) -> str:
        """The text."""
        return self.utf8.decode("utf-8")


def made(text: str, name: str, warning: str = "") -> Decoded:
    """A text as UTF-8."""
    return Decoded(text.encode("utf-8", "replace"), name, warning)


def with_few_faults(body: bytes, encoding: Encoding, *, is_declared: bool = False) -> str | None:
    """The text with U+FFFD for each fault; None if there are more faults than a text in this charset can have."""
    try:
        text = encoding.decode(body)
    except TooManyFaults:
        return None
    count = text.count(FAULT)
    if not count:
        return text
    good = len(text) - len(text.encode("ascii", "ignore")) - count
    return text if count <= good * (FAULTS_PER_GOOD_IF_DECLARED if is_declared else FAULTS_PER_GOOD) else None


def faults(text: str, label: str) -> str:
    """The warning about faults in a text, "" for none."""
    count = text.count(FAULT)
    return f"the page is {label} except for {count} bad sequences" if count else ""


def refused(declared: Declared) -> DecodeFailed:
    """The error for a charset that WHATWG replaces by U+FFFD."""
    return DecodeFailed(
        f"expected a charset that browsers read, found {declared.label}, which {declared.place} says; "
        f'if it is true, set charset = "{declared.label}" in the definition'
    )


def not_text() -> DecodeFailed:
    """The error for bytes that are no text."""
    return DecodeFailed(
        "expected text in the charset that the page names, found bytes that are no text in it; "
        "use charset in the definition if you know it"
    )
