"""``[limits]`` and ``[contract]``: what a source may cost, and what its records promise."""

import re
from collections.abc import Iterable
from typing import Any, Final

from msgspec import Struct

from jobs.definition.reader import Table
from regions.faults import nearest

_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)/(s|min|h)")
_PER_SECONDS: Final = {"s": 1, "min": 60, "h": 3600}


class Limits(Struct, frozen=True, kw_only=True):
    """``rate`` (as written, "" for none) and ``concurrency`` are limits of the host; the others, of the source."""

    rate: str = ""
    concurrency: int = 8
    timeout_seconds: float = 10.0  # of one fetch
    max_bytes: int = 20_000_000  # of an answer, as it arrives and decoded
    retries: int = 2
    robots: bool = False
    stale_seconds: float = 0.0

    @property
    def rate_per_second(self) -> float:
        """The most fetches per second of the host; 0.0 means no limit."""
        found = _RATE.fullmatch(self.rate)
        return float(found[1]) / _PER_SECONDS[found[2]] if found else 0.0


class Contract(Struct, frozen=True, kw_only=True):
    """The promises of a source about its answers. The selectors ``empty`` and ``blocked`` are in ``Definition``."""

    required: tuple[str, ...] = ()
    min_rows: int = 1
    unique: tuple[tuple[str, ...], ...] = ()  # each a field, or several fields that are unique together
    range: dict[str, tuple[int | float | str, int | float | str]] = {}
    absent: tuple[int, ...] = ()


def read_limits(definition: Table) -> Limits:
    """``[limits]``."""
    table = definition.table("limits", Limits.__struct_fields__)
    rate = table.text("rate")
    found = _RATE.fullmatch(rate)
    if rate and (found is None or float(found[1]) == 0):
        table.fault("rate", f'expected a rate like "2/s", "30/min" or "100/h", found "{rate}"')
        rate = ""
    return Limits(
        rate=rate,
        concurrency=table.whole("concurrency", 8, low=1, high=1024),
        timeout_seconds=table.number("timeout_seconds", 10.0, low=0.001),
        max_bytes=table.whole("max_bytes", 20_000_000, low=1, high=1_000_000_000),
        retries=table.whole("retries", 2, high=10),
        robots=table.flag("robots"),
        stale_seconds=table.number("stale_seconds", 0.0),
    )


def read_contract(table: Table, fields: set[str] | None) -> Contract:
    """``[contract]`` without its selectors. ``fields`` are the names in records; None if only rows show them."""
    required = table.texts("required")
    unique = []
    listed = table.get("unique", [])
    for index, entry in enumerate(listed if isinstance(listed, list) else [listed]):
        together = [entry] if isinstance(entry, str) else entry
        if not isinstance(together, list) or not together or not all(isinstance(name, str) for name in together):
            table.reader.fault(table.at("unique", index), "expected a field's name, or a list of names unique together")
            continue
        unique.append(tuple(together))
    ranges = {}
    for name, bounds in table.table("range", table.get("range", ())).items():
        if _is_range(bounds):
            ranges[name] = (bounds[0], bounds[1])
        else:
            table.reader.fault(
                table.at("range", name), f"expected [low, high], two numbers or two texts, found {bounds}"
            )
    absent = table.of_type("absent", list[int], [], "a list of HTTP statuses")
    for status in absent:
        if not 100 <= status <= 599:
            table.fault("absent", f"expected HTTP statuses from 100 to 599, found {status}")
    if fields is not None:
        _check_names(table, "required", required, fields)
        _check_names(table, "unique", (name for entry in unique for name in entry), fields)
        _check_names(table, "range", ranges, fields)
    return Contract(
        required=required,
        min_rows=table.whole("min_rows", 1),
        unique=tuple(unique),
        range=ranges,
        absent=tuple(absent),
    )


def _is_range(bounds: Any) -> bool:
    if not isinstance(bounds, list) or len(bounds) != 2 or any(isinstance(bound, bool) for bound in bounds):
        return False
    numbers = all(isinstance(bound, int | float) for bound in bounds)
    texts = all(isinstance(bound, str) for bound in bounds)
    return (numbers or texts) and bounds[0] <= bounds[1]


def _check_names(table: Table, key: str, names: Iterable[str], fields: set[str]) -> None:
    for name in names:
        if name not in fields:
            table.fault(key, f'expected a field that is in the records, found "{name}"{nearest(name, fields)}')
