"""Times as the languages of CLDR write them, with zones in any form: each comes back, or is refused; a doubtful one is told.

A definition gives the pattern, the language, and a ``tz`` that is another zone than the text's: it must never count where the
text has one.
"""

import email.utils
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale, dates

from jobs.definition.field import Value
from jobs.parse.convert import converter
from jobs.text import strptime
from jobs.text.values import BadValue
from tests.differential.numbers import locales, native

STYLES = ("short", "medium", "long", "full")
ZONES = ("z", "zzzz", "Z", "ZZZZ", "ZZZZZ", "X", "XX", "XXX", "x", "xxx", "OOOO", "VV", "v", "vvvv", "VVVV")
OWN = ("GMT+1", "UTC\u221201:00", "+01:00[place]")  # which Babel does not write
# Not Dublin and St John's: Babel writes the summer of the one as GMT, and -03:30 for the other's -02:30.
PLACES = (
    "Europe/Berlin", "Europe/London", "Europe/Moscow",  "America/New_York", "America/Chicago", "America/Sao_Paulo",
    "Asia/Kolkata", "Asia/Tokyo", "Asia/Shanghai", "Asia/Kathmandu", "Asia/Jerusalem", "Asia/Riyadh", "Australia/Sydney", "Australia/Adelaide", "Africa/Cairo",
    "Pacific/Auckland", "Pacific/Honolulu", "UTC",
)  # fmt: skip
OTHERS = (
    "Asia/Dubai",
    "Asia/Bangkok",
    "America/Bogota",
    "UTC",
)  # whose names are digits, which no text means by a name
DIRECTIVES = {
    "y": "%Y", "yyyy": "%Y", "yy": "%y", "M": "%m", "MM": "%m", "L": "%m", "LL": "%m", "MMM": "%b", "MMMM": "%B", "LLL": "%b", "LLLL": "%B", "d": "%d",
    "dd": "%d", "E": "%a", "EE": "%a", "EEE": "%a", "EEEE": "%A", "ccc": "%a", "cccc": "%A", "H": "%H", "HH": "%H", "h": "%I", "hh": "%I", "m": "%M", "mm": "%M",
    "s": "%S", "ss": "%S", "a": "%p",
} | dict.fromkeys(ZONES, "%Z")  # fmt: skip


def pattern_of(form: str) -> str | None:
    """A pattern of CLDR as strptime has it; None where it can't say it (eras, noon, hours up to 11)."""
    parts = []
    for found in re.finditer(r"'((?:[^']|'')*)'|(([A-Za-z])\3*)|([^A-Za-z'])", form):
        if found[2]:
            if found[2] not in DIRECTIVES:
                return None
            parts.append(DIRECTIVES[found[2]])
        else:
            parts.append((found[4] or found[1] or "'").replace("''", "'").replace("%", "%%"))
    made = " ".join("".join(parts).split())
    try:
        strptime.check(made)
    except ValueError:
        return None
    return made


def written(name: str, moment: datetime, place: str, style: str, zone: str) -> tuple[str, str] | None:
    """What a language writes for a moment in a place, and its pattern; ``zone`` is CLDR's way to write one, "" for none."""
    locale = Locale.parse(name)
    try:
        day, time = locale.date_formats[style].pattern, locale.time_formats[style].pattern
        own, zone = (zone, "VV") if zone in OWN else ("", zone)
        time = re.sub(r"[\s(\uff08\[]*(?:z|v)+[\s)\uff09\]]*", " ", time).strip()
        form = locale.datetime_formats[style].replace("{0}", f"{time} {zone}".strip()).replace("{1}", day)
        made = pattern_of(form)
        text = dates.format_datetime(moment, form, tzinfo=ZoneInfo(place), locale=locale)
    except (KeyError, AttributeError, ValueError):
        return None  # what Babel does not have
    if own:
        text = text.replace(place, owned(own, moment.astimezone(ZoneInfo(place)), place))
    return None if made is None else (native(text, locale.default_numbering_system), made)


def owned(own: str, moment: datetime, place: str) -> str:
    """The zone of a moment in the way of ``OWN``."""
    minutes = int((moment.utcoffset() or timedelta()).total_seconds()) // 60
    hours, rest = divmod(abs(minutes), 60)
    if own.startswith("GMT"):
        return f"GMT{'-' if minutes < 0 else '+'}{hours}{f':{rest:02d}' if rest else ''}"
    if own.startswith("UTC"):
        return f"UTC{chr(0x2212) if minutes < 0 else '+'}{hours:02d}:{rest:02d}"
    return f"{'-' if minutes < 0 else '+'}{hours:02d}:{rest:02d}[{place}]"


def read(text: str, **keys: Any) -> tuple[datetime | None, list[str]]:
    """The time of a text, None where it is refused; and what the result's warnings say."""
    told: list[str] = []
    try:
        found = converter(Value(type="datetime", **keys), lambda _text, note: told.append(note))(
            " ".join(text.split()), ""
        )
    except BadValue:
        return None, told
    return datetime.fromisoformat(found), told


RFC_FORMS = (
    "%a, %d %b %Y %H:%M:%S",
    "%d %b %Y %H:%M",
    "%a %d %B %Y %H:%M:%S",
    "%A, %d-%b-%y %H:%M:%S",
    "%b %d %Y %H:%M:%S",
)
RFC_ZONES = ("GMT", "UT", "+0100", "-0330", "-0000", "EST", "EDT", "CST", "PDT", "")


def feeds(draw: random.Random, count: int) -> Iterator[str]:
    """The same of RFC 5322 and what feeds make of it, against the standard library's reading."""
    for _ in range(count):
        moment = datetime(1971, 1, 1, tzinfo=UTC) + timedelta(seconds=draw.randrange(78 * 365 * 86_400))
        text = f"{moment.strftime(draw.choice(RFC_FORMS))} {draw.choice(RFC_ZONES)}".strip()
        found, _ = read(text, format=("rfc2822",), tz="Asia/Dubai")
        try:
            expected = email.utils.parsedate_to_datetime(text)
        except ValueError:
            continue
        if expected.tzinfo is None:
            expected = expected.replace(tzinfo=UTC if text.endswith("-0000") else ZoneInfo("Asia/Dubai"))
        if "-" in text[:12] and 50 <= moment.year % 100 <= 68:
            expected = expected.replace(year=expected.year - 100)  # RFC 5322, 4.3
        if found != expected:
            yield f'"{text}" is {expected} to email.utils, {found} here'


def compare(seed: int, count: int) -> Iterator[str]:
    """A sentence for each of ``count`` texts whose time comes back as another one, without a warning."""
    draw = random.Random(seed)
    yield from feeds(draw, count)
    for _ in range(count):
        name, style, place, other = (
            draw.choice(locales()),
            draw.choice(STYLES),
            draw.choice(PLACES),
            draw.choice(OTHERS),
        )
        zone = draw.choice(("", *ZONES, *OWN))
        moment = datetime(1971, 1, 1, tzinfo=UTC) + timedelta(seconds=draw.randrange(88 * 365 * 86_400))
        pair = written(name, moment, place, style, zone)
        if pair is None:
            continue
        text, form = pair
        found, told = read(text, format=(form,), lang=name, tz=other)
        if found is None or told:
            continue
        expected = moment.astimezone(ZoneInfo(place)).replace(second=moment.second if "%S" in form else 0)
        if not zone:
            expected = expected.replace(tzinfo=ZoneInfo(other))
        if found.astimezone(UTC) != expected.astimezone(UTC):
            yield f'{name} writes {expected} as "{text}" ({form}), which is read as {found} with tz = {other}'
