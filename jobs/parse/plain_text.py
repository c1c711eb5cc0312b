"""Reads rows from plain text (CSV, or the matches of a pattern), and unpacks zip and .gz files."""

import csv
import fnmatch
import gzip
import io
import json
import re
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

from jobs import memory
from jobs.definition.model import Csv
from jobs.errors import DecodeFailed, ParseFailed, TaskError, TooLarge
from jobs.parse.warnings import Warnings
from jobs.text import pattern

CELLS_MAX: Final = 3_000_000
GZIP: Final = b"\x1f\x8b\x08"  # how a file of RFC 1952 begins
_PIECE_BYTES: Final = 65_536
_PIECE_CHARACTERS: Final = 65_536
_READ_BYTES: Final = 8  # memory for a character of the current record: four bytes, in a buffer that doubles
_CELL_BYTES: Final = 160  # memory for a cell and its place in a row
_MEMBER: Final = b"PK\x01\x02"  # how an entry of a zip's directory begins
_MEMBER_BYTES: Final = 500  # memory for such an entry
# zipfile unpacks the others by whole pieces: 64 KB of bzip2 may become gigabytes before anybody counts them.
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LINE_END: Final = re.compile(r"[\r\n]\n?")
_NEWLINE: Final = re.compile(r"\r\n?|\n")
_LINE: Final = re.compile(r"[^\r\n]*+(?:\r\n?|\n)|[^\r\n]++")

COLUMNS_MIN: Final = 4  # with this many columns no line of a text looks like a row by chance
BLANKS_MAX: Final = 200  # blanks before a quote that are looked at
_SEPARATOR: Final = re.compile(r"sep=([^\r\n])(?=[\r\n]|\Z)", re.IGNORECASE)
_DELIMITERS: Final = ";\t|,:"  # characters that may be a delimiter

csv.field_size_limit(100_000_000)  # limits.max_bytes is reached first


def csv_rows(text: str, shape: Csv, warnings: Warnings | None = None) -> Iterator[dict[str, Any]]:
    """A row for each line, by column name. Missing cells are None. Raises ParseFailed.

    ``warnings`` gets signs of a wrong reading: cells beyond the columns, columns with the same name, quotes in odd places,
    another delimiter.
    """
    table = _Table(text, shape, warnings if warnings is not None else Warnings())
    if table.text.count(table.delimiter) + table.text.count("\n") > CELLS_MAX:
        raise ParseFailed(f"expected CSV of at most {CELLS_MAX} cells, found more")
    table.check_quotes()
    feed = _Feed(table.text, table.delimiter)
    reader = csv.reader(
        feed.lines(),
        delimiter=table.delimiter,
        quotechar=shape.quote or None,
        quoting=csv.QUOTE_MINIMAL if shape.quote else csv.QUOTE_NONE,
    )
    try:
        names = list(shape.names) or table.header(reader, feed)
        count, is_first = len(names), bool(shape.names)
        table.check_long(count)
        for cells in reader:
            feed.is_inside = False
            if len(cells) == count:
                if is_first:
                    table.check_first(cells, names)
                    is_first = False
                table.is_even = True
                yield dict(zip(names, cells, strict=True))
            elif any(cells) if len(cells) != 1 else cells[0].strip():
                table.check_row(cells, names, reader.line_num)
                row = dict(zip(names, cells, strict=False))
                yield row if len(cells) >= count else {name: row.get(name) for name in names}
        table.check_end()
    except csv.Error as error:
        raise ParseFailed(f"expected CSV, found in line {table.skipped + reader.line_num}: {error}") from error


