"""The requests of a compiled source, and the records that it makes of answers."""

import gzip
import io
import math
import zipfile

import pytest

from jobs.errors import Blocked, DecodeFailed, HttpStatus, Internal, ParseFailed, RateLimited, TooLarge
from jobs.memory import Budget
from jobs.page import Page
from jobs.parse.source import Source
from jobs.task.execution import never
from regions.faults import Faults
from tests.unit.describing import define, parse, rows, shop

LIST = "[rows]\ncss = 'ul.items > li.item'\n[fields]\nid = '::attr(data-id)'\nlink = {css = 'a::attr(href)', type = 'url'}\n"


def test_listing(tmp_path):
    assert rows(tmp_path, LIST, shop()) == [
        {"id": "a1", "link": "https://shop.example/item/a1.html"},
        {"id": "b2", "link": "https://other.example/b2"},
    ]


def test_page_without_rows_is_one_record(tmp_path):
    assert rows(tmp_path, "[fields]\ntitle = 'h1'\nnone = 'h5'", shop()) == [{"title": "Lamps & chairs", "none": None}]
    assert rows(tmp_path, "[fields]\nnone = 'h5'", shop()) == []


def test_base_of_a_page_and_its_own_address(tmp_path):
    body = "<head><base href='/other/'></head><a href='x'>y</a>"
    field = "[fields]\nlink = {css = 'a::attr(href)', type = 'url'}"
    assert rows(tmp_path, field, body) == [{"link": "https://shop.example/other/x"}]
    moved = parse(tmp_path, field, "<a href='x'>y</a>", url="https://moved.example/a/b")
    assert moved.rows == [{"link": "https://moved.example/a/x"}]


# ── asking ──


def test_request_is_filled_in(tmp_path):
    text = """
        title = "x"
        url = 'https://api.example/{kind}{?q}'
        [params]
        kind = {required = true}
        q = {}
        n = {type = "int"}
        [request]
        headers = {X-Kind = "kind {kind}", X-Q = "{q}", X-Token = "{secret.TOKEN}"}
        cookies = {session = "{before.sid}; x"}
        json = {kind = "{kind}", n = "{n}", list = ["{q}", 5, {deep = "n is {n}"}]}
        auth = {basic = "me:{secret.PASSWORD}"}
        egress = "proxy"
        [before]
        url = 'https://api.example/login'
        [before.fields]
        sid = "h1"
        [fields]
        a = "h1"
        """
    source = Source(define(tmp_path, text))
    secrets = {"TOKEN": "t0k\r\nX-Evil: 1", "PASSWORD": "pw"}
    request = source.first({"kind": "a b", "n": 5}, secrets, {"sid": "s1"})
    assert (request.method, request.url) == ("POST", "https://api.example/a%20b")
    assert request.headers == {
        "X-Kind": "kind a b", "X-Token": "t0k X-Evil: 1", "Authorization": "Basic bWU6cHc=",
        "Content-Type": "application/json",
    }  # fmt: skip
    assert request.cookies == {"session": "s1%3B%20x"}
    assert request.body == b'{"kind":"a b","n":5,"list":[null,5,{"deep":"n is 5"}]}'
    assert (request.egress, request.params) == ("proxy", {"kind": "a b", "n": 5})
    with pytest.raises(Internal, match="secret PASSWORD"):
        source.first({"kind": "a"}, {"TOKEN": "x"})


def test_form_and_body(tmp_path):
    form = Source(
        define(
            tmp_path, "[params]\nq = {}\nr = {}\n[request]\nform = {q = '{q}', r = '{r}', s = 's&'}\n[fields]\na = 'b'"
        )
    )
    request = form.first({"q": "ü&"}, {})
    assert request.body == b"q=%C3%BC%26&s=s%26"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    body = Source(
        define(tmp_path, "[params]\nq = {}\n[request]\nbody = '<a b=\"{q}\">{not this}</a>'\n[fields]\na = 'b'")
    )
    assert body.first({"q": "1"}, {}).body == b'<a b="1">{not this}</a>'


def test_before(tmp_path):
    text = """
        [request]
        headers = {X-Csrf = "{before.token}"}
        [before]
        url = 'https://shop.example/login'
        [before.fields]
        token = "input[name=t]::attr(value)"
        [fields]
        a = "h1"
        """
    source = Source(define(tmp_path, text))
    asked = source.before({}, {})
    assert asked.url == "https://shop.example/login"
    values = source.before_values(Page(asked, asked.url, 200, {}, b"<input name=t value='abc'>"))
    assert source.first({}, {}, values).headers == {"X-Csrf": "abc"}
    with pytest.raises(ParseFailed, match="expected token"):
        source.before_values(Page(asked, asked.url, 200, {}, b"<p>"))
    assert Source(define(tmp_path, "[fields]\na = 'b'")).before({}, {}) is None


