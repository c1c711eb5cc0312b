"""``nearfetch``: all commands and their options. What a command does stands in a file of its own.

A command imports what it needs inside its function, since each import delays the shell.
"""

# ruff: noqa: D301 - \b tells click to keep the lines of a paragraph

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from regions.faults import Faults
from scripts import VERSION
from scripts.commands import completion
from scripts.commands.bridges import bridges
from scripts.commands.dead import dead
from scripts.commands.key import key
from scripts.commands.options import (
    WRONG_USAGE,
    data_option,
    gateway_options,
    json_option,
    load,
    load_near,
    load_with_folder,
    refuse,
)
from scripts.commands.region import asking, day, region, scale
from scripts.commands.source import source
from scripts.commands.webhook import webhook
from scripts.stack.data_folder import DataFolder, default_path
from scripts.stack.gateway_client import GatewayClient, NoGateway, Refused
from scripts.terminal import say

NO_GATEWAY = 3


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="nearfetch")
def main() -> None:
    """Gets data on demand from many sources, close to where each source lives.

    \b
    nearfetch fetch ecb.rates quakes.day      ask for two sources
    nearfetch status                          what runs, and what is away
    nearfetch doctor                          what is wrong, what it costs, and what mends it

    \b
    Completion for bash (zsh likewise; fish: nearfetch completion fish | source):
    eval "$(nearfetch completion bash)"
    """


@main.command()
def gateway() -> None:
    """Runs the gateway: the HTTP interface of section [gateway] in nearfetch.toml.

    \b
    nearfetch gateway
    NEARFETCH__GATEWAY__PORT=8081 nearfetch gateway
    """
    from web import gateway  # noqa: PLC0415

    _process(gateway.run, gathers_log=True)


@main.command()
@click.argument("region", shell_complete=completion.regions)
@click.option("--kept", is_flag=True, hidden=True)  # set when `bridges ensure` starts it
def bridge(region: str, kept: bool) -> None:
    """Runs a bridge of REGION: moves its tasks from RabbitMQ to the region's Redis.

    \b
    nearfetch bridge fra
    """
    from bridge import bridge as part  # noqa: PLC0415

    _process(lambda settings: part.run(settings, settings.one(region).name, kept=kept))


@main.command()
@click.argument("region", shell_complete=completion.regions)
@click.option("--dry-run", is_flag=True, help="Say how many processes would run, and why; start none.")
def workers(region: str, dry_run: bool) -> None:
    """Runs worker processes of REGION: they fetch, parse, and send the records to the hub.

    The region's load and its [scale] settings decide how many; several hosts share the number.

    \b
    nearfetch workers fra
    nearfetch workers fra --dry-run
    """
    if dry_run:
        from scripts.commands import scale as scale_command  # noqa: PLC0415

        _process(lambda settings: asking(region, lambda: scale_command.dry_run(settings.one(region))))
    from jobs.pool import processes  # noqa: PLC0415
    from regions.settings import Again  # noqa: PLC0415

    _process(lambda settings: processes.run(settings, settings.one(region).name, reload=Again(region)))


@main.command()
def webhooks() -> None:
    """Runs a process that calls the webhooks of ended requests, from the hub. Any number of them may run.

    \b
    nearfetch webhooks
    NEARFETCH__WEBHOOKS__PROXY=http://10.0.0.8:3128 nearfetch webhooks
    """
    from jobs.webhook import sender  # noqa: PLC0415

    _process(sender.run)


@main.command()
@click.argument("region", shell_complete=completion.regions)
def dashboard(region: str) -> None:
    """Runs rq-dashboard for REGION, behind a password.

    \b
    nearfetch dashboard fra
    """
    from scripts.stack import dashboard as part  # noqa: PLC0415

    _process(lambda settings: part.run(settings, settings.one(region).name))


@main.command()
@gateway_options
@json_option
def status(url: str, data: Path | None, as_json: bool) -> None:
    """Shows the state of the regions and the sources, and what is away.

    Ends with 0 when everything is up, 1 when something is away, 3 when no gateway answers.

    \b
    nearfetch status
    nearfetch status --json | jq '.regions[].status'
    """
    from scripts.commands import status as status_command  # noqa: PLC0415

    def run() -> int:
        client = GatewayClient.found(url, data)
        folder = DataFolder(data or default_path())
        regions = folder.regions if client.url == folder.url.rstrip("/") else None
        return status_command.run(client, as_json=as_json, regions_folder=regions)

    sys.exit(_asking(run))


