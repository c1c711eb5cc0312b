"""Our CSV beside the standard library's: tables written in many ways come back, damaged ones are told of or refused."""

import csv
import io
import random
from collections.abc import Iterator

from jobs.definition.delimited import Csv
from jobs.errors import ParseFailed
from jobs.parse import plain_text
from jobs.parse.warnings import Warnings

Row = dict[str, str | None]

_PIECES = (
    "a",
    "b c",
    "1",
    "2,5",
    '5" disk',
    "ü",
    "",
    "x\ny",
    'say "no"',
    ";",
    "\t",
    "a,b",
    "  ",
    "'",
    "\\",
    "0",
    "é|è",
    "end.",
)


def table(chance: random.Random) -> list[list[str]]:
    """Names and rows of as many cells."""
    width = chance.randrange(1, 6)
    names = [f"c{number}" for number in range(width)]
    rows = [[chance.choice(_PIECES) for _ in names] for _ in range(chance.randrange(6))]
    return [names, *(row for row in rows if any(cell.strip() for cell in row))]


def written(cells: list[list[str]], chance: random.Random) -> tuple[str, str]:
    """A table as the standard library writes it, with its delimiter."""
    delimiter = chance.choice(",;\t|")
    out = io.StringIO()
    quoting = chance.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC))
    # Before Python 3.13 the writer quotes no \n where lines end with \r, and its reader takes it for an end.
    end = chance.choice(("\n", "\r\n", "\r") if quoting == csv.QUOTE_ALL else ("\n", "\r\n"))
    csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(cells)
    return out.getvalue(), delimiter


def damaged(text: str, delimiter: str, chance: random.Random) -> str:
    """A text with one thing in it that people and programs do to CSV."""
    at = chance.randrange(len(text) + 1)
    kind = chance.randrange(4)
    if kind == 0:
        quotes = [place for place, character in enumerate(text) if character == '"'] or [at]
        place = chance.choice(quotes)
        return text[:place] + text[place + 1 :]
    if kind == 1:
        return text[:at] + '"' + text[at:]
    if kind == 2:
        return text[:at] + delimiter + text[at:]
    return text[:at]


def read(text: str, delimiter: str) -> tuple[list[Row] | None, list[str]]:
    """Our rows and warnings; None where it was refused."""
    warnings = Warnings()
    try:
        return list(plain_text.csv_rows(text, Csv(delimiter=delimiter), warnings)), warnings.texts()
    except ParseFailed as error:
        return None, [str(error)]


def strictly(text: str, delimiter: str) -> list[list[str]] | None:
    """The cells of the standard library's strict reader; None where it refuses."""
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        return None


def compare(seed: int, count: int) -> Iterator[str]:
    """A sentence for each table that does not come back, and for each damaged one that is read in silence.

    Damage that leaves a text which a strict reader takes, with as many cells in each row, can't be seen by anybody.
    """
    chance = random.Random(seed)
    for _ in range(count):
        cells = table(chance)
        text, delimiter = written(cells, chance)
        expected = [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]
        found, told = read(text, delimiter)
        if found != expected or told:
            yield f"{text!r}: we read {found}, told {told}, the table is {expected}"
        broken = damaged(text, delimiter, chance)
        found, told = read(broken, delimiter)
        by_library = strictly(broken, delimiter)
        is_even = by_library is not None and len({len(row) for row in by_library if any(map(str.strip, row))}) < 2
        if not told and not is_even:
            yield f"{broken!r}: we read {found} in silence, the standard library's strict reader {by_library}"
