"""Text of others as people may see it: what a terminal would obey, or nobody could see, is shown by its escape."""

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
