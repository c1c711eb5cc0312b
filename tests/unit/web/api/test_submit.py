"""What a client may send, and how everything that is wrong with it is named at once."""

import json

import pytest

from jobs.definition.catalog import Catalog
from regions.settings import Limits
from tests import sources
from web.api import submit
from web.http.problems import Problem


@pytest.fixture(scope="module")
def rules(tmp_path_factory) -> submit.Rules:
    catalog = Catalog([sources.write(tmp_path_factory.mktemp("sources"))], "fra")
    catalog.refresh()
    return submit.Rules(catalog, Limits(), frozenset(("fra", "nyc", "sin")))


def validate(rules, document, *, sync=False):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return submit.validate(body, rules, sync=sync)


def refused(rules, document) -> Problem:
    with pytest.raises(Problem) as caught:
        validate(rules, document)
    return caught.value


def pointers(problem: Problem) -> list[str]:
    return [pointer for pointer, _ in problem.errors]


LIST = {"source": "demo.list", "params": {"category": "poetry"}}


def test_request_of_two_sources(rules):
    new = validate(rules, {"sources": ["demo.plain", LIST, LIST], "deadline": 12.5, "max_age": 0, "attrs": {"a": 1}})
    plain, one, two = new.tasks
    assert (plain.source, plain.region, plain.url, plain.host) == (
        "demo.plain", "nyc", "https://plain.example:8443/all", "https://plain.example:8443",
    )  # fmt: skip
    assert (one.region, one.params) == ("fra", {"category": "poetry", "page": 1})
    assert (one.url, one.host) == ("https://demo.example/list/poetry?page=1", "https://demo.example:443")
    assert len(one.definition) == 8
    assert len({new.id, plain.id, one.id, two.id}) == 4
    assert all(submit_id(part) for part in (new.id, plain.id))
    assert (new.deadline_ms, new.attrs, new.sync) == (12_500, b'{"a": 1}', False)


def submit_id(text: str) -> bool:
    return len(text) == 26 and text.isupper()


def test_defaults(rules):
    new = validate(rules, {"sources": ["demo.plain"]})
    assert (new.deadline_ms, new.attrs, new.max_age) == (30_000, b"{}", 0)


@pytest.mark.parametrize("max_age", [True, "60", None, [], -0.5])
def test_bad_ages(rules, max_age):
    assert pointers(refused(rules, {"sources": ["demo.plain"], "max_age": max_age})) == ["/max_age"]


@pytest.mark.parametrize("text", ["", "1h", "-1", "nan", "inf", "1e3", "\u0661", "0x10", " 5"])
def test_bad_ages_in_a_query(rules, text):
    with pytest.raises(Problem) as caught:
        submit.from_query("demo.plain", [("max_age", text)], rules)
    assert pointers(caught.value) == ["/max_age"]


@pytest.mark.parametrize(("max_age", "taken"), [(0, 0.0), (60, 60.0), (0.25, 0.25), (10**400, 2.0**31)])
def test_the_age_is_cut_to_what_caches_know(rules, max_age, taken):
    """RFC 9111 cuts it so, too."""
    assert validate(rules, {"sources": ["demo.plain"], "max_age": max_age}).max_age == taken
    assert submit.from_query("demo.plain", [("max_age", str(max_age))], rules).max_age == taken


def test_only_a_single_source_is_synchronous(rules):
    assert validate(rules, {"sources": ["demo.plain"]}, sync=True).sync is True
    assert validate(rules, {"sources": ["demo.plain", "demo.plain"]}, sync=True).sync is False


def test_attrs_come_back_as_they_came(rules):
    body = b'{"attrs" : {"price":1.10, "big":123456789012345678901234567890, "e":"\\u00e9"}, "sources":["demo.plain"]}'
    new = validate(rules, body)
    assert new.attrs == b'{"price":1.10, "big":123456789012345678901234567890, "e":"\\u00e9"}'


def test_all_faults_are_named_at_once(rules):
    problem = refused(
        rules,
        {
            "sources": [
                "demo.lst",
                {"source": "demo.list", "params": {"page": 0, "colour": "red"}},
                {"source": "demo.list", "params": [], "why": 1},
                {"params": {}},
                7,
                "demo.broken",
            ],
            "deadline": 301,
            "max_age": -1,
            "attrs": [],
            "deadlines": 1,
        },
    )
    assert problem.kind == "invalid"
    found = dict(problem.errors)
    assert '"demo.list"' in found["/sources/0"]
    assert "/sources/1/params/category" in found
    assert "/sources/1/params/page" in found
    assert "/sources/1/params/colour" in found
    assert "/sources/2/params" in found
    assert "/sources/2/why" in found
    assert "/sources/3/source" in found
    assert "/sources/4" in found
    assert "broken" in found["/sources/5"]
    assert "300" in found["/deadline"]
    assert found["/max_age"] == "expected a number of seconds from 0, found -1"
    assert "/attrs" in found
    assert '"deadline"' in found["/deadlines"]


