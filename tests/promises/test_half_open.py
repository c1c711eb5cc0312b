"""Half-open connections: the other end is gone without a word, as where a machine in between forgot them.

Neither end is told, and what either sends is lost; new connections pass. Whoever has such a connection notices within 10 s.
"""

import json
import threading
import time

import pika
import pytest

from regions import connect, names
from scripts.chaos.stack import source
from tests.ledger import GONE
from tests.promises.driving import Ledger
from tests.service.conftest import rabbitmq
from tests.service.gateway import JSON, LIST, GatewayProcess
from tests.service.scripts.test_slow_servers import slow_stack
from tests.waiting import until
from tests.wire import ask

__all__ = ["rabbitmq", "slow_stack"]

NOTICED_SECONDS = 30.0  # promised are 10, on a machine that has nothing else to do; whoever does not notice does so in a minute or more
REGION = "fra"
LINKS = [
    ("gateway", "hub"), ("gateway", "rabbitmq"), ("gateway", "store"),
    ("bridge", "rabbitmq"), ("bridge", "hub"), ("bridge", "redis"), ("workers", "hub"), ("workers", "redis"),
]  # fmt: skip


@pytest.fixture
def ledger(stack):
    """One task of the region has ended: every connection has been used."""
    made = Ledger(stack)
    made.results(made.must_post([REGION]))
    began = time.monotonic()
    until(lambda: is_served(stack, next(made.numbers)), "a task to end")
    made.calm_seconds = time.monotonic() - began
    return made


def name(part: str, server: str) -> str:
    """The link of a part, by what it and its server are."""
    return f"{part if part == 'gateway' else f'{part}-{REGION}'}>{f'redis-{REGION}' if server == 'redis' else server}"


def is_served(stack, number: int) -> bool:
    """Whether a task of the region comes to its end while its client waits."""
    try:
        return ask(stack.port, "GET", f"/v1/sources/{source(REGION)}/records?n={number}&wait=1").status == 200
    except GONE:
        return False


@pytest.mark.parametrize(("part", "server"), LINKS)
def test_tasks_end_again_within_ten_seconds_and_none_is_lost(stack, ledger, part, server):
    link = name(part, server)
    began = time.monotonic()
    stack.control.cut(link, "silence")
    try:
        request = ledger.post([REGION])  # it may be refused: then nothing was promised
        until(lambda: is_served(stack, next(ledger.numbers)), "a task to end", NOTICED_SECONDS + ledger.calm_seconds)
        if request is not None:
            ledger.results(request, NOTICED_SECONDS + ledger.calm_seconds)
        print(f"{link}: {time.monotonic() - began:.1f} s")
        ledger.must_post([REGION] * 20)
        ledger.check(fetches=2)
    finally:
        stack.control.heal(link)


def subscribers(client, channel: str) -> int:
    return client.pubsub_numsub(channel)[0][1]


def test_commands_to_a_worker_are_heard_again(stack, ledger):
    """RQ's stop and shutdown come by a subscription, which never sends anything by itself."""
    client = stack.redis(f"redis-{REGION}")
    workers = [names.worker_of(key.decode()) for key in client.smembers(names.RQ_WORKERS)]
    channels = [f"rq:pubsub:{worker}" for worker in workers]
    until(lambda: all(subscribers(client, channel) for channel in channels), "the subscriptions")
    before = [subscribers(client, channel) for channel in channels]
    link = name("workers", "redis")
    stack.control.cut(link, "silence")
    try:
        until(  # the old ones are still there, since nobody told the Redis
            lambda: [subscribers(client, channel) for channel in channels] == [one + 1 for one in before],
            "new subscriptions",
            NOTICED_SECONDS,
        )
    finally:
        stack.control.heal(link)


def test_dead_letters_are_read_again(stack, ledger):
    link = name("gateway", "rabbitmq")
    stack.control.cut(link, "silence")
    kept = stack.redis("hub").zcard(names.DEAD_AT)
    try:
        with pika.BlockingConnection(
            connect.amqp_parameters(stack.server_url("rabbitmq"), name="test")[0]
        ) as connection:
            connection.channel().basic_publish(names.DEAD_EXCHANGE, "", b"garbage")
        # What RabbitMQ sent to the lost consumer it gives to the next one when it notices itself.
        until(lambda: stack.redis("hub").zcard(names.DEAD_AT) > kept, "the letter", NOTICED_SECONDS + 10.0)
    finally:
        stack.control.heal(link)


def test_a_synchronous_call_that_another_gateway_settles_wakes_within_ten_seconds(slow_stack, rabbitmq, hub_redis):
    """The gateway's own reader stands still, so that it hears of the end by its subscription alone."""
    stack = slow_stack.stack
    straight = {"NEARFETCH__HUB__REDIS": hub_redis.url, "NEARFETCH__HUB__AMQP": rabbitmq.url}
    answers = []
    with GatewayProcess(stack, **straight):
        stack.gateway.settler.stop()
        until(lambda: subscribers(hub_redis.client, names.WAKE) == 2, "both to listen")
        regained = threading.Event()
        stack.gateway.hub.regained.append(regained.set)
        slow_stack.control.cut("hub", "silence")
        assert regained.wait(60)  # whoever waited has looked again: only the subscription tells from now on
        body = json.dumps({"sources": [LIST]}).encode()
        waiting = threading.Thread(
            target=lambda: answers.append(ask(stack.port, "POST", "/v1/requests", {**JSON, "Prefer": "wait=50"}, body))
        )
        waiting.start()
        stack.region.finish(stack.region.take("fra", fast=True))
        ended = time.monotonic()
        waiting.join(60)
        took = time.monotonic() - ended
    print(f"woken after {took:.1f} s")
    assert answers[0].status == 200
    assert answers[0].json()["status"] == "succeeded"
    assert took < NOTICED_SECONDS
