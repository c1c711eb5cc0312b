"""JSON-LD: broken scripts, several values in a script, JavaScript, and references between nodes."""

import json

import pytest

from jobs.page import parse_html
from jobs.parse import jsonld
from jobs.parse.source import Source
from tests.unit.describing import define, page, parse, rows


def nodes(*scripts: str, wanted: str = "A") -> tuple[list, list[str]]:
    made = "".join(f"<script type='application/ld+json'>{script}</script>" for script in scripts)
    warnings: list[str] = []
    return jsonld.nodes(parse_html(f"<html><body>{made}".encode()), wanted, warnings), warnings


@pytest.mark.parametrize(
    ("script", "values"),
    [
        ('{"@type": "A", "n": 1}{"@type": "A", "n": 2}', [1, 2]),
        ('{"@type": "A", "n": 1}\n\n{"@type": "A", "n": 2}\n', [1, 2]),
        ('{"@type": "A", "n": 1},\n{"@type": "A", "n": 2},', [1, 2]),
        ('[{"@type": "A", "n": 1}];[{"@type": "A", "n": 2}]', [1, 2]),
        ("{'@type': 'A', n: 1}{'@type': 'A', n: 2}", [1, 2]),
        ('<!-- {"@type": "A", "n": 1}{"@type": "A", "n": 2} -->', [1, 2]),
        ("{&quot;@type&quot;: &quot;A&quot;, &quot;n&quot;: &quot;x &amp;amp; y&quot;}", ["x &amp; y"]),
        ('{"@type": "A", "n": undefined}', [None]),
        ('{"@type": "A", n: undefined, m: "undefined"}', [None]),
        ('{"@type": "A", "n": NaN}', [None]),
        ("{'@type': 'A', n: NaN}", [None]),
        ('{"@type": "A", "n": "<\\/script>"}', ["</script>"]),
        ('\ufeff{"@type": "A", "n": "a\tb\nc"}', ["a\tb\nc"]),
        ('{"@type": "A", "n": 1.10}', [1.1]),
        ('{"@type": "A", "n": "@type"}', ["@type"]),
        ("{'@type': 'A', 'n': '@type'}", ["@type"]),
    ],
)
def test_all_values_of_a_script_are_read(script, values):
    found, warnings = nodes(script)
    assert ([node["n"] for node in found], warnings) == (values, [])


@pytest.mark.parametrize(
    ("script", "values", "told"),
    [
        (
            '{"@type": "A", "n": "He said "hi" there"}',
            [],
            "script 2 of JSON-LD can't be read: Expecting ',' delimiter: line 1 column 31",
        ),
        ('{"@type": "A", "n": 1', [], "script 2 of JSON-LD can't be read: Expecting ',' delimiter"),
        ('{"@type": "A" "n": 1}', [], "script 2 of JSON-LD can't be read: Expecting ',' delimiter"),
        ("nothing", [], "script 2 of JSON-LD can't be read: Expecting value: line 1 column 1"),
        ("[" * 100_000, [], "script 2 of JSON-LD can't be read: "),
        ('{"@type": "A", "n": 1}, {"@type": "A", "n": 2', [1], "script 2 of JSON-LD can't be read to its end: "),
        ('{"@type": "A", "n": 1,} {"@type": "A", "n" 2}', [1], "script 2 of JSON-LD can't be read to its end: "),
    ],
)
def test_an_unreadable_script_gives_a_warning(script, values, told):
    found, warnings = nodes('{"@type": "B"}', script, "", " ")
    assert [node["n"] for node in found] == values
    assert len(warnings) == 1
    assert warnings[0].startswith(told)


def test_the_result_has_the_warning_once(tmp_path):
    text = "[fields]\nname = {jsonld = 'A', parse = 'json'}\nh = 'h1'\n[contract]\nblocked = {jsonld = 'Wall'}\nempty = {jsonld = 'None'}"
    text = text.replace(
        "{jsonld = 'A', parse = 'json'}",
        "[{each = {jsonld = 'A'}, fields = {n = {}}}, {each = {jsonld = 'B'}, fields = {n = {}}}]",
    )
    parsed = parse(tmp_path, text, "<h1>x</h1><script type='application/ld+json'>{</script>")
    assert parsed.rows == [{"name": [], "h": "x"}]
    assert [one.partition(":")[0] for one in parsed.warnings] == ["script 1 of JSON-LD can't be read"]


