"""``GET /openapi.json``: the HTTP interface in OpenAPI 3.1. docs/http.md explains; tests hold the document against real answers.

    routes of web.app ── a ``_call`` in ``_paths``, its schemas in web.api.schemas, its headers in ``HEADERS``

A test fails for a route of web.app that is not here, and for an answer that differs from what stands here.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

import msgspec

from jobs.errors import BY_TYPE
from regions.settings import Limits
from web.api.recall import RUNNING, STATUSES
from web.api.rows import CONTENT_TYPES
from web.api.schemas import (
    ANY_ID,
    CURSOR,
    OPEN,
    REGION,
    SECONDS,
    SOURCE,
    TAKEN,
    TEXT,
    TEXTS,
    Schema,
    closed,
    opened,
    ref,
    schemas,
)
from web.api.webhooks import ENDED
from web.flow.history import PAGE, PAGE_MAX
from web.http.answer import Answer
from web.http.problems import KINDS, PROTOCOL, PROTOCOL_STATUSES

VERSION: Final = "0.1.0"

JSON: Final = "application/json"
HTML: Final = "text/html"
PROBLEM: Final = "application/problem+json"

# What may go wrong with any call, and with a call that needs the hub.
ANYWHERE: Final = (400, 401, 403, 408, 413, 414, 421, 429, 431, 500, 503, 505)

# Every header of an answer that a client may want to read, beside those of HTTP's framing: (schema, what it says).
HEADERS: Final[dict[str, tuple[Schema, str]]] = {
    "Access-Control-Allow-Origin": (TEXT, "The origin of `gateway.cors_origins` whose page asked."),
    "Access-Control-Expose-Headers": (TEXT, "The headers that such a page may read."),
    "Age": ({"type": "integer", "minimum": 0}, "How many seconds old the result is, if `max_age` is not 0."),
    "Cache-Control": (TEXT, "How long caches may keep the answer: records for as long as `max_age`, most others not at all."),
    "Content-Encoding": ({"enum": ["zstd", "gzip"]}, "How the body is compressed."),
    "Content-Security-Policy": (TEXT, "That a page loads nothing and runs nothing."),
    "ETag": (TEXT, "For `If-None-Match`."),
    "Idempotency-Replayed": ({"const": "true"}, "The post had an `Idempotency-Key` that came before, and this is the answer of then."),
    "Link": (TEXT, 'With `rel="describedby"`: the request that has what records alone can not say.'),
    "Location": ({"type": "string", "format": "uri-reference"}, "Where the request is."),
    "Nearfetch-Count": ({"type": "integer", "minimum": 0}, "How many records there are, with CSV and NDJSON."),
    "Nearfetch-Partial": ({"enum": ["true", "false"]}, "Whether later pages failed, with CSV and NDJSON."),
    "Nearfetch-Warnings": ({"type": "integer", "minimum": 0}, "How many warnings there are, with CSV and NDJSON."),
    "Preference-Applied": ({"type": "string", "pattern": "^wait="}, "`Prefer: wait` was applied."),
    "Referrer-Policy": ({"const": "no-referrer"}, "That a page tells no other site its address."),
    "Retry-After": ({"type": "integer", "minimum": 1}, "After how many seconds to ask again."),
    "Vary": (TEXT, "The headers of the call on which the answer depends."),
    "WWW-Authenticate": (TEXT, "How to send a key."),
    "X-Accel-Buffering": ({"const": "no"}, "Tells proxies not to hold a stream back."),
    "X-Content-Type-Options": ({"const": "nosniff"}, "That a page is what its Content-Type says."),
    "X-Request-Id": (TEXT, "What the call sent in this header."),
}  # fmt: skip
# Any answer may have these.
COMMON: Final = (
    "Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Cache-Control", "Content-Encoding", "Vary", "X-Request-Id",
)  # fmt: skip
OF_PAGES: Final = ("Content-Security-Policy", "Referrer-Policy", "X-Content-Type-Options")

# What a post's answer leads to.
_ID: Final = {"request": "$response.body#/id"}
_TASK_ID: Final = {"task": "$response.body#/tasks/0/id"}
LINKS: Final[Schema] = {
    "poll": {"operationId": "get_request", "parameters": _ID},
    "events": {"operationId": "stream_events", "parameters": _ID},
    "cancel": {"operationId": "cancel_request", "parameters": _ID},
    "task": {"operationId": "get_task", "parameters": {**_ID, **_TASK_ID}},
    "where": {"operationId": "where", "parameters": _TASK_ID},
}

# The events of both streams, and the schemas of their data.
EVENTS: Final = {
    "result": "Result",
    "done": "Listed",
    "region": "RegionNews",
    "gone": "RegionGone",
    "unavailable": "Unavailable",
}

TAGS: Final = {
    "Requests": "Ask one source or many, and get each result the moment it is there.",
    "Sources": "What can be asked for, and the records of one source.",
    "Regions": "The places where sources are fetched.",
    "Gateway": "Whether it serves, and how to use it.",
}


@cache
def document(limits: Limits) -> bytes:
    """The document as JSON. Later versions may add members to answers, so that only what clients send is closed."""
    return msgspec.json.encode(_growing(described(limits)))


def _growing(part: Any) -> Any:
    """A part of the document whose objects may get further members, but for those in ``TAKEN``."""
    if isinstance(part, dict):
        return {
            name: one if name in TAKEN else _growing(one)
            for name, one in part.items()
            if (name, one) != ("additionalProperties", False)
        }
    return [_growing(one) for one in part] if isinstance(part, list) else part


def described(limits: Limits) -> dict[str, Any]:
    """The interface as it is today: an answer has no other members."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Nearfetch",
            "version": VERSION,
            "description": "Data on demand from many sources, fetched and parsed next to each source. Times are RFC 3339 in UTC "
            "with milliseconds. Durations are in seconds unless a name says otherwise. Members of a query that a call does not "
            "know are refused. Errors are problem documents (RFC 9457). Later versions may add members to answers: ignore those that you do not know.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "this gateway"}],
        "tags": [{"name": name, "description": what} for name, what in TAGS.items()],
        "paths": {path: {"parameters": SHARED, **calls} for path, calls in _paths(limits).items()},
        "webhooks": {"request.done": {"post": _receiver()}},
        "components": {
            "schemas": schemas(limits),
            "headers": {name: {"schema": schema, "description": what} for name, (schema, what) in HEADERS.items()},
            "responses": {_problem_name(status): _problem(status) for status in _problem_statuses()},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, if the gateway needs one."}
            },
        },
        "security": [{}, {"key": []}],
    }


