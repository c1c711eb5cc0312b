"""What charset a body is in, and its text (the order is the source format's).

    override → BOM → UTF-8 that says so itself, also with a few faults → header → meta or declaration → a detector that
    is sure → windows-1252 without control characters → DecodeFailed

Labels mean what WHATWG says they mean (https://encoding.spec.whatwg.org): ``iso-8859-1`` is windows-1252, ``shift_jis``
is what Windows made of it. A page's word is only taken where its bytes decode strictly. All bytes are windows-1252, and
servers say it by default: it is only taken where no detector is sure of another charset and the text may be Western.
"""

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import webencodings

from jobs import budget
from jobs.errors import DecodeFailed

PRESCAN_BYTES: Final = 16_384  # far beyond WHATWG's 1,024: real pages declare at 5,000
# Bad sequences for each good one in what is still UTF-8; no name of any language in another charset has so few (tried on
# two to sixty words in 35 of them), and where the page itself says UTF-8 more are believed.
FAULTS_PER_GOOD: Final = 1 / 10
FAULTS_PER_GOOD_IF_SAID: Final = 1 / 3
CHECKED_BYTES: Final = 1_048_576  # decoded at once where only whether it can be is asked
LETTERS: Final = 20_000  # that a detector looks at
RECODED: Final = 6  # times a body in another charset: its text, and that in UTF-8

_BOMS: Final = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_HEADER: Final = re.compile(r"""charset\s*=\s*["']?([^\s"';,]+)""", re.IGNORECASE)
_META: Final = re.compile(rb"<meta\b[^>]*+", re.IGNORECASE)
_IN_META: Final = re.compile(rb"""\bcharset\s*+=\s*+["']?+\s*+([^\s"'/>;]+)""", re.IGNORECASE)
_DECLARATION: Final = re.compile(rb"""\A\s*<\?xml\b[^>]*?\bencoding\s*=\s*["']([^"'<>]+)["']""")
# Python's codecs that are narrower than what WHATWG means by the label.
_WIDER: Final = {
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "euc_kr": "cp949",
    "gbk": "gb18030",
    "gb2312": "gb18030",
    "big5": "big5hkscs",
}
# What WHATWG does not know, and exports of old systems and Python do.
_OLDER: Final = {
    **dict.fromkeys(("ibm437", "cp437"), "cp437"), **dict.fromkeys(("ibm850", "cp850"), "cp850"),
    **dict.fromkeys(("ibm852", "cp852"), "cp852"), **dict.fromkeys(("ibm855", "cp855"), "cp855"),
    **dict.fromkeys(("ibm857", "cp857"), "cp857"), **dict.fromkeys(("ibm858", "cp858"), "cp858"),
    "johab": "johab",
}  # fmt: skip
# What pages without a true word are tried as; each has letters that hardly come about by chance.
_CANDIDATES: Final = ("iso2022_jp", "euc_jp", "cp932", "gb18030", "cp949", "big5hkscs", "cp1251", "koi8_r")
WESTERN: Final = "windows-1252"
# No Western language has so many letters beyond ASCII in a row; other scripts' bytes, read as windows-1252, do.
_FOREIGN: Final = re.compile("[\xa1-\xff]{4,}")
_LETTERS: Final = re.compile("[^\x00-\x7f]{1,1000}")
FOREIGN_MIN: Final = 20  # all umlauts in a row are fewer
_CYRILLIC: Final = re.compile("[\u0400-\u045f\u0490\u0491]{3,}")  # letters by chance stand alone
_FREQUENT_CYRILLIC: Final = frozenset("оеаинтсрвлкоіу")


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


