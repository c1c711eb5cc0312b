"""Worker processes on real Redis: each enqueued task's result reaches the hub once, whatever happens to processes and servers."""

import json
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable

import pytest
import redis
import rq.command
import rq.suspension
from rq import Queue
from rq import Worker as RqWorker
from rq.job import JobStatus, requeue_job
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from jobs.queue.retry import read_past
from regions import names
from regions.settings import Settings
from tests.service.working import (
    REGION,
    claimer,
    enqueue,
    enqueue_raw,
    fetch,
    frame,
    held,
    is_clean,
    out_entries,
    pass_deadline,
    results,
    settings_for,
    task,
)
from tests.waiting import until

Start = Callable[..., subprocess.Popen]


@pytest.fixture
def settings(region_redis, hub_redis) -> Settings:
    return settings_for(region_redis.url, hub_redis.url)


@pytest.fixture
def client(region_redis) -> redis.Redis:
    return region_redis.client


@pytest.fixture
def hub(hub_redis) -> redis.Redis:
    return hub_redis.client


def test_everything_that_is_enqueued_reaches_the_hub_once(start, client, hub):
    start(threads=8)
    ids = enqueue(client, [task(n=n) for n in range(300)])
    until(lambda: len(results(hub)) >= 300, "300 results")
    until(lambda: is_clean(client), "a clean region")
    assert sorted(results(hub)) == sorted(ids)
    assert {frame(hub, id_)["status"] for id_ in ids} == {"succeeded"}
    assert set(FinishedJobRegistry(REGION, connection=client).get_job_ids()) == set(ids)
    assert client.hget(names.COUNTERS, "succeeded") == b"300"
    assert client.get(names.OUTBOX_BYTES) == b"0"


def test_rq_sees_the_worker_and_what_it_runs(start, client, tmp_path):
    process = start()
    gate = tmp_path / "gate"
    ids = enqueue(client, [task(gate=str(gate)) for _ in range(6)])
    until(lambda: held(client) == 4, "four running jobs")
    (worker,) = RqWorker.all(connection=client)
    assert (worker.name, worker.pid, worker.queue_names()) == ("w1", process.pid, [REGION])
    assert until(lambda: RqWorker.all(connection=client)[0].get_state() == "busy", "a busy worker")
    assert len(worker.get_current_executions()) == 4
    assert worker.current_execution_count == 4
    started = StartedJobRegistry(REGION, connection=client, serializer=JSONSerializer)
    assert set(started.get_job_ids()) == set(ids[:4])
    assert Queue(REGION, connection=client).get_job_ids() == ids[4:]
    gate.touch()
    until(lambda: RqWorker.all(connection=client)[0].successful_job_count == 6, "six successes")
    until(lambda: RqWorker.all(connection=client)[0].get_state() == "idle", "an idle worker")
    process.terminate()
    assert process.wait(60) == 0
    assert RqWorker.all(connection=client) == []
    assert client.zcard(names.WORKERS) == client.exists(names.lease("w1")) == 0


def test_a_task_that_runs_for_a_while_is_told_to_the_hub(start, client, hub, tmp_path):
    start()
    one = task(gate=str(tmp_path / "gate"))
    enqueue(client, [one])
    (said,) = until(lambda: out_entries(hub, b"claims"), "a claim at the hub")
    ((request, id_, attempt, started_ms, (_, ((*_, last, _turn_ms),), _)),) = json.loads(said[b"d"])
    assert (request, id_, attempt, last) == (one.request, one.task, 1, "")
    assert abs(started_ms - one.accepted_ms) < 60_000


