"""Two tenants can't see each other: every route says how it is scoped, and is asked by both. A real gateway, its history, real keys.

own     a request's or task's: by another tenant's key it is as if it were not there
list    has one's own alone
makes   makes a request of the tenant that asks
shared  the same for all tenants, and nothing of any of them is in it
admin   for keys with the scope admin
public  without a key; nothing of any tenant is in it
page    of the console about a request: by another tenant's key it has nothing but the id that was asked for
live    a stream of what is shared
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
from ulid import ULID

from jobs import contract
from regions import connect, names
from tests.service.conftest import RedisInstance
from tests.service.gateway import LIST
from tests.service.jobs.webhook.receiving import SECRET
from tests.service.web.api.test_keys import Keyed
from tests.service.web.flow.test_history import Store
from tests.waiting import until
from tests.wire import Wire, ask
from web.hub import ids

# Every route of web.app: tests/unit/test_docs.py fails for one that does not say here how it is scoped. Then it is asked like the others.
SCOPES: Final = {
    "GET /v1/requests": "list",
    "POST /v1/requests": "makes",
    "GET /v1/requests/<request>": "own",
    "DELETE /v1/requests/<request>": "own",
    "GET /v1/requests/<request>/events": "own",
    "GET /v1/requests/<request>/tasks/<task>": "own",
    "POST /v1/requests/<request>/webhook": "own",
    "GET /v1/webhooks": "list",
    "GET /v1/tasks/<task>": "own",
    "GET /v1/sources": "shared",
    "GET /v1/sources/<source>": "shared",
    "GET /v1/sources/<source>/records": "makes",
    "GET /v1/regions": "shared",
    "GET /v1/regions/<region>": "shared",
    "GET /v1/regions/<region>/events": "shared",
    "GET /v1/regions/<region>/day": "shared",
    "GET /v1/faults": "admin",
    "GET /metrics": "admin",
    "GET /healthz": "public",
    "GET /readyz": "public",
    "GET /openapi.json": "public",
    "GET /docs": "public",
    "GET /problems": "public",
    "GET /problems/<kind>": "public",
    "GET /problems/task/<kind>": "public",
}
PAGES: Final = {  # of the console
    "GET /": "shared",
    "GET /try": "shared",
    "GET /requests": "shared",
    "GET /requests/<request>": "page",
    "GET /requests/<request>/<task>.csv": "page",
    "GET /sources": "shared",
    "GET /sources/<source>": "shared",
    "GET /regions": "shared",
    "GET /regions/live": "live",
    "GET /alerts": "shared",
    "GET /runbooks": "shared",
    "GET /day": "shared",
    "GET /signin": "public",
    "POST /signin": "public",
    "POST /signout": "public",
    "GET /console/<version>/<name>": "public",
}
PARAMS: Final = {
    "source": "demo.plain",
    "region": "nyc",
    "kind": "timeout",
    "version": "1",
    "name": "console.css",
}  # of the others
QUERIES: Final = {
    "GET /v1/requests/<request>": ("", "?after=0-0", "?wait=5", "?after=0-0&wait=5"),
    "GET /v1/requests/<request>/events": ("", "?after=0-0"),
    "GET /v1/webhooks": ("", "?state=due", "?limit=200"),
    "GET /v1/requests": ("", "?source=demo.plain", "?region=nyc", "?status=succeeded", "?since=2020-01-01T00:00:00Z", "?limit=200"),
}  # fmt: skip
SHOP, BANK = "shop-7q3x", "bank-9z1k"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory, rabbitmq):
    folder = tmp_path_factory.mktemp("tenants")
    hub, store = RedisInstance(folder, "hub"), Store(folder / "store")
    made = Keyed(folder, rabbitmq, hub, NEARFETCH__HUB__MONGO=store.url)
    made.store = store
    made.region.purge()
    yield made
    made.stop()
    store.stop()
    hub.stop()


@pytest.fixture(autouse=True)
def _no_message_is_left(keyed):
    yield
    keyed.region.purge()


def routes(scope: str) -> list[str]:
    return [route for route, its in {**SCOPES, **PAGES}.items() if its == scope]


def paths(route: str, **told: str) -> list[tuple[str, str]]:
    """(method, path) of a route, with each of its queries."""
    method, _, path = route.partition(" ")
    for name, value in {**PARAMS, **told}.items():
        path = path.replace(f"<{name}>", value)
    assert "<" not in path, f"what stands for a param of {route} is not known here"
    return [(method, f"{path}{query}") for query in QUERIES.get(route, ("",))]


@dataclass
class Made:
    """A tenant's request: what its client knows of it."""

    tenant: str
    key: str
    request: str
    task: str

    def paths(self, route: str) -> list[tuple[str, str]]:
        return paths(route, request=self.request, task=self.task)


