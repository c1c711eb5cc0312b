"""What each problem means to a client, what to do about it, and an example: the content of the pages that ``type`` leads to.

Texts have code between backticks. docs/http.md has the same ``when``, with links.
"""

from typing import Final

import msgspec
from msgspec import Struct

from jobs import contract, result_frame
from jobs.errors import BY_TYPE
from web.http import problems
from web.http.answer import Answer
from web.http.problems import KINDS, Problem

REQUEST: Final = "01M87RTVVGZ4YJQERQ8DHP48TH"  # of examples
TASK: Final = "01M87RTVVGZ4YJQERQ8DHP48TJ"


class ProblemType(Struct, frozen=True, kw_only=True):
    """One type of problem. ``when``: what has happened; ``remedy``: what to do; ``retryable``: whether the same call may succeed later.

    ``statuses`` has several for what is not valid HTTP, and one otherwise. ``example`` is a problem document.
    """

    type: str
    title: str
    statuses: tuple[int, ...]
    when: str
    remedy: str
    retryable: bool
    example: msgspec.Raw


class _Text(Struct, frozen=True):
    when: str
    remedy: str
    detail: str = ""
    retryable: bool = False


_OF_CALLS: Final[dict[str, _Text]] = {
    "bad-request": _Text(
        "a query that can't be read, or that has an unknown member, a member twice or a bad value. Params and ages of `records` are "
        "422 instead",
        "Correct what `errors` names: a pointer leads to a member of the query.",
        "wait: expected a number of seconds from 0, found 'soon'",
    ),
    "not-json": _Text(
        "the body is not JSON",
        "Send one JSON object in UTF-8. `detail` says at which line and column the body stops being JSON.",
        'expected a comma, or the end of the list or object, at line 1, column 14, found "b"',
    ),
    "unauthorized": _Text(
        "no key, or one that does not exist, has expired or was revoked; with `WWW-Authenticate`",
        "Send `Authorization: Bearer KEY` with a key that the gateway's operator made by `nearfetch key create`.",
        "expected an API key: Authorization: Bearer nf_…",
    ),
    "forbidden": _Text(
        "the key lacks the scope, or may not ask the source",
        "Use a key that has the scope, or ask for sources that the key may ask.",
        "expected sources that the key may ask (ecb.*), found books.list",
    ),
    "cross-site": _Text(
        "a browser says (`Sec-Fetch-Site`) that the page of another site asks for records, posts or deletes",
        "Ask from a page of the gateway itself, or let its operator add the origin of your page to `gateway.cors_origins`.",
        "expected no page of another site to ask, found Sec-Fetch-Site: cross-site",
    ),
    "not-found": _Text(
        "an unknown path, request, source or region",
        "Compare the path and the id with those that you were given. What belongs to another tenant is not found either.",
        f"there is no request {REQUEST}",
    ),
    "method-not-allowed": _Text(
        "a method that the path does not have; with `Allow`", "Use one of the methods in `Allow`.", "expected GET, HEAD, POST"
    ),
    "not-acceptable": _Text(
        "`Accept` permits no form in which records can be given",
        "Accept `application/json`, `text/csv` or `application/x-ndjson`.",
        "expected one of application/json, text/csv, application/x-ndjson, found image/png",
    ),
    "in-flight": _Text(
        "a post with the same `Idempotency-Key` is being taken, perhaps by another gateway; with `Retry-After`",
        "Post the same body with the same key again, after the seconds in `Retry-After`.",
        f"request {REQUEST}, which came with this Idempotency-Key, is being accepted; ask again",
        retryable=True,
    ),
    "expired": _Text(
        "the results of this request are no longer kept",
        "Post a new request. Results are kept until the time in `expires_at`.",
        "its results were kept for 3600 s, and have expired",
    ),
    "too-large": _Text(
        "a body above 1 MB, or any body on a call that takes none",
        "Split the request into several. Send no body where none is taken.",
        "expected a body of 1000000 bytes at most, found more",
    ),
    "not-json-type": _Text(
        "the Content-Type is not JSON's or names another charset than UTF-8, or there is a Content-Encoding",
        "Send `Content-Type: application/json`, and a body in UTF-8 that is not compressed.",
        "expected application/json, found text/plain",
    ),
    "too-many": _Text(
        "this address has too many unfinished requests and answers; with `Retry-After`",
        "Take the answers that wait for you, and ask again after the seconds in `Retry-After`.",
        "unfinished requests and answers of this address take all the room that it may use",
        retryable=True,
    ),
    "limit": _Text(
        "the key has used up the limit that `limit` names; with `Retry-After`",
        "Ask again after the seconds in `Retry-After`, or let the gateway's operator raise the limit.",
        "expected at most open_tasks = 100 with this key, found more",
        retryable=True,
    ),
    "wrong-host": _Text(
        "the Host is not a name of this machine",
        "Call the gateway by a name of its machine, or let its operator set `gateway.public_url`. A gateway with keys takes any name.",
        "expected one of 127.0.0.1, localhost, found 'evil.example'",
    ),
    "invalid": _Text(
        "an unknown source or member, bad params, too many tasks, or a deadline above its limit; nothing is queued",
        "Correct what `errors` names: a pointer leads into the body, or to a member of the query. `GET /v1/sources` has all sources "
        "with their params.",
        'there is no source "ecb.rate"; did you mean ecb.rates?',
    ),
    "key-reused": _Text(
        "the `Idempotency-Key` came with another body before",
        "Make a new key for each new request.",
        "expected the body that came with this Idempotency-Key before, found another one",
    ),
    "internal": _Text(
        "a fault of Nearfetch",
        "Ask again. If that does not help, tell the gateway's operator, who finds a traceback in its log.",
        "an error of the gateway; its log has the traceback",
        retryable=True,
    ),
    "unavailable": _Text(
        "the broker did not confirm, the hub's Redis is away or full, or there is no more room for unfinished requests and answers. "
        "Nothing was accepted. If there was an id, `request` names it, and that request will never be delivered",
        "Ask again after the seconds in `Retry-After`. `GET /readyz` says when requests can be taken.",
        "RabbitMQ did not confirm in time",
        retryable=True,
    ),
    problems.PROTOCOL: _Text(
        "bytes that are not HTTP, or that two readers could read in two ways; the connection is closed",
        "Use an HTTP library. If you do, look for a proxy on the way that changes requests.",
        "expected one Host, found none",
    ),
}  # fmt: skip

