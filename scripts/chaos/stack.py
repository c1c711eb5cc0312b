"""A whole stack of its own (scripts.stack.own_stack), with a link of scripts.stack.wan between each part and each server.

The hub's disk can be made slow, if scripts.chaos.slow_disk supports the processor.
"""

import contextlib
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pika

from regions import connect, names, settings
from regions.process import Process
from scripts.chaos import slow_disk
from scripts.chaos.points import Link, links
from scripts.stack import configuration, parts, processes
from scripts.stack.own_stack import OF_RABBITMQ, OwnStack
from scripts.stack.parts import Part, Stack
from scripts.stack.probes import listens
from scripts.stack.wan_links import Control
from scripts.terminal import Progress

# Offsets from the gateway's port; a region has five links.
OF_CONTROL, OF_LINKS = OF_RABBITMQ + 2, OF_RABBITMQ + 3
PROXY: Final = "proxy"
FSYNC_SECONDS: Final = 1.5  # on a slow disk
REQUEUE_SECONDS: Final = 1.0
LOOKED_AT_MAX: Final = 1_000
# Erlang: the messages of the queue Name that consumers hold. Fails when there is no such queue.
HELD: Final = """
begin
    {ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, Name)),
    [{_, Held}] = rabbit_amqqueue:info(Queue, [messages_unacknowledged]),
    Held
end
"""
SOURCE: Final = """
title = "Numbered rows, {region}"
url = 'https://bench.example/numbered{{?n,seconds,trouble}}'
region = "{region}"
format = "json"
[params]
n = {{type = "int", required = true, example = 1}}
seconds = {{type = "float", default = 0.0, example = 0.1}}
trouble = {{default = "", example = "once"}}
[rows]
jmes = "rows"
[fields]
n = {{}}
row = {{}}
text = {{}}
[contract]
required = ["n"]
[limits]
concurrency = 1000
"""

STUCK: Final = """
title = "Counts without an end, {region}"
url = 'https://bench.example/elements{{?n,seconds,trouble}}'
region = "{region}"
format = "xml"
[params]
n = {{type = "int", required = true, example = 1}}
seconds = {{type = "float", default = 0.0, example = 0.0}}
trouble = {{default = "", example = "timeout"}}
[rows]
xpath = "//*[count(//*)>1]"
[fields]
id = {{xpath = "@id"}}
[limits]
concurrency = 1000
"""


# What a troubled task asks instead of its region's usual source: one that parses without an end, one with a standby, one that
# may not leave its region.
KINDS_OF_SOURCES: Final = {"timeout": "stuck", "moves": "moves", "pinned": "pinned"}


def source(region: str, trouble: str = "") -> str:
    """The source in a region whose pages the load requests, or the one of ``KINDS_OF_SOURCES``."""
    return f"{KINDS_OF_SOURCES.get(trouble, 'chaos')}.{region}"


