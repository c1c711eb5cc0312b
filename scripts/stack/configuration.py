"""The settings that ``scripts/up`` generates: the user's own settings, with private servers, ports and secrets filled in.

The user's files and environment are read once, here, and all their faults reported. The result is written down. The parts
read only the generated files, and see none of the variables.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from regions import names, settings
from regions.secret import VARIABLE
from regions.settings import Settings
from scripts.site.site import origins
from scripts.stack import distance
from scripts.stack.data_folder import DataFolder
from scripts.stack.distance import Distance, Wan
from scripts.stack.services import RabbitMQ

# Each port is the gateway's plus an offset; a port that is taken is replaced by a free one.
BROKER, HUB, STORE, DASHBOARDS, SITE, REGION_REDIS, BRIDGE_METRICS, WORKERS_METRICS, WAN = (
    2,
    3,
    4,
    11,
    19,
    31,
    51,
    61,
    70,
)


@dataclass(frozen=True)
class Ports:
    """The port of each part, on the loopback address; those of regions by their names.

    ``bridge_metrics``, ``workers_metrics``: where they serve ``/metrics``. ``wan``: the links between hub and regions, if they are far from it.
    """

    gateway: int
    broker: int
    hub: int
    store: int
    site: int
    redis: dict[str, int]
    dashboard: dict[str, int]
    bridge_metrics: dict[str, int]
    workers_metrics: dict[str, int]
    wan: Wan | None = None

    def of_hub(self, server: str, region: str = "") -> int:
        """The port of a server of the hub, ``rabbitmq`` or ``redis``, as the hub or a region sees it."""
        if region and self.wan is not None:
            return self.wan.ports[distance.link(region, server)]
        return self.broker if server == distance.RABBITMQ else self.hub


def choose_ports(
    data: DataFolder,
    wanted: Settings,
    gateway: int,
    distances: Mapping[str, Distance] | None = None,
    *,
    live: bool = False,
    new: Collection[str] | None = None,
) -> Ports:
    """The ports of a stack: those that it had before, else those derived from the gateway's, else free ones.

    ``distances``: how far its regions are, if links stand between them and the hub. ``live``: there is no sample site.
    ``new``: the regions that are added to a stack that runs; its other ports are in use, and stay.
    """
    data.keep_port("gateway", gateway)

    def port(name: str, preferred: int, region: str = "") -> int:
        kept = data.kept_port(name)
        return data.port(name, preferred) if new is None or region in new or kept is None else kept

    def of_regions(what: str, first: int) -> dict[str, int]:
        return {name: port(f"{what} {name}", gateway + first + n, name) for n, name in enumerate(wanted.region)}

    return Ports(
        gateway=gateway,
        broker=port("broker", gateway + BROKER),
        hub=port("hub", gateway + HUB),
        store=port("store", gateway + STORE),
        site=port("site", gateway + SITE),
        redis=of_regions("redis", REGION_REDIS),
        dashboard=of_regions("dashboard", DASHBOARDS),
        bridge_metrics=of_regions("metrics bridge", BRIDGE_METRICS),
        workers_metrics=of_regions("metrics workers", WORKERS_METRICS),
        wan=None if distances is None else _links(data, gateway + WAN, distances, live=live),
    )


def _links(data: DataFolder, first: int, distances: Mapping[str, Distance], *, live: bool) -> Wan:
    servers = (distance.RABBITMQ, distance.REDIS, *[distance.SITE] * (not live))
    names_of = [distance.link(region, server) for region in distances for server in servers]
    control = data.port("wan", first)
    found = {name: data.port(f"wan {name}", first + 1 + n) for n, name in enumerate(names_of)}
    return Wan(control, found, distances)


def hub_url(data: DataFolder, ports: Ports, region: str = "") -> str:
    """The URL of the central Redis, for the gateway or for one region."""
    user, secret = (names.hub_user(region), f"hub {region}") if region else ("default", "hub")
    return f"redis://{user}:{data.secret(secret)}@127.0.0.1:{ports.of_hub(distance.REDIS, region)}/0"


def write(data: DataFolder, wanted: Settings, ports: Ports, broker: RabbitMQ, *, live: bool) -> None:
    """Writes ``nearfetch.toml``, a file for each region, and each region's URLs of the central Redis and of the broker."""
    hub = {
        **msgspec.to_builtins(wanted.hub),
        "redis": hub_url(data, ports),
        "amqp": broker.url,
        "management_url": "",
        "mongo": f"mongodb://127.0.0.1:{ports.store}/",
    }
    tables = {
        "hub": hub,
        "gateway": {**msgspec.to_builtins(wanted.gateway), "host": "127.0.0.1", "port": ports.gateway},
        "limits": msgspec.to_builtins(wanted.limits),
        "history": msgspec.to_builtins(wanted.history),
        "sources": {"path": ":".join(str(folder.absolute()) for folder in wanted.sources.folders)},
        "regions": {"path": str(data.regions)},
        "bridges": {"path": str(data.bridges.absolute())},
        "fetch": msgspec.to_builtins(wanted.fetch) if live else with_site(wanted.fetch, ports.site),
        "webhooks": msgspec.to_builtins(wanted.webhooks),
        "log": msgspec.to_builtins(wanted.log),
    }
    data.write("nearfetch.toml", to_toml(tables))
    for stale in data.regions.glob("*.toml"):
        if stale.stem not in wanted.region:
            stale.unlink()
    write_regions(data, wanted.region, ports, broker)


