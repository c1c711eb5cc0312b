"""The parts of a stack: how each is started, and how it is found to be ready.

    servers   rabbitmq, its port mapper, the central Redis, a Redis for each region, the document store, the sample site,
              and the links to far regions
    regions   for each region a dashboard, workers and a bridge
    entry     the gateway, and the process that calls webhooks

They are stopped one stage at a time, from the last stage to the first, so no part loses a server that it needs.
"""

import contextlib
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regions import names
from regions.settings import ROOT, Region, Settings
from scripts.stack import configuration, distance, hub_acl, prometheus
from scripts.stack.configuration import Ports
from scripts.stack.dashboard_roles import OPERATOR_ACL, READER_ACL
from scripts.stack.data_folder import DataFolder
from scripts.stack.distance import Wan
from scripts.stack.probes import Probe, always, answers, listens, noted
from scripts.stack.services import RabbitMQ, Service, document_store, hub_write_bytes, redis_server

STAGES: Final = ("servers", "regions", "entry")
CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
HUB_BYTES_MIN, HUB_BYTES_MAX = 256_000_000, 2_000_000_000  # at 4.6 kB each, about 47,000 and 370,000 requests an hour


@dataclass(frozen=True)
class Part:
    """One part: its name, stage and command, and a probe that says why it is not ready (None once it is)."""

    name: str
    stage: str
    command: list[str]
    environment: Mapping[str, str]
    not_ready: Probe
    folder: Path = ROOT
    stop_seconds: int = 20
    group: str = ""  # at the supervisor, if it is not the stage's

    @property
    def known_as(self) -> str:
        """Its name at the supervisor."""
        return f"{self.group or self.stage}:{self.name}"


@dataclass(frozen=True)
class Stack:
    """All parts in the order of their start, and the broker."""

    parts: list[Part]
    broker: RabbitMQ


def build(
    data: DataFolder,
    wanted: Settings,
    ports: Ports,
    environ: Mapping[str, str],
    *,
    live: bool,
    new: Collection[str] | None = None,
) -> Stack:
    """The parts of a stack. Writes the configuration of its servers and its settings.

    ``new``: the regions that are added to a stack that runs with these settings; of the settings only theirs are written.
    """
    regions = {name: data.secret(f"rabbitmq {name}") for name in wanted.region}
    broker = RabbitMQ(data.path / "rabbitmq", ports.broker, password=data.secret("rabbitmq"), regions=regions)
    if new is None:
        configuration.write(data, wanted, ports, broker, live=live)
    else:
        configuration.write_regions(data, {name: wanted.region[name] for name in new}, ports, broker)
    prometheus.write(data, wanted, ports)
    hub_users = {names.hub_user(name): (data.secret(f"hub {name}"), hub_acl.rules(name)) for name in wanted.region}
    others = configuration.foreign(environ)
    hub = redis_server(
        "hub",
        data.path / "hub",
        ports.hub,
        password=data.secret("hub"),
        users=hub_users,
        maxmemory=str(hub_bytes()),
        write_bytes_max=hub_write_bytes(wanted.limits.records_bytes_max),
    )
    parts = [
        _server(broker.epmd(), others),
        _server(hub, others),
        *(_region_redis(data, name, ports.redis[name], others) for name in wanted.region),
        _server(document_store(data.path / "store", ports.store), others),
        _server(broker.service(has_epmd=True), others, stop_seconds=40),
    ]
    own = configuration.environment(data, environ)
    if ports.wan is not None:
        parts.append(_links(ports.wan, ports, others))
    if not live:
        parts.append(
            Part("site", "servers", python("scripts.site", "--port", str(ports.site)), own, listens(ports.site))
        )
    for name in wanted.region:
        parts += _region(
            data, wanted.region[name], ports.dashboard[name], configuration.environment(data, environ, name)
        )
    gateway = Part("gateway", "entry", python("scripts.cli", "gateway"), own, answers(ports.gateway, "/healthz"))
    webhooks = Part(
        "webhooks", "entry", python("scripts.cli", "webhooks"), own, noted(data.pid_file("webhooks")), stop_seconds=40
    )
    return Stack([*parts, webhooks, gateway], broker)


def _links(wan: Wan, ports: Ports, environ: Mapping[str, str]) -> Part:
    """The links between the hub and its regions, in one process."""
    servers = {distance.RABBITMQ: ports.broker, distance.REDIS: ports.hub, distance.SITE: ports.site}
    words = distance.words(wan, servers)
    command = python("scripts.stack.wan", "--control", str(wan.control), *words)
    return Part("wan", "servers", command, environ, listens(wan.control))


def of_region(region: str) -> list[str]:
    """The names of a region's parts, in the order in which they are stopped."""
    return [f"{kind}-{region}" for kind in ("bridge", "workers", "dashboard", "redis")]


def hub_bytes() -> int:
    """The memory limit for the hub's Redis, which keeps results for an hour: a quarter of this machine's, within limits."""
    there_is = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        there_is = min(there_is, int(CGROUP_LIMIT.read_text(encoding="ascii")))
    return max(HUB_BYTES_MIN, min(HUB_BYTES_MAX, there_is // 4))


def _region_redis(data: DataFolder, region: str, port: int, environ: Mapping[str, str]) -> Part:
    users = {
        "dashboard": (data.secret(f"dashboard redis {region}"), READER_ACL),
        "dashboard-operator": (data.secret(f"dashboard operator redis {region}"), OPERATOR_ACL),
    }
    name = f"redis-{region}"
    return _server(
        redis_server(name, data.path / name, port, password=data.secret(f"redis {region}"), users=users), environ
    )


def _region(data: DataFolder, region: Region, dashboard_port: int, environ: Mapping[str, str]) -> list[Part]:
    name, own = region.name, configuration.of_workers(environ, region)
    # Its operator's requests take the folder's key, if it has one.
    asking = {**environ, "NEARFETCH_DATA": str(data.path)}
    return [
        Part(f"workers-{name}", "regions", python("scripts.cli", "workers", name), own, always, stop_seconds=40),
        Part(f"bridge-{name}", "regions", python("scripts.cli", "bridge", name), environ, always),
        Part(f"dashboard-{name}", "regions", python("scripts.cli", "dashboard", name), asking, listens(dashboard_port)),
    ]


def _server(service: Service, environ: Mapping[str, str], stop_seconds: int = 20) -> Part:
    return Part(
        service.name,
        "servers",
        service.command,
        {**environ, **service.environment},
        service.not_ready,
        folder=service.log.parent,
        stop_seconds=stop_seconds,
    )


def python(*arguments: str) -> list[str]:
    """A command of this checkout: ``python -m`` with these arguments."""
    return [sys.executable, "-m", *arguments]
