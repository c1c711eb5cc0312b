"""Each text gives its number, maybe with a warning, or is refused with a hint. None gives another number silently."""

import re
from decimal import Decimal

import pytest

from jobs.definition.field import Value
from jobs.parse.convert import converter
from jobs.text import number_words
from jobs.text.values import BadValue, Number
from tests.differential import Explained
from tests.differential import numbers as differential
from tests.unit.describing import parse, rows

WITH_POINT = {
    "-R$ 1,234.50": "-1234.50", "-CHF 5": "-5", "-US$5": "-5", "-\uffe55": "-5", "CHF-5": "-5", "-%5": "-5", "EUR-5": "-5", "-chf 5": "-5",
    "R$-5": "-5", "kr.-5": "-5", "-R5": "-5", "\u2212$5": "-5", "$-5": "-5", "-S/ 5": "-5", "B/.5": "5", "US$ -5": "-5",
    "\uff0d5": "-5", "\u20115": "-5", "\u20125": "-5", "\u22125": "-5", "\ufe635": "-5", "\u200e-5": "-5", "\u061c-\u0665": "-5",
    "5.00-": "-5.00", "5.00\u2212": "-5.00", "5.00-\u20ac": "-5.00", "EUR 5.00- ": "-5.00", "(-5)": "-5", "(+5)": "5", "- 5": "-5",
    "\u2013 5": "-5", "Total: - 5": "-5", "Total -5": "-5", "Total \u2013 5": "5", "item-5": "5", "non-stop 5": "5", "5-pack": "5",
    "\u092e\u0942\u0932\u094d\u092f-5": "5", "5 - left": "5",
    "1\u00a0234.5": "1234.5", "1\u202f234.5": "1234.5", "1\u2009234.5": "1234.5", "1\u2019234.5": "1234.5", "12,34,567.89": "1234567.89",
    "\u20b91,23,456.00": "123456.00", "\u0665\u066c\u0662\u0663\u0664\u066b\u0665": "5234.5", "\u096b,\u0968\u0969\u096a": "5234",
    "\uff13\uff0c\uff15\uff10\uff10": "3500", "\uffe5\uff15\uff10\uff10": "500", "5e3": "5000", "0.500": "0.500", "$0.005": "0.005",
    "$1234.567": "1234.567", "$1,234.567": "1234.567", "2.449 BHD": "2.449", "KWD 1.500": "1.500", "1.234": "1.234",
    "kr 5,-": "5", "5.\u2013": "5", "99:-": "99", "5,--": "5", "Tea.....5.00": "5.00", "1 B/.": "1", "USD 5.": "5",
    "5 %": "5", "5 \u2030": "5", "5\u00b0": "5", "25 min": "25", "5 miles": "5", "100 m\u00b2": "100", "5 km": "5", "5 kr": "5",
    "5 \u20ac/m": "5", "(22 available)": "22", "(ca. 5)": "5", "v1.5": "1.5", "#5": "5", "\u21165": "5", "5,00 (": None,
}  # fmt: skip
WITH_COMMA = {
    "-R$ 1.234,50": "-1234.50", "1.234": "1234", "1.299 \u20ac": "1299", "5,00-": "-5.00", "1.234,-": "1234", "1\u202f234,5": "1234.5",
    "\u20133,5 %": "-3.5", "0,500": "0.500", "1.234.567": "1234567", "(1.234 \u20ac)": None, "-1\u00a0234,50\u00a0z\u0142": "-1234.50",
}  # fmt: skip
REFUSED = {  # and what the message names
    "(5.00)": 'scale = "-1"', "(1,234)": "re = ", "($5.00)": "brackets", "$(5.00)": "brackets", "Comments (5)": "brackets", "(5 %)": "brackets",
    "\uff085\uff09": "brackets", "5-": "scale", "5\u2212": "scale", "99-\u20ac": "scale", "5 -": "minus", "5.00 \u20ac-": "minus", "5\u2013": "minus",
    "1\u00bd": "fraction", "5 \u2153": "fraction", "\u00bd 5": "fraction", "1\u20442": "more than one", "10\u00b2": "exponent", "5\u00b9": "without",
    "\u00b25": "use re to take", "0,500": 'decimal_mark = ","', "1.234.567": 'decimal_mark = ","', "12,34": 'decimal_mark = ","', "1.000,-": 'decimal_mark = ","',
    "$2.449": 'decimal_mark = ","', "EUR 1.234": 'decimal_mark = ","', "1.234 kr": "decimal_mark", "1.234 euros": "decimal_mark", "150.000\u0111": "decimal_mark", "150.000 VND": "decimal_mark", "1.234\u5186": "decimal_mark",
    "1.5M": "scale", "3k": "scale", "2 Mio.": "scale", "5 bn": "scale", "5 \u0442\u044b\u0441.": "scale", "5 \u0442\u044b\u0441.\u0440\u0443\u0431.": "scale",
    "5\u4e07": "scale", "5\u5104\u5186": "scale", "5 Mrd.": "scale", "\u00a35m": "scale", "\u20ac5 bn": "scale", "TEUR 5": "scale", "\u20acm 5": "scale",
    "5 MEUR": "scale", "5 in Millionen": "scale", "5 crore": "scale", "5 lakh": "scale", "2 mil millones": "scale", "5\ub9cc\uc6d0": "scale",
    "7 na libo": "scale", "elfu 5": "scale", "elfu -5": "scale", "5k+": "scale", "5 dozen": "scale", "$5M": "scale",
    "CR 5.00": "debit", "5.00 DR": "debit", "minus 5": "scale", "\u8d1f5": "scale", "\u00b15": "may be a minus", "+/-5": "sign", "--5": "sign",
    "\u2212-5": "sign", "-+5": "sign", "\u25b25": "may be a minus", "\u25bc 2.5%": "may be a minus", "5% \u2193": "may be a minus", "\u20145": "may be a minus",
    "\u00ad5": "may be a minus", "\u27965": "may be a minus", "Total - 5": "minus", "EUR - 5": "minus", "EUR \u2013 5": "minus", "-XYZ 5": "minus",
    "XYZ-5": "minus", "Euro-5": "minus", "- Total sum: 5": "minus", "(-) 5": "minus", "-~5": "minus", "R-5": "minus",
    "5 minus": "scale", "5\u00b1": "may be a minus", "\u18065": "may be a minus", "5 and a half": "half", "<5.00>": "brackets", "5 T\u20ac": "scale",
    "5 lacs": "scale", "Nr.-5": "minus", "-(5)": "minus",
    "$..75": "re", "CHF -.50": "re", "Fr. \u2013.50": "re", "$-.5": "re", "Tea...5": "re", "5-7": "more than one", "1/2": "more than one", "5 1/2": "more than one", "10 x 5": "more than one", "1_000": "more than one", "5:30": "more than one",
    "1,2,3": "re", "1..5": "re", "1.5.2026": "re", "1 2345": "re", "1,234,56": "re", "012 345": "re", "0,12,345": "re",
}  # fmt: skip
NO_NUMBER = ("N/A", "-", "\u00b9", "\u00bd", "free", "\u4e94", "1e999", "")


