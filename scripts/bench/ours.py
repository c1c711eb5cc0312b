"""Nearfetch as a contender: a stack like that of ``scripts/up``, with its default settings except for sources and origins.

It has one region, since all contenders share one machine; the row ``up`` has all three and the sample site. Everything else
is on: guard, turns, leases, sweep, history.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from regions import names
from regions.process import Process
from regions.settings import PREFIX, ROOT
from scripts.bench import rows, usage
from scripts.bench.load import Call, Result, Wrong
from scripts.bench.rows import Row
from scripts.stack.own_stack import OwnStack
from scripts.stack.ports import free_port
from scripts.stack.probes import listens
from scripts.stack.services import Running, Service
from scripts.terminal import Progress

REGION: Final = "fra"
DEADLINE_SECONDS: Final = 60
SETTLE_SECONDS: Final = 60.0
BULK_ALONE_SECONDS: Final = 15.0  # then it goes on: who may not take back a nice value keeps it
HOPS: Final = {
    "gateway": "gateway",
    "rabbitmq": "RabbitMQ",
    f"bridge-{REGION}": "bridge",
    f"redis-{REGION}": "region Redis",
    "hub": "central Redis",
    f"workers-{REGION}": "workers",
    "store": "history",
}
REST: Final = "rest"  # the dashboard, the port mapper, the supervisor; other regions and the sample site


class _Answer(msgspec.Struct):
    done: bool = False
    id: str = ""
    tasks: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []


class Ours:
    """The stack as a contender. ``settings``: environment variables for rows that need other settings than ``up``'s.

    ``others``: more origins to redirect, with the ports that serve them. ``whole``: all that ``up`` starts. ``wan``: as for
    ``scripts/up --wan``.
    """

    name = "ours"
    poll_seconds = 0.0

    def __init__(
        self,
        pages_port: int,
        progress: Progress,
        settings: Mapping[str, str] | None = None,
        others: Mapping[str, int] | None = None,
        *,
        whole: bool = False,
        wan: str | None = None,
    ) -> None:
        ports = {rows.ORIGIN: pages_port, **(others or {})}
        environ = {
            f"{PREFIX}FETCH__ALLOW": ",".join(f"127.0.0.1:{port}" for port in ports.values()),
            f"{PREFIX}FETCH__ORIGINS": ",".join(f"{origin}=http://127.0.0.1:{port}" for origin, port in ports.items()),
            **(settings or {}),
        }
        regions = [] if whole else [ROOT / "regions" / f"{REGION}.toml"]
        self.stack = OwnStack("bench", environ, progress, live=not whole, regions=regions, wan=wan)
        for name, text in rows.definitions(REGION):
            (self.stack.sources / f"{name}.toml").write_text(text, encoding="utf-8")
        self.port = self.stack.port

    def start(self) -> None:
        """Starts the stack and returns when it is ready."""
        self.stack.start()

    def stop(self) -> None:
        """Ends the stack."""
        self.stack.stop()

    def hops(self) -> dict[str, list[int]]:
        """For each hop, the processes that lead its groups."""
        found: dict[str, list[int]] = {hop: [] for hop in (*HOPS.values(), REST)}
        for part in ("supervisord", *self.stack.parts):
            found[HOPS.get(part, REST)] += self.leaders(part)
        return found

    def leaders(self, *parts: str) -> list[int]:
        """The processes that lead the groups of some parts."""
        found = (Process.read(self.stack.data.pid_file(part)) for part in parts)
        return [process.pid for process in found if process is not None]

    def workers(self) -> list[int]:
        """The processes that lead the groups of the fetching processes."""
        return self.hops()["workers"]

    def settle(self) -> None:
        """Waits until the history has every finished request. Raises ``Wrong`` when that takes too long."""
        hub, deadline = self.stack.redis("hub"), time.monotonic() + SETTLE_SECONDS
        while left := int(hub.zcard(names.ARCHIVE)):
            if time.monotonic() > deadline:
                raise Wrong(
                    f"expected the history to have everything after {SETTLE_SECONDS:g} s, found {left} requests left"
                )
            time.sleep(0.05)

    def wait_for_bulk_alone(self) -> None:
        """Waits until no synchronous call counts any more: beside such calls, worker processes give way (jobs.pool.processes)."""
        region, until = self.stack.redis(REGION), time.monotonic() + BULK_ALONE_SECONDS
        while time.monotonic() < until and (region.exists(names.URGENT_SEEN) or any(map(_gives_way, self.workers()))):
            time.sleep(0.1)

    def settings(self) -> Iterator[str]:
        """The settings of the stack, one on each line."""
        region, settings = self.stack.settings.region[REGION], self.stack.settings
        scale, workers, bridge = region.scale, region.workers, region.bridge
        yield f"workers    {scale.min} to {scale.max} processes of {workers.threads} threads, {workers.memory_mb} MB each, by load"
        yield f"bridge     prefetch {bridge.prefetch}, acks after WAITAOF; at most {bridge.ready_max} jobs ready"
        yield f"gateway    {settings.gateway.threads} threads; quorum queues, confirmed publishes"
        yield f"durability {settings.hub.durability} at the hub, {region.redis.durability} in the region; append-only files"
        yield f"history    on, {settings.history.retention_days:g} days"
        yield "guard, turns, leases, sweep and reaper: on; they can't be turned off"

    # Over HTTP

    def post(self, row: Row, numbers: list[int]) -> Call:
        """The call that requests these pages."""
        return Call("POST", "/v1/requests", self._body(row, numbers))

    def poll(self, accepted: bytes) -> Call:
        """A long poll until the request is done."""
        return Call("GET", f"/v1/requests/{self.request(accepted)}?wait=60")

    def request(self, accepted: bytes) -> str:
        """The id of the posted request."""
        return msgspec.json.decode(accepted, type=_Answer).id

    def done(self, answer: bytes) -> bool:
        """Whether the answer to a poll has all results."""
        return msgspec.json.decode(answer, type=_Answer).done

    def alone(self, row: Row, number: int) -> Call:
        """The synchronous call for one page."""
        return Call("POST", "/v1/requests", self._body(row, [number]), "Prefer: wait=60\r\n")

    def tasks(self, accepted: bytes) -> list[str]:
        """The ids of a post's tasks, in the order of its pages."""
        return [task["id"] for task in msgspec.json.decode(accepted, type=_Answer).tasks]

    def results(self, answer: bytes) -> list[Result]:
        """The results in an answer."""
        found = msgspec.json.decode(answer, type=_Answer).results
        return [Result(one["task"], one["status"], one["records"]) for one in found]

    def _body(self, row: Row, numbers: list[int]) -> bytes:
        return body(row, numbers, DEADLINE_SECONDS)