@main.command()
@gateway_options
@click.option("--all", "every", is_flag=True, help="Show also what is fine, and what can't be seen from here.")
@json_option
def doctor(url: str, data: Path | None, every: bool, as_json: bool) -> None:
    """Looks at all that a stack needs, and says what is wrong, what it costs, and what mends it. Changes nothing.

    It checks connections, rights, policy, clocks, versions, disks, limits, definitions, certificates, the lines for cron, and the
    faults that the gateway reports. Run it at the hub, on a region's host (for that region), or, without any setting, beside a
    running scripts/up.

    Ends with 0 when nothing is wrong, 1 when something is, 2 for wrong settings or usage. It stays 0 for what could be better.

    \b
    nearfetch doctor
    nearfetch doctor --all
    nearfetch doctor --json | jq -r '.findings[] | select(.severity == "wrong") | .mend'
    """
    from scripts.commands import doctor as doctor_command  # noqa: PLC0415

    settings, near = load_with_folder(data)
    sys.exit(doctor_command.run(doctor_command.place(settings, url, data, near), as_json=as_json, every=every))


@main.command()
@click.argument("task")
@gateway_options
@json_option
def where(task: str, url: str, data: Path | None, as_json: bool) -> None:
    """Shows where a task or a request is or was: each hop with its time and place, what it waited for, and each attempt.

    TASK is a task's id, which requests and results show. It is known until its request expires.

    \b
    nearfetch where 01M87RTYV9Y5XD88GQ9E7T7S17
    """
    from scripts.commands import where as where_command  # noqa: PLC0415

    sys.exit(_asking(lambda: where_command.run(GatewayClient.found(url, data), task, as_json=as_json)))


@main.command()
@click.argument("words", nargs=-1, required=True, metavar="SOURCE [KEY=VALUE]... ...", shell_complete=completion.words)
@gateway_options
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Only the records, as CSV; for one source.")
@click.option("--ndjson", "as_ndjson", is_flag=True, help="Only the records, as JSON, one on each line.")
@click.option("--deadline", type=float, metavar="SECONDS", help="Give a task at most this long (30 by default).")
@click.option(
    "--max-age", type=click.FloatRange(0), metavar="SECONDS", help="Take an answer of up to this age (0 by default)."
)
@click.option("--curl", is_flag=True, help="Print the calls as curl commands instead of making them.")
def fetch(
    words: tuple[str, ...],
    url: str,
    data: Path | None,
    as_json: bool,
    as_csv: bool,
    as_ndjson: bool,
    deadline: float | None,
    max_age: float | None,
    curl: bool,
) -> None:
    """Asks for one or more sources, and shows each result as soon as it arrives.

    KEY=VALUE is a param of the source before it. The same source may be given several times.

    Ends with 0 when all succeeded, 1 when some failed, 2 for wrong usage, 3 when no gateway answers.

    \b
    nearfetch fetch ecb.rates
    nearfetch fetch books.list category=poetry_23 books.list category=travel_2
    nearfetch fetch ecb.rates quakes.day --deadline 10 --json | jq .records
    nearfetch fetch books.list category=poetry_23 --csv > books.csv
    nearfetch fetch ecb.rates --max-age 600
    """
    from scripts.commands import fetch as fetch_command  # noqa: PLC0415

    if as_json + as_csv + as_ndjson > 1:
        raise click.UsageError("expected one of --json, --csv and --ndjson, found several")
    form: fetch_command.Form = "json" if as_json else "csv" if as_csv else "ndjson" if as_ndjson else ""
    sys.exit(
        _asking(
            lambda: fetch_command.run(
                GatewayClient.found(url, data),
                words,
                form=form,
                deadline_seconds=deadline,
                max_age_seconds=max_age,
                curl=curl,
            )
        )
    )


