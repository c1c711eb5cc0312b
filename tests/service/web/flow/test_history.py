"""The history: every finished request reaches it, through outages, and answers for those that left Redis."""

import contextlib
import json
import signal
import threading
from typing import Any, cast

import pymongo
import pytest
import ulid

from jobs import contract, result_frame
from regions import connect, names
from scripts.stack.ports import free_port
from scripts.stack.services import Running, document_store
from tests.service.conftest import RedisInstance
from tests.service.gateway import JSON, LIST, GatewayProcess, Stack
from tests.service.hub_parts import settings
from tests.waiting import freeze, states, until
from tests.wire import Wire, ask, events
from web.api.recall import THREADS
from web.flow import archive, history
from web.flow.archive import Archiver
from web.hub import keys
from web.hub.ledger import Ledger
from web.hub.redis import Hub


class Store:
    """A running document store, and a client of it."""

    def __init__(self, folder) -> None:
        self.port = free_port()
        self.url = f"mongodb://127.0.0.1:{self.port}/"
        self.running = Running(document_store(folder, self.port)).start()
        self.client = connect.open_mongo(self.url, name="test")
        self.database = self.client[names.DATABASE]

    def has(self, request: str) -> bool:
        """Not while it is away, nor before its client knows that it is back."""
        with contextlib.suppress(pymongo.errors.PyMongoError):
            return self.database[names.REQUESTS_COLLECTION].find_one({"_id": request}) is not None
        return False

    def stop(self) -> None:
        self.client.close()
        self.running.stop()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    yield store
    store.stop()


@pytest.fixture(scope="module")
def stack(tmp_path_factory, rabbitmq, store):
    """A gateway with a history; its tests leave the store as they found it, but for more requests."""
    folder = tmp_path_factory.mktemp("stack")
    hub = RedisInstance(folder, "hub")
    stack = Stack(folder, rabbitmq, hub, NEARFETCH__HUB__MONGO=store.url)
    yield stack
    stack.stop()
    hub.stop()


@pytest.fixture(autouse=True)
def _busy_store_is_not_away(request, monkeypatch) -> None:
    if "hub_redis" not in request.fixturenames:  # whose tests hurt their store
        monkeypatch.setattr(history, "READ_SECONDS", 30.0)


def finished(stack, *sources, records: bytes = b'[{"name":"a"}]') -> dict:
    """A request whose tasks succeeded, as a poll tells it."""
    promised = stack.post({"sources": list(sources), "attrs": {"n": 1}}).json()
    for task in promised["tasks"]:
        stack.region.finish(stack.region.take(task["region"]), records)
    path = f"/v1/requests/{promised['id']}"
    return until(lambda: (found := ask(stack.port, "GET", path).json())["done"] and found, "the end")


def lose(stack, request: str) -> None:
    """Redis forgets a request, as when its time is over."""
    keys = [names.ledger(request), names.events(request)]
    stack.hub.client.delete(*keys)


def listed(stack, query: str = "") -> dict:
    reply = ask(stack.port, "GET", f"/v1/requests{query}")
    assert reply.status == 200, reply.body
    return reply.json()


def test_a_request_that_left_redis_is_answered_as_before(stack, store):
    request = finished(stack, "demo.plain", LIST)
    until(lambda: store.has(request["id"]), "the request in the history")
    lose(stack, request["id"])
    path = f"/v1/requests/{request['id']}"
    assert ask(stack.port, "GET", path).json() == request
    assert ask(stack.port, "GET", f"{path}?wait=5").json() == request
    assert ask(stack.port, "DELETE", path).json() == request
    after = ask(stack.port, "GET", f"{path}?after={request['cursor']}").json()
    assert (after["results"], after["cursor"], after["done"]) == ([], request["cursor"], True)


