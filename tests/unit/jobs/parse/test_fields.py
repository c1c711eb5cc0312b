"""How the keys of a field work together on a page."""

import pytest

from jobs.errors import ParseFailed
from tests.unit.describing import faults, parse, rows

LETTER = "<p>Dear all,<br>see you [1] at 9.</p><p>Bring:</p><ul><li>tea [2]</li><li>cake</li></ul>"


def field(folder, described: str, body: str = LETTER, **options) -> object:
    return rows(folder, f"[fields]\nx = {described}", body, **options)[0]["x"]


def test_every_match_of_a_pattern_keeps_its_blanks_and_its_lines(tmp_path):
    """So an author can cut pieces out of a text, or join its lines by something else."""
    cut = r"""{css = "p", many = true, re = '([^\[\]]+)(?:\[[^\]]*\])*', join = ""}"""
    assert field(tmp_path, cut) == "Dear all,see you  at 9.Bring:"
    lines = """{css = "body", lines = true, many = true, re = '(?m)^(.+)$', join = " | "}"""
    assert field(tmp_path, lines) == "Dear all, | see you [1] at 9. | Bring: | tea [2] | cake"
    assert field(tmp_path, """{css = "li", many = true, re = '^(\\w+)', type = "str"}""") == ["tea", "cake"]
    assert field(tmp_path, r"""{css = "body", many = true, re = '\[(\d)\]', type = "int"}""") == [1, 2]
    assert field(tmp_path, """{css = "li", many = true, re = '^(\\w+)', map = {tea = "T", "*" = "?"}}""") == ["T", "?"]


def test_a_bool_with_a_pattern_is_one_value(tmp_path):
    assert (
        "fields.x.many: expected no many"
        in faults(tmp_path, "[fields]\nx = {css = 'p', re = 'tea', type = 'bool', many = true}")[0]
    )


def test_to_tz_converts_times_to_another_zone(tmp_path):
    body = "<time>Wed, 17 Jan 2018 15:50:00 EST</time>"
    found = '{css = "time", type = "datetime", format = "rfc2822"'
    assert field(tmp_path, found + "}", body) == "2018-01-17T15:50:00-05:00"
    assert field(tmp_path, found + ', to_tz = "UTC"}', body) == "2018-01-17T20:50:00Z"
    assert field(tmp_path, found + ', to_tz = "Asia/Kolkata"}', body) == "2018-01-18T02:20:00+05:30"
    naive = '{css = "time", type = "datetime", tz = "Europe/Berlin", to_tz = "UTC"}'
    assert field(tmp_path, naive, "<time>2018-07-01 12:00</time>") == "2018-07-01T10:00:00Z"
    first = parse(tmp_path, f"[fields]\nx = {naive}", "<time>0001-01-01</time>")
    assert (first.rows, len(first.warnings)) == ([{"x": None}], 1)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('type = "datetime", to_tz = "Mars/Base"', "fields.x.to_tz: expected an IANA time zone"),
        ('type = "datetime", to_tz = "local"', "fields.x.to_tz: expected a zone other than local"),
        ('type = "datetime", tz = "local", to_tz = "UTC"', "fields.x.to_tz: expected a zone other than local"),
        ('type = "date", to_tz = "UTC"', "expected a type of datetime beside it"),
    ],
)
def test_invalid_zones_are_faults(tmp_path, keys, said):
    assert any(said in one for one in faults(tmp_path, f'[fields]\nx = {{css = "time", {keys}}}'))


def test_templates_know_the_address_of_the_page(tmp_path):
    made = field(tmp_path, '{template = "{page.url}"}\ny = "p"', url="https://shop.example/a?b=1")
    assert made == "https://shop.example/a?b=1"
    nested = 'x = {each = "li", fields = {a = "::text", b = {template = "{page.url}#{a}"}}}'
    assert rows(tmp_path, f"[fields]\n{nested}", "<li>t</li>", url="https://s.example/")[0]["x"] == [
        {"a": "t", "b": "https://s.example/#t"}
    ]


def test_a_bad_value_of_a_nested_field_does_not_count_for_its_parent(tmp_path):
    """A nested field may have the name of a required one."""
    text = '[fields]\nn = "b"\nparts = {each = "li", fields = {n = {css = "::text", type = "int"}}}\n[contract]\nrequired = ["n"]'
    parsed = parse(tmp_path, text, "<b>5</b><ul><li>1</li><li>x</li></ul>")
    assert parsed.rows == [{"n": "5", "parts": [{"n": 1}, {"n": None}]}]
    assert parsed.bad_required == []
    assert parsed.warnings == ['row 1: parts.n: expected exactly one whole number, found "x"']


