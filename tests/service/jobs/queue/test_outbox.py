"""Results on their way home, between two real Redis."""

import itertools
import math
import threading
import time
from collections import deque

import pytest

from jobs.contract import Outcome
from jobs.queue import home as home_module
from jobs.queue import outbox
from jobs.queue.home import Home, Shipment, delete, open_hub
from jobs.queue.outbox import Leftovers, Shipper
from regions import connect, link, names
from scripts.stack import hub_acl
from scripts.stack.wan_links import Rule, Way
from tests.service.working import REGION, out_entries, post, results
from tests.waiting import until


@pytest.fixture
def home(hub_redis, region_redis):
    return Home(open_hub(hub_redis.url, "w1"), REGION, region_redis.client)


def outcome(number: int, *, size: int = 10, expires_in: float = 60.0) -> Outcome:
    now = int(time.time() * 1000)
    return Outcome(
        request=f"R{number}", task=f"T{number}", status="succeeded", finished_ms=now,
        expires_ms=now + int(expires_in * 1000), frame=b"x" * size,
    )  # fmt: skip


def stored(client, one: Outcome, *, age_seconds: float = 0.0, since: float | None = None) -> Shipment:
    """Puts an outcome into the outbox, as long ago as told."""
    seconds, micros = client.time()
    at = int(seconds * 1000 + micros // 1000 - age_seconds * 1000)
    entry = client.xadd(
        names.OUTBOX,
        {"q": one.request, "t": one.task, "s": one.status, "f": one.finished_ms, "x": one.expires_ms, "b": 610,
         "r": one.frame},
        id=f"{at}-*",
    )  # fmt: skip
    client.incrby(names.OUTBOX_BYTES, len(one.frame))
    return Shipment(entry.decode(), one, 610, time.monotonic() if since is None else since)


def ship(shipper: Shipper) -> None:
    """Until nothing is to be sent any more, and all is answered."""
    while shipper._flying or shipper._leaves_at() != math.inf:
        assert shipper.run_once()


def connections(hub) -> list[str]:
    """The connections of worker processes at the hub."""
    return sorted(one["id"] for one in hub.client.client_list() if one["name"] == "w1")


def left(region) -> tuple[int, int]:
    """(entries, bytes) of the outbox."""
    return region.client.xlen(names.OUTBOX), int(region.client.get(names.OUTBOX_BYTES) or 0)


def test_a_result_arrives_whole_and_leaves_the_outbox(region_redis, hub_redis, home):
    shipper = Shipper(home)
    one = outcome(1)
    shipper.put([stored(region_redis.client, one)])
    ship(shipper)
    assert hub_redis.client.get(names.result(REGION, "T1")) == one.frame
    assert 58_000 < hub_redis.client.pttl(names.result(REGION, "T1")) <= 60_000
    assert out_entries(hub_redis.client) == [
        {b"k": b"result", b"v": b"1", b"q": b"R1", b"t": b"T1", b"s": b"succeeded",
         b"f": str(one.finished_ms).encode(), b"b": b"610", b"h": b""}
    ]  # fmt: skip
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")


def test_sending_twice_keeps_the_first_result(region_redis, hub_redis, home):
    first, second = outcome(1), outcome(1, size=20)
    assert post(home, [Shipment("1-0", first, 610)])
    assert post(home, [Shipment("1-0", second, 610)])
    assert hub_redis.client.get(names.result(REGION, "T1")) == first.frame
    assert results(hub_redis.client) == ["T1", "T1"]


def test_deleting_twice_counts_the_bytes_once(region_redis):
    client = region_redis.client
    entry, other = (stored(client, outcome(1)).entry, 10), (stored(client, outcome(2)).entry, 10)
    assert delete(client, [entry]) == 10
    assert delete(client, [entry]) == 0
    assert left(region_redis) == (1, 10)
    assert delete(client, [entry, other]) == 10


def test_a_batch_is_bounded_by_bytes_and_never_empty(region_redis, hub_redis, home, monkeypatch):
    monkeypatch.setattr(outbox, "FLYING_BYTES", outbox.BATCH_MAX_BYTES)
    shipper = Shipper(home)
    size = outbox.BATCH_MAX_BYTES
    shipper.put([stored(region_redis.client, outcome(n, size=size)) for n in range(3)])
    for sent in (1, 2, 3):
        until(lambda: shipper.run_once() and not shipper._flying, "the reply to a batch")
        assert len(results(hub_redis.client)) == sent


def test_what_runs_is_told_with_the_next_batch(region_redis, hub_redis, home):
    shipper = Shipper(home)
    shipper.tell([("R1", "T1", 2, 1234)])
    shipper.put([stored(region_redis.client, outcome(2))])
    ship(shipper)
    (said,) = out_entries(hub_redis.client, b"claims")
    assert said == {b"k": b"claims", b"v": b"1", b"d": b'[["R1","T1",2,1234]]'}
    assert results(hub_redis.client) == ["T2"]


def test_while_the_hub_is_away_young_results_are_kept_and_old_ones_left_to_others(region_redis, hub_redis, home):
    shipper = Shipper(home)
    client = region_redis.client
    old = stored(client, outcome(1), since=time.monotonic() - outbox.ORPHAN_SECONDS)
    shipper.put([old, stored(client, outcome(2))])
    hub_redis.running.kill()
    assert shipper.run_once()
    assert home.backoff_seconds <= connect.BACKOFF_MAX_SECONDS
    assert left(region_redis)[0] == 2
    hub_redis.running.start()
    ship(shipper)
    assert results(hub_redis.client) == ["T2"]
    assert home.backoff_seconds == 0
    until(lambda: left(region_redis)[0] == 1, "the sent one to be in the hub's file")
    assert [entry.decode() for entry, _ in client.xrange(names.OUTBOX)] == [old.entry]


def test_the_wait_between_tries_grows_to_two_seconds_and_is_random(home, hub_redis):
    hub_redis.running.kill()
    waits = []
    for _ in range(12):
        assert not post(home, [Shipment("1-0", outcome(1), 610)])
        waits.append(home.backoff_seconds)
    assert max(waits) <= connect.BACKOFF_MAX_SECONDS
    assert max(home.backoff_seconds for _ in range(100)) > 1.0
    assert len({home.backoff_seconds for _ in range(10)}) > 1


def shipped(leftovers: Leftovers) -> int:
    """How many replies it took until it had none to wait for."""
    replies = 0
    while leftovers.run_once():
        replies += 1
    return replies


def test_orphans_are_shipped_by_one_process_at_a_time(region_redis, hub_redis, home):
    client = region_redis.client
    for number in range(30):
        stored(client, outcome(number), age_seconds=10)
    stored(client, outcome(99))
    first = Leftovers(client, home, "w1")
    second = Leftovers(client, Home(open_hub(hub_redis.url, "w2"), REGION, client), "w2")
    assert first.run_once()
    assert not second.run_once()
    assert not first.run_once()
    assert sorted(results(hub_redis.client)) == sorted(f"T{number}" for number in range(30))
    until(
        lambda: left(region_redis) == (1, 10), "the old ones to be in the hub's file"
    )  # the young one is its own process's


def test_many_orphans_go_home_in_several_batches_at_once_and_each_once(region_redis, hub_redis, home, monkeypatch):
    client = region_redis.client
    monkeypatch.setattr(outbox, "FLYING_BYTES", 1_000_000)
    for number in range(2_500):
        stored(client, outcome(number, size=1_000), age_seconds=10)
    leftovers = Leftovers(client, home, "w1")
    assert leftovers.run_once()
    assert home.flying == 3  # and one has come back
    assert home.flying_bytes > outbox.FLYING_BYTES / 2
    shipped(leftovers)
    assert results(hub_redis.client) == [f"T{number}" for number in range(2_500)]
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")


def test_what_was_under_way_when_the_hub_died_is_sent_again(region_redis, hub_redis, home):
    client = region_redis.client
    for number in range(1_500):
        stored(client, outcome(number, size=1_000), age_seconds=10)
    leftovers = Leftovers(client, home, "w1")
    assert leftovers.run_once()
    hub_redis.running.kill()
    until(lambda: not leftovers.run_once(), "the loss to be seen")
    assert not home.flying
    assert left(region_redis)[0] == 1_500
    hub_redis.running.start()
    until(lambda: shipped(leftovers) or left(region_redis) == (0, 0), "an empty outbox")
    until(lambda: shipped(leftovers) or left(region_redis) == (0, 0), "an empty outbox")
    assert set(results(hub_redis.client)) == {f"T{number}" for number in range(1_500)}


def test_a_page_of_large_orphans_is_bounded_in_bytes(region_redis, home):
    client = region_redis.client
    for number in range(40):
        stored(client, outcome(number, size=400_000), age_seconds=10)
    found = Leftovers(client, home, "w1")._orphans()
    assert len(found) == 4


def test_another_process_ships_orphans_when_their_shipper_died(region_redis, hub_redis, home):
    client = region_redis.client
    stored(client, outcome(1), age_seconds=10)
    client.set(names.OUTBOX_TURN, "w1", px=100)
    leftovers = Leftovers(client, home, "w2")
    until(leftovers.run_once, "the turn to lapse")
    assert results(hub_redis.client) == ["T1"]


def test_orphans_from_before_a_step_back_that_was_taken_as_the_time_are_shipped(region_redis, hub_redis, home):
    """Nobody was there to see the step. The ids of later results are ahead, too: Redis makes no smaller ones."""
    client = region_redis.client
    stored(client, outcome(1), age_seconds=-3600)
    client.xadd(
        names.OUTBOX, {"q": "R2", "t": "T2", "s": "succeeded", "f": 1, "x": 9_000_000_000_000, "b": 610, "r": b"x" * 10}
    )
    client.incrby(names.OUTBOX_BYTES, 10)
    leftovers = Leftovers(client, home, "w1")
    assert leftovers.run_once()
    assert results(hub_redis.client) == ["T1", "T2"]
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")


def test_orphans_stay_while_the_hub_is_away_and_are_sent_when_it_is_back(region_redis, hub_redis, home):
    client = region_redis.client
    stored(client, outcome(1), age_seconds=10)
    leftovers = Leftovers(client, home, "w1")
    hub_redis.crash()
    assert not leftovers.run_once()
    assert left(region_redis) == (1, 10)
    hub_redis.running.start()
    assert leftovers.run_once()
    assert results(hub_redis.client) == ["T1"]
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")


def test_what_a_hub_that_is_away_did_not_get_comes_first_when_it_is_back(region_redis, hub_redis, home):
    """Not the rest of the page that was read: results that waited longest must not wait until all others are home."""
    client = region_redis.client
    for number in range(3):
        stored(client, outcome(number, size=outbox.PART_BYTES), age_seconds=10)
    leftovers = Leftovers(client, home, "w1")
    hub_redis.crash()
    assert not leftovers.run_once()
    hub_redis.running.start()
    until(lambda: shipped(leftovers) or left(region_redis) == (0, 0), "an empty outbox")
    assert results(hub_redis.client) == ["T0", "T1", "T2"]


def test_an_outbox_drains_when_its_redis_is_full(region_redis, hub_redis, home):
    client = region_redis.client
    stored(client, outcome(1), age_seconds=10)
    client.config_set("maxmemory", 1)
    assert Leftovers(client, home, "w1").run_once()
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")


def test_a_full_hub_is_a_hub_that_is_away(region_redis, hub_redis, home):
    hub_redis.client.config_set("maxmemory", 1)
    assert not post(home, [Shipment("1-0", outcome(1), 610)])
    hub_redis.client.config_set("maxmemory", 0)
    assert post(home, [Shipment("1-0", outcome(1), 610)])


def test_one_result_that_the_hub_refuses_does_not_hold_the_others(region_redis, hub_redis, home):
    hub_redis.client.lpush(names.out_stream(REGION), "no stream")
    one = outcome(1)
    assert post(home, [Shipment("1-0", one, 610)])
    assert hub_redis.client.get(names.result(REGION, "T1")) == one.frame


def test_a_region_needs_no_more_than_to_append_and_to_wait_for_the_file(start_redis, region_redis):
    hub = start_redis("hub", users={"fra": ("secret", hub_acl.rules(REGION))})
    url = hub.url.replace("redis://", "redis://fra:secret@")
    home = Home(open_hub(url, "w1"), REGION, region_redis.client)
    assert post(home, [stored(region_redis.client, outcome(1))], [("R1", "T1", 1, 1)])
    assert results(hub.client) == ["T1"]
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")
    assert hub.client.info("commandstats")["cmdstat_waitaof"]["failed_calls"] == 0
    assert connect.redis_now_ms(open_hub(url, "w1")) > 0
    assert not post(Home(open_hub(url, "w1"), "nyc", region_redis.client), [Shipment("1-0", outcome(1), 610)])


def test_where_the_hub_does_not_let_ask_for_its_file_its_reply_is_what_counts(start_redis, region_redis):
    hub = start_redis("hub", users={"fra": ("secret", hub_acl.rules(REGION).replace("+waitaof", ""))})
    home = Home(open_hub(hub.url.replace("redis://", "redis://fra:secret@"), "w1"), REGION, region_redis.client)
    assert post(home, [stored(region_redis.client, outcome(1))])
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")
    hub.client.config_set("appendonly", "no")
    assert post(Home(open_hub(hub.url, "w1"), REGION, region_redis.client), [stored(region_redis.client, outcome(2))])
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")


def test_a_result_stays_in_the_outbox_until_the_hub_has_it_in_its_file(region_redis, hub_redis, home):
    """An fsync that never ends stands for a slow disk: ``appendfsync no`` never says that it did."""
    hub_redis.client.config_set("appendfsync", "no")
    assert post(home, [stored(region_redis.client, outcome(1))])
    until(lambda: hub_redis.client.info("clients")["blocked_clients"], "the wait for the file")
    assert post(home, [stored(region_redis.client, outcome(2))])  # nobody waits for it to send more
    hub_redis.running.kill()
    until(lambda: home.is_clear or not post(home, []), "the loss to be seen")
    assert left(region_redis)[0] == 2


def test_results_keep_to_their_connection_while_the_other_waits_for_the_file(region_redis, hub_redis, home):
    """A connection that was idle is slow across an ocean."""
    hub, client = hub_redis.client, region_redis.client
    hub.config_set("appendfsync", "no")
    assert post(home, [stored(client, outcome(1))])
    until(lambda: hub.info("clients")["blocked_clients"], "the wait for the file")
    way = home._way
    for number in (2, 3):
        assert post(home, [stored(client, outcome(number))])
    assert home._way is way
    assert left(region_redis)[0] == 3
    hub.config_set("appendfsync", "everysec")
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")
    assert results(hub) == ["T1", "T2", "T3"]


def test_two_servers_that_answer_as_the_hub_are_none(region_redis, hub_redis, start_redis, monkeypatch):
    """The file of one says nothing of what the other took."""
    other = open_hub(start_redis("other").url, "w1")
    numbers = itertools.count()
    monkeypatch.setattr(home_module, "Link", lambda client: link.Link(other if next(numbers) == 0 else client))
    home = Home(open_hub(hub_redis.url, "w1"), REGION, region_redis.client)
    one = stored(region_redis.client, outcome(1))
    assert not post(home, [one])
    assert results(hub_redis.client) == []
    assert post(home, [one])
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")


def test_a_result_whose_file_can_not_be_waited_for_stays_and_both_connections_are_opened_again(
    region_redis, hub_redis, home
):
    hub, client = hub_redis.client, region_redis.client
    hub.config_set("appendfsync", "no")
    assert post(home, [stored(client, outcome(1))])
    (waiting,) = until(lambda: [one for one in hub.client_list() if one["cmd"] == "waitaof"], "the wait for the file")
    before = connections(hub_redis)
    hub.client_kill_filter(_id=waiting["id"])
    until(lambda: home.is_clear, "the loss to be seen")
    assert left(region_redis)[0] == 1
    hub.config_set("appendfsync", "everysec")
    assert post(home, [stored(client, outcome(2))])
    assert not set(before) & set(connections(hub_redis))
    until(lambda: left(region_redis)[0] == 1, "the second one to be in the file")
    assert results(hub) == ["T1", "T2"]


def test_a_stopped_shipper_sends_what_it_has(region_redis, hub_redis, home):
    shipper = Shipper(home)
    shipper.put([stored(region_redis.client, outcome(n)) for n in range(600)])
    shipper.start()
    shipper.stop(30)
    assert len(results(hub_redis.client)) == 600
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")
    assert left(region_redis) == (0, 0), "it waits for the hub's file too"
    assert not shipper._thread.is_alive()


def test_a_running_shipper_ships_at_once_what_it_gets_and_says_what_runs(region_redis, hub_redis, home):
    shipper = Shipper(home)
    shipper.start()
    for number in range(3):
        shipper.put([stored(region_redis.client, outcome(number))])
        until(lambda sent=number + 1: len(results(hub_redis.client)) == sent, "its result")
    shipper.tell([("R9", "T9", 1, 1234)])
    until(lambda: out_entries(hub_redis.client, b"claims"), "what runs")
    looks, real = [], shipper._leaves_at
    shipper._leaves_at = lambda: looks.append(1) or real()
    shipper.put([stored(region_redis.client, outcome(3))])
    until(lambda: len(results(hub_redis.client)) == 4, "its result")
    shipper.stop(30)
    assert len(looks) <= 8, "it waits, and does not look again and again"


def test_results_of_an_outage_keep_their_order_and_wait_between_tries(region_redis, hub_redis, home, monkeypatch):
    shipper, slept = Shipper(home), []
    shipper.put([stored(region_redis.client, outcome(number)) for number in range(3)])
    hub_redis.running.kill()
    monkeypatch.setattr(outbox.time, "sleep", slept.append)
    assert shipper.run_once()
    assert len(slept) == 1
    monkeypatch.undo()
    shipper.put([stored(region_redis.client, outcome(3))])
    hub_redis.running.start()
    until(lambda: shipper.run_once() and len(results(hub_redis.client)) == 4, "all of them")
    assert results(hub_redis.client) == ["T0", "T1", "T2", "T3"]


def shipments(*sizes: int) -> deque[Shipment]:
    return deque(Shipment(f"{number}-0", outcome(number, size=size), 610) for number, size in enumerate(sizes))


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [
        ((), 0),
        ((10,), 1),
        ((101,), 1),
        ((101, 1), 1),
        ((60, 40), 2),
        ((60, 41), 1),
        ((60, 39, 1, 1), 3),
        ((0,) * 300, 256),
    ],
)
def test_a_batch_takes_what_fits_and_one_at_least(sizes, taken):
    waiting = shipments(*sizes)
    assert [shipment.entry for shipment in outbox._batch(waiting, 100)] == [f"{number}-0" for number in range(taken)]
    assert len(waiting) == len(sizes) - taken


