"""A bridge between real servers: nothing lost, nothing doubled, nothing acked too early, whatever is away.

The ledger of each test is its list of tasks; what became of them is read from the region's Redis and the broker.
"""

import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
import redis

from bridge import bridge as bridge_module
from bridge.bridge import Bridge
from bridge.enqueue import Enqueuer
from bridge.lane import Lane
from bridge.watch import Measure, Reason
from jobs import contract, result_frame
from regions import connect, names
from tests.service.bridging import (
    Region,
    bridging,
    entries,
    last_status,
    now_ms,
    start_process,
    task,
)
from tests.service.conftest import RedisInstance
from tests.waiting import until

STOPPED, GOES_ON = signal.SIGSTOP, signal.SIGCONT


@pytest.fixture
def region_on(hub_redis, region_redis, rabbitmq) -> Callable[[str], Region]:
    """A region whose queues nobody has declared."""
    return lambda name: Region(name, hub_redis, region_redis, rabbitmq)


def test_a_task_becomes_a_job_and_leaves_the_queue(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = region.tasks(20)
    with region.bridging() as running:
        later, bridge, waits = running.bridge._ioloop.call_later, running.bridge, list[float]()

        def call_later(seconds: float, call: Callable[[], None]) -> object:
            if call == bridge._flush:
                waits.append(seconds)
            return later(seconds, call)

        monkeypatch.setattr(bridge._ioloop, "call_later", call_later)
        region.broker.publish(*tasks, task(region.name, 99, sync=True))
        region.each_once([*tasks, task(region.name, 99)])
        region.all_acked(running)
    assert set(waits) == {0}  # no message waits for others
    assert running.code == 0


def test_a_task_whose_client_records_its_trace_gets_a_log_line(region: Region, capsys) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"
    traced, unsampled = (
        msgspec.structs.replace(one, traceparent=traceparent + flag)
        for one, flag in zip(region.tasks(2), "10", strict=True)
    )
    with region.bridging() as running:
        region.broker.publish(traced, unsampled, task(region.name, 99))
        region.each_once([traced, unsampled, task(region.name, 99)])
        region.all_acked(running)
    lines = [line for line in capsys.readouterr().out.splitlines() if "enqueued" in line]
    assert len(lines) == 1
    for part in (traced.task, traced.request, traceparent[3:35]):
        assert part in lines[0]


def test_a_redelivery_and_a_second_bridge_double_nothing(region: Region) -> None:
    tasks = region.tasks(50)
    with region.bridging() as running, region.bridging() as other:
        region.broker.publish(*tasks, *tasks, *tasks)
        region.each_once(tasks)
        region.all_acked(running, other)
    region.each_once(tasks)


def test_a_killed_bridge_loses_nothing_and_doubles_nothing(region: Region, tmp_path: Path) -> None:
    """kill -9 between enqueue and ack. The file is never reported as written, so that no ack is under way."""
    tasks = region.tasks(300)
    process = start_process(region.settings(), region.name, tmp_path)
    try:
        until(lambda: last_status(region.hub, region.name).get("state") == "consuming", "the bridge to consume")
        region.redis.client.config_set("appendfsync", "no")
        region.broker.publish(*tasks)
        region.each_once(tasks)
    finally:
        process.kill()
        process.wait(60)
    until(lambda: region.broker.ready() == len(tasks), "every message to be back")
    done = region.jobs()[:100]
    region.redis.client.lpop(names.rq_queue(region.name), len(done))
    region.redis.client.config_set("appendfsync", "always")
    redelivered: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bridge, "_enqueue", recording(Bridge._enqueue, redelivered))
        with region.bridging() as running:
            region.all_acked(running)
    assert sorted(set(redelivered)) == sorted(one.task for one in tasks)
    assert sorted(region.jobs() + done) == sorted(one.task for one in tasks)


def recording(enqueue: Callable, seen: list[str]) -> Callable:
    def record(bridge: Bridge, messages, *arguments) -> None:
        seen.extend(one.task for one in messages)
        enqueue(bridge, messages, *arguments)

    return record


def test_no_ack_leaves_before_the_append_only_file_is_written(region: Region) -> None:
    tasks = region.tasks(30)
    with region.bridging() as running:
        running.wait_for("consuming")
        region.redis.client.config_set("appendfsync", "no")
        region.broker.publish(*tasks)
        region.each_once(tasks)
        until(lambda: waits_for_file(region.redis), "the bridge to wait for the file")
        until(lambda: running.status.unacked == len(tasks), "all to be held")
        region.redis.client.config_set("appendfsync", "always")
        region.all_acked(running)
    region.each_once(tasks)


