"""The same question asked by tasks that stand far from each other in a long queue, as a bridge enqueues them."""

import itertools
import time

import msgspec
import pytest

from bridge.enqueue import Enqueuer
from jobs import contract
from jobs.queue import shared_fetch
from regions import names
from tests.service.jobs.queue.test_claim import changed, end
from tests.service.jobs.queue.test_shared_fetch import FRAME, left
from tests.service.working import REGION, claimer, task
from tests.waiting import until

NUMBERS = itertools.count()


@pytest.fixture
def enqueuer(region_redis):
    one = Enqueuer(region_redis.client, REGION)
    one.open()
    yield one
    one.close()


@pytest.fixture
def worker(region_redis):
    return claimer(region_redis.url)


def give(enqueuer, tasks):
    assert enqueuer.write(tasks, offset_ms=0, now_ms=int(time.time() * 1000)).refusals == [None] * len(tasks)
    return [one.task for one in tasks]


def queue_up(enqueuer):
    """Jobs that wait, as a bridge knows of them: by what was there before the last batch."""
    for _ in range(2):
        give(enqueuer, others(3))


def others(count):
    """Tasks that ask what nobody else does."""
    return [task(n=next(NUMBERS)) for _ in range(count)]


def one_by_one(worker):
    """Claims and ends jobs, one thread's; whose answer each took, "" where it asked."""
    found = {}
    while jobs := worker.claim(1).jobs:
        (job,) = jobs
        found[job.task] = job.leader
        told = end(job) if job.answer else changed(end(job, frame=FRAME), shared_ms=shared_fetch.FOR_ALL_MS)
        worker.finish([told], then_claim=0)
    return found


def test_who_stood_in_the_queue_before_it_was_fetched_takes_that_answer(region_redis, enqueuer, worker):
    queue_up(enqueuer)
    first, *rest = [one for n in range(4) for one in give(enqueuer, [task(same=1), *others(2)])][::3]
    found = one_by_one(worker)
    assert len(found) == 18
    assert {id_: found[id_] for id_ in (first, *rest)} == {first: "", **dict.fromkeys(rest, first)}


def test_who_asks_after_it_was_fetched_asks_anew(region_redis, enqueuer, worker):
    queue_up(enqueuer)
    first, second = give(enqueuer, [task(same=1)]) + give(enqueuer, [task(same=1)])
    found = one_by_one(worker)
    assert (found[first], found[second]) == ("", first)
    queue_up(enqueuer)
    third, fourth = give(enqueuer, [task(same=1)]) + give(enqueuer, [task(same=1)])
    found = one_by_one(worker)
    assert (found[third], found[fourth]) == ("", third)


def test_an_answer_is_kept_for_them_for_some_seconds_only(region_redis, enqueuer, worker):
    client = region_redis.client
    queue_up(enqueuer)
    ids = give(enqueuer, [task(same=1), task(same=1)])
    one_by_one(worker)
    assert len(left(client)) == 2
    assert all(0 < client.pttl(key) <= 10_000 for key in left(client))
    for key in left(client):
        client.delete(key)
    queue_up(enqueuer)
    assert set(one_by_one(worker).values()) == {""}
    assert len(ids) == 2


def test_after_a_failure_that_is_nobody_elses_the_next_one_in_the_queue_keeps_its_answer(
    region_redis, enqueuer, worker
):
    queue_up(enqueuer)
    first, second, third = [give(enqueuer, [task(same=1), *others(1)])[0] for _ in range(3)]
    worker.claim(6)
    (job,) = worker.claim(1).jobs
    worker.finish([end(job, status="failed")], then_claim=0)
    found = one_by_one(worker)
    assert (job.task, found[second], found[third]) == (first, "", second)


def test_nothing_is_kept_where_nobody_waits(region_redis, enqueuer, worker):
    for _ in range(3):
        give(enqueuer, [task(same=1)])
        assert set(one_by_one(worker).values()) == {""}
        assert left(region_redis.client) == []


def test_the_same_message_again_is_not_asked_again(region_redis, enqueuer):
    one = task(same=1)
    queue_up(enqueuer)
    give(enqueuer, [one])
    give(enqueuer, [one])
    assert region_redis.client.keys(names.flight("*")) == []
    (again,) = give(enqueuer, [task(same=1)])
    assert region_redis.client.get(names.flight(contract.key_of(one))) == b"*"
    assert int(region_redis.client.hget(names.rq_job(again), names.JOB_ASKED)) <= time.time() * 1000


