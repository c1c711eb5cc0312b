"""Claim and finish on a real Redis, seen through RQ's own classes."""

import math
import threading
import time
from contextlib import contextmanager

import msgspec
import pytest
import redis
import rq.suspension
from msgspec import structs
from rq import Queue
from rq.job import Job as RqJob
from rq.job import JobStatus
from rq.registry import (
    CanceledJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    StartedJobRegistry,
    clean_registries,
)
from rq.results import Result as RqResult
from rq.serializers import JSONSerializer

from bridge.enqueue import Enqueuer
from jobs.contract import Attempt, Outcome, Trail
from jobs.queue import script
from jobs.queue.claim import FINISH, Ending, Job, Look
from jobs.queue.retry import line
from jobs.queue.turn import tell_limits
from regions import connect, names
from tests.service.working import REGION, claimer, enqueue, enqueue_raw, task
from tests.waiting import until

WAIT_SECONDS = 60.0  # of a claim that something ends before


def queue(client):
    return Queue(REGION, connection=client, serializer=JSONSerializer)


def fetch(client, id_):
    return RqJob.fetch(id_, connection=client, serializer=JSONSerializer)


def end(job, *, status="succeeded", frame=b'0{"task":"x"}\n[]', traceback=""):
    now = int(time.time() * 1000)
    outcome = Outcome(
        request=job.request, task=job.task, status=status, finished_ms=now, expires_ms=now + 60_000, frame=frame
    )
    return job, Ending(outcome, traceback, raw_bytes=1000, records_bytes=100, wire_bytes=len(frame))


def changed(end, **changes):
    """The end of a job with other fields of its ending."""
    job, ending = end
    return job, structs.replace(ending, **changes)


def wip(client):
    return {member.decode() for member in client.zrange(names.rq_registry("wip", REGION), 0, -1)}


def test_a_claim_takes_from_the_front_as_many_as_asked(region_redis):
    client = region_redis.client
    ids = enqueue(client, [task(n=n) for n in range(5)])
    claimed = claimer(region_redis.url).claim(3)
    assert [job.task for job in claimed.jobs] == ids[:3]
    assert [job.attempt for job in claimed.jobs] == [1, 1, 1]
    (flags,) = {(job.is_told, job.is_cancelled, job.is_stopped, job.is_ended) for job in claimed.jobs}
    assert not any(flags)
    assert queue(client).get_job_ids() == ids[3:]


def test_a_claimed_job_says_all_that_its_run_goes_by(region_redis):
    client, one = region_redis.client, task(deadline_seconds=100)
    enqueue(client, [one], has_keys=True)
    client.hset(names.rq_job(one.task), names.JOB_SINCE, connect.redis_now_ms(client) - 5_000)  # it waited for its turn
    (job,) = claimer(region_redis.url).claim(1).jobs
    assert (job.task, job.request, job.source, job.host) == (one.task, one.request, one.source, one.host)
    assert (job.deadline_ms, job.bridged_ms) == (one.deadline_ms, one.accepted_ms)
    assert (job.past, job.deaths, job.refused_ms, job.trouble, job.why, job.leader) == (b"", 0, -1, "", "", "")
    assert 5_000 <= job.turn_ms < 65_000
    assert not client.hget(names.rq_job(one.task), names.JOB_SINCE)


def test_a_claim_says_to_rq_how_its_worker_is_and_for_how_long_that_holds(region_redis):
    client, key = region_redis.client, names.rq_worker("w1")
    enqueue(client, [task()])
    worker = claimer(region_redis.url)
    for state in ("idle", "busy"):
        client.hdel(key, "last_heartbeat")
        client.persist(key)
        jobs = worker.claim(int(state == "busy")).jobs
        assert client.hget(key, "state") == state.encode()
        assert 0 < client.ttl(key) <= script.WORKER_TTL_SECONDS
        assert client.hget(key, "last_heartbeat").startswith(time.strftime("%Y-", time.gmtime()).encode())
    worker.finish([end(jobs[0])], then_claim=0)
    worker.claim(0)
    assert client.hget(key, "state") == b"idle"


