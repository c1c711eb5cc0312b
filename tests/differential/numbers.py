"""Numbers as the languages of CLDR write them: each comes back, or is refused; a doubtful one is told.

A definition gives a language's decimal mark, and nothing else. Digits are the language's own, where it has some.
"""

import random
import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from functools import cache

from babel import Locale, numbers
from babel.localedata import locale_identifiers

from jobs.definition.field import Value
from jobs.parse.convert import converter
from jobs.text.values import BadValue
from tests.differential import Explained

KINDS = ("decimal", "percent", "standard", "accounting", "short", "long", "scientific")
CURRENCIES = (
    "EUR",
    "USD",
    "GBP",
    "CHF",
    "JPY",
    "INR",
    "BRL",
    "SEK",
    "PLN",
    "KWD",
    "ZAR",
    "XAF",
    "TRY",
    "RUB",
    "AED",
    "MXN",
)
_UNIT = "a unit nearly everywhere"
_LETTER = "a letter before a number is a currency, a size or a room nearly everywhere"
KNOWN = {  # words that multiply in a few languages and are something else in all others
    "min": _UNIT, "mile": _UNIT, "mi": _UNIT, "h": _UNIT, "a": _UNIT, "tri": "three in a dozen languages", "Kr": "a currency", "Vote": "an English word",
    "B": _LETTER, "M": _LETTER, "T": _LETTER,
}  # fmt: skip
PARTICLES = {"de", "n", "na", "v", "ag", "ita", "a"}  # de mii, n wagim, bilhão ag
DIGITS = {
    "arab": 0x660,
    "arabext": 0x6F0,
    "beng": 0x9E6,
    "deva": 0x966,
    "mymr": 0x1040,
    "tibt": 0xF20,
    "adlm": 0x1E950,
    "cakm": 0x11136,
    "olck": 0x1C50,
}


@cache
def locales() -> tuple[str, ...]:
    """All languages that CLDR has numbers of."""
    return tuple(sorted(locale_identifiers()))


def number(draw: random.Random) -> Decimal:
    """A number of any size, mostly with two decimals."""
    digits = draw.randint(0, 10 ** draw.randint(1, 9))
    return (Decimal(digits) / draw.choice((1, 10, 100, 100, 1_000))) * draw.choice((1, -1))


def written(name: str, value: Decimal, kind: str, currency: str) -> tuple[str, Decimal] | None:
    """What a language writes for a number, and the number that it wrote; None where it writes nothing of the kind."""
    try:
        return _written(Locale.parse(name), value, kind, currency)
    except (KeyError, numbers.UnsupportedNumberingSystemError):
        return None  # what Babel does not have


def _written(locale: Locale, value: Decimal, kind: str, currency: str) -> tuple[str, Decimal]:
    system = locale.default_numbering_system
    options = {"numbering_system": system}
    if kind == "decimal":
        text, wrote = numbers.format_decimal(value, locale=locale, **options), round(value, 3)
    elif kind == "percent":
        text, wrote = numbers.format_percent(value / 100, locale=locale, **options), Decimal(round(value))
    elif kind == "scientific":
        if "E" not in locale.scientific_formats[None].pattern:
            raise KeyError(kind)
        text, wrote = numbers.format_scientific(value, locale=locale, **options), value
    elif kind in ("standard", "accounting"):
        text = numbers.format_currency(value, currency, locale=locale, format_type=kind, **options)
        wrote = round(value, numbers.get_currency_precision(currency))
    else:
        text, wrote = (
            numbers.format_compact_decimal(value, format_type=kind, locale=locale, fraction_digits=2, **options),
            value,
        )
    return native(text, system), wrote


def native(text: str, system: str) -> str:
    """A text in its language's own digits, which Babel does not write."""
    zero = DIGITS.get(system)
    return text if zero is None else text.translate({48 + digit: zero + digit for digit in range(10)})


def mark(name: str) -> str:
    """The decimal mark that a definition gives for a language; Arabic's own needs none."""
    found = numbers.get_decimal_symbol(name, numbering_system=Locale.parse(name).default_numbering_system)
    return "," if found in (",", "\u060c") else "."


def read(text: str, decimal_mark: str) -> tuple[Decimal | None, list[str]]:
    """The number of a text, None where it is refused; and what the result's warnings say."""
    told: list[str] = []
    try:
        found = converter(Value(type="decimal", decimal_mark=decimal_mark), lambda _text, note: told.append(note))(
            text, ""
        )
    except BadValue:
        return None, told
    return Decimal(found), told


def compare(seed: int, count: int) -> Iterator[str]:
    """A sentence for each of ``count`` texts whose number comes back as another one, without a warning."""
    draw = random.Random(seed)
    for _ in range(count):
        name, kind, currency = draw.choice(locales()), draw.choice(KINDS), draw.choice(CURRENCIES)
        value = number(draw)
        pair = written(name, value, kind, currency)
        if pair is None:
            continue
        text, wrote = pair
        found, told = read(text, mark(name))
        if found is None or told or _is(found, wrote, kind):
            continue
        sentence = f'{name} writes {wrote} as "{text}" ({kind}), which is read as {found}'
        reason = next((KNOWN[word] for word in words(text) if word in KNOWN), "") if kind in ("short", "long") else ""
        yield Explained(sentence, reason) if reason else sentence


def _is(found: Decimal, wrote: Decimal, kind: str) -> bool:
    """Whether a number is the one that was written; compact and scientific ones are rounded."""
    if kind in ("short", "long", "scientific"):
        return abs(found - wrote) <= abs(wrote) / 50 + Decimal("0.005")
    return found == wrote


def multipliers(name: str) -> Iterator[tuple[str, bool]]:
    """The words by which a language multiplies, and whether each follows its number."""
    formats = Locale.parse(name).compact_decimal_formats
    for style in ("short", "long"):
        for patterns in (formats.get(style) or {}).values():
            for pattern in patterns.values():
                before, zeros, after = re.fullmatch(r"([^0;]*)(0*)([^;]*).*", pattern.pattern.replace("'", "")).groups()
                for text, follows in ((before, not zeros), (after, True)):
                    yield from ((word, follows) for word in words(text) if word not in PARTICLES)


def words(text: str) -> list[str]:
    """The words of a text in any script."""
    return "".join(
        sign if unicodedata.category(sign)[0] in "LM" or sign in "\u200c\u200d" else " " for sign in text
    ).split()
