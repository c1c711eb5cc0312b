"""Backlog across an ocean: the hub was away until every deadline was over; what finished in time has succeeded.

The promise is 10,000 results within 15 s, which ``nearfetch bench --rows wan`` measures on a quiet machine; a busy one has half of them.
"""

import sys
import time

import pytest

from jobs import contract, result_frame
from regions import connect, names
from scripts.stack.ports import free_port
from scripts.stack.probes import listens
from scripts.stack.services import Running, Service
from scripts.stack.wan_links import Control, Rule, Way
from tests.service.conftest import rabbitmq
from tests.service.gateway import LIST, Stack
from tests.service.region_workers import RegionWorkers
from tests.waiting import until
from tests.wire import ask
from web.flow import sweep

__all__ = ["rabbitmq"]

RESULTS = 5_000
A_REQUEST = 100
ROUND_TRIP_MS = 150.0
HOME_SECONDS = 15.0
GRACE_SECONDS = 1.0
DEADLINE_SECONDS = 30.0  # of each task: in this time all of them are posted, and their results put into the outbox
REGION = "fra"


@pytest.fixture
def ocean(tmp_path, hub_redis):
    """The hub as the region sees it: a port, and the link to hurt."""
    port, control = free_port(), free_port()
    words = [sys.executable, "-m", "scripts.stack.wan", "--control", str(control), f"ocean={port}:{hub_redis.port}"]
    running = Running(Service("proxy", words, tmp_path / "proxy.log", listens(control))).start()
    link = Control(control)
    link.rule("ocean", Rule(there=Way(delay_ms=ROUND_TRIP_MS / 2), back=Way(delay_ms=ROUND_TRIP_MS / 2)))
    yield port
    link.close()
    running.stop()


@pytest.fixture
def stack(tmp_path, rabbitmq, hub_redis):
    made = Stack(tmp_path, rabbitmq, hub_redis, NEARFETCH__LIMITS__GRACE_SECONDS=str(GRACE_SECONDS))
    made.region.purge()
    yield made
    made.region.purge()
    made.stop()


def post(stack) -> dict[str, list[str]]:
    """The tasks of each request."""
    found = {}
    for _ in range(RESULTS // A_REQUEST):
        answer = stack.post({"sources": [LIST] * A_REQUEST, "deadline": DEADLINE_SECONDS})
        assert answer.status == 202, answer.body
        document = answer.json()
        found[document["id"]] = [task["id"] for task in document["tasks"]]
    return found


def finish(client, posted: dict[str, list[str]], finished_ms: int) -> None:
    """Every task has ended in its region, in time: its result lies in the outbox, where a finish puts it."""
    for request, tasks in posted.items():
        pipeline = client.pipeline(transaction=False)
        for task in tasks:
            result = contract.Result(task=task, source=LIST["source"], region=REGION, status="succeeded", count=1)
            frame = result_frame.encode(result, b'[{"name":"%s"}]' % task.encode())
            fields = {
                "q": request, "t": task, "s": "succeeded", "f": finished_ms, "x": finished_ms + 3_600_000,
                "b": len(result_frame.splice(frame)), "r": frame,
            }  # fmt: skip
            pipeline.xadd(names.OUTBOX, fields)
            pipeline.incrby(names.OUTBOX_BYTES, len(frame))
        pipeline.execute()


def view(stack, request: str) -> dict:
    answer = ask(stack.port, "GET", f"/v1/requests/{request}")
    return answer.json() if answer.status == 200 else {"done": False}


@pytest.mark.timeout(300)
def test_thousands_of_results_are_home_and_succeeded_within_15_s_of_the_hubs_return(
    stack, ocean, hub_redis, region_redis, tmp_path, monkeypatch
):
    monkeypatch.setattr(sweep, "GRACE_WINDOW_SECONDS", DEADLINE_SECONDS / 2)  # as if the gateway had run for a while
    posted = post(stack)
    deadline_ms = connect.redis_now_ms(hub_redis.client) + DEADLINE_SECONDS * 1000
    hub_redis.running.kill()
    workers = RegionWorkers(tmp_path / "region", region_redis.url, hub_redis.client, f"redis://127.0.0.1:{ocean}/0")
    try:
        finish(region_redis.client, posted, connect.redis_now_ms(region_redis.client))
        workers.start({}, pool=False, processes=2, threads=4)
        until(
            lambda: connect.redis_now_ms(region_redis.client) > deadline_ms + GRACE_SECONDS * 1000,
            "every deadline to be over", DEADLINE_SECONDS + 30.0,
        )  # fmt: skip
        assert region_redis.client.xlen(names.OUTBOX) == RESULTS
        hub_redis.running.start()
        began = time.monotonic()
        last = list(posted)[-1]
        until(lambda: view(stack, last)["done"], "the last request to be done", 2 * HOME_SECONDS)
        views = {request: until(lambda one=request: _done(stack, one), "the request to be done") for request in posted}
        took = time.monotonic() - began
        print(f"{RESULTS} results home in {took:.1f} s")
        ended = {
            (request, result["task"]): (result["status"], result["records"])
            for request, found in views.items()
            for result in found["results"]
        }
        expected = {
            (request, task): ("succeeded", [{"name": task}]) for request, tasks in posted.items() for task in tasks
        }
        assert ended == expected
        assert took < HOME_SECONDS
        until(lambda: region_redis.client.xlen(names.OUTBOX) == 0, "an empty outbox")
    finally:
        workers.stop()


def _done(stack, request: str) -> dict | None:
    found = view(stack, request)
    return found if found["done"] else None
