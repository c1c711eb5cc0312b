"""The texts before and after a number (its prefix and suffix), and whether they change its value.

    Prefix: …minus, currency →   5.00   ← currency or unit, minus: Suffix

A dash is a minus if only blanks and a currency stand between it and the digits. A text that may have a minus, a multiplier, an
exponent or a debit elsewhere is refused: a reader of the page knows what is meant, but the text does not say it.
"""

import re
import unicodedata
from typing import Final

from jobs.text import number_words

_MINUS: Final = frozenset("-\u2212\u2010\u2011\u2012")
_TRUE_MINUS: Final = "\u2212"
_DASH: Final = "\u2013"  # a typographic minus; after a word and between blanks it is a dash
_UNSURE: Final = frozenset("\u2014\u2015\u00ad\u02d7\u2796\u207b\u208b\u2043\u2500\u30fc\ufe58\u2e3a\u2e3b")
_MINUSES: Final = _MINUS | _UNSURE | {_DASH}
_PLUS_MINUS: Final = "\u00b1\u2213"
_ARROWS: Final = frozenset(
    "\u25b2\u25b3\u25b4\u25b5\u25bc\u25bd\u25be\u25bf\u2191\u2193\u2197\u2198\u21d1\u21d3\u2b06\u2b07\u2b08\u2b0a\U0001f53a\U0001f53b\U0001f4c8\U0001f4c9"
)
_PER_HUNDRED: Final = "%\u2030\u2031\u066a"
_BOUNDS: Final = frozenset("<>\u2264\u2265")
_LEAST_SIGNS: Final = "#~\u2248<>=*\u2264\u2265"
_ACCOUNTS: Final = frozenset({"cr", "dr", "soll", "haben"})
_MINUS_WORDS: Final = frozenset(
    {
        "minus",
        "negative",
        "moins",
        "menos",
        "meno",
        "eksi",
        "mínusz",
        "minuss",
        "míinus",
        "минус",
        "мінус",
        "μείον",
        "ناقص",
    }
)
_MINUS_CJK: Final = ("マイナス", "负", "負", "마이너스")
_WITH_SLASH: Final = ("B/", "S/")  # of Panama and Peru
_OPENED: Final = ("(", "<")
_CLOSED: Final = (")", ">")
_SIGN_IN_BRACKETS: Final = re.compile(r"[(\[] ?[-\u2010-\u2015\u2212] ?[)\]]$")
_COUNTRY: Final = re.compile(r" [A-Z]{2}(?!\w)")  # 5,00 $ US
_LINK: Final = re.compile(r"(?:na|de|n|a|ma) ")  # 7 na libo
_HALF: Final = re.compile(r"(?:and (?:a |one )?(?:half|quarter)|einhalb|et demie?|y medi[oa]|e mezz[oa]|e meia)(?!\w)")
_TSHEG: Final = " \u0f0b"  # ends a Tibetan syllable
_NO_CENTS: Final = re.compile(r"([.,:]) ?[-\u2010-\u2015\u2212]{1,2}")


class Refused(ValueError):  # noqa: N818
    """A text whose number is not certain. The message says why, and which key of the field helps."""


def multiplier(word: str) -> str:
    """The message about a word that multiplies."""
    return f"{word} multiplies; use re to take the number, and scale for the factor"


def _is_of_word(sign: str) -> bool:
    return unicodedata.category(sign)[0] in "LM" or unicodedata.category(sign) == "Sc" or sign in "\u200c\u200d\u05f4"


def _is_dash(sign: str) -> bool:
    return sign in _MINUSES or unicodedata.category(sign) == "Pd"


def _word_after(text: str) -> str:
    """The word at the beginning of a text, with its dots. Currency signs count as letters."""
    if text.startswith(_WITH_SLASH):
        return text[: text.index("/") + 1]
    end = 0
    while end < len(text) and (_is_of_word(text[end]) or (text[end] == "." and end)):
        end += 1
    return text[:end]


def _word_before(text: str) -> str:
    """The word at the end of a text."""
    if text.endswith((*_WITH_SLASH, "B/.", "S/.")):
        return text[text.rindex("/") - 1 :]
    start = len(text)
    while start and (
        _is_of_word(text[start - 1]) or (text[start - 1] == "." and start > 1 and _is_of_word(text[start - 2]))
    ):
        start -= 1
    return text[start:]


