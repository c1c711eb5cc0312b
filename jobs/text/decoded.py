"""A body's text in UTF-8, and what is said where there are faults in it or none can be had."""

from dataclasses import dataclass
from typing import Final

from jobs.errors import DecodeFailed
from jobs.text.candidates import Said
from jobs.text.encodings import FAULT, Encoding, TooManyFaults

# Bad sequences for each good one in what is still a charset's; no name of any language in another charset has so few
# of UTF-8 (tried on two to sixty words in 35 of them), and where the page itself says UTF-8 more are believed.
FAULTS_PER_GOOD: Final = 1 / 10
FAULTS_PER_GOOD_IF_SAID: Final = 1 / 3
RECODED: Final = 6  # times a body in another charset: its text, and that in UTF-8


@dataclass
class Decoded:
    """A body's text, made when it is asked for where the bytes are UTF-8."""

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


def with_few_faults(body: bytes, encoding: Encoding, *, is_said: bool = False) -> str | None:
    """The text with U+FFFD for each fault; None where there are more than a few, or than some where somebody says it."""
    try:
        text = encoding.decode(body)
    except TooManyFaults:
        return None
    count = text.count(FAULT)
    if not count:
        return text
    good = len(text) - len(text.encode("ascii", "ignore")) - count
    return text if count <= good * (FAULTS_PER_GOOD_IF_SAID if is_said else FAULTS_PER_GOOD) else None


def faults(text: str, label: str) -> str:
    """The warning for faults in a text, "" where there are none."""
    count = text.count(FAULT)
    return f"the page is {label} but for {count} bad sequences" if count else ""


def refused(said: Said) -> DecodeFailed:
    """What is told of a charset that the standard replaces."""
    return DecodeFailed(
        f"expected a charset that browsers read, found {said.label}, which {said.place} says; "
        f'if it is true, charset = "{said.label}" in the definition reads it'
    )


def not_text() -> DecodeFailed:
    """What is told of bytes that are no text."""
    return DecodeFailed(
        "expected text in the charset that the page names, found bytes that are none or no language in it; "
        "charset in the definition overrides it"
    )