def body(row: Row, numbers: Sequence[int], deadline_seconds: float) -> bytes:
    """The body of a request for these pages."""
    params = [{"n": number, "seconds": row.delay_seconds} for number in numbers]
    wanted = [{"source": rows.source(row.kind), "params": one} for one in params]
    return json.dumps({"sources": wanted, "deadline": deadline_seconds}).encode()


def _gives_way(pool: int) -> bool:
    """Whether processes of a pool have another nice value than the pool."""
    with suppress(ProcessLookupError):  # a process has ended; the next look sees the others
        own = os.getpriority(os.PRIO_PROCESS, pool)
        return any(os.getpriority(os.PRIO_PROCESS, pid) > own for pid in usage.members([pool]))
    return True


@contextmanager
def alone(
    progress: Progress,
    settings: Mapping[str, str] | None = None,
    others: Mapping[str, int] | None = None,
    *,
    wan: str | None = None,
) -> Iterator[tuple[Ours, int]]:
    """Our stack without a peer, and the page server's port, for rows that measure Nearfetch alone."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nearfetch-bench-pages-")))
        port = free_port()
        pages = Running(page_server(port, folder)).start()
        stack.callback(pages.stop)
        ours = Ours(port, progress, settings, others, wan=wan)
        stack.callback(ours.stop)
        ours.start()
        yield ours, port


def page_server(port: int, folder: Path) -> Service:
    """The process that serves all pages. It logs into ``folder``."""
    command = [sys.executable, "-m", "scripts.bench.page_server", str(port)]
    return Service("page server", command, folder / "pages.log", listens(port), {"PYTHONPATH": str(ROOT)})