def test_a_job_of_another_function_is_not_run(start, client, hub, tmp_path):
    start()
    (id_,) = enqueue(client, [task()], function="os.system")
    until(lambda: results(hub), "its result")
    error = frame(hub, id_)["error"]
    assert (error["type"], error["origin"]) == ("internal", "internal")
    assert "os.system" in error["message"]
    assert id_ in FailedJobRegistry(REGION, connection=client).get_job_ids()
    assert "os.system" in fetch(client, id_).latest_result().exc_string


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x80\x04 pickle", "malformed"),
        (b'["jobs.task.run", null, [{"v": 9, "task": "x"}, 0], {}]', "version"),
        (b'["jobs.task.run", null, [{"v": 1}, 0], {}]', "missing"),
        (b'["jobs.task.run", null, [], {}]', "expected a task that has not ended"),
        (b'["jobs.task.run", null, [1], {}]', "Expected"),
    ],
)
def test_a_job_that_cant_be_read_fails_and_says_why(start, client, hub, data, told):
    start()
    enqueue_raw(client, "01JX", data, "01JR")
    (said,) = until(lambda: out_entries(hub), "its result")
    assert (said[b"q"], said[b"t"], said[b"s"]) == (b"01JR", b"01JX", b"failed")
    error = frame(hub, "01JX")["error"]
    assert error["type"] == "internal"
    assert told in error["message"]
    until(lambda: is_clean(client), "a clean region")


def test_a_failed_job_that_rq_puts_back_is_not_run_again(start, client, hub):
    """Its task has ended, and ends once: RQ's list says why, and the hub keeps the failure that it was told first."""
    start()
    (id_,) = enqueue(client, [task(fail="KeyError")])
    until(lambda: id_ in FailedJobRegistry(REGION, connection=client).get_job_ids(), "it to fail")
    until(lambda: results(hub), "its result")
    first = frame(hub, id_)
    requeue_job(id_, connection=client, serializer=JSONSerializer)
    until(
        lambda: "expected a task that has not ended" in fetch(client, id_).latest_result().exc_string,
        "it to be refused",
    )
    assert id_ in FailedJobRegistry(REGION, connection=client).get_job_ids()
    until(lambda: is_clean(client), "a clean region")
    assert frame(hub, id_) == first


@pytest.mark.parametrize("kind", ["KeyError", "SystemExit"])
def test_whatever_a_task_raises_ends_it_and_not_its_thread(start, client, hub, kind):
    start(threads=1)
    ids = enqueue(client, [task(**{"raise": kind}), task()])
    until(lambda: len(results(hub)) == 2, "two results")
    assert [frame(hub, id_)["status"] for id_ in ids] == ["failed", "succeeded"]
    assert frame(hub, ids[0])["error"]["type"] == "internal"
    assert kind in fetch(client, ids[0]).latest_result().exc_string


def test_a_task_that_fails_for_a_while_is_tried_again_and_sent_home_once(start, client, hub):
    start(threads=2)
    ids = enqueue(client, [task(flaky=2), task(flaky=1), task()])
    until(lambda: len(results(hub)) == 3, "three results")
    until(lambda: is_clean(client), "a clean region")
    assert [frame(hub, id_)["attempts"] for id_ in ids] == [3, 2, 1]
    assert {frame(hub, id_)["status"] for id_ in ids} == {"succeeded"}
    assert [attempt.message for attempt in read_past(client.hget(names.rq_job(ids[0]), names.JOB_PAST))] == [
        "failure 1",
        "failure 2",
    ]
    assert FailedJobRegistry(REGION, connection=client).get_job_ids() == []
    assert client.hgetall(names.COUNTERS)[b"succeeded"] == b"3"


def test_a_waiting_task_holds_no_thread(start, client, hub):
    start(threads=1)
    put_off, other = enqueue(client, [task(flaky=1, pause=25.0), task()])
    until(lambda: results(hub) == [other], "the next task's result")
    assert client.zrange(names.rq_registry("scheduled", REGION), 0, -1) == [put_off.encode()]
    assert held(client) == 0


def test_what_was_not_tried_again_in_time_is_sent_home_as_it_failed(start, client, hub):
    start()
    until(lambda: client.exists(names.rq_worker("w1")), "the worker")
    (id_,) = enqueue(client, [task(flaky=1, pause=25.0)])
    until(lambda: client.zscore(names.RETRIED, id_), "it to wait")
    pass_deadline(client, id_)
    until(lambda: results(hub) == [id_], "its result")
    assert (frame(hub, id_)["error"]["type"], frame(hub, id_)["attempts"]) == ("connection", 1)
    until(lambda: is_clean(client), "a clean region")


