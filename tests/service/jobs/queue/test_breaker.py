"""The breaker of a host, and what a host asks for in its headers, on a real Redis; its clock is moved, not waited for."""

import time

import pytest

from jobs.errors import (
    Blocked,
    Cancelled,
    ConnectionFailed,
    ContractBroken,
    HttpStatus,
    Internal,
    ParseFailed,
    RateLimited,
    TimedOut,
    is_the_hosts,
)
from jobs.queue.breaker import FAILURES_MAX, Breakers, open_hosts
from jobs.queue.script import HOST_TTL_MS
from jobs.queue.turn import Caller, Turn, TurnClient, tell_limits
from regions import connect, names
from tests.service.jobs.queue.test_claim import end, queue
from tests.service.jobs.queue.test_retry import scheduled
from tests.service.jobs.queue.test_turn import HOST, asked, client
from tests.service.working import REGION, claimer, enqueue
from tests.waiting import until

__all__ = ["client"]


@pytest.fixture
def worker(client, region_redis):
    tell_limits(client, {HOST: "8 0"})
    return claimer(region_redis.url)


@pytest.fixture
def breakers(client):
    return Breakers(client)


def break_it(breakers, times=FAILURES_MAX, error=None):
    for _ in range(times):
        breakers.failed(HOST, error or TimedOut("it did not answer"))


def state(client):
    return {key.decode(): text.decode() for key, text in client.hgetall(names.host(HOST)).items()}


def wait_out(client):
    """Moves the host's next fetch, and so the end of its being left alone, to now."""
    client.hset(names.host(HOST), "next", 0)
    client.zadd(names.HOSTS, {HOST: 0}, xx=True)


def ask(client, count=3, **more):
    ids = enqueue(client, asked(count, **more))
    tell_limits(client, {HOST: "8 0"})
    return ids


def test_ten_failures_in_a_row_open_it_and_say_why(client, worker, breakers):
    ask(client, deadline_seconds=30)
    break_it(breakers, FAILURES_MAX - 1)
    assert (open_hosts(client), "opened" in state(client)) == ({}, False)
    before_ms = connect.redis_now_ms(client)
    break_it(breakers, 1)
    ((host, (seconds, why)),) = open_hosts(client).items()
    assert (host, 0 <= seconds <= 5) == (HOST, True)
    assert float(state(client)["next"]) >= before_ms + 2_500
    assert why == "10 fetches or more failed in a row, the last one: timeout: it did not answer"
    client.hset(names.host(HOST), "next", before_ms + 60_000)  # past the deadlines
    refused = worker.claim(3).jobs
    assert [(job.trouble, job.why, job.refused_ms > 30_000) for job in refused] == [("timeout", why, True)] * 3


def test_an_answer_between_failures_starts_the_count_again(client, worker, breakers):
    break_it(breakers, FAILURES_MAX - 1)
    breakers.recovered(HOST)
    assert "next" not in state(client)  # it was not left alone: its answers keep nobody waiting
    break_it(breakers, FAILURES_MAX - 1)
    assert open_hosts(client) == {}


def test_a_wall_opens_it_at_once(client, worker, breakers):
    break_it(breakers, 1, Blocked("a challenge"))
    assert open_hosts(client)[HOST][1] == "a wall stands before it, the last one: blocked: a challenge"


def test_one_is_let_through_and_an_answer_closes_it(client, worker, breakers):
    ids = ask(client, 5, deadline_seconds=200)
    break_it(breakers)
    client.hset(names.host(HOST), "next", connect.redis_now_ms(client) + 60_000)
    assert worker.claim(5).jobs == []
    wait_out(client)
    (job,) = worker.claim(5).jobs
    assert (job.task, job.trouble) == (ids[0], "some")
    assert worker.claim(5).jobs == []
    turns = TurnClient(client, REGION, 1)
    one = Turn(turns, job.task, job.execution, job.host, 0.0, is_in_trouble=bool(job.trouble))
    one.take(f"{HOST}/", "test.source", deadline=1e12, cancelled=lambda: False)
    one.ended(None)
    assert open_hosts(client) == {}
    rest = until(lambda: Caller(client, REGION).run_once() or worker.claim(5).jobs, "the others")
    assert len(rest) == 4
    assert {job.trouble for job in rest} == {""}


