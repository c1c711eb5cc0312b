"""Pages for measurements, never compressed, and late on request (``?seconds=0.1``).

``/page``         HTML of exactly 54,492 bytes
``/tiny``         a few rows of JSON
``/elements``     XML of 200,000 elements, for an XPath that visits them too often
``/numbered?n=``  rows that no other number has, so that an answer at the wrong place is seen. ``&trouble=`` spoils it: ``once`` is 503 the
                  first time, ``http_status`` is 404, ``parse`` is not JSON, and in ``contract`` the rows lack their number
"""

import hashlib
import json
import threading
from functools import cache
from typing import Any, Final

from scripts.site.pages import books
from scripts.site.pages.page import Answer, Asked, delay

ORIGINS: Final = ("bench.example",)
PAGE_BYTES: Final = 54_492
ROWS: Final = 3
ELEMENTS: Final = 200_000
_failed_once: Final[set[str]] = set()
_lock: Final = threading.Lock()
_CATEGORY: Final = books.CATEGORIES.index("Poetry") + 2


def answer(asked: Asked) -> Answer | None:
    """One of these; any other part of the query only makes an address of its own."""
    if asked.path == "/page":
        return Answer(_page(), may_gzip=False, delay_seconds=delay(asked.query))
    if asked.path == "/tiny":
        return Answer(_tiny(), "application/json", may_gzip=False, delay_seconds=delay(asked.query))
    if asked.path == "/elements":
        return Answer(_elements(), "application/xml", may_gzip=False)
    if asked.path == "/numbered":
        return _numbered(asked.query.get("n", ""), asked.query.get("trouble", ""), delay(asked.query))
    return None


def numbered(number: str) -> list[dict[str, Any]]:
    """The rows of a number: which one it is, and a text that only it has."""
    return [
        {"n": number, "row": row, "text": hashlib.sha256(f"{number} {row}".encode()).hexdigest()}
        for row in range(1, ROWS + 1)
    ]


def _numbered(number: str, trouble: str, delay_seconds: float) -> Answer:
    status, rows = 200, numbered(number)
    if trouble == "once":
        with _lock:
            status = 200 if number in _failed_once else 503
            _failed_once.add(number)
    elif trouble == "http_status":
        status = 404
    elif trouble == "contract":
        for row in rows:
            del row["n"]
    body = b"{" if trouble == "parse" else json.dumps({"rows": rows}).encode()
    return Answer(body, "application/json", status=status, may_gzip=False, delay_seconds=delay_seconds)


@cache
def _page() -> bytes:
    """A page of the shop, filled up by a comment."""
    body = books.listing(_CATEGORY, 1)
    return body + b"<!--" + b" " * (PAGE_BYTES - len(body) - 7) + b"-->"


@cache
def _elements() -> bytes:
    return b"<all>" + b"<a/>" * ELEMENTS + b"</all>"


@cache
def _tiny() -> bytes:
    rows = [{"id": number, "name": f"row {number}", "value": number * 1.5} for number in range(1, ROWS + 1)]
    return json.dumps({"rows": rows}).encode()
