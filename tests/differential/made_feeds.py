"""Feeds of all kinds made from entries that are known, and what is done to them: each kind of damage by its name."""

import html
import random
import re
from collections.abc import Callable
from typing import Final, NamedTuple

WORDS: Final = (
    "one", "Zwei", "trés", "два", "三", "R&D", "5 < 6", "a > b", "it\u2019s", "“quoted”", "l'eau", 'say "no"', "C#", "x=y&z=1", "100 %",
    "a]b", "<not a tag", "&amp;", "&nbsp;",
)  # fmt: skip
TAGS: Final = ("p", "b", "em", "li", "blockquote")
DC: Final = (
    "http://purl.org/dc/elements/1.1/",
    "http://purl.org/dc/elements/1.1",
    "HTTP://purl.org/DC/elements/1.1/",
    "https://purl.org/dc/elements/1.1/",
)
CONTENT: Final = (
    "http://purl.org/rss/1.0/modules/content/",
    "http://purl.org/rss/1.0/modules/content",
    "http://purl.org/RSS/1.0/modules/content/",
)
ITUNES: Final = (
    "http://www.itunes.com/dtds/podcast-1.0.dtd",
    "http://www.itunes.com/DTDs/Podcast-1.0.dtd",
    "http://www.itunes.com/DTDs/PodCast-1.0.dtd",
)
ATOM: Final = ("http://www.w3.org/2005/Atom", "http://www.w3.org/2005/atom", "http://www.w3.org/2005/Atom/")


class Known(NamedTuple):
    """An entry: what each key has to be. ``titles`` and so on are texts as the key gives them."""

    title: str
    link: str
    id: str
    published: str
    author: str
    summary: str
    content: str
    categories: list[str]
    enclosures: list[str]


class Made(NamedTuple):
    """A feed, what is in it, and what was done to it."""

    text: str
    entries: list[Known]
    kinds: tuple[str, ...]