def test_a_bridge_holds_no_more_than_its_prefetch_until_it_may_ack(region: Region) -> None:
    """The rest stays in the queue, where another bridge would get it."""
    tasks = region.tasks(120)
    with region.bridging(prefetch=50) as running:
        running.wait_for("consuming")
        region.redis.client.config_set("appendfsync", "no")
        region.broker.publish(*tasks)
        until(lambda: waits_for_file(region.redis) and len(region.jobs()) >= 50, "the bridge to wait for the file")
        until(
            lambda: (region.broker.ready(), len(region.jobs()), running.status.unacked) == (70, 50, 50),
            "all others to stay in the queue",
        )
        region.redis.client.config_set("appendfsync", "always")
        region.each_once(tasks)
        region.all_acked(running)


def waits_for_file(region_redis: RedisInstance) -> bool:
    return any(client["cmd"] == "waitaof" and "b" in client["flags"] for client in region_redis.client.client_list())


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why bridges paused. A status shows the reason of a broker that is silent for a moment before these."""
    pause, found = Bridge._pause, list[str]()
    monkeypatch.setattr(Bridge, "_pause", lambda bridge, reason: found.append(reason.text) or pause(bridge, reason))
    return found


def test_what_a_crash_took_before_it_was_written_is_enqueued_again(region: Region, pauses: list[str]) -> None:
    """The Redis loses a batch and is back at once. A fence on the new process must not confirm the batch."""
    tasks = region.tasks(40)
    with region.bridging() as running:
        running.wait_for("consuming")
        region.redis.client.config_set("appendfsync", "no")
        region.broker.publish(*tasks)
        region.each_once(tasks)
        until(lambda: waits_for_file(region.redis), "the bridge to wait for the file")
        region.redis.running.kill()
        for part in (Path(region.redis.running.service.log).parent / "appendonlydir").glob("*.incr.aof"):
            part.write_bytes(b"")  # the crash of a machine: nothing of it had reached the disk
        region.redis.running.start()
        region.each_once(tasks)
        region.all_acked(running)
    region.each_once(tasks)
    assert any("its Redis did not keep a batch" in reason for reason in pauses)


@pytest.fixture(params=["stopped", "frozen", "full"])
def outage(request, region: Region) -> Iterator[tuple[Callable[[], None], Callable[[], None], str]]:
    """How the region's Redis fails, how it returns, and the bridge's reason."""
    running, client = region.redis.running, region.redis.client
    ways = {
        "stopped": (running.stop, running.start, "away"),
        "frozen": (lambda: running.signal(STOPPED), lambda: running.signal(GOES_ON), "away"),
        "full": (
            lambda: client.config_set("maxmemory", 1),
            lambda: client.config_set("maxmemory", "256mb"),
            "maxmemory",
        ),
    }
    yield ways[request.param]
    running.signal(GOES_ON)


def test_while_its_redis_is_off_it_consumes_nothing_and_then_goes_on(region: Region, outage) -> None:
    go, come, said = outage
    before, during, after = (region.tasks(90)[start : start + 30] for start in (0, 30, 60))
    with region.bridging() as running:
        running.wait_for("consuming")
        region.broker.publish(*before)
        region.each_once(before)
        go()
        region.broker.publish(*during[:15])
        running.wait_for("paused", said)
        fault = "region-redis-full" if said == "maxmemory" else "region-redis-away"
        until(lambda: running.status.fault == fault, "its fault")
        region.broker.publish(*during[15:])
        until(lambda: region.broker.ready() >= len(during), "all to be back in the queue")
        until(lambda: said == "maxmemory" or running.status.unacked == 0, "nothing to be held any more")
        until(lambda: said == "away" or running.status.redis_max == 1, "how full it is to be told")
        until(lambda: not running.bridge._watch.is_calm, "its looks to be frequent")
        come()
        running.wait_for("consuming")
        region.broker.publish(*after)
        region.each_once([*before, *during, *after])
        region.all_acked(running)
    region.each_once([*before, *during, *after])


@pytest.mark.parametrize("full", [False, True])
def test_what_came_just_before_a_pause_goes_back(region: Region, monkeypatch: pytest.MonkeyPatch, full: bool) -> None:
    """Held for good it would be lost until the next connection."""
    flush, tasks, sync = Bridge._flush, region.tasks(20), task(region.name, 99, sync=True)
    paused: list[Lane] = []

    def late(bridge: Bridge) -> None:
        for lane in (bridge.fast, bridge.work):
            if lane not in paused and lane.inbox and lane.inbox.pending:
                paused.append(lane)
                if full:
                    bridge._measured(Measure(used=99, limit=100))
                else:
                    bridge._pause(Reason("its Redis is away"))
        flush(bridge)

    monkeypatch.setattr(Bridge, "_flush", late)
    with region.bridging() as running:
        running.wait_for("consuming")
        region.broker.publish(*tasks, sync)
        region.each_once([*tasks, sync])
        assert {lane.queue for lane in paused} == {names.fast_queue(region.name), names.work_queue(region.name)}
        region.all_acked(running)


def test_what_is_behind_a_batch_that_fails_goes_back_too_and_why_is_told(
    region: Region, monkeypatch: pytest.MonkeyPatch, pauses: list[str]
) -> None:
    write, failed, tasks = Enqueuer.write, list[int](), region.tasks(20)

    def fails_once(enqueuer: Enqueuer, messages, **how):
        if not failed:
            failed.append(len(messages))
            raise redis.exceptions.ConnectionError("cut")
        return write(enqueuer, messages, **how)

    monkeypatch.setattr(bridge_module, "BATCH_MAX", 3)
    monkeypatch.setattr(Enqueuer, "write", fails_once)
    region.broker.publish(*tasks)  # first, so that several batches come at once
    with region.bridging() as running:
        region.each_once(tasks)
        region.all_acked(running)
    assert "its Redis is away: cut" in pauses


def test_a_redis_that_would_not_keep_it_is_given_nothing_until_it_is_mended(region: Region) -> None:
    """All shortfalls are reported together. A setting that changes while the bridge runs counts, too."""
    client = region.redis.client
    client.config_set("appendonly", "no")
    client.config_set("maxmemory-policy", "allkeys-lru")
    tasks = region.tasks(5)
    with region.bridging() as running:
        running.wait_for("paused", "appendonly: expected yes, found no; maxmemory-policy: expected noeviction")
        region.broker.publish(*tasks)
        assert region.jobs() == []
        client.config_set("appendonly", "yes")
        running.wait_for("paused", "promised: maxmemory-policy: expected noeviction, found allkeys-lru")
        client.config_set("maxmemory-policy", "noeviction")
        region.each_once(tasks)
        client.config_set("appendonly", "no")
        running.wait_for("paused", "appendonly: expected yes, found no")
        client.config_set("appendonly", "yes")
        region.all_acked(running)


@pytest.mark.parametrize(("setting", "value"), [("appendonly", "no"), ("appendfsync", "no")])
def test_a_relaxed_region_bridges_to_a_redis_that_keeps_nothing(region: Region, setting, value) -> None:
    region.redis.client.config_set(setting, value)
    tasks = region.tasks(5)
    with bridging(relaxed_redis(region.settings(), region.name), region.name) as running:
        region.broker.publish(*tasks)
        region.each_once(tasks)
        region.all_acked(running)


def relaxed_redis(config, name: str):
    one = config.one(name)
    redis = msgspec.structs.replace(one.redis, durability="relaxed")
    return msgspec.structs.replace(config, region={name: msgspec.structs.replace(one, redis=redis)})


def declared_for_good(region: Region) -> bool:
    """Whether RabbitMQ has written where its new queues are, which it does seconds after it confirmed them.

    A queue that was declared just before a crash comes back empty and silent: ``basic.consume`` is never answered.
    """
    (file,) = region.rabbitmq.folder.glob("data/*/quorum/*/names.dets")
    return f"_{names.fast_queue(region.name)}".encode() in file.read_bytes()


def test_a_broker_that_crashed_is_found_again(hub_redis, region_redis, own_rabbitmq) -> None:
    region = Region("crash", hub_redis, region_redis, own_rabbitmq)
    region.broker.declare()
    tasks = region.tasks(40)
    own_rabbitmq.keep_queues()
    assert declared_for_good(region)
    with region.bridging() as running:
        running.wait_for("consuming")
        region.broker.publish(*tasks[:20])
        region.each_once(tasks[:20])
        own_rabbitmq.running.kill()
        running.wait_for("starting", "RabbitMQ is away")
        own_rabbitmq.running.start()
        running.wait_for("consuming")
        region.broker.publish(*tasks)
        region.each_once(tasks)
        region.all_acked(running)


def test_queues_that_are_not_there_are_waited_for_less_and_less_often(region_on, monkeypatch) -> None:
    """The hub declares them late, or they are deleted: also at the moment at which the bridge itself closes the channel."""
    region, failures = region_on("late"), list[int]()
    monkeypatch.setattr(connect, "backoff_seconds", lambda count: failures.append(count) or 0.02)
    with region.bridging() as running:
        running.wait_for("starting", "waiting for the hub to declare q.late")
        until(lambda: {1, 2, 3} <= {*failures}, "some tries in a row")
        region.broker.declare()
        running.wait_for("consuming")
        failures.clear()

        def delete() -> None:
            with region.broker.channel() as channel:
                channel.queue_delete(names.work_queue(region.name))

        def delete_and_close() -> None:
            delete()
            running.bridge.work.inbox.channel.close()  # what the broker says of the consumer comes while it closes

        for how in (delete, lambda: running.bridge._ioloop.add_callback_threadsafe(delete_and_close)):
            how()
            running.wait_for("starting", "waiting for the hub")
            assert running.status.fault == "region-queue-away"
            region.broker.declare()
            running.wait_for("consuming")
            assert failures[0] == 1
        tasks = region.tasks(3)
        region.broker.publish(*tasks)
        region.each_once(tasks)


def test_a_connection_that_is_lost_while_a_queue_is_waited_for_is_opened_again(region_on, monkeypatch) -> None:
    region = region_on("lost")
    monkeypatch.setattr(connect, "backoff_seconds", lambda _: 0.02)
    closed: list[object] = []
    with region.bridging() as running:
        running.wait_for("starting", "waiting for the hub to declare q.lost")

        def close() -> None:
            if running.bridge.work.inbox is None and not closed:
                closed.append(running.bridge._connection)
                running.bridge._connection.close()

        until(lambda: running.bridge._ioloop.add_callback_threadsafe(close) or closed, "the moment between two tries")
        until(lambda: running.bridge._connection not in closed, "another connection")
        region.broker.declare()
        running.wait_for("consuming")


def is_told_closed(bridge, lane, log: list[str], capfd, hurt: list) -> bool:
    """Has the broker close the lane's channel, and each next one: a broker that answers late is the reason that is told first."""
    log.append(capfd.readouterr().out)
    if f"{lane.queue} can't be consumed: (406" in "".join(log):
        return True
    inbox = lane.inbox
    if inbox and inbox.channel.is_open and inbox.channel not in hurt:
        hurt.append(inbox.channel)
        bridge._ioloop.add_callback_threadsafe(lambda: inbox.channel.is_open and inbox.channel.basic_ack(999))
    return False


