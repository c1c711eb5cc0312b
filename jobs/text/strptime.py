"""Reads times by a strptime pattern: month names of any language, digits of any script, zones in any form.

The standard library's strptime knows English names and this machine's zone only. It ignores %p beside %H, and takes 12 for
midnight if %p is missing. All of that would give wrong times silently.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from functools import cache, lru_cache
from typing import Final, NamedTuple

from babel import Locale, UnknownLocaleError

from jobs.text.zones import Doubt, Refused

NO_DAY: Final = "there is no such day; format may have its parts in another order"
TEXT_MAX: Final = 200  # characters of a time
_CENTURY_FROM: Final = 69  # POSIX: two-digit years from here on belong to the last century
_MORE_NAMES: Final = {"en": {"sept": 9}}  # names that people write and Babel lacks
_SAME: Final = str.maketrans(
    {
        **dict.fromkeys("\u00a0\u2007\u2009\u202f\u3000", " "),
        **dict.fromkeys("\u200e\u200f\u061c\u2060\ufeff"),
        "\uff1a": ":",
        "\uff0f": "/",
    }
)
_WHOLE: Final = {"c": "%a %b %d %H:%M:%S %Y", "x": "%m/%d/%y", "X": "%H:%M:%S"}  # as in the C locale
_NUMBERS: Final = {
    "d": r"3[01]|[12]\d|0?[1-9]", "e": r"3[01]|[12]\d|0?[1-9]", "m": r"1[0-2]|0?[1-9]", "H": r"2[0-4]|[01]?\d", "I": r"1[0-2]|0?[1-9]",
    "M": r"[0-5]?\d", "S": r"6[01]|[0-5]?\d", "f": r"\d{1,9}", "j": r"36[0-6]|3[0-5]\d|[12]\d\d|0?[1-9]\d|0{0,2}[1-9]", "y": r"\d\d",
    "Y": r"\d{4}", "U": r"5[0-3]|[0-4]?\d", "W": r"5[0-3]|[0-4]?\d", "V": r"5[0-3]|0[1-9]|[1-4]\d|[1-9]", "w": r"[0-6]", "u": r"[1-7]", "G": r"\d{4}",
}  # fmt: skip
_FIXED: Final = {
    "d": r"\d\d",
    "e": r"\d\d",
    "m": r"\d\d",
    "H": r"\d\d",
    "I": r"\d\d",
    "M": r"\d\d",
    "S": r"\d\d",
    "j": r"\d{3}",
    "f": r"\d{6}",
    "U": r"\d\d",
    "W": r"\d\d",
    "V": r"\d\d",
}
_KNOWN: Final = frozenset("aAbBhpzZ") | _NUMBERS.keys()
# Directives that mean the same: a pattern may have one of them.
_SAME_KIND: Final = {"A": "a", "B": "b", "h": "b", "e": "d", "Z": "z"}
_EITHER: Final = ("Yy", "HI", "bm", "jm", "jb", "jd", "wu", "Gy", "GY")
_BY_WEEK: Final = frozenset("UWGV")
_TOKEN: Final = re.compile(r"%(.)|(\s+)|([^%\s])", re.DOTALL)


class Read(NamedTuple):
    """A time as read from a text. ``zone`` is the text of its zone. ``ends_day``: it was 24:00, and ``wall`` is on the next day."""

    wall: datetime
    timespec: str
    zone: str = ""
    ends_day: bool = False


Reader = Callable[[str], Read]


def plain(text: str) -> str:
    """A text in ASCII digits and composed letters, without marks that only set its direction."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text.translate(_SAME))
    return "".join(str(unicodedata.decimal(sign)) if sign.isdecimal() else sign for sign in text)


def check(form: str) -> None:
    """Raises ValueError for a pattern that is invalid, or ambiguous."""
    found: list[str] = []
    for kind in _directives(form):
        if kind not in _KNOWN:
            raise ValueError(f"no directive %{kind}" if kind else "% at its end")
        found.append(_SAME_KIND.get(kind, kind))
    twice = next((kind for kind in found if found.count(kind) > 1), None)
    if twice is not None:
        raise ValueError(f"%{twice} twice")
    both = next((pair for pair in _EITHER if set(pair) <= set(found)), None)
    if both is not None:
        raise ValueError(f"%{both[0]} and %{both[1]}, which may say two things")
    if "I" in found and "p" not in found:
        raise ValueError("%I without %p is either half of the day; %H is of 24 hours")
    if "p" in found and not {"I", "H"} & set(found):
        raise ValueError("%p without %I")
    if "M" in found and not {"I", "H"} & set(found):
        raise ValueError("%M, which is minutes, without %H; months are %m")
    if {"U", "W"} & set(found) and not ({"Y", "y"} & set(found) and {"u", "a", "w"} & set(found)):
        raise ValueError("%U or %W without %Y and %w")
    if "V" in found and "G" not in found:
        raise ValueError("%V without %G, the year of its week")
    if len(_BY_WEEK & set(found)) > (2 if "G" in found else 1) or (
        _BY_WEEK & set(found) and {"j", "m", "b", "d"} & set(found)
    ):
        raise ValueError("a day twice; one of month and day, day of the year, week")
    if "G" in found and not ({"V"} <= set(found) and {"u", "a", "w"} & set(found)):
        raise ValueError("%G without %V and %u")


