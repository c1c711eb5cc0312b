"""API keys over HTTP: who may call, what each tenant sees, and limits. A real gateway; the test plays the region."""

import contextlib
import json
import re
import threading
import time

import pytest
from ulid import ULID

from jobs.contract import Run
from regions import connect, names
from tests.service.conftest import RedisInstance
from tests.service.gateway import JSON, LIST, GatewayProcess, Stack
from tests.waiting import until
from tests.wire import Wire, ask
from web.api import region_stream
from web.flow.keyring import EVERY_SECONDS
from web.hub import ids, keys
from web.hub.keys import TOLD_MS, Board, Key, KeyLimits
from web.hub.runs import Runs

PLAIN = {"sources": ["demo.plain"]}


class Keyed(Stack):
    """A gateway that needs keys; ``key`` makes one."""

    def __init__(self, folder, rabbitmq, hub, **environ: str) -> None:
        super().__init__(folder, rabbitmq, hub, NEARFETCH__GATEWAY__KEYS="true", **environ)
        self.client = connect.open_redis(hub.url, name="test", block_seconds=30.0)

    def key(self, tenant: str, *scopes: str, **limits) -> str:
        """The text of a new key, once the gateway knows it."""
        return self.made(tenant, *scopes, limits=KeyLimits(**limits))[1]

    def made(self, tenant: str, *scopes: str, **told) -> tuple[Key, str]:
        secret = keys.new_secret()
        made = Key(
            id=keys.new_id(), name="test", tenant=tenant, scopes=scopes or ("read", "submit"), digest=keys.digest_of(secret),
            created_ms=1, **told,
        )  # fmt: skip
        keys.write(self.client, [made])
        self.gateway.keyring.refresh()
        return made, keys.text_of(made.id, secret)

    def ask(self, key: str, method: str, path: str, body: object = None, **headers: str):
        told = {"Authorization": f"Bearer {key}", **headers}
        if body is None:
            return ask(self.port, method, path, told)
        return ask(self.port, method, path, {**JSON, **told}, json.dumps(body).encode())

    def stop(self) -> None:
        self.client.close()
        super().stop()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory, rabbitmq):
    folder = tmp_path_factory.mktemp("keyed")
    hub = RedisInstance(folder, "hub")
    made = Keyed(folder, rabbitmq, hub)
    made.region.purge()
    yield made
    made.stop()
    hub.stop()


@pytest.fixture(autouse=True)
def _nothing_is_left(keyed):
    yield
    keyed.region.purge()
    until(lambda: not len(keyed.gateway.waiters), "its clients to be gone")


def kind(reply) -> tuple[int, str]:
    return reply.status, reply.json()["type"].rpartition("/")[2]


def test_every_call_but_the_probes_needs_a_key(keyed):
    made, text = keyed.made("shop")
    wrong = keys.text_of(made.id, keys.new_secret())
    for path in ("/v1/requests", "/v1/sources", "/v1/regions", "/v1/sources/demo.plain/records", "/", "/v2"):
        reply = ask(keyed.port, "GET", path)
        assert (kind(reply), reply.headers["www-authenticate"]) == ((401, "unauthorized"), 'Bearer realm="nearfetch"')
        for bad in (wrong, "nf_x", "", f"{text}x"):
            assert keyed.ask(bad, "GET", path).status == 401
    assert ask(keyed.port, "GET", "/v1/sources", {"Authorization": f"Basic {text}"}).status == 401
    assert keyed.region.is_empty("nyc")
    for path in ("/healthz", "/readyz"):
        assert ask(keyed.port, "GET", path).status == 200
    assert keyed.ask(text, "GET", "/v1/sources").status == 200
    assert ask(keyed.port, "GET", "/v1/sources", {"Authorization": f"bearer {text}"}).status == 200


def test_a_body_without_a_key_is_not_asked_for(keyed):
    with Wire(keyed.port) as wire:
        wire.send("POST", "/v1/requests", {**JSON, "Content-Length": "5", "Expect": "100-continue"})
        assert wire.reply().status == 401


