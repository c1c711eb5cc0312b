"""How texts become values: numbers, dates, addresses, patterns, and the order of the steps."""

import random
from datetime import date
from decimal import Decimal
from itertools import product
from urllib.parse import urljoin

import msgspec
import pytest
from babel import Locale

from jobs.definition.field import TYPES, Value
from jobs.parse.convert import converter
from jobs.parse.warnings import Warnings
from jobs.text import pattern, values
from jobs.text.values import BadValue, Number, clean, from_json

BASE = "https://shop.example/list/a/index.html"


def value(raw, base=BASE, **keys):
    return converter(Value(**keys))(raw, base)


def bad(raw, **keys):
    with pytest.raises(BadValue) as caught:
        value(raw, **keys)
    return caught.value


@pytest.mark.parametrize("kind", sorted(set(TYPES) - {"str"}))
def test_every_type_refuses_a_text_that_does_not_fit_it(kind):
    """A type that nothing reads would let every text through."""
    assert bad("//[", type=kind).expected


@pytest.mark.parametrize(
    ("text", "mark", "found"),
    [
        ("51.77", ".", "51.77"),
        ("£1,234.50 each", ".", "1234.50"),
        ("1.234,50 €", ",", "1234.50"),
        ("1 234 567", ".", "1234567"),
        ("1'234.5", ".", "1234.5"),
        ("-5", ".", "-5"),
        ("\u22125", ".", "-5"),
        ("\u20135 %", ".", "-5"),
        ("Total \u2013 5", ".", "5"),
        ("-$5", ".", "-5"),
        ("$-5", ".", "-5"),
        ("5 €", ".", "5"),
        ("E10", ".", "10"),
        ("$ 1 234 $", ".", "1234"),
        ("EUR -5", ".", "-5"),
        ("+5", ".", "5"),
        ("item-5", ".", "5"),
        (".5", ".", "0.5"),
        ("1e-7", ".", "0.0000001"),
        ("869 points", ".", "869"),
        ("0.88180", ".", "0.88180"),
        ("1,234", ".", "1234"),
        ("1,234", ",", "1.234"),
        ("٣", ".", "3"),
    ],
)
def test_number(text, mark, found):
    assert str(value(text, type="decimal", decimal_mark=mark)) in (found, f"{Decimal(found):f}")


@pytest.mark.parametrize(
    "text", ["€", "10 to 20", "1.2.3", "1,0,000", "none", "5, 3 left", "1234,567", "4.5 (10)", "1e999"]
)
def test_no_single_number(text):
    assert bad(text, type="decimal").found == text


def test_ints_stay_whole():
    assert value("1,234 books", type="int") == 1234
    assert value(Number("41.0"), type="int") == 41
    assert value(41, type="int") == 41
    assert str(value(41, type="decimal")) == "41"
    assert type(value(Number("41.5"), type="float")) is float
    assert type(value(41, type="float")) is float
    bad(Number("1e999"), type="float")
    bad(10**400, type="float")
    bad(True, type="int")
    assert value("123456789012345678901234567890", type="int") == 123456789012345678901234567890
    bad("1.5", type="int")
    assert value("90", type="int", scale="1/30") == 3
    bad("91", type="int", scale="1/30")
    assert value("1.2k", re="(.+)k", type="int", scale="1000") == 1200


def test_scale_is_exact():
    assert value("1.10", type="decimal", scale="0.1") == Decimal("0.11")
    assert str(value("1", type="decimal", scale="1/3")) == "0.333333333333"
    assert str(value("2.50", type="decimal", scale="1000")) == "2500"
    assert value("1.5", type="float", scale="2") == 3.0
    assert value("PT95M", type="duration", scale="1/60") == 95


def test_json_stays_what_it_is():
    document = from_json(b'{"a": 1.70, "b": [1.5, {"c": 2.5}], "d": true, "e": null, "f": 12345678901234567890123}')
    assert value(document["a"]) == 1.7
    assert type(value(document["a"])) is float
    assert value(document["b"]) == [1.5, {"c": 2.5}]
    assert value(document["d"]) is True
    assert value(document["e"]) is None
    assert str(value(document["a"], type="decimal")) == "1.70"
    assert value(document["a"], type="str") == "1.70"
    assert value(document["d"], type="str") == "true"
    bad(document["b"], type="str")
    assert msgspec.json.decode(msgspec.json.encode(clean(document))) == clean(document)


