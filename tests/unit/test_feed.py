"""Feeds of all kinds, and how ill-formed ones are repaired."""

import time

import pytest

from jobs import feed
from jobs.errors import ParseFailed
from tests.unit.describing import rows

RSS = """<?xml version="1.0"?>
<rss version="2.0" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:media="http://search.yahoo.com/mrss/"><channel>
<title>News</title><link>https://a.example/</link><atom:link xmlns:atom="http://www.w3.org/2005/Atom" rel="self" href="/self"/>
<item><title>One &amp; <![CDATA[<b>two</b>]]></title><link>https://a.example/1</link><guid isPermaLink="false">g1</guid>
<pubDate>Wed, 31 Jan 2018 07:26:05 GMT</pubDate><dc:creator>Somebody</dc:creator><category>x</category><category>y</category>
<description>short</description><media:content url="/p.jpg"/><enclosure url="https://a.example/1.mp3"/></item>
<item><media:title>Only media</media:title><guid>https://a.example/2</guid><item><title>nested</title></item></item>
</channel></rss>"""
ATOM = """
 <feed xmlns="http://www.w3.org/2005/Atom"><title>Blog</title>
<entry><id>urn:1</id><title type="html">T</title><link rel="self" href="/self"/><link href="/1"/>
<published>2015-05-04T00:01:27+00:00</published><updated>2016-01-01T00:00:00Z</updated><author><name>N</name></author>
<category term="c"/><summary>s</summary><content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">a <b>b</b></div></content>
</entry></feed>"""
RDF = """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/"
xmlns:dc="http://purl.org/dc/elements/1.1/"><channel rdf:about="c"><title>RDF</title></channel>
<item rdf:about="https://a.example/1"><title>T</title><link>https://a.example/1</link><dc:date>2006-01-03T21:32:56Z</dc:date>
<dc:subject>s</dc:subject></item></rdf:RDF>"""


def read(text: str):
    root = feed.read(text.encode())
    return feed.Channel(root), feed.entries(root)


def test_rss():
    channel, (one, two) = read(RSS)
    assert (channel.get("title"), channel.get("link")) == ("News", "https://a.example/")
    assert {key: one.get(key) for key in feed.KEYS} == {
        "title": "One & <b>two</b>", "link": "https://a.example/1", "id": "g1",
        "published": "Wed, 31 Jan 2018 07:26:05 GMT", "updated": "Wed, 31 Jan 2018 07:26:05 GMT", "author": "Somebody",
        "summary": "short", "content": "short", "categories": ["x", "y"], "enclosures": ["https://a.example/1.mp3"],
    }  # fmt: skip
    assert (two.get("title"), two.get("link")) == ("Only media", "https://a.example/2")


def test_atom():
    channel, (one,) = read(ATOM)
    assert channel.get("title") == "Blog"
    assert [one.get(key) for key in ("id", "link", "published", "updated", "author", "categories", "summary", "content")] == [
        "urn:1", "/1", "2015-05-04T00:01:27+00:00", "2016-01-01T00:00:00Z", "N", ["c"], "s", "a b",
    ]  # fmt: skip


def test_rdf():
    channel, (one,) = read(RDF)
    assert channel.get("title") == "RDF"
    assert [one.get(key) for key in ("id", "published", "categories")] == [
        "https://a.example/1",
        "2006-01-03T21:32:56Z",
        ["s"],
    ]


def test_feed_as_a_source(tmp_path):
    text = """
        format = "feed"
        [fields]
        title = {}
        published = {type = "datetime"}
        image = [{xpath = "media:content/@url", type = "url"}, {xpath = "enclosure/@url", type = "url"}]
        tags = {key = "categories", many = true}
        author = {xpath = "dc:creator"}
        feed = {key = "title", level = 0}
        """
    assert rows(tmp_path, text, RSS)[0] == {
        "title": "One & <b>two</b>", "published": "2018-01-31T07:26:05Z", "image": "https://shop.example/p.jpg",
        "tags": ["x", "y"], "author": "Somebody", "feed": "News",
    }  # fmt: skip
    assert list(rows(tmp_path, 'format = "feed"', RSS)[0]) == list(feed.KEYS)


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
        ("<rss><channel><item><title>a</title><p>unclosed</item></channel></rss>", "a"),
        ("<rss><channel><item><title>a</title></item>", "a"),
        (
            "<rss version=2.0><channel><item><title lang = en>a</title><enclosure url=x?a=1&b=2 /></item></channel></rss>",
            "a",
        ),
        ("<rss><channel><item><title>5 < 6 </ 7</title></item></channel></rss>", "5 < 6 </ 7"),
        ("<rss><channel><item><title>a <i>b</title></item></channel></rss>", "a <i>b"),
        ('<rss a=1><channel><item><title t="x=y">a</title><![CDATA[<b c=d]]></item></channel></rss>', "a"),
    ],
)
def test_ill_formed_feed(broken, title):
    _, entries = read(broken)
    assert [entry.get("title") for entry in entries] == [title]


def test_a_tag_that_is_never_closed_does_not_take_the_entries_after_it():
    """HTML in a text is what it would be had the feed escaped it; a section and Atom's XHTML stay what they are."""
    _, entries = read(
        "<rss><channel><item><title>a</title><description>x <br> y &amp; <img src=i.gif></description></item>"
        "<item><title>b</title><description><![CDATA[<p>z</p>]]></description></item></channel></rss>"
    )
    assert [entry.get("title") for entry in entries] == ["a", "b"]
    assert [entry.get("summary") for entry in entries] == ['x <br> y & <img src="i.gif">', "<p>z</p>"]
    _, entries = read(
        '<feed xmlns="http://www.w3.org/2005/Atom"><entry><title>a<hr></title><content type="xhtml"><p>x <i>y</i></p></content>'
        "</entry></feed>"
    )
    assert [(entry.get("title"), entry.get("content")) for entry in entries] == [("a<hr>", "x y")]


@pytest.mark.parametrize("text", ["", "<html><body>404</body></html>", "nothing"])
def test_what_is_no_feed(text):
    with pytest.raises(ParseFailed):
        feed.read(text.encode())


@pytest.mark.parametrize(
    "piece",
    ["<![CDATA[", "<!--", "&", "&a", "<a:", "&#", "<", "<a b='", "<a =", "= ", "<title>", "</title><title><![CDATA["],
)
def test_repair_is_linear(piece):
    took = []
    for count in (20_000, 80_000):
        began = time.process_time()
        feed.escaped(feed.repaired("<rss>" + piece * count))
        took.append(time.process_time() - began)
    assert took[1] < 1 + 16 * took[0]  # quadratic ones took minutes