def test_a_deadline_that_is_past_is_no_reason_to_keep_an_answer(region_redis, enqueuer):
    queue_up(enqueuer)
    give(enqueuer, [task(deadline_seconds=-1, same=1)])
    give(enqueuer, [task(same=1)])
    assert region_redis.client.keys(names.flight("*")) == []


def test_the_answer_stays_for_who_is_still_in_the_queue_when_those_who_waited_have_taken_it(enqueuer, worker):
    queue_up(enqueuer)
    first, second = [give(enqueuer, [task(same=1)])[0] for _ in range(2)]
    give(enqueuer, others(2))
    (third,) = give(enqueuer, [task(same=1)])
    worker.claim(6)
    (job,) = worker.claim(1).jobs
    (other,) = worker.claim(1).jobs  # behind the second one, which waits from now on
    worker.finish([changed(end(job, frame=FRAME), shared_ms=shared_fetch.FOR_ALL_MS)], then_claim=0)
    found = one_by_one(worker)
    assert (job.task, found[second], found[third]) == (first, first, first)
    assert next(iter(found)) == second
    assert other.leader == ""


DAY_SECONDS = 86_400.0


def aged(max_age, count=1):
    """Tasks that ask the same, and how old an answer each takes (s)."""
    return [msgspec.structs.replace(task(n="aged"), max_age=max_age) for _ in range(count)]


def answered(job, seconds_ago):
    """The end of one that asked, or that took an answer of its region's, which is so old."""
    ended = changed(end(job, frame=FRAME), shared_ms=shared_fetch.FOR_ALL_MS)
    return changed(ended, answered_ms=int((time.time() - seconds_ago) * 1000))


def test_an_older_answer_is_shared_only_with_those_who_take_one_of_its_age(region_redis, enqueuer, worker):
    """max_age 0 asks the origin, also beside tasks that let their region's older answer do."""
    leads, joins = give(enqueuer, aged(DAY_SECONDS, 2))
    fresh, hour = give(enqueuer, [*aged(0.0), *aged(3_600.0)])
    (job,) = worker.claim(9).jobs
    assert job.task == leads
    worker.finish([answered(job, 7_200)], then_claim=0)
    found = {job.task: job for job in worker.claim(9).jobs}
    assert set(found) == {joins, fresh}  # the next one asks, and the one of an hour waits with it
    assert (found[joins].leader, found[fresh].leader) == (leads, "")
    worker.finish([end(found[joins]), answered(found[fresh], 0)], then_claim=0)
    (told,) = worker.claim(9).jobs
    assert (told.task, told.leader) == (hour, fresh)


def test_an_answer_that_came_before_a_task_did_is_not_of_its_own_time(region_redis, enqueuer, worker):
    (first,) = give(enqueuer, aged(0.0))
    (job,) = worker.claim(1).jobs
    came = int(time.time() * 1000)  # its page is there and is read for a while
    until(lambda: time.time() * 1000 > came + 1, "a later millisecond")
    late, patient = give(enqueuer, [*aged(0.0), *aged(60.0)])
    worker.claim(9)
    worker.finish([changed(answered(job, 0), answered_ms=came)], then_claim=0)
    found = {job.task: job.leader for job in worker.claim(9).jobs}
    assert found == {late: "", patient: first}


def test_an_older_answer_is_not_kept_for_those_in_the_queue_who_ask_the_origin(region_redis, enqueuer, worker):
    queue_up(enqueuer)
    leads, fresh, day = give(enqueuer, [*aged(DAY_SECONDS), *aged(0.0), *aged(DAY_SECONDS)])
    found = {}
    while len(found) < 3:
        (job,) = worker.claim(1).jobs
        if job.task in (leads, fresh, day):
            found[job.task] = job.leader
            told = end(job) if job.answer else answered(job, 7_200 if job.task == leads else 0)
            worker.finish([told], then_claim=0)
        else:
            worker.finish([end(job)], then_claim=0)
    assert found == {leads: "", fresh: "", day: found[day]}
    assert found[day] in (leads, fresh)
