"""Pages that are made, sound and careless, and recorded ones: what selectors find, beside html5lib's tree and parsel's selectors."""

import html as escaping
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import html5lib
import parsel
from lxml import etree

from jobs.definition import css
from jobs.page import parse_html
from tests.differential import Explained

PAGES: Final = Path(__file__).parents[1] / "unit" / "pages"
WORDS: Final = (
    "one",
    "Zwei",
    "R&D",
    "5 < 6",
    "a &amp; b",
    "\u00e9t\u00e9",
    "&nbsp;x",
    "\u4e09",
    "100 %",
    "it's",
    '"q"',
    "&copy 2026",
    "&#146;",
    "&notin;",
)
CLASSES: Final = ("a", "b", "big item", "A")
SELECTORS: Final = (
    "li", "ul li", "ul > li", "td", "th", "table tr", "tr td", "dt", "dd", "dl > dd", "p", "div p", "div > p", "h1", "h2", "section", "section > p",
    "a::attr(href)", "a", ".a", ".item", ".big.item", "[title]::attr(title)", "article h2", "option", "select option", "span", "b", "button", "rt",
    "li:nth-child(2)", "p + p", "h2 ~ p", "dt + dd", "li:not(.a)", "title", "script::text", "textarea", "link::attr(href)", "base::attr(href)",
    "p::text", "div::text", "li::text", "body > *::attr(class)", "img::attr(alt)", "tr > td:nth-child(2)", "body > p", "details", "body::text", "pre", "figure", "form input::attr(name)",
)  # fmt: skip


class Wanted(NamedTuple):
    """A kind of carelessness with which libxml2's tree is another one, and why that stays."""

    kind: str
    reason: str


WANTED: Final = [
    Wanted("text in a table", "libxml2 leaves what may not stand in a table there; HTML5 puts it before the table"),
    Wanted("p in a heading", "libxml2 ends a heading or <b> where a <p> or <form> begins"),
    Wanted("crossed b and i", "libxml2 does not open <b> again that ended too early"),
    Wanted("button in button", "what stood in the first one is moved behind it, into the <p> that holds both"),
    Wanted("form in form", "libxml2 ends the outer form"),
    Wanted(
        "block in an element in p", "a block ends a <p> where it stands right in it, not where an element is between"
    ),
]


