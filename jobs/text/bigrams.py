"""Rates how much a text looks like a language: by the pairs of letters that occur in it (bigrams).

Bytes read in the wrong charset are letters too, but in pairs that no language has. So the ratings tell which of two charsets
is right, or that both may be. The pairs of each language come from CLDR's names (letters.tsv, made by
scripts/authoring/letters.py). For Chinese, Japanese and Korean it counts whether the characters are common.
"""

import re
import unicodedata
from collections import defaultdict
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Final, NamedTuple

SAMPLE_BYTES: Final = 900  # beyond ASCII in the sample of a body
LOOKED_AT: Final = 400  # words that are looked at; many may be the same
WORD_BYTES: Final = 600  # of one word: a text without blanks is a single word
BEFORE_BYTES: Final = 24  # ASCII before a word's first byte beyond it
PERHAPS: Final = 0.5  # worth of a pair whose letters the language has, but not side by side in CLDR's names

_NOT_ASCII: Final = re.compile(rb"[\x80-\xff][\x30-\xff]*+")
_BLANK: Final = re.compile(rb"[\x00-\x2f]")
_NOT_BESIDE: Final = frozenset("0123456789@\\^`{|}~_")  # these touch no word beyond ASCII in any language
# Wide characters that are no words: marks and numbers.
_NO_WORD: Final = re.compile(
    "[\u2e80-\u3004\u3006-\u3040\u3200-\u33ff\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0-\uffef]"
)
# Letters with the marks above and below them.
_WORD: Final = re.compile(
    r"(?:[^\W\d_\u00b2\u00b3\u00b9\u00bc-\u00be\u0530-\u058f\u0700-\u0dff\u0e80-\u1dff\u1f00-\u218f\u2460-\u24ff\u2776-\u2793\ua000-\uabff\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef]"
    r"|[\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0e00-\u0e4e])+"
)
_WIDE: Final = re.compile("[\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef]")
_SMALL: Final = "\u00df-\u00f6\u00f8-\u00ff\u0430-\u045f\u03ac-\u03ce"
_CAPITAL: Final = "\u00c0-\u00d6\u00d8-\u00de\u0400-\u042f\u0391-\u03ab"
_UPPER_INSIDE: Final = re.compile(f"[{_SMALL}][A-Z{_CAPITAL}]|[a-z][{_CAPITAL}]")
# Marks that may touch letters (before a word, after it, inside it), and marks that may stand alone.
_BEFORE: Final = "«¿¡“‘„‚‹›»”’(©®§#€£¥…–—•\u00a0\u00ad\u2009\u200b\u200e\u200f\u2010\u2011№"
_AFTER: Final = _BEFORE + "™²³¹ªº´؟،؛।"
_INSIDE: Final = "’‘\u00ad–—\u2010\u2011\u00a0\u200b\u200c\u200d\u02bc\u02bb\u05be\u05f3\u05f4\u0640…"
_MARKS: Final = re.compile(
    "[\u0080-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7\u02c2-\u02ff\u05be\u05f3\u05f4\u060c\u061b\u061f"
    "\u0660-\u066d\u06f0-\u06f9\u0e3f\u0e4f-\u0e5b\u2000-\u2e7f\ue000-\uf8ff\ufe30-\ufe6f\ufffd]"
)
_ALONE: Final = frozenset("¡¢£¤¥¦§¨©«¬\u00ad®¯°±²³´¶·¸¹»¼½¾¿×÷\u00a0") | {
    chr(code)
    for first, last in (
        (0x660, 0x66D),
        (0x6F0, 0x6F9),
        (0xE4F, 0xE5B),
        (0x2000, 0x20CF),
        (0x2100, 0x24FF),
        (0x25A0, 0x2BFF),
    )
    for code in range(first, last + 1)
}
_SYMBOLS: Final = frozenset("¢¤¦§¨©ª¬®¯±²³´µ¶¸¹º¼½¾")  # no two of them stand side by side
_ASCII_LETTER: Final = re.compile("[A-Za-z]")
_OTHER_SCRIPT: Final = re.compile("[\u0370-\u1dff\u1f00-\u1fff]")
_COLD: Final = "CFKNSEWOcn"  # letters that may follow a degree sign
# Scripts that none of the old charsets has. If their letters come out, the bytes are UTF-8.
_ELSEWHERE: Final = re.compile("[\u0530-\u058f\u0700-\u0dff\u0e80-\u1dff\u1f00-\u1fff\ua000-\uabff]")
_FREQUENT_HAN: Final = (
    "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长"
    "這來國個說們為時會過學對裡後麼沒於還發當無開見經頭動兩長網業資訊新聞"
)


