"""``nearfetch status``: what is wrong, then the state of the gateway, its regions and its sources."""

from pathlib import Path
from typing import Any, Final

import click

from scripts.stack.gateway_client import GatewayClient
from scripts.terminal import counted, less, say, say_json, size

COLOURS: Final = {
    "up": "green",
    "ready": "green",
    "ok": "green",
    "degraded": "yellow",
    "failing": "yellow",
    "unknown": "white",
}
OK, FORBIDDEN = 200, 403
SEVERITIES: Final = {"page": "red", "ticket": "yellow"}
SOURCES_SHOWN: Final = 5  # for each region
HISTORY_FINE: Final = ("ok", "off", "")  # a gateway that is not ready reports no history


def run(client: GatewayClient, *, as_json: bool, regions_folder: Path | None = None) -> int:
    """Returns 0 when everything is up, else 1. ``regions_folder``: the regions' files of a ``scripts/up`` on this machine.

    A ticket about a source does not count: its site may have changed, and everything is up.
    """
    code, ready = client.status("/readyz")
    faults_code, found = client.status("/v1/faults")
    faults = found.get("faults", []) if faults_code == OK else []
    status, answer = client.status("/v1/regions")  # this call needs the hub's Redis, the others do not
    sources = client.get("/v1/sources")["sources"]
    regions, dead_letters = answer.get("regions", []), answer.get("dead_letters", 0)
    history = ready.get("history", "")
    well = code == status == OK and all(region["status"] == "up" for region in regions) and history in HISTORY_FINE
    well = well and not any(fault["severity"] == "page" or not fault["source"] for fault in faults)
    if as_json:
        shown = {"url": client.url, "faults": faults, "ready": ready, "regions": regions, "dead_letters": dead_letters}
        fault = {} if status == OK else {"regions_fault": answer.get("detail", "")}
        say_json({**shown, **fault, "sources": sources})
        return 0 if well else 1
    for fault in faults:
        say(fault_line(fault))
    if faults_code == FORBIDDEN:
        say("faults are not shown: that needs a key with the scope admin")
    say(
        f"gateway {client.url}   {coloured('ready' if code == OK else 'not ready')}{reason(ready) if code != OK else ''}"
    )
    if history not in HISTORY_FINE:
        say(f"  history: {history}")
    for region in regions:
        say(region_line(region, sources))
        if region.get("dashboard"):
            say(dashboard_line(region, regions_folder))
        if region.get("takeover"):
            say(takeover_line(region["takeover"]))
        if region.get("scale"):
            say(scale_line(region["scale"]))
        told = (*differs_lines(region.get("differs", {})), *day_lines(region.get("days", [])))
        for text in (*told, *traffic_lines(region.get("sources", {}))):
            say(text)
    if status != OK:
        say(f"  regions: {coloured('unknown')}{reason(answer)}")
    if dead_letters:
        say(f"  {counted(dead_letters, 'dead letter')}: nearfetch dead list")
    for source in sources:
        if source["health"] not in ("ok", "unknown") or (source["health"] == "ok" and source["reasons"]):
            say(f"  source {source['id']} ({source['region']}): {coloured(source['health'])}{reason(source)}")
    for source in sources:
        for standby, why in source.get("standby_faults", {}).items():
            say(f"  source {source['id']} ({source['region']}): {standby} could not take it over   {why}")
    health = [source["health"] for source in sources]
    say(
        f"{counted(len(sources), 'source')}: "
        + ", ".join(f"{health.count(kind)} {kind}" for kind in sorted(set(health)))
    )
    return 0 if well else 1


def fault_line(fault: dict[str, Any]) -> str:
    """The lines of a fault: its name and reason, then since when, what it costs, and what mends it."""
    whose = " ".join(fault[key] for key in ("region", "source") if fault[key])
    part = f" ({fault['part']})" if fault["part"] and not whose else ""
    how = coloured(fault["severity"].upper().ljust(6), SEVERITIES.get(fault["severity"], "yellow"))
    begin = f"{how} {fault['name']}{f' {whose}' if whose else ''}{part}: {fault['message']}"
    return f"{begin}\n        since {fault['since'][11:19]}Z; it costs: {fault['cost']}\n        mend: {fault['mend']}"


def region_line(region: dict[str, Any], sources: list[dict[str, Any]]) -> str:
    """The line of a region: its status, its figures, and what is away."""
    count = sum(source["region"] == region["name"] for source in sources)
    begin = f"  {region['name']:<5} {region['title']:<14} {coloured(region['status'].ljust(8))}"
    why = reason(region)
    line = "\n       " if why else ""
    return f"{begin}{why}{line} {counted(count, 'source')}{figures(region)}"


