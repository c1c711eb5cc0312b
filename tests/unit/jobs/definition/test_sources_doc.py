"""docs/sources.md is run: every example, every row of its tables, every command.

An example is a ``toml`` fence and what follows it: pages, and the records, the warnings, the faults or the request.
"""

import html
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from jobs import errors
from jobs.definition import field, field_reader, limits, params, read
from jobs.page import Page
from jobs.parse.contract_check import check
from jobs.parse.source import Parsed, Source
from regions.settings import ROOT
from tests import forked
from tests.unit.describing import URL, define, faults

TEXT = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECRETS = {name: f"{name}-of-the-region" for name in ("API_TOKEN", "PASSWORD", "QUOTES")}


class Fence(Struct, frozen=True):
    language: str
    role: str
    body: str
    line: int


def fences() -> list[Fence]:
    return [Fence(one[1], one[2].strip(), one[3], TEXT[: one.start()].count("\n") + 1) for one in FENCE.finditer(TEXT)]


def examples() -> Iterator[list[Fence]]:
    """Each definition with the fences after it."""
    group: list[Fence] = []
    for fence in fences():
        if fence.language == "toml":
            if group:
                yield group
            group = [fence] if not fence.role else []
        elif group and fence.language != "console" and "file" not in fence.role:
            group.append(fence)
    yield group


def source_of(group: list[Fence], folder: Path) -> Source:
    code = next((fence.body for fence in group if fence.language == "python"), "")
    return Source(define(folder, group[0].body, code=code))


def answers(source: Source, pages: list[Fence]) -> list[Parsed]:
    given = {name: one.example for name, one in source.definition.params.items() if one.required}
    request = source.first(source.definition.bind(given), SECRETS)
    found = []
    for fence in pages:
        url = fence.role.removeprefix("page").strip()
        assert request is not None, f"line {fence.line}: no further page is asked for"
        if len(pages) > 1:
            assert request.url == url
        page = Page(request, url or request.url, 200, {}, fence.body.encode(), request.params)
        found.append(source.parse(page))
        request = found[-1].next
    return found


def plain(value: Any) -> Any:
    """A value as results have it."""
    return json.loads(msgspec.json.encode(value))


@pytest.mark.parametrize("group", list(examples()), ids=lambda group: f"line {group[0].line}")
def test_example(group, tmp_path):
    by_role = {fence.role.partition(" ")[0]: fence for fence in group[1:]}
    if "faults" in by_role:
        assert faults(tmp_path, group[0].body) == by_role["faults"].body.splitlines()
        return
    source = source_of(group, tmp_path)
    if "request" in by_role:
        assert sent(source) == by_role["request"].body.strip()
    pages = [fence for fence in group if fence.role.startswith("page")]
    if "records" not in by_role:
        assert pages == []
        return
    found = answers(source, pages)
    rows = [row for one in found for row in one.rows]
    assert plain(rows) == json.loads(by_role["records"].body)
    assert [warning for one in found for warning in one.warnings] == []
    check(source.definition, rows, empty=any(one.empty for one in found))


def sent(source: Source) -> str:
    given = {name: one.example for name, one in source.definition.params.items() if one.required}
    request = source.first(source.definition.bind(given), SECRETS)
    lines = dict(request.headers)
    if request.cookies:
        lines["Cookie"] = "; ".join(f"{name}={value}" for name, value in request.cookies.items())
    head = [f"{request.method} {request.url}", *(f"{name}: {lines[name]}" for name in sorted(lines))]
    return "\n".join([*head, *(["", request.body.decode()] if request.body else [])])


def tables(heading: str) -> list[list[str]]:
    """The rows of all tables with this heading, as cells without their quotes."""
    rows, inside = [], False
    for line in TEXT.splitlines():
        inside = line.startswith("|") and (inside or line == heading)
        if inside and line != heading and not line.startswith("|---"):
            cells = re.split(r"(?<!\\)\|", line.strip()[1:-1])
            rows.append([unquoted(cell.strip()) for cell in cells])
    return rows


def unquoted(cell: str) -> str:
    cell = cell.replace("\\|", "|")
    marks = re.fullmatch(r"(`+) ?(.*?) ?\1", cell)
    return marks[2] if marks else cell


