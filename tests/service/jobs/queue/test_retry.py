"""Retries on a real Redis: where a failed attempt waits, and how it comes back."""

import time

import msgspec
import pytest
from rq.job import JobStatus
from rq.registry import FailedJobRegistry, ScheduledJobRegistry

from jobs import contract, result_frame
from jobs.errors import ConnectionFailed
from jobs.queue import waits as waiting
from jobs.queue.reaper import Reaper
from jobs.queue.retry import Attempt, Retry, line, read_past
from jobs.queue.script import LATER
from jobs.queue.turn import tell_limits
from jobs.queue.waits import waits
from regions import connect, names
from tests.service.jobs.queue.test_claim import changed, end, fetch, queue, wip
from tests.service.working import REGION, claimer, enqueue, pass_deadline, task


def again(job, wait_seconds=0.0, *, is_urgent=False):
    """The end of an attempt that is tried again."""
    result = contract.Result(task=job.task, source=job.source, region=REGION, status="failed", attempts=job.attempt)
    frame = result_frame.failed(result, ConnectionFailed("it broke"))
    failed = end(job, status="failed", frame=frame, traceback="Traceback: it broke")
    return changed(failed, retry=Retry(wait_seconds, "connection", "it broke"), is_urgent=is_urgent)


def scheduled(client):
    return ScheduledJobRegistry(REGION, connection=client).get_job_ids(cleanup=False)


def test_a_failed_attempt_waits_in_rqs_scheduled_registry(region_redis):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    assert worker.finish([again(job, 20)], then_claim=0)[0] == [LATER]
    seen = fetch(client, id_)
    assert (seen.get_status(), seen.worker_name) == (JobStatus.SCHEDULED, None)
    assert scheduled(client) == [id_]
    due = ScheduledJobRegistry(REGION, connection=client).get_scheduled_time(id_).timestamp()
    assert 0 < due - time.time() <= 20
    assert (wip(client), worker.look([])[1], client.keys("rq:execution*")) == (set(), set(), [])
    assert (FailedJobRegistry(REGION, connection=client).count, client.xlen(names.OUTBOX)) == (0, 0)
    assert client.exists(names.COUNTERS) == 0
    assert worker.move_due() == []
    assert (scheduled(client), queue(client).get_job_ids()) == ([id_], [])


def test_a_failed_attempt_is_dated_by_its_regions_clock(region_redis):
    client = region_redis.client
    enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    job.offset_ms = 3_600_000  # the hub is ahead
    failed = again(job)
    worker.finish([failed], then_claim=0)
    worker.move_due()
    (second,) = worker.claim(1).jobs
    (past,) = read_past(second.past)
    assert past.ended_ms == failed[1].outcome.finished_ms - 3_600_000


def test_a_due_one_goes_back_to_the_queue_once_and_remembers(region_redis):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    worker.finish([again(job)], then_claim=0)
    worker.move_due()
    claimer(region_redis.url, "w2").move_due()
    assert (scheduled(client), queue(client).get_job_ids()) == ([], [id_])
    assert not client.hget(names.rq_job(id_), names.JOB_JOINED), "it waits with no other task"
    (second,) = worker.claim(1).jobs
    (past,) = read_past(second.past)
    assert past == Attempt(1, job.claimed_ms, past.ended_ms, "w1", "connection", "it broke")
    assert past.ended_ms >= past.started_ms - 5
    assert (second.attempt, second.failures) == (2, 1)
    assert worker.finish([end(second)], then_claim=0)[0] not in ([""], [LATER])
    assert fetch(client, id_).get_status() == JobStatus.FINISHED
    assert (client.zcard(names.RETRIED), client.hexists(names.rq_job(id_), names.JOB_KEPT)) == (0, False)
    assert read_past(client.hget(names.rq_job(id_), names.JOB_PAST)) == [past]


def test_a_synchronous_task_goes_back_to_the_front(region_redis):
    client = region_redis.client
    ids = enqueue(client, [task(), task(), task()])
    worker = claimer(region_redis.url)
    bulk, urgent = worker.claim(2).jobs
    worker.finish([again(bulk), again(urgent, is_urgent=True)], then_claim=0)
    worker.move_due()
    assert queue(client).get_job_ids() == [ids[1], ids[2], ids[0]]


