"""Our decoders beside the steps of the Encoding Standard, and our look for a ``meta`` beside html5lib's.

The steps are written as the standard has them, a byte at a time (https://encoding.spec.whatwg.org). Their indexes are made
from our decoders, one sequence each; the standard publishes the SHA-256 of each index, which tests/unit/jobs/text/test_encodings.py
holds them to.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Final

from html5lib._inputstream import EncodingParser as _EncodingParser

from jobs.text import encodings, prescan

FAULT: Final = "\ufffd"
Index = Sequence[str | None]
# A step: the bytes and a place → what comes out, and the next place.
Step = Callable[[bytes, int], tuple[str, int]]


# ── indexes ──


def pointed(name: str, pointer: int) -> bytes:
    """The sequence of a pointer in an index of the standard."""
    if name == "big5":
        lead, trail = divmod(pointer, 157)
        return bytes((lead + 0x81, trail + (0x40 if trail < 0x3F else 0x62)))
    if name == "euc-kr":
        lead, trail = divmod(pointer, 190)
        return bytes((lead + 0x81, trail + 0x41))
    if name == "gb18030":
        lead, trail = divmod(pointer, 190)
        return bytes((lead + 0x81, trail + (0x40 if trail < 0x3F else 0x41)))
    if name == "jis0212":
        row, cell = divmod(pointer, 94)
        return bytes((0x8F, row + 0xA1, cell + 0xA1))
    assert name == "jis0208"
    lead, trail = divmod(pointer, 188)
    return bytes((lead + (0x81 if lead < 0x1F else 0xC1), trail + (0x40 if trail < 0x3F else 0x41)))


LENGTHS: Final = {"big5": 19_782, "euc-kr": 23_940, "gb18030": 23_940, "jis0208": 11_280, "jis0212": 8_836}
_DECODERS: Final = {"jis0208": "shift_jis", "jis0212": "euc-jp"}


@cache
def index(name: str) -> Index:
    """An index as our decoders have it; where the standard decodes without the index, it has nothing."""
    if name not in LENGTHS:
        return [None if one == FAULT else one for one in decoded(bytes(range(0x80, 0x100)), name)]
    found: list[str | None] = []
    for pointer in range(LENGTHS[name]):
        text = decoded(pointed(name, pointer), _DECODERS.get(name, name))
        is_other = (
            name == "jis0208" and "\ue000" <= text[:1] <= "\ue757"
        )  # what users of Windows define, by its pointer
        found.append(text if len(text) == 1 and text != FAULT and not is_other else None)
    return found


def decoded(body: bytes, label: str) -> str:
    """What our decoder makes of some bytes."""
    encoding = encodings.lookup(label)
    assert encoding is not None
    return encoding.decode(body)


# ── the standard's decoders ──


def _at(found: Index, pointer: int) -> str | None:
    return found[pointer] if 0 <= pointer < len(found) else None


def _pair(found: str | None, data: bytes, at: int) -> tuple[str, int]:
    """Two bytes that were looked up: a fault leaves an ASCII byte to be read again."""
    if found is not None:
        return found, at + 2
    return FAULT, at + (1 if data[at + 1] < 0x80 else 2)


def _big5(data: bytes, at: int) -> tuple[str, int]:
    lead = data[at]
    if not 0x81 <= lead <= 0xFE or at + 1 == len(data):
        return FAULT, at + 1
    trail, found = data[at + 1], None
    if 0x40 <= trail <= 0x7E or 0xA1 <= trail <= 0xFE:
        pointer = (lead - 0x81) * 157 + trail - (0x40 if trail < 0x7F else 0x62)
        two = {1133: "Ê\u0304", 1135: "Ê\u030c", 1164: "ê\u0304", 1166: "ê\u030c"}
        found = two.get(pointer) or _at(index("big5"), pointer)
    return _pair(found, data, at)


def _euc_kr(data: bytes, at: int) -> tuple[str, int]:
    lead = data[at]
    if not 0x81 <= lead <= 0xFE or at + 1 == len(data):
        return FAULT, at + 1
    trail = data[at + 1]
    found = _at(index("euc-kr"), (lead - 0x81) * 190 + trail - 0x41) if 0x41 <= trail <= 0xFE else None
    return _pair(found, data, at)


def _shift_jis(data: bytes, at: int) -> tuple[str, int]:
    lead = data[at]
    if lead == 0x80:
        return "\x80", at + 1
    if 0xA1 <= lead <= 0xDF:
        return chr(0xFF61 - 0xA1 + lead), at + 1
    if lead in (0xA0, 0xFD, 0xFE, 0xFF) or at + 1 == len(data):
        return FAULT, at + 1
    trail, found = data[at + 1], None
    if 0x40 <= trail <= 0x7E or 0x80 <= trail <= 0xFC:
        offset, lead_offset = (0x40 if trail < 0x7F else 0x41), (0x81 if lead < 0xA0 else 0xC1)
        pointer = (lead - lead_offset) * 188 + trail - offset
        if 8836 <= pointer <= 10715:
            return chr(0xE000 - 8836 + pointer), at + 2
        found = _at(index("jis0208"), pointer)
    return _pair(found, data, at)


def _euc_jp(data: bytes, at: int) -> tuple[str, int]:
    lead, end = data[at], len(data)
    if at + 1 == end:
        return FAULT, end
    trail = data[at + 1]
    if lead == 0x8E and 0xA1 <= trail <= 0xDF:
        return chr(0xFF61 - 0xA1 + trail), at + 2
    if lead == 0x8F and 0xA1 <= trail <= 0xFE:
        if at + 2 == end:
            return FAULT, end
        last = data[at + 2]
        found = _at(index("jis0212"), (trail - 0xA1) * 94 + last - 0xA1) if 0xA1 <= last <= 0xFE else None
        return (found, at + 3) if found is not None else (FAULT, at + (2 if last < 0x80 else 3))
    if lead in (0x8E, 0x8F):
        return _pair(None, data, at)
    if not 0xA1 <= lead <= 0xFE:
        return FAULT, at + 1
    found = _at(index("jis0208"), (lead - 0xA1) * 94 + trail - 0xA1) if 0xA1 <= trail <= 0xFE else None
    return _pair(found, data, at)


def _gb18030(data: bytes, at: int) -> tuple[str, int]:
    first, end = data[at], len(data)
    if first == 0x80:
        return "€", at + 1
    if first == 0xFF or at + 1 == end:
        return FAULT, at + 1
    second = data[at + 1]
    if not 0x30 <= second <= 0x39:
        found = None
        if 0x40 <= second <= 0x7E or 0x80 <= second <= 0xFE:
            offset = 0x40 if second < 0x7F else 0x41
            found = _at(index("gb18030"), (first - 0x81) * 190 + second - offset)
        return _pair(found, data, at)
    if at + 2 == end:
        return FAULT, end
    if not 0x81 <= data[at + 2] <= 0xFE:
        return FAULT, at + 1
    if at + 3 == end:
        return FAULT, end
    if not 0x30 <= data[at + 3] <= 0x39:
        return FAULT, at + 1
    pointer = (first - 0x81) * 12_600 + (second - 0x30) * 1_260 + (data[at + 2] - 0x81) * 10 + data[at + 3] - 0x30
    return of_ranges(pointer) or FAULT, at + 4


@cache
def ranges() -> list[tuple[int, int]]:
    """The index of ranges: where the four-byte sequences of GB 18030 leave the order of Unicode."""
    in_two_bytes = {ord(one) for one in index("gb18030") if one is not None}
    left_out = (in_two_bytes | set(_NOWHERE)) - set(_IN_BOTH)
    found, pointer, was_there = [], 0, False
    for code in range(0x80, 0x10000):
        if 0xD800 <= code <= 0xDFFF or code in left_out:
            was_there = False
            continue
        if not was_there:
            found.append((pointer, code))
        was_there = True
        pointer += 1
    return [*found, (189_000, 0x10000)]


# Characters that GB 18030 has in two bytes since 2022 and in four as before; and what it had in two bytes until then.
_IN_BOTH: Final = (0x1E3F, *range(0xFE10, 0xFE1A), *range(0x9FB4, 0x9FBC))
_NOWHERE: Final = (
    0xE5E5, 0xE7C7, *range(0xE78D, 0xE797), 0xE81E, 0xE826, 0xE82B, 0xE82C, 0xE832, 0xE843, 0xE854, 0xE864,
)  # fmt: skip


def of_ranges(pointer: int) -> str | None:
    """The character of a pointer of four bytes."""
    if 39_419 < pointer < 189_000 or pointer > 1_237_575:
        return None
    if pointer == 7_457:
        return "\ue7c7"
    offset, code = max(one for one in ranges() if one[0] <= pointer)
    return chr(code + pointer - offset)


_STATES: Final = {b"(B": "ascii", b"(J": "roman", b"(I": "katakana", b"$@": "lead", b"$B": "lead"}


def iso_2022_jp(data: bytes) -> str:
    """The decoder with states."""
    out: list[str] = []
    state, is_escaped, at = "ascii", False, 0
    while at < len(data):
        byte = data[at]
        if byte == 0x1B:
            new = _STATES.get(data[at + 1 : at + 3])
            if new is None:
                out.append(FAULT)
                is_escaped, at = False, at + 1
                continue
            if is_escaped:
                out.append(FAULT)
            state, is_escaped, at = new, True, at + 3
            continue
        is_escaped, at = False, at + 1
        if state == "katakana":
            out.append(chr(0xFF61 - 0x21 + byte) if 0x21 <= byte <= 0x5F else FAULT)
        elif state != "lead":
            special = {0x5C: "¥", 0x7E: "\u203e"} if state == "roman" else {}
            out.append(FAULT if byte > 0x7F or byte in (0x0E, 0x0F) else special.get(byte, chr(byte)))
        elif not 0x21 <= byte <= 0x7E or at == len(data) or data[at] == 0x1B:
            out.append(FAULT)
        else:
            trail, at = data[at], at + 1
            pointer = (byte - 0x21) * 94 + trail - 0x21
            out.append((_at(index("jis0208"), pointer) if 0x21 <= trail <= 0x7E else None) or FAULT)
    return "".join(out)


STEPS: Final[dict[str, Step]] = {
    "big5": _big5, "euc-kr": _euc_kr, "shift_jis": _shift_jis, "euc-jp": _euc_jp, "gbk": _gb18030, "gb18030": _gb18030,
}  # fmt: skip


def by_the_standard(data: bytes, name: str) -> str:
    """What the standard's steps make of some bytes."""
    if name == "iso-2022-jp":
        return iso_2022_jp(data)
    out, at, step = [], 0, STEPS[name]
    while at < len(data):
        if data[at] < 0x80:
            out.append(chr(data[at]))
            at += 1
            continue
        text, at = step(data, at)
        out.append(text)
    return "".join(out)