def test_a_try_that_fails_leaves_it_alone_for_longer(client, worker, breakers):
    ask(client, 3, deadline_seconds=200)
    break_it(breakers)
    worker.claim(3)
    for opened in (2, 3, 4):
        wait_out(client)
        assert len(worker.claim(3).jobs) == 1
        began = time.monotonic()
        breakers.failed(HOST, TimedOut("again"))
        (seconds, why) = open_hosts(client)[HOST]
        ceiling, passed = 5 * 2 ** (opened - 1), time.monotonic() - began
        assert ceiling / 2 - passed - 0.1 < seconds <= ceiling
        assert why.endswith("timeout: again")
        assert state(client)["opened"] == str(opened)


def test_who_began_before_it_opened_says_nothing_new(client, worker, breakers):
    break_it(breakers, FAILURES_MAX + 20)
    assert state(client)["opened"] == "1"
    breakers.recovered(HOST)
    assert HOST in open_hosts(client)


def test_a_try_whose_process_died_is_followed_by_another_one(client, worker, breakers):
    ids = ask(client, 2, deadline_seconds=100)
    break_it(breakers)
    worker.claim(2)
    wait_out(client)
    (job,) = worker.claim(2).jobs
    worker.give_back([job.member])
    assert worker.claim(2).jobs == []
    assert 25_000 < float(state(client)["next"]) - job.claimed_ms <= 30_001
    wait_out(client)
    (again,) = worker.claim(2).jobs
    assert again.task in ids


def test_further_pages_of_the_try_go_through(client, worker, breakers):
    ask(client, 2)
    break_it(breakers)
    worker.claim(2)
    wait_out(client)
    (job,) = worker.claim(2).jobs
    one = Turn(TurnClient(client, REGION, 1), job.task, job.execution, job.host, 0.0)
    for _ in range(3):
        one.take(f"{HOST}/", "test.source", deadline=time.monotonic() + 60, cancelled=lambda: False)
    assert one.waited_ms < 60_000


def test_a_host_that_asks_for_a_pause_gets_it_from_everybody(client, worker, breakers):
    """Who waits and can't wait so long hears it at once, also when it waited before."""
    tell_limits(client, {HOST: "1 0"})
    ask(client, 1, deadline_seconds=100)
    tell_limits(client, {HOST: "1 0"})
    (job,) = worker.claim(3).jobs
    waiting = ask(client, 2, deadline_seconds=20)
    patient = ask(client, 1, deadline_seconds=200)
    tell_limits(client, {HOST: "1 0"})
    assert worker.claim(3).jobs == []
    breakers.slow(HOST, 60)
    worker.finish([end(job)], then_claim=0)
    refused = until(lambda: worker.claim(3).jobs, "those who can't wait")
    assert [(job.task, job.trouble, 50_000 < job.refused_ms <= 60_000) for job in refused] == [
        (id_, "", True) for id_ in waiting
    ]
    assert client.zrange(names.line(HOST), 0, -1) == [id_.encode() for id_ in patient]
    assert scheduled(client) == patient
    wait_out(client)
    assert [job.task for job in worker.claim(3).jobs] == patient


def test_a_pause_is_made_longer_and_never_shortened(client, worker, breakers):
    breakers.slow(HOST, 60)
    until_ms = state(client)["next"]
    breakers.slow(HOST, 5)
    assert state(client)["next"] == until_ms
    breakers.slow(HOST, 120)
    assert 59_000 < float(state(client)["next"]) - float(until_ms) < 120_000


def test_an_hour_is_the_longest_pause_that_a_host_gets(client, breakers):
    for ask_for in (breakers.slow, breakers.delay):
        client.delete(names.host(HOST))
        now_ms = connect.redis_now_ms(client)
        ask_for(HOST, 86_400)
        assert 3_599_000 < float(state(client)["next"]) - now_ms < 3_660_000


def test_a_pause_is_not_shortened_by_what_else_is_known_of_the_host(client, worker, breakers):
    breakers.slow(HOST, 600)
    until_ms = state(client)["next"]
    breakers.delay(HOST, 2)
    assert state(client)["next"] == until_ms
    break_it(breakers)
    assert "opened" in state(client)
    assert state(client)["next"] == until_ms


def test_what_a_host_asks_for_when_it_fails_is_how_long_it_is_left_alone(client, worker, breakers):
    break_it(breakers, 1, Blocked("a challenge", retry_after=60.0))
    assert 45 < open_hosts(client)[HOST][0] < 60.1
    breakers.recovered(HOST)
    client.hdel(names.host(HOST), "opened", "fails", "next")
    break_it(breakers, 1, Blocked("a challenge", retry_after=86_400.0))
    assert 3_590 < open_hosts(client)[HOST][0] < 3_600.1