def test_a_request_that_left_redis_shows_its_webhook_as_long_as_the_hub_knows_it(stack, store):
    webhook = {"url": "https://shop.example/hook", "secret": "whsec_" + "A" * 32}
    promised = stack.post({"sources": ["demo.plain"], "webhook": webhook}).json()
    stack.region.finish(stack.region.take("nyc"))
    until(lambda: store.has(promised["id"]), "the request in the history")
    lose(stack, promised["id"])
    path = f"/v1/requests/{promised['id']}"
    found = until(
        lambda: (told := ask(stack.port, "GET", path).json())["webhook"]["state"] == "due" and told, "the end"
    )
    assert found["webhook"]["url"] == webhook["url"]
    assert webhook["secret"] not in json.dumps(found)
    stack.hub.client.delete(names.webhook(promised["id"]))
    assert "webhook" not in ask(stack.port, "GET", path).json()
    assert "webhook" not in json.dumps(
        store.database[names.REQUESTS_COLLECTION].find_one({"_id": promised["id"]}), default=str
    )


def test_a_request_that_is_refused_after_all_leaves_the_history_and_is_never_read(stack, store):
    """Its accept got through after its client was answered 503, and it was done and archived before its refusal."""
    request = finished(stack, "demo.plain", LIST)
    until(lambda: store.has(request["id"]), "the request in the history")
    tasks = [(task["id"], task["region"]) for task in request["tasks"]]
    stack.gateway.ledger.refuse(request["id"], tasks)
    path = f"/v1/requests/{request['id']}"
    assert [ask(stack.port, "GET", each).status for each in (path, f"{path}?wait=1", f"{path}/events")] == [404] * 3
    until(lambda: not store.has(request["id"]), "it to leave the history")
    kept = store.database[names.RESULTS_COLLECTION]
    until(lambda: kept.find_one({"_id": f"{request['id']}/0"}) is None, "its results to leave it, too")
    until(lambda: not stack.hub.client.zcard(names.ARCHIVE), "nothing to be left to do")
    lose(stack, request["id"])
    assert ask(stack.port, "GET", path).status == 404


def test_a_request_that_a_kept_result_answered_is_kept_too(stack, store):
    """As a copy: what it was made of may be gone by then."""
    promised = stack.post({"sources": [LIST]}).json()
    task = stack.region.take("fra")
    now = contract.rfc3339(connect.redis_now_ms(stack.region.redis))
    stack.region.finish(task, fetched_at=now, definition=task.definition)
    path = f"/v1/requests/{promised['id']}?wait=60"
    assert ask(stack.port, "GET", path).json()["done"]
    request = stack.post({"sources": [LIST], "max_age": 3600}).json()
    assert (request["done"], request["results"][0]["cached"]) == (True, True)
    until(lambda: store.has(request["id"]), "the request in the history")
    lose(stack, request["id"])
    assert ask(stack.port, "GET", f"/v1/requests/{request['id']}").json() == request


def test_its_events_can_still_be_read(stack, store):
    request = finished(stack, "demo.plain", LIST)
    until(lambda: store.has(request["id"]), "the request in the history")
    lose(stack, request["id"])
    found = list(events(stack.port, f"/v1/requests/{request['id']}/events"))
    assert [event.name for event in found] == ["result", "result", "done"]
    assert [event.data for event in found[:2]] == request["results"]
    assert found[2].data["status"] == "succeeded"


def test_finished_requests_are_found_by_what_was_asked_and_where(stack, store):
    plain, both = finished(stack, "demo.plain"), finished(stack, "demo.plain", LIST)
    until(lambda: store.has(plain["id"]) and store.has(both["id"]), "the requests in the history")
    found = listed(stack, f"?source=demo.list&region=fra&status=succeeded&since={both['created_at']}")
    assert found["cursor"] is None
    assert found["requests"] == [{key: value for key, value in both.items() if key != "results"}]
    known = [one["id"] for one in listed(stack, "?source=demo.plain")["requests"]]
    assert known.index(both["id"]) < known.index(plain["id"]), "latest first"
    assert not listed(stack, "?status=failed")["requests"]
    assert not listed(stack, "?source=no.such")["requests"]


