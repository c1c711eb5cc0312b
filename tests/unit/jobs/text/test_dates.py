"""Each text gives its time, maybe with a warning, or is refused with a hint. No zone is invented or ignored."""

import re
from datetime import date, timedelta

import pytest

from jobs.definition.field import Value
from jobs.parse.convert import converter
from jobs.text import strptime
from jobs.text.values import BadValue
from tests.differential import dates as differential
from tests.unit.describing import faults, parse


def time(text, *formats, told=None, kind="datetime", **keys):
    made = converter(
        Value(type=kind, format=formats, **keys), None if told is None else lambda _text, note: told.append(note)
    )
    return made(text, "")


def refused(text, *formats, **keys):
    with pytest.raises(BadValue) as caught:
        time(text, *formats, **keys)
    return caught.value.hint


ISO = {
    "2026-11-24Z": "2026-11-24T00:00:00Z", "2026-11-24+01:00": "2026-11-24T00:00:00+01:00", "2026-11-24-05:00": "2026-11-24T00:00:00-05:00",
    "2026-11-24T04:14 UTC": "2026-11-24T04:14:00Z", "2026-11-24T04:14:00 GMT+1": "2026-11-24T04:14:00+01:00",
    "2026-11-24T04:14 UTC\u221205:00": "2026-11-24T04:14:00-05:00", "2026-11-24T04:14:00 +01:00": "2026-11-24T04:14:00+01:00",
    "2026-11-24T04:14 EST": "2026-11-24T04:14:00-05:00", "2026-07-24T04:14 EDT": "2026-07-24T04:14:00-04:00",
    "2026-11-24T04:14+01:00[Europe/Berlin]": "2026-11-24T04:14:00+01:00", "2026-11-24T04:14[Asia/Tokyo]": "2026-11-24T04:14:00+09:00",
    "2026-11-24T04:14 Asia/Tokyo": "2026-11-24T04:14:00+09:00", "2026-11-24T04:14": "2026-11-24T04:14:00-05:00",
    "2026-W48-2": "2026-11-24T00:00:00-05:00", "2026-328": "2026-11-24T00:00:00-05:00", "20261124T041400Z": "2026-11-24T04:14:00Z",
    "2026-11-24T24:00:00Z": "2026-11-25T00:00:00Z", "2026-12-31T24:00": "2027-01-01T00:00:00-05:00",
    "\u0662\u0660\u0662\u0666-\u0661\u0661-\u0662\u0664": "2026-11-24T00:00:00-05:00", "2026-11-24T04:14:00,5Z": "2026-11-24T04:14:00.500Z",
    "2026-11-24T04:14 (UTC)": "2026-11-24T04:14:00Z", "2026-11-24 04:14:00 -0500 EST": "2026-11-24T04:14:00-05:00", "2026-11-24Z[UTC]": "2026-11-24T00:00:00Z",
    "2026-11-01T01:30 EST": "2026-11-01T01:30:00-05:00", "2026-11-01T01:30 EDT": "2026-11-01T01:30:00-04:00",
}  # fmt: skip
NO_ISO = {
    "2026-11-24T04:14 CET": "tz", "2026-11-24T04:14 AEST": "tz", "2026-11-24T04:14 IST": "tz", "2026-07-24T04:14 EST": "re", "2026-11-24T04:14 A": "tz",
    "2026-11-24T04:14+03:00[Europe/Berlin]": "re", "2026-11-24T04:14[Mars/Base]": "re", "2026-11-24T04:14:00+25:00": "re",
    "2026-11-24T04:14:00 PM": "%p", "2026-11-24 12:00 am": "%p", "2026-11-24T24:30": "re", "2026-11-24T04:14:60Z": "re", "2026-02-31": "format",
    "2026-11-24T04.14": "re", "2026-11-24T04:14.5": "re", "2026-11-24T04:140Z": "", "2026-11-24T04:14:007": "", "2026-11-24T4:14": "", "2026-11-24-04:14:00": "format",
    "2026-11-24T04:14Z+01:00": "tz", "2026-11-24 BC": "re", "2026-11-24T04:14 Uhr": "re", "2026-11-24+1": "tz",
    "2026-11-24x04:14": "tz", "20261124105": "", "1397474951": "unix", "1397474951100": "unix_ms", "2026-W48": "", "31/02/2026": "", "noon": "", "2026-11-24T25:00": "", "12/11/26": "",
    "Heisei 8": "", "\u4ee4\u548c8\u5e7411\u670824\u65e5": "",
}  # fmt: skip
RFC = {
    "Wed, 17 Jan 2018 15:50:00 +01:00": "2018-01-17T15:50:00+01:00", "Wed, 17 Jan 2018 15:50:00 GMT+0100": "2018-01-17T15:50:00+01:00",
    "Wed, 17 Jan 2018 15:50:00 CET": "2018-01-17T15:50:00+01:00", "Wed, 17 Jan 2018 3:50 PM GMT": "2018-01-17T15:50:00Z",
    "Wed, 17 Jan 2018 15:50:00 EST": "2018-01-17T15:50:00-05:00", "Wed, 17 Jan 2018 15:50:00": "2018-01-17T15:50:00+01:00",
    "Wed, 17 Jan 2018 15:50:00 -0000": "2018-01-17T15:50:00Z", "Wed, 17 Jan 2018 24:00:00 GMT": "2018-01-18T00:00:00Z",
    "Wed, 17 Jan 2018 12:00 am GMT": "2018-01-17T00:00:00Z", "Wed, 17 Jan 68 15:50:00 GMT": "1968-01-17T15:50:00Z",
    "Mon, 17 Jan 49 15:50:00 GMT": "2049-01-17T15:50:00Z", "Tue Nov 24 04:14:00 2026": "2026-11-24T04:14:00+01:00",
    "Tue Nov 24 04:14:00 CET 2026": "2026-11-24T04:14:00+01:00", "Tuesday, 24-Nov-26 04:14:00 GMT": "2026-11-24T04:14:00Z",
    "Tue Nov 24 2026 04:14:00 GMT+0100 (Central European Standard Time)": "2026-11-24T04:14:00+01:00",
    "24 November 2026 04:14 UT": "2026-11-24T04:14:00Z", "Nov 24, 2026 04:14:00 +0000": "2026-11-24T04:14:00+00:00",
    "24 Nov 2026 04:14:00.578 GMT": "2026-11-24T04:14:00.578Z", "Tue, 24 Sept 2026 04:14:00GMT": "2026-09-24T04:14:00Z", "Di, 24 Nov 2026 04:14:00 Z": "2026-11-24T04:14:00Z",
}  # fmt: skip
NO_RFC = {
    "Tue, 24 Nov 2026 04:14:00 IST": "tz", "Tue, 24 Jul 2026 04:14:00 CET": "re", "Tue, 24 Nov 2026 04:14:00 AEDT": "tz", "Tue, 24 Nov 2026 04:14:00 A": "tz",
    "Tue, 24 Nov 2026 04:14:00 Uhr": "tz", "Tue, 24 Nov 2026 04:14:60 GMT": "re", "Tue, 24 Nov 2026 13:50 AM GMT": "", "Tue, 31 Feb 2026 04:14:00 GMT": "format",
    "Tue, 24 Mai 2026 04:14:00 GMT": "", "24 Nov 2026": "", "today": "",
}  # fmt: skip
PATTERNS = [
    ("24.11.2026 10:00 UTC", "%d.%m.%Y %H:%M %Z", "", "2026-11-24T10:00:00Z"),
    ("24.11.2026 10:00 EST", "%d.%m.%Y %H:%M %Z", "", "2026-11-24T10:00:00-05:00"),
    ("24.11.2026 10:00 GMT+1", "%d.%m.%Y %H:%M %Z", "", "2026-11-24T10:00:00+01:00"),
    ("24.11.2026 10:00 +0530", "%d.%m.%Y %H:%M %z", "", "2026-11-24T10:00:00+05:30"),
    ("24.11.2026 24:00", "%d.%m.%Y %H:%M", "", "2026-11-25T00:00:00-05:00"),
    ("2026\u5e741\u67085\u65e5", "%Y\u5e74%B%d\u65e5", "ja", "2026-01-05T00:00:00-05:00"),
    ("2026\u5e7411\u67085\u65e5", "%Y\u5e74%B%d\u65e5", "zh", "2026-11-05T00:00:00-05:00"),
    ("5 th\u00e1ng 1, 2026", "%d %B, %Y", "vi", "2026-01-05T00:00:00-05:00"),
    ("24 th\u00e1ng 11, 2026", "%d %B, %Y", "vi", "2026-11-24T00:00:00-05:00"),
    ("5 KASIM 2026", "%d %B %Y", "tr", "2026-11-05T00:00:00-05:00"),
    ("3 Ma\u0308rz 2026", "%d %B %Y", "de", "2026-03-03T00:00:00-05:00"),
    ("5 listopad 2026", "%d %B %Y", "hr", "2026-10-05T00:00:00-04:00"),
    ("5 listopad 2026", "%d %B %Y", "cs", "2026-11-05T00:00:00-05:00"),
    ("24 March 2026", "%d %B %Y", "de", "2026-03-24T00:00:00-04:00"),
    ("\u0662\u0664/\u0661\u0661/\u0662\u0660\u0662\u0666", "%d/%m/%Y", "", "2026-11-24T00:00:00-05:00"),
    ("2026-11-24 12:00 am", "%Y-%m-%d %I:%M %p", "", "2026-11-24T00:00:00-05:00"),
    ("2026-11-24 12:30 p.m.", "%Y-%m-%d %I:%M %p", "", "2026-11-24T12:30:00-05:00"),
    ("2026-11-24 3:50 pm", "%Y-%m-%d %H:%M %p", "", "2026-11-24T15:50:00-05:00"),
    ("2026-11-24 15:50 PM", "%Y-%m-%d %H:%M %p", "", "2026-11-24T15:50:00-05:00"),
    ("2026-11-24 0:30 PM", "%Y-%m-%d %H:%M %p", "", "2026-11-24T12:30:00-05:00"),
    ("2026-11-24 \uc624\ud6c4 3:05", "%Y-%m-%d %p %I:%M", "ko", "2026-11-24T15:05:00-05:00"),
    ("2026-11-24 \u4e0b\u53483:05", "%Y-%m-%d %p%I:%M", "zh", "2026-11-24T15:05:00-05:00"),
    ("2026-11-24 3:05 p. m.", "%Y-%m-%d %I:%M %p", "es", "2026-11-24T15:05:00-05:00"),
    ("24.11.68", "%d.%m.%y", "", "2068-11-24T00:00:00-05:00"),
    ("24.11.69", "%d.%m.%y", "", "1969-11-24T00:00:00-05:00"),
    ("12/11/26", "%d/%m/%y", "", "2026-11-12T00:00:00-05:00"),
    ("2026-W48-2", "%G-W%V-%u", "", "2026-11-24T00:00:00-05:00"),
    ("48 2 2026", "%W %w %Y", "", "2026-12-01T00:00:00-05:00"),
    ("2026-328", "%Y-%j", "", "2026-11-24T00:00:00-05:00"),
    ("Tue Nov 24 10:00:00 2026", "%c", "", "2026-11-24T10:00:00-05:00"),
    ("20261124041400123", "%Y%m%d%H%M%S%f", "", "2026-11-24T04:14:00.123-05:00"),
    ("100% 24.11.2026", "100%% %d.%m.%Y", "", "2026-11-24T00:00:00-05:00"),
]
NO_PATTERN = [
    ("24.11.2026 10:00 XYZ", "%d.%m.%Y %H:%M %Z", "tz"),
    ("24.07.2026 10:00 EST", "%d.%m.%Y %H:%M %Z", "re"),
    ("24.11.2026 24:30", "%d.%m.%Y %H:%M", "re"),
    ("24.11.2026 10:00:60", "%d.%m.%Y %H:%M:%S", "re"),
    ("31/02/2026", "%d/%m/%Y", "format"),
    ("2026-11-24 15:50 am", "%Y-%m-%d %H:%M %p", ""),
    ("2026-11-24 13:00 pm", "%Y-%m-%d %I:%M %p", ""),
    ("2026-11-24 noon", "%Y-%m-%d %I:%M %p", ""),
    ("2026111", "%Y%m%d", ""),
    ("1er janvier 2026", "%d %B %Y", ""),
    ("366 2026", "%j %Y", "format"),
    (f"24.11.2026{' ' * 300}x", "%d.%m.%Y", ""),
]


