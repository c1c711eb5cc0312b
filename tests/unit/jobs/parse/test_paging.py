"""Which page a source asks for next, and the warnings about pages that it does not ask for."""

import json

import pytest

from jobs.page import Page
from jobs.parse.source import Source
from tests.unit.describing import URL, define, page


def walk(source: Source, bodies: dict[str, str], params=None, **headers) -> list[str]:
    """The addresses that a task would ask for."""
    request, seen = source.first(source.definition.bind(params or {}), {}), []
    while request is not None:
        seen.append(request.url)
        body = bodies.get(request.url, bodies.get("*", ""))
        found = {name: value for name, value in headers.items() if request.url in value[0]}
        answered = Page(request, request.url, 200, {k: v[1] for k, v in found.items()}, body.encode(), request.params)
        request = source.parse(answered).next
    return seen


ROW = "[rows]\ncss = 'li'\n[fields]\na = '::text'\n"


def test_next_address(tmp_path):
    source = Source(define(tmp_path, ROW + "[next]\ncss = 'a.next::attr(href)'\nmax_pages = 3"))
    page = "<li>x<a class=next href='?p={}'>n</a>"
    assert walk(source, {URL: page.format(2), f"{URL}?p=2": page.format(3), f"{URL}?p=3": page.format(4)}) == [
        URL, f"{URL}?p=2", f"{URL}?p=3",
    ]  # fmt: skip
    assert walk(source, {URL: page.format(2), f"{URL}?p=2": "<li>x"}) == [URL, f"{URL}?p=2"]
    assert walk(source, {URL: page.format(2), f"{URL}?p=2": "<a class=next href='?p=3'>"}) == [URL, f"{URL}?p=2"]
    assert walk(source, {"*": page.format(2)}) == [URL, f"{URL}?p=2"]
    assert walk(source, {URL: "<li>x<a class=next href='index.html#top'>n</a>"}) == [URL]


def test_counted_pages(tmp_path):
    text = f"title = 'x'\nurl = '{URL}{{?page}}'\n[params]\npage = {{type = 'int'}}\n"
    source = Source(define(tmp_path, text + ROW + "[next]\nparam = 'page'\nstart = 0\nstep = 10\nmax_pages = 3"))
    assert walk(source, {"*": "<li>x"}) == [f"{URL}?page={n}" for n in (0, 10, 20)]
    assert walk(source, {"*": "<li>x"}, {"page": 50}) == [f"{URL}?page={n}" for n in (50, 60, 70)]
    assert walk(source, {f"{URL}?page=0": "<li>x"}) == [f"{URL}?page=0", f"{URL}?page=10"]


def test_cursor(tmp_path):
    text = """
        title = "x"
        url = 'https://api.example/list{?cursor}'
        format = "json"
        [params]
        cursor = {}
        [request]
        headers = {X-Key = "{secret.KEY}"}
        [rows]
        jmes = "rows"
        [fields]
        id = {}
        [next]
        jmes = "next"
        param = "cursor"
        """
    source = Source(define(tmp_path, text))
    request = source.first({}, {"KEY": "k"})
    parsed = source.parse(Page(request, request.url, 200, {}, b'{"rows": [{"id": 1}], "next": 7}'))
    assert (parsed.next.url, parsed.next.headers, parsed.next.number) == (
        "https://api.example/list?cursor=7",
        {"X-Key": "k"},
        2,
    )
    for end in ("null", '""', "7"):
        again = Page(parsed.next, parsed.next.url, 200, {}, b'{"rows": [{"id": 1}], "next": ' + end.encode() + b"}")
        assert source.parse(again).next is None


def test_link_header(tmp_path):
    source = Source(define(tmp_path, ROW + "[next]\nlink = true"))
    header = '<https://shop.example/a>; rel="prev", <?p=2>; title="x, y"; rel="last next"'
    assert walk(source, {"*": "<li>x"}, Link=(URL + "|", header))[:2] == [URL, f"{URL}?p=2"]


@pytest.mark.parametrize(
    "header",
    [
        "<?p=2>; rel=next",
        "<?p=2>; crossorigin; rel=next",
        '<?p=2>; crossorigin ; title="a; rel=prev" ; rel = next',
        '<?p=2>;; rel="next"',
        '<?p=2>; title="a \\"quoted\\", one"; rel=next',
        '</a>; rel="prev"; rel=next, <?p=2>; REL=Next; rel=prev',
        "<?p=2> ; rel=next; title*=UTF-8''n%20e",
    ],
)
def test_a_link_header_is_read_in_any_valid_spelling(tmp_path, header):
    source = Source(define(tmp_path, ROW + "[next]\nlink = true"))
    assert walk(source, {"*": "<li>x"}, Link=(URL + "|", header))[:2] == [URL, f"{URL}?p=2"]