# By the type of a task's error: (what it means, what to do). docs/http.md has the same meanings.
_OF_TASKS: Final[dict[str, tuple[str, str]]] = {
    "timeout": (
        "no answer within the fetch's time-out",
        "Ask again. If that does not help, the site is slow: `GET /v1/sources/{source}` shows how long its pages take.",
    ),
    "connection": (
        "the name look-up, the connection or TLS failed, or the body was cut short",
        "Ask again. If that does not help, the site is down, or its name or certificate is wrong.",
    ),
    "http_status": (
        "the target's status is not that of a page, or it redirects too often",
        "`error.http_status` has the status. After a 404, correct the params: they name something that the site does not have.",
    ),
    "too_large": (
        "the page or the records exceeded their limit",
        "Ask for less, if the source has a param for that. Otherwise its author can raise the limit.",
    ),
    "blocked": (
        "a wall instead of the page",
        "Do not ask more often: the site keeps programs out. The source's author can look for another way to the data.",
    ),
    "blocked_address": (
        "the address or the scheme may not be fetched",
        "Correct the params: they lead to a private address, or to a scheme other than http and https.",
    ),
    "rate_limited": (
        "the target asks to wait, or a limit of the region does; see `retry_after`",
        "Ask again after the seconds in `error.retry_after`.",
    ),
    "decode": (
        "the page can't be decompressed, or it is not text in any charset that it may have",
        "Tell the source's author, who can try it by `nearfetch source try`.",
    ),
    "parse": ("the page can't be parsed", "Tell the source's author, who can try it by `nearfetch source try`."),
    "contract": (
        "the records break what the source promises",
        "The site has changed, most likely. Tell the source's author, who can try it by `nearfetch source try`.",
    ),
    "expired": (
        "no result came by the deadline",
        "Ask with a longer `deadline`. `GET /v1/tasks/{task}` shows where the task spent its time.",
    ),
    "cancelled": ("somebody asked to stop it", "Ask again, if it was stopped by mistake."),
    "poison": (
        "the task crashed its worker process again and again",
        "Ask for less, or for something else. The source's author can try it by `nearfetch source try`.",
    ),
    "unknown_source": (
        "the region does not have this source, or its definition is broken there",
        "`GET /v1/sources/{source}` shows which regions have it, and what is wrong with it there.",
    ),
    "region_unavailable": (
        "the region could not be asked",
        "Ask again. `GET /v1/regions` says what is wrong with the region.",
    ),
    "internal": (
        "a fault of Nearfetch",
        "Ask again. If that does not help, tell the gateway's operator.",
    ),
}


def _example(kind: str, text: _Text) -> Answer:
    after = [("Retry-After", "1")] if text.retryable else []
    if kind == problems.PROTOCOL:
        return problems.protocol(400, text.detail)
    if kind == "invalid":
        return problems.invalid([("/sources/0", text.detail)]).answer()
    if kind == "bad-request":
        return Problem(kind, text.detail, errors=[("/wait", text.detail.removeprefix("wait: "))]).answer()
    if kind == "limit":
        return problems.limited("open_tasks", "100", 1.0).answer()
    extra = {"request": REQUEST} if kind == "unavailable" else None
    return Problem(kind, text.detail, headers=after, extra=extra).answer()


def _task_example(kind: str, when: str) -> Answer:
    error = BY_TYPE[kind](when, retry_after=2.0 if kind == "rate_limited" else None)
    result = contract.Result(task=TASK, source="ecb.rates", region="fra", status=_status(kind))
    frame = result_frame.failed(result, error)
    return problems.failed_task(result_frame.splice(frame), msgspec.to_builtins(contract.Error.of(error)))


def _status(kind: str) -> str:
    return kind if kind in ("expired", "cancelled") else "failed"


def _of_calls() -> list[ProblemType]:
    found = []
    for kind, text in _OF_CALLS.items():
        answer = _example(kind, text)
        statuses = problems.PROTOCOL_STATUSES if kind == problems.PROTOCOL else (KINDS[kind][0],)
        title = "This is not valid HTTP" if kind == problems.PROTOCOL else KINDS[kind][1]
        found.append(
            ProblemType(
                type=problems.PAGES + kind,
                title=title,
                statuses=statuses,
                when=text.when,
                remedy=text.remedy,
                retryable=text.retryable,
                example=msgspec.Raw(answer.body),
            )
        )
    return found


def _of_tasks() -> list[ProblemType]:
    found = []
    for kind, (when, remedy) in _OF_TASKS.items():
        answer = _task_example(kind, when)
        found.append(
            ProblemType(
                type=problems.TASK_PAGES + kind,
                title=f"The source could not be fetched: {kind}",
                statuses=(answer.status,),
                when=when,
                remedy=remedy,
                retryable=BY_TYPE[kind].retryable,
                example=msgspec.Raw(answer.body),
            )
        )
    return found


# By ``type``, those of calls first.
TYPES: Final[dict[str, ProblemType]] = {one.type: one for one in (*_of_calls(), *_of_tasks())}
