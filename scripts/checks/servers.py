"""Checks of the servers that settings name: what ``nearfetch config check`` prints, and ``nearfetch doctor`` beside more.

findings    every server, as ``config check`` shows it: is it there, new enough, and set so that it keeps our promises?
redis_seen  one Redis in full: connection, version, settings, rights of our user, clock, room in memory and on the disk
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

import redis

from jobs.definition.catalog import Catalog, wrong_in
from regions import connect, durability, names, topology
from regions.durability import Shortfall
from regions.settings import Settings
from scripts.stack import hub_acl, policy
from scripts.stack.probes import broker, mongo


@dataclass(frozen=True)
class Server:
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


def findings(settings: Settings) -> Iterator[Server]:
    """Checks every server that the settings name."""
    yield (hub := _redis("central Redis", settings.hub.redis, settings.hub.durability, is_hub=True))
    if not hub.fault:
        yield from hub_users(settings)
    yield Server("RabbitMQ", connect.without_password(settings.hub.amqp), broker(settings.hub.amqp)() or "")
    if settings.hub.management_url:
        yield policy_finding(settings)
    if settings.hub.mongo:
        yield Server("history", connect.without_password(settings.hub.mongo), mongo(settings.hub.mongo)() or "")
    for name, region in settings.region.items():
        yield _redis(f"Redis of {name}", region.redis.url, region.redis.durability)
    yield from standbys(settings)


def standbys(settings: Settings) -> Iterator[Server]:
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
            yield Server(f"standby {name}", entry.id, "; ".join(faults))


def policy_command(settings: Settings) -> str:
    """The command that sets the queues' policy on the broker."""
    return shlex.join(["rabbitmqctl", *topology.policy_command(policy.virtual_host(settings.hub.amqp))])


def policy_finding(settings: Settings) -> Server:
    """Checks each queue's policy through the broker's management API."""
    where = connect.without_password(settings.hub.management_url)
    try:
        found = policy.shortfalls(settings, policy_command(settings))
    except policy.Unreadable as error:
        return Server("policy of the queues", where, str(error))
    return Server("policy of the queues", where, "", found)


def _redis(what: str, url: str, kind: str, *, is_hub: bool = False) -> Server:
    where, relaxed = connect.without_password(url), kind == "relaxed"
    try:
        with connect.open_redis(url, name="check", connections=1) as client:
            client.time()
            connect.check_redis(client, "it")
            found = durability.look(client)
    except redis.exceptions.NoPermissionError as error:
        if not is_hub:
            return Server(what, where, str(error))
        # A region's user may ask the hub's Redis for the time, but not for its settings.
        return Server(what, where, note=f"it answers; its settings are not shown to this user ({error})")
    except (*connect.AWAY, redis.exceptions.RedisError, connect.TooOld, ValueError) as error:
        return Server(what, where, str(error))
    note = durability.POWER_LOSS if is_hub and found.fsync == "everysec" else ""
    return Server(what, where, "", found.shortfalls, relaxed, note)


def hub_users(settings: Settings) -> Iterator[Server]:
    """Checks that each region's user on the hub's Redis has the rights that it needs, and no more.

    A user that can't be looked up is reported with a note.
    """
    with connect.open_redis(settings.hub.redis, name="check", connections=1) as client:
        for region in settings.region:
            what, where = f"hub's user of {region}", names.hub_user(region)
            try:
                yield Server(what, where, "", hub_acl.shortfalls(client, region))
            except redis.exceptions.ResponseError as error:
                yield Server(
                    what,
                    where,
                    note=f"can't be checked ({error}): nearfetch region add {region} prints the rights it needs",
                )
            except redis.exceptions.RedisError as error:
                yield Server(what, where, str(error))
