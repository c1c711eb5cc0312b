"""``/metrics`` of a gateway: what it did is counted once, by whoever did it. A real gateway; the test plays the region."""

import json
import signal

import pytest

from jobs.contract import Error, Run
from regions import names
from tests.scraping import Scrape
from tests.service.gateway import JSON, LIST, GatewayProcess, Stack
from tests.service.web.api.test_keys import Keyed
from tests.waiting import until
from tests.wire import Wire, ask

PLAIN = {"sources": ["demo.plain"]}


def run(source: str, **changes) -> Run:
    known = {"raw_bytes": 1_000, "received_bytes": 400, "records_bytes": 90, "wire_bytes": 50}
    return Run(source=source, definition="d", **{**known, **changes})


def ended(stack: Stack, request: str):
    return until(
        lambda: ask(stack.port, "GET", f"/v1/requests/{request}?wait=60").json()["done"], "the request to be done"
    )


def test_what_a_gateway_does_is_counted(own_stack: Stack) -> None:
    stack, own = own_stack, own_stack.region
    before = Scrape(stack.port)
    assert before.get("results_total") is None
    assert (before.get("hub_redis_up"), before.get("rabbitmq_up")) == (1, 1)
    first = stack.post({"sources": ["demo.plain", LIST]}).json()["id"]
    own.finish(own.take("nyc"), run=run("demo.plain"))
    own.finish(
        own.take("fra"),
        error=Error(type="http_status", message="no", origin="target"),
        run=run("demo.list", error="http_status", origin="target"),
    )
    ended(stack, first)
    with Wire(stack.port) as wire:
        wire.send("POST", "/v1/requests", {**JSON, "Prefer": "wait=20"}, json.dumps(PLAIN).encode())
        task = own.take("nyc", fast=True)
        state = names.ledger(task.request)  # a result that overtakes its accept is answered later, by another way
        until(lambda: own.redis.hget(state, "state") == b"accepted", "the accept")
        own.finish(task, run=run("demo.plain"))
        assert wire.reply().status == 200
    cancelled = stack.post(PLAIN).json()["id"]
    own.take("nyc")
    ask(stack.port, "DELETE", f"/v1/requests/{cancelled}")
    counted = {"route": "DELETE /v1/requests/{request}", "code": "200"}

    def all_of_it() -> Scrape | None:
        """Calls and settlements are counted a moment after their answers."""
        told = Scrape(stack.port)
        calls = sum(
            told.get("http_request_seconds_count", route="POST /v1/requests", code=code) or 0 for code in ("202", "200")
        )
        hops = told.hops() if told.get("task_seconds_count") == 4 else {}
        is_told = told.get("http_request_seconds_count", **counted) and calls >= 3 and hops.get("answer")
        return told if is_told and (hops["settle"], told.get("region_open_tasks", region="nyc")) == (3, 0) else None

    found = until(all_of_it, "the last call and the last task to be counted")
    assert found.get("requests_total", outcome="accepted") == 3
    assert found.get("results_total", source="demo.plain", region="nyc", status="succeeded", origin="") == 2
    assert found.get("results_total", source="demo.list", region="fra", status="failed", origin="target") == 1
    assert found.get("results_total", source="demo.plain", region="nyc", status="cancelled", origin="policy") == 1
    assert found.get("results_total") == 4
    assert found.get("source_bytes_total", source="demo.plain", bytes="raw") == 2_000
    assert found.get("source_bytes_total", source="demo.list", bytes="home") == 50
    assert found.get("task_seconds_count") == 4
    hops = found.hops()
    assert (hops["accept"], hops["settle"], hops["answer"]) == (3, 3, 1)
    assert hops["publish"] >= 4  # and the cancel
    assert found.get("http_request_seconds_count", route="POST /v1/requests", code="202") == 2
    assert found.get("http_request_seconds_count", route="POST /v1/requests", code="200") == 1
    assert found.get("http_request_seconds_count", **counted) == 1
    assert found.get("region_open_tasks", region="nyc") == 0


