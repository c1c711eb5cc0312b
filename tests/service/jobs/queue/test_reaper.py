"""The reaper on a real Redis, with a clock of the test's own."""

import time

import pytest
from rq import Queue, Worker
from rq.job import Job as RqJob
from rq.serializers import JSONSerializer

from jobs.contract import LOST
from jobs.queue import reaper as reaping
from jobs.queue.clock import LEASE_MS
from jobs.queue.reaper import Reaper
from jobs.queue.retry import read_past
from jobs.worker.worker import REGISTER
from regions import connect, names
from tests.service.jobs.queue.test_claim import end
from tests.service.jobs.queue.test_retry import again
from tests.service.working import REGION, claimer, enqueue, task
from tests.waiting import Clock, until


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def reaper(region_redis, clock):
    return Reaper(region_redis.client, REGION, clock)


def register(client, name):
    REGISTER.call(
        client,
        worker=names.rq_worker(name),
        workers=names.RQ_WORKERS,
        queue_workers=names.rq_workers_of(REGION),
        lease=names.lease(name),
        living=names.WORKERS,
        name=name,
        birth="2026-11-24T04:14:00.000000Z",
        record=["queues", REGION],
    )


def look(reaper, clock, seconds):
    """Looks each second, for so long."""
    for _ in range(int(seconds)):
        reaper.run_once()
        clock.now += 1.0
    reaper.run_once()


def queued(client):
    return Queue(REGION, connection=client, serializer=JSONSerializer).get_job_ids()


def test_a_worker_whose_lease_lapsed_is_reaped_and_leaves_rq(region_redis, reaper, clock):
    client = region_redis.client
    register(client, "w1")
    ids = enqueue(client, [task() for _ in range(3)])
    worker = claimer(region_redis.url, register=False)
    jobs = worker.claim(2).jobs
    client.delete(names.lease("w1"))
    look(reaper, clock, 10)
    assert sorted(queued(client)) == sorted(ids)
    assert queued(client)[2] == ids[2]
    job = RqJob.fetch(ids[0], connection=client, serializer=JSONSerializer)
    assert (job.get_status(), job.worker_name) == ("queued", None)
    assert client.keys("rq:worker*") + client.keys("rq:execution*") + client.keys("rq:wip*") == []
    assert Worker.all(connection=client) == []
    assert client.zcard(names.WORKERS) == 0
    assert worker.finish([end(job) for job in jobs], then_claim=0)[0] == ["", ""]
    assert worker.claim(1).refusal == "unregistered"


def test_workers_that_died_together_are_reaped_together_and_one_that_lives_among_them_stays(
    region_redis, reaper, clock
):
    client = region_redis.client
    for name in ("w1", "w2", "w3"):
        register(client, name)
    client.delete(names.lease("w1"), names.lease("w3"))
    client.persist(names.lease("w2"))
    while b"w1" in (left := client.zrange(names.WORKERS, 0, -1)):
        assert clock.now < 1_100.0
        look(reaper, clock, 1)
    assert left == [b"w2"]


def test_a_lease_that_a_step_of_the_clock_made_longer_ends_in_time(region_redis, reaper, clock):
    """Nobody was there to see that the Redis's clock went back."""
    client = region_redis.client
    ids = enqueue(client, [task()])
    claimer(region_redis.url).claim(1)
    client.pexpire(names.lease("w1"), 3_600_000)
    look(reaper, clock, 1)
    assert client.pttl(names.lease("w1")) <= LEASE_MS
    assert queued(client) == []
    until(lambda: not client.exists(names.lease("w1")), "its end")
    look(reaper, clock, 10)
    assert queued(client) == ids


def test_a_live_worker_is_left_alone(region_redis, reaper, clock, monkeypatch):
    monkeypatch.setattr(reaping, "LEASE_MS", 600_000)
    enqueue(region_redis.client, [task()])
    worker = claimer(region_redis.url)
    worker.claim(1)
    region_redis.client.pexpire(names.lease("w1"), 600_000)  # it lives for all the twelve looks, however long they take
    look(reaper, clock, 12)
    assert queued(region_redis.client) == []
    assert len(worker.look([])[1]) == 1


def test_nobody_is_reaped_before_two_leases_of_answers(region_redis, reaper, clock):
    enqueue(region_redis.client, [task()])
    claimer(region_redis.url).claim(1)
    region_redis.client.delete(names.lease("w1"))
    look(reaper, clock, 9)
    assert queued(region_redis.client) == []
    look(reaper, clock, 1)
    assert len(queued(region_redis.client)) == 1


