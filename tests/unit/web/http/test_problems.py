"""Problem documents: their types are stable, their status is their answer's, pointers are RFC 6901's."""

import json

import pytest

from web.http import problems


def document(answer) -> dict:
    assert ("Content-Type", "application/problem+json") in answer.headers
    found = json.loads(answer.body)
    assert found["status"] == answer.status
    return found


@pytest.mark.parametrize("kind", problems.KINDS)
def test_every_kind_has_its_own_type_and_status(kind):
    found = document(problems.Problem(kind, "why").answer())
    assert found["type"] == f"/problems/{kind}"
    assert (found["detail"], found["status"]) == ("why", problems.KINDS[kind][0])
    assert found["title"]


def test_invalid_lists_every_fault():
    found = document(problems.invalid([("/sources/0", "one"), ("/deadline", "two")]).answer())
    assert found["errors"] == [{"pointer": "/sources/0", "detail": "one"}, {"pointer": "/deadline", "detail": "two"}]


def test_pointer_escapes_what_rfc_6901_escapes():
    assert problems.pointer("a/b", 0, "c~d") == "/a~1b/0/c~0d"


def test_unavailable_names_the_request_that_will_never_be_delivered():
    answer = problems.unavailable("the broker is away", "01J").answer()
    assert document(answer)["request"] == "01J"
    assert ("Retry-After", "1") in answer.headers


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("timeout", 504), ("expired", 504), ("rate_limited", 429), ("region_unavailable", 503), ("internal", 503),
        ("http_status", 502), ("blocked", 502), ("contract", 502), ("unknown_source", 502), ("connection", 502),
    ],
)  # fmt: skip
def test_failed_task_carries_its_result(kind, status):
    result = b'{"task":"01J","records":[]}'
    answer = problems.failed_task(result, {"type": kind, "message": "so it was", "retry_after": 2.4})
    found = document(answer)
    assert (found["status"], found["type"], found["detail"]) == (status, f"/problems/task/{kind}", "so it was")
    assert found["result"] == {"task": "01J", "records": []}
    assert ("Retry-After", "3") in answer.headers, "after 2 s it is too early"