def answer(limits: Limits) -> Answer:
    """The document as an answer."""
    return Answer(200, document(limits), [("Content-Type", JSON), ("Cache-Control", "max-age=60")])


def _paths(limits: Limits) -> dict[str, Any]:
    id_, task, source, region = (
        _in_path(name, schema)
        for name, schema in (("request", ANY_ID), ("task", ANY_ID), ("source", SOURCE), ("region", REGION))
    )
    wait = _query(
        "wait",
        {**SECONDS, "maximum": 10**15 - 1},
        f"How many seconds to wait; more than {limits.wait_max_seconds:g} are taken for that.",
    )
    prefer = _header(
        "Prefer", TEXT, "`wait=SECONDS`: answer when the request is done. Applied with one source.", ["wait=10"]
    )
    key = _header(
        "Idempotency-Key",
        {"type": "string", "pattern": r'^("[\x20\x21\x23-\x7e]{1,255}"|[\x21\x23-\x7e]{1,255}|)$'},
        "Made anew for each request: a post that is sent again with the same key gets the first answer again.",
    )
    last = _header(
        "Last-Event-ID",
        {"type": "string", "format": "event-id", "pattern": r"^([0-9]{1,19}-[0-9]{1,19}(\.done)?)?$"},
        "The id of the last event that came: the stream goes on after it.",
        ["1732421640123-0"],
    )
    known = _header("If-None-Match", TEXT, "The `ETag` of an earlier answer.")
    after = _query("after", CURSOR, "A cursor: only the results since then.")
    events_after = _query(
        "after",
        {"type": "string", "pattern": r"^[0-9]{1,19}-[0-9]{1,19}(\.done)?$"},
        "Like `Last-Event-ID`, which counts if both are there.",
    )
    listing = [
        _query("source", TEXT, "Those with a task of this source."),
        _query("region", TEXT, "Those with a task in this region."),
        _query("status", {"enum": [RUNNING, *STATUSES]}, "Those that run, or ended so."),
        _query("since", {"type": "string", "format": "date-time"}, "Those made since this time."),
        _query("cursor", ANY_ID, "The `cursor` of an answer: the next page."),
        _query("limit", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE}, "How many."),
    ]
    own = [
        wait,
        _query("max_age", {**SECONDS, "default": 0}, "How many seconds old an answer may be."),
        _query(
            "deadline",
            {"type": "number", "minimum": 0.001, "maximum": limits.deadline_max_seconds, "default": limits.deadline_seconds},
            "Seconds after which the task ends as `expired`.",
        ),
        {
            "name": "source_params", "in": "query", "style": "form", "explode": True,
            "schema": {"type": "object", "additionalProperties": TEXT}, "description": "The source's params, each by its own name.",
        },
    ]  # fmt: skip
    records = {
        kind.partition(";")[0]: {"schema": ref("Result") if kind == JSON else TEXT} for kind in CONTENT_TYPES.values()
    }
    taken = _answer("The request was accepted.", ref("Request"), ["Location", "Retry-After"], ["Idempotency-Replayed"])
    ended = _answer("The request, which is done.", ref("Request"), ["Preference-Applied"], ["Idempotency-Replayed"])
    for one in (taken, ended):
        one["links"] = LINKS
    request = _answer("The request.", ref("Request"))
    polled = _answer("The request.", ref("Request"), ["ETag"])
    where = _answer("Its hops, its attempts and its error.", ref("Where"))
    regions = _answer("All regions.", ref("Regions"), sometimes=["X-Accel-Buffering"])
    regions["content"]["text/event-stream"] = _events("region", "gone", "unavailable")
    missing = _problems(404, 410)
    return {
        "/v1/requests": {
            "post": _call(
                "Requests", "submit", "Asks one source or many.", {"200": ended, "202": taken, **_problems(404, 409, 410, 415, 422)}, [prefer, key],
                body=ref("New"),
            ),
            "get": _call(
                "Requests", "list_requests", "Requests, the latest first.", {"200": _answer("A page of them.", ref("List")), **_problems(404)},
                listing,
            ),
        },
        "/v1/requests/{request}": {
            "get": _call(
                "Requests", "get_request", "A request, with its results since a cursor.",
                {"200": polled, "304": _empty("As the client has it already.", ["ETag"]), **missing}, [id_, after, wait, known],
            ),
            "delete": _call("Requests", "cancel_request", "Cancels the tasks that have not ended.", {"200": request, **missing}, [id_]),
        },
        "/v1/requests/{request}/events": {
            "get": _call(
                "Requests", "stream_events", "Server-sent events: `result` for each task, then `done`.",
                {"200": _stream(), "204": _empty("The client has the end already."), **missing}, [id_, events_after, last],
            ),
        },
        "/v1/requests/{request}/webhook": {
            "post": _call(
                "Requests", "resend_webhook", "Calls the request's webhook again, also one that was delivered; one that waits for the end is left as it is.",
                {"200": _answer("The webhook.", ref("WebhookState")), **missing}, [id_],
            ),
        },
        "/v1/webhooks": {
            "get": _call(
                "Requests", "list_webhooks", "The webhooks of requests that have ended, the latest end first. A page may be short while `cursor` leads on.",
                {"200": _answer("A page of them.", ref("WebhookList"))},
                [
                    _query("state", {"enum": [*ENDED]}, "Those that are so."),
                    _query("cursor", CURSOR, "The `cursor` of an answer: the next page."),
                    _query("limit", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE}, "How many."),
                ],
            ),
        },
        "/v1/requests/{request}/tasks/{task}": {
            "get": _call("Requests", "get_task", "Where a task is.", {"200": where, **missing}, [id_, task]),
        },
        "/v1/tasks/{task}": {
            "get": _call("Requests", "where", "Where a task is, by its id alone.", {"200": where, **missing}, [task]),
        },
        "/v1/sources": {
            "get": _call("Sources", "list_sources", "The catalogue.", {"200": _answer("All sources.", ref("Catalogue"))}),
        },
        "/v1/sources/{source}": {
            "get": _call("Sources", "get_source", "One source.", {"200": _answer("The source.", ref("OneSource")), **_problems(404)}, [source]),
        },
        "/v1/sources/{source}/records": {
            "get": _call(
                "Sources", "get_records", "The records of one source, synchronously.",
                {
                    "200": {
                        "description": "The result, or only its records.", "content": records,
                        "headers": _headers(["Cache-Control", "Vary"], [
                            "Age", "Link", "Nearfetch-Count", "Nearfetch-Partial", "Nearfetch-Warnings"]),
                    },
                    "202": _answer("The wait ran out: ask for the request later.", ref("Request"), ["Location", "Retry-After"]),
                    **_problems(404, 406, 422, 502, 504),
                },
                [source, *own],
            ),
        },
        "/v1/regions": {
            "get": _call("Regions", "list_regions", "All regions; or server-sent events: `region` for each, and again when it has changed.", {"200": regions}),
        },
        "/v1/regions/{region}": {
            "get": _call("Regions", "get_region", "One region.", {"200": _answer("The region.", ref("Region")), **_problems(404)}, [region]),
        },
        "/v1/regions/{region}/day": {
            "get": _call("Regions", "region_day", "The minutes of a region's last day.", {"200": _answer("Its minutes.", ref("Day")), **_problems(404)}, [region]),
        },
        "/healthz": {
            "get": _call("Gateway", "healthz", "Whether the process serves.", {"200": _answer("It does.", closed({"status": TEXT}))}, is_open=True),
        },
        "/v1/regions/{region}/events": {
            "get": _call(
                "Regions", "region_events", "What happened to a region, the latest first.", {"200": _answer("The events.", ref("Events")), **_problems(404)},
                [region],
            ),
        },
        "/v1/faults": {"get": _call("Gateway", "faults", "What is wrong now.", {"200": _answer("The faults, those that page first.", ref("Faults"))})},
        "/metrics": {
            "get": _call(
                "Gateway", "metrics", "What Prometheus reads.",
                {"200": {"description": "The metrics.", "content": {"text/plain": {"schema": TEXT}, "application/openmetrics-text": {"schema": TEXT}}, "headers": _headers(["Cache-Control"])}},
            ),
        },
        "/readyz": {
            "get": _call(
                "Gateway", "readyz", "Whether requests can be taken.", {"200": _answer("They can.", closed({"status": TEXT, "history": TEXT, "faults": TEXTS, "tickets": TEXTS}))},
                is_open=True,
            ),
        },
        "/openapi.json": {
            "get": _call("Gateway", "openapi", "This document.", {"200": _answer("The interface.", OPEN)}, is_open=True),
        },
        "/docs": {
            "get": _call("Gateway", "docs", "This document as a page.", {"200": _page("The page.")}, is_open=True),
        },
        "/problems": {
            "get": _call("Gateway", "list_problems", "All types of problems.", {"200": _page("All types.", ref("ProblemPages"))}, is_open=True),
        },
        "/problems/{kind}": {
            "get": _call(
                "Gateway", "get_problem", "What a problem means, and what to do.",
                {"200": _page("What it means.", ref("ProblemPage")), **_problems(404)}, [_in_path("kind", {**TEXT, "examples": [*KINDS]})],
                is_open=True,
            ),
        },
        "/problems/task/{kind}": {
            "get": _call(
                "Gateway", "get_task_problem", "What the error of a task means, and what to do.",
                {"200": _page("What it means.", ref("ProblemPage")), **_problems(404)}, [_in_path("kind", {**TEXT, "examples": [*BY_TYPE]})],
                is_open=True,
            ),
        },
    }  # fmt: skip