class _Table:
    """A CSV text without the skipped lines, and the checks for signs of a wrong reading."""

    def __init__(self, text: str, shape: Csv, warnings: Warnings) -> None:
        self._shape, self._warnings = shape, warnings
        self.delimiter, self.skipped = shape.delimiter, 0
        self._kinds: set[str] = set()
        self.is_even = False  # whether any row had as many cells as there are columns
        self._longer: list[str] = []  # the first rows with more cells than columns, the last one empty
        self._long: list[tuple[int, int]] = []  # spans of cells with several lines
        said = _SEPARATOR.match(text := text.lstrip("\ufeff").rstrip("\x1a"))
        if said is not None:  # spreadsheets write and read this line
            self.delimiter = said[1]
        at = 0
        for _ in range(max(shape.skip, 1 if said is not None else 0)):
            found = _NEWLINE.search(text, at)
            at, self.skipped = (found.end() if found else len(text)), self.skipped + 1
        self.text = text[at:]

    def header(self, reader: Iterator[list[str]], feed: "_Feed") -> list[str]:
        """The column names: the cells of the first line that is not blank."""
        names: list[str] = []
        for cells in reader:
            feed.is_inside = False
            names = [name.strip() for name in cells]
            if any(names):
                break
        doubled = next((name for name, count in Counter(names).items() if name and count > 1), None)
        if doubled is not None:
            self._warn(
                "name",
                f'two columns are named "{doubled[:40]}": the last one counts; header = [names] tells them apart',
            )
        if len(names) == 1:
            other = max(_DELIMITERS, key=names[0].count)
            if other != self.delimiter and names[0].count(other):
                self._warn(
                    "delimiter", f'there is one column, "{names[0][:60]}": delimiter = {json.dumps(other)} may part it'
                )
        return names

    def check_first(self, cells: list[str], names: Sequence[str]) -> None:
        """Warns of a header line that is read as a row, since the definition names the columns."""
        if [cell.strip().casefold() for cell in cells] == [name.casefold() for name in names]:
            self._warn("header", "the first row is the line that names the columns: skip = 1 leaves it out")

    def check_row(self, cells: list[str], names: Sequence[str], line: int) -> None:
        """Warns of a row with more or fewer cells than columns."""
        if len(cells) < len(names):
            self._warn("fewer", f"line {self.skipped + line}: expected {len(names)} cells, found {len(cells)}")
            return
        text = f"line {self.skipped + line}: expected {len(names)} cells, found {len(cells)}"
        beyond = next(filter(None, cells[len(names) :]), None)
        if beyond is not None:
            self._warn("more", f'{text}; "{beyond[:40]}" has no column')
        elif len(self._longer) < 2:
            self._longer.append(f"{text}, the last of them empty")

    def check_end(self) -> None:
        """Warns of empty cells beyond the columns, unless all rows have them."""
        if self._longer and (self.is_even or len(self._longer) == 1):
            self._warn("more", self._longer[0])

    def check_quotes(self) -> None:
        """Raises ParseFailed for a quote that swallows lines. Warns of other quotes in odd places."""
        quote = self._shape.quote
        if not quote or quote not in self.text:
            return
        for found in _quoted(quote, self.delimiter).finditer(self.text):
            if found["cell"] is None:
                if self._begins_cell(found.start()):
                    self._warn("blank", "a quote behind a blank is part of its cell", found.start())
                continue
            is_long = "\n" in found["cell"] or "\r" in found["cell"]
            if found["end"] and not found["after"]:
                if is_long:
                    self._long.append(found.span("cell"))
                continue
            if is_long or not found["end"]:
                first, last = self._line(found.start()), self._line(found.end("cell"))
                what = f"closed inside a cell in line {last}" if found["end"] else "never closed"
                raise ParseFailed(
                    f"expected CSV, found in line {first} a quote that is {what}; where nothing quotes, "
                    'quote = "" in [csv] reads it'
                )
            self._warn(
                "quote", f"there is text behind a closing quote, {found[0][-40:] + found['after']!r}", found.start()
            )

    def check_long(self, count: int) -> None:
        """Warns of cells with lines that look like rows: an unclosed quote ran to a later one."""
        if count < COLUMNS_MIN:
            return
        for start, end in self._long:
            lines = self.text[start:end].splitlines()[1:-1]
            if any(line.count(self.delimiter) == count - 1 for line in lines):
                self._warn(
                    "long",
                    'a cell holds lines that look like rows; if nothing quotes, quote = "" in [csv] reads them',
                    start,
                )

    def _begins_cell(self, at: int) -> bool:
        """Whether only blanks stand between the beginning of a cell and this place."""
        before = self.text[max(0, at - BLANKS_MAX) : at]
        rest = before.rstrip("".join(one for one in " \t" if one != self.delimiter))
        return rest.endswith((self.delimiter, "\r", "\n")) or len(before) == at > len(rest) == 0

    def _line(self, at: int) -> int:
        return self.skipped + len(_NEWLINE.findall(self.text, 0, at)) + 1

    def _warn(self, kind: str, text: str, at: int | None = None) -> None:
        """Adds a warning of a kind. Only the first shows its line, since counting lines reads all text before it."""
        if kind not in self._kinds and at is not None:
            text = f"line {self._line(at)}: {text}"
        self._kinds.add(kind)
        self._warnings.add(("csv", kind), text)