def test_scopes(keyed):
    read, submit, admin = (keyed.key("shop", scope) for scope in ("read", "submit", "admin"))
    assert kind(keyed.ask(read, "POST", "/v1/requests", PLAIN)) == (403, "forbidden")
    assert kind(keyed.ask(admin, "POST", "/v1/requests", PLAIN)) == (403, "forbidden")
    assert kind(keyed.ask(read, "GET", "/v1/sources/demo.plain/records")) == (403, "forbidden")
    request = keyed.ask(submit, "POST", "/v1/requests", PLAIN).json()["id"]
    assert kind(keyed.ask(submit, "GET", f"/v1/requests/{request}")) == (403, "forbidden")
    for key in (read, admin):
        assert keyed.ask(key, "GET", f"/v1/requests/{request}").status == 200
    assert kind(keyed.ask(read, "DELETE", f"/v1/requests/{request}")) == (403, "forbidden")


def test_a_revoked_key_stops_within_two_seconds_at_every_gateway(keyed):
    """Whoever waits with it is answered, and its streams close; other keys' go on."""
    made, text = keyed.made("shop")
    other = keyed.key("shop")
    with GatewayProcess(keyed) as second:
        ports = (keyed.port, second.port)
        head = {"Authorization": f"Bearer {text}"}
        until(
            lambda: all(ask(port, "GET", "/v1/sources", head).status == 200 for port in ports), "both to know the key"
        )
        path = f"/v1/requests/{keyed.ask(text, 'POST', '/v1/requests', PLAIN).json()['id']}"
        waiting = [Wire(port) for port in ports for _ in range(2)] + [Wire(second.port)]
        for wire, route in zip(waiting, [f"{path}/events", f"{path}?wait=60"] * 2 + [f"{path}/events"], strict=True):
            wire.send("GET", route, head if wire is not waiting[-1] else {"Authorization": f"Bearer {other}"})
        for wire in waiting[::2]:
            assert wire.head()[0] == 200  # the streams
        until(lambda: len(keyed.gateway.waiters) == 2, "the first gateway's two to wait")
        keys.delete(keyed.client, made.id)
        assert EVERY_SECONDS <= 1  # between two reads of the keys, which take next to nothing
        until(lambda: all(ask(port, "GET", "/v1/sources", head).status == 401 for port in ports), "the key to stop")
        for stream, poll in (waiting[:2], waiting[2:4]):
            assert list(stream.events()) == []
            assert (poll.reply().status, ask(keyed.port, "GET", path, head).status) == (200, 401)
        keyed.region.finish(keyed.region.take("nyc"))
        assert [event.name for event in waiting[-1].events()] == ["result", "done"]
        for wire in waiting:
            wire.close()


def test_a_post_that_waits_with_a_key_that_ends_is_promised_what_was_accepted(keyed):
    """Anything but a 202 would say that nothing was."""
    made, text = keyed.made("shop")
    replies = []
    posting = threading.Thread(
        target=lambda: replies.append(keyed.ask(text, "POST", "/v1/requests", PLAIN, Prefer="wait=60"))
    )
    posting.start()
    task = keyed.region.take("nyc", fast=True)
    until(lambda: len(keyed.gateway.waiters) == 1, "it to wait")
    keys.delete(keyed.client, made.id)
    posting.join()
    assert (replies[0].status, replies[0].json()["id"]) == (202, task.request)


def test_a_revoked_key_stops_and_an_expired_one(keyed):
    made, text = keyed.made("shop")
    assert keyed.ask(text, "GET", "/v1/sources").status == 200
    keys.delete(keyed.client, made.id)
    until(lambda: keyed.ask(text, "GET", "/v1/sources").status == 401, "the key to stop")
    _, old = keyed.made("shop", expires_ms=1)
    assert "expired" in keyed.ask(old, "GET", "/v1/sources").json()["detail"]