def test_a_page_of_orphans_is_bounded_in_number_and_by_what_they_take(region_redis, home, monkeypatch):
    client = region_redis.client
    for number in range(25):
        stored(client, outcome(number), age_seconds=10)
    monkeypatch.setattr(outbox, "PAGE", 10)
    assert len(Leftovers(client, home, "w1")._orphans()) == 10
    client.delete(names.OUTBOX)
    for number in range(25):
        stored(client, outcome(number, size=100_000), age_seconds=10)
    monkeypatch.setattr(outbox, "PAGE", 1_000)
    assert len(Leftovers(client, home, "w1")._orphans()) == 10


def test_whose_turn_it_is_stands_for_five_seconds_where_there_is_something_to_ship(region_redis, home):
    client = region_redis.client
    leftovers = Leftovers(client, home, "w1")
    assert leftovers._orphans() == []
    assert not client.exists(names.OUTBOX_TURN)
    stored(client, outcome(1), age_seconds=2)
    assert leftovers._orphans() == []
    client.delete(names.OUTBOX)
    stored(client, outcome(2), age_seconds=outbox.ORPHAN_SECONDS + 1)
    assert len(leftovers._orphans()) == 1
    assert client.get(names.OUTBOX_TURN) == b"w1"
    assert 0 < client.pttl(names.OUTBOX_TURN) <= outbox.TURN_MS


