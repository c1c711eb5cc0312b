"""``nearfetch source try``: runs a source here, and shows the requests, the answers, and the records."""

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import click

from jobs.definition.catalog import Entry
from jobs.definition.model import BadParams
from jobs.page import Request
from regions.faults import Faults
from regions.settings import Settings
from scripts.authoring import trial
from scripts.authoring.trial import Exchange, Files, Hits, Trial
from scripts.commands.source_check import faults, find
from scripts.terminal import Progress, counted, duration, say, say_json, size

CELL_WIDTHS: Final = (40, 32, 26, 20, 16, 12)  # the widest that fits into the terminal is used
COLUMN_GAP: Final = 3
LINE_WIDTH: Final = 400
ROWS: Final = 10
MISSES_SHOWN: Final = 3
INTERRUPTED: Final = 130
NOTHING: Final = "null"


def run(
    settings: Settings,
    words: Sequence[str],
    *,
    files: Files | None,
    deadline_seconds: float | None,
    rows: int,
    as_json: bool,
) -> int:
    """Returns 0 when the task succeeded, 1 when it failed. Raises what ``attempt`` raises."""
    done, is_interrupted = attempt(settings, words, files=files, deadline_seconds=deadline_seconds, is_quiet=as_json)
    if as_json:
        say_json(document(done))
    else:
        show(done, rows)
    return INTERRUPTED if is_interrupted else int(done.is_failed)


def attempt(
    settings: Settings, words: Sequence[str], *, files: Files | None, deadline_seconds: float | None, is_quiet: bool
) -> tuple[Trial, bool]:
    """Runs ``SOURCE [KEY=VALUE]…`` and prints each fetch when it is done. Also returns whether Ctrl-C ended it.

    Raises ``Faults`` with everything wrong with the definition, and click's ``UsageError`` for wrong words.
    """
    entry, params, examples = asked(settings, words)
    progress = None if is_quiet else Progress()

    def begun(request: Request) -> None:
        if progress is not None:
            progress.waiting(f"{request.method} {request.url}")

    def done(exchange: Exchange) -> None:
        if progress is not None:
            progress.line(exchange_line(exchange))

    if progress is not None:
        given = " ".join(f"{name}={text}" for name, text in examples.items())
        progress.line(f"{entry.id}  {entry.region}" + (f"   {given} (the definition's example)" if given else ""))
    with trial.interruptible() as cancelled:
        try:
            found = trial.run(
                settings,
                entry,
                params,
                answers=files,
                deadline_seconds=deadline_seconds,
                begun=begun,
                done=done,
                cancelled=cancelled,
            )
        except ValueError as error:
            raise click.UsageError(f"the params of {entry.id} give no valid URL: {error}") from error
        return found, cancelled()


def asked(settings: Settings, words: Sequence[str]) -> tuple[Entry, dict[str, object], dict[str, str]]:
    """A source that can be run, its params, and those among them that are examples."""
    entry = find(settings, words[0])
    found = faults(settings, entry)
    if found or entry.definition is None:
        raise Faults(found or entry.faults)
    texts: dict[str, str] = {}
    for word in words[1:]:
        name, separator, value = word.partition("=")
        if not separator or name in texts:
            raise click.UsageError(f"expected each param of {entry.id} once, as KEY=VALUE, found {word}")
        texts[name] = value
    try:
        params, examples = trial.bound(entry.definition, texts)
    except BadParams as bad:
        faults_text = "\n".join(f"  {name}: {detail}" for name, detail in bad.faults)
        raise click.UsageError(f"these params do not fit {entry.id}:\n{faults_text}") from bad
    return entry, params, examples


def exchange_line(exchange: Exchange) -> str:
    """The line of a fetch: the request, the answer, and how long it took."""
    begin = f"  {exchange.request.method} {exchange.request.url}"
    page, took = exchange.page, duration(exchange.seconds)
    if page is None:
        return f"{begin}   {exchange.error.type if exchange.error is not None else ''}   {took}"
    moved = f"   → {page.url}" if page.url != exchange.request.url else ""
    return f"{begin}{moved}   {page.status}   {size(len(page.body))}   {took}"


