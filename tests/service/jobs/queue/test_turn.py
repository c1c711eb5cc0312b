"""Turns on a real Redis: who gets one, who waits, in which order, and what gives them back."""

import itertools
import math
import time

import msgspec
import pytest
from rq.job import JobStatus

from jobs.queue.claim import CLAIM, FINISH
from jobs.queue.script import HOST_TTL_MS, ROOM_MS, WAITING_MAX
from jobs.queue.turn import CALL, CALL_SECONDS, Caller, tell_limits
from regions import connect, names
from tests.service.jobs.queue.test_claim import end, fetch, queue
from tests.service.jobs.queue.test_retry import again, scheduled
from tests.service.working import REGION, claimer, enqueue, pass_deadline, task
from tests.waiting import until

HOST, OTHER = "https://slow.example:443", "https://quick.example:443"


def asked(count, *, host=HOST, request=None, **more):
    """Tasks of one host, of one request if it is named."""
    made = [msgspec.structs.replace(task(**more), host=host) for _ in range(count)]
    return [msgspec.structs.replace(one, request=request or one.request) for one in made]


@pytest.fixture
def client(region_redis):
    """A client of a Redis that knows the scripts: the first call of one comes after the others of its write."""
    for script in (CLAIM, FINISH):
        region_redis.client.script_load(script.text)
    return region_redis.client


def give(client, tasks, limits):
    """Enqueues tasks under limits of HOST."""
    ids = enqueue(client, tasks)
    tell_limits(client, {HOST: limits})
    return ids


def drain(worker, most=100):
    """Claims and ends jobs until nothing is there; the tasks in the order in which they were claimed."""
    order = []
    while found := worker.claim(64).jobs:
        order += [job.task for job in found]
        worker.finish([end(job) for job in found], then_claim=0)
        assert len(order) <= most
    return order


def test_no_more_run_at_once_than_a_host_allows(client, region_redis):
    """What has no turn waits where rq-dashboard shows it, and holds no thread; an end brings the next one."""
    ids = give(client, asked(5), "2 0")
    worker = claimer(region_redis.url)
    first = worker.claim(5).jobs
    assert [job.task for job in first] == ids[:2]
    assert claimer(region_redis.url, "w2").claim(5).jobs == []
    assert (sorted(scheduled(client)), queue(client).get_job_ids()) == (sorted(ids[2:]), [])
    assert {fetch(client, id_).get_status() for id_ in ids[2:]} == {JobStatus.SCHEDULED}
    _, claimed = worker.finish([end(first[0])], then_claim=5)
    assert [job.task for job in claimed.jobs] == [ids[2]]
    assert claimed.jobs[0].turn_ms >= 0
    rest = [first[1], *claimed.jobs]
    while rest:
        assert client.zcard(names.turns(HOST)) <= 2
        rest += worker.finish([end(rest.pop(0))], then_claim=5)[1].jobs
    assert scheduled(client) == []
    assert [key for key in client.keys("nf:*") if b"slow" in key and b"nf:host:" not in key] == []
    assert client.exists(names.HOSTS) == 0


def test_another_host_is_not_held_up(client, region_redis):
    give(client, asked(20), "1 0")
    others = enqueue(client, asked(3, host=OTHER))
    tell_limits(client, {HOST: "1 0"})
    found = [job.task for job in claimer(region_redis.url).claim(4).jobs]
    assert found[1:] == others


def test_two_fetches_are_never_nearer_than_the_rate_says(client, region_redis):
    give(client, asked(6), "8 150.000")
    worker = claimer(region_redis.url)
    caller = Caller(connect.open_redis(region_redis.url, name="caller", block_seconds=30.0), REGION)
    claimed = []

    def claim():
        caller.run_once()
        claimed.extend((job.claimed_ms, worker.finish([end(job)], then_claim=0)) for job in worker.claim(6).jobs)
        return len(claimed) == 6

    until(claim, "all of them")
    times = [ms for ms, _ in claimed]
    assert min(b - a for a, b in itertools.pairwise(times)) >= 149  # of whole ms


