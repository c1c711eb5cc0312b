"""Reads dates, times and durations, and writes them in RFC 3339 with the offset that the text gives.

    text → the first format that fits (iso, rfc2822, unix, a strptime pattern) → the zone in the text, else ``tz`` → RFC 3339

A zone in the text counts in any of its forms; ``tz`` is only for texts without one (``jobs.text.zones``). 24:00 is the next
day's 0:00, and 12 a.m. is 0:00.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Final

from jobs.text import strptime, zones
from jobs.text.strptime import Read, Reader, timespec
from jobs.text.zones import LOCAL, Doubt, Refused, zone

__all__ = ["LOCAL", "Refused", "zone"]

ISO: Final = "iso"
WORDS: Final = ("iso", "rfc2822", "unix", "unix_ms")
FEED_FORMATS: Final = ("iso", "rfc2822")  # the formats that feeds use, in the order in which they are tried

# Times as programs write them. Python's own parser is far laxer: it takes 04.14 for 0.14 seconds after four, 04:140 for 04:14.
_PLAIN: Final = re.compile(
    r"(?:\d{4}-\d\d-\d\d|\d{4}-W\d\d-\d)(?:[Tt ](?:[01]\d|2[0-3]):\d\d(?::\d\d(?:[.,](\d+))?)?(?:[Zz]| ?[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)
_DURATION: Final = re.compile(
    r"(?P<minus>-)?P(?:0+Y)?(?:0+M)?(?:(?P<w>\d+(?:[.,]\d+)?)W)?(?:(?P<d>\d+(?:[.,]\d+)?)D)?"
    r"(?:T(?:(?P<h>\d+(?:[.,]\d+)?)H)?(?:(?P<m>\d+(?:[.,]\d+)?)M)?(?:(?P<s>\d+(?:[.,]\d+)?)S)?)?",
    re.IGNORECASE,
)
_CLOCK: Final = re.compile(r"(\d+):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?")
_SECONDS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_YEAR: Final = re.compile("%[YyGcx]")
_ISO: Final = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d|\d{8}|\d{4}-?W\d\d-?\d|(?P<year>\d{4})-(?P<nth>\d{3}))"
    r"(?:[T ](?P<time>\d\d(?::?\d\d(?::?\d\d)?)?)(?:[.,](?P<fraction>\d{1,18}))?)? ?(?P<zone>(?!T\d)[^\d:.,].*)?",
    re.ASCII | re.IGNORECASE,
)
# RFC 5322, and what feeds write instead: other orders of the date, full names, dashes, a.m. and p.m.
_RFC: Final = re.compile(
    r"(?:[^\W\d_]{2,12}\.?,? ?)?"
    r"(?:(?P<d>\d{1,2})[ -](?P<b>[a-z]{3,9})\.?,?[ -](?P<y>\d{2,4})|(?P<b2>[a-z]{3,9})\.?[ -](?P<d2>\d{1,2})(?:,? (?P<y2>\d{4}))?),?"
    r" ?(?P<H>\d{1,2})[:.](?P<M>[0-5]\d)(?:[:.](?P<S>[0-6]\d)(?:[.,](?P<f>\d{1,9}))?)?(?: ?(?P<p>[ap])\.? ?m\.?(?![a-z]))?"
    r"(?: ?(?P<zone>[a-z+\u2212-][^ ]{0,40}(?: [a-z+\u2212\d-][^ ]{0,20})??))??(?: (?P<y3>\d{4}))?",
    re.IGNORECASE,
)
# After a day without a time: 2026-11-24-05:00.
_DAYS_OFFSET: Final = re.compile(r"-(?:0\d|1[0-2]):?(?:00|15|30|45)", re.ASCII)
_COMMENT: Final = re.compile(r" ?\([^()]{0,80}\)")
_MILLISECONDS_FROM: Final = 100_000_000_000  # as seconds: the year 5138; as milliseconds: 1973
# Years that more likely belong to another calendar. 2026 is 1448 in the Islamic, 1405 in the Iranian, 2569 in the Buddhist and
# 5787 in the Jewish calendar.
_OTHER_CALENDARS: Final = frozenset((*range(1340, 1461), *range(2500, 2621), *range(5700, 5861)))

datetime.strptime("", "")  # noqa: DTZ007 - its first call imports a module, which two threads must not do at once

language = strptime.language
check_format = strptime.check


def datetime_parser(
    formats: Sequence[str], lang: str, tz: str, to_tz: str = "", doubt: Doubt | None = None
) -> Callable[[str], str]:
    """A function from a folded text to RFC 3339. It raises ValueError, or Refused if something in the definition helps.

    A text without an offset is in ``tz``; without ``tz`` it is refused. ``tz`` "local" writes all times without an offset.
    ``to_tz`` is the zone of the result; without it the offset stays as the text gives it. The function calls ``doubt`` with a
    sentence when the time may be another one.
    """
    readers = _readers(formats, lang, doubt)
    place, target = zone(tz), zone(to_tz)
    is_iso = not formats or formats[0] == ISO

    def placed(read: Read, form: str) -> datetime:
        if tz == LOCAL:
            _check_zone(read.zone)
            return read.wall
        return zones.placed(read.wall, read.zone, place, doubt, rfc=form == "rfc2822") if read.zone else read.wall

    def written(found: datetime, spec: str, text: str) -> str:
        if tz == LOCAL:
            return found.replace(tzinfo=None).isoformat(timespec=spec)
        if found.tzinfo is None:
            if place is None:
                raise Refused("a time without an offset; use tz to name its zone")
            found = zones.local(found, place, doubt)
        if target is not None:
            made = found.astimezone(target).isoformat(timespec=spec)
            return f"{made[:-6]}Z" if made.endswith("+00:00") else made
        made = found.isoformat(timespec=spec)
        if made[-6] not in "+-":  # RFC 3339 allows no seconds in offsets, which times before there were zones have
            made = found.astimezone(UTC).isoformat(timespec=spec)
        # A zero offset is written as Z, unless the text gives it in digits.
        return f"{made[:-6]}Z" if made.endswith("+00:00") and not text.endswith(("+00:00", "+0000")) else made

    def parse(text: str) -> str:
        found = _plain_iso(text) if is_iso else None  # most times are plain
        if found is None:
            return _first(readers, lambda read, form: written(placed(read, form), read.timespec, text), doubt, text)
        made = written(found[0], found[1], text)
        if found[0].year in _OTHER_CALENDARS:
            _check_year(found[0].year, doubt)
        return made

    return parse


def date_parser(formats: Sequence[str], lang: str, doubt: Doubt | None = None) -> Callable[[str], str]:
    """A function from a folded text to ``2026-11-24``: the date in the text, or that of a time in its own offset."""
    readers = _readers(formats, lang, doubt)
    is_iso = not formats or formats[0] == ISO

    def written(read: Read, _form: str) -> str:
        _check_zone(read.zone)
        return (read.wall - timedelta(days=read.ends_day)).date().isoformat()

    def parse(text: str) -> str:
        if is_iso and len(text) == 10:  # most dates are plain
            try:
                day = date.fromisoformat(text)
            except ValueError:
                pass  # another format may fit
            else:
                if day.year in _OTHER_CALENDARS:
                    _check_year(day.year, doubt)
                return day.isoformat()
        return _first(readers, written, doubt, text)

    return parse


Written = Callable[[Read, str], str]  # (what a format read, the format) → the result


def _check_zone(text: str) -> None:
    """Raises Refused for a text that does not look like a zone. The result leaves the zone out."""
    if text and not zones.is_zone(text):
        raise Refused(f'"{text}" is no zone; use re to take the time without it')


def _first(readers: Sequence[tuple[str, Reader]], written: Written, doubt: Doubt | None, text: str) -> str:
    """The result of the first format that fits. Of several failures it raises one that says what helps."""
    failed = ValueError("no format")
    for at, (form, read) in enumerate(readers):
        try:
            found = read(text)
            made = written(found, form)
        except (ValueError, TypeError, OverflowError, IndexError) as error:
            if not isinstance(failed, Refused):
                failed = error if isinstance(error, Refused) else ValueError(str(error))
            continue
        if doubt is not None:
            _check_year(found.wall.year, doubt)
            if "%" in form:
                _check_others(form, readers[at + 1 :], text, found.wall, doubt)
        return made
    raise failed


def _check_year(year: int, doubt: Doubt | None) -> None:
    if year in _OTHER_CALENDARS and doubt is not None:
        doubt(f"the year {year} was taken as it is; in another calendar it would be another year")


def _check_others(form: str, others: Sequence[tuple[str, Reader]], text: str, found: datetime, doubt: Doubt) -> None:
    """Tells ``doubt`` if another pattern fits the text, too, and gives another time: 3/4 is March or April."""
    look = strptime.shape(form)
    for other, read in others:
        if "%" in other and other != form and strptime.shape(other) == look:
            try:
                wall = read(text).wall
            except ValueError:
                continue
            if wall != found:
                doubt(f"format {other} fits too, as {wall.date()}; the first one in the list was taken")


def _readers(formats: Sequence[str], lang: str, doubt: Doubt | None) -> list[tuple[str, Reader]]:
    return [(one, _reader(one, lang, doubt)) for one in formats or (ISO,)]


def _reader(form: str, lang: str, doubt: Doubt | None) -> Reader:
    if form == ISO:
        return partial(_iso, doubt)
    if form == "rfc2822":
        return _rfc2822
    if form in ("unix", "unix_ms"):
        return _unix(1 if form == "unix" else 1000, doubt)
    return strptime.reader(form, lang, doubt)


def _plain_iso(text: str) -> tuple[datetime, str] | None:
    """A time as programs write it, and its timespec; None for a text that needs a closer look."""
    plain = _PLAIN.fullmatch(text)
    if plain is None:
        return None  # e.g. a zone by name, a day of the year
    try:
        found = datetime.fromisoformat(f"{text[:-1]}Z" if text[-1] == "z" else text)  # RFC 3339 allows both
    except ValueError:
        return None  # 24:00
    return found, _spec(plain[1])


def _spec(fraction: str | None) -> str:
    """The timespec of a time: how many digits of a second the result has, by those in the text."""
    if not fraction:
        return "seconds"
    return "milliseconds" if len(fraction) <= 3 else "microseconds"


def _iso(doubt: Doubt | None, text: str) -> Read:
    found = _plain_iso(text)
    return _iso_looked_at(text, doubt) if found is None else Read(*found)


def _iso_looked_at(text: str, doubt: Doubt | None) -> Read:
    if len(text) > strptime.TEXT_MAX:
        raise ValueError("a text too long to be a time")
    found = _ISO.fullmatch(strptime.plain(text))
    if found is None and text.isdecimal() and len(text) in (10, 13):
        raise Refused("a number; the format unix reads seconds, unix_ms milliseconds")
    if found is None:
        raise ValueError("no time of ISO 8601")
    day = _iso_day(found)
    digits = (found["time"] or "").replace(":", "").ljust(6, "0")
    hour, minute, second = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    fraction = found["fraction"] or ""
    if fraction and len((found["time"] or "").replace(":", "")) < 6:
        raise Refused("a fraction of an hour or minute; use re to take the time without it")
    if second == 60:
        raise Refused("a leap second, which can't be represented; use re to take the time without seconds")
    if hour > 24:
        raise ValueError("no hour")
    ends_day = hour == 24
    if ends_day and (minute or second or int(fraction or 0)):
        raise Refused("a time after 24:00; use re to take the day, and another field for the time")
    given = (found["zone"] or "").strip()
    if not found["time"] and given[:1] == "-":
        if not _DAYS_OFFSET.fullmatch(given):
            raise Refused(f'"{given}" is no offset; use format to read a time after a dash')
        if doubt is not None:
            doubt(f"{given} was taken as an offset, as XML has it; use format to read a time after a dash")
    wall = day.replace(hour=hour % 24, minute=minute, second=second, microsecond=int(fraction.ljust(6, "0")[:6]))
    return Read(wall + timedelta(days=ends_day), _spec(fraction), given, ends_day)


def _iso_day(found: re.Match[str]) -> datetime:
    try:
        if not found["nth"]:
            return datetime.fromisoformat(found["day"])
        day = datetime(int(found["year"]), 1, 1) + timedelta(days=int(found["nth"]) - 1)  # noqa: DTZ001 - the zone is the caller's
    except ValueError as error:
        raise Refused(strptime.NO_DAY) from error
    if day.year != int(found["year"]):
        raise Refused(strptime.NO_DAY)
    return day


def _rfc2822(text: str) -> Read:
    if len(text) > strptime.TEXT_MAX:
        raise ValueError("a text too long to be a time")
    found = _RFC.fullmatch(_COMMENT.sub("", text).strip() if "(" in text else text.strip())
    if found is None:
        raise ValueError("no time of RFC 5322")
    month = strptime.names("en", "months").get((found["b"] or found["b2"]).casefold())
    year = found["y"] or found["y2"] or found["y3"]
    if month is None or year is None or (found["y3"] and year != found["y3"]):
        raise ValueError("no date of RFC 5322")
    second = int(found["S"] or 0)
    if second >= 60:
        raise Refused("a leap second, which can't be represented; use re to take the time without seconds")
    hour, ends_day = strptime.halved(int(found["H"]), "ap".index(found["p"].lower()) if found["p"] else None)
    if ends_day and (int(found["M"]) or second or int(found["f"] or 0)):
        raise Refused("a time after 24:00; use re to take the day, and another field for the time")
    day = int(found["d"] or found["d2"])
    if found["p"] is None and int(found["H"]) > 24:
        raise ValueError("no hour")
    micros = int((found["f"] or "").ljust(6, "0")[:6])
    try:
        wall = datetime(_year(year), month, day, hour, int(found["M"]), second, micros)  # noqa: DTZ001 - the zone is the caller's
    except ValueError as error:
        raise Refused(strptime.NO_DAY) from error
    return Read(wall + timedelta(days=ends_day), _spec(found["f"]), found["zone"] or "", ends_day)


def _year(text: str) -> int:
    """A year by RFC 5322, 4.3: 00 to 49 are 2000 to 2049; other years of two digits, and those of three, count from 1900."""
    year = int(text)
    if len(text) == 4:
        return year
    return year + (2000 if len(text) == 2 and year < 50 else 1900)


def _unix(per_second: int, doubt: Doubt | None) -> Reader:
    def read(text: str) -> Read:
        number = Decimal(text) if re.fullmatch(r"-?\d{1,17}(?:\.\d{1,9})?", text) else None
        if number is None:
            raise ValueError("no number of seconds")
        if doubt is not None and number and (abs(number) < _MILLISECONDS_FROM) == (per_second == 1000):
            doubt("the time is far away; the format unix counts seconds, unix_ms milliseconds")
        micros = int(number * 1_000_000 / per_second)
        found = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
        return Read(found, "milliseconds" if per_second == 1000 and not found.microsecond % 1000 else timespec(found))

    return read


def duration(text: str) -> Decimal:
    """The seconds of an ISO 8601 duration or of h:mm(:ss). Raises ValueError, also for years and months."""
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
