"""The page Try: a form from the params of shipped sources, and the same call for a shell and for Python."""

import json
import shlex
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
import pytest

from jobs.definition.catalog import Catalog
from regions.settings import load
from web.api.source_view import source_view
from web.console import try_sources
from web.console.files import Files
from web.console.frame import Parts
from web.console.try_sources import Ask
from web.http.answer import Answer
from web.http.owner import EVERYBODY
from web.http.problems import Problem

HOSTILE = "<script>alert(1)</script>\u202e'\"$(id)`"


@pytest.fixture(scope="module")
def catalog():
    settings = load({})
    made = Catalog(settings.source_folders, settings.first_region)
    made.refresh()
    return [source_view(entry, {}) for entry in made.entries()]


@pytest.fixture
def parts(catalog):
    body = msgspec.json.encode({"sources": catalog}, enc_hook=str)
    overview = SimpleNamespace(sources=lambda: Answer(200, body))
    settings = SimpleNamespace(gateway=SimpleNamespace(keys=False, host="h", port=1), limits=load({}).limits)
    return Parts(settings, overview, None, None, None, None, None, None, None, "", Files())


def looking(path: str, query: str = "") -> SimpleNamespace:
    return SimpleNamespace(
        path=path, owner=EVERYBODY, header={"Host": "gate.example:8080"}.get, query=lambda: parse_qsl(query, keep_blank_values=True)
    )  # fmt: skip


def ask(catalog, source: str, **given: str) -> Ask:
    return Ask(
        1,
        json.loads(msgspec.json.encode(next(one for one in catalog if one["id"] == source), enc_hook=str)),
        given,
        bool(given),
    )


def test_every_shipped_source_has_a_form_with_a_field_for_each_param(parts, catalog):
    for source in catalog:
        text = try_sources.page(parts, looking("/try", urlencode({"source": source["id"]}))).main.text
        for name, param in source["params"].items():
            assert f'name="1.{name}"' in text
            assert (f'id="1.{name}-error"' in text, f'id="1.{name}-hint"' in text) == (True, True)
            assert ('aria-required="true"' in text) >= param["required"]
            if param["required"] and param["example"] is not None:
                assert str(param["example"]) in text, "it can be run at once"


def test_the_start_finds_sources_by_all_words(parts):
    text = try_sources.start(parts, looking("/", "q=Books+CATEGORY")).main.text
    assert ("books.list" in text, "ecb.rates" in text) == (True, False)
    assert "No source is like that." in try_sources.start(parts, looking("/", "q=nothing-has-this")).main.text
    with pytest.raises(Problem, match="unknown member"):
        try_sources.start(parts, looking("/", "x=1"))


def test_an_address_fills_the_form_and_nothing_in_it_becomes_markup(parts):
    query = urlencode({"source": "books.list", "1.category": HOSTILE, "max_age": '"><b>'})
    text = try_sources.page(parts, looking("/try", query)).main.text
    assert "<script" not in text
    assert "<b>" not in text
    assert "\u202e" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e" in text


def test_an_unknown_source_is_named_and_the_others_stay(parts):
    text = try_sources.page(parts, looking("/try", "source=no.such&source=ecb.rates")).main.text
    assert "There is no source <code>no.such</code>" in text
    assert 'value="ecb.rates"' in text
    assert "There is no source" in try_sources.page(parts, looking("/try", "source=%3Cb%3E")).main.text


def test_a_source_can_be_removed_and_the_params_of_the_others_stay_with_them(parts):
    query = "source=ecb.rates&source=books.list&2.category=poetry_23&source=books.list&3.category=travel_2&drop=1"
    text = try_sources.page(parts, looking("/try", query)).main.text
    assert 'value="ecb.rates"' not in text.partition("<select")[0].replace("<option", "")
    assert ('name="1.category"' in text, 'name="2.category"' in text) == (True, True)
    assert text.index("poetry_23") < text.index("travel_2")


def test_the_curl_command_is_one_shell_word_a_piece_whatever_the_params_are(catalog):
    command = try_sources.curl(
        [ask(catalog, "books.list", category=HOSTILE)], {"max_age": "60"}, "http://gate:8080", has_keys=False
    )
    words = shlex.split(command)
    assert words[:2] == ["curl", "-s"]
    assert len(words) == 3
    assert dict(parse_qsl(urlsplit(words[2]).query)) == {"category": HOSTILE, "max_age": "60"}
    several = [ask(catalog, "books.list", category=HOSTILE), ask(catalog, "ecb.rates")]
    post, _, _ = try_sources.curl(several, {}, "http://gate:8080", has_keys=True).partition("\ncurl -sN")
    words = shlex.split(post)
    body = json.loads(words[words.index("-d") + 1])
    assert body == {"sources": [{"source": "books.list", "params": {"category": HOSTILE}}, "ecb.rates"]}
    assert "Authorization: Bearer $NEARFETCH_KEY" in words


def test_the_python_program_is_python_whatever_the_params_are(catalog):
    for asks in (
        [ask(catalog, "books.list", category=HOSTILE)],
        [ask(catalog, "books.list", category=HOSTILE), ask(catalog, "ecb.rates")],
    ):
        program = try_sources.in_python(
            asks, {"deadline": "5", "max_age": f"1,{HOSTILE},"}, "http://gate:8080", has_keys=False
        )
        compile(program, "program", "exec")
        assert "deadline=5" in program
        assert repr(f"1,{HOSTILE},") in program
        assert program.isprintable() or all(line.isprintable() for line in program.split("\n"))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "12", 12), ("int", "1e3", "1e3"), ("int", "123456789012345678", 123456789012345678), ("float", "1.5", 1.5), ("float", "x", "x"),
        ("bool", "true", True), ("bool", "yes", "yes"), ("decimal", "1.10", "1.10"), ("str", "12", "12"), ("date", "2026-11-24", "2026-11-24"),
    ],
)  # fmt: skip
def test_a_text_gets_the_type_of_its_param_or_stays_a_text(kind, text, value):
    found = try_sources.typed(kind, text)
    assert (found, type(found)) == (value, type(value))
