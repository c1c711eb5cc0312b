"""How ill-formed feeds are repaired, and the warnings about doubtful repairs."""

import time

import pytest

from jobs.parse import feed, feed_repair
from tests.unit.describing import parse


def read(text: str):
    warnings: list[str] = []
    return list(feed.Channel(feed.read(text.encode(), warnings)).entries()), warnings


def item(inside: str) -> str:
    return f"<item>{inside}</item>\n"


def rss(*items: str) -> str:
    return "<rss><channel><title>T</title>\n" + "".join(items) + "</channel></rss>"


ONE, TWO = item("<title>one</title>"), item("<title>two</title><description>2</description>")


@pytest.mark.parametrize(
    ("broken", "title"),
    [
        ("junk before <rss><channel><item><title>a</title></item></channel></rss>", "a"),
        ("<rss><channel><item><title>x & y &lt; z</title></item></channel></rss>", "x & y < z"),
        ("<rss><channel><item><title>?a=1&b=2&copy</title></item></channel></rss>", "?a=1&b=2&copy"),
        (
            "<rss><channel><item><title>caf&eacute;&nbsp;&unknown; &amp;</title></item></channel></rss>",
            "café\u00a0&unknown; &",
        ),
        ("<rss><channel><item><title>a\x08b&#8;c</title></item></channel></rss>", "abc"),
        ("<rss><channel><item><dc:x>1</dc:x><foo:y/><title>a</title></item></channel></rss>", "a"),
        ("<rss><channel><item><title><![CDATA[a & b]]> & c</title></item></channel></rss>", "a & b & c"),
        (
            "<rss version=2.0><channel><item><title lang = en>a</title><enclosure url=x?a=1&b=2 /></item></channel></rss>",
            "a",
        ),
        ("<rss><channel><item><title>5 < 6 </ 7</title></item></channel></rss>", "5 < 6 </ 7"),
        ("<rss><channel><item><title>a <i>b</title></item></channel></rss>", "a <i>b"),
        ('<rss a=1><channel><item><title t="x=y">a</title><![CDATA[<b c=d]]></item></channel></rss>', "a"),
        ("\n \ufeff<?xml version='1.0'?><rss><channel><item><title>a</title></item></channel></rss>", "a"),
        ("<rss><channel><item><title>a</title></item></channel></rss> <script>if (a < b) {}</script>", "a"),
        ("<rss><channel><item><title>x ]]> y</title></item></channel></rss>", "x ]]> y"),
        ("<rss><channel><item><title><[CDATA[x & y]]></title></item></channel></rss>", "x & y"),
        ("<rss><channel><item><title><![cdata[x]]></title></item></channel></rss>", "x"),
        ("<rss><channel><item><title><! [CDATA [x]]></title></item></channel></rss>", "x"),
        ("<rss><channel><item><title><![CDATA[a ]]> b]]></title></item></channel></rss>", "a ]]> b"),
        ("<rss><channel><item><title><![CDATA[<![CDATA[a]]>]]></title></item></channel></rss>", "a"),
        ("<rss><channel><item><title><![CDATA[<![CDATA[a]>]]></title></item></channel></rss>", "a"),
        (
            "<rss><channel><item><title>&#X41; &#xD800;b &#2;&#xFFFF;&#99999999;</title></item></channel></rss>",
            "A b &#99999999;",
        ),
        ("<rss><channel><item><title lang='a' lang=b>a</title></item></channel></rss>", "a"),
        ("<rss><channel><item><title>a<?php echo 1 ?> b & c</title></item></channel></rss>", "a b & c"),
        ("<rss><channel><item><title>a<!-- x -- y --> & b</title></item></channel></rss>", "a & b"),
        (
            '<!DOCTYPE rss [<!ENTITY co "Company">\n<!ENTITY x "y">]><rss><channel><item><title>&co; &x; & b</title></item></channel></rss>',
            "Company y & b",
        ),
        (
            '<!DOCTYPE rss PUBLIC "-//Netscape//DTD RSS 0.91//EN" "http://my.netscape.com/publish/formats/rss-0.91.dtd">\n<rss><channel><item><title>caf&eacute;</title></item></channel></rss>',
            "café",
        ),
    ],
)
def test_a_fault_with_only_one_meaning_is_mended_without_a_warning(broken, title):
    entries, warnings = read(broken)
    assert ([entry.get("title") for entry in entries], warnings) == ([title], [])


