"""The interface as pages: ``/docs`` shows the OpenAPI document, ``/problems/…`` what each problem means.

    document (web.api.openapi) ── docs ── a section for each call, a table for each schema
    TYPES (web.api.problem_types) ── problem ── HTML for people, JSON if Accept prefers it

The pages are made here, of what the gateway itself says. They load nothing, run nothing, and name no other site.
"""

import html
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
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
    body = "<h1>Problems</h1>" + "".join(_problem_list()) + '<p><a href="/docs">The interface</a></p>'
    return _page("Problems", body)


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
    again = "The same call may succeed later." if found.retryable else "The same call fails again."
    if type_.startswith(problems.TASK_PAGES):
        again += " <code>error.retryable</code> of the result says it for the case at hand."
    body = (
        f"<h1>{_text(found.title)}</h1><p><code>{html.escape(found.type)}</code>, status {statuses}</p>"
        f"<h2>What has happened</h2><p>{_sentence(found.when)}</p><h2>What to do</h2><p>{_text(found.remedy)}</p><p>{again}</p>"
        f"<h2>Example</h2><pre><code>{html.escape(example)}</code></pre>"
        '<p><a href="/problems">All problems</a> · <a href="/docs">The interface</a></p>'
    )
    return _page(found.title, body)


def _wants_json(exchange: Exchange) -> bool:
    return rows.negotiate(exchange.header("Accept"), FORMS) == "application/json"


def _json(document: Mapping[str, list[ProblemType]] | ProblemType) -> Answer:
    headers = [JSON, ("Cache-Control", "max-age=60"), ("Vary", "Accept"), *HEADERS[1:4]]
    return Answer(200, msgspec.json.encode(document), headers)


def _page(title: str, body: str) -> Answer:
    return Answer(200, _whole(title, body), [*HEADERS, ("Vary", "Accept")])


def _whole(title: str, body: str) -> bytes:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)} · Nearfetch</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    ).encode()


@cache
def _docs(limits: Limits) -> bytes:
    document = msgspec.json.decode(openapi.document(limits))
    info = document["info"]
    parts = [
        f"<h1>{html.escape(info['title'])}: the interface</h1><p>{_text(info['description'])}</p>",
        '<p>The same for programs: <a href="/openapi.json">/openapi.json</a>, OpenAPI 3.1.</p>',
        "<nav><ul>",
        *(
            f'<li><a href="#{_anchor(tag["name"])}">{tag["name"]}</a>: {_text(tag["description"])}</li>'
            for tag in document["tags"]
        ),
        '<li><a href="#schemas">Schemas</a>: what answers and bodies have.</li>',
        '<li><a href="#problems">Problems</a>: what may go wrong, and what to do.</li></ul></nav>',
    ]
    for tag in document["tags"]:
        parts.append(f'<h2 id="{_anchor(tag["name"])}">{tag["name"]}</h2>')
        for path, item in document["paths"].items():
            for method in METHODS:
                if method in item and item[method]["tags"] == [tag["name"]]:
                    parts += _call(path, method, item[method])
    parts.append('<h2 id="headers">Headers</h2><p>Of any call:</p>')
    parts += _parameters(openapi.SHARED)
    parts.append("<p>Of answers:</p><table><thead><tr><th>header</th><th>meaning</th></tr></thead><tbody>")
    parts += [
        f'<tr id="header-{name.lower()}"><td><code>{name}</code></td><td>{_text(one["description"])}</td></tr>'
        for name, one in document["components"]["headers"].items()
    ]
    parts.append('</tbody></table><h2 id="schemas">Schemas</h2>')
    for name, schema in document["components"]["schemas"].items():
        parts += _schema(name, schema)
    parts.append('<h2 id="problems">Problems</h2>')
    parts += _problem_list()
    return _whole("The interface", "\n".join(parts))


