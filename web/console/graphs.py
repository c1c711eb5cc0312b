"""Small graphs (SVG) for pages: runs by hour, single runs, shares. Their colours are classes of figures.css; nothing is in line."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from jobs.contract import Run
from web.console.frame import ms_text
from web.http.markup import Html, tag
from web.hub.recent import Hour

SPARK_HEIGHT, SPARK_BAR, SPARK_STEP = 22, 3, 4
HOURS_WIDTH, HOURS_HEIGHT, HOURS_LEFT, HOURS_BELOW = 720, 120, 52, 46
RUNS_HEIGHT, RUN_WIDTH, RUN_STEP = 48, 3, 4
RUNS_LEAST = 40  # that there is room for: a bar of a few runs is no wider than one of many
LABEL_EVERY: Final = 3  # hours
LOW: Final = 2  # the least height of something that is there


def spark(hours: Sequence[Hour]) -> Html:
    """The runs of the last day, a bar an hour, the failed ones on top."""
    width = SPARK_STEP * max(len(hours), 1)
    good, bad = _bars(hours, SPARK_HEIGHT, 0.0, SPARK_STEP, SPARK_BAR)
    return tag(
        "svg",
        tag("path", class_="base", d=f"M0 {SPARK_HEIGHT - 0.5}H{width}"),
        tag("path", class_="good", d=good) if good else None,
        tag("path", class_="bad", d=bad) if bad else None,
        viewBox=f"0 0 {width} {SPARK_HEIGHT}", width=width, height=SPARK_HEIGHT, class_="spark", role="img", aria_label=told(hours),
    )  # fmt: skip


def by_hour(hours: Sequence[Hour]) -> Html:
    """The same in large, with the hours of the day (UTC) and the number of runs."""
    most = max([one.runs for one in hours], default=0)
    step = (HOURS_WIDTH - HOURS_LEFT) / max(len(hours), 1)
    good, bad = _bars(hours, HOURS_HEIGHT, HOURS_LEFT, step, step - 3)
    parts = [
        tag("text", f"{most:,}", class_="soft", x=HOURS_LEFT - 8, y=12, text_anchor="end"),
        tag("text", "0", class_="soft", x=HOURS_LEFT - 8, y=HOURS_HEIGHT, text_anchor="end"),
        tag("path", class_="base", d=f"M{HOURS_LEFT} 0.5H{HOURS_WIDTH}M{HOURS_LEFT} {HOURS_HEIGHT}H{HOURS_WIDTH}"),
        tag("path", class_="good", d=good) if good else None,
        tag("path", class_="bad", d=bad) if bad else None,
    ]
    for number, hour in enumerate(hours):
        when = datetime.fromtimestamp(hour.at, UTC)
        if when.hour % LABEL_EVERY == 0:
            x = f"{HOURS_LEFT + (number + 0.5) * step:.1f}"
            parts.append(tag("text", f"{when:%H}:00", class_="soft", x=x, y=HOURS_HEIGHT + 20, text_anchor="middle"))
    parts.append(
        tag("text", "runs by hour (UTC)", class_="soft", x=HOURS_WIDTH, y=HOURS_HEIGHT + 42, text_anchor="end")
    )
    return tag(
        "svg", parts, viewBox=f"0 0 {HOURS_WIDTH} {HOURS_HEIGHT + HOURS_BELOW}", class_="hours", role="img", aria_label=told(hours)
    )  # fmt: skip


def single_runs(runs: Sequence[Run]) -> Html:
    """The last runs, oldest first: how long each was busy, and which failed."""
    room = max(len(runs), RUNS_LEAST)
    width, first = RUN_STEP * room, room - len(runs)
    most = max([one.busy_ms for one in runs], default=0) or 1
    paths = {"good": [], "bad": []}  # type: dict[str, list[str]]
    for number, one in enumerate(runs, first):
        height = RUNS_HEIGHT if one.error else max(LOW, one.busy_ms / most * RUNS_HEIGHT)
        paths["bad" if one.error else "good"].append(
            f"M{number * RUN_STEP} {RUNS_HEIGHT}v{-height:.1f}h{RUN_WIDTH}v{height:.1f}z"
        )
    failed = sum(bool(one.error) for one in runs)
    label = f"The last {len(runs)} runs, oldest first: {failed} failed, the longest of the others took {ms_text(most)}."
    return tag(
        "svg",
        tag("path", class_="base", d=f"M0 {RUNS_HEIGHT - 0.5}H{width}"),
        (tag("path", class_=kind, d="".join(made)) for kind, made in paths.items() if made),
        viewBox=f"0 0 {width} {RUNS_HEIGHT}", class_="runs", role="img", aria_label=label, preserveAspectRatio="none",
    )  # fmt: skip


def share(of: float | None) -> Html:
    """A share from 0 to 1 as a bar. It says nothing to a screen reader: the number stands beside it."""
    filled = 0.0 if of is None else max(0.0, min(1.0, of)) * 100
    tone = "good" if filled >= 99.95 else "fair" if filled >= 50 else "bad"
    return tag(
        "svg",
        tag("rect", class_="track", x=0, y=0, width=100, height=8, rx=4),
        tag("rect", class_=tone, x=0, y=0, width=f"{filled:.1f}", height=8, rx=4) if filled else None,
        viewBox="0 0 100 8", width=100, height=8, class_="share", aria_hidden="true",
    )  # fmt: skip


def told(hours: Sequence[Hour]) -> str:
    """The runs of the last day in words."""
    runs, failed = sum(one.runs for one in hours), sum(one.failed for one in hours)
    if not runs:
        return "No runs in the last day."
    most = max(hours, key=lambda one: one.runs)
    return f"{runs:,} runs in the last day, {failed:,} failed; most of them, {most.runs:,}, from {datetime.fromtimestamp(most.at, UTC):%H:%M} UTC."


def _bars(hours: Sequence[Hour], height: int, left: float, step: float, width: float) -> tuple[str, str]:
    """The paths of the runs that succeeded, and of those that failed, which stand on them."""
    most = max([one.runs for one in hours], default=0) or 1
    good, bad = [], []
    for number, one in enumerate(hours):
        x = f"{left + number * step:.4g}"
        whole = max(LOW, one.runs / most * height) if one.runs else 0.0
        failed = min(whole, max(LOW, one.failed / most * height)) if one.failed else 0.0
        if whole > failed:
            good.append(f"M{x} {height}v{failed - whole:.4g}h{width:.4g}v{whole - failed:.4g}z")
        if failed:
            bad.append(f"M{x} {height - whole + failed:.4g}v{-failed:.4g}h{width:.4g}v{failed:.4g}z")
    return "".join(good), "".join(bad)
