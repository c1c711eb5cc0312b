"""How the out streams are read: with other gateways, through outages, and a region apart."""

import json
import threading
import time

import pytest

from regions import names
from tests.service.hub_parts import Heard, accepted, send_home, settings
from tests.waiting import until
from web.flow import out_streams, settle
from web.flow.settle import Settler
from web.hub import scripts
from web.hub.ledger import Ledger
from web.hub.redis import Hub


def test_a_dead_gateways_entries_are_taken_over(parts, hub_redis, monkeypatch):
    found, hub, ledger, settler, _ = parts
    monkeypatch.setattr(out_streams, "TAKE_OVER_MS", 1)
    monkeypatch.setattr(settle, "HOUSEKEEPING_SECONDS", 0)
    new, times = accepted(ledger)
    dead = Settler(found, hub, ledger, Heard())
    dead._streams._make_groups()
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    dead._streams._backlog = False
    assert len(dead._streams.read()) == 1  # and it dies here: nothing took effect, nothing is acknowledged
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the dead gateway's entry to be taken over")


def consumers(client, region="fra"):
    return {one["name"].decode() for one in client.xinfo_consumers(names.out_stream(region), names.GATEWAYS)}


def test_gateways_that_are_gone_leave_the_group_but_not_with_entries_nor_for_a_pause(parts, hub_redis, monkeypatch):
    found, hub, ledger, settler, _ = parts
    monkeypatch.setattr(settle, "HOUSEKEEPING_SECONDS", 0)
    monkeypatch.setattr(out_streams, "FORGET_EVERY_SECONDS", 0)
    monkeypatch.setattr(out_streams, "TAKE_OVER_MS", 3_600_000)
    monkeypatch.setattr(out_streams, "BLOCK_SECONDS", 0.01)
    new, times = accepted(ledger)
    gone, holds = (Settler(found, hub, ledger, Heard()) for _ in range(2))
    for one in (gone, holds):
        one._streams._make_groups()
        one._streams._backlog = False
        one._streams.read()
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(holds._streams.read, "the entry to be read")
    settler.run_once()
    assert {gone._streams.consumer, holds._streams.consumer} <= consumers(hub_redis.client), "they may be paused"
    monkeypatch.setattr(out_streams, "FORGET_CONSUMER_MS", 1)
    until(lambda: settler.run_once() or gone._streams.consumer not in consumers(hub_redis.client), "it to be forgotten")
    assert {holds._streams.consumer, settler._streams.consumer} <= consumers(hub_redis.client)
    monkeypatch.setattr(out_streams, "TAKE_OVER_MS", 1)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "what the other one held")


def test_as_many_entries_are_read_at_once_as_come(parts, hub_redis):
    _, _, _, settler, _ = parts
    settler._streams._make_groups()
    settler._streams._backlog, sizes = False, []
    for count in (10, 40, 300, 0):
        for _ in range(count):
            hub_redis.client.xadd(names.out_stream("fra"), {"k": "claims", "v": 1, "d": "[]"})
        read = settler._streams.read()
        sizes.append((len(read), settler._streams._count))
        settler._handle(read)
        settler._streams.acknowledge()
    assert sizes == [(10, 50), (40, 80), (80, 160), (160, 320)]
    assert len(settler._streams.read()) == 60
    assert settler._streams._count == 120
    for _ in range(600):
        hub_redis.client.xadd(names.out_stream("fra"), {"k": "claims", "v": 1, "d": "[]"})
    while settler._streams.read():
        assert settler._streams._count <= out_streams.BATCH
    assert settler._streams._count == out_streams.BATCH_MIN


def test_an_outage_is_waited_out_with_pauses_that_grow(parts, hub_redis, monkeypatch):
    _, hub, ledger, settler, _ = parts
    paused, tries, real = [], [], settler.run_once

    def noted(failures: int) -> float:
        if threading.current_thread() is settler._loop.thread:  # the hub's probe pauses, too
            paused.append(failures)
        return 0.01

    monkeypatch.setattr(settle.connect, "backoff_seconds", noted)
    settler.run_once = lambda: tries.append(1) or real()
    settler.start()
    until(lambda: tries, "a turn")
    assert paused == []
    hub_redis.crash()
    until(lambda: len(paused) >= 4, "pauses")
    assert paused[:4] == [1, 2, 3, 4]
    hub_redis.running.start()
    new, times = accepted_when_back(hub, ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: ledger.read(new.id).done, "the result")
    paused.clear()
    hub_redis.crash()
    until(lambda: paused, "a pause")
    assert paused[0] == 1
    settler.stop()
    until(lambda: not settler._loop.thread.is_alive(), "its thread to end")
    hub_redis.running.start()


