"""Dates, times and durations in texts, put out in RFC 3339 with the offset as it was given."""

import email.utils
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale, UnknownLocaleError

ISO: Final = "iso"
LOCAL: Final = "local"  # the tz that puts out times without an offset
WORDS: Final = ("iso", "rfc2822", "unix", "unix_ms")
FEED_FORMATS: Final = ("iso", "rfc2822")  # what feeds write, in the order in which it is told apart

_FRACTION: Final = re.compile(r"[.,](\d+)")
_DURATION: Final = re.compile(
    r"(?P<minus>-)?P(?:0+Y)?(?:0+M)?(?:(?P<w>\d+(?:[.,]\d+)?)W)?(?:(?P<d>\d+(?:[.,]\d+)?)D)?"
    r"(?:T(?:(?P<h>\d+(?:[.,]\d+)?)H)?(?:(?P<m>\d+(?:[.,]\d+)?)M)?(?:(?P<s>\d+(?:[.,]\d+)?)S)?)?",
    re.IGNORECASE,
)
_CLOCK: Final = re.compile(r"(\d+):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?")
_SECONDS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_YEAR: Final = re.compile("%[YyGcx]")
_WORD: Final = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*\.?")  # "nov.", "segunda-feira"
_NAMED: Final = re.compile("%([aAbB])[.]?")  # what a strptime pattern has for names; a dot belongs to the name
_NOON: Final = re.compile(r"\b([ap])[.] ?m\b[.]?", re.IGNORECASE)
_MORE_NAMES: Final = {"en": {"sept": "September"}}  # which Babel does not have and people write

datetime.strptime("", "")  # noqa: DTZ007 - it imports a module on first use, which two threads must not do at once

Translate = Callable[[str], str]


def zone(name: str) -> ZoneInfo | None:
    """A time zone by its IANA name; None for "" and "local". Raises ValueError for an unknown one."""
    if name in ("", LOCAL):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f'no time zone "{name}"') from error


def translator(lang: str, form: str = "") -> Translate:
    """A function that puts English month and day names, all wide, where a text has those of ``lang``, of any width.

    strptime reads English only, unless the whole process changes its locale. ``form`` says which names stand where:
    "mar" is a Tuesday or a March. Babel's tables are read here, once. Raises ValueError for an unknown language.
    """
    kinds = ["days" if name in "aA" else "months" for name in _NAMED.findall(form.replace("%%", ""))]
    tables = [_names(lang or "en", kind) for kind in kinds]

    def translate(text: str) -> str:
        left = iter(tables)
        names = next(left, None)

        def name(word: re.Match[str]) -> str:
            nonlocal names
            found = names.get(word[0].casefold().rstrip(".")) if names is not None else None
            if found is None:
                return word[0]
            names = next(left, None)
            return found

        return _WORD.sub(name, text)

    return translate if tables else _same


def language(lang: str) -> None:
    """Raises ValueError for one that has no names of months and days."""
    _names(lang, "months")


@cache
def _names(lang: str, kind: str) -> Mapping[str, str]:
    """The names of months or days of a language, without dots, and the English ones that they are."""
    try:
        local, english = Locale.parse(lang, sep="-" if "-" in lang else "_"), Locale.parse("en")
    except (UnknownLocaleError, ValueError) as error:
        raise ValueError(f'no language "{lang}"') from error
    wide = getattr(english, kind)["format"]["wide"]
    names = dict(_MORE_NAMES.get(lang, {}))
    for context in ("stand-alone", "format"):
        for width in ("abbreviated", "wide"):
            for number, name in getattr(local, kind)[context][width].items():
                names[name.casefold().rstrip(".")] = wide[number]
    return names


def _same(text: str) -> str:
    return text


def datetime_parser(formats: Sequence[str], lang: str, tz: str, to_tz: str = "") -> Callable[[str], str]:
    """A function from a folded text to RFC 3339; it raises ValueError.

    A text without an offset is in ``tz``; "local" puts all times out without one; without ``tz`` such a text is bad.
    ``to_tz`` is the zone that times are put out in; without it the offset stays as it was given.
    """
    readers = [_reader(one, lang) for one in formats or (ISO,)]
    place, target = zone(tz), zone(to_tz)

    def parse(text: str) -> str:
        found, timespec = _first(readers, text)
        if tz == LOCAL:
            return found.replace(tzinfo=None).isoformat(timespec=timespec)
        if found.tzinfo is None:
            if place is None:
                raise ValueError("a time without an offset, and no tz says where")
            found = found.replace(tzinfo=place)
        if target is not None:
            written = found.astimezone(target).isoformat(timespec=timespec)
            return f"{written[:-6]}Z" if written.endswith("+00:00") else written
        written = found.isoformat(timespec=timespec)
        # A zero offset was mostly given as Z or GMT; where it was given in digits it stays so.
        return f"{written[:-6]}Z" if written.endswith("+00:00") and not text.endswith(("+00:00", "+0000")) else written

    return parse


