"""What a region's own credentials open at the broker: its two queues, to consume, and nothing else."""

import pika
import pytest

from regions import connect, names, topology
from tests.waiting import until


@pytest.fixture(scope="module")
def broker(own_rabbitmq):
    """A node as ``scripts/up`` configures it, with what a gateway declares."""
    with pika.BlockingConnection(connect.amqp_parameters(own_rabbitmq.url, name="gateway")[0]) as connection:
        channel = connection.channel()
        for exchange, kind in topology.exchanges():
            channel.exchange_declare(exchange, kind, durable=True)
        for queue, exchange, key in topology.queues(["fra", "us-east"]):
            channel.queue_declare(queue, durable=True, arguments=topology.QUORUM)
            channel.queue_bind(queue, exchange, key)
    return own_rabbitmq


@pytest.fixture
def region(broker):
    with pika.BlockingConnection(connect.amqp_parameters(broker.region_url("fra"), name="region")[0]) as connection:
        yield connection


@pytest.mark.parametrize("queue", [names.work_queue("fra"), names.fast_queue("fra")])
def test_a_region_consumes_its_own_queues_and_rejects_what_it_can_not_read(broker, region, queue):
    with pika.BlockingConnection(connect.amqp_parameters(broker.url, name="gateway")[0]) as connection:
        owner = connection.channel()
        owner.confirm_delivery()
        owner.queue_purge(names.DEAD_QUEUE)
        owner.basic_publish("", queue, b"x")
        channel = region.channel()
        assert channel.queue_declare(queue, passive=True).method.queue == queue
        method, _, _ = next(channel.consume(queue, inactivity_timeout=10))
        channel.basic_reject(method.delivery_tag, requeue=False)
        until(lambda: owner.basic_get(names.DEAD_QUEUE)[0] is not None, "the letter in the dead queue")


@pytest.mark.parametrize(
    "attack",
    [
        lambda channel: channel.basic_consume(names.work_queue("us-east"), lambda *_: None),
        lambda channel: channel.basic_get(names.DEAD_QUEUE),
        lambda channel: channel.queue_purge(names.work_queue("us-east")),
        lambda channel: channel.queue_delete(names.work_queue("fra")),
        lambda channel: channel.queue_declare("q.mine"),
        lambda channel: channel.exchange_declare("x.mine", "fanout"),
        lambda channel: channel.queue_bind(names.work_queue("fra"), names.TASKS_EXCHANGE, "us-east"),
        lambda channel: _published(channel, names.TASKS_EXCHANGE, "us-east"),
        lambda channel: _published(channel, "", names.work_queue("us-east")),
        lambda channel: _published(channel, names.DEAD_EXCHANGE, ""),
    ],
)
def test_a_region_reaches_no_queue_of_another_and_publishes_nothing(region, attack):
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
        attack(region.channel())


def _published(channel, exchange: str, key: str) -> None:
    channel.confirm_delivery()
    channel.basic_publish(exchange, key, b"forged")