def _receiver() -> Schema:
    """What a receiver of webhooks gets (Standard Webhooks 1.0)."""
    headers = [
        _header("webhook-id", TEXT, "The same for every call about a request."),
        _header("webhook-timestamp", TEXT, "When it was sent, in seconds since the epoch."),
        _header("webhook-signature", TEXT, "`v1,` and the HMAC-SHA256 of `id.timestamp.body`, in base64."),
    ]
    return {
        "operationId": "request_done",
        "tags": ["Requests"],
        "summary": "A request that named a webhook has ended.",
        "parameters": headers,
        "requestBody": {"required": True, "content": {JSON: {"schema": ref("Message")}}},
        "responses": {
            "2XX": {"description": "It is delivered."},
            "410": {"description": "It is not sent again."},
            "default": {"description": "It is sent again later."},
        },
    }


def _call(
    tag: str,
    name: str,
    summary: str,
    answers: Mapping[str, Any],
    parameters: Iterable[Schema] = (),
    *,
    body: Schema | None = None,
    is_open: bool = False,
) -> Schema:
    """``is_open``: the call needs no key."""
    found: Schema = {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "parameters": list(parameters),
        "responses": {**answers, **_problems(*ANYWHERE)},
    }
    if body is not None:
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
    if is_open:
        found["security"] = [{}]
    return found