def document(done: Trial) -> dict[str, Any]:
    """The whole outcome for programs: the result that clients would get, and the ``rows`` of a failed task."""
    fetches = [
        {
            "method": one.request.method,
            "url": one.request.url,
            "final_url": one.page.url if one.page is not None else None,
            "status": one.page.status if one.page is not None else None,
            "bytes": len(one.page.body) if one.page is not None else None,
            "seconds": round(one.seconds, 4),
            "error": str(one.error) if one.error is not None else None,
        }
        for one in done.exchanges
    ]
    left = {"task", "attempts", "age", "cached", "stale"}  # known only within a stack
    result = {key: value for key, value in done.result.items() if key not in left}
    rows = {"rows": done.rows} if done.is_failed else {}
    hits = [asdict(one) for one in done.fields()]
    return {**result, **rows, "params": dict(done.params), "fields": hits, "fetches": fetches}


def show(done: Trial, count: int) -> None:
    """Prints records, fields, figures, warnings, and the error if there is one."""
    if done.rows:
        say()
        table(done.rows[:count], [one.name for one in done.fields()])
        if len(done.rows) > count:
            say(f"  {count} of {len(done.rows)} records; --rows N shows more, --json all")
        say()
        for line in hit_lines(done.fields(), len(done.rows)):
            say(line)
    say()
    for warning in done.result["warnings"]:
        say(f"warning: {warning}")
    say(figures(done))
    error = done.result["error"]
    if error is not None:
        status = f", status {error['http_status']}" if error["http_status"] else ""
        say(f"failed: {error['type']} ({error['origin']}{status}): {error['message']}")
        if error["type"] == "internal":
            say(done.traceback)


def figures(done: Trial) -> str:
    """The line with sizes and durations."""
    result = done.result
    pages = counted(sum(one.page is not None for one in done.exchanges), "page")
    timing = result["timing"]
    took = f"fetched in {duration(timing['fetch_ms'] / 1000)}, parsed in {duration(timing['parse_ms'] / 1000)}"
    partial = ", partial" if result["partial"] else ""
    sizes = f", {size(result['bytes']['raw'])} → {size(result['bytes']['wire'])}" if done.rows else ""
    return f"{counted(len(done.rows), 'record')} of {pages}{partial}{sizes}, {took}"


def hit_lines(fields: Iterable[Hits], count: int) -> Iterator[str]:
    """A line for each field: in how many records it has a value, and the first ones without a value."""
    fields = list(fields)
    width = max((len(one.name) for one in fields), default=0)
    for one in fields:
        places = ", ".join(map(str, one.misses[:MISSES_SHOWN])) + (", …" if len(one.misses) > MISSES_SHOWN else "")
        missing = f"   none in record{'s' if len(one.misses) > 1 else ''} {places}" if one.misses else ""
        yield f"  {one.name:<{width}}  {one.found:>{len(str(count))}} of {count}{missing}"


def table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Prints records as a table.

    A single record, or columns for which the terminal has no room, get a line for each field instead.
    """
    from rich.cells import cell_len  # noqa: PLC0415 - other commands need not wait for it

    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for width in CELL_WIDTHS if len(rows) > 1 else ():
        columns = [[name, *(cell(row.get(name), width) for row in rows)] for name in names]
        if (
            sum(max(map(cell_len, column)) + COLUMN_GAP for column in columns) + len(str(len(rows))) + COLUMN_GAP
            <= room
        ):
            _drawn(columns)
            return
    width = max(map(cell_len, names), default=0)
    for number, row in enumerate(rows, 1):
        if len(rows) > 1:
            say(f"  record {number}")
        for name in names:
            value = cell(
                row.get(name), LINE_WIDTH if room > LINE_WIDTH + width else max(room - width - 6, CELL_WIDTHS[-1])
            )
            say(f"  {name}{' ' * (width - cell_len(name))}  {value}")


def _drawn(columns: Sequence[Sequence[str]]) -> None:
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    is_terminal = sys.stdout.isatty()
    drawn = Table(box=box.SIMPLE_HEAD if is_terminal else None, pad_edge=False)
    drawn.add_column("", justify="right", style="dim", no_wrap=True)
    for name, *_ in columns:
        drawn.add_column(Text(name), no_wrap=True)
    for number, line in enumerate(zip(*(column[1:] for column in columns), strict=True), 1):
        drawn.add_row(str(number), *(Text(text, style="red" if text == NOTHING else "") for text in line))
    console = Console(width=10_000, highlight=False, color_system="auto" if is_terminal else None)
    with console.capture() as captured:
        console.print(drawn)
    for text in captured.get().splitlines():
        if text.strip():
            click.echo(f"  {text.rstrip()}")


def cell(value: Any, width: int) -> str:
    """A value for a table, on one line."""
    if value is None:
        return NOTHING
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return text if len(text) <= width else f"{text[: width - 1]}…"
