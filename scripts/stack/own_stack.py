"""A whole stack for one command, started like ``scripts/up`` does, in a temporary folder.

It ends with the command's process and leaves nothing behind, even when that process is killed.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import redis

from regions import connect, settings
from regions.process import Process
from regions.settings import ROOT
from scripts.stack import configuration, distance, parts, processes
from scripts.stack.configuration import Ports
from scripts.stack.data_folder import DataFolder
from scripts.stack.parts import Stack
from scripts.stack.ports import free_block
from scripts.stack.services import Guard
from scripts.stack.startup import Ending, Startup
from scripts.stack.supervision import Supervisor
from scripts.terminal import Progress, Quiet

OF_RABBITMQ = 45  # offset from the gateway's port, above the offsets of scripts.stack.configuration


class OwnStack:
    """``start`` returns when everything is ready. The parts have the names that scripts.stack.parts gives them.

    ``sources`` is a folder for definitions, empty at first.
    """

    def __init__(
        self,
        purpose: str,
        environ: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        *,
        live: bool = False,
        regions: Iterable[Path] = (),
        wan: str | None = None,
    ) -> None:
        """``environ``: settings for this stack, added to the shell's environment without our variables.

        ``live``: no sample site. ``regions``: the files of its regions, instead of the shipped ones. ``wan``: how far they are,
        as for ``scripts/up --wan``; ``control`` of ``ports.wan`` then drives the links.
        """
        self.folder = Path(tempfile.mkdtemp(prefix=f"nearfetch-{purpose}-"))
        self._guard = Guard(
            ["/bin/sh", "-c", f'"{ROOT}/scripts/up" --stop --data "{self.folder}/data"; rm -rf "{self.folder}"']
        )
        self._progress = progress or Quiet()
        self._live = live
        self.sources = self.folder / "sources"
        self.sources.mkdir()
        clean = {key: value for key, value in os.environ.items() if not key.startswith("NEARFETCH")}
        self.environ = {**clean, f"{settings.PREFIX}SOURCES__PATH": str(self.sources), **(environ or {})}
        for file in regions:
            (self.folder / "regions").mkdir(exist_ok=True)
            shutil.copy(file, self.folder / "regions")
            self.environ[f"{settings.PREFIX}REGIONS__PATH"] = str(self.folder / "regions")
        self.data = DataFolder(self.folder / "data")
        self.data.open()
        self.settings = settings.load(self.environ)
        self.regions = list(self.settings.region)
        self.first_port = free_block()
        distances = None if wan is None else distance.parse(wan, self.regions)
        self.ports: Ports = configuration.choose_ports(self.data, self.settings, self.first_port, distances, live=live)
        rabbitmq = self.first_port + OF_RABBITMQ
        self.data.write("rabbitmq/ports", f"{rabbitmq} {rabbitmq + 1}\n")
        self.supervisor = Supervisor(self.data)
        self.stack = self.build()
        self.broker = self.stack.broker
        self.parts = {part.name: part for part in self.stack.parts}
        self._clients: dict[str, redis.Redis] = {}

    def build(self) -> Stack:
        """The stack's parts."""
        return parts.build(self.data, self.settings, self.ports, self.environ, live=self._live)

    @property
    def url(self) -> str:
        """The gateway's address."""
        return f"http://127.0.0.1:{self.ports.gateway}"

    @property
    def port(self) -> int:
        """The gateway's port."""
        return self.ports.gateway

    def start(self) -> Self:
        """Starts everything. Raises ``NotReady`` and ``NotStarted``."""
        self.supervisor.start(self.stack.parts, ends_with_us=True)
        self.before()
        Startup(self.data, self.supervisor, self.stack, self.settings, self.ports, self._progress, Ending()).run()
        return self

    def before(self) -> None:
        """A hook for what has to run before the startup. Does nothing here."""

    def stop(self, *, keep: bool = False) -> None:
        """Ends everything and deletes the folder. ``keep`` keeps the folder with its logs."""
        for client in self._clients.values():
            client.close()
        for name in ("supervisord", *self.parts):  # nothing is needed any more, so it may be fast instead of gentle
            process = Process.read(self.data.pid_file(name))
            if process is not None and processes.group(process):
                processes.signal_group(process.pid, signal.SIGKILL)
        self.supervisor.stop()
        self._guard.dismiss()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    # Addresses and processes

    def redis(self, server: str) -> redis.Redis:
        """A client of the server ``hub`` or ``redis-REGION``, logged in as its owner."""
        if server not in self._clients:
            self._clients[server] = connect.open_redis(self.server_url(server), name="owner")
        return self._clients[server]

    def server_url(self, server: str) -> str:
        """The URL of a server, with its owner's credentials."""
        if server == "hub":
            return configuration.hub_url(self.data, self.ports)
        if server == "rabbitmq":
            return self.broker.url
        if server == "store":
            return f"mongodb://127.0.0.1:{self.ports.store}/"
        region = server.removeprefix("redis-")
        return f"redis://default:{self.data.secret(f'redis {region}')}@127.0.0.1:{self.ports.redis[region]}/0"

    def pid(self, part: str) -> int:
        """The pid of a part's process, as the supervisor sees it; 0 while there is none."""
        states = self.supervisor.states() or {}
        return states[part].pid if part in states else 0

    def signal(self, part: str, number: int) -> None:
        """Sends a signal to a part's whole process group."""
        pid = self.pid(part)
        if pid:
            processes.signal_group(pid, number)

    def stop_part(self, name: str) -> None:
        """Stops a part like an operator would; ``start_part`` starts it again."""
        self.supervisor.stop_part(self.parts[name])

    def start_part(self, name: str) -> None:
        """Starts a part unless it runs already. Does not wait until it is ready."""
        if not self.pid(name):
            self.supervisor.start_part(self.parts[name])