def test_a_caller_sleeps_while_no_task_waits_and_calls_one_of_which_a_claim_tells_it(client, region_redis):
    caller = Caller(connect.open_redis(region_redis.url, name="caller", block_seconds=30.0), REGION)
    looks = []
    caller.run_once = lambda its=caller.run_once: looks.append(1) or its()
    caller.start()
    client.script_flush()
    until(lambda: client.info("commandstats").get("cmdstat_evalsha"), "its first look")
    ids = give(client, asked(2), "8 300")
    claimed = claimer(region_redis.url).claim(2)
    assert 0 <= claimed.call_ms <= 1_000
    caller.expect(claimed.call_ms)
    until(lambda: queue(client).get_job_ids() == ids[1:], "the call")
    until(lambda: caller._at == math.inf, "its last look")
    assert len(looks) < 100


def test_a_caller_looks_when_the_next_one_may_be_called(client):
    caller, before = Caller(client, REGION), time.monotonic()
    caller.expect(5_000)
    assert before + 5 <= caller._at <= time.monotonic() + 5


def test_a_caller_that_has_looked_looks_again_within_a_second_while_a_task_waits(client, region_redis):
    caller = Caller(client, REGION)
    caller.run_once()
    assert caller._at == math.inf
    give(client, asked(2), "8 20000")
    assert len(claimer(region_redis.url).claim(2).jobs) == 1
    caller.run_once()
    assert time.monotonic() - 60 < caller._at <= time.monotonic() + CALL_SECONDS


def test_a_caller_looks_at_once_for_a_task_that_may_be_called_now(client):
    caller = Caller(client, REGION)
    caller.expect(-1)
    assert caller._at == math.inf
    caller.expect(0)
    assert caller._at <= time.monotonic()


def test_what_a_process_waited_for_that_died_is_called_by_the_claims_of_others(client, region_redis):
    ids = give(client, asked(2), "8 100")
    assert len(claimer(region_redis.url, "dead").claim(2).jobs) == 1
    alive = claimer(region_redis.url, "alive")
    assert [job.task for job in until(lambda: alive.claim(2).jobs, "the call")] == ids[1:]


def test_what_is_known_of_requests_that_wait_no_more_is_forgotten(client, region_redis):
    waiting = [*asked(1, request="FIRST"), *asked(1, request="ONE"), *asked(3, request="MANY")]
    ids = give(client, waiting, "1 0")
    worker = claimer(region_redis.url)
    (job,) = worker.claim(9).jobs
    known = []
    for id_ in ids[1:]:
        (job,) = worker.finish([end(job)], then_claim=9)[1].jobs
        assert job.task == id_
        known.append(set(client.zrange(names.rounds(HOST), 0, -1)))
    both = {b"", b"ONE", b"MANY"}
    assert known == [both, both, {b"", b"MANY"}, set()]
    worker.finish([end(job)], then_claim=9)
    assert client.exists(names.rounds(HOST), names.line(HOST), names.turns(HOST)) == 0


def test_a_call_whose_answer_is_lost_calls_nobody_twice(client, region_redis, lossy_region):
    ids = give(client, asked(3), "8 100")
    worker, caller = claimer(region_redis.url), Caller(lossy_region.client, REGION)
    (job,) = worker.claim(3).jobs
    worker.finish([end(job)], then_claim=0)
    client.script_load(CALL.text)
    lossy_region.lose(CALL)
    until(lambda: caller.run_once() or queue(client).get_job_ids(), "the call")
    caller.run_once()
    assert lossy_region.lost == 1
    assert queue(client).get_job_ids() == [ids[1]]


def test_a_claim_of_one_that_was_called_says_when_the_next_one_may_be(client, region_redis):
    ids = give(client, asked(3), "8 300")
    worker = claimer(region_redis.url)
    (job,) = worker.claim(3).jobs
    worker.finish([end(job)], then_claim=0)
    until(lambda: Caller(client, REGION).run_once() or queue(client).get_job_ids(), "the call")
    claimed = worker.claim(3)
    assert [job.task for job in claimed.jobs] == [ids[1]]
    assert 0 <= claimed.call_ms <= 1_000


def test_a_host_that_nobody_waits_for_is_not_looked_after(client, region_redis):
    give(client, asked(1), "8 2000")
    assert len(claimer(region_redis.url).claim(3).jobs) == 1
    assert client.exists(names.host(HOST), names.HOSTS) == 1
    assert 0 < client.pttl(names.host(HOST)) <= HOST_TTL_MS


def test_a_claim_says_when_the_next_one_of_those_that_it_put_off_may_be_called(client, region_redis):
    give(client, asked(3), "8 2000")
    worker = claimer(region_redis.url)
    assert 1_000 < worker.claim(3).call_ms <= 2_001
    assert worker.claim(3).call_ms == -1  # it put nobody off


