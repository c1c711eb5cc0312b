"""Feeds of all kinds: keys, types of texts, namespaces and addresses."""

import pytest

from jobs.definition.schema import FEED_KEYS
from jobs.errors import ParseFailed
from jobs.parse import feed
from tests.unit.describing import parse, rows

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
    channel = feed.Channel(feed.read(text.encode()))
    return channel, list(channel.entries())


def test_rss():
    channel, (one, two) = read(RSS)
    assert (channel.get("title"), channel.get("link")) == ("News", "https://a.example/")
    assert {key: one.get(key) for key in FEED_KEYS} == {
        "title": "One & <b>two</b>", "link": "https://a.example/1", "id": "g1",
        "published": "Wed, 31 Jan 2018 07:26:05 GMT", "updated": "Wed, 31 Jan 2018 07:26:05 GMT", "author": "Somebody",
        "summary": "short", "content": "short", "categories": ["x", "y"], "enclosures": ["https://a.example/1.mp3"],
    }  # fmt: skip
    assert (two.get("title"), two.get("link")) == ("Only media", "https://a.example/2")


def test_atom():
    channel, (one,) = read(ATOM)
    assert channel.get("title") == "Blog"
    assert [one.get(key) for key in ("id", "link", "published", "updated", "author", "categories", "summary", "content")] == [
        "urn:1", "/1", "2015-05-04T00:01:27+00:00", "2016-01-01T00:00:00Z", "N", ["c"], "s", "a <b>b</b>",
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
    assert list(rows(tmp_path, 'format = "feed"', RSS)[0]) == list(FEED_KEYS)


@pytest.mark.parametrize("text", ["", "<html><body>404</body></html>", "nothing"])
def test_other_documents_are_no_feed(text):
    with pytest.raises(ParseFailed):
        feed.read(text.encode())


def atom(inside: str) -> str:
    return f'<feed xmlns="http://www.w3.org/2005/Atom"><entry>{inside}</entry></feed>'


def rss(inside: str, attributes: str = "") -> str:
    return f"<rss {attributes}><channel><item>{inside}</item></channel></rss>"


OLD = "<feed version='0.3' xmlns='http://purl.org/atom/ns#'><entry>{}</entry></feed>"
TYPES = [  # an element of a feed, what the key says, what parse = "html" makes of it
    (
        atom('<content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">a &lt;b&gt; <i>c</i></div></content>'),
        "a &lt;b&gt; <i>c</i>",
        "a <b> c",
    ),
    (atom("<content>Use &lt;b&gt; for bold, &amp;amp; AT&amp;T</content>"), "Use <b> for bold, &amp; AT&T", "Use <b> for bold, &amp; AT&T"),
    (atom('<content type="text">Use &lt;b&gt;</content>'), "Use <b>", "Use <b>"),
    (atom('<content type="TEXT"><!-- c -->Use &lt;b&gt;</content>'), "Use <b>", "Use <b>"),
    (atom('<content type="text/plain; charset=utf-8">1 &lt; 2</content>'), "1 < 2", "1 < 2"),
    (atom('<content type="html">Use &lt;b&gt;it&lt;/b&gt; &amp;amp; more</content>'), "Use <b>it</b> &amp; more", "Use it & more"),
    (atom('<content type="text/html"><![CDATA[<b>it</b>]]></content>'), "<b>it</b>", "it"),
    (atom('<content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">1 &lt; 2 <br/><b class="x&quot;y">b</b></div></content>'),
     '1 &lt; 2 <br><b class="x&quot;y">b</b>', "1 < 2 b"),
    (atom('<content type="xhtml"><x:div xmlns:x="http://www.w3.org/1999/xhtml"><x:p>&lt;p&gt;</x:p><!-- c --> d<x:p/></x:div></content>'),
     "<p>&lt;p&gt;</p> d<p></p>", "<p> d"),
    (atom('<content type="xhtml"><p>a</p><div>b</div></content>'), "<p>a</p><div>b</div>", "ab"),
    (atom('<content type="html"><p>one <i>two</i></p> 5 &lt; 6</content>'), "<p>one <i>two</i></p> 5 &lt; 6", "one two 5 < 6"),
    (OLD.format("<content>1 &lt; 2</content>"), "1 < 2", "1 < 2"),
    (OLD.format('<content type="text/html" mode="escaped">&lt;b&gt;x&lt;/b&gt;</content>'), "<b>x</b>", "x"),
    (OLD.format('<content type="text/html" mode="base64">PGI+eDwvYj4=</content>'), "<b>x</b>", "x"),
    (OLD.format('<content type="application/xhtml+xml"><div>a <b>b</b></div></content>'), "a <b>b</b>", "a b"),
    (rss("<description>&lt;b&gt;x&lt;/b&gt; &amp;amp; y</description>"), "<b>x</b> &amp; y", "x & y"),
    (rss("<description><p>Very <b>new</b></p><p>two</p></description>"), "<p>Very <b>new</b></p><p>two</p>", "Very newtwo"),
    (rss("<description>&lt;p&gt;a<br/>b&lt;/p&gt;</description>"), "<p>a<br>b</p>", "ab"),
    (rss("<description>&lt;![CDATA[<b>x</b>]]&gt;</description>"), "<b>x</b>", "x"),
    (rss("<description>&lt;![CDATA[&lt;b>x&lt;/b>]]&gt;</description>"), "<b>x</b>", "x"),
    (rss("<description><![CDATA[<![CDATA[<b>x</b>]]></description>"), "<b>x</b>", "x"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told", "read_as_html"), TYPES)
def test_a_text_follows_its_declared_type(tmp_path, text, told, read_as_html):
    source = 'format = "feed"\n[fields]\ncontent = {}\nread = {key = "content", parse = "html"}'
    assert rows(tmp_path, source, text) == [{"content": told, "read": read_as_html}]


def test_the_type_also_counts_if_the_element_is_selected(tmp_path):
    text = atom('<title type="text">Use &lt;b&gt;</title><summary type="html">&lt;p&gt;a&lt;/p&gt;</summary>')
    source = """
        format = "feed"
        [fields]
        title = {xpath = "atom:title", parse = "html"}
        summary = {css = "summary", parse = "html"}
        title_of = {each = {key = "title", parse = "html"}, fields = {text = {css = ":scope"}}}
        """
    assert rows(tmp_path, source, text) == [{"title": "Use <b>", "summary": "a", "title_of": [{"text": "Use <b>"}]}]


SPACES = [
    ('xmlns:itunes="http://www.itunes.com/DTDs/Podcast-1.0.dtd"', "itunes:author"),
    ('xmlns:itunes="http://www.itunes.com/DTDs/PodCast-1.0.dtd"', "itunes:author"),
    ('xmlns:i="https://www.itunes.com/dtds/podcast-1.0.dtd"', "i:author"),
    ('xmlns:dc="http://purl.org/dc/elements/1.1"', "dc:creator"),
    ('xmlns:dc="HTTP://PURL.ORG/DC/ELEMENTS/1.1/"', "dc:creator"),
    ('xmlns:dc=" https://purl.org/dc/elements/1.1/ "', "dc:creator"),
    ('xmlns:dc="http://purl.org/dc/elements/1.0/"', "dc:creator"),
]


@pytest.mark.parametrize(("declared", "name"), SPACES)
def test_a_namespace_is_recognised_however_it_is_written(tmp_path, declared, name):
    usual = "itunes:author" if name.endswith("author") else "dc:creator"
    source = f'format = "feed"\n[fields]\nauthor = {{}}\npath = {{xpath = "{usual}"}}\ncss = {{css = "{usual.replace(":", "|")}"}}'
    assert rows(tmp_path, source, rss(f"<{name}>N</{name}>", declared)) == [{"author": "N", "path": "N", "css": "N"}]


@pytest.mark.parametrize(
    ("feed_text", "keys"),
    [
        ('<feed xmlns="http://www.w3.org/2005/atom/"><entry><title>a</title></entry></feed>', {"title": "a"}),
        ('<feed xmlns="http://example.com/newformat#"><entry><title>a</title><issued>d</issued></entry></feed>', {"title": "a", "published": "d"}),
        ('<rss xmlns="http://nobody.example/rss"><channel><item><title>a</title><link>l</link></item></channel></rss>', {"title": "a", "link": "l"}),
        ('<rss xmlns="http://backend.userland.com/RSS2"><channel><item><title>a</title></item></channel></rss>', {"title": "a"}),
        ('<rss xmlns:media="http://search.yahoo.com/mrss"><channel><item><media:title>a</media:title></item></channel></rss>', {"title": "a"}),
        ('<rss xmlns:c="http://purl.org/rss/1.0/modules/content"><channel><item><c:encoded>a</c:encoded></item></channel></rss>', {"content": "a"}),
        ('<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns" xmlns="http://purl.org/rss/1.0"><item rdf:about="u"><title>a</title></item></rdf:RDF>', {"id": "u", "title": "a"}),
    ],
)  # fmt: skip
def test_a_feed_in_a_namespace_with_another_spelling(feed_text, keys):
    _, (entry,) = read(feed_text)
    assert {key: entry.get(key) for key in keys} == keys


def test_a_namespace_that_a_definition_names_stays(tmp_path):
    text = rss(
        "<dc:creator>N</dc:creator><i:author>M</i:author>",
        'xmlns:dc="http://mine.example/" xmlns:i="http://www.itunes.com/DTDs/Podcast-1.0.dtd"',
    )
    source = """
        format = "feed"
        [fields]
        mine = {xpath = "my:creator"}
        pod = {xpath = "pod:author"}
        [namespaces]
        my = "http://mine.example/"
        pod = "http://www.itunes.com/DTDs/Podcast-1.0.dtd"
        """
    assert rows(tmp_path, source, text) == [{"mine": "N", "pod": "M"}]


def test_a_well_known_prefix_with_an_unknown_address_is_read_with_a_warning(tmp_path):
    parsed = parse(
        tmp_path,
        'format = "feed"\n[fields]\nauthor = {}',
        rss("<dc:creator>N</dc:creator>", 'xmlns:dc="http://x.example/"'),
    )
    assert parsed.rows == [{"author": "N"}]
    assert parsed.warnings == [
        'the feed binds dc to "http://x.example/", which is read as http://purl.org/dc/elements/1.1/'
    ]


BASED = """<feed xmlns="http://www.w3.org/2005/Atom" xmlns:media="http://search.yahoo.com/mrss/" xml:base="/blog/"><link href="."/>
<entry xml:base="2026/"><title>a</title><link href="one"/><link rel="enclosure" href="../a.mp3" xml:base="https://files.example/x/y"/>
<media:content url="i.jpg"/><media:content xml:base="//img.example/" url="j.jpg"/><id>tag:1</id>
<content type="html" xml:base="http://old.example/c/">&lt;img src="k.jpg"&gt;&lt;a href="/l"&gt;x&lt;/a&gt;</content></entry>
<entry><title>b</title><link href="https://other.example/b"/><content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml" xml:base="deep/"><img src="m.jpg"/><p xml:base="er/"><img src="n.jpg"/></p></div></content></entry>
<entry xml:base="http://[bad/"><link href="c"/></entry><entry xml:base="tag:x,2026:y"><link href="d"/></entry><entry><link href="http://[e"/></entry></feed>"""


def test_addresses_are_relative_to_xml_base(tmp_path):
    source = """
        format = "feed"
        [fields]
        link = {type = "url"}
        plain = {key = "link"}
        files = {key = "enclosures", many = true, type = "url"}
        images = {xpath = "media:content/@url", many = true, type = "url"}
        first = {css = "media|content::attr(url)", type = "url"}
        cut = {xpath = "media:content/@url", re = '^(.)', type = "url"}
        inner = {each = {key = "content", parse = "html"}, fields = {src = {css = "img::attr(src)", type = "url", many = true}, href = {css = "a::attr(href)", type = "url"}}}
        home = {key = "link", level = 0, type = "url"}
        """
    one, two, three, four, five = parse(tmp_path, source, BASED).rows
    at = "https://shop.example/blog/"
    assert one == {
        "link": f"{at}2026/one", "plain": f"{at}2026/one", "files": ["https://files.example/a.mp3"],
        "images": [f"{at}2026/i.jpg", "https://img.example/j.jpg"], "first": f"{at}2026/i.jpg", "cut": f"{at}2026/i",
        "inner": [{"src": ["http://old.example/c/k.jpg"], "href": "http://old.example/l"}], "home": at,
    }  # fmt: skip
    assert two["link"] == "https://other.example/b"
    assert two["inner"] == [{"src": [f"{at}deep/m.jpg", f"{at}deep/er/n.jpg"], "href": None}]
    assert five["plain"] == "http://[e"
    assert [three["link"], four["link"]] == [f"{at}c", f"{at}d"]  # a base that is no address is none


def test_xml_base_counts_in_xml_too(tmp_path):
    source = """
        format = "xml"
        [rows]
        css = "item"
        [fields]
        href = {css = "::attr(href)", type = "url"}
        text = {css = "loc", type = "url"}
        all = {xpath = ".//@href", many = true, type = "url"}
        after = {xpath = "text()", type = "url"}
        end = {xpath = "text()[last()]", type = "url"}
        made = {xpath = "concat(@href, '?x')", type = "url"}
        """
    text = '<l xml:base="a/"><item href="1" xml:base="b/"><loc>2</loc>tail<c xml:base="/c/" href="3"/>end</item></l>'
    at = "https://shop.example/list/a/b/"
    assert rows(tmp_path, source, text) == [
        {"href": f"{at}1", "text": f"{at}2", "all": [f"{at}1", "https://shop.example/c/3"], "after": f"{at}tail", "end": f"{at}end", "made": f"{at}1?x"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("inside", "key", "value"),
    [
        ("<link>http://a/<!-- c -->b</link>", "link", "http://a/b"),
        ("<link>\n http://a/ \n</link>", "link", "http://a/"),
        ("<guid>http://a/<?x y?>b</guid>", "link", "http://a/b"),
        ('<guid isPermaLink=" FALSE">http://a/</guid>', "link", None),
        ('<guid ispermalink="false">http://a/</guid>', "link", None),
        ("<guid>1-2</guid>", "link", None),
        ('<atom:link xmlns:atom="http://www.w3.org/2005/Atom" rel="self" href="/s"/><link>/l</link>', "link", "/l"),
        ('<a:link xmlns:a="http://www.w3.org/2005/Atom" rel="http://www.iana.org/assignments/relation/alternate" href=" /s "/>', "link", "/s"),
        ('<a:link xmlns:a="http://www.w3.org/2005/Atom" rel="Enclosure" href="/s"/>', "enclosures", ["/s"]),
        ('<a:link xmlns:a="http://www.w3.org/2005/Atom" rel="enclosure">/s</a:link><link>/l</link>', "link", "/l"),
        ("<author>a@b (N)</author>", "author", "a@b (N)"),
        ("<author>\n<uri>http://u</uri>\n<email>e</email>\n</author>", "author", "e"),
        ("<author><email>e</email><!-- c --><name>N</name></author>", "author", "N"),
        ("<category>x<media:y xmlns:media='u'>z</media:y></category>", "categories", ["x"]),
        ("<title>a<!-- b --><?c d?> e</title>", "title", "a e"),
        ("<title>It&#146;s 5 &#x80;</title>", "title", "It\u2019s 5 €"),
        ("<title/><dc:title xmlns:dc='http://purl.org/dc/elements/1.1/'>t</dc:title>", "title", "t"),
        ("<content:encoded xmlns:content='http://purl.org/rss/1.0/modules/content/'>c</content:encoded><description>d</description>", "content", "c"),
        ("<content:encoded xmlns:content='http://purl.org/rss/1.0/modules/content/'>c</content:encoded><description>d</description>", "summary", "d"),
    ],
)  # fmt: skip
def test_parts_of_an_entry(inside, key, value):
    _, (entry,) = read(rss(inside))
    assert entry.get(key) == value


def test_an_unused_prefix_gives_no_warning(tmp_path):
    text = rss("<title>a</title>", 'xmlns:dc="http://x.example/" xmlns:geo="http://y.example/"')
    assert rows(tmp_path, 'format = "feed"\n[fields]\ntitle = {}', text) == [{"title": "a"}]


def test_html_that_is_escaped_twice_gives_a_warning(tmp_path):
    source = (
        'format = "feed"\n[fields]\na = {key = "summary", parse = "html"}\nb = {xpath = "description", parse = "html"}'
    )
    parsed = parse(tmp_path, source, rss("<description>&amp;lt;p&amp;gt;x&amp;lt;/p&amp;gt;</description>") + "")
    assert parsed.rows == [{"a": "<p>x</p>", "b": "<p>x</p>"}]
    assert parsed.warnings == ["a <description> of the feed is still HTML after it was unescaped: it is escaped twice"]