def test_rq_sees_a_claimed_job_as_started_and_never_as_overdue(region_redis):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    (job,) = claimer(region_redis.url).claim(1).jobs
    started = StartedJobRegistry(REGION, connection=client, serializer=JSONSerializer)
    clean_registries(queue(client))
    assert started.get_job_and_execution_ids() == [(id_, job.execution)]
    seen = fetch(client, id_)
    assert seen.get_status() == JobStatus.STARTED
    assert seen.worker_name == "w1"
    assert abs(seen.started_at.timestamp() - time.time()) < 60
    (execution,) = seen.get_executions()
    assert (execution.id, execution.worker_name) == (job.execution, "w1")
    assert client.smembers(names.rq_worker_executions("w1")) == {job.member.encode()}
    for key in (names.rq_execution(id_, job.execution), names.rq_executions(id_), names.rq_worker_executions("w1")):
        assert client.ttl(key) == -1


def test_times_are_written_as_rq_writes_them(region_redis):
    client = region_redis.client
    days = {0: "1970-01-01", 951782400: "2000-02-29", 1709164800: "2024-02-29", 1732421640: "2024-11-24",
            4107542399: "2100-02-28", 4107542400: "2100-03-01"}  # fmt: skip
    for at, day in days.items():
        at_text = script.compose(f"-- Does.\n-- uses: iso\nseconds, micros = {at}, 123\nreturn iso()")
        found = at_text.call(client).decode()
        assert found == time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + ".000123Z"
        assert found.startswith(day)


@pytest.mark.parametrize("added_ms", [0, 1, 999, 1_500, 3_600_999, -1, -1_999, -3_600_000])
def test_the_regions_time_is_its_rediss_and_what_is_added(region_redis, added_ms):
    client = region_redis.client
    client.set(names.CLOCK, added_ms)
    asked = script.compose('-- Does.\nreturn {string.format("%.0f", now_ms), seconds, micros, now, own_ms(now_ms)}')
    before_ms = connect.redis_now_ms(client)
    for _ in range(20):
        now_ms, seconds, micros, now, own_ms = client.eval(asked.text, 0)
        assert before_ms <= int(own_ms) <= connect.redis_now_ms(client)
        assert int(now_ms) == int(own_ms) + added_ms == seconds * 1000 + micros // 1000
        assert 0 <= micros < 1_000_000
        assert now.decode() == f"{seconds}.{micros:06}"


def test_a_job_past_its_deadline_is_dropped_without_an_execution(region_redis):
    client = region_redis.client
    late, good = enqueue(client, [task(deadline_seconds=-1), task()])
    claimed = claimer(region_redis.url).claim(5)
    assert [job.task for job in claimed.jobs] == [good]
    assert fetch(client, late).get_status() == JobStatus.CANCELED
    assert CanceledJobRegistry(REGION, connection=client).get_job_ids() == [late]
    assert 290 < client.ttl(names.rq_job(late)) <= 300
    assert {member.split(":")[0] for member in wip(client)} == {good}


def test_a_cancelled_job_is_dropped_and_a_lost_one_skipped(region_redis):
    client = region_redis.client
    cancelled, lost, good = enqueue(client, [task(), task(), task()])
    client.set(names.cancel_mark(cancelled), 1, px=60_000)
    client.delete(names.rq_job(lost))
    claimed = claimer(region_redis.url).claim(1)
    assert [job.task for job in claimed.jobs] == [good]
    assert fetch(client, cancelled).get_status() == JobStatus.CANCELED
    assert client.exists(names.rq_job(lost)) == 0


