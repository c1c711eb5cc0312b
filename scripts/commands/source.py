"""``nearfetch source``: the commands for authors of sources. What each command does stands in a file of its own."""

# ruff: noqa: D301 - \b tells click to keep the lines of a paragraph

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from regions.faults import Faults
from scripts.commands import completion, options
from scripts.commands.options import data_option, gateway_options, json_option, load_near, refuse
from scripts.terminal import say

PAGE_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def complete(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Sources and their params, or files when the word looks like a path."""
    if "/" in incomplete or incomplete.startswith("."):
        return [CompletionItem(incomplete, type="file")]
    return completion.words(context, param, incomplete)


def trial_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of commands that run a source here."""
    made = (
        click.option(
            "--file",
            "paths",
            type=PAGE_FILE,
            multiple=True,
            help="Use this file instead of a fetch; once for each page.",
        ),
        click.option("--url", default="", help="With --file: the URL of the first page."),
        click.option(
            "--header", "headers", multiple=True, metavar="NAME: VALUE", help="With --file: a header of the answer."
        ),
        click.option(
            "--status", type=click.IntRange(200, 599), help="With --file: the status of the answer (200 by default)."
        ),
        click.option(
            "--deadline", type=float, metavar="SECONDS", help="Give the task at most this long (30 by default)."
        ),
        click.option("--live", is_flag=True, help="Ask the real sites, even if a scripts/up with a sample site runs."),
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
    """The settings, the files that answer instead of the network (None without), and the deadline."""
    from scripts.authoring.trial import Files  # noqa: PLC0415

    if not paths and (url or headers or status is not None):
        raise click.UsageError("--url, --header and --status describe a --file, found no --file")
    split = [header.partition(":") for header in headers]
    if wrong := [header for header, (name, colon, _) in zip(headers, split, strict=True) if not colon or not name]:
        raise click.UsageError(f'expected a header like "Content-Type: text/html", found "{wrong[0]}"')
    pages = {name.strip(): value.strip() for name, _, value in split}
    files = Files(paths, url, pages, 200 if status is None else status) if paths else None
    settings = load_near(data)
    if live:
        settings = options.live(settings)
    elif settings.fetch.origins and "NEARFETCH__FETCH__ORIGINS" not in os.environ and not paths:
        say("The sample site of scripts/up answers for the sites that it knows. --live asks the real ones.", err=True)
    return settings, files, deadline


@contextmanager
def refusing() -> Iterator[None]:
    """Ends the command when settings or a definition are wrong."""
    try:
        yield
    except Faults as faults:
        refuse(faults)


@click.group()
def source() -> None:
    """For authors of sources: try a definition without a stack, keep its records as a test, find its faults.

    Name a source by its id, or by the path of its file.

    \b
    nearfetch source list                                   which sources there are
    nearfetch source new shop.list https://shop.example/    begin with a commented definition
    nearfetch source try books.list category=poetry_23      run it here, and show its records
    nearfetch source sample books.list category=poetry_23   keep its pages and records as a test
    nearfetch source test                                   run all samples
    nearfetch source check                                  report all faults of definitions
    nearfetch source replay 01JDFQ3M1XK2V9Q0S8ZC4T7B5N      parse the kept answers of a task again
    """


@source.command("list")
@click.argument("words", nargs=-1, metavar="[WORD]...")
@gateway_options
@json_option
def list_(words: tuple[str, ...], url: str, data: Path | None, as_json: bool) -> None:
    """Lists the sources in whose id, region, title or params all WORDs occur: health, params and title; optional params in [ ].

    These are the gateway's sources, with their health. If no gateway answers, they are those that this machine defines.

    Ends with 0, or with 1 when there is none.

    \b
    nearfetch source list
    nearfetch source list tracking nyc
    nearfetch source list --json | jq -r '.sources[] | select(.health != "ok") | .id'
    """
    from scripts.commands import source_list  # noqa: PLC0415
    from scripts.stack.gateway_client import GatewayClient, NoGateway  # noqa: PLC0415

    try:
        client = GatewayClient.found(url, data)
    except NoGateway:
        client = None
    sys.exit(source_list.run(lambda: load_near(data), client, words, as_json=as_json))


@source.command()
@click.argument("id_", metavar="ID")
@click.argument("url")
@click.option("--fetch", is_flag=True, help="Fetch the page, and propose a format, rows and fields.")
@click.option("--file", "path", type=PAGE_FILE, help="Look at this file instead of fetching.")
@data_option
def new(id_: str, url: str, fetch: bool, path: Path | None, data: Path | None) -> None:
    """Writes a definition to begin with. It is valid at once, and shows the optional keys in comments.

    URL may contain {params}. The file goes into the first folder of NEARFETCH__SOURCES__PATH, else among the shipped
    sources.

    \b
    nearfetch source new shop.list 'https://shop.example/list/{category}'
    nearfetch source new shop.list https://shop.example/list/all --fetch
    """
    from scripts.authoring.trial import Files  # noqa: PLC0415
    from scripts.commands import source_new  # noqa: PLC0415

    files = Files([path]) if path is not None else None
    with refusing():
        sys.exit(source_new.run(load_near(data), id_, url, files=files, is_fetching=fetch))


@source.command("try")
@click.argument("words", nargs=-1, required=True, metavar="SOURCE [KEY=VALUE]...", shell_complete=complete)
@trial_options
@click.option("--rows", type=click.IntRange(1), default=10, show_default=True, help="How many records to show.")
@json_option
@data_option
def try_(words: tuple[str, ...], rows: int, as_json: bool, data: Path | None, **chosen_: Any) -> None:
    """Runs a source here like a worker, and shows its records, what each field found, and what was fetched.

    A required param that is not given takes the definition's example. If a scripts/up runs, its settings apply, so its
    sample site answers; otherwise NEARFETCH__FETCH__ALLOW and ORIGINS apply.

    Ends with 0 when it succeeded, 1 when it failed, 2 when the definition or the params are wrong.

    \b
    nearfetch source try books.list category=poetry_23
    nearfetch source try ./quotes.toml --rows 3
    nearfetch source try ./quotes.toml --file page.html --header 'Content-Type: text/html; charset=utf-8'
    nearfetch source try ecb.rates --json | jq .fields
    """
    from scripts.commands import source_try  # noqa: PLC0415

    settings, files, deadline = chosen(data, **chosen_)
    with refusing():
        sys.exit(source_try.run(settings, words, files=files, deadline_seconds=deadline, rows=rows, as_json=as_json))


@source.command()
@click.argument("words", nargs=-1, required=True, metavar="SOURCE [KEY=VALUE]...", shell_complete=complete)
@trial_options
@click.option("--name", default="", help="The sample's name. Default: the values of its params.")
@click.option("--replace", is_flag=True, help="Replace the sample of that name.")
@click.option("--failed", is_flag=True, help="Keep it even if it fails: a wall, a status, a page without rows.")
@data_option
def sample(words: tuple[str, ...], name: str, replace: bool, failed: bool, data: Path | None, **chosen_: Any) -> None:
    """Runs a source like try, and keeps its pages and records as a test of the definition.

    The sample is kept beside the definition, in samples/ID/NAME, as files to read and to compare, without secrets.

    Ends with 0 when it was kept, 1 when it failed, 2 when the definition or the params are wrong.

    \b
    nearfetch source sample books.list category=poetry_23
    nearfetch source sample quotes --file wall.html --failed --name wall
    """
    from scripts.commands import source_samples  # noqa: PLC0415

    settings, files, deadline = chosen(data, **chosen_)
    with refusing():
        sys.exit(
            source_samples.keep(
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
@click.option("--update", is_flag=True, help="Make the current outcome the expected one.")
@click.option("--all", "every", is_flag=True, help="Show all differences, not only the first three of each field.")
@json_option
@data_option
def test(sources: tuple[str, ...], update: bool, every: bool, as_json: bool, data: Path | None) -> None:
    """Runs the samples of all sources, or of these, without a network, and shows differences by record and field.

    Ends with 0 when all records are as expected, 1 when some differ, 2 when a definition is wrong or there is nothing to
    test.

    \b
    nearfetch source test
    nearfetch source test books.list --all
    nearfetch source test books.list --update && git diff
    """
    from scripts.commands import source_samples  # noqa: PLC0415

    with refusing():
        sys.exit(source_samples.test(load_near(data), sources, is_updating=update, as_json=as_json, every=every))


@source.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", shell_complete=complete)
@json_option
@data_option
def check(sources: tuple[str, ...], as_json: bool, data: Path | None) -> None:
    """Reports all faults in the definitions of all sources, or of these.

    Each fault has a line: file:line: key: what was expected, what was found, the nearest known key. ID.py is loaded, too.

    Ends with 0 when nothing is wrong, else with 2.

    \b
    nearfetch source check
    nearfetch source check books.list ./quotes.toml
    """
    from scripts.commands import source_check  # noqa: PLC0415

    sys.exit(source_check.run(load_near(data), sources, as_json=as_json))


@source.command()
@click.argument("task", default="", metavar="[TASK]")
@click.option("--source", "source_id", default="", metavar="ID", help="Use everything that is kept of this source.")
@click.option("--page", type=int, metavar="N", help="Print the N-th kept body as it came, and parse nothing.")
@click.option("--all", "every", is_flag=True, help="Show all differences, not only the first three of each field.")
@json_option
@data_option
def replay(task: str, source_id: str, page: int | None, every: bool, as_json: bool, data: Path | None) -> None:
    """Parses the kept answers of a task with today's definition, without a fetch, and shows what differs.

    Workers keep the answers of failures, and of a success now and then, on the host where they run (raw.path). Without
    TASK and --source this lists what is kept.

    Ends with 0 when all results are the same, 1 when something differs, 2 for wrong usage, 4 when nothing is kept.

    \b
    nearfetch source replay
    nearfetch source replay 01JDFQ3M1XK2V9Q0S8ZC4T7B5N
    nearfetch source replay --source books.list --json | jq 'select(.same | not) | .now.error'
    nearfetch source replay 01JDFQ3M1XK2V9Q0S8ZC4T7B5N --page 1 > page.html
    """
    from scripts.commands import source_replay  # noqa: PLC0415

    sys.exit(source_replay.run(load_near(data), task, source_id, page=page, as_json=as_json, every=every))