def test_requests_that_run_are_listed_before_and_after_their_end(stack, store):
    """Each once, wherever it is, in the order of their ids."""
    stack.region.purge()
    ended = finished(stack, LIST)
    promised = [stack.post({"sources": ["demo.plain", LIST]}).json() for _ in range(3)]
    tasks = [stack.region.take("nyc") for _ in promised] + [stack.region.take("fra") for _ in promised]
    ids = [one["id"] for one in promised]
    assert [one["id"] for one in listed(stack, "?status=running")["requests"]] == ids[::-1]
    found = listed(stack, "?limit=4")["requests"]
    assert [(one["id"], one["status"]) for one in found[:3]] == [(one, "running") for one in ids[::-1]]
    assert found[3]["id"] == ended["id"]
    assert found[0]["tasks"] == promised[-1]["tasks"]
    first = listed(stack, "?status=running&limit=2&source=demo.plain&region=fra")
    assert [one["id"] for one in first["requests"]] == [ids[2], ids[1]]
    rest = listed(stack, f"?status=running&limit=2&cursor={first['cursor'].lower()}")
    assert ([one["id"] for one in rest["requests"]], rest["cursor"]) == ([ids[0]], None)
    for query in ("source=no.such", "region=sin", "since=2100-01-01T00:00:00Z"):
        assert listed(stack, f"?status=running&{query}")["requests"] == []
    for task in tasks:
        stack.region.finish(task)

    def is_listed_once() -> bool:
        found = [one for one in listed(stack, "?limit=200")["requests"] if one["id"] in ids]
        assert [one["id"] for one in found] == ids[::-1], "in between, none may be missing"
        return {one["status"] for one in found} == {"succeeded"} and all(map(store.has, ids))

    until(is_listed_once, "all of them in the history")
    assert listed(stack, "?status=running")["requests"] == []
    until(lambda: not stack.hub.client.zcard(names.LISTED), "the history to list all of them")


def test_requests_that_were_refused_or_are_gone_are_not_listed(stack):
    stack.region.purge()
    refused, lost = (stack.post({"sources": ["demo.plain"]}).json() for _ in range(2))
    stack.gateway.ledger.refuse(refused["id"], [(task["id"], task["region"]) for task in refused["tasks"]])
    lose(stack, lost["id"])
    assert listed(stack, "?status=running")["requests"] == []
    assert not stack.hub.client.zcard(names.LISTED)
    stack.region.purge()


def test_a_trace_is_kept_with_the_request(stack, store):
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
    promised = stack.post({"sources": ["demo.plain"]}, {**JSON, "traceparent": traceparent}).json()
    stack.region.finish(stack.region.take("nyc"))
    until(lambda: store.has(promised["id"]), "the request in the history")
    path = f"/v1/requests/{promised['id']}"
    before = ask(stack.port, "GET", path).json()
    lose(stack, promised["id"])
    assert ask(stack.port, "GET", path).json() == before
    assert before["results"][0]["traceparent"] == before["traceparent"] == traceparent


def test_long_lists_come_in_pages_without_a_gap_or_a_repeat(stack, store):
    wanted = [str(ulid.ULID()) for _ in range(120)]
    found = finished(stack, "demo.plain")
    until(lambda: store.has(found["id"]), "the request in the history")
    requests = store.database[names.REQUESTS_COLLECTION]
    document = requests.find_one({"_id": found["id"]})
    requests.insert_many({**document, "_id": one, "sources": ["many"]} for one in wanted)
    seen, query = [], "?source=many"
    while True:
        page = listed(stack, query)
        seen += [one["id"] for one in page["requests"]]
        if page["cursor"] is None:
            break
        query = f"?source=many&cursor={page['cursor']}"
    assert seen == sorted(wanted, reverse=True)


@pytest.mark.parametrize(
    "query",
    [
        "status=walking",
        "since=soon",
        "cursor=1-1",
        "sauce=a",
        "source=a&source=b",
        "source=%ff",
        "since=0001-01-01T00:00:00%2B00:01",
        "since=9999-12-31T23:59:59-00:01",
    ],
)
def test_what_can_not_be_looked_for_is_a_400(stack, query):
    assert ask(stack.port, "GET", f"/v1/requests?{query}").status == 400


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00Z", "1969-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_any_time_can_be_looked_from(stack, store, since):
    request = finished(stack, "demo.plain")
    until(lambda: store.has(request["id"]), "the request in the history")
    found = [one["id"] for one in listed(stack, f"?since={since}")["requests"]]
    assert (request["id"] in found) == (not since.startswith("9999"))


