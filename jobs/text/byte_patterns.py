"""Recognises UTF-16, UTF-32 and ISO-2022-JP by their bytes, whatever the header and the page declare."""

import re
from typing import Final

from jobs import memory
from jobs.errors import DecodeFailed
from jobs.text.candidates import Candidates, Declared, encoding_of
from jobs.text.decoded import RECODED, Decoded, faults, made, not_text, refused, with_few_faults
from jobs.text.encodings import FAULT, REPLACEMENT, UTF_8, TooManyFaults

LABELS: Final = ("iso-2022-jp", "iso-2022-jp-2004", "iso-2022-jp-2", "iso-2022-jp-ext")  # in this order
_JAPANESE: Final = re.compile(rb"\x1b(?:\$[@B]|\([JI])")
_KOREAN_OR_CHINESE: Final = re.compile(rb"\x1b\$\)[CAG]")
LOOKED_AT_BYTES: Final = 65_536  # of a body, in which zero bytes are counted
ZEROS: Final = 1 / 20  # share of ASCII characters that UTF-16 has at least


def by_zeros(body: Candidates) -> Decoded | None:
    """The text of UTF-16 or UTF-32, recognised by the zero bytes of ASCII characters; None for any other body."""
    start = body.bytes[:LOOKED_AT_BYTES]
    first, second = start[0::2].count(0), start[1::2].count(0)
    name = ""
    if (
        len(body.bytes) % 4 == 0
        and start[3::4].count(0) == len(start) // 4
        and start[2::4].count(0) * 20 > len(start) // 4
    ):
        name = "utf-32le"
    elif (
        len(body.bytes) % 4 == 0
        and start[0::4].count(0) == len(start) // 4
        and start[1::4].count(0) * 20 > len(start) // 4
    ):
        name = "utf-32be"
    elif max(first, second) >= len(start) / 2 * ZEROS and min(first, second) * 10 <= max(first, second):
        name = "utf-16le" if second > first else "utf-16be"
    if not name:
        return None
    memory.reserve(len(body.bytes) * RECODED, f"a body in {name}")
    text = with_few_faults(body.bytes, encoding_of(name))
    if text is None:
        return None
    declared = next(iter(body.declared), None)
    warnings = [faults(text, name)]
    if declared is None:
        warnings.append(f"the page does not declare its charset; it was read as {name}")
    elif declared.encoding.name != name:
        warnings.append(f"{declared.place} says {declared.shown}, and the bytes are {name}: it was read as {name}")
    return made(text.removeprefix("\ufeff"), name, "; ".join(filter(None, warnings)))


def by_escapes(body: Candidates) -> Decoded | None:
    """The text of ISO-2022-JP, recognised by its escape sequences; None for any other body.

    Raises DecodeFailed for ISO-2022-KR and -CN, and for declared ISO-2022-JP with more than a few faults.
    """
    declared = next(iter(body.declared), None)
    if _JAPANESE.search(body.bytes) is not None and (found := _japanese(body, declared)) is not None:
        return found
    if declared is not None and declared.encoding.name == REPLACEMENT:
        raise refused(declared)
    if _KOREAN_OR_CHINESE.search(body.bytes) is not None and body.bytes.isascii():
        raise DecodeFailed(
            "expected a charset that browsers read, found the escape sequences of iso-2022-kr or iso-2022-cn; "
            'if it is the former, set charset = "iso-2022-kr" in the definition'
        )
    return Decoded(body.bytes, UTF_8) if body.bytes.isascii() else None


def _japanese(body: Candidates, declared: Declared | None) -> Decoded | None:
    memory.reserve(len(body.bytes) * RECODED, "a body in iso-2022-jp")
    who = (
        f"{declared.place} says {declared.shown}"
        if declared is not None
        else "the page does not declare its real charset"
    )
    for label in LABELS:
        try:
            text = encoding_of(label).decode(body.bytes)
        except TooManyFaults:
            continue
        if FAULT in text or "\x1b" in text:
            continue
        is_declared = declared is not None and declared.encoding.name == label
        return made(text, label, "" if is_declared else f"{who}; it was read as {label}, whose escape sequences it has")
    is_declared = declared is not None and declared.encoding.name in LABELS
    if not body.bytes.isascii() and not is_declared:
        return None
    few = with_few_faults(body.bytes, encoding_of(LABELS[0]), is_declared=is_declared)
    if few is not None:
        warning = faults(few, LABELS[0])
        return made(few, LABELS[0], warning if is_declared else f"{who}; it was read as {LABELS[0]}; {warning}")
    if is_declared:
        raise not_text()
    return Decoded(body.bytes, UTF_8, f"{who}; it has escape sequences of iso-2022-jp, and was read as utf-8")
