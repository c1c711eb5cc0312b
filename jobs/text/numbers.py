"""Reads the one number of a text, exactly. A text is refused if anything around the number may change its value.

    only digits? → only a sign and groups? → else search:  the one run of digits → its prefix → its suffix

A minus counts if only blanks and a currency stand between it and the digits; it may be any typographic one. Groups have three
digits, or India's two and three. Words and units are ignored. A multiplier, a fraction, a superscript digit or accountants'
brackets would change the number: such a text is refused, and the message says which key of the field helps.
"""

import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cache, lru_cache
from typing import Final

from jobs.text import number_words
from jobs.text.affixes import Prefix, Refused, Suffix, multiplier

SCALED_PLACES: Final = 12
_DIGITS_MAX: Final = 4_000  # Python's own limit for an int in a text is 4,300
_EXPONENT_MAX: Final = 400

_PLAIN: Final = re.compile(r"[0-9]{1,30}(?:\.[0-9]{1,30})?")  # numbers as programs write them
_DIGITS: Final = re.compile(r"[0-9]{1,30}")
_QUOTES: Final = "'\u2019\u2018\u02bc\u2032\u00b4"
_CURRENCIES: Final = " $€£¥₹₽₩₺₴₫฿"
_ARABIC: Final = re.compile("[\u066b\u066c]")
_FRACTION: Final = re.compile(
    "[\u00bc-\u00be\u2150-\u215f\u2189\u2044\u09f4-\u09f9\u0b72-\u0b77\u0d58-\u0d5e\u0d73-\u0d78\ua830-\ua835]"
)
# Characters that mean the same as others, and marks that only set the direction of a text.
_SAME: Final = str.maketrans(
    {
        **dict.fromkeys("\u00a0\u2007\u2009\u200a\u200b\u202f\u3000\t", " "),
        **dict.fromkeys("\u200e\u200f\u061c\u2060\ufeff\ufe0f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"),
        **dict.fromkeys("\uff0d\ufe63", "-"),
        **dict.fromkeys("\uff0c\ufe50\u060c\u2e41", ","),
        "\uff0e": ".", "\ufe52": ".", "\uff0b": "+", "\ufe62": "+", "\uff08": "(", "\uff09": ")", "\uff05": "%", "\uff07": "'",
        "\uff1a": ":",
    }
)  # fmt: skip
_SAME_LINE: Final = str.maketrans("\t\n\r\f\v", "     ")
_SHORT: Final = 100

Doubt = Callable[[str], None]


def parser(decimal_mark: str, doubt: Doubt | None = None, *, is_count: bool = False) -> Callable[[str], Decimal]:
    """A function from a folded text to its number.

    It raises Refused with the reason, and ValueError if the text has no number. It calls ``doubt`` with a sentence when the
    number may be another one. ``is_count``: the number is a whole one, so that 1.000 may be 1 or 1,000.
    """
    number = _number(decimal_mark)
    price = re.compile(rf"[0-9]{{1,30}}(?:{re.escape(decimal_mark)}[0-9]{{1,2}})?")
    plain = _PLAIN if decimal_mark == "." and not is_count else _DIGITS

    def parse(text: str) -> Decimal:
        if plain.fullmatch(text):
            return Decimal(text)
        bare = text.strip(_CURRENCIES)  # most texts are just a number, perhaps with a currency sign
        if price.fullmatch(bare):
            return Decimal(bare if decimal_mark == "." else bare.replace(",", "."))
        found = number.fullmatch(bare)
        if found is None:
            return _number_in(text, decimal_mark, doubt, is_count=is_count)
        whole, fraction = found["whole"], found["fraction"]
        if not (whole or fraction) or (fraction is not None and len(fraction) == 3 and _is_either(found)):
            return _number_in(text, decimal_mark, doubt, is_count=is_count)
        return _made(found, len(text), minus=False)

    return parse


@cache
def _number(mark: str) -> re.Pattern[str]:
    """A pattern for one number in ASCII digits and nothing else."""
    other = {".": ",", ",": ".", "\u066b": "\u066c"}[mark]
    point, group = re.escape(mark), re.escape(other)
    indian = "" if mark == "," else rf"[1-9]\d?(?:{group}\d\d)+{group}\d{{3}}|"
    return re.compile(
        rf"(?P<whole>[1-9]\d{{0,2}}(?P<by>[{group} {_QUOTES}])\d{{3}}(?:(?P=by)\d{{3}})*|{indian}\d*)"
        rf"(?:{point}(?P<fraction>\d+))?(?:[eE](?P<exponent>[+-]?\d{{1,4}}))?",
        re.ASCII,
    )