def _answer(what: str, schema: Schema, always: Iterable[str] = (), sometimes: Iterable[str] = ()) -> Schema:
    """An answer in JSON, with the names of headers that it has always, or sometimes."""
    return {"description": what, "content": {JSON: {"schema": schema}}, "headers": _headers(always, sometimes)}


def _page(what: str, schema: Schema | None = None) -> Schema:
    """An answer in HTML, and in JSON if there is a schema and ``Accept`` asks for it."""
    content = {HTML: {"schema": TEXT}, **({} if schema is None else {JSON: {"schema": schema}})}
    return {"description": what, "content": content, "headers": _headers(sometimes=OF_PAGES)}


def _stream() -> Schema:
    what = "A stream. The data of `result` is a Result, that of `done` a Listed; a comment comes every 15 s."
    return {
        "description": what,
        "content": {"text/event-stream": _events("result", "done")},
        "headers": _headers(["Cache-Control", "X-Accel-Buffering"]),
    }


def _events(*names: str) -> Schema:
    """The content of a stream: each event is one of these. OpenAPI 3.1 says so with the schema of an event; 3.2 has ``itemSchema``."""
    events = []
    for name in names:
        data = {"type": "string", "contentMediaType": JSON, "contentSchema": ref(EVENTS[name])}
        events.append(opened({"event": {"const": name}, "data": data, "id": TEXT}, optional=("id",)))
    return {"schema": {"oneOf": events}}