def test_results_that_do_not_fit_into_one_document_come_back_in_their_order(stack, store, monkeypatch):
    monkeypatch.setattr(history, "PART_BYTES", 1)
    request = finished(stack, "demo.plain", LIST, "demo.plain")
    until(lambda: store.has(request["id"]), "the request in the history")
    parts = [store.database[names.RESULTS_COLLECTION].find_one({"_id": f"{request['id']}/{n}"}) for n in range(4)]
    assert [part and len(part["results"]) for part in parts] == [1, 1, 1, None]
    lose(stack, request["id"])
    assert ask(stack.port, "GET", f"/v1/requests/{request['id']}").json() == request


def test_a_large_request_is_read_for_the_history_a_piece_at_a_time(stack, store, monkeypatch):
    """The hub answers nobody while it reads, and a request may have 50 MB."""
    monkeypatch.setattr(archive, "READ_BYTES", 2_000)
    real, reads = stack.gateway.ledger.read_many, []

    def noted(asked, *arguments, **options):
        found = real(asked, *arguments, **options)
        if options.get("spliced") is False:
            reads.append(max(len(view.results) for view in found[0]))
        return found

    monkeypatch.setattr(stack.gateway.ledger, "read_many", noted)
    request = finished(stack, *["demo.plain"] * 5, records=b'[{"name":"%b"}]' % (b"x" * 1_500))
    until(lambda: store.has(request["id"]), "the request in the history")
    until(lambda: not stack.hub.client.zcard(names.ARCHIVE), "nothing left to archive")
    assert (max(reads), sum(reads)) == (1, 5)
    lose(stack, request["id"])
    assert ask(stack.port, "GET", f"/v1/requests/{request['id']}").json() == request


def test_a_request_that_expires_while_it_is_read_for_the_history_is_given_up(stack, store, monkeypatch, capfd):
    monkeypatch.setattr(archive, "READ_BYTES", 2_000)
    real, has_ended = stack.gateway.archiver._whole, threading.Event()

    def late(view):
        assert has_ended.wait(60)
        lose(stack, view.id)
        return real(view)

    monkeypatch.setattr(stack.gateway.archiver, "_whole", late)
    request = finished(stack, *["demo.plain"] * 3, records=b'[{"name":"%b"}]' % (b"x" * 1_500))
    has_ended.set()
    until(lambda: not stack.hub.client.zcard(names.ARCHIVE), "nothing left to archive")
    assert not store.has(request["id"])
    assert "expired before it was archived" in capfd.readouterr().out


def test_an_unknown_request_is_still_unknown(stack):
    assert ask(stack.port, "GET", f"/v1/requests/{ulid.ULID()}").status == 404
    old = str(ulid.ULID.from_timestamp(1_700_000_000))
    assert ask(stack.port, "GET", f"/v1/requests/{old}").status == 410
    assert ask(stack.port, "GET", f"/v1/requests/{old}/events").status == 410
    assert ask(stack.port, "DELETE", f"/v1/requests/{old}").status == 410


def test_what_finishes_while_the_store_is_away_reaches_it_later(tmp_path, rabbitmq, hub_redis):
    store = Store(tmp_path / "store")
    stack = Stack(tmp_path, rabbitmq, hub_redis, is_patient=False, NEARFETCH__HUB__MONGO=store.url)
    try:
        before = finished(stack, "demo.plain")
        until(lambda: store.has(before["id"]), "the request in the history")
        store.running.signal(signal.SIGKILL)
        during = [finished(stack, "demo.plain", LIST)["id"] for _ in range(3)]
        old = str(ulid.ULID.from_timestamp(1_700_000_000))
        assert ask(stack.port, "GET", f"/v1/requests/{old}").status == 503
        ready = ask(stack.port, "GET", "/readyz")
        assert (ready.status, ready.json()["history"]) == (200, "the history does not answer")
        store.running.start()
        until(lambda: all(store.has(one) for one in (before["id"], *during)), "all requests in the history")
        until(lambda: not hub_redis.client.zcard(names.ARCHIVE), "nothing left to archive")
        results = store.database[names.RESULTS_COLLECTION].find()
        assert {one["_id"]: len(one["results"]) for one in results} == {
            f"{before['id']}/0": 1,
            **{f"{one}/0": 2 for one in during},
        }
    finally:
        stack.stop()
        store.stop()