class Prefix:
    """The text before a number. ``sign`` is True for a minus, False for a plus, None for none; ``bound`` is a sign like <.

    ``apart`` is a minus with a blank after it, which may be a bullet.
    """

    def __init__(self, text: str) -> None:
        self.sign: bool | None = None
        self.currency = self.apart = ""
        rest = text.rstrip(" ")
        for _ in range(3):
            word = _word_before(rest)
            if rest[-1:] and rest[-1:] in _PER_HUNDRED:
                word = rest[-1:]
            elif not word or not number_words.is_currency(word) or number_words.is_multiplied(word):
                break
            else:
                self.currency = self.currency or word
            rest = rest[: -len(word)].rstrip(" ")
        self.in_brackets = rest.endswith(_OPENED)
        self.bound = rest[-1:] if rest[-1:] in _BOUNDS else ""
        if rest and _is_dash(rest[-1]):
            self.sign = self._is_minus(rest, touches=text[len(rest) : len(rest) + 1] != " ")
        else:
            self._look_at(rest)

    def _is_minus(self, rest: str, *, touches: bool) -> bool | None:
        sign, before = rest[-1], rest[:-1]
        last = before.rstrip(" ")[-1:]
        word = _word_before(before.rstrip(" "))
        if last in _MINUSES or (last and last in f"{_PLUS_MINUS}+)]") or before.rstrip(" ").endswith(("+/", "+ /")):
            raise Refused("more than one sign; use re to take the number")
        if before[-1:] and (before[-1].isalnum() or _is_of_word(before[-1]) or (before[-1] == "." and word)):
            return self._is_minus_after(word)
        if sign not in _MINUS and sign != _DASH:
            raise Refused(f"{sign} may be a minus; use re to take the number")
        if touches or not last or not (last.isalnum() or word):
            if number_words.multiplies_after(word.rstrip(".")):
                raise Refused(multiplier(word))
            self.in_brackets = before.rstrip(" ").endswith(_OPENED)
            if number_words.is_currency(word):
                self.currency = self.currency or word
            self.apart = "" if touches or sign == _TRUE_MINUS else sign
            return True
        if sign == _DASH and not number_words.is_currency(word):
            return None
        raise Refused(f"{sign} between blanks may be a minus or a dash; use re to take the number")

    def _is_minus_after(self, word: str) -> bool | None:
        """A dash right after a word: a minus after a currency, else a hyphen."""
        if not number_words.is_currency(word):
            if word.endswith(".") or (2 <= len(word) <= 5 and word.isascii() and word.isupper()):
                raise Refused(f"{word}- may be a currency and a minus; use re to take the number")
            return None
        has_sign = any(unicodedata.category(sign) == "Sc" for sign in word)
        if not has_sign and not (2 <= len(word.rstrip(".")) <= 3 or "." in word):
            raise Refused(f"{word}- may be a word with a hyphen, or a minus; use re to take the number")
        self.currency = self.currency or word
        return True

    def _look_at(self, rest: str) -> None:
        """Looks for anything else before a number that would change it."""
        rest = rest.rstrip(_TSHEG)
        last, word = rest[-1:], _word_before(rest)
        if last == "+":
            if rest[:-1].rstrip(" ")[-1:] in (*_MINUSES, *_PLUS_MINUS, "/", "+") and rest[:-1].strip(" "):
                raise Refused("more than one sign; use re to take the number")
            self.sign = False
            return
        if last and (last in _PLUS_MINUS or last in _ARROWS):
            raise Refused(f"{last} may be a minus; use re to take the number")
        bare = word.rstrip(".").casefold()
        if bare in _MINUS_WORDS or rest.endswith(_MINUS_CJK):
            raise Refused('a minus in words; use re to take the number, and scale = "-1" to make it negative')
        if bare in _ACCOUNTS:
            raise Refused(_account(word))
        if word and (number_words.multiplies_after(word.rstrip(".")) or number_words.is_multiplied(word)):
            raise Refused(multiplier(word))
        if last and unicodedata.numeric(last, None) is not None and not last.isalpha() and not last.isdecimal():
            raise Refused(f"{last} at the number; use re to take the number")
        near = rest[: len(rest) - len(word)].rstrip(_LEAST_SIGNS)
        is_near = near[-1:] in _MINUSES and not near[:-1][-1:].isalnum() and not near[:-1].endswith(" ")
        if is_near or rest.lstrip(" ")[:1] in _MINUSES or _SIGN_IN_BRACKETS.search(rest):
            raise Refused("a minus that is not at the number; use re to take the number")


