"""``nearfetch source list``: the sources that a gateway has, with their health, or those of the definitions on this machine."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regions.settings import Settings
from scripts.commands.source_check import known
from scripts.commands.status import coloured
from scripts.stack.gateway_client import GatewayClient, NoGateway, Refused
from scripts.terminal import counted, say, say_json
from web.api.source_view import source_view


def run(settings: Callable[[], Settings], client: GatewayClient | None, words: Sequence[str], *, as_json: bool) -> int:
    """Lists the sources in which all ``words`` occur. Returns 1 when there are none.

    ``settings`` is called if no gateway answers: the definitions that they name are listed then, without health.
    """
    found = None if client is None else _of_gateway(client)
    has_health = found is not None
    if found is None:
        entries = known(settings()).entries()
        found = [{**source_view(entry, {}), **({} if entry.faults else {"health": None})} for entry in entries]
    wanted = [word.lower() for word in words]
    listed = sorted((one for one in found if _has(one, wanted)), key=lambda one: str(one["id"]))
    if as_json:
        say_json({"gateway": client.url if client is not None and has_health else None, "sources": listed})
        return int(not listed)
    rows = [(one["id"], one["region"], one["health"] or "", _params(one["params"]), one["title"]) for one in listed]
    widths = [max((len(row[at]) for row in rows), default=0) for at in range(4)]
    for row, one in zip(rows, listed, strict=True):
        source, region, health, params, title = row
        colour = coloured(health.ljust(widths[2])) if health else " " * widths[2]
        say(f"  {source:<{widths[0]}}  {region:<{widths[1]}}  {colour}  {params:<{widths[3]}}  {title}".rstrip())
        for why in one["reasons"] if health in ("degraded", "failing", "broken") else ():
            say(f"  {'':<{widths[0]}}  {why}")
    where = (
        f"of the gateway {client.url}"
        if client is not None and has_health
        else "defined here; no gateway says their health"
    )
    say(f"{counted(len(listed), 'source')} {where}", err=True)
    return int(not listed)


def _of_gateway(client: GatewayClient) -> list[dict[str, Any]] | None:
    try:
        return list(client.get("/v1/sources")["sources"])
    except NoGateway:
        return None
    except Refused as refused:
        say(f"The gateway at {client.url} does not show its sources: {refused}", err=True)
        return None


def _has(source: Mapping[str, Any], words: Sequence[str]) -> bool:
    text = " ".join([source["id"], source["region"], source["title"], *source["params"]]).lower()
    return all(word in text for word in words)


def _params(params: Mapping[str, Mapping[str, Any]]) -> str:
    """The params in one line: ``category [start]``, optional ones in brackets."""
    named = sorted(params.items(), key=lambda one: not one[1]["required"])
    return " ".join(name if spec["required"] else f"[{name}]" for name, spec in named)
