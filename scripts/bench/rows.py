"""The rows of the benchmark: the pages to fetch, the records in them, and the definitions that parse them.

All pages belong to one made-up shop. Each page has a number, which stands in each of its records.
"""

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct

from scripts.bench import pages

ORIGIN: Final = "https://shop.example"
PATHS: Final = {"tiny": "/tiny", "page": pages.URL.removeprefix(ORIGIN)}
PAGE_ROWS: Final = 20
TINY_ROWS: Final = 3
NUMERAL: Final = b"%09d"
PLACE: Final = b"\x00" * 9  # the place of the number in a body that was made once

Reading = Callable[[bytes], list[dict[str, Any]]]


class Row(Struct, frozen=True):
    """``kind``: the kind of page; ``delay_seconds``: the delay before it is served."""

    name: str
    title: str
    kind: str
    delay_seconds: float = 0.0


ROWS: Final = {
    row.name: row
    for row in (
        Row("tiny", "tiny answer, 0 ms", "tiny"),
        Row("page", "54 kB page, 0 ms", "page"),
        Row("page-100ms", "54 kB page, 100 ms", "page", 0.1),
        Row("page-1s", "54 kB page, 1 s", "page", 1.0),
    )
}

SOURCE: Final = """
region = "{region}"
[params]
n = {{type = "int", required = true, example = 1}}
seconds = {{type = "float", default = 0.0, example = 0.1}}
[limits]
concurrency = 1024
timeout_seconds = 60
"""
TINY: Final = """
title = "A few rows"
url = 'https://shop.example/tiny{?n,seconds}'
format = "json"
[rows]
jmes = "rows"
[fields]
n = {}
row = {}
name = {}
value = {}
"""


def definitions(region: str) -> Iterator[tuple[str, str]]:
    """(source, text of its file) for each kind of page. Their hosts are not limited below what the workers can do."""
    listing = pages.HTML.replace(pages.URL, f"{pages.URL}{{?n,seconds}}")
    for kind, text in (("tiny", TINY), ("page", listing)):
        top, rows, rest = text.partition("[rows]")
        yield source(kind), f"{top}{SOURCE.format(region=region).lstrip()}{rows}{rest}"


def source(kind: str) -> str:
    """The source for a kind of page."""
    return f"bench.{kind}"


def bodies() -> Iterator[tuple[str, str, list[bytes]]]:
    """(path, content type, pieces of the body between which its number goes) for each kind of page."""
    listing = pages.html(PAGE_ROWS).replace(b"<h1>Poetry</h1>", b"<h1>Poetry %b</h1>" % PLACE)
    rows = [
        {"n": "PLACE", "row": number, "name": f"row {number}", "value": number + 0.5}
        for number in range(1, TINY_ROWS + 1)
    ]
    tiny = json.dumps({"rows": rows}).encode().replace(b"PLACE", PLACE)
    for kind, content_type, body in (("tiny", "application/json", tiny), ("page", "text/html; charset=utf-8", listing)):
        yield PATHS[kind], content_type, body.split(PLACE)


def numeral(number: int) -> bytes:
    """A page's number as it stands in the page."""
    return NUMERAL % number


def hand(kind: str) -> Reading:
    """Parses a page with code written for this page only. Threads must not share it.

    The records are like those in JSON: exact numbers are texts.
    """
    if kind == "tiny":
        return _hand_tiny
    read = pages.hand_html()
    return lambda body: [{**row, "price": str(row["price"])} for row in read(body)]


def _hand_tiny(body: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = msgspec.json.decode(body)["rows"]
    return rows


@cache
def _first_records(kind: str) -> list[dict[str, Any]]:
    """The records of page 0."""
    body = next(numeral(0).join(pieces) for path, _, pieces in bodies() if path == PATHS[kind])
    return hand(kind)(body)


def records(kind: str, number: int) -> list[dict[str, Any]]:
    """The records of a page, made without fetching it."""
    text = numeral(number).decode()
    if kind == "tiny":
        return [{**row, "n": text} for row in _first_records(kind)]
    return [{**row, "category": f"Poetry {text}"} for row in _first_records(kind)]