def test_at_most_sixteen_batches_of_small_orphans_are_under_way(region_redis, hub_redis, home):
    client = region_redis.client
    for number in range(4_500):
        stored(client, outcome(number), age_seconds=10)
    leftovers = Leftovers(client, home, "w1")
    assert leftovers.run_once()
    assert home.flying == outbox.FLYING_MAX - 1  # and one has come back
    shipped(leftovers)
    assert results(hub_redis.client) == [f"T{number}" for number in range(4_500)]


def test_a_thread_ships_what_is_left_looks_each_second_and_ends(region_redis, hub_redis, home):
    leftovers = Leftovers(region_redis.client, home, "w1")
    looks, real = [], leftovers.run_once
    leftovers.run_once = lambda: looks.append(time.monotonic()) or real()
    leftovers.start()
    stored(region_redis.client, outcome(1), age_seconds=10)
    until(lambda: results(hub_redis.client) == ["T1"], "the left one")
    begun = len(looks)
    until(lambda: len(looks) >= begun + 3, "further looks")
    idle = looks[begun:]
    assert idle[2] - idle[1] >= outbox.LOOK_SECONDS
    leftovers.stop()
    leftovers._thread.join(10)
    assert not leftovers._thread.is_alive()


def test_nothing_is_looked_for_in_an_empty_outbox_until_something_may_be_left(region_redis, hub_redis, home):
    leftovers = Leftovers(region_redis.client, home, "w1")
    looks, real = [], leftovers.run_once
    leftovers.run_once = lambda: looks.append(time.monotonic()) or real()
    leftovers.see(has_left=False)
    leftovers.start()
    stored(region_redis.client, outcome(1), age_seconds=10)
    leftovers.see(has_left=False)
    assert looks == []
    leftovers.see(has_left=True)
    until(lambda: results(hub_redis.client) == ["T1"], "the left one")
    leftovers.see(has_left=False)
    leftovers.stop()
    leftovers._thread.join(10)
    assert not leftovers._thread.is_alive()


