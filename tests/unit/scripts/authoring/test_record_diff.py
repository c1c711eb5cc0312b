"""The difference of two lists of records, as authors read it."""

import pytest

from scripts.authoring.record_diff import NOTHING, Difference, as_json, differences, lines


def rows(*names, **fields):
    return [{"name": name, **fields} for name in names]


def test_equal_records_do_not_differ():
    """Equal is what has the same JSON, whatever the order of members."""
    assert differences([{"a": 1, "b": [{"c": None}]}], [{"b": [{"c": None}], "a": 1}]) == []
    assert differences([], []) == []


@pytest.mark.parametrize(("old", "new"), [(1, True), (1, 1.0), (0, False), ("1", 1), (None, ""), ([], None)])
def test_values_that_python_takes_for_equal_differ(old, new):
    """JSON's types count: a price that became a float is another value."""
    assert differences([{"a": old}], [{"a": new}]) == [Difference(1, "a", old, new)]


def test_a_changed_field_is_told_by_record_and_field():
    """Also inside of objects and of lists of one length."""
    old = [*rows("x", "y"), {"name": "z", "at": {"lat": 1}, "tags": [{"t": "a"}, {"t": "b"}]}]
    new = [*rows("x", "Y"), {"name": "z", "at": {"lat": 2}, "tags": [{"t": "a"}, {"t": "c"}]}]
    assert list(map(str, differences(old, new))) == [
        'record 2: name: expected "y", found "Y"',
        "record 3: at.lat: expected 1, found 2",
        'record 3: tags[1].t: expected "b", found "c"',
    ]


def test_null_is_not_the_same_as_no_field():
    """A renamed field is one that is missing and one that is more."""
    found = differences([{"a": None}], [{"b": None}])
    assert found == [Difference(1, "a", None, NOTHING), Difference(1, "b", NOTHING, None)]
    assert str(found[0]) == "record 1: a: expected null, found nothing"
    assert as_json(found) == [
        {"record": 1, "field": "a", "expected": None},
        {"record": 1, "field": "b", "found": None},
    ]


def test_a_missing_record_moves_no_other():
    """Records are found again by what stands in them, not by their place."""
    assert differences(rows(*"abcd"), rows(*"acd")) == [Difference(2, "", {"name": "b"}, NOTHING)]
    assert differences(rows(*"acd"), rows(*"abcd")) == [Difference(2, "", NOTHING, {"name": "b"})]


def test_a_missing_record_is_told_where_all_others_changed_too():
    """They are told apart by the field that they still have in common."""
    found = differences(rows(*"abcd", price="1"), rows(*"acd", price=None))
    assert [(one.record, one.field) for one in found] == [(1, "price"), (2, ""), (3, "price"), (4, "price")]


def test_records_that_have_nothing_in_common_are_told_by_their_place():
    found = differences(rows("a", "b"), [{"other": 1}])
    assert [(one.record, one.field) for one in found] == [(1, "name"), (1, "other"), (2, "")]


def test_a_person_reads_three_of_a_kind_and_how_many_more_there_are():
    found = differences(rows(*"abcdefgh", price="1"), rows(*"abcdefgh", price=None))
    assert lines(found) == [
        'record 1: price: expected "1", found null',
        'record 2: price: expected "1", found null',
        'record 3: price: expected "1", found null',
        "and 5 more of price",
    ]
    assert len(lines(found, every=True)) == 8
    assert lines(differences(rows(*"abcde"), []))[-1] == "and 2 more of records that are missing"


@pytest.mark.parametrize(("changed", "count"), [(1, 2_000), (2, 20_000), (3, 2_000)])
def test_long_lists_are_compared_record_by_record(changed, count):
    """Thousands of records, of which each, every other, or every third one changed; and with one missing before them.

    With difflib on whole records 20,000 take minutes.
    """
    old = [{"n": number, "price": "1", "kind": "same"} for number in range(count)]
    new = [{**one, "price": "2"} if index % changed == 0 else one for index, one in enumerate(old)]
    assert len(differences(old, new)) == len(range(0, count, changed))
    assert len(differences(old, new[1:])) == len(range(changed, count, changed)) + 1
