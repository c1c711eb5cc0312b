"""Pages for ``bench geo``: listings of a made-up shop, of three sizes, and a small answer of an API. The same bytes each time.

Their markup is what such pages have: navigation, filters, pictures in several sizes, buttons, and the data of the page once
more for its scripts. Texts are words of a made-up language, used as often as words are (Zipf), so that they pack like texts.
"""

import gzip
import html
import itertools
import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import msgspec
from lxml import etree
from msgspec import Struct, structs

ORIGIN: Final = "https://shop.example"
LISTING, SMALL = "geo.listing", "geo.small"
GZIP_LEVEL: Final = 6  # what sites usually have
ITEM: Final = etree.XPath("//article[contains(concat(' ', @class, ' '), ' card ')]", smart_strings=False)
FIELDS: Final = {
    "title": "string(.//h2/a)",
    "link": "string(.//h2/a/@href)",
    "brand": "string(.//span[@class='brand'])",
    "price": "string(.//span[@class='price']/@data-amount)",
    "rating": "string(.//div[@class='stars']/@data-value)",
    "reviews": "string(.//a[@class='reviews']/@data-count)",
    "availability": "string(.//p[@class='stock'])",
    "summary": "string(.//p[@class='summary'])",
}
SOURCE: Final = """
title = "{title}"
url = 'https://shop.example/{{connection}}/{path}{{?n}}'
region = "{region}"
{format}[params]
connection = {{required = true, enum = ["kept", "new"], example = "kept"}}
{more}n = {{type = "int", required = true, example = 1}}
[rows]
{rows}
[fields]
{fields}
[limits]
concurrency = 64
timeout_seconds = 60
"""


class Made(Struct, frozen=True):
    """A page: its name, as its path has it, its bytes, its type, and its records. ``sent``: its bytes as the site sends them."""

    name: str
    title: str
    source: str
    body: bytes
    sent: bytes
    content_type: str
    records: list[dict[str, Any]]

    @property
    def is_packed(self) -> bool:
        """Whether the site sends it with gzip."""
        return self.sent != self.body

    @property
    def records_bytes(self) -> int:
        """The records as JSON."""
        return len(msgspec.json.encode(self.records))


@cache
def made() -> dict[str, Made]:
    """All pages by name."""
    listings = [("50kB", "50 kB", 50_000), ("500kB", "500 kB", 500_000), ("2MB", "2 MB", 2_000_000)]
    small = [
        {"date": "2026-11-27", "currency": name, "rate": rate} for name, rate in (("USD", "1.0963"), ("JPY", "170.20"))
    ]
    found = [_page("small", "small JSON", SMALL, json.dumps({"rows": small}).encode(), "application/json", small)]
    for name, title, wanted in listings:
        body, records = listing(wanted)
        found.append(_page(name, f"{title} page", LISTING, body, "text/html; charset=utf-8", records))
    plain = found[2]
    found.append(structs.replace(plain, name="500kB-plain", title=f"{plain.title}, sent unpacked", sent=plain.body))
    return {page.name: page for page in found}


def _page(name: str, title: str, source: str, body: bytes, kind: str, records: list[dict[str, Any]]) -> Made:
    return Made(name, title, source, body, gzip.compress(body, GZIP_LEVEL, mtime=0), kind, records)


def definitions(region: str) -> dict[str, str]:
    """The text of each source's file."""
    listings = [page.name for page in made().values() if page.source == LISTING]
    of_listing = {"title": 'title = "h2 a"', "link": 'link = "h2 a::attr(href)"', "brand": 'brand = ".brand"'}
    of_listing |= {
        "price": 'price = ".price::attr(data-amount)"',
        "rating": 'rating = ".stars::attr(data-value)"',
        "reviews": 'reviews = ".reviews::attr(data-count)"',
        "availability": 'availability = ".stock"',
        "summary": 'summary = ".summary"',
    }
    sizes = ", ".join(f'"{name}"' for name in listings)
    return {
        LISTING: SOURCE.format(
            title="A listing", path="{page}", region=region, format="", rows='css = "article.card"',
            more=f"page = {{required = true, enum = [{sizes}], example = {listings[0]!r}}}\n", fields="\n".join(of_listing.values()),
        ),
        SMALL: SOURCE.format(
            title="Rates", path="small", region=region, format='format = "json"\n', rows='jmes = "rows"', more="",
            fields="date = {}\ncurrency = {}\nrate = {}",
        ),
    }  # fmt: skip


def reader(page: Made) -> Callable[[bytes], list[dict[str, Any]]]:
    """A parser by hand, as one would write it for these pages: compiled once."""
    if page.source == SMALL:
        return lambda body: json.loads(body)["rows"]
    parser = etree.HTMLParser(encoding="utf-8", huge_tree=True)
    paths = {name: etree.XPath(text, smart_strings=False) for name, text in FIELDS.items()}

    def read(body: bytes) -> list[dict[str, Any]]:
        found: Any = ITEM(etree.fromstring(body, parser))
        return [{name: " ".join(str(path(one)).split()) for name, path in paths.items()} for one in found]

    return read