_FULL_WIDTH: Final = [(language, 0.8) for language in ("ja", "zh", "zh_Hant", "ko")]


class Rating(NamedTuple):
    """``score``: the share (0 to 1) of pairs beyond ASCII that a language has; ``weight``: how many pairs there are."""

    score: float
    weight: float


def sample(body: bytes) -> bytes:
    """Words of a body with bytes beyond ASCII, joined by blanks. No character is cut, whatever the charset."""
    found, taken, distinct = [], 0, set()
    for match in islice(_NOT_ASCII.finditer(body), LOOKED_AT):
        before = body[max(0, match.start() - BEFORE_BYTES) : match.start()]
        blanks = list(_BLANK.finditer(before))
        word = (before[blanks[-1].start() :] if blanks else before) + match[0][:WORD_BYTES]
        word += body[match.end() : match.end() + 1]
        if word in distinct:
            continue
        distinct.add(word)
        found.append(word)
        taken += len(match[0])
        if taken >= SAMPLE_BYTES:
            break
    return b" ".join(found)


def lowered(word: str) -> str:
    """A word in lower case with as many letters as before. The table of pairs has this form."""
    return word.replace("İ", "ı").lower()


def rate(text: str) -> Rating:
    """A text's rating in the language that fits it best."""
    text = unicodedata.normalize("NFC", text)
    tables = _tables()
    by_language: defaultdict[str, float] = defaultdict(float)
    weight = bad = 0.0
    for match in _WORD.finditer(text):
        word = match[0]
        if word.isascii():
            continue
        if _UPPER_INSIDE.search(word) or (_ASCII_LETTER.search(word) and _OTHER_SCRIPT.search(word)):
            bad += sum(letter > "\x7f" for letter in word) + 1
            continue
        before, after = text[max(0, match.start() - 1) : match.start()], text[match.end() : match.end() + 1]
        word = f"{before if before in _NOT_BESIDE else ' '}{lowered(word)}{after if after in _NOT_BESIDE else ' '}"
        for two in pairwise(word):
            if two[0] > "\x7f" or two[1] > "\x7f":
                weight += 1
                for language, worth in tables.pair(two[0], two[1]):
                    by_language[language] += worth
    for match in _WIDE.finditer(text):
        character = match[0]
        if _NO_WORD.match(character):
            continue
        weight += 1
        beside = text[max(0, match.start() - 1) : match.start()] + text[match.end() : match.end() + 1]
        part = 0.3 if beside.isascii() and any(map(str.isalpha, beside)) else 1.0
        for language, worth in tables.characters(character):
            by_language[language] += worth * part
    elsewhere = len(_ELSEWHERE.findall(text))
    for match in _MARKS.finditer(text):
        bad += _harm(text, match.start())
    best = max(by_language.values(), default=0) + elsewhere
    weight += elsewhere
    total = weight + bad
    return Rating(best / total if total else 1.0, total)


