"""What is wrong is told by its name at ``/v1/faults``, in the log and as an event, and is gone when it is over."""

import json
import os
import signal

import pytest

import web.api.faults
import web.hub.faults
from regions import connect, names
from tests import broker
from tests.service.gateway import GatewayProcess, Stack
from tests.waiting import freeze, until
from tests.wire import ask
from web.hub.events import KEPT


def faults(stack: Stack) -> dict[tuple[str, str | None], dict]:
    """What is told now, by name and region, without what is wrong with sources, which no region has said to have."""
    told = ask(stack.port, "GET", "/v1/faults").json()["faults"]
    return {(one["name"], one["region"]): one for one in told if one["source"] is None}


def told(stack: Stack, name: str, region: str | None = None) -> dict:
    return until(lambda: faults(stack).get((name, region)), f"{name} of {region}: {faults(stack)}")


def is_over(stack: Stack, name: str, region: str | None = None) -> None:
    until(lambda: (name, region) not in faults(stack), f"the end of {name}")


def events(stack: Stack, region: str) -> list[dict]:
    return ask(stack.port, "GET", f"/v1/regions/{region}/events").json()["events"]


def full_lines(log: str) -> list[dict]:
    """What a log says of a full hub."""
    return [json.loads(line) for line in log.rpartition("\n")[0].splitlines() if '"fault":"hub-redis-full"' in line]


def consume(stack: Stack, region: str) -> None:
    """A consumer of both queues, as a bridge is one; it takes nothing."""
    for queue in (names.fast_queue(region), names.work_queue(region)):
        stack.region.channel.basic_qos(prefetch_count=1)
        stack.region.channel.basic_consume(queue, lambda *_: None)


@pytest.fixture
def _early(monkeypatch):
    """A gateway that starts gives regions all the time of a test for their first reports."""
    monkeypatch.setattr(web.api.faults, "SILENT_MS", 600_000)


@pytest.mark.usefixtures("_early")
def test_a_region_whose_parts_say_nothing_is_down_and_its_own_reason_is_its_name(own_stack, monkeypatch):
    """A gateway that has just started gives regions the time for a few reports first."""
    looked_at = until(lambda: own_stack.gateway.faults._looked_at, "its first look")
    until(lambda: own_stack.gateway.faults._looked_at > looked_at, "what it found to be told")
    assert ("region-down", "fra") not in faults(own_stack)
    monkeypatch.setattr(web.api.faults, "SILENT_MS", web.hub.faults.SILENT_MS)
    down = told(own_stack, "region-down", "fra")
    assert (down["severity"], down["message"]) == (
        "page",
        "no bridge and no worker is alive: nothing is heard of the region",
    )
    at = connect.redis_now_ms(own_stack.region.redis) + 50_000  # ahead, so that it stays young
    own_stack.region.say("fra", "workers", "here:2", at_ms=at, processes=2)
    reason = "its Redis refuses writes: OOM"
    said = {"at_ms": at, "state": "paused", "reason": reason, "fault": "region-redis-full"}
    own_stack.region.say("fra", "bridge", "here:1", **said)
    full = told(own_stack, "region-redis-full", "fra")
    assert (full["message"], full["part"]) == (f"its bridge is paused: {reason}", "redis-fra")
    is_over(own_stack, "region-down", "fra")
    view = ask(own_stack.port, "GET", "/v1/regions/fra").json()
    assert (view["status"], "region-redis-full" in view["faults"]) == ("degraded", True), view
    seen = until(lambda: {one["kind"]: one["message"] for one in events(own_stack, "fra")}.get("paused"), "the event")
    assert seen == f"its bridge is paused: {reason}"


def test_a_bridge_that_was_killed_is_told_before_its_last_report_is_old(own_stack, monkeypatch):
    """Its last report says that it consumes. RabbitMQ knows better."""
    monkeypatch.setattr(web.hub.faults, "SILENT_MS", 600_000)
    at = connect.redis_now_ms(own_stack.region.redis) + 50_000
    own_stack.region.say("fra", "bridge", "here:1", at_ms=at, state="consuming", reason="")
    own_stack.region.say("fra", "workers", "here:2", at_ms=at, processes=2)
    until(lambda: ask(own_stack.port, "GET", "/v1/regions/fra").json()["bridges"], "its report")
    consume(own_stack, "fra")
    until(
        lambda: own_stack.gateway.publisher.queued.get("fra") and own_stack.gateway.publisher.queued["fra"].consumers,
        "a look",
    )
    own_stack.region.connection.close()
    at = connect.redis_now_ms(own_stack.region.redis)
    own_stack.region.say("fra", "bridge", "here:1", at_ms=at, state="consuming", reason="")
    gone = told(own_stack, "region-bridge-away", "fra")
    assert gone["message"] == "no bridge is alive: RabbitMQ knows no consumer"
    assert ask(own_stack.port, "GET", "/v1/regions/fra").json()["bridges"] == []


def test_a_bridge_that_gets_nothing_although_messages_are_ready_is_told(own_stack):
    at = connect.redis_now_ms(own_stack.region.redis) + 50_000
    own_stack.region.say("fra", "bridge", "here:1", at_ms=at, state="consuming", reason="", unacked=0)
    consume(own_stack, "fra")  # it takes one message and holds it
    for _ in range(3):
        assert own_stack.post({"sources": [{"source": "demo.list", "params": {"category": "a"}}]}).status == 202
    said = "its bridge gets nothing: 2 messages are ready in RabbitMQ"
    until(lambda: told(own_stack, "region-bridge-idle", "fra")["message"] == said, "both messages to be told")
    own_stack.region.say("fra", "bridge", "here:1", at_ms=at + 1, state="consuming", reason="", unacked=1)
    is_over(own_stack, "region-bridge-idle", "fra")


