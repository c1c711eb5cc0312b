"""Writing jobs to a real Redis, read back by RQ."""

import json
import zlib
from datetime import UTC, datetime

import msgspec
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
    client = connect.open_redis(region_redis.url, name="test-bridge", block_seconds=30.0)
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
    queue, urgent = Queue.all(connection=region_redis.client, serializer=JSONSerializer)
    if queue.name != "fra":
        queue, urgent = urgent, queue
    assert (urgent.name, urgent.job_ids) == ("fra.urgent", [])
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


def test_tasks_for_which_clients_wait_have_a_queue_of_their_own(enqueuer: Enqueuer, region_redis) -> None:
    bulk, first, second = task("fra", 1), task("fra", 2, sync=True), task("fra", 3, sync=True)
    write(enqueuer, bulk, first, second)
    queues = {queue.name: queue for queue in Queue.all(connection=region_redis.client, serializer=JSONSerializer)}
    assert {name: queue.job_ids for name, queue in queues.items()} == {
        "fra": [bulk.task],
        "fra.urgent": [first.task, second.task],
    }
    assert {job.origin for queue in queues.values() for job in queue.jobs} == {"fra"}  # by which RQ chooses registries
    fronts = [hub_fields(region_redis.client, one).get(names.JOB_FRONT) for one in (bulk, first)]
    assert fronts == [None, b"1"]  # a retried one comes before others


def test_a_cancel_marks_its_task_until_the_deadline(enqueuer: Enqueuer, region_redis) -> None:
    """However far the region's clock differs from the hub's."""
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
    written = write(enqueuer, task("fra", 1), task("fra", 2))
    refusals = written.refusals
    assert written.ready == 0
    region_redis.client.config_set("maxmemory", 0)
    assert all(isinstance(refusal, redis.exceptions.ResponseError) for refusal in refusals)
    assert region_redis.client.keys("rq:*") == []
    assert write(enqueuer, task("fra", 1), task("fra", 2)).ready == 2


@pytest.mark.parametrize("key", [names.RQ_QUEUES, names.rq_queue("fra")])
def test_a_batch_whose_queue_is_none_or_can_not_be_shown_is_refused_as_a_whole(
    enqueuer: Enqueuer, region_redis, key: str
) -> None:
    region_redis.client.set(key, "somebody's")
    written = write(enqueuer, task("fra", 1), task("fra", 2))
    assert ["WRONGTYPE" in str(one) for one in written.refusals] == [True, True]
    assert written.ready == 0


def test_a_frozen_redis_is_an_error_after_the_time_out_and_closes_the_connection(region_redis) -> None:
    client = connect.open_redis(region_redis.url, name="test-bridge", block_seconds=5.0)
    enqueuer = Enqueuer(client, "fra")
    enqueuer.open()
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
    enqueuer.close()
    client.close()


def test_a_link_never_reconnects(region_redis) -> None:
    client = connect.open_redis(region_redis.url, name="test-link", block_seconds=30.0)
    link = Link(client)
    assert link.one("PING") == b"PONG"
    region_redis.client.client_kill_filter(_type="normal", skipme=True)
    for _ in range(2):
        with pytest.raises(redis.exceptions.ConnectionError):
            link.one("PING")
    client.close()


def test_long_params_do_not_make_long_descriptions() -> None:
    assert len(enqueue.description(task("fra", params={"q": "x" * 10_000}))) < 1_200


def hub_fields(client, one: contract.Task) -> dict[str, bytes]:
    return {key.decode(): value for key, value in client.hgetall(names.rq_job(one.task)).items()}


def test_a_job_is_dated_by_its_regions_clock_and_lives_a_second_at_least(enqueuer: Enqueuer, region_redis) -> None:
    late, soon, patient = task("fra", 1), task("fra", 2), task("fra", 3, max_age=2.5)
    now = late.deadline_ms + 1_000
    soon = msgspec.structs.replace(soon, deadline_ms=now + 1_001)
    assert enqueuer.write([late, soon, patient], offset_ms=-3_600_000, now_ms=now).ready == 3
    fields = hub_fields(region_redis.client, late)
    assert fields["created_at"].decode() == utcformat(datetime.fromtimestamp((now + 3_600_000) / 1000, UTC))
    assert [hub_fields(region_redis.client, one)["timeout"] for one in (late, soon)] == [b"1", b"2"]
    ages = [hub_fields(region_redis.client, one).get(names.JOB_MAX_AGE) for one in (late, soon, patient)]
    assert ages == [None, None, b"2500"]


