"""``/metrics`` of a pool: what its processes do adds up, also when they die."""

import os
import signal
import subprocess
from collections.abc import Iterator

import msgspec
import pytest

from regions.settings import ROOT, Metrics
from scripts.stack.ports import free_port
from tests.forked import Forked
from tests.scraping import Scrape
from tests.service.jobs.pool.test_pool import PROGRAM
from tests.service.working import REGION, enqueue, results, settings_for, task
from tests.waiting import until


@pytest.fixture
def port(region_redis, hub_redis) -> Iterator[int]:
    """The port of a pool of two processes, which run what their tasks' params say."""
    port = free_port()
    chosen = settings_for(region_redis.url, hub_redis.url, threads=4, processes=2)
    one = msgspec.structs.replace(chosen.one(REGION), metrics=Metrics(workers_port=port))
    chosen = msgspec.structs.replace(chosen, region={REGION: one})
    words = ["-c", PROGRAM, "forked", "", "-m", "tests.service.working"]
    process = Forked(words, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True)
    process.stdin.write(msgspec.json.encode(chosen))
    process.stdin.close()
    yield port
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def is_ready(port: int) -> bool:
    try:
        return Scrape(port).get("worker_processes", region=REGION) == 2
    except OSError:
        return False


def test_what_two_processes_did_adds_up_and_survives_their_death(port, region_redis, hub_redis) -> None:
    until(lambda: is_ready(port), "two processes", 60)
    tasks = [task() for _ in range(40)]
    enqueue(region_redis.client, tasks)
    until(lambda: len(results(hub_redis.client)) == 40, "all results", 60)
    until(lambda: Scrape(port).get("attempts_total", outcome="succeeded") == 40, "all attempts to be counted")
    until(lambda: Scrape(port).hops().get("ship") == 40, "the hub to have all")
    found = Scrape(port)
    assert found.get("worker_starts_total", kind="normal") == 2
    assert found.get("worker_starts_total", kind="urgent") == 1
    assert found.get("worker_deaths_total") is None
    assert found.get("worker_threads") == 8
    assert found.get("attempt_bytes_total", bytes="home") > 0

    client = region_redis.client

    def registered() -> list[bytes]:
        return [key for key in client.scan_iter("rq:worker:*.worker.*") if client.type(key) == b"hash"]

    until(lambda: len(registered()) == 2, "both to be registered")
    for key in registered():
        os.kill(int(client.hget(key, "pid")), signal.SIGKILL)
    until(lambda: (Scrape(port).get("worker_deaths_total", how="crashed") or 0) >= 2, "the deaths to be counted", 60)
    assert Scrape(port).get("attempts_total", outcome="succeeded") == 40
    enqueue(client, [task() for _ in range(10)])
    until(lambda: Scrape(port).get("attempts_total", outcome="succeeded") == 50, "the new processes to count on", 60)
    until(lambda: Scrape(port).get("worker_starts_total", kind="normal") >= 4, "two processes more")