def number(text, told=None, **keys):
    keys = {"type": "decimal", **keys}
    found = converter(Value(**keys), None if told is None else lambda _text, note: told.append(note))(text, "")
    return None if found is None else str(found)


@pytest.mark.parametrize(("text", "found"), [(t, f) for t, f in WITH_POINT.items() if f is not None])
def test_a_number_is_read_with_its_sign_and_its_groups(text, found):
    assert number(text) == found


@pytest.mark.parametrize(("text", "found"), [(t, f) for t, f in WITH_COMMA.items() if f is not None])
def test_a_number_with_a_decimal_comma_is_read(text, found):
    assert number(text, decimal_mark=",") == found


@pytest.mark.parametrize(("text", "named"), REFUSED.items())
def test_a_doubtful_number_is_refused_with_a_hint(text, named):
    with pytest.raises(BadValue) as caught:
        number(text)
    assert caught.value.expected == "exactly one number"
    assert named in caught.value.hint
    assert re.search(r"\bre\b|decimal_mark|scale", caught.value.hint)


@pytest.mark.parametrize("text", NO_NUMBER)
def test_no_number(text):
    if text:
        with pytest.raises(BadValue):
            number(text)
    else:
        assert number(text) is None


def test_the_hint_of_the_message_helps():
    assert number("(5.00)", re=r"\((.+)\)", scale="-1") == "-5"
    assert number("(5)", re=r"\((.+)\)", type="int") == "5"
    assert number("1.5M", re=r"(.+)M", scale="1000000") == "1500000"
    assert number("5.00 DR", re=r"[\d.]+", scale="-1") == "-5"
    assert number("0,500", decimal_mark=",") == "0.500"
    assert number("$2.449", re=r"[\d.]+") == "2.449"
    assert number("$2.449", decimal_mark=",") == "2449"
    assert number("5-7", re=r"\d+") == "5"


