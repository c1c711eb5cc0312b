"""Pages made for measuring, each with the definition that parses it and a parser written by hand.

The parsers by hand use lxml's compiled XPaths, as code would that is written for this one page only.
"""

import json
import random
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urljoin

from lxml import etree
from msgspec import Struct

URL: Final = "https://shop.example/catalogue/category/books/poetry/index.html"
WORDS: Final = "amber brass cedar delta ember flint grove harbor island jasper kettle lantern meadow north opal".split()  # noqa: SIM905
RATINGS: Final = {"One": 1, "Two": 2, "Three": 3, "Four": 4, "Five": 5}

HTML: Final = """
title = "A listing"
url = 'https://shop.example/catalogue/category/books/poetry/index.html'
[rows]
css = "article.product_pod"
[fields]
title = "h3 a::attr(title)"
link = {css = "h3 a::attr(href)", type = "url"}
price = {css = ".price_color", type = "decimal"}
rating = {css = ".star-rating::attr(class)", re = '(\\w+)$', map = {One = 1, Two = 2, Three = 3, Four = 4, Five = 5}}
in_stock = {css = ".availability", re = "In stock", type = "bool"}
category = {css = "h1", level = 0}
"""
XML: Final = """
title = "A catalogue"
url = 'https://shop.example/catalogue.xml'
format = "xml"
[rows]
xpath = "/catalogue/item"
[fields]
id = "::attr(id)"
name = {xpath = "name"}
price = {xpath = "price", type = "decimal"}
currency = {xpath = "price/@currency"}
changed = {xpath = "changed", type = "date"}
tags = {xpath = "tags/tag", many = true}
"""
JSON: Final = """
title = "An API"
url = 'https://shop.example/items.json'
[rows]
jmes = "data.items"
[fields]
id = {}
name = {}
price = {jmes = "offer.price", type = "decimal"}
currency = {jmes = "offer.currency"}
tags = {many = true}
"""


class Case(Struct, frozen=True):
    """A page, its definition, and its parser by hand. Both give the same rows."""

    name: str
    body: bytes
    definition: str
    hand: Callable[[bytes], list[dict[str, Any]]]


def cases() -> list[Case]:
    """HTML of 54 kB and of 2 MB, XML of 5 MB, JSON of 1 MB; the same bytes each time."""
    return [
        Case("html 54 kB", html(20), HTML, hand_html()),
        Case("html 2 MB", html(750), HTML, hand_html()),
        Case("xml 5 MB", xml(7_250), XML, hand_xml()),
        Case("json 1 MB", json_page(8_100), JSON, hand_json),
    ]


def html(rows: int) -> bytes:
    """A list of books: about 2.6 kB for each row, most of it markup and white space."""
    draw = random.Random(1)
    blank = "\n" + " " * 24
    parts = ["<!DOCTYPE html><html><head><meta charset='utf-8'><title>Books</title></head><body><h1>Poetry</h1><ol>"]
    for number in range(rows):
        title = " ".join(draw.choices(WORDS, k=5)).title()
        stars = f"{blank}    <i class='icon-star'></i>" * 12
        noise = "".join(f"{blank}  <span class='badge n{i}' data-x='{draw.getrandbits(40)}'></span>" for i in range(14))
        parts.append(
            f"{blank}<li class='col-xs-6'><article class='product_pod'><div class='image_container'>"
            f"<a href='../../{number}/index.html'><img src='../media/{draw.getrandbits(64)}.jpg' alt='{title}'></a></div>"
            f"{blank}<p class='star-rating {draw.choice(list(RATINGS))}'>{stars}{blank}</p>"
            f"<h3><a href='../../../{number}/index.html' title='{title} &amp; Co'>{title[:12]} ...</a></h3>{noise}"
            f"{blank}<div class='product_price'><p class='price_color'>£{draw.randint(100, 99_999) / 100:.2f}</p>"
            f"{blank}<p class='instock availability'>{blank}<i class='icon-ok'></i>{blank}In stock{blank}</p>"
            f"<form><button type='submit'>Add to basket</button></form></div></article></li>"
        )
    return ("".join(parts) + "</ol></body></html>").encode()


