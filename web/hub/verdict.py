"""The health of a source, from its runs: the last 20 against the 200 before. Pure: no clock, no Redis.

    counts ── whether a run says something about its source
    judge ─── runs, newest first ──> Verdict: ok or degraded, the reasons as sentences, and the figures

A run is the end of one task. Failures of our own (a region, a limit, a bug, a cancel) say nothing about a source. Network
failures count if ``web.hub.reach`` says that they were the host's. Only runs of the newest run's definition are compared, so
that an edited definition begins anew.
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
RUNS_MIN: Final = 10  # on either side; fewer are not compared
SUCCESS_MIN: Final = 0.8
COVERAGE_DROP: Final = 0.3
FACTOR: Final = 3.0
RATIO_FACTOR: Final = 2.0
FIELDS_MAX: Final = 200  # whose coverage is compared; a region may name others in each run
USUAL_SHARE: Final = 1 / 3  # a value is usual if this share of the earlier runs was as far out

OF_THE_SOURCE: Final = frozenset({"http_status", "too_large", "blocked", "decode", "parse", "contract"})
OF_THE_NETWORK: Final = frozenset({"timeout", "connection"})


class Figure(Struct, frozen=True):
    """The median of the last runs, and of those before; None if there are fewer than ``RUNS_MIN``."""

    last: float | None
    before: float | None


class Verdict(Struct, frozen=True, kw_only=True):
    """The health of a source, with the figures behind it.

    ``success`` is a share, None if there are too few runs. ``coverage``: for each field that some records lack, the share of
    a run's records that have it.
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
    ratio: Figure = Figure(None, None)  # how many times what goes home the pages are
    notes: list[str] = []  # sentences about a source that is well


def counts(run: Run) -> bool:
    """Whether a run says something about its source. For network failures ``web.hub.reach`` decides that later."""
    if not run.own:
        return False
    if not run.error:
        return True
    if is_the_networks(run):
        return True
    return run.error in OF_THE_SOURCE and run.origin in ("target", "parser")


def is_the_networks(run: Run) -> bool:
    """Whether a run failed on the network: the fault of the host, or of the region's own network."""
    return run.error in OF_THE_NETWORK and run.origin == "network"


def judge(runs: Sequence[Run]) -> Verdict:
    """The verdict on a source. ``runs``: at least one, newest first, only those that count; more than ``KEPT`` are ignored."""
    definition = runs[0].definition
    runs = [run for run in runs if run.definition == definition][:KEPT]
    last, before = runs[:LAST], runs[LAST:]
    seen, was = list(filter(_is_whole, last)), list(filter(_is_whole, before))
    lacking = Counter(name for run in runs for name in run.gaps).most_common(FIELDS_MAX)
    coverage = {name: _figure(seen, was, _share_with(name)) for name in sorted(name for name, _ in lacking)}
    rows = _figure(seen, was, lambda run: run.rows)
    pages, pages_before = list(filter(_has_page, seen)), list(filter(_has_page, was))
    raw = _figure(pages, pages_before, lambda run: run.raw_bytes)
    reasons = [_success(last)]
    reasons += [_coverage(name, figure, was) for name, figure in coverage.items()]
    reasons += [
        _far("{last:,.0f} records a run, {before:,.0f} before", rows, was, lambda run: run.rows),
        _far("{last:,.0f} bytes fetched a run, {before:,.0f} before", raw, pages_before, lambda run: run.raw_bytes),
    ]
    sized, sized_before = list(filter(_is_sized, seen)), list(filter(_is_sized, was))
    ratio = _figure(sized, sized_before, _ratio)
    reasons.append(_fallen(ratio, sized_before))
    found = [reason for reason in reasons if reason]
    note = "" if reasons[-1] else _saves_nothing([*sized, *sized_before])
    return Verdict(
        health="degraded" if found else "ok",
        reasons=found,
        definition=definition,
        runs=len(last),
        before=len(before),
        success=round(_share(last), 3) if len(last) >= RUNS_MIN else None,
        rows=rows,
        raw_bytes=raw,
        busy_ms=_figure(seen, was, lambda run: run.busy_ms),
        coverage=coverage,
        ratio=ratio,
        notes=[note] if note else [],
    )


def _is_whole(run: Run) -> bool:
    """Whether a run's records can be compared: it is no failure, not partial, and has records."""
    return not run.error and not run.partial and run.rows > 0


def _has_page(run: Run) -> bool:
    """Whether the page was fetched. After a 304 it was not, since neither it nor its records have changed."""
    return run.raw_bytes > 0


def _is_sized(run: Run) -> bool:
    """Whether it is known what the page had on the wire. Regions of an earlier version do not say it."""
    return run.received_bytes + run.spared_bytes > 0 and run.wire_bytes > 0


def _ratio(run: Run) -> float:
    """The size of the page divided by the size of what went home. A page that was not fetched again counts, too."""
    return max(run.received_bytes, run.spared_bytes) / run.wire_bytes


def _fallen(ratio: Figure, was: Sequence[Run]) -> str:
    if ratio.last is None or ratio.before is None or ratio.last * RATIO_FACTOR >= ratio.before:
        return ""
    if _is_usual(ratio.last, was, _ratio, is_low=True):
        return ""
    return f"its pages are {ratio.last:.1f} times what goes home, {ratio.before:.1f} times before"


def _saves_nothing(runs: Sequence[Run]) -> str:
    if len(runs) < RUNS_MIN or (ratio := median(map(_ratio, runs))) >= 1:
        return ""
    return f"more goes home than its pages have: they are {ratio:.2f} times that, so its region saves nothing"


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
    """Whether a third of the earlier runs were as far out: with different params such a source gives very different results.

    Only the older half of them is looked at, since the newer half may already show the change.
    """
    older = [of(run) for run in was[len(was) // 2 :]]
    as_far = sum(one <= value if is_low else one >= value for one in older)
    return as_far >= USUAL_SHARE * len(older)
