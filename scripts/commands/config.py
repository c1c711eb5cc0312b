"""``nearfetch config``: shows the settings in force, and checks that the servers they name are up and set right."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import click
import msgspec
import redis

from jobs.definition.catalog import Catalog, wrong_in
from regions import connect, durability, names, topology
from regions.durability import Shortfall
from regions.egress import without_credentials
from regions.settings import Settings
from scripts.stack import hub_acl, policy
from scripts.stack.configuration import to_toml
from scripts.stack.probes import broker, mongo
from scripts.terminal import say, say_json
from web.http.server import connections_possible

HIDDEN: Final = "(hidden)"
SECRETS: Final = ("password", "value")
URLS: Final = ("redis", "amqp", "mongo", "url", "redis_url", "management_url")
PROXY: Final = "proxy"


@dataclass(frozen=True)
class Finding:
    """One server, or one standby: what it is for, where it is, and what is wrong with it (empty for nothing).

    ``shortfalls``: settings of a Redis that break a promise; ``relaxed``: our settings accept that.
    """

    what: str
    where: str
    fault: str = ""
    shortfalls: list[Shortfall] = field(default_factory=list)
    relaxed: bool = False
    note: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether a part would refuse to work with this server."""
        return bool(self.fault or (self.shortfalls and not self.relaxed))


def check(settings: Settings, *, as_json: bool) -> int:
    """Checks every server, and says what this machine permits; returns the exit code."""
    found = list(findings(settings))
    command = policy_command(settings)
    wanted = settings.gateway.connections_max
    connections = connections_possible(wanted)
    if as_json:
        listed = [
            {
                "what": one.what,
                "where": one.where,
                "fault": one.fault or None,
                "shortfalls": [msgspec.to_builtins(fall) for fall in one.shortfalls],
                "relaxed": one.relaxed,
            }
            for one in found
        ]
        say_json({"servers": listed, "policy_command": command, "connections_possible": connections})
    else:
        for one in found:
            mark = click.style("fault", fg="red") if one.is_bad else click.style("  ok ", fg="green")
            remark = one.fault or one.note
            say(f"{mark}  {one.what:<20} {one.where}{f'   {remark}' if remark else ''}")
            for fall in one.shortfalls:
                say(f"         {fall}{' (relaxed)' if one.relaxed else ''}\n           fix it: {fall.mend}")
        say(clients(connections, wanted))
        say("The queues need this policy. Set it once on the broker (scripts/up does so on its own):")
        say(f"  {command}")
    return 1 if any(one.is_bad for one in found) else 0


def findings(settings: Settings) -> Iterator[Finding]:
    """Checks every server that the settings name."""
    yield (hub := _redis("central Redis", settings.hub.redis, settings.hub.durability, is_hub=True))
    if not hub.fault:
        yield from hub_users(settings)
    yield Finding("RabbitMQ", connect.without_password(settings.hub.amqp), broker(settings.hub.amqp)() or "")
    if settings.hub.management_url:
        yield policy_finding(settings)
    if settings.hub.mongo:
        yield Finding("history", connect.without_password(settings.hub.mongo), mongo(settings.hub.mongo)() or "")
    for name, region in settings.region.items():
        yield _redis(f"Redis of {name}", region.redis.url, region.redis.durability)
    yield from standbys(settings)


def standbys(settings: Settings) -> Iterator[Finding]:
    """Checks that each standby has what the sources need that it may take over.

    The values of secrets are not looked for: only a region's workers have them, and report those that are missing.
    """
    catalog = Catalog(settings.source_folders, settings.first_region)
    catalog.refresh()
    for entry in catalog.entries():
        definition = entry.definition
        for name in definition.regions(entry.region)[1:] if definition is not None else ():
            region = settings.region.get(name)
            assert definition is not None
            faults = ["this region is not set up"] if region is None else map(str, wrong_in(region, definition))
            yield Finding(f"standby {name}", entry.id, "; ".join(faults))


def clients(found: int, wanted: int) -> str:
    """A line that says how many clients a gateway could hold that is started from here."""
    less = f", of {wanted:,} (gateway.connections_max)" if found < wanted else ""
    return f"The limit of open files permits a gateway here {found:,} clients at the same time{less}"


def policy_command(settings: Settings) -> str:
    """The command that sets the queues' policy on the broker."""
    return shlex.join(["rabbitmqctl", *topology.policy_command(policy.virtual_host(settings.hub.amqp))])


def policy_finding(settings: Settings) -> Finding:
    """Checks each queue's policy through the broker's management API."""
    where = connect.without_password(settings.hub.management_url)
    try:
        found = policy.shortfalls(settings, policy_command(settings))
    except policy.Unreadable as error:
        return Finding("policy of the queues", where, str(error))
    return Finding("policy of the queues", where, "", found)


def _redis(what: str, url: str, kind: str, *, is_hub: bool = False) -> Finding:
    where, relaxed = connect.without_password(url), kind == "relaxed"
    try:
        with connect.open_redis(url, name="check", connections=1) as client:
            client.time()
            connect.check_redis(client, "it")
            found = durability.look(client)
    except redis.exceptions.NoPermissionError as error:
        if not is_hub:
            return Finding(what, where, str(error))
        # A region's user may ask the hub's Redis for the time, but not for its settings.
        return Finding(what, where, note=f"it answers; its settings are not shown to this user ({error})")
    except (*connect.AWAY, redis.exceptions.RedisError, connect.TooOld, ValueError) as error:
        return Finding(what, where, str(error))
    note = durability.POWER_LOSS if is_hub and found.fsync == "everysec" else ""
    return Finding(what, where, "", found.shortfalls, relaxed, note)


def hub_users(settings: Settings) -> Iterator[Finding]:
    """Checks that each region's user on the hub's Redis has the rights that it needs, and no more.

    A user that can't be looked up is reported with a note.
    """
    with connect.open_redis(settings.hub.redis, name="check", connections=1) as client:
        for region in settings.region:
            what, where = f"hub's user of {region}", names.hub_user(region)
            try:
                yield Finding(what, where, "", hub_acl.shortfalls(client, region))
            except redis.exceptions.ResponseError as error:
                yield Finding(
                    what,
                    where,
                    note=f"can't be checked ({error}): nearfetch region add {region} prints the rights it needs",
                )
            except redis.exceptions.RedisError as error:
                yield Finding(what, where, str(error))


def show(settings: Settings, *, as_json: bool) -> None:
    """Prints the settings, without secrets."""
    values = hidden(msgspec.to_builtins(settings))
    click.echo(json.dumps(values, ensure_ascii=False) if as_json else to_toml(values), nl=as_json)


def hidden(values: dict[str, Any]) -> dict[str, Any]:
    """The same values without passwords."""
    shown: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            shown[key] = hidden(value)
        elif key in SECRETS and value:
            shown[key] = HIDDEN
        elif key in URLS and isinstance(value, str):
            shown[key] = connect.without_password(value)
        elif key == PROXY and isinstance(value, str):
            shown[key] = without_credentials(value)
        else:
            shown[key] = value
    return shown
