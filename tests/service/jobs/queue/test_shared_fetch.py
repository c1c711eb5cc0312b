"""Tasks that ask the same, on a real Redis: who asks, who waits with it, and what becomes of them at every end."""

import msgspec
import pytest
from rq.job import JobStatus

from jobs import contract
from jobs.contract import KEEP_MS
from jobs.queue import shared_fetch
from jobs.queue.reaper import Reaper
from jobs.queue.script import DEATHS_MAX
from jobs.queue.turn import tell_limits
from regions import names
from tests.service.jobs.queue.test_claim import changed, end, fetch, queue
from tests.service.jobs.queue.test_retry import again, scheduled
from tests.service.jobs.queue.test_turn import HOST
from tests.service.working import REGION, claimer, enqueue, pass_deadline, task
from tests.waiting import until

FRAME = b'0{"task":"x"}\n[{"id":1}]'


def same(count, **more):
    """Tasks that ask the same, each of a request of its own."""
    return [msgspec.structs.replace(task(**more), host=HOST) for _ in range(count)]


def give(client, tasks):
    return enqueue(client, tasks, has_keys=True)


def done(job, *, shared_ms=shared_fetch.FOR_ALL_MS, status="succeeded"):
    """The end of the one that asked."""
    return changed(end(job, frame=FRAME, status=status), shared_ms=shared_ms)


def drain(worker):
    """Claims and ends all that is there; whose answer each task took, "" where it asked."""
    found = {}
    while jobs := worker.claim(64).jobs:
        found |= {job.task: job.leader for job in jobs}
        worker.finish([end(job) if job.answer else done(job) for job in jobs], then_claim=0)
    return found


def look(worker, client):
    """A look as a second later."""
    for name, _ in client.zrange(names.FLIGHTS, 0, -1, withscores=True):
        client.zadd(names.FLIGHTS, {name: 1})
    return worker.move_due()


def left(client):
    """All that is kept of shared fetches."""
    kinds = ("flight*", "joined*", "shared*", "landing*")
    return [key for kind in kinds for key in client.keys(f"nf:{kind}")]


def test_one_asks_and_the_others_wait_where_rq_shows_it(region_redis):
    client = region_redis.client
    first, *others = give(client, same(5))
    claimed = claimer(region_redis.url).claim(5).jobs
    assert [job.task for job in claimed] == [first]
    assert (sorted(scheduled(client)), queue(client).get_job_ids()) == (sorted(others), [])
    assert {fetch(client, id_).get_status() for id_ in others} == {JobStatus.SCHEDULED}
    assert claimer(region_redis.url, "w2").claim(5).jobs == []


def test_its_answer_is_theirs_and_nothing_is_left(region_redis):
    client = region_redis.client
    first, *others = give(client, same(20))
    worker = claimer(region_redis.url)
    (job,) = worker.claim(20).jobs
    worker.finish([done(job)], then_claim=0)
    assert sorted(queue(client).get_job_ids()) == sorted(others)
    jobs = worker.claim(20).jobs
    assert {job.answer for job in jobs} == {FRAME}
    assert {(job.leader, job.attempt, job.refused_ms) for job in jobs} == {(first, 0, -1)}
    assert client.zcard(names.turns(HOST)) == 0
    worker.finish([end(job) for job in jobs], then_claim=0)
    assert (left(client), scheduled(client), client.xlen(names.OUTBOX)) == ([], [], 20)


def test_a_task_without_company_leaves_nothing(region_redis):
    client = region_redis.client
    ids = give(client, [task(n=1), task(n=2)])
    worker = claimer(region_redis.url)
    jobs = worker.claim(2).jobs
    assert [job.task for job in jobs] == ids
    worker.finish([done(job) for job in jobs], then_claim=0)
    assert left(client) == []
    give(client, [task(n=1)])
    assert worker.claim(2).jobs[0].answer == b""


def test_other_params_or_another_definition_are_another_question(region_redis):
    asked = [task(n=1), task(n=2), msgspec.structs.replace(task(n=1), definition="0")]
    ids = give(region_redis.client, asked)
    assert [job.task for job in claimer(region_redis.url).claim(5).jobs] == ids


def test_jobs_of_an_older_bridge_ask_for_themselves(region_redis):
    ids = enqueue(region_redis.client, same(3))
    assert [job.task for job in claimer(region_redis.url).claim(5).jobs] == ids