@pytest.mark.parametrize("gap", ["outage", "pause"])
def test_a_gap_in_the_answers_begins_the_proof_again(region_redis, reaper, clock, gap):
    enqueue(region_redis.client, [task()])
    claimer(region_redis.url).claim(1)
    region_redis.client.delete(names.lease("w1"))
    look(reaper, clock, 9)
    if gap == "outage":
        region_redis.crash()
        reaper.run_once()
        region_redis.running.start()
        region_redis.client.delete(names.lease("w1"))
    else:
        clock.now += reaping.GAP_SECONDS + 0.1
    look(reaper, clock, 9)
    assert queued(region_redis.client) == []
    look(reaper, clock, 1)
    assert len(queued(region_redis.client)) == 1


def test_who_was_seen_to_die_is_reaped_at_once_though_its_lease_lives(region_redis, reaper):
    ids = enqueue(region_redis.client, [task()])
    claimer(region_redis.url).claim(1)
    reaper.died("w1", crashed=False)
    reaper.run_once()
    assert queued(region_redis.client) == ids
    assert region_redis.client.exists(names.lease("w1")) == 0


def test_a_death_is_heard_while_the_next_look_is_far(region_redis, monkeypatch):
    monkeypatch.setattr(reaping, "LOOK_SECONDS", 3_600.0)
    ids = enqueue(region_redis.client, [task()])
    claimer(region_redis.url).claim(1)
    reaper = Reaper(region_redis.client, REGION)
    reaper.start()
    reaper.died("w1", crashed=False)
    until(lambda: queued(region_redis.client) == ids, "its job to be given back")
    reaper.stop()
    until(lambda: not reaper._thread.is_alive(), "its thread to end")


def test_it_is_told_how_many_jobs_a_dead_worker_held(region_redis, reaper, capfd):
    enqueue(region_redis.client, [task(), task(), task()])
    claimer(region_redis.url).claim(2)
    reaper.died("w1", crashed=False)
    reaper.run_once()
    (said,) = [line.split() for line in capfd.readouterr().out.splitlines() if "reaped a worker" in line]
    assert {"worker=w1", "jobs=2", "how=left"} <= set(said)


def test_who_died_while_redis_was_away_is_reaped_when_it_is_back(region_redis, reaper):
    ids = enqueue(region_redis.client, [task()])
    claimer(region_redis.url).claim(1)
    region_redis.crash()
    reaper.died("w1", crashed=False)
    reaper.run_once()
    region_redis.running.start()
    reaper.run_once()
    assert queued(region_redis.client) == ids


def test_a_worker_that_came_back_between_look_and_reaping_is_left_alone(region_redis):
    client = region_redis.client
    enqueue(client, [task()])
    worker = claimer(region_redis.url)
    worker.claim(1)
    client.pexpire(names.lease("w1"), 600_000)
    reaper = Reaper(client, REGION)
    reaper._reap("w1", "lapsed")
    assert queued(client) == []


def test_registries_are_trimmed_and_nothing_in_them_is_failed(region_redis, reaper, clock):
    client = region_redis.client
    now = time.time()
    for kind in ("finished", "failed"):
        client.zadd(names.rq_registry(kind, REGION), {"old": now - 1, "young": now + 60})
    client.zadd(names.rq_registry("canceled", REGION), {"old": now - 400, "young": now})
    client.hset(names.rq_job("old"), "status", "canceled")
    reaper.run_once()
    for kind in ("finished", "failed", "canceled"):
        assert client.zrange(names.rq_registry(kind, REGION), 0, -1) == [b"young"]
    assert 0 < client.ttl(names.rq_job("old")) <= 300


def test_reaping_works_on_a_full_redis(region_redis, reaper):
    ids = enqueue(region_redis.client, [task()])
    claimer(region_redis.url).claim(1)
    region_redis.client.config_set("maxmemory", 1)
    reaper.died("w1", crashed=False)
    reaper.run_once()
    assert queued(region_redis.client) == ids
    register(connect.open_redis(region_redis.url, name="t", block_seconds=30.0), "w3")
    assert region_redis.client.exists(names.rq_worker("w3")) == 1


def suspects(client):
    return Queue(names.suspects(REGION), connection=client, serializer=JSONSerializer).get_job_ids()


def crash(reaper, worker="w1"):
    reaper.died(worker, crashed=True)
    reaper.run_once()


