"""Problem documents (RFC 9457): one kind for each reason of a refusal, with a stable ``type``, which is also its page's address.

    {"type": "/problems/invalid", "title": "…", "status": 422, "detail": "…",
     "errors": [{"pointer": "/sources/0/params/category", "detail": "…"}]}

A pointer (RFC 6901) leads into the body; for a query it is ``/NAME``.
"""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from web.http.answer import Answer
from web.http.quota import Over

MEDIA_TYPE: Final = "application/problem+json"

# ``type`` is one of these and a kind: a reference to a page of the same gateway (web.api.problem_types). Never change one.
PAGES: Final = "/problems/"
TASK_PAGES: Final = "/problems/task/"
# What is not valid HTTP has one kind and several statuses: it never reaches a handler.
PROTOCOL: Final = "protocol"
PROTOCOL_STATUSES: Final = (400, 408, 414, 431, 505)

# kind → (status, title). The kind is the last part of the type: never rename one.
KINDS: Final[dict[str, tuple[int, str]]] = {
    "bad-request": (400, "The request can't be understood"),
    "not-json": (400, "The body is not JSON"),
    "unauthorized": (401, "A key is needed"),
    "forbidden": (403, "The key does not permit this"),
    "not-found": (404, "There is nothing here"),
    "method-not-allowed": (405, "This method is not for this path"),
    "not-acceptable": (406, "The result has none of the forms that Accept permits"),
    "in-flight": (409, "The same post is being taken"),
    "expired": (410, "The request has expired"),
    "too-large": (413, "The body is too large"),
    "not-json-type": (415, "The body must be JSON by its Content-Type"),
    "cross-site": (403, "Another site's page may not ask for this"),
    "wrong-host": (421, "This gateway answers only to this machine's names"),
    "invalid": (422, "The request is not valid"),
    "key-reused": (422, "The Idempotency-Key came with another body before"),
    "too-many": (429, "This address has too many unfinished requests and answers"),
    "limit": (429, "The key has used up a limit"),
    "internal": (500, "Something went wrong here"),
    "unavailable": (503, "Requests can't be taken now"),
}

TASK_STATUSES: Final[dict[str, int]] = {
    "timeout": 504,
    "expired": 504,
    "rate_limited": 429,
    "region_unavailable": 503,
    "internal": 503,
}


class Problem(Exception):  # noqa: N818
    """Ends a request with a problem document. ``errors``: (pointer, detail) of each; ``extra``: further members."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        errors: Sequence[tuple[str, str]] = (),
        headers: Sequence[tuple[str, str]] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.errors = kind, detail, list(errors)
        self.headers, self.extra = list(headers), dict(extra or {})

    def answer(self) -> Answer:
        """The document as an answer."""
        status, title = KINDS[self.kind]
        document: dict[str, Any] = {
            "type": PAGES + self.kind,
            "title": title,
            "status": status,
            "detail": self.detail,
            **self.extra,
        }
        if self.errors:
            document["errors"] = [{"pointer": pointer, "detail": detail} for pointer, detail in self.errors]
        return _answer(document, self.headers)


def pointer(*parts: str | int) -> str:
    """An RFC 6901 pointer."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def invalid(errors: Sequence[tuple[str, str]]) -> Problem:
    """A problem with all faults of a request at once."""
    count = len(errors)
    detail = errors[0][1] if count == 1 else f"{count} things are wrong with it; see errors"
    return Problem("invalid", detail, errors=errors)


def unavailable(reason: str, request: str | None = None, **extra: Any) -> Problem:
    """A problem that says that nothing was accepted; ``request`` is the id that will never be delivered. ``extra``: further members."""
    if request:
        extra["request"] = request
    return Problem("unavailable", reason, headers=[("Retry-After", "1")], extra=extra)


def limited(limit: str, most: str, after_seconds: float) -> Problem:
    """A problem for a limit of an API key: which one, its value, and when to ask again."""
    headers = [("Retry-After", str(max(1, math.ceil(after_seconds))))]
    return Problem(
        "limit", f"expected at most {limit} = {most} with this key, found more", headers=headers, extra={"limit": limit}
    )


def crowded(over: Over) -> Problem:
    """A problem for a full quota: that of one address, or that of the gateway."""
    if over == "address":
        detail = "unfinished requests and answers of this address take all the room that it may use"
        return Problem("too-many", detail, headers=[("Retry-After", "1")])
    return unavailable("unfinished requests and answers take all the room that this gateway has for them")


def not_acceptable(forms: Sequence[str], wanted: str) -> Problem:
    """A problem for an Accept header that permits none of ``forms``."""
    return Problem(
        "not-acceptable", f"expected one of {', '.join(forms)}, found {wanted[:200]}", headers=[("Vary", "Accept")]
    )


def internal() -> Problem:
    """A problem for a fault of ours, whose traceback is in the log."""
    return Problem("internal", "an error of the gateway; its log has the traceback")


def failed_task(result: bytes, error: Mapping[str, Any]) -> Answer:
    """The answer for a failed synchronous task: a problem document that carries the whole result. ``error`` is its error."""
    kind = str(error["type"])
    document = {
        "type": TASK_PAGES + kind,
        "title": f"The source could not be fetched: {kind}",
        "status": TASK_STATUSES.get(kind, 502),
        "detail": error["message"],
        "result": msgspec.Raw(result),
    }
    retry_after = error.get("retry_after")
    headers = [("Retry-After", str(max(1, math.ceil(retry_after))))] if retry_after else []
    return _answer(document, headers)


def protocol(status: int, detail: str) -> Answer:
    """The answer to bytes that are not valid HTTP; they never reach the app."""
    known = HTTPStatus(status)
    document = {
        "type": PAGES + PROTOCOL,
        "title": known.phrase,
        "status": status,
        "detail": detail or known.description or known.phrase,
    }
    return _answer(document, ())


def _answer(document: Mapping[str, Any], headers: Sequence[tuple[str, str]]) -> Answer:
    fields = [("Content-Type", MEDIA_TYPE), ("Cache-Control", "no-store"), *headers]
    return Answer(int(document["status"]), msgspec.json.encode(document), fields)