def test_a_letter_that_is_a_unit_or_multiplies_gives_a_warning():
    told = []
    assert number("100 m", told) == "100"
    assert number("2.5 L", told) == "2.5"
    assert number("6 Bio Eier", told) == "6"
    assert [note.partition(" ")[0] for note in told] == ["m", "L", "Bio"]
    assert "scale" in told[0]
    assert number("100 m", told, re=r"(\d+) m") == "100"
    assert len(told) == 3


@pytest.mark.parametrize("sign", "<>\u2264\u2265")
def test_a_bound_gives_a_warning(sign):
    told = []
    assert number(f"{sign} 0.01", told) == "0.01"
    assert told[0].startswith(f"{sign} was left out")


def test_a_hundredth_of_a_currency_gives_a_warning():
    told = []
    assert [number(text, told) for text in ("99\u00a2", "\u00a299", "50p", "99 ct", "5 Cent")] == [
        "99",
        "99",
        "50",
        "99",
        "5",
    ]
    assert len(told) == 5
    assert 'scale = "0.01"' in told[0]
    assert [number(text, told) for text in ("\u00a312.50p", "5 pcs", "5 cm")] == ["12.50", "5", "5"]
    assert len(told) == 5
    assert number("-$.50", told) == "-0.50"
    assert number("-.5", told) == "-0.5"


def test_a_minus_that_may_be_a_bullet_gives_a_warning():
    told = []
    assert [number(text, told) for text in ("- 5", "- $44.99", "\u2013 5", "Total: - 5")] == [
        "-5",
        "-44.99",
        "-5",
        "-5",
    ]
    assert len(told) == 4
    assert "taken as a minus" in told[0]
    assert [number(text, told) for text in ("-5", "-$ 5", "\u2212 5", "EUR -5", "$- 5")] == ["-5"] * 5
    assert len(told) == 4


def test_the_warning_names_row_field_and_text(tmp_path):
    parsed = parse(
        tmp_path, '[rows]\ncss = "p"\n[fields]\nn = {css = ":scope", type = "int"}', b"<p>5 m<p>6 m<p>7 km<p>(8)"
    )
    assert [row["n"] for row in parsed.rows] == [5, 6, 7, None]
    assert parsed.warnings[0].startswith('row 1: n: in "5 m" m was taken as a unit')
    assert parsed.warnings[0].endswith("(2 times)")
    assert "brackets" in parsed.warnings[1]