def decode(body: bytes, content_type: str = "", override: str = "") -> Decoded:
    """A body as UTF-8; raises DecodeFailed when nothing fits, or when ``override`` does not."""
    if override:
        budget.reserve(len(body) * RECODED, f"a body in {override}")
        text = _strictly(body, override)
        if text is None:
            raise DecodeFailed(f"expected {override}, as the definition says, found bytes that are none")
        return _made(text, override)
    for mark, name in _BOMS:
        if body.startswith(mark):
            budget.reserve(len(body) * RECODED, f"a body in {name}")
            return _marked(body[len(mark) :], name)
    if body.isascii() and b"\x1b" not in body and b"\x00" not in body:
        return Decoded(body, "utf-8")
    if not body.isascii() and _is_utf8(body):
        return Decoded(body, "utf-8")
    budget.reserve(len(body) * RECODED, "a body in another charset than UTF-8")
    labels = _labels(body, content_type)
    return (
        _nearly_utf8(body, is_said="utf-8" in labels or "utf8" in labels) or _declared(body, labels) or _guessed(body)
    )


def is_known(label: str) -> bool:
    """Whether a label names a charset."""
    return webencodings.lookup(label) is not None or label.strip().lower() in _OLDER


def text_bytes(utf8: bytes) -> int:
    """What the text of UTF-8 takes at most: every character of it is as wide as its widest."""
    if utf8.isascii():
        return len(utf8)
    return len(utf8) * (4 if any(lead in utf8 for lead in (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4")) else 2)


def declared_in(body: bytes) -> str:
    """The label that a document gives itself, "" for none."""
    start = re.sub(rb"<!--.*?(?:-->|\Z)", b"", body[:PRESCAN_BYTES], flags=re.DOTALL)
    in_tags = (_IN_META.search(tag[0]) for tag in _META.finditer(start))
    found = next(filter(None, in_tags), None) or _DECLARATION.match(start)
    label = found[1].decode("ascii", "replace").strip().lower() if found else ""
    return "utf-8" if label.startswith("utf-16") else label  # whoever could read it was not reading UTF-16


def _marked(body: bytes, name: str) -> Decoded:
    try:
        return Decoded(body, name) if name == "utf-8" and _is_utf8(body) else _made(body.decode(name), name)
    except UnicodeDecodeError:
        text = body.decode(name, "replace")
        return Decoded(text.encode(), name, f"the page says {name} by its first bytes and has others in it")


def _labels(body: bytes, content_type: str) -> list[str]:
    """What the header and the page call the charset, in that order."""
    header = _HEADER.search(content_type)
    return [label.lower() for label in (header[1] if header else "", declared_in(body)) if label]


def _nearly_utf8(body: bytes, *, is_said: bool) -> Decoded | None:
    text = body.decode("utf-8", "replace")
    faults = text.count("\ufffd")
    good = len(text) - len(text.encode("ascii", "ignore")) - faults
    if not good or faults > good * (FAULTS_PER_GOOD_IF_SAID if is_said else FAULTS_PER_GOOD):
        return None
    return Decoded(text.encode(), "utf-8", f"the page is UTF-8 but for {faults} bad sequences")


def _declared(body: bytes, labels: Sequence[str]) -> Decoded | None:
    for label in labels:
        text = _strictly(body, label)
        if text is None:
            continue
        means = webencodings.lookup(label)
        # What no byte can contradict: windows-1252, and UTF-8 for bytes that are all ASCII (with escapes).
        is_proof = means is None or means.name not in (WESTERN, "utf-8")
        if is_proof or (_sure(body) is None and _may_be_western(text)):
            return _made(text, label)
    return None


def _guessed(body: bytes) -> Decoded:
    found = _sure(body)
    if found is None:
        text = _strictly(body, WESTERN)
        if text is not None and not re.search("[\x80-\x9f]", text) and _may_be_western(text):
            found = text, WESTERN
    if found is None:
        raise DecodeFailed(
            "expected text in the charset that the page names, found bytes that are none or no language in it; "
            "charset in the definition overrides it"
        )
    return _made(*found, f"the page does not say truly what charset it is in; it was read as {found[1]}")


def _sure(body: bytes) -> tuple[str, str] | None:
    """The text and the charset that a detector is sure of."""
    for name in _CANDIDATES:
        found = _try(body, name)
        if found is not None and _reads_well(found, name):
            return found, name
    return None


def _may_be_western(text: str) -> bool:
    """Whether a text that was read as windows-1252 can be one: not the bytes of another script."""
    foreign = sum(found.end() - found.start() for found in _FOREIGN.finditer(text))
    return foreign < FOREIGN_MIN or foreign < sum(character > "\x7f" for character in text) / 2


def _beginning(text: str) -> str:
    """As much of a text as has enough letters beyond ASCII."""
    count = 0
    for found in _LETTERS.finditer(text):
        count += found.end() - found.start()
        if count >= LETTERS:
            return text[: found.end()]
    return text


def _reads_well(text: str, name: str) -> bool:
    """Whether a detector is sure: enough letters, nearly all of the language that the charset is for."""
    text = _beginning(text)
    letters = [character for character in text if character > "\x7f"]
    if len(letters) < 8:
        return False
    if name in ("iso2022_jp", "euc_jp", "cp932"):
        known = sum(1 for c in letters if "\u3040" <= c <= "\u30ff")
        common = known + sum(
            1 for c in letters if "\u4e00" <= c <= "\u9fff" or "\u3000" <= c <= "\u303f" or c > "\uff00"
        )
        # Half-width katakana are what other charsets look like when they are read as Shift_JIS.
        narrow = sum(1 for c in letters if "\uff61" <= c <= "\uff9f")
        return known > len(letters) * 0.15 and common - narrow > len(letters) * 0.9
    if name == "cp949":
        return sum(1 for c in letters if "\uac00" <= c <= "\ud7a3") > len(letters) * 0.8
    if name in ("cp1251", "koi8_r"):
        cyrillic = "".join(_CYRILLIC.findall(text))
        small = sum(1 for c in cyrillic if c.islower())
        frequent_ones = sum(1 for c in cyrillic if c.lower() in _FREQUENT_CYRILLIC)
        return (
            len(cyrillic) > len(letters) * 0.8 and small > len(cyrillic) * 0.7 and frequent_ones > len(cyrillic) * 0.5
        )
    frequent = _frequent_han()
    han = [c for c in letters if "\u4e00" <= c <= "\u9fff"]
    return len(han) > len(letters) * 0.6 and sum(1 for c in han if c in frequent) > len(han) * 0.2


@cache
def _frequent_han() -> frozenset[str]:
    """The commonest Chinese characters, in both scripts: about a third of any text."""
    return frozenset(
        "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长"
        "這來國個說們為時會過學對裡後麼沒於還發當無開見經頭動兩長網業資訊新聞"
    )


def _made(text: str, label: str, warning: str = "") -> Decoded:
    return Decoded(text.encode("utf-8", "replace"), label, warning)


def _is_utf8(body: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(body), CHECKED_BYTES):
            decoder.decode(body[start : start + CHECKED_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _strictly(body: bytes, label: str) -> str | None:
    """The text where a label is known and all bytes are of its charset."""
    encoding = webencodings.lookup(label)
    if encoding is None:
        older = _OLDER.get(label.strip().lower())
        return _try(body, older) if older else None
    name = encoding.codec_info.name
    if name.startswith("cp125") or encoding.name.startswith("windows-"):
        return str(codecs.charmap_decode(body, "strict", _windows(name))[0])
    return _try(body, _WIDER.get(encoding.name, _WIDER.get(name, name)))


def _try(body: bytes, name: str) -> str | None:
    try:
        return body.decode(name)
    except (UnicodeDecodeError, LookupError):
        return None


@cache
def _windows(name: str) -> str:
    """The decoding table of a Windows charset with WHATWG's five control characters, which Python leaves undefined."""
    table = [bytes([byte]).decode(name, "ignore") for byte in range(256)]
    return "".join(
        character or (chr(byte) if 0x80 <= byte <= 0x9F else "\ufffe") for byte, character in enumerate(table)
    )