@pytest.mark.parametrize(("text", "found"), ISO.items())
def test_a_zone_in_a_time_of_iso_counts(text, found):
    assert time(text, tz="America/New_York") == found


@pytest.mark.parametrize(("text", "named"), NO_ISO.items())
def test_other_texts_than_iso_times_are_refused(text, named):
    assert named in refused(text, tz="America/New_York")


@pytest.mark.parametrize(("text", "found"), RFC.items())
def test_a_zone_in_a_time_of_mail_and_feeds_counts(text, found):
    assert time(text, "rfc2822", tz="Europe/Berlin") == found


@pytest.mark.parametrize(("text", "named"), NO_RFC.items())
def test_other_texts_than_mail_times_are_refused(text, named):
    assert named in refused(text, "rfc2822", tz="Europe/Berlin")


@pytest.mark.parametrize(("text", "form", "lang", "found"), PATTERNS)
def test_a_pattern_reads_names_halves_of_the_day_and_zones(text, form, lang, found):
    assert time(text, form, lang=lang, tz="America/New_York") == found


@pytest.mark.parametrize(("text", "form", "named"), NO_PATTERN)
def test_texts_that_a_pattern_does_not_fit_are_refused(text, form, named):
    assert named in refused(text, form, tz="America/New_York")


def test_an_abbreviation_may_be_that_of_the_zone_in_tz():
    text = "Wed, 17 Jan 2018 15:50:00 "
    assert time(f"{text}CST", "rfc2822", tz="Asia/Shanghai") == "2018-01-17T15:50:00+08:00"
    assert time(f"{text}CST", "rfc2822", tz="America/New_York") == "2018-01-17T15:50:00-06:00"
    assert time(f"{text}IST", "rfc2822", tz="Asia/Kolkata") == "2018-01-17T15:50:00+05:30"
    assert time(f"{text}IST", "rfc2822", tz="Asia/Jerusalem") == "2018-01-17T15:50:00+02:00"
    told = []
    assert time(f"{text}EST", "rfc2822", tz="Australia/Sydney", told=told) == "2018-01-17T15:50:00-05:00"
    assert "RFC 5322" in told[0]


