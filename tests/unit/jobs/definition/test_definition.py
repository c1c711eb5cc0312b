"""How a definition is read, and how its faults are reported."""

import pytest

from jobs.definition.model import BadParams
from jobs.definition.read import read
from regions.faults import Faults
from regions.settings import ROOT
from tests.unit.describing import define, faults

WHOLE = """
title = "Everything"
url = 'https://api.example/v1/{kind}{?q,page}'
region = "fra"
standby = ["nyc", "sin"]
format = "json"
[params]
kind = {required = true, enum = ["a", "b"], example = "a"}
q = {}
page = {type = "int", min = 1}
[request]
headers = {X-Kind = "{kind}", Authorization = "Token {secret.TOKEN}"}
[before]
url = 'https://api.example/login'
ttl_seconds = 60
[before.fields]
token = "input[name=token]::attr(value)"
[rows]
each = ["data", "items[]"]
[fields]
id = {type = "int"}
owner = {level = 1}
_first = {jmes = "first"}
name = {template = "{_first} {id}"}
parts = {each = "parts", fields = {size = {type = "decimal"}}}
[next]
param = "page"
max_pages = 3
[limits]
rate = "30/min"
[contract]
required = ["id"]
unique = ["id", ["owner", "name"]]
range = {id = [1, 100]}
empty = "total == `0`"
absent = [404]
"""


def test_whole_definition(tmp_path):
    definition = define(tmp_path, WHOLE)
    assert (definition.id, definition.region, definition.standby) == ("demo.test", "fra", ("nyc", "sin"))
    assert list(definition.fields) == ["id", "owner", "_first", "name", "parts"]
    assert [step.level for step in definition.rows] == [0, 1]
    assert definition.limits.rate_per_second == 0.5
    assert definition.contract.unique == (("id",), ("owner", "name"))
    assert len(definition.hash) == 8
    assert definition.ask.secrets() == ["TOKEN"]


def test_bind_and_expand(tmp_path):
    definition = define(tmp_path, WHOLE)
    bound = definition.bind({"kind": "a", "q": "x y&z"}, text=True)
    assert bound == {"kind": "a", "q": "x y&z", "page": 1}
    assert definition.expand(bound) == "https://api.example/v1/a?q=x%20y%26z&page=1"
    with pytest.raises(BadParams) as caught:
        definition.bind({"kind": "c", "page": "0", "pgae": "1"}, text=True)
    assert {name for name, _ in caught.value.faults} == {"kind", "page", "pgae"}


def test_hash_is_of_the_file_and_its_code(tmp_path):
    text = '[fields]\nname = "h1"'
    one = define(tmp_path, text).hash
    other = define(tmp_path, text, code="def next_page(page):\n    return None").hash
    assert one != other
    assert define(tmp_path, text + "\n", code="def next_page(page):\n    return None").hash not in (one, other)


def test_schema_of_a_record(tmp_path):
    schema = define(tmp_path, WHOLE).schema()
    assert list(schema["properties"]) == ["id", "owner", "name", "parts"]
    assert schema["properties"]["id"] == {"type": "integer"}
    assert schema["properties"]["owner"] == {}
    assert schema["properties"]["parts"]["items"]["properties"]["size"]["type"] == ["string", "null"]


def test_schema_of_a_json_value_is_any_unless_its_type_is_named(tmp_path):
    """With ``str``, a number becomes a string."""
    fields = 'format = "json"\n[fields]\nany = {}\nname = {type = "str"}\nword = {map = {a = 1}}\nboth = {map = {a = 1}, type = "str"}'
    properties = define(tmp_path, fields).schema()["properties"]
    assert properties["any"] == {}
    assert properties["name"] == properties["both"] == {"type": ["string", "null"]}
    assert properties["word"] == {"enum": [1, None]}


def test_format_that_is_left_out(tmp_path):
    assert define(tmp_path, '[rows]\njmes = "items"\n[fields]\na = {}').format == "json"
    assert define(tmp_path, '[rows]\neach = [{jmes = "items"}]\n[fields]\na = {}').format == "json"
    assert define(tmp_path, '[fields]\na = "b"').format == "html"


