"""The decoders of WHATWG's Encoding Standard (https://encoding.spec.whatwg.org), and a few more.

Python's codecs do the work. The differences between their tables and the standard's indexes stand here: for a sequence that a
codec lacks, an error handler knows the standard's character, or how many bytes the fault covers. Each fault becomes U+FFFD, as
in browsers. Tests rebuild every index from these decoders and compare it with the standard's published SHA-256.
"""

import codecs
import re
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final, NamedTuple

import webencodings

FAULT: Final = "\ufffd"
# Most that a text in a multi-byte charset may have of each: every one costs a call.
FAULTS_MAX: Final = 100_000
VENDORS_MAX: Final = 300_000
ESCAPES_MAX: Final = 300_000
REPLACEMENT: Final = "replacement"
UTF_8: Final = "utf-8"
WESTERN: Final = "windows-1252"  # of Western Europe and America; servers declare it by default

# Unknown to the standard; exports of old systems use them, and Python has them.
_OLDER: Final = {
    **{f"{before}{page}": f"cp{page}" for page in (437, 850, 852, 855, 857, 858) for before in ("ibm", "cp")},
    **{name: name for name in ("johab", "utf-7", "utf-32", "utf-32le", "utf-32be")},
    "maccyrillic": "mac-cyrillic",
    "macroman": "mac-roman",
    **{f"iso-2022-jp-{part}": f"iso2022_jp_{part}" for part in ("1", "2", "3", "2004", "ext")},
}
# The standard replaces these by one U+FFFD, so that no page can be read in two ways. A definition may name them.
_REPLACED: Final = {"hz-gb-2312": "hz", "iso-2022-kr": "iso2022_kr", "csiso2022kr": "iso2022_kr"}


class Encoding(NamedTuple):
    """``name`` is the standard's, in lower case. ``decode`` makes U+FFFD of each fault, and raises TooManyFaults."""

    name: str
    decode: Callable[[bytes], str]


class TooManyFaults(ValueError):  # noqa: N818 - says what there is
    """More faults than any text in this charset has. Decoding stops, since the rest would only cost time."""


def lookup(label: str, *, is_override: bool = False) -> Encoding | None:
    """What a label means (https://encoding.spec.whatwg.org/#names-and-labels); None for an unknown one.

    ``is_override``: the label comes from a definition, not from a page. Then labels that the standard replaces work, too.
    """
    found = webencodings.lookup(label)
    label = label.strip("\t\n\f\r ").lower()
    if is_override and label in _REPLACED:
        return _of_python(label, _REPLACED[label])
    if found is not None:
        return _encoding(found.name)
    return _of_python(label, _OLDER[label]) if label in _OLDER else None


@cache
def _encoding(name: str) -> Encoding:
    """An encoding of the standard by its name."""
    if name in _SEVERAL_BYTES:
        return Encoding(name, _SEVERAL_BYTES[name])
    if name in ("utf-8", "utf-16le", "utf-16be"):
        return _of_python(name, name)
    if name == REPLACEMENT:
        return Encoding(name, lambda body: FAULT if body else "")
    table = _table(name)
    return Encoding(name, lambda body: codecs.charmap_decode(body, "strict", table)[0])


def _of_python(name: str, codec: str) -> Encoding:
    def decode(body: bytes) -> str:
        try:
            return body.decode(codec, "replace")
        except (RuntimeError, UnicodeError) as error:  # some codecs give up inside a sequence
            raise TooManyFaults(str(error)) from error

    return Encoding(name, decode)


# ── one byte a character ──

_NAMED_BY_PYTHON: Final = {
    "x-mac-cyrillic": "mac-cyrillic", "macintosh": "mac-roman", "windows-874": "cp874", "iso-8859-8-i": "iso8859-8",
}  # fmt: skip
# Bytes for which Python's table differs from the index, or has nothing.
_OTHERWISE: Final[Mapping[str, Mapping[int, str]]] = {
    "koi8-u": {0xAE: "\u045e", 0xBE: "\u040e"},  # Belarusian
    "windows-1255": {0xCA: "\u05ba"},  # HEBREW POINT HOLAM HASER FOR VAV
}