@pytest.mark.parametrize(("text", "keys", "expected"), tables("| text | keys | value |"))
def test_value(text, keys, expected, tmp_path):
    described = f"[fields]\nany = 'p'\nx = {{css = 'p'{', ' if keys else ''}{keys}}}"
    source = Source(define(tmp_path, described))
    body = f"<meta charset=utf-8><p>{html.escape(text)}</p>".encode()
    parsed = source.parse(Page(source.first({}, {}), URL, 200, {}, body))
    if expected == "bad":
        assert parsed.rows[0]["x"] is None
        assert parsed.warnings[0].startswith("row 1: x: expected ")
        return
    is_told = expected.endswith(", warned")
    assert bool(parsed.warnings) == is_told
    assert plain(parsed.rows[0]["x"]) == json.loads(unquoted(expected.removesuffix(", warned")))


@pytest.mark.parametrize(("selector", "expected"), tables("| selector | value |"))
def test_selector(selector, expected, tmp_path):
    page = next(fence.body for fence in fences() if fence.role == "table")
    source = Source(define(tmp_path, f"[rows]\ncss = 'li'\n[fields]\nany = {{css = ':scope'}}\nx = {selector}"))
    parsed = source.parse(Page(source.first({}, {}), URL, 200, {}, page.encode()))
    assert (parsed.warnings, plain(parsed.rows[0]["x"])) == ([], json.loads(expected))


@pytest.mark.parametrize(("body", "expression", "expected"), tables("| JSON | jmes | value |"))
def test_expression(body, expression, expected, tmp_path):
    described = f"format = 'json'\n[fields]\nany = {{jmes = 'keys(@)'}}\nx = {{jmes = '''{expression}'''}}"
    source = Source(define(tmp_path, described))
    parsed = source.parse(Page(source.first({}, {}), URL, 200, {}, body.encode()))
    assert (parsed.warnings, plain(parsed.rows[0]["x"])) == ([], json.loads(expected))


def test_ten_minutes(tmp_path):
    """The commands run in order, with the files that the text gives. Their output has all lines that the text shows."""
    environ = {**os.environ, "NEARFETCH__SOURCES__PATH": str(tmp_path), "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    ran = 0
    for fence in fences():
        if fence.role.startswith("file "):
            (tmp_path / fence.role.removeprefix("file ")).write_text(fence.body, encoding="utf-8")
        if fence.language != "console":
            continue
        printed = ""
        shown = [line for line in fence.body.splitlines() if not line.startswith("$ ")]
        for line in fence.body.splitlines():
            if line.startswith("$ nearfetch "):
                words = ["-m", "scripts.cli", *shlex.split(line)[2:]]
                done = forked.run(words, imported=forked.AUTHORING, cwd=tmp_path, env=environ, text=True)
                assert done.returncode == 0, (line, done.stdout, done.stderr)
                printed += done.stdout + done.stderr
                ran += 1
        assert [line for line in shown if line not in printed.splitlines()] == [], printed
    assert ran >= 5


def test_every_key_of_the_format_stands_in_the_document():
    words = set(re.findall(r"[a-z_]+", TEXT))
    known = {
        *read._KEYS, *field_reader._KEYS, *field.LANGUAGES, *field.TYPES, *field.DEFAULT_LANGUAGE, *params._KEYS,
        *limits.Limits.__struct_fields__, *limits.Contract.__struct_fields__, *read.CODE_NAMES,
        *("empty", "blocked", "start", "step", "link", "max_pages", "ttl_seconds", "delimiter", "quote", "header", "skip"),
        *("method", "headers", "cookies", "form", "json", "body", "auth", "egress", "basic", "bearer"),
    }  # fmt: skip
    assert sorted(known - words) == []


def test_every_error_type_that_a_source_can_cause_stands_in_the_document():
    others = {"expired", "cancelled", "poison", "unknown_source", "region_unavailable", "internal"}
    assert [kind for kind in errors.TYPES if kind not in others and f"`{kind}`" not in TEXT] == []


def test_defaults_of_limits_are_those_of_the_code():
    rows = {row[0]: row[1] for row in tables("| `[limits]` | default | is |")}
    code = {name: getattr(limits.Limits(), name) for name in limits.Limits.__struct_fields__}
    shown = {name: json.loads(value.replace(",", "")) for name, value in rows.items() if value not in ("none", "false")}
    assert set(rows) == set(code)
    assert all(code[name] == value for name, value in shown.items())


def test_examples_of_the_document_are_toml():
    for fence in fences():
        if fence.language == "toml":
            tomllib.loads(fence.body)