def test_an_idempotency_key_is_a_tenants_own(keyed):
    mine, other = keyed.key("shop"), keyed.key("bank")
    head = {"Idempotency-Key": str(ULID())}
    first, second, third = (keyed.ask(key, "POST", "/v1/requests", PLAIN, **head) for key in (mine, other, mine))
    assert first.json()["id"] != second.json()["id"]
    assert third.body == first.body


def line_with(capsys, text: str) -> str:
    """The log's line that has a text, without colours."""
    lines: list[str] = []

    def found() -> str:
        lines.extend(capsys.readouterr().out.splitlines())
        return next((plain for line in lines if text in (plain := re.sub(r"\x1b\[[\d;]*m", "", line))), "")

    return until(found, f"a line with {text}")


def test_the_log_says_whose_a_call_was_and_never_the_secret(keyed, capsys):
    made, text = keyed.made("shop")
    reply = keyed.ask(text, "POST", "/v1/requests", {"sources": ["demo.plain", LIST, "demo.plain"]})
    line = line_with(capsys, reply.json()["id"])
    for said in (f"key={made.id}", "tenant=shop", "asked=3", "status=202", "method=POST", "path=/v1/requests"):
        assert said in line
    assert int(re.search(r"bytes=(\d+)", line)[1]) > len(reply.body)
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line)
    assert keys.parts_of(text)[1] not in line


def test_the_log_says_with_which_key_a_refused_call_came(keyed, capsys):
    made, text = keyed.made("shop", "read")
    wrong = keys.text_of(made.id, keys.new_secret())
    for key, status, path in ((text, 403, "/v1/sources/demo.plain/records"), (wrong, 401, f"/v1/tasks/{ULID()}")):
        assert keyed.ask(key, "GET", path).status == status
        line = line_with(capsys, f"path={path}")
        assert f"claimed_key={made.id}" in line
        assert f"status={status}" in line
        assert keys.parts_of(key)[1] not in line


def test_sources_that_a_key_may_not_ask(keyed):
    key = keyed.key("shop", sources=("demo.l*",))
    reply = keyed.ask(key, "POST", "/v1/requests", {"sources": [LIST, "demo.plain"]})
    assert kind(reply) == (403, "forbidden")
    assert kind(keyed.ask(key, "GET", "/v1/sources/demo.plain/records")) == (403, "forbidden")
    assert keyed.region.is_empty("fra")
    assert keyed.ask(key, "POST", "/v1/requests", {"sources": [LIST]}).status == 202


def test_open_tasks_of_a_key_are_limited_until_they_end(keyed):
    made, key = keyed.made("shop", limits=KeyLimits(open_tasks=3))
    first = keyed.ask(key, "POST", "/v1/requests", {"sources": ["demo.plain"] * 2}).json()
    reply = keyed.ask(key, "POST", "/v1/requests", {"sources": ["demo.plain"] * 2})
    assert (kind(reply), reply.json()["limit"], reply.headers["retry-after"]) == ((429, "limit"), "open_tasks", "1")
    assert keyed.ask(key, "POST", "/v1/requests", PLAIN).status == 202
    assert keyed.ask(key, "POST", "/v1/requests", PLAIN).status == 429
    for _ in range(2):
        keyed.region.finish(keyed.region.take("nyc"))
    until(lambda: keyed.ask(key, "GET", f"/v1/requests/{first['id']}").json()["done"], "two ends")
    assert keyed.client.hget(names.used(made.id), "open") == b"1"
    assert keyed.ask(key, "POST", "/v1/requests", {"sources": ["demo.plain"] * 2}).status == 202
    assert (
        keyed.ask(keyed.key("shop"), "POST", "/v1/requests", PLAIN).status == 202
    )  # the limit is the key's, not the tenant's


def test_a_refused_request_gives_its_open_tasks_back(keyed, monkeypatch, in_time):
    made, key = keyed.made("shop", limits=KeyLimits(open_tasks=1))
    monkeypatch.setattr(keyed.gateway.publisher, "publish", lambda _: None)
    assert keyed.ask(key, "POST", "/v1/requests", PLAIN).status == 503
    monkeypatch.undo()
    until(lambda: keyed.client.hget(names.used(made.id), "open") == b"0", "the task to be given back")
    until(lambda: keyed.ask(key, "POST", "/v1/requests", PLAIN).status == 202, "an accept")