def shape(form: str) -> str:
    """The shape of a pattern's texts. Two patterns of one shape fit the same texts."""
    kinds = {
        "Y": "0000",
        "G": "0000",
        "b": "b",
        "B": "b",
        "h": "b",
        "a": "a",
        "A": "a",
        "p": "p",
        "z": "z",
        "Z": "z",
        "%": "%",
    }
    return re.sub("%(.)", lambda found: f"<{kinds.get(found[1], '0')}>", form, flags=re.DOTALL)


def language(lang: str) -> None:
    """Raises ValueError for an unknown language."""
    names(lang, "months")


def reader(form: str, lang: str, doubt: Doubt | None = None) -> Reader:
    """A function from a text to its time. Raises ValueError for an unknown language; the function, for texts that do not fit."""
    compiled, tables = _compiled(form, lang)

    def read(text: str) -> Read:
        if len(text) > TEXT_MAX:
            raise ValueError("a text too long to be a time")
        found = compiled.fullmatch(plain(text).strip())
        if found is None:
            raise ValueError("no time of this pattern")
        if doubt is not None and lang.startswith("th") and found.groupdict().get("y"):
            doubt("a Thai year of two digits is mostly of the Buddhist calendar, where it is another year")
        return _made(found.groupdict(), tables, doubt)

    return read


def _directives(form: str) -> Iterator[str]:
    for token in _TOKEN.finditer(form):
        if token[1] in _WHOLE:
            yield from _directives(_WHOLE[token[1]])
        elif token[1] is not None and token[1] != "%":
            yield token[1]
    if re.search(r"(?<!%)(?:%%)*%$", form):
        yield ""


@lru_cache(maxsize=512)
def _compiled(form: str, lang: str) -> tuple[re.Pattern[str], Mapping[str, Mapping[str, int]]]:
    form = re.sub("%(.)", lambda found: _WHOLE.get(found[1], found[0]), form, flags=re.DOTALL)
    tables: dict[str, Mapping[str, int]] = {}
    parts: list[str] = []
    tokens = list(_TOKEN.finditer(form))
    is_name = False
    for at, token in enumerate(tokens):
        kind = token[1]
        beside = [tokens[at - 1][1] if at else None, tokens[at + 1][1] if at + 1 < len(tokens) else None]
        if kind is None or kind == "%":
            if not (is_name and token[0] == "."):  # a dot is part of the name's pattern
                parts.append(r"\s+" if token[2] else re.escape(plain(kind or token[3])))
        elif kind in "aAbBhp":
            name, tables_name = ("a", "days") if kind in "aA" else ("p", "halves") if kind == "p" else ("b", "months")
            tables[name] = names(lang, tables_name)
            parts.append(rf"(?P<{name}>{'|'.join(map(_written, sorted(tables[name], key=len, reverse=True)))})\.?")
        elif kind in "zZ":
            parts.append(r"(?P<z>\S(?:.{0,50}?\S)?)")
        else:
            # Of a fraction only a number right after it decides where it ends.
            near = beside[-1:] if kind == "f" else beside
            is_glued = kind in _FIXED and any(one in _NUMBERS for one in near if one is not None)
            parts.append(rf"(?P<{'d' if kind == 'e' else kind}>{_FIXED[kind] if is_glued else _NUMBERS[kind]})")
        is_name = kind is not None and kind in "aAbBh"
    return re.compile("".join(parts), re.IGNORECASE), tables


def _written(name: str) -> str:
    """A name as a pattern: blanks of any kind, dots optional."""
    return "".join(r"\.?" if sign == "." else r"\s?" if sign == " " else re.escape(sign) for sign in name)


@cache
def names(lang: str, kind: str) -> Mapping[str, int]:
    """The names of a language's months (1 to 12), days (0 is Monday) or halves of the day (0, 1), and the English ones.

    A name with two meanings is left out. Babel's tables are read once, here. Raises ValueError for an unknown language.
    """
    try:
        locale = Locale.parse(lang or "en", sep="-" if "-" in lang else "_")
    except (UnknownLocaleError, ValueError) as error:
        raise ValueError(f'no language "{lang}"') from error
    found: dict[str, set[int]] = {}
    for name, number in _of(locale, kind):
        found.setdefault(name, set()).add(number)
    for name, number in _of(Locale.parse("en"), kind):
        found.setdefault(name, {number})
    return {name: number for name, (number, *more) in found.items() if not more}