@pytest.mark.parametrize("deadline", [0, -1, 300.5, True, "30", None, 1e400])
def test_bad_deadlines(rules, deadline):
    text = json.dumps({"sources": ["demo.plain"], "deadline": deadline}).replace("Infinity", "1e400")
    assert refused(rules, text.encode()).kind in ("invalid", "not-json")


@pytest.mark.parametrize("body", [{}, {"sources": []}, {"sources": "demo.plain"}, {"sources": None}])
def test_sources_must_be_a_list_of_some(rules, body):
    assert pointers(refused(rules, body)) == ["/sources"]


def test_more_than_the_most_tasks(rules):
    assert len(validate(rules, {"sources": ["demo.plain"] * 100}).tasks) == 100
    assert pointers(refused(rules, {"sources": ["demo.plain"] * 101})) == ["/sources"]


def test_source_of_a_region_that_is_not_set_up(rules):
    elsewhere = submit.Rules(rules.catalog, rules.limits, frozenset(("fra",)))
    problem = refused(elsewhere, {"sources": ["demo.plain"]})
    assert problem.errors == [("/sources/0", "demo.plain is in a region that is not set up here: nyc")]


def test_params_have_their_types_own_json_type(rules):
    one = {"source": "demo.list", "params": {"category": 5}}
    assert pointers(refused(rules, {"sources": [one]})) == ["/sources/0/params/category"]
    text = {"source": "demo.list", "params": {"category": "a", "page": "2"}}
    assert pointers(refused(rules, {"sources": [text]})) == ["/sources/0/params/page"]


@pytest.mark.parametrize("document", [b"[]", b"7", b"null", b'"x"'])
def test_json_that_is_no_object_is_invalid(rules, document):
    assert refused(rules, document).kind == "invalid"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"{'a': 1}", b"\xff\xfe", b'{"sources": ["\xe9"]}', b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1e999}',
        b'{"sources": ["demo.plain"], "sources": []}', b'{"attrs": {"a": 1, "a": 2}}', b'{"a": "\\ud800"}',
        b'{"\\ud800": 1}', b'{"sources": ["demo.plain"]} x', b"\xef\xbb\xbf{}", b"[" * 100_000, b"[" * 65 + b"]" * 65,
        b'{"a":' * 200 + b"1" + b"}" * 200, b'{"a": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_json_is_a_400(rules, body):
    assert refused(rules, body).kind == "not-json"


def test_query_is_all_text(rules):
    new = submit.from_query("demo.list", [("category", "poetry"), ("page", "3"), ("wait", "5")], rules)
    assert new.tasks[0].params == {"category": "poetry", "page": 3}
    assert (new.sync, new.tasks[0].url) == (True, "https://demo.example/list/poetry?page=3")


def test_query_faults_are_named_at_once(rules):
    pairs = [("category", "A B"), ("page", "x"), ("colour", "red"), ("colour", "blue"), ("max_age", "-1")]
    with pytest.raises(Problem) as caught:
        submit.from_query("demo.list", pairs, rules)
    assert set(pointers(caught.value)) == {"/category", "/page", "/colour", "/max_age"}


def test_query_has_a_deadline(rules):
    assert submit.from_query("demo.plain", [("deadline", "2.5")], rules).deadline_ms == 2_500
    for text in ("0", "301", "soon", ""):
        with pytest.raises(Problem) as caught:
            submit.from_query("demo.plain", [("deadline", text)], rules)
        assert pointers(caught.value) == ["/deadline"]


def test_query_whose_wait_is_wrong_is_a_400_with_the_other_faults(rules):
    with pytest.raises(Problem) as caught:
        submit.from_query("demo.list", [("page", "x")], rules, [("/wait", "expected seconds")])
    assert (caught.value.kind, set(pointers(caught.value))) == ("bad-request", {"/wait", "/page", "/category"})


def test_query_of_an_unknown_source_is_a_404(rules):
    with pytest.raises(Problem) as caught:
        submit.from_query("demo.lst", [], rules)
    assert caught.value.kind == "not-found"


@pytest.mark.parametrize(
    ("kind", "is_json"),
    [
        ("application/json", True), ("Application/JSON; charset=utf-8", True), ("application/vnd.x+json", True),
        ("", False), ("text/plain", False), ("application/x-www-form-urlencoded", False), ("text/json", False),
    ],
)  # fmt: skip
def test_content_types(kind, is_json):
    assert submit.is_json_type(kind) is is_json