def test_what_an_error_kept_from_taking_effect_comes_again(parts, hub_redis, monkeypatch):
    """What was read belongs to its reader: nobody else looks at it for five seconds."""
    _, hub, ledger, settler, _ = parts
    monkeypatch.setattr(out_streams, "TAKE_OVER_MS", 3_600_000)
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    real = ledger.settle_and_read

    def dying(*settlements):
        monkeypatch.setattr(ledger, "settle_and_read", real)
        hub_redis.crash()
        return real(*settlements)

    monkeypatch.setattr(ledger, "settle_and_read", dying)
    settler.start()
    until(lambda: hub.away, "the outage")
    hub_redis.running.start()
    until(lambda: hub.away is None, "the hub")
    until(lambda: ledger.read(new.id).done, "the result")
    settler.stop()
    named = "gateway-settle"
    until(lambda: named not in {one["name"] for one in hub_redis.client.client_list()}, "its connections to be closed")


@pytest.mark.usefixtures("patient_clients")
def test_the_settler_tells_when_the_hub_is_away(tmp_path, hub_redis):
    found = settings(tmp_path, redis=hub_redis.url)
    hub = Hub(found)
    hub.run_once()  # and nobody looks after that
    settler = Settler(found, hub, Ledger(hub.client, found.limits), Heard())
    settler.start()
    hub_redis.crash()
    until(lambda: hub.away, "the outage")
    settler.stop()
    hub.client.close()


def test_a_group_that_somebody_destroyed_is_made_again(parts, hub_redis, monkeypatch):
    _, _, ledger, settler, _ = parts
    monkeypatch.setattr(settle, "HOUSEKEEPING_SECONDS", 3_600)
    settler.run_once()
    hub_redis.client.xgroup_destroy(names.out_stream("fra"), names.GATEWAYS)
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the result")


@pytest.mark.parametrize(("count", "apart"), [(settle.REFUSED_MAX, set()), (settle.REFUSED_MAX + 1, {"fra"})])
def test_a_region_of_whose_entries_many_are_refused_at_once_is_read_apart(parts, hub_redis, count, apart):
    _, _, _, settler, _ = parts
    settler._streams._make_groups()
    for number in range(count):
        hub_redis.client.xadd(names.out_stream("fra"), {"x": number})
    hub_redis.client.xadd(names.out_stream("nyc"), {"x": 1})
    settler._streams._backlog = False
    settler._handle(settler._streams.read())
    assert set(settler._streams._apart) == apart


def test_groups_are_made_once(parts, hub_redis):
    _, _, _, settler, _ = parts
    settler.run_once()
    hub_redis.client.config_resetstat()
    settler.run_once()
    assert "cmdstat_xgroup|create" not in hub_redis.client.info("commandstats")


def test_a_settler_that_ends_says_what_took_effect(parts, hub_redis):
    _, _, ledger, settler, _ = parts
    new, times = accepted(ledger)
    settler._streams._make_groups()
    settler._streams._backlog = False
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    settler._handle(settler._streams.read())
    assert ledger.read(new.id).done
    assert hub_redis.client.xlen(names.out_stream("fra")) == 1
    settler._finish()
    assert hub_redis.client.xlen(names.out_stream("fra")) == 0


def test_a_region_whose_stream_was_none_is_read_apart_for_half_a_minute(parts, hub_redis, monkeypatch):
    _, _, ledger, settler, _ = parts
    hub_redis.client.set(names.out_stream("fra"), "x")
    now = time.monotonic()
    settler.run_once()
    assert set(settler._streams._apart) == {"fra"}
    assert out_streams.APART_SECONDS <= settler._streams._apart["fra"] - now < out_streams.APART_SECONDS + 60
    new, times = accepted(ledger, ("fra", "nyc"))
    for task in new.tasks:
        send_home(hub_redis.client, new, task, times.created_ms + 10)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "both results")
    settler._finish()
    assert ledger.regions(["fra"])[0].refused == {"stream": 1}
    hub_redis.client.delete(names.out_stream("fra"))
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: settler.run_once() or ledger.read(new.id).done, "a result of the stream that was made anew")
    settler._streams._apart["fra"] = now
    until(lambda: settler.run_once() or not settler._streams._apart, "its time to be over")


def test_why_a_group_can_t_be_made_is_told(hub_redis):
    """A gateway whose user may not make groups would wait for entries for ever, and nobody would know why."""
    client, streams = hub_redis.client, [names.out_stream("fra")]
    assert scripts.GROUPS.call(client, group=names.GATEWAYS, streams=streams) == [b""]
    assert scripts.GROUPS.call(client, group=names.GATEWAYS, streams=streams) == [b""], "it is there already"
    client.execute_command("ACL", "SETUSER", "default", "-xgroup")
    try:
        (why,) = scripts.GROUPS.call(client, group=names.GATEWAYS, streams=[names.out_stream("nyc")])
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+@all")
    assert b"xgroup" in why.lower() or b"permission" in why.lower()


def test_a_region_that_is_read_apart_has_a_batch_from_time_to_time_and_not_in_each_turn(parts, hub_redis, monkeypatch):
    _, _, _, settler, _ = parts
    monkeypatch.setattr(out_streams, "APART_EVERY_SECONDS", 3_600.0)
    monkeypatch.setattr(settler._streams, "_regions", ["fra"])
    monkeypatch.setattr(settler._streams, "_served", ["fra"])
    monkeypatch.setattr(settler._loop.stopping, "wait", lambda _: None)  # no other region has entries to wait for
    settler._streams.set_apart("fra", "a test")
    for _ in range(2 * out_streams.APART_BATCH):
        hub_redis.client.xadd(names.out_stream("fra"), {"k": "claims", "v": 1, "d": "[]"})
    for _ in range(3):
        settler.run_once()
        settler._streams.acknowledge()
        assert hub_redis.client.xlen(names.out_stream("fra")) == out_streams.APART_BATCH