def test_the_strictest_of_host_and_source_counts(client, region_redis):
    ids = enqueue(client, asked(5))
    tell_limits(client, {HOST: "3 0", "test.source": "2 0"})
    worker = claimer(region_redis.url)
    first, second = worker.claim(5).jobs
    assert [first.task, second.task] == ids[:2]
    worker.finish([end(first)], then_claim=0)
    Caller(client, REGION).run_once()
    assert queue(client).get_job_ids() == ids[2:3], "no more are called than may run"


def test_a_changed_limit_counts_from_the_next_claim_on(client, region_redis):
    give(client, asked(9), "1 0")
    worker = claimer(region_redis.url)
    (job,) = worker.claim(9).jobs
    tell_limits(client, {HOST: "4 0"})
    more = worker.finish([end(job)], then_claim=9)[1].jobs
    assert len(more) == 4
    tell_limits(client, {HOST: "2 0"})
    assert worker.finish([end(more[0])], then_claim=9)[1].jobs == []
    assert worker.finish([end(job) for job in more[1:3]], then_claim=9)[1].jobs != []


def test_a_limit_that_nobody_has_any_more_does_not_count(client, region_redis):
    ids = give(client, asked(3), "1 0")
    tell_limits(client, {OTHER: "1 0"})
    assert [job.task for job in claimer(region_redis.url).claim(3).jobs] == ids


def test_requests_that_wait_for_one_host_take_turns(client, region_redis):
    """Ten requests of many do not starve a single question that came after them."""
    big = [asked(10, request=f"R{number}") for number in range(10)]
    many = [one for tasks in big for one in tasks]
    single = asked(1, request="SINGLE")
    give(client, [*many, *single], "1 0")
    order = drain(claimer(region_redis.url), most=200)
    assert sorted(order) == sorted(one.task for one in [*many, *single])
    assert order.index(single[0].task) <= 11
    request = {one.task: one.request for one in many}
    rounds = [[request[id_] for id_ in order if id_ in request][at : at + 10] for at in range(1, 91, 10)]
    assert all(len(set(one)) == 10 for one in rounds)
    for tasks in big:
        assert [id_ for id_ in order if id_ in {one.task for one in tasks}] == [one.task for one in tasks]


def test_who_comes_later_is_not_behind_all_that_wait(client, region_redis):
    many = asked(50, request="MANY")
    give(client, many, "1 0")
    worker = claimer(region_redis.url)
    (job,) = worker.claim(9).jobs
    for _ in range(10):
        (job,) = worker.finish([end(job)], then_claim=1)[1].jobs
    single = asked(1, request="SINGLE")
    enqueue(client, single)
    tell_limits(client, {HOST: "1 0"})
    assert worker.claim(1).jobs == []
    seen = []
    for _ in range(3):
        (job,) = worker.finish([end(job)], then_claim=1)[1].jobs
        seen.append(job.task)
    assert single[0].task in seen


def test_a_fresh_one_does_not_overtake_who_waits(client, region_redis):
    ids = give(client, asked(3, request="A"), "1 0")
    worker = claimer(region_redis.url)
    (job,) = worker.claim(3).jobs
    late = enqueue(client, asked(1, request="A"))
    tell_limits(client, {HOST: "1 0"})
    client.lmove(names.rq_queue(REGION), names.rq_queue(REGION), "RIGHT", "LEFT")
    claimed = worker.finish([end(job)], then_claim=3)[1]
    assert [job.task for job in claimed.jobs] == [ids[1]]
    assert set(scheduled(client)) == {ids[2], *late}


def test_a_fresh_one_does_not_take_the_token_of_who_was_called(client, region_redis):
    """Between the call and the claim it is nobody else's."""
    ids = give(client, asked(3), "8 300")
    worker = claimer(region_redis.url)
    (job,) = worker.claim(3).jobs
    worker.finish([end(job)], then_claim=0)
    until(lambda: Caller(client, REGION).run_once() or queue(client).get_job_ids(), "the call")
    (fresh,) = enqueue(client, asked(1))
    tell_limits(client, {HOST: "8 300"})
    client.lmove(names.rq_queue(REGION), names.rq_queue(REGION), "RIGHT", "LEFT")
    assert [job.task for job in worker.claim(3).jobs] == [ids[1]]
    assert set(scheduled(client)) == {ids[2], fresh}


