"""The same question asked many times at once of real worker processes, counted at the site that they fetch."""

import os
import signal
import time
from collections import Counter

import msgspec
import pytest

from jobs.contract import Trail, key_of
from regions import names
from tests.service.counting import CountingSite, Rule, site
from tests.service.jobs.queue.test_turn_workers import SLOW, definition
from tests.service.region_workers import RegionWorkers, of
from tests.service.working import REGION, out_entries
from tests.waiting import until

__all__ = ["site"]

CLIENTS = 200
DEADLY = """
import os
import signal


def parse(page):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def start(workers: RegionWorkers, site: CountingSite):
    """Starts worker processes with one source, two where nothing else is said. The pool is for who loses some."""

    def begin(*, code: str = "", processes: int = 2, pool: bool = False, **limits: object) -> RegionWorkers:
        text = definition(SLOW, **limits)
        files = {"slow.toml": text}
        if code:
            without_rows = text.replace("[params]", 'format = "json"\n[params]').replace('[rows]\njmes = "rows"\n', "")
            files = {"slow.toml": without_rows, "slow.py": code}
        there = {"allow": f"127.0.0.1:{site.port}", "origins": site.origins(SLOW)}
        workers.start(files, threads=8, processes=processes, pool=pool, **there)
        return workers

    return begin


def same(count: int, *, deadline_seconds: float = 110.0, **params: str):
    """So many clients' question."""
    made = [of("slow", deadline_seconds=deadline_seconds, **params) for _ in range(count)]
    there = {"url": f"https://{SLOW}/rows", "host": f"https://{SLOW}:443"}
    return [msgspec.structs.replace(one, **there) for one in made]


def left(workers: RegionWorkers) -> list[bytes]:
    kinds = ("flight*", "joined*", "shared*", "landing*", "turns*", "line*")
    return [key for kind in kinds for key in workers.client.keys(f"nf:{kind}")]


def joined(workers: RegionWorkers) -> int:
    """How many tasks wait for the answer of one that asks the same."""
    return workers.client.zcard(names.rq_registry("scheduled", REGION))


def leader(workers: RegionWorkers, asked) -> str:
    """The task that asks."""
    held = until(lambda: workers.client.get(names.flight(key_of(asked))), "somebody who asks")
    return held.decode().removesuffix("+")


def holder(workers: RegionWorkers, task: str) -> int:
    """The process that runs a task."""
    running = {
        member.decode().split(":")[0]: pid
        for name, pid in workers.pids().items()
        for member in workers.client.smembers(names.rq_worker_executions(name))
    }
    return running.get(task, 0)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_what_200_clients_ask_at_once_is_fetched_once(start, site, concurrency):
    workers = start(processes=4, concurrency=concurrency)
    ids = workers.ask(same(CLIENTS, seconds="0.5"), has_keys=True)
    found = workers.results(ids)
    assert len(site.of(SLOW)) == 1
    assert [one["task"] for one in found] == ids
    assert {(one["status"], one["count"], one["cached"]) for one in found} == {("succeeded", 1, False)}
    assert Counter(one["attempts"] for one in found) == {1: 1, 0: CLIENTS - 1}
    assert Counter(one["bytes"]["raw"] > 0 for one in found) == {True: 1, False: CLIENTS - 1}
    (page,) = {one["bytes"]["received"] for one in found} - {0}
    assert Counter(one["bytes"]["spared"] for one in found) == {0: 1, page: CLIENTS - 1}
    assert all(one["records"] == [{"id": 1}] and one["fetched_at"] == found[0]["fetched_at"] for one in found)
    (asked,) = [one["task"] for one in found if one["attempts"]]
    trails = {entry[b"t"]: entry[b"h"] for entry in out_entries(workers.hub)}  # a result may be sent again
    notes = Counter(msgspec.json.decode(one, type=Trail).attempts[-1].message for one in trails.values())
    assert notes == {"": 1, f"its answer is that of {asked}, which asked the same": CLIENTS - 1}
    until(lambda: left(workers) == [], "nothing to be left")


