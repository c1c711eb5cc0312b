"""The interface as pages: ``/docs`` shows the OpenAPI document, ``/problems/…`` what each problem means.

    document (web.api.openapi) ── docs ── a section for each call, a table for each schema
    TYPES (web.api.problem_types) ── problem ── HTML for people, JSON if Accept prefers it

The pages are made here, of what the gateway itself says. They load nothing, run nothing, and name no other site.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from regions.settings import Limits
from web.api import openapi, rows
from web.api.problem_types import TYPES, ProblemType
from web.api.views import JSON
from web.http import problems
from web.http.answer import Answer
from web.http.exchange import Exchange
from web.http.markup import NOTHING, Child, Html, join, style, tag
from web.http.problems import Problem

STYLE: Final = (Path(__file__).resolve().parents[1] / "static" / "manual.css").read_text(encoding="utf-8")
STYLE_HASH: Final = b64encode(sha256(STYLE.encode()).digest()).decode()
HEADERS: Final = [
    ("Content-Type", "text/html; charset=utf-8"),
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "max-age=60"),
]
FORMS: Final = ("text/html", "application/json")  # of the pages about problems
METHODS: Final = ("get", "post", "delete")

_CODE: Final = re.compile(r"`([^`]+)`")


def docs(limits: Limits) -> Answer:
    """``GET /docs``: the OpenAPI document as a page."""
    return Answer(200, _docs(limits), HEADERS)


def all_problems(exchange: Exchange) -> Answer:
    """``GET /problems``: all types of problems."""
    if _wants_json(exchange):
        return _json({"problems": list(TYPES.values())})
    back = tag("p", tag("a", "The interface", href="/docs"))
    return _page("Problems", tag("h1", "Problems"), _problem_list(), back)


def problem(exchange: Exchange, kind: str) -> Answer:
    """``GET /problems/{kind}``: what it means, and what to do."""
    return _problem(exchange, problems.PAGES + kind)


def task_problem(exchange: Exchange, kind: str) -> Answer:
    """``GET /problems/task/{kind}``: the same for the error of a task."""
    return _problem(exchange, problems.TASK_PAGES + kind)


def _problem(exchange: Exchange, type_: str) -> Answer:
    found = TYPES.get(type_)
    if found is None:
        raise Problem("not-found", f"there is no problem {type_[:60]}; /problems has all")
    if _wants_json(exchange):
        return _json(found)
    example = msgspec.json.format(bytes(found.example), indent=2).decode()
    statuses = " or ".join(map(str, found.statuses))
    again: list[Child] = ["The same call may succeed later." if found.retryable else "The same call fails again."]
    if type_.startswith(problems.TASK_PAGES):
        again += [" ", tag("code", "error.retryable"), " of the result says it for the case at hand."]
    return _page(
        found.title,
        tag("h1", _text(found.title)),
        tag("p", tag("code", found.type), f", status {statuses}"),
        tag("h2", "What has happened"),
        tag("p", _sentence(found.when)),
        tag("h2", "What to do"),
        tag("p", _text(found.remedy)),
        tag("p", again),
        tag("h2", "Example"),
        tag("pre", tag("code", example)),
        tag("p", tag("a", "All problems", href="/problems"), " · ", tag("a", "The interface", href="/docs")),
    )


def _wants_json(exchange: Exchange) -> bool:
    return rows.negotiate(exchange.header("Accept"), FORMS) == "application/json"


def _json(document: Mapping[str, list[ProblemType]] | ProblemType) -> Answer:
    headers = [JSON, ("Cache-Control", "max-age=60"), ("Vary", "Accept"), *HEADERS[1:4]]
    return Answer(200, msgspec.json.encode(document), headers)


def _page(title: str, *body: Child) -> Answer:
    return Answer(200, _whole(title, body), [*HEADERS, ("Vary", "Accept")])


def _whole(title: str, body: Child) -> bytes:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title} · Nearfetch"),
        style(STYLE),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en').text}\n".encode()


@cache
def _docs(limits: Limits) -> bytes:
    document = msgspec.json.decode(openapi.document(limits))
    info, tags = document["info"], document["tags"]
    parts: list[Child] = [
        tag("h1", f"{info['title']}: the interface"),
        tag("p", _text(info["description"])),
        tag("p", "The same for programs: ", tag("a", "/openapi.json", href="/openapi.json"), ", OpenAPI 3.1."),
        tag(
            "nav",
            tag(
                "ul",
                (_place(one["name"], _anchor(one["name"]), _text(one["description"])) for one in tags),
                _place("Schemas", "schemas", "what answers and bodies have."),
                _place("Problems", "problems", "what may go wrong, and what to do."),
            ),
        ),
    ]
    for one in tags:
        parts.append(tag("h2", one["name"], id=_anchor(one["name"])))
        parts += [
            _call(path, method, item[method])
            for path, item in document["paths"].items()
            for method in METHODS
            if method in item and item[method]["tags"] == [one["name"]]
        ]
    headers = (
        tag("tr", tag("td", tag("code", name)), tag("td", _text(one["description"])), id=f"header-{name.lower()}")
        for name, one in document["components"]["headers"].items()
    )
    parts += [
        tag("h2", "Headers", id="headers"),
        tag("p", "Of any call:"),
        _parameters(openapi.SHARED),
        tag("p", "Of answers:"),
        _table(("header", "meaning"), headers),
        tag("h2", "Schemas", id="schemas"),
        (_schema(name, schema) for name, schema in document["components"]["schemas"].items()),
        tag("h2", "Problems", id="problems"),
        _problem_list(),
    ]
    return _whole("The interface", parts)


def _place(name: str, anchor: str, what: Child) -> Html:
    return tag("li", tag("a", name, href=f"#{anchor}"), ": ", what)


def _table(headings: Iterable[str], rows_: Iterable[Html]) -> Html:
    return tag("table", tag("thead", tag("tr", (tag("th", one) for one in headings))), tag("tbody", rows_))


def _row(*cells: Child) -> Html:
    return tag("tr", (tag("td", one) for one in cells))


def _listed(found: Iterable[Child], between: str = ", ") -> Html:
    """Several, with a text between them."""
    return join((between if number else None, one) for number, one in enumerate(found))


def _call(path: str, method: str, call: Mapping[str, Any]) -> Html:
    bodies = call.get("requestBody", {}).get("content", {})
    answers = []
    for status, answer in sorted(call["responses"].items()):
        if "$ref" in answer:
            continue
        own = [
            name for name in answer["headers"] if name not in openapi.COMMON or answer["headers"][name].get("required")
        ]
        answers.append(
            _row(
                status,
                _text(answer["description"]),
                _listed(
                    (tag("code", kind), " ", _kind(one["schema"])) for kind, one in answer.get("content", {}).items()
                )
                or "none",
                _listed(tag("a", name, href=f"#header-{name.lower()}") for name in own),
            )
        )
    refused = sorted(status for status, answer in call["responses"].items() if "$ref" in answer)
    problem = (tag("code", openapi.PROBLEM), " ", _kind({"$ref": "#/components/schemas/Problem"}))
    answers.append(_row(", ".join(refused), ("A ", tag("a", "problem", href="#problems"), "."), problem, ""))
    return join(
        tag("h3", tag("span", method.upper(), class_="method"), " ", tag("code", path), id=call["operationId"]),
        tag("p", _text(call["summary"])),
        tag("p", "It needs no key.", class_="note") if call.get("security") == [{}] else None,
        _parameters(call["parameters"]),
        (tag("p", "Body: ", tag("code", kind), ", ", _kind(one["schema"])) for kind, one in bodies.items()),
        _table(("answer", "meaning", "body", "headers"), answers),
    )


def _parameters(parameters: Iterable[Mapping[str, Any]]) -> Html:
    rows_ = [
        _row(
            tag("code", one["name"]),
            one["in"],
            (_kind(one["schema"]), ", required" if one.get("required") else None),
            _text(one.get("description", "")),
        )
        for one in parameters
    ]
    return _table(("parameter", "in", "type", "meaning"), rows_) if rows_ else NOTHING


def _schema(name: str, schema: Mapping[str, Any]) -> Html:
    required = schema.get("required", ())
    rows_ = (
        _row(
            tag("code", member),
            (_kind(one), None if member in required else ", may be absent"),
            _text(one.get("description", "")),
        )
        for member, one in schema["properties"].items()
    )
    return join(tag("h3", name, id=f"schema-{name.lower()}"), _table(("member", "type", "meaning"), rows_))


def _kind(schema: Mapping[str, Any]) -> Child:
    """A schema's type in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return tag("a", name, href=f"#schema-{name.lower()}")
    if "anyOf" in schema or "oneOf" in schema:
        return _listed((_kind(one) for one in schema.get("anyOf", schema.get("oneOf"))), " or ")
    if "contentSchema" in schema:
        return "JSON of ", _kind(schema["contentSchema"])
    if "const" in schema:
        return tag("code", str(schema["const"]))
    if "enum" in schema:
        return _listed(tag("code", str(one)) for one in schema["enum"])
    if schema.get("type") == "array":
        return ("list of ", _kind(schema["items"])) if schema["items"] else "list"
    if schema.get("type") == "object":
        return _kind_of_object(schema)
    text = str(schema.get("type", "anything"))
    if "format" in schema:
        text += f" ({schema['format']})"
    limits = [f"{word} {schema[key]:g}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    default = [f"default {schema['default']}"] if "default" in schema else []
    return ", ".join([text, *limits, *default])


def _kind_of_object(schema: Mapping[str, Any]) -> Child:
    if "event" in schema.get("properties", ()):  # of a stream
        return _kind(schema["properties"]["event"]), " with ", _kind(schema["properties"]["data"])
    if "properties" in schema:
        return "object with ", _listed(tag("code", name) for name in schema["properties"])
    others = schema.get("additionalProperties")
    return ("object, its members ", _kind(others)) if isinstance(others, dict) and others else "object"


def _problem_list() -> Html:
    rows_ = (
        _row(tag("a", tag("code", one.type), href=one.type), ", ".join(map(str, one.statuses)), _sentence(one.when))
        for one in TYPES.values()
    )
    return _table(("type", "status", "when"), rows_)


def _text(text: str) -> Html:
    """A text with code between backticks."""
    parts = _CODE.split(text)
    return join(tag("code", part) if number % 2 else part for number, part in enumerate(parts))


def _sentence(text: str) -> Html:
    return _text(f"{text[0].upper()}{text[1:]}.")


def _anchor(name: str) -> str:
    return name.lower()
