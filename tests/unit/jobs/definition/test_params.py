"""The values that params accept, from a query string and from JSON."""

import pytest

from jobs.definition import params as of_params
from jobs.definition.field import TYPES, Value
from jobs.definition.params import NAMES_MAX, BadParams, Param, bind
from jobs.definition.schema import of_record


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("str", "x", "x"),
        ("int", "-5", -5),
        ("float", "1.5", 1.5),
        ("decimal", "1.50", "1.50"),
        ("bool", "Yes", True),
        ("bool", "0", False),
        ("date", "2026-11-24", "2026-11-24"),
        ("datetime", "2026-11-24T04:14:00Z", "2026-11-24T04:14:00Z"),
        ("duration", "PT1H", "PT1H"),
        ("url", "https://a.example/?b", "https://a.example/?b"),
    ],
)
def test_text_of_a_query(kind, text, value):
    assert bind({"a": Param(type=kind)}, {"a": text}, text=True) == {"a": value}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "5.0"),
        ("int", "five"),
        ("int", "9" * 30),
        ("float", "nan"),
        ("float", "1e999"),
        ("decimal", "1,5"),
        ("decimal", "1e5"),
        ("bool", "maybe"),
        ("date", "24.11.2026"),
        ("date", "20261124"),
        ("datetime", "yesterday"),
        ("url", "javascript:alert(1)"),
        ("url", "//a.example/"),
        ("str", "a\0b"),
        ("str", "\ud800"),
    ],
)
def test_text_that_does_not_fit_its_type(kind, text):
    with pytest.raises(BadParams, match="expected"):
        bind({"a": Param(type=kind)}, {"a": text}, text=True)


@pytest.mark.parametrize("kind", sorted(set(TYPES) - {"str"}))
def test_every_type_refuses_what_does_not_fit_it_and_has_a_schema(kind):
    """A new one is known wherever types are."""
    with pytest.raises(BadParams, match=r"expected .*, found"):
        bind({"a": Param(type=kind)}, {"a": "of no type"}, text=True)
    assert of_record("", {"a": Value(type=kind)}, ["a"], None)["properties"]["a"]["type"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [("str", 5), ("int", "5"), ("int", 5.0), ("int", True), ("bool", 1), ("float", "1"), ("date", 20261124)],
)
def test_json_values_have_the_json_type_of_their_param(kind, value):
    with pytest.raises(BadParams):
        bind({"a": Param(type=kind)}, {"a": value}, text=False)


def test_json_values():
    params = {"i": Param(type="int"), "f": Param(type="float"), "d": Param(type="decimal"), "b": Param(type="bool")}
    assert bind(params, {"i": 5, "f": 2, "d": 1.5, "b": False}, text=False) == {
        "i": 5,
        "f": 2.0,
        "d": "1.5",
        "b": False,
    }
    assert bind(params, {"d": "1.50"}, text=False) == {"d": "1.50"}


def test_defaults_and_order_are_the_definitions():
    params = {"a": Param(default="x"), "b": Param(), "c": Param(type="int", default=3)}
    assert list(bind(params, {"c": 4, "b": "y"}, text=False).items()) == [("a", "x"), ("b", "y"), ("c", 4)]
    assert bind(params, {}, text=True) == {"a": "x", "c": 3}
    assert bind(params, {"a": None}, text=False)["a"] == "x"


def test_required_and_empty():
    required = {"a": Param(required=True)}
    for given in ({}, {"a": ""}, {"a": None}):
        with pytest.raises(BadParams, match="required"):
            bind(required, given, text=False)
    assert bind({"a": Param()}, {"a": ""}, text=True) == {"a": ""}
    assert bind({"a": Param(type="int")}, {"a": ""}, text=True) == {}


def test_limits_of_values():
    number = {"n": Param(type="int", min=1, max=10)}
    text = {"t": Param(pattern=r"[A-Z]{4}\d{7}", max=11)}
    assert bind(number, {"n": "10"}, text=True) == {"n": 10}
    for params, given in (
        (number, {"n": "11"}),
        (number, {"n": "0"}),
        (text, {"t": "MSKU6874333x"}),
        (text, {"t": "x"}),
    ):
        with pytest.raises(BadParams):
            bind(params, given, text=True)
    with pytest.raises(BadParams, match="one of a, b"):
        bind({"e": Param(enum=("a", "b"))}, {"e": "c"}, text=True)
    with pytest.raises(BadParams):
        bind({"d": Param(type="date", min="2026-01-01")}, {"d": "2025-12-31"}, text=True)


def test_all_faults_are_reported():
    with pytest.raises(BadParams) as caught:
        bind({"page": Param(type="int"), "q": Param(required=True)}, {"pgae": "1", "page": "x"}, text=True)
    assert [name for name, _ in caught.value.faults] == ["pgae", "page", "q"]
    assert 'did you mean "page"' in caught.value.faults[0][1]


@pytest.mark.parametrize("kind", ["str", "url", "decimal", "datetime", "duration"])
def test_a_text_without_a_max_has_the_general_one(kind):
    given = {"url": "https://a.example/", "duration": "PT1H"}.get(kind, "1") + "1" * 3_000
    with pytest.raises(BadParams, match="expected 2000 characters at most"):
        bind({"a": Param(type=kind)}, {"a": given}, text=True, chars_max=2_000)


def test_a_max_replaces_the_general_one():
    param = Param(max=5_000)
    assert bind({"a": param}, {"a": "x" * 5_000}, text=True, chars_max=2_000) == {"a": "x" * 5_000}
    with pytest.raises(BadParams, match="up to 5000"):
        bind({"a": param}, {"a": "x" * 5_001}, text=True, chars_max=2_000)
    with pytest.raises(BadParams, match="expected 2000 characters at most"):  # of a number it is no length
        bind({"a": Param(type="decimal", max=5_000)}, {"a": "0" * 2_001}, text=True, chars_max=2_000)


def test_a_body_of_unknown_params_costs_no_more_than_its_answer_shows(monkeypatch):
    """Each search for the nearest name takes 50 µs: 80,000 of them held a gateway up for seconds."""
    sought = []
    monkeypatch.setattr(of_params, "nearest", lambda name, _: sought.append(name) or "")
    given = {f"p{number}": 1 for number in range(1_000)}
    with pytest.raises(BadParams) as caught:
        bind({"page": Param(type="int")}, given, text=False)
    assert [name for name, _ in caught.value.faults] == sought == list(given)[:NAMES_MAX]
