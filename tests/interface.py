"""Holds the calls of the tests and their answers against the gateway's OpenAPI document. ``tests.wire`` asks it about each.

    an answer      has a status, a type, headers and a body as its call's; a body that is not there, or not JSON, is not looked at
    a call         that is answered with 2xx is one that the document permits: it sends nothing that the document does not tell
    another path   is answered with a problem, if at all: some tests talk to other servers
    another server that says what it is, as those of a region's metrics do, is not looked at: the gateway does not say it

What is larger than ``BYTES_MAX`` is not looked into. The document is the one of a gateway with the limits that are the default.
"""

import json
import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote

import jsonschema_rs

from regions.settings import Limits
from web.api import openapi

BYTES_MAX = 1_000_000
# Of HTTP itself: the document of an interface does not tell them.
FRAMING = frozenset({"connection", "content-length", "content-type", "date", "transfer-encoding"})
SAYS_WHERE = "docs: web/api/openapi.py has the calls and headers, web/api/schemas.py what they take and give"


class Untrue(AssertionError):  # noqa: N818
    """The document does not say what the gateway does."""


@dataclass(frozen=True)
class Call:
    """What a client sent."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def path(self) -> str:
        """The path, also of a target that is an address."""
        return re.sub(r"^https?://[^/?]*", "", self.target).partition("?")[0] or "/"

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)


def check(call: Call, status: int, headers: dict[str, str], body: bytes) -> None:
    """Raises ``Untrue`` if the document does not have such an answer to such a call. ``headers`` have names in lower case."""
    if "server" in headers:
        return
    item = _item(call.path)
    kind = headers.get("content-type", "").partition(";")[0]
    try:
        if item is None or (method := _method(call, item)) not in item:
            if kind == openapi.PROBLEM:
                _check_body("Problem", body, headers)
            return
        _check_answer(item[method], call, status, headers, body)
        if 200 <= status < 300:
            _check_call(item[method], call)
    except Untrue as error:
        raise Untrue(f"{call.method} {call.target[:200]} was answered with {status}: {error} ({SAYS_WHERE})") from None


def check_event(name: str, data: object) -> None:
    """The same for an event of a stream: its data have the schema that ``openapi.EVENTS`` names."""
    schema = openapi.EVENTS.get(name)
    if schema is None:
        raise Untrue(f"an event {name!r}, which the document does not have")
    _check(_schema(schema), data, f"the event {name}")


def _method(call: Call, item: dict[str, Any]) -> str:
    method = call.method.lower()
    return "get" if method == "head" and "head" not in item else method


def _check_answer(operation: dict[str, Any], call: Call, status: int, headers: dict[str, str], body: bytes) -> None:
    found = operation["responses"].get(str(status))
    if found is None:
        raise Untrue(f"the document has {', '.join(operation['responses'])}")
    found = _resolved(found)
    told = {name.lower(): one for name, one in found.get("headers", {}).items()}
    if unknown := set(headers) - set(told) - FRAMING:
        raise Untrue(f"with headers that the document does not tell: {', '.join(sorted(unknown))}")
    for name, one in told.items():
        if name in headers:
            _check(_resolved(one)["schema"], _converted(headers[name], _resolved(one)["schema"]), f"its header {name}")
        elif one.get("required") and call.method != "HEAD":
            raise Untrue(f"without {name}")
    kind = headers.get("content-type", "").partition(";")[0]
    content = found.get("content", {})
    if not content and body:
        raise Untrue("with a body, and the document has none")
    if content and kind not in content:
        raise Untrue(f"as {kind or 'nothing'}, and the document has {', '.join(content)}")
    if kind in (openapi.JSON, openapi.PROBLEM) and call.method != "HEAD":
        _check_body(content[kind]["schema"], body, headers)


def _check_body(schema: dict[str, Any] | str, body: bytes, headers: dict[str, str]) -> None:
    if len(body) > BYTES_MAX or not body or "content-encoding" in headers:
        return
    _check(_schema(schema) if isinstance(schema, str) else schema, json.loads(body), "its body")


def _check_call(operation: dict[str, Any], call: Call) -> None:
    """That the document permits a call which was answered with 2xx."""
    parameters = [_resolved(one) for one in operation["parameters"]]
    in_query = {one["name"]: one["schema"] for one in parameters if one["in"] == "query" and not one.get("explode")}
    takes_any = any(one.get("explode") for one in parameters)
    for name, text in call.query:
        if name in in_query:
            _check(in_query[name], _converted(text, in_query[name]), f"{name} of its query", formats=False)
        elif not takes_any:
            raise Untrue(f"though the document does not tell {name} in its query")
    for one in parameters:
        text = call.header(one["name"]) if one["in"] == "header" else None
        if text:
            _check(one["schema"], text, f"the header {one['name']} that was sent", formats=False)
    if "requestBody" in operation and call.body:  # otherwise it was sent later
        _check(
            operation["requestBody"]["content"][openapi.JSON]["schema"], json.loads(call.body), "the body that was sent"
        )


def _converted(text: str, schema: dict[str, Any]) -> object:
    """A text of a query or header as JSON has it."""
    if schema.get("type") in ("integer", "number"):
        try:
            return json.loads(text) if schema["type"] == "number" else int(text)
        except ValueError:
            return text
    return unquote(text) if "%" in text else text


@cache
def document() -> dict[str, Any]:
    """The document."""
    return json.loads(json.dumps(openapi.described(Limits())))


@cache
def _patterns() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    return [
        (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), item) for path, item in document()["paths"].items()
    ]


def _item(path: str) -> dict[str, Any] | None:
    return next((item for pattern, item in _patterns() if pattern.fullmatch(path)), None)


def _resolved(part: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in part:
        return part
    found: Any = document()
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found


def _schema(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_validators: dict[tuple[str, bool], jsonschema_rs.Draft202012Validator] = {}


def _check(schema: dict[str, Any], value: object, what: str, *, formats: bool = True) -> None:
    key = json.dumps(schema), formats
    if key not in _validators:
        whole = {"components": {"schemas": document()["components"]["schemas"]}, "allOf": [schema]}
        _validators[key] = jsonschema_rs.Draft202012Validator(whole, validate_formats=formats)
    error = next(_validators[key].iter_errors(value), None)
    if error is not None:
        where = "/".join(map(str, error.instance_path))
        raise Untrue(f"{what} is not as the document has it: {where}: {error.message[:500]}")