def _harm(text: str, at: int) -> float:
    """How badly a mark fits its place, from 0 to 2."""
    mark, before, after = text[at], text[at - 1 : at], text[at + 1 : at + 2]
    if "\x80" <= mark <= "\x9f" or mark == "\ufffd" or "\ue000" <= mark <= "\uf8ff":
        return 2
    if mark in _SYMBOLS and (before in _SYMBOLS or after in _SYMBOLS) and before + after:
        return 1
    is_after, is_before = before.isalpha(), after.isalpha()
    if mark == "·":  # Catalan
        return 0 if before.lower() == after.lower() == "l" or not (before + after).isascii() else is_after or is_before
    if mark == "°":
        return is_after or (is_before and (after not in _COLD or not (before.isdigit() or before.isspace())))
    if mark not in _ALONE and mark not in _AFTER and mark not in _INSIDE:
        return 1
    allowed = _INSIDE if is_after and is_before else _AFTER if is_after else _BEFORE if is_before else None
    return 0 if allowed is None or mark in allowed else 1


class _Tables:
    """The letter pairs of each language; for Chinese, Japanese and Korean, the characters."""

    def __init__(self) -> None:
        self._pairs: dict[str, list[tuple[str, float]]] = {}
        self._letters: dict[str, set[str]] = {}
        common: dict[str, str] = {}
        for line in (Path(__file__).parent / "letters.tsv").read_text(encoding="utf-8").splitlines():
            language, _, letters = line.partition("\t")
            if language in ("ja", "ko", "zh", "zh_Hant"):
                common[language] = letters
                continue
            for at in range(0, len(letters), 2):
                self._pairs.setdefault(letters[at : at + 2], []).append((language, 1.0))
            for letter in letters:
                self._letters.setdefault(letter, set()).add(language)
        kana = {chr(code) for code in (*range(0x3041, 0x3097), *range(0x30A1, 0x30FF))}
        self._known = {
            "ja": kana | set(common["ja"]),
            "ko": set(common["ko"]),
            "zh": set(common["zh"]) | set(_FREQUENT_HAN),
            "zh_Hant": set(common["zh_Hant"]) | set(_FREQUENT_HAN),
        }
        self._usual = {
            "ja": _level("euc_jp", 0xB0, 0xCF), "ko": _level("euc_kr", 0xB0, 0xC8),
            "zh": _level("gb2312", 0xB0, 0xD7), "zh_Hant": _level("big5", 0xA4, 0xC6),
        }  # fmt: skip

    def pair(self, one: str, two: str) -> list[tuple[str, float]]:
        """The worth of a letter pair in each language that has both letters."""
        found = self._pairs.get(one + two)
        if found is None or len(found[-1]) < 2 or found[-1][0]:
            known = {language for language, _ in found or ()}
            both = self._letters.get(one, set()) if one > "\x7f" else None
            if two > "\x7f":
                others = self._letters.get(two, set())
                both = others if both is None else both & others
            found = [*(found or ()), *((language, PERHAPS) for language in (both or set()) - known), ("", 0.0)]
            if one in _NOT_BESIDE or two in _NOT_BESIDE:
                found = [("", 0.0)]
            self._pairs[one + two] = found
        return found

    def characters(self, character: str) -> list[tuple[str, float]]:
        """The worth of a character in each language that has it."""
        if "\uff10" <= character <= "\uff5a":  # full-width letters and digits
            return _FULL_WIDTH
        is_han = "\u3400" <= character <= "\u9fff"
        return [
            (language, 1.0 if character in known else 0.6 if character in self._usual[language] else 0.2)
            for language, known in self._known.items()
            if is_han or character in known or character in self._usual[language]
        ]


def _level(codec: str, first: int, last: int) -> frozenset[str]:
    """The characters of a charset's first level, which are those in common use."""
    trails = range(0x40, 0xFF) if codec == "big5" else range(0xA1, 0xFF)
    return frozenset(
        bytes((lead, trail)).decode(codec, "ignore")[:1] for lead in range(first, last + 1) for trail in trails
    ) - {""}


@cache
def _tables() -> _Tables:
    return _Tables()