def test_nothing_is_claimed_while_suspended_and_the_lease_is_still_renewed(region_redis):
    client = region_redis.client
    ids = enqueue(client, [task()])
    worker = claimer(region_redis.url)
    rq.suspension.suspend(client)
    claimed = worker.claim(1)
    assert (claimed.refusal, claimed.jobs) == ("suspended", [])
    assert client.hget(names.rq_worker("w1"), "state") == b"suspended"
    until(lambda: worker.claim(1) and 0 < client.pttl(names.lease("w1")) <= script.LEASE_MS, "the lease to be renewed")
    rq.suspension.resume(client)
    assert [job.task for job in worker.claim(1).jobs] == ids


def test_nothing_is_claimed_while_the_outbox_is_past_its_cap(region_redis):
    client = region_redis.client
    enqueue(client, [task()])
    client.set(names.OUTBOX_BYTES, script.OUTBOX_MAX_BYTES)
    assert claimer(region_redis.url).claim(1).refusal == "outbox full"
    client.set(names.OUTBOX_BYTES, script.OUTBOX_MAX_BYTES - 1)
    assert len(claimer(region_redis.url).claim(1).jobs) == 1


def test_a_worker_that_rq_does_not_know_claims_nothing_and_leaves_no_ghost(region_redis):
    client = region_redis.client
    enqueue(client, [task()])
    claimed = claimer(region_redis.url, register=False).claim(1)
    assert (claimed.refusal, claimed.jobs) == ("unregistered", [])
    assert client.exists(names.rq_worker("w1")) == 0
    client.hset(names.rq_worker("w1"), mapping={"birth": "x", "death": "y"})
    assert claimer(region_redis.url, register=False).claim(1).refusal == "unregistered"


def test_a_claim_says_when_the_lease_had_lapsed(region_redis):
    worker = claimer(region_redis.url)
    assert worker.claim(0).lapsed
    region_redis.client.pexpire(names.lease("w1"), 600_000)
    assert not worker.claim(0).lapsed
    region_redis.client.delete(names.lease("w1"))
    assert worker.claim(0).lapsed


def test_a_waiting_claim_takes_a_job_as_soon_as_it_comes_and_ends_without_one(region_redis):
    worker = claimer(region_redis.url)
    waited = worker.claim(1, wait_seconds=0.05)
    assert (waited.jobs, waited.refusal) == ([], "")
    ids = enqueue(region_redis.client, [task(), task()])
    assert [job.task for job in worker.claim(2, wait_seconds=1.0).jobs] == ids


def test_scripts_survive_a_restart_of_their_redis(region_redis):
    worker = claimer(region_redis.url)
    worker.claim(0)
    region_redis.client.script_flush()
    (id_,) = enqueue(region_redis.client, [task()])
    (job,) = worker.claim(1).jobs
    region_redis.client.script_flush()
    entries, claimed = worker.finish([end(job)], then_claim=1)
    assert entries[0]
    assert claimed is not None
    assert job.task == id_


@contextmanager
def waiting(client, worker):
    """Another thread of the worker waits for a job, until the end of the block brings one."""
    thread = threading.Thread(target=worker.claim, args=(2,), kwargs={"wait_seconds": WAIT_SECONDS})
    thread.start()
    until(lambda: client.info("clients")["blocked_clients"] == 1, "the wait")
    yield
    enqueue(client, [task()])
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


def test_an_end_claims_nothing_while_another_thread_waits_for_a_job(region_redis):
    client, worker = region_redis.client, claimer(region_redis.url, block_seconds=WAIT_SECONDS)
    enqueue(client, [task()])
    (job,) = worker.claim(2).jobs
    client.script_load(FINISH.text)
    with waiting(client, worker):
        before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        entries, claimed = worker.finish([end(job)], then_claim=2)
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] - before == 1
    assert entries[0]
    assert claimed is None