def _of(locale: Locale, kind: str) -> Iterator[tuple[str, int]]:
    if kind == "halves":
        yield from (("am", 0), ("pm", 1), ("a.m", 0), ("p.m", 1), ("a. m", 0), ("p. m", 1))
    if kind == "months":
        yield from _MORE_NAMES.get(locale.language, {}).items()
    table = locale.day_periods if kind == "halves" else getattr(locale, kind)
    for context in ("stand-alone", "format"):
        for width in ("abbreviated", "wide"):
            for key, name in table.get(context, {}).get(width, {}).items():
                number = {"am": 0, "pm": 1}.get(key) if kind == "halves" else key
                if number is not None and name:
                    yield plain(name).casefold().rstrip("."), number


def _named(text: str, table: Mapping[str, int]) -> int:
    """The number of a name that the pattern found."""
    bare = text.casefold().rstrip(".")
    if bare in table:
        return table[bare]
    return next(
        number for name, number in table.items() if re.fullmatch(_written(name), text.rstrip("."), re.IGNORECASE)
    )


def _made(found: Mapping[str, str | None], tables: Mapping[str, Mapping[str, int]], doubt: Doubt | None) -> Read:
    given = {kind: text for kind, text in found.items() if text is not None}
    named = {kind: _named(given[kind], table) for kind, table in tables.items()}
    hour, ends_day = _hour(given, named.get("p"))
    second = int(given.get("S", 0))
    minute, fraction = int(given.get("M", 0)), given.get("f", "").ljust(6, "0")[:6]
    if second >= 60:
        raise Refused("a leap second, which can't be represented; use re to take the time without seconds")
    if ends_day and (minute or second or int(fraction)):
        raise Refused("a time after 24:00; use re to take the day, and another field for the time")
    try:
        day = _day(given, named)
    except ValueError as error:
        raise Refused(NO_DAY) from error
    if doubt is not None and "a" in named and day.weekday() != named["a"]:
        doubt(f"the weekday is not that of {day}; format may have day and month the wrong way round")
    wall = datetime(day.year, day.month, day.day, hour, minute, second, int(fraction))  # noqa: DTZ001 - the zone is the caller's
    return Read(wall + timedelta(days=ends_day), timespec(wall), given.get("z", ""), ends_day)


def _hour(given: Mapping[str, str], half: int | None) -> tuple[int, bool]:
    """The hour, 0 for 24, and whether it was 24. ``half`` is 0 for a.m., 1 for p.m."""
    hour = int(given.get("H") or given.get("I") or 0)
    return halved(hour, half)


def halved(hour: int, half: int | None) -> tuple[int, bool]:
    """The hour of a day, and whether it was 24. 12 a.m. is 0, 12 p.m. is 12, 13 p.m. is 13. Raises ValueError."""
    if half is None:
        return hour % 24, hour == 24
    if hour > 12 and (not half or hour > 23):
        raise ValueError("an hour that is not of this half of the day")
    return (hour if hour > 12 else hour % 12 + 12 * half), False


def _day(given: Mapping[str, str], named: Mapping[str, int]) -> date:
    if _BY_WEEK & given.keys():
        return _day_by_week(given, named)
    year = int(given["Y"]) if "Y" in given else century(int(given["y"])) if "y" in given else 1900
    month = named.get("b") or int(given.get("m", 0))
    if "j" in given:
        day = date(year, 1, 1) + timedelta(days=int(given["j"]) - 1)
        if day.year != year:
            raise ValueError("no day of that year")
        return day
    return date(year, month or 1, int(given.get("d", 1)))


def _day_by_week(given: Mapping[str, str], named: Mapping[str, int]) -> date:
    weekday = int(given.get("u") or given.get("w") or 0) or (named["a"] + 1 if "a" in named and "w" not in given else 7)
    if "G" in given:
        return date.fromisocalendar(int(given["G"]), int(given["V"]), weekday)
    if "U" in given or "W" in given:
        year = given.get("Y") or str(century(int(given["y"])))
        week = "U" if "U" in given else "W"
        return datetime.strptime(f"{year} {given[week]} {weekday % 7}", f"%Y %{week} %w").date()  # noqa: DTZ007 - a day
    raise ValueError("a week without its year; %G is the year of %V")


def century(year: int) -> int:
    """A two-digit year by POSIX: 69 to 99 are 1969 to 1999, 00 to 68 are 2000 to 2068."""
    return year + (1900 if year >= _CENTURY_FROM else 2000)


def timespec(found: datetime) -> str:
    """The timespec of a time: how many digits of a second the result has."""
    if not found.microsecond:
        return "seconds"
    return "microseconds" if found.microsecond % 1000 else "milliseconds"