def test_what_another_process_has_shipped_meanwhile_is_not_sent_again(region_redis, hub_redis, home):
    client = region_redis.client
    for number in range(600):
        stored(client, outcome(number), age_seconds=10)
    leftovers = Leftovers(client, home, "w1")
    hub_redis.running.kill()
    assert not leftovers.run_once()
    client.delete(names.OUTBOX)  # which is what a reply and the hub's file make of it
    stored(client, outcome(600), age_seconds=10)
    hub_redis.running.start()
    until(lambda: leftovers.run_once() or results(hub_redis.client), "the one that is there")
    shipped(leftovers)
    assert results(hub_redis.client) == ["T600"]


def test_the_way_home_is_open_before_the_first_result_and_no_connection_is_opened_for_one(
    region_redis, hub_redis, home
):
    """Nor for the second, which takes the other connection while the first one's waits for the hub's file."""
    shipper = Shipper(home)
    shipper.start()
    opened = connections(hub_redis)
    assert len(opened) == 2
    for number in range(3):
        shipper.put([stored(region_redis.client, outcome(number))])
        until(lambda sent=number + 1: len(results(hub_redis.client)) == sent, "its result")
    assert connections(hub_redis) == opened
    shipper.stop(30)


def test_a_lost_way_home_is_opened_again_before_there_is_a_result(region_redis, hub_redis, home):
    shipper = Shipper(home)
    shipper.start()
    opened = connections(hub_redis)
    for one in opened:
        hub_redis.client.client_kill_filter(_id=one)
    until(lambda: len(connections(hub_redis)) == 2 and connections(hub_redis) != opened, "new connections")
    hub_redis.running.kill()
    until(lambda: home.backoff_seconds, "the loss to be seen")
    hub_redis.running.start()
    until(lambda: len(connections(hub_redis)) == 2, "new connections to the new process")
    shipper.put([stored(region_redis.client, outcome(1))])
    until(lambda: left(region_redis) == (0, 0), "its result to be in the hub's file")
    for which in (0, 1):
        opened = connections(hub_redis)
        hub_redis.client.client_kill_filter(_id=opened[which])
        until(
            lambda gone=opened[which]: len(now := connections(hub_redis)) == 2 and gone not in now, "a new connection"
        )
    shipper.stop(30)
    assert results(hub_redis.client) == ["T1"]


