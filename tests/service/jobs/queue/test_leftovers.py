"""Results that a dead process left in the outbox go home, each once."""

import time

from jobs.queue import outbox
from jobs.queue.home import Home, open_hub
from jobs.queue.outbox import Leftovers
from regions import connect, names
from tests.service.jobs.queue.outgoing import left, outcome, shipped, stored
from tests.service.working import REGION, results
from tests.waiting import until


def test_orphans_are_shipped_by_one_process_at_a_time(region_redis, hub_redis, home, monkeypatch):
    monkeypatch.setattr(outbox, "ORPHAN_SECONDS", 600.0)  # the young one becomes none while the test runs
    monkeypatch.setattr(outbox, "TURN_MS", 600_000)
    client = region_redis.client
    for number in range(30):
        stored(client, outcome(number), age_seconds=1_000)
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
    hub_redis.client.config_set("appendfsync", "no")  # else a batch may leave the outbox before the hub dies
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


def test_whose_turn_it_is_stands_for_five_seconds_where_there_is_something_to_ship(region_redis, home, monkeypatch):
    monkeypatch.setattr(outbox, "ORPHAN_SECONDS", 600.0)  # no result of this test becomes so old by itself
    client = region_redis.client
    leftovers = Leftovers(client, home, "w1")
    assert leftovers._orphans() == []
    assert not client.exists(names.OUTBOX_TURN)
    stored(client, outcome(1))
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
    leftovers._thread.join(60)
    assert not leftovers._thread.is_alive()


def test_nothing_is_looked_for_in_an_empty_outbox_until_something_may_be_left(region_redis, hub_redis, home):
    leftovers = Leftovers(region_redis.client, home, "w1")
    looks, real = [], leftovers.run_once
    leftovers.run_once = lambda: looks.append(time.monotonic()) or real()
    leftovers.see(has_left=False)
    leftovers.start()
    stored(region_redis.client, outcome(1), age_seconds=10)
    leftovers.see(has_left=False)
    assert not leftovers._may_be_left
    assert looks == []
    leftovers.see(has_left=True)
    until(lambda: results(hub_redis.client) == ["T1"], "the left one")
    leftovers.see(has_left=False)
    leftovers.stop()
    leftovers._thread.join(60)
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


def test_left_results_try_a_hub_that_is_away_each_second(region_redis, hub_redis, home, monkeypatch):
    monkeypatch.setattr(connect, "backoff_seconds", lambda _: 100.0)
    stored(region_redis.client, outcome(1), age_seconds=10)
    hub_redis.running.kill()
    leftovers, pauses = Leftovers(region_redis.client, home, "w1"), []
    real = leftovers._is_due
    leftovers._is_due = lambda pause: pauses.append(pause) or (real(0.0) and len(pauses) < 4)
    leftovers.run()
    assert pauses == [0.0, *[outbox.LOOK_SECONDS] * 3]