def test_a_cancel_mark_stops_a_running_task(start, client, hub, tmp_path):
    start()
    (id_,) = enqueue(client, [task(gate=str(tmp_path / "never"))])
    until(lambda: held(client) == 1, "a running job")
    client.set(names.cancel_mark(id_), 1, px=60_000)
    until(lambda: results(hub) == [id_], "its end")
    assert frame(hub, id_)["error"]["type"] == "cancelled"


def test_rqs_stop_commands_stop_the_named_job_alone(start, client, hub, tmp_path):
    start()
    first, second, third = enqueue(client, [task(gate=str(tmp_path / "never")) for _ in range(3)])
    until(lambda: held(client) == 3, "three running jobs")
    until(lambda: client.pubsub_numsub("rq:pubsub:w1")[0][1] == 1, "its subscription")
    rq.command.send_stop_job_command(client, first, serializer=JSONSerializer)
    until(lambda: results(hub) == [first], "the end of the first")
    (execution,) = fetch(client, second).get_executions()
    rq.command.send_stop_execution_command(client, second, execution.id)
    until(lambda: results(hub) == [first, second], "the end of the second")
    assert fetch(client, first).get_status() == JobStatus.STOPPED
    assert fetch(client, third).get_status() == JobStatus.STARTED


def test_rqs_shutdown_command_stops_a_worker_warmly(start, client):
    process = start()
    until(lambda: client.exists(names.rq_worker("w1")), "a worker")
    until(lambda: client.pubsub_numsub("rq:pubsub:w1")[0][1] == 1, "its subscription")
    client.publish("rq:pubsub:w1", "no command")
    rq.command.send_shutdown_command(client, "w1")
    assert process.wait(60) == 0


def test_suspend_and_resume(start, client, hub):
    start()
    until(lambda: client.hget(names.rq_worker("w1"), "state") == b"idle", "an idle worker")
    rq.suspension.suspend(client)
    until(lambda: RqWorker.all(connection=client)[0].get_state() == "suspended", "a suspended worker")
    ids = enqueue(client, [task()])
    renewed = client.zscore(names.WORKERS, "w1")
    until(lambda: client.zscore(names.WORKERS, "w1") > renewed + 500, "claims that go on")
    assert results(hub) == []
    rq.suspension.resume(client)
    until(lambda: results(hub) == ids, "the result")


def test_a_task_that_was_taken_back_is_stopped(start, client, hub, tmp_path):
    start("w1", threads=1)
    mark = tmp_path / "marks"
    mark.mkdir()
    enqueue(client, [task(gate=str(tmp_path / "never"), mark=str(mark))])
    until(lambda: list(mark.iterdir()), "a running job")
    (member,) = client.smembers(names.rq_worker_executions("w1"))
    client.zrem(names.rq_registry("wip", REGION), member)
    client.srem(names.rq_worker_executions("w1"), member)
    (later,) = enqueue(client, [task()])
    until(lambda: results(hub) == [later], "its thread to be free")


def test_a_claim_whose_answer_never_came_is_given_back(start, client, hub, settings, tmp_path):
    """The region's Redis then has an execution that its worker does not know."""
    start("w1", threads=1)
    gate = tmp_path / "gate"
    (first,) = enqueue(client, [task(gate=str(gate))])
    until(lambda: held(client) == 1, "a busy thread, so that the worker claims nothing")
    (second,) = enqueue(client, [task()])
    (job,) = claimer(settings.one(REGION).redis.url, "w1", register=False).claim(1).jobs
    assert job.task == second
    gate.touch()
    until(lambda: results(hub) == [first, second], "the results")
    assert frame(hub, second)["attempts"] == 2