# ── statuses, walls, nothing ──


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (404, HttpStatus, False),
        (500, HttpStatus, True),
        (429, RateLimited, True),
        (403, HttpStatus, False),
        (302, HttpStatus, False),
    ],
)
def test_other_statuses_fail(tmp_path, status, kind, retryable):
    with pytest.raises(kind) as caught:
        parse(tmp_path, LIST, shop(), status=status, **{"Retry-After": "7"})
    assert (caught.value.http_status, caught.value.is_retryable, caught.value.retry_after) == (status, retryable, 7.0)


def test_absent_blocked_and_empty(tmp_path):
    text = LIST + "[contract]\nabsent = [404]\nblocked = 'form#challenge'\nempty = '.none'\n"
    assert parse(tmp_path, text, b"<p>", status=404).absent
    for status in (200, 403):
        with pytest.raises(Blocked) as caught:
            parse(tmp_path, text, "<form id=challenge>", status=status)
        assert caught.value.http_status == status
    assert parse(tmp_path, text, "<p class=none>").empty
    assert not parse(tmp_path, text, "<p>").empty
    assert parse(tmp_path, LIST + "[contract]\nempty = true", "<p>").empty


def test_wall_in_front_of_json(tmp_path):
    text = "format = 'json'\n[fields]\na = {}\n[contract]\nblocked = {css = 'form#challenge'}\n"
    with pytest.raises(Blocked):
        parse(tmp_path, text, "<form id=challenge>x</form>")
    with pytest.raises(ParseFailed, match="expected JSON"):
        parse(tmp_path, text, "<p>")
    assert parse(tmp_path, text, '{"a": 1}').rows == [{"a": 1}]


def test_empty_that_says_false_is_not_found(tmp_path):
    text = "format = 'json'\n[rows]\njmes = 'rows'\n[fields]\na = {}\n[contract]\nempty = 'count == `0`'"
    assert parse(tmp_path, text, '{"count": 0, "rows": []}').empty
    assert not parse(tmp_path, text, '{"count": 3, "rows": []}').empty


# ── other formats ──


def test_csv(tmp_path):
    body = '# made up\nname;price\r\nLamp;1,50\n"a; ""b""";\n\nshort\n'
    head = "format = 'csv'\n[csv]\ndelimiter = ';'\nskip = 1\n"
    parsed = parse(tmp_path, head, body)
    assert parsed.rows == [
        {"name": "Lamp", "price": "1,50"}, {"name": 'a; "b"', "price": ""}, {"name": "short", "price": None},
    ]  # fmt: skip
    assert parsed.warnings == ["line 6: expected 2 cells, found 1"]
    fields = "[fields]\nn = {key = 'name'}\nprice = {type = 'decimal', decimal_mark = ','}\n"
    assert [(row["n"], str(row["price"])) for row in parse(tmp_path, head + fields, body).rows] == [
        ("Lamp", "1.50"), ('a; "b"', "None"), ("short", "None"),
    ]  # fmt: skip
    named = "format = 'csv'\n[csv]\nheader = ['a', 'b']\n"
    assert rows(tmp_path, named, "1,2\n3,4") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    plain = 'format = "csv"\n[csv]\ndelimiter = "\\t"\nquote = ""\n'
    assert rows(tmp_path, plain, 'a\tb\n"x\t5" disk\n') == [{"a": '"x', "b": '5" disk'}]


def test_text(tmp_path):
    text = "format = 'text'\n[rows]\nre = '(?m)^(?P<name>\\w+)=(?P<size>\\d+)?$'\n"
    assert rows(tmp_path, text, "ü=1\nb=\nnothing\nc=22") == [{"name": "b", "size": None}, {"name": "c", "size": "22"}]
    fields = "[fields]\nsize = {type = 'int', scale = '2'}\nwhat = {key = 'name'}\n"
    assert rows(tmp_path, text + fields, "a=21") == [{"size": 42, "what": "a"}]


def test_items_without_any_value_differ_from_no_items(tmp_path):
    """A wrong selector in the fields, and a wrong one in the rows."""
    text = "[rows]\ncss = 'li'\n[fields]\na = '.none'\nb = {const = 1}"
    assert parse(tmp_path, text, "<li>1<li>2").warnings == ["[rows] found 2 items, but no field found anything in them"]
    assert parse(tmp_path, text, "<p>1").warnings == []


def test_gz_file_is_unpacked_whatever_its_headers_say(tmp_path):
    """All its parts, up to max_bytes. One that is cut short is a decode error."""
    text = 'format = "csv"\n[limits]\nmax_bytes = 1000\n'
    packed = gzip.compress(b"a,b\n1,2\n") + gzip.compress("3,ü\n".encode())
    assert rows(tmp_path, text, packed, content_type="application/octet-stream") == [
        {"a": "1", "b": "2"},
        {"a": "3", "b": "ü"},
    ]
    with pytest.raises(DecodeFailed, match=r"expected a \.gz file"):
        parse(tmp_path, text, packed[:-4])
    with pytest.raises(TooLarge, match="at most 1000 bytes"):
        parse(tmp_path, text, gzip.compress(b"a,b\n" * 1_000))