def test_who_was_reaped_puts_nothing_off(region_redis):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    worker.give_back([job.member])
    assert worker.finish([again(job)], then_claim=0)[0] == [""]
    assert (scheduled(client), fetch(client, id_).get_status()) == ([], JobStatus.QUEUED)


def test_putting_off_twice_is_putting_off_once(region_redis):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    ends = [again(job, 5)]
    assert [worker.finish(ends, then_claim=0)[0] for _ in range(2)] == [[LATER], [""]]
    assert len(client.hget(names.rq_job(id_), names.JOB_PAST).splitlines()) == 1


def test_ends_and_retries_are_told_apart_in_one_batch(region_redis):
    enqueue(region_redis.client, [task() for _ in range(4)])
    worker = claimer(region_redis.url)
    a, b, c = worker.claim(3).jobs
    worker.give_back([c.member])
    entries, claimed = worker.finish([again(a), end(b), end(c)], then_claim=1)
    assert entries[0] == LATER
    assert "-" in entries[1]
    assert entries[2] == ""
    assert len(claimed.jobs) == 1


def test_a_failure_whose_record_an_operator_deleted_is_an_end(region_redis):
    client = region_redis.client
    enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    client.delete(names.rq_job(job.task))
    (entry,) = worker.finish([again(job)], then_claim=0)[0]
    assert "-" in entry
    assert (scheduled(client), wip(client), client.exists(names.rq_job(job.task))) == ([], set(), 0)
    ((_, fields),) = client.xrange(names.OUTBOX)
    assert int(client.get(names.OUTBOX_BYTES)) == len(fields[b"r"])
    assert client.hget(names.COUNTERS, "failed") == b"1"


