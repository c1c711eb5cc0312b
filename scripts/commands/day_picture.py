"""A region's day as an SVG picture: tasks that arrived, worker processes, and the age of the oldest waiting task."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from html import escape
from typing import Final

from jobs.pool.day import MINUTE, Minute

WIDTH: Final = 960
LEFT: Final = 64  # of each panel; its numbers stand to the left
RIGHT: Final = 24
TOP: Final = 48  # of the first panel; the title stands above it
HEIGHT: Final = 130  # of each panel
GAP: Final = 34  # between two panels; a panel's name stands in it
HOURS: Final = (1, 2, 3, 6)  # between two marks on the time axis
MARKS_MAX: Final = 12
STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:15px;font-weight:600}.name{font-weight:600}"
    ".grid{stroke:#ddd}.came{fill:#7aa6c2}.wanted{fill:none;stroke:#b5651d;stroke-width:1.5}"
    ".ready{fill:#e9c9a8}.oldest{fill:#8a6fb0}.target{stroke:#c00;stroke-dasharray:4 3}"
)


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: a filled area with a value for each minute, and if given a line and a horizontal level."""

    name: str
    kind: str
    values: Sequence[float]
    line: Sequence[float] = ()
    level: float | None = None

    @property
    def top(self) -> float:
        """The value at the upper edge: the least of 1, 2 or 5 times a power of ten that no value exceeds."""
        most = max([*self.values, *self.line, self.level or 0.0, 1.0])
        power: float = 10 ** math.floor(math.log10(most))
        return next(step * power for step in (1, 2, 5, 10) if step * power >= most)


def svg(minutes: Sequence[Minute], title: str, zone: tzinfo, target_seconds: float) -> str:
    """A whole SVG document. ``minutes`` is not empty; missing minutes leave a gap."""
    first, count = minutes[0].at, round((minutes[-1].at - minutes[0].at) / MINUTE) + 1
    by_place = {round((minute.at - first) / MINUTE): minute for minute in minutes}
    rows = [by_place.get(place, Minute(first + place * MINUTE)) for place in range(count)]
    panels = [
        Panel("tasks that arrived, by minute", "came", [row.arrived for row in rows]),
        Panel("worker processes: asked for (line), ready", "ready", [row.ready for row in rows], [row.wanted for row in rows]),
        Panel(
            f"age of the oldest waiting task, s (target {target_seconds:g})",
            "oldest",
            [row.oldest_seconds for row in rows],
            level=target_seconds,
        ),
    ]  # fmt: skip
    height = TOP + len(panels) * (HEIGHT + GAP) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text class="title" x="{LEFT}" y="20">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, TOP + number * (HEIGHT + GAP), rows[0].at, count, zone)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, top: int, first: float, count: int, zone: tzinfo) -> list[str]:
    bottom, scale = top + HEIGHT, HEIGHT / panel.top
    across = (WIDTH - LEFT - RIGHT) / count
    parts = [f'<text class="name" x="{LEFT}" y="{top - 6}">{escape(panel.name)}</text>']
    for value in (0.0, panel.top / 2, panel.top):
        y = bottom - value * scale
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for place, label in _marks(first, count, zone):
        x = LEFT + place * across
        parts.append(f'<path class="grid" d="M{x:.1f} {top}V{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{label}</text>')
    steps = _steps(panel.values, bottom, scale, across)
    parts.append(f'<path class="{panel.kind}" d="M{LEFT} {bottom}{steps}V{bottom}Z"/>')
    if panel.line:
        begin = f"M{LEFT} {bottom - panel.line[0] * scale:.1f}"
        parts.append(f'<path class="wanted" d="{begin}{_steps(panel.line, bottom, scale, across)}"/>')
    if panel.level is not None:
        y = bottom - panel.level * scale
        parts.append(f'<path class="target" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
    return parts


def _steps(values: Sequence[float], bottom: int, scale: float, across: float) -> str:
    """A staircase; equal neighbours share a step."""
    parts, last = [], None
    for place, value in enumerate(values):
        if value != last:
            parts.append(f"H{LEFT + place * across:.1f}V{bottom - value * scale:.1f}")
        last = value
    return "".join([*parts, f"H{LEFT + len(values) * across:.1f}"])


def _marks(first: float, count: int, zone: tzinfo) -> list[tuple[float, str]]:
    """(minutes since the first one, label) of full hours, few enough to be readable."""
    hours = next((step for step in HOURS if count / 60 / step <= MARKS_MAX), HOURS[-1])
    when = datetime.fromtimestamp(first, zone).replace(minute=0, second=0, microsecond=0)
    marks = []
    while (place := (when.timestamp() - first) / MINUTE) <= count:
        if place >= 0 and when.hour % hours == 0:
            marks.append((place, f"{when:%H}:00"))
        when = (when + timedelta(hours=1)).astimezone(zone)
    return marks
