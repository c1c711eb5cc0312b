"""``max_age``: what the hub still has answers at once, and nothing of it reaches a region. A real gateway; the test plays the region."""

import json
import signal
import time

import pytest

from jobs import contract
from regions import connect, names
from scripts.stack.wan_links import Rule
from tests import sources
from tests.service.gateway import JSON, Stack
from tests.service.scripts.test_slow_servers import slow_stack
from tests.service.web.api.test_http import AT_ONCE_SECONDS
from tests.waiting import until
from tests.wire import Wire, ask
from web.hub import reuse
from web.hub.redis import BROKEN

__all__ = ["slow_stack"]

RECORDS = b'[{"name":"a","price":"1.10"}]'
PATH = "/v1/sources/demo.list/records?category=poetry"
WAIT = {**JSON, "Prefer": "wait=20"}


def settle(stack, task: contract.Task, *, ago: float = 0.0, records: bytes = RECORDS, **told) -> None:
    """Ends a task as a worker does, with what it fetched some seconds ago."""
    at_ms = connect.redis_now_ms(stack.region.redis) - int(ago * 1000)
    stack.region.finish(task, records, **{"fetched_at": contract.rfc3339(at_ms), "definition": task.definition, **told})


def fetched(stack, category: str, **how) -> contract.Task:
    """A result that the hub has from now on; ``how`` as in ``settle``."""
    with Wire(stack.port) as wire:
        wire.send("GET", f"/v1/sources/demo.list/records?category={category}")
        task = stack.region.take("fra", fast=True)
        settle(stack, task, **how)
        assert wire.reply().status in (200, 502)
    return task


def of(category: str) -> dict:
    return {"source": "demo.list", "params": {"category": category}}


def asks_the_region(stack, category: str, max_age: float, *, fast: bool = True) -> contract.Task:
    """Its task, which the region gets although the request takes an answer of some age."""
    with Wire(stack.port) as wire:
        wire.send("GET", f"/v1/sources/demo.list/records?category={category}&max_age={max_age}")
        task = stack.region.take("fra", fast=fast)
        settle(stack, task)
        found = wire.reply().json()
    assert (found["cached"], found["task"], found["attempts"]) == (False, task.task, 1)
    return task


def test_copies_take_half_of_a_regions_room_and_then_the_region_is_asked(stack, monkeypatch):
    """Each copy is kept for an hour. They filled the hub, for everybody, and no region's room counted them."""
    fetched(stack, "copied", records=b'["%b"]' % (b"x" * 100_000))
    path = "/v1/sources/demo.list/records?category=copied&max_age=60"
    held = int(stack.region.redis.hget(names.held("fra"), "all"))
    assert ask(stack.port, "GET", path).json()["cached"] is True
    copy_bytes = int(stack.region.redis.hget(names.held("fra"), "all")) - held
    assert copy_bytes > 100, "a copy was not counted"
    monkeypatch.setattr(stack.gateway.hub, "_is_shared", False)
    monkeypatch.setattr(stack.gateway.hub, "region_bytes_max", int(2 * (held + 2.5 * copy_bytes)))
    cached = [ask(stack.port, "GET", path).json()["cached"]]
    assert cached == [True]
    asks_the_region(stack, "copied", 60)


def test_a_young_result_answers_at_once_and_no_task_is_sent(stack):
    """The same records, marked, with their age; nothing was attempted, fetched or sent for it."""
    task = fetched(stack, "young", ago=30, warnings=["w"], url="https://demo.example/list/young", count=1)
    reply = ask(stack.port, "GET", "/v1/sources/demo.list/records?category=young&max_age=60")
    found = reply.json()
    assert (reply.status, reply.headers["cache-control"]) == (200, "max-age=60")
    assert 30 <= int(reply.headers["age"]) < 30 + AT_ONCE_SECONDS
    assert stack.region.is_empty("fra")
    assert found["task"] != task.task
    assert 30 <= found.pop("age") < 30 + AT_ONCE_SECONDS
    del found["task"], found["fetched_at"]
    assert found == {
        "source": "demo.list", "region": "fra", "status": "succeeded", "attempts": 0, "count": 1, "partial": False,
        "warnings": ["w"], "url": "https://demo.example/list/young", "definition": task.definition, "cached": True,
        "stale": False, "timing": dict.fromkeys(("queued_ms", "turn_ms", "fetch_ms", "parse_ms", "total_ms"), 0.0),
        "bytes": {"raw": 0, "records": len(RECORDS), "wire": 0, "received": 0, "spared": 0}, "error": None, "records": json.loads(RECORDS),
    }  # fmt: skip


