"""A region's day as a picture (SVG): tasks that came and ended, that waited and ran, worker processes, and the longest wait.

All panels share the time axis at the bottom. In a page, colours are those of console.css; a file of its own has them in itself,
for light and dark.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Final

from jobs.contract import MINUTE_SECONDS, Minute
from web.http.markup import Html, tag

WIDTH: Final = 960
LEFT: Final = 64  # of each panel; its numbers stand to the left
RIGHT: Final = 32
HEIGHT: Final = 104  # of each panel
ABOVE: Final = 44  # each panel: its name, and its legend
TITLE: Final = 34  # above the first panel of a file
AXIS: Final = 56  # below the last panel: times, dates, the time zone
STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360)  # minutes between two times on the axis
MARKS_MAX: Final = 12
HOUR: Final = 60  # minutes
COLOURS: Final = (
    "text{font:12px system-ui,sans-serif;fill:var(--ink)}.title{font-size:15px;font-weight:600}.name{font-weight:600}"
    ".muted{fill:var(--soft)}.paper{fill:var(--paper)}"
    ".grid,.tick{stroke:var(--rule);fill:none}.axis{stroke:var(--soft);fill:none}.gap{fill:var(--rule);opacity:.6}"
    ".area-a{fill:var(--a);opacity:.75}.area-b{fill:var(--b);opacity:.75}.area-c{fill:var(--c);opacity:.75}"
    ".line-a{fill:none;stroke:var(--line);stroke-width:1.5}.level{fill:none;stroke:var(--level);stroke-dasharray:5 4;stroke-width:1.5}"
)
LIGHT: Final = "--paper:#fff;--ink:#1c2024;--soft:#5b636b;--rule:#d9dde1;--a:#2f7fb5;--b:#b9772a;--c:#7a5cb0;--line:#1c2024;--level:#c0262d"
DARK: Final = "--paper:#15181b;--ink:#e8eaec;--soft:#a4abb2;--rule:#383e44;--a:#5aa9dc;--b:#d99a4e;--c:#a78bdb;--line:#e8eaec;--level:#ff7b72"
STYLE: Final = f":root{{{LIGHT}}}@media (prefers-color-scheme:dark){{:root{{{DARK}}}}}{COLOURS}"


@dataclass(frozen=True, slots=True)
class Series:
    """A value for each minute, None where nothing is recorded. ``kind``: its class; a ``level`` is one value for all."""

    name: str
    kind: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart. ``unit`` follows its numbers."""

    name: str
    unit: str
    series: Sequence[Series]

    @property
    def top(self) -> float:
        """The value at the upper edge: the least of 1, 2 or 5 times a power of ten that no value exceeds."""
        most = max((value for one in self.series for value in one.values if value is not None), default=1.0)
        power: float = 10 ** math.floor(math.log10(max(most, 1.0)))
        return next(step * power for step in (1, 2, 5, 10) if step * power >= most)


