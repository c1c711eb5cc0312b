"""``nearfetch source``: the commands of who describes sources; what each does stands in a file of its own."""

# ruff: noqa: D301 - a backspace is click's mark for lines that stay as they are

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from regions.faults import Faults
from scripts import completion, options
from scripts.options import data_option, json_option, load_near, refuse
from scripts.terminal import say

PAGE_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def complete(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Sources and their params; a file where a path is begun."""
    if "/" in incomplete or incomplete.startswith("."):
        return [CompletionItem(incomplete, type="file")]
    return completion.words(context, param, incomplete)


def trial_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of what runs a source here."""
    made = (
        click.option(
            "--file", "paths", type=PAGE_FILE, multiple=True, help="Answer with this file; once for each page."
        ),
        click.option("--url", default="", help="With --file: the first page's address."),
        click.option("--header", "headers", multiple=True, metavar="NAME: VALUE", help="With --file: of its answer."),
        click.option("--status", type=click.IntRange(200, 599), help="With --file: of its answer (200)."),
        click.option("--deadline", type=float, metavar="SECONDS", help="When it ends at the latest (30 by default)."),
        click.option("--live", is_flag=True, help="Ask the real sites, though a scripts/up with a sample site runs."),
    )
    for option in reversed(made):
        command = option(command)
    return command


def chosen(
    data: Path | None,
    *,
    paths: tuple[Path, ...],
    url: str,
    headers: tuple[str, ...],
    status: int | None,
    deadline: float | None,
    live: bool,
) -> tuple[Any, Any, float | None]:
    """The settings, what answers instead of the network (None for nothing), and the deadline."""
    from scripts.trial import Files  # noqa: PLC0415

    if not paths and (url or headers or status is not None):
        raise click.UsageError("--url, --header and --status say what a --file is; found none")
    split = [header.partition(":") for header in headers]
    if wrong := [header for header, (name, colon, _) in zip(headers, split, strict=True) if not colon or not name]:
        raise click.UsageError(f'expected a header like "Content-Type: text/html", found "{wrong[0]}"')
    pages = {name.strip(): value.strip() for name, _, value in split}
    files = Files(paths, url, pages, 200 if status is None else status) if paths else None
    settings = load_near(data)
    if live:
        settings = options.live(settings)
    elif settings.fetch.origins and "NEARFETCH__FETCH__ORIGINS" not in os.environ and not paths:
        say("The sample site of scripts/up answers for the sites that it has; --live asks the real ones.", err=True)
    return settings, files, deadline


@contextmanager
def refusing() -> Iterator[None]:
    """Ends the command where settings or a definition are wrong."""
    try:
        yield
    except Faults as faults:
        refuse(faults)


@click.group()
def source() -> None:
    """For authors of sources: try a definition without a stack, keep what it gives as a test, see what is wrong with it.

    A source is named by its id, or by the path of its file.

    \b
    nearfetch source new shop.list https://shop.example/    begin with a commented definition
    nearfetch source try books.list category=poetry_23      run it here, see its records
    nearfetch source sample books.list category=poetry_23   keep its pages and records as a test
    nearfetch source test                                   run all samples
    nearfetch source check                                  see what is wrong with definitions
    nearfetch source replay 01JDFQ3M1XK2V9Q0S8ZC4T7B5N      read what a task was answered again
    """


@source.command()
@click.argument("id_", metavar="ID")
@click.argument("url")
@click.option("--fetch", is_flag=True, help="Fetch the page, and propose format, rows and fields.")
@click.option("--file", "path", type=PAGE_FILE, help="Look at this file instead.")
@data_option
def new(id_: str, url: str, fetch: bool, path: Path | None, data: Path | None) -> None:
    """Writes a definition to begin with: valid at once, with what else there is in comments.

    URL may have {params} in it. The file goes into the first folder of NEARFETCH__SOURCES__PATH, else to the shipped
    sources.

    \b
    nearfetch source new shop.list 'https://shop.example/list/{category}'
    nearfetch source new shop.list https://shop.example/list/all --fetch
    """
    from scripts import new_command  # noqa: PLC0415
    from scripts.trial import Files  # noqa: PLC0415

    files = Files([path]) if path is not None else None
    with refusing():
        sys.exit(new_command.run(load_near(data), id_, url, files=files, is_fetching=fetch))


@source.command("try")
@click.argument("words", nargs=-1, required=True, metavar="SOURCE [KEY=VALUE]...", shell_complete=complete)
@trial_options
@click.option("--rows", type=click.IntRange(1), default=10, show_default=True, help="How many records are shown.")
@json_option
@data_option
def try_(words: tuple[str, ...], rows: int, as_json: bool, data: Path | None, **chosen_: Any) -> None:
    """Runs a source here as a worker does, and shows the records, what each field found, and what was fetched.

    A required param that is not given has the definition's example. Where a scripts/up runs, its settings count, so
    that its sample site answers; else NEARFETCH__FETCH__ALLOW and ORIGINS.

    Ends with 0 when it succeeded, 1 when it failed, 2 where the definition or the params are wrong.

    \b
    nearfetch source try books.list category=poetry_23
    nearfetch source try ./quotes.toml --rows 3
    nearfetch source try ./quotes.toml --file page.html --header 'Content-Type: text/html; charset=utf-8'
    nearfetch source try ecb.rates --json | jq .fields
    """
    from scripts import try_command  # noqa: PLC0415

    settings, files, deadline = chosen(data, **chosen_)
    with refusing():
        sys.exit(try_command.run(settings, words, files=files, deadline_seconds=deadline, rows=rows, as_json=as_json))


@source.command()
@click.argument("words", nargs=-1, required=True, metavar="SOURCE [KEY=VALUE]...", shell_complete=complete)
@trial_options
@click.option("--name", default="", help="The sample's name; else its params' values.")
@click.option("--replace", is_flag=True, help="Take the place of the sample of that name.")
@click.option("--failed", is_flag=True, help="Keep it though it fails: a wall, a status, a page without rows.")
@data_option
def sample(words: tuple[str, ...], name: str, replace: bool, failed: bool, data: Path | None, **chosen_: Any) -> None:
    """Runs a source like try, and keeps the pages with the records that they give: a test of the definition.

    It is kept beside the definition, in samples/ID/NAME, as files to read and to compare. Secrets are taken out.

    Ends with 0 when it is kept, 1 when it failed, 2 where the definition or the params are wrong.

    \b
    nearfetch source sample books.list category=poetry_23
    nearfetch source sample quotes --file wall.html --failed --name wall
    """
    from scripts import sample_commands  # noqa: PLC0415

    settings, files, deadline = chosen(data, **chosen_)
    with refusing():
        sys.exit(
            sample_commands.keep(
                settings,
                words,
                files=files,
                deadline_seconds=deadline,
                name=name,
                is_replacing=replace,
                may_fail=failed,
            )
        )


@source.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", shell_complete=complete)
@click.option("--update", is_flag=True, help="Take what comes out as what is expected from now on.")
@click.option("--all", "every", is_flag=True, help="Show every difference, not the first three of a field.")
@json_option
@data_option
def test(sources: tuple[str, ...], update: bool, every: bool, as_json: bool, data: Path | None) -> None:
    """Runs the samples of all sources, or of these, without a network, and shows what differs by record and field.

    Ends with 0 when all records are as expected, 1 when some differ, 2 where a definition is wrong or nothing is there
    to test.

    \b
    nearfetch source test
    nearfetch source test books.list --all
    nearfetch source test books.list --update && git diff
    """
    from scripts import sample_commands  # noqa: PLC0415

    with refusing():
        sys.exit(sample_commands.test(load_near(data), sources, is_updating=update, as_json=as_json, every=every))


@source.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", shell_complete=complete)
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

    sys.exit(check_command.run(load_near(data), sources, as_json=as_json))


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