def test_more_than_are_told_at_once_are_told_in_the_next_look(region_redis):
    client = region_redis.client
    first, *others = give(client, same(1_300))
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    while queue(client).get_job_ids():
        worker.claim(1)
    worker.finish([done(job)], then_claim=0)
    assert len(queue(client).get_job_ids()) == 1_000
    found = drain(worker)
    assert len(found) == 1_000
    worker.move_due()
    found |= drain(worker)
    assert (set(found), set(found.values()), left(client)) == (set(others), {first}, [])


def test_they_wait_through_its_retries(region_redis):
    client = region_redis.client
    first, second = give(client, same(2))
    worker = claimer(region_redis.url)
    (job,) = worker.claim(2).jobs
    worker.finish([again(job)], then_claim=0)
    (third,) = give(client, same(1))
    assert worker.claim(3).jobs == []
    worker.move_due()
    (job,) = worker.claim(3).jobs
    assert (job.task, job.attempt) == (first, 2)
    worker.finish([done(job)], then_claim=0)
    assert drain(worker) == {second: first, third: first}
    assert left(client) == []


def test_who_has_no_time_for_the_next_try_ends_as_the_last_one_failed(region_redis):
    client = region_redis.client
    give(client, same(1))
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    failed = again(job, wait_seconds=20.0)
    worker.finish([failed], then_claim=0)
    short, long = give(client, [*same(1, deadline_seconds=10), *same(1)])
    (told,) = worker.claim(3).jobs
    assert (told.task, told.answer, told.leader) == (short, failed[1].outcome.frame, job.task)
    assert worker.finish([end(told, status="failed")], then_claim=0)[0] != [""]
    assert long in scheduled(client)


def test_a_failure_that_is_everybodys_is_shared(region_redis):
    client = region_redis.client
    first, *others = give(client, same(4))
    worker = claimer(region_redis.url)
    (job,) = worker.claim(4).jobs
    worker.finish([done(job, status="failed")], then_claim=0)
    assert drain(worker) == dict.fromkeys(others, first)


def test_after_a_failure_that_is_nobody_elses_one_asks_at_a_time(region_redis):
    client = region_redis.client
    first, *others = give(client, same(4))
    worker = claimer(region_redis.url)
    asked = []
    for _ in range(4):
        (job,) = worker.claim(4).jobs
        assert job.answer == b""
        asked.append(job.task)
        worker.finish([done(job, status="failed", shared_ms=-1)], then_claim=0)
    assert (asked, left(client)) == ([first, *others], [])


def test_what_failed_for_want_of_time_is_not_for_those_who_have_more(region_redis):
    client = region_redis.client
    _, same_time, more_time, last = give(client, [*same(2), *same(2, deadline_seconds=90)])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(4).jobs
    worker.finish([done(job, status="failed", shared_ms=1_000)], then_claim=0)
    found = {job.task: job.answer for job in worker.claim(4).jobs}
    assert found == {same_time: FRAME, more_time: b""}
    assert scheduled(client) == [last]


@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_who_is_dropped_while_it_waits_to_ask_lets_the_next_one_ask(region_redis, how):
    client = region_redis.client
    first, second, third = give(client, same(3))
    worker = claimer(region_redis.url)
    (job,) = worker.claim(3).jobs
    worker.give_back([job.member])
    if how == "cancelled":
        client.set(names.cancel_mark(first), 1, px=60_000)
    else:
        pass_deadline(client, first)
    (job,) = worker.claim(3).jobs
    assert (job.task, fetch(client, first).get_status()) == (second, JobStatus.CANCELED)
    worker.finish([done(job)], then_claim=0)
    assert drain(worker) == {third: second}


def test_who_is_cancelled_while_it_waits_is_dropped_and_the_others_are_told(region_redis):
    client = region_redis.client
    first, second, third = give(client, same(3))
    worker = claimer(region_redis.url)
    (job,) = worker.claim(3).jobs
    client.set(names.cancel_mark(second), 1, px=60_000)
    worker.finish([done(job)], then_claim=0)
    assert drain(worker) == {third: first}
    assert (fetch(client, second).get_status(), left(client)) == (JobStatus.CANCELED, [])


@pytest.mark.parametrize("how", ["look", "newcomer"])
def test_nobody_waits_for_a_task_that_an_operator_deleted(region_redis, how):
    client = region_redis.client
    first, second = give(client, same(2))
    worker = claimer(region_redis.url)
    worker.claim(2)
    fetch(client, first).delete()
    if how == "look":
        assert worker.claim(2).jobs == []
        look(worker, client)
        assert [job.task for job in worker.claim(2).jobs] == [second]
    else:
        (third,) = give(client, same(1))
        (job,) = worker.claim(2).jobs
        assert job.task == third
        worker.finish([done(job)], then_claim=0)
        assert drain(worker) == {second: third}


