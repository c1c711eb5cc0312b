"""Rows of texts that are no markup: CSV, patterns; and what a source reads of a zip or a .gz file."""

import csv
import fnmatch
import gzip
import io
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, Final

from jobs import budget, pattern
from jobs.definition import Csv
from jobs.errors import DecodeFailed, ParseFailed, TooLarge

CELLS_MAX: Final = 3_000_000
GZIP: Final = b"\x1f\x8b\x08"  # how RFC 1952 begins
_PIECE_BYTES: Final = 65_536
_PIECE_CHARACTERS: Final = 65_536
_READ_BYTES: Final = 8  # a character of a record that is being read: four, in a buffer that doubles
_CELL_BYTES: Final = 160  # a cell, and its place in a row
_LINE_END: Final = re.compile(r"[\r\n]\n?")
_LINE: Final = re.compile(r"[^\r\n]*+(?:\r\n?|\n)|[^\r\n]++")

csv.field_size_limit(100_000_000)  # a body's own cap comes first


def csv_rows(text: str, shape: Csv) -> Iterator[dict[str, Any]]:
    """A row a line, by column; a short line's last columns are None. Raises ParseFailed."""
    if text.count(shape.delimiter) + text.count("\n") > CELLS_MAX:
        raise ParseFailed(f"expected CSV of at most {CELLS_MAX} cells, found more")
    feed = _Feed(text, shape.delimiter)
    reader = csv.reader(
        feed.lines(),
        delimiter=shape.delimiter,
        quotechar=shape.quote or None,
        quoting=csv.QUOTE_MINIMAL if shape.quote else csv.QUOTE_NONE,
    )
    try:
        for _ in range(shape.skip):
            next(reader, None)
        names = list(shape.names) or [name.strip() for name in next(reader, [])]
        for cells in reader:
            feed.is_inside = False
            if cells:
                row = dict(zip(names, cells, strict=False))
                yield row if len(cells) >= len(names) else {name: row.get(name) for name in names}
    except csv.Error as error:
        raise ParseFailed(f"expected CSV, found in line {reader.line_num}: {error}") from error


class _Feed:
    """A text's lines for ``csv.reader``; takes memory for a record that goes on and on, which that one keeps whole.

    An open quote makes one record of all that follows. Whoever reads says when one has ended: ``is_inside`` is False.
    """

    def __init__(self, text: str, delimiter: str) -> None:
        self._text, self._delimiter = text, delimiter
        self._width = sys.getsizeof(text) / max(len(text), 1)  # bytes a character
        self.is_inside = False

    def lines(self) -> Iterator[str]:
        """Lines with their ends; a StringIO of the whole text would take four bytes a character."""
        text, start = self._text, 0
        size = cells = taken = 0
        while start < len(text):
            found = _LINE_END.search(text, start + _PIECE_CHARACTERS)
            end = found.end() if found else len(text)
            is_long = end - start > 2 * _PIECE_CHARACTERS  # a line of its own, but for what is before it
            if not self.is_inside:
                size = cells = 0
            if self.is_inside or is_long:
                size, cells = size + end - start, cells + text.count(self._delimiter, start, end)
                needed = int(size * (_READ_BYTES + 2 * self._width)) + cells * _CELL_BYTES
                budget.reserve(max(needed - taken, 0), f"a CSV record of {size} characters")
                taken = max(needed, taken)
            self.is_inside = True
            if is_long:
                yield from (line[0] for line in _LINE.finditer(text, start, end))
            else:
                yield from io.StringIO(text[start:end], newline="")
            start = end


def text_rows(text: str, expression: str) -> Iterator[dict[str, Any]]:
    """A row for each match of a pattern: its named groups."""
    compiled = pattern.compiled(expression)
    names = pattern.names(expression)
    for match in compiled.finditer(text):
        yield {name: match[name] for name in names}


def member(body: bytes, name: str, max_bytes: int) -> bytes:
    """The first member of a zip whose name fits ``name`` (``*.csv``). Raises DecodeFailed, TooLarge."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            for info in archive.infolist():
                if not info.is_dir() and fnmatch.fnmatch(info.filename.lower(), name.lower()):
                    with archive.open(info) as opened:
                        return _read(opened, name, max_bytes)
            shown = ", ".join(info.filename for info in archive.infolist()[:8])
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise DecodeFailed(f"expected a zip with {name} in it, found: {error}") from error
    raise DecodeFailed(f"expected a zip with {name} in it, found {shown or 'an empty one'}")


def unpacked(body: bytes, max_bytes: int) -> bytes:
    """What a .gz file holds. Raises DecodeFailed, TooLarge."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as opened:
            return _read(opened, "the .gz file", max_bytes)
    except (zlib.error, EOFError, OSError) as error:
        raise DecodeFailed(f"expected a .gz file, found: {error}") from error


def _read(opened: Any, name: str, max_bytes: int) -> bytes:
    """What a member holds, by pieces: what it says of its own size may be a lie."""
    body = io.BytesIO()
    while piece := opened.read(_PIECE_BYTES):
        if body.tell() + len(piece) > max_bytes:
            raise TooLarge(f"expected at most {max_bytes} bytes in {name}, found more")
        budget.reserve(len(piece), f"{name}, {body.tell()} bytes so far")
        body.write(piece)
    return body.getvalue()