def _call(path: str, method: str, call: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f'<h3 id="{call["operationId"]}"><span class="method">{method.upper()}</span> <code>{html.escape(path)}</code></h3>'
        f"<p>{_text(call['summary'])}</p>"
    )
    if call.get("security") == [{}]:
        yield '<p class="note">It needs no key.</p>'
    yield from _parameters(call["parameters"])
    if "requestBody" in call:
        for kind, content in call["requestBody"]["content"].items():
            yield f"<p>Body: <code>{kind}</code>, {_kind(content['schema'])}</p>"
    yield "<table><thead><tr><th>answer</th><th>meaning</th><th>body</th><th>headers</th></tr></thead><tbody>"
    refused = []
    for status, answer in sorted(call["responses"].items()):
        if "$ref" in answer:
            refused.append(status)
            continue
        bodies = ", ".join(
            f"<code>{kind}</code> {_kind(one['schema'])}" for kind, one in answer.get("content", {}).items()
        )
        own = [
            name for name in answer["headers"] if name not in openapi.COMMON or answer["headers"][name].get("required")
        ]
        headers = ", ".join(f'<a href="#header-{name.lower()}">{name}</a>' for name in own)
        yield f"<tr><td>{status}</td><td>{_text(answer['description'])}</td><td>{bodies or 'none'}</td><td>{headers}</td></tr>"
    yield f'<tr><td>{", ".join(refused)}</td><td>A <a href="#problems">problem</a>.</td><td>'
    yield f"<code>{openapi.PROBLEM}</code> {_kind({'$ref': '#/components/schemas/Problem'})}</td><td></td></tr></tbody></table>"


def _parameters(parameters: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    rows_ = [
        f"<tr><td><code>{html.escape(one['name'])}</code></td><td>{one['in']}</td><td>{_kind(one['schema'])}"
        f"{', required' if one.get('required') else ''}</td><td>{_text(one.get('description', ''))}</td></tr>"
        for one in parameters
    ]
    if rows_:
        yield "<table><thead><tr><th>parameter</th><th>in</th><th>type</th><th>meaning</th></tr></thead><tbody>"
        yield from rows_
        yield "</tbody></table>"


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f'<h3 id="schema-{name.lower()}">{name}</h3>'
    required = schema.get("required", ())
    yield "<table><thead><tr><th>member</th><th>type</th><th>meaning</th></tr></thead><tbody>"
    for member, one in schema["properties"].items():
        optional = "" if member in required else ", may be absent"
        yield (
            f"<tr><td><code>{html.escape(member)}</code></td><td>{_kind(one)}{optional}</td>"
            f"<td>{_text(one.get('description', ''))}</td></tr>"
        )
    yield "</tbody></table>"


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema's type in a few words of HTML."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#schema-{name.lower()}">{name}</a>'
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(_kind(one) for one in schema.get("anyOf", schema.get("oneOf")))
    if "contentSchema" in schema:
        return f"JSON of {_kind(schema['contentSchema'])}"
    if "const" in schema:
        return f"<code>{html.escape(str(schema['const']))}</code>"
    if "enum" in schema:
        return ", ".join(f"<code>{html.escape(str(one))}</code>" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}" if schema["items"] else "list"
    if schema.get("type") == "object":
        return _kind_of_object(schema)
    text = str(schema.get("type", "anything"))
    if "format" in schema:
        text += f" ({schema['format']})"
    limits = [f"{word} {schema[key]:g}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    default = [f"default {schema['default']}"] if "default" in schema else []
    return ", ".join([html.escape(text), *limits, *default])


def _kind_of_object(schema: Mapping[str, Any]) -> str:
    if "event" in schema.get("properties", ()):  # of a stream
        return f"{_kind(schema['properties']['event'])} with {_kind(schema['properties']['data'])}"
    if "properties" in schema:
        members = ", ".join(f"<code>{html.escape(name)}</code>" for name in schema["properties"])
        return f"object with {members}"
    others = schema.get("additionalProperties")
    return f"object, its members {_kind(others)}" if isinstance(others, dict) and others else "object"


def _problem_list() -> Iterator[str]:
    yield "<table><thead><tr><th>type</th><th>status</th><th>when</th></tr></thead><tbody>"
    for one in TYPES.values():
        statuses = ", ".join(map(str, one.statuses))
        yield f'<tr><td><a href="{one.type}"><code>{one.type}</code></a></td><td>{statuses}</td><td>{_sentence(one.when)}</td></tr>'
    yield "</tbody></table>"


def _text(text: str) -> str:
    """HTML of a text with code between backticks."""
    return _CODE.sub(r"<code>\1</code>", html.escape(text))


def _sentence(text: str) -> str:
    return _text(f"{text[0].upper()}{text[1:]}.")


def _anchor(name: str) -> str:
    return name.lower()
