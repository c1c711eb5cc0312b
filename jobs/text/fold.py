"""White space folded: what every text goes through, also one of many megabytes."""

import sys
from typing import Final

from jobs import memory

LONG: Final = 262_144  # characters of a text that is looked at by pieces


def folded(text: str) -> str:
    """A text with one blank for any white space in it, and none around it."""
    return " ".join(text.split()) if len(text) <= LONG else _folded_by_pieces(text)


def _folded_by_pieces(text: str) -> str:
    """As ``folded``: the words of a long text, all at once, would take many times its memory."""
    memory.reserve(2 * sys.getsizeof(text), f"a text of {len(text)} characters")
    pieces: list[str] = []
    is_in_word = False
    for start in range(0, len(text), LONG):
        piece = text[start : start + LONG]
        words = " ".join(piece.split())
        if words:
            pieces.append(words if not pieces or (is_in_word and not piece[0].isspace()) else f" {words}")
        is_in_word = not piece[-1].isspace()
    return "".join(pieces)
