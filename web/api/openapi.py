"""``GET /openapi.json``: the HTTP interface in OpenAPI 3.1. docs/http.md explains; tests hold the document against real answers."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

import msgspec

from jobs import contract
from jobs.contract import FINAL
from jobs.errors import BY_TYPE
from regions.settings import Limits
from web.api.recall import STATUSES
from web.api.rows import CONTENT_TYPES
from web.flow.history import PAGE, PAGE_MAX
from web.http.exchange import Answer
from web.http.problems import KINDS

VERSION: Final = "0.1.0"
Schema = dict[str, Any]

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
TEXT: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
SECONDS: Final[Schema] = {"type": "number", "minimum": 0}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
FLAG: Final[Schema] = {"type": "boolean"}
ID: Final[Schema] = {"type": "string", "pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{25}$"}
CURSOR: Final[Schema] = {"type": "string", "pattern": "^[0-9]{1,19}-[0-9]{1,19}$"}
OPEN: Final[Schema] = {"type": "object"}  # more members may come

# What may go wrong with any call, and with a call that needs the hub.
ANYWHERE: Final = (400, 401, 403, 408, 413, 414, 421, 429, 431, 500, 503)


@cache
def document(limits: Limits) -> bytes:
    """The document as JSON."""
    _, components = msgspec.json.schema_components(
        [contract.Error, contract.Timing, contract.Bytes], ref_template="#/components/schemas/{name}"
    )
    found = {
        "openapi": "3.1.0",
        "info": {
            "title": "Nearfetch",
            "version": VERSION,
            "description": "Data on demand from many sources, fetched and parsed next to each source.",
        },
        "paths": _paths(limits),
        "components": {
            "schemas": {**components, **_schemas(limits)},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, if the gateway needs one."}
            },
        },
        "security": [{}, {"key": []}],
    }
    return msgspec.json.encode(found)


def answer(limits: Limits) -> Answer:
    """The document as an answer."""
    return Answer(200, document(limits), [("Content-Type", JSON), ("Cache-Control", "max-age=60")])


def _schemas(limits: Limits) -> dict[str, Schema]:
    statuses = ["queued", "running", *sorted(FINAL)]
    result = _object(
        {
            "task": ID, "source": TEXT, "region": TEXT, "status": {"enum": sorted(FINAL)}, "attempts": COUNT, "count": COUNT,
            "partial": FLAG, "warnings": _list(TEXT), "url": TEXT, "definition": TEXT, "fetched_at": _or_null(TIME), "age": SECONDS,
            "cached": FLAG, "stale": FLAG, "timing": _ref("Timing"), "bytes": _ref("Bytes"), "error": _or_null(_ref("Error")),
            "records": _list({}),
        },
        optional=("records",),
    )  # fmt: skip
    moved = _object({"from": TEXT, "to": TEXT, "why": TEXT, "at": TIME}, is_open=True)
    task = _object(
        {"id": ID, "source": TEXT, "region": TEXT, "status": {"enum": statuses}, "moved": moved}, optional=("moved",)
    )
    request = {
        "id": ID, "status": {"enum": ["running", *STATUSES]}, "done": FLAG, "total": COUNT, "completed": COUNT, "created_at": TIME,
        "expires_at": TIME, "results": _list(_ref("Result")), "cursor": CURSOR, "more": FLAG, "tasks": _list(_ref("Task")),
        "links": _object({"self": TEXT, "events": TEXT}), "attrs": OPEN,
    }  # fmt: skip
    fault = _object({"pointer": TEXT, "detail": TEXT})
    problem = {
        "type": TEXT, "title": TEXT, "status": {"type": "integer", "minimum": 400, "maximum": 599}, "detail": TEXT,
        "errors": _list(fault), "request": ID, "limit": TEXT, "result": _ref("Result"),
    }  # fmt: skip
    param = _object({"type": TEXT, "required": FLAG, "default": {}, "example": {}}, is_open=True)
    source = {
        "id": TEXT, "title": TEXT, "region": TEXT, "standby": _list(TEXT), "pinned": FLAG, "params": _map(param), "limits": OPEN,
        "health": {"enum": ["ok", "degraded", "failing", "broken", "unknown"]}, "reasons": _list(TEXT),
    }  # fmt: skip
    asked = _object({"source": TEXT, "params": OPEN}, optional=("params",))
    hop = _object({"hop": TEXT, "at": TIME, "after_ms": {"type": "integer"}, "where": TEXT}, is_open=True)
    attempt = _object(
        {
            "attempt": COUNT, "worker": TEXT, "started_at": TIME, "ended_at": _or_null(TIME),
            "error": _or_null(_object({"type": TEXT, "message": TEXT})),
        }
    )  # fmt: skip
    where = {
        "id": ID, "request": ID, "source": TEXT, "region": TEXT, "status": {"enum": statuses}, "hops": _list(hop),
        "attempts": _list(attempt), "error": _or_null(_ref("Error")), "moved": _or_null(moved),
    }  # fmt: skip
    new = {
        "sources": {"type": "array", "minItems": 1, "maxItems": limits.tasks_max, "items": {"anyOf": [TEXT, asked]}},
        "deadline": {
            "type": "number",
            "minimum": 0.001,
            "maximum": limits.deadline_max_seconds,
            "default": limits.deadline_seconds,
        },
        "max_age": {**SECONDS, "default": 0},
        "attrs": {**OPEN, "default": {}},
    }
    region = {"name": TEXT, "title": TEXT, "status": {"enum": ["up", "degraded", "down"]}, "reasons": _list(TEXT)}
    told = {
        "name": TEXT, "severity": {"enum": ["page", "ticket"]}, "region": _or_null(TEXT), "source": _or_null(TEXT), "part": _or_null(TEXT),
        "since": TIME, "message": TEXT, "cost": TEXT, "mend": TEXT, "runbook": TEXT,
    }  # fmt: skip
    return {
        "Result": result,
        "Task": task,
        "Request": _object(request),
        "Listed": _object({name: schema for name, schema in request.items() if name != "results"}),
        "New": _object(new, optional=("deadline", "max_age", "attrs")),
        "Problem": _object(problem, optional=("errors", "request", "limit", "result"), is_open=True),
        "Source": _object(source, is_open=True),
        "Where": _object(where),
        "Region": _object(region, is_open=True),
        "Fault": _object(told),
        "Event": _object({"at": TIME, "kind": TEXT, "message": TEXT}),
    }


def _paths(limits: Limits) -> dict[str, Any]:
    id_, task, source, region = (
        _in_path(name, schema) for name, schema in (("request", ID), ("task", ID), ("source", TEXT), ("region", TEXT))
    )
    wait = _query(
        "wait", {**SECONDS, "maximum": 10**6}, f"seconds; more than {limits.wait_max_seconds:g} are taken for that"
    )
    prefer = _header("Prefer", {"type": "string", "examples": ["wait=10"]}, "wait=SECONDS, with one source")
    key = _header(
        "Idempotency-Key",
        {"type": "string", "pattern": r"^[\x21\x23-\x7e]{1,255}$"},
        "the same one gets the first answer again",
    )
    last = _header(
        "Last-Event-ID",
        {
            "type": "string",
            "minLength": 3,
            "pattern": r"^[0-9]{1,19}-[0-9]{1,19}(\.done)?$",
            "examples": ["1732421640123-0"],
        },
        "resumes after this event",
    )
    after = _query("after", CURSOR, "only the results since then")
    listing = [
        _query("source", TEXT), _query("region", TEXT), _query("status", {"enum": list(STATUSES)}), _query("since", TIME),
        _query("cursor", ID), _query("limit", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE}),
    ]  # fmt: skip
    records = {
        kind.partition(";")[0]: {"schema": _ref("Result") if kind == JSON else {}} for kind in CONTENT_TYPES.values()
    }
    made = _content(_ref("Request"))
    return {
        "/v1/requests": {
            "post": _call(
                "submit", "Asks one source or many.", {"200": made, "202": made, **_problems(409, 415, 422)}, [prefer, key],
                body=_ref("New"),
            ),
            "get": _call(
                "list_requests", "Finished requests from the history, latest first.",
                {"200": _content(_object({"requests": _list(_ref("Listed")), "cursor": _or_null(ID)})), **_problems(404)}, listing,
            ),
        },
        "/v1/requests/{request}": {
            "get": _call(
                "get_request", "A request, with its results since a cursor.", {"200": made, "304": _nothing("not modified"), **_problems(404, 410)},
                [id_, after, wait],
            ),
            "delete": _call("cancel_request", "Cancels the tasks that have not ended.", {"200": made, **_problems(404, 410)}, [id_]),
        },
        "/v1/requests/{request}/events": {
            "get": _call(
                "stream_events", "Server-sent events: result for each task, then done.",
                {"200": {"description": "a stream", "content": {"text/event-stream": {"schema": TEXT}}}, "204": _nothing("the end was told"),
                 **_problems(404, 410)}, [id_, after, last],
            ),
        },
        "/v1/requests/{request}/tasks/{task}": {
            "get": _call("get_task", "Where a task is.", {"200": _content(_ref("Where")), **_problems(404, 410)}, [id_, task]),
        },
        "/v1/tasks/{task}": {
            "get": _call("where", "Where a task is, by its id alone.", {"200": _content(_ref("Where")), **_problems(404, 410)}, [task]),
        },
        "/v1/sources": {"get": _call("list_sources", "The catalogue.", {"200": _content(_object({"sources": _list(_ref("Source"))}))})},
        "/v1/sources/{source}": {"get": _call("get_source", "One source.", {"200": _content(_ref("Source")), **_problems(404)}, [source])},
        "/v1/sources/{source}/records": {
            "get": _call(
                "get_records", "The records of one source, whose params are further members of the query.",
                {"200": {"description": "the result, or only its records", "content": records}, "202": made, **_problems(404, 406, 422, 502, 504)},
                [source, wait, _query("max_age", {**SECONDS, "maximum": 10**9}), _query("deadline", {**SECONDS, "minimum": 0.001, "maximum": limits.deadline_max_seconds}),
                 {"name": "params", "in": "query", "style": "form", "explode": True, "schema": _map(TEXT)}],
            ),
        },
        "/v1/regions": {
            "get": _call("list_regions", "All regions.", {"200": _content(_object({"regions": _list(_ref("Region")), "dead_letters": COUNT}))}),
        },
        "/v1/regions/{region}": {"get": _call("get_region", "One region.", {"200": _content(_ref("Region")), **_problems(404)}, [region])},
        "/v1/regions/{region}/events": {
            "get": _call("region_events", "What happened to a region, newest first.", {"200": _content(_object({"events": _list(_ref("Event"))})), **_problems(404)}, [region]),
        },
        "/v1/faults": {"get": _call("faults", "What is wrong now.", {"200": _content(_object({"faults": _list(_ref("Fault")), "at": TIME}))})},
        "/runbooks": {
            "get": _call("runbooks", "A page that says what each fault costs and what mends it.", {"200": {"description": "a page", "content": {"text/html": {"schema": TEXT}}}}),
        },
        "/healthz": {"get": _call("healthz", "200 while the process serves.", {"200": _content(_object({"status": TEXT}))}, is_open=True)},
        "/readyz": {
            "get": _call("readyz", "200 when requests can be taken.", {"200": _content(_object({"status": TEXT, "history": TEXT}))}, is_open=True),
        },
        "/openapi.json": {"get": _call("openapi", "This document.", {"200": _content(OPEN)})},
    }  # fmt: skip


def _call(
    name: str,
    summary: str,
    answers: Mapping[str, Any],
    parameters: Iterable[Schema] = (),
    *,
    body: Schema | None = None,
    is_open: bool = False,
) -> Schema:
    found: Schema = {
        "operationId": name,
        "summary": summary,
        "parameters": list(parameters),
        "responses": {**answers, **_problems(*ANYWHERE)},
    }
    if body is not None:
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
    if is_open:
        found["security"] = []
    return found


def _problems(*statuses: int) -> dict[str, Schema]:
    kinds: dict[int, list[str]] = {}
    for kind, (status, _) in KINDS.items():
        kinds.setdefault(status, []).append(kind)
    tasks = f"a failed task: {', '.join(sorted(BY_TYPE))}"
    return {
        str(status): {"description": ", ".join(kinds.get(status, [])) or (tasks if status in (502, 504) else "no valid HTTP"),
                      "content": {PROBLEM: {"schema": _ref("Problem")}}}
        for status in statuses
    }  # fmt: skip


def _object(members: Mapping[str, Schema], optional: Iterable[str] = (), *, is_open: bool = False) -> Schema:
    found: Schema = {
        "type": "object",
        "properties": dict(members),
        "required": [name for name in members if name not in optional],
    }
    if not is_open:
        found["additionalProperties"] = False
    return found


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _map(of: Schema) -> Schema:
    return {"type": "object", "additionalProperties": of}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _content(schema: Schema) -> Schema:
    return {"description": "the answer", "content": {JSON: {"schema": schema}}}


def _nothing(why: str) -> Schema:
    return {"description": why}


def _in_path(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query(name: str, schema: Schema, description: str = "") -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _header(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "header", "schema": schema, "description": description}