def test_a_channel_that_the_broker_closes_is_told_and_opened_again(region: Region, capfd) -> None:
    log: list[str] = []
    with region.bridging() as running:
        running.wait_for("consuming")
        for lane in (running.bridge.work, running.bridge.fast):
            until(partial(is_told_closed, running.bridge, lane, log, capfd, hurt := []), "the reason")
            until(lambda lane=lane, hurt=hurt: lane.inbox and lane.inbox.channel not in hurt, "another channel")
            running.wait_for("consuming")
        log.clear()
        running.bridge._ioloop.add_callback_threadsafe(running.bridge._connection.close)
        until(lambda: log.append(capfd.readouterr().out) or "RabbitMQ is away" in "".join(log), "the reason")
        assert "can't be consumed" not in "".join(log)
        running.wait_for("consuming")
        tasks = region.tasks(3)
        region.broker.publish(*tasks)
        region.each_once(tasks)


def test_a_task_past_its_deadline_is_acked_without_a_job(region: Region) -> None:
    late = task(region.name, 1, deadline_ms=now_ms() - 60_000)
    with region.bridging() as running:
        region.broker.publish(late, task(region.name, 2))
        region.all_acked(running)
    assert region.jobs() == [task(region.name, 2).task]
    assert not region.redis.client.exists(names.rq_job(late.task))