def test_all_faults_at_once_with_their_lines(tmp_path):
    text = """\
title = "Broken"
url = 'https://api.example/{kind}'
regoin = "fra"
[rows]
css = "li >"
[fields]
author = {ccs = "small"}
price = {css = ".price", type = "dezimal"}
when = {css = "time", type = "date", re = '(?=x)'}
name = {css = "b", xpath = "b"}
deep = {css = "b", level = 4}
own = {}
[limits]
rate = "often"
concurrency = 0
[contract]
required = ["titel"]
"""
    found = faults(tmp_path, text)
    assert [one.split(" ")[0] for one in found] == [
        "demo.test.toml:2:", "demo.test.toml:3:", "demo.test.toml:5:", "demo.test.toml:7:", "demo.test.toml:8:",
        "demo.test.toml:9:", "demo.test.toml:10:", "demo.test.toml:11:", "demo.test.toml:12:", "demo.test.toml:14:",
        "demo.test.toml:15:", "demo.test.toml:17:",
    ]  # fmt: skip
    assert 'unknown key "regoin"; did you mean "region"?' in found[1]
    assert 'fields.author: unknown selector key "ccs"; did you mean "css"?' in found[3]
    assert "expected one of str, url, int" in found[4]
    assert 'found "dezimal"; did you mean "decimal"?' in found[4]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "fields: expected a table of fields, found none"),
        ("title = 5\nurl = 'https://a.example/'\n[fields]\na = 'b'", "title: expected a text, found 5"),
        ("title = 'x'\nurl = 'ftp://a.example/'\n[fields]\na = 'b'", "http or https"),
        ("title = 'x'\nurl = 'https://a.example:8o/{b}'\n[params]\nb = {}\n[fields]\na = 'b'", "url: expected a host"),
        ("title = 'x'\nurl = 'https://[::1/'\n[fields]\na = 'b'", "url: expected a host"),
        ("title = 'x'\nurl = 'https://a.example/{secret.X}'\n[fields]\na = 'b'", "no secret"),
        ("title = 'x'\nurl = 'https://a.example/{'\n[fields]\na = 'b'", "RFC 6570"),
        ("title = 'x'\nurl = 'https://a.example/{?}'\n[fields]\na = 'b'", "RFC 6570"),
        ("region = 'Fra!'\n[fields]\na = 'b'", "a region's name"),
        ("charset = 'klingon'\n[fields]\na = 'b'", "a charset like"),
        ("[params]\nwait = {}\n[fields]\na = 'b'", "the HTTP interface"),
        ("[params]\na = {type = 'int', default = 'x'}\n[fields]\na = 'b'", "params.a.default"),
        ("[params]\na = {required = true, default = 'x'}\n[fields]\na = 'b'", "no default"),
        ("[params]\na = {pattern = '('}\n[fields]\na = 'b'", "RE2"),
        ("[request]\nheaders = {X = '{unknown}'}\n[fields]\na = 'b'", "{unknown}"),
        ("[request]\nheaders = {X = '10 €'}\n[fields]\na = 'b'", "request.headers.X: expected Latin-1"),
        ("[request]\nform = {a = 'b'}\nbody = 'c'\n[fields]\na = 'b'", "one body"),
        ("[request]\nform = {a = 'b'}\nmethod = 'GET'\n[fields]\na = 'b'", "beside form"),
        ("[request]\nauth = {basic = 'a', bearer = 'b'}\n[fields]\na = 'b'", "basic or bearer"),
        ("[fields]\na = {css = 'b', re = '\\C'}", "half a character"),
        ("[fields]\na = {xpath = '//['}", "XPath"),
        ("[fields]\na = {xpath = 'foo:bar'}", "XPath"),
        ("[fields]\na = 'svg|a'", "Undefined namespace prefix"),
        ("[fields]\na = {xpath = \"//a[. = $rwo or . = '$x']\"}", "with no variable but $row"),
        ("[fields]\na = {css = 'b', type = 'date', format = '%d %b %%Y'}", "a pattern with a year"),
        ("[fields]\na = {css = 'b', type = 'date', format = ['iso', '%H:%M']}", "a pattern with a year"),
        ("[fields]\na = {xpath = 're:test(., \"(a+)+$\")'}", "XPath"),
        ("format = 'json'\n[fields]\na = 'b['", "JMESPath"),
        ("format = 'json'\n[fields]\na = 'nope(b)'", "nope"),
        ("format = 'json'\n[fields]\na = {css = 'b'}", "which needs elements"),
        ("[fields]\na = {key = 'b'}", "which needs keys"),
        ("[fields]\na = {css = 'b', join = ','}", "many = true"),
        ("[fields]\na = {css = 'b', tz = 'Europe/Berlin'}", "expected a type of datetime beside it"),
        ("[fields]\na = {css = 'b', type = 'datetime', tz = 'Mars/Base'}", "IANA"),
        ("[fields]\na = {css = 'b', type = 'date', lang = 'xx'}", "a language"),
        ("[fields]\na = {css = 'b', type = 'date', format = 'words'}", "strptime"),
        ("[fields]\na = {css = 'b', type = 'int', scale = '1/0'}", "a factor"),
        ("[fields]\na = {template = '{b}'}\nb = 'c'", "a field above it"),
        ("[fields]\na = {template = 'x{'}", "names in braces"),
        ("[fields]\na = {template = 'x', css = 'b'}", "found both"),
        ("[fields]\na = []", "at least one field"),
        ("[fields]\na = {each = 'b'}", "expected fields beside each"),
        ("[rows]\ncss = 'a::attr(b)'\n[fields]\na = 'b'", "found texts"),
        ("[next]\nmax_pages = 2\n[fields]\na = 'b'", "a selector, param or link"),
        ("[next]\nparam = 'page'\n[fields]\na = 'b'", "one of [params]"),
        ("[params]\npage = {}\n[next]\nparam = 'page'\n[fields]\na = 'b'", "stands in url"),
        ("[contract]\nrange = {a = [2, 1]}\n[fields]\na = 'b'", "[low, high]"),
        ("[contract]\nabsent = [4040]\n[fields]\na = 'b'", "HTTP statuses"),
        ("format = 'text'\n[fields]\na = {}", "rows: expected re"),
        ("format = 'text'\n[rows]\nre = 'x'\n[fields]\na = {}", "named groups"),
        ("format = 'csv'\n[rows]\ncss = 'x'", "a row of csv is a line"),
        ("[csv]\ndelimiter = ';;'\n[fields]\na = 'b'", "one character"),
        ("[csv]\nquote = '<>'\n[fields]\na = 'b'", "one character"),
        ("[fields]\na = {attr = 'href'}", 'unknown selector key "attr"; one of const, css, '),
    ],
)
def test_fault(tmp_path, text, said):
    found = faults(tmp_path, text)
    assert any(said in one for one in found), found