def test_an_end_claims_where_the_last_claim_took_as_many_as_it_might(region_redis):
    client, worker = region_redis.client, claimer(region_redis.url, block_seconds=WAIT_SECONDS)
    enqueue(client, [task()])
    (job,) = worker.claim(1).jobs
    with waiting(client, worker):
        _, claimed = worker.finish([end(job)], then_claim=2)
    assert claimed is not None


def test_an_end_claims_what_waits_for_its_host_while_another_thread_waits_for_a_job(region_redis):
    client, worker = region_redis.client, claimer(region_redis.url, block_seconds=WAIT_SECONDS)
    ids = enqueue(client, [task(), task()])
    tell_limits(client, {"https://example.com:443": "1 0"})
    (job,) = worker.claim(2).jobs
    with waiting(client, worker):
        _, claimed = worker.finish([end(job)], then_claim=1)
        assert [job.task for job in claimed.jobs] == ids[1:]


def test_a_finished_job_is_finished_everywhere_and_its_outcome_is_in_the_outbox(region_redis):
    client = region_redis.client
    one = task()
    enqueue(client, [one])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    finished = end(job)
    (entry,), _ = worker.finish([finished], then_claim=0)
    seen = fetch(client, one.task)
    assert seen.get_status() == JobStatus.FINISHED
    assert seen.ended_at >= seen.started_at
    assert seen.func_name == names.JOB_FUNCTION
    assert one.request in seen.description
    assert FinishedJobRegistry(REGION, connection=client).get_job_ids() == [one.task]
    assert 290 < client.ttl(names.rq_job(one.task)) - (one.deadline_ms / 1000 - time.time()) <= 301
    assert (wip(client), client.keys("rq:execution*"), client.keys("*:executions")) == (set(), [], [])
    ((found, fields),) = client.xrange(names.OUTBOX)
    assert found.decode() == entry
    assert fields == {
        b"q": one.request.encode(), b"t": one.task.encode(), b"s": b"succeeded", b"b": b"700",
        b"f": str(finished[1].outcome.finished_ms).encode(), b"x": str(finished[1].outcome.expires_ms).encode(),
        b"r": finished[1].outcome.frame, b"h": finished[1].outcome.trail,
    }  # fmt: skip
    assert int(client.get(names.OUTBOX_BYTES)) == len(finished[1].outcome.frame)
    assert client.hgetall(names.COUNTERS) == {
        b"succeeded": b"1", b"raw": b"1000", b"records": b"100", b"wire": str(len(finished[1].outcome.frame)).encode()
    }  # fmt: skip
    assert client.hget(names.rq_worker("w1"), "successful_job_count") == b"1"


def test_rq_shows_the_traceback_of_a_failed_job(region_redis):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    worker.finish([end(job, status="failed", traceback="Traceback: it broke — so")], then_claim=0)
    seen = fetch(client, id_)
    assert seen.get_status() == JobStatus.FAILED
    assert FailedJobRegistry(REGION, connection=client).get_job_ids() == [id_]
    result = seen.latest_result()
    assert result.type == RqResult.Type.FAILED
    assert result.exc_string == "Traceback: it broke — so"
    assert (result.worker_name, result.execution_id) == ("w1", job.execution)
    assert 290 < client.ttl(names.rq_results(id_)) <= 331
    assert client.hget(names.rq_worker("w1"), "failed_job_count") == b"1"
    assert client.hget(names.COUNTERS, "failed") == b"1"


def test_rq_shows_a_job_that_was_stopped_as_such(region_redis):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    job.is_stopped = True
    worker.finish([end(job, status="failed", traceback="it was stopped")], then_claim=0)
    seen = fetch(client, id_)
    assert seen.get_status() == JobStatus.STOPPED
    assert seen.latest_result().type == RqResult.Type.STOPPED


