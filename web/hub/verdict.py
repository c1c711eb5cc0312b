"""How a source is, by what its runs showed: the last 20 against the 200 before. Pure: no clock, no Redis.

    counts ── which runs say something of their source
    judge ─── runs, newest first ──> Verdict: ok or degraded, the sentences that say why, and the figures

A run is one task's end. What is ours (a region, a limit, a fault of ours, a cancel) says nothing of a source; what the
network did counts where ``web.hub.reach`` says so. Only runs by the newest one's definition are compared: an edited
definition begins anew.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from typing import Final

from msgspec import Struct

from jobs.contract import Run

LAST: Final = 20  # runs that are judged
BEFORE: Final = 200  # runs that they are compared with
KEPT: Final = LAST + BEFORE
RUNS_MIN: Final = 10  # on either side; with fewer nothing is said
SUCCESS_MIN: Final = 0.8
COVERAGE_DROP: Final = 0.3
FACTOR: Final = 3.0
USUAL_SHARE: Final = 1 / 3  # what so many of the earlier runs showed is usual

OF_THE_TARGET: Final = frozenset({"http_status", "too_large", "blocked", "decode", "parse", "contract"})
OF_THE_NETWORK: Final = frozenset({"timeout", "connection"})


class Figure(Struct, frozen=True):
    """A median of the last runs, and of those before; None where there are too few."""

    last: float | None
    before: float | None


class Verdict(Struct, frozen=True, kw_only=True):
    """How a source is.

    ``success`` is a share, None where there are too few runs. ``coverage``: the share of a run's records that have a field,
    for the fields that some lack.
    """

    health: str  # "ok" or "degraded"
    reasons: list[str]
    definition: str
    runs: int  # of the last ones
    before: int
    success: float | None
    rows: Figure
    raw_bytes: Figure
    busy_ms: Figure
    coverage: dict[str, Figure]


def counts(run: Run) -> bool:
    """Whether a run says something of its source. Whether the network's failures do is for ``web.hub.reach`` to say."""
    if not run.own:
        return False
    if not run.error:
        return True
    if is_the_networks(run):
        return True
    return run.error in OF_THE_TARGET and run.origin in ("target", "parser")


def is_the_networks(run: Run) -> bool:
    """Whether it failed on the way to its host: the host's fault, or the region's own network's."""
    return run.error in OF_THE_NETWORK and run.origin == "network"


def judge(runs: Sequence[Run]) -> Verdict:
    """How a source is. ``runs``: those that count, one at least, newest first; more than ``KEPT`` are left out."""
    definition = runs[0].definition
    runs = [run for run in runs if run.definition == definition][:KEPT]
    last, before = runs[:LAST], runs[LAST:]
    seen, was = list(filter(_is_whole, last)), list(filter(_is_whole, before))
    coverage = {
        name: _figure(seen, was, _share_with(name)) for name in sorted({name for run in runs for name in run.gaps})
    }
    rows = _figure(seen, was, lambda run: run.rows)
    pages, pages_before = list(filter(_has_page, seen)), list(filter(_has_page, was))
    raw = _figure(pages, pages_before, lambda run: run.raw_bytes)
    reasons = [_success(last)]
    reasons += [_coverage(name, figure, was) for name, figure in coverage.items()]
    reasons += [
        _far("{last:,.0f} records a run, {before:,.0f} before", rows, was, lambda run: run.rows),
        _far("{last:,.0f} bytes fetched a run, {before:,.0f} before", raw, pages_before, lambda run: run.raw_bytes),
    ]
    told = [reason for reason in reasons if reason]
    return Verdict(
        health="degraded" if told else "ok",
        reasons=told,
        definition=definition,
        runs=len(last),
        before=len(before),
        success=round(_share(last), 3) if len(last) >= RUNS_MIN else None,
        rows=rows,
        raw_bytes=raw,
        busy_ms=_figure(seen, was, lambda run: run.busy_ms),
        coverage=coverage,
    )


def _is_whole(run: Run) -> bool:
    """Whether its records can be compared: neither a failure, nor part of an answer, nor rightly none."""
    return not run.error and not run.partial and run.rows > 0


def _has_page(run: Run) -> bool:
    """Whether the page came: it need not, where the source says that it is as it was (304), and so are its records."""
    return run.raw_bytes > 0


def _figure(last: Sequence[Run], before: Sequence[Run], of: Callable[[Run], float]) -> Figure:
    return Figure(*(round(median(map(of, runs)), 3) if len(runs) >= RUNS_MIN else None for runs in (last, before)))


def _share_with(name: str) -> Callable[[Run], float]:
    return lambda run: 1 - run.gaps.get(name, 0) / run.rows


def _share(last: Sequence[Run]) -> float:
    return sum(not run.error for run in last) / len(last)


def _success(last: Sequence[Run]) -> str:
    if len(last) < RUNS_MIN or _share(last) >= SUCCESS_MIN:
        return ""
    kinds = Counter(run.error for run in last if run.error)
    failed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f"{len(last) - kinds.total()} of the last {len(last)} runs succeeded, the others failed: {failed}"


def _coverage(name: str, figure: Figure, was: Sequence[Run]) -> str:
    if figure.last is None or figure.before is None or round(figure.before - figure.last, 3) < COVERAGE_DROP:
        return ""
    if _is_usual(figure.last, was, _share_with(name), is_low=True):
        return ""
    return f"{name} stands in {figure.last:.0%} of the records, in {figure.before:.0%} before"


def _far(text: str, figure: Figure, was: Sequence[Run], of: Callable[[Run], float]) -> str:
    if figure.last is None or figure.before is None:
        return ""
    is_low = figure.last * FACTOR < figure.before
    if not is_low and figure.last <= figure.before * FACTOR:
        return ""
    if _is_usual(figure.last, was, of, is_low=is_low):
        return ""
    return text.format(last=figure.last, before=figure.before)


def _is_usual(value: float, was: Sequence[Run], of: Callable[[Run], float], *, is_low: bool) -> bool:
    """Whether a third of the earlier runs lay as far out: the params of such a source ask for very different things.

    Of the runs before, the older half are looked at: the newer ones are the first to show a change.
    """
    older = [of(run) for run in was[len(was) // 2 :]]
    as_far = sum(one <= value if is_low else one >= value for one in older)
    return as_far >= USUAL_SHARE * len(older)
