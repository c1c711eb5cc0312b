"""Queries of calls and Prefer headers: what is read, and that all faults are told at once."""

from urllib.parse import parse_qsl

import pytest

from web.api.query import Query, is_cursor, preferred_wait, seconds
from web.http.problems import Problem


class Asked:
    """The part of an exchange that a query reads."""

    def __init__(self, text: str) -> None:
        self._text = text

    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(self._text, keep_blank_values=True, errors="strict", max_num_fields=200)


def read(text: str, known) -> None:
    query = Query(Asked(text), known)
    query.seconds("wait", 0, 60)
    query.cursor("after")
    query.number("limit", 50, 200)
    query.check()


def refused(text: str, known) -> Problem:
    with pytest.raises(Problem) as caught:
        read(text, known)
    return caught.value


def test_all_faults_are_told_at_once():
    problem = refused("after=5&wait=soon&limit=0&colour=red&wait=3", ("after", "wait", "limit"))
    assert problem.kind == "bad-request"
    assert {where for where, _ in problem.errors} == {"/after", "/wait", "/limit", "/colour"}
    assert len(problem.errors) == 5
    assert problem.detail == "5 things are wrong with the query; see errors"


def test_a_single_fault_is_the_detail():
    assert refused("aftr=5-0", ("after", "wait")).detail == 'aftr: unknown member "aftr"; did you mean "after"?'
    assert refused("a=1", ()).detail == 'a: unknown member "a"; this call takes none'


def test_a_query_that_can_not_be_read_says_why():
    assert refused("a=%ff", ("a",)).detail == "query: expected UTF-8, found byte 0xff"
    assert refused("&".join(["a=1"] * 201), ("a",)).detail == "query: expected 200 members at most, found more"


def test_members():
    query = Query(Asked("wait=1e3&after=5-0&limit=7"), ("wait", "after", "limit"))
    assert (query.seconds("wait", 0, 60), query.cursor("after"), query.number("limit", 50, 200)) == (60, "5-0", 7)
    query = Query(Asked(""), ("wait",))
    assert (query.seconds("wait", 30, 60), query.cursor("after"), query.number("limit", 50, 200)) == (30, None, 50)
    query.check()


@pytest.mark.parametrize("text", ["", "5", "5-", "-5", "(5-0", "5-0 ", "99999999999999999999-0"])
def test_what_is_no_cursor(text):
    assert not is_cursor(text)


@pytest.mark.parametrize("text", ["", "a", "-1", "nan", "inf", "1,5"])
def test_what_is_no_number_of_seconds(text):
    assert seconds(text) is None


@pytest.mark.parametrize("value", [288783.4017577385, 1e-05, 1e16, 0.1 + 0.2])
def test_seconds_as_programs_write_them(value):
    assert seconds(repr(value)) == value


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("", 0), ("wait=10", 10), ("respond-async, wait=10", 10), ('Wait = "5"', 5), ("wait=5; x=1", 5), ("await=5", 0),
        ("return=minimal", 0), ("wait=5, wait=7", 5), ("wait=soon", 0), ("wait=-1", 0), ("wait", 0), ('wait="', 0),
        ('x="a, wait=3"', 0), ("wait=0.2", 0.2),
    ],
)  # fmt: skip
def test_prefer_header_that_can_not_be_read_is_ignored(header, wait):
    assert preferred_wait(header) == wait
