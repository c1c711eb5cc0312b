"""Numbers in texts: exactly one, exact.

A leading minus (- or U+2212, or an en dash right before the digits) stays, other signs and words around it fall away;
blanks, ' and the mark that is not the decimal one group digits by three. What that rule does not cover is no number: "1.2.3", "10 to 20", "1,00,000".
"""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cache
from typing import Final

SCALED_PLACES: Final = 12
_DIGITS_MAX: Final = 4_000  # Python's own limit for an int in a text is 4,300
_EXPONENT_MAX: Final = 400

_PLAIN: Final = re.compile(r"[0-9]{1,30}(?:\.[0-9]{1,30})?")  # as programs write numbers: no need to look closer
_QUOTES: Final = "'\u2019"
_MINUS: Final = "-\u2212"
_DASH: Final = "\u2013"  # typographers' minus; with a blank after it, it is a dash
_CURRENCIES: Final = " $€£¥₹₽₩₺₴₫฿¢"


def parser(decimal_mark: str) -> Callable[[str], Decimal]:
    """A function from a folded text to its number; it raises ValueError where the text has none, or two."""
    runs, number = _patterns(decimal_mark)

    def parse(text: str) -> Decimal:
        if decimal_mark == "." and _PLAIN.fullmatch(text):
            return Decimal(text)
        found = number.fullmatch(text.strip(_CURRENCIES))  # most texts are a number, perhaps with a currency's sign
        if found is None or not (found["whole"] or found["fraction"]):
            all_found = runs.findall(text)
            if len(all_found) != 1:
                raise ValueError("no number" if not all_found else "more than one number")
            before, run = all_found[0]
            found = number.fullmatch(run)
            if found is None:
                raise ValueError("digits that are not grouped by three")
            minus = _is_minus(before, text[: text.index(run)])
        else:
            minus = False
        whole, fraction, exponent = found["whole"], found["fraction"], found["exponent"]
        if len(text) > _DIGITS_MAX or (exponent and abs(int(exponent)) > _EXPONENT_MAX):
            raise ValueError("a number too long to be one")
        digits = whole if whole.isdecimal() else "".join(filter(str.isdecimal, whole)) or "0"
        if exponent:
            fraction = f"{fraction or ''}E{exponent}"
        return Decimal(f"{'-' if minus else ''}{digits}.{fraction}" if fraction else f"{'-' if minus else ''}{digits}")

    return parse


@cache
def _patterns(mark: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    other = "." if mark == "," else ","
    point, groups = re.escape(mark), re.escape(other) + " " + _QUOTES
    exponent = r"(?:[eE][+-]?\d{1,4}(?!\w))?"
    runs = re.compile(
        rf"((?:(?<!\w)[{_MINUS}{_DASH}])?)((?:(?<!\w)[.,])?\d+(?:[{groups}{point}]{{1,2}}\d+)*{exponent})", re.UNICODE
    )
    number = re.compile(
        rf"(?P<whole>\d{{1,3}}(?:(?P<by>[{groups}])\d{{3}}(?:(?P=by)\d{{3}})*)|\d*)"
        rf"(?:{point}(?P<fraction>\d+))?(?:[eE](?P<exponent>[+-]?\d{{1,4}}))?",
        re.UNICODE,
    )
    return runs, number


def _is_minus(sign: str, before: str) -> bool:
    """Whether a number is negative: by a sign at it, or one that only blanks and a currency keep from it."""
    if sign:
        return True
    rest = before.rstrip(_CURRENCIES)
    return rest[-1:] in tuple(_MINUS) and not rest[:-1].rstrip()[-1:].isalnum()


def factor(text: str) -> Fraction:
    """An exact factor from "1/60", "0.001" or "1000"; raises ValueError."""
    try:
        found = Fraction(text.replace(" ", ""))
    except ZeroDivisionError as error:
        raise ValueError("a division by zero") from error
    if found == 0 or len(text) > 40 or abs(found.numerator) > 10**30 or found.denominator > 10**30:
        raise ValueError("a factor that is zero or too long")
    return found


def scaled(value: Decimal, by: Fraction) -> Decimal:
    """A number times a factor, exactly; rounded to 12 places where it does not end."""
    product = Fraction(value) * by
    numerator = product.numerator * 10**SCALED_PLACES
    rounded = round(Fraction(numerator, product.denominator))
    result = Decimal(rounded).scaleb(-SCALED_PLACES) if abs(rounded) < 10**28 else _long(rounded)
    return tidy(result)


def _long(rounded: int) -> Decimal:
    text = f"{abs(rounded):0{SCALED_PLACES + 1}d}"
    return Decimal(f"{'-' if rounded < 0 else ''}{text[:-SCALED_PLACES]}.{text[-SCALED_PLACES:]}")


def tidy(value: Decimal) -> Decimal:
    """A number without the zeros at its end and without an exponent."""
    text = f"{value:f}"
    return Decimal(text.rstrip("0").rstrip(".") if "." in text else text)


def whole(value: Decimal) -> int:
    """A number as an int; raises ValueError where it is not whole."""
    try:
        found = int(value)
    except (InvalidOperation, OverflowError) as error:
        raise ValueError("no whole number") from error
    if found != value:
        raise ValueError("no whole number")
    return found