def test_the_hub_may_be_away_and_come_back(start, client, hub_redis):
    start(threads=8)
    ids = enqueue(client, [task() for _ in range(20)])
    until(lambda: len(results(hub_redis.client)) == 20, "20 results")
    until(lambda: client.xlen(names.OUTBOX) == 0, "the hub to have them in its file")
    hub_redis.crash()
    more = enqueue(client, [task(bytes=2000) for _ in range(50)])
    until(lambda: client.hget(names.COUNTERS, "succeeded") == b"70", "jobs that go on")
    assert client.xlen(names.OUTBOX) == 50
    hub_redis.running.start()
    until(lambda: set(results(hub_redis.client)) == set(ids + more), "what was left")
    until(lambda: is_clean(client), "a clean region")
    assert max(Counter(results(hub_redis.client)).values()) <= 2


def test_a_frozen_hub_holds_nothing_up(start, client, hub_redis):
    start(threads=8)
    hub_redis.running.signal(signal.SIGSTOP)
    ids = enqueue(client, [task() for _ in range(20)])
    until(lambda: client.hget(names.COUNTERS, "succeeded") == b"20", "jobs that go on")
    hub_redis.running.signal(signal.SIGCONT)
    until(lambda: set(results(hub_redis.client)) == set(ids), "the results")


def test_the_regions_redis_may_be_killed_and_come_back(start, region_redis, hub, tmp_path):
    start(threads=4)
    client = region_redis.client
    gate = tmp_path / "gate"
    ids = enqueue(client, [task(gate=str(gate)) for _ in range(8)])
    until(lambda: held(client) == 4, "four running jobs")
    region_redis.crash()
    gate.touch()
    region_redis.running.start()
    until(lambda: set(results(hub)) == set(ids), "the results")
    until(lambda: is_clean(client), "a clean region")
    first = until(lambda: RqWorker.all(connection=client), "the worker")[0]
    assert first.name == "w1"
    until(lambda: client.pubsub_numsub("rq:pubsub:w1")[0][1] == 1, "its subscription to come back")


def test_a_frozen_regions_redis_reaps_nobody_and_loses_nothing(start, region_redis, hub, tmp_path):
    start(threads=4)
    client = region_redis.client
    gate = tmp_path / "gate"
    ids = enqueue(client, [task(gate=str(gate)) for _ in range(8)])
    until(lambda: held(client) == 4, "four running jobs")
    frozen = threading.Event()
    region_redis.running.signal(signal.SIGSTOP)
    frozen.wait(3)  # the fault itself
    gate.touch()
    region_redis.running.signal(signal.SIGCONT)
    until(lambda: set(results(hub)) == set(ids), "the results")
    until(lambda: is_clean(client), "a clean region")
    assert Counter(results(hub)) == Counter(ids)


def test_a_warm_stop_finishes_what_runs_and_takes_nothing_new(start, client, hub, tmp_path):
    process, gate = start(), tmp_path / "gate"
    ids = enqueue(client, [task(gate=str(gate)) for _ in range(6)])
    until(lambda: held(client) == 4, "four running jobs")
    process.terminate()
    for _ in range(2):  # the first may be of the turn in which it was told
        last = client.zscore(names.WORKERS, "w1")
        until(lambda last=last: client.zscore(names.WORKERS, "w1") > last, "its lease to be renewed")
    gate.touch()
    assert process.wait(60) == 0
    assert sorted(results(hub)) == sorted(ids[:4])
    assert Queue(REGION, connection=client).get_job_ids() == ids[4:]
    assert (client.xlen(names.OUTBOX), client.zcard(names.rq_registry("wip", REGION))) == (0, 0)


def test_a_cold_stop_gives_back_what_runs(start, client, hub, tmp_path):
    process = start()
    ids = enqueue(client, [task(gate=str(tmp_path / "never")) for _ in range(6)])
    until(lambda: held(client) == 4, "four running jobs")
    process.terminate()
    process.terminate()  # at once: a supervisor's and the pool's are one
    until(lambda: process.send_signal(signal.SIGTERM) or process.poll() is not None, "its end")
    assert process.wait() == 0
    assert results(hub) == []
    assert sorted(Queue(REGION, connection=client).get_job_ids()) == sorted(ids)
    assert {fetch(client, id_).get_status() for id_ in ids} == {JobStatus.QUEUED}
    assert client.zcard(names.rq_registry("wip", REGION)) == 0
