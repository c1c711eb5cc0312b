"""What a region's own credentials open at the broker: its two queues, to consume, and nothing else."""

import shlex

import pika
import pytest
from click.testing import CliRunner

from regions import connect, names, settings, topology
from scripts.cli import main
from scripts.commands import region_add
from scripts.stack import hub_acl
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
        method, _, _ = next(channel.consume(queue, inactivity_timeout=60))
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


@pytest.fixture
def printed():
    """The lines of ``nearfetch region add ams`` by place, with a password."""
    return {
        step.where: [line.replace(region_add.PASSWORD, "secret") for line in step.lines]
        for step in region_add.steps(settings.Settings(region={}), "ams")[:2]
    }


def test_the_printed_user_at_the_hub_has_just_the_rights_of_a_region(printed, hub_redis):
    line, _ = printed["hub's Redis"]
    words = shlex.split(line.replace("(", '"(').replace(")", ')"'))  # a bracket is one word for redis-cli, too
    hub_redis.client.execute_command(*words)
    assert hub_acl.shortfalls(hub_redis.client, "ams") == []
    with connect.open_redis(
        hub_redis.url.replace("//", "//region-ams:secret@"), name="ams", block_seconds=30.0
    ) as region:
        assert region.xadd(names.out_stream("ams"), {"k": "status"})
    hub_redis.client.acl_deluser(names.hub_user("ams"))


def test_the_printed_user_at_the_broker_consumes_its_queues_and_no_other(printed, broker):
    for line in printed["RabbitMQ"]:
        done = broker.ctl(*shlex.split(line)[1:], timeout_seconds=300)
        assert done.returncode == 0, done.stderr
    with pika.BlockingConnection(connect.amqp_parameters(broker.url, name="gateway")[0]) as connection:
        channel = connection.channel()
        for queue, exchange, key in topology.queues(["ams"]):
            channel.queue_declare(queue, durable=True, arguments=topology.QUORUM)
            channel.queue_bind(queue, exchange, key)
    url = broker.region_url("fra").replace("region-fra:one", "region-ams:secret")
    with pika.BlockingConnection(connect.amqp_parameters(url, name="region")[0]) as connection:
        assert connection.channel().queue_declare(names.work_queue("ams"), passive=True)
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            connection.channel().basic_get(names.work_queue("us-east"))


def test_a_region_that_would_be_the_first_is_told_to_take_sources_without_a_region(monkeypatch, tmp_path):
    monkeypatch.setenv("NEARFETCH__REGIONS__PATH", str(tmp_path))
    (tmp_path / "fra.toml").write_text('title = "fra"')
    first, last, wrong = (CliRunner().invoke(main, ["region", "add", name]) for name in ("ams", "sin", "hub"))
    assert "which will be ams" in first.output
    assert f"{tmp_path}/ams.toml" in first.output
    assert (last.exit_code, "will be" in last.output) == (0, False)
    assert wrong.exit_code == 2