@cache
def _quoted(quote: str, delimiter: str) -> re.Pattern[str]:
    """A pattern for a quoted cell with the character behind it, or for a quote behind a blank."""
    mark, part = re.escape(quote), re.escape(delimiter)
    return re.compile(
        rf"{mark}(?:(?:(?<=\A{mark})|(?<=[{part}\r\n]{mark}))"
        rf"(?P<cell>(?:[^{mark}]++|{mark}{mark})*+)(?P<end>{mark}?+)(?=(?P<after>[^{part}\r\n]?))|(?<=[ \t]{mark}))"
    )


class _Feed:
    """A text's lines for ``csv.reader``. Reserves memory for long records, which the reader keeps whole.

    An open quote makes one record of all that follows. At the end of a record the caller sets ``is_inside`` to False.
    """

    def __init__(self, text: str, delimiter: str) -> None:
        self._text, self._delimiter = text, delimiter
        self._width = sys.getsizeof(text) / max(len(text), 1)  # bytes per character
        self.is_inside = False

    def lines(self) -> Iterator[str]:
        """Lines with their ends, piece by piece: a StringIO of the whole text would take four bytes a character."""
        text, start = self._text, 0
        size = cells = taken = 0
        while start < len(text):
            found = _LINE_END.search(text, start + _PIECE_CHARACTERS)
            end = found.end() if found else len(text)
            is_long = end - start > 2 * _PIECE_CHARACTERS  # mostly a single line
            if not self.is_inside:
                size = cells = 0
            if self.is_inside or is_long:
                size, cells = size + end - start, cells + text.count(self._delimiter, start, end)
                needed = int(size * (_READ_BYTES + 2 * self._width)) + cells * _CELL_BYTES
                memory.reserve(max(needed - taken, 0), f"a CSV record of {size} characters")
                taken = max(needed, taken)
            self.is_inside = True
            if is_long:
                yield from (line[0] for line in _LINE.finditer(text, start, end))
            else:
                yield from io.StringIO(text[start:end], newline="")
            start = end


def text_rows(text: str, expression: str) -> Iterator[dict[str, Any]]:
    """A row of the named groups for each match of a pattern. All line ends become newlines first."""
    compiled = pattern.compiled(expression)
    names = pattern.names(expression)
    if "\r" in text:  # $ matches before \n only
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    for match in compiled.finditer(text):
        yield {name: match[name] for name in names}


def member(body: bytes, name: str, max_bytes: int) -> bytes:
    """The first member of a zip whose name matches ``name`` (``*.csv``). Raises DecodeFailed, TooLarge."""
    memory.reserve(body.count(_MEMBER) * _MEMBER_BYTES, "the directory of a zip")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            for info in archive.infolist():
                if not info.is_dir() and fnmatch.fnmatch(info.filename.lower(), name.lower()):
                    if info.compress_type not in _METHODS:
                        raise ValueError(f"{info.filename} packed by method {info.compress_type}, not deflated")
                    with archive.open(info) as opened:
                        return _read(opened, name, max_bytes)
            shown = ", ".join(info.filename for info in archive.infolist()[:8])
    except TaskError:
        raise
    except Exception as error:  # a broken archive leads zipfile to errors of many kinds
        raise DecodeFailed(f"expected a zip with {name} in it, found: {error}") from error
    raise DecodeFailed(f"expected a zip with {name} in it, found {shown or 'an empty one'}")


def unpacked(body: bytes, max_bytes: int) -> bytes:
    """The content of a .gz file. Raises DecodeFailed, TooLarge."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as opened:
            return _read(opened, "the .gz file", max_bytes)
    except (zlib.error, EOFError, OSError) as error:
        raise DecodeFailed(f"expected a .gz file, found: {error}") from error


def _read(opened: Any, name: str, max_bytes: int) -> bytes:
    """The content of a member, read in pieces, since its declared size may be wrong."""
    body = io.BytesIO()
    while piece := opened.read(_PIECE_BYTES):
        if body.tell() + len(piece) > max_bytes:
            raise TooLarge(f"expected at most {max_bytes} bytes in {name}, found more")
        memory.reserve(len(piece), f"{name}, {body.tell()} bytes so far")
        body.write(piece)
    return body.getvalue()
