"""A region's real workers on real Redis: a pool process, its worker processes, definitions in a folder, tasks, results."""

import json
import os
import secrets as tokens
import signal
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import redis
from rq import Worker as RqWorker

from jobs import result_frame
from jobs.contract import Task
from jobs.origin import origin_of
from jobs.worker.fork_server import needed
from regions import names
from regions.process import stat
from regions.secret import Secret
from regions.settings import ROOT, Egress, Fetch, Folders, Settings, Workers
from tests.forked import Forked
from tests.service.working import REGION, enqueue, results, settings_for, task
from tests.waiting import until

# The pool as `nearfetch workers` runs it.
PROGRAM = """
import sys, msgspec
from jobs.pool import examiner
from jobs.pool import child, processes as pool
from jobs.worker import fork_server, stop
from regions import logs
from regions.settings import Settings
from tests import forked
stop.follow_parent()
forked.forks(child, fork_server, examiner)
logs.configure("json")
settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
sys.exit(pool.run(settings, "fra", (sys.executable, *sys.argv[1:])))
"""


class RegionWorkers:
    """The workers of one region; ``log`` is what they said.

    Without a pool they are its processes alone, as a pool starts them: a third of the work, and nobody who makes good for
    one that dies, or examines definitions.
    """

    def __init__(self, folder: Path, region_url: str, hub: redis.Redis, hub_url: str) -> None:
        self.hub = hub
        self.client: redis.Redis = redis.Redis.from_url(region_url)
        self._urls = region_url, hub_url
        self._sources, self._log = folder / "sources", folder / "log"
        self._sources.mkdir(parents=True)
        self._nowhere = os.open(os.devnull, os.O_WRONLY)  # for beats that nobody reads
        self._processes: list[subprocess.Popen] = []

    def start(
        self,
        definitions: Mapping[str, str],
        *,
        threads: int = 64,
        processes: int = 1,
        memory_mb: int = 300,
        allow: str = "",
        origins: str = "",
        egress: Mapping[str, Egress] = {"default": Egress()},
        secrets: Mapping[str, Secret] = {},
        any_host: bool = False,
        worker: Sequence[str] = ("-m", "jobs.worker"),
        pool: bool = True,
    ) -> None:
        """Returns when all processes are registered. ``definitions`` by file name; ``worker``: what Python runs as a worker process."""
        for name, text in definitions.items():
            (self._sources / name).write_text(text, encoding="utf-8")
        found: Settings = settings_for(*self._urls, threads=threads, processes=processes)
        workers = Workers(threads=threads, memory_mb=memory_mb)
        region = msgspec.structs.replace(
            found.one(REGION), workers=workers, egress=dict(egress), secrets=dict(secrets), any_host=any_host
        )
        fetch, sources = Fetch(allow=allow, origins=origins), Folders(path=str(self._sources))
        settings = msgspec.structs.replace(found, region={REGION: region}, fetch=fetch, sources=sources)
        if pool:
            self._run(settings, "-c", PROGRAM, *worker)
        else:
            own = needed(settings, region)
            for number in range(processes):
                name = f"{REGION}.worker.{number + 1}.{tokens.token_hex(3)}"
                self._run(own, *worker, REGION, name, "--settings", "-", "--beat", str(self._nowhere))
        until(lambda: len(self.pids()) == processes, f"{processes} worker processes")

    def _run(self, settings: Settings, *words: str) -> None:
        with self._log.open("ab") as log:
            process = Forked(
                list(words), cwd=ROOT, stdin=subprocess.PIPE, stderr=log, start_new_session=True,
                pass_fds=[self._nowhere],
            )  # fmt: skip
        self._processes.append(process)
        process.stdin.write(msgspec.json.encode(settings))
        process.stdin.close()

    def stop(self) -> None:
        """Kills all that it started."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(self._nowhere)
        self.client.close()

    def pids(self) -> dict[str, int]:
        """The worker processes by name, as RQ knows them, without the one for urgent tasks."""
        urgent = [names.urgent(REGION)]
        known = RqWorker.all(connection=self.client)
        return {worker.name: worker.pid for worker in known if worker.queue_names() != urgent}

    @property
    def log(self) -> list[dict[str, Any]]:
        """The log lines of the pool and its workers, without one that is being written."""
        lines = self._log.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def ask(self, tasks: Sequence[Task], *, has_keys: bool = False, ahead_ms: int = 0) -> list[str]:
        """Enqueues tasks, each with the host of its source's address, as the gateway names it; their ids.

        With keys those that ask the same are asked once. ``ahead_ms``: how far the hub's clock is ahead.
        """
        made = [msgspec.structs.replace(one, host=self._host(one)) for one in tasks]
        return enqueue(self.client, made, has_keys=has_keys, ahead_ms=ahead_ms)

    def _host(self, one: Task) -> str:
        """When the address is a param, the task has it."""
        file = self._sources / f"{one.source}.toml"
        url = tomllib.loads(file.read_text(encoding="utf-8")).get("url", "") if file.exists() else ""
        return one.host if not url or "{" in url else origin_of(url)

    def results(self, ids: Sequence[str], seconds: float = 110.0) -> list[dict[str, Any]]:
        """The results of tasks, in their order, after waiting for all of them."""
        until(lambda: set(ids) <= set(results(self.hub)), f"{len(ids)} results", seconds)
        return [json.loads(result_frame.splice(self.hub.get(names.result(REGION, id_)))) for id_ in ids]


def of(source: str, *, deadline_seconds: float = 60.0, **params: Any) -> Task:
    """A task of a source."""
    return msgspec.structs.replace(task(deadline_seconds=deadline_seconds, **params), source=source)


def peak_bytes(pid: int) -> int:
    """The most that a process ever had in memory."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"expected VmHWM in the status of process {pid}")


def started(pid: int) -> str:
    """The start time of a process from /proc: a reused pid has another one."""
    fields = stat(pid)
    assert fields is not None, f"process {pid} is gone"
    return fields[19]