def test_past_a_thousand_a_task_is_refused_at_once(client, region_redis):
    give(client, asked(WAITING_MAX + 3, deadline_seconds=290), "1 0")
    found = []
    until(lambda: found.extend(claimer(region_redis.url, "w1").claim(16).jobs) or len(found) >= 3, "the refused")
    assert [job.refused_ms >= 0 for job in found] == [False, True, True]
    assert (client.zcard(names.line(HOST)), client.zcard(names.turns(HOST))) == (WAITING_MAX, 1)
    assert [job.attempt for job in found] == [1, 0, 0]


def test_a_claim_puts_off_a_thousand_at_once(client, region_redis):
    give(client, asked(WAITING_MAX + 202, deadline_seconds=290), "1 0")
    assert len(claimer(region_redis.url).claim(2).jobs) == 1
    assert (client.zcard(names.line(HOST)), client.llen(names.rq_queue(REGION))) == (WAITING_MAX, 201)


def test_one_without_a_deadline_waits_for_five_minutes(client, region_redis):
    ids = give(client, asked(2), "1 0")
    client.hdel(names.rq_job(ids[1]), names.JOB_DEADLINE)
    before = connect.redis_now_ms(client) / 1000
    assert len(claimer(region_redis.url).claim(2).jobs) == 1
    till = client.zscore(names.rq_registry("scheduled", REGION), ids[1])
    assert before + 299 <= till <= connect.redis_now_ms(client) / 1000 + 299


def test_what_can_not_have_its_turn_in_time_is_refused_at_once(client, region_redis):
    """By the rate: a turn each 20 s, of which four come a second and more before the deadline."""
    give(client, asked(20, deadline_seconds=75), "8 20000")
    found = claimer(region_redis.url).claim(16).jobs
    assert found[0].refused_ms == -1
    assert [job.refused_ms >= 0 for job in found[1:]] == [True] * 15
    assert 70_000 < found[1].refused_ms <= 80_000
    assert client.zcard(names.line(HOST)) == 3


def test_the_estimate_knows_how_long_turns_take(client, region_redis):
    ids = give(client, asked(20, deadline_seconds=49), "2 0")
    client.hset(names.host(HOST), "mean", 20_000)
    found = claimer(region_redis.url).claim(16).jobs
    assert [job.task for job in found[:2]] == ids[:2]
    assert all(job.refused_ms >= 40_000 for job in found[2:])
    assert client.zcard(names.line(HOST)) == 4


def test_how_long_turns_take_is_measured(client, region_redis):
    give(client, asked(3), "1 0")
    worker = claimer(region_redis.url)
    (job,) = worker.claim(3).jobs
    until(lambda: time.time() * 1000 > job.claimed_ms + 120, "a moment")
    worker.finish([end(job)], then_claim=0)
    assert float(client.hget(names.host(HOST), "mean")) >= 120


def test_the_mean_of_turns_moves_by_a_tenth_of_the_way(client, region_redis):
    give(client, asked(3), "1 0")
    worker = claimer(region_redis.url)
    (job,) = worker.claim(3).jobs
    client.hset(names.host(HOST), "mean", 10_000)
    began_ms = job.claimed_ms
    worker.finish([end(job)], then_claim=0)
    lasted_ms = connect.redis_now_ms(client) - began_ms
    assert 9_000 <= float(client.hget(names.host(HOST), "mean")) <= 9_000 + lasted_ms / 10
    assert 0 < client.pttl(names.host(HOST)) <= HOST_TTL_MS


def test_who_waits_in_vain_is_refused_before_its_deadline(client, region_redis):
    """An estimate may have been too good."""
    ids = give(client, asked(2, deadline_seconds=40), "1 0")
    worker = claimer(region_redis.url)
    worker.claim(2)
    at, deadline_ms = names.rq_registry("scheduled", REGION), int(client.hget(names.rq_job(ids[1]), names.JOB_DEADLINE))
    assert client.zscore(at, ids[1]) == (deadline_ms - ROOM_MS) / 1000
    worker.move_due()
    assert queue(client).get_job_ids() == []
    client.zadd(at, {ids[1]: 1})  # its last moment
    client.hset(names.host(HOST), "mean", 60_000)
    worker.move_due()
    assert client.zcard(names.line(HOST)) == 0
    found = worker.claim(2).jobs
    assert [(job.task, job.refused_ms >= 0) for job in found] == [(ids[1], True)]
    assert found[0].claimed_ms < deadline_ms
    assert (client.zcard(names.line(HOST)), scheduled(client)) == (0, [])
    worker.finish([end(found[0])], then_claim=0)
    assert client.zcard(names.turns(HOST)) == 1