@cache
def _runs(mark: str) -> re.Pattern[str]:
    """A pattern for digits and the marks that may stand between digits of one number."""
    return re.compile(
        rf"(?:(?<![\w.,/])[.,{mark}])?\d+(?:[.,{mark}\u066c {_QUOTES}]{{1,2}}\d+)*(?:[eE][+-]?\d{{1,4}}(?!\w))?",
        re.UNICODE,
    )


def _is_either(found: re.Match[str]) -> bool:
    """Whether the fraction would be a group with the other decimal mark: 2.449."""
    whole, fraction = found["whole"], found["fraction"]
    return fraction is not None and len(fraction) == 3 and 1 <= len(whole) <= 3 and whole[0] != "0"


def _made(found: re.Match[str], length: int, *, minus: bool) -> Decimal:
    whole, fraction, exponent = found["whole"], found["fraction"], found["exponent"]
    if length > _DIGITS_MAX or (exponent and abs(int(exponent)) > _EXPONENT_MAX):
        raise ValueError("a number with too many digits")
    digits = whole if whole.isdecimal() else "".join(filter(str.isdecimal, whole)) or "0"
    if exponent:
        fraction = f"{fraction or ''}E{exponent}"
    return Decimal(f"{'-' if minus else ''}{digits}.{fraction}" if fraction else f"{'-' if minus else ''}{digits}")


def _number_in(text: str, mark: str, doubt: Doubt | None, *, is_count: bool) -> Decimal:
    """The one number in a text that has other things in it."""
    if len(text) > _DIGITS_MAX:
        raise ValueError("a text too long to be a number")
    if not text.isascii():
        text = text.translate(_SAME)
        mark = "\u066b" if _ARABIC.search(text) else mark  # Arabic decimal marks have no other meaning
    runs = list(_runs(mark).finditer(text))
    if not runs:
        raise ValueError("no number")
    if len(runs) > 1:
        raise Refused("more than one number; use re to take one of them")
    start, end = runs[0].span()
    run = text[start:end]
    if not text.isascii():
        _check_fractions(text)
        run = "".join(str(unicodedata.decimal(sign)) if sign.isdecimal() else sign for sign in run)
    found = _number(mark).fullmatch(run)
    if found is None or not (found["whole"] or found["fraction"]):
        raise Refused(_ungrouped(run, mark))
    if not found["fraction"] and text[:start].endswith(("..", ",,")):
        raise Refused("dots before the number, one of which may be its decimal mark; use re to take the number")
    read_affixes = _read_affixes if len(text) <= _SHORT else _read_affixes.__wrapped__
    minus, currency, unit, note, no_cents = read_affixes(text[:start], text[end:], bool(found["fraction"]))
    if minus and currency and not found["whole"] and text[start - 1 : start] in "-\u2012\u2013\u2212":
        raise Refused("a dash for no whole units, or a minus; use re to take the number")
    if found["fraction"] and no_cents:
        raise Refused(_ungrouped(run, mark))
    if is_count and _is_either(found):
        raise Refused(f'three decimals, or a group; use decimal_mark = "{_OTHER[mark]}", or re to take the number')
    if currency and _is_either(found) and not number_words.has_three_decimals(currency):
        other = f'decimal_mark = "{_OTHER[mark]}"'
        raise Refused(f"three decimals beside {currency}, or a group; use {other}, or re to take the number")
    made = _made(found, len(text), minus=minus)
    if unit and currency:
        raise Refused(multiplier(unit))
    if unit and doubt is not None:
        doubt(f"{unit} was taken as a unit; where it multiplies, use re to take the number and scale for the factor")
    if note and doubt is not None:
        doubt(note)
    return made