class Maker:
    """Makes feeds; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def feed(self, damages: int) -> Made:
        """A feed with so many kinds of damage."""
        made = self._random.choice((self._rss, self._rss, self._rdf, self._atom, self._atom, self._atom_03))()
        for name in self._random.sample(sorted(DAMAGES), damages):
            text = DAMAGES[name](made.text, self._random)
            if text != made.text:
                made = Made(text, made.entries, (*made.kinds, name))
        return made

    # Texts

    def _plain(self) -> str:
        return " ".join(self._random.choices(WORDS, k=self._random.randint(1, 5)))

    def _html(self) -> str:
        """HTML as a feed's XHTML is put out too: each element is closed, text is escaped."""
        pieces = []
        for _ in range(self._random.randint(1, 3)):
            tag, text = self._random.choice(TAGS), html.escape(self._plain(), quote=False)
            inside = f'<a href="https://x.example/?a=1&amp;b={self._random.randint(1, 9)}">{text}</a><br>'
            pieces.append(f"<{tag}>{inside if self._random.random() < 0.3 else text}</{tag}>")
        return " ".join(pieces)

    def _xml(self, text: str) -> str:
        """A text as XML has it."""
        way = self._random.random()
        if way < 0.4 and "]]>" not in text:
            return f"<![CDATA[{text}]]>"
        escaped = html.escape(text, quote=False)
        if way < 0.5:
            escaped = (
                re.sub("[a-z]", lambda one: f"&#{ord(one[0])};", escaped, count=1) if "&" not in escaped else escaped
            )
        if way > 0.9:
            escaped = f"{escaped}<!-- a comment -->"
        return escaped if way < 0.8 else f"\n  {escaped}\n"

    def _entry(self, number: int, *, is_iso: bool) -> Known:
        chance = self._random.random
        day, hour = self._random.randint(1, 28), self._random.randint(0, 23)
        published = f"2026-11-{day:02}T{hour:02}:04:05Z" if is_iso else f"Tue, {day:02} Nov 2026 {hour:02}:04:05 GMT"
        return Known(
            title=self._plain(),
            link=f"https://news.example/{number}?a=1&b={number}",
            id=f"tag:news.example,2026:{number}",
            published=published if chance() < 0.9 else "",
            author=self._random.choice(("A. N. Other", "Zoë O\u2019Hara", "李 四", "")),
            summary=self._html() if chance() < 0.8 else "",
            content=self._html() if chance() < 0.5 else "",
            categories=self._random.sample(["x", "Ämter & more", "c d"], self._random.randint(0, 2)),
            enclosures=[f"https://news.example/{number}.mp3"] if chance() < 0.3 else [],
        )

    def _entries(self, *, is_iso: bool) -> list[Known]:
        return [self._entry(number, is_iso=is_iso) for number in range(1, self._random.randint(3, 6))]

    # Kinds

    def _spaces(self) -> tuple[str, tuple[str, ...]]:
        dc, content, itunes = (self._random.choice(some) for some in (DC, CONTENT, ITUNES))
        is_odd = (dc, content, itunes) != (DC[0], CONTENT[0], ITUNES[0])
        return f'xmlns:dc="{dc}" xmlns:content="{content}" xmlns:itunes="{itunes}"', (
            "a namespace in other words",
        ) * is_odd

    def _rss(self) -> Made:
        spaces, kinds = self._spaces()
        entries = self._entries(is_iso=False)
        by = self._random.choice(("author", "dc:creator", "itunes:author"))
        items = []
        for one in entries:
            parts = [
                f"<title>{self._xml(one.title)}</title>",
                f"<link>{html.escape(one.link)}</link>",
                f'<guid isPermaLink="false">{one.id}</guid>',
                f"<pubDate>{one.published}</pubDate>" * bool(one.published),
                f"<{by}>{self._xml(one.author)}</{by}>" * bool(one.author),
                f"<description>{self._xml(one.summary)}</description>" * bool(one.summary),
                f"<content:encoded>{self._xml(one.content)}</content:encoded>" * bool(one.content),
                *(f"<category>{self._xml(text)}</category>" for text in one.categories),
                *(f'<enclosure url="{address}" length="1" type="audio/mpeg"/>' for address in one.enclosures),
            ]
            self._random.shuffle(parts)
            items.append("<item>" + "\n".join(filter(None, parts)) + "</item>")
        version = self._random.choice(("2.0", "0.91", "0.92"))
        text = (
            f'<?xml version="1.0"?>\n<rss version="{version}" {spaces}><channel><title>All</title>\n'
            + "\n".join(items)
            + "</channel></rss>"
        )
        return Made(text, entries, ("RSS", f"by {by}", *kinds))

    def _rdf(self) -> Made:
        spaces, kinds = self._spaces()
        entries = [
            one._replace(enclosures=[], id=f"https://news.example/{one.id[-1]}") for one in self._entries(is_iso=True)
        ]
        items = []
        for one in entries:
            parts = [
                f"<title>{self._xml(one.title)}</title>",
                f"<link>{html.escape(one.link)}</link>",
                f"<dc:date>{one.published}</dc:date>" * bool(one.published),
                f"<dc:creator>{self._xml(one.author)}</dc:creator>" * bool(one.author),
                f"<description>{self._xml(one.summary)}</description>" * bool(one.summary),
                f"<content:encoded>{self._xml(one.content)}</content:encoded>" * bool(one.content),
                *(f"<dc:subject>{self._xml(text)}</dc:subject>" for text in one.categories),
            ]
            items.append(f'<item rdf:about="{html.escape(one.id)}">' + "\n".join(filter(None, parts)) + "</item>")
        own = self._random.choice(
            ("http://purl.org/rss/1.0/", "http://my.netscape.com/rdf/simple/0.9/", "http://purl.org/rss/1.0")
        )
        text = (
            f'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="{own}" {spaces}>\n<channel><title>All</title></channel>\n'
            + "\n".join(items)
            + "</rdf:RDF>"
        )
        return Made(text, entries, ("RDF", *kinds))

    def _construct(self, name: str, text: str, *, is_html: bool) -> str:
        """A text of Atom, whose type says whether it is HTML."""
        if not is_html:
            kind = self._random.choice(("", ' type="text"'))
            return f"<{name}{kind}>{self._xml(text)}</{name}>"
        if self._random.random() < 0.4:
            inside = text.replace("<br>", "<br/>")
            return f'<{name} type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">{inside}</div></{name}>'
        return f'<{name} type="html">{self._xml(text)}</{name}>'

    def _atom(self) -> Made:
        own = self._random.choice(ATOM)
        entries = self._entries(is_iso=True)
        base, relative = self._random.choice(
            (("", ""), ("", ""), (' xml:base="https://news.example/x/"', "../"), (' xml:base="/"', ""))
        )

        def at(address: str) -> str:
            return html.escape(address.replace("https://news.example/", relative) if base else address)

        items = []
        for one in entries:
            parts = [
                self._construct("title", one.title, is_html=False),
                f'<link href="{at(one.link)}"/>',
                f'<link rel="self" type="application/atom+xml" href="{at(one.link)}&amp;self=1"/>',
                f"<id>{one.id}</id>",
                f"<published>{one.published}</published>" * bool(one.published),
                f"<author><name>{self._xml(one.author)}</name></author>" * bool(one.author),
                self._construct("summary", one.summary, is_html=True) if one.summary else "",
                self._construct("content", one.content, is_html=True) if one.content else "",
                *(f'<category term="{html.escape(text)}"/>' for text in one.categories),
                *(f'<link rel="enclosure" href="{at(address)}"/>' for address in one.enclosures),
            ]
            self._random.shuffle(parts)
            items.append("<entry>" + "\n".join(filter(None, parts)) + "</entry>")
        text = f'<feed xmlns="{own}"{base}><title>All</title>\n' + "\n".join(items) + "</feed>"
        return Made(
            text, entries, ("Atom", *("a namespace in other words",) * (own != ATOM[0]), *("xml:base",) * bool(base))
        )

    def _atom_03(self) -> Made:
        entries = [one._replace(categories=[], enclosures=[]) for one in self._entries(is_iso=True)]
        items = []
        for one in entries:
            parts = [
                f'<title type="text/plain" mode="escaped">{self._xml(one.title)}</title>',
                f'<link rel="alternate" type="text/html" href="{html.escape(one.link)}"/>',
                f"<id>{one.id}</id>",
                f"<issued>{one.published}</issued>" * bool(one.published),
                f"<author><name>{self._xml(one.author)}</name></author>" * bool(one.author),
                f'<summary type="text/html" mode="escaped">{self._xml(one.summary)}</summary>' * bool(one.summary),
                f'<content type="text/html" mode="escaped">{self._xml(one.content)}</content>' * bool(one.content),
            ]
            items.append("<entry>" + "\n".join(filter(None, parts)) + "</entry>")
        text = (
            '<feed version="0.3" xmlns="http://purl.org/atom/ns#"><title>All</title>\n' + "\n".join(items) + "</feed>"
        )
        return Made(text, entries, ("Atom 0.3",))