def test_a_frozen_store_holds_up_nobody(tmp_path, rabbitmq, hub_redis):
    store = Store(tmp_path / "store")
    stack = Stack(tmp_path, rabbitmq, hub_redis, is_patient=False, NEARFETCH__HUB__MONGO=store.url)
    try:
        kept = finished(stack, "demo.plain")
        until(lambda: store.has(kept["id"]), "the request in the history")
        freeze(store.running.process.pid)
        wires = [Wire(stack.port) for _ in range(20)]
        for wire in wires:
            wire.send("GET", "/v1/requests")
        assert ask(stack.port, "GET", "/healthz").status == 200
        finished(stack, "demo.plain")
        assert {wire.reply().status for wire in wires} == {503}
        for wire in wires:
            wire.close()
    finally:
        store.running.signal(signal.SIGCONT)
        stack.stop()
        store.stop()


def test_whoever_searches_much_delays_nobody_else(stack, store, monkeypatch):
    """Searches are made in turn between those who ask."""
    recall, sought, go_on = stack.gateway.recall, [], threading.Event()
    real = recall.found

    def found(wanted):
        go_on.wait(60)
        sought.append(wanted.source)
        return real(wanted)

    monkeypatch.setattr(recall, "found", found)
    with contextlib.ExitStack() as opened:
        crowd = [opened.enter_context(Wire(stack.port)) for _ in range(30)]
        for number, wire in enumerate(crowd):
            wire.send("GET", f"/v1/requests?source=crowd-{number}")
        until(lambda: len(stack.gateway.server.outlet.open) == len(crowd), "all to wait")
        other = opened.enter_context(Wire(stack.port, address="127.0.0.2"))
        other.send("GET", "/v1/requests?source=other")
        until(lambda: len(stack.gateway.server.outlet.open) == len(crowd) + 1, "the other, too")
        go_on.set()
        assert {wire.reply().status for wire in (*crowd, other)} == {200}
    assert sought.index("other") <= 2 * THREADS, sought  # behind what was begun, and a turn of the crowd's
    assert len(sought) == len(crowd) + 1