def test_rq_shows_how_long_a_worker_worked(region_redis):
    client = region_redis.client
    enqueue(client, [task(), task()])
    worker = claimer(region_redis.url)
    began = time.monotonic()
    jobs = worker.claim(2).jobs
    for number, job in enumerate(jobs, 1):
        worker.finish([end(job)], then_claim=0)
        worked = float(client.hget(names.rq_worker("w1"), "total_working_time"))
        assert 0 < worked <= number * (time.monotonic() - began)


def test_an_outcome_is_kept_also_where_the_outbox_is_ahead_of_the_clock(region_redis):
    """Another Redis was the master before, whose clock went before: an entry's id never goes back."""
    client = region_redis.client
    ahead_ms = int(time.time() * 1000) + 60_000
    client.xadd(names.OUTBOX, {"x": 1}, id=f"{ahead_ms}-0")
    enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (entry,), _ = worker.finish([end(worker.claim(1).jobs[0])], then_claim=0)
    assert entry == f"{ahead_ms}-1"


def test_a_finished_record_is_kept_small(region_redis):
    client = region_redis.client
    (id_,) = enqueue(client, [task(q="abc")])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    before = client.memory_usage(names.rq_job(id_))
    worker.finish([end(job)], then_claim=0)
    assert client.memory_usage(names.rq_job(id_)) < before
    assert client.keys(names.rq_results("*")) == []


def test_of_many_ended_jobs_the_latest_keep_their_records_and_all_are_enqueued_once(region_redis):
    """A region's memory must not fill with what has ended: it would take nothing more (bridge.watch)."""
    client, each = region_redis.client, 50
    client.hset(names.LIMITS, "test.source", "1024 0")
    worker, enqueuer = (
        claimer(region_redis.url),
        Enqueuer(connect.open_redis(region_redis.url, name="bridge", block_seconds=30.0), REGION),
    )
    enqueuer.open()

    def deliver(*tasks):
        enqueuer.write(tasks, offset_ms=0, now_ms=int(time.time() * 1000))

    for state, status, registry in (
        ("succeeded", "finished", FinishedJobRegistry),
        ("failed", "failed", FailedJobRegistry),
    ):
        tasks = [task(deadline_seconds=100 + number, number=number) for number in range(script.LATEST_MAX + 2 * each)]
        for some in (tasks[at : at + each] for at in range(0, len(tasks), each)):
            deliver(*some)
            ends = [end(job, status=state, traceback="why") for job in worker.claim(each).jobs]
            assert len(worker.finish(ends, then_claim=0)[0]) == each
        kept = registry(REGION, connection=client).get_job_ids(cleanup=False)
        assert kept == [one.task for one in tasks][-script.LATEST_MAX :]
        assert fetch(client, kept[0]).get_status() == status
        oldest, job = tasks[0], names.rq_job(tasks[0].task)
        assert fetch(client, oldest.task).get_status() == status
        assert 0 <= oldest.deadline_ms + script.KEEP_MS - client.pexpiretime(job) < 20_000
        assert client.memory_usage(job) < 250
        assert [client.exists(names.rq_results(id_)) for id_ in (oldest.task, kept[0])] == [0, status == "failed"]
        deliver(oldest, tasks[-1])
        assert (queue(client).count, worker.claim(1).jobs) == (0, [])
    enqueuer.close()


def test_of_many_jobs_that_operators_cancelled_none_is_kept_for_ever(region_redis):
    """RQ's own cancel gives a record no expiry."""
    client = region_redis.client
    (first,) = enqueue(client, [task()])
    fetch(client, first).cancel()
    assert client.ttl(names.rq_job(first)) == -1
    client.zadd(
        names.rq_registry("canceled", REGION),
        {f"another-{number}": time.time() + number for number in range(script.LATEST_MAX)},
    )
    enqueue(client, [task(deadline_seconds=-1)])
    assert claimer(region_redis.url).claim(1).jobs == []
    assert first not in CanceledJobRegistry(REGION, connection=client).get_job_ids()
    assert fetch(client, first).get_status() == JobStatus.CANCELED
    assert 0 < client.pttl(names.rq_job(first)) <= script.KEEP_MS