class ChaosStack(OwnStack):
    """``start`` returns when everything is ready. The targets of faults have the names of scripts.stack.parts.

    ``redis`` and ``server_url`` bypass the links.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, progress: Progress | None = None) -> None:
        """``environ``: settings for this stack, added to the shell's environment without our variables."""
        super().__init__("chaos", environ, progress)
        for region in self.regions:
            standby = next((one for one in self.regions if one != region), region)
            moves, pinned = (
                SOURCE.replace("[params]", f"{line}\n[params]", 1)
                for line in (f'standby = ["{standby}"]', "pinned = true")
            )
            for trouble, text in (("", SOURCE), ("timeout", STUCK), ("moves", moves), ("pinned", pinned)):
                file = self.sources / f"{source(region, trouble)}.toml"
                file.write_text(text.format(region=region), encoding="utf-8")
        self.control = Control(self.first_port + OF_CONTROL)

    def before(self) -> None:
        """Starts the links, which every part goes through."""
        self.start_part(PROXY)

    def stop(self, *, keep: bool = False) -> None:
        """Ends everything and deletes the folder. ``keep`` keeps the folder with its logs."""
        self.control.close()
        super().stop(keep=keep)

    def executions(self, region: str) -> dict[int, int]:
        """How many tasks each living worker process of a region runs, by pid. Raises what ``connect.AWAY`` lists.

        Redis knows one that died for a while, whose pid may be another process's by now.
        """
        client, pool = self.redis(f"redis-{region}"), Process.of(self.pid(f"workers-{region}"))
        living = set(processes.group(pool)) if pool is not None else set()
        found: dict[int, int] = {}
        keys: Any = client.smembers(names.RQ_WORKERS)
        for key in keys:
            worker = names.worker_of(key.decode())
            pid: Any = client.hget(key, "pid")
            if pid is not None and int(pid) in living:
                found[int(pid)] = int(client.scard(names.rq_worker_executions(worker)))
        return found

    def fork_server(self, region: str) -> int:
        """The pid of the process from which a region's pool forks; 0 when there is none now."""
        with contextlib.suppress(OSError):
            pool = self.pid(f"workers-{region}")
            for thread in Path(f"/proc/{pool}/task").iterdir():
                for child in (thread / "children").read_text().split():
                    if b"--fork-server" in Path(f"/proc/{child}/cmdline").read_bytes():
                        return int(child)
        return 0

    def waits_for_the_file(self, region: str) -> bool:
        """Whether a bridge is in WAITAOF now, and so holds enqueued messages unacked. Raises what ``connect.AWAY`` lists."""
        clients: Any = self.redis(f"redis-{region}").client_list()
        return any(one["cmd"] == "waitaof" and "b" in one["flags"] for one in clients)

    def ready(self, region: str) -> int:
        """How many messages wait in a region's work queue, not counting those that a bridge holds."""
        connection = pika.BlockingConnection(connect.amqp_parameters(self.server_url("rabbitmq"), name="chaos")[0])
        try:
            found = connection.channel().queue_declare(names.work_queue(region), passive=True)
            return int(found.method.message_count)
        finally:
            connection.close()

    def held(self, region: str) -> int:
        """How many unacked messages of a region's queues its bridges hold."""
        queues = ", ".join(f'<<"{queue}">>' for queue in (names.work_queue(region), names.fast_queue(region)))
        answer = self.broker.evaluate(f"lists:sum([{HELD} || Name <- [{queues}]]).")
        return int(answer.removeprefix("{ok, ").removesuffix("}"))

    def redelivered(self, region: str) -> int:
        """How many of the messages in a region's work queue were delivered before. They stay in the queue.

        The broker notices a death a moment later, so it is given ``REQUEUE_SECONDS``.
        """
        connection = pika.BlockingConnection(connect.amqp_parameters(self.server_url("rabbitmq"), name="chaos")[0])
        try:
            channel = connection.channel()
            seen: list[bool] = []
            end = time.monotonic() + REQUEUE_SECONDS
            while len(seen) < LOOKED_AT_MAX:
                method = channel.basic_get(names.work_queue(region))[0]
                if method is not None:
                    seen.append(bool(method.redelivered))
                elif any(seen) or time.monotonic() > end:
                    break
            return sum(seen)
        finally:
            connection.close()

    @contextlib.contextmanager
    def slow_disk(self) -> Iterator[None]:
        """Makes each fsync of the hub's Redis take ``FSYNC_SECONDS`` longer, within the block. Raises ``slow_disk.NotHere``."""
        slow_disk.check()
        self._slow.touch()
        try:
            yield
        finally:
            self._slow.unlink()

    # Links

    def build(self) -> Stack:
        """The parts of a stack with a link before each server of each part. The links come first; nobody needs dashboards and webhooks."""
        self._slow = self.data.run / "slow-disk"
        built = parts.build(self.data, self.settings, self.ports, self.environ, live=False)
        self.broker = built.broker
        self.link_ports = {link.name: self.first_port + OF_LINKS + n for n, link in enumerate(links(self.regions))}
        control = self.first_port + OF_CONTROL
        words = []
        for link in links(self.regions):
            port = self.link_ports[link.name]
            words.append(f"{link.name}={port}:{self._target(link)}")
            self.data.write(f"run/{link.name}.url", self._through(link, port))
        command = parts.python("scripts.stack.wan", "--control", str(control), *words)
        proxy = Part(PROXY, "servers", command, dict(self.environ), listens(control))
        linked = [
            replace(part, environment=self._environment(part))
            for part in built.parts
            if part.name != "webhooks" and not part.name.startswith("dashboard-")
        ]
        return replace(built, parts=[proxy, *linked])

    def _environment(self, part: Part) -> dict[str, str]:
        """A part's environment, in which its servers' addresses are those of its links."""
        found = dict(part.environment)
        for link in links(self.regions):
            if link.part == part.name:
                section = {"hub": "HUB__REDIS", "rabbitmq": "HUB__AMQP", "store": "HUB__MONGO"}.get(link.server)
                if section is None:
                    region = link.server.removeprefix("redis-").upper().replace("-", "_")
                    section = f"REGION__{region}__REDIS__URL"
                found[f"{settings.PREFIX}{section}_FILE"] = str(self.data.run / f"{link.name}.url")
        if part.name == "hub" and platform.machine() in slow_disk.MACHINES:
            found["LD_PRELOAD"] = str(slow_disk.write(self.data.run / "slow-disk.so", self._slow, FSYNC_SECONDS))
        return found

    def _target(self, link: Link) -> int:
        own = {"hub": self.ports.hub, "rabbitmq": self.ports.broker, "store": self.ports.store}
        return own.get(link.server) or self.ports.redis[link.server.removeprefix("redis-")]

    def _through(self, link: Link, port: int) -> str:
        """The URL of a server for a part, with the link's port."""
        region = link.part.partition("-")[2]
        if link.server == "hub":
            url = configuration.hub_url(self.data, self.ports, region)
        elif link.server == "rabbitmq" and region:
            url = self.broker.region_url(region)
        else:
            url = self.server_url(link.server)
        return url.replace(f"127.0.0.1:{self._target(link)}/", f"127.0.0.1:{port}/")
