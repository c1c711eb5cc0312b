"""Foreign text for people: characters that a terminal would obey, or that nobody could see, are shown as escapes."""

import re
from typing import Final

MESSAGE_CHARACTERS_MAX: Final = 2_000


def printable(text: str, most: int = MESSAGE_CHARACTERS_MAX) -> str:
    r"""A text on one line: at most ``most`` of its characters, then "…"; an escape like ``\x1b`` for what is not printable.

    Not printable are control characters, line ends, marks that change the direction of writing, every blank but the usual
    one, and what Unicode has not assigned (``str.isprintable``).
    """
    cut = text if len(text) <= most else text[:most] + "…"
    if cut.isprintable():
        return cut
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in cut)


# JSON encoders leave these as they are: DEL, the C1 controls, line separators, and marks that change the direction of writing.
_LEFT_BY_JSON: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable_json(text: str) -> str:
    """Equivalent JSON that holds nothing that a terminal would obey."""
    if text.isascii() and "\x7f" not in text:
        return text
    return _LEFT_BY_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