def test_records_in_other_forms_say_their_age_in_a_header(stack):
    fetched(stack, "forms", ago=30)
    reply = ask(stack.port, "GET", f"{PATH.replace('poetry', 'forms')}&max_age=3600", {"Accept": "text/csv"})
    assert (reply.status, reply.body) == (200, b"name,price\r\na,1.10\r\n")
    assert 30 <= int(reply.headers["age"]) < 30 + AT_ONCE_SECONDS


def test_a_request_whose_tasks_all_have_results_is_done_in_its_202(stack):
    """With its results, its cursor, its events and a place where each task was."""
    first = fetched(stack, "all", ago=2)
    reply = stack.post({"sources": [of("all"), of("all")], "max_age": 60})
    found = reply.json()
    assert (reply.status, found["done"], found["status"], found["completed"]) == (202, True, "succeeded", 2)
    assert [result["cached"] for result in found["results"]] == [True, True]
    assert {result["task"] for result in found["results"]} == {task["id"] for task in found["tasks"]}
    assert stack.region.is_empty("fra")
    path = reply.headers["location"]
    polled = ask(stack.port, "GET", path).json()
    assert (polled["results"], polled["cursor"]) == (found["results"], found["cursor"])
    assert ask(stack.port, "GET", f"{path}?after={found['cursor']}").json()["results"] == []
    with Wire(stack.port) as wire:
        wire.send("GET", f"{path}/events")
        assert wire.head()[0] == 200
        assert [event.name for event in wire.events()] == ["result", "result", "done"]
    where = ask(stack.port, "GET", f"/v1/tasks/{found['tasks'][0]['id']}").json()
    assert [hop["hop"] for hop in where["hops"]] == ["accepted", "cached", "settled", "delivered"]
    assert where["hops"][1]["where"] == "hub"
    assert where["hops"][1]["note"].startswith(f"the result of {first.task}, ")
    assert where["attempts"] == []
    again = ask(stack.port, "DELETE", path).json()
    assert (again["status"], again["completed"]) == ("succeeded", 2)
    assert stack.region.is_empty("fra")


def test_a_synchronous_request_is_a_200(stack):
    fetched(stack, "sync")
    reply = stack.post({"sources": [of("sync")], "max_age": 60}, WAIT)
    assert (reply.status, reply.headers["preference-applied"]) == (200, "wait=20")
    assert reply.json()["results"][0]["cached"] is True
    assert ask(stack.port, "GET", f"{PATH.replace('poetry', 'sync')}&max_age=60&wait=0").status == 200


def test_only_what_the_hub_does_not_have_is_sent(stack):
    """The 202 brings what is there; the rest comes as always, and the request is done with it."""
    fetched(stack, "mixed")
    reply = stack.post({"sources": [of("mixed"), of("other"), "demo.plain"], "max_age": 60})
    found = reply.json()
    assert (reply.status, found["done"], found["completed"], len(found["results"])) == (202, False, 1, 1)
    assert [task["status"] for task in found["tasks"]] == ["succeeded", "queued", "queued"]
    other, plain = stack.region.take("fra"), stack.region.take("nyc")
    assert stack.region.is_empty("fra")
    assert (other.task, plain.task) == (found["tasks"][1]["id"], found["tasks"][2]["id"])
    assert (other.max_age, plain.max_age) == (60, 60)  # the region may have one
    path = f"{reply.headers['location']}?after={found['cursor']}&wait=20"
    settle(stack, other)
    rest = ask(stack.port, "GET", path).json()
    assert [result["task"] for result in rest["results"]] == [other.task]
    settle(stack, plain)
    last = ask(stack.port, "GET", f"{reply.headers['location']}?wait=20").json()
    assert (last["status"], [result["cached"] for result in last["results"]]) == ("succeeded", [True, False, False])


