"""What ``bench geo`` measured: lines for people, the table of docs/performance.md, and JSON.

``write`` puts the table between two marks of docs/performance.md, and the picture (scripts.bench.geo_picture) into docs/geo.svg.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from scripts.bench import geo_pages, geo_picture
from scripts.bench.geo import BUSY, NEW, STATES, Cell, Measured
from scripts.terminal import size

BEGIN: Final = "<!-- bench geo: this table is written by `nearfetch bench geo --write` -->"
END: Final = "<!-- bench geo: its end -->"
MINUTE_PAGE: Final = "50kB"


def lines(found: Measured) -> Iterator[str]:
    """The lines for people."""
    for rtt_ms in found.rtts_ms:
        yield ""
        yield f"a round trip of {rtt_ms:g} ms"
        yield f"  {'':<36}{'ms until the records are there':^33}    {'bytes across the ocean, a call':^33}"
        yield f"  {'page, connections':<36}{'directly':>10} {'region':>10} {'quicker':>10}    {'directly':>10} {'region':>10} {'less':>10}"
        for cell in found.cells:
            if cell.rtt_ms == rtt_ms:
                ms = f"{cell.direct.median_ms:>10.0f} {cell.region.median_ms:>10.0f} {cell.times_quicker:>8.2f} x"
                crossed = f"{size(cell.direct.bytes_a_call):>10} {size(cell.region.bytes_a_call):>10} {cell.times_less:>8.2f} x"
                yield f"  {cell.title + ', ' + cell.connections:<36}{ms}    {crossed}"
    yield ""
    yield f"an idle region and the hub send each other {size(found.idle_bytes_per_second)} a second"
    once = found.cell(MINUTE_PAGE, found.middle_rtt_ms, NEW)
    if once is not None:
        direct, region = found.a_minute(once)
        yield f"one {once.title} a minute: {size(direct)} directly, {size(region)} through a region that does nothing else"
        if (calls := found.worth_it(once)) is not None:
            yield f"from {calls:.1f} of them a minute on, the region sends less"


def as_json(found: Measured) -> dict[str, Any]:
    """Everything that was measured, with the sizes of the pages."""
    pages = {
        page.name: {"bytes": len(page.body), "sent_bytes": len(page.sent), "records_bytes": page.records_bytes}
        for page in geo_pages.made().values()
    }
    cells = [
        {**msgspec.to_builtins(cell), "times_quicker": cell.times_quicker, "times_less": cell.times_less}
        for cell in found.cells
    ]
    return {"pages": pages, "idle_bytes_per_second": found.idle_bytes_per_second, "cells": cells}


def table(found: Measured) -> str:
    """The table as Markdown, each figure as the direct one, that of the region, and their ratio."""
    rtts = found.rtts_ms
    rows = [
        ["page", "connections", *(f"{rtt:g} ms away: ms" for rtt in rtts), "across the ocean"],
        ["---"] * (len(rtts) + 3),
    ]
    for page in found.pages:
        for connections in STATES:
            cells = [found.cell(page, rtt, connections) for rtt in rtts]
            at = found.cell(page, found.middle_rtt_ms, connections)
            if at is None:
                continue
            times = [
                ""
                if one is None
                else f"{one.direct.median_ms:.0f} → {one.region.median_ms:.0f}, {_times(one.times_quicker)}"
                for one in cells
            ]
            crossed = f"{size(at.direct.bytes_a_call)} → {size(at.region.bytes_a_call)}, {_times(at.times_less)}"
            rows.append([_described(at) if connections == BUSY else "", connections, *times, crossed])
    once = found.cell(MINUTE_PAGE, found.middle_rtt_ms, NEW)
    if once is not None:
        direct, region = found.a_minute(once)
        crossed = f"{size(direct)} → {size(region)}, {_times(direct / region)}"
        rows.append([f"{once.title}, one a minute", NEW, *[""] * len(rtts), crossed])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def write(found: Measured, docs: Path) -> list[Path]:
    """Writes the table into performance.md and the picture into geo.svg. Returns both paths. Raises ValueError without marks."""
    text = (docs / "performance.md").read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected the lines {BEGIN} and {END} in {docs / 'performance.md'}")
    when = f"Measured {time.strftime('%d %B %Y')}, on {os.cpu_count()} processors; {len(found.cells[0].direct.ms)} busy calls a cell."
    written = f"{before}{begin}\n\n{table(found)}\n{when}\n\n{end}{after}"
    (docs / "performance.md").write_text(written, encoding="utf-8")
    (docs / "geo.svg").write_text(geo_picture.drawn(found), encoding="utf-8")
    return [docs / "performance.md", docs / "geo.svg"]


def _described(cell: Cell) -> str:
    page = geo_pages.made()[cell.page]
    packed = f"{size(len(page.sent))} packed, " if page.is_packed else ""
    return f"{cell.title} ({packed}{size(page.records_bytes)} of records)"


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio >= 1 else f"**{ratio:.2f} times**"
