"""The peer as a contender: its virtual environment, its servers (the same kinds as ours, set alike), web server and workers.

Workers of every pool run all the time, each pool on a queue of its own. They cost nothing while they get no tasks.
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from regions.settings import ROOT
from scripts.bench.load import Call, Result
from scripts.bench.rows import Row
from scripts.stack.parts import hub_bytes
from scripts.stack.ports import free_port
from scripts.stack.probes import listens
from scripts.stack.services import Failed, RabbitMQ, Running, Service, last_lines, redis_server
from scripts.terminal import Progress

REQUIREMENTS: Final = ROOT / "scripts" / "bench" / "requirements.txt"
POOLS: Final = {  # queue → options of a worker, and the number of workers
    "threads16": (["-P", "threads", "-c", "16"], 2),
    "threads64": (["-P", "threads", "-c", "64"], 2),
    "prefork": (["-P", "prefork", "-c", "2"], 1),
}
TITLES: Final = {"threads16": "threads 16x2", "threads64": "threads 64x2", "prefork": "prefork 2"}
QUIET: Final = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-O", "fair", "-l", "warning"]
POLL_SECONDS: Final = 0.1


class _Meta(msgspec.Struct):
    task_id: str
    status: str
    result: list[dict[str, object]] | dict[str, object] | None = None


class _Answer(msgspec.Struct):
    done: bool = False
    id: str = ""
    tasks: list[str] = []
    results: list[_Meta] = []


def environment(folder: Path, progress: Progress) -> Path:
    """The peer's python. Installs its packages on first use. Raises ``Failed``."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    venv = folder / f"peer-{version}-{digest}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (venv / "installed").exists():
            return venv / "bin" / "python"
        began = time.monotonic()
        shutil.rmtree(venv, ignore_errors=True)  # half made by an earlier run
        python = str(venv / "bin" / "python")
        log = folder / "install.log"
        for command in (
            [sys.executable, "-m", "venv", str(venv)],
            [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "-r", str(REQUIREMENTS)],
        ):
            _run(command, log, progress)
        (venv / "installed").touch()
        progress.done(f"the peer's packages, in {venv}", time.monotonic() - began)
    return Path(python)


def _run(command: list[str], log: Path, progress: Progress) -> None:
    with log.open("ab") as opened:
        process = subprocess.Popen(command, stdout=opened, stderr=opened, stdin=subprocess.DEVNULL)
    began = time.monotonic()
    try:
        while process.poll() is None:
            progress.waiting(f"installing the peer's packages   {time.monotonic() - began:.0f} s")
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()
    if process.returncode != 0:
        raise Failed(f"{' '.join(command)} ended with code {process.returncode}:\n{last_lines(log)}")


class Peer:
    """RabbitMQ, Redis, a web server, and the workers of every pool. Each pool is a contender (``PeerPool``)."""

    def __init__(self, folder: Path, python: Path, pages_port: int) -> None:
        self.folder, self.python = folder, python
        self.port = free_port()
        self.broker = RabbitMQ(folder / "rabbitmq", free_port(), user="peer")
        redis_port = free_port()
        redis = redis_server("redis", folder / "redis", redis_port, maxmemory=str(hub_bytes()))
        self._environment = {
            "PEER_AMQP": self.broker.url,
            "PEER_REDIS": f"redis://127.0.0.1:{redis_port}/0",
            "PEER_PAGES": str(pages_port),
            "PEER_PORT": str(self.port),
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(folder),  # its pools leave folders behind
        }
        web = [str(python), "-m", "scripts.bench.peer"]
        self._servers = [Running(self.broker.service()), Running(redis)]
        self._web = Running(
            Service("web", web, folder / "web.log", listens(self.port), self._environment), ready_seconds=60
        )
        self._workers = {queue: [self._worker(queue, n) for n in range(count)] for queue, (_, count) in POOLS.items()}

    def start(self, progress: Progress) -> None:
        """Starts everything and returns when it is ready. Raises ``Failed``."""
        began = time.monotonic()
        progress.waiting("starting the peer")
        with ThreadPoolExecutor() as threads:
            list(threads.map(Running.start, self._servers))
            list(threads.map(Running.start, (self._web, *(one for pool in self._workers.values() for one in pool))))
        progress.done("Celery, its RabbitMQ, its Redis, its web server", time.monotonic() - began)

    def stop(self) -> None:
        """Ends everything."""
        for pool in self._workers.values():
            for running in pool:
                running.kill()
        for running in (self._web, *self._servers):
            running.stop()

    def hops(self, queue: str) -> dict[str, list[int]]:
        """For each hop, the processes that lead its groups; for the workers, those of one pool."""
        broker, redis = self._servers
        return {
            "web": _leaders([self._web]),
            "RabbitMQ": _leaders([broker]),
            "Redis": _leaders([redis]),
            "workers": _leaders(self._workers[queue]),
        }

    def all_hops(self) -> dict[str, list[int]]:
        """All processes, to measure what they cost while idle."""
        runnings = [*self._servers, self._web, *(one for pool in self._workers.values() for one in pool)]
        return {"peer": _leaders(runnings)}

    def _worker(self, queue: str, number: int) -> Running:
        options, _ = POOLS[queue]
        name = f"{queue}-{number}"
        ready = self.folder / f"{name}.ready"
        command = [str(self.python), "-m", "celery", "-A", "scripts.bench.peer", "worker", "-n", f"{name}@peer"]
        environment = {**self._environment, "PEER_READY": str(ready)}

        def not_ready() -> str | None:
            return None if ready.exists() else "it has not reported that it is ready"

        log = self.folder / f"{name}.log"
        return Running(Service(name, [*command, "-Q", queue, *options, *QUIET], log, not_ready, environment))


