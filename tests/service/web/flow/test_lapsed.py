"""A gateway dies while it accepts ("A 202 is kept"): the request is refused, its regions are told so, and a live lease is left alone."""

import json
import time

import pytest

from jobs import contract
from regions import names
from tests.service.gateway import JSON, LIST, GatewayProcess, Stack
from tests.waiting import until
from tests.wire import Wire, ask

DIES_BEFORE_IT_ACCEPTS = """
import os, signal
from web.hub import ledger
ledger.ACCEPT_LEASE_MS = {lease_ms}
def dying(self, *_):
    os.kill(os.getpid(), signal.SIGKILL)
ledger.Ledger.accept = dying
"""
BOTH = json.dumps({"sources": [LIST, "demo.plain", LIST]}).encode()


@pytest.fixture
def stack(tmp_path, rabbitmq, hub_redis):
    one = Stack(tmp_path, rabbitmq, hub_redis)
    one.region.purge()
    one.gateway.sweeper.grace._began = None  # it has run for long
    yield one
    one.region.purge()
    one.stop()


def left_open(stack, lease_ms):
    """The tasks of a request whose gateway died between their confirms and its accept."""
    patch = DIES_BEFORE_IT_ACCEPTS.format(lease_ms=lease_ms)
    with GatewayProcess(stack, patch=patch) as gateway, Wire(gateway.port) as wire:
        wire.send("POST", "/v1/requests", JSON, BOTH)
        gateway.process.wait(60)
    return [stack.region.take(region) for region in ("fra", "fra", "nyc")]


def cancels(stack, region):
    queue, found = names.fast_queue(region), []
    while (got := stack.region.channel.basic_get(queue, auto_ack=True))[0] is not None:
        found.append(contract.decode_cancel(got[2]))
    return found


def test_the_tasks_of_an_accept_that_lapsed_are_cancelled_and_never_delivered(stack, monkeypatch):
    monkeypatch.setattr(time, "time", lambda late=time.time: late() - 3600)  # only the hub's clock counts
    tasks = left_open(stack, 500)
    request = tasks[0].request
    ledger = names.ledger(request)
    until(lambda: stack.hub.client.hget(ledger, "state") == b"refused", "another gateway to refuse it")
    told: list[contract.Cancel] = []
    until(
        lambda: told.extend(cancels(stack, "fra") + cancels(stack, "nyc")) or len(told) >= len(tasks),
        "each task's cancel",
    )
    assert sorted(one.task for one in told) == sorted(task.task for task in tasks)
    assert {one.request for one in told} == {request}
    assert min(one.deadline_ms for one in told) >= max(task.deadline_ms for task in tasks)  # marks outlive the tasks
    for task in tasks:  # which ran before their cancels came
        stack.region.finish(task)
    until(lambda: not stack.hub.client.xlen(names.out_stream("fra")), "the results to be read")
    assert ask(stack.port, "GET", f"/v1/requests/{request}").status == 404
    assert not stack.hub.client.exists(names.events(request))
    for key in (names.ACCEPTING, names.DUE, names.open_tasks("fra"), names.open_tasks("nyc")):
        assert stack.hub.client.zcard(key) == 0


def test_while_the_lease_lives_nobody_touches_the_accept(stack):
    tasks = left_open(stack, 120_000)
    ledger = names.ledger(tasks[0].request)
    until(lambda: stack.gateway.sweeper.run_once() == 0, "a sweep")
    assert stack.hub.client.hget(ledger, "state") == b"accepting"
    assert cancels(stack, "fra") + cancels(stack, "nyc") == []
    stack.hub.client.hset(ledger, "lease", 1)  # it is over: nobody can accept it any more, swept or not
    stack.gateway.ledger.accept([tasks[0].request])
    assert stack.hub.client.hget(ledger, "state") == b"accepting"
    stack.hub.client.zadd(names.ACCEPTING, {tasks[0].request: 1})
    until(lambda: stack.hub.client.hget(ledger, "state") == b"refused", "the sweep")