class Maker:
    """Makes pages; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._kinds: set[str] = set()

    def page(self, careless: str) -> tuple[str, set[str]]:
        """A page, and what is careless in it besides end tags that may be left out."""
        self._kinds = {careless} if careless else set()
        body = [self._block(0) for _ in range(self._random.randint(2, 6))]
        if careless:
            body.insert(self._random.randrange(len(body)), CARELESS[careless])
        ends = self._random.choice(("</body></html>", "</html>", "", "</body>\n</html>\n<!-- end -->"))
        at = self._random.randrange(len(body) + 1) if self._random.random() < 0.4 else len(body)
        body.insert(at, ends)  # the rest stands behind the end
        head = self._random.choice(
            (
                "<!DOCTYPE html><html><head><title>T & t</title><link rel=next href=/2></head><body class=x>",
                "<!DOCTYPE html><title>T</title>",
                "<!doctype HTML><HTML><BODY>",
            )
        )
        return head + "".join(body), self._kinds

    def _text(self) -> str:
        words = " ".join(self._random.choices(WORDS, k=self._random.randint(1, 3)))
        return words.replace("<", "&lt;") if self._random.random() < 0.5 else words

    def _attributes(self) -> str:
        name = self._random.choice(CLASSES)
        title = escaping.escape(self._random.choice(WORDS))
        return self._random.choice(
            (
                "",
                "",
                f' class="{name}"',
                f" CLASS='{name}'",
                f' title="{title}"',
                f" class={name.split()[0]} title='{title}'",
                " hidden",
            )
        )

    def _inline(self) -> str:
        link = self._random.choice(("/a?x=1&y=2", "b#c", "/\u00fc"))
        return self._random.choice((
            self._text(), self._text(), f"<a href='{link}'>{self._text()}</a>", f"<a{self._attributes()} href={link}>{self._text()}</a>",
            f"<span{self._attributes()}>{self._text()}</span>", f"<b>{self._text()}</b>", "<br>", "<br/>", "<img src=i alt='x > y'>", f"<!-- {self._text()} -->",
            f"{self._text()}<script>if (a < b && c) {{ '</p>' }}</script>",
        ))  # fmt: skip

    def _inlines(self) -> str:
        return "".join(self._inline() for _ in range(self._random.randint(1, 3)))

    def _end(self, tag: str) -> str:
        return f"</{tag}>" if self._random.random() < 0.7 else ""

    def _block(self, depth: int) -> str:
        kinds = (self._p, self._list, self._definitions, self._table, self._heading, self._select, self._odd)
        made = self._random.choice((*kinds, *((self._section, self._div) * (depth < 2))))(depth)
        return made + self._random.choice(("", "\n", " "))

    def _p(self, depth: int) -> str:
        return f"<p{self._attributes()}>{self._inlines()}{self._end('p')}"

    def _list(self, depth: int) -> str:
        tag = self._random.choice(("ul", "ol", "UL"))
        items = [
            f"<li{self._attributes()}>{self._inlines()}{self._list(depth + 1) if depth < 2 and self._random.random() < 0.2 else ''}{self._end('li')}"
            for _ in range(self._random.randint(1, 3))
        ]
        return f"<{tag}>{''.join(items)}</{tag}>"

    def _definitions(self, depth: int) -> str:
        pairs = [
            f"<dt>{self._text()}{self._end('dt')}<dd>{self._inlines()}{self._end('dd')}"
            + f"<dd>{self._text()}{self._end('dd')}" * self._random.randint(0, 1)
            for _ in range(2)
        ]
        return f"<dl>{''.join(pairs)}</dl>"

    def _table(self, depth: int) -> str:
        rows = []
        for _ in range(self._random.randint(1, 3)):
            cells = [
                f"<{tag}{self._attributes()}>{self._inlines()}{self._end(tag)}"
                for tag in self._random.choices(("td", "td", "th"), k=2)
            ]
            rows.append(f"<tr>{''.join(cells)}{self._end('tr')}")
        inside = "".join(rows)
        return f"<table>{self._random.choice((inside, f'<tbody>{inside}</tbody>', f'<thead>{rows[0]}<tbody>{inside}'))}</table>"

    def _heading(self, depth: int) -> str:
        tag = self._random.choice(("h1", "h2"))
        return f"<{tag}>{self._inlines()}{self._end(tag)}<{tag}>{self._text()}</{tag}>"

    def _select(self, depth: int) -> str:
        return f'<form><select><option>{self._text()}<option selected>{self._text()}</select><input name=q value="{escaping.escape(self._text())}"></form>'

    def _odd(self, depth: int) -> str:
        return self._random.choice((
            "<textarea><p>x</textarea>", "<pre>\n a\n  b</pre>", "<style>p > a { }</style>", "<hr>", "<ruby>x<rt>y<rp>z</ruby>",
            "<button>x</button>", "<base href='/late/'>", "<iframe><p>no</p></iframe>", "<figure><img src=x></figure>", "</p>"[:0],
        ))  # fmt: skip

    def _section(self, depth: int) -> str:
        tag = self._random.choice(("section", "article", "header", "nav", "main", "aside"))
        return f"<{tag}{self._attributes()}>{self._block(depth + 1)}{self._block(depth + 1)}</{tag}>"

    def _div(self, depth: int) -> str:
        return f"<div{self._attributes()}>{self._inlines()}{self._block(depth + 1)}</div>"


CARELESS: Final = {
    "text in a table": "<table>x<tr><td>1</td></tr><p>y</p></table>",
    "p in a heading": "<h2>a<p>b</p></h2><b>c<p>d</p></b>",
    "crossed b and i": "<p><b>1<i>2</b>3</i><div><b>4<p>5</b>6</p></div>",
    "block in an element in p": "<p>a<noscript><p>b</p></noscript>c<p>d<span><section>e</section></span>f</p>",
    "button in button": "<p>a<button>b<button>c</button><form>d</form>",
    "form in form": "<form><input name=a><form><input name=b></form><input name=c></form>",
}


def compare(seed: int, count: int) -> Iterator[str]:
    """What a selector finds otherwise than in a browser's tree, on pages that are made and on those of the tests."""
    for path in sorted(PAGES.rglob("*.html")):
        yield from _differences(path.parent.name, path.read_text(encoding="utf-8", errors="replace"), set())
    maker = Maker(seed)
    careless = ("", "", "", *CARELESS)
    for number in range(count):
        text, kinds = maker.page(careless[number % len(careless)])
        yield from _differences(repr(text), text, kinds)


def _differences(name: str, text: str, kinds: set[str]) -> Iterator[str]:
    body = text.encode()
    ours = parse_html(body)
    theirs = parsel.Selector(
        root=html5lib.parse(text, treebuilder="lxml", namespaceHTMLElements=False).getroot(), type="html"
    )
    for selector in SELECTORS:
        found, wanted = _ours(ours, selector), _theirs(theirs, selector)
        if found == wanted:
            continue
        sentence = f"{selector} finds {found}, in a browser's tree {wanted}: {name}"
        reason = next((one.reason for one in WANTED if one.kind in kinds), "")
        yield Explained(sentence, reason) if reason else sentence


def _ours(root: etree._Element, selector: str) -> list[str]:
    path = css.translate(selector, xml=False, prefix=css.WHOLE)
    found = etree.XPath(path.xpath, smart_strings=False)(root)
    if path.gives == "text":
        return [
            one
            for element in found
            for one in [_folded((element.text or "") + "".join(child.tail or "" for child in element))]
            if one
        ]
    return [
        _folded(one if isinstance(one, str) else str(etree.XPath("string()", smart_strings=False)(one)))
        for one in found
    ]


def _theirs(tree: parsel.Selector, selector: str) -> list[str]:
    if selector.endswith("::text"):
        elements = tree.css(selector.removesuffix("::text"))
        return [one for element in elements for one in [_folded("".join(element.xpath("text()").getall()))] if one]
    if "::" in selector:
        return [_folded(one) for one in tree.css(selector).getall()]
    return [_folded(one.xpath("string()").get() or "") for one in tree.css(selector)]


def _folded(text: str) -> str:
    return " ".join(text.split())