def test_a_cancel_marks_its_task(region: Region) -> None:
    deadline_ms = now_ms() + 300_000
    with region.bridging() as running:
        region.broker.publish(
            contract.Cancel(task="01CANCELLED", request="01REQUEST", deadline_ms=deadline_ms),
            contract.Cancel(task="01TOOLATE", request="01REQUEST", deadline_ms=now_ms() - 60_000),
        )
        region.all_acked(running)
    expires_ms = region.redis.client.pexpiretime(names.cancel_mark("01CANCELLED"))
    # Both servers have the same clock here. The bridge measures a difference because of the round trips.
    assert expires_ms == pytest.approx(deadline_ms, abs=60_000)
    assert not region.redis.client.exists(names.cancel_mark("01TOOLATE"))


UNREADABLE = [
    (b"\x00garbage", "malformed"),
    (msgspec.json.encode({"v": 9, "task": "x"}), "found 9"),
    (msgspec.json.encode({"v": 1, "task": "x"}), "missing required field"),
]


def test_unreadable_messages_fail_at_the_hub_and_leave_the_queue(region: Region) -> None:
    good = region.tasks(10)
    with region.bridging() as running:
        for number, (body, _) in enumerate(UNREADABLE):
            region.broker.publish_raw(body, task=f"01BAD{number}", request="01REQUEST", fast=number == 2)
        region.broker.publish_raw(b"nobody's", task=None, request=None)
        region.broker.publish(*good)
        region.each_once(good)
        region.all_acked(running)
    results = {entry["t"]: entry for entry in entries(region.hub, region.name, "result")}
    assert sorted(results) == ["01BAD0", "01BAD1", "01BAD2"]
    for number, (_, said) in enumerate(UNREADABLE):
        entry = results[f"01BAD{number}"]
        key = names.result(region.name, entry["t"])
        frame = region.hub.client.get(key)
        result = result_frame.head(frame)
        assert (entry["q"], entry["s"], entry["v"]) == ("01REQUEST", "failed", "1")
        assert (result.status, result.error.type, result.error.origin) == ("failed", "internal", "internal")
        assert said in result.error.message.lower()
        assert abs(region.hub.client.pexpiretime(key) - now_ms() - 3_600_000) < 60_000


