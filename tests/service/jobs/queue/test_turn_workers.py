"""Turns kept by several real worker processes, counted at the site that they fetch."""

import os
import signal
import time

import msgspec
import pytest

from regions import names
from tests.service.counting import CountingSite, site
from tests.service.region_workers import RegionWorkers, of
from tests.waiting import until

__all__ = ["site"]

SLOW, QUICK = "slow.example", "quick.example"
DEFINITION = """
title = "Rows"
url = 'https://HOST/rows{?n,seconds,pages}'
[params]
n = {}
seconds = {}
pages = {}
[rows]
jmes = "rows"
[fields]
id = {type = "int"}
[next]
jmes = "next"
"""


def definition(host: str, **limits: object) -> str:
    lines = [f'{name} = "{text}"' if isinstance(text, str) else f"{name} = {text}" for name, text in limits.items()]
    return DEFINITION.replace("HOST", host) + "\n".join(["[limits]", "timeout_seconds = 30", *lines]) + "\n"


@pytest.fixture
def start(workers: RegionWorkers, site: CountingSite):
    """Starts worker processes with the definitions of both hosts."""

    def begin(processes: int = 2, *, threads: int = 16, pool: bool = False, **definitions: str) -> RegionWorkers:
        files = {f"{name}.toml": text for name, text in definitions.items()}
        there = {"allow": f"127.0.0.1:{site.port}", "origins": site.origins(SLOW, QUICK)}
        workers.start(files, pool=pool, threads=threads, processes=processes, **there)
        return workers

    return begin


def asked(count: int, source: str, host: str, *, request: str = "", deadline_seconds: float = 110.0, **params: str):
    """Tasks of a source; of one request if it is named."""
    made = []
    for n in range(count):
        one = of(source, deadline_seconds=deadline_seconds, n=str(n), **params)
        there = {"url": f"https://{host}/rows", "host": f"https://{host}:443"}
        made.append(msgspec.structs.replace(one, request=request or one.request, **there))
    return made


def kill_one_that_fetches(workers: RegionWorkers) -> bool:
    """Kills a process with what it runs, if there is one: it is stopped first, so that nothing of it ends meanwhile."""
    for name, pid in workers.pids().items():
        os.kill(pid, signal.SIGSTOP)
        if workers.client.scard(names.rq_worker_executions(name)):
            os.kill(pid, signal.SIGKILL)
            return True
        os.kill(pid, signal.SIGCONT)
    return False


def test_four_processes_keep_one_hosts_concurrency_through_kills(start, site):
    """Each of two kills takes what runs with it; what ran is fetched again, and nothing besides."""
    workers = start(4, pool=True, slow=definition(SLOW, concurrency=3))
    ids = workers.ask(asked(60, "slow", SLOW, seconds="0.15"))
    for part in (10, 30):
        until(lambda part=part: len(site.of(SLOW)) >= part, f"{part} fetches")
        until(lambda: kill_one_that_fetches(workers), "a process that fetches")
    found = workers.results(ids)
    assert {one["status"] for one in found} == {"succeeded"}
    assert max(one["attempts"] for one in found) > 1, "the kills hit nothing"
    assert 1 < site.peaks[SLOW] <= 3
    assert 60 < len(site.of(SLOW)) <= 60 + 2 * 3
    assert workers.client.exists(names.turns(f"https://{SLOW}:443")) == 0


def test_four_processes_keep_one_hosts_rate(start, site):
    """At any moment no more were fetched than the rate allows since the first was asked."""
    workers = start(4, slow=definition(SLOW, rate="8/s"))
    tasks = asked(20, "slow", SLOW)
    began = time.monotonic()
    ids = workers.ask(tasks)
    found = workers.results(ids)
    assert {one["status"] for one in found} == {"succeeded"}
    fetches = site.of(SLOW)
    assert len(fetches) == 20
    for number, fetch in enumerate(fetches):
        assert fetch.began - began >= number / 8
    assert max(one["timing"]["turn_ms"] for one in found) >= 1000


def test_another_host_keeps_its_speed_while_a_slow_one_is_asked_much(start, site):
    """What waits for the slow one is in nobody's way: all of the quick host's tasks end while most of it still waits."""
    workers = start(slow=definition(SLOW, concurrency=2), quick=definition(QUICK))
    workers.ask(asked(800, "slow", SLOW, seconds="0.5"))
    ids = workers.ask(asked(100, "quick", QUICK))
    found = workers.results(ids)
    assert {one["status"] for one in found} == {"succeeded"}
    assert len(site.of(SLOW)) < 400
    assert site.peaks[SLOW] == 2


def test_a_single_question_does_not_wait_for_ten_requests_of_many(start, site):
    workers = start(slow=definition(SLOW, concurrency=1))
    many = [one for number in range(10) for one in asked(20, "slow", SLOW, request=f"R{number}", seconds="0.02")]
    ids = workers.ask([*many, *asked(1, "slow", SLOW, request="SINGLE", pages="0", seconds="0")])
    workers.results(ids[-1:])
    (place,) = [number for number, one in enumerate(site.of(SLOW)) if "pages" in one.params]
    assert place <= 40


def test_who_can_not_have_a_turn_in_time_hears_so_at_once(start, site):
    workers = start(slow=definition(SLOW, rate="1/min"))
    first, second = workers.results(workers.ask(asked(2, "slow", SLOW, deadline_seconds=50)))
    assert first["status"] == "succeeded"
    assert (second["status"], second["attempts"]) == ("failed", 0)
    error = second["error"]
    assert (error["type"], error["origin"], error["retryable"]) == ("rate_limited", "region", True)
    assert 30 < error["retry_after"] <= 60
    assert error["message"].startswith(f"expected a turn of https://{SLOW}:443 before the deadline, found none for ")
    assert len(site.of(SLOW)) == 1


def test_every_page_keeps_the_rate(start, site):
    workers = start(slow=definition(SLOW, rate="4/s", concurrency=4))
    began = time.monotonic()
    found = workers.results(workers.ask(asked(3, "slow", SLOW, pages="2")))
    for one in found:
        assert (one["status"], one["count"], one["partial"]) == ("succeeded", 3, False)
        assert 0 < one["timing"]["turn_ms"] <= one["timing"]["total_ms"]
    fetches = site.of(SLOW)
    assert len(fetches) == 9
    for number, fetch in enumerate(fetches):
        assert fetch.began - began >= number / 4


def test_threads_that_wait_are_half_of_a_process_at_most(start, site):
    """Tasks of many pages, more than may wait at once, all come to their end, and none counts it as a failure."""
    workers = start(1, threads=3, slow=definition(SLOW, rate="2/s", retries=0))
    ids = workers.ask(asked(3, "slow", SLOW, pages="2", seconds="gate"))
    until(lambda: len(site.of(SLOW)) == 3, "all to run")
    site.gate.set()
    found = workers.results(ids)
    assert {(one["status"], one["count"], one["partial"]) for one in found} == {("succeeded", 3, False)}
    assert max(one["attempts"] for one in found) > 1


def test_a_changed_definition_changes_the_turns(start, site, tmp_path):
    workers = start(slow=definition(SLOW, concurrency=1), quick=definition(QUICK))
    ids = workers.ask(asked(40, "slow", SLOW, seconds="0.2"))
    until(lambda: len(site.of(SLOW)) >= 3, "some fetches")
    assert site.peaks[SLOW] == 1
    (tmp_path / "sources" / "slow.toml").write_text(definition(SLOW, concurrency=5), encoding="utf-8")
    workers.results(ids)
    assert 1 < site.peaks[SLOW] <= 5