@pytest.mark.parametrize("max_age", [0, 0.5, 20])
def test_what_is_older_than_it_may_be_is_fetched(stack, max_age):
    """By when it was fetched, not by when it came home."""
    fetched(stack, "old", ago=25)
    task = asks_the_region(stack, "old", max_age)
    assert task.max_age == max_age


@pytest.mark.parametrize("told", [{"partial": True}, {"stale": True}, {"definition": "0a0b0c0d"}, {"fetched_at": None}])
def test_what_does_not_answer_for_another_task_is_fetched(stack, told):
    """A partial one lacks pages, a stale one stood in for an error, another definition may have other fields."""
    fetched(stack, "unfit", **told)
    asks_the_region(stack, "unfit", 3600)


def test_a_frame_that_nobody_can_read_is_fetched_anew(stack):
    """Its region can send anything. It was a 500 for each who takes an older answer, until the result expired."""
    task = fetched(stack, "deep")
    key = names.result(names.settled("fra"), task.task)
    deep = b'{"x":%b%b,' % (b"[" * 15_000, b"]" * 15_000)
    stack.hub.client.set(key, stack.hub.client.get(key).replace(b"{", deep, 1), keepttl=True)
    asks_the_region(stack, "deep", 3600)


def test_a_fault_in_the_look_for_older_results_is_a_refusal(stack, monkeypatch):
    """It was a 500 for a request that the hub had, and that was taken back only when the budget of its accept was over."""
    fetched(stack, "fault")

    def fail(*_):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(reuse, "settlements", fail)
    reply = ask(stack.port, "GET", f"{PATH.replace('poetry', 'fault')}&max_age=60")
    assert (reply.status, reply.json()["type"]) == (503, "/problems/unavailable")
    assert BROKEN in reply.json()["detail"], "it is told at once, and not when the budget is over"


def test_a_failure_is_no_result_and_hides_none(stack):
    task = fetched(stack, "failing", ago=5)
    error = contract.Error(type="timeout", message="so it was", origin="target")
    with Wire(stack.port) as wire:
        wire.send("GET", PATH.replace("poetry", "failing"))
        settle(stack, stack.region.take("fra", fast=True), error=error)
        assert wire.reply().status == 504
    found = ask(stack.port, "GET", f"{PATH.replace('poetry', 'failing')}&max_age=60").json()
    assert (found["cached"], found["definition"]) == (True, task.definition)


@pytest.mark.parametrize("run", [{"partial": True}, {"own": False}, {"error": "timeout", "origin": "network"}])
def test_what_its_region_says_to_be_partial_or_anothers_hides_none(stack, run):
    """Nor does a failure for which an older answer stood in."""
    task = fetched(stack, "hiding", ago=5, records=b'[{"name":"whole"}]')
    run = contract.Run(source=task.source, definition=task.definition, **run)
    fetched(stack, "hiding", run=run, partial=run.partial, stale=not run.own or run.error != "")
    found = ask(stack.port, "GET", f"{PATH.replace('poetry', 'hiding')}&max_age=60").json()
    assert (found["cached"], found["records"]) == (True, [{"name": "whole"}])


def test_other_params_are_another_kind(stack):
    fetched(stack, "params")
    with Wire(stack.port) as wire:
        wire.send("GET", f"{PATH.replace('poetry', 'params')}&page=2&max_age=60")
        settle(stack, stack.region.take("fra", fast=True))
        assert wire.reply().json()["cached"] is False


def test_a_result_that_came_late_does_not_stand_before_a_later_one(stack):
    """It lay in its region's outbox: the hub was away."""
    with Wire(stack.port) as one, Wire(stack.port) as two:
        one.send("GET", PATH.replace("poetry", "late"))
        early = stack.region.take("fra", fast=True)
        early_ms = connect.redis_now_ms(stack.region.redis)
        two.send("GET", PATH.replace("poetry", "late"))
        settle(stack, stack.region.take("fra", fast=True), records=b'[{"name":"later"}]')
        assert two.reply().status == 200
        settle(stack, early, records=b'[{"name":"earlier"}]', finished_ms=early_ms - 1)
        assert one.reply().status == 200
    found = ask(stack.port, "GET", f"{PATH.replace('poetry', 'late')}&max_age=60").json()
    assert found["records"] == [{"name": "later"}]


