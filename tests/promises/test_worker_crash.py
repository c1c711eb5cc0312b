"""Worker crash or pause: ``kill -9`` and SIGSTOP/SIGCONT at claim, fetch, parse, finish and ship.

Pass: second start p99 ≤ 15 s after the crash; a resumed process changes nothing; nothing is lost or doubled.
"""

import json
import os
import signal
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from rq import Worker as RqWorker

from jobs import result_frame
from regions import names
from regions.settings import Egress, Fetch, Folders, Settings
from scripts.site.behave import Rule
from scripts.site.site import Site, origins
from tests.promises.faulty import POINTS
from tests.service.working import REGION, enqueue, results, settings_for, task
from tests.waiting import until

TASKS, THREADS = 150, 4
SECOND_START_SECONDS = 30.0  # promised are 15, on a machine that has nothing else to do
SLOW_SECONDS = 0.2  # of a page, so that whoever is hit holds tasks in all states
DEADLINE_SECONDS = 120.0
TINY = """
title = "Tiny"
url = 'https://bench.example/tiny'
[rows]
jmes = "rows"
[fields]
id = {type = "int"}
[limits]
concurrency = 1000
"""


@dataclass
class Hit:
    """A process that was hurt: when (seconds since the epoch), and the tasks that it held."""

    pid: int
    worker: str
    at: float
    held: list[str]


@pytest.fixture
def site() -> Iterator[Site]:
    started = Site().start()
    started.behaviour.add(msgspec.convert({"prefix": "/bench.example/", "delay_seconds": SLOW_SECONDS}, type=Rule))
    yield started
    started.stop()


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    folder = tmp_path / "faults"
    folder.mkdir()
    return folder


@pytest.fixture
def start(pool, site, faults, tmp_path, region_redis, hub_redis):
    """Starts a pool of so many processes that fetch from the site, and waits for them."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "tiny.toml").write_text(TINY)

    def begin(processes: int) -> None:
        plain = settings_for(region_redis.url, hub_redis.url, threads=THREADS, processes=processes)
        region = msgspec.structs.replace(plain.one(REGION), egress={"default": Egress()})
        settings: Settings = msgspec.structs.replace(
            plain,
            region={REGION: region},
            sources=Folders(path=str(sources)),
            fetch=Fetch(allow=f"127.0.0.1:{site.port}", origins=origins(site.port)),
        )
        pool(settings, "tests.promises.faulty", 600.0, FAULTS=str(faults))
        until(lambda: region_redis.client.zcard(names.WORKERS) == processes + 1, "all processes to claim")

    return begin


def arm(faults: Path, number: signal.Signals) -> None:
    for point in POINTS:
        (faults / f"{point}.part").write_text(str(int(number)))
        (faults / f"{point}.part").rename(faults / f"{point}.armed")


def hits(faults: Path) -> list[Hit]:
    """Who was hurt, once every point was hit."""
    paths = [faults / f"{point}.hit" for point in POINTS]
    until(lambda: all(path.exists() for path in paths), "a process at each point")
    return [Hit(**json.loads(path.read_text())) for path in paths]


def post(client, count: int) -> list[str]:
    wanted = [task(deadline_seconds=DEADLINE_SECONDS) for _ in range(count)]
    there = {"source": "tiny", "definition": "", "host": "https://bench.example:443"}
    return enqueue(client, [msgspec.structs.replace(one, **there) for one in wanted])


def waits(faults: Path, found: list[Hit]) -> list[float]:
    """Seconds from each crash to the second start of what it held."""
    crashes = {id_: hit.at for hit in found for id_ in hit.held}
    starts = [line.split() for line in (faults / "starts").read_text().splitlines()]
    return [float(at) - crashes[id_] for id_, attempt, _, at in starts if attempt == "2" and id_ in crashes]


def check(client, hub, site: Site, ids: list[str]) -> Counter:
    """Every task succeeded once, unchanged, and nothing is left over; how often each number of attempts came."""
    assert set(results(hub)) == set(ids)
    heads = [json.loads(result_frame.splice(hub.get(names.result(REGION, id_)))) for id_ in ids]
    assert Counter(head["status"] for head in heads) == {"succeeded": len(ids)}
    assert all(head["records"] == [{"id": number} for number in (1, 2, 3)] for head in heads)
    until(lambda: client.xlen(names.OUTBOX) == 0, "an empty outbox")
    assert int(client.hget(names.COUNTERS, "succeeded")) == len(ids), "doubled: a task was finished twice"
    assert client.hget(names.COUNTERS, "failed") is None
    assert client.get(names.OUTBOX_BYTES) == b"0"
    assert (client.zcard(names.rq_registry("wip", REGION)), client.keys("rq:execution*")) == (0, [])
    assert client.zcard(names.rq_registry("finished", REGION)) == len(ids)
    attempts = Counter(head["attempts"] for head in heads)
    assert site.fetches.since(0)[0] <= sum(times * count for times, count in attempts.items())
    return attempts


def test_killed_processes_lose_and_double_nothing_and_what_they_held_starts_again_soon(
    start, faults, site, region_redis, hub_redis
):
    """Kill -9 at each point of a task's way, in a process each."""
    client, hub = region_redis.client, hub_redis.client
    start(processes=6)
    arm(faults, signal.SIGKILL)
    ids = post(client, TASKS)
    found = hits(faults)
    until(lambda: len(set(results(hub))) == TASKS, "all results", 150)
    attempts = check(client, hub, site, ids)
    seconds = waits(faults, found)
    assert len(seconds) >= 5, f"the kills hit nothing: {attempts}"
    assert set(attempts) <= {1, 2}
    assert p99(seconds) <= SECOND_START_SECONDS, sorted(seconds)


def test_a_process_that_was_paused_and_resumed_changes_nothing(start, faults, site, region_redis, hub_redis):
    """SIGSTOP at each point of a task's way, in a process each; SIGCONT when others have done its work."""
    client, hub = region_redis.client, hub_redis.client
    start(processes=len(POINTS) + 1)
    client.zadd(names.WORKERS, {"nobody": 1})
    until(lambda: client.zscore(names.WORKERS, "nobody") is None, "the reaper to have its proof")
    arm(faults, signal.SIGSTOP)
    ids = post(client, TASKS)
    found = hits(faults)
    try:
        until(lambda: len(set(results(hub))) == TASKS, "all results", 150)
        check(client, hub, site, ids)
        assert p99(waits(faults, found)) <= SECOND_START_SECONDS
        before = {id_: client.hgetall(names.rq_job(id_)) for id_ in ids}
    finally:
        for hit in found:
            os.kill(hit.pid, signal.SIGCONT)
    paused = {hit.worker for hit in found}
    until(lambda: paused <= {worker.name for worker in RqWorker.all(connection=client)}, "them to register again")
    more = post(client, TASKS)
    until(lambda: set(results(hub)) == {*ids, *more}, "all results")
    until(lambda: sum(client.scard(names.rq_worker_executions(name)) for name in paused) == 0, "them to be idle")
    after = {id_: client.hgetall(names.rq_job(id_)) for id_ in ids}
    assert after == before, "a resumed process changed a job"
    attempts = check(client, hub, site, [*ids, *more])
    assert attempts[2] >= 5, f"the pauses hit nothing: {attempts}"
    assert any(line.split()[2] in {str(hit.pid) for hit in found} for line in lines_after(faults, more))


def lines_after(faults: Path, ids: list[str]) -> list[str]:
    """The starts of these tasks."""
    return [line for line in (faults / "starts").read_text().splitlines() if line.split()[0] in set(ids)]


def p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98] if len(seconds) > 1 else max(seconds)