@pytest.mark.parametrize("body", [b'{"a":NaN}', b'{"a":"\\ud800x"}', b'\xef\xbb\xbf{"a":1}', b'{"a":"tab\there"}'])
def test_invalid_json_that_sites_write_is_read(body):
    found = from_json(body)
    assert list(found) == ["a"]
    assert msgspec.json.encode(clean(found))


def test_white_space_is_folded_and_empty_is_nothing():
    assert value("  a\u00a0\n b\t") == "a b"
    assert value(" \u00a0 ") is None
    assert value("", type="int") is None
    assert value(None, type="int") is None


def test_order_is_re_map_type_scale():
    assert value("Rated: four of five", re=r"Rated: (\w+)", map={"four": "4"}, type="int", scale="2") == 8
    assert value("nothing here", re=r"Rated: (\w+)", map={"four": 4}) is None
    assert value("x", map={"x": 1, "*": 0}) == 1
    assert value("y", map={"x": 1, "*": 0}) == 0
    assert "one of x" in bad("y", map={"x": 1}).expected


def test_patterns_are_re2():
    assert value("a1 b22", re=r"\d+") == "1"
    assert value("a1 b22", re=r"b(\d+)") == "22"
    assert value("b", re=r"(a)|b") is None
    assert value("größe: 42 m²", re=r"größe: (\S+)") == "42"
    with pytest.raises(ValueError, match="invalid perl operator"):
        pattern.compiled(r"(?=a)")
    assert value("a" * 50_000 + "!", re=r"^(a+)+$") is None  # hours with a backtracking matcher


def test_bool():
    assert [value(text, type="bool") for text in ("true", "YES", "n", "0", "Off")] == [True, True, False, False, False]
    assert value(True, type="bool") is True
    assert value("In stock (5)", re="In stock", type="bool") is True
    assert value("gone", re="In stock", type="bool") is False
    assert value(None, re="In stock", type="bool") is None
    bad("perhaps", type="bool")


@pytest.mark.parametrize(
    ("text", "keys", "found"),
    [
        ("2022-03-29T16:42:00.000", {"tz": "local"}, "2022-03-29T16:42:00.000"),
        ("2022-03-29T16:42:00Z", {}, "2022-03-29T16:42:00Z"),
        ("2022-03-29T16:42:00+00:00", {}, "2022-03-29T16:42:00+00:00"),
        ("2022-03-29T16:42:00+02:00", {}, "2022-03-29T16:42:00+02:00"),
        ("2022-03-29T16:42:00.5+02:00", {}, "2022-03-29T16:42:00.500+02:00"),
        ("2022-03-29T16:42:00+02:00", {"tz": "local"}, "2022-03-29T16:42:00"),
        ("2022-07-29 16:42", {"tz": "Europe/Berlin"}, "2022-07-29T16:42:00+02:00"),
        ("2022-01-29", {"tz": "Europe/Berlin"}, "2022-01-29T00:00:00+01:00"),
        ("Wed, 17 Jan 2018 15:50:00 EST", {"format": ("rfc2822",)}, "2018-01-17T15:50:00-05:00"),
        ("Wed, 31 Jan 2018 07:26:05 GMT", {"format": ("rfc2822",)}, "2018-01-31T07:26:05Z"),
        ("1397474951100", {"format": ("unix_ms",)}, "2014-04-14T11:29:11.100Z"),
        ("1397474867000", {"format": ("unix_ms",)}, "2014-04-14T11:27:47.000Z"),
        ("1397474867", {"format": ("unix",)}, "2014-04-14T11:27:47Z"),
        ("3. März 2026, 14:05", {"format": ("%d. %B %Y, %H:%M",), "lang": "de", "tz": "UTC"}, "2026-03-03T14:05:00Z"),
        ("03/04/26", {"format": ("%Y-%m-%d", "%d/%m/%y"), "tz": "UTC"}, "2026-04-03T00:00:00Z"),
        ("5 janv. 2026", {"format": ("%d %b %Y",), "lang": "fr", "tz": "UTC"}, "2026-01-05T00:00:00Z"),
        ("5 janv. 2026", {"format": ("%d %b. %Y",), "lang": "fr", "tz": "UTC"}, "2026-01-05T00:00:00Z"),
        ("2022-03-29t16:42:00z", {}, "2022-03-29T16:42:00Z"),
        ("March 14, 2016 3:00 p.m.", {"format": ("%B %d, %Y %I:%M %p",), "tz": "local"}, "2016-03-14T15:00:00"),
    ],
)
def test_datetime(text, keys, found):
    assert value(text, type="datetime", **keys) == found


