"""Several hosts of a Redis, real ones: the first that is a master is used, and left when it is none any more or hangs."""

import signal
import time

import pytest
import redis

from jobs.queue.home import Home, open_hub
from regions import connect
from regions.link import Link
from tests.service import hub_parts
from tests.waiting import freeze, until
from web.hub.redis import Hub

BOUND_SECONDS = 16 * connect.TIMEOUT_SECONDS  # of which it needs four; a frozen host would be waited for without an end


@pytest.fixture
def pair(start_redis):
    """Two servers that know nothing of each other."""
    return start_redis("one"), start_redis("two")


@pytest.fixture
def both(pair):
    """A client of them as a list."""
    client = connect.open_redis(urls(pair), name="test")
    yield client
    client.close()


def urls(pair) -> str:
    return f"redis://127.0.0.1:{pair[0].port},127.0.0.1:{pair[1].port}/0"


def demote(one, to) -> None:
    one.client.replicaof("127.0.0.1", to.port)


def port(client) -> int:
    return client.info("server")["tcp_port"]


@pytest.mark.usefixtures("patient_clients")
def test_a_replica_is_passed_over(pair, both):
    demote(pair[0], pair[1])
    assert both.set("key", "value")
    assert pair[1].client.get("key") == b"value"


def test_a_frozen_host_is_passed_over_within_a_bound(pair, both):
    freeze(pair[0].running.process.pid)
    began = time.monotonic()
    try:
        assert both.ping()
        assert time.monotonic() - began < BOUND_SECONDS
        assert both.client_info()["name"] == "test"
    finally:
        pair[0].running.signal(signal.SIGCONT)


@pytest.mark.usefixtures("patient_clients")
def test_the_host_that_was_found_is_kept_for_further_connections(pair, both):
    demote(pair[0], pair[1])
    assert both.ping()
    pair[0].client.replicaof("NO", "ONE")
    connections = [both.connection_pool.get_connection() for _ in range(3)]
    assert {one.port for one in connections} == {pair[1].port}
    for one in connections:
        both.connection_pool.release(one)


@pytest.mark.usefixtures("patient_clients")
def test_a_host_that_becomes_a_replica_is_left_with_the_first_write_that_it_refuses(pair, both):
    assert both.set("key", 1)
    demote(pair[0], pair[1])
    with pytest.raises(redis.exceptions.ReadOnlyError):
        both.set("key", 2)
    assert both.set("key", 3)
    assert pair[1].client.get("key") == b"3"


@pytest.mark.usefixtures("patient_clients")
def test_a_link_to_a_host_that_becomes_a_replica_is_closed_and_leads_nowhere_else(pair, both):
    one = Link(both)
    demote(pair[0], pair[1])
    with pytest.raises(redis.exceptions.ReadOnlyError):
        one.one("SET", "key", 1)
    assert not one.is_open
    with pytest.raises(redis.exceptions.ConnectionError, match="lost"):
        one.one("PING")


def test_a_list_of_replicas_says_what_each_is(pair, both):
    for one in pair:
        one.client.replicaof("127.0.0.1", 1)
    with pytest.raises(redis.exceptions.ConnectionError) as caught:
        both.ping()
    assert all(f"127.0.0.1:{one.port} is a " in str(caught.value) for one in pair)


def test_the_time_out_of_a_blocking_client_is_not_that_of_the_greeting(pair):
    client = connect.open_redis(urls(pair), name="test", block_seconds=2.0)
    assert client.blpop(["nothing"], timeout=1) is None
    client.close()


@pytest.mark.usefixtures("patient_clients")
def test_a_gateway_goes_on_with_the_other_host_when_its_hub_is_demoted(pair, tmp_path):
    hub = Hub(hub_parts.settings(tmp_path, redis=urls(pair)))
    back = []
    hub.regained.append(lambda: back.append(port(hub.client)))
    hub.start()
    try:
        until(lambda: hub.state is None, "the hub")
        assert port(hub.client) == pair[0].port
        back.clear()
        demote(pair[0], pair[1])
        until(lambda: back[-1:] == [pair[1].port], "the other host")  # whoever waits reads again
        until(lambda: hub.state is None, "it to be used")
    finally:
        hub.stop()


@pytest.mark.usefixtures("patient_clients")
def test_a_region_finds_the_other_host_with_the_rights_that_it_has(start_redis, region_redis):
    from scripts.stack import hub_acl
    from tests.service.jobs.queue.test_outbox import left, outcome, stored
    from tests.service.working import REGION, post, results

    pair = [start_redis(name, users={"fra": ("secret", hub_acl.rules(REGION))}) for name in ("one", "two")]
    demote(pair[0], pair[1])
    home = Home(open_hub(urls(pair).replace("redis://", "redis://fra:secret@"), "w1"), REGION, region_redis.client)
    assert post(home, [stored(region_redis.client, outcome(1))])
    assert results(pair[1].client) == ["T1"]
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")
