"""The one transaction on RQ, against a real Redis and RQ's own readers."""

import json
import zlib
from datetime import UTC, datetime

import pytest
import redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import utcformat

from bridge import enqueue
from bridge.enqueue import Enqueuer, job_fields
from bridge.link import Link
from jobs import contract
from regions import connect, names
from tests.service.bridging import now_ms, task
from tests.waiting import until

OFFSET_MS = -250


@pytest.fixture
def enqueuer(region_redis):
    client = connect.open_redis(region_redis.url, name="test-bridge")
    one = Enqueuer(client, "fra")
    one.open()
    yield one
    one.close()
    client.close()


def write(enqueuer: Enqueuer, *messages):
    return enqueuer.write(messages, offset_ms=OFFSET_MS, now_ms=now_ms())


def rqs_own(one: contract.Task, created: datetime, seconds: int) -> dict:
    """What RQ would write for the same job."""
    job = Job.create(
        names.JOB_FUNCTION,
        args=[json.loads(contract.encode(one)), OFFSET_MS],
        kwargs={},
        id=one.task,
        origin=one.region,
        connection=redis.Redis(),
        serializer=JSONSerializer,
        status="queued",
        timeout=seconds,
        result_ttl=seconds + 300,
        failure_ttl=seconds + 300,
        description=enqueue.description(one),
    )
    job.created_at = job.enqueued_at = created
    return job.to_dict()


def test_a_job_is_field_by_field_what_rq_writes_but_what_is_empty() -> None:
    one = task("fra", params={"q": "Zürich", "n": 5, "deep": {"a": [1, None, 2.5]}})
    created = datetime(2026, 11, 24, 4, 14, tzinfo=UTC)
    fields = job_fields(one, contract.key_of(one), OFFSET_MS, utcformat(created), one.deadline_ms - 29_001)
    ours = dict(zip(fields[::2], fields[1::2], strict=True))
    theirs = rqs_own(one, created, 30)
    own = {
        names.JOB_DEADLINE: one.deadline_ms - OFFSET_MS,
        names.JOB_REQUEST: one.request,
        names.JOB_SOURCE: one.source,
        names.JOB_HOST: one.host,
        names.JOB_BRIDGED: one.deadline_ms - 29_001,
        names.JOB_KEY: contract.key_of(one),
    }
    assert {name: ours.pop(name) for name in own} == own
    assert json.loads(zlib.decompress(ours.pop("data"))) == json.loads(zlib.decompress(theirs.pop("data")))
    assert ours == {name: value for name, value in theirs.items() if value not in (None, "")}


def test_rq_reads_what_was_enqueued(enqueuer: Enqueuer, region_redis) -> None:
    one = task("fra")
    assert write(enqueuer, one).ready == 1
    (queue,) = Queue.all(connection=region_redis.client, serializer=JSONSerializer)
    (job,) = queue.jobs
    assert (queue.name, job.id, job.get_status().value) == ("fra", one.task, "queued")
    assert job.func_name == names.JOB_FUNCTION
    assert job.args == [json.loads(contract.encode(one)), OFFSET_MS]
    assert job.description == f'ecb.rates {{"day":"2026-11-24","n":0}}  request {one.request}'
    assert job.ttl is None
    assert region_redis.client.ttl(names.rq_job(one.task)) == -1


def test_enqueueing_twice_is_enqueueing_once(enqueuer: Enqueuer, region_redis) -> None:
    one, other = task("fra", 1), task("fra", 2)
    assert write(enqueuer, one, one, other).refusals == [None] * 3
    assert write(enqueuer, other, one).ready == 2
    assert region_redis.client.lrange(names.rq_queue("fra"), 0, -1) == [one.task.encode(), other.task.encode()]


def test_a_job_that_runs_or_is_finished_is_not_enqueued_again(enqueuer: Enqueuer, region_redis) -> None:
    one = task("fra")
    write(enqueuer, one)
    region_redis.client.lpop(names.rq_queue("fra"))
    region_redis.client.hset(names.rq_job(one.task), "status", "finished")
    assert write(enqueuer, one).ready == 0
    assert region_redis.client.hget(names.rq_job(one.task), "status") == b"finished"


def test_synchronous_tasks_go_to_the_front(enqueuer: Enqueuer, region_redis) -> None:
    bulk, sync = task("fra", 1), task("fra", 2, sync=True)
    write(enqueuer, bulk, sync)
    assert region_redis.client.lrange(names.rq_queue("fra"), 0, -1) == [sync.task.encode(), bulk.task.encode()]


def test_a_cancel_marks_its_task_until_the_deadline(enqueuer: Enqueuer, region_redis) -> None:
    """However far the clock of the region's Redis is from the hub's."""
    deadline_ms = now_ms() + 60_000
    write(enqueuer, contract.Cancel(task="01TASK", request="01REQUEST", deadline_ms=deadline_ms))
    mark = names.cancel_mark("01TASK")
    assert region_redis.client.exists(mark)
    assert 30_000 < region_redis.client.pttl(mark) <= 60_000


def test_a_flushed_script_is_loaded_again(enqueuer: Enqueuer, region_redis) -> None:
    region_redis.client.script_flush()
    assert write(enqueuer, task("fra", 1), task("fra", 2)).ready == 2
    assert region_redis.client.llen(names.rq_queue("fra")) == 2


def test_a_full_redis_refuses_the_batch_and_keeps_no_half_of_a_job(enqueuer: Enqueuer, region_redis) -> None:
    region_redis.client.config_set("maxmemory", 1)
    refusals = write(enqueuer, task("fra", 1), task("fra", 2)).refusals
    region_redis.client.config_set("maxmemory", 0)
    assert all(isinstance(refusal, redis.exceptions.ResponseError) for refusal in refusals)
    assert region_redis.client.keys("rq:*") == []
    assert write(enqueuer, task("fra", 1), task("fra", 2)).ready == 2


def test_a_frozen_redis_is_an_error_after_the_time_out_and_closes_the_connection(
    enqueuer: Enqueuer, region_redis
) -> None:
    region_redis.running.signal(19)
    try:
        with pytest.raises(connect.AWAY):
            write(enqueuer, task("fra"))
    finally:
        region_redis.running.signal(18)
    assert not enqueuer.is_open
    with pytest.raises(redis.exceptions.ConnectionError):
        write(enqueuer, task("fra"))
    until(lambda: region_redis.client.llen(names.rq_queue("fra")) == 1, "the write to be done after all")
    enqueuer.open()
    assert write(enqueuer, task("fra")).ready == 1


def test_a_link_never_reconnects(region_redis) -> None:
    client = connect.open_redis(region_redis.url, name="test-link")
    link = Link(client)
    assert link.one("PING") == b"PONG"
    region_redis.client.client_kill_filter(_type="normal", skipme=True)
    for _ in range(2):
        with pytest.raises(redis.exceptions.ConnectionError):
            link.one("PING")
    client.close()


def test_long_params_do_not_make_long_descriptions() -> None:
    assert len(enqueue.description(task("fra", params={"q": "x" * 10_000}))) < 1_200