def made_by(keyed: Keyed, tenant: str) -> Made:
    key = keyed.key(tenant)
    asked = {
        "sources": ["demo.plain"],
        "attrs": {"of": tenant},
        "webhook": {"url": f"https://{tenant}.example/", "secret": SECRET},
    }
    request = keyed.ask(key, "POST", "/v1/requests", asked).json()
    return Made(tenant, key, request["id"], request["tasks"][0]["id"])


def test_what_is_another_tenants_is_as_if_it_were_not_there(keyed):
    """While it runs, when it is done, and when only the history has it. Ids that are near one's own are no way either."""
    shop, bank, admin = made_by(keyed, SHOP), made_by(keyed, BANK), keyed.key("ops", "read", "admin")
    nothing = ids.new()
    unknown = Made("", "", nothing, ids.task(nothing, 1))

    def look(status: int) -> None:
        for route in routes("own"):
            for (method, path), (_, nothing) in zip(shop.paths(route), unknown.paths(route), strict=True):
                reply, absent = keyed.ask(bank.key, method, path), keyed.ask(bank.key, method, nothing)
                assert (reply.status, reply.json()["type"]) == (404, absent.json()["type"]), path
                assert same(reply, shop) == same(absent, unknown), path
                if method == "GET" and "wait" not in path and (status == 200 or not path.endswith(("events", "0-0"))):
                    for key in (shop.key, admin):
                        assert keyed.ask(key, method, path).status == 200, path
        crossed = f"/v1/requests/{bank.request}/tasks/{shop.task}"
        assert keyed.ask(bank.key, "GET", crossed).status == 404

    look(0)
    for task in [keyed.region.take("nyc") for _ in range(2)]:  # nobody has cancelled one
        keyed.region.finish(task)
    for one in (shop, bank):
        until(lambda one=one: keyed.ask(one.key, "GET", f"/v1/requests/{one.request}").json()["done"], "the end")
    look(200)
    until(lambda: keyed.store.has(shop.request), "the request in the history")
    keyed.client.delete(names.ledger(shop.request), names.events(shop.request))
    for route in routes("own"):
        for method, path in shop.paths(route):
            assert keyed.ask(bank.key, method, path).status == 404, path
    assert keyed.ask(shop.key, "GET", f"/v1/requests/{shop.request}").json()["attrs"] == {"of": SHOP}


def same(reply, of: Made) -> bytes:
    """A refusal's body without the ids that were asked for."""
    return reply.body.replace(of.request.encode(), b"REQUEST").replace(of.task.encode(), b"TASK")


def test_lists_have_ones_own_alone(keyed):
    shop, bank = made_by(keyed, SHOP), made_by(keyed, BANK)
    for task in [keyed.region.take("nyc") for _ in range(2)]:
        keyed.region.finish(task)
    until(lambda: all(keyed.store.has(one.request) for one in (shop, bank)), "both in the history")
    for route in routes("list"):
        cursor = "9999999999999-0" if "webhooks" in route else shop.request
        asked = [path for _, path in paths(route)] + [f"{route.partition(' ')[2]}?cursor={cursor}"]
        for path in asked:
            for one, other in ((shop, bank), (bank, shop)):
                text = keyed.ask(one.key, "GET", path).body
                assert other.request.encode() not in text, path
                assert other.tenant.encode() not in text, path
                assert "cursor" in path or one.request.encode() in text, path


def test_what_all_may_see_has_nothing_of_any_tenant(keyed):
    """Neither its ids, nor its name, nor its key's."""
    shop, bank = made_by(keyed, SHOP), made_by(keyed, BANK)
    task = keyed.region.take("nyc")
    keyed.region.finish(task)
    keyed.region.take("nyc")
    until(lambda: keyed.ask(shop.key, "GET", f"/v1/requests/{shop.request}").json()["done"], "the end")
    key_id = shop.key.split("_")[1]
    for scope in ("shared", "public"):
        for route in routes(scope):
            for method, path in paths(route):
                reply = keyed.ask(bank.key, method, path) if scope == "shared" else ask(keyed.port, method, path)
                assert reply.status < 500, path
                for told in (shop.request, shop.task, SHOP, key_id):
                    assert told.encode() not in reply.body, (path, told)
    for route in routes("page"):
        for method, path in shop.paths(route):
            body = keyed.ask(bank.key, method, path).body
            assert not any(told.encode() in body for told in (SHOP, key_id)), path
            assert shop.task in path or shop.task.encode() not in body, path
    for route in routes("live"):
        with Wire(keyed.port) as wire:
            wire.send("GET", route.partition(" ")[2], {"Authorization": f"Bearer {bank.key}"})
            assert wire.head()[0] == 200
            first = next(wire.chunks())
            assert not any(told.encode() in first for told in (shop.request, shop.task, SHOP, key_id))
    keyed.region.purge()


