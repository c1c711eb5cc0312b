"""Turns of a running task's further fetches, on a real Redis: pages, and other hosts."""

import itertools
import threading
import time
from types import SimpleNamespace

import pytest
import redis

from jobs.errors import Cancelled, HttpStatus, Internal, ParseFailed, RateLimited, RegionUnavailable, TimedOut
from jobs.queue.turn import TAKE, NoThread, Turn, TurnClient, tell_limits
from regions import names
from tests.service.jobs.queue.test_claim import end
from tests.service.jobs.queue.test_turn import HOST, OTHER, asked, client
from tests.service.working import REGION, claimer, enqueue
from tests.waiting import until

__all__ = ["client"]


@pytest.fixture
def running(client, region_redis):
    """Two claimed jobs of one host, their worker, and a turn client."""
    enqueue(client, asked(2))
    tell_limits(client, {HOST: "2 0", OTHER: "1 0"})
    worker = claimer(region_redis.url)
    jobs = worker.claim(2).jobs
    return jobs, worker, TurnClient(client, REGION, 1)


def turn(job, turns):
    return Turn(turns, job.task, job.execution, job.host, 0.0)


def ask(one, host, seconds=60.0, cancelled=lambda: False):
    one.take(f"{host}/page", "test.source", deadline=time.monotonic() + seconds, cancelled=cancelled)


def test_the_first_fetch_has_its_turn_from_the_claim(running, region_redis):
    (job, _), _, turns = running
    region_redis.stop()
    one = turn(job, turns)
    ask(one, HOST)
    assert one.waited_ms == 0


def test_a_turn_is_dated_when_it_is_granted(running):
    (job, _), _, turns = running
    one = turn(job, turns)
    ask(one, HOST)
    from_claim, asked_at = one.granted, time.monotonic()
    ask(one, OTHER)
    assert from_claim <= asked_at <= one.granted <= time.monotonic()
    assert 0 <= one.waited_ms <= (one.granted - asked_at) * 1000 + 1


def test_a_further_page_takes_a_token_ahead_of_who_claims(client, running, region_redis):
    (job, other), worker, turns = running
    tell_limits(client, {HOST: "4 300"})
    one = turn(job, turns)
    ask(one, HOST)
    began = time.monotonic()
    for _ in range(3):
        ask(one, HOST)
    assert time.monotonic() - began >= 0.6
    tell_limits(client, {HOST: "4 20000"})
    until(lambda: patient(turns, job, ms=100_000)[0] == "go", "a token that takes the next one's for long")
    worker.finish([end(other)], then_claim=0)
    enqueue(client, asked(1))
    tell_limits(client, {HOST: "4 20000"})
    assert worker.claim(1).jobs == []


def test_for_another_host_it_gives_its_own_back(client, running):
    """Nobody has turns of two hosts."""
    (job, other), worker, turns = running
    one, two = turn(job, turns), turn(other, turns)
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
    (job, other), worker, turns = running
    first, second = turn(job, turns), turn(other, turns)
    ask(first, OTHER)
    thread = threading.Thread(target=ask, args=(second, OTHER))
    thread.start()
    until(lambda: client.zcard(names.turns(OTHER)) == 2, "the second to ask")
    enqueue(client, asked(1, host=OTHER))
    tell_limits(client, {OTHER: "1 0"})
    assert worker.finish([end(job)], then_claim=1)[1].jobs == []
    thread.join(60)
    assert client.zrange(names.turns(OTHER), 0, -1) == [other.task.encode()]
    assert [job.host for job in worker.finish([end(other)], then_claim=1)[1].jobs] == [OTHER]


def test_no_more_threads_wait_than_may(client, running):
    (job, other), _, turns = running
    tell_limits(client, {HOST: "2 60000"})
    one, two = turn(job, turns), turn(other, turns)
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
    until(lambda: turns.waiting._value == 0, "one to wait")
    with pytest.raises(NoThread, match="too many tasks wait for turns"):
        ask(two, HOST)
    is_over.set()
    thread.join(60)
    assert ended == ["cancelled"]


def test_the_wait_outlives_an_outage_of_its_redis(running, region_redis):
    (job, _), _, turns = running
    one, asks, is_back = turn(job, turns), asks_of(turns), threading.Event()
    ask(one, HOST)
    region_redis.crash()

    def start() -> None:
        until(lambda: len(asks) >= 3, "three tries")
        is_back.set()
        region_redis.running.start()

    again = threading.Thread(target=start)
    again.start()
    ask(one, HOST, seconds=60.0)
    assert is_back.is_set()
    again.join()
    assert asks[2] - asks[0] >= 0.2, "it does not hammer a Redis that comes back"


def test_an_outage_past_the_deadline_is_the_regions_fault(running, region_redis):
    (job, _), _, turns = running
    one = turn(job, turns)
    ask(one, HOST)
    region_redis.crash()
    with pytest.raises(RegionUnavailable, match="says nothing of https"):
        ask(one, HOST, seconds=0.3)