def test_who_comes_while_it_is_fetched_is_told_too_and_who_comes_later_asks(start, site):
    workers = start()
    ids = workers.ask(same(1, seconds="gate"), has_keys=True)
    until(lambda: site.of(SLOW), "the fetch")
    ids += workers.ask(same(50, seconds="gate"), has_keys=True)
    until(lambda: joined(workers) == 50, "all of them to join")
    site.gate.set()
    workers.results(ids)
    assert len(site.of(SLOW)) == 1
    workers.results(workers.ask(same(1, seconds="gate"), has_keys=True))
    assert len(site.of(SLOW)) == 2


def test_a_kill_of_who_fetches_costs_one_more_fetch(start, site):
    workers = start(pool=True)
    ids = workers.ask(same(CLIENTS, seconds="gate"), has_keys=True)
    until(lambda: site.of(SLOW), "the fetch")
    os.kill(until(lambda: holder(workers, leader(workers, same(1, seconds="gate")[0])), "who fetches"), signal.SIGKILL)
    until(lambda: len(site.of(SLOW)) == 2, "another fetch")
    site.gate.set()
    found = workers.results(ids)
    assert {one["status"] for one in found} == {"succeeded"}
    assert len(site.of(SLOW)) == 2
    assert Counter(one["attempts"] for one in found) == {2: 1, 0: CLIENTS - 1}
    until(lambda: left(workers) == [], "nothing to be left")


def test_a_deadly_answer_kills_three_processes_and_not_one_for_each_who_asked(start, site):
    workers = start(code=DEADLY, pool=True)
    ids = workers.ask(same(CLIENTS), has_keys=True)
    found = workers.results(ids)
    assert {(one["status"], one["error"]["type"]) for one in found} == {("failed", "poison")}
    assert Counter(one["attempts"] for one in found) == {3: 1, 0: CLIENTS - 1}
    assert len(site.of(SLOW)) == 3
    until(lambda: left(workers) == [], "nothing to be left")


def test_a_cancel_of_who_asks_lets_the_next_one_ask(start, site):
    workers = start()
    ids = workers.ask(same(20, seconds="gate"), has_keys=True)
    until(lambda: site.of(SLOW), "the fetch")
    first = leader(workers, same(1, seconds="gate")[0])
    workers.client.set(names.cancel_mark(first), 1, px=60_000)
    until(lambda: len(site.of(SLOW)) == 2, "the next one's fetch")
    site.gate.set()
    found = {one["task"]: one for one in workers.results(ids)}
    assert found.pop(first)["error"]["type"] == "cancelled"
    assert {one["status"] for one in found.values()} == {"succeeded"}
    assert len(site.of(SLOW)) == 2


def test_a_failing_source_is_asked_as_often_as_by_one_client(start, site):
    """Retries are the one's who asks; all hear how the last one failed."""
    workers = start(retries=1)
    site.rules[SLOW] = Rule(status=503)
    found = workers.results(workers.ask(same(CLIENTS, seconds="0.3"), has_keys=True))
    assert {(one["status"], one["error"]["type"], one["error"]["http_status"]) for one in found} == {
        ("failed", "http_status", 503)
    }
    assert len(site.of(SLOW)) == 2
    assert Counter(one["attempts"] for one in found) == {2: 1, 0: CLIENTS - 1}


def test_who_has_more_time_than_who_asks_is_not_failed_for_it(start, site):
    workers = start(retries=0)
    began = time.monotonic()
    short = workers.ask(same(1, seconds="7", deadline_seconds=6), has_keys=True)
    until(lambda: site.of(SLOW), "the fetch")
    long = workers.ask(same(9, seconds="7"), has_keys=True)
    assert workers.results(short)[0]["error"]["type"] == "timeout"
    assert {one["status"] for one in workers.results(long)} == {"succeeded"}
    assert len(site.of(SLOW)) == 2
    assert time.monotonic() - began >= 6 + 7 - 1