@main.command()
@click.argument("words", nargs=-1, required=True, metavar="SOURCE [KEY=VALUE]...", shell_complete=completion.words)
@gateway_options
@json_option
@click.option("--calls", type=click.IntRange(1), default=1, show_default=True, help="Show the means of several calls.")
@click.option("--monitor", is_flag=True, help="Watch the hub's Redis and the region's, which slows a busy one down.")
def trace(words: tuple[str, ...], url: str, data: Path | None, as_json: bool, calls: int, monitor: bool) -> None:
    """Asks for one source synchronously, and draws how long each hop of the call takes.

    Without --monitor the times between the first and the last are whole milliseconds; the means of many calls are more exact. With it
    they are microseconds. It needs the settings of both servers, and users with the right to MONITOR.

    Ends with 0 when the calls succeeded, 1 when one failed, 2 for wrong usage, 3 when no gateway or server answers.

    \b
    nearfetch trace ecb.rates
    nearfetch trace books.list category=poetry_23 --calls 100 --monitor
    nearfetch trace ecb.rates --calls 100 --json | jq '.hops[] | {hop, took_ms}'
    """
    from scripts.commands import trace as trace_command  # noqa: PLC0415

    settings = load_near(data) if monitor else None
    run = trace_command.run
    sys.exit(_asking(lambda: run(GatewayClient.found(url, data), words, settings, calls=calls, as_json=as_json)))


