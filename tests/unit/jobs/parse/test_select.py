"""What each selector language finds, and in which level it looks."""

import pytest
from lxml import etree

from jobs.definition import css, jmes
from jobs.errors import ParseFailed
from jobs.page import parse_html
from jobs.parse import jsonld
from jobs.text import pattern
from jobs.text.values import Number, from_json
from tests.unit.describing import parse, rows, shop

LIST = "[rows]\ncss = 'ul.items > li.item'\n[fields]\n"


def found(tmp_path, field, **options):
    return [row["x"] for row in rows(tmp_path, f"{LIST}_own = '::attr(data-id)'\nx = {field}\n", shop(), **options)]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("'h2'", ["Desk lamp", "Chair"]),
        ("'h2 a::attr(href)'", ["../item/a1.html", "https://other.example/b2"]),
        ("'h2 a::attr(title)'", ["Desk lamp", None]),
        ("'::attr(data-id)'", ["a1", "b2"]),
        ("{css = 'a', type = 'url', xpath = ''}", None),
        ("'p.note::text'", ["Own text", None]),
        ("'p.note'", ["Own inner text", None]),
        ("'li.item'", ["nested", None]),
        ("{css = '.tag', many = true}", [["light", "desk"], []]),
        ("{css = '.tag', many = true, join = ', '}", ["light, desk", None]),
        ("{css = 'address'}", ["Street 112345 Town", None]),
        ("{css = 'address', lines = true}", ["Street 1\n12345 Town", None]),
        ("{css = 'h1', level = 0}", ["Lamps & chairs"] * 2),
        ("{css = 'h2', level = 0}", ["Desk lamp"] * 2),
        ("{xpath = 'count(span)'}", ["4", "1"]),
        ("{xpath = 'boolean(time)'}", ["false", "true"]),
        ("{xpath = 'h2/a/@href', type = 'url'}", ["https://shop.example/item/a1.html", "https://other.example/b2"]),
        ("{xpath = '//h1'}", ["Lamps & chairs"] * 2),
        ("{xpath = 'span[@class=\"tag\"]', many = true, re = '[a-z]'}", [["l", "i", "g", "h", "t", "d", "e", "s", "k"], []]),
        ("{const = 'GBP'}", ["GBP"] * 2),
        ("{css = 'time', default = 'never'}", ["never", "3. März 2026, 14:05"]),
        ("[{css = 'time'}, '.note', {const = 'none'}]", ["Own inner text", "3. März 2026, 14:05"]),
        ("{template = '{_own}/{_own}'}", ["a1/a1", "b2/b2"]),
        ("{each = '.tag', fields = {t = {css = '::text'}, r = {css = '::attr(data-id)', level = 1}}}",
         [[{"t": "light", "r": "a1"}, {"t": "desk", "r": "a1"}], []]),
    ],
)  # fmt: skip
def test_field_of_a_row(tmp_path, field, expected):
    if expected is None:
        with pytest.raises(Exception, match="one language"):
            found(tmp_path, field)
        return
    assert found(tmp_path, field) == expected


@pytest.mark.parametrize("form", ["html", "xml"])
@pytest.mark.parametrize(
    "selector",
    ["css = 'b'", "css = '.x i'", "css = 'i::attr(t)'", "css = 'b > i'", "css = 'b, i'", "css = 'b::text'", "css = 'none'",
     "css = '::attr(t)'", "css = 'b', lines = true", "css = 'b', without = 'i'", "css = 'b::text', lines = true",
     "css = 'b', level = 0", "xpath = './/i/@t'", "xpath = './/b[2]'", "xpath = 'count(.//i)'", "xpath = 'string(.//i)'",
     "xpath = './/b/text()'", "xpath = 'boolean(.//none)'", "xpath = '$row/@t'"],
)  # fmt: skip
def test_the_first_match_is_the_first_of_all_whichever_way_it_is_found(tmp_path, form, selector):
    """A shared pass over the row, one XPath, or the matches one by one: the way that is quickest for the selector."""
    fields = f"one = {{{selector}}}\nall = {{{selector}, many = true}}\nkept = {{const = 1}}"
    row = '<div t="{0}"><b class="x">1{0} <i t="3">2{0}<br/>2</i>4</b><!--no--><b>5<i t="6">{0}</i></b></div>'
    page = f"<body>{row.format('a')}{row.format('b')}<div/></body>"
    made = parse(tmp_path, f"format = '{form}'\n[rows]\ncss = 'div'\n[fields]\n{fields}", page).rows
    assert [one["one"] for one in made] == [next(iter(one["all"] or ()), None) for one in made]