@lru_cache(maxsize=1_024)  # "3 left", "12 left", "1 left": pages repeat the texts around their numbers
def _read_affixes(prefix: str, suffix: str, has_fraction: bool) -> tuple[bool, str, str, str, str]:
    """(is negative, currency, unit if it may multiply, sentence about another doubt, mark of a price without cents)."""
    prefix, suffix = prefix.translate(_SAME_LINE), suffix.translate(_SAME_LINE)
    _check_words(prefix)
    _check_words(suffix)
    before, after = Prefix(prefix), Suffix(suffix, has_fraction=has_fraction)
    if before.in_brackets and after.in_brackets and before.sign is None:
        mend = r"""re = '\((.+)\)' takes their content, and scale = "-1" makes it negative"""
        raise Refused(f"brackets are a minus to accountants; {mend}")
    if before.sign and after.is_minus:
        raise Refused("a minus before and after; use re to take the number")
    note = f"{before.bound} was left out; use re to take the number without it" if before.bound else ""
    if before.apart:
        note = f"{before.apart} before a blank was taken as a minus; use re to take the number without it"
    part = next((one for one in (before.currency, after.currency, after.part) if number_words.is_hundredth(one)), "")
    if part and not {before.currency, after.currency} - {"", part}:
        note = f'{part} was taken as a unit; use re to take the number, and scale = "0.01" to convert it'
    currency = before.currency or after.currency or _sign_in(prefix) or _sign_in(suffix)
    return bool(before.sign) or after.is_minus, currency, after.unit, note, after.no_cents


_OTHER: Final = {".": ",", ",": ".", "\u066b": "."}


def _ungrouped(run: str, mark: str) -> str:
    other = _number("," if mark == "." else ".").fullmatch(run)
    if other is not None and (other["whole"] or other["fraction"]):
        return f'with decimal_mark = "{_OTHER[mark]}" it would be one'
    return "digits that are not grouped by three; use re to take a number"


def _check_fractions(text: str) -> None:
    found = _FRACTION.search(text)
    if found is not None:
        raise Refused(f"{found[0]} is a fraction; use re to take a number without one")


def _check_words(text: str) -> None:
    word = next(filter(number_words.multiplies_anywhere, re.findall(r"[^\W\d_]{3,}", text)), None)
    if word is not None:
        raise Refused(multiplier(word))


def _sign_in(text: str) -> str:
    return "" if text.isalnum() else next((sign for sign in text if unicodedata.category(sign) == "Sc"), "")


def factor(text: str) -> Fraction:
    """An exact factor from a text like "1/60", "0.001" or "1000". Raises ValueError."""
    try:
        found = Fraction(text.replace(" ", ""))
    except ZeroDivisionError as error:
        raise ValueError("a division by zero") from error
    if found == 0 or len(text) > 40 or abs(found.numerator) > 10**30 or found.denominator > 10**30:
        raise ValueError("a factor that is zero or too long")
    return found


def scaled(value: Decimal, by: Fraction) -> Decimal:
    """A number times a factor: exact, or rounded to 12 places if it does not end. Raises Refused if that would be 0."""
    product = Fraction(value) * by
    exact = _exact(product)
    if exact is not None:
        return tidy(exact)
    numerator = product.numerator * 10**SCALED_PLACES
    rounded = round(Fraction(numerator, product.denominator))
    if not rounded:
        raise Refused(f"scale makes it too small for {SCALED_PLACES} decimal places")
    result = Decimal(rounded).scaleb(-SCALED_PLACES) if abs(rounded) < 10**28 else _long(rounded)
    return tidy(result)


def _exact(product: Fraction) -> Decimal | None:
    """A fraction as an exact decimal; None if it does not end, or has too many places."""
    left, twos, fives = product.denominator, 0, 0
    while left % 2 == 0 and twos <= _EXPONENT_MAX:
        left, twos = left // 2, twos + 1
    while left % 5 == 0 and fives <= _EXPONENT_MAX:
        left, fives = left // 5, fives + 1
    places = max(twos, fives)
    if left != 1 or places > _EXPONENT_MAX:
        return None
    text = f"{abs(product.numerator) * 10**places // product.denominator:0{places + 1}d}"
    return Decimal(f"{'-' if product < 0 else ''}{text[: len(text) - places]}.{text[len(text) - places :]}")


def _long(rounded: int) -> Decimal:
    text = f"{abs(rounded):0{SCALED_PLACES + 1}d}"
    return Decimal(f"{'-' if rounded < 0 else ''}{text[:-SCALED_PLACES]}.{text[-SCALED_PLACES:]}")


def tidy(value: Decimal) -> Decimal:
    """A number without trailing zeros and without an exponent."""
    text = f"{value:f}"
    return Decimal(text.rstrip("0").rstrip(".") if "." in text else text)


def whole(value: Decimal) -> int:
    """A number as an int. Raises ValueError if it is not whole."""
    try:
        found = int(value)
    except (InvalidOperation, OverflowError) as error:
        raise ValueError("no whole number") from error
    if found != value:
        raise ValueError("no whole number")
    return found
