"""Pages and requests: what is read on demand, and what is refused before it grows."""

import threading
import time

import pytest
from lxml import etree

from jobs import html5
from jobs import page as pages
from jobs.errors import ParseFailed
from jobs.page import Page, Request, parse_html, parse_json, parse_xml
from tests.unit.describing import parse


def page(body: bytes, **headers) -> Page:
    request = Request(url="https://a.example/")
    return Page(request, request.url, 200, headers, body)


def test_page_reads_what_is_asked_for():
    assert page(b"<p>\xc3\xbc</p>").html.xpath("string(//p)") == "ü"
    assert page(b"<a>\xfc</a>", **{"Content-Type": "text/xml; charset=latin1"}).xml.text == "ü"
    assert page(b'\xef\xbb\xbf{"a": [1]}').json == {"a": [1]}
    assert page(b"abc").text == "abc"
    one = page(b"<p>")
    assert one.html is one.html


def test_headers_are_found_in_any_case():
    assert page(b"", **{"CONTENT-type": "x"}).header("Content-Type") == "x"
    assert page(b"").header("link") == ""


@pytest.mark.parametrize(
    "body",
    [
        b'cb_1({"a": [1, 2]});', b' /**/ window.cb.x ( {"a": [1, 2]} )\n', b")]}',\n{\"a\": [1, 2]}", b'for (;;);{"a": [1, 2]}',
        b'while(1);{"a": [1, 2]}',
    ],
)  # fmt: skip
def test_json_is_read_in_a_call_and_after_a_guard(body):
    """What JSONP and guards against foreign scripts put around it."""
    assert parse_json(body) == {"a": [1, 2]}


def test_json_lines_are_a_list():
    """Empty lines are none; a line that is cut off fails with its number."""
    assert parse_json(b'{"a": 1}\r\n\n{"a": 2}\n') == [{"a": 1}, {"a": 2}]
    assert parse_json(b'1\n"x"\nnull') == [1, "x", None]
    with pytest.raises(ParseFailed, match="JSON lines, and in line 3: "):
        parse_json(b'{"a": 1}\n{"a": 2}\n{"a')


@pytest.mark.parametrize(
    "body", [b'{\n"a": 1,\n', b"cb(", b"cb(x)", b"cb(1)", b"<p>{}</p>", b"", b")]}'", b"(function(){})()"]
)
def test_what_only_looks_like_json_is_refused(body):
    """A broken document is no list of lines."""
    with pytest.raises(ParseFailed, match="expected JSON, found: "):
        parse_json(body)


def test_request_of_other_params_has_another_address():
    def again(params):
        return Request(url=f"https://a.example/{params['p']}", params=params)

    request = Request(url="https://a.example/1", params={"p": 1}, number=3, seen=frozenset({"x"}), again=again)
    other = request.replace(params={"p": 2})
    assert (other.url, other.params, other.number, other.seen) == ("https://a.example/2", {"p": 2}, 3, {"x"})
    assert request.replace(url="https://b.example/").params == {"p": 1}
    assert Request(url="u", body=b"1").address != Request(url="u", body=b"2").address


def test_secrets_do_not_stand_in_a_request_that_is_shown():
    request = Request(
        url="https://a.example/", headers={"Authorization": "Bearer hush"}, cookies={"a": "hush"}, body=b"hush"
    )
    assert "hush" not in repr(request)


def test_html_that_is_hardly_any():
    for body in (b"", b"  \n", b"\x00", b"text", b"<", b"</p>", b"<!-- x"):
        assert parse_html(body).tag == "html"


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (parse_html, b"<p>a" * (pages.TAGS_MAX + 1)),
        (parse_html, b"<div>" * 3_000 + b"x"),
        (parse_html, b"<p a b c d e f g h i j k l m n>" * 50_000),
        (parse_xml, b"<a>" + b"<b c='1' d='' e='' f='' g=''/>" * 150_000 + b"</a>"),
        (parse_html, b"<a " + b" ".join(b"a%x" % number for number in range(80_000)) + b">"),
        (parse_html, b"<a " + b"".join(b"a%x='>'" % number for number in range(80_000)) + b">"),
        (parse_html, b"<a " + b"".join(b'a%x="<"' % number for number in range(80_000)) + b">"),
        (parse_html, b"<a " + b"/".join(b"a%x" % number for number in range(80_000)) + b">"),
        (parse_xml, b"<a>" * 300 + b"</a>" * 300),
        (parse_xml, b""),
        (parse_xml, b"<a><b></a>"),
        (parse_xml, b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>'),
        (parse_json, b"[" * 100_000),
        (parse_json, b"[" + b"1," * (pages.VALUES_MAX + 1) + b"1]"),
        (parse_json, b"{"),
        (parse_json, b""),
    ],
)
def test_what_would_grow_or_is_broken_is_refused_at_once(parse, body):
    began = time.process_time()
    with pytest.raises(ParseFailed):
        parse(body)
    assert time.process_time() - began < 20  # reading the worst of them took minutes


