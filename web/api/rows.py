"""Forms of records: which one an Accept header asks for, CSV (RFC 4180), and NDJSON with one record a line.

Numbers keep their spelling. Texts are not changed, with one exception: spreadsheets open a CSV and run cells that begin like
a formula, and the texts come from strangers' pages. In CSV such a text gets an apostrophe in front. A program that takes one
apostrophe off each cell that matches ``FORMULA`` has the exact texts.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from web.http.problems import Problem

JSON: Final = "application/json"
CSV: Final = "text/csv"
NDJSON: Final = "application/x-ndjson"
FORMS: Final = (JSON, CSV, NDJSON)  # the first one if Accept has no preference
CONTENT_TYPES: Final = {JSON: JSON, CSV: "text/csv; charset=utf-8; header=present", NDJSON: NDJSON}
RANGES_MAX: Final = 100  # of an Accept header; later ones are ignored
# Of a CSV. Records that have a million values each name a field of their own: their table would have a billion cells.
CELLS_MAX: Final = 5_000_000


class _Result(msgspec.Struct):
    records: msgspec.Raw


FORMULA: Final = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20].", re.DOTALL)  # matched at the beginning
# Begins like a formula, and is none.
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9][0-9.,]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?%?")
_QUALITY: Final = re.compile(r"[01](\.\d{0,3})?", re.ASCII)
_TO_QUOTE: Final = re.compile(r'[",\r\n]|^\s|\s$')

_items: Final = msgspec.json.Decoder(list[msgspec.Raw])
_objects: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_result: Final = msgspec.json.Decoder(_Result)
_text: Final = msgspec.json.Decoder(str)


def negotiate(accept: str, forms: Sequence[str] = FORMS) -> str | None:
    """The one of ``forms`` that an Accept header (RFC 9110, 12.5.1) asks for; None if it permits none of them.

    The highest quality wins, then the more exact name, then the first in order. A form's quality is that of the most exact
    range that matches it, so ``text/csv;q=0, */*`` does not mean CSV.
    """
    if not accept.strip():
        return forms[0]
    ranges = _ranges(accept)
    best: tuple[float, int, int] = (0.0, -1, 0)
    found = None
    for form in forms:
        matching = [(exact, -place, quality) for place, (name, quality) in enumerate(ranges)
                    if (exact := _exactness(name, form)) >= 0]  # fmt: skip
        if matching:
            exact, place, quality = max(matching)
            if quality > 0 and (quality, exact, place) > best:
                best, found = (quality, exact, place), form
    return found


def records_of(result: bytes) -> bytes:
    """The records of a result's JSON, byte for byte."""
    return bytes(_result.decode(result).records)


def joined(lists: Iterable[bytes]) -> bytes:
    """Several JSON lists as one."""
    return b"[" + b",".join(bytes(item) for one in lists for item in _items.decode(one)) + b"]"


def ndjson(records: bytes) -> bytes:
    """A JSON list with one item a line, each byte for byte; empty for an empty list."""
    # A line break inside an item can only be white space between its parts: JSON texts have none.
    return b"".join(_one_line(bytes(item)) + b"\n" for item in _items.decode(records))


def csv(records: bytes, columns: Iterable[str] = ()) -> bytes:
    """A JSON list of objects as CSV: a header, CRLF, UTF-8 without a mark.

    ``columns`` stand first, whether a record has them or not, then other keys as they appear. Lists and objects are
    written as their JSON, null and missing values as nothing, an empty text as ``""``. A text that begins like a formula
    gets an apostrophe in front. Raises ``Problem`` (406) if there would be more than ``CELLS_MAX`` cells, or if a record is
    no object: a region may send any list.
    """
    try:
        rows = _objects.decode(records)
    except msgspec.ValidationError as error:
        raise Problem(
            "not-acceptable", f"expected records that are objects, found others ({error}): accept {JSON}"
        ) from None
    names = dict.fromkeys(columns)
    for row in rows:
        if not row.keys() <= names.keys():
            names.update(dict.fromkeys(row))
    if not names:
        return b""
    if len(rows) * len(names) > CELLS_MAX:
        found = f"{len(rows)} records with {len(names)} fields"
        raise Problem("not-acceptable", f"expected a CSV of {CELLS_MAX} cells at most, found {found}: accept {JSON}")
    header = [_quoted(_inert(name)) for name in names]
    lines = itertools.chain([header], ([_cell(row.get(name)) for name in names] for row in rows))
    # A single empty column would be an empty line, which readers skip.
    return "".join((",".join(line) or '""') + "\r\n" for line in lines).encode()


def _ranges(accept: str) -> list[tuple[str, float]]:
    """Media ranges in lower case, each with its quality; other parameters are ignored."""
    found = []
    for part in accept.split(",")[:RANGES_MAX]:
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                quality = min(1.0, float(value)) if _QUALITY.fullmatch(value.strip()) else 0.0
        found.append((name, quality))
    return found


def _exactness(name: str, form: str) -> int:
    """How exactly a range names a form: 2, 1 for ``text/*``, 0 for ``*/*``, -1 if it does not match."""
    if name == form:
        return 2
    if name == form.partition("/")[0] + "/*":
        return 1
    return 0 if name == "*/*" else -1


def _one_line(item: bytes) -> bytes:
    return item.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in item or b"\r" in item else item


def _cell(value: msgspec.Raw | None) -> str:
    if value is None:
        return ""
    raw = bytes(value)
    if raw[:1] == b'"':
        return _quoted(_inert(_text.decode(raw))) or '""'
    return "" if raw == b"null" else _quoted(raw.decode())


def _inert(text: str) -> str:
    """The text, changed if a spreadsheet would take it for a formula."""
    return f"'{text}" if FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _TO_QUOTE.search(text) else text
