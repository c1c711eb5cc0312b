"""What regions say in their streams, and what becomes of it, on a real Redis."""

import json

import pytest

from regions import names
from tests.service.hub_parts import accepted, send_home
from tests.waiting import until


def test_what_regions_append_ends_tasks_and_is_trimmed(parts, hub_redis):
    _, _, ledger, settler, news = parts
    new, times = accepted(ledger, ("fra", "nyc", "sin"))
    for task in new.tasks:
        send_home(hub_redis.client, new, task, times.created_ms + 10)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "all three tasks to be settled")
    assert news == [new.id + names.MORE, new.id + names.MORE, new.id]
    tasks = [json.loads(result)["task"] for result in ledger.read(new.id).results]
    assert sorted(tasks) == sorted(task.id for task in new.tasks)
    streams = [names.out_stream(region) for region in ("fra", "nyc", "sin")]
    until(lambda: settler.run_once() or not any(map(hub_redis.client.xlen, streams)), "the streams to be empty")
    assert not any(hub_redis.client.xpending(stream, names.GATEWAYS)["pending"] for stream in streams)
    hops = {labels: sum(cells[:-1]) for labels, cells in ledger.tally.hops.counts() if labels[0] != "accept"}
    assert hops == {("settle", region): 1 for region in ("fra", "nyc", "sin")}, "nobody waited here for an answer"


def test_the_same_entry_twice_is_one_result(parts, hub_redis):
    _, _, ledger, settler, _ = parts
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 20)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the task to be settled")
    assert len(ledger.read(new.id).results) == 1


def test_a_late_success_is_expired_and_says_so(parts, hub_redis):
    _, _, ledger, settler, _ = parts
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.deadline_ms + 1)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the task to be settled")
    result = json.loads(ledger.read(new.id).results[0])
    assert (result["status"], result["source"], result["error"]["type"]) == ("expired", "ecb.rates", "expired")
    assert result["records"] == []


def test_results_that_may_not_count_are_looked_up_together(parts, hub_redis):
    """A ledger read for each kept the settler from all others: after an outage, or where a region lies of sizes."""
    _, _, ledger, settler, _ = parts
    new, times = accepted(ledger, ("fra",) * 40)
    for task in new.tasks:
        send_home(hub_redis.client, new, task, times.deadline_ms + 1)
    hub_redis.client.config_resetstat()
    stream = names.out_stream("fra")
    until(lambda: settler.run_once() or not hub_redis.client.xlen(stream), "the stream to be empty")
    assert "cmdstat_hgetall" not in hub_redis.client.info("commandstats")
    assert {task.status for task in ledger.tasks(new.id)} == {"expired"}


@pytest.mark.parametrize("spoil", ["HDEL", "SET"])
def test_a_request_whose_ledger_is_broken_keeps_no_other_from_its_end(parts, hub_redis, spoil):
    _, _, ledger, settler, _ = parts
    (broken, times), (new, _) = accepted(ledger), accepted(ledger)
    key = names.ledger(broken.id)
    hub_redis.client.hdel(key, "bytes") if spoil == "HDEL" else hub_redis.client.set(key, "x")
    for one in (broken, new):
        send_home(hub_redis.client, one, one.tasks[0], times.created_ms + 10)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the other to be settled")


def test_an_unknown_version_fails_the_task_and_names_both(parts, hub_redis):
    _, _, ledger, settler, _ = parts
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10, v=7)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the task to be settled")
    error = json.loads(ledger.read(new.id).results[0])["error"]
    assert error["type"] == "internal"
    assert "0 to 2" in error["message"]
    assert "7" in error["message"]


def test_garbage_in_a_stream_is_passed_over(parts, hub_redis):
    _, _, ledger, settler, _ = parts
    for fields in ({"x": "y"}, {"k": "result", "v": "1"}, {"k": "nonsense", "v": 1}, {"k": "status", "v": 1, "d": "{"}):
        hub_redis.client.xadd(names.out_stream("fra"), fields)
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the good entry behind the bad ones")
    until(lambda: settler.run_once() or not hub_redis.client.xlen(names.out_stream("fra")), "the stream to be empty")
    refused = ledger.tally.refused.counts()
    assert ({region for (region, _), _ in refused}, sum(count for _, count in refused)) == ({"fra"}, 4)


def test_status_and_claims_are_kept_for_the_views(parts, hub_redis):
    _, _, ledger, settler, _ = parts
    new, _ = accepted(ledger)
    client = hub_redis.client
    said = {"k": "status", "v": 1, "part": "bridge", "name": "h:1", "d": '{"at_ms":5,"state":"consuming"}'}
    client.xadd(names.out_stream("fra"), said)
    claims = json.dumps([[new.id, new.tasks[0].id, 1, 5]])
    client.xadd(names.out_stream("fra"), {"k": "claims", "v": 1, "d": claims})
    until(lambda: settler.run_once() or ledger.tasks(new.id)[0].status == "running", "the claim")
    until(lambda: settler.run_once() or ledger.regions(["fra"])[0].reported, "the status")
    assert ledger.regions(["fra"])[0].reported == {"bridge:h:1": {"at_ms": 5, "state": "consuming"}}


def test_a_full_hub_refuses_what_regions_say_and_not_the_result_behind_it(parts, hub_redis):
    _, _, ledger, settler, _ = parts
    client = hub_redis.client
    new, times = accepted(ledger)
    said = {"k": "status", "v": 1, "part": "bridge", "name": "h:1", "d": '{"at_ms":5,"state":"consuming"}'}
    client.xadd(names.out_stream("fra"), said)
    until(lambda: settler.run_once() or client.xpending(names.out_stream("fra"), names.GATEWAYS)["pending"], "the read")
    send_home(client, new, new.tasks[0], times.created_ms + 10)
    client.config_set("maxmemory", 1)
    settler.run_once()  # one turn: the refused status and the result
    assert ledger.read(new.id).done
    client.config_set("maxmemory", 0)
    assert ledger.regions(["fra"])[0].reported == {}


def test_what_a_hub_settled_and_forgot_is_settled_again(parts, hub_redis):
    """It was killed while it had not written it, and is back before the gateway goes on: nothing is deleted by then."""
    _, _, ledger, settler, _ = parts
    settler.run_once()
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    size = hub_redis.written()
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the result")
    hub_redis.forget(size)
    assert not ledger.read(new.id).done
    settler.start()
    until(lambda: ledger.read(new.id).done, "the result again")
    settler.stop()
    assert [json.loads(result)["task"] for result in ledger.read(new.id).results] == [new.tasks[0].id]
