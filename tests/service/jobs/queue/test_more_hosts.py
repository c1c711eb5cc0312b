"""A region on two hosts: a folder of settings and sources each, a bridge and a pool each, started by ``nearfetch``."""

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs
from rq import Worker as RqWorker

from jobs import result_frame
from jobs.queue.script import LEASE_MS
from regions import names
from regions.settings import ROOT
from scripts.site.site import Site, origins
from tests.service import bridging
from tests.service.region_workers import of
from tests.service.working import REGION, results
from tests.waiting import until

SOURCE = """
title = "Of the bench"
url = 'https://bench.example/tiny?seconds=0.05'
format = "json"
[rows]
jmes = "rows"
[fields]
id = {type = "int"}
"""


class Host:
    """One machine: what stands in its folder, and the parts of the region that run there."""

    def __init__(self, folder: Path, region_redis, hub_redis, rabbitmq, site: Site) -> None:
        self.folder = folder
        for name in ("regions", "sources"):
            (folder / name).mkdir(parents=True)
        (folder / "nearfetch.toml").write_text(
            f'[hub]\nredis = "{hub_redis.url}"\namqp = "{rabbitmq.url}"\n'
            f'[regions]\npath = "{folder}/regions"\n[sources]\npath = "{folder}/sources"\n'
            f'[fetch]\nallow = "127.0.0.0/8"\norigins = "{origins(site.port)}"\n[log]\nformat = "json"\n'
        )
        (folder / "sources" / "tiny.toml").write_text(SOURCE)
        (folder / "regions" / f"{REGION}.toml").write_text(
            f'[redis]\nurl = "{region_redis.url}"\n[workers]\nthreads = 4\n[scale]\nmin = 3\nmax = 3\n'
        )
        self._running: dict[str, subprocess.Popen] = {}

    def start(self, part: str) -> None:
        own = {key: value for key, value in os.environ.items() if not key.startswith("NEARFETCH")}
        environ = {**own, "NEARFETCH_CONFIG": str(self.folder / "nearfetch.toml")}
        with (self.folder / part).open("ab") as log:
            self._running[part] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", ROOT / "scripts" / "nearfetch", part, REGION],
                cwd=self.folder, env=environ, stderr=log, stdout=log, start_new_session=True,
            )  # fmt: skip

    def crash(self) -> None:
        """All of it at once, as a machine that loses its power."""
        for process in self._running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def said(self, part: str, event: str) -> list[dict]:
        lines = (self.folder / part).read_text(encoding="utf-8").rpartition("\n")[0].splitlines()  # whole ones
        said = [json.loads(line) for line in lines if line.startswith("{")]
        return [one for one in said if one["event"] == event]


@pytest.fixture
def site() -> Iterator[Site]:
    started = Site().start()
    yield started
    started.stop()


@pytest.fixture
def hosts(tmp_path, region_redis, hub_redis, rabbitmq, site) -> Iterator[list[Host]]:
    made = [Host(tmp_path / name, region_redis, hub_redis, rabbitmq, site) for name in ("one", "two")]
    yield made
    for host in made:
        host.crash()


def processes(client) -> int:
    return sum(worker.queue_names() == [REGION] for worker in RqWorker.all(connection=client))


def test_a_second_machine_joins_by_its_settings_alone_and_the_first_may_be_lost(
    hosts, region_redis, hub_redis, rabbitmq
):
    client, hub = region_redis.client, hub_redis.client
    broker = bridging.Broker(rabbitmq, REGION)
    broker.declare()
    one, two = hosts
    tasks = [structs.replace(of("tiny", deadline_seconds=200), region=REGION) for _ in range(600)]
    ids = [task.task for task in tasks]
    for host in hosts:
        host.start("bridge")
        host.start("workers")
    until(lambda: processes(client) == 3, "the region's three processes", 120)
    until(lambda: len(json.loads(client.get(names.SCALE))["shares"]) == 2, "two pools")
    until(lambda: processes(client) == 3, "the region's three processes", 120)
    assert sorted(json.loads(client.get(names.SCALE))["shares"].values()) == [1, 2]
    broker.publish(*tasks[:300])
    until(lambda: len(set(results(hub))) >= 100, "some results")
    one.crash()
    broker.publish(*tasks[300:])
    until(lambda: set(results(hub)) == set(ids), "all results", 100)
    until(lambda: list(json.loads(client.get(names.SCALE))["shares"].values()) == [3], "one pool", LEASE_MS / 1000 + 30)
    until(lambda: processes(client) == 3, "the region's three processes", 120)
    # What a host had sent when it was lost is sent once more, as the same frame; a gateway settles the first.
    assert {task for task, count in Counter(results(hub)).items() if count > 1} <= set(ids[:300])
    found = [json.loads(result_frame.splice(hub.get(names.result(REGION, task)))) for task in ids]
    assert {each["status"] for each in found} == {"succeeded"}
    assert one.said("workers", "registered")
    assert two.said("workers", "registered")
