"""The commands about one region's worker processes: their number, and its day."""

# ruff: noqa: D301 - a backspace is click's mark for lines that stay as they are

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from regions.faults import Faults
from scripts.options import data_option, json_option, load_near, refuse
from scripts.terminal import say


@click.command()
@click.argument("region")
@click.argument("number", required=False, metavar="[N|auto]")
@data_option
@json_option
def scale(region: str, number: str | None, data: Path | None, as_json: bool) -> None:
    """Shows how many worker processes REGION has and why; with N asks for that many until the next rule begins.

    N is the whole region's number, whatever hosts its pools are on, within what its [scale] allows; auto takes it back.

    \b
    nearfetch scale fra
    nearfetch scale fra 4
    nearfetch scale fra auto
    """
    from scripts import scale_command  # noqa: PLC0415

    found = region_of(region, data)
    sys.exit(
        asking(
            region,
            lambda: scale_command.show(found, as_json=as_json) if number is None else scale_command.ask(found, number),
        )
    )


@click.command()
@click.argument("region")
@click.option("--replay", type=click.Path(path_type=Path), metavar="FILE", help="A day as CSV; else the one recorded.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write a picture (SVG), not CSV.")
@data_option
def day(region: str, replay: Path | None, output: Path | None, data: Path | None) -> None:
    """Shows the last day of REGION: arrivals, worker processes, age of the oldest waiting task, minute by minute.

    With --replay it says what the day in FILE would be with the region's [scale] as it is now. FILE is what this command
    prints, or any CSV with the columns at (seconds since the epoch), arrived and task_seconds.

    \b
    nearfetch day fra > day.csv
    nearfetch day fra -o day.svg
    nearfetch day fra --replay day.csv -o tomorrow.svg
    """
    from scripts import day_command  # noqa: PLC0415

    found = region_of(region, data)
    try:
        code = asking(region, lambda: day_command.run(found, replay, output))
    except Faults as faults:
        refuse(faults)
    sys.exit(code)


def asking(region: str, command: Callable[[], int]) -> int:
    """A command that asks a region's Redis, and what it ends with."""
    import redis  # noqa: PLC0415

    try:
        return command()
    except redis.exceptions.RedisError as error:
        say(f"the Redis of {region} does not do it: {error}", err=True)
        return 1


def region_of(name: str, data: Path | None = None) -> Any:
    """A region by its name, by the settings in force or those of the scripts/up that runs here."""
    settings = load_near(data)
    try:
        return settings.one(name)
    except Faults as faults:
        refuse(faults)