def test_archive(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("read.me", "x")
        archive.writestr("data/rows.CSV", "a,b\n1,ü\n")
        archive.writestr("bomb.txt", b"0" * 3_000_000)
    head = "format = 'csv'\n"
    assert rows(tmp_path, head + "archive = '*.csv'", packed.getvalue()) == [{"a": "1", "b": "ü"}]
    with pytest.raises(DecodeFailed, match=r"read\.me"):
        rows(tmp_path, head + "archive = '*.xml'", packed.getvalue())
    nameless = io.BytesIO()
    with zipfile.ZipFile(nameless, "w") as archive:
        archive.writestr(zipfile.ZipInfo(""), "x")
    for broken in (b"no zip", nameless.getvalue()):
        with pytest.raises(DecodeFailed):
            rows(tmp_path, head + "archive = '*.csv'", broken)
    with pytest.raises(TooLarge):
        rows(tmp_path, head + "archive = '*.txt'\n[limits]\nmax_bytes = 1000000", packed.getvalue())


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_whose_size_would_be_known_too_late_is_refused(tmp_path, method):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("rows.csv", "a,b\n1,2\n")
    with pytest.raises(DecodeFailed, match=rf"rows\.csv packed by method {method}, not deflated"):
        rows(tmp_path, "format = 'csv'\narchive = '*.csv'\n", packed.getvalue())


def test_memory_is_reserved_for_an_archives_directory_before_it_is_read(tmp_path):
    directory = (b"PK\x01\x02" + bytes(42)) * 300_000
    with Budget(300_000_000, 64).share(math.inf, never), pytest.raises(TooLarge, match="the directory of a zip"):
        rows(tmp_path, "format = 'csv'\narchive = '*.csv'\n", directory)


def test_charset_of_a_definition_comes_first(tmp_path):
    assert rows(tmp_path, "charset = 'koi8-r'\n[fields]\na = 'p'", "<p>привет".encode("koi8-r")) == [{"a": "привет"}]
    warned = parse(tmp_path, "[fields]\na = 'p'", "<p>é".encode() * 2_000 + b"\xff")
    assert "1 bad" in warned.warnings[0]


# ── ID.py ──

CAPTURES = '''
"""Lines of columns, then a blank line and a resume key."""
from collections.abc import Iterator
from jobs.page import Page, Request

COLUMNS = "url time status".split()

def parse(page: Page) -> Iterator[dict[str, object]]:
    for line in page.text.split("\\n\\n")[0].splitlines():
        yield dict(zip(COLUMNS, line.split(" "), strict=True))

def next_page(page: Page) -> Request | None:
    _, _, resume = page.text.partition("\\n\\n")
    return page.request.replace(params={**page.params, "resume": resume.strip()}) if resume.strip() else None
'''
CAPTURES_TOML = """
title  = "Captures"
url    = 'https://archive.example/cdx{?url,resume}'
format = "text"
[params]
url    = {required = true}
resume = {}
[fields]
url    = {type = "url"}
time   = {type = "datetime", format = "%Y%m%d%H%M%S", tz = "UTC"}
status = {type = "int"}
"""


def test_code_of_an_author(tmp_path):
    source = Source(define(tmp_path, CAPTURES_TOML, code=CAPTURES))
    request = source.first({"url": "example.org"}, {})
    parsed = source.parse(
        Page(request, request.url, 200, {}, b"https://a.example/ 20260102030405 200\n\nkey 2\n", request.params)
    )
    assert parsed.rows == [{"url": "https://a.example/", "time": "2026-01-02T03:04:05Z", "status": 200}]
    assert parsed.next.url == "https://archive.example/cdx?url=example.org&resume=key%202"
    last = source.parse(Page(parsed.next, parsed.next.url, 200, {}, b"x 20260102030405 200", parsed.next.params))
    assert last.next is None


def test_code_that_fails_names_its_line(tmp_path):
    with pytest.raises(ParseFailed, match=r"demo\.test\.py:\d+: parse failed: ValueError"):
        parse(tmp_path, CAPTURES_TOML, b"one two", code=CAPTURES, params={"url": "x"})
    with pytest.raises(Faults, match=r"demo\.test\.py:2: ZeroDivisionError"):
        Source(define(tmp_path, "[fields]\na = {}", code="def parse(page): ...\n1 / 0"))
    with pytest.raises(ParseFailed, match="rows of keys"):
        parse(tmp_path, "[fields]\na = {}", b"x", code="def parse(page):\n    yield 1")


def test_request_of_an_author(tmp_path):
    code = """
        from jobs.page import Request
        def request(params):
            return Request(url="https://shop.example/own/" + params["q"], headers={"X-Own": "1"})
        """
    text = "[params]\nq = {}\n[request]\nheaders = {X-Key = '{secret.KEY}'}\n[fields]\na = 'b'"
    request = Source(define(tmp_path, text, code=code)).first({"q": "z"}, {"KEY": "k"})
    assert (request.url, request.headers) == ("https://shop.example/own/z", {"X-Key": "k", "X-Own": "1"})
    assert request.replace(params={"q": "y"}).url == "https://shop.example/own/y"