def test_what_was_answered_so_is_no_result_of_its_own(stack):
    """It would be kept for longer than the one that it is."""
    task = fetched(stack, "chain")
    for _ in range(2):
        assert ask(stack.port, "GET", f"{PATH.replace('poetry', 'chain')}&max_age=60").json()["cached"] is True
    stack.hub.client.delete(names.result(names.settled("fra"), task.task))
    asks_the_region(stack, "chain", 3600)


def kinds(client) -> list[bytes]:
    return list(client.scan_iter(names.latest("*")))


def test_what_points_to_a_result_goes_when_it_goes(own_stack):
    client = own_stack.hub.client
    task = fetched(own_stack, "expiry")
    (kind,) = kinds(client)
    assert (
        client.pexpiretime(kind) == client.pexpiretime(names.result(names.settled("fra"), task.task)) == task.expires_ms
    )
    client.delete(names.result(names.settled("fra"), task.task))  # as if it had ended a moment before
    asks_the_region(own_stack, "expiry", 3600)


def test_a_result_that_ends_between_the_look_and_the_settle_still_answers(own_stack, monkeypatch):
    task = fetched(own_stack, "gone")
    ledger = own_stack.gateway.ledger
    real = ledger.settle

    def settle_when_it_is_gone(settlements):
        own_stack.hub.client.delete(names.result(names.settled("fra"), task.task))
        return real(settlements)

    monkeypatch.setattr(ledger, "settle", settle_when_it_is_gone)
    found = ask(own_stack.port, "GET", f"{PATH.replace('poetry', 'gone')}&max_age=60").json()
    assert (found["cached"], found["records"]) == (True, json.loads(RECORDS))
    assert own_stack.region.is_empty("fra")
    (copy,) = own_stack.hub.client.scan_iter(names.result(names.HUB, "*"))
    request = ask(own_stack.port, "GET", f"/v1/tasks/{found['task']}").json()["request"]
    assert own_stack.hub.client.pexpiretime(copy) == own_stack.hub.client.pexpiretime(names.ledger(request))


def test_a_changed_definition_has_no_results_yet(own_stack):
    first = fetched(own_stack, "change")
    text = sources.DEMO_LIST.replace('title  = "A list"', 'title  = "Another list"')
    (own_stack.folder / "sources" / "demo.list.toml").write_text(text)
    known = lambda: ask(own_stack.port, "GET", "/v1/sources/demo.list").json()["definition"]  # noqa: E731
    until(lambda: known() != first.definition, "the change to be seen")
    asks_the_region(own_stack, "change", 3600)


def test_several_gateways_know_of_one_anothers_results(own_stack, rabbitmq, tmp_path):
    (tmp_path / "other").mkdir()
    other = Stack(tmp_path / "other", rabbitmq, own_stack.hub)
    try:
        fetched(own_stack, "two")
        found = ask(other.port, "GET", f"{PATH.replace('poetry', 'two')}&max_age=60").json()
        assert found["cached"] is True
        where = ask(own_stack.port, "GET", f"/v1/tasks/{found['task']}").json()
        assert [hop["hop"] for hop in where["hops"]][:3] == ["accepted", "cached", "settled"]
    finally:
        other.stop()


def test_without_a_broker_what_the_hub_has_is_still_answered(slow_stack, hub_redis):
    """And what it has not is refused at once, whole: nothing of it is ever read."""
    own_stack = slow_stack.stack
    fetched(own_stack, "alone")
    slow_stack.control.rule("rabbitmq", Rule(accepts=False))
    slow_stack.control.cut("rabbitmq")
    try:
        until(lambda: own_stack.post({"sources": [of("x")]}).status == 503, "a refusal")
        until(lambda: ask(own_stack.port, "GET", "/readyz").status == 503, "the outage to be known")
        assert ask(own_stack.port, "GET", f"{PATH.replace('poetry', 'alone')}&max_age=60").json()["cached"] is True
        started = time.monotonic()
        reply = own_stack.post({"sources": [of("alone"), of("new")], "max_age": 60})
        assert (reply.status, time.monotonic() - started < AT_ONCE_SECONDS) == (503, True)
        request = reply.json()["request"]
    finally:
        slow_stack.control.heal("rabbitmq")
    until(lambda: hub_redis.client.hget(names.ledger(request), "state") == b"refused", "the refusal to count")
    assert ask(own_stack.port, "GET", f"/v1/requests/{request}").status == 404
    until(lambda: ask(own_stack.port, "GET", "/readyz").status == 200, "the end of the outage", 60)