def listing(wanted: int) -> tuple[bytes, list[dict[str, Any]]]:
    """A page of about that many bytes, and its records."""
    draw = random.Random(wanted)
    words = _Words(draw)
    head, foot = _head(words), _foot(words)
    records, cards, size = [], [], len(head) + len(foot)
    for number in itertools.count(1):
        if size >= wanted:
            break
        record = {
            "title": words.text(6).title(),
            "link": f"/{words.text(2).replace(' ', '-')}/p/{draw.randrange(10**7, 10**8)}-{words.text(4).replace(' ', '-')}",
            "brand": words.text(1).title(),
            "price": f"{draw.randint(300, 90_000) / 100:.2f}",
            "rating": f"{draw.randint(20, 50) / 10:.1f}",
            "reviews": str(draw.randint(0, 4_000)),
            "availability": draw.choice(("In stock", "Only 3 left", "Ships in 2 to 4 days", "Out of stock")),
            "summary": words.text(22).capitalize() + ".",
        }
        card = _card(number, record, draw, words)
        records.append(record)
        cards.append(card)
        size += len(card)
    return (head + "".join(cards) + foot).encode(), records


def _card(number: int, record: dict[str, Any], draw: random.Random, words: "_Words") -> str:
    picture = f"https://img.shop.example/m/{draw.getrandbits(96):024x}"
    sizes = ", ".join(f"{picture}/{width}w.webp {width}w" for width in (160, 240, 320, 480, 640, 960))
    star = (
        '<svg class="icon" width="16" height="16" viewBox="0 0 24 24" aria-hidden="true"><use href="#star"></use></svg>'
    )
    data = {
        "sku": draw.randrange(10**9),
        "price": record["price"],
        "brand": record["brand"],
        "pos": number,
        "list": "category",
    }
    swatches = "".join(
        f'<li><button type="button" class="swatch" style="--c:#{draw.getrandbits(24):06x}" data-variant="{draw.randrange(10**8)}">'
        f'<span class="sr-only">{words.text(2)}</span></button></li>'
        for _ in range(draw.randint(2, 5))
    )
    return f"""
        <li class="grid__item grid__item--{draw.choice(("s", "m", "l"))}" data-testid="product-{number}">
          <article class="card card--product" data-analytics="{html.escape(json.dumps(data))}">
            <div class="card__media"><a href="{record["link"]}" tabindex="-1" aria-hidden="true">
              <picture><source type="image/webp" sizes="(max-width: 640px) 50vw, 25vw" srcset="{sizes}">
                <img loading="lazy" decoding="async" width="480" height="600" src="{picture}/480w.jpg" alt="{record["title"]}"></picture></a>
              <button class="wish" type="button" data-sku="{data["sku"]}" aria-label="Save {record["title"]}">{star}</button></div>
            <div class="card__body"><span class="brand">{record["brand"]}</span>
              <h2 class="card__title"><a class="link link--quiet" href="{record["link"]}">{record["title"]}</a></h2>
              <div class="stars" data-value="{record["rating"]}">{star * 5}</div>
              <a class="reviews" data-count="{record["reviews"]}" href="{record["link"]}#reviews">({record["reviews"]})</a>
              <p class="summary">{record["summary"]}</p>
              <ul class="swatches">{swatches}</ul>
              <div class="buy"><span class="price" data-amount="{record["price"]}" data-currency="EUR">€{record["price"]}</span>
                <p class="stock">{record["availability"]}</p>
                <form method="post" action="/cart/add"><input type="hidden" name="token" value="{draw.getrandbits(128):032x}">
                  <button class="btn btn--primary" type="submit">Add to basket</button></form></div></div>
          </article>
        </li>"""


def _head(words: "_Words") -> str:
    styles = "".join(f".c{n}{{margin:{n % 9}px;color:#{n * 7919 % 4096:03x};padding:{n % 5}rem}}" for n in range(90))
    menu = "".join(
        f'<li class="nav__item"><a class="nav__link" href="/c/{words.text(1)}-{n}">{words.text(2).title()}</a></li>'
        for n in range(40)
    )
    filters = "".join(
        f'<label class="filter"><input type="checkbox" name="f" value="{n}"> {words.text(2)} <span>({n * 37 % 240})</span></label>'
        for n in range(24)
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{words.text(4).title()}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="description" content="{words.text(24)}">
<link rel="stylesheet" href="/assets/app.5f3c9e.css"><style>{styles}</style></head>
<body class="page page--category"><nav class="nav"><ul>{menu}</ul></nav>
<aside class="filters">{filters}</aside><main><h1>{words.text(3).title()}</h1><ul class="grid">"""


def _foot(words: "_Words") -> str:
    links = "".join(f'<li><a href="/help/{words.text(1)}">{words.text(3).capitalize()}</a></li>' for _ in range(30))
    state = {words.text(1): {"id": n, "label": words.text(3), "on": n % 3 == 0} for n in range(30)}
    return f"""
</ul></main><footer><ul>{links}</ul><p>{words.text(60).capitalize()}.</p></footer>
<script type="application/json" id="state">{json.dumps(state)}</script><script src="/assets/app.8d21aa.js" defer></script></body></html>"""


class _Words:
    """Words of one to four syllables; the n-th one is used as often as 1/n."""

    def __init__(self, draw: random.Random) -> None:
        made_of = random.Random(7)
        syllables = [a + b + c for a in "bdfgklmnprstvz" for b in "aeiou" for c in ("", "n", "r", "s")]
        self._words = ["".join(made_of.choices(syllables, k=made_of.choice((1, 2, 2, 3, 3, 4)))) for _ in range(3_000)]
        self._weights = list(itertools.accumulate(1 / number for number in range(1, 3_001)))
        self._draw = draw

    def text(self, count: int) -> str:
        """As many words."""
        return " ".join(self._draw.choices(self._words, cum_weights=self._weights, k=count))