def test_what_still_can_not_be_read_after_a_while_is_told_again(region: Region, capfd) -> None:
    log: list[str] = []
    with region.bridging() as running:
        running.bridge._once._seconds = 0.0
        for told in (1, 2):
            region.broker.publish_raw(b"nobody's", task=None, request=None)
            until(
                lambda told=told: (
                    log.append(capfd.readouterr().out) or "".join(log).count("unreadable message") >= told
                ),
                "the line",
            )


def test_an_unreadable_message_stays_until_the_hub_knows(region: Region) -> None:
    """Acks of later messages must not ack it, too."""
    good = region.tasks(10)
    with region.bridging() as running:
        running.wait_for("consuming")
        region.hub.running.signal(STOPPED)
        region.broker.publish_raw(b"garbage", task="01BAD", request="01REQUEST")
        region.broker.publish(*good)
        region.each_once(good)
        until(lambda: running.status.unacked == 1, "all but one to be acked")
        region.hub.running.signal(GOES_ON)
        region.all_acked(running)
    assert {entry["t"] for entry in entries(region.hub, region.name, "result")} == {"01BAD"}


def test_past_the_mark_work_stays_in_the_broker_and_the_fast_lane_is_open(region: Region) -> None:
    tasks, sync = region.tasks(200), task(region.name, 999, sync=True)
    region.redis.client.config_set("appendfsync", "always")
    region.broker.publish(*tasks)  # first, so that more come at once than may
    with region.bridging(ready_max=50) as running:
        running.wait_for("paused", "50 jobs are ready")
        until(lambda: region.broker.ready() == 150, "the rest to be back in the queue")
        assert (len(region.jobs()), running.status.fault) == (50, "region-backlog")
        region.broker.publish(sync)
        until(lambda: sync.task in region.jobs(), "the fast lane")
        assert len(region.jobs()) == 51
        taken: list[str] = []
        while len(taken) < 201:
            until(region.jobs, "more jobs")
            popped = region.redis.client.lpop(names.rq_queue(region.name), 40) or []
            popped += region.redis.client.lpop(names.rq_queue(names.urgent(region.name)), 1) or []
            taken += [job.decode() for job in popped]
        running.wait_for("consuming")
        region.all_acked(running)
    assert sorted(taken) == sorted([*(one.task for one in tasks), sync.task])