def _table(name: str) -> str:
    """The character of each byte. Bytes without one are faults, or control characters from 0x80 to 0x9F in Windows charsets."""
    if name == "x-user-defined":
        return "".join(chr(byte if byte < 0x80 else 0xF700 + byte) for byte in range(256))
    codec = _NAMED_BY_PYTHON.get(name, name)
    table = [bytes([byte]).decode(codec, "ignore") for byte in range(256)]
    if name.startswith("windows-"):
        table[0x80:0xA0] = [character or chr(byte) for byte, character in enumerate(table[0x80:0xA0], 0x80)]
    for byte, character in _OTHERWISE.get(name, {}).items():
        table[byte] = character
    return "".join(character or FAULT for character in table)


# ── two bytes and more ──

# Characters of HKSCS-2008 and Big5-ETEN that browsers know and Python's big5hkscs (of 2004) lacks. Each word is a code and
# the characters from that code on.
_BIG5: Final = (
    "877a㡵𡵓𣚞𦀡㻬 87a1𥣞㫵竼龗𤅡𨤍𣇪𠪊𣉞䌊蒄龖鐯䤰蘓墖靊鈘秐稲晠権袝瑌篅枂稬剏遆㓦珄𥶹瓆鿇垳䤯呌䄱𣚎堘穲𧭥讏䚮𦺈䆁𥶙箮𢒼鿈𢓁𢓉𢓌鿉蔄𣖻䂴鿊䓡𪷿拁灮鿋 8e69箸 8e6f簆 8e7e糎 "
    "8eab緒 8eb4縝 8ecd者 8ed0耨 8f57菁 8f69蒨 8f6e萏 8fcb覦覩 8ffe起 906d都 907a銹 90dc靜 90f1響 91bf鼖 9244蔃 92af兙兛兝兞 "
    "92c8鍮 92d1瑹 9447浧 94ca禛 95d9邗 9644靝 96ed瀞 96fc嬨 9b76爁 9b78矗 9b7b纇 9bc6駖 9bde釔 9bec惞 9bf6澶 9c42輶 "
    "9c53侻 9c62營 9c68鄄 9c6b鷰 9c77菏 9cbc尐秣 9cd0婧 9d57輋 9d5a筑 9dc4拐 9ea9恢 9eef痹 9efd汊 9f60鬮 9f66鼗 9fcb僭 "
    "9fd8弌 a063蠏 a077拎 a0d5瑨 a0df煢 a0e4牐 c6cf廴 c6d3无 c6d5癶 c6d7隶 c6de〃仝 fa5f倩 fa66偽 fabd包 fac5卄 fad5卿 "
    "fb48嘅 fbb8婷 fbf3幵 fbf9廐 fc4f彘 fc6c悤 fcb9撐 fce2晴 fcf1杞 fdb7沜渝 fdbb港 fdf1煮 fe52猪 fe6f瑜 feaa瓩 fedd砉 "
)
# A codec's character and the standard's for the same sequence. No other sequence gives the codec's character.
_CHANGED: Final[Mapping[str, Mapping[str, str]]] = {
    "big5": dict(
        zip(
            "\u2022\uff64\u203e\u223c\u2641\u2609\u00a5\u00a2\u00a3",
            "\u2027\ufe51\u00af\uff5e\u2295\u2299\uffe5\uffe0\uffe1",
            strict=True,
        )
    ),
    "euc-jp": dict(zip("\u301c\u2016\u2212\u00a2\u00a3\u00ac", "\uff5e\u2225\uff0d\uffe0\uffe1\uffe2", strict=True)),
    "shift_jis": dict.fromkeys("\uf8f0\uf8f1\uf8f2\uf8f3", FAULT),  # the bytes A0 and FD to FF
    # GB 18030-2022 has real characters where the codec still has private ones.
    "gb18030": dict(
        zip(
            "\ue5e5\ue78d\ue78e\ue78f\ue790\ue791\ue792\ue793\ue794\ue795\ue796"
            "\ue7c7\u1e3f\ue81e\ue826\ue82b\ue82c\ue832\ue843\ue854\ue864",
            "\u3000\ufe10\ufe12\ufe11\ufe13\ufe14\ufe15\ufe16\ufe17\ufe18\ufe19"
            "\u1e3f\ue7c7\u9fb4\u9fb5\u9fb6\u9fb7\u9fb8\u9fb9\u9fba\u9fbb",
            strict=True,
        )
    ),
}  # fmt: skip
# Sequences that a codec decodes to a character that another sequence has, too. To tell them apart they are first moved to codes
# that are unused in the charset; whatever stood at such a code is moved on in turn. The pattern finds runs of other sequences,
# or one of these.
_RENAMED: Final[Mapping[str, tuple[re.Pattern[bytes], Mapping[bytes, bytes]]]] = {
    "big5": (
        re.compile(rb"(?:[\x81-\xa1\xa3-\xfe].|\xa2[^AB\x80\x81])++|\xa2[AB\x80\x81]", re.DOTALL),
        {b"\xa2A": b"\xa2\x80", b"\xa2B": b"\xa2\x81", b"\xa2\x80": b"\xa2\x82", b"\xa2\x81": b"\xa2\x82"},
    ),
    "euc-jp": (  # JIS X 0212's FULLWIDTH TILDE
        re.compile(rb"\x8f\xa2[\xa1\xb7]|\x8f[\xa1-\xfe].|[\x8e\x8f\xa1-\xfe].", re.DOTALL),
        {b"\x8f\xa2\xb7": b"\x8f\xa2\xa1", b"\x8f\xa2\xa1": b"\x8f\xa2\xa2"},
    ),
}