def _empty(what: str, always: Iterable[str] = ()) -> Schema:
    return {"description": what, "headers": _headers(always)}


def _headers(always: Iterable[str] = (), sometimes: Iterable[str] = ()) -> Schema:
    found: Schema = {name: {"$ref": f"#/components/headers/{name}"} for name in (*COMMON, *sometimes)}
    for name in always:
        schema, what = HEADERS[name]
        found[name] = {"schema": schema, "description": what, "required": True}
    return found


def _problem_statuses() -> list[int]:
    return sorted({*ANYWHERE, 502, 504, *(status for status, _ in KINDS.values())})


def _problem(status: int) -> Schema:
    kinds = [f"`{kind}`" for kind, (one, _) in KINDS.items() if one == status]
    kinds += [f"`{PROTOCOL}`"] if status in PROTOCOL_STATUSES else []
    text = ", ".join(kinds) or f"A task that failed: {', '.join(sorted(BY_TYPE))}"
    always = {401: ["WWW-Authenticate"], 409: ["Retry-After"]}.get(status, [])
    sometimes = ["Retry-After"] if status in (429, 502, 503, 504) else []
    return {
        "description": text,
        "content": {PROBLEM: {"schema": ref("Problem")}},
        "headers": _headers(always, sometimes),
    }


def _problem_name(status: int) -> str:
    return f"Problem{status}"


def _problems(*statuses: int) -> dict[str, Schema]:
    return {str(status): {"$ref": f"#/components/responses/{_problem_name(status)}"} for status in statuses}


def _in_path(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _header(name: str, schema: Schema, description: str, examples: Iterable[str] = ()) -> Schema:
    shown: Schema = {**schema, "examples": list(examples)} if examples else schema
    return {"name": name, "in": "header", "schema": shown, "description": description}


# Headers that any call may have.
SHARED: Final[list[Schema]] = [
    _header("X-Request-Id", TEXT, "Up to 128 printable characters; the answer has them again, and the gateway's log."),
    _header(
        "traceparent",
        TEXT,
        "W3C Trace Context; results have it again, and the logs have its trace id. An invalid one is ignored.",
    ),
]