def test_what_rq_would_keep_for_ever_is_not_kept(region_redis):
    """Its registries say so by a score without an end."""
    client = region_redis.client
    (first,) = enqueue(client, [task()])
    fetch(client, first).cancel()
    ended = {first: math.inf, **{f"~{number}": math.inf for number in range(script.LATEST_MAX)}}
    client.zadd(names.rq_registry("canceled", REGION), ended)
    enqueue(client, [task(deadline_seconds=-1)])
    assert claimer(region_redis.url).claim(1).jobs == []
    assert 0 < client.pttl(names.rq_job(first)) <= script.KEEP_MS


def test_finish_does_nothing_when_the_execution_is_gone(region_redis):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    worker, other = claimer(region_redis.url), claimer(region_redis.url, "w2")
    (job,) = worker.claim(1).jobs
    assert worker.give_back([job.member]) == 1
    assert worker.finish([end(job)], then_claim=0)[0] == [""]
    assert fetch(client, id_).get_status() == JobStatus.QUEUED
    (again,) = other.claim(1).jobs
    assert (again.task, again.attempt) == (id_, 2)
    assert worker.finish([end(job)], then_claim=0)[0] == [""]
    assert fetch(client, id_).get_status() == JobStatus.STARTED
    assert client.xlen(names.OUTBOX) == 0
    assert other.finish([end(again)], then_claim=0)[0] != [""]
    assert worker.give_back([job.member, again.member]) == 0
    assert worker.finish([end(job)], then_claim=0)[0] == [""]
    assert fetch(client, id_).get_status() == JobStatus.FINISHED
    assert (client.xlen(names.OUTBOX), queue(client).get_job_ids()) == (1, [])


def test_a_job_is_finished_also_if_the_record_of_its_execution_is_gone(region_redis):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    client.delete(names.rq_execution(id_, job.execution))
    assert worker.finish([end(job)], then_claim=0)[0] != [""]
    assert (fetch(client, id_).get_status(), wip(client)) == (JobStatus.FINISHED, set())


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_a_job_without_a_deadline_ends_too_and_is_kept_from_its_end_on(region_redis, status):
    """RQ's tools, or an operator, may have written its record."""
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    client.hdel(names.rq_job(id_), names.JOB_DEADLINE)
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    assert worker.finish([end(job, status=status)], then_claim=0)[0] != [""]
    assert script.KEEP_MS - 60_000 < client.pttl(names.rq_job(id_)) <= script.KEEP_MS
    assert client.xlen(names.OUTBOX) == 1


def test_an_end_makes_no_worker_that_rq_does_not_know(region_redis):
    client = region_redis.client
    enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    client.delete(names.rq_worker("w1"))  # it was taken for dead, and goes on
    assert worker.finish([end(job)], then_claim=0)[0] != [""]
    assert client.exists(names.rq_worker("w1")) == 0


def test_what_is_no_execution_any_more_leaves_its_workers_list_when_it_is_given_back(region_redis):
    client, held = region_redis.client, names.rq_worker_executions("w1")
    client.sadd(held, "gone:e", "odd")
    assert claimer(region_redis.url).give_back(["gone:e", "odd"]) == 0
    assert client.exists(held) == 0


@pytest.mark.parametrize("kind", ["normal", "urgent", "alone"])
def test_a_worker_that_leaves_is_known_no_more_and_another_kinds_lease_stays(region_redis, kind):
    client = region_redis.client
    urgent = claimer(region_redis.url, "other", kind="urgent")
    worker = claimer(region_redis.url, kind=kind)
    for one in (worker, urgent):
        one.claim(0)
    for lease in (names.lease("other"), names.URGENT_LEASE):
        client.pexpire(lease, 600_000)
    worker.leave()
    assert client.zrange(names.WORKERS, 0, -1) == [b"other"]
    assert not client.exists(names.lease("w1"), names.ALONE)
    assert client.exists(names.lease("other"))
    assert client.exists(names.URGENT_LEASE) == (kind != "urgent")