def test_a_cancel_gives_open_tasks_back_once(keyed):
    made, key = keyed.made("shop", limits=KeyLimits(open_tasks=2))
    request = keyed.ask(key, "POST", "/v1/requests", {"sources": ["demo.plain"] * 2}).json()["id"]
    for _ in range(2):
        assert keyed.ask(key, "DELETE", f"/v1/requests/{request}").status == 200
    assert keyed.client.hget(names.used(made.id), "open") == b"0"


def test_requests_a_second_are_limited(keyed):
    key = keyed.key("shop", requests_per_second=0.2)
    assert keyed.ask(key, "POST", "/v1/requests", PLAIN).status == 202
    reply = keyed.ask(key, "POST", "/v1/requests", PLAIN)
    assert (kind(reply), reply.json()["limit"]) == ((429, "limit"), "requests_per_second")
    assert reply.headers["retry-after"] in ("1", "2", "3", "4", "5")
    until(lambda: keyed.ask(key, "POST", "/v1/requests", PLAIN).status == 202, "the next request's time")
    fast = keyed.key("shop", requests_per_second=50)
    assert {keyed.ask(fast, "POST", "/v1/requests", PLAIN).status for _ in range(10)} == {202}


def test_bytes_that_the_hub_keeps_of_a_key_are_limited(keyed):
    made, key = keyed.made("shop", limits=KeyLimits(bytes_kept=1_000))
    request = keyed.ask(key, "POST", "/v1/requests", PLAIN).json()["id"]
    keyed.region.finish(keyed.region.take("nyc"), b'["%b"]' % (b"x" * 2_000))
    until(lambda: keyed.ask(key, "GET", f"/v1/requests/{request}").json()["done"], "the end")
    reply = keyed.ask(key, "POST", "/v1/requests", PLAIN)
    assert (kind(reply), reply.json()["limit"]) == ((429, "limit"), "bytes_kept")
    used = names.used(made.id)
    [minute] = [field for field in keyed.client.hkeys(used) if field.isdigit()]
    keyed.client.hset(used, str(int(time.time() / 60) - 1), keyed.client.hget(used, minute))
    keyed.client.hdel(used, minute)  # as if its results had expired
    assert keyed.ask(key, "POST", "/v1/requests", PLAIN).status == 202
    assert int(keyed.client.hget(used, "all")) == 0


def test_what_the_hub_notes_of_a_key_does_not_grow_with_time(keyed):
    """Also of one without a limit: the bytes of each minute are forgotten when their results have expired."""
    made, key = keyed.made("shop")
    used, now = names.used(made.id), int(time.time() / 60)
    request = keyed.ask(key, "POST", "/v1/requests", PLAIN).json()["id"]
    keyed.client.hset(used, mapping={str(now - minute): 10 for minute in range(100)} | {"all": 1_000})
    keyed.region.finish(keyed.region.take("nyc"))
    until(lambda: keyed.ask(key, "GET", f"/v1/requests/{request}").json()["done"], "the end")
    minutes = {int(field): int(size) for field, size in keyed.client.hgetall(used).items() if field.isdigit()}
    assert all(minute > now for minute in minutes)
    assert sum(minutes.values()) == int(keyed.client.hget(used, "all")) > 600
    rest_ms = keyed.client.pexpiretime(used) - keyed.client.pexpiretime(names.ledger(request))
    assert 0 <= rest_ms <= 60_000  # and it goes with the last request's results


def test_nothing_is_noted_of_a_key_that_was_revoked(keyed):
    made, key = keyed.made("shop")
    request = keyed.ask(key, "POST", "/v1/requests", PLAIN).json()["id"]
    keys.delete(keyed.client, made.id)
    keyed.region.finish(keyed.region.take("nyc"))
    until(lambda: keyed.client.hget(names.ledger(request), "done"), "the end")
    assert not keyed.client.exists(names.used(made.id))