@pytest.mark.parametrize("lang", ["en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "pl", "cs", "ru", "tr", "fi"])
def test_names_of_all_months_and_days_are_read_short_and_long(lang):
    """A short name may equal the long one ("juin"), and a month's may equal a day's ("mar")."""
    months, days = Locale(lang).months["format"], Locale(lang).days["format"]
    for width, form in product(("abbreviated", "wide"), ("%a, %d %b %Y", "%A, %d %B. %Y")):
        for month in range(1, 13):
            day = date(2026, month, 20)
            text = f"{days[width][day.weekday()]}, {day.day} {months[width][month]} 2026"
            assert value(text, type="date", format=(form,), lang="" if lang == "en" else lang) == day.isoformat()


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("2022-03-29T16:42:00", {}),
        ("Wed, 17 Jan 2018 15:50:00 CEST", {"format": ("rfc2822",)}),
        ("yesterday", {"tz": "UTC"}),
        ("10", {"tz": "UTC"}),
        ("32.1.2026", {"format": ("%d.%m.%Y",), "tz": "UTC"}),
        ("99999999999999999", {"format": ("unix",)}),
    ],
)
def test_other_texts_are_no_datetime(text, keys):
    assert "datetime" in bad(text, type="datetime", **keys).expected


def test_dates_and_durations():
    assert value("2016-11-21", type="date") == "2016-11-21"
    assert value("2016-11-21T23:00:00-05:00", type="date") == "2016-11-21"
    assert value("21.11.2016", type="date", format=("%d.%m.%Y",)) == "2016-11-21"
    assert value("P1DT2H3M4.5S", type="duration") == 93784.5
    assert value("1:35", type="duration") == 5700
    assert value("1:35:10", type="duration") == 5710
    assert value("P0Y0M0DT1H45M0.000S", type="duration") == 6300
    for text in ("P1Y", "P0Y1M", "P", "PT", "95", "1:75"):
        bad(text, type="duration")


def test_addresses_are_absolute():
    assert value("../b.html", type="url") == "https://shop.example/list/b.html"
    assert value("/x?y=1", type="url") == "https://shop.example/x?y=1"
    assert value("//cdn.example/x", type="url") == "https://cdn.example/x"
    assert value("mailto:a@b.example", type="url") == "mailto:a@b.example"
    bad("//[", type="url")


def test_the_fast_urljoin_gives_the_same_as_urljoin():
    seed = random.randrange(10**9)
    draw = random.Random(seed)
    bases = (
        BASE,
        "https://a.example",
        "https://a.example/",
        "https://a.example:8080/b/?q=/x",
        "https://h.example/a/../b/c",
    )
    pieces = ("a", "b", "/", "..", ".", "?", "#", "x.y", "%20", "=", "../", ":", "é", " ")
    for _ in range(5_000):
        text = "".join(draw.choice(pieces) for _ in range(draw.randint(1, 6))).strip()
        if text and " " not in text:
            base = draw.choice(bases)
            assert value(text, base, type="url") == urljoin(base, text), f"seed {seed}: {base} {text!r}"


def test_results_are_json():
    found = [
        value("1E3", type="decimal"),
        value("1.50", type="decimal"),
        value("7", type="int"),
        value("PT1S", type="duration"),
    ]
    assert msgspec.json.encode(found) == b'["1000","1.50",7,1]'


def test_warnings_are_counted_and_at_most_ten():
    told = Warnings()
    for row in range(3):
        told.add(("price", "a number"), f"row {row}: price")
    told.add(("time", "a time"), "row 9: time")
    assert told.texts() == ["row 0: price (3 times)", "row 9: time"]
    for number in range(20):
        told.add((str(number), ""), f"kind {number}")
    assert len(told.texts()) == 10
    assert told.texts()[-1] == "13 more kinds of warnings"


def test_values_as_other_texts():
    assert [values.shown(one) for one in ("a", 1, 1.5, True, Decimal("1.50"), [1])] == [
        "a",
        "1",
        "1.5",
        "true",
        "1.50",
        "[1]",
    ]
