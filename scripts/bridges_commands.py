"""``nearfetch bridges``: keeps the bridges of this host alive, and replaces them; what bridge.keeper does, for cron."""

# ruff: noqa: D301 - a backspace is click's mark for lines that stay as they are

import os
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scripts.options import data_option, json_option, load, refuse
from scripts.terminal import say, say_json

if TYPE_CHECKING:
    from bridge.keeper import Keeper, Report

DRAIN_SECONDS = 30.0
AT_ONCE = 16  # regions


@click.group()
def bridges() -> None:
    """Keeps a bridge of each region alive on this host, and replaces them without losing a task; made for cron.

    \b
    nearfetch bridges ensure fra             start one when none lives; silent when all is well
    nearfetch bridges restart --jitter 600   one after the other, within ten minutes

    scripts/cron/nearfetch.crontab is a crontab to begin with.
    """


@bridges.command()
@click.argument("regions", nargs=-1, metavar="[REGION]...")
@data_option
@json_option
def ensure(regions: tuple[str, ...], data: Path | None, as_json: bool) -> None:
    """Starts a bridge of each REGION (all of them by default) when none lives on this host.

    One that hangs is ended and replaced. Silent when there was nothing to do; runs may overlap.

    Ends with 0 when every region has a bridge, 1 when one has not, 2 for a wrong setting.

    \b
    nearfetch bridges ensure
    nearfetch bridges ensure fra --json | jq .regions
    """
    keepers = _keepers(regions, data)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = list(pool.map(lambda keeper: _acting(keeper.region, keeper.ensure), keepers))
    if not as_json:
        for report in done:
            for text in report.did:
                say(f"{report.region}: {text}", err=not report.ok)
    _end(done, as_json=as_json)


@bridges.command()
@click.argument("regions", nargs=-1, metavar="[REGION]...")
@click.option("--jitter", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Begin some time within this.")
@click.option(
    "--drain", type=click.FloatRange(0), default=DRAIN_SECONDS, show_default=True, metavar="SECONDS",
    help="How long a bridge may take to finish what it holds; then it is killed, and that is delivered again.",
)  # fmt: skip
@data_option
@json_option
def restart(regions: tuple[str, ...], jitter: float, drain: float, data: Path | None, as_json: bool) -> None:
    """Replaces the bridges of each REGION (of all by default) on this host, one after the other.

    A new one starts and consumes before the old one finishes what it holds, acks it and ends; a supervised one is told
    to end, and its supervisor starts the next. No task is lost or doubled. When a new one does not come to consume,
    the old one stays.

    Ends with 0 when all were replaced, 1 when one was not, 2 for a wrong setting.

    \b
    nearfetch bridges restart fra
    nearfetch bridges restart --jitter 1800 --drain 10
    """
    keepers = _keepers(regions, data)
    time.sleep(random.uniform(0.0, jitter))
    _end([_restart(keeper, drain, as_json=as_json) for keeper in keepers], as_json=as_json)


def _restart(keeper: "Keeper", drain_seconds: float, *, as_json: bool) -> "Report":
    def tell(text: str, is_fault: bool) -> None:
        if not as_json:
            say(f"{keeper.region}: {text}", err=is_fault)

    return _acting(keeper.region, lambda: keeper.restart(drain_seconds, tell))


def _keepers(regions: tuple[str, ...], data: Path | None) -> "list[Keeper]":
    """Who acts for each region; nobody where ``data`` names a scripts/up that does not run."""
    from bridge.keeper import Keeper  # noqa: PLC0415
    from regions.faults import Faults  # noqa: PLC0415
    from regions.settings import ROOT  # noqa: PLC0415
    from scripts import configuration  # noqa: PLC0415
    from scripts.data_folder import DataFolder  # noqa: PLC0415

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
        made.append(Keeper(folder, region, command, environment))
    return made


def _acting(region: str, act: Callable[[], "Report"]) -> "Report":
    """What was done; a folder that can't be used is a region's failure like any other."""
    from bridge.keeper import Report  # noqa: PLC0415

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