def test_nobody_waits_for_a_task_that_should_have_ended(region_redis):
    """Its thread hangs: the process lives, and so does the execution."""
    client = region_redis.client
    first, second = give(client, same(2))
    worker = claimer(region_redis.url)
    (stuck,) = worker.claim(2).jobs
    look(worker, client)
    assert worker.claim(2).jobs == []
    pass_deadline(client, first, ago_ms=1_001)
    look(worker, client)
    (job,) = worker.claim(2).jobs
    assert job.task == second
    worker.finish([done(stuck)], then_claim=0)  # after all: it leads no longer
    assert client.get(names.flight(contract.key_of(task()))) == f"{second}+".encode()
    worker.finish([done(job)], then_claim=0)
    assert left(client) == []


def test_who_was_reaped_asks_again_and_the_paused_process_tells_nobody(region_redis):
    client = region_redis.client
    first, second = give(client, same(2))
    worker, other = claimer(region_redis.url), claimer(region_redis.url, "w2")
    (paused,) = worker.claim(2).jobs
    worker.give_back([paused.member])
    (job,) = other.claim(2).jobs
    assert (job.task, job.attempt) == (first, 2)
    assert worker.finish([done(paused)], then_claim=0)[0] == [""]
    assert scheduled(client) == [second]
    other.finish([done(job)], then_claim=0)
    assert drain(other) == {second: first}


def test_a_suspect_asks_alone_and_those_who_wait_are_no_suspects(region_redis):
    client = region_redis.client
    first, second = give(client, same(2))
    claimer(region_redis.url).claim(2)
    reaper = Reaper(client, REGION)
    for attempt in range(1, DEATHS_MAX + 1):
        reaper.died("w1" if attempt == 1 else f"w1.alone.{attempt}", crashed=True)
        reaper.run_once()
        if attempt < DEATHS_MAX:
            alone = claimer(region_redis.url, f"w1.alone.{attempt + 1}", kind="alone")
            assert [job.task for job in alone.claim(1).jobs] == [first]
    worker = claimer(region_redis.url, "w2")
    (poison,) = worker.claim(2).jobs
    assert (poison.task, poison.deaths) == (first, DEATHS_MAX)
    worker.finish([done(poison, status="failed")], then_claim=0)
    (told,) = worker.claim(2).jobs
    assert (told.task, told.deaths, told.answer) == (second, 0, FRAME)


def test_who_waits_for_a_turn_is_waited_with(region_redis):
    """Of many that ask the same of a busy host one stands in line, whatever the host allows."""
    client = region_redis.client
    (busy,) = enqueue(client, [msgspec.structs.replace(task(), host=HOST)])
    first, *others = give(client, same(5))
    tell_limits(client, {HOST: "1 0"})
    worker = claimer(region_redis.url)
    (running,) = worker.claim(9).jobs
    assert running.task == busy
    assert client.zcard(names.line(HOST)) == 1
    worker.finish([end(running)], then_claim=0)
    (job,) = worker.claim(9).jobs
    assert job.task == first
    worker.finish([done(job)], then_claim=0)
    assert drain(worker) == dict.fromkeys(others, first)
    assert (client.exists(names.line(HOST)), client.exists(names.turns(HOST))) == (0, 0)


def test_a_single_question_does_not_wait_for_the_round_of_the_one_that_asks_the_same(region_redis):
    client = region_redis.client
    big = [msgspec.structs.replace(task(n=n), host=HOST, request="BIG") for n in range(20)]
    ids = give(client, big)
    tell_limits(client, {HOST: "1 0"})
    worker = claimer(region_redis.url)
    (running,) = worker.claim(64).jobs
    (single,) = give(client, [msgspec.structs.replace(task(n=15), host=HOST)])
    worker.claim(1)
    order = []
    while single not in order:
        worker.finish([end(running) if running.answer else done(running)], then_claim=0)
        (running,) = worker.claim(1).jobs
        order.append(running.task)
    assert order.index(ids[15]) <= 2
    assert order.index(single) == order.index(ids[15]) + 1


def test_who_stands_far_behind_does_not_put_back_the_one_that_asks_the_same(region_redis):
    client = region_redis.client
    big = [msgspec.structs.replace(task(n=n), host=HOST, request="BIG") for n in range(6)]
    *_, single = give(client, [*big, msgspec.structs.replace(task(n=9), host=HOST)])
    tell_limits(client, {HOST: "1 0"})
    worker = claimer(region_redis.url)
    assert len(worker.claim(64).jobs) == 1
    rounds = dict(client.zrange(names.line(HOST), 0, -1, withscores=True))
    give(client, [msgspec.structs.replace(task(n=9), host=HOST, request="BIG")])
    tell_limits(client, {HOST: "1 0"})
    assert worker.claim(1).jobs == []
    assert single.encode() in rounds
    assert dict(client.zrange(names.line(HOST), 0, -1, withscores=True)) == rounds