def test_all_bad_xpaths_are_reported_with_their_lines(tmp_path):
    text = """\
title = "Broken"
url = 'https://api.example/'
[rows]
xpath = "//li["
[fields]
a = {xpath = ".//b"}
b = ["i", {xpath = "foo:bar"}]
c = {each = "u", fields = {d = {xpath = "nope()"}}}
[contract]
empty = {xpath = "//("}
"""
    found = faults(tmp_path, text)
    assert [one.split(": ")[:2] for one in found] == [
        ["demo.test.toml:4", "rows.xpath"], ["demo.test.toml:7", "fields.b.1"], ["demo.test.toml:8", "fields.c.fields.d"],
        ["demo.test.toml:10", "contract.empty"],
    ]  # fmt: skip


def test_names_of_broken_fields_count_as_known(tmp_path):
    """One mistake is reported once."""
    text = "[fields]\na = {ccs = 'b'}\nb = {template = '{a}'}\n[contract]\nrequired = ['a']"
    assert len(faults(tmp_path, text)) == 1


def test_faults_of_code_are_found_without_running_it(tmp_path):
    assert any("expected Python" in one for one in faults(tmp_path, "[fields]\na = 'b'", code="def ("))
    assert any("one of request, parse" in one for one in faults(tmp_path, "[fields]\na = 'b'", code="x = 1"))
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'w')\ndef parse(page):\n    return []"
    define(tmp_path, "[fields]\na = {}", code=code)
    assert not marker.exists()


def test_a_file_that_is_not_toml(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("title = \n")
    with pytest.raises(Faults, match=r"x\.toml:1: expected TOML"):
        read(path)


@pytest.mark.parametrize("path", sorted((ROOT / "jobs" / "sources").glob("*.toml")), ids=lambda path: path.stem)
def test_a_shipped_source_is_valid(path):
    definition = read(path)
    assert definition.region in ("fra", "nyc", "sin")
    examples = {name: param.example for name, param in definition.params.items() if param.example is not None}
    bound = definition.bind(examples)
    assert definition.expand(bound).startswith("https://")
    assert definition.bind(bound) == bound, "a worker binds again what the gateway bound"


def test_a_pinned_source_has_no_standby(tmp_path):
    assert define(tmp_path, "pinned = true\n[fields]\na = 'b'").pinned
    assert faults(tmp_path, "standby = 'nyc'\npinned = true\n[fields]\na = 'b'") == [
        "demo.test.toml:4: pinned: expected no standby beside it, since its data may not leave its region"
    ]
    assert faults(tmp_path, "standby = 'nyc'\npinned = false\n[fields]\na = 'b'") == []
