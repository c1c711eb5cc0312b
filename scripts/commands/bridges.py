"""``nearfetch bridges``: keeps this host's bridges alive and replaces them, from cron; bridge.ensure does the work."""

# ruff: noqa: D301 - \b tells click to keep the lines of a paragraph

import os
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scripts.commands import completion
from scripts.commands.options import data_option, json_option, load, refuse
from scripts.terminal import say, say_json

if TYPE_CHECKING:
    from bridge.ensure import RegionBridges, Report

DRAIN_SECONDS = 30.0
AT_ONCE = 16  # regions


@click.group()
def bridges() -> None:
    """Keeps a bridge of each region alive on this host, or replaces it without losing a task. For cron.

    \b
    nearfetch bridges ensure fra             start one if none is alive; print nothing if one is
    nearfetch bridges restart --jitter 600   replace them in turn, after up to ten minutes

    scripts/cron/nearfetch.crontab is an example.
    """


@bridges.command()
@click.argument("regions", nargs=-1, metavar="[REGION]...", shell_complete=completion.regions)
@data_option
@json_option
def ensure(regions: tuple[str, ...], data: Path | None, as_json: bool) -> None:
    """Starts a bridge of each REGION (of all by default) if none is alive on this host.

    A bridge that hangs is ended and replaced. If there is nothing to do, nothing is printed. Runs may overlap.

    Ends with 0 when every region has a bridge, 1 when one has none, 2 for a wrong setting.

    \b
    nearfetch bridges ensure
    nearfetch bridges ensure fra --json | jq .regions
    """
    all_bridges = _all_bridges(regions, data)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = list(pool.map(lambda one: _acting(one.region, one.ensure), all_bridges))
    if not as_json:
        for report in done:
            for text in report.did:
                say(f"{report.region}: {text}", err=not report.ok)
    _end(done, as_json=as_json)


@bridges.command()
@click.argument("regions", nargs=-1, metavar="[REGION]...", shell_complete=completion.regions)
@click.option(
    "--jitter",
    type=click.FloatRange(0),
    default=0.0,
    metavar="SECONDS",
    help="Wait a random time up to this before starting.",
)
@click.option(
    "--drain", type=click.FloatRange(0), default=DRAIN_SECONDS, show_default=True, metavar="SECONDS",
    help="How long a bridge may take to finish its messages; then it is killed, and RabbitMQ delivers them again.",
)  # fmt: skip
@data_option
@json_option
def restart(regions: tuple[str, ...], jitter: float, drain: float, data: Path | None, as_json: bool) -> None:
    """Replaces the bridges of each REGION (of all by default) on this host, one after the other.

    A new bridge starts and consumes. Then the old one finishes the messages that it holds, acks them and ends. A
    bridge under a supervisor is told to end, and its supervisor starts the next one. No task is lost or doubled. If the
    new bridge does not begin to consume, the old one stays.

    Ends with 0 when all were replaced, 1 when one was not, 2 for a wrong setting.

    \b
    nearfetch bridges restart fra
    nearfetch bridges restart --jitter 1800 --drain 10
    """
    all_bridges = _all_bridges(regions, data)
    time.sleep(random.uniform(0.0, jitter))
    _end([_restart(one, drain, as_json=as_json) for one in all_bridges], as_json=as_json)


def _restart(one: "RegionBridges", drain_seconds: float, *, as_json: bool) -> "Report":
    def tell(text: str, is_fault: bool) -> None:
        if not as_json:
            say(f"{one.region}: {text}", err=is_fault)

    return _acting(one.region, lambda: one.restart(drain_seconds, tell))


def _all_bridges(regions: tuple[str, ...], data: Path | None) -> "list[RegionBridges]":
    """The bridges of each region. None at all when ``data`` names a scripts/up that does not run."""
    from bridge.ensure import RegionBridges  # noqa: PLC0415
    from regions.faults import Faults  # noqa: PLC0415
    from regions.settings import ROOT  # noqa: PLC0415
    from scripts.stack import configuration  # noqa: PLC0415
    from scripts.stack.data_folder import DataFolder  # noqa: PLC0415

    settings = load(data)
    try:
        wanted = [settings.one(region).name for region in dict.fromkeys(regions)] or list(settings.region)
    except Faults as faults:
        refuse(faults)
    folder = settings.bridges.folder
    if folder is None:
        refuse("bridges.path: expected a folder of this host for its bridges' heartbeats and logs, found nothing")
    up = None if data is None else DataFolder(data)
    if up is not None and not up.url:
        return []
    made = []
    for region in wanted:
        environment = dict(os.environ) if up is None else configuration.environment(up, os.environ, region)
        environment["PYTHONPATH"] = str(ROOT)
        command = [sys.executable, "-P", "-m", "scripts.cli", "bridge", "--kept", region]
        made.append(RegionBridges(folder, region, command, environment))
    return made


def _acting(region: str, act: Callable[[], "Report"]) -> "Report":
    """The report of what was done. An unusable folder counts as a failure of the region, like any other."""
    from bridge.ensure import Report  # noqa: PLC0415

    try:
        return act()
    except OSError as error:
        report = Report(region)
        report.fail(f"the folder of bridges.path can't be used: {error}")
        return report


def _end(done: "list[Report]", *, as_json: bool) -> None:
    if as_json:
        shown: list[dict[str, Any]] = [
            {"region": one.region, "ok": one.ok, "pid": one.pid or None, "did": one.did} for one in done
        ]
        say_json({"regions": shown})
    sys.exit(0 if all(one.ok for one in done) else 1)