def test_a_row_without_any_value_is_left_out(tmp_path):
    text = "[rows]\ncss = 'li'\n[fields]\nprice = {css = '.price', default = '0'}\ntitle = {css = 'h1', level = 0}\n"
    assert [row["price"] for row in rows(tmp_path, text, shop())] == ["£1,234.50", "on request"]


def test_bad_value_is_null_and_a_warning(tmp_path):
    parsed = parse(
        tmp_path, LIST + "price = {css = '.price', type = 'decimal'}\n[contract]\nrequired = ['price']", shop()
    )
    assert [str(row["price"]) for row in parsed.rows] == ["1234.50", "None"]
    assert parsed.warnings == ['row 2: price: expected exactly one number, found "on request"']
    assert parsed.bad_required == parsed.warnings


def test_json_ld_rows_see_the_page_too(tmp_path):
    text = """
        [rows]
        jsonld = "Product"
        [fields]
        name = {}
        price = {jmes = "offers.price", type = "decimal"}
        page = "h1"
        """
    assert [(row["name"], str(row["price"]), row["page"]) for row in rows(tmp_path, text, shop())] == [
        ("Lamp", "12.50", "Lamps & chairs"), ("Chair", "None", "Lamps & chairs"),
    ]  # fmt: skip


def test_json_in_a_script_and_html_in_json(tmp_path):
    text = """
        [rows]
        each = [{css = "script#state", parse = "json"}, {jmes = "items"}]
        [fields]
        id = {}
        text = {jmes = "html", parse = "html"}
        raw = {jmes = "html"}
        title = "h1"
        first = {jmes = "items[0].id", level = 1}
        """
    assert rows(tmp_path, text, shop()) == [
        {"id": 1, "text": "One bold", "raw": "<p>One <b>bold</b></p>", "title": "Lamps & chairs", "first": 1},
        {"id": 2, "text": None, "raw": None, "title": "Lamps & chairs", "first": 1},
    ]


def test_html_in_json_as_rows(tmp_path):
    text = """
        format = "json"
        [rows]
        each = [{jmes = "page", parse = "html"}, {css = "p"}]
        [fields]
        text = {css = "b"}
        total = {jmes = "total"}
        """
    body = '{"total": 2, "page": "<p><b>1</b></p><p><b>2</b></p>"}'
    assert rows(tmp_path, text, body) == [{"text": "1", "total": 2}, {"text": "2", "total": 2}]


def test_levels_of_json(tmp_path):
    text = """
        format = "json"
        [rows]
        each = ["boxes", "events"]
        [fields]
        box = {jmes = "id", level = 1}
        kind = {}
        known = {jmes = "time == `null`"}
        time = [{type = "datetime", tz = "local"}, {jmes = "plan", type = "datetime", tz = "local"}]
        all = {jmes = "length(boxes)", level = 0}
        """
    body = """
        {"boxes": [{"id": "A", "events": [{"kind": "in", "time": "2026-01-02T03:04:05"}]},
                   {"id": "B", "events": [{"kind": "out", "time": null, "plan": "2026-01-03T00:00:00"}, {}]}, {"id": "C"}]}
        """
    assert [(row["box"], row["kind"], row["known"], row["time"], row["all"]) for row in rows(tmp_path, text, body)] == [
        ("A", "in", False, "2026-01-02T03:04:05", 3),
        ("B", "out", True, "2026-01-03T00:00:00", 3),
        ("B", None, True, None, 3),
    ]


def test_xml_names_match_in_any_namespace(tmp_path):
    text = """
        format = "xml"
        [namespaces]
        x = "urn:x"
        [rows]
        css = "Row"
        [fields]
        a = "::attr(href)"
        b = {xpath = "x:b"}
        c = "b"
        d = "b[kind=two]"
        """
    body = '<r xmlns="urn:x" xmlns:l="urn:l"><Row l:href="u"><b>1</b><b l:kind="two">2</b></Row><row/></r>'
    assert rows(tmp_path, text, body) == [{"a": "u", "b": "1", "c": "1", "d": "2"}]


def test_css_inside_a_row_does_not_match_the_row():
    assert css.translate("li", xml=False, prefix=css.INSIDE).xpath == "descendant::li"
    assert css.translate("::attr(id)", xml=False, prefix=css.INSIDE).xpath == "self::*/@id"
    row = etree.fromstring("<li id='1'><ul><li id='2'/></ul></li>")
    for selector, expected in (("li::attr(id)", ["2"]), ("::attr(id)", ["1"]), (":scope > ul li::attr(id)", ["2"])):
        path = css.translate(selector, xml=False, prefix=css.INSIDE)
        assert row.xpath(path.xpath) == expected