def test_a_worker_that_can_not_leave_says_so(region_redis):
    region_redis.client.set(names.ALONE, "none of ours")
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        claimer(region_redis.url).leave()


def test_finishing_twice_is_finishing_once(region_redis):
    client = region_redis.client
    enqueue(client, [task(), task()])
    worker = claimer(region_redis.url)
    first, second = worker.claim(2).jobs
    assert all(worker.finish([end(first)], then_claim=0)[0])
    entries, _ = worker.finish([end(first), end(second)], then_claim=0)
    assert (bool(entries[0]), bool(entries[1])) == (False, True)
    assert client.xlen(names.OUTBOX) == 2
    assert client.hget(names.COUNTERS, "succeeded") == b"2"


def test_a_finish_claims_what_it_freed_in_the_same_write(region_redis):
    ids = enqueue(region_redis.client, [task() for _ in range(4)])
    worker = claimer(region_redis.url)
    jobs = worker.claim(2).jobs
    _, claimed = worker.finish([end(job) for job in jobs], then_claim=2)
    assert [job.task for job in claimed.jobs] == ids[2:]


def test_what_is_given_back_is_first_in_the_queue(region_redis):
    ids = enqueue(region_redis.client, [task() for _ in range(3)])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    worker.give_back([job.member])
    assert queue(region_redis.client).get_job_ids() == ids
    assert fetch(region_redis.client, ids[0]).get_status() == JobStatus.QUEUED
    assert (wip(region_redis.client), worker.look([])[1]) == (set(), set())


def test_a_full_redis_drains(start_redis):
    redis = start_redis("region", maxmemory="20mb")
    client = redis.client
    ids = enqueue(client, [task() for _ in range(3)])
    worker = claimer(redis.url)
    client.config_set("maxmemory", 1)
    claimed = worker.claim(5, wait_seconds=1.0)
    assert [job.task for job in claimed.jobs] == ids
    assert all(worker.finish([end(job) for job in claimed.jobs], then_claim=1)[0])
    assert worker.claim(1, wait_seconds=1.0).refusal == "no wait"


def test_a_claim_drops_at_most_a_thousand_late_jobs_at_once(region_redis):
    client = region_redis.client
    for _ in range(2):
        enqueue(client, [task(deadline_seconds=-1) for _ in range(600)])
    worker = claimer(region_redis.url)
    assert (worker.claim(1).jobs, queue(client).count) == ([], 200)


def test_a_claim_passes_over_a_thousand_lost_or_waiting_ones_at_once(region_redis):
    """However many there are, its Redis serves others in between."""
    client = region_redis.client
    client.rpush(names.rq_queue(REGION), *[f"lost-{number}" for number in range(1_200)])
    worker = claimer(region_redis.url)
    assert (worker.claim(1).jobs, client.llen(names.rq_queue(REGION))) == ([], 200)
    client.delete(names.rq_queue(REGION))
    enqueue(client, [task(same=1) for _ in range(1_201)], has_keys=True)
    assert len(worker.claim(2).jobs) == 1
    assert client.llen(names.rq_queue(REGION)) == 200


def test_a_look_sees_cancel_marks_and_what_the_region_holds(region_redis):
    client = region_redis.client
    enqueue(client, [task(), task()])
    worker = claimer(region_redis.url)
    first, second = worker.claim(2).jobs
    client.set(names.cancel_mark(second.task), 1, px=60_000)
    assert worker.look([first.task, second.task]) == ({second.task}, {first.member, second.member})
    found = worker.look_around([first.task, second.task])
    assert found == Look({second.task}, {first.member, second.member}, [], has_left=False, due_ms=math.inf)
    worker.finish([end(first)], then_claim=0)
    client.zadd(names.rq_registry("scheduled", REGION), {second.task: time.time() + 3_600})
    found = worker.look_around([])
    assert (found.held, found.has_left) == ({second.member}, True)
    assert 3_500_000 < found.due_ms < 3_700_000


