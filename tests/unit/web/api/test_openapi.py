"""The OpenAPI document: all calls and all problems stand in it, and nothing else."""

import json
from collections.abc import Iterator

from regions.settings import Limits
from web import app
from web.api import openapi
from web.http.problems import KINDS

FOUND = json.loads(openapi.document(Limits()))


class Nobody:
    """Has every handler."""

    def __getattr__(self, name: str):
        return lambda *_, **__: None


def refs(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from refs(one)


def test_its_calls_are_those_of_the_gateway():
    nobody = Nobody()
    routes = app.routes(nobody, nobody, nobody, nobody, nobody, nobody, Limits())
    calls = {(method, path.replace("<", "{").replace(">", "}")) for method, path, _ in routes if path != "/"}
    assert calls == {(method.upper(), path) for path, one in FOUND["paths"].items() for method in one}


def test_names_of_operations_are_unique_and_parameters_in_paths_are_told():
    operations = [(path, call) for path, one in FOUND["paths"].items() for call in one.values()]
    assert len({call["operationId"] for _, call in operations}) == len(operations)
    for path, call in operations:
        told = {one["name"] for one in call["parameters"] if one["in"] == "path"}
        assert told == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path


def test_every_reference_leads_to_a_schema():
    schemas = {f"#/components/schemas/{name}" for name in FOUND["components"]["schemas"]}
    assert set(refs(FOUND)) == schemas


def test_every_problem_is_an_answer_of_some_call():
    statuses = {status for one in FOUND["paths"].values() for call in one.values() for status in call["responses"]}
    assert {str(status) for status, _ in KINDS.values()} - {"405"} <= statuses  # 405 is for calls that are not there
