"""The outcome of a run, as a table for people and as JSON for programs."""

import statistics
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from scripts.bench import figures
from scripts.bench.figures import Interactive, Measured, Row, Spread
from scripts.terminal import size

SHARES: Final = ("p50", "p95", "p99")


def lines(
    rows: list[Row], interactive: list[Interactive], whole: list[Row], idle_ms_per_second: dict[str, float]
) -> Iterator[str]:
    """The tables. Figures are medians of the rounds.

    Ratios are medians of the rounds' ratios, with the lowest and the highest; there are none without Celery.
    """
    for row in rows:
        yield ""
        yield f"{row.title}   {len(row.floor)} rounds"
        yield f"  {'':<24}{'jobs/s':>8}  {'CPU ms a job':>12}  {'over floor':>10}  {'p50':>6} {'p95':>6} {'p99':>6} ms  memory / 100"
        yield _line("ours", row, row.ours)
        for name, measured in row.peer.items():
            yield _line(name, row, measured)
        yield f"  {'bare loops, 0 ms':<24}{_median(row.floor, 'jobs_per_second'):>8.0f}  {_median(row.floor, 'cpu_ms_per_job'):>12.2f}"
        if row.peer:
            yield f"  ours to {row.best}: {_spread(row.rate_ratio())} times the jobs/s"
        if row.is_at_once:
            peer = f", {row.best} {_spread(row.peer_floor_ratio())}" if row.peer else ""
            yield f"  to the bare loops: ours {_spread(row.floor_ratio())}{peer} times the jobs/s"
        if row.peer:
            yield _lone_ratios(row)
        yield "  where a job's CPU goes, ms:"
        both = {"ours": row.ours} | ({row.best: row.peer[row.best]} if row.peer else {})
        for name, measured in both.items():
            parts = "   ".join(f"{hop} {ms:.2f}" for hop, ms in figures.hops(measured).items())
            yield f"    {name}: {parts}"
        clients = ", ".join(
            f"{name} {_median(measured.load, 'clients_ms_per_job'):.2f}" for name, measured in both.items()
        )
        yield f"    the clients, not included: {clients}"
    for full in interactive:
        yield from _interactive(full)
    for row in whole:
        yield ""
        yield f"synchronous calls in a whole up of three regions: {row.title}   {len(row.ours.alone)} rounds"
        yield f"  {'':<24}{'p50':>6} {'p95':>6} {'p99':>6} ms"
        for name, measured in {"ours": row.ours, **row.peer}.items():
            yield f"  {name:<24}{' '.join(f'{_median(measured.alone, share):>6.1f}' for share in SHARES)}"
        if row.peer:
            yield _lone_ratios(row)
    yield ""
    idle = ", ".join(f"{side} {ms:.0f}" for side, ms in idle_ms_per_second.items())
    yield f"CPU ms a second of each side while it is idle: {idle}"


def as_json(
    rows: list[Row],
    interactive: list[Interactive],
    whole: list[Row],
    idle_ms_per_second: dict[str, float],
    settings: dict[str, list[str]],
) -> dict[str, Any]:
    """The figures of every round, and the ratios of all rows. Without Celery, the ratios to it are null."""
    found = []
    for row in rows:
        ratios = {
            "jobs_per_second": row.rate_ratio() if row.peer else None,
            "jobs_per_second_to_floor": row.floor_ratio() if row.is_at_once else None,
            "peer_to_floor": row.peer_floor_ratio() if row.peer and row.is_at_once else None,
            "over_floor_ms": row.over_floor(row.ours),
            **{share: row.alone_ratio(share) if row.peer else None for share in SHARES},
        }
        best, quickest = (row.best, row.quickest) if row.peer else (None, None)
        rounds: dict[str, Any] = msgspec.to_builtins(row)
        found.append({**rounds, "best": best, "quickest": quickest, "ratios": msgspec.to_builtins(ratios)})
    return {
        "settings": settings,
        "idle_ms_per_second": idle_ms_per_second,
        "rows": found,
        "interactive": [_interactive_json(full) for full in interactive],
        "up": [_whole_json(row) for row in whole],
    }


def _lone_ratios(row: Row) -> str:
    ratios = ", ".join(f"{share} {_spread(row.alone_ratio(share))}" for share in SHARES)
    return f"  a lone call to {row.quickest}: {ratios} times the time"


def _whole_json(row: Row) -> dict[str, Any]:
    calls = {"ours": row.ours.alone, "peer": {name: measured.alone for name, measured in row.peer.items()}}
    ratios = {share: row.alone_ratio(share) for share in SHARES} if row.peer else {}
    found = {
        "name": row.name,
        "title": row.title,
        **calls,
        "quickest": row.quickest if row.peer else None,
        "ratios": ratios,
    }
    built: dict[str, Any] = msgspec.to_builtins(found)
    return built


def _interactive(full: Interactive) -> Iterator[str]:
    yield ""
    yield f"synchronous calls beside a full load: {full.title}   {len(full.ours)} rounds"
    yield f"  {'':<24}{'idle p50':>8}  {'p50':>7} {'p95':>7} {'p99':>7} ms  {'times idle':>10}  {'calls':>6}  {'503s':>5}  {'bulk jobs/s':>11}"
    for name, found in (("ours", full.ours), ("Celery", full.peer)):
        if found:
            idle = _median([one.idle for one in found], "p50")
            p50, p95, p99 = (_median([one.busy for one in found], share) for share in SHARES)
            times, rate = _median(found, "times_idle"), _median(found, "jobs_per_second")
            calls, refused = (sum(getattr(one, count) for one in found) for count in ("calls", "refused"))
            yield f"  {name:<24}{idle:>8.1f}  {p50:>7.1f} {p95:>7.1f} {p99:>7.1f}     {times:>10.2f}  {calls:>6}  {refused:>5}  {rate:>11.0f}"
    if full.peer:
        ratios = ", ".join(f"{share} {_spread(full.ratio(share))}" for share in SHARES)
        yield f"  ours to Celery: {ratios} times the time, {_spread(full.rate_ratio())} times the jobs/s"


def _interactive_json(full: Interactive) -> dict[str, Any]:
    ratios = (
        {"jobs_per_second": full.rate_ratio(), **{share: full.ratio(share) for share in SHARES}} if full.peer else {}
    )
    rounds: dict[str, Any] = msgspec.to_builtins(full)
    times_idle = [one.times_idle for one in full.ours]
    return {**rounds, "times_idle": times_idle, "ratios": msgspec.to_builtins(ratios)}


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
