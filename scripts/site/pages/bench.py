"""What is measured with: ``/page``, HTML of exactly 54,492 bytes, ``/tiny``, a few rows of JSON, and ``/numbered?n=``.

Never compressed; late on request (``?seconds=0.1``). The rows of ``/numbered`` belong to their number alone, so that an
answer that went to the wrong place is seen.
"""

import hashlib
import json
from functools import cache
from typing import Any, Final

from scripts.site.pages import books
from scripts.site.pages.page import Answer, Asked, delay

ORIGINS: Final = ("bench.example",)
PAGE_BYTES: Final = 54_492
ROWS: Final = 3
_CATEGORY: Final = books.CATEGORIES.index("Poetry") + 2


def answer(asked: Asked) -> Answer | None:
    """One of the three; any other part of the query only makes an address of its own."""
    if asked.path == "/page":
        return Answer(_page(), may_gzip=False, delay_seconds=delay(asked.query))
    if asked.path == "/tiny":
        return Answer(_tiny(), "application/json", may_gzip=False, delay_seconds=delay(asked.query))
    if asked.path == "/numbered":
        body = json.dumps({"rows": numbered(asked.query.get("n", ""))}).encode()
        return Answer(body, "application/json", may_gzip=False, delay_seconds=delay(asked.query))
    return None


def numbered(number: str) -> list[dict[str, Any]]:
    """The rows of a number: which one it is, and a text that only it has."""
    return [
        {"n": number, "row": row, "text": hashlib.sha256(f"{number} {row}".encode()).hexdigest()}
        for row in range(1, ROWS + 1)
    ]


@cache
def _page() -> bytes:
    """A page of the shop, filled up by a comment."""
    body = books.listing(_CATEGORY, 1)
    return body + b"<!--" + b" " * (PAGE_BYTES - len(body) - 7) + b"-->"


@cache
def _tiny() -> bytes:
    rows = [{"id": number, "name": f"row {number}", "value": number * 1.5} for number in range(1, ROWS + 1)]
    return json.dumps({"rows": rows}).encode()
