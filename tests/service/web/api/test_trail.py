"""A task's hops are in the order in which they happened, however little its region knows of the hub's clock."""

import msgspec
import pytest

from jobs.contract import LOST, PUT_BACK, Attempt, Trail, encode_trail
from regions import names, script
from tests.service.hub_parts import accepted, frame, settings, settle
from web.api.trail import _foreign, document, whereabouts
from web.hub import ids, scripts
from web.hub.ledger import Ledger
from web.hub.settlement import Settlement


def trail(now_ms: int) -> bytes:
    """Of a task that ran twice, by a clock that shows ``now_ms``."""
    first = Attempt(1, now_ms + 1, now_ms + 2, "fra.worker.1", LOST, "")
    return encode_trail(Trail(now_ms, [first, Attempt(2, now_ms + 3, now_ms + 4, "fra.worker.2", "", "")]))


def shown(client, new) -> dict:
    return document(whereabouts(client, new.id, new.tasks[0].id))


@pytest.mark.parametrize("wrong_ms", [-40, 0, 40, 3_600_000])
def test_hops_of_a_region_lie_between_those_of_the_hub(tmp_path, hub_redis, wrong_ms):
    client = hub_redis.client
    ledger = Ledger(client, settings(tmp_path, redis=hub_redis.url).limits)
    new, times = accepted(ledger)
    (task,) = new.tasks
    ledger.mark_running("fra", [(new.id, task.id, trail(times.created_ms + wrong_ms))])
    found = shown(client, new)
    assert [hop["after_ms"] for hop in found["hops"] if hop["hop"] != "confirmed"] == [
        0, *(max(0, wrong_ms + after) for after in range(4)),
    ]  # fmt: skip
    body = frame(task)
    client.set(names.result("fra", task.id), body)
    end = Settlement(
        request=new.id, task=task.id, region="fra", status="succeeded", finished_ms=times.created_ms + 4,
        size_bytes=len(body), trail=trail(times.created_ms + wrong_ms),
    )  # fmt: skip
    assert ledger.settle([end]) == [scripts.LAST]
    found = shown(client, new)
    assert [hop["hop"] for hop in found["hops"] if hop["hop"] != "confirmed"] == [
        "accepted", "bridged", "claimed", "lost", "claimed", "finished", "settled",
    ]  # fmt: skip
    assert [(one["started_at"], one["ended_at"]) for one in found["attempts"]] == [
        tuple(hop["at"] for hop in found["hops"] if hop.get("attempt") == attempt) for attempt in (1, 2)
    ]


def test_attempts_of_processes_that_know_the_hub_s_clock_differently_come_one_after_the_other(tmp_path, hub_redis):
    ledger = Ledger(hub_redis.client, settings(tmp_path, redis=hub_redis.url).limits)
    new, times = accepted(ledger)
    attempts = [
        Attempt(1, times.created_ms + 1, times.created_ms + 20, "fra.worker.1", LOST, ""),
        Attempt(2, times.created_ms + 15, times.created_ms + 18, "fra.worker.2", "timeout", ""),
        Attempt(3, times.created_ms + 17, 0, "fra.worker.1", "", ""),
    ]
    ledger.mark_running("fra", [(new.id, new.tasks[0].id, encode_trail(Trail(times.created_ms, attempts)))])
    hops = [(one["hop"], one["after_ms"]) for one in shown(hub_redis.client, new)["hops"] if one["hop"] != "confirmed"]
    assert hops == [
        ("accepted", 0), ("bridged", 0), ("claimed", 1), ("lost", 20), ("claimed", 20), ("failed", 20), ("claimed", 20),
    ]  # fmt: skip


def test_an_attempt_that_has_not_ended_has_no_end(tmp_path, hub_redis):
    ledger = Ledger(hub_redis.client, settings(tmp_path, redis=hub_redis.url).limits)
    new, times = accepted(ledger)
    running = encode_trail(Trail(0, [Attempt(1, times.created_ms - 5, 0, "fra.worker.1", "", "")]))
    ledger.mark_running("fra", [(new.id, new.tasks[0].id, running)])
    found = shown(hub_redis.client, new)
    assert [hop["hop"] for hop in found["hops"] if hop["hop"] != "confirmed"] == ["accepted", "claimed"]
    assert found["attempts"][0]["ended_at"] is None


