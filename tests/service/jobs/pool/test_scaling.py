"""A region's pools on real Redis: they grow with load and clock, shrink by draining, and agree across hosts."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import redis
from rq import Worker as RqWorker

from jobs.queue.script import LEASE_MS
from regions import names
from regions.schedule import Scale, ScaleRule
from regions.settings import ROOT, Settings
from tests.forked import Forked
from tests.service.working import REGION, enqueue, out_entries, results, settings_for, task
from tests.waiting import until

# A pool as `run` runs it, with the tests' runner in its workers; arguments: a file with [scale], a file with the time.
PROGRAM = """
import sys, time, msgspec
from pathlib import Path
from jobs.pool import child, examiner, processes as pool
from jobs.worker import stop
from regions import logs
from regions.schedule import Scale
from regions.settings import Settings
from tests import forked
stop.follow_parent()
forked.forks(child, examiner)
logs.configure("json")
settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
scale, clock = map(Path, sys.argv[1:])
def again():
    region = settings.one("fra")
    changed = msgspec.structs.replace(region, scale=msgspec.json.decode(scale.read_bytes(), type=Scale))
    return msgspec.structs.replace(settings, region={"fra": changed})
now = lambda: float(clock.read_text()) if clock.exists() else time.time()
program = "import sys, jobs.worker.worker as w; w.DRAIN_SECONDS = 0.5; from tests.service import working; working.main(sys.argv[1:])"
sys.exit(pool.run(again(), "fra", (sys.executable, "-c", program), reload=again, clock=now))
"""


class Pools:
    """Pools of one region; ``scale`` is the table in their file."""

    def __init__(self, folder: Path, region_url: str, hub_url: str) -> None:
        self._folder, self._urls = folder, (region_url, hub_url)
        self.client: redis.Redis = redis.Redis.from_url(region_url)
        self.clock = folder / "clock"
        self._file = folder / "scale"
        self._running: list[subprocess.Popen] = []

    def write(self, **scale) -> None:
        new = self._file.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(Scale(**scale)))
        new.replace(self._file)

    def start(self, *, threads: int = 4) -> subprocess.Popen:
        settings: Settings = settings_for(*self._urls, threads=threads)
        log = (self._folder / f"log{len(self._running)}").open("wb")
        process = Forked(
            ["-c", PROGRAM, self._file, self.clock],
            cwd=ROOT, stdin=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
        log.close()
        self._running.append(process)
        process.stdin.write(msgspec.json.encode(settings))
        process.stdin.close()
        return process

    def stop(self) -> None:
        for process in self._running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.client.close()

    def workers(self) -> dict[str, int]:
        """The workers that claim, as RQ lists them, without those for urgent tasks: name → pid."""
        urgent = [names.urgent(REGION)]
        known = RqWorker.all(connection=self.client)
        return {worker.name: worker.pid for worker in known if worker.queue_names() != urgent}

    def shares(self) -> list[int]:
        """How the pools split the region's number."""
        text = self.client.get(names.SCALE)
        return sorted(json.loads(text)["shares"].values()) if text else []

    def log(self, event: str) -> list[dict]:
        lines = [
            line for file in self._folder.glob("log*") for line in file.read_text().rpartition("\n")[0].splitlines()
        ]
        said = [json.loads(line) for line in lines if line.startswith("{")]
        return [one for one in said if one["event"] == event]


@pytest.fixture
def pools(tmp_path, region_redis, hub_redis) -> Iterator[Pools]:
    made = Pools(tmp_path, region_redis.url, hub_redis.url)
    yield made
    made.stop()


def status(hub) -> dict:
    said = out_entries(hub, b"status")
    return json.loads(said[-1][b"d"]) if said else {}


def attempts(pools: Pools, ids: list[str]) -> Counter:
    return Counter(pools.client.hget(names.rq_job(one), names.JOB_ATTEMPT) for one in ids)


def test_a_burst_grows_a_pool_to_its_maximum_and_lets_it_shrink_and_each_task_runs_once(pools, hub_redis):
    pools.write(min=1, max=3, target_wait_seconds=1, cooldown_seconds=3)
    pools.start()
    until(lambda: len(pools.workers()) == 1, "a worker")
    ids = enqueue(pools.client, [task(seconds=0.02, deadline_seconds=300) for _ in range(2000)])
    until(lambda: len(pools.workers()) == 3, "three workers")
    until(lambda: len(results(hub_redis.client)) >= 2000, "all results", 120)
    until(lambda: len(pools.workers()) == 1, "the floor")
    assert Counter(results(hub_redis.client)) == Counter(ids)
    assert attempts(pools, ids) == {b"1": 2000}
    grown, *_, shrunk = pools.log("scaled")[1:]
    assert (grown["was"], grown["number"], shrunk["number"]) == (1, 3, 1)
    assert "needed to keep the wait below 1 s, 3 are allowed" in grown["reason"]
    assert shrunk["reason"].startswith("no more than 1 needed for 3 s")
    assert len(pools.log("draining a worker that is not needed")) == 2
    assert not pools.log("a worker died")
    said = until(
        lambda: status(hub_redis.client).get("scale", {}).get("number") == 1 and status(hub_redis.client), "it"
    )
    numbers = [one["number"] for one in said["scale"]["decisions"]]
    assert numbers[numbers.index(3) :] in ([3, 1], [3, 2, 1])  # two may be needed for one look
    assert (said["share"], said["scale"]["max"]) == (1, 3)
    assert (said["oldest_seconds"], said["target_seconds"]) == (0.0, 1.0)