def test_what_is_for_admins_is_for_nobody_else(keyed):
    key, admin = keyed.key(SHOP), keyed.key("ops", "read", "admin")
    for route in routes("admin"):
        for method, path in paths(route):
            assert keyed.ask(key, method, path).status == 403, path
            assert ask(keyed.port, method, path).status == 401, path
            assert keyed.ask(admin, method, path).status < 400, path


def test_what_makes_a_request_makes_the_tenants_that_asks(keyed):
    """With the same Idempotency-Key as another's, too."""
    made: dict[str, Callable[[str], Any]] = {
        "POST /v1/requests": lambda key: keyed.ask(key, "POST", "/v1/requests", {"sources": [LIST]}, **{"Idempotency-Key": "order-1"}),
        "GET /v1/sources/<source>/records": lambda key: keyed.ask(key, "GET", "/v1/sources/demo.plain/records?wait=0.1"),
    }  # fmt: skip
    assert set(made) == set(routes("makes"))
    for call in made.values():
        shop, bank = keyed.key(SHOP), keyed.key(BANK)
        first, second = call(shop), call(bank)
        assert (first.status, second.status) == (202, 202)
        assert first.json()["id"] != second.json()["id"]
        assert "idempotency-replayed" not in second.headers
        for key, reply, status in ((shop, first, 200), (shop, second, 404), (bank, first, 404), (bank, second, 200)):
            assert keyed.ask(key, "GET", f"/v1/requests/{reply.json()['id']}").status == status
    keyed.region.purge()


def test_an_answer_that_another_tenants_task_got_says_nothing_of_that_task(keyed):
    """The answer may be the same, young enough one; whose it was is nobody's business."""
    shop, bank = keyed.key(SHOP), keyed.key(BANK)
    body = {"sources": [LIST], "max_age": 60}

    def hops(key: str, request: dict) -> list[dict]:
        return keyed.ask(key, "GET", f"/v1/tasks/{request['tasks'][0]['id']}").json()["hops"]

    first = keyed.ask(shop, "POST", "/v1/requests", {"sources": [LIST]}).json()
    task = keyed.region.take("fra")
    now = contract.rfc3339(connect.redis_now_ms(keyed.client))
    keyed.region.finish(task, fetched_at=now, definition=task.definition)
    until(lambda: keyed.ask(shop, "GET", f"/v1/requests/{first['id']}").json()["done"], "the end")
    for key, is_told in ((bank, False), (shop, True)):
        found = keyed.ask(key, "POST", "/v1/requests", body)
        assert found.json()["results"][0]["cached"] is True
        assert (task.task in json.dumps(hops(key, found.json()))) == is_told
        assert any(hop["hop"] == "cached" and "the result of" in hop["note"] for hop in hops(key, found.json()))
        assert (task.task in found.body.decode()) is False


def test_a_stream_of_another_tenants_request_has_no_event(keyed):
    """Also when it was asked for before anything came."""
    shop, bank = made_by(keyed, SHOP), keyed.key(BANK)
    with Wire(keyed.port) as own, Wire(keyed.port) as other:
        for wire, key in ((own, shop.key), (other, bank)):
            wire.send("GET", f"/v1/requests/{shop.request}/events", {"Authorization": f"Bearer {key}"})
        assert own.head()[0] == 200
        assert other.reply().status == 404
        keyed.region.finish(keyed.region.take("nyc"))
        assert [event.name for event in own.events()] == ["result", "done"]


def test_guessed_ids_tell_nothing_of_whether_there_is_such_a_request(keyed):
    """Nor how long ago it was: the answer depends on the id's own time alone."""
    shop, bank = made_by(keyed, SHOP), keyed.key(BANK)
    old = str(ULID.from_timestamp(1_600_000_000))
    keyed.client.copy(names.ledger(shop.request), names.ledger(old))
    try:
        gone = str(ULID.from_timestamp(1_600_000_001))
        assert (
            keyed.ask(bank, "GET", f"/v1/requests/{old}").status
            == keyed.ask(bank, "GET", f"/v1/requests/{gone}").status
        )
    finally:
        keyed.client.delete(names.ledger(old))
        keyed.region.purge()