def dashboard_line(region: dict[str, Any], regions_folder: Path | None) -> str:
    """The address of the region's rq-dashboard, and the file that has its password. The password itself is never shown."""
    file = f"{region['name']}.toml"
    where = f"{regions_folder / file}" if regions_folder is not None else f"the region's {file}"
    return f"        rq-dashboard {region['dashboard']}   user and password: [dashboard] in {where}"


def takeover_line(takeover: dict[str, Any]) -> str:
    """Why and since when a region loses its tasks to standbys."""
    why = takeover["why"] + (f": {takeover['detail']}" if takeover["detail"] else "")
    well = f"; nothing is wrong since {takeover['well_since'][11:19]}Z" if takeover["well_since"] else ""
    return f"        {coloured('degraded')} standbys take its new tasks since {takeover['since'][11:19]}Z: {why}{well}"


def scale_line(scale: dict[str, Any]) -> str:
    """The number of worker processes wanted, and the last decision with its reason."""
    wanted = f"{counted(scale['number'], 'process', 'es')} wanted, {scale['min']} to {scale['max']} allowed"
    last = scale["decisions"][:1]
    why = f"; {last[0]['at'][11:19]}Z {last[0]['was']} → {last[0]['number']}: {last[0]['reason']}" if last else ""
    lines = [f"        {wanted}{why}"]
    if fault := scale.get("fault"):
        lines.append(f"        {coloured('degraded')} its [scale] is wrong, so the previous one applies: {fault}")
    return "\n".join(lines)


def differs_lines(differs: dict[str, dict[str, str]]) -> list[str]:
    """The sources whose definition in a region is not the gateway's."""
    lines = [
        f"        {source}: definition {one['there'] or 'none'} there, {one['here'] or 'none'} at the gateway"
        for source, one in list(differs.items())[:SOURCES_SHOWN]
    ]
    if len(differs) > SOURCES_SHOWN:
        lines.append(f"        and {counted(len(differs) - SOURCES_SHOWN, 'more source')} that differ: --json")
    return lines


def day_lines(days: list[dict[str, Any]]) -> list[str]:
    """The bytes that a region kept off the WAN on the latest day, and on all days that are known."""
    if not days:
        return []
    last, kept = days[0], sum(day["kept_off_wan"] for day in days)
    return [
        f"        kept off the WAN: {size(last['kept_off_wan'])} on {last['day']}, {size(kept)} in {counted(len(days), 'day')}"
    ]


def traffic_lines(sources: dict[str, dict[str, Any]]) -> list[str]:
    """The bytes that a region's sources fetched, did not fetch again, and sent to the hub, for those with the largest pages."""
    most = sorted(sources.items(), key=lambda item: (-item[1]["received"] - item[1]["spared"], item[0]))
    width = max((len(name) for name, _ in most[:SOURCES_SHOWN]), default=0)
    lines = [
        f"        {name:<{width}} {counted(sums['runs'], 'run'):>12} {size(sums['received']):>9} fetched,"
        f" {size(sums['spared']):>8} not again \u2192 {size(sums['wire']):>8} home,"
        f" {size(sums['kept_off_wan'])} kept off the WAN, {size(sums['today']['kept_off_wan'])} of it today"
        for name, sums in most[:SOURCES_SHOWN]
    ]
    if len(most) > SOURCES_SHOWN:
        lines.append(f"        and {counted(len(most) - SOURCES_SHOWN, 'more source')}: --json, or /v1/regions")
    return lines


def figures(region: dict[str, Any]) -> str:
    """A region's figures."""
    queue, pools = region["queue"], region["workers"]
    processes, busy = (sum(pool[key] for pool in pools) for key in ("processes", "busy"))
    crossed = less(*(region["bytes"][of] for of in ("received", "spared", "wire")))
    return f"   {queue['open']} open   {counted(processes, 'worker process', 'es')}, {busy} busy   {crossed}"


def reason(answer: dict[str, Any]) -> str:
    """The reason, as the answer words it."""
    reasons = answer.get("reasons") or [answer.get("detail") or answer.get("reason") or ""]
    return f"   {', '.join(map(str, reasons))}" if any(reasons) else ""


def coloured(status: str, colour: str = "") -> str:
    """A status in colour. click removes the colour when the output is not a terminal."""
    return click.style(status, fg=colour or COLOURS.get(status.strip(), "red"))