@main.command()
@click.option(
    "--seed", type=int, metavar="N", help="The same seed makes the same plan. Without one, the clock gives it."
)
@click.option("--tasks", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--minutes", type=click.FloatRange(0.5, 600), default=10.0, show_default=True)
@click.option("--faults", default="", metavar="KIND,KIND", help="Only these kinds: kill,pause or kill-worker,cut.")
@click.option(
    "--scale", is_flag=True, help="Let the load come in waves, so that every region has to grow and to shrink."
)
@click.option("--keep", is_flag=True, help="Keep the stack's folder, with its logs.")
@json_option
def chaos(seed: int | None, tasks: int, minutes: float, faults: str, scale: bool, keep: bool, as_json: bool) -> None:
    """Puts load on a stack of its own, breaks parts of it meanwhile, and checks every id.

    Ends with 0 when no task was lost, doubled or changed and each that had to succeed did, else with 1.

    \b
    nearfetch chaos --seed 7 --tasks 500 --minutes 1
    nearfetch chaos --seed 7 --faults kill,swallow --json | jq .faults
    nearfetch chaos --seed 7 --tasks 1000 --minutes 1.5 --scale
    """
    from scripts.chaos import plan  # noqa: PLC0415
    from scripts.commands import chaos as chaos_command  # noqa: PLC0415

    try:
        kinds = plan.kinds_of([word for word in faults.split(",") if word])
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--faults") from error
    seed = seed if seed is not None else int(time.time())
    sys.exit(chaos_command.chaos(seed, tasks, minutes, kinds, scaled=scale, as_json=as_json, keep=keep))


@main.command()
@click.option(
    "--rows", default="", metavar="ROW,ROW", help="Measure only these; by default the first four, interactive and up."
)
@click.option(
    "--rounds", type=click.IntRange(1), help="How many times to measure everything; 5 by default, 3 with --quick."
)
@click.option(
    "--quick", is_flag=True, help="Measure less, in under 3 minutes: tiny and page, unless --rows names others."
)
@click.option("--ours", is_flag=True, help="Leave Celery out.")
@click.option("--write", "written", is_flag=True, help="With geo: write the table and the picture of docs/.")
@json_option
@click.argument("what", required=False, type=click.Choice(["geo"]), metavar="[geo]")
def bench(
    rows: str, rounds: int | None, quick: bool, ours: bool, written: bool, as_json: bool, what: str | None
) -> None:
    """Measures Nearfetch, Bottle + Celery, and bare loops in turn, on the same pages.

    With geo: the same pages from across an ocean, fetched from the hub directly and through a region: time, and bytes across
    the ocean. It takes about 20 minutes, with --quick about 5.

    Rows: tiny, page, page-100ms, page-1s, and interactive: synchronous calls beside a full load of tiny answers, of each
    page, and of all in turn. For one of these loads name interactive-tiny, interactive-page, interactive-page-100ms,
    interactive-page-1s or interactive-mix. The row up measures synchronous calls in a whole up of three regions. More rows
    measure Nearfetch alone, if you name them: bridge, in-flight, waiters, backlog, neighbour, tenants, keys, wan, idle, capacity.

    Ends with 0 when everything was measured, 1 when something did not start or answered wrongly, 4 when Celery is so
    slow here that a comparison would not be fair.

    \b
    nearfetch bench --quick
    nearfetch bench --rows page,page-100ms --rounds 7 --json > bench.json
    nearfetch bench --rows interactive --rounds 1 --ours
    nearfetch bench --rows bridge,waiters
    nearfetch bench geo --write
    """
    from scripts.commands import bench as bench_command  # noqa: PLC0415

    if what == "geo":
        if rows or rounds or ours:
            raise click.UsageError("geo takes only --quick, --json and --write")
        sys.exit(bench_command.geo(quick=quick, as_json=as_json, written=written))
    if written:
        raise click.UsageError("--write belongs to geo: nearfetch bench geo --write")

    names = [name for name in rows.split(",") if name]
    unknown = [name for name in names if name not in bench_command.NAMES]
    if unknown:
        known = ", ".join(bench_command.NAMES)
        raise click.BadParameter(f"expected rows ({known}), found {unknown[0]!r}", param_hint="--rows")
    sys.exit(bench_command.bench(names, rounds, quick=quick, ours=ours, as_json=as_json))


@main.command("completion")
@click.argument("shell", type=click.Choice(list(completion.CLASSES)))
def print_completion(shell: str) -> None:
    """Prints a script that makes SHELL complete commands, options, sources and their params.

    \b
    eval "$(nearfetch completion bash)"                       in ~/.bashrc
    eval "$(nearfetch completion zsh)"                        in ~/.zshrc, after compinit
    nearfetch completion fish | source                        in ~/.config/fish/config.fish
    """
    click.echo(completion.script(main, shell), nl=False)


main.add_command(source)
main.add_command(scale)
main.add_command(region)
main.add_command(day)
main.add_command(bridges)
main.add_command(dead)
main.add_command(key)
main.add_command(webhook)


@main.group()
def config() -> None:
    """Checks or shows the settings: nearfetch.toml (or NEARFETCH_CONFIG), the regions' files, the environment.

    \b
    nearfetch config check
    nearfetch config check --data ~/.local/share/nearfetch
    NEARFETCH_CONFIG=/etc/nearfetch.toml nearfetch config show
    """


@config.command()
@json_option
@data_option
def check(as_json: bool, data: Path | None) -> None:
    """Checks all settings and every server that they name, and reports all faults at once.

    Ends with 0 when everything is well, 1 when a server is away, too old, or has settings that could lose
    accepted tasks, 2 when a setting is wrong.
    """
    from scripts.commands import config as config_command  # noqa: PLC0415

    sys.exit(config_command.check(load(data), as_json=as_json))


@config.command()
@json_option
@data_option
def show(as_json: bool, data: Path | None) -> None:
    """Prints the settings in force as TOML, without secrets."""
    from scripts.commands import config as config_command  # noqa: PLC0415

    config_command.show(load(data), as_json=as_json)


def _process(run: Callable[[Any], int], *, gathers_log: bool = False) -> None:
    """Runs a part until it is told to stop, and exits with its code; with 2 for a wrong setting."""
    from regions import logs  # noqa: PLC0415

    settings = load()
    logs.configure(settings.log.format, settings.log.level, gathers=gathers_log)
    try:
        code = run(settings)
    except Faults as faults:
        refuse(faults)
    sys.exit(code)


def _asking(command: Callable[[], int]) -> int:
    """Runs a command that asks a gateway, and returns its exit code."""
    try:
        return command()
    except NoGateway as error:
        say(str(error), err=True)
        return NO_GATEWAY
    except Refused as refused:
        say(str(refused), err=True)
        return WRONG_USAGE if refused.status in (400, 404, 413, 415, 422) else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    main(prog_name="nearfetch")