def test_a_full_hub_refuses_what_it_has_too_and_keeps_nothing_of_it(own_stack):
    fetched(own_stack, "full")
    own_stack.hub.client.config_set("maxmemory", 1)
    before = set(own_stack.hub.client.keys())
    started = time.monotonic()
    reply = ask(own_stack.port, "GET", f"{PATH.replace('poetry', 'full')}&max_age=60")
    assert (reply.status, time.monotonic() - started < AT_ONCE_SECONDS) == (503, True)
    assert set(own_stack.hub.client.keys()) - before <= {
        names.HOLDINGS.encode(),
        names.TAKEOVER_TURN.encode(),
    }  # leases, which come again
    own_stack.hub.client.config_set("maxmemory", 0)
    until(lambda: ask(own_stack.port, "GET", "/readyz").status == 200, "room again")
    assert ask(own_stack.port, "GET", f"{PATH.replace('poetry', 'full')}&max_age=60").json()["cached"] is True


@pytest.mark.usefixtures("hangs")
@pytest.mark.parametrize("rest", [["new"], []])
def test_a_hub_that_freezes_after_the_look_is_a_refusal_that_stays(own_stack, monkeypatch, rest):
    """The settle runs when it goes on, and the rest of the request is never sent; without a rest the region hears nothing."""
    fetched(own_stack, "frozen")
    ledger = own_stack.gateway.ledger
    real = ledger.settle

    def freeze_first(settlements):
        own_stack.hub.running.signal(signal.SIGSTOP)
        return real(settlements)

    monkeypatch.setattr(ledger, "settle", freeze_first)
    started = time.monotonic()
    reply = own_stack.post({"sources": [of("frozen"), *map(of, rest)], "max_age": 60})
    took = time.monotonic() - started
    monkeypatch.undo()
    own_stack.hub.running.signal(signal.SIGCONT)
    assert (reply.status, took < AT_ONCE_SECONDS) == (503, True)
    request = reply.json()["request"]
    until(lambda: own_stack.hub.client.hget(names.ledger(request), "state") == b"refused", "the refusal to count")
    assert ask(own_stack.port, "GET", f"/v1/requests/{request}").status == 404
    assert own_stack.region.channel.queue_declare("q.fra", passive=True).method.message_count == 0
    assert rest or own_stack.region.is_empty("fra")


def test_a_look_is_a_part_of_the_begin(own_stack):
    """Who takes no old answer pays no call for it, and who does pays none for the look."""
    client = own_stack.hub.client
    gateway = own_stack.gateway
    for part in (
        gateway.sweeper,
        gateway.holdings,
        gateway.takeover,
        gateway.webhooks,
    ):  # they call scripts by the clock
        part.stop()

    def calls(query: str, *, is_cached: bool) -> int:
        client.config_resetstat()
        with Wire(own_stack.port) as wire:
            wire.send("GET", query)
            if not is_cached:
                task = own_stack.region.take("fra", fast=True)
                state = names.ledger(task.request)  # a result that overtakes its accept is read once more
                until(lambda: client.hget(state, "state") == b"accepted", "the accept")
                settle(own_stack, task)
            assert wire.reply().json()["cached"] is is_cached
        stats = client.info("commandstats")
        return stats["cmdstat_evalsha"]["calls"]

    calls(PATH, is_cached=False)  # the scripts are there from now on
    # News that overtake what they are about are read once more, so the least of several counts.
    plain = min(calls(PATH, is_cached=False) for _ in range(4))
    assert plain == min(calls(f"{PATH}_{number}&max_age=60", is_cached=False) for number in range(4))
    assert plain == min(calls(f"{PATH}&max_age=60", is_cached=True) for _ in range(4))
