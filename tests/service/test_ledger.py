"""The ledger on a real Redis: accepted as a whole or not at all, each task ended once, read since a cursor."""

import json

import msgspec
import pytest
import redis

from regions import connect, names
from regions.settings import Limits
from tests.service.hub_parts import frame, new_request
from web import lua
from web.ledger import Ledger, Settlement


@pytest.fixture
def ledger(hub_redis):
    return Ledger(hub_redis.client, Limits())


def settlement(new, task, times, **changes) -> Settlement:
    said = {"status": "succeeded", "finished_ms": times.created_ms + 5, "size_bytes": 700, "region": task.region}
    return Settlement(request=new.id, task=task.id, **{**said, **changes})


def put_result(client, task) -> None:
    client.set(names.result(task.region, task.id), frame(task))


def put_results(client, *requests) -> None:
    for new in requests:
        for task in new.tasks:
            put_result(client, task)


def test_nothing_is_read_before_the_accept_even_when_a_region_was_faster(ledger, hub_redis):
    new = new_request()
    times = ledger.begin(new)
    put_result(hub_redis.client, new.tasks[0])
    assert ledger.settle([settlement(new, new.tasks[0], times)]) == [lua.LAST]
    assert ledger.read(new.id) is None
    assert ledger.accept([new.id])[0] == [True]
    view = ledger.read(new.id)
    assert view.done
    assert view.status == "succeeded"
    assert json.loads(view.results[0])["records"] == [{"currency": "USD", "rate": "1.1"}]
    assert json.loads(view.attrs) == {"a": [1]}


def test_a_task_ends_once_whoever_says_so_again(ledger, hub_redis):
    new = new_request(("fra", "nyc"))
    put_results(hub_redis.client, new)
    times = ledger.begin(new)
    ledger.accept([new.id])
    first, second = new.tasks
    answers = ledger.settle(
        [
            settlement(new, first, times, status="failed"),
            settlement(new, first, times),
            settlement(new, second, times, region="sin"),
        ]
    )
    assert answers == [lua.SETTLED, lua.NOTHING, lua.NOTHING]
    assert {task.id: task.status for task in ledger.tasks(new.id)} == {first.id: "failed", second.id: "queued"}


def test_tasks_that_end_together_end_as_one_by_one(ledger, hub_redis):
    """Of two requests in turn, more than one script takes, with repeats, another region's word, and ends that may not be."""
    together, singly = (
        [new_request(("fra", "nyc") * 60) for _ in range(2)],
        [new_request(("fra", "nyc") * 60) for _ in range(2)],
    )
    found = []
    for requests, settle in (
        (together, ledger.settle),
        (singly, lambda all_of_it: [ledger.settle([one])[0] for one in all_of_it]),
    ):
        said = []
        put_results(hub_redis.client, *requests)
        times = [ledger.begin(new) for new in requests]
        ledger.accept([new.id for new in requests])
        for number in range(120):
            for new, its in zip(requests, times, strict=True):
                task = new.tasks[number]
                late = {"finished_ms": its.deadline_ms + 1} if number == 7 else {}
                said.append(settlement(new, task, its, status="failed" if number % 9 == 0 else "succeeded", **late))
                if number % 10 == 0:
                    said += [settlement(new, task, its), settlement(new, new.tasks[number + 1], its, region="sin")]
        said += [settlement(new, new.tasks[7], its, status="expired") for new, its in zip(requests, times, strict=True)]
        answers = settle(said)
        ledgers = [hub_redis.client.hgetall(names.ledger(new.id)) for new in requests]
        ids = {task.id.encode(): b"%d" % n for new in requests for n, task in enumerate(new.tasks)}
        order = [
            [(ids[fields[b"t"]], fields[b"s"]) for _, fields in hub_redis.client.xrange(names.events(new.id))]
            for new in requests
        ]
        counts = [
            {key: its[key] for key in (b"completed", b"bytes", b"succeeded", b"failed", b"expired")} for its in ledgers
        ]
        found.append((answers, counts, order))
    assert found[0] == found[1]
    assert [answer for answer in found[0][0] if answer == lua.LAST] == [lua.LAST] * 2
    assert hub_redis.client.zcard(names.DUE) == 0


def test_a_cursor_leads_through_all_results_without_a_gap_or_a_repeat(ledger, hub_redis):
    new = new_request(("fra", "nyc", "sin"))
    times = ledger.begin(new)
    ledger.accept([new.id])
    for task in new.tasks:
        put_result(hub_redis.client, task)
        ledger.settle([settlement(new, task, times)])
    seen, cursor, more = [], "0-0", True
    while more:
        view = ledger.read(new.id, cursor, bytes_max=1000)
        assert len(view.results) == 1
        seen += [json.loads(result)["task"] for result in view.results]
        cursor, more = view.cursor, view.more
    assert seen == [task.id for task in new.tasks]
    assert ledger.read(new.id, cursor).results == []
    assert ledger.read(new.id, cursor).cursor == cursor


def test_a_success_after_its_deadline_does_not_settle(ledger):
    new = new_request()
    times = ledger.begin(new)
    late = settlement(new, new.tasks[0], times, finished_ms=times.deadline_ms + 1)
    assert ledger.settle([late]) == [lua.LATE]
    assert ledger.tasks(new.id)[0].status == "queued"