def test_a_region_that_is_read_apart_is_read_in_bytes_that_keep_nobody_waiting(parts, hub_redis):
    _, _, _, settler, _ = parts
    settler._streams._make_groups()
    settler._streams.set_apart("fra", "a test")
    for _ in range(400):
        hub_redis.client.xadd(names.out_stream("fra"), {"x": "x" * 5_000})
    read = []
    while found := settler._streams._read_apart():
        read.append((len(found), settler._streams._apart_count))
    assert read[:6] == [(100, 50), (50, 25), (25, 50), (50, 25), (25, 50), (50, 25)]
    assert sum(count for count, _ in read) == 400
    for count in (100, 100):
        settler._streams._read_apart()
        assert settler._streams._apart_count == count
    settler._streams._apart_count = 1
    hub_redis.client.xadd(names.out_stream("fra"), {"x": "x" * 300_000})
    settler._streams._read_apart()
    assert settler._streams._apart_count == 1


def accepted_when_back(hub, ledger):
    until(lambda: hub.away is None, "the hub")
    return accepted(ledger)


def test_what_was_read_and_not_finished_comes_again_after_an_error(parts, hub_redis, monkeypatch):
    _, _, ledger, settler, _ = parts
    monkeypatch.setattr(out_streams, "TAKE_OVER_MS", 3_600_000)
    new, times = accepted(ledger)
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    settler._streams._make_groups()
    until(settler._streams.read, "the entry to be read")  # and lost on the way
    settler._streams.begin_anew()
    until(lambda: settler.run_once() or ledger.read(new.id).done, "the entry to come again")


def test_a_hub_that_comes_back_loses_no_result(parts, hub_redis):
    _, hub, ledger, settler, _ = parts
    new, times = accepted(ledger, ("fra", "nyc"))
    settler.start()
    send_home(hub_redis.client, new, new.tasks[0], times.created_ms + 10)
    until(lambda: ledger.read(new.id).completed == 1, "the first result")
    hub_redis.crash()
    until(lambda: hub.away, "the outage to be noticed")
    hub_redis.running.start()
    until(lambda: hub.away is None, "the hub to be regained")
    send_home(hub_redis.client, new, new.tasks[1], times.created_ms + 20)
    until(lambda: ledger.read(new.id).done, "the second result")
    settler.stop()
    tasks = [json.loads(result)["task"] for result in ledger.read(new.id).results]
    assert tasks == [task.id for task in new.tasks]


def say(hub_redis, count: int, size: int = 0) -> None:
    for _ in range(count):
        hub_redis.client.xadd(names.out_stream("fra"), {"k": "claims", "v": 1, "d": "[]", "x": "x" * size})


def test_a_region_whose_entries_are_large_is_read_apart_and_one_at_a_time(parts, hub_redis, monkeypatch):
    """A batch of 500 with 2 MB each took all memory of a gateway."""
    _, _, _, settler, _ = parts
    monkeypatch.setattr(out_streams, "TOGETHER_BYTES", 20_000)
    monkeypatch.setattr(out_streams, "LARGE_BYTES", 500)
    settler._streams._make_groups()
    settler._streams._backlog = False
    say(hub_redis, 60, 1_000)
    settler._handle(settler._streams.read())
    assert set(settler._streams._apart) == {"fra"}
    began = time.monotonic()
    settler._streams._apart["fra"] = began + 1_000
    assert len(settler._streams._read_apart()) == 1
    assert out_streams.APART_SECONDS <= settler._streams._apart["fra"] - began < 1_000, (
        "it is so for half a minute after the last one"
    )


def test_what_a_dead_gateway_had_read_is_taken_over_a_few_at_a_time(parts, hub_redis, monkeypatch):
    """It may have died of it: each that took over the whole batch died likewise."""
    found, hub, ledger, settler, _ = parts
    monkeypatch.setattr(out_streams, "TAKE_OVER_MS", 3_600_000)
    dead = Settler(found, hub, ledger, Heard())
    dead._streams._make_groups()
    dead._streams._backlog, dead._streams._count = False, out_streams.BATCH
    say(hub_redis, 120)
    ids = [entry for _, entry, _ in dead._streams.read()]
    hub_redis.client.xclaim(
        names.out_stream("fra"), names.GATEWAYS, dead._streams.consumer, 0, ids, idle=out_streams.TAKE_OVER_MS * 2
    )
    sizes = []
    settler._streams.acknowledge()  # as in each turn: it connects
    for entries in settler._streams.taken_over():
        sizes.append(len(entries))
        settler._handle(entries)
    assert sizes == [50, 50, 20]
    settler._finish()
    assert hub_redis.client.xlen(names.out_stream("fra")) == 0
