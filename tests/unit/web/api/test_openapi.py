"""The OpenAPI document: all calls and all problems stand in it, and nothing else."""

import json
from collections.abc import Iterator

from openapi_spec_validator import validate

from regions.settings import Limits
from web import app
from web.api import openapi, problem_types
from web.http.problems import KINDS

FOUND = json.loads(openapi.document(Limits()))
ADD_IT = (
    "It stands in routes of web/app.py. Add it to _paths of web/api/openapi.py, its schemas to web/api/schemas.py, and a row to "
    "docs/http.md."
)


class Nobody:
    """Has every handler."""

    def __getattr__(self, name: str):
        return lambda *_, **__: None


def routes() -> set[tuple[str, str]]:
    """(method, path as the document writes it) of all calls, whatever parts of a gateway ``routes`` takes."""
    parts = [Limits() if name == "limits" else Nobody() for name in app.routes.__annotations__ if name != "return"]
    return {(method, path.replace("<", "{").replace(">", "}")) for method, path, _ in app.routes(*parts)}


def refs(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from refs(one)


def operations() -> list[tuple[str, str, dict]]:
    return [
        (method.upper(), path, call)
        for path, item in FOUND["paths"].items()
        for method, call in item.items()
        if method != "parameters"
    ]


def test_it_is_openapi():
    validate(FOUND)


def test_every_route_of_the_gateway_is_a_call():
    told = {(method, path) for method, path, _ in operations()}
    left_out = routes() - told
    assert not left_out, f"not in the OpenAPI document: {sorted(left_out)}. {ADD_IT}"
    assert told <= routes(), "the document has calls that the gateway does not have"


def test_answers_may_grow_and_what_clients_send_may_not():
    closed = {
        name
        for name, schema in FOUND["components"]["schemas"].items()
        if '"additionalProperties": false' in json.dumps(schema)
    }
    assert closed == {"New", "Ask"}


def test_names_of_operations_are_unique_and_parameters_in_paths_are_told():
    names = [call["operationId"] for _, _, call in operations()]
    assert len(set(names)) == len(names)
    for _, path, call in operations():
        told = {one["name"] for one in call["parameters"] if one["in"] == "path"}
        assert told == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path
        assert set(call["tags"]) < set(openapi.TAGS)


def test_every_reference_leads_somewhere_and_everything_is_used():
    components = {
        f"#/components/{kind}/{name}"
        for kind in ("schemas", "responses", "headers")
        for name in FOUND["components"][kind]
    }
    used = set(refs(FOUND))
    assert used <= components
    headers = {
        f"#/components/headers/{name}" for name in openapi.HEADERS
    }  # those that an answer always has stand there whole
    assert components - used <= headers | {"#/components/responses/Problem405"}


def test_every_problem_is_an_answer_of_some_call():
    statuses = {status for _, _, call in operations() for status in call["responses"]}
    assert {str(status) for status, _ in KINDS.values()} - {"405"} <= statuses  # 405 is for calls that are not there
    assert FOUND["components"]["schemas"]["Problem"]["properties"]["type"]["enum"] == list(problem_types.TYPES)


def test_calls_that_need_no_key_are_those_of_the_gateway():
    told = {path for _, path, call in operations() if call.get("security") == [{}]}
    assert all(path in app.WITHOUT_KEY or path.startswith(app.WITHOUT_KEY_BELOW) for path in told)
    assert set(app.WITHOUT_KEY) <= told


def test_pages_of_other_origins_may_read_every_header_that_is_not_for_their_browser():
    """The Fetch standard lets a script read Cache-Control anyway."""
    exposed = set(app.EXPOSED[1].split(", "))
    of_browsers = {
        "Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Cache-Control", "Content-Encoding", "Content-Security-Policy",
        "Referrer-Policy", "Vary", "WWW-Authenticate", "X-Accel-Buffering", "X-Content-Type-Options",
    }  # fmt: skip
    assert exposed == openapi.HEADERS.keys() - of_browsers, "EXPOSED of web/app.py"