class Suffix:
    """The text after a number. ``unit`` may multiply, ``part`` is a hundredth, ``no_cents`` is the mark in a price like "5.-"."""

    def __init__(self, text: str, *, has_fraction: bool) -> None:
        self.currency = self.unit = self.part = self.no_cents = ""
        self.is_minus = False
        found = _NO_CENTS.match(text)
        if found is not None:
            self.no_cents = found[1]
            text = text[found.end() :]
        if text[:1] in _MINUSES and text[:1]:
            text = self._signed(text, has_fraction=has_fraction)
        rest = text.lstrip(" ")
        for _ in range(3):
            word = _word_after(rest)
            bare = word.rstrip(".")
            if rest[:1] and rest[:1] in _PER_HUNDRED:
                word = rest[:1]
            elif number_words.multiplies(bare.partition(".")[0]) or number_words.is_multiplied(word):
                raise Refused(multiplier(word))
            elif (
                (len(bare) < 2 and bare.isascii() and bare.isalpha()) or not word or not number_words.is_currency(word)
            ):
                break
            else:
                self.currency = self.currency or word
            text = rest[len(word) :]
            country = _COUNTRY.match(text) if self.currency else None
            text = text[country.end() :] if country is not None else text
            rest = text.lstrip(" ")
        linked = _LINK.match(rest)
        if linked is not None and number_words.multiplies(_word_after(rest[linked.end() :]).rstrip(".")):
            raise Refused(multiplier(rest[: linked.end()] + _word_after(rest[linked.end() :])))
        self._look_at(text, rest)

    def _signed(self, text: str, *, has_fraction: bool) -> str:
        """The text behind a dash right after the digits: a minus, as accountants write it, or a hyphen."""
        word = _word_after(text[1:])
        if text[1:2].isalnum() and not number_words.is_currency(word):
            return text  # 5-pack
        left = text[1 + len(word) :] if number_words.is_currency(word) else text[1:]
        blank = left.lstrip(" ")
        if number_words.is_currency(_word_after(blank)):
            blank = blank[len(_word_after(blank)) :].lstrip(" ")
        if not has_fraction or text[0] not in _MINUS or blank.rstrip(" )"):
            raise Refused(
                f'{text[0]} after the number may be a minus; use re to take the number, and scale = "-1" to make it negative'
            )
        self.is_minus = True
        return text[1:]

    def _look_at(self, text: str, rest: str) -> None:
        first, word = rest[:1], _word_after(rest)
        self.in_brackets = first in _CLOSED
        bare = word.rstrip(".")
        if first and (first in _ARROWS or first in _PLUS_MINUS):
            raise Refused(f"{first} may be a minus; use re to take the number")
        if bare.casefold() in _MINUS_WORDS or rest.startswith(_MINUS_CJK):
            raise Refused('a minus in words; use re to take the number, and scale = "-1" to make it negative')
        if _HALF.match(rest):
            raise Refused("a half in words; use re to take a number without one")
        if bare.casefold() in _ACCOUNTS:
            raise Refused(_account(word))
        if first and unicodedata.numeric(first, None) is not None and not first.isalpha() and not first.isdecimal():
            raise Refused(
                f"{first} at the number is an exponent or a note; use re to take the number, or without to leave the note out"
            )
        self.part = bare if number_words.is_hundredth(bare) else ""
        after = rest[len(word) :]
        if number_words.may_multiply(bare) and (not after or after[0] in " ,;:.)!?+"):
            self.unit = bare
        if first and first in _MINUSES:
            left = rest[1:].lstrip(" ")
            word = _word_after(left)
            if number_words.is_currency(word):
                left = left[len(word) :].strip(" )")
            if not left or (text[:1] == first and self.currency and rest[1:2] == " "):
                raise Refused(f"{first} after the number may be a minus; use re to take the number")


def _account(word: str) -> str:
    return f'{word} is a debit or a credit; use re to take the number, and scale = "-1" to make it negative'
