"""One client can't fill the hub, a queue of the broker, or another one's way: what its requests cost is counted in bytes."""

import json
import os

import pytest

from regions import connect, topology
from tests.service.gateway import JSON, LIST, Stack
from tests.service.hub_parts import new_request, settings
from tests.waiting import until
from tests.wire import ask
from web.hub.ledger import Ledger
from web.hub.redis import FULL_AT, Hub, HubFull

LONG = """
title  = "Takes long texts"
url    = 'https://long.example/{?q}'
region = "sin"
[params]
q = {max = 200000}
[rows]
css = "li"
[fields]
name = "b"
"""


@pytest.fixture
def stack(tmp_path, rabbitmq, hub_redis):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "demo.long.toml").write_text(LONG)
    path = f"{tmp_path / 'sources'}:{tmp_path / 'more'}"
    one = Stack(tmp_path, rabbitmq, hub_redis, NEARFETCH__SOURCES__PATH=path)
    one.region.purge()
    yield one
    one.region.purge()
    one.stop()


def used(client) -> int:
    return int(client.info("memory")["used_memory"])


def test_attrs_of_a_megabyte_are_refused_and_cost_the_hub_nothing(stack):
    before = used(stack.hub.client)
    body = json.dumps({"sources": ["demo.plain"], "attrs": {"a": "x" * 990_000}}).encode()
    for _ in range(220):
        reply = ask(stack.port, "POST", "/v1/requests", JSON, body)
        assert reply.status == 422
        assert reply.json()["errors"][0]["pointer"] == "/attrs"
    assert used(stack.hub.client) - before < 2_000_000
    assert ask(stack.port, "POST", "/v1/requests", JSON, b'{"sources": ["demo.plain"]}').status == 202


def test_large_params_fill_a_queue_to_its_bytes_and_nobody_elses(stack, rabbitmq):
    """A source may take long texts; then 100 kB a task, a hundred tasks a request, wait in its region's queue."""
    rabbitmq.set_policy("small", "^q.sin$", {**topology.POLICY, "max-length-bytes": 5_000_000})
    try:
        statuses = []

        def post():
            tasks = [{"source": "demo.long", "params": {"q": os.urandom(4_500).hex()}} for _ in range(100)]
            body = json.dumps({"sources": tasks}).encode()
            statuses.append(ask(stack.port, "POST", "/v1/requests", JSON, body).status)
            return statuses[-1] == 503

        until(post, "the queue to be full")
        assert set(statuses) <= {202, 503}
        assert 1 <= statuses.count(202) <= 10  # 2 MB each: its params, and the address that they make
        assert ask(stack.port, "POST", "/v1/requests", JSON, json.dumps({"sources": [LIST]}).encode()).status == 202
        assert used(stack.hub.client) < FULL_AT * 256_000_000
    finally:
        rabbitmq.clear_policy("small")


@pytest.mark.usefixtures("patient_clients")
def test_requests_between_two_looks_do_not_pass_the_hubs_mark(tmp_path, hub_redis):
    """The probe looks four times a second; here never again, as if all came within one moment."""
    found = settings(tmp_path, redis=hub_redis.url)
    hub = Hub(found)
    ledger = Ledger(hub.client, found.limits)
    limit = int((used(hub_redis.client) + 4_000_000) / FULL_AT)
    hub_redis.client.config_set("maxmemory", limit)
    hub.run_once()
    begun = 0
    while begun < 1_000 and admits(hub, new := new_request(("fra",) * 20)):
        ledger.begin(new)
        begun += 1
    assert 20 < begun < 1_000
    assert used(hub_redis.client) + 20 * begun * hub.mean_result_bytes("fra") < FULL_AT * limit + 200_000
    hub.run_once()  # the truth takes the estimate's place
    with pytest.raises(HubFull):
        hub.admit(["fra"] * 2_000, 0)
    hub_redis.client.config_set("maxmemory", "256mb")
    hub.run_once()
    hub.admit(["fra"] * 20, 0)
    hub.stop()


@pytest.mark.usefixtures("patient_clients")
def test_what_open_tasks_may_still_bring_fills_the_hub_before_they_bring_it(tmp_path, hub_redis):
    found = settings(tmp_path, redis=hub_redis.url)
    hub = Hub(found)
    ledger = Ledger(hub.client, found.limits)
    new = new_request(("fra", "nyc") * 50)
    ledger.begin(new)
    ledger.accept([new.id])
    hub.run_once()
    assert hub.state is None
    room = FULL_AT * connect_limit(hub_redis) - used(hub_redis.client)
    for _ in range(2_000):  # results have come that are as large as half of what there is room for each
        for region in ("fra", "nyc"):
            hub.observe(region, int(room / 50))
    hub.run_once()
    assert "what open tasks bring included" in (hub.state or "")
    for region in ("fra", "nyc"):
        hub_redis.client.delete(f"nf:open:{region}")
    hub.run_once()
    assert hub.state is None
    hub.stop()


def admits(hub, new) -> bool:
    try:
        hub.admit([task.region for task in new.tasks], len(new.attrs))
    except HubFull:
        return False
    return True


def connect_limit(hub_redis) -> int:
    return int(connect.open_redis(hub_redis.url, name="test", block_seconds=30.0).info("memory")["maxmemory"])