def test_any_zone_is_accepted_if_the_result_has_none():
    text = "Wed, 17 Jan 2018 15:50:00 "
    assert time(f"{text}CEST", "rfc2822", kind="date") == "2018-01-17"
    assert time(f"{text}CEST", "rfc2822", tz="local") == "2018-01-17T15:50:00"
    assert time("2026-11-24T10:00 IST", kind="date") == "2026-11-24"
    assert "no zone" in refused(f"{text}Uhr", "rfc2822", tz="local")
    assert "no zone" in refused("2026-11-24 04:14 PM", tz="local")
    assert "no zone" in refused("24.11.2026 3:50 PM", "%d.%m.%Y %H:%M %Z", tz="local")
    assert time("2026-11-24T24:00:00Z", kind="date") == "2026-11-24"
    assert time("2026-11-24+01:00", kind="date") == "2026-11-24"


@pytest.mark.parametrize(
    ("text", "formats", "keys", "found", "note"),
    [
        ("2026-10-25T02:30", (), {"tz": "Europe/Berlin"}, "2026-10-25T02:30:00+02:00", "twice"),
        ("2026-03-29T02:30", (), {"tz": "Europe/Berlin"}, "2026-03-29T02:30:00+01:00", "not at all"),
        ("24 \u0e1e\u0e24\u0e28\u0e08\u0e34\u0e01\u0e32\u0e22\u0e19 2569", ("%d %B %Y",), {"kind": "date", "lang": "th"}, "2569-11-24", "calendar"),
        ("1405-09-03", (), {"kind": "date"}, "1405-09-03", "calendar"),
        ("2569-11-24T10:00Z", (), {}, "2569-11-24T10:00:00Z", "calendar"),
        ("24 \u0e1e.\u0e22. 69", ("%d %b %y",), {"kind": "date", "lang": "th"}, "1969-11-24", "Buddhist"),
        ("5787-03-14", (), {"kind": "date"}, "5787-03-14", "calendar"),
        ("2026-11-24-05:00", (), {}, "2026-11-24T00:00:00-05:00", "offset"),
        ("03/04/2026", ("%d/%m/%Y", "%m/%d/%Y"), {"kind": "date"}, "2026-04-03", "2026-03-04"),
        ("Mon 24.11.2026", ("%a %d.%m.%Y",), {"kind": "date"}, "2026-11-24", "weekday"),
        ("1397474951", ("unix_ms",), {}, "1970-01-17T04:11:14.951Z", "unix"),
        ("139747495110", ("unix",), {}, "6398-06-03T20:38:30Z", "unix_ms"),
    ],
)  # fmt: skip
def test_a_doubtful_time_gives_a_warning(text, formats, keys, found, note):
    told = []
    assert time(text, *formats, told=told, **keys) == found
    assert len(told) == 1
    assert note in told[0]