def test_a_host_is_left_alone_for_five_minutes_at_most(client, worker, breakers):
    break_it(breakers)
    for opened in (8, 60):
        client.hset(names.host(HOST), mapping={"opened": opened, "tried": 1})
        breakers.failed(HOST, TimedOut("again"))
        assert 140 < open_hosts(client)[HOST][0] <= 300


def test_what_is_known_of_a_host_is_forgotten_some_time_after_its_last_failure(client, worker, breakers):
    break_it(breakers, 1)
    assert 0 < client.pttl(names.host(HOST)) <= HOST_TTL_MS
    break_it(breakers)
    (at_ms,) = (score for _, score in client.zrange(names.OPEN, 0, -1, withscores=True))
    assert HOST_TTL_MS - 60_000 < at_ms - connect.redis_now_ms(client) <= HOST_TTL_MS


def test_a_host_that_answers_again_is_asked_as_slowly_as_it_and_its_sources_want(client, worker, breakers):
    for most_ms, limit_ms, delay_ms in ((500, 500, 0), (4_000, 500, 4_000), (4_000, 4_000, 500)):
        client.delete(names.host(HOST), names.OPEN)
        tell_limits(client, {HOST: f"8 {limit_ms}"})
        break_it(breakers)
        client.hset(names.host(HOST), mapping={"tried": 1, "delay": delay_ms})
        before_ms = connect.redis_now_ms(client)
        breakers.recovered(HOST)
        after_ms = connect.redis_now_ms(client)
        assert before_ms + most_ms <= float(state(client)["next"]) <= after_ms + most_ms + 1
        assert not {"opened", "tried", "fails", "type", "why"} & set(state(client))


def test_a_host_whose_time_has_come_is_left_alone_for_no_more_seconds(client, worker, breakers):
    break_it(breakers)
    wait_out(client)
    assert open_hosts(client)[HOST][0] == 0.0


def test_at_most_a_hundred_hosts_are_shown_the_latest_ones(client, breakers):
    soon = time.time() * 1000 + 60_000
    for number in range(102):
        client.hset(names.host(f"h{number:03}"), mapping={"next": soon, "why": f"n{number}"})
    client.zadd(names.OPEN, {f"h{number:03}": soon + number for number in range(102)})
    assert sorted(open_hosts(client)) == [f"h{number:03}" for number in range(2, 102)]


def test_a_crawl_delay_is_a_rate(client, worker, breakers):
    ask(client, 3, deadline_seconds=200)
    breakers.delay(HOST, 40)
    assert worker.claim(3).jobs == []
    wait_out(client)
    (job,) = worker.claim(3).jobs
    assert 39_900 < float(state(client)["next"]) - job.claimed_ms <= 40_001
    assert queue(client).get_job_ids() == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimedOut("x"), True),
        (ConnectionFailed("x"), True),
        (HttpStatus("x", http_status=503), True),
        (RateLimited("x", http_status=429), True),
        (Blocked("x"), True),
        (HttpStatus("x", http_status=404), False),
        (TimedOut("no memory", origin="region"), False),
        (RateLimited("no turn", origin="region"), False),
        (ParseFailed("x"), False),
        (ContractBroken("x"), False),
        (Cancelled("x"), False),
        (Internal("x"), False),
    ],
)
def test_a_host_is_blamed_for_what_is_its_own(error, told):
    assert is_the_hosts(error) is told


def test_hosts_that_nobody_asked_for_since_are_forgotten_and_hide_nobody(client, breakers):
    """One host in each task's own address (a redirect's, an open url param's) would fill the list for ever."""
    client.zadd(names.OPEN, {f"https://gone{number}.example:443": number + 1 for number in range(300)})
    break_it(breakers)
    assert list(open_hosts(client)) == [HOST]
    assert client.zcard(names.OPEN) == 1
    soon = time.time() * 1000 + 60_000
    client.zadd(names.OPEN, {f"https://left{number}.example:443": soon + number for number in range(300)})
    assert list(open_hosts(client)) == [HOST]  # which was asked for last


def test_what_a_host_asks_for_may_be_said_twice(client, breakers):
    """Its first answer may have been lost."""
    breakers.delay(HOST, 2.0)
    before = state(client)
    breakers.delay(HOST, 2.0)
    assert (state(client)["delay"], before["delay"]) == ("2000", "2000")
