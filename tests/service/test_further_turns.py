"""Turns of a running task's further fetches, on a real Redis: pages, and other hosts."""

import threading
import time

import pytest

from jobs.errors import Cancelled, RateLimited
from jobs.turn import TAKE, Desk, NoThread, Turn, tell_limits
from regions import names
from tests.service.test_claim import end
from tests.service.test_turn import HOST, OTHER, asked, client
from tests.service.working import REGION, claimer, enqueue
from tests.waiting import until

__all__ = ["client"]


@pytest.fixture
def running(client, region_redis):
    """Two claimed jobs of one host, their worker, and a desk."""
    enqueue(client, asked(2))
    tell_limits(client, {HOST: "2 0", OTHER: "1 0"})
    worker = claimer(region_redis.url)
    jobs = worker.claim(2).jobs
    return jobs, worker, Desk(client, REGION, 1)


def turn(job, desk):
    return Turn(desk, job.task, job.execution, job.host, 0.0)


def ask(one, host, seconds=10.0, cancelled=lambda: False):
    one.take(f"{host}/page", "test.source", deadline=time.monotonic() + seconds, cancelled=cancelled)


def test_the_first_fetch_has_its_turn_from_the_claim(running, region_redis):
    (job, _), _, desk = running
    region_redis.stop()
    one = turn(job, desk)
    ask(one, HOST)
    assert one.waited_ms == 0


def test_a_further_page_takes_a_token_ahead_of_who_claims(client, running, region_redis):
    (job, other), worker, desk = running
    tell_limits(client, {HOST: "4 300"})
    one = turn(job, desk)
    ask(one, HOST)
    began = time.monotonic()
    for _ in range(3):
        ask(one, HOST)
    assert time.monotonic() - began >= 0.6
    assert one.waited_ms >= 590
    worker.finish([end(other)], then_claim=0)
    enqueue(client, asked(1))
    tell_limits(client, {HOST: "4 300"})
    assert worker.claim(1).jobs == []


def test_for_another_host_it_gives_its_own_back(client, running):
    """Nobody has turns of two hosts."""
    (job, other), worker, desk = running
    one, two = turn(job, desk), turn(other, desk)
    ask(one, OTHER)
    assert (client.zrange(names.turns(HOST), 0, -1), client.zrange(names.turns(OTHER), 0, -1)) == (
        [other.task.encode()],
        [job.task.encode()],
    )
    with pytest.raises(RateLimited, match="expected a turn of https:"):
        ask(two, OTHER, seconds=0.3)
    assert client.zcard(names.turns(HOST)) == 0
    worker.finish([end(other), end(job)], then_claim=0)
    assert client.zcard(names.turns(OTHER)) == 0


def test_who_asks_for_another_host_comes_before_who_claims(client, running):
    (job, other), worker, desk = running
    first, second = turn(job, desk), turn(other, desk)
    ask(first, OTHER)
    thread = threading.Thread(target=ask, args=(second, OTHER))
    thread.start()
    until(lambda: client.zcard(names.turns(OTHER)) == 2, "the second to ask")
    enqueue(client, asked(1, host=OTHER))
    tell_limits(client, {OTHER: "1 0"})
    assert worker.finish([end(job)], then_claim=1)[1].jobs == []
    thread.join(10)
    assert client.zrange(names.turns(OTHER), 0, -1) == [other.task.encode()]
    assert [job.host for job in worker.finish([end(other)], then_claim=1)[1].jobs] == [OTHER]


def test_no_more_threads_wait_than_may(client, running):
    (job, other), _, desk = running
    tell_limits(client, {HOST: "2 60000"})
    one, two = turn(job, desk), turn(other, desk)
    ask(one, HOST)
    ask(two, HOST)
    ask(one, HOST)
    is_over, ended = threading.Event(), []

    def wait() -> None:
        with pytest.raises(Cancelled):
            ask(one, HOST, seconds=100, cancelled=is_over.is_set)
        ended.append("cancelled")

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: not desk.waiting.acquire(blocking=False) or desk.waiting.release(), "one to wait")
    with pytest.raises(NoThread, match="too many tasks wait for turns"):
        ask(two, HOST)
    is_over.set()
    thread.join(10)
    assert ended == ["cancelled"]


def test_the_wait_outlives_an_outage_of_its_redis(running, region_redis):
    (job, _), _, desk = running
    one = turn(job, desk)
    ask(one, HOST)
    region_redis.crash()
    again = threading.Timer(0.5, region_redis.running.start)
    again.start()
    ask(one, HOST)
    again.join()
    assert one.waited_ms > 400


def test_a_turn_whose_answer_is_lost_is_asked_for_again(client, running, lossy_region):
    """It may cost a token; nobody has two leases, and none is left behind."""
    (job, other), worker, _ = running
    one = turn(job, Desk(lossy_region.client, REGION, 1))
    ask(one, HOST)
    ask(one, HOST)  # the Redis knows the script
    for host in (HOST, OTHER):
        lossy_region.lose(TAKE)
        ask(one, host)
    assert lossy_region.lost == 2
    assert client.zrange(names.turns(HOST), 0, -1) == [other.task.encode()]
    assert client.zrange(names.turns(OTHER), 0, -1) == [job.task.encode()]
    worker.finish([end(other), end(job)], then_claim=0)
    assert client.exists(names.turns(HOST), names.turns(OTHER)) == 0


def test_a_cancel_ends_the_wait(client, running):
    (job, _), _, desk = running
    tell_limits(client, {HOST: "2 60000"})
    one = turn(job, desk)
    ask(one, HOST)
    ask(one, HOST, seconds=100)
    with pytest.raises(Cancelled):
        ask(one, HOST, seconds=100, cancelled=lambda: True)


def test_who_was_reaped_gets_no_further_turn(client, running):
    (job, _), worker, desk = running
    worker.give_back([job.member])
    one = turn(job, desk)
    ask(one, HOST)
    with pytest.raises(Cancelled, match="taken back"):
        ask(one, HOST)
    assert job.task.encode() not in client.zrange(names.turns(HOST), 0, -1)