# Damage


def _at_one(pattern: str, change: Callable[[re.Match[str]], str]) -> Callable[[str, random.Random], str]:
    """Changes one of the places that a pattern finds."""

    def damage(text: str, chance: random.Random) -> str:
        found = list(re.finditer(pattern, text))
        if not found:
            return text
        one = chance.choice(found)
        return text[: one.start()] + change(one) + text[one.end() :]

    return damage


def _at_all(pattern: str, change: str) -> Callable[[str, random.Random], str]:
    return lambda text, _: re.sub(pattern, change, text)


def _outside_of_sections(text: str, change: str) -> Callable[[str, random.Random], str]:
    pattern = re.compile(rf"(<!\[CDATA\[.*?\]\]>)|{text}", re.DOTALL | re.IGNORECASE)
    return lambda feed, _: pattern.sub(lambda found: found[1] or change, feed)


def _truncated(text: str, chance: random.Random) -> str:
    return text[: chance.randint(len(text) // 3, len(text) - 1)]


DAMAGES: Final[dict[str, Callable[[str, random.Random], str]]] = {
    "a bare ampersand": _at_all(r"(?<=news\.example/\d\?a=1)&amp;", "&"),
    "an entity of HTML": _outside_of_sections("é", "&eacute;"),
    "a control character": _at_one("</title>", lambda found: f"\x08{found[0]}"),
    "a stray end tag": _at_one("</(?:title|link|id|guid|summary|description)>", lambda found: found[0] * 2),
    "a stray end tag elsewhere": _at_one("(?:</item>|</entry>)", lambda found: f"</title>{found[0]}"),
    "no end tag": _at_one("</(?:title|link|id|guid|summary|description|content|category|item|entry)>", lambda _: ""),
    "no end of a section": _at_one(r"\]\]>", lambda _: ""),
    "a damaged end of a section": _at_one(r"\]\]>", lambda _: "]>"),
    "a damaged beginning of a section": _at_one(r"<!\[CDATA\[", lambda _: "<![cdata["),
    "a section twice": _at_one(r"<!\[CDATA\[[^\]]*\]\]>", lambda found: f"<![CDATA[{found[0]}]]>"),
    "an end of a section in a text": _at_one("</title>", lambda found: f" ]]> x{found[0]}"),
    "broken off": _truncated,
    "junk before": lambda text, _: f"<!-- {'x'} -->\nWarning: x in <b>y.php</b>\n{text}",
    "junk after": lambda text, _: f"{text}\n<script>if (a < b) {{}}</script>",
    "blanks before the declaration": lambda text, _: f"\n \n{text}",
    "no declaration of a prefix": _at_all(' xmlns:dc="[^"]*"', ""),
    "an attribute twice": _at_one("<title", lambda found: f'{found[0]} lang="a" lang="b"'),
    "attributes without quotes": _at_all(' (term|rel|isPermaLink|length)="([a-z0-9]+)"', r" \1=\2"),
    "markup in a text": _at_one("<description>", lambda found: f"{found[0]}<br><img src=x>"),
    "an instruction in a text": _at_one("<title[^>]*>", lambda found: f"{found[0]}<?php x?>"),
    "names in upper case": _at_all("(</?)(title|item|link)", lambda found: found[1] + found[2].upper()),  # type: ignore[arg-type]
    "a comment that is never closed": _at_one("</item>|</entry>", lambda found: f"{found[0]}<!-- "),
    "windows-1252 by number": _outside_of_sections("\u2019", "&#146;"),
}