def test_results_do_not_wait_for_a_far_hubs_answers_to_those_before(region_redis, hub_redis, far_hub):
    home = Home(open_hub(far_hub.url, "w1"), REGION, region_redis.client)
    shipper = Shipper(home)
    shipper.start()
    far_hub.control.rule("redis", Rule(back=Way(then="hold")))
    for number in range(5):
        shipper.put([stored(region_redis.client, outcome(number))])
        until(lambda sent=number + 1: len(results(hub_redis.client)) == sent, "its result")
    assert home.flying == 5
    assert left(region_redis)[0] == 5
    far_hub.control.heal("redis")
    shipper.stop(30)
    assert left(region_redis) == (0, 0)


def test_unanswered_results_are_bounded_in_bytes_and_in_batches(region_redis, hub_redis, far_hub, monkeypatch):
    monkeypatch.setattr(outbox, "FLYING_BYTES", 1_000_000)
    home = Home(open_hub(far_hub.url, "w1"), REGION, region_redis.client)
    shipper = Shipper(home)
    assert home.prepare()
    far_hub.control.rule("redis", Rule(back=Way(then="hold")))
    shipper.put([stored(region_redis.client, outcome(number, size=300_000)) for number in range(4)])
    until(lambda: shipper.run_once() and home.flying == 1, "the first batch")
    assert home.flying_bytes == 900_000
    assert shipper._leaves_at() == math.inf
    shipper._shipments.clear()
    monkeypatch.setattr(outbox, "OWN_FLYING_MAX", 3)
    for number in range(4, 8):
        shipper.put([stored(region_redis.client, outcome(number))])
        until(lambda: shipper._leaves_at() == math.inf or not shipper.run_once(), "no more to send")
    assert home.flying == 3
    far_hub.control.heal("redis")
    ship(shipper)
    assert len(results(hub_redis.client)) == 3 + 4


