"""``nearfetch source``: the commands of who describes sources; what each does stands in a file of its own."""

# ruff: noqa: D301 - a backspace is click's mark for lines that stay as they are

import sys
from pathlib import Path

import click

from scripts.options import data_option, json_option, load


@click.group()
def source() -> None:
    """For authors of sources: see what is wrong with a definition.

    A source is named by its id, or by the path of its file.

    \b
    nearfetch source check
    """


@source.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@json_option
@data_option
def check(sources: tuple[str, ...], as_json: bool, data: Path | None) -> None:
    """Says everything that is wrong with the definitions of all sources, or of these.

    One line a fault: file:line: key: what was expected, what was found, the nearest known. An ID.py is loaded too.

    Ends with 0 when nothing is wrong, else with 2.

    \b
    nearfetch source check
    nearfetch source check books.list ./quotes.toml
    """
    from scripts import check_command  # noqa: PLC0415

    sys.exit(check_command.run(load(data), sources, as_json=as_json))
