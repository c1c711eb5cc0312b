"""What tests of `bridges ensure` and `bridges restart` share: a host with its bridges, the command as cron runs it, and traffic with a ledger."""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Self

import msgspec
import pika

from bridge import heartbeat
from bridge.heartbeat import Beat
from jobs import contract
from regions import names
from regions.process import Process
from regions.settings import ROOT
from scripts.stack.services import Guard
from tests.forked import COMMAND, Forked
from tests.service.bridging import Broker, task
from tests.waiting import fields_of, until

MAIN = "import bridge.ensure as ensure\n{patch}\nfrom scripts.cli import main\nmain()"
FORKS = "from tests import forked\nforked.forks(ensure)"  # a patch: bridges are forked from the command

AT_ONCE = "ensure.SUPERVISOR_SECONDS = 0.0"  # a patch: there is no supervisor to wait for
IN_A_WHILE = "ensure.SUPERVISOR_SECONDS = 600.0"  # a patch: it waits for one until the test goes on


class Host:
    """A host's bridges: its settings, its folder, and the commands on it. They end with it, also when it is killed."""

    def __init__(self, folder: Path, hub_redis, region_redis, rabbitmq, *regions: str) -> None:
        self.folder, self.redis, self.rabbitmq = folder / "bridges", region_redis, rabbitmq
        self.folder.mkdir()
        files = folder / "regions"
        files.mkdir()
        for region in regions:
            (files / f"{region}.toml").write_text(f'[redis]\nurl = "{region_redis.url}"\n')
            Broker(rabbitmq, region).declare()
        self.config = folder / "nearfetch.toml"
        self.config.write_text(
            f'[hub]\nredis = "{hub_redis.url}"\namqp = "{rabbitmq.url}"\n'
            f'[regions]\npath = "{files}"\n[bridges]\npath = "{self.folder}"\n[log]\nlevel = "debug"\n'
        )
        clean = {key: value for key, value in os.environ.items() if not key.startswith("NEARFETCH")}
        self.environment = {**clean, "NEARFETCH_CONFIG": str(self.config), "PYTHONPATH": str(ROOT)}
        self._guards = [Guard(["/bin/sh", "-c", 'rm -f "$1"/*.beat', "guard", str(self.folder)])]  # that ends a bridge
        self._paused: list[Process] = []

    def close(self) -> None:
        processes = [*self._paused, *(beat.process for _, beat in self.seen())]
        for process in processes:
            process.signal(signal.SIGKILL)
        until(lambda: not any(process.alive for process in processes), "every bridge to end")
        for guard in self._guards:
            guard.dismiss()

    def pause(self, pid: int) -> Process:
        """Stops a process, so that it does not notice the end of the test, and returns when each of its threads has stopped."""
        process = Process.of(pid)
        self._paused.append(process)
        self._guards.append(Guard(["/bin/sh", "-c", f"kill -KILL {pid}"]))
        process.signal(signal.SIGSTOP)
        until(lambda: _states(pid) <= {"T", "Z", "X"}, f"all of process {pid} to have stopped")
        return process

    def start(self, *words: str, patch: str = "", forks: bool = True, **variables: str) -> subprocess.Popen:
        """``nearfetch bridges …``; ``patch`` runs before it, in its process. ``forks``: what it starts is forked."""
        patch = "\n".join([patch, FORKS] if forks else [patch])
        return Forked(
            ["-c", MAIN.format(patch=patch), "bridges", *words], imported=COMMAND,
            env={**self.environment, **variables}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *words: str, code: int = 0, patch: str = "", forks: bool = True, **variables: str) -> str:
        """Its output. Fails when its exit code is not ``code``."""
        process = self.start(*words, patch=patch, forks=forks, **variables)
        out, err = process.communicate(timeout=100)
        assert process.returncode == code, (process.returncode, out, err)
        return out + err

    def begin(self, region: str, *, forks: bool = True) -> int:
        """Starts a region's bridge by ``ensure``, without the wait for a supervisor. Returns its pid once it consumes."""
        self.run("ensure", region, patch=AT_ONCE, forks=forks)
        return self.consuming(region)

    def seen(self, region: str = "*") -> list[tuple[Path, Beat]]:
        """The existing heartbeats."""
        found = [(file, heartbeat.read(file)) for file in heartbeat.files(self.folder, region)]
        return [(file, beat) for file, beat in found if beat is not None]

    def pids(self, region: str) -> list[int]:
        """The living bridges of a region."""
        return [beat.pid for _, beat in self.seen(region) if beat.alive]

    def one(self, region: str) -> tuple[Path, Beat]:
        """The region's only bridge."""
        (found,) = self.seen(region)
        return found

    def consuming(self, region: str, seconds: float = 60.0) -> int:
        """Waits until the region's only bridge consumes. Returns its pid."""
        until(
            lambda: [beat.state for _, beat in self.seen(region) if beat.alive] == ["consuming"],
            f"{region} to consume",
            seconds,
        )
        return self.pids(region)[0]

    def log(self, region: str) -> list[dict]:
        return [
            json.loads(line) for line in (self.folder / f"{region}.log").read_text().rpartition("\n")[0].splitlines()
        ]