def test_a_claim_that_waits_looks_around_in_the_same_write(region_redis):
    client, worker = region_redis.client, claimer(region_redis.url, block_seconds=30.0)
    enqueue(client, [task(), task()])
    (first,) = worker.claim(1).jobs
    worker.claim(0, wait_seconds=0.01, looks=True)  # it connects, and loads the scripts
    client.zadd(names.rq_registry("scheduled", REGION), {first.task: time.time() + 3_600})
    before = client.info("stats")["total_reads_processed"]
    claimed = worker.claim(1, wait_seconds=1.0, looks=True)
    found = worker.look_around([first.task], claimed.looked)
    assert client.info("stats")["total_reads_processed"] - before == 2, "the claim, and this question"
    (second,) = claimed.jobs
    assert (found.cancelled, found.held) == (set(), {first.member, second.member})
    assert 3_500_000 < found.due_ms < 3_700_000


def test_a_claim_whose_look_fails_brings_its_jobs_all_the_same(region_redis):
    client, worker = region_redis.client, claimer(region_redis.url, block_seconds=30.0)
    enqueue(client, [task()])
    client.set(names.OUTBOX, "no stream")
    claimed = worker.claim(1, wait_seconds=1.0, looks=True)
    assert len(claimed.jobs) == 1
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        worker.look_around([], claimed.looked)


def test_a_look_does_not_read_what_waits(region_redis):
    """Tens of thousands may, and each process looks once a second."""
    client, worker = region_redis.client, claimer(region_redis.url)
    client.zadd(names.rq_registry("scheduled", REGION), {f"task-{number}": time.time() + 60 for number in range(5_000)})
    assert worker.look_around([]).due_ms < 61_000  # its script is loaded, too
    before = client.info("stats")["total_net_output_bytes"]
    worker.look_around([])
    assert client.info("stats")["total_net_output_bytes"] - before < 20_000  # an INFO takes most of it


def test_the_attempts_of_a_task_are_told_by_the_hubs_clock():
    """Their times are noted by the region's."""
    past = line(Attempt(1, 1_000, 2_000, "w1", "connection", "it broke"))
    job = Job("T", "E", 2, b"", "R", "a", past, 0, deadline_ms=0, bridged_ms=99, claimed_ms=3_000, offset_ms=500)
    trail = msgspec.json.decode(job.trail("w2", 9_000), type=Trail)
    assert [(one.started_ms, one.ended_ms) for one in trail.attempts] == [(1_500, 2_500), (3_500, 9_000)]
    assert [(one.attempt, one.worker, one.error) for one in trail.attempts] == [(1, "w1", "connection"), (2, "w2", "")]
    assert trail.bridged_ms == 99
    assert trail.attempts[-1].message == ""
    told = structs.replace(job, leader="T9").trail("w2")
    last = msgspec.json.decode(told, type=Trail).attempts[-1]
    assert (last.ended_ms, last.message) == (0, "its answer is that of T9, which asked the same"), "it runs"


def test_a_job_of_unknown_form_is_claimed_with_what_its_hash_says(region_redis):
    enqueue_raw(region_redis.client, "01JX", b"nonsense", "01JR")
    (job,) = claimer(region_redis.url).claim(1).jobs
    assert (job.task, job.request, job.source) == ("01JX", "01JR", "a")


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_finishing_a_job_whose_record_an_operator_deleted_still_sends_its_outcome(region_redis, status):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    client.delete(names.rq_job(id_))
    assert all(worker.finish([end(job, status=status)], then_claim=0)[0])
    assert (client.exists(names.rq_job(id_)), wip(client)) == (0, set())