# ── what differs ──


def bytes_like(name: str, chance: random.Random) -> Iterator[bytes]:
    """Short bytes without end, most of them near what a charset has."""
    pieces: dict[str, list[bytes]] = {
        "iso-2022-jp": [b"\x1b$B", b"\x1b(B", b"\x1b(J", b"\x1b$@", b"\x1b(I", b"\x1b$", b"\x1b", b"(", b"\n"],
        "euc-jp": [b"\x8f\xa2\xb7", b"\x8f\xa2\xa1", b"\x8f", b"\x8e", b"\xad"],
        "gb18030": [b"0", b"9", b"\x81", b"\xfe", b"\xa8\xbc"],
        "gbk": [b"0", b"9", b"\x80", b"\xa3\xa0"],
        "big5": [b"\xa2A", b"\xa2B", b"\xa2\x80", b"\x87", b"\x88"],
    }
    special = pieces.get(name, [])
    high = name != "iso-2022-jp"
    while True:
        found = []
        for _ in range(chance.randrange(1, 10)):
            kind = chance.randrange(4)
            if kind == 0 and special:
                found.append(chance.choice(special))
            elif kind == 1:
                found.append(bytes((chance.randrange(256),)))
            else:
                first, last = (0x81, 0xFE) if high else (0x21, 0x7E)
                found.append(bytes(chance.randint(first, last) for _ in range(chance.choice((1, 2, 2, 2)))))
        yield b"".join(found)