def _states(pid: int) -> set[str]:
    """The states of a process's threads, as ps names them."""
    return {fields[0] for one in Path(f"/proc/{pid}/task").glob("*/stat") if (fields := fields_of(one))}


def age(file: Path, seconds: float = 20.0) -> None:
    """Makes the beat of a stopped process older, as if it had been stopped this long ago."""
    beat = heartbeat.read(file)
    older = msgspec.structs.replace(beat, at_seconds=beat.at_seconds - seconds)
    file.write_bytes(msgspec.json.encode(older).ljust(heartbeat.SIZE))


LEAST = 10  # tasks of a region


class Traffic:
    """Publishes tasks of regions without a pause; every id that was confirmed is in the ledger."""

    def __init__(self, host: Host, *regions: str, pause_seconds: float = 0.05) -> None:
        self.host, self.pause_seconds = host, pause_seconds
        self.published: dict[str, list[str]] = {region: [] for region in regions}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            until(lambda: self._error or min(map(len, self.published.values())) > LEAST, "enough traffic")
        self._is_over.set()
        self._thread.join(60)

    def _run(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self.host.rabbitmq.url))
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            number = 0
            while not self._is_over.wait(self.pause_seconds):
                for region, published in self.published.items():
                    number += 1
                    one = task(region, number, deadline_ms=time.time_ns() // 1_000_000 + 600_000)
                    Broker(self.host.rabbitmq, region)._send(
                        channel, contract.encode(one), one.task, one.request, "task", False
                    )
                    published.append(one.task)
        except Exception as error:
            self._error = error
            raise
        finally:
            connection.close()

    def jobs(self, region: str) -> list[str]:
        return [job.decode() for job in self.host.redis.client.lrange(names.rq_queue(region), 0, -1)]

    def flows(self, region: str) -> None:
        """Waits until a task that is published from now on has become a job."""
        seen = len(self.published[region])
        until(lambda: len(self.published[region]) > seen, "traffic")
        until(lambda: self.published[region][seen] in self.jobs(region), f"{region}'s tasks to flow", 60)

    def check(self) -> int:
        """Checks that every published task is a job, once, and that no message is left. Returns how many there were."""
        assert self._error is None
        for region, published in self.published.items():
            until(
                lambda region=region, published=published: len(self.jobs(region)) >= len(published), f"{region}'s jobs"
            )
            assert sorted(self.jobs(region)) == sorted(published)
            assert len(published) > LEAST
            until(lambda region=region: Broker(self.host.rabbitmq, region).ready() == 0, "the queue to be empty")
        return sum(map(len, self.published.values()))