@pytest.mark.parametrize(
    ("base", "found"),
    [
        ('<base href="/deep/er/">', "https://shop.example/deep/er/a.html"),
        ('<body><p>x</p><BASE target=_top><base href="https://cdn.example/">', "https://cdn.example/a.html"),
        ('<base href="//[">', "https://shop.example/list/a.html"),
        ("<!-- <base href=/no/> -->", "https://shop.example/list/a.html"),
        ("<basefont href=/no/>", "https://shop.example/list/a.html"),
    ],
)
def test_addresses_are_relative_to_the_base_wherever_it_stands(tmp_path, base, found):
    described = '{css = "a::attr(href)", type = "url"}'
    assert field(tmp_path, described, f"{base}<a href=a.html>a</a>", url="https://shop.example/list/x") == found


def test_white_space_is_kept_with_fold_false(tmp_path):
    body = '{"a": " one\\n\\n  two\\u00a0three ", "b": "", "c": [" x ", 5]}'
    text = """
    format = "json"
    [fields]
    folded = {jmes = "a"}
    a = {jmes = "a", fold = false}
    b = {jmes = "b", fold = false, default = "none"}
    c = {jmes = "c", many = true, fold = false}
    second = {jmes = "a", fold = false, re = '(?s)\\n(.*)$'}
    """
    assert rows(tmp_path, text, body) == [
        {
            "folded": "one two three",
            "a": " one\n\n  two\u00a0three ",
            "b": "none",
            "c": [" x ", 5],
            "second": "\n  two\u00a0three ",
        }
    ]
    assert "expected true beside lines" in faults(tmp_path, "[fields]\nx = {css = 'p', lines = true, fold = false}")[0]


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("var data = {items: [{id: 1}, {id: 2,}]};", [1, 2]),
        ('window.__DATA__={"items":[{"id":3}]}', [3]),
        ('{"items": []}', []),
    ],
)
def test_data_in_a_script_is_read(tmp_path, script, found):
    text = "[rows]\neach = [{css = 'script', parse = 'json'}, {jmes = 'items'}]\n[fields]\nid = {}"
    assert [row["id"] for row in rows(tmp_path, text, f"<script>{script}</script>")] == found


def test_a_script_without_data_fails_the_page(tmp_path):
    text = "[rows]\neach = [{css = 'script', parse = 'json'}]\n[fields]\nid = {}"
    with pytest.raises(ParseFailed, match="expected JSON"):
        parse(tmp_path, text, "<script>alert(1)</script>")
    with pytest.raises(ParseFailed, match="at most"):
        parse(tmp_path, text, f"<script>[{',' * 800_000}]</script>")


NOTES = "<p>a<sup>1</sup> b<sup>2<i>x</i></sup>c <s></s>tail</p>after<p>z</p>"


@pytest.mark.parametrize(
    ("described", "found"),
    [
        ('{css = "p", without = "sup"}', "a bc tail"),
        ('{css = "p", without = "sup, i, s", many = true}', ["a bc tail", "z"]),
        ('{css = "p", without = "sup i"}', "a1 b2c tail"),
        ('{css = "p", without = ":scope"}', "a1 b2xc tail"),
        ('{css = "p", without = "p"}', "a1 b2xc tail"),
        ('{css = "body", without = "sup, p + p", lines = true}', "a bc tail\nafter"),
        ('{xpath = "//p/text()", without = "sup"}', "a"),
        ('{css = "p", without = "sup", re = "(b.)"}', "bc"),
    ],
)
def test_without_leaves_out_descendants(tmp_path, described, found):
    text = f"[fields]\nx = {described}\nwhole = 'p'"
    assert rows(tmp_path, text, NOTES) == [{"x": found, "whole": "a1 b2xc tail"}]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('css = "p", without = "::text"', "ends in ::text"),
        ('css = "p", without = "b >"', "a CSS selector of elements"),
        ('css = "p", without = "svg|b"', "Undefined namespace prefix"),
        ('jsonld = "A", without = "b"', "expected css or xpath beside it"),
        ('css = "p", parse = "html", without = "b"', "expected css or xpath beside it"),
    ],
)
def test_without_is_refused_for_other_languages(tmp_path, keys, said):
    assert any(said in one for one in faults(tmp_path, f"[fields]\nx = {{{keys}}}"))


def test_row_is_the_context_element_of_an_xpath(tmp_path):
    """The row's element, that of a nested item, and the page's. A text that looks like a variable stays a text."""
    text = """
        [rows]
        css = "h2"
        [fields]
        texts = {xpath = "following-sibling::p[preceding-sibling::h2[1] = $row]", many = true}
        links = {each = "a", fields = {below = {xpath = "//p[@title = $row/@href]"}}}
        page  = {xpath = "name($row)", level = 0}
        price = {xpath = "//p[. = '$row']/@title"}
        """
    body = (
        """<h2>A<a href=x></a></h2><p title=x>1</p><p>2</p><h2>B<a href=y></a><a href=x></a></h2><p title=y>$row</p>"""
    )
    assert rows(tmp_path, text, body) == [
        {"texts": ["1", "2"], "links": [{"below": "1"}], "page": "html", "price": "y"},
        {"texts": ["$row"], "links": [{"below": "$row"}, {"below": "1"}], "page": "html", "price": "y"},
    ]
