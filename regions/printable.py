"""Text of others as people may see it: what a terminal would obey, or nobody could see, is shown by its escape."""

import re
from typing import Final

MESSAGE_CHARACTERS_MAX: Final = 2_000


def printable(text: str, most: int = MESSAGE_CHARACTERS_MAX) -> str:
    r"""A text on one line, of ``most`` characters of the original: ``\x1b`` for what is not printable, "…" for the rest.

    Not printable are control characters, line ends, marks that turn the direction of writing, every blank but the usual
    one, and what Unicode has not assigned (``str.isprintable``).
    """
    cut = text if len(text) <= most else text[:most] + "…"
    if cut.isprintable():
        return cut
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in cut)


# What JSON leaves as it is: DEL, the other set of controls, line ends, and what turns the direction of writing.
_LEFT_BY_JSON: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable_json(text: str) -> str:
    """JSON that means the same, and in which a terminal finds nothing to obey."""
    if text.isascii() and "\x7f" not in text:
        return text
    return _LEFT_BY_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
