"""The last words of ``scripts/up``: where everything is and what to try, or why it did not start."""

import shlex
from collections.abc import Iterable
from typing import Any, Final

from regions.settings import Settings
from scripts.stack import distance, prometheus
from scripts.stack.configuration import Ports
from scripts.stack.data_folder import DataFolder, default_path
from scripts.stack.distance import Wan
from scripts.stack.gateway_client import GatewayClient
from scripts.stack.services import last_lines
from scripts.stack.startup import NotReady
from scripts.terminal import Progress, counted

FIRST: Final = ("ecb.rates", "quakes.day", "hn.front", "books.list", "slow.example")
LOG_LINES: Final = 12


def show(
    progress: Progress,
    data: DataFolder,
    wanted: Settings,
    ports: Ports,
    seconds: float,
    next_seconds: float | None,
    *,
    live: bool,
) -> None:
    """Prints the table of addresses and the commands to try."""
    url = f"http://127.0.0.1:{ports.gateway}"
    sources = GatewayClient(url, data.key).get("/v1/sources")["sources"]
    later = "" if next_seconds is None else f" ({next_seconds:.0f} s next time)"
    progress.line(f"Ready after {seconds:.0f} s{later}.")
    has_keys = wanted.gateway.keys
    progress.line(f"  {'api':<17} {url}/   {'needs a key' if has_keys else 'open on this machine only'}")
    if has_keys:
        progress.line(f"  {'key':<17} {data.key}   also in {data.path / 'key'}, where commands find it")
    for line in region_lines(data, wanted, ports, wanted.region, sources):
        progress.line(line)
    progress.line(f"  {'metrics':<17} {url}/metrics   {prometheus.command(data)}")
    if ports.wan is not None:
        for line in wan_lines(ports.wan):
            progress.line(line)
    if live:
        progress.line("  Pages come from the real sites.")
    else:
        progress.line("  Pages come from a sample site on this machine. --live asks the real sites.")
    names = lines_to_try(sources)
    if names:
        progress.line("Try in another terminal:")
        bearer = "-H 'Authorization: Bearer KEY' " if has_keys else ""
        progress.line(f"  curl -s {bearer}'{url}/v1/sources/{names[0]}/records' | head -c 300")
        progress.line(f"  scripts/nearfetch fetch {' '.join(names)}{data_option(data)}")


def wan_lines(wan: Wan) -> list[str]:
    """What ``--wan`` does: the round trip between the hub and each region, on all their connections to RabbitMQ and Redis."""
    far = [f"{region}  {one.shown}" for region, one in wan.regions.items()]
    sites = [
        f"http://127.0.0.1:{wan.ports[name]}/ ({region})"
        for region in wan.regions
        if (name := distance.link(region, distance.SITE)) in wan.ports
    ]
    lines = [f"  {'hub to region':<17} {far[0]}", *(f"  {'':<17} {line}" for line in far[1:])]
    lines.append("  A round trip, on each connection of bridges and workers to the hub's RabbitMQ and Redis.")
    if sites:
        lines.append(f"  The sample site from as far: {', '.join(sites)}")
    return lines


def region_lines(
    data: DataFolder, wanted: Settings, ports: Ports, regions: Iterable[str], sources: list[dict[str, Any]]
) -> list[str]:
    """A line for each of these regions: its title, its sources, its dashboard."""
    width = max(len(f"{name}  {region.title}") for name, region in wanted.region.items())
    lines = []
    for name in regions:
        region = wanted.region[name]
        count = sum(source["region"] == name for source in sources)
        title = f"{name}  {region.title}".ljust(max(width, 17))
        dashboard = f"rq-dashboard http://127.0.0.1:{ports.dashboard[name]}/"
        login = f"{region.dashboard.user} / {data.password(f'dashboard {name}')}"
        login += f"   {region.dashboard.operator_user} / {data.password(f'dashboard operator {name}')}"
        lines.append(f"  {title} {counted(count, 'source'):<12} {dashboard}   {login}")
    return lines


def lines_to_try(sources: list[dict[str, Any]]) -> list[str]:
    """Up to five sources as arguments of ``fetch``, with the examples of required params."""
    by_id = {source["id"]: source for source in sources if source.get("health") != "broken"}
    chosen = [name for name in FIRST if name in by_id] or sorted(by_id)[:5]
    words = []
    for name in chosen:
        params = by_id[name].get("params", {})
        required = {key: spec for key, spec in params.items() if spec.get("required")}
        if all(spec.get("example") is not None for spec in required.values()):
            words.append(name)
            words += [shlex.quote(f"{key}={spec['example']}") for key, spec in required.items()]
    return words


def failure(data: DataFolder, failed: Exception) -> str:
    """The message for a failed start: what failed, the last lines of its log, and what to do."""
    part = failed.part if isinstance(failed, NotReady) else "supervisord"
    log = data.log / f"{part}.log"
    return "\n".join(
        [
            f"{failed if isinstance(failed, NotReady) else 'The supervisor does not start.'}",
            last_lines(log, LOG_LINES) or "    (its log is empty)",
            f"Everything was stopped again. The whole log: {log}",
            f"Fix that and run {command(data)} again. With another --data DIR it starts from nothing.",
        ]
    )


def command(data: DataFolder) -> str:
    """The command ``scripts/up`` for this data folder."""
    return f"scripts/up{data_option(data)}"


def data_option(data: DataFolder) -> str:
    """The option that names the data folder; empty for the default one."""
    return "" if data.path == default_path() else f" --data {shlex.quote(str(data.path))}"