def test_what_a_dead_gateway_took_is_archived_by_another(stack, store):
    request = finished(stack, "demo.plain")
    until(lambda: store.has(request["id"]), "the request in the history")
    store.database[names.REQUESTS_COLLECTION].delete_one({"_id": request["id"]})
    lease_ms = 700  # left of what a gateway took before it died
    seconds, micros = stack.hub.client.time()
    stack.hub.client.zadd(names.ARCHIVE, {request["id"]: seconds * 1000 + micros // 1000 + lease_ms})
    until(lambda: store.has(request["id"]), "the request in the history")


def test_without_a_store_there_is_no_history_and_it_says_so(tmp_path, rabbitmq, hub_redis):
    stack = Stack(tmp_path, rabbitmq, hub_redis)
    try:
        finished(stack, "demo.plain")
        assert not hub_redis.client.zcard(names.ARCHIVE)
        assert ask(stack.port, "GET", "/readyz").json()["history"] == "off"
        running = stack.post({"sources": ["demo.plain"]}).json()["id"]
        assert [one["id"] for one in listed(stack, "?status=running")["requests"]] == [running]
        stack.region.finish(stack.region.take("nyc"))
        until(lambda: not listed(stack, "?status=running")["requests"], "nothing to run")
        assert not hub_redis.client.zcard(names.LISTED)
        reply = ask(stack.port, "GET", "/v1/requests")
        assert (reply.status, "[hub] mongo" in reply.json()["detail"]) == (404, True)
    finally:
        stack.stop()


STOPS_BEFORE_IT_ACCEPTS = """
import signal, threading
from web.flow import accept
from web.hub import ledger
accept.BUDGET_SECONDS, ledger.ACCEPT_LEASE_MS, real = 120, 120_000, ledger.Ledger.accept
def stopping(self, *asked):
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    return real(self, *asked)
ledger.Ledger.accept = stopping
"""


def test_a_request_that_is_accepted_after_its_tasks_ended_is_kept(stack, store, monkeypatch):
    """Its gateway was paused in between: the archive has looked at it before it was a request."""
    archiver, looked = stack.gateway.archiver, []
    archive = archiver._archive

    def looking(requests):
        archive(requests)
        looked.extend(requests)

    monkeypatch.setattr(archiver, "_archive", looking)
    stack.region.purge()
    with GatewayProcess(stack, patch=STOPS_BEFORE_IT_ACCEPTS) as gateway, Wire(gateway.port, 60) as wire:
        wire.send("POST", "/v1/requests", JSON, json.dumps({"sources": [LIST]}).encode())
        task = stack.region.take("fra")
        until(lambda: states(gateway.pid) == {"T"}, "the gateway to be paused")
        stack.region.finish(task)
        until(lambda: task.request in looked, "the archive to look at it")
        assert ask(stack.port, "GET", f"/v1/requests/{task.request}").status == 404
        gateway.process.send_signal(signal.SIGCONT)
        assert wire.reply().status == 202
        until(lambda: store.has(task.request), "the request in the history")
        assert ask(stack.port, "GET", f"/v1/requests/{task.request}").json()["done"]
    left_seconds = 60.0  # what the killed gateway had taken comes back after the archive's lease
    until(lambda: not stack.hub.client.zcard(names.ARCHIVE), "nothing to be left to do", left_seconds)


def test_a_tenants_requests_in_the_history_are_its_own(tmp_path, rabbitmq, hub_redis, store):
    more = {"NEARFETCH__HUB__MONGO": store.url, "NEARFETCH__GATEWAY__KEYS": "true"}
    stack = Stack(tmp_path, rabbitmq, hub_redis, **more)
    try:
        texts = {}
        for tenant, scope in (("shop", "read"), ("bank", "read"), ("ops", "admin")):
            secret = keys.new_secret()
            key = keys.Key(
                id=keys.new_id(), name="a", tenant=tenant, scopes=("submit", scope), digest=keys.digest_of(secret), created_ms=1
            )  # fmt: skip
            keys.write(hub_redis.client, [key])
            texts[tenant] = {"Authorization": f"Bearer {keys.text_of(key.id, secret)}"}
        stack.gateway.keyring.refresh()
        request = stack.post({"sources": ["demo.plain"]}, {**JSON, **texts["shop"]}).json()["id"]
        running = {
            tenant: [
                one["id"] for one in ask(stack.port, "GET", "/v1/requests?status=running", head).json()["requests"]
            ]
            for tenant, head in texts.items()
        }
        assert running == {"shop": [request], "bank": [], "ops": [request]}
        stack.region.finish(stack.region.take("nyc"))
        until(lambda: store.has(request), "the request in the history")
        lose(stack, request)
        for route in (f"/v1/requests/{request}", f"/v1/requests/{request}/events", f"/v1/requests/{request}?wait=1"):
            found = {tenant: ask(stack.port, "GET", route, head).status for tenant, head in texts.items()}
            assert found == {"shop": 200, "bank": 404, "ops": 200}, route
        lists = {
            tenant: request in [one["id"] for one in ask(stack.port, "GET", "/v1/requests", head).json()["requests"]]
            for tenant, head in texts.items()
        }
        assert lists == {"shop": True, "bank": False, "ops": True}
    finally:
        stack.stop()


def test_what_a_region_says_in_numbers_without_end_keeps_no_request_out(stack, store):
    """MongoDB has integers of 64 bits. Requests that were to be stored with such a one were not, until they expired."""
    task = stack.region.take("nyc") if stack.post({"sources": ["demo.plain"]}).status == 202 else None
    result = contract.Result(task=task.task, source=task.source, region=task.region, status="succeeded")
    frame = result_frame.encode(result, b"[]").replace(b'"count":0', b'"count":%d' % 10**30)
    stack.region.redis.set(names.result("nyc", task.task), frame, pxat=task.expires_ms)
    stack.region.finish(task, b"[]")  # what is there already stays
    until(lambda: store.has(task.request), "the request in the history")
    found = ask(stack.port, "GET", f"/v1/requests/{task.request}").json()["results"][0]
    assert (found["status"], found["error"]["type"], found["records"]) == ("failed", "internal", [])
    lose(stack, task.request)
    assert ask(stack.port, "GET", f"/v1/requests/{task.request}").json()["results"] == [found]


@pytest.mark.parametrize("is_kept", [False, True], ids=["hub", "history"])
@pytest.mark.parametrize(
    ("told", "records", "is_read"),
    [
        (',"records":[5],"count":77}', b'[{"name":"a"}]', True),
        (',"more":{"records":[5]},"task":%s}\t ', b'[{"name":"a"}]', True),
        (',"error":{"type":"x","message":"m","origin":"o","records":[]},"error":null}', b"[1]", True),
        (',"timing":{"fetch_ms":1e308}}', b'[{"name":"a"}]', False),
        ("}", b'[{"name":', False),
        (',"more":' + "[" * 20_000 + "]" * 20_000 + "}", b"[]", False),
    ],
    ids=["twice", "blanks", "error", "number", "cut", "deep"],
)
def test_a_result_with_an_odd_head_breaks_no_answer_and_no_page(stack, store, told, records, is_read, is_kept):
    """The answers to polls hold another region's result, too, and a browser shows what can be shown of each task."""
    promised = stack.post({"sources": ["demo.plain", LIST]}).json()
    path, page = f"/v1/requests/{promised['id']}", f"/requests/{promised['id']}"
    odd, fair = (stack.region.take(region) for region in ("nyc", "fra"))
    head = result_frame.encode(
        contract.Result(task=odd.task, source=odd.source, region="nyc", status="succeeded"), b"[]"
    )[1:-4]
    raw = b"0" + head + told.replace("%s", f'"{odd.task}"').encode() + b"\n" + records
    stack.region.redis.set(names.result("nyc", odd.task), raw, pxat=odd.expires_ms)
    stack.region.finish(odd, records)
    stack.region.finish(fair)
    until(lambda: ask(stack.port, "GET", path).json()["done"], "the end")
    if is_kept:
        until(lambda: store.has(promised["id"]), "the request in the history")
        lose(stack, promised["id"])
    results = {one["task"]: one for one in ask(stack.port, "GET", path).json()["results"]}
    assert results.keys() == {odd.task, fair.task}
    assert results[fair.task]["records"] == [{"name": "a"}]
    found = results[odd.task]
    assert (found["error"] is None, found["count"]) == (is_read, len(found["records"]))
    told_of = [event.data for event in events(stack.port, f"{path}/events") if event.name == "result"]
    assert {one["task"]: one for one in told_of} == results
    browser = {"Accept": "text/html"}
    shown = ask(stack.port, "GET", page, browser)
    assert (shown.status, fair.task.encode() in shown.body, odd.task.encode() in shown.body) == (200, True, True)
    assert (b"the region sent a result that can&#x27;t be read" in shown.body) == (not is_read)
    table = ask(stack.port, "GET", f"{page}/{odd.task}.csv", browser)
    is_table = is_read and records != b"[1]"
    assert (table.status, b"can&#x27;t be read" in table.body) == (
        200 if is_table else 406 if is_read else 404,
        not is_read,
    )
    if not is_kept:
        where = ask(stack.port, "GET", f"{path}/tasks/{odd.task}")
        assert (where.status, where.json()["error"] is None) == (200, is_read)
    listed(stack)
    assert ask(stack.port, "GET", "/requests", browser).status == 200


@pytest.mark.usefixtures("patient_clients")
def test_a_request_that_can_not_be_archived_keeps_back_no_other(tmp_path, hub_redis, monkeypatch):
    hub = Hub(settings(tmp_path, redis=hub_redis.url))
    hub.start()
    archiver = Archiver(hub, Ledger(hub.client, settings(tmp_path).limits), cast("Any", None))
    archived: list[str] = []

    def archive_all(requests: list[str]) -> None:
        if "bad" in requests:
            raise OverflowError("a number of it")
        archived.extend(requests)

    monkeypatch.setattr(archiver, "_archive", archive_all)
    hub_redis.client.zadd(names.ARCHIVE, dict.fromkeys(["a", "bad", "c"], 0))
    try:
        assert archiver.run_once() == 3
        assert archived == ["a", "c"]
    finally:
        hub.stop()


def test_a_request_whose_results_have_left_the_history_is_not_there(stack, store):
    """MongoDB drops the documents of a request one by one when their time is over."""
    request = finished(stack, "demo.plain")["id"]
    until(lambda: store.has(request), "the request in the history")
    lose(stack, request)
    store.database[names.RESULTS_COLLECTION].delete_many({"_id": {"$regex": f"^{request}/"}})
    assert ask(stack.port, "GET", f"/v1/requests/{request}").status == 404
    store.database[names.REQUESTS_COLLECTION].delete_one({"_id": request})