def test_calls_of_paths_that_there_are_not_are_one_series(own_stack: Stack) -> None:
    for number in range(20):
        ask(own_stack.port, "GET", f"/nothing/{number}")
    told = {"route": "", "code": "404"}
    until(lambda: (Scrape(own_stack.port).get("http_request_seconds_count", **told) or 0) >= 20, "the last one")
    assert Scrape(own_stack.port).get("http_request_seconds_count", **told) == 20


def test_a_result_that_is_read_twice_counts_once(own_stack: Stack) -> None:
    request = own_stack.post(PLAIN).json()["id"]
    task = own_stack.region.take("nyc")
    for _ in range(3):
        own_stack.region.finish(task, run=run("demo.plain"))
    ended(own_stack, request)
    last = own_stack.post(PLAIN).json()["id"]  # all before it were read
    own_stack.region.finish(own_stack.region.take("nyc"), run=run("demo.plain"))
    ended(own_stack, last)
    until(lambda: (Scrape(own_stack.port).get("results_total", source="demo.plain") or 0) >= 2, "both to be counted")
    assert Scrape(own_stack.port).get("results_total", source="demo.plain") == 2


def test_tasks_of_several_gateways_add_up_and_what_they_know_is_the_same(own_stack: Stack) -> None:
    """Each task counts at the one gateway that ended it; gauges of the region are equal."""
    with GatewayProcess(own_stack) as other:
        requests = []
        for number in range(20):
            port = own_stack.port if number % 2 else other.port
            requests.append(ask(port, "POST", "/v1/requests", JSON, json.dumps(PLAIN).encode()).json()["id"])
            own_stack.region.finish(own_stack.region.take("nyc"), run=run("demo.plain"))
        for request in requests:
            ended(own_stack, request)

        def scraped() -> list[Scrape] | None:
            both = [Scrape(own_stack.port), Scrape(other.port)]
            counts = [sum(one.get(name, **of) or 0 for one in both) for name, of in totals]
            is_over = [one.get("region_open_tasks", region="nyc") for one in both] == [0, 0]
            return both if min(counts) >= 20 and is_over else None

        totals = (("results_total", {"source": "demo.plain"}), ("requests_total", {"outcome": "accepted"}))
        scrapes = until(scraped, "all to be counted")
        assert sum(one.get("results_total", source="demo.plain") or 0 for one in scrapes) == 20
        assert sum(one.get("requests_total", outcome="accepted") or 0 for one in scrapes) == 20
        assert [one.get("requests_total", outcome="accepted") for one in scrapes] == [10, 10]


@pytest.mark.usefixtures("hangs")
def test_a_scrape_is_answered_while_the_hub_hangs(own_stack: Stack) -> None:
    own_stack.hub.running.signal(signal.SIGSTOP)
    try:
        until(lambda: ask(own_stack.port, "GET", "/readyz").status == 503, "the gateway to see it")
        found = Scrape(own_stack.port)
        assert found.get("hub_redis_up") == 0
        assert found.seconds < 20  # a time-out is 0.5 s, and later calls are refused at once
        until(
            lambda: Scrape(own_stack.port).get("fault", name="hub-redis-away", severity="page") == 1,
            "the fault to be told",
        )
    finally:
        own_stack.hub.running.signal(signal.SIGCONT)
    until(lambda: Scrape(own_stack.port).get("hub_redis_up") == 1, "the hub to be back")
    until(lambda: Scrape(own_stack.port).get("fault", name="hub-redis-away") is None, "the fault to be over")


def test_with_keys_only_an_admin_may_scrape(tmp_path, rabbitmq, hub_redis) -> None:
    keyed = Keyed(tmp_path, rabbitmq, hub_redis)
    try:
        reader, admin = keyed.key("shop", "read", "submit"), keyed.key("ops", "admin")
        assert ask(keyed.port, "GET", "/metrics").status == 401
        assert keyed.ask(reader, "GET", "/metrics").status == 403
        assert Scrape(keyed.port, {"Authorization": f"Bearer {admin}"}).get("hub_redis_up") == 1
    finally:
        keyed.stop()


@pytest.mark.parametrize("query", ["?name[]=up", "?x=1"])
def test_a_scrape_takes_no_query(own_stack: Stack, query: str) -> None:
    assert ask(own_stack.port, "GET", f"/metrics{query}").status == 400
