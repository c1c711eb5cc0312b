"""The outcome of a run, as a table for people and as JSON for programs."""

import statistics
from collections.abc import Iterator
from typing import Any

import msgspec

from scripts.bench import figures
from scripts.bench.figures import Measured, Row, Spread
from scripts.terminal import size


def lines(rows: list[Row], idle_ms_per_second: dict[str, float]) -> Iterator[str]:
    """The tables. Figures are medians of the rounds.

    Ratios are medians of the rounds' ratios, with the lowest and the highest.
    """
    for row in rows:
        yield ""
        yield f"{row.title}   {len(row.floor)} rounds"
        yield f"  {'':<24}{'jobs/s':>8}  {'CPU ms a job':>12}  {'over floor':>10}  {'p50':>6} {'p95':>6} {'p99':>6} ms  memory / 100"
        yield _line("ours", row, row.ours)
        for name, measured in row.peer.items():
            yield _line(name, row, measured)
        yield f"  {'bare loops, 0 ms':<24}{_median(row.floor, 'jobs_per_second'):>8.0f}  {_median(row.floor, 'cpu_ms_per_job'):>12.2f}"
        yield f"  ours to {row.best}: {_spread(row.rate_ratio())} times the jobs/s"
        if row.is_at_once:
            yield f"  to the bare loops: ours {_spread(row.floor_ratio())}, {row.best} {_spread(row.peer_floor_ratio())} times the jobs/s"
        ratios = ", ".join(f"{share} {_spread(row.alone_ratio(share))}" for share in ("p50", "p95", "p99"))
        yield f"  a lone call to {row.quickest}: {ratios} times the time"
        yield "  where a job's CPU goes, ms:"
        for name, measured in (("ours", row.ours), (row.best, row.peer[row.best])):
            parts = "   ".join(f"{hop} {ms:.2f}" for hop, ms in figures.hops(measured).items())
            yield f"    {name}: {parts}"
        clients = ", ".join(
            f"{name} {_median(measured.load, 'clients_ms_per_job'):.2f}"
            for name, measured in (("ours", row.ours), (row.best, row.peer[row.best]))
        )
        yield f"    the clients, not included: {clients}"
    yield ""
    idle = ", ".join(f"{side} {ms:.0f}" for side, ms in idle_ms_per_second.items())
    yield f"CPU ms a second of each side while it is idle: {idle}"


def as_json(rows: list[Row], idle_ms_per_second: dict[str, float], settings: dict[str, list[str]]) -> dict[str, Any]:
    """The figures of every round, and the ratios of all rows."""
    found = []
    for row in rows:
        ratios = {
            "jobs_per_second": row.rate_ratio(),
            "jobs_per_second_to_floor": row.floor_ratio() if row.is_at_once else None,
            "peer_to_floor": row.peer_floor_ratio() if row.is_at_once else None,
            "over_floor_ms": row.over_floor(row.ours),
            **{share: row.alone_ratio(share) for share in ("p50", "p95", "p99")},
        }
        rounds: dict[str, Any] = msgspec.to_builtins(row)
        found.append({**rounds, "best": row.best, "quickest": row.quickest, "ratios": msgspec.to_builtins(ratios)})
    return {"settings": settings, "idle_ms_per_second": idle_ms_per_second, "rows": found}


def _line(name: str, row: Row, measured: Measured) -> str:
    cpu = statistics.median(one.cpu_ms for one in measured.load)
    over = row.over_floor(measured).median
    p50, p95, p99 = (_median(measured.alone, share) for share in ("p50", "p95", "p99"))
    memory = [one.memory_bytes_per_100 for one in measured.load if one.memory_bytes_per_100 is not None]
    held = size(statistics.median(memory)) if memory else ""
    return f"  {name:<24}{measured.rate.median:>8.0f}  {cpu:>12.2f}  {over:>10.2f}  {p50:>6.1f} {p95:>6.1f} {p99:>6.1f}     {held:>12}"


def _median(found: list[Any], name: str) -> float:
    values: list[float] = [getattr(one, name) for one in found]
    return statistics.median(values)


def _spread(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"