def test_another_host_gets_no_credentials(tmp_path):
    text = "[request]\nheaders = {X-Key = 'k'}\ncookies = {c = 'd'}\n" + ROW + "[next]\ncss = 'a::attr(href)'"
    source = Source(define(tmp_path, text))
    home = source.parse(page(source, "<li>x<a href='/2'>n</a>")).next
    away = source.parse(page(source, "<li>x<a href='https://evil.example/2'>n</a>")).next
    port = source.parse(page(source, "<li>x<a href='https://shop.example:444/2'>n</a>")).next
    assert (home.headers, home.cookies) == ({"X-Key": "k"}, {"c": "d"})
    assert (away.headers, away.cookies, port.headers) == ({}, {}, {})
    last = source.parse(page(source, "<li>x<a href='javascript:x'>n</a>"))
    assert (last.next, last.warnings, last.is_cut) == (None, [], False)


API = """
    title = "x"
    url = 'https://api.example/list{?page}'
    format = "json"
    [params]
    page = {}
    [rows]
    jmes = "rows"
    [fields]
    id = {}
    [next]
    """


@pytest.mark.parametrize(
    ("following", "member", "told"),
    [
        ('jmes = "next"', {"href": "/2"}, 'expected one value, found "{"href":"/2"}"'),
        ('jmes = "next"', ["/2", "/3"], 'expected one value, found "["/2","/3"]"'),
        ('jmes = "next"', 2, 'expected an address, found "2"'),
        ('jmes = "next"', True, 'expected an address, found "true"'),
        ('jmes = "next"', "ftp://x.example/", 'expected an http or https address, found "ftp://x.example/"'),
        ('jmes = "next"', "//[x", 'expected an http or https address, found "//[x"'),
        ('jmes = "next"\n    param = "page"', {"page": 2}, 'expected one value, found "{"page":2}"'),
        ('jmes = "length(next)"\n    param = "page"', 7, 'expected a value that "length(next)" accepts, found'),
    ],
)
def test_an_unreadable_next_address_keeps_the_earlier_records(tmp_path, following, member, told):
    source = Source(define(tmp_path, API + following))
    parsed = source.parse(page(source, json.dumps({"rows": [{"id": 1}], "next": member})))
    assert (parsed.rows, parsed.next, parsed.is_cut) == ([{"id": 1}], None, True)
    (warning,) = parsed.warnings
    assert warning.startswith(f"the page after page 1 is not asked for: {told}")


def test_a_param_that_is_no_number_can_not_be_counted_on(tmp_path):
    source = Source(define(tmp_path, API + 'param = "page"'))
    parsed = source.parse(page(source, '{"rows": [{"id": 1}]}', params={"page": "two"}))
    assert (parsed.next, parsed.is_cut) == (None, True)
    assert parsed.warnings == [
        'the page after page 1 is not asked for: expected a whole number in page, to count on, found "two"'
    ]


@pytest.mark.parametrize(
    ("following", "found"),
    [("css = 'a::attr(href)'", "is"), ("link = true", "is"), ("param = 'page'", "may be")],
)
def test_a_page_past_max_pages_gives_a_warning(tmp_path, following, found):
    text = f"title = 'x'\nurl = '{URL}{{?page}}'\n[params]\npage = {{type = 'int'}}\n{ROW}[next]\n{following}\nmax_pages = 1"
    source = Source(define(tmp_path, text))
    answer = page(source, "<li>x<a href='?page=2'>n</a>", Link="<?page=2>; rel=next")
    assert source.parse(answer).warnings == [f"page 1 is the last that max_pages allows; there {found} a further one"]
    last = page(source, "<li>x<a href='#'>n</a>")
    assert source.parse(last).warnings == [f"page 1 is the last that max_pages allows; there {found} a further one"] * (
        found != "is"
    )


def test_a_page_without_rows_that_names_a_further_one_gives_a_warning(tmp_path):
    cursor = Source(define(tmp_path, API + 'jmes = "next"\n    param = "page"'))
    assert cursor.parse(page(cursor, '{"rows": [], "next": "/3"}')).warnings == []  # many have one behind the last page
    source = Source(define(tmp_path, API + 'jmes = "next"'))
    parsed = source.parse(page(source, '{"rows": [], "next": "/3"}'))
    assert (parsed.next, parsed.is_cut) == (None, False)
    assert parsed.warnings == ["page 1 has no rows, and the page that it names as the next is not asked for"]
    for end in ('{"rows": [], "next": null}', '{"rows": [], "next": {"a": 1}}'):
        assert source.parse(page(source, end)).warnings == []


def test_the_next_address_in_xml_is_relative_to_xml_base(tmp_path):
    text = "format = 'feed'\n[fields]\ntitle = {}\n[next]\nxpath = \"atom:link[@rel='next']/@href\""
    source = Source(define(tmp_path, text))
    body = "<feed xmlns='http://www.w3.org/2005/Atom' xml:base='/a/'><link rel='next' xml:base='b/' href='2'/><entry><title>x</title></entry></feed>"
    assert source.parse(page(source, body)).next.url == "https://shop.example/a/b/2"