def write_regions(data: DataFolder, regions: Mapping[str, settings.Region], ports: Ports, broker: RabbitMQ) -> None:
    """Writes the file of each of these regions, and its URLs of the central Redis and of the broker."""
    for name, region in regions.items():
        table = msgspec.to_builtins(region)
        table.pop("name")
        table["redis"]["url"] = f"redis://default:{data.secret(f'redis {name}')}@127.0.0.1:{ports.redis[name]}/0"
        table["dashboard"] |= {
            "host": "127.0.0.1",
            "port": ports.dashboard[name],
            "password": data.password(f"dashboard {name}"),
            "redis_url": f"redis://dashboard:{data.secret(f'dashboard redis {name}')}@127.0.0.1:{ports.redis[name]}/0",
            "operator_password": data.password(f"dashboard operator {name}"),
            "operator_redis_url": f"redis://dashboard-operator:{data.secret(f'dashboard operator redis {name}')}@127.0.0.1:{ports.redis[name]}/0",
            "gateway_url": f"http://127.0.0.1:{ports.gateway}/",
        }
        table["metrics"] = {
            "host": "127.0.0.1",
            "bridge_port": ports.bridge_metrics[name],
            "workers_port": ports.workers_metrics[name],
        }
        for secret in table["secrets"].values():
            del secret["value"]  # only the region's workers get the value, in a variable
        table["raw"]["path"] = region.raw.path or str(data.path.absolute() / "raw" / name)
        data.write(f"regions/{name}.toml", to_toml(table))
        data.write(f"run/hub-{name}.url", hub_url(data, ports, name))
        data.write(f"run/rabbitmq-{name}.url", broker.region_url(name, ports.of_hub(distance.RABBITMQ, name)))


def with_site(fetch: settings.Fetch, port: int) -> dict[str, str]:
    """The fetch settings extended by the sample site: its address is allowed, and its origins lead to it.

    Origins that the user mapped stay as they are.
    """
    allow = [part for part in fetch.allow.split(",") if part]
    own = [part for part in fetch.origins.split(",") if part]
    taken = {part.partition("=")[0] for part in own}
    mapped = [part for part in origins(port).split(",") if part.partition("=")[0] not in taken]
    return {"allow": ",".join([*allow, f"127.0.0.1:{port}"]), "origins": ",".join([*own, *mapped])}


def environment(data: DataFolder, environ: Mapping[str, str], region: str = "") -> dict[str, str]:
    """A part's environment: no settings in variables, except for a region's URLs of the hub."""
    kept = foreign(environ)
    kept["NEARFETCH_CONFIG"] = str(data.settings)
    if region:
        kept[f"{settings.PREFIX}HUB__REDIS_FILE"] = str(data.run / f"hub-{region}.url")
        kept[f"{settings.PREFIX}HUB__AMQP_FILE"] = str(data.run / f"rabbitmq-{region}.url")
    return kept


def of_workers(environ: Mapping[str, str], region: settings.Region) -> dict[str, str]:
    """The environment of a region's workers: also the values of the region's secrets. No other part gets them."""
    given = {f"{VARIABLE}{name}": secret.value for name, secret in region.secrets.items() if secret.value}
    return {**environ, **given}


def foreign(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for programs that are not ours: without our variables, which may hold secrets."""
    return {key: value for key, value in environ.items() if not key.startswith("NEARFETCH_")}


def to_toml(tables: Mapping[str, Any]) -> str:
    """TOML of nested tables, lists of tables and plain values. None and empty lists are left out."""
    return "\n".join(_lines(tables, ())) + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    nested = {}
    for key, value in table.items():
        if isinstance(value, dict) or (isinstance(value, list | tuple) and value and isinstance(value[0], dict)):
            nested[key] = value
        elif value is not None and value not in ([], ()):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in nested.items():
        where = (*path, key)
        name = ".".join(map(_key, where))
        for one in [value] if isinstance(value, dict) else value:
            if not isinstance(value, dict):
                yield f"\n[[{name}]]"
            elif not one or not all(isinstance(part, dict) for part in one.values()):
                yield f"\n[{name}]"
            yield from _lines(one, where)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
