"""``nearfetch config``: the settings in force, and whether the servers that they name are there and new enough."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import click
import msgspec

from regions import connect, topology
from regions.settings import Settings
from scripts.configuration import to_toml
from scripts.probes import broker, mongo, redis_answers

HIDDEN: Final = "(hidden)"
SECRETS: Final = ("password",)
URLS: Final = ("redis", "amqp", "mongo", "url", "redis_url", "proxy")


@dataclass(frozen=True)
class Finding:
    """One server: what it is for, where, and what is wrong (empty for nothing)."""

    what: str
    where: str
    fault: str


def check(settings: Settings, *, as_json: bool) -> int:
    """Asks every server; the exit code."""
    found = list(findings(settings))
    policy = shlex.join(["rabbitmqctl", *topology.policy_command()])
    if as_json:
        listed = [{"what": one.what, "where": one.where, "fault": one.fault or None} for one in found]
        click.echo(json.dumps({"servers": listed, "policy_command": policy}))
    else:
        for one in found:
            mark = click.style("fault", fg="red") if one.fault else click.style("  ok ", fg="green")
            click.echo(f"{mark}  {one.what:<20} {one.where}{f'   {one.fault}' if one.fault else ''}")
        click.echo("The queues need this policy, set once on the broker (scripts/up sets it on its own):")
        click.echo(f"  {policy}")
    return 1 if any(one.fault for one in found) else 0


def findings(settings: Settings) -> Iterator[Finding]:
    """Every server that the settings name."""
    yield Finding(
        "central Redis", connect.without_password(settings.hub.redis), redis_answers(settings.hub.redis)() or ""
    )
    yield Finding("RabbitMQ", connect.without_password(settings.hub.amqp), broker(settings.hub.amqp)() or "")
    if settings.hub.mongo:
        yield Finding("history", connect.without_password(settings.hub.mongo), mongo(settings.hub.mongo)() or "")
    for name, region in settings.region.items():
        yield Finding(
            f"Redis of {name}", connect.without_password(region.redis.url), redis_answers(region.redis.url)() or ""
        )


def show(settings: Settings, *, as_json: bool) -> None:
    """Prints the settings, secrets hidden."""
    values = hidden(msgspec.to_builtins(settings))
    click.echo(json.dumps(values, ensure_ascii=False) if as_json else to_toml(values), nl=as_json)


def hidden(values: dict[str, Any]) -> dict[str, Any]:
    """The same values without a password in them."""
    shown: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            shown[key] = hidden(value)
        elif key in SECRETS and value:
            shown[key] = HIDDEN
        elif key in URLS and isinstance(value, str):
            shown[key] = connect.without_password(value)
        else:
            shown[key] = value
    return shown