def test_what_a_task_waited_for_is_a_hop_with_its_reason(tmp_path, hub_redis):
    """It waited for its host's turn, failed, waited to be tried again and for the turn, was put back, and joined another task."""
    client = hub_redis.client
    ledger = Ledger(client, settings(tmp_path, redis=hub_redis.url).limits)
    new, times = accepted(ledger)
    (task,) = new.tasks
    began = times.created_ms
    attempts = [
        Attempt(1, began + 1_500, began + 1_600, "fra.worker.1", "http_status", "503", 1_200),
        Attempt(2, began + 4_000, began + 4_100, "fra.worker.1", PUT_BACK, "no thread is free", 400),
        Attempt(3, began + 5_000, began + 5_050, "fra.worker.2", "", "its answer is that of X, which asked the same"),
    ]
    ledger.mark_running("fra", [(new.id, task.id, encode_trail(Trail(began + 100, attempts)))])
    found = shown(client, new)
    waits = [(hop["hop"], hop["after_ms"], hop["note"]) for hop in found["hops"] if hop["hop"] in ("waited", "joined")]
    assert waits == [
        ("waited", 300, "for its host's turn: 1.200 s"),
        ("waited", 1_600, "to be tried again after http_status: 2.000 s"),
        ("waited", 3_600, "for its host's turn: 0.400 s"),
        ("waited", 4_100, "to be claimed again: 0.900 s"),
        ("joined", 4_100, "it waited for another task that asks the same: 0.900 s"),
    ]
    assert [one["error"] and one["error"]["type"] for one in found["attempts"]] == ["http_status", PUT_BACK, None]


def test_a_task_that_waited_for_nothing_has_no_such_hop(tmp_path, hub_redis):
    ledger = Ledger(hub_redis.client, settings(tmp_path, redis=hub_redis.url).limits)
    new, times = accepted(ledger)
    lost = Attempt(1, times.created_ms + 10, times.created_ms + 5_000, "fra.worker.1", LOST, "its process died")
    again = Attempt(2, times.created_ms + 5_010, 0, "fra.worker.2", "", "")
    ledger.mark_running("fra", [(new.id, new.tasks[0].id, encode_trail(Trail(times.created_ms, [lost, again])))])
    assert [hop["hop"] for hop in shown(hub_redis.client, new)["hops"] if hop["hop"] != "confirmed"] == [
        "accepted", "bridged", "claimed", "lost", "claimed",
    ]  # fmt: skip


def test_what_a_task_waits_for_now_is_a_hop_until_it_has_ended(tmp_path, hub_redis):
    client = hub_redis.client
    ledger = Ledger(client, settings(tmp_path, redis=hub_redis.url).limits)
    new, times = accepted(ledger)
    (task,) = new.tasks
    waits = [["other", times.created_ms, "for something else"], [task.id, times.created_ms + 5, "for the turn of x"]]
    said = {"at_ms": ledger.now_ms() + 60_000, "processes": 1, "waits": waits}  # it does not fall silent meanwhile
    client.hset(names.region_status("fra"), "workers:here:1", msgspec.json.encode(said))
    # The broker's confirm is left out: it comes when it comes, also after the wait has begun.
    last = [hop for hop in shown(client, new)["hops"] if hop["hop"] != "confirmed"][-1]
    assert (last["where"], last["hop"], last["after_ms"]) == ("fra", "waited", 5)
    assert last["note"].startswith("for the turn of x: ")
    settle(ledger, client, new, 0)
    assert "waited" not in [hop["hop"] for hop in shown(client, new)["hops"]]


def test_the_owners_of_all_tasks_that_a_region_names_are_asked_for_in_one_round_trip(hub_redis, monkeypatch):
    """Each was a round trip: a message with thousands of ids held the gateway's thread for seconds."""
    first = ids.new()
    named = [ids.task(first, 1), *(ids.task(ids.new(), 1) for _ in range(500))]
    hub_redis.client.hset(names.ledger(first), mapping={"tenant": "shop"})
    real, calls = script._exchange, []
    monkeypatch.setattr(script, "_exchange", lambda client, commands: calls.append(1) or real(client, commands))
    assert _foreign(hub_redis.client, "shop", ["; ".join(named), "none"]) == set(named[1:])
    assert len(calls) == 1
    assert _foreign(hub_redis.client, "shop", ["none"]) == set()
    assert len(calls) == 1
