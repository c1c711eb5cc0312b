"""CSV as people and programs write it is read correctly, or with a warning, or refused with a hint. None is read wrong silently."""

import itertools

import pytest

from jobs.definition.delimited import Csv
from jobs.errors import ParseFailed
from jobs.parse import plain_text
from jobs.parse.warnings import Warnings
from tests.differential import csv_files
from tests.unit.describing import parse, rows


def read(text, **shape):
    warnings = Warnings()
    return list(plain_text.csv_rows(text, Csv(**shape), warnings)), warnings.texts()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('first,town\nAda,"Bath, UK"\n', [{"first": "Ada", "town": "Bath, UK"}]),
        ('a,b,c\n1,"",""\n2,,4', [{"a": "1", "b": "", "c": ""}, {"a": "2", "b": "", "c": "4"}]),
        ('a,b\r\n1,"say ""no"" now"\r\n', [{"a": "1", "b": 'say "no" now'}]),
        ('a,b\n1,"{""k"": [1, 2.5]}"\n', [{"a": "1", "b": '{"k": [1, 2.5]}'}]),
        ('a,b\n"two \nlines",5\n', [{"a": "two \nlines", "b": "5"}]),
        ('a,b\r\n"two \r\nlines",5\r\n', [{"a": "two \r\nlines", "b": "5"}]),
        ('a,b\n1,"x \n""y"" \nz"\n3,4', [{"a": "1", "b": 'x \n"y" \nz'}, {"a": "3", "b": "4"}]),
        ("a,b\n4,ʤ", [{"a": "4", "b": "ʤ"}]),
        ("a,b\r1,2\r3,4\r", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
        ('a,b\n5" disk,6\'\n', [{"a": '5" disk', "b": "6'"}]),
        ("\n \na,b\n1,2\n\n  \n3,4", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
        ('\ufeff"a",b\n1,2', [{"a": "1", "b": "2"}]),
        ("sep=;\na;b\n1;2", [{"a": "1", "b": "2"}]),
        ("SEP=\t\r\na\tb\r\n1\t2", [{"a": "1", "b": "2"}]),
        ("a,b\n1,2\n\x1a", [{"a": "1", "b": "2"}]),
        ("a,b,\n1,2,\n3,4,\n", [{"a": "1", "b": "2", "": ""}, {"a": "3", "b": "4", "": ""}]),
        ("a,b\n1,2,\n3,4,\n", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
        ("", []), ("\n\n", []), ("a,b", []),
    ],
)  # fmt: skip
def test_unambiguous_text_is_read_without_a_warning(text, expected):
    assert read(text) == (expected, [])


@pytest.mark.parametrize(
    ("text", "first", "told"),
    [
        ("a,b\n1,2,3\n4,5,6", {"a": "1", "b": "2"}, 'line 2: expected 2 cells, found 3; "3" has no column (2 times)'),
        ("a,b,c\n1,,2,\n3,4,5", {"a": "1", "b": "", "c": "2"}, "line 2: expected 3 cells, found 4, the last of them empty"),
        ("a,b\n1\n", {"a": "1", "b": None}, "line 2: expected 2 cells, found 1"),
        ("a,b,a\n1,2,3", {"a": "3", "b": "2"}, 'two columns are named "a": the last one counts; header = [names] tells them apart'),
        ("a;b\n1;2", {"a;b": "1;2"}, 'there is one column, "a;b": delimiter = ";" may part it'),
        ('a,b\n"1"x,2', {"a": "1x", "b": "2"}, "line 2: there is text behind a closing quote, '\"1\"x'"),
        ('a,b\n1,"\\"x\\" y"', {"a": "1", "b": '\\x\\" y"'}, "line 2: there is text behind a closing quote, '\"\\\\\"x'"),
        ('a,b\n1, "2"', {"a": "1", "b": ' "2"'}, "line 2: a quote behind a blank is part of its cell"),
        (
            'a,b,c,d\n1,2,3,"x\n4,5,6,7\n8,9,10,"\n', {"a": "1", "b": "2", "c": "3", "d": "x\n4,5,6,7\n8,9,10,"},
            'line 2: a cell holds lines that look like rows; if nothing quotes, quote = "" in [csv] reads them',
        ),
    ],
)  # fmt: skip
def test_a_doubtful_row_gives_a_warning(text, first, told):
    found, warnings = read(text)
    assert found[0] == first
    assert warnings == [told]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n1,"2\n3,4\n5,6\n', "in line 2 a quote that is never closed"),
        ('a,b\n\n1,"2\n3,"4"\n5,6\n', "in line 3 a quote that is closed inside a cell in line 4"),
        ('a,"b\n1,2\n', "in line 1 a quote that is never closed"),
    ],
)
def test_a_quote_that_swallows_rows_is_refused(text, message):
    with pytest.raises(ParseFailed, match=message) as refused:
        read(text)
    assert 'quote = "" in [csv]' in str(refused.value)
    assert len(read(text, quote="")[0]) > 0


def test_skipped_lines_may_have_quotes():
    assert read('Report of "today\na,b\n1,2\n', skip=1) == ([{"a": "1", "b": "2"}], [])
    assert read("sep=;\r\na;b\r\n1;2", skip=1) == ([{"a": "1", "b": "2"}], [])
    with pytest.raises(ParseFailed, match="line 4 a quote"):
        read('one\ntwo\na,b\n1,"2', skip=2)


def test_column_names_in_the_definition_and_in_the_file():
    assert read("A,b\n1,2", names=("a", "b"))[1] == [
        "the first row is the line that names the columns: skip = 1 leaves it out"
    ]
    assert read("1,2\n3,4", names=("a", "b")) == ([{"a": "1", "b": "2"}, {"a": "3", "b": "4"}], [])


def test_warnings_come_with_the_result(tmp_path):
    assert parse(tmp_path, "format = 'csv'", "a,b\n1,2,3").warnings == [
        'line 2: expected 2 cells, found 3; "3" has no column'
    ]
    assert rows(tmp_path, "format = 'csv'", "\n\na,b\n1,2") == [{"a": "1", "b": "2"}]


def test_line_ends_are_normalised_for_patterns(tmp_path):
    text = "format = 'text'\n[rows]\nre = '(?m)^(?P<name>\\w+)=(?P<value>.*)$'\n"
    for end in ("\r\n", "\r", "\n"):
        assert rows(tmp_path, text, f"a=1{end}b=2{end}") == [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]


def test_written_tables_are_read_back_and_damaged_ones_give_a_warning():
    assert list(itertools.islice(csv_files.compare(4, 400), 3)) == []


def test_quotes_are_checked_in_linear_time():
    """Each of these took minutes when the search started anew for each quote."""
    for text in ('a,b\n"' + 'x" ' * 200_000, "a,b\n" + ' "' * 300_000, "a,b\n" + '"x" y,"z" q\n' * 30_000):
        list(plain_text.csv_rows(text, Csv(), Warnings()))