class _Left(threading.local):
    """How many more faults and vendor characters the text that a thread is decoding may have."""

    faults = 0
    vendors = 0


_left: Final = _Left()


def _fault(data: bytes, at: int, size: int) -> tuple[str, int]:
    """A fault, and the place at which decoding goes on. An ASCII byte inside a fault is decoded again."""
    _left.faults -= 1
    if _left.faults < 0:
        raise TooManyFaults(f"more than {FAULTS_MAX} faults")
    return FAULT, at + (1 if data[at + 1 : at + 2] < b"\x80" else size)


def _two_bytes(data: bytes, at: int) -> tuple[str, int]:
    """Big5 and EUC-KR: an unknown sequence is a fault of two bytes if its first byte can begin one."""
    return _fault(data, at, 2 if 0x81 <= data[at] <= 0xFE else 1)


def _shift_jis(data: bytes, at: int) -> tuple[str, int]:
    return _fault(data, at, 2 if 0x81 <= data[at] <= 0x9F or 0xE0 <= data[at] <= 0xFC else 1)


def _euc_jp(data: bytes, at: int) -> tuple[str, int]:
    first, second = data[at], data[at + 1 : at + 2]
    if first == 0x8F and b"\xa1" <= second <= b"\xfe":
        return _fault(data, at, 3) if data[at + 2 : at + 3] >= b"\x80" else (_fault(data, at, 2)[0], at + 2)
    return _fault(data, at, 2 if first in (0x8E, 0x8F) or 0xA1 <= first <= 0xFE else 1)


def _gb18030(data: bytes, at: int) -> tuple[str, int]:
    first, second, third, fourth = data[at], data[at + 1 : at + 2], data[at + 2 : at + 3], data[at + 3 : at + 4]
    if first == 0x80:
        return "€", at + 1
    if not 0x81 <= first <= 0xFE or not b"0" <= second <= b"9":
        return _fault(data, at, 2 if 0x81 <= first <= 0xFE else 1)
    is_end = not third or (b"\x81" <= third <= b"\xfe" and not fourth)
    is_whole = b"\x81" <= third <= b"\xfe" and b"0" <= fourth <= b"9"
    mark, at_next = _fault(data, at, 1)
    return mark, len(data) if is_end else at + 4 if is_whole else at_next


def _vendors_euc_jp() -> dict[bytes, str]:
    """NEC's row 13 and IBM's characters. Python's cp932 has them at the same rows and cells of JIS X 0208."""
    found = {b"\x8f\xa2\xa1": "\uff5e"}
    for row in (12, *range(88, 92)):
        for cell in range(94):
            lead, trail = divmod(row * 94 + cell, 188)
            windows = bytes((lead + (0x81 if lead < 0x1F else 0xC1), trail + (0x40 if trail < 0x3F else 0x41)))
            character = windows.decode("cp932", "ignore")
            if character > "\x7f":
                found[bytes((row + 0xA1, cell + 0xA1))] = character
    return found


def _vendors_big5() -> dict[bytes, str]:
    found = {bytes((0xA3, 0xC0 + place)): chr(0x2400 + place) for place in range(32)}
    found |= {b"\xa3\xe0": "\u2421", b"\xa3\xe1": "€", b"\xa2\x80": "\u2215", b"\xa2\x81": "\ufe68"}
    for word in _BIG5.split():
        code = int(word[:4], 16)
        found |= {(code + place).to_bytes(2, "big"): character for place, character in enumerate(word[4:])}
    return found