def test_what_ran_when_its_process_crashed_is_a_suspect_that_only_a_lone_process_claims(region_redis, reaper):
    client = region_redis.client
    first, second = enqueue(client, [task(), task()])
    (ran,) = claimer(region_redis.url).claim(1).jobs
    client.hset(names.rq_execution(first, ran.execution), "created_at", "1732421640.500000")
    crash(reaper)
    assert (suspects(client), queued(client), reaper.suspects()) == ([first], [second], 1)
    assert client.sismember(names.RQ_QUEUES, names.rq_queue(names.suspects(REGION)))
    assert [job.task for job in claimer(region_redis.url, "w2").claim(5).jobs] == [second]
    (job,) = claimer(region_redis.url, "a1", kind="alone").claim(1).jobs
    assert (job.task, job.attempt, job.deaths, job.failures) == (first, 2, 1, 0)
    (past,) = read_past(job.past)
    assert (past.attempt, past.worker, past.error, past.message) == (1, "w1", LOST, "its process died")
    assert past.started_ms == 1732421640_500 < past.ended_ms


def test_the_pool_is_told_when_jobs_wait_for_a_process_of_their_own(region_redis):
    client, told = region_redis.client, []
    reaper = Reaper(client, REGION, found=lambda: told.append(client.llen(names.rq_queue(names.suspects(REGION)))))
    enqueue(client, [task()])
    claimer(region_redis.url).claim(1)
    reaper.run_once()
    assert told == []
    crash(reaper)
    assert told == [1]


def test_the_third_death_of_a_suspect_is_its_last(region_redis, reaper):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    claimer(region_redis.url).claim(1)
    crash(reaper)
    for worker in ("a1", "a2"):
        assert claimer(region_redis.url, worker, kind="alone").claim(1).jobs[0].task == id_
        crash(reaper, worker)
    assert (suspects(client), queued(client)) == ([], [id_])
    (job,) = claimer(region_redis.url, "w2").claim(1).jobs
    assert (job.deaths, job.attempt) == (3, 3), "who ends it does not run it"


def test_who_ended_because_it_was_asked_to_accuses_nobody(region_redis, reaper):
    ids = enqueue(region_redis.client, [task()])
    claimer(region_redis.url).claim(1)
    reaper.died("w1", crashed=False)
    reaper.run_once()
    assert (queued(region_redis.client), suspects(region_redis.client)) == (ids, [])


def lapse(region_redis, reaper, clock, worker, seconds):
    """A worker claims, and its lease lapses."""
    assert claimer(region_redis.url, worker).claim(1).jobs
    region_redis.client.delete(names.lease(worker))
    look(reaper, clock, seconds)


def test_a_second_lapse_makes_a_suspect(region_redis, reaper, clock):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    lapse(region_redis, reaper, clock, "w1", 10)
    assert (queued(client), suspects(client)) == ([id_], [])
    lapse(region_redis, reaper, clock, "w2", 1)
    assert (queued(client), suspects(client)) == ([], [id_])


def test_a_gap_between_two_lapses_acquits(region_redis, reaper, clock):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    lapse(region_redis, reaper, clock, "w1", 10)
    clock.now += reaping.GAP_SECONDS + 1
    client.hincrby(
        names.rq_job(id_), names.JOB_LAPSED, -60_000
    )  # the clock of the proof is the test's, not the Redis's
    lapse(region_redis, reaper, clock, "w2", 10)
    assert (queued(client), suspects(client)) == ([id_], [])


def test_a_suspect_stays_one_when_it_waits_or_is_given_back(region_redis, reaper):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    claimer(region_redis.url).claim(1)
    crash(reaper)
    lone = claimer(region_redis.url, "a1", kind="alone")
    (job,) = lone.claim(1).jobs
    lone.finish([again(job)], then_claim=0)
    assert (queued(client), suspects(client)) == ([], [])
    lone.move_due()
    assert (queued(client), suspects(client)) == ([], [id_])
    lone.give_back([lone.claim(1).jobs[0].member])
    assert (queued(client), suspects(client)) == ([], [id_])


def test_at_most_sixteen_run_alone_at_once_in_a_region(region_redis, reaper):
    client = region_redis.client
    enqueue(client, [task() for _ in range(18)])
    claimer(region_redis.url).claim(18)
    crash(reaper)
    lone = [claimer(region_redis.url, f"a{number}", kind="alone") for number in range(17)]
    assert [len(one.claim(1).jobs) for one in lone[:16]] == [1] * 16
    soon_ms = connect.redis_now_ms(client) + 600_000  # else the first ones count no more where all this takes seconds
    client.zadd(names.ALONE, {f"a{number}": soon_ms for number in range(16)})
    assert (lone[16].claim(1).refusal, len(suspects(client))) == ("enough alone", 2)
    assert lone[0].claim(0).refusal == ""
    lone[0].leave()
    assert len(lone[16].claim(1).jobs) == 1
    client.zadd(names.ALONE, {"a1": 1})
    assert len(lone[0].claim(1).jobs) == 1, "one that no longer claims does not count"


