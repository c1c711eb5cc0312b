"""Backpressure: what can't be taken is a 503 within a second, and nothing of it is ever delivered."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from regions import names, topology
from scripts.chaos.faults import FULL_BYTES, LITTLE_BYTES, ROOM_BYTES
from scripts.stack.services import RabbitMQ
from tests import broker
from tests.promises.driving import Ledger, refuses_soon
from tests.waiting import freeze, until
from tests.wire import ask
from web.hub import ids

ROOM = 5  # messages in the full queue
AT_ONCE = 16  # posts
MUCH_BYTES = 10**18  # more than any disk has


@pytest.fixture
def small_queue(stack):
    """A region whose bridge takes no work."""
    region = stack.regions[0]
    stack.stop_part(f"bridge-{region}")
    yield region
    stack.start_part(f"bridge-{region}")


def test_a_full_queue_refuses_and_what_it_took_is_delivered(stack, small_queue):
    ledger = Ledger(stack)
    policy = {**topology.POLICY, "max-length": ROOM}

    def be_full():
        broker.set_policy(stack.broker, "small", f"^{names.work_queue(small_queue)}$", policy)
        try:
            until(lambda: ledger.post([small_queue]) is None, "the queue to be full")
            assert ledger.post([small_queue] * 3) is None
            ledger.must_post(stack.regions[1:])
        finally:
            broker.clear_policy(stack.broker, "small")

    refuses_soon(ledger, [small_queue], be_full)
    stack.start_part(f"bridge-{small_queue}")
    ledger.check()
    assert not set(_refused_numbers(ledger)) & set(ledger.fetches()), "a page was fetched for a 503"


def _refused_numbers(ledger: Ledger) -> list[int]:
    promised = {number for numbers in ledger.promised.values() for number in numbers.values()}
    return [number for number in range(min(promised), max(promised) + 1) if number not in promised]


ALARMS = {
    "memory": (RabbitMQ.limit_memory, LITTLE_BYTES),
    "disk": (RabbitMQ.limit_disk, MUCH_BYTES),
}


@pytest.mark.parametrize("of", ALARMS)
def test_a_broker_with_an_alarm_refuses_and_takes_again_when_it_is_over(stack, of):
    """Meanwhile what was accepted ends. What is refused once the alarm is known is never sent, so that no region gets it later."""
    ledger = Ledger(stack)
    limit, bytes_ = ALARMS[of]
    unsent: list[str] = []

    def is_known() -> bool:
        """The broker says so to a connection that publishes."""
        return ledger.post(stack.regions) is None and b"takes no messages" in ask(stack.port, "GET", "/readyz").body

    def alarm():
        accepted = ledger.must_post(stack.regions * 2, seconds=1.0)
        limit(stack.broker, bytes_)
        try:
            until(is_known, "the gateway to know of the alarm")
            before = len(ledger.refused)
            for _ in range(5):
                assert ledger.post(stack.regions) is None
            unsent.extend(ledger.refused[before:])
            ledger.results(accepted)
            assert ledger.post(stack.regions) is None, "it was over before"
        finally:
            limit(stack.broker)
        until(lambda: ledger.post(stack.regions), "a post to be accepted again")

    refuses_soon(ledger, stack.regions, alarm)
    ledger.check()
    assert len(unsent) % 5 == 0 < len(unsent)
    sent = [names.rq_job(ids.task(request, one + 1)) for request in unsent for one in range(len(stack.regions))]
    came = [job for region in stack.regions for job in sent if stack.redis(f"redis-{region}").exists(job)]
    assert not came, f"a region got what was refused: {came}"


def test_a_broker_that_hangs_refuses_within_the_budget_of_an_accept(stack):
    ledger = Ledger(stack)

    def hang():
        freeze(os.getpgid(stack.pid("rabbitmq")))
        try:
            for _ in range(3):
                assert ledger.post(stack.regions) is None
            with ThreadPoolExecutor(AT_ONCE) as pool:
                assert list(pool.map(ledger.post, [stack.regions] * AT_ONCE)) == [None] * AT_ONCE
        finally:
            stack.signal("rabbitmq", signal.SIGCONT)
        until(lambda: ledger.post(stack.regions), "a post to be accepted again")

    refuses_soon(ledger, stack.regions, hang)
    ledger.check()


def test_a_full_central_redis_refuses_and_lets_what_was_accepted_end(stack):
    ledger = Ledger(stack)
    ledger.must_post(stack.regions * 5, seconds=1.0)
    client = stack.redis("hub")

    def fill():
        client.config_set("maxmemory", FULL_BYTES)
        try:
            until(lambda: ledger.post(stack.regions) is None, "the gateway to see that it is full")
            for _ in range(5):
                assert ledger.post(stack.regions) is None
        finally:
            client.config_set("maxmemory", ROOM_BYTES)
        until(lambda: ledger.post(stack.regions), "a post to be accepted again")

    refuses_soon(ledger, stack.regions, fill)
    ledger.check()


def test_a_full_region_redis_leaves_its_tasks_in_the_broker_and_drains(stack):
    """What it has ends while it is full; what comes then is no job of its, and is all in the queue; the others go on."""
    region = stack.regions[0]
    client = stack.redis(f"redis-{region}")
    ledger, late, others = Ledger(stack), Ledger(stack), Ledger(stack)
    request = ledger.must_post([region] * 20, seconds=0.5)
    until(lambda: jobs(client, ledger) == 20, "the jobs")
    client.config_set("maxmemory", FULL_BYTES)
    try:
        for _ in range(5):
            late.must_post([region] * 5)
        ledger.results(request)
        others.must_post(stack.regions[1:])
        others.check()
        until(lambda: stack.ready(region) == 25, "its queue to have what its Redis can't take")
        assert jobs(client, late) == 0
    finally:
        client.config_set("maxmemory", ROOM_BYTES)
    for one in (ledger, late):
        one.check()


def jobs(client, ledger: Ledger) -> int:
    """How many of a ledger's tasks are jobs of a region's Redis."""
    return client.exists(*(names.rq_job(task) for tasks in ledger.promised.values() for task in tasks))