def test_what_a_far_hub_did_not_answer_is_sent_again_in_its_order(region_redis, hub_redis, far_hub):
    home = Home(open_hub(far_hub.url, "w1"), REGION, region_redis.client)
    shipper = Shipper(home)
    assert home.prepare()
    far_hub.control.rule("redis", Rule(there=Way(then="drop"), back=Way(then="hold")))
    for number in range(3):
        shipper.put([stored(region_redis.client, outcome(number))])
        until(lambda: shipper._leaves_at() == math.inf or not shipper.run_once(), "it to be sent")
    assert home.flying == 3
    far_hub.control.heal("redis")
    ship(shipper)
    assert results(hub_redis.client) == ["T0", "T1", "T2"]
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")


def test_a_hub_that_falls_silent_is_away_after_its_time_out(region_redis, far_hub, monkeypatch):
    monkeypatch.setattr(home_module, "HUB_TIMEOUT_SECONDS", 0.3)
    home = Home(open_hub(far_hub.url, "w1"), REGION, region_redis.client)
    shipper = Shipper(home)
    assert home.prepare()
    far_hub.control.rule("redis", Rule(back=Way(then="hold")))
    shipper.put([stored(region_redis.client, outcome(1))])
    until(lambda: shipper.run_once() and home.backoff_seconds, "the silence to be noticed")
    assert not home.flying
    assert left(region_redis)[0] == 1