def test_a_suspended_region_starts_nobody_for_its_suspects(region_redis, reaper):
    client = region_redis.client
    enqueue(client, [task()])
    claimer(region_redis.url).claim(1)
    client.set(names.RQ_SUSPENDED, 1)
    crash(reaper)
    assert (len(suspects(client)), reaper.suspects()) == (1, 0)


def test_a_worker_that_died_before_its_first_claim_leaves_rq_too(region_redis, reaper, clock):
    client = region_redis.client
    register(client, "w1")
    assert client.zscore(names.WORKERS, "w1") > 0
    client.delete(names.lease("w1"))
    look(reaper, clock, 12)
    assert Worker.all(connection=client) == []


@pytest.mark.parametrize("queue", [names.suspects(REGION), names.urgent(REGION)])
def test_a_process_for_suspects_or_synchronous_tasks_leaves_rq_too(region_redis, reaper, queue):
    client, of_queue = region_redis.client, names.rq_workers_of(queue)
    register(client, "a1")
    client.sadd(of_queue, names.rq_worker("a1"), names.rq_worker("a2"))
    client.zadd(names.ALONE, {"a1": 1, "a2": 1})
    crash(reaper, "a1")
    assert client.smembers(of_queue) == {names.rq_worker("a2").encode()}
    assert client.zrange(names.ALONE, 0, -1) == [b"a2"]


def test_what_a_crashed_worker_no_longer_ran_is_no_suspect(region_redis, reaper):
    client = region_redis.client
    ids = enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    worker.give_back([job.member])
    past = client.hget(names.rq_job(ids[0]), names.JOB_PAST)
    client.sadd(names.rq_worker_executions("w1"), job.member, "odd")
    crash(reaper)
    assert (queued(client), suspects(client)) == (ids, [])
    assert client.hmget(names.rq_job(ids[0]), names.JOB_DEATHS, names.JOB_PAST) == [None, past]


def test_a_crash_makes_no_half_of_a_job_that_an_operator_deleted(region_redis, reaper):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    claimer(region_redis.url).claim(1)
    client.delete(names.rq_job(id_))
    crash(reaper)
    assert (queued(client), suspects(client), client.exists(names.rq_job(id_))) == ([], [], 0)


def test_a_thread_reaps_who_died_at_once_looks_each_second_and_ends(region_redis):
    client = region_redis.client
    ids = enqueue(client, [task(), task()])
    for worker in ("w1", "w2"):
        claimer(region_redis.url, worker).claim(1)
    reaper, looks = Reaper(client, REGION), []
    real = reaper.run_once
    reaper.run_once = lambda: looks.append(time.monotonic()) or real()
    reaper.start()
    reaper.died("w1", crashed=False)
    until(lambda: queued(client) == ids[:1], "the reaping")
    begun = len(looks)
    until(lambda: len(looks) >= begun + 3, "further looks")
    assert looks[begun + 2] - looks[begun + 1] >= reaping.LOOK_SECONDS
    reaper.died("w2", crashed=False)
    reaper.stop()
    until(lambda: not reaper._thread.is_alive(), "its thread to end")
    assert sorted(queued(client)) == sorted(ids), "who was seen to die is reaped before it ends"


def test_who_died_after_the_last_look_is_reaped_when_it_ends(region_redis):
    client = region_redis.client
    ids = enqueue(client, [task()])
    claimer(region_redis.url).claim(1)
    reaper = Reaper(client, REGION)
    reaper._stopping = True
    reaper.died("w1", crashed=False)
    reaper.run()
    assert queued(client) == ids


def test_nothing_is_trimmed_again_within_ten_seconds(region_redis, reaper, clock):
    client = region_redis.client
    reaper.run_once()
    for passed, left in ((reaping.TRIM_SECONDS - 0.1, [b"old"]), (0.1, [])):
        client.zadd(names.rq_registry("finished", REGION), {"old": time.time() - 1})
        clock.now += passed
        reaper.run_once()
        assert client.zrange(names.rq_registry("finished", REGION), 0, -1) == left
