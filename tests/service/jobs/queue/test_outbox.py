"""Results on their way home, between two real Redis."""

import math
import threading
import time
from collections import deque

import msgspec
import pytest

from jobs.queue import home as home_module
from jobs.queue import outbox
from jobs.queue.home import Home, Shipment, delete, open_hub
from jobs.queue.outbox import Leftovers, Shipper
from regions import connect, names
from scripts.stack.wan_links import Rule, Way
from tests.service.jobs.queue.outgoing import left, outcome, ship, shipped, stored
from tests.service.working import REGION, out_entries, post, results
from tests.waiting import until


@pytest.fixture
def unhurried(monkeypatch):
    """A hub that starts, or is far, may take its time: no result becomes an orphan meanwhile, and no silence too long."""
    monkeypatch.setattr(outbox, "ORPHAN_SECONDS", 600.0)
    monkeypatch.setattr(home_module, "HUB_TIMEOUT_SECONDS", 60.0)


def test_a_result_arrives_whole_and_leaves_the_outbox(region_redis, hub_redis, home):
    shipper = Shipper(home)
    one = outcome(1)
    shipper.put([stored(region_redis.client, one)])
    ship(shipper)
    assert hub_redis.client.get(names.result(REGION, "T1")) == one.frame
    assert 0 < hub_redis.client.pttl(names.result(REGION, "T1")) <= 60_000
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


def test_a_result_that_has_expired_long_ago_is_told_all_the_same(hub_redis, home, capfd):
    one = msgspec.structs.replace(outcome(1), expires_ms=0)
    assert post(home, [Shipment("1-0", one, 610)])
    assert results(hub_redis.client) == ["T1"]
    assert "the hub refused a result" not in capfd.readouterr().out


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


def test_while_the_hub_is_away_young_results_are_kept_and_old_ones_left_to_others(
    region_redis, hub_redis, home, unhurried
):
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


def test_a_stopped_shipper_sends_what_it_has(region_redis, hub_redis, unhurried, home):
    shipper = Shipper(home)
    shipper.put([stored(region_redis.client, outcome(n)) for n in range(600)])
    shipper.start()
    shipper.stop(60)
    assert len(results(hub_redis.client)) == 600
    assert left(region_redis) == (0, 0), "it waits for the hub's file too"
    assert not shipper._thread.is_alive()


def test_a_running_shipper_ships_at_once_what_it_gets_and_says_what_runs(region_redis, hub_redis, unhurried, home):
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
    shipper.stop(60)
    assert len(looks) <= 40, "it waits, and does not look again and again"


def test_results_of_an_outage_keep_their_order_and_wait_between_tries(
    region_redis, hub_redis, home, unhurried, monkeypatch
):
    shipper, slept = Shipper(home), []
    shipper.put([stored(region_redis.client, outcome(number)) for number in range(3)])
    hub_redis.running.kill()
    here, sleep = threading.get_ident(), time.sleep
    monkeypatch.setattr(
        outbox.time, "sleep", lambda pause: slept.append(pause) if threading.get_ident() == here else sleep(pause)
    )
    assert shipper.run_once()
    assert len(slept) == 1
    monkeypatch.setattr(outbox.time, "sleep", sleep)
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


def test_results_do_not_wait_for_a_far_hubs_answers_to_those_before(region_redis, hub_redis, unhurried, far_hub):
    home = Home(open_hub(far_hub.url, "w1"), REGION, region_redis.client)
    shipper = Shipper(home)
    shipper.start()
    far_hub.control.rule("redis", Rule(back=Way(then="hold")))
    for number in range(5):
        shipper.put([stored(region_redis.client, outcome(number))])
        until(lambda sent=number + 1: len(results(hub_redis.client)) == sent, "its result")
    until(lambda: home.flying == 5, "the last one to be noted")
    assert left(region_redis)[0] == 5
    far_hub.control.heal("redis")
    shipper.stop(60)
    assert left(region_redis) == (0, 0)


def test_unanswered_results_are_bounded_in_bytes_and_in_batches(
    region_redis, hub_redis, unhurried, far_hub, monkeypatch
):
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
    assert home.flying_bytes == 0


def test_what_a_far_hub_did_not_answer_is_sent_again_in_its_order(region_redis, hub_redis, unhurried, far_hub):
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
        assert self.gate.wait(60)
        return found


@pytest.fixture
def noted(unhurried, far_hub, region_redis):
    return NotedHome(open_hub(far_hub.url, "w1"), REGION, region_redis.client)


def idle(home: Home, **options) -> Shipper:
    """A shipper whose thread waits."""
    shipper = Shipper(home, **options)
    shipper.start()
    until(lambda: shipper._waits and home._is_prepared, "the shipper to be idle")
    return shipper


def test_a_small_result_is_sent_by_the_thread_that_finished_it(region_redis, hub_redis, far_hub, noted):
    sizes = (outbox.AT_ONCE_BYTES, 10, outbox.AT_ONCE_BYTES + 1)
    first, second, large = [stored(region_redis.client, outcome(n, size=size)) for n, size in enumerate(sizes)]
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
    shipper.stop(60)


def test_while_the_shipper_does_not_wait_nobody_else_uses_its_connection(region_redis, noted):
    shipper = Shipper(noted)
    assert noted.prepare()
    assert not shipper._wait(time.monotonic())
    shipper.put([stored(region_redis.client, outcome(1))])
    assert noted.begun == []
    ship(shipper)
    assert len(noted.begun) == 1


def test_results_that_gather_are_sent_by_the_shippers_own_thread(region_redis, hub_redis, noted):
    shipper = idle(noted, gathers=lambda: True)
    shipper.put([stored(region_redis.client, outcome(1))])
    until(lambda: results(hub_redis.client) == ["T1"], "the result")
    assert threading.get_ident() not in {thread for thread, _ in noted.begun}
    shipper.stop(60)


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
    shipper.stop(60)


def test_a_hub_that_is_away_is_asked_with_pauses_that_grow(region_redis, hub_redis, home):
    """Both idle connections were lost, and none can be opened: the one that was not tried must not wake the shipper again and again."""
    shipper = idle(home)
    hub_redis.running.kill()
    until(lambda: home._failures >= 1, "the loss to be noticed")
    began, before = time.monotonic(), home._failures
    until(lambda: home._failures >= before + 6, "six more tries")
    assert time.monotonic() - began >= 5 * connect.BACKOFF_FIRST_SECONDS / 2
    shipper.stop(60)
