"""Reads the zone of a time in a text: an offset, UTC, an IANA name, or an abbreviation of the definition's ``tz``.

A zone in the text counts. An ambiguous one is refused: "IST" is used in India, Israel and Ireland. It is accepted if the zone
in ``tz`` has that abbreviation at that time.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

LOCAL: Final = "local"  # the value of tz for times without an offset
RFC_NAMES: Final = {  # RFC 5322, 4.3: its abbreviations, in hours
    "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7,
}  # fmt: skip

_UTC: Final = frozenset({"utc", "gmt", "ut", "z"})
_HOURS_MAX: Final = 16  # no place ever had a larger offset
_OFFSET: Final = re.compile(
    r"(?P<utc>(?:UTC|GMT|UT) ?)?(?P<sign>[+-])"
    r"(?:(?P<hours>\d\d)(?::?(?P<minutes>[0-5]\d)(?::?(?P<seconds>[0-5]\d))?)?|(?P<hour>\d)(?::(?P<minute>[0-5]\d))?)"
    r"(?: [A-Z]{2,5})?",
    re.ASCII | re.IGNORECASE,
)
_REGION: Final = re.compile(r"[A-Za-z]+(?:/[A-Za-z0-9_+-]+){1,2}", re.ASCII)
_ABBREVIATION: Final = re.compile(r"[A-Z]{1,5}", re.ASCII)
_NO_NAMES: Final = frozenset({"AM", "PM", "BC", "BCE", "AD", "CE", "AH", "BE"})  # halves of the day, eras
_SAME: Final = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-") | {"\uff0b": "+", "\uff1a": ":"}
)

Doubt = Callable[[str], None]


class Refused(ValueError):  # noqa: N818
    """A time that is not certain. The message says why, and which key of the field helps."""


@lru_cache(maxsize=256)
def zone(name: str) -> ZoneInfo | None:
    """A time zone by its IANA name; None for "" and "local". Raises ValueError for an unknown one."""
    if name in ("", LOCAL):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f'no time zone "{name}"') from error


def placed(wall: datetime, text: str, place: ZoneInfo | None, doubt: Doubt | None, *, rfc: bool = False) -> datetime:
    """A wall time in the zone that ``text`` names. ``place`` is the definition's zone; ``rfc``: RFC 5322's abbreviations count.

    Raises Refused for an unknown zone.
    """
    named, region = _parted(_bare(text))
    if region is not None:
        found = local(wall, region, doubt)
        if named and (given := _offset(named)) is not None and found.utcoffset() != given:
            raise Refused(f'"{named}" is not the offset of {region.key} then; use re to leave one of them out')
        return found
    offset = _offset(named)
    if offset is not None:
        return wall.replace(tzinfo=UTC if not offset else timezone(offset))
    name = named.upper()
    if place is not None:
        for fold in (0, 1):
            found = wall.replace(tzinfo=place, fold=fold)
            if found.tzname() == name:
                return found
    if rfc and name in RFC_NAMES:
        found = wall.replace(tzinfo=timezone(timedelta(hours=RFC_NAMES[name])))
        if doubt is not None and place is not None and place.key.startswith("Australia/"):
            doubt(
                f"{name} was read as RFC 5322 has it, {found.strftime('%z')}; use re to take the time without it, and tz to name its zone"
            )
        return found
    if name.replace(".", "") in ("AM", "PM"):
        raise Refused("a.m. or p.m.; use a format with %I and %p")
    if place is not None and name in _names(place.key, wall.year):
        raise Refused(f"{name} is not the time of {place.key} then; use re to take the time without it")
    raise Refused(
        f'the zone "{named}" is not known; set tz to a zone of that name, or use re to take the time without it'
    )


def is_zone(text: str) -> bool:
    """Whether a text looks like a zone, known or unknown. That is enough if the result has no zone."""
    named, region = _parted(_bare(text))
    return (
        region is not None
        or _offset(named) is not None
        or (_ABBREVIATION.fullmatch(named) is not None and named not in _NO_NAMES)
    )


def local(wall: datetime, place: ZoneInfo, doubt: Doubt | None) -> datetime:
    """A wall time in a zone. Of a time that clocks show twice the first counts; a skipped time moves on. ``doubt`` gets both."""
    found = wall.replace(tzinfo=place)
    if doubt is not None:
        first, second = found.utcoffset(), wall.replace(tzinfo=place, fold=1).utcoffset()
        if first is not None and second is not None and first != second:
            times = "twice then, and was taken as the first" if first > second else "not at all then"
            doubt(f"clocks of {place.key} show this time {times}; a zone in the text would say more")
    return found


def _bare(text: str) -> str:
    text = text.translate(_SAME).strip()
    return text[1:-1].strip() if text[:1] == "(" and text[-1:] == ")" else text


def _parted(text: str) -> tuple[str, ZoneInfo | None]:
    """The offset or abbreviation in a text, and the IANA zone beside it or instead of it."""
    bare, _, inside = text.partition("[")
    key = inside.rstrip("]") if inside.endswith("]") else ""
    if not key and _REGION.fullmatch(text):
        bare, key = "", text
    if not key:
        return text, None
    try:
        return bare.strip(), zone(key)
    except ValueError as error:
        raise Refused(f'the zone "{key}" is not known; use re to take the time without it') from error


def _offset(text: str) -> timedelta | None:
    """The offset of UTC or of digits; None for any other text."""
    if text.lower() in _UTC:
        return timedelta()
    found = _OFFSET.fullmatch(text)
    if found is None or (found["hour"] and not found["utc"]):
        return None
    hours, minutes = int(found["hours"] or found["hour"]), int(found["minutes"] or found["minute"] or 0)
    seconds = int(found["seconds"] or 0)
    if hours >= _HOURS_MAX:
        raise Refused(f'"{text}" is no offset of any place; use re to take the time without it')
    offset = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return -offset if found["sign"] == "-" else offset


@lru_cache(maxsize=256)
def _names(key: str, year: int) -> frozenset[str | None]:
    """The abbreviations of a zone in a year."""
    place = ZoneInfo(key)
    return frozenset(datetime(year, month, 1, tzinfo=place).tzname() for month in (1, 4, 7, 10))