def test_an_unclosed_tag_does_not_swallow_the_entries_after_it():
    """HTML in a text is read as if the feed had escaped it. A CDATA section and Atom's XHTML stay as they are."""
    entries, _ = read(
        "<rss><channel><item><title>a</title><description>x <br> y &amp; <img src=i.gif></description></item>"
        "<item><title>b</title><description><![CDATA[<p>z</p>]]></description></item></channel></rss>"
    )
    assert [entry.get("title") for entry in entries] == ["a", "b"]
    assert [entry.get("summary") for entry in entries] == ['x <br> y & <img src="i.gif">', "<p>z</p>"]
    entries, _ = read(
        '<feed xmlns="http://www.w3.org/2005/Atom"><entry><title>a<hr></title><content type="xhtml"><p>x <i>y</i></p></content>'
        "</entry></feed>"
    )
    assert [(entry.get("title"), entry.get("content")) for entry in entries] == [("a<hr>", "<p>x <i>y</i></p>")]


UNSURE = [  # a feed, the titles and summaries of its entries, the beginning of what is told
    (rss(item("<title>a</title></title><description>x</description>"), TWO), [("a", "x"), ("two", "2")],
     "the feed is not well-formed: line 2: </title> closes nothing; a text there may be cut or lie elsewhere"),
    ('<feed xmlns="http://www.w3.org/2005/Atom"><entry><title>1</title></title></entry><entry><title>2</title></entry></feed>',
     [("1", None), ("2", None)], "the feed is not well-formed: line 1: </title> closes nothing"),
    (rss(item("<title>a</title><description><p>x</description>"), TWO), [("a", "<p>x"), ("two", "2")], None),
    (rss(item("<title>a</title><description>x <br>"), TWO), [("a", "x <br>"), ("two", "2")],
     "the feed is not well-formed: line 2: <br> is never closed (and 1 more)"),
    (rss(item("<title>a</title><description>x <br>"), item("<title>b</title></description>")), [("a", "x <br>"), ("b", None)],
     "the feed is not well-formed: line 2: <br> is never closed (and 2 more)"),
    (rss("<item><title>a</title><description>x</description>", TWO), [("a", "x"), ("two", "2")],
     "the feed is not well-formed: line 2: <item> is never closed"),
    (rss(item("<title>a<description>x</description>"), TWO), [("a", "x"), ("two", "2")],
     "the feed is not well-formed: line 2: <title> is never closed"),
    (rss(item("<description>a<p>b<guid>1</guid><title>c</title>"), TWO), [("c", "a<p>b</p>"), ("two", "2")],
     "the feed is not well-formed: line 2: <p> is never closed (and 1 more)"),
    (rss(item("<title>a</title><description><![CDATA[x</description>"), item("<title>b</title><description><![CDATA[y]]></description>"), TWO),
     [("a", "x"), ("b", "y"), ("two", "2")], "the feed is not well-formed: line 2: a CDATA section is never closed"),
    (rss(item("<title>a</title><description><![CDATA[x]></description>"), item("<title>b</title><description><![CDATA[y]]></description>")),
     [("a", "x"), ("b", "y")], "the feed is not well-formed: line 2: a CDATA section is never closed"),
    (rss(item("<title><![CDATA[a]]</title><description><![CDATA[x] ]></description>"), TWO), [("a", "x"), ("two", "2")],
     "the feed is not well-formed: line 2: a CDATA section is never closed (and 1 more)"),
    (rss(ONE, TWO)[:-40], [("one", None), ("two", None)], "the feed breaks off inside <item>; what should follow is missing"),
    (rss(ONE, TWO).removesuffix("</channel></rss>"), [("one", None), ("two", "2")], "the feed breaks off inside <channel>"),
    (rss(ONE, item("<title>a</title><description><![CDATA[x y")).partition(" y")[0], [("one", None), ("a", "x")], "the feed breaks off inside a CDATA section"),
    (rss(ONE, "<!-- ", TWO), [("one", None)], "the feed breaks off inside a comment"),
    (rss(ONE) + rss(TWO), [("one", None)], "the feed is not well-formed: line 3: another feed begins after the end of this one"),
    (rss(ONE) + TWO, [("one", None)], "the feed is not well-formed: line 3: entries after the end of the feed are left out"),
    (rss(item("<title>a</title></p>x & y</b>")), [("a", None)], "the feed is not well-formed: line 2: </p> closes nothing (and 1 more)"),
    (rss(item("<title>a</title><x:y xmlns:x=''/><description>x & y</description>")), [("a", "x & y")],
     "the feed is not well-formed: line 2: xmlns:x: Empty XML namespace is not allowed; a text there may be cut or lie elsewhere"),
    (rss(item("<title>a</TITLE><DESCRIPTION>x</description>")), [("a", "x")], None),
]  # fmt: skip