def _metas(chance: random.Random) -> Iterator[bytes]:
    """Beginnings of pages without end, with what surrounds a meta in them.

    None has what html5lib 1.1 reads otherwise than the standard's steps: ``<meta/``, ``<!-->``, ``<<meta``, an attribute
    twice, an end within a tag.
    """
    pieces = [
        b"<meta ", b"<META\t", b"charset", b"=", b">", b" ", b"/", b"utf-8", b"koi8-r", b"UTF-16>", b"x", b"http-equiv=content-type ",
        b'content="text/html; charset=big5"', b"<!--", b"-->", b" --", b"<p a='b'", b"<a b=c>", b"<?xml ", b"<!doctype html>",
        b";", b"\n", b"charset=euc-kr>", b"<script>", b"<meta charset=windows-1251>", b'"charset=gbk"', b"'",
    ]  # fmt: skip
    while True:
        made = b"".join(chance.choice(pieces) for _ in range(chance.randrange(1, 14)))
        if b"<!-->" not in made and made.count(b"charset") < 2:
            yield made + b"'>-->"


def compare(seed: int, count: int) -> Iterator[str]:
    """A sentence for each difference in ``count`` inputs of each kind."""
    chance = random.Random(seed)
    for name in (*STEPS, "iso-2022-jp"):
        for body in islice(bytes_like(name, chance), count):
            ours, theirs = decoded(body, name), by_the_standard(body, name)
            if ours != theirs:
                yield f"{name} {body.hex()}: we read {ours!r}, the standard's steps {theirs!r}"
    for body in islice(_metas(chance), count):
        ours, theirs = encodings.lookup(prescan.prescan(body)), _EncodingParser(body).getEncoding()
        ours_name, theirs_name = ours.name if ours else "", theirs.name if theirs else ""
        if ours_name != theirs_name:
            yield f"meta in {body!r}: we find {ours_name!r}, html5lib {theirs_name!r}"