def test_references_are_resolved_even_between_scripts():
    product = {
        "@type": "A",
        "@id": "#a",
        "brand": {"@id": "#b"},
        "by": [{"@id": "#c", "@type": "Person"}, {"@id": "#none"}],
        "is": {"@id": "#a"},
    }
    brand = {"@id": "#b", "name": "B", "owner": {"@id": "#c"}, "sells": {"@id": "#a"}}
    found, warnings = nodes(
        json.dumps([product]),
        json.dumps({"@graph": [brand, {"in": {"@id": "#c", "@type": "P", "name": "C", "made": {"@id": "#b"}}}]}),
    )
    person = {"@id": "#c", "@type": "P", "name": "C", "made": {"@id": "#b"}}
    assert (found, warnings) == (
        [
            {
                "@type": "A", "@id": "#a",
                "brand": {"@id": "#b", "name": "B", "owner": person, "sells": {"@id": "#a"}},
                "by": [{**person, "@type": "Person", "made": {"@id": "#b", "name": "B", "owner": {"@id": "#c"}, "sells": {"@id": "#a"}}}, {"@id": "#none"}],
                "is": {"@id": "#a"},
            }
        ],
        [],
    )  # fmt: skip


def test_resolved_references_add_a_limited_number_of_bytes():
    large = {"@id": "#l", "text": "x" * 300_000}
    found, warnings = nodes(json.dumps([{"@type": "A", "all": [{"@id": "#l"}] * 1_000}, large]))
    assert sum("text" in one for one in found[0]["all"]) == 3
    assert set(warnings) == {"references of JSON-LD are joined up to 1000000 bytes; the others stay"}


def test_a_page_has_no_warnings_of_the_previous_page(tmp_path):
    source = Source(define(tmp_path, "[rows]\njsonld = 'A'\n[fields]\nn = {}"))
    assert len(source.parse(page(source, "<script type='application/ld+json'>{</script>")).warnings) == 1
    assert (
        source.parse(page(source, '<script type="application/ld+json">{"@type": "A", "n": 1}</script>')).warnings == []
    )


def test_chains_of_references_are_resolved_up_to_a_limit():
    chain = [{"@id": f"#{n}", "@type": "A" if not n else "B", "next": {"@id": f"#{n + 1}"}} for n in range(20)]
    (node,), _ = nodes(json.dumps(chain))
    depth = 0
    while "next" in node:
        node, depth = node["next"], depth + 1
    assert (depth, node) == (jsonld.JOINED_DEEP_MAX + 1, {"@id": f"#{jsonld.JOINED_DEEP_MAX + 1}"})


def test_circular_references_end():
    ring = [
        {"@id": f"#{n}", "@type": "A", "next": {"@id": f"#{(n + 1) % 30}"}, "two": {"@id": f"#{(n + 7) % 30}"}}
        for n in range(30)
    ]
    found, _ = nodes(json.dumps(ring))
    assert len(found) == 30
    assert len(json.dumps(found)) < 3_000_000
    assert found[0]["next"]["next"]["@id"] == "#2"


def test_half_a_character_in_javascript_is_no_text(tmp_path):
    """Results have no bytes for it."""
    head = "[rows]\neach = [SELECTOR]\n[fields]\na = {}"
    for selector, script in (
        ("{xpath = '//script', parse = 'json'}", r"<script>var d = {a: '\ud83dx\u00e9'};</script>"),
        ("{jsonld = 'Thing'}", r"<script type='application/ld+json'>{'@type': 'Thing', a: '\ud83dx\u00e9'}</script>"),
    ):
        assert rows(tmp_path, head.replace("SELECTOR", selector), script) == [{"a": "\ufffdxé"}]


def test_undefined_in_javascript_is_null(tmp_path):
    text = "[rows]\neach = [{xpath = '//script', parse = 'json'}]\n[fields]\na = {}\nb = {}"
    body = "<script>var d = {a: undefined, b: 'it is undefined', c: x.undefined};</script>"
    assert parse(tmp_path, text, body).rows == [{"a": None, "b": "it is undefined"}]