def test_entities_that_grow_are_refused():
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 20}">' for n in range(1, 9))
    with pytest.raises(ParseFailed, match="amplification"):
        parse_xml(f'<!DOCTYPE a [<!ENTITY e0 "aaaaaaaaaa">{entities}]><a>&e8;</a>'.encode())
    assert parse_xml(b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>').text == "y"


def test_long_tags_that_are_harmless_pass():
    data = b"x" * 200_000
    body = b"<p data-a='" + data + b"' b>1</p><script>var a = \"<div>\" + '" + b"y z " * 30_000 + b"'</script><i>2</i>"
    assert parse_html(body).xpath("string(//i)") == "2"


def test_threads_have_parsers_of_their_own():
    found = []

    def read():
        found.append(id(pages._parsers.html))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert id(pages._parsers.html) not in found


AFTER = [  # a page, and its body as HTML5 has it
    ("<html><body><p>a</p></body></html><p>b</p>", "<p>a</p><p>b</p>"),
    ("<html><body><p>a</p></body>b<p>c</p></html>", "<p>a</p>b<p>c</p>"),
    ("<p>a</html>b", "<p>ab</p>"),
    ("<ul><li>a</li></body></html><li>b</li></ul><p>c</p>", "<ul><li>a</li><li>b</li></ul><p>c</p>"),
    ("<table><tr><td>a</td></tr></BODY ></HTML\n><tr><td>b</td></tr></table>", "<table><tr><td>a</td></tr><tr><td>b</td></tr></table>"),
    ("<p>a</p></body></html><html><body class=x><p>b</p></body></html>", "<p>a</p><p>b</p>"),
    ("<p>a</p></body></html><script>'</body></html>'</script><p>b</p>", "<p>a</p><script>'</body></html>'</script><p>b</p>"),
    ("<p>a</p></body></html><!-- </body> --><textarea></body></textarea>b", "<p>a</p><!-- </body> --><textarea>&lt;/body&gt;</textarea>b"),
    ("<html><head><title>t</title></head></html><p>a</p>", "<p>a</p>"),
    ("<p>a</p></body></html>\n<!-- only a comment -->\n", "<p>a</p>"),
    ("<p>a</p></body> \n </html> \n", "<p>a</p>"),
    ("<ul><li>a</body><script>1</script></html><!-- c --><script>2</script>\n", "<ul><li>a</li></ul><script>1</script><script>2</script>\n"),
    ("<ul><li>a</body><script>1</script>b", "<ul><li>a<script>1</script>b</li></ul>"),
]  # fmt: skip


CLOSED = [
    ("<p>a<section>b</section>c<p>d", "<p>a</p><section>b</section>c<p>d</p>"),
    ("<p>a<article><p>b</article></p>c<nav>d</nav>", "<p>a</p><article><p>b</p></article>c<nav>d</nav>"),
    ("<dl><dt>a<dd>b<dd>c<dd><p>d<dt>e<dt>f</dl>", "<dl><dt>a</dt><dd>b</dd><dd>c</dd><dd><p>d</p></dd><dt>e</dt><dt>f</dt></dl>"),
    ("<h1>a<h2>b</h2>c<h3>d", "<h1>a</h1><h2>b</h2>c<h3>d</h3>"),
    ("<ruby>a<rt>b<rp>c<rt>d</ruby>", "<ruby>a<rt>b</rt><rp>c</rp><rt>d</rt></ruby>"),
    ("<button>a<button>b</button>", "<button>a</button><button>b</button>"),
    ("<!DOCTYPE html><title>t</title><section>a</section> b<p>c", "<section>a</section> b<p>c</p>"),
    ("<meta charset=utf-8><link rel=x><nav>a</nav><script>s</script><body class=c>b<p>c", "<nav>a</nav><script>s</script>b<p>c</p>"),
    ("<title>t</title><own-tag>a</own-tag>", "<own-tag>a</own-tag>"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "body"), CLOSED)
def test_an_element_ends_where_html5_ends_it(text, body):
    found = etree.tostring(parse_html(text.encode()).find("body"), encoding="unicode", method="html", with_tail=False)
    assert found.partition(">")[2].removesuffix("</body>") == body


def test_many_misplaced_elements_are_moved_once():
    root = parse_html(b"<p>" + b"<section>x</section>y" * 20_000)
    assert (len(root.find("body")), len(root.find("body/p"))) == (20_001, 0)
    deep = parse_html(b"<dl>" + b"<dd>x" * 250)
    assert len(deep.find("body/dl")) == 250


@pytest.mark.parametrize(("text", "body"), AFTER)
def test_what_stands_behind_the_end_of_a_page_is_in_its_body(text, body):
    root = parse_html(text.encode())
    assert not html5.behind(root)
    found = etree.tostring(root.find("body"), encoding="unicode", method="html", with_tail=False)
    assert found.removeprefix("<body>").removesuffix("</body>") == body


def test_a_source_sees_what_stands_behind_the_end_of_a_page(tmp_path):
    text = """
        [rows]
        css = "body > li"
        [fields]
        name = "a"
        link = {css = "a::attr(href)", type = "url"}
        kind = {each = {jsonld = "A", level = 0}, fields = {n = {}}}
        [next]
        css = "a.next::attr(href)"
        """
    body = (
        "<html><body><h1>x</h1></body></html><base href='/deep/'><li><a href=1>one</a></li><li><a href=2>two</a></li>"
        '<a class=next href=next>more</a><script type=\'application/ld+json\'>{"@type": "A", "n": 1}</script>'
    )
    parsed = parse(tmp_path, text, body)
    at = "https://shop.example/deep/"
    assert parsed.rows == [
        {"name": "one", "link": f"{at}1", "kind": [{"n": 1}]},
        {"name": "two", "link": f"{at}2", "kind": [{"n": 1}]},
    ]
    assert parsed.next.url == f"{at}next"
