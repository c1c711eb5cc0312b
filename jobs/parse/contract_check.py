"""Checks the records of a task against its source's ``[contract]``. Records that break it fail the task.

``gaps`` counts fields that some records lack, whatever the contract says. ``encoded`` limits the size of the records.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from jobs.definition.model import Definition
from jobs.definition.reader import show
from jobs.errors import ContractBroken, TooLarge

SHOWN_MAX = 3  # row numbers that a message shows
ROWS_AT_ONCE = 1_000  # rows that are encoded between two checks of the limit

_encoder = msgspec.json.Encoder()  # a Decimal becomes a text


def check(
    definition: Definition,
    rows: Sequence[Mapping[str, Any]],
    *,
    bad_required: Sequence[str] = (),
    empty: bool = False,
    absent: bool = False,
) -> None:
    """Checks the records of all pages of a task. Raises ContractBroken with what was expected and found.

    ``bad_required``, ``empty`` and ``absent`` are those of ``Parsed``.
    """
    contract = definition.contract
    if bad_required:
        raise ContractBroken(f"{bad_required[0]}{_more(len(bad_required) - 1)}; it is required")
    if not rows and (empty or absent):
        return
    if len(rows) < contract.min_rows:
        hint = "; nothing on the page says that none is right" if not rows else ""
        raise ContractBroken(f"expected {_rows(contract.min_rows)} or more, found {len(rows)}{hint}")
    for name in contract.required:
        missing = [number for number, row in enumerate(rows, 1) if _is_nothing(row.get(name))]
        if missing:
            raise ContractBroken(
                f"expected {name} in every row, found none in {len(missing)} of {len(rows)} ({_places(missing)})"
            )
    for together in contract.unique:
        _check_unique(rows, together)
    for name, (low, high) in contract.range.items():
        _check_range(rows, name, low, high)


def gaps(definition: Definition, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The number of rows without a value (null, an empty text or list), for each field that some rows lack."""
    found = {}
    for name in definition.fields:
        if name.startswith("_"):  # not part of records
            continue
        values = [row.get(name) for row in rows]
        if not all(values) and (count := sum(map(_is_nothing, values))):  # 0 and false are values
            found[name] = count
    return found


def _check_unique(rows: Sequence[Mapping[str, Any]], together: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        values = [row.get(name) for name in together]
        if all(map(_is_nothing, values)):
            continue
        key = repr(values)
        if key in seen:
            label = " and ".join(together)
            found = show(values[0] if len(values) == 1 else values)
            raise ContractBroken(
                f"expected a {label} of its own in every row, found {found} in rows {seen[key]} and {number}"
            )
        seen[key] = number


def _check_range(rows: Sequence[Mapping[str, Any]], name: str, low: Any, high: Any) -> None:
    for number, row in enumerate(rows, 1):
        value = row.get(name)
        if _is_nothing(value):
            continue
        if not _is_within(value, low, high):
            raise ContractBroken(f"expected {name} from {low} to {high}, found {show(value)} in row {number}")


def _is_within(value: Any, low: Any, high: Any) -> bool:
    if isinstance(low, str):
        return isinstance(value, str) and low <= value <= high
    number = _number(value)
    return number is not None and Decimal(str(low)) <= number <= Decimal(str(high))


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return None
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None


def _is_nothing(value: Any) -> bool:
    return value is None or value in ("", [])


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _places(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN_MAX]))
    return f"row{'s' if len(numbers) > 1 else ''} {shown}{', …' if len(numbers) > SHOWN_MAX else ''}"


def _more(count: int) -> str:
    return f" (and {count} more)" if count else ""


def encoded(rows: Sequence[Mapping[str, Any]], bytes_max: int) -> bytes:
    """Records as a JSON list. Raises TooLarge if it has more than ``bytes_max``."""
    pieces, size = [], 1
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        pieces.append(_encoder.encode(some)[1:-1])
        size += len(pieces[-1]) + 1
        if size > bytes_max:
            found = f"{size} in the first {start + len(some)} of {len(rows)} records"
            raise TooLarge(f"expected at most {bytes_max} bytes of records, found {found}")
    return b"[%b]" % b",".join(pieces)