@pytest.mark.parametrize(
    ("text", "formats", "keys"),
    [
        ("2026-10-25T02:30 CET", (), {"tz": "Europe/Berlin"}),
        ("2026-10-25T12:30", (), {"tz": "Europe/Berlin"}),
        ("13/04/2026", ("%d/%m/%Y", "%m/%d/%Y"), {"kind": "date"}),
        ("04/04/2026", ("%d/%m/%Y", "%m/%d/%Y"), {"kind": "date"}),
        ("Tue 24.11.2026", ("%a %d.%m.%Y",), {"kind": "date"}),
        ("9999-12-31", (), {"kind": "date"}),
        ("1397474951100", ("unix_ms",), {}),
        ("2026-11-24+05:30", (), {}),
        ("0", ("unix_ms",), {}),
    ],
)
def test_a_clear_time_gives_no_warning(text, formats, keys):
    told = []
    assert time(text, *formats, told=told, **keys)
    assert told == []


def test_the_warning_names_the_other_possible_time(tmp_path):
    described = '[rows]\ncss = "p"\n[fields]\nt = {css = ":scope", type = "date", format = ["%d/%m/%Y", "%m/%d/%Y"]}'
    parsed = parse(tmp_path, described, b"<p>03/04/2026<p>13/04/2026<p>31/02/2026")
    assert [row["t"] for row in parsed.rows] == ["2026-04-03", "2026-04-13", None]
    assert parsed.warnings[0].startswith('row 1: t: in "03/04/2026" format %m/%d/%Y fits too')
    assert "there is no such day" in parsed.warnings[1]


