"""DELETE: what has not ended is cancelled at the hub at once, and the regions are told."""

import time

import ulid

from jobs import contract
from regions import names
from tests.service.gateway import LIST
from tests.waiting import until
from tests.wire import Wire, ask


def told(stack, region: str) -> contract.Cancel:
    """The next cancel that a region gets, in its fast lane."""

    def get():
        method, properties, body = stack.region.channel.basic_get(names.fast_queue(region), auto_ack=True)
        return (properties.type, body) if method is not None else None

    kind, body = until(get, f"a message for {region}")
    assert kind == "cancel"
    return contract.decode_cancel(body)


def test_what_has_not_ended_is_cancelled_and_its_regions_are_told(stack, monkeypatch):
    monkeypatch.setattr(time, "time", lambda late=time.time: late() - 3600)  # only the hub's clock counts
    promised = stack.post({"sources": ["demo.plain", LIST]}).json()
    path = f"/v1/requests/{promised['id']}"
    plain, listed = stack.region.take("nyc"), stack.region.take("fra")
    stack.region.finish(plain)
    until(lambda: ask(stack.port, "GET", path).json()["completed"] == 1, "the first to end")
    reply = ask(stack.port, "DELETE", path)
    cancelled = reply.json()
    assert (reply.status, cancelled["status"], cancelled["done"], cancelled["completed"]) == (200, "cancelled", True, 2)
    assert {task["id"]: task["status"] for task in cancelled["tasks"]} == {
        plain.task: "succeeded",
        listed.task: "cancelled",
    }
    ends = {result["task"]: result["error"] for result in cancelled["results"]}
    assert (ends[plain.task], ends[listed.task]["type"], ends[listed.task]["origin"]) == (None, "cancelled", "policy")
    cancel = told(stack, "fra")
    assert (cancel.task, cancel.request) == (listed.task, promised["id"])
    assert cancel.deadline_ms >= listed.deadline_ms
    assert stack.region.is_empty("nyc"), "a region was told of a task that had ended"


def test_a_result_that_comes_after_the_cancel_changes_nothing(stack):
    promised = stack.post({"sources": [LIST]}).json()
    path = f"/v1/requests/{promised['id']}"
    task = stack.region.take("fra")
    first = ask(stack.port, "DELETE", path).json()
    stack.region.finish(task)
    stream = names.out_stream("fra")
    until(lambda: not stack.region.redis.xlen(stream), "the late result to be read")
    again = ask(stack.port, "DELETE", path)
    assert (again.status, again.json()) == (200, first)
    assert ask(stack.port, "GET", path).json() == first
    assert {told(stack, "fra").task for _ in range(2)} == {task.task}, "who asks again tells the region again"


def test_whoever_waits_hears_of_the_cancel(stack):
    promised = stack.post({"sources": [LIST]}).json()
    path = f"/v1/requests/{promised['id']}"
    with Wire(stack.port) as poll:
        poll.send("GET", f"{path}?wait=30")
        until(lambda: len(stack.gateway.waiters), "the poll to wait")
        ask(stack.port, "DELETE", path)
        assert poll.reply().json()["status"] == "cancelled"
    stack.region.take("fra")
    told(stack, "fra")


def test_a_finished_request_stays_as_it_is(stack):
    promised = stack.post({"sources": [LIST]}).json()
    path = f"/v1/requests/{promised['id']}"
    stack.region.finish(stack.region.take("fra"))
    done = until(lambda: (found := ask(stack.port, "GET", path).json())["done"] and found, "the end")
    assert ask(stack.port, "DELETE", path).json() == done
    assert stack.region.is_empty("fra")


def test_an_unknown_request_can_not_be_cancelled(stack):
    assert ask(stack.port, "DELETE", "/v1/requests/nothing").status == 404
    assert ask(stack.port, "DELETE", f"/v1/requests/{ulid.ULID()}").status == 404