def test_who_waits_for_another_hosts_turn_asks_for_it_now_and_then(client, running):
    (job, other), worker, turns = running
    one, two, asks = turn(job, turns), turn(other, turns), asks_of(turns)
    ask(one, OTHER)
    thread = threading.Thread(target=ask, args=(two, OTHER))
    thread.start()
    until(lambda: len(asks) >= 5, "it to ask")
    worker.finish([end(job)], then_claim=0)
    thread.join(60)
    assert client.zrange(names.turns(OTHER), 0, -1) == [other.task.encode()]
    assert all(later - before >= 0.02 for before, later in itertools.pairwise(asks[1:]))


def asks_of(turns):
    """When a turn client was asked, in monotonic seconds, as it goes on to be."""
    real, times = turns.ask, []

    def ask(*arguments):
        times.append(time.monotonic())
        return real(*arguments)

    turns.ask = ask
    return times


def test_who_waits_for_another_hosts_turn_does_not_ask_on_past_its_deadline(running):
    (job, other), _, turns = running
    ask(turn(job, turns), OTHER)
    real, patience = turns.ask, []
    turns.ask = lambda *arguments: patience.append(arguments[-1]) or real(*arguments)
    with pytest.raises(RateLimited, match="expected a turn of https:"):
        ask(turn(other, turns), OTHER, seconds=0.3)
    assert sum(ms <= 0 for ms in patience) <= 2  # the last ms, and the deadline


@pytest.mark.parametrize(
    ("answer", "error"), [(redis.exceptions.ConnectionError("away"), RegionUnavailable), (("wait", 5_000), RateLimited)]
)
def test_a_turn_is_waited_for_up_to_the_deadline_and_no_longer(monkeypatch, answer, error):
    now = [1_000.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.append(now.pop() + seconds))
    monkeypatch.setattr("jobs.queue.turn.time", clock)

    def asked_for(*_: object) -> tuple[str, int]:
        if isinstance(answer, Exception):
            raise answer
        return answer

    one = Turn(SimpleNamespace(waiting=threading.BoundedSemaphore(1), ask=asked_for), "T", "E", "", 0.0)
    with pytest.raises(error):
        one.take(f"{HOST}/page", "test.source", deadline=1_010.0, cancelled=lambda: False)
    assert now[0] == pytest.approx(1_010.0)


def test_a_turn_that_was_granted_before_its_host_asked_for_time_is_asked_for_again(running):
    """The host's robots.txt is read between the claim and the fetch."""
    (job, _), _, turns = running
    one, asks = turn(job, turns), asks_of(turns)
    one.delay(f"{HOST}/page", 0.2)
    ask(one, HOST)
    assert len(asks) == 1


def test_a_turn_whose_answer_is_lost_is_asked_for_again(client, running, lossy_region):
    """It may cost a token; nobody has two leases, and none is left behind."""
    (job, other), worker, _ = running
    one = turn(job, TurnClient(lossy_region.client, REGION, 1))
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
    (job, _), _, turns = running
    tell_limits(client, {HOST: "2 60000"})
    one = turn(job, turns)
    ask(one, HOST)
    ask(one, HOST, seconds=100)
    with pytest.raises(Cancelled):
        ask(one, HOST, seconds=100, cancelled=lambda: True)


def test_who_was_reaped_gets_no_further_turn(client, running):
    (job, _), worker, turns = running
    worker.give_back([job.member])
    one = turn(job, turns)
    ask(one, HOST)
    with pytest.raises(Cancelled, match="taken back"):
        ask(one, HOST)
    assert job.task.encode() not in client.zrange(names.turns(HOST), 0, -1)


def patient(turns, job, host=HOST, ms=0):
    """What a turn client says at once to a task that may wait so long."""
    return turns.ask(job.task, job.execution, host, "test.source", ms)


def test_a_further_page_takes_a_lease_again_that_was_lost(client, running):
    """Whoever deletes keys by hand, or a sweep that took the task for gone: the host must not have one fetch too many."""
    (job, _), _, turns = running
    client.zrem(names.turns(HOST), job.task)
    assert patient(turns, job)[0] == "go"
    assert client.zscore(names.turns(HOST), job.task) > 0
    client.zrem(names.turns(HOST), job.task)
    tell_limits(client, {HOST: "1 0"})
    assert patient(turns, job)[0] == "full"


def test_further_pages_of_an_open_hosts_try_are_as_slow_as_it_and_its_sources_want(client, running):
    (job, _), _, turns = running
    tell_limits(client, {HOST: "2 200", OTHER: "2 0"})
    soon = client.time()[0] * 1000 + 30_000
    client.hset(names.host(HOST), mapping={"opened": 1, "tried": 1, "next": soon})
    assert patient(turns, job, ms=1_000) == ("go", 200)
    client.hset(names.host(HOST), "delay", 400)
    assert patient(turns, job, ms=1_000) == ("go", 400)
    assert int(client.hget(names.host(HOST), "next")) == soon, "nobody else's time moves"


