"""A task that computes past its deadline: it ends at its deadline, and its process after its other tasks."""

import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from jobs.worker import worker
from regions import names
from regions.process import stat
from regions.settings import Limits
from tests.service.counting import CountingSite, Rule
from tests.service.region_workers import RegionWorkers, of, started
from tests.service.working import is_clean, out_entries, results
from tests.waiting import until

WIDE, QUICK = "wide.example", "quick.example"
# Each of 200,000 elements counts them all: hours, in libxml2, without the interpreter.
QUADRATIC = f"""
title = "Counts without an end"
url = 'https://{WIDE}/page'
format = "xml"
[rows]
xpath = "//*[count(//*)>1]"
[fields]
id = {{xpath = "@id"}}
[limits]
retries = 2
timeout_seconds = 30
"""
SLOW = f"""
title = "Takes a while"
url = 'https://{QUICK}/rows{{?n,seconds}}'
[params]
n = {{}}
seconds = {{}}
[rows]
jmes = "rows"
[fields]
id = {{type = "int"}}
[limits]
timeout_seconds = 60
concurrency = 64
"""
# A worker whose running tasks have 5 s to end instead of 30.
HURRIED = """
import sys
from jobs.worker import worker
from jobs.worker.__main__ import main
worker.DRAIN_SECONDS = 5.0
sys.exit(main(sys.argv[1:]))
"""
PAGE = b"<all>" + b"<a/>" * 200_000 + b"</all>"


@pytest.fixture
def site() -> Iterator[CountingSite]:
    made = CountingSite()
    made.rules[WIDE] = Rule(body=PAGE, headers={"Content-Type": "application/xml"})
    yield made
    made.stop()


@pytest.fixture
def start(tmp_path, region_redis, hub_redis, site) -> Iterator[Callable[..., RegionWorkers]]:
    made = RegionWorkers(tmp_path, region_redis.url, hub_redis.client, hub_redis.url)

    def begin(**options) -> RegionWorkers:
        there = {"allow": f"127.0.0.1:{site.port}", "origins": site.origins(WIDE, QUICK)}
        made.start({"wide.toml": QUADRATIC, "slow.toml": SLOW}, threads=8, **there, **options)
        return made

    yield begin
    made.stop()


@pytest.fixture
def workers(start) -> RegionWorkers:
    return start()


def is_over(pid: int, began: str) -> bool:
    """Whether the process with this start time is gone."""
    fields = stat(pid)
    return fields is None or fields[19] != began or fields[0] == "Z"


def test_a_computation_without_an_end_ends_by_its_deadline_and_takes_nobody_along(workers, site):
    ((name, pid),) = workers.pids().items()
    began = started(pid)
    neighbours = workers.ask([of("slow", n=str(n), seconds="gate") for n in range(4)])
    until(lambda: len(site.of(QUICK)) == 4, "its neighbours to be fetched")
    stuck = of("wide", deadline_seconds=5)
    workers.ask([stuck])
    (failed,) = workers.results([stuck.task])
    (ended_ms,) = {int(one[b"f"]) for one in out_entries(workers.hub) if one[b"t"] == stuck.task.encode()}
    error = failed["error"]
    assert (failed["status"], failed["attempts"], error["type"], error["origin"]) == ("failed", 1, "timeout", "parser")
    assert "computing" in error["message"]
    assert "select.py" in error["message"]
    assert Limits().grace_seconds > worker.STUCK_SECONDS + worker.CHECK_SECONDS, "the hub would end it"
    assert ended_ms - stuck.deadline_ms < 60_000
    assert workers.client.zcard(names.turns(f"https://{WIDE}:443")) == 0

    until(lambda: any(one != name for one in workers.pids()), "another process")
    assert not is_over(pid, began)
    later = workers.ask([of("slow", n="later")])
    assert workers.results(later)[0]["status"] == "succeeded"
    site.gate.set()
    assert {(one["status"], one["attempts"]) for one in workers.results(neighbours)} == {("succeeded", 1)}
    assert len(site.of(QUICK)) == 5
    until(lambda: is_over(pid, began), "the end of its process")
    until(lambda: is_clean(workers.client), "a clean region")
    assert Counter(results(workers.hub)).most_common(1)[0][1] == 1
    assert len(site.of(WIDE)) == 1


def test_what_runs_beside_it_for_too_long_is_given_back_and_runs_elsewhere(start, site):
    workers = start(worker=("-c", HURRIED))
    ((_, pid),) = workers.pids().items()
    began = started(pid)
    long = workers.ask([of("slow", n="long", seconds="gate", deadline_seconds=200)])
    until(lambda: site.of(QUICK), "its neighbour to be fetched")
    stuck = of("wide", deadline_seconds=5)
    workers.ask([stuck])
    assert workers.results([stuck.task])[0]["error"]["type"] == "timeout"
    until(lambda: is_over(pid, began), "the end of its process")
    until(lambda: len(site.of(QUICK)) == 2, "it to be fetched again")
    site.gate.set()
    (found,) = workers.results(long)
    assert (found["status"], found["attempts"]) == ("succeeded", 2)
    assert workers.client.hget(names.rq_job(long[0]), names.JOB_DEATHS) is None


def test_a_suspect_that_computes_without_an_end_says_so_too(workers):
    stuck = of("wide", deadline_seconds=12)
    ((_, pid),) = workers.pids().items()
    workers.ask([stuck])
    until(lambda: workers.client.scard(names.rq_worker_executions(next(iter(workers.pids())))), "a running task")
    os.kill(pid, 9)
    (failed,) = workers.results([stuck.task])
    assert (failed["attempts"], failed["error"]["type"]) == (2, "timeout")
    until(lambda: workers.client.zcard(names.ALONE) == 0, "the end of its process")
