"""``nearfetch source``: the commands of who describes sources; what each does stands in a file of its own."""

# ruff: noqa: D301 - a backspace is click's mark for lines that stay as they are

import sys
from pathlib import Path

import click

from scripts.options import data_option, json_option, load, load_near


@click.group()
def source() -> None:
    """For authors of sources: see what is wrong with a definition.

    A source is named by its id, or by the path of its file.

    \b
    nearfetch source check
    nearfetch source replay 01JDFQ3M1XK2V9Q0S8ZC4T7B5N    read what a task was answered again
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


@source.command()
@click.argument("task", default="", metavar="[TASK]")
@click.option("--source", "source_id", default="", metavar="ID", help="Everything that is kept of this source.")
@click.option("--page", type=int, metavar="N", help="Print the N-th kept body as it came, and read nothing again.")
@click.option("--all", "every", is_flag=True, help="Show every difference, not the first three of a field.")
@json_option
@data_option
def replay(task: str, source_id: str, page: int | None, every: bool, as_json: bool, data: Path | None) -> None:
    """Reads the kept answers of a task again with today's definition, without a fetch, and shows what differs.

    Workers keep what failures and a few successes were answered, on the host where they ran (raw.path). Without TASK and
    --source it lists what is there.

    Ends with 0 when all comes out the same, 1 when something differs, 2 for wrong usage, 4 when nothing is kept.

    \b
    nearfetch source replay
    nearfetch source replay 01JDFQ3M1XK2V9Q0S8ZC4T7B5N
    nearfetch source replay --source books.list --json | jq 'select(.same | not) | .now.error'
    nearfetch source replay 01JDFQ3M1XK2V9Q0S8ZC4T7B5N --page 1 > page.html
    """
    from scripts import replay_command  # noqa: PLC0415

    sys.exit(replay_command.run(load_near(data), task, source_id, page=page, as_json=as_json, every=every))
