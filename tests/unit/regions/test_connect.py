"""Connections: time-outs stand, retries do not, secrets stay out of sight, old servers are refused."""

import socket

import pytest
import redis

from regions import connect, topology
from scripts.stack import probes
from scripts.stack.services import Running, free_port, redis_server


def test_an_outage_is_an_error_after_one_try(monkeypatch):
    pauses = []
    monkeypatch.setattr("redis.retry.sleep", pauses.append)  # between two tries, as redis-py would make them by itself
    client = connect.open_redis(f"redis://127.0.0.1:{free_port()}/0", name="test")
    with pytest.raises(connect.AWAY):
        client.ping()
    assert pauses == []
    client.close()


def test_no_client_retries_by_itself():
    client = connect.open_redis("redis://127.0.0.1:1/0", name="test", block_seconds=3)
    options = client.connection_pool.connection_kwargs
    assert options["retry"].get_retries() == 0
    assert options["socket_timeout"] == 3 + connect.TIMEOUT_SECONDS
    assert options["socket_connect_timeout"] == connect.TIMEOUT_SECONDS
    client.close()


def test_the_next_host_is_taken_where_the_first_does_not_answer(tmp_path):
    port = free_port()
    running = Running(redis_server("second", tmp_path, port)).start()
    client = connect.open_redis(f"redis://127.0.0.1:{free_port()}/0,redis://127.0.0.1:{port}/0", name="test")
    assert client.ping()
    assert client.client_info()["name"] == "test"
    client.close()
    running.stop()


def test_a_connection_tells_its_name_before_its_first_command_and_nothing_else(tmp_path):
    """Each question more is a round trip, of a region to the hub across an ocean."""
    port = free_port()
    running = Running(redis_server("redis", tmp_path, port)).start()
    client = connect.open_redis(f"redis://127.0.0.1:{port}/0", name="test")
    client.config_resetstat()
    client.connection_pool.disconnect()
    client.ping()
    assert {name for name in client.info("commandstats") if "resetstat" not in name} == {
        "cmdstat_client|setname", "cmdstat_ping",
    }  # fmt: skip
    client.close()
    running.stop()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h:1/0", "redis://h:1/0"),
        ("amqp://u:p%40w@a:1/%2F,amqp://u:pw@b:2/%2F", "amqp://a:1/%2F,amqp://b:2/%2F"),
        ("redis://h:1/0", "redis://h:1/0"),
        ("rediss://user:p@ss@h:1/0", "rediss://h:1/0"),
        ("rediss://u:pw@h:1/0?ssl_password=pw&ssl_keyfile=k.pem", "rediss://h:1/0?ssl_password=***&ssl_keyfile=k.pem"),
        ("mongodb://a,b:2/?tlsCertificateKeyFilePassword=pw", "mongodb://a,b:2/?tlsCertificateKeyFilePassword=***"),
    ],
)
def test_a_shown_url_has_no_credentials(url, shown):
    assert connect.without_password(url) == shown


def test_every_host_of_a_broker_gets_heartbeats_and_a_bound_on_blocking():
    found = connect.amqp_parameters("amqp://a:1/%2F,amqp://b:2/%2F", name="x")
    assert [(one.host, one.port) for one in found] == [("a", 1), ("b", 2)]
    assert {one.heartbeat for one in found} == {connect.HEARTBEAT_SECONDS}
    assert {one.blocked_connection_timeout for one in found} == {connect.BLOCKED_SECONDS}


class OldRedis(redis.Redis):
    def info(self, *_):
        return {"redis_version": "7.0.15"}


def test_servers_below_the_floor_are_refused_with_both_versions():
    with pytest.raises(connect.TooOld, match=r"expected Redis 7\.2 or later, found 7\.0\.15"):
        connect.check_redis(OldRedis(), "hub")
    with pytest.raises(connect.TooOld, match=r"expected RabbitMQ 4\.0 or later, found 3\.12\.1"):
        connect.check_rabbitmq({"version": b"3.12.1"})
    connect.check_rabbitmq({"version": "4.0.5"})


def test_each_region_has_a_work_queue_and_a_fast_lane():
    assert topology.queues(["fra"]) == [
        ("q.dead", "x.dead", ""),
        ("q.fra", "x.tasks", "fra"),
        ("q.fra.now", "x.tasks", "fra.now"),
    ]


def test_who_lost_a_server_together_comes_back_spread_and_within_two_seconds():
    """Ten thousand clients after each number of failures: never at once, never later than 2 s, spread over all of it."""
    for failures in (1, 2, 5, 50, 10_000):
        waits = [connect.backoff_seconds(failures) for _ in range(10_000)]
        assert 0 < min(waits) < max(waits) <= 2.0
    busiest = max(sum(start <= wait < start + 0.1 for wait in waits) for start in (n / 10 for n in range(20)))
    assert busiest < 1000
    assert max(connect.backoff_seconds(1) for _ in range(1000)) <= 0.1


def test_a_broker_that_says_nothing_is_told_from_one_that_is_not_there():
    """pika raises for it what is none of its AMQPErrors."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        said = probes.broker(f"amqp://who:ever@127.0.0.1:{port}/")()
    assert said == f"expected AMQP at 127.0.0.1:{port}, found a server that accepts connections and sends nothing"
    assert "refused" in (probes.broker(f"amqp://who:ever@127.0.0.1:{free_port()}/")() or "")
