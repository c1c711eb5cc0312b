"""JSON as servers write it is read correctly, or with a warning, or refused with a reason. None is read wrong silently."""

import pytest

from jobs import page
from jobs.errors import ParseFailed
from tests.unit.describing import parse, rows

HEAD = "format = 'json'\n"


def read(body):
    told = []
    return page.parse_json(body, told), told


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b'["\\ud83d\\ude00", "\\u00e9"]', ["😀", "é"]),
        (b'{"a": 1, "a": 2}', {"a": 2}),  # as in browsers
        (b'{"a": 1}\n\n{"a": 2}\r\n', [{"a": 1}, {"a": 2}]),
        (b'\x1e{"a": 1}\n\x1e{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        (b'\x1e{"a": 1}\n', [{"a": 1}]),
        (b"1\n2\n", [1, 2]),
        (b')]}\'\n{"a": 1}', {"a": 1}),
        (b'/**/cb({"a": 1});', {"a": 1}),
        (b'{"a": "x\ny\x01"}', {"a": "x\ny\x01"}),
    ],
)
def test_unambiguous_json_is_read_without_a_warning(body, value):
    assert read(body) == (value, [])


@pytest.mark.parametrize(
    ("body", "value", "told"),
    [
        (b'{"a": NaN, "b": [Infinity]}', {"a": None, "b": [None]}, "NaN is not JSON: it was read as null"),
        (b"[-Infinity]", [None], "-Infinity is not JSON: it was read as null"),
        (b'{"a": "\\ud800x"}', {"a": "\ufffdx"}, "a lone surrogate is not text: it was read as U+FFFD"),
    ],
)
def test_invalid_json_that_is_read_anyway_gives_a_warning(body, value, told):
    assert read(body) == (value, [told])


def test_warnings_come_with_the_result(tmp_path):
    parsed = parse(tmp_path, HEAD + "[fields]\na = {}\nb = {}", b'{"a": NaN, "b": 1}')
    assert parsed.rows == [{"a": None, "b": 1}]
    assert parsed.warnings == ["NaN is not JSON: it was read as null"]


@pytest.mark.parametrize(
    ("expression", "body"), [("ceil(a)", b'{"a": 1e999}'), ("floor(to_number(a))", b'{"a": "inf"}')]
)
def test_a_number_too_large_for_an_expression_is_null_and_a_warning(tmp_path, expression, body):
    parsed = parse(tmp_path, HEAD + f"[fields]\na = '{expression}'\nb = 'a'", body)
    assert parsed.rows[0]["a"] is None
    assert parsed.warnings == [
        f'row 1: a: expected a value that "{expression}" accepts, found "cannot convert float infinity to integer"'
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"a": 1} x', "Extra data"),
        (b'{"a": 1}{"a": 2}', "Extra data"),
        (b'{"a": 1}\n{"a":\n', "JSON lines, and in line 2"),
        (b'{"a": 1}\n{"a": 2}\noops', "JSON lines, and in line 3"),
        (b'{"a": 1}\n0', "text behind its end in line 2"),
        (b"[1, 2", "delimiter"),
        (b"[1,]", "Expecting value|Illegal trailing comma"),
        (b"", "Expecting value"),
        (b"[" * 100_000 + b"]" * 100_000, "too deep nesting"),
        (b"9" * 5_000, "limit"),
    ],
)
def test_other_texts_are_refused(body, message):
    with pytest.raises(ParseFailed, match=message):
        read(body)


@pytest.mark.parametrize("depth", [150, 300, 900])
@pytest.mark.parametrize("fields", ["a = {jmes = '@'}", "a = {jmes = 'a'}", "a = {jmes = 'a[0]'}"])
def test_a_value_may_be_nested_as_deep_as_clients_can_parse(tmp_path, fields, depth):
    """900 levels once raised RecursionError in the worker."""
    body = '{"a": ' + "[" * depth + "]" * depth + "}"
    parsed = parse(tmp_path, f"{HEAD}[fields]\n{fields}\nb = {{const = 1}}", body)
    if depth < 200:
        assert parsed.warnings == []
        assert parsed.rows[0]["a"] is not None
    else:
        assert parsed.rows[0]["a"] is None
        assert "at most 200 levels" in parsed.warnings[0]


def test_json_in_utf16_is_read(tmp_path):
    """RFC 4627 allowed it; the zero bytes of its first characters show it."""
    for codec in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-16"):
        body = '{"a": "é", "b": [1]}'.encode(codec)
        parsed = parse(tmp_path, HEAD + "[fields]\na = {}", body)
        assert parsed.rows == [{"a": "é"}]
        assert bool(parsed.warnings) == (codec != "utf-16")


def test_json_lines_are_rows(tmp_path):
    text = HEAD + "[rows]\njmes = '@'\n[fields]\na = {}"
    assert rows(tmp_path, text, '{"a": 1}\n{"a": 2}\n') == [{"a": 1}, {"a": 2}]