@pytest.mark.parametrize(("broken", "keys", "told"), UNSURE)
def test_no_entry_is_lost_and_a_doubtful_repair_gives_a_warning(broken, keys, told):
    entries, warnings = read(broken)
    assert [(entry.get("title"), entry.get("summary")) for entry in entries] == keys
    assert len(warnings) == bool(told)
    assert all(warning.startswith(told) for warning in warnings)


def test_the_result_of_a_source_has_the_warnings_once(tmp_path):
    text = 'format = "feed"\n[fields]\ntitle = {}\n[contract]\nblocked = {css = "blocked"}'
    parsed = parse(tmp_path, text, "<!-- 1 -->\n" + rss(item("<title>a</title></title>"), TWO))
    assert [row["title"] for row in parsed.rows] == ["a", "two"]
    assert parsed.warnings == [
        "the feed is not well-formed: line 3: </title> closes nothing; a text there may be cut or lie elsewhere"
    ]


def test_an_unclosed_section_takes_no_entries_even_if_another_end_mark_follows():
    entries, warnings = read(rss(item("<title><![CDATA[a</title>"), item("<title>b ]]> c</title>"), TWO))
    assert [entry.get("title") for entry in entries] == ["a", "b ]]> c", "two"]
    assert len(warnings) == 1


def test_a_section_that_quotes_a_feed_stays():
    text = "<pre><item><description>x</description></item></pre>"
    entries, warnings = read(rss(item(f"<description><![CDATA[{text}]]></description>"), TWO))
    assert ([entry.get("summary") for entry in entries], warnings) == ([text, "2"], [])


def test_a_section_that_quotes_a_section_stays():
    entries, warnings = read(rss(item("<description><![CDATA[write <![CDATA[ text ]]></description>"), TWO))
    assert ([entry.get("summary") for entry in entries], warnings) == (["write <![CDATA[ text ", "2"], [])


def test_prefixes_are_declared_where_they_are_used():
    """A prefix that another entry declares gets that address. Of many prefixes the known ones come first."""
    own = 'xmlns:own="http://own.example/"'
    many = "".join(f"<p{n}:x/>" for n in range(150))
    made = rss(item(f"<own:x>1</own:x>{many}"), item(f"<dc:creator>A</dc:creator><own:x {own}>2</own:x>"))
    root = feed.read(made.encode())
    assert root.xpath("//o:x/text()", namespaces={"o": "http://own.example/"}) == ["1", "2"]
    assert [entry.get("author") for entry in feed.Channel(root).entries()] == [None, "A"]


@pytest.mark.parametrize(
    "piece",
    [
        "<![CDATA[",
        "<!--",
        "&",
        "&a",
        "<a:",
        "&#",
        "<",
        "<a b='",
        "<a =",
        "= ",
        "<title>",
        "</title><title><![CDATA[",
        "<?",
        "</a>",
        "<a>",
        "<t><![CDATA[",
        "<t><![CDATA[]>",
        "<t><![CDATA[]]>",
        "]]>",
        "<title><p>",
        "<item>",
        "<item><title>",
        "</item>",
        "<description>x<p>",
        "<![CDATA[<t><![CDATA[",
        "<guid>",
        "<p><guid>",
        "<a b=c d>",
        "<a 'b\"c>",
        "</rss>",
        "<rss>",
    ],
)
def test_repair_is_linear(piece):
    took = []
    for count in (1_500, 6_000):
        began = time.process_time()
        feed_repair.balanced(
            feed_repair.escaped(feed_repair.repaired("<rss>" + piece * count, feed_repair.Faults())),
            feed_repair.Faults(),
        )
        took.append(time.process_time() - began)
    assert took[1] < 1 + 16 * took[0]  # quadratic ones took minutes
