"""The schemas of what the interface takes and gives (JSON Schema 2020-12, as OpenAPI 3.1 has it).

A schema is closed: a member that does not stand in it is a fault here, which the tests' HTTP client finds. The document that is
served leaves answers open (web.api.openapi). Open are the objects to which regions and definitions add members of their own.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from jobs.contract import FINAL
from jobs.errors import ORIGINS, TYPES
from regions.settings import Limits
from web.api import problem_types
from web.api.recall import RUNNING, STATUSES
from web.hub.webhooks import SECRET_PATTERN, STATES, URL_CHARACTERS_MAX, URL_PATTERN

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
TEXTS: Final[Schema] = {"type": "array", "items": TEXT}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
SECONDS: Final[Schema] = {"type": "number", "minimum": 0}
FLAG: Final[Schema] = {"type": "boolean"}
# The one form of times in answers. The pattern is stricter than the format, which permits offsets and any fraction.
TIME: Final[Schema] = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
    "examples": ["2026-11-24T04:14:00.123Z"],
}
DAY: Final[Schema] = {"type": "string", "format": "date"}
ID: Final[Schema] = {"type": "string", "pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{25}$"}
# As clients may write it.
ANY_ID: Final[Schema] = {"type": "string", "pattern": "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$"}
CURSOR: Final[Schema] = {"type": "string", "pattern": "^[0-9]{1,19}-[0-9]{1,19}$"}
TRACEPARENT: Final[Schema] = {"type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"}
TAKEN: Final = ("New", "Ask")  # schemas of what clients send
OPEN: Final[Schema] = {"type": "object"}  # its members are not known here
SOURCE: Final[Schema] = {"type": "string", "examples": ["ecb.rates"]}
REGION: Final[Schema] = {"type": "string", "examples": ["fra"]}


def schemas(limits: Limits) -> dict[str, Schema]:
    """All schemas by name."""
    return {**_asked(limits), **_of_results(), **_of_requests(), **_of_sources(), **_of_regions(), **_of_problems()}


def _asked(limits: Limits) -> dict[str, Schema]:
    asked = closed(
        {"source": SOURCE, "params": said(OPEN, "By name, in the types of the catalogue.")}, optional=("params",)
    )
    new = {
        "sources": said(
            {
                "type": "array",
                "minItems": 1,
                "maxItems": limits.tasks_max,
                "items": {"anyOf": [SOURCE, ref("Ask")]},
                "examples": [["ecb.rates", {"source": "books.list", "params": {"category": "poetry_23"}}]],
            },
            "Ids, or objects with `source` and `params`. A source may stand here several times.",
        ),
        "deadline": said(
            {
                "type": "number",
                "minimum": 0.001,
                "maximum": limits.deadline_max_seconds,
                "default": limits.deadline_seconds,
            },
            "Seconds after which a task without a result ends as `expired`.",
        ),
        "max_age": said({**SECONDS, "default": 0}, "How many seconds old an answer may be; 0 asks the source itself."),
        "attrs": said({**OPEN, "default": {}}, f"Comes back as it is; at most {limits.attrs_bytes_max} bytes of JSON."),
        "webhook": said(ref("Webhook"), "Is called once when the request has ended."),
    }
    webhook = {
        "url": said(
            {"type": "string", "maxLength": URL_CHARACTERS_MAX, "pattern": URL_PATTERN},
            "https, or http on the gateway's machine, or where an operator permits it. Its address must be public.",
        ),
        "secret": said(
            {"type": "string", "pattern": SECRET_PATTERN, "writeOnly": True},
            "Signs the message: `whsec_` and 24 to 64 random bytes in base64.",
        ),
    }
    return {
        "New": closed(new, optional=("deadline", "max_age", "attrs", "webhook")),
        "Ask": asked,
        "Webhook": closed(webhook),
    }


def _of_results() -> dict[str, Schema]:
    error = {
        "type": {"enum": list(TYPES)},
        "message": TEXT,
        "origin": said({"enum": list(ORIGINS)}, "Whose fault it was."),
        "retryable": said(FLAG, "Whether the same request may succeed later."),
        "retry_after": said(or_null(SECONDS), "After how many seconds."),
        "http_status": said(or_null({"type": "integer"}), "The status that the target sent."),
    }
    # No minimum: a region's clock may be off by some ms.
    timing = {name: {"type": "number"} for name in ("queued_ms", "turn_ms", "fetch_ms", "parse_ms", "total_ms")}
    result = {
        "task": ID,
        "source": SOURCE,
        "region": REGION,
        "status": {"enum": sorted(FINAL)},
        "attempts": said(COUNT, "How often the task was begun."),
        "count": said(COUNT, "How many records there are."),
        "partial": said(FLAG, "Whether a later page failed."),
        "warnings": TEXTS,
        "url": said(TEXT, "Where the page came from in the end."),
        "definition": said(TEXT, "The start of the hash of the file that parsed it."),
        "fetched_at": or_null(TIME),
        "age": said(SECONDS, "Seconds since `fetched_at`, if the task did not fetch itself."),
        "cached": said(FLAG, "Whether it was fetched for an earlier task."),
        "stale": said(FLAG, "Whether an older answer stands in for a failure."),
        "timing": ref("Timing"),
        "bytes": ref("Bytes"),
        "error": or_null(ref("Error")),
        "traceparent": said(TRACEPARENT, "That of the request, if it had one."),
        "records": said({"type": "array", "items": {}}, "As the source's `schema` says."),
    }
    return {
        "Error": closed(error),
        "Timing": closed(timing),
        "Bytes": closed(dict.fromkeys(("raw", "records", "wire", "received", "spared"), COUNT)),
        "Result": closed(result, optional=("traceparent",)),
    }


def _of_requests() -> dict[str, Schema]:
    statuses = ["queued", "running", *sorted(FINAL)]
    moved = {"from": REGION, "to": REGION, "why": TEXT, "at": TIME, "asked": {"type": "array", "items": REGION}}
    task = {"id": ID, "source": SOURCE, "region": REGION, "status": {"enum": statuses}, "moved": ref("Moved")}
    request = {
        "id": ID,
        "status": {"enum": [RUNNING, *STATUSES]},
        "done": said(FLAG, "Whether all tasks have ended."),
        "total": said(COUNT, "How many tasks there are."),
        "completed": said(COUNT, "How many of them have ended."),
        "created_at": TIME,
        "expires_at": said(TIME, "Until when the results are kept."),
        "traceparent": said(TRACEPARENT, "As the client sent it."),
        "results": said({"type": "array", "items": ref("Result")}, "Those since the cursor."),
        "cursor": said(CURSOR, "For `after`: what comes later is not in this answer."),
        "more": said(FLAG, "Whether further results are there already."),
        "tasks": {"type": "array", "items": ref("Task")},
        "links": closed({"self": TEXT, "events": TEXT}),
        "attrs": OPEN,
        "webhook": said(ref("WebhookState"), "If the request has one, and the hub still knows it."),
    }
    webhook = {
        "url": said(TEXT, "Without its query."),
        "state": {"enum": list(STATES)},
        "attempts": COUNT,
        "last_attempt_at": or_null(TIME),
        "status": said(or_null({"type": "integer"}), "What the receiver answered last."),
        "error": said(or_null(TEXT), "What was wrong with the last attempt."),
        "next_attempt_at": or_null(TIME),
    }
    message = {
        "type": {"const": "request.done"},
        "timestamp": said(TIME, "When the request ended."),
        "data": said(ref("Listed"), "The request without results and webhook."),
    }
    hop = {"hop": TEXT, "at": TIME, "after_ms": {"type": "integer"}, "where": TEXT, "attempt": COUNT, "note": TEXT}
    attempt = {
        "attempt": COUNT,
        "worker": TEXT,
        "started_at": TIME,
        "ended_at": or_null(TIME),
        "error": or_null(closed({"type": TEXT, "message": TEXT})),
    }
    where = {
        "id": ID,
        "request": ID,
        "source": SOURCE,
        "region": REGION,
        "status": {"enum": statuses},
        "hops": {"type": "array", "items": closed(hop, optional=("attempt", "note"))},
        "attempts": {"type": "array", "items": closed(attempt)},
        "error": or_null(ref("Error")),
        "moved": or_null(ref("Moved")),
        "traceparent": said(TRACEPARENT, "That of the request, if it had one."),
    }
    listed = {name: schema for name, schema in request.items() if name != "results"}
    return {
        "Moved": closed(moved),
        "Task": closed(task, optional=("moved",)),
        "Request": closed(request, optional=("traceparent", "webhook")),
        "Listed": closed(listed, optional=("traceparent", "webhook")),
        "WebhookState": closed(webhook),
        "EndedWebhook": closed({"request": ID, "ended_at": TIME, **webhook}),
        "WebhookList": closed(
            {
                "webhooks": {"type": "array", "items": ref("EndedWebhook")},
                "cursor": said(or_null(CURSOR), "For the next page; null at the end."),
            }
        ),
        "Message": closed(message),
        "List": closed(
            {
                "requests": {"type": "array", "items": ref("Listed")},
                "cursor": said(or_null(ID), "For the next page; null at the end."),
            }
        ),
        "Where": closed(where, optional=("traceparent",)),
    }


def _of_sources() -> dict[str, Schema]:
    param = {"type": TEXT, "required": FLAG, "default": {}, "example": {}, "title": TEXT}
    limits = {
        "rate": TEXT, "concurrency": COUNT, "timeout_seconds": SECONDS, "max_bytes": COUNT, "retries": COUNT, "robots": FLAG,
        "stale_seconds": SECONDS,
    }  # fmt: skip
    source = {
        "id": SOURCE,
        "title": TEXT,
        "region": REGION,
        "standby": said({"type": "array", "items": REGION}, "Regions that may take it over."),
        "pinned": said(FLAG, "Whether it is never taken over."),
        "params": {"type": "object", "additionalProperties": opened(param, optional=("title",))},
        "limits": opened(limits, optional=tuple(limits)),
        "health": {"enum": ["ok", "degraded", "failing", "broken", "unknown"]},
        "reasons": TEXTS,
        "test": said(FLAG, "Whether nobody has its hosts."),
        "standby_faults": {"type": "object", "additionalProperties": TEXT},
    }
    hour = {"hour": TIME, "runs": COUNT, "failed": COUNT, "busy_ms": COUNT}
    failure = {
        "at": TIME,
        "region": REGION,
        "type": TEXT,
        "origin": TEXT,
        "page_kept": said(FLAG, "Whether its region has kept what the site answered, if it keeps any."),
        "task": ID,
        "request": ID,
    }
    there = {"definition": TEXT}
    days = {"type": "array", "items": ref("DaySums")}
    one = {
        **source,
        "regions": said(
            {"type": "object", "additionalProperties": opened(there, optional=tuple(there))},
            "The definition in each region that has it.",
        ),
        "learned": said({"anyOf": [OPEN, {"type": "null"}]}, "What its runs showed."),
        "traffic": {"type": "object", "additionalProperties": closed({**_sums(), "days": days})},
        "hours": said({"type": "array", "items": closed(hour)}, "Its runs of the last 24 hours, the current one last."),
        "last_failure": or_null(closed(failure, optional=("task", "request"))),
        "schema": said(OPEN, "The JSON Schema of a record."),
        "definition": said(TEXT, "The start of its definition's hash."),
        "faults": said(TEXTS, "What is wrong with its definition."),
    }
    return {
        "Source": closed(source, optional=("standby_faults",)),
        "OneSource": closed(one, optional=("standby_faults", "faults")),
        "Catalogue": closed({"sources": {"type": "array", "items": ref("Source")}}),
        "Sums": closed(_sums()),
        "DaySums": closed({"day": DAY, **_sums()}),
    }


def _sums() -> dict[str, Schema]:
    names = ("runs", "failed", "raw", "received", "spared", "records", "wire")
    return {**dict.fromkeys(names, COUNT), "kept_off_wan": COUNT}


def _of_regions() -> dict[str, Schema]:
    queue = {
        "open": COUNT,
        "ready": COUNT,
        "running": COUNT,
        "oldest_seconds": or_null(SECONDS),
        "unread": or_null(COUNT),
        "scheduled": said(COUNT, "Jobs that wait for a host's turn, for a retry, or for another task's answer."),
        "at_broker": said(or_null(COUNT), "Messages that are ready in RabbitMQ."),
    }
    sums = _sums()
    part = {"name": TEXT, "age_seconds": {"type": "number"}, "reported_at": TIME}
    region = {
        "name": REGION,
        "title": TEXT,
        "status": {"enum": ["up", "degraded", "down"]},
        "reasons": TEXTS,
        "faults": said(TEXTS, "The names of what is wrong with it, and with its sources."),
        "queue": closed(queue),
        "throughput": closed(
            {
                "succeeded": COUNT,
                "failed": COUNT,
                "per_second": or_null({"type": "number"}),
                "p95_ms": said(or_null({"type": "number"}), "Of the tasks of the last five minutes."),
            }
        ),
        "bytes": closed({name: one for name, one in sums.items() if name not in ("runs", "failed")}),
        "days": {"type": "array", "items": ref("DaySums")},
        "sources": {"type": "object", "additionalProperties": closed({**sums, "today": ref("Sums")})},
        "left_alone": said(
            {"type": "object", "additionalProperties": TEXT}, "Sources whose host is left alone, and why."
        ),
        "refused": {"type": "object", "additionalProperties": COUNT},
        "held_bytes": {"type": "integer"},
        "scale": {"anyOf": [opened({"reported_at": TIME}), {"type": "null"}]},
        "bridges": {"type": "array", "items": opened(part)},
        "workers": {"type": "array", "items": opened(part)},
        "takeover": or_null(closed({"why": TEXT, "detail": TEXT, "since": TIME, "well_since": or_null(TIME)})),
        "not_movable": {"type": "object", "additionalProperties": TEXT},
        "differs": {"type": "object", "additionalProperties": closed({"there": TEXT, "here": TEXT})},
    }
    minute = {
        "at": said(TIME, "When it begins."),
        "arrived": COUNT,
        "ended": COUNT,
        "waiting": COUNT,
        "oldest_seconds": SECONDS,
        "running": COUNT,
        "task_seconds": SECONDS,
        "wanted": COUNT,
        "ready": COUNT,
    }
    fault = {
        "name": TEXT,
        "severity": {"enum": ["page", "ticket"]},
        "region": or_null(REGION),
        "source": or_null(SOURCE),
        "part": or_null(TEXT),
        "since": TIME,
        "message": said(TEXT, "The reason, in one sentence."),
        "cost": said(TEXT, "What clients notice."),
        "mend": said(TEXT, "The command or step that mends it."),
        "runbook": said(TEXT, "Where more is said."),
    }
    streamed = {
        **{name: one for name, one in region.items() if name != "sources"},
        "events": {"type": "array", "items": ref("Event")},
    }
    return {
        "Region": opened(region),
        "RegionNews": opened(streamed),
        "RegionGone": closed({"name": REGION}),
        "Unavailable": closed({"reason": TEXT}),
        "Day": closed({"region": REGION, "minutes": {"type": "array", "items": closed(minute)}}),
        "Event": closed({"at": TIME, "kind": TEXT, "message": TEXT}),
        "Events": closed({"events": {"type": "array", "items": ref("Event")}}),
        "Fault": closed(fault),
        "Faults": closed({"faults": {"type": "array", "items": ref("Fault")}, "at": TIME}),
        "Regions": closed(
            {
                "regions": {"type": "array", "items": ref("Region")},
                "faults": said(TEXTS, "The names of what is wrong with the hub and its gateways."),
                "dead_letters": said(COUNT, "How many wait for an operator."),
            }
        ),
    }


def _of_problems() -> dict[str, Schema]:
    types = list(problem_types.TYPES)
    problem = {
        "type": said(
            {"type": "string", "format": "uri-reference", "enum": types},
            "Which problem it is: the address of a page of the gateway that explains it.",
        ),
        "title": TEXT,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": TEXT,
        "errors": said(
            {"type": "array", "items": closed({"pointer": TEXT, "detail": TEXT})},
            "All that is wrong, each with a JSON pointer (RFC 6901).",
        ),
        "request": said(ID, "The request that will never be delivered."),
        "limit": said(TEXT, "The limit of the key that is used up."),
        "faults": said(
            TEXTS, "What is wrong with the gateway or the hub, by name: of /readyz what should wake somebody."
        ),
        "tickets": said(TEXTS, "Faults that can wait, of a gateway that is not ready."),
        "result": said(ref("Result"), "That of the task, if a synchronous one failed."),
    }
    kind = {
        "type": {"enum": types},
        "title": TEXT,
        "statuses": {"type": "array", "items": {"type": "integer"}},
        "when": said(TEXT, "What has happened."),
        "remedy": said(TEXT, "What to do about it."),
        "retryable": said(FLAG, "Whether the same call may succeed later."),
        "example": ref("Problem"),
    }
    return {
        "Problem": closed(problem, optional=("errors", "request", "limit", "faults", "tickets", "result")),
        "ProblemPage": closed(kind),
        "ProblemPages": closed({"problems": {"type": "array", "items": ref("ProblemPage")}}),
    }


def closed(members: Mapping[str, Schema], optional: Iterable[str] = ()) -> Schema:
    """An object with these members and no other one."""
    return {**opened(members, optional), "additionalProperties": False}


def opened(members: Mapping[str, Schema], optional: Iterable[str] = ()) -> Schema:
    """An object with these members, and perhaps more."""
    left_out = set(optional)
    return {
        "type": "object",
        "properties": dict(members),
        "required": [name for name in members if name not in left_out],
    }


def said(schema: Schema, what: str) -> Schema:
    """A schema with its description."""
    return {**schema, "description": what}


def ref(name: str) -> Schema:
    """A reference to a schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: Schema) -> Schema:
    """A schema that also takes null."""
    return {"anyOf": [schema, {"type": "null"}]}