def date_parser(formats: Sequence[str], lang: str) -> Callable[[str], str]:
    """A function from a folded text to ``2026-11-24``: a date, or the date of a time as it is given."""
    readers = [_reader(one, lang) for one in formats or (ISO,)]
    is_iso = not formats or formats[0] == ISO

    def parse(text: str) -> str:
        if is_iso and len(text) == 10:  # what most dates are: no need to look for a time
            try:
                return date.fromisoformat(text).isoformat()
            except ValueError:
                pass  # perhaps another format's
        return _first(readers, text)[0].date().isoformat()

    return parse


def _first(readers: Sequence[Callable[[str], tuple[datetime, str]]], text: str) -> tuple[datetime, str]:
    failed = ValueError("no format")
    for read in readers:
        try:
            return read(text)
        except (ValueError, TypeError, OverflowError, IndexError) as error:
            failed = ValueError(str(error))
    raise failed


def _reader(form: str, lang: str) -> Callable[[str], tuple[datetime, str]]:
    if form == ISO:
        return _iso
    if form == "rfc2822":
        return _rfc2822
    if form in ("unix", "unix_ms"):
        return _unix(1 if form == "unix" else 1000)

    translate, has_noon = translator(lang, form), "%p" in form
    wide = _NAMED.sub(lambda name: "%A" if name[1] in "aA" else "%B", form)

    def strptime(text: str) -> tuple[datetime, str]:
        text = translate(_NOON.sub(r"\1m", text) if has_noon else text)
        found = datetime.strptime(text, wide)  # noqa: DTZ007 - the offset is looked at by the caller
        return found, _timespec(found)

    return strptime


def _iso(text: str) -> tuple[datetime, str]:
    found = datetime.fromisoformat(f"{text[:-1]}Z" if text.endswith("z") else text)  # RFC 3339 has both
    digits = _FRACTION.search(text)
    return found, "seconds" if digits is None else "milliseconds" if len(digits[1]) <= 3 else "microseconds"


def _rfc2822(text: str) -> tuple[datetime, str]:
    found = email.utils.parsedate_to_datetime(text)
    if text.endswith("-0000"):
        found = found.replace(tzinfo=UTC)  # RFC 5322: the time is UTC, only the writer's own place is unknown
    return found, "seconds"


def _unix(per_second: int) -> Callable[[str], tuple[datetime, str]]:
    def read(text: str) -> tuple[datetime, str]:
        number = Decimal(text) if re.fullmatch(r"-?\d{1,17}(?:\.\d{1,9})?", text) else None
        if number is None:
            raise ValueError("no number of seconds")
        micros = int(number * 1_000_000 / per_second)
        found = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
        return found, "milliseconds" if per_second == 1000 and not found.microsecond % 1000 else _timespec(found)

    return read


def _timespec(found: datetime) -> str:
    if not found.microsecond:
        return "seconds"
    return "microseconds" if found.microsecond % 1000 else "milliseconds"


def duration(text: str) -> Decimal:
    """Seconds of an ISO 8601 duration or of h:mm(:ss); raises ValueError, also for years and months."""
    clock = _CLOCK.fullmatch(text)
    if clock:
        return int(clock[1]) * 3600 + int(clock[2]) * 60 + Decimal(clock[3] or 0)
    found = _DURATION.fullmatch(text)
    if found is None or text.upper().endswith(("P", "T")):
        raise ValueError("no duration")
    seconds = sum(
        (Decimal(found[unit].replace(",", ".")) * length for unit, length in _SECONDS.items() if found[unit]),
        Decimal(0),
    )
    return -seconds if found["minus"] else seconds


def has_year(form: str) -> bool:
    """Whether a strptime pattern reads a year; without one every date would be of 1900."""
    return bool(_YEAR.search(form.replace("%%", "")))


def is_date(text: str) -> bool:
    """Whether a text is a date like ``2026-11-24``."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