def test_a_rule_of_the_clock_grows_a_pool_before_anything_comes(pools):
    def at(hour: int, minute: int) -> None:
        pools.clock.write_text(str(datetime(2026, 11, 24, hour, minute, tzinfo=UTC).timestamp()))

    rules = ScaleRule(cron="55 6 * * 1-5", timezone="Europe/Berlin", min=2), ScaleRule(cron="0 20 * * *")
    at(5, 54)
    pools.write(min=1, max=2, cooldown_seconds=1, schedule=rules)
    pools.start()
    until(lambda: len(pools.workers()) == 1, "a worker")
    at(5, 55)
    until(lambda: len(pools.workers()) == 2, "the second one")
    assert pools.log("scaled")[-1]["reason"] == 'the rule "55 6 * * 1-5" Europe/Berlin asks for at least 2'
    at(20, 0)
    until(lambda: len(pools.workers()) == 1, "its end")


def test_a_process_that_is_not_needed_claims_nothing_more_and_ends_what_it_runs(pools, hub_redis, tmp_path):
    """For longer than a stop would permit: draining has no time limit."""
    gate, mark = tmp_path / "gate", tmp_path / "marks"
    mark.mkdir()
    pools.write(min=2, max=2)
    pools.start(threads=2)
    until(lambda: len(pools.workers()) == 2, "two workers")
    ids = enqueue(pools.client, [task(gate=str(gate), mark=str(mark), deadline_seconds=200) for _ in range(4)])
    until(lambda: len(list(mark.iterdir())) == 4, "four running tasks")
    pools.write(min=1, max=1)
    drained = until(lambda: pools.log("draining a worker that is not needed"), "a drain")[0]
    told = time.monotonic()
    ids += enqueue(pools.client, [task(mark=str(mark), deadline_seconds=200) for _ in range(4)])
    until(lambda: time.monotonic() > told + 2, "more than a stop's time")
    assert drained["worker"] in pools.workers()
    gate.touch()
    until(lambda: len(results(hub_redis.client)) == 8, "eight results")
    until(lambda: drained["worker"] not in pools.workers(), "its end")
    assert Counter(results(hub_redis.client)) == Counter(ids)
    assert attempts(pools, ids) == {b"1": 8}
    by_drained = [path.name for path in mark.iterdir() if path.name.endswith(f".{drained['pid']}")]
    assert len(by_drained) == 2


def test_pools_share_the_regions_number_and_take_over_from_one_that_is_killed(pools):
    pools.write(min=3, max=3)
    first = pools.start()
    until(lambda: len(pools.workers()) == 3, "three workers")
    second = pools.start()
    until(lambda: pools.shares() == [1, 2], "their shares")
    until(lambda: len(pools.workers()) == 3 and pools.log("draining a worker that is not needed"), "a move")
    os.killpg(first.pid, signal.SIGKILL)  # the one that decides, and its workers with it
    first.wait()
    until(lambda: pools.shares() == [3], "one pool", 3 * LEASE_MS / 1000 + 60)
    until(lambda: len(pools.workers()) == 3, "three workers")
    third = pools.start()
    until(lambda: pools.shares() == [1, 2], "their shares")
    second.terminate()
    assert second.wait(60) == 0
    until(lambda: pools.shares() == [3], "one pool")
    until(lambda: len(pools.workers()) == 3, "three workers")
    assert third.poll() is None


def test_a_changed_file_reaches_a_running_pool(pools):
    pools.write(min=1, max=2)
    pools.start()
    until(lambda: len(pools.workers()) == 1, "a worker")
    pools.write(min=2, max=2)
    until(lambda: len(pools.workers()) == 2, "two workers")
    assert pools.log("scaled")[-1]["reason"] == "[scale] asks for at least 2"


def test_a_pool_keeps_its_number_while_its_redis_is_away(pools, region_redis, hub_redis, tmp_path):
    pools.write(min=2, max=2)
    pools.start()
    workers = until(lambda: len(pools.workers()) == 2 and pools.workers(), "two workers")
    # A worker that has only just registered may end when its Redis is lost; another one takes its place.
    heard = [f"rq:pubsub:{name}" for name in workers]
    until(lambda: all(count == 1 for _, count in pools.client.pubsub_numsub(*heard)), "both to listen")
    region_redis.crash()
    until(lambda: pools.log("can't scale, the number of processes stays"), "an outage")
    region_redis.running.start()
    ids = enqueue(pools.client, [task() for _ in range(10)])
    until(lambda: sorted(results(hub_redis.client)) == sorted(ids), "ten results")
    until(lambda: pools.workers() == workers, "the same two, as soon as both have it back")
