"""``nearfetch bench``: starts the competitors, measures them in turn, compares them, then measures rows of ours alone."""

import json
import signal
import sys
from typing import Any, Final

from regions.settings import ROOT
from scripts.bench import (
    backlog,
    bridge_alone,
    capacity,
    geo_report,
    idle,
    in_flight,
    key_cost,
    metrics_cost,
    neighbour,
    ocean,
    report,
    tenants,
    waiters,
)
from scripts.bench import geo as geo_bench
from scripts.bench.extra import Extra
from scripts.bench.figures import Unfair
from scripts.bench.interactive import FULL, NAME
from scripts.bench.load import Wrong
from scripts.bench.peer_stack import PeerPool
from scripts.bench.rows import ROWS
from scripts.bench.run import Bench, Plan
from scripts.stack.data_folder import default_path
from scripts.stack.services import Failed
from scripts.stack.startup import NotReady
from scripts.stack.supervision import NotStarted
from scripts.terminal import Progress, Quiet

UNFAIR: Final = 4
EXTRA: Final = {  # rows for Nearfetch alone, measured only when named
    "bridge": bridge_alone.run,
    "in-flight": in_flight.run,
    "waiters": waiters.run,
    "backlog": backlog.run,
    "neighbour": neighbour.run,
    "tenants": tenants.run,
    "keys": key_cost.run,
    "metrics": metrics_cost.run,
    "idle": idle.run,
    "capacity": capacity.run,
    "wan": ocean.run,
}
WHOLE: Final = "up"
NAMES: Final = (*ROWS, NAME, *FULL, WHOLE, *EXTRA)
QUICK_ROWS: Final = ("tiny", "page")  # also of those with a full load, and of a whole ``up`` in any case
QUICK_ROUNDS, ROUNDS, EXTRA_ROUNDS = 3, 5, 3


def bench(names: list[str], rounds: int | None, *, quick: bool, ours: bool, as_json: bool) -> int:
    """Runs the benchmark and returns the exit code. ``ours``: without Celery.

    0: everything was measured. 1: something did not start or answered wrongly. 4: the comparison would not be fair.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    progress = Quiet() if as_json else Progress()
    names = names or ([*QUICK_ROWS, NAME] if quick else [*ROWS, NAME, WHOLE])
    if NAME in names:
        names = [*names, *(f"{NAME}-{name}" for name in QUICK_ROWS)] if quick else [*names, *FULL]
    found: dict[str, Any] = {}
    try:
        plan = _plan(names, rounds, quick=quick, peer=not ours)
        if plan.rows or plan.interactive or plan.whole:
            found |= _compared(plan, progress)
        extra = [EXTRA[name](progress, rounds or (1 if quick else EXTRA_ROUNDS)) for name in names if name in EXTRA]
    except (Failed, NotReady, NotStarted, Wrong) as error:
        print(error, file=sys.stderr)
        return 1
    except Unfair as error:
        print(error, file=sys.stderr)
        return UNFAIR
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    for one in extra:
        _say(one, progress)
        found[one.title] = one.figures
    if as_json:
        print(json.dumps(found, indent=1))
    return 0


def geo(*, quick: bool, as_json: bool, written: bool) -> int:
    """Runs ``bench geo`` and returns the exit code, as ``bench`` does. ``written``: into the table and the picture of docs."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    progress = Quiet() if as_json else Progress()
    try:
        found = geo_bench.measure(geo_bench.QUICK if quick else geo_bench.FULL, progress)
    except (Failed, NotReady, NotStarted, Wrong) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    for line in geo_report.lines(found):
        progress.line(line)
    if written:
        for path in geo_report.write(found, ROOT / "docs"):
            progress.line(f"written: {path}")
    if as_json:
        print(json.dumps(geo_report.as_json(found), indent=1))
    return 0


def _plan(names: list[str], rounds: int | None, *, quick: bool, peer: bool) -> Plan:
    rows = [ROWS[name] for name in names if name in ROWS]
    full = [row for name, row in FULL.items() if name in names]
    whole = [ROWS[name] for name in QUICK_ROWS] if WHOLE in names else []
    if quick:
        wanted = rounds or QUICK_ROUNDS
        # Rows with a full load have one round, unless they stand alone or a number is asked for: it takes 40 s.
        rounds_full = rounds or (1 if rows else QUICK_ROUNDS)
        return Plan(
            rows,
            full,
            whole,
            wanted,
            rounds_full,
            seconds=2.0,
            warm_seconds=1.0,
            floor_seconds=2.0,
            full_seconds=5.0,
            full_warm_seconds=1.5,
            calls=100,
            peer=peer,
        )
    return Plan(
        rows,
        full,
        whole,
        rounds or ROUNDS,
        rounds or ROUNDS,
        seconds=6.0,
        warm_seconds=2.0,
        floor_seconds=4.0,
        full_seconds=10.0,
        full_warm_seconds=4.0,
        calls=300,
        peer=peer,
    )


def _compared(plan: Plan, progress: Progress) -> dict[str, Any]:
    with Bench(plan, progress, default_path() / "bench") as found:
        settings = {"ours": list(found.ours.settings())}
        if found.peer:
            settings["Celery"] = list(PeerPool.settings())
        for side, lines in settings.items():
            progress.line(side)
            for line in lines:
                progress.line(f"  {line}")
        found.run()
    for line in report.lines(found.rows, found.interactive, found.whole, found.idle_ms_per_second):
        progress.line(line)
    return report.as_json(found.rows, found.interactive, found.whole, found.idle_ms_per_second, settings)


def _say(extra: Extra, progress: Progress) -> None:
    progress.line()
    progress.line(extra.title)
    for line in extra.lines:
        progress.line(f"  {line}")