def test_a_retry_without_a_turn_ends_as_it_failed(client, region_redis):
    (id_,) = give(client, asked(1, deadline_seconds=40), "1 0")
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    worker.finish([again(job)], then_claim=0)
    (other,) = enqueue(client, asked(1))
    tell_limits(client, {HOST: "1 0"})
    assert [job.task for job in worker.claim(1).jobs] == [other]
    client.hset(names.host(HOST), "mean", 60_000)
    worker.move_due()
    assert worker.claim(1).jobs == []
    assert fetch(client, id_).get_status() == JobStatus.SCHEDULED  # it is in no queue any more
    ((_, outcome, _),) = until(worker.move_due, "its end")
    assert (outcome.task, outcome.status) == (id_, "failed")
    assert scheduled(client) == []


@pytest.mark.parametrize("how", ["waiting", "called"])
def test_a_retry_that_ends_at_its_deadline_gives_way(client, region_redis, how):
    id_, next_ = give(client, asked(2), "1 0")
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    worker.finish([again(job)], then_claim=0)
    (running,) = worker.claim(1).jobs
    worker.move_due()
    assert worker.claim(1).jobs == []
    assert client.zrange(names.line(HOST), 0, -1) == [id_.encode()]
    if how == "called":
        worker.finish([end(running)], then_claim=0)
        Caller(client, REGION).run_once()
        assert client.zrange(names.turns(HOST), 0, -1) == [id_.encode()]
    pass_deadline(client, id_)
    ((_, outcome, _),) = worker.move_due()
    assert (outcome.task, client.zcard(names.line(HOST))) == (id_, 0)
    assert client.zrange(names.turns(HOST), 0, -1) == ([] if how == "called" else [next_.encode()])


@pytest.mark.parametrize("how", ["waiting", "called"])
def test_what_is_cancelled_gives_way(client, region_redis, how):
    ids = give(client, asked(3), "1 0")
    worker = claimer(region_redis.url)
    (job,) = worker.claim(3).jobs
    assert client.zcard(names.line(HOST)) == 2
    if how == "called":
        worker.finish([end(job)], then_claim=0)
        Caller(client, REGION).run_once()
        assert queue(client).get_job_ids() == [ids[1]]
    client.set(names.cancel_mark(ids[1]), 1, px=60_000)
    claimed = worker.claim(2).jobs if how == "called" else worker.finish([end(job)], then_claim=2)[1].jobs
    claimed = claimed or worker.claim(2).jobs
    assert [job.task for job in claimed] == [ids[2]]
    assert fetch(client, ids[1]).get_status() == JobStatus.CANCELED
    assert client.zrange(names.turns(HOST), 0, -1) == [ids[2].encode()]


def test_a_dead_process_gives_its_turns_back(client, region_redis):
    ids = give(client, asked(4), "2 0")
    dead = claimer(region_redis.url, "dead")
    held = dead.claim(2).jobs
    assert dead.give_back([job.member for job in held]) == 2
    assert client.zcard(names.turns(HOST)) == 0
    alive = claimer(region_redis.url, "alive")
    claimed = alive.claim(4).jobs
    assert [job.task for job in claimed] == [ids[1], ids[0]]
    assert dead.finish([end(job) for job in held], then_claim=0)[0] == ["", ""]
    assert client.zcard(names.turns(HOST)) == 2


def test_the_turn_of_a_deleted_job_is_found(client, region_redis):
    """Whoever deletes a job in rq-dashboard knows nothing of turns."""
    ids = give(client, asked(3), "1 0")
    worker = claimer(region_redis.url)
    worker.claim(3)
    client.delete(names.rq_job(ids[0]))
    (job,) = until(lambda: worker.claim(3).jobs, "the next one")
    assert job.task == ids[1]
    assert 0 < client.pttl(names.host(HOST)) <= HOST_TTL_MS