def _handled(name: str, step: Callable[[bytes, int], tuple[str, int]], vendors: Mapping[bytes, str]) -> str:
    """The name of an error handler for sequences that a codec lacks: ``vendors`` has their characters, ``step`` makes faults."""

    def handle(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        data, at = error.object, error.start
        found = []
        while (size := 2 if data[at : at + 2] in vendors else 3 if data[at : at + 3] in vendors else 0) > 0:
            found.append(vendors[data[at : at + size]])
            at += size
        if found:
            _left.vendors -= len(found)
            if _left.vendors < 0:
                raise TooManyFaults(f"more than {VENDORS_MAX} characters of vendors")
            return "".join(found), at
        return step(data, at)

    codecs.register_error(f"nearfetch.{name}", handle)
    return f"nearfetch.{name}"


def _decoder(
    name: str, codec: str, step: Callable[[bytes, int], tuple[str, int]], vendors: Mapping[bytes, str]
) -> Callable[[bytes], str]:
    errors, changed = _handled(name, step, vendors), _CHANGED.get(name, {})
    table = str.maketrans(dict(changed))
    sequences, renamed = _RENAMED.get(name, (None, {}))

    def decode(body: bytes) -> str:
        _left.faults, _left.vendors = FAULTS_MAX, VENDORS_MAX
        if sequences is not None and any(sequence in body for sequence in renamed):
            if sum(map(body.count, renamed)) > VENDORS_MAX:
                raise TooManyFaults(f"more than {VENDORS_MAX} sequences that are read by way of others")
            body = sequences.sub(lambda found: renamed.get(found[0], found[0]), body)
        text = body.decode(codec, errors)
        if any(character in text for character in changed):
            text = text.translate(table)
        return text

    return decode


# An escape sequence, a lone ESC, or the bytes between two.
_ESCAPED: Final = re.compile(rb"\x1b(\([BJI]|\$[@B])|\x1b|[^\x1b]++")
_ROMAN: Final = "".join(
    FAULT if byte in (0x0E, 0x0F) or byte > 0x7F else {0x5C: "¥", 0x7E: "\u203e"}.get(byte, chr(byte))
    for byte in range(256)
)
_ASCII: Final = "".join(FAULT if byte in (0x0E, 0x0F) or byte > 0x7F else chr(byte) for byte in range(256))
_KATAKANA: Final = "".join(chr(0xFF61 + byte - 0x21) if 0x21 <= byte <= 0x5F else FAULT for byte in range(256))
_TABLES: Final = {b"(B": _ASCII, b"(J": _ROMAN, b"(I": _KATAKANA, b"$@": None, b"$B": None}
_PAIR: Final = re.compile(rb"((?:[\x21-\x7e]{2})++)|[\x21-\x7e]?[^\x21-\x7e]|.", re.DOTALL)
_HIGH: Final = bytes(byte | 0x80 for byte in range(256))


def _iso_2022_jp(body: bytes) -> str:
    """Decodes each part by the table that its escape sequence names. Two sequences with nothing between them are a fault."""
    if body.count(b"\x1b") > ESCAPES_MAX:
        raise TooManyFaults(f"more than {ESCAPES_MAX} escape sequences")
    parts: list[str] = []
    table, is_escaped = _TABLES[b"(B"], False
    for token in _ESCAPED.finditer(body):
        if token[1] is not None:
            if is_escaped:
                parts.append(FAULT)
            table, is_escaped = _TABLES[token[1]], True
            continue
        is_escaped = False
        if token[0] == b"\x1b":
            parts.append(FAULT)
        else:
            parts.append(_of_jis(token[0]) if table is None else codecs.charmap_decode(token[0], "strict", table)[0])
    return "".join(parts)


def _of_jis(part: bytes) -> str:
    """Decodes pairs of JIS X 0208. Anything else is a fault."""
    euc = _SEVERAL_BYTES["euc-jp"]
    return "".join(euc(pair[1].translate(_HIGH)) if pair[1] else FAULT for pair in _PAIR.finditer(part))


_SEVERAL_BYTES: Final[Mapping[str, Callable[[bytes], str]]] = {
    "big5": _decoder("big5", "big5hkscs", _two_bytes, _vendors_big5()),
    "euc-jp": _decoder("euc-jp", "euc_jp", _euc_jp, _vendors_euc_jp()),
    "euc-kr": _decoder("euc-kr", "cp949", _two_bytes, {}),
    "gb18030": _decoder("gb18030", "gb18030", _gb18030, {}),
    "gbk": _decoder("gb18030", "gb18030", _gb18030, {}),
    "iso-2022-jp": _iso_2022_jp,
    "shift_jis": _decoder("shift_jis", "cp932", _shift_jis, {}),
}