def test_who_can_not_wait_for_the_turn_of_the_one_that_asks_hears_so_at_once(region_redis):
    client = region_redis.client
    give(client, [msgspec.structs.replace(task(n=1), host=HOST), *same(1, deadline_seconds=90)])
    tell_limits(client, {HOST: "8 20000.000"})
    worker = claimer(region_redis.url)
    worker.claim(2)
    (short,) = give(client, same(1, deadline_seconds=10))
    (job,) = worker.claim(1).jobs
    assert (job.task, job.attempt) == (short, 0)
    assert 15_000 < job.refused_ms <= 20_000
    worker.finish([done(job, status="failed", shared_ms=1_000)], then_claim=0)
    assert len(scheduled(client)) == 1
    assert client.exists(names.flight(contract.key_of(task()))) == 1


def test_an_answer_that_is_gone_is_asked_for_again(region_redis):
    client = region_redis.client
    first, second, third = give(client, same(3))
    worker = claimer(region_redis.url)
    (job,) = worker.claim(3).jobs
    worker.finish([done(job)], then_claim=0)
    client.delete(names.shared(first))
    (job,) = worker.claim(3).jobs
    assert job.answer == b""
    worker.finish([done(job)], then_claim=0)
    assert set(drain(worker).values()) == {job.task}
    assert {job.task} < {second, third}
    assert left(client) == []


def test_a_told_one_whose_process_dies_is_told_again(region_redis):
    client = region_redis.client
    give(client, same(2))
    worker = claimer(region_redis.url)
    (job,) = worker.claim(2).jobs
    worker.finish([done(job)], then_claim=0)
    (told,) = worker.claim(2).jobs
    worker.give_back([told.member])
    (told,) = worker.claim(2).jobs
    assert told.answer == FRAME
    worker.finish([end(told)], then_claim=0)
    assert left(client) == []


def test_shared_fetches_work_on_a_full_redis_and_survive_a_kill_of_it(region_redis):
    client = region_redis.client
    first, second = give(client, same(2))
    worker = claimer(region_redis.url)
    client.config_set("maxmemory", 1)
    (job,) = worker.claim(2).jobs
    region_redis.crash()
    region_redis.running.start()
    until(lambda: scheduled(client) == [second], "the Redis")
    worker.finish([done(job)], then_claim=0)
    assert drain(worker) == {second: first}


def test_a_claim_brings_no_more_answers_than_it_can_carry(region_redis):
    client = region_redis.client
    give(client, [msgspec.structs.replace(task(n=n % 3), host=HOST) for n in range(6)])
    worker = claimer(region_redis.url)
    for job in worker.claim(6).jobs:
        large = changed(end(job, frame=b"x" * 4_100_000), shared_ms=shared_fetch.FOR_ALL_MS)
        worker.finish([large], then_claim=0)
    assert [len(worker.claim(6).jobs) for _ in range(3)] == [2, 1, 0]


def test_who_asks_next_is_known_for_as_long_as_its_own_record(region_redis):
    client = region_redis.client
    asked = [*same(1, deadline_seconds=20), *same(1, deadline_seconds=250), *same(1, deadline_seconds=100)]
    give(client, asked)
    worker = claimer(region_redis.url)
    (first,) = worker.claim(1).jobs
    (key,) = client.keys("nf:flight:*")
    assert client.pexpiretime(key) == asked[0].deadline_ms + KEEP_MS
    assert worker.claim(2).jobs == []
    worker.finish([done(first, shared_ms=-1, status="failed")], then_claim=0)
    assert client.get(key).startswith(asked[1].task.encode())
    assert client.pexpiretime(key) == asked[1].deadline_ms + KEEP_MS


def test_where_all_that_waited_are_gone_nobody_asks_next(region_redis):
    client = region_redis.client
    _, *waiting = give(client, same(3))
    worker = claimer(region_redis.url)
    (first,) = worker.claim(3).jobs
    for id_ in waiting:
        client.delete(names.rq_job(id_))
    worker.finish([done(first, shared_ms=-1, status="failed")], then_claim=0)
    assert (left(client), client.exists(names.FLIGHTS)) == ([], 0)
