"""A whole stack of its own, as ``scripts/up`` starts one, with a link of scripts.proxy between each part and each server.

Its data folder is temporary. It ends with this process, and leaves nothing, also when that is killed.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pika
import redis

from regions import connect, names, settings
from regions.process import Process
from regions.settings import ROOT
from scripts import configuration, parts, processes
from scripts.chaos.points import Link, links
from scripts.configuration import Ports
from scripts.data_folder import DataFolder
from scripts.links import Control
from scripts.parts import Part, Stack
from scripts.ports import free_block
from scripts.probes import listens
from scripts.services import Guard
from scripts.startup import Ending, Startup
from scripts.supervision import Supervisor
from scripts.terminal import Progress

# Offsets from the gateway's port, behind those of scripts.configuration; a region has five links.
OF_RABBITMQ, OF_CONTROL, OF_LINKS = 45, 47, 48
PROXY: Final = "proxy"
SOURCE: Final = """
title = "Numbered rows, {region}"
url = 'https://bench.example/numbered{{?n,seconds}}'
region = "{region}"
format = "json"
[params]
n = {{type = "int", required = true, example = 1}}
seconds = {{type = "float", default = 0.0, example = 0.1}}
[rows]
jmes = "rows"
[fields]
n = {{}}
row = {{}}
text = {{}}
[limits]
concurrency = 1000
"""


class Quiet(Progress):
    """Says nothing."""

    def line(self, text: str = "") -> None:
        """Nothing."""

    def waiting(self, text: str) -> None:
        """Nothing."""


def source(region: str) -> str:
    """The source whose pages the load asks for, in a region."""
    return f"chaos.{region}"


class ChaosStack:
    """``start`` returns when everything is ready. What it hurts is found by the names of scripts.parts."""

    def __init__(self, environ: Mapping[str, str] | None = None, progress: Progress | None = None) -> None:
        """``environ``: settings for this stack, besides what the shell has that is not ours."""
        self.folder = Path(tempfile.mkdtemp(prefix="nearfetch-chaos-"))
        self._guard = Guard(
            ["/bin/sh", "-c", f'"{ROOT}/scripts/up" --stop --data "{self.folder}/data"; rm -rf "{self.folder}"']
        )
        self._progress = progress or Quiet()
        sources = self.folder / "sources"
        sources.mkdir()
        clean = {key: value for key, value in os.environ.items() if not key.startswith("NEARFETCH")}
        self.environ = {**clean, f"{settings.PREFIX}SOURCES__PATH": str(sources), **(environ or {})}
        self.data = DataFolder(self.folder / "data")
        self.data.open()
        self.settings = settings.load(self.environ)
        self.regions = list(self.settings.region)
        for region in self.regions:
            (sources / f"{source(region)}.toml").write_text(SOURCE.format(region=region), encoding="utf-8")
        first = free_block()
        self.ports: Ports = configuration.choose_ports(self.data, self.settings, first)
        self.data.write("rabbitmq/ports", f"{first + OF_RABBITMQ} {first + OF_RABBITMQ + 1}\n")
        self.supervisor = Supervisor(self.data)
        self.link_ports = {link.name: first + OF_LINKS + n for n, link in enumerate(links(self.regions))}
        control = first + OF_CONTROL
        self.stack = self._build(control)
        self.parts = {part.name: part for part in self.stack.parts}
        self.control = Control(control)
        self._clients: dict[str, redis.Redis] = {}

    @property
    def url(self) -> str:
        """The gateway's address."""
        return f"http://127.0.0.1:{self.ports.gateway}"

    @property
    def port(self) -> int:
        """The gateway's port."""
        return self.ports.gateway

    def start(self) -> "ChaosStack":
        """Starts everything; raises ``NotReady``, ``NotStarted``."""
        self.supervisor.start(self.stack.parts, ends_with_us=True)
        self.supervisor.start_part(self.stack.parts[0])
        Startup(self.data, self.supervisor, self.stack, self.settings, self.ports, self._progress, Ending()).run()
        self.broker.keep_queues()
        return self

    def stop(self, *, keep: bool = False) -> None:
        """Ends everything; the folder goes too, unless somebody wants to read its logs."""
        for client in self._clients.values():
            client.close()
        self.control.close()
        for name in ("supervisord", *self.parts):  # nothing of it is wanted any more: no need to be gentle, and slow
            process = Process.read(self.data.pid_file(name))
            if process is not None and processes.group(process):
                processes.signal_group(process.pid, signal.SIGKILL)
        self.supervisor.stop()
        self._guard.dismiss()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    # Who is where

    def redis(self, server: str) -> redis.Redis:
        """A client of ``hub`` or ``redis-REGION``, past the links."""
        if server not in self._clients:
            self._clients[server] = connect.open_redis(self.server_url(server), name="chaos")
        return self._clients[server]

    def server_url(self, server: str) -> str:
        """Where a server listens, and how to log in as its owner."""
        if server == "hub":
            return configuration.hub_url(self.data, self.ports)
        if server == "rabbitmq":
            return self.broker.url
        region = server.removeprefix("redis-")
        return f"redis://:{self.data.secret(f'redis {region}')}@127.0.0.1:{self.ports.redis[region]}/0"

    def pid(self, part: str) -> int:
        """The process of a part, as the supervisor sees it; 0 while there is none."""
        states = self.supervisor.states() or {}
        return states[part].pid if part in states else 0

    def signal(self, part: str, number: int) -> None:
        """A signal to a part's whole group."""
        pid = self.pid(part)
        if pid:
            processes.signal_group(pid, number)

    def stop_part(self, name: str) -> None:
        """Stops a part as an operator does; ``start_part`` brings it back."""
        self.supervisor.stop_part(self.parts[name])

    def start_part(self, name: str) -> None:
        """Starts a part that was stopped, if nobody did yet; does not wait until it is ready."""
        if not self.pid(name):
            self.supervisor.start_part(self.parts[name])

    def executions(self, region: str) -> dict[int, int]:
        """How many tasks each worker process of a region runs, by its pid; raises ``connect.AWAY``'s."""
        client = self.redis(f"redis-{region}")
        found: dict[int, int] = {}
        keys: Any = client.smembers(names.RQ_WORKERS)
        for key in keys:
            worker = key.decode().removeprefix(names.rq_worker(""))
            pid: Any = client.hget(key, "pid")
            if pid is not None:
                found[int(pid)] = int(client.scard(names.rq_worker_executions(worker)))
        return found

    def waits_for_the_file(self, region: str) -> bool:
        """Whether a bridge is in WAITAOF now: it has enqueued what it has not acked. Raises ``connect.AWAY``'s."""
        clients: Any = self.redis(f"redis-{region}").client_list()
        return any(one["cmd"] == "waitaof" and "b" in one["flags"] for one in clients)

    def redelivered(self, region: str) -> int:
        """How many messages wait in a region's work queue that somebody held before; they stay there."""
        connection = pika.BlockingConnection(connect.amqp_parameters(self.server_url("rabbitmq"), name="chaos")[0])
        try:
            channel = connection.channel()
            count = 0
            for _ in range(200):
                method = channel.basic_get(names.work_queue(region))[0]
                if method is None or not method.redelivered:
                    break
                count += 1
            return count
        finally:
            connection.close()

    # Links

    def _build(self, control: int) -> Stack:
        """A stack's parts with a link before each server of each; the links come first."""
        built = parts.build(self.data, self.settings, self.ports, self.environ, live=False)
        self.broker = built.broker
        words = []
        for link in links(self.regions):
            port = self.link_ports[link.name]
            words.append(f"{link.name}={port}:{self._target(link)}")
            self.data.write(f"run/{link.name}.url", self._through(link, port))
        command = parts.python("scripts.proxy", "--control", str(control), *words)
        proxy = Part(PROXY, "servers", command, dict(self.environ), listens(control))
        return replace(
            built, parts=[proxy, *(replace(part, environment=self._environment(part)) for part in built.parts)]
        )

    def _environment(self, part: Part) -> dict[str, str]:
        """A part's environment, its servers behind its links."""
        found = dict(part.environment)
        for link in links(self.regions):
            if link.part == part.name:
                section = {"hub": "HUB__REDIS", "rabbitmq": "HUB__AMQP"}.get(link.server)
                if section is None:
                    region = link.server.removeprefix("redis-").upper().replace("-", "_")
                    section = f"REGION__{region}__REDIS__URL"
                found[f"{settings.PREFIX}{section}_FILE"] = str(self.data.run / f"{link.name}.url")
        return found

    def _target(self, link: Link) -> int:
        if link.server == "hub":
            return self.ports.hub
        return self.ports.broker if link.server == "rabbitmq" else self.ports.redis[link.server.removeprefix("redis-")]

    def _through(self, link: Link, port: int) -> str:
        """The URL that a part uses for a server, with the link's port in it."""
        region = link.part.partition("-")[2]
        url = (
            configuration.hub_url(self.data, self.ports, region)
            if link.server == "hub"
            else self.server_url(link.server)
        )
        return url.replace(f"@127.0.0.1:{self._target(link)}/", f"@127.0.0.1:{port}/")