@dataclass(frozen=True, slots=True)
class Axis:
    """The time axis: when it begins (seconds since the epoch), its minutes, and the time zone."""

    first: float
    count: int
    zone: tzinfo

    @property
    def across(self) -> float:
        """The width of a minute."""
        return (WIDTH - LEFT - RIGHT) / self.count

    @property
    def step(self) -> int:
        """Minutes between two times."""
        return next((step for step in STEPS if self.count / step <= MARKS_MAX), STEPS[-1])

    def x(self, place: float) -> float:
        """Where a minute begins."""
        return LEFT + place * self.across

    def times(self) -> Iterator[tuple[float, datetime]]:
        """(place, time) of whole steps, in the zone: with a step of an hour or more these are hours of the clock."""
        when = datetime.fromtimestamp(self.first, self.zone)
        when = when.replace(minute=when.minute - when.minute % min(self.step, HOUR), second=0, microsecond=0)
        while (place := (when.timestamp() - self.first) / MINUTE_SECONDS) <= self.count:
            if place >= 0 and (self.step <= HOUR or when.hour % (self.step // HOUR) == 0):
                yield place, when
            # Not when + timedelta, which goes by the clock on the wall: it skips the hour that there is twice.
            when = datetime.fromtimestamp(when.timestamp() + min(self.step, HOUR) * MINUTE_SECONDS, self.zone)


def panels_of(rows: Sequence[Minute | None], target_seconds: float) -> list[Panel]:
    """The charts of a day."""

    def of(name: str) -> list[float | None]:
        return [None if row is None else float(getattr(row, name)) for row in rows]

    level = [target_seconds] * len(rows)
    return [
        Panel("Tasks a minute", "", [Series("came", "area-a", of("arrived")), Series("ended", "line-a", of("ended"))]),
        Panel("Tasks at once", "", [Series("waited", "area-b", of("waiting")), Series("ran", "line-a", of("running"))]),
        Panel("Worker processes", "", [Series("ready", "area-c", of("ready")), Series("wanted", "line-a", of("wanted"))]),
        Panel(
            "Longest wait of a task", "s",
            [Series("oldest", "area-b", of("oldest_seconds")), Series(f"target, {target_seconds:g} s", "level", level)],
        ),
    ]  # fmt: skip


def picture(minutes: Sequence[Minute], zone: tzinfo, target_seconds: float, *, name: str) -> Html:
    """The picture for a page. ``minutes`` is not empty, and in order; ``name`` is what a screen reader calls it."""
    return _drawn(minutes, zone, target_seconds, name, is_file=False)


def svg(minutes: Sequence[Minute], title: str, zone: tzinfo, target_seconds: float) -> str:
    """The picture as a whole SVG document."""
    return _drawn(minutes, zone, target_seconds, title, is_file=True).text + "\n"


def _drawn(minutes: Sequence[Minute], zone: tzinfo, target_seconds: float, title: str, *, is_file: bool) -> Html:
    first, count = minutes[0].at, round((minutes[-1].at - minutes[0].at) / MINUTE_SECONDS) + 1
    by_place = {round((minute.at - first) / MINUTE_SECONDS): minute for minute in minutes}
    rows = [by_place.get(place) for place in range(count)]
    axis, panels = Axis(first, count, zone), panels_of(rows, target_seconds)
    top = TITLE if is_file else 0
    height = top + len(panels) * (HEIGHT + ABOVE) + AXIS
    bottoms = [top + (number + 1) * (HEIGHT + ABOVE) for number in range(len(panels))]
    parts: list[Html] = [tag("title", title), tag("desc", summary(minutes, target_seconds))]
    if is_file:
        parts.insert(1, tag("style", Html(STYLE)))
        parts.append(tag("rect", width=WIDTH, height=height, class_="paper"))
        parts.append(tag("text", title, class_="title", x=LEFT, y=22))
    times = list(axis.times())
    for panel, bottom in zip(panels, bottoms, strict=True):
        parts += [*_gaps(rows, axis, bottom), *_panel(panel, axis, bottom, times)]
    parts += _axis(axis, bottoms[-1], times)
    return tag(
        "svg", parts, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {height}", role="img", class_="day",
        aria_label=None if is_file else title,
    )  # fmt: skip


def summary(minutes: Sequence[Minute], target_seconds: float) -> str:
    """The day in a sentence."""
    busiest = max(minutes, key=lambda one: one.arrived)
    late = sum(one.oldest_seconds > target_seconds for one in minutes)
    ready = [one.ready for one in minutes]
    return (
        f"{sum(one.arrived for one in minutes):,} tasks came in {len(minutes):,} minutes, at most {busiest.arrived:,} in one; "
        f"{min(ready)} to {max(ready)} worker processes were ready; in {late:,} minutes a task waited for longer than {target_seconds:g} s."
    )


def _panel(panel: Panel, axis: Axis, bottom: int, times: Sequence[tuple[float, datetime]]) -> Iterator[Html]:
    top, scale = bottom - HEIGHT, HEIGHT / panel.top
    yield tag("text", panel.name + (f", {panel.unit}" if panel.unit else ""), class_="name", x=LEFT, y=top - 22)
    x = LEFT
    for one in panel.series:
        known = [value for value in one.values if value is not None]
        most = (
            ""
            if one.kind == "level"
            else f", at most {max(known, default=0):,.4g}{f' {panel.unit}' if panel.unit else ''}"
        )
        yield from _legend(one, f"{one.name}{most}", x, top - 8)
        x += 36 + 7 * len(f"{one.name}{most}")
    for value in (0.0, panel.top / 2, panel.top):
        if not panel.unit and value != int(value):
            continue  # there are no halves of tasks
        y = f"{bottom - value * scale:.1f}"
        yield tag("path", class_="grid", d=f"M{LEFT} {y}H{WIDTH - RIGHT}")
        yield tag(
            "text", f"{value:g}", class_="muted", x=LEFT - 8, y=f"{bottom - value * scale + 4:.1f}", text_anchor="end"
        )
    for place, _ in times:
        yield tag("path", class_="grid", d=f"M{axis.x(place):.1f} {top}V{bottom}")
    for one in panel.series:
        yield from _drawn_series(one, axis, bottom, scale)


def _legend(one: Series, text: str, x: float, y: int) -> Iterator[Html]:
    if one.kind.startswith("area"):
        yield tag("rect", class_=one.kind, x=x, y=y - 9, width=14, height=10)
    else:
        yield tag("path", class_=one.kind, d=f"M{x} {y - 4}H{x + 14}")
    yield tag("text", text, class_="muted", x=x + 20, y=y)


def _drawn_series(one: Series, axis: Axis, bottom: int, scale: float) -> Iterator[Html]:
    """A staircase over each run of recorded minutes; equal neighbours share a step."""
    place = 0
    while place < len(one.values):
        if one.values[place] is None:
            place += 1
            continue
        end = place
        steps: list[str] = []
        last: float | None = None
        while end < len(one.values) and (value := one.values[end]) is not None:
            if value != last:
                steps.append(f"H{axis.x(end):.1f}V{bottom - value * scale:.1f}")
            last, end = value, end + 1
        steps.append(f"H{axis.x(end):.1f}")
        start = axis.x(place)
        if one.kind.startswith("area"):
            yield tag("path", class_=one.kind, d=f"M{start:.1f} {bottom}{''.join(steps)}V{bottom}Z")
        else:
            first = bottom - (one.values[place] or 0.0) * scale
            yield tag("path", class_=one.kind, d=f"M{start:.1f} {first:.1f}{''.join(steps)}")
        place = end


def _gaps(rows: Sequence[Minute | None], axis: Axis, bottom: int) -> Iterator[Html]:
    """The minutes of which nothing is recorded."""
    begin: int | None = None
    for place, row in enumerate([*rows, Minute(0.0)]):
        if row is None and begin is None:
            begin = place
        elif row is not None and begin is not None:
            width = (place - begin) * axis.across
            yield tag(
                "rect", class_="gap", x=f"{axis.x(begin):.1f}", y=bottom - HEIGHT, width=f"{width:.1f}", height=HEIGHT
            )
            begin = None


def _axis(axis: Axis, bottom: int, times: Sequence[tuple[float, datetime]]) -> Iterator[Html]:
    yield tag("path", class_="axis", d=f"M{LEFT} {bottom}H{WIDTH - RIGHT}")
    shown = ""
    for place, when in times:
        x = f"{axis.x(place):.1f}"
        yield tag("path", class_="axis", d=f"M{x} {bottom}v6")
        yield tag("text", f"{when:%H:%M}", x=x, y=bottom + 20, text_anchor="middle")
        if (day := f"{when:%a} {when.day} {when:%b}") != shown:
            yield tag("text", day, class_="muted", x=x, y=bottom + 36, text_anchor="middle")
        shown = day
    zone = datetime.fromtimestamp(axis.first, axis.zone)
    yield tag("text", f"time of day, {zone:%Z}", class_="muted", x=WIDTH - RIGHT, y=bottom + 52, text_anchor="end")