def test_a_number_of_json_has_a_point_whatever_texts_have(tmp_path):
    comma = {"type": "decimal", "decimal_mark": ","}
    assert number(Number("1.234"), **comma) == "1.234"
    assert number(1.234, **comma) == "1.234"
    assert number("1.234", **comma) == "1234"
    assert number(Number("1.234"), re=r"[\d.]+", **comma) == "1.234"
    assert number("x", map={"x": 1.234, "y": "1,5"}, **comma) == "1.234"
    assert number("y", map={"x": 1.234, "y": "1,5"}, **comma) == "1.5"
    listed = '[fields]\nn = {many = true, re = "[0-9.,]+", type = "decimal", decimal_mark = ","}'
    assert rows(tmp_path, f'format = "json"\n{listed}', b'{"n": [1.234, "1.234", "1,5 x"]}') == [
        {"n": [Decimal("1.234"), Decimal(1234), Decimal("1.5")]}
    ]


def test_a_template_of_a_number_has_a_point_too(tmp_path):
    made = 'format = "json"\n[fields]\na = {}\nn = {template = "{a}", type = "decimal", decimal_mark = ","}'
    assert rows(tmp_path, made, b'{"a": "1,5"}') == [{"a": "1,5", "n": Decimal("1.5")}]
    parsed = parse(tmp_path, made, b'{"a": 1.234}')
    assert parsed.rows == [{"a": 1.234, "n": None}]
    assert "leave decimal_mark out" in parsed.warnings[0]


def test_an_int_with_three_decimals_is_refused():
    for text, mark, other in (("1.000 readers", ".", ","), ("1.000", ".", ","), ("1,000", ",", ".")):
        with pytest.raises(BadValue, match=f'decimal_mark = "{other}"'):
            number(text, type="int", decimal_mark=mark)
        assert number(text, type="int", decimal_mark=other) == "1000"
    assert number("1.0", type="int") == "1"
    assert number(Number("1.000"), type="int") == "1"
    assert number("1.000", type="int", scale="1000") == "1000"


@pytest.mark.parametrize("raw", ["1e400", "-1e400", "1e-400", Number("1e400"), 10**400])
def test_a_number_beyond_a_float_is_refused(raw):
    with pytest.raises(BadValue, match="decimal"):
        number(raw, type="float")


@pytest.mark.parametrize(
    ("text", "scale", "found"),
    [("0.0000005", "0.000001", "0.0000000000005"), ("-7", "1/8", "-0.875"), ("1", "1/3", "0.333333333333"), ("2.50", "1000", "2500"), ("0", "0.5", "0")],
)  # fmt: skip
def test_a_scale_is_exact_if_the_number_ends(text, scale, found):
    assert f"{Decimal(number(text, scale=scale)):f}" == found
    with pytest.raises(BadValue, match="scale"):
        number("0.0000000000001", scale="1/3")


def test_lines_do_not_separate_groups():
    with pytest.raises(BadValue):
        number("5\n300", fold=False)


def test_numbers_of_any_language_are_read_back_or_refused():
    """CLDR's patterns of numbers, percent, currencies, accountants, and of millions, in all its languages."""
    found = differential.compare(seed=20_261_128, count=4_000)
    assert [one for one in found if not isinstance(one, Explained)] == []


def test_the_plain_numbers_of_all_languages_are_read():
    """Otherwise refusing all of them would pass the test above."""
    refused = {}
    for name in differential.locales():
        for kind in ("decimal", "percent", "standard"):
            for value in (Decimal("-1234567.5"), Decimal("0.5"), Decimal(12)):
                text, wrote = differential.written(name, value, kind, "EUR") or ("", None)
                found, told = differential.read(text, differential.mark(name)) if text else (None, [])
                assert not told, text
                if text and found is None:
                    refused[name.partition("_")[0]] = text
                else:
                    assert found == wrote, (name, text)
    assert set(refused) <= {"tok", "blo"}, refused  # which group by two


def test_all_words_that_multiply_in_a_language_are_known():
    """The table of ``jobs.text.number_words`` is CLDR's, as Babel has it."""
    unknown = set()
    for name in differential.locales():
        for word, follows in differential.multipliers(name):
            known = (
                number_words.multiplies(word) or number_words.may_multiply(word)
                if follows
                else number_words.multiplies_after(word)
            )
            if not known and word not in differential.KNOWN:
                unknown.add((name, word))
    assert not unknown