def test_results_past_the_requests_bytes_do_not_settle(hub_redis):
    ledger = Ledger(hub_redis.client, Limits(request_bytes_max=1000))
    new = new_request(("fra", "nyc"))
    put_results(hub_redis.client, new)
    times = ledger.begin(new)
    answers = ledger.settle([settlement(new, task, times) for task in new.tasks])
    assert answers == [lua.SETTLED, lua.TOO_LARGE]


def test_a_refused_request_is_nothing_whatever_its_tasks_did(ledger, hub_redis):
    new = new_request(("fra", "nyc"))
    put_results(hub_redis.client, new)
    times = ledger.begin(new)
    ledger.settle([settlement(new, new.tasks[0], times)])
    ledger.accept([new.id])
    assert ledger.refuse(new.id, [(task.id, task.region) for task in new.tasks])
    assert ledger.read(new.id) is None
    assert ledger.accept([new.id])[0] == [False]
    assert ledger.settle([settlement(new, new.tasks[1], times)]) == [lua.NOTHING]
    for key in (names.DUE, names.ACCEPTING, names.open_tasks("fra"), names.open_tasks("nyc")):
        assert hub_redis.client.zcard(key) == 0
    assert not hub_redis.client.exists(names.events(new.id))


def test_a_live_lease_is_not_refused_as_lapsed(ledger):
    new = new_request()
    ledger.begin(new)
    assert not ledger.refuse(new.id, [(new.tasks[0].id, "fra")], lapsed_only=True)
    assert ledger.accept([new.id])[0] == [True]
    assert not ledger.refuse(new.id, [(new.tasks[0].id, "fra")], lapsed_only=True)


def test_every_key_of_a_request_expires_when_the_request_does(ledger, hub_redis):
    new = new_request()
    times = ledger.begin(new)
    ledger.accept([new.id])
    ledger.settle([settlement(new, new.tasks[0], times, status="expired", frame=frame(new.tasks[0]))])
    keys = [names.ledger(new.id), names.events(new.id), names.result(names.HUB, new.tasks[0].id)]
    assert {hub_redis.client.pexpiretime(key) for key in keys} == {times.expires_ms}


def test_running_is_shown_only_for_what_was_queued(ledger, hub_redis):
    new = new_request(("fra", "fra"))
    put_results(hub_redis.client, new)
    times = ledger.begin(new)
    ledger.settle([settlement(new, new.tasks[0], times)])
    ledger.mark_running("fra", [(new.id, task.id, b"") for task in new.tasks])
    assert [task.status for task in ledger.tasks(new.id)] == ["succeeded", "running"]


def test_a_full_redis_refuses_a_new_request_and_still_settles(start_redis):
    instance = start_redis("full", maxmemory="64mb")
    ledger = Ledger(instance.client, Limits())
    new = new_request()
    times = ledger.begin(new)
    ledger.accept([new.id])
    put_results(instance.client, new)
    instance.client.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        ledger.begin(new_request())
    assert ledger.settle([settlement(new, new.tasks[0], times, status="failed")]) == [lua.LAST]


def test_a_redis_that_takes_no_writes_is_read_without_the_note_that_it_was(ledger, hub_redis):
    new = new_request()
    times = ledger.begin(new)
    put_result(hub_redis.client, new.tasks[0])
    ledger.accept([new.id])
    ledger.settle([settlement(new, new.tasks[0], times)])
    hub_redis.client.config_set("min-replicas-to-write", 1)
    assert len(ledger.read(new.id, how="poll").results) == 1
    assert not hub_redis.client.exists(names.trail(new.id))
    hub_redis.client.config_set("min-replicas-to-write", 0)
    assert len(ledger.read(new.id, how="poll").results) == 1
    assert hub_redis.client.hget(names.trail(new.id), f"d:{new.tasks[0].id}").endswith(b"|poll")
    assert hub_redis.client.pexpiretime(names.trail(new.id)) == times.expires_ms


def test_what_finished_too_long_ago_or_is_too_large_does_not_come_along(hub_redis):
    """The look is a part of the begin, and costs what it finds."""
    ledger = Ledger(hub_redis.client, Limits(answer_bytes_max=1000))
    first = new_request()
    times = ledger.begin(first)
    put_result(hub_redis.client, first.tasks[0])
    ended = settlement(first, first.tasks[0], times, finished_ms=times.created_ms - 30_000)
    assert ledger.settle([ended]) == [lua.LAST]

    def kept(max_age: float, tasks: int = 1):
        return ledger.begin(msgspec.structs.replace(new_request(("fra",) * tasks), max_age=max_age)).kept

    assert (kept(0), kept(20)) == ([], [])
    (one,) = kept(60)
    assert (one.key, one.frame) == (names.result(names.settled("fra"), first.tasks[0].id), frame(first.tasks[0]))
    assert len(kept(60, tasks=2)) == 1  # 700 bytes each


def test_a_region_shows_its_open_tasks_and_the_oldest(ledger):
    new = new_request(("fra", "fra", "nyc"))
    times = ledger.begin(new)
    fra, nyc, sin = ledger.regions(["fra", "nyc", "sin"])
    assert (fra.open_tasks, nyc.open_tasks, sin.open_tasks) == (2, 1, 0)
    assert fra.oldest_ms == times.created_ms
    assert sin.oldest_ms is None
    assert fra.now_ms >= times.created_ms


def test_the_clock_is_the_hubs(ledger, hub_redis):
    before = connect.redis_now_ms(hub_redis.client)
    assert before <= ledger.begin(new_request()).created_ms <= connect.redis_now_ms(hub_redis.client)