def test_left_results_try_a_hub_that_is_away_each_second(region_redis, hub_redis, home, monkeypatch):
    monkeypatch.setattr(connect, "backoff_seconds", lambda _: 100.0)
    stored(region_redis.client, outcome(1), age_seconds=10)
    hub_redis.running.kill()
    leftovers, pauses = Leftovers(region_redis.client, home, "w1"), []
    real = leftovers._is_due
    leftovers._is_due = lambda pause: pauses.append(pause) or (real(0.0) and len(pauses) < 4)
    leftovers.run()
    assert pauses == [0.0, *[outbox.LOOK_SECONDS] * 3]


class NotedHome(Home):
    """Notes which thread began each batch. A gate holds the shipper's own thread after it has waited."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.begun, self.gate = [], threading.Event()
        self.gate.set()

    def begin(self, shipments, started=()):
        self.begun.append((threading.get_ident(), [one.entry for one in shipments]))
        return super().begin(shipments, started)

    def wait(self, wake, until):
        found = super().wait(wake, until)
        assert self.gate.wait(30)
        return found


@pytest.fixture
def noted(far_hub, region_redis):
    return NotedHome(open_hub(far_hub.url, "w1"), REGION, region_redis.client)


def idle(home: Home, **options) -> Shipper:
    """A shipper whose thread waits."""
    shipper = Shipper(home, **options)
    shipper.start()
    until(lambda: shipper._waits and home._is_prepared, "the shipper to be idle")
    return shipper


def test_a_small_result_is_sent_by_the_thread_that_finished_it(region_redis, hub_redis, far_hub, noted):
    first, second, large = [
        stored(region_redis.client, outcome(n, size=outbox.AT_ONCE_BYTES + 1 if n == 2 else 10)) for n in range(3)
    ]
    shipper, here = idle(noted), threading.get_ident()
    far_hub.control.rule("redis", Rule(back=Way(then="hold")))
    shipper.put([first])
    assert noted.begun == [(here, [first.entry])]
    until(lambda: results(hub_redis.client) == ["T0"], "the result")
    until(lambda: shipper._waits, "the shipper to wait for the answer")
    shipper.put([second])
    until(lambda: len(results(hub_redis.client)) == 2, "the second one")
    far_hub.control.heal("redis")
    until(lambda: shipper._waits and not shipper._flying, "the shipper to be idle")
    shipper.put([large])
    until(lambda: len(results(hub_redis.client)) == 3, "the large one")
    assert [(thread == here, *entries) for thread, entries in noted.begun] == [
        (True, first.entry), (False, second.entry), (False, large.entry),
    ]  # fmt: skip
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")
    shipper.stop(5)


def test_results_that_gather_are_sent_by_the_shippers_own_thread(region_redis, hub_redis, noted):
    shipper = idle(noted, gathers=lambda: True)
    shipper.put([stored(region_redis.client, outcome(1))])
    until(lambda: results(hub_redis.client) == ["T1"], "the result")
    assert threading.get_ident() not in {thread for thread, _ in noted.begun}
    shipper.stop(5)


@pytest.mark.parametrize("is_noticed", [True, False])
def test_a_result_reaches_a_hub_that_was_dead_when_it_was_finished(region_redis, hub_redis, noted, is_noticed):
    shipper, here = idle(noted), threading.get_ident()
    noted.gate.clear()
    hub_redis.running.kill()
    until(lambda: not noted._is_prepared, "the loss to be noticed")
    noted._is_prepared = not is_noticed
    shipper.put([stored(region_redis.client, outcome(1))])
    assert [thread == here for thread, _ in noted.begun] == ([] if is_noticed else [True])
    hub_redis.running.start()
    noted.gate.set()
    until(lambda: results(hub_redis.client) == ["T1"], "the result")
    until(lambda: left(region_redis) == (0, 0), "an empty outbox")
    shipper.stop(5)


def test_a_hub_that_is_away_is_asked_with_pauses_that_grow(region_redis, hub_redis, home):
    """Both idle connections were lost, and none can be opened: the one that was not tried must not wake the shipper again and again."""
    shipper = idle(home)
    hub_redis.running.kill()
    until(lambda: home._failures >= 1, "the loss to be noticed")
    began, before = time.monotonic(), home._failures
    until(lambda: home._failures >= before + 6, "six more tries")
    assert time.monotonic() - began >= 5 * connect.BACKOFF_FIRST_SECONDS / 2
    shipper.stop(5)