class PeerPool:
    """One pool of the peer's workers, asked over HTTP."""

    poll_seconds = POLL_SECONDS

    def __init__(self, peer: Peer, queue: str) -> None:
        self._peer, self._queue = peer, queue
        self.name = f"Celery, {TITLES[queue]}"
        self.port = peer.port

    def hops(self) -> dict[str, list[int]]:
        """For each hop, the processes that lead its groups."""
        return self._peer.hops(self._queue)

    def workers(self) -> list[int]:
        """The processes that lead the groups of the fetching processes."""
        return self.hops()["workers"]

    def settle(self) -> None:
        """Does nothing: the peer has no work left after its answers."""

    @staticmethod
    def settings() -> Iterator[str]:
        """The settings of the peer, one on each line."""
        yield f"workers    {', '.join(TITLES.values())}; each on a queue of its own, the best one counts"
        yield "broker     quorum queues, confirmed publishes, late acks, 4 messages a thread prefetched"
        yield "results    Redis, JSON, append-only file; one MGET a poll; no events, mingle, gossip or heartbeats"

    # Over HTTP

    def post(self, row: Row, numbers: list[int]) -> Call:
        """The call that requests these pages."""
        return Call("POST", "/requests", self._body(row, numbers))

    def poll(self, accepted: bytes) -> Call:
        """One poll, which does not wait."""
        return Call("GET", f"/requests/{msgspec.json.decode(accepted, type=_Answer).id}")

    def done(self, answer: bytes) -> bool:
        """Whether the answer to a poll has all results."""
        return answer.startswith(b'{"done":true')

    def alone(self, row: Row, number: int) -> Call:
        """The synchronous call for one page."""
        return Call("POST", "/alone", self._body(row, [number]))

    def tasks(self, accepted: bytes) -> list[str]:
        """The ids of a post's tasks, in the order of its pages."""
        return msgspec.json.decode(accepted, type=_Answer).tasks

    def results(self, answer: bytes) -> list[Result]:
        """The results in an answer."""
        found = msgspec.json.decode(answer, type=_Answer).results
        return [
            Result(one.task_id, "succeeded" if one.status == "SUCCESS" else one.status, _rows(one)) for one in found
        ]

    def _body(self, row: Row, numbers: list[int]) -> bytes:
        tasks = [{"kind": row.kind, "n": number, "seconds": row.delay_seconds} for number in numbers]
        return json.dumps({"queue": self._queue, "tasks": tasks}).encode()


def _rows(meta: _Meta) -> list[dict[str, object]]:
    return meta.result if isinstance(meta.result, list) else []


def _leaders(runnings: list[Running]) -> list[int]:
    return [running.process.pid for running in runnings if running.process is not None]
