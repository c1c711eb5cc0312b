"""What the tests' HTTP client finds if the OpenAPI document is not true."""

import json

import pytest

from tests.interface import Call, Untrue, check, check_event

HEALTH = json.dumps({"status": "ok"}).encode()
JSON = {"content-type": "application/json", "content-length": "15", "date": "x"}
ID = "01M87RTVVGZ4YJQERQ8DHP48TH"
TIME = "2026-11-24T04:14:00.123Z"
REQUEST = {
    "id": ID, "status": "succeeded", "done": True, "total": 0, "completed": 0, "created_at": TIME, "expires_at": TIME, "results": [],
    "cursor": "0-0", "more": False, "tasks": [], "links": {"self": "/x", "events": "/y"}, "attrs": {},
}  # fmt: skip
TAKEN = {**JSON, "location": "/v1/requests/x", "retry-after": "1"}
PROBLEM = {"type": "/problems/not-found", "title": "x", "status": 404, "detail": "y"}


def taken(**changes: object) -> bytes:
    return json.dumps({**REQUEST, **changes}).encode()


def posted(headers: dict[str, str] | None = None, **body: object) -> Call:
    return Call("POST", "/v1/requests", headers or {}, json.dumps({"sources": ["ecb.rates"], **body}).encode())


def test_true_answers_pass():
    check(Call("GET", "/healthz"), 200, JSON, HEALTH)
    check(Call("HEAD", "/healthz"), 200, JSON, b"")
    check(Call("GET", "http://127.0.0.1/healthz"), 200, JSON, HEALTH)
    check(posted({"Prefer": "wait=1", "Idempotency-Key": "a"}, deadline=5), 202, TAKEN, taken())
    check(
        Call("GET", f"/v1/requests/{ID}"),
        404,
        {"content-type": "application/problem+json"},
        json.dumps(PROBLEM).encode(),
    )
    check(Call("GET", "/of/another/server"), 200, {"x-anything": "1"}, b"ok")
    check_event("done", {name: value for name, value in REQUEST.items() if name != "results"})


@pytest.mark.parametrize(
    ("call", "status", "headers", "body", "what"),
    [
        (Call("GET", "/healthz"), 418, JSON, HEALTH, "the document has 200"),
        (Call("GET", "/healthz"), 200, {**JSON, "x-new": "1"}, HEALTH, "headers that the document does not tell: x-new"),
        (Call("GET", "/healthz"), 200, {**JSON, "content-type": "text/plain"}, HEALTH, "as text/plain"),
        (Call("GET", "/healthz"), 200, JSON, b'{"status": "ok", "more": 1}', "'more' was unexpected"),
        (Call("GET", "/healthz?x=1"), 200, JSON, HEALTH, "does not tell x in its query"),
        (posted(), 202, JSON, taken(), "without Location"),
        (posted(), 202, {**TAKEN, "retry-after": "soon"}, taken(), "retry-after"),
        (posted(), 202, TAKEN, taken(created_at="2026-11-24T04:14:00Z"), "created_at"),
        (posted(), 202, TAKEN, taken(status="well"), "status"),
        (posted(why=1), 202, TAKEN, taken(), "the body that was sent"),
        (posted({"Idempotency-Key": "a b"}), 202, TAKEN, taken(), "Idempotency-Key"),
        (Call("GET", f"/v1/requests/{ID}?wait=soon"), 200, {**JSON, "etag": "x"}, taken(), "wait of its query"),
        (
            Call("GET", "/nothing"), 404, {"content-type": "application/problem+json"},
            json.dumps({**PROBLEM, "type": "/problems/new"}).encode(), "/problems/new",
        ),
    ],
)  # fmt: skip
def test_what_the_document_does_not_say_is_found(call, status, headers, body, what):
    with pytest.raises(Untrue) as found:
        check(call, status, headers, body)
    assert what.lower() in str(found.value).lower()
    assert "web/api/openapi.py" in str(found.value)


def test_an_event_that_the_document_does_not_have_is_found():
    with pytest.raises(Untrue):
        check_event("done", REQUEST)  # without results
    with pytest.raises(Untrue):
        check_event("news", {})