def test_a_key_that_can_not_be_read_does_not_count_and_keeps_no_other_from_counting(keyed, hub_redis):
    """Also one with a limit that this version does not know: it would count without that limit."""
    client, right = hub_redis.client, keyed.made("shop")[0]
    text = json.loads(keyed.client.hget(names.KEYS, right.id))
    wrong = {
        "garbage": b"no JSON", "deep": b"[" * 100_000, "newer": json.dumps({**text, "id": "newer", "limits": {"cents": 5}}),
        "another": json.dumps(text),
    }  # fmt: skip
    for field, value in (*wrong.items(), (right.id, json.dumps(text))):
        client.hset(names.KEYS, field, value)
    assert keys.read(client) == {right.id: right}


def test_waiting_clients_of_a_key_are_limited(keyed):
    key = keyed.key("shop", waiters=1)
    request = keyed.ask(key, "POST", "/v1/requests", PLAIN).json()["id"]
    path = f"/v1/requests/{request}"
    replies = []
    waiting = threading.Thread(target=lambda: replies.append(keyed.ask(key, "GET", f"{path}?wait=60")))
    waiting.start()
    until(lambda: len(keyed.gateway.waiters) == 1, "the first to wait")
    for route in (f"{path}?wait=5", f"{path}/events"):
        reply = keyed.ask(key, "GET", route)
        assert (kind(reply), reply.json()["limit"]) == ((429, "limit"), "waiters")
    assert kind(keyed.ask(key, "GET", "/v1/sources/demo.plain/records")) == (429, "limit")
    assert keyed.ask(key, "GET", path).status == 200
    keyed.region.finish(keyed.region.take("nyc"))
    waiting.join()
    assert replies[0].json()["done"] is True
    until(lambda: keyed.ask(key, "GET", f"{path}?wait=1").status == 200, "room for a waiter")


def test_clients_that_wait_at_another_gateway_count_too(keyed):
    """Those of a request and those of the regions, until they are answered or gone."""
    key = keyed.key("shop", waiters=2)
    path = f"/v1/requests/{keyed.ask(key, 'POST', '/v1/requests', PLAIN).json()['id']}"
    head = {"Authorization": f"Bearer {key}"}

    def waited() -> int:
        return keyed.ask(key, "GET", f"{path}?wait=0.01").status

    with GatewayProcess(keyed) as second, Wire(second.port) as poll, Wire(second.port) as stream:
        until(lambda: ask(second.port, "GET", "/v1/sources", head).status == 200, "the second to know the key")
        poll.send("GET", f"{path}?wait=60", head)
        assert waited() == 200
        stream.send("GET", "/v1/regions", {**head, "Accept": "text/event-stream"})
        assert stream.head()[0] == 200
        until(lambda: waited() == 429, "the first gateway to know of both")
        for route, accept in ((f"{path}/events", "*/*"), ("/v1/regions", "text/event-stream")):
            reply = keyed.ask(key, "GET", route, Accept=accept)
            assert (kind(reply), reply.json()["limit"]) == ((429, "limit"), "waiters")
        assert keyed.ask(key, "GET", path).status == 200  # this does not wait
        assert keyed.ask(keyed.key("shop", waiters=1), "GET", f"{path}?wait=0.01").status == 200
        stream.close()
        until(lambda: waited() == 200, "room for one")
        keyed.region.finish(keyed.region.take("nyc"))
        assert poll.reply().json()["done"] is True
        until(lambda: not keyed.client.exists(names.WAITING), "nobody to wait anywhere")