def test_attrs_have_a_limit_in_bytes_as_they_came(rules):
    room = rules.limits.attrs_bytes_max - len(b'{"a":""}')
    assert validate(rules, b'{"attrs":{"a":"%b"},"sources":["demo.plain"]}' % (b"x" * room)).attrs
    with pytest.raises(Problem) as caught:
        validate(rules, b'{"attrs":{"a":"%b"},"sources":["demo.plain"]}' % (b"x" * (room + 1)))
    assert caught.value.errors == [("/attrs", "expected 4000 bytes of JSON at most, found 4001")]
    with pytest.raises(Problem):  # blanks between the members stand in the ledger, too
        validate(rules, b'{"attrs":{%b"a":"%b"},"sources":["demo.plain"]}' % (b" " * room, b"x"))


def test_a_text_has_2000_characters_at_most_where_its_definition_does_not_say(rules):
    text = "a" * 2_000
    new = validate(rules, {"sources": [{"source": "demo.list", "params": {"category": text}}]})
    assert new.tasks[0].params["category"] == text
    problem = refused(rules, {"sources": ["demo.plain", {"source": "demo.list", "params": {"category": text + "a"}}]})
    assert problem.kind == "invalid"
    assert problem.errors == [("/sources/1/params/category", "expected 2000 characters at most, found 2001")]
    with pytest.raises(Problem) as caught:
        submit.from_query("demo.list", [("category", text + "a")], rules)
    assert caught.value.errors == [("/category", "expected 2000 characters at most, found 2001")]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "expected JSON, found an empty body"),
        (b"{", "expected a member's name in double quotes at line 1, column 2, found the end"),
        (b"{'a'", "expected a member's name in double quotes at line 1, column 2, found \"'\""),
        (b'{"a" 1}', 'expected a colon at line 1, column 6, found "1"'),
        (b'{"a": 1 2}', 'expected a comma, or the end of the list or object, at line 1, column 9, found "2"'),
        (b'{"a": }', 'expected a value at line 1, column 7, found "}"'),
        (b"{} x", 'expected the end of the body at line 1, column 4, found "x"'),
        (b'"a', 'expected the end of the text that begins at line 1, column 1, found "\\""'),
        (b'"\\x"', 'expected an escape that JSON has at line 1, column 2, found "\\\\"'),
        (b'"a\nb"', 'expected an escape in place of a control character at line 1, column 3, found "\\n"'),
        (b"9" * 5_000, "expected a number of 1000 digits at most, found one of 5000"),
        (b"\x1f\x8b\x08\x00", "expected JSON, found gzip: a body may not be compressed"),
        (b"\x28\xb5\x2f\xfd\x00", "expected JSON, found zstd: a body may not be compressed"),
        ("{}".encode("utf-16"), "expected JSON in UTF-8, found UTF-16"),
        ("{}".encode("utf-16-le"), "expected JSON in UTF-8, found UTF-16-LE"),
        ("{}".encode("utf-16-be"), "expected JSON in UTF-8, found UTF-16-BE"),
        ("{}".encode("utf-32-le"), "expected JSON in UTF-8, found UTF-32-LE"),
        ("\ufeff{}".encode(), 'expected JSON without a byte order mark at line 1, column 1, found "\\ufeff"'),
        (b"{}\x85", "expected UTF-8, found byte 0x85 at 2"),
    ],
)
def test_messages_about_json_are_our_own(rules, body, detail):
    assert refused(rules, body).detail == detail


@pytest.mark.parametrize(
    ("kind", "charset"),
    [
        ("application/json", ""),
        ("application/json; charset=UTF-8", "utf-8"),
        ('a/b;charset="utf-16"', "utf-16"),
        ("a/b; charset=utf8", "utf-8"),
    ],
)
def test_charset_of_a_content_type(kind, charset):
    assert submit.charset_of(kind) == charset


@pytest.mark.parametrize(("value", "found"), [("a\0b", "without U+0000"), (10**30, "of 18 digits at most")])
def test_params_that_no_source_can_take_say_why(rules, value, found):
    problem = refused(rules, {"sources": [{"source": "demo.list", "params": {"category": "x", "page": value}}]})
    assert found in problem.detail or "whole number" in problem.detail


@pytest.mark.parametrize(
    ("document", "faults"),
    [
        ({"sources": ["demo.lis"] * 100}, 100),
        ({"sources": ["demo.plain"], **{f"m{number}": 1 for number in range(90)}}, 90),
    ],
)
def test_what_was_meant_is_looked_for_a_few_times_only(rules, document, faults, monkeypatch):
    """A search among 500 sources takes 20 ms, in which nobody else is served. Everything that is wrong is still named."""
    sought = []
    monkeypatch.setattr(submit, "nearest", lambda name, _: sought.append(name) or "; did you mean it?")
    said = [detail.endswith("it?") for _, detail in refused(rules, document).errors]
    assert len(sought) == submit.NEAREST_MAX
    assert said == [True] * submit.NEAREST_MAX + [False] * (faults - submit.NEAREST_MAX)