@pytest.mark.parametrize("where", ["scheduled", "queued"])
def test_what_is_not_tried_again_in_time_ends_as_it_failed(region_redis, where):
    """Its last real error is the result, not ``expired``, wherever its deadline meets it."""
    client = region_redis.client
    (id_, later) = enqueue(client, [task(), task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    failed = again(job, 60 if where == "scheduled" else 0)
    worker.finish([failed], then_claim=0)
    worker.move_due()
    pass_deadline(client, id_)
    ((entry, outcome, size),) = worker.move_due()
    assert (outcome, size) == (failed[1].outcome, failed[1].spliced_bytes)
    assert result_frame.head(outcome.frame).error.type == "connection"
    ((found, fields),) = client.xrange(names.OUTBOX)
    assert (found.decode(), fields[b"r"]) == (entry, failed[1].outcome.frame)
    seen = fetch(client, id_)
    assert seen.get_status() == JobStatus.FAILED
    assert seen.latest_result().exc_string == "Traceback: it broke"
    assert client.hget(names.COUNTERS, "failed") == b"1"
    assert (scheduled(client), client.zcard(names.RETRIED)) == ([], 0)
    assert [job.task for job in worker.claim(5).jobs] == [later]
    assert fetch(client, id_).get_status() == JobStatus.FAILED
    assert worker.move_due() == []


def test_a_late_retry_that_is_claimed_first_still_ends_as_it_failed(region_redis):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    worker.finish([again(job)], then_claim=0)
    worker.move_due()
    pass_deadline(client, id_)
    assert worker.claim(1).jobs == []
    assert len(worker.move_due()) == 1


def test_a_last_attempt_that_runs_past_its_deadline_ends_by_itself(region_redis):
    client = region_redis.client
    enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    worker.finish([again(job)], then_claim=0)
    worker.move_due()
    (second,) = worker.claim(1).jobs
    pass_deadline(client, job.task)
    assert worker.move_due() == []
    again_ms = client.zscore(names.RETRIED, job.task)  # many that run keep none from being looked at that does not
    assert second.claimed_ms + 1_000 <= again_ms <= connect.redis_now_ms(client) + 1_000
    assert worker.finish([end(second)], then_claim=0)[0][0]
    assert (client.xlen(names.OUTBOX), client.zcard(names.RETRIED)) == (1, 0)


def test_what_is_cancelled_while_it_waits_is_dropped_without_an_execution(region_redis):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    worker.finish([again(job)], then_claim=0)
    client.set(names.cancel_mark(id_), 1, px=60_000)
    worker.move_due()
    assert worker.claim(1).jobs == []
    assert fetch(client, id_).get_status() == JobStatus.CANCELED
    client.zadd(names.RETRIED, {id_: 1})
    assert (worker.move_due(), client.zcard(names.RETRIED), client.xlen(names.OUTBOX)) == ([], 0, 0)


def test_a_second_copy_of_an_id_in_the_queue_is_skipped(region_redis):
    """RQ's own scheduler, or an operator, may move a job at the same moment."""
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    client.rpush(names.rq_queue(REGION), id_)
    assert [job.task for job in claimer(region_redis.url).claim(5).jobs] == [id_]


def test_retries_work_on_a_full_redis(region_redis):
    client = region_redis.client
    enqueue(client, [task()])
    worker = claimer(region_redis.url)
    client.config_set("maxmemory", 1)
    (job,) = worker.claim(1).jobs
    assert worker.finish([again(job)], then_claim=0)[0] == [LATER]
    worker.move_due()
    assert worker.claim(1).jobs[0].attempt == 2


def test_what_waits_survives_a_kill_of_its_redis(region_redis):
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    worker.finish([again(job, 5)], then_claim=0)
    region_redis.crash()
    region_redis.running.start()
    assert scheduled(client) == [id_]


def test_a_kept_outcome_is_the_list_that_older_workers_read(region_redis):
    """Workers of a region are restarted one after the other: each ends what another one kept."""
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    _, failed = again(job, 20)
    worker.finish([(job, failed)], then_claim=0)
    kept = msgspec.msgpack.decode(client.hget(names.rq_job(id_), names.JOB_KEPT))
    assert (kept[0], kept[1], len(kept)) == (job.execution, "w1", 4)
    outcome, status, problem = failed.outcome, *kept[3][:2]
    assert (status, bool(problem)) == ("failed", True)
    assert kept[3][2:] == [
        outcome.request, "failed", str(outcome.finished_ms), str(outcome.expires_ms), str(failed.spliced_bytes), outcome.frame.decode(),
        "1000", "100", str(failed.wire_bytes), "", "-1", "", "",
    ]  # fmt: skip


def test_what_ends_as_it_failed_tells_of_a_later_attempt_that_was_lost(region_redis):
    """The kept outcome is of the first attempt; the second one's process died, and there was no time for a third."""
    client = region_redis.client
    (id_,) = enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    job.offset_ms = 3_600_000  # the hub is ahead
    job.turn_ms = 700
    failed = again(job)
    ended_ms = failed[1].outcome.finished_ms
    trail = job.trail("w1", ended_ms)
    worker.finish([changed(failed, outcome=msgspec.structs.replace(failed[1].outcome, trail=trail))], then_claim=0)
    worker.move_due()
    (second,) = claimer(region_redis.url, "w2").claim(1).jobs
    reaper = Reaper(client, REGION)
    reaper.died("w2", crashed=True)
    reaper.run_once()
    pass_deadline(client, id_)
    ((_, outcome, _),) = worker.move_due()
    first, lost = msgspec.json.decode(outcome.trail, type=contract.Trail).attempts
    assert first == Attempt(1, job.claimed_ms + 3_600_000, ended_ms, "w1", "connection", "it broke", 700)
    assert (lost.attempt, lost.worker, lost.error, lost.message) == (2, "w2", contract.LOST, "its process died")
    assert second.claimed_ms + 3_600_000 <= lost.started_ms + 1 <= lost.ended_ms + 1


def test_an_attempt_that_is_given_back_is_remembered_with_its_reason(region_redis):
    client = region_redis.client
    enqueue(client, [task()])
    worker = claimer(region_redis.url)
    (job,) = worker.claim(1).jobs
    assert worker.give_back([job.member], "it was told to end") == 1
    assert worker.give_back([job.member], "again") == 0
    (second,) = worker.claim(1).jobs
    (past,) = read_past(second.past)
    assert (past.attempt, past.worker, past.error, past.message) == (1, "w1", contract.PUT_BACK, "it was told to end")
    assert (second.attempt, second.failures) == (2, 0)


def test_what_waits_to_be_tried_again_is_told_with_its_reason(region_redis, monkeypatch):
    client = region_redis.client
    enqueue(client, [task(), task()])
    worker = claimer(region_redis.url)
    first, second = worker.claim(2).jobs
    failed = again(first, 20)
    worker.finish([failed], then_claim=0)
    hub_ms = connect.redis_now_ms(client) + 3_600_000  # the hub is ahead
    monkeypatch.setattr(waiting, "LEAST_MS", 60_000)
    assert waits(client, REGION, hub_ms) == [], "it has waited for a moment only"
    monkeypatch.setattr(waiting, "LEAST_MS", 0)
    (found,) = waits(client, REGION, hub_ms)
    assert (found.task, found.why) == (first.task, "to be tried again after connection")
    assert abs(found.since_ms - 3_600_000 - failed[1].outcome.finished_ms) < 60_000
    worker.finish([end(second)], then_claim=0)
    pass_deadline(client, first.task)
    worker.move_due()
    assert waits(client, REGION, hub_ms) == []


def test_what_waits_for_a_turn_or_for_anothers_answer_is_told_with_its_time(region_redis, monkeypatch):
    client = region_redis.client
    monkeypatch.setattr(waiting, "LEAST_MS", 0)
    tell_limits(client, {"https://example.com:443": "1 0"})
    turn = enqueue(client, [task(n=n) for n in range(3)])
    assert len(claimer(region_redis.url).claim(3).jobs) == 1
    hub_ms = connect.redis_now_ms(client) + 3_600_000  # the hub is ahead
    found = waits(client, REGION, hub_ms)
    assert {(one.task, one.why) for one in found} == {
        (id_, "for the turn of https://example.com:443") for id_ in turn[1:]
    }
    assert all(abs(hub_ms - one.since_ms) < 60_000 for one in found)
    client.hset(names.rq_job(turn[1]), "status", "queued")  # it was called a moment ago
    assert [one.task for one in waits(client, REGION, hub_ms)] == [turn[2]]
    client.hdel(names.rq_job(turn[2]), names.JOB_REQUEST)  # an older bridge's
    assert waits(client, REGION, hub_ms) == []
    client.flushall()
    first, second, third = enqueue(client, [task(same=1) for _ in range(3)], has_keys=True)
    assert [job.task for job in claimer(region_redis.url).claim(3).jobs] == [first]
    found = waits(client, REGION, hub_ms)
    assert {one.task for one in found} == {second, third}
    for one in found:
        assert one.why == "for the answer of another task that asks the same"
        assert one.since_ms == int(client.hget(names.rq_job(one.task), names.JOB_BRIDGED) or 0)
    monkeypatch.setattr(waiting, "TOLD_MAX", 1)
    assert len(waits(client, REGION, hub_ms)) == 1


def scheduled_one(client, **fields) -> None:
    """A job that waits, which says no more than these fields."""
    client.zadd(names.rq_registry("scheduled", REGION), {"T": 1})
    client.hset(names.rq_job("T"), mapping={"status": "scheduled", names.JOB_REQUEST: "R", **fields})


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({names.JOB_PAST: line(Attempt(1, 5, 9_000, "w1", contract.PUT_BACK, "x"))}, "to be claimed again"),
        ({names.JOB_PAST: line(Attempt(1, 5, 9_000, "w1", "timeout", "x"))}, "to be tried again after timeout"),
        ({names.JOB_SINCE: 9_000, names.JOB_HOST: "h" * 101}, "for the turn of " + "h" * 100),
        ({names.JOB_PAST: b"none of ours"}, None),
        ({}, None),
    ],
)
def test_the_reason_and_the_beginning_of_a_wait_are_what_its_job_says(region_redis, fields, why):
    client = region_redis.client
    scheduled_one(client, **fields)
    hub_ms = connect.redis_now_ms(client) + 3_600_000  # the hub is ahead
    found = waits(client, REGION, hub_ms)
    assert [one.why for one in found] == ([why] if why else [])
    assert all(abs(one.since_ms - 3_609_000) < 60_000 for one in found)
    assert [msgspec.json.decode(msgspec.json.encode(one))[::2] for one in found] == ([["T", why]] if why else [])


@pytest.mark.parametrize(("waited_ms", "is_told"), [(waiting.LEAST_MS - 1, False), (waiting.LEAST_MS, True)])
def test_who_has_just_begun_to_wait_is_not_told(region_redis, waited_ms, is_told):
    scheduled_one(region_redis.client, **{names.JOB_JOINED: "1", names.JOB_BRIDGED: 50_000})
    assert bool(waits(region_redis.client, REGION, 50_000 + waited_ms)) == is_told