def test_a_cancel_that_comes_late_still_marks_its_task_for_a_moment(enqueuer: Enqueuer, region_redis) -> None:
    region_redis.client.config_resetstat()
    cancel = contract.Cancel(task="01TASK", request="01REQUEST", deadline_ms=now_ms() - 1)
    assert write(enqueuer, cancel).refusals == [None]


def asks(client, one: contract.Task) -> tuple[bool, bool]:
    """Whether a job is marked as asking again, and whether its question's answer is to be kept."""
    return names.JOB_ASKED in hub_fields(client, one), client.get(names.flight(contract.key_of(one))) == b"*"


def test_only_where_jobs_wait_a_question_is_looked_for_among_them(enqueuer: Enqueuer, region_redis) -> None:
    client, same = region_redis.client, [task("fra", 1, task=f"01SAME{number}") for number in range(3)]
    write(enqueuer, same[0])
    write(enqueuer, same[1])
    assert [asks(client, one) for one in same[:2]] == [(False, False)] * 2  # nothing was there before the first
    write(enqueuer, same[2])
    assert asks(client, same[2]) == (True, True)
    assert 0 < client.pttl(names.flight(contract.key_of(same[2]))) <= 120_000


def test_a_question_that_stands_twice_in_the_first_batch_is_asked_once(enqueuer: Enqueuer, region_redis) -> None:
    first, second = (task("fra", 1, task=f"01SAME{number}") for number in range(2))
    write(enqueuer, first, second)
    asked = [names.JOB_ASKED in hub_fields(region_redis.client, one) for one in (first, second)]
    assert asked == [False, True]


def test_the_same_task_again_or_one_whose_first_asker_is_late_is_not_asked_again(
    enqueuer: Enqueuer, region_redis
) -> None:
    client, one = region_redis.client, task("fra", 1)
    write(enqueuer, *[task("fra", number) for number in range(10, 13)])
    write(enqueuer, one)
    client.delete(names.rq_job(one.task))
    write(enqueuer, one)
    assert asks(client, one) == (False, False)
    late, next_one = (task("fra", 2, task=f"01LEFT{left}", deadline_ms=now_ms() + left) for left in (1_000, 30_000))
    write(enqueuer, late)
    enqueuer.write([next_one], offset_ms=OFFSET_MS, now_ms=late.deadline_ms)
    assert asks(client, next_one) == (False, False)


def test_as_many_questions_are_remembered_as_there_is_room_for(enqueuer: Enqueuer, region_redis, monkeypatch) -> None:
    write(enqueuer, *[task("fra", number) for number in range(10, 13)])
    enqueuer._asked.clear()
    monkeypatch.setattr(enqueue, "ASKED_MAX", 3)
    late = [msgspec.structs.replace(task("fra", number), deadline_ms=now_ms() - 1) for number in range(2)]
    write(enqueuer, *late, task("fra", 2), task("fra", 3))
    assert len(enqueuer._asked) == 2, "those that are late go first"
    again = task("fra", 2, task="01AGAIN")
    write(enqueuer, again)
    assert asks(region_redis.client, again)[0]
    write(enqueuer, task("fra", 4), task("fra", 5))
    assert len(enqueuer._asked) <= 3


def test_a_closed_enqueuer_says_so_and_writes_nothing(enqueuer: Enqueuer) -> None:
    assert (enqueuer.is_open, bool(enqueuer.run_id)) == (True, True)
    enqueuer.close()
    assert (enqueuer.is_open, enqueuer.run_id) == (False, "")
    other = Enqueuer(enqueuer._client, "fra")
    assert (other.is_open, other.run_id) == (False, "")
    with pytest.raises(redis.exceptions.ConnectionError, match="not connected"):
        write(other, task("fra"))
    other.close()


@pytest.mark.parametrize("denied", ["script", "info"])
def test_a_redis_that_refuses_what_a_bridge_needs_is_not_opened(region_redis, denied: str) -> None:
    region_redis.client.execute_command("ACL", "SETUSER", "narrow", "on", ">secret", "~*", "+@all", f"-{denied}")
    url = region_redis.url.replace("redis://", "redis://narrow:secret@")
    client = connect.open_redis(url, name="test-bridge", block_seconds=30.0)
    one = Enqueuer(client, "fra")
    with pytest.raises(redis.exceptions.ResponseError):
        one.open()
    assert not one.is_open
    until(lambda: not region_redis.client.client_list(_type="normal") or not _connected(region_redis), "its end")
    client.close()


def _connected(region_redis) -> bool:
    return any(one["user"] == "narrow" for one in region_redis.client.client_list())
