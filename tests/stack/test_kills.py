"""Kills under traffic: whatever was accepted succeeds, once, compared id by id."""

import itertools
import os
import signal

import pytest

from regions import names
from tests.stack.driving import Inside, Ledger
from tests.waiting import until

REQUESTS, EACH, DEADLINE_SECONDS = 5, 50, 120
REGION, BOXES = "nyc", itertools.count(1)  # each question of its own, or it would be fetched once
HELD = 3  # executions that a kill must hit to count: all processes together fetch eight of a host at once


@pytest.fixture
def inside(stack):
    found = Inside(stack)
    yield found
    found.well()
    found.close()


def post(ledger: Ledger, requests: int = REQUESTS) -> None:
    for _ in range(requests):
        boxes = [f"MSKU{next(BOXES):07d}" for _ in range(EACH)]
        asked = [{"source": "line.tracking", "params": {"number": box}} for box in boxes]
        ledger.post(asked, deadline=DEADLINE_SECONDS)


def test_a_killed_worker_process_loses_and_doubles_nothing(stack, inside):
    inside.behave(prefix="/api.line.example/", delay_seconds=0.2)
    ledger = Ledger(stack)
    post(ledger)
    pid = until(
        lambda: next((pid for pid, count in inside.executions(REGION).items() if count >= HELD), None),
        f"a worker process that runs {HELD} tasks",
    )
    os.kill(pid, signal.SIGKILL)
    for request in ledger.promised:
        ledger.collect(request)
    ledger.check()
    again = [result["task"] for result in ledger.delivered if result["attempts"] > 1]
    assert again, "the kill hit nothing: no task needed a second attempt"


def test_a_killed_bridge_with_unacked_messages_loses_and_doubles_nothing(stack, inside):
    client = inside.redis(REGION)
    pid = stack.pids()[f"bridge-{REGION}"]
    ledger = Ledger(stack)
    post(ledger, 1)
    until(lambda: client.exists(*map(names.rq_job, *ledger.promised.values())), "the first jobs")
    os.kill(pid, signal.SIGSTOP)  # on its way from enqueue to ack; what is posted now is delivered to it as well
    try:
        post(ledger, REQUESTS - 1)
        until(lambda: inside.unacked(REGION), "the broker to count what the bridge holds")
    finally:
        os.kill(pid, signal.SIGKILL)
    for request in ledger.promised:
        ledger.collect(request)
    ledger.check()
    assert {result["attempts"] for result in ledger.delivered} == {1}
