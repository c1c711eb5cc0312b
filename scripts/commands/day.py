"""``nearfetch day REGION``: a region's last day as CSV or SVG, as recorded or as simulated with the current settings."""

from datetime import UTC, datetime, tzinfo
from pathlib import Path

import click

from jobs.contract import Minute
from jobs.pool import scaler
from regions.settings import Region
from scripts.commands.day_simulation import by_minute, read_csv, simulate, to_csv
from scripts.commands.scale import open_region
from scripts.terminal import counted, say
from web.console.day_picture import svg


def run(region: Region, replay: Path | None, output: Path | None) -> int:
    """Writes an SVG to ``output``, or CSV to standard output. Returns 1 when nothing is recorded. Raises ``Faults``."""
    recorded = read_csv(replay) if replay else scaler.day(open_region(region))
    if not recorded:
        say(f"{region.name}: nothing is recorded yet; a pool of workers records each minute", err=True)
        return 1
    minutes = list(by_minute(simulate(recorded, region.scale, region.workers.threads))) if replay else recorded
    if output is None:
        click.echo(to_csv(minutes), nl=False)
        return 0
    output.write_text(svg(minutes, _title(region, minutes, replay), _zone(), region.scale.target_wait_seconds), "utf-8")
    late = sum(one.oldest_seconds > region.scale.target_wait_seconds for one in minutes)
    say(f"{output}: {counted(len(minutes), 'minute')}, {late} with a wait above the target")
    return 0


def _title(region: Region, minutes: list[Minute], replay: Path | None) -> str:
    day = datetime.fromtimestamp(minutes[0].at, _zone())
    how = f"simulated with the arrivals of {replay.name}" if replay else "as recorded"
    return f"{region.name}  {region.title}   {day:%Y-%m-%d %H:%M %Z}   {how}"


def _zone() -> tzinfo:
    """The time zone of this machine."""
    return datetime.now().astimezone().tzinfo or UTC