def test_who_comes_from_another_host_waits_for_an_open_one_like_everybody(client, running):
    (job, _), _, turns = running
    soon = client.time()[0] * 1000 + 30_000
    client.hset(names.host(OTHER), mapping={"opened": 1, "tried": 1, "next": soon})
    with pytest.raises(RateLimited) as caught:
        ask(turn(job, turns), OTHER, seconds=10)
    assert 25 < caught.value.retry_after <= 30


def test_who_waited_for_an_open_hosts_turn_is_not_its_try(client, running):
    """Its turns were taken when it asked; then one is free, and the try of another task still runs."""
    (job, _), _, turns = running
    tell_limits(client, {OTHER: "2 0"})
    now_ms = client.time()[0] * 1000
    client.zadd(names.turns(OTHER), {"the try": now_ms, "one of before": now_ms})
    client.hset(names.host(OTHER), mapping={"opened": 1, "tried": 1, "next": now_ms + 30_000})
    assert patient(turns, job, OTHER, ms=1_000)[0] == "full"
    client.zrem(names.turns(OTHER), "one of before")
    said, ms = patient(turns, job, OTHER, ms=1_000)
    assert (said, 25_000 < ms <= 30_000) == ("late", True)


def test_a_turn_that_is_free_needs_no_patience(running):
    (job, other), _, turns = running
    assert turns.waiting.acquire(blocking=False)  # another thread waits: this one may not
    one = turn(job, turns)
    ask(one, HOST)
    ask(one, HOST)
    ask(one, HOST, seconds=-1.0)
    assert patient(turns, other, ms=-500)[0] == "go"
    assert TurnClient(turns._client, REGION, 0).waiting.acquire(blocking=False)


def test_how_long_it_waited_for_further_turns_is_counted(client, running):
    (job, _), _, turns = running
    tell_limits(client, {HOST: "2 200"})
    one = turn(job, turns)
    ask(one, HOST)
    began = time.monotonic()
    until(lambda: ask(one, HOST) or one.waited_ms, "a turn that has to be waited for")
    assert one.waited_ms <= (time.monotonic() - began) * 1000


class Heard:
    """A turn client's breakers that note what they are told, and go on to tell it."""

    def __init__(self, turns):
        self._real, self.told = turns.breakers, []

    def __getattr__(self, name):
        def tell(*arguments):
            self.told.append((name, *arguments))
            return getattr(self._real, name)(*arguments)

        return tell


def in_trouble(job, turns, *, is_in_trouble=True):
    heard = turns.breakers = Heard(turns)
    return Turn(turns, job.task, job.execution, job.host, 0.0, is_in_trouble=is_in_trouble), heard.told


def test_a_host_in_trouble_that_led_to_another_one_is_well(client, running):
    (job, _), _, turns = running
    one, told = in_trouble(job, turns)
    ask(one, HOST)
    ask(one, HOST)
    assert told == []
    ask(one, OTHER)
    assert told == [("recovered", HOST)]
    ask(one, HOST)
    ask(one, OTHER)
    one.ended(None)
    assert told == [("recovered", HOST)], "once"


def test_a_host_that_was_never_asked_is_not_called_well(client, running):
    (job, _), _, turns = running
    one, told = in_trouble(job, turns)
    ask(one, OTHER)
    one.ended(None)
    assert told == []


@pytest.mark.parametrize(
    ("error", "is_in_trouble", "told"),
    [
        (None, True, ["recovered"]),
        (None, False, []),
        (ParseFailed("x"), True, ["recovered"]),
        (HttpStatus("x", http_status=404), True, ["recovered"]),
        (ParseFailed("x"), False, []),
        (TimedOut("x"), True, ["failed"]),
        (TimedOut("x"), False, ["failed"]),
        (TimedOut("no memory", origin="region"), True, []),
        (Cancelled("x"), True, []),
        (Internal("x"), True, []),
    ],
)
def test_the_breaker_hears_of_failures_and_of_what_it_wants_to_hear(running, error, is_in_trouble, told):
    (job, _), _, turns = running
    one, heard = in_trouble(job, turns, is_in_trouble=is_in_trouble)
    ask(one, HOST)
    one.ended(error)
    assert heard == [(name, HOST, error) if name == "failed" else (name, HOST) for name in told]


def test_what_an_address_asks_for_is_its_hosts(client, running):
    (job, _), _, turns = running
    one = turn(job, turns)
    now_ms = client.time()[0] * 1000
    one.slow(f"{OTHER}/page", 60.0)
    assert float(client.hget(names.host(OTHER), "next")) > now_ms + 50_000
    one.delay(f"{OTHER}/page", 2.0)
    assert client.hget(names.host(OTHER), "delay") == b"2000"


def test_what_is_no_address_takes_no_turn(running, region_redis):
    (job, _), _, turns = running
    one = turn(job, turns)
    one.take("no address", "test.source", deadline=time.monotonic(), cancelled=lambda: False)
    assert one.waited_ms == 0