def test_a_gateway_that_says_nothing_more_counts_for_a_while(keyed):
    """It may have been killed, or it hangs."""
    made, _ = keyed.made("shop", limits=KeyLimits(waiters=1))
    first, second = Board("a:1"), Board("b:1")
    first.look(keyed.client, {})  # the hub's time
    first.look(keyed.client, {made.id: 2})
    assert second.look(keyed.client, {})[1] == {made.id: 2}
    said = json.loads(keyed.client.hget(names.WAITING, "a:1"))
    said["at_ms"] -= TOLD_MS + 1_000
    keyed.client.hset(names.WAITING, mapping={"a:1": json.dumps(said), "c:1": "?"})
    assert second.look(keyed.client, {}) == (keys.read(keyed.client), {})
    second.look(keyed.client, {})
    assert not keyed.client.exists(names.WAITING)
    first.look(keyed.client, {made.id: 1})
    first.leave(keyed.client)
    assert not keyed.client.exists(names.WAITING)


def test_a_revoked_key_ends_its_stream_of_regions_and_a_keys_limit_holds_for_it(keyed):
    key, text = keyed.made("acme", limits=KeyLimits(waiters=1))
    stream = {"Accept": "text/event-stream", "Authorization": f"Bearer {text}"}
    with Wire(keyed.port) as wire:
        wire.send("GET", "/v1/regions", stream)
        assert wire.head()[0] == 200
        events = wire.events()
        assert next(events).name == "region"
        refused = keyed.ask(text, "GET", "/v1/regions", Accept="text/event-stream")
        assert (refused.status, refused.json()["limit"]) == (429, "waiters")
        keys.delete(keyed.client, key.id)
        assert {event.name for event in events} <= {"region"}  # and they end
    assert keyed.ask(text, "GET", "/v1/regions", Accept="text/event-stream").status == 401


def test_no_key_takes_all_streams_of_regions(keyed, monkeypatch):
    monkeypatch.setattr(region_stream, "CLIENTS_OF_KEY_MAX", 2)
    greedy, other = keyed.key("acme"), keyed.key("shop", waiters=100)
    with contextlib.ExitStack() as stack:

        def begin(key: str) -> int:
            wire = stack.enter_context(Wire(keyed.port))
            wire.send("GET", "/v1/regions", {"Accept": "text/event-stream", "Authorization": f"Bearer {key}"})
            return wire.head()[0]

        assert [begin(greedy) for _ in range(3)] == [200, 200, 429]
        assert [begin(other) for _ in range(3)] == [200, 200, 429]


def test_what_fires_and_whose_failure_it_was_is_for_admins(keyed):
    """A failure is known by the task of whoever asked: a tenant's key does not learn another tenant's."""
    reader, admin = keyed.key("acme", "read"), keyed.key("ops", "admin")
    task = ids.task(ids.new(), 1)
    runs = Runs(keyed.client)
    runs.add("nyc", Run(source="demo.plain", definition="0", error="contract", origin="parser"), 5, task)
    runs.flush()
    failures = {key: keyed.ask(key, "GET", "/v1/sources/demo.plain").json()["last_failure"] for key in (reader, admin)}
    assert failures[admin]["task"] == task
    assert failures[reader]["type"] == "contract"
    assert not {"task", "request"} & failures[reader].keys()
    assert task not in keyed.ask(reader, "GET", "/sources/demo.plain").body.decode()
    assert task in keyed.ask(admin, "GET", "/sources/demo.plain").body.decode()
    assert [keyed.ask(key, "GET", "/alerts").status for key in (reader, admin)] == [403, 200]
    assert keyed.ask(reader, "GET", "/regions").status == 200
    assert ask(keyed.port, "GET", "/regions/live").status == 401


def test_records_that_a_key_was_asked_for_are_kept_by_no_cache_that_others_share(keyed):
    """A proxy in between would give them to clients without a key: many keep answers by their Cache-Control alone."""
    one = keyed.key("acme")
    path = "/v1/sources/demo.plain/records?max_age=60"
    with Wire(keyed.port) as wire:
        wire.send("GET", path, {"Authorization": f"Bearer {one}"})
        keyed.region.finish(keyed.region.take("nyc", fast=True))
        assert wire.reply().headers["cache-control"] == "private, max-age=60"
    assert keyed.ask(one, "HEAD", path).headers["cache-control"] == "private, max-age=60"
