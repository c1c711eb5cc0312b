"""The commands about one region: the number of its worker processes, its day, what a new one needs, and maintenance."""

# ruff: noqa: D301 - \b tells click to keep the lines of a paragraph

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from regions import names
from regions.faults import Faults
from scripts.commands import completion
from scripts.commands.options import data_option, json_option, load, load_near, refuse
from scripts.terminal import say


@click.command()
@click.argument("region", shell_complete=completion.regions)
@click.argument("number", required=False, metavar="[N|auto]")
@data_option
@json_option
def scale(region: str, number: str | None, data: Path | None, as_json: bool) -> None:
    """Shows how many worker processes REGION has, and why. With N it asks for N until the next schedule rule begins.

    N counts the processes on all hosts of the region, within the bounds of its [scale]; auto leaves the number to load and clock again.

    \b
    nearfetch scale fra
    nearfetch scale fra 4
    nearfetch scale fra auto
    """
    from scripts.commands import scale as scale_command  # noqa: PLC0415

    found = region_of(region, data)
    sys.exit(
        asking(
            region,
            lambda: scale_command.show(found, as_json=as_json) if number is None else scale_command.ask(found, number),
        )
    )


@click.command()
@click.argument("region", shell_complete=completion.regions)
@click.option(
    "--replay",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Simulate the day in this CSV file instead of showing the recorded one.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a picture (SVG) to this file instead of CSV.",
)
@data_option
def day(region: str, replay: Path | None, output: Path | None, data: Path | None) -> None:
    """Shows the last day of REGION by the minute: arrivals, worker processes, age of the oldest waiting task.

    With --replay it simulates the day in FILE with the region's current [scale]. FILE is the output of this command, or
    any CSV with the columns at (a time like 2026-11-29T06:00:00Z, or seconds since the epoch), arrived and
    task_seconds.

    \b
    nearfetch day fra > day.csv
    nearfetch day fra -o day.svg
    nearfetch day fra --replay day.csv -o tomorrow.svg
    """
    from scripts.commands import day as day_command  # noqa: PLC0415

    found = region_of(region, data)
    try:
        code = asking(region, lambda: day_command.run(found, replay, output))
    except Faults as faults:
        refuse(faults)
    sys.exit(code)


@click.group()
def region() -> None:
    """Adds a region, moves its work elsewhere before maintenance, and brings it back.

    \b
    nearfetch region add ams
    nearfetch region drain fra
    nearfetch region resume fra
    """


@region.command()
@click.argument("name")
@json_option
@data_option
def add(name: str, data: Path | None, as_json: bool) -> None:
    """Prints what a region called NAME needs, and the commands that make it. Changes nothing.

    PASSWORD stands for one that you choose. A stack of scripts/up needs none of this: write the region's file into the folder
    of regions.path, and run scripts/up once more.

    \b
    nearfetch region add ams
    """
    from scripts.commands import region_add  # noqa: PLC0415

    if not re.fullmatch(names.REGION_PATTERN, name) or name == names.HUB:
        message = f'expected a name like fra ({names.REGION_PATTERN}, not {names.HUB}), found "{name}"'
        raise click.BadParameter(message, param_hint="NAME")
    sys.exit(region_add.run(load(data), name, as_json=as_json))


@region.command()
@click.argument("name", metavar="REGION", shell_complete=completion.regions)
@click.option("--wait", "wait_seconds", type=click.FloatRange(0), default=60.0, show_default=True, metavar="SECONDS",
              help="How long to wait until nothing that can move is left.")  # fmt: skip
@json_option
@data_option
def drain(name: str, wait_seconds: float, data: Path | None, as_json: bool) -> None:
    """Moves the work of REGION to the standbys of its sources: new tasks at once, then those that wait. Those that run finish.

    Sources without a standby that is ready stay, and REGION answers them as long as it lives. It stays drained until
    nearfetch region resume, also when this command is ended.

    Ends with 0 when nothing that can move is left, 1 when something is after --wait, 2 for wrong usage, 3 when the hub does not
    answer or no gateway moves tasks.

    \b
    nearfetch region drain fra
    nearfetch region drain fra --wait 600
    """
    from scripts.commands import region_drain  # noqa: PLC0415

    settings = load_near(data)
    _known(settings, name)
    sys.exit(region_drain.drain(settings, name, wait_seconds, as_json=as_json))


@region.command()
@click.argument("name", metavar="REGION", shell_complete=completion.regions)
@data_option
def resume(name: str, data: Path | None) -> None:
    """Gives REGION its new tasks again after nearfetch region drain. Those that were moved stay where they are.

    Ends with 0, or with 3 when the hub does not answer.

    \b
    nearfetch region resume fra
    """
    from scripts.commands import region_drain  # noqa: PLC0415

    settings = load_near(data)
    _known(settings, name)
    sys.exit(region_drain.resume(settings, name))


def _known(settings: Any, name: str) -> None:
    try:
        settings.one(name)
    except Faults as faults:
        refuse(faults)


def asking(region: str, command: Callable[[], int]) -> int:
    """Runs a command that asks a region's Redis, and returns its exit code."""
    import redis  # noqa: PLC0415

    try:
        return command()
    except redis.exceptions.RedisError as error:
        say(f"the Redis of {region} refused, or did not answer: {error}", err=True)
        return 1


def region_of(name: str, data: Path | None = None) -> Any:
    """A region by its name, in the settings in force or in those of the scripts/up on this machine."""
    settings = load_near(data)
    try:
        return settings.one(name)
    except Faults as faults:
        refuse(faults)