@pytest.mark.parametrize(
    "selector", ["a::before", ":not(a, b)::foo", "> a", "a::attr()", "a::text, b", "li:nth-child(1 of a)"]
)
def test_css_that_is_refused(selector):
    with pytest.raises(ValueError, match=r"."):
        css.translate(selector, xml=False, prefix=css.INSIDE)


def test_jmespath_with_additional_functions():
    document = from_json(
        b'{"o": {"a": 1, "b": 2}, "x": [1, 2], "y": ["p", "q"], "n": [1.5, 2.5, 10], "deep": {"k": {"l": 3}}}'
    )
    assert jmes.compiled("items(o)")(document) == [["a", 1], ["b", 2]]
    assert jmes.compiled("zip(x, y)[?[0] > `1`]")(document) == [[2, "q"]]
    assert jmes.compiled("sum(n)")(document) == 14.0
    assert jmes.compiled("n[?@ > `2`]")(document) == [2.5, 10]
    by_price = from_json(b'{"r": [{"n": "b", "p": 9.5}, {"n": "a", "p": 1}, {"n": "c", "p": 9.25}]}')
    assert jmes.compiled("sort_by(r, &p)[].n")(by_price) == ["a", "c", "b"]
    assert jmes.compiled("[max_by(r, &p).n, min_by(r, &p).n]")(by_price) == ["b", "a"]
    assert type(jmes.compiled("n[0]")(document)) is Number
    assert jmes.compiled("deep.k.l")(document) == 3
    assert jmes.compiled("deep.k.l.m")(document) is None
    assert jmes.compiled("items(nothing)")(document) == []


def test_jmespath_keeps_one_interpreter():
    """Undocumented by jmespath: ``visit`` of a kept interpreter gives the same as ``search``."""
    import jmespath

    document = {"a": [{"b": 1, "c": [1, 2]}, {"b": 2, "c": []}]}
    for expression in (
        "a[].c[]",
        "a[?b > `1`].b",
        "sort_by(a, &b)[0].b",
        "a[*].{x: b}",
        "a[1:].b | [0]",
        "a[0].c[-1]",
        "a[0].c[-3]",
        "a.b",
        "a[5].b",
        "a[0].c[1]",
        "[0]",
    ):
        find = jmes.compiled(expression)
        for _ in range(3):
            assert find(document) == jmespath.search(expression, document)


def test_expression_that_fails_on_a_row_is_a_bad_value(tmp_path):
    text = "format = 'json'\n[rows]\njmes = 'items'\n[fields]\nid = {}\nn = 'length(parts)'"
    parsed = parse(tmp_path, text, '{"items": [{"id": 1, "parts": [1]}, {"id": 2}]}')
    assert parsed.rows == [{"id": 1, "n": 1}, {"id": 2, "n": None}]
    assert "row 2: n: expected a value that" in parsed.warnings[0]


def test_the_pattern_finder_gives_the_same_as_re2():
    for expression, text in (
        (r"(\d+)€", "zu 45€"),
        (r"ü(b)?", "grün"),
        ("x", "abc"),
        ("^$", ""),
        (r"(\w)\s(é.)", "a éü"),
    ):
        match = pattern.compiled(expression).search(text)
        group = 1 if pattern.compiled(expression).groups else 0
        assert pattern.finder(expression)(text) == (None if match is None else match[group] or "")


def test_steps_must_find_elements(tmp_path):
    with pytest.raises(ParseFailed, match="expected elements"):
        rows(tmp_path, "[rows]\nxpath = '//a/@href'\n[fields]\na = 'b'", shop())


@pytest.mark.parametrize(
    ("script", "count"),
    [
        ('{"@type": "A"}', 1),
        ('[{"@type": ["B", "A"]}, {"@type": "C"}]', 1),
        ('{"@graph": [{"@type": "A"}, {"@type": "schema:A"}]}', 2),
        ('//<![CDATA[\n{"@type": "A"}\n//]]>', 1),
        ('<![CDATA[\n{"@type": "A"}\n]]>', 1),
        ('/*<![CDATA[*/ {"@type": "A"} /*]]>*/', 1),
        ('<!-- {"@type": "A"} -->', 1),
        ("<!--\n[{'@type': 'A'}, {'@type': 'A'},]\n//-->", 2),
        ("{'@type': 'A',};", 1),
        ("{", 0),
        ("", 0),
        ('{"@type": 5}', 0),
        ("[" * 100_000, 0),
    ],
)
def test_json_ld_as_pages_write_it(script, count):
    page = parse_html(f"<html><script type='application/LD+json'>{script}</script></html>".encode())
    assert len(jsonld.nodes(page, "A", [])) == count
