"""Which records break a contract, and which do not."""

import json
from decimal import Decimal

import pytest

from jobs.errors import ContractBroken, TooLarge
from jobs.parse import contract_check
from jobs.parse.contract_check import check, encoded, gaps
from tests.unit.describing import define

FIELDS = "[fields]\na = 'a'\nb = 'b'\n[contract]\n"


def said(tmp_path, contract, rows, **options) -> str:
    with pytest.raises(ContractBroken) as caught:
        check(define(tmp_path, FIELDS + contract), rows, **options)
    return str(caught.value)


def test_records_that_fulfil_the_contract_pass(tmp_path):
    contract = "required = ['a']\nmin_rows = 2\nunique = ['a', ['a', 'b']]\nrange = {b = [0, 1.5]}"
    check(define(tmp_path, FIELDS + contract), [{"a": 1, "b": Decimal("1.5")}, {"a": 2, "b": None}])


def test_too_few_rows(tmp_path):
    assert said(tmp_path, "", []) == "expected 1 row or more, found 0; nothing on the page says that none is right"
    assert said(tmp_path, "min_rows = 3", [{"a": 1}]) == "expected 3 rows or more, found 1"
    assert "found 1" in said(tmp_path, "min_rows = 3", [{"a": 1}], empty=True)
    definition = define(tmp_path, FIELDS + "min_rows = 3")
    check(definition, [], empty=True)
    check(definition, [], absent=True)


@pytest.mark.parametrize("nothing", [None, "", []])
def test_required(tmp_path, nothing):
    assert "found none in 1 of 2 (row 2)" in said(tmp_path, "required = ['a']", [{"a": 0}, {"a": nothing}])


def test_rows_that_lack_a_field_are_named_up_to_three(tmp_path):
    assert "3 of 3 (rows 1, 2, 3)" in said(tmp_path, "required = ['a']", [{}] * 3)
    assert "4 of 4 (rows 1, 2, 3, …)" in said(tmp_path, "required = ['a']", [{}] * 4)


def test_bad_value_of_a_required_field(tmp_path):
    assert said(tmp_path, "", [{"a": 1}], bad_required=["row 1: a: expected x", "row 2: a"]).startswith(
        "row 1: a: expected x (and 1 more)"
    )
    assert said(tmp_path, "", [{"a": 1}], bad_required=["row 2: a"]) == "row 2: a; it is required"


def test_unique(tmp_path):
    assert "rows 1 and 3" in said(tmp_path, "unique = ['a']", [{"a": "x"}, {"a": "y"}, {"a": "x"}])
    check(define(tmp_path, FIELDS + "unique = ['a']"), [{"a": None}, {"a": None}, {"a": 1}, {"a": "1"}])
    together = [{"a": 1, "b": 1}, {"a": 1, "b": 2}]
    check(define(tmp_path, FIELDS + "unique = [['a', 'b']]"), together)
    assert "a and b" in said(tmp_path, "unique = [['a', 'b']]", [*together, together[0]])


def test_a_repeated_row_is_named_by_its_values_even_after_rows_without_any(tmp_path):
    alone = said(tmp_path, "unique = ['a']", [{"a": None}, {"a": "x"}, {"a": "x"}])
    assert alone == 'expected a a of its own in every row, found "x" in rows 2 and 3'
    half = [{"a": 1, "b": None}, {"a": 1, "b": None}]
    assert "found [1,null] in rows 1 and 2" in said(tmp_path, "unique = [['a', 'b']]", half)


def test_gaps_are_counted_for_fields_that_have_some(tmp_path):
    definition = define(tmp_path, "[fields]\na = 'a'\nb = 'b'\n_hidden = 'd'\nc = 'c'\n")
    rows = [
        {"a": 0, "b": None, "c": "x"},
        {"a": False, "b": "", "c": "x"},
        {"a": 1, "b": [], "c": "x"},
        {"b": "x", "c": ""},
    ]
    assert gaps(definition, rows) == {"a": 1, "b": 3, "c": 1}
    assert gaps(definition, [{"a": 1, "b": 1, "c": 1}]) == gaps(definition, []) == {}


@pytest.mark.parametrize("value", [-1, 1.6, Decimal("1.51"), "2", "x", True, [1]])
def test_range_of_numbers(tmp_path, value):
    assert "expected b from 0 to 1.5" in said(tmp_path, "range = {b = [0, 1.5]}", [{"a": 1, "b": value}])


def test_range_of_dates(tmp_path):
    contract = "range = {b = ['2026-01-01', '2026-12-31']}"
    check(define(tmp_path, FIELDS + contract), [{"b": "2026-06-01"}])
    assert "2025-12-31" in said(tmp_path, contract, [{"b": "2025-12-31"}])
    assert "found 5 in row 1" in said(tmp_path, contract, [{"b": 5}])


@pytest.mark.parametrize("limits", ["[0, 1.5]", "['2026-01-01', '2026-12-31']"])
def test_both_ends_belong_to_a_range_and_a_missing_value_passes(tmp_path, limits):
    contract = f"range = {{b = {limits}}}"
    definition = define(tmp_path, FIELDS + contract)
    ends = [{"b": one} for one in definition.contract.range["b"]]
    check(definition, [*ends, {"b": None}, {"b": ""}])
    assert "in row 4" in said(tmp_path, contract, [*ends, {"b": None}, {"b": "3"}])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_records_are_encoded_as_a_list_up_to_their_limit_of_bytes(count, monkeypatch):
    monkeypatch.setattr(contract_check, "ROWS_AT_ONCE", 2)
    rows = [{"a": "x" * number, "b": Decimal("1.5")} for number in range(count)]
    found = encoded(rows, 10_000)
    assert json.loads(found) == [{"a": "x" * number, "b": "1.5"} for number in range(count)]
    assert encoded(rows, len(found)) == found
    if count:
        with pytest.raises(
            TooLarge, match=f"^expected at most {len(found) - 1} bytes of records, found {len(found)} in the"
        ):
            encoded(rows, len(found) - 1)


def test_too_large_records_fail_before_all_are_encoded():
    with pytest.raises(TooLarge, match="in the first 1000 of 3000 records"):
        encoded([{"a": "x" * 100}] * 3_000, 5_000)