def test_who_was_called_and_finds_its_host_closed_waits_again_as_the_first(client, region_redis):
    ids = give(client, asked(3), "1 0")
    worker = claimer(region_redis.url)
    (job,) = worker.claim(3).jobs
    worker.finish([end(job)], then_claim=0)
    until(lambda: Caller(client, REGION).run_once() or queue(client).get_job_ids() == [ids[1]], "the call")
    client.hset(names.host(HOST), "next", connect.redis_now_ms(client) + 15_000)
    assert worker.claim(3).jobs == []
    assert client.zrange(names.line(HOST), 0, -1) == [ids[1].encode(), ids[2].encode()]
    assert (client.zcard(names.turns(HOST)), sorted(scheduled(client))) == (0, sorted(ids[1:]))
    client.hset(names.host(HOST), "next", 0)
    client.zadd(names.HOSTS, {HOST: 1})
    assert [job.task for job in until(lambda: worker.claim(3).jobs, "the next call")] == [ids[1]]


def test_of_two_that_were_called_one_waits_again_where_only_one_may_run_by_now(client, region_redis):
    ids = give(client, asked(4), "2 0")
    worker = claimer(region_redis.url)
    jobs = worker.claim(4).jobs
    worker.finish([end(job) for job in jobs], then_claim=0)
    until(lambda: Caller(client, REGION).run_once() or len(queue(client).get_job_ids()) == 2, "the calls")
    tell_limits(client, {HOST: "1 0"})
    (job,) = worker.claim(4).jobs
    assert client.zrange(names.turns(HOST), 0, -1) == [job.task.encode()]
    assert {job.task, *scheduled(client)} == set(ids[2:])


def test_lost_turns_are_looked_for_once_a_second(client, region_redis):
    """A host of many fetches has a long list."""
    ids = give(client, asked(3), "1 0")
    claimer(region_redis.url).claim(3)
    client.delete(names.rq_job(ids[0]))
    caller, soon_ms = Caller(client, REGION), connect.redis_now_ms(client) + 60_000
    for swept_ms, held in ((soon_ms, ids[0]), (soon_ms - 61_001, ids[1])):
        client.hset(names.host(HOST), "swept", swept_ms)
        client.zadd(names.HOSTS, {HOST: 1})
        caller.run_once()
        assert client.zrange(names.turns(HOST), 0, -1) == [held.encode()]
    assert int(client.hget(names.host(HOST), "swept")) > soon_ms - 60_001


def test_a_closed_hosts_line_is_gone_through_once_a_second(client, region_redis):
    ids = give(client, asked(3, deadline_seconds=30), "1 0")
    claimer(region_redis.url).claim(3)
    now_ms, caller = connect.redis_now_ms(client), Caller(client, REGION)
    for swept_ms, told in ((now_ms + 60_000, []), (now_ms - 1_001, ids[1:])):
        client.hset(names.host(HOST), mapping={"swept": swept_ms, "next": now_ms + 120_000})
        client.zadd(names.HOSTS, {HOST: 1})
        caller.run_once()
        assert queue(client).get_job_ids() == told
    assert int(client.hget(names.host(HOST), "swept")) >= now_ms


def test_a_deleted_one_that_waits_is_passed_over(client, region_redis):
    ids = give(client, asked(3), "1 0")
    worker = claimer(region_redis.url)
    (job,) = worker.claim(3).jobs
    client.delete(names.rq_job(ids[1]))
    assert [job.task for job in worker.finish([end(job)], then_claim=3)[1].jobs] == [ids[2]]


def test_a_suspect_waits_for_its_turn_too(client, region_redis):
    ids = give(client, asked(2), "1 0")
    client.hset(names.rq_job(ids[1]), names.JOB_DEATHS, 1)
    client.lrem(names.rq_queue(REGION), 0, ids[1])
    client.rpush(names.rq_queue(names.suspects(REGION)), ids[1])
    worker, lone = claimer(region_redis.url), claimer(region_redis.url, "lone", kind="alone")
    (job,) = worker.claim(2).jobs
    assert lone.claim(1).jobs == []
    assert worker.finish([end(job)], then_claim=2)[1].jobs == []
    assert [job.task for job in lone.claim(1).jobs] == [ids[1]]


def test_turns_work_on_a_full_redis(client, region_redis):
    ids = give(client, asked(3), "1 0")
    worker = claimer(region_redis.url)
    client.config_set("maxmemory", 1)
    assert drain(worker) == ids