def xml(rows: int) -> bytes:
    """A catalogue like shops publish it: about 690 bytes for each item, half of them its description."""
    draw = random.Random(2)
    parts = ["<?xml version='1.0' encoding='UTF-8'?><catalogue>"]
    for number in range(rows):
        name, tags = (
            " ".join(draw.choices(WORDS, k=3)),
            "".join(f"<tag>{tag}</tag>" for tag in draw.choices(WORDS, k=3)),
        )
        parts.append(
            f"\n  <item id='{number}'>\n    <name>{name}</name>\n    <price currency='EUR'>{draw.randint(100, 9999) / 100:.2f}"
            f"</price>\n    <changed>2026-11-{draw.randint(1, 28):02d}</changed>\n    <tags>{tags}</tags>"
            f"\n    <image>https://cdn.shop.example/images/{draw.getrandbits(128):032x}.jpg</image>"
            f"\n    <description>{' '.join(draw.choices(WORDS, k=60))}</description>\n  </item>"
        )
    return ("".join(parts) + "\n</catalogue>").encode()


def json_page(rows: int) -> bytes:
    """An API's answer: about 125 bytes for each item."""
    draw = random.Random(3)
    items = [
        {
            "id": number,
            "name": " ".join(draw.choices(WORDS, k=3)),
            "offer": {"price": draw.randint(100, 9999) / 100, "currency": "EUR"},
            "tags": draw.choices(WORDS, k=3),
        }
        for number in range(rows)
    ]
    return json.dumps({"data": {"items": items}}).encode()


def hand_html() -> Callable[[bytes], list[dict[str, Any]]]:
    """The parser by hand: compiled once, without smart strings."""
    parser = etree.HTMLParser(encoding="utf-8", huge_tree=True)
    pods = path("//article[contains(concat(' ', normalize-space(@class), ' '), ' product_pod ')]")
    title, link = path("string(.//h3//a/@title)"), path("string(.//h3//a/@href)")
    price, stars = (
        path("string(.//*[@class='price_color'])"),
        path("string(.//p[contains(@class, 'star-rating')]/@class)"),
    )
    stock, head = path("string(.//p[contains(@class, 'availability')])"), path("string(//h1)")

    def read(body: bytes) -> list[dict[str, Any]]:
        root = etree.fromstring(body, parser)
        category = clean(head(root))
        return [
            {
                "title": clean(title(pod)),
                "link": urljoin(URL, str(link(pod))),
                "price": Decimal(clean(price(pod)).lstrip("£").replace(",", "")),
                "rating": RATINGS[str(stars(pod)).split()[-1]],
                "in_stock": "In stock" in clean(stock(pod)),
                "category": category,
            }
            for pod in pods(root)
        ]

    return read


def hand_xml() -> Callable[[bytes], list[dict[str, Any]]]:
    """The parser by hand: compiled once, without smart strings."""
    parser = etree.XMLParser(resolve_entities="internal", no_network=True, load_dtd=False, collect_ids=False)
    items, name, price = path("/catalogue/item"), path("string(name)"), path("string(price)")
    currency, changed, tags = path("string(price/@currency)"), path("string(changed)"), path("tags/tag/text()")

    def read(body: bytes) -> list[dict[str, Any]]:
        return [
            {
                "id": item.get("id"),
                "name": clean(name(item)),
                "price": Decimal(clean(price(item))),
                "currency": clean(currency(item)),
                "changed": date.fromisoformat(clean(changed(item))).isoformat(),
                "tags": [clean(tag) for tag in tags(item)],
            }
            for item in items(etree.fromstring(body, parser))
        ]

    return read


def hand_json(body: bytes) -> list[dict[str, Any]]:
    """The parser by hand: the standard library, with exact prices."""
    return [
        {
            "id": item["id"],
            "name": clean(item["name"]),
            "price": Decimal(item["offer"]["price"]),
            "currency": clean(item["offer"]["currency"]),
            "tags": [clean(tag) for tag in item["tags"]],
        }
        for item in json.loads(body, parse_float=Decimal)["data"]["items"]
    ]


def path(expression: str) -> Any:
    """A compiled XPath, without smart strings."""
    return etree.XPath(expression, smart_strings=False)


def clean(text: Any) -> str:
    """The text with its white space folded."""
    return " ".join(str(text).split())