def test_what_is_refused_is_logged_once_a_cause_and_then_counted(own_stack, hub_redis):
    """The gateway warns with its first 503; a hub without room is an error of its log, each time that it comes."""
    with GatewayProcess(own_stack) as other:
        until(lambda: '"fault":"region-down"' in other.said(), "it to look")
        hub_redis.client.config_set("maxmemory", 1)
        try:
            until(lambda: ask(other.port, "GET", "/readyz").status == 503, "it to be full")
            body = b'{"sources": ["demo.plain"]}'
            answers = [
                ask(other.port, "POST", "/v1/requests", {"Content-Type": "application/json"}, body) for _ in range(7)
            ]
            assert {one.status for one in answers} == {503}
            lines = other.said().splitlines()
            (refused,) = [line for line in lines if '"part":"refused"' in line]
            assert '"level":"warning"' in refused
            assert answers[0].json()["detail"] in refused
            until(lambda: '"fault":"hub-redis-full"' in other.said(), "the fault")
        finally:
            hub_redis.client.config_set("maxmemory", 0)
        until(lambda: '"event":"over: the hub' in other.said(), "its end")
        hub_redis.client.config_set("maxmemory", 1)
        try:
            told = until(lambda: (found := full_lines(other.said()))[2:] and found[:3], "the line of the second time")
        finally:
            hub_redis.client.config_set("maxmemory", 0)
        assert [one["level"] for one in told] == ["error", "info", "error"]
        assert not [one for one in told if "it began" in one["event"]]
        other.process.send_signal(signal.SIGTERM)
        other.process.wait(60)
        (again,) = [line for line in other.said().splitlines() if '"part":"refused"' in line and "repeated" in line]
        assert "; repeated 6 times" in again


def test_a_gateway_that_was_killed_is_told_by_another_one_and_one_that_stops_is_not(own_stack):
    """One that serves has said so at once: also one that ends a moment after its start has started."""
    with GatewayProcess(own_stack) as other:
        assert len(own_stack.hub.client.hgetall(names.GATEWAY_LIST)) == 2
        other.process.send_signal(signal.SIGTERM)
        other.process.wait(60)
    assert len(own_stack.hub.client.hgetall(names.GATEWAY_LIST)) == 1
    other.log.unlink()  # the next one's says when that serves
    with GatewayProcess(own_stack) as killed:
        until(lambda: len(own_stack.hub.client.hgetall(names.GATEWAY_LIST)) == 2, "both to be known")
        killed.process.kill()
        killed.process.wait(60)
        lost = told(own_stack, "gateway-away")
        assert lost["part"].endswith(f":{killed.port}")


def test_events_of_a_region_are_bounded(own_stack):
    key = names.region_events("fra")
    own_stack.hub.client.rpush(key, *(b'{"at_ms":1,"kind":"fault","message":"x"}' for _ in range(KEPT)))
    told(own_stack, "region-down", "fra")
    until(
        lambda: events(own_stack, "fra")[0]["kind"] == "fault" and events(own_stack, "fra")[0]["at"] > "2000",
        "an event",
    )
    assert own_stack.hub.client.llen(key) == KEPT == len(events(own_stack, "fra"))
    assert ask(own_stack.port, "GET", "/v1/regions/xyz/events").status == 404


@pytest.fixture
def frail_stack(tmp_path, own_rabbitmq, hub_redis, monkeypatch):
    """A gateway on a RabbitMQ that may be hurt, and whose hanging no heartbeat notices."""
    monkeypatch.setattr(connect, "HEARTBEAT_SECONDS", 600)
    made = Stack(tmp_path, own_rabbitmq, hub_redis, is_patient=False)
    yield made
    made.stop()


def test_a_broker_that_hangs_is_named_though_nobody_posts(frail_stack, own_rabbitmq):
    until(lambda: frail_stack.gateway.publisher.queued, "a look at its queues")
    group = own_rabbitmq.running.process.pid
    freeze(group)
    try:
        away = told(frail_stack, "rabbitmq-away")
        assert away["message"] == "RabbitMQ does not answer"
        problem = ask(frail_stack.port, "GET", "/readyz")
        assert (problem.status, problem.json()["detail"]) == (503, away["message"])
    finally:
        os.killpg(group, signal.SIGCONT)
    is_over(frail_stack, "rabbitmq-away")
    until(lambda: ask(frail_stack.port, "GET", "/readyz").status == 200, "it to be ready")


def test_a_full_queue_of_a_region_is_told_by_its_name(frail_stack, own_rabbitmq):
    broker.set_policy(
        own_rabbitmq, "full", f"^{names.work_queue('fra')}$", {"max-length": 1, "overflow": "reject-publish"}
    )
    try:
        body = {"sources": [{"source": "demo.list", "params": {"category": "a"}}]}
        until(lambda: frail_stack.post(body).status == 503, "the queue to be full")
        assert told(frail_stack, "region-queue-full", "fra")["message"].startswith("the broker refused the message")
    finally:
        broker.clear_policy(own_rabbitmq, "full")
    is_over(frail_stack, "region-queue-full", "fra")