@pytest.mark.parametrize(
    ("form", "named"),
    [
        ("%Y-%M-%d", "%M, which is minutes"), ("%Y-%m-%d %I:%M", "%I without %p"), ("%Y %Q", "no directive %Q"), ("%Y-%m-%d %m", "%m twice"), ("%Y %p", "%p without %I"),
        ("%Y %", "% at its end"), ("%G-%u", "%G without %V"), ("%d %b %Y %B", "%b twice"),
        ("%Y-%m-%d %y", "%Y and %y"), ("%Y-%m-%d %H %I %p", "%H and %I"), ("%d %b %Y (%m)", "%b and %m"), ("%Y-%j %d", "%j and %d"), ("%Y %W", "%U or %W without"),
        ("%V-%u %Y", "%V without %G"), ("%Y-%m-%d %W %a", "a day twice"),
    ],
)  # fmt: skip
def test_an_ambiguous_pattern_is_a_fault_of_the_definition(tmp_path, form, named):
    found = faults(tmp_path, f'[fields]\na = {{css = "b", type = "datetime", tz = "UTC", format = "{form}"}}')
    assert any(re.search(r"fields\.a\.format: expected a strptime pattern", one) and named in one for one in found), (
        found
    )


def test_a_name_with_two_meanings_is_not_read(monkeypatch):
    monkeypatch.setitem(strptime._MORE_NAMES, "fr", {"mars": 9, "vend\u00e9miaire": 9})
    found = strptime.names.__wrapped__("fr", "months")
    assert "mars" not in found
    assert (found["vend\u00e9miaire"], found["avril"]) == (9, 4)


def test_the_months_of_all_languages_are_read():
    """In the pattern an author writes, also where they are numbers: 1\u6708, th\u00e1ng 1."""
    for name in differential.locales():
        for width in ("wide", "abbreviated"):
            months = differential.Locale.parse(name).months["format"][width]
            if len({strptime.plain(month).casefold().rstrip(".") for month in months.values()}) < 12:
                continue  # a language that writes two alike
            read = strptime.reader("%d %B %Y", name)
            for number, month in months.items():
                try:
                    found = read(" ".join(f"5 {month} 2026".split())).wall
                except ValueError:
                    continue  # the name of another month at another width
                assert (found.month, found.day) == (number, 5), (name, month)


def test_times_of_any_language_are_read_back_or_refused():
    """CLDR's patterns of dates and times with zones in all forms, and those of mail and feeds."""
    assert list(differential.compare(seed=20_261_128, count=700)) == []


def test_the_plain_days_of_all_languages_are_read():
    """Otherwise refusing all of them would pass the test above."""
    day, refusals = date(2026, 11, 24), set()
    for name in differential.locales():
        pair = differential.written(
            name, differential.datetime(2026, 11, 24, 12, tzinfo=differential.UTC), "UTC", "long", ""
        )
        if pair is None:
            continue
        found, told = differential.read(pair[0], format=(pair[1],), lang=name, tz="UTC")
        assert told == []
        if found is None:
            refusals.add(name)
        else:
            assert found.date() == day
    assert len(refusals) <= 5, refusals


def test_no_hour_is_lost_or_doubled_when_clocks_change():
    """Each hour of a year in Berlin, written with its zone's name, comes back."""
    moment = differential.datetime(2026, 1, 1, tzinfo=differential.UTC)
    berlin = differential.ZoneInfo("Europe/Berlin")
    for hours in range(0, 365 * 24, 7):
        local = (moment + timedelta(hours=hours)).astimezone(berlin)
        text = f"{local:%d.%m.%Y %H:%M} {local.tzname()}"
        assert time(text, "%d.%m.%Y %H:%M %Z", tz="Europe/Berlin") == local.isoformat()
