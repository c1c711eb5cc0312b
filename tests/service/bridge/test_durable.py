"""A batch may be acked only when the Redis process that took it has written it to the append-only file."""

import itertools
import threading
from collections.abc import Iterator

import pytest

from bridge import durable
from bridge.durable import BLOCK_SECONDS, Durable
from bridge.link import Link
from regions import connect, names
from regions.counts import CELLS
from tests.waiting import until

# A Redis that is only busy is no outage for these.
patient = pytest.mark.usefixtures("patient_clients")


class Settled:
    """A running Durable, and what it settled: receipt → None, or why not."""

    def __init__(self, url: str) -> None:
        self.client = connect.open_redis(url, name="test-durable", block_seconds=BLOCK_SECONDS)
        self.results: dict[str, Exception | None] = {}
        self.durable: Durable[str] = Durable(self.client, "test", self._settle)
        self.thread = threading.Thread(target=self.durable.run, daemon=True)
        self.thread.start()

    def _settle(self, receipts: list[str], error: Exception | None) -> None:
        self.results |= dict.fromkeys(receipts, error)

    def stop(self) -> None:
        self.durable.stop()
        self.thread.join(60)
        self.client.close()
        assert not self.thread.is_alive()


@pytest.fixture
def settled(region_redis) -> Iterator[Settled]:
    one = Settled(region_redis.url)
    until(lambda: one.durable.is_open, "a connection")
    yield one
    region_redis.running.signal(18)
    one.stop()


def run_id(region_redis) -> str:
    link = Link(region_redis.client)
    link.close()
    return link.run_id


def _vouched_for(settled: Settled, taker: str) -> None:
    """Returns when batches of the current Redis process are settled well: the link to the former one is gone then."""
    numbers = itertools.count()

    def is_vouched_for() -> bool:
        receipt = f"trial {next(numbers)}"
        settled.durable.submit(taker, receipt)
        return until(lambda: receipt in settled.results, "an answer") and settled.results[receipt] is None

    until(is_vouched_for, "a connection to the next process")


@patient
def test_a_batch_is_durable_once_its_process_says_so(settled: Settled, region_redis) -> None:
    settled.durable.submit(run_id(region_redis), "one")
    until(lambda: "one" in settled.results, "the file to be written")
    assert settled.results == {"one": None}
    assert region_redis.client.get(names.FENCE) == b"test"
    assert sorted(settled.durable.took[:-1]) == [0] * (CELLS - 2) + [1], "how long it took is counted once"


@patient
def test_no_replica_is_waited_for(settled: Settled, region_redis, monkeypatch) -> None:
    """A region's Redis has none."""
    monkeypatch.setattr(durable, "BLOCK_SECONDS", 3_600.0)
    settled.durable.submit(run_id(region_redis), "one")
    until(lambda: "one" in settled.results, "the file to be written")
    assert settled.results == {"one": None}


@patient
def test_batches_that_come_while_it_waits_share_the_next_fence(settled: Settled, region_redis) -> None:
    taker = run_id(region_redis)
    for number in range(100):
        settled.durable.submit(taker, str(number))
    until(lambda: len(settled.results) == 100, "all of them")
    assert set(settled.results.values()) == {None}
    assert region_redis.client.info("commandstats")["cmdstat_waitaof"]["calls"] < 50


@patient
def test_the_next_process_does_not_vouch_for_a_batch_of_the_last_one(settled: Settled, region_redis) -> None:
    taker = run_id(region_redis)
    region_redis.running.kill()
    region_redis.running.start()
    # Until it has noticed, it confirms nothing: batches that are submitted then are tried again, like a bridge's.
    _vouched_for(settled, run_id(region_redis))
    settled.durable.submit(taker, "lost")
    settled.durable.submit(run_id(region_redis), "kept")
    until(lambda: {"lost", "kept"} <= settled.results.keys(), "both")
    assert settled.results["kept"] is None
    assert isinstance(settled.results["lost"], connect.AWAY)


@patient
def test_nothing_is_durable_while_the_file_is_not_written(settled: Settled, region_redis, monkeypatch, capfd) -> None:
    monkeypatch.setattr(durable, "BLOCK_SECONDS", 0.05)
    region_redis.client.config_set("appendfsync", "no")
    settled.durable.submit(run_id(region_redis), "one")

    def asked_again() -> bool:
        stats = region_redis.client.info("commandstats")
        return stats.get("cmdstat_waitaof", {}).get("calls", 0) >= 4

    until(asked_again, "the wait to be repeated")
    assert settled.results == {}
    region_redis.client.config_set("appendfsync", "always")
    until(lambda: settled.results == {"one": None}, "the file to be written")
    assert capfd.readouterr().out.count("append-only file is slow; acks wait") == 1


@patient
def test_a_full_redis_still_makes_durable_what_it_has_taken(settled: Settled, region_redis) -> None:
    region_redis.client.config_set("maxmemory", 1)
    settled.durable.submit(run_id(region_redis), "one")
    until(lambda: settled.results == {"one": None}, "the fence to pass")


def test_a_frozen_redis_is_an_error_and_not_a_wait_for_ever(settled: Settled, region_redis) -> None:
    taker = run_id(region_redis)
    region_redis.running.signal(19)
    settled.durable.submit(taker, "one")
    until(lambda: "one" in settled.results, "the time-out")
    assert isinstance(settled.results["one"], connect.AWAY)


@patient
def test_a_batch_and_a_stop_are_heard_at_once(region_redis, monkeypatch) -> None:
    monkeypatch.setattr(durable, "IDLE_SECONDS", 600.0)
    one = Settled(region_redis.url)
    until(lambda: one.durable.is_open, "a connection")
    for receipt in ("first", "second"):
        one.durable.submit(run_id(region_redis), receipt)
        until(lambda receipt=receipt: one.results.get(receipt, True) is None, "the batch")
    one.stop()
    until(
        lambda: all(one["name"] != "test-durable" for one in region_redis.client.client_list()), "its connection's end"
    )


@patient
def test_where_no_file_is_kept_what_was_taken_counts(settled: Settled, region_redis) -> None:
    region_redis.client.config_set("appendfsync", "no")
    settled.durable.waits = False
    settled.durable.submit(run_id(region_redis), "one")
    until(lambda: settled.results == {"one": None}, "the fence to pass")


def test_a_stop_ends_the_wait_for_the_file(region_redis) -> None:
    region_redis.client.config_set("appendfsync", "no")
    one = Settled(region_redis.url)
    until(lambda: one.durable.is_open, "a connection")
    one.durable.submit(run_id(region_redis), "one")
    until(lambda: region_redis.client.info("clients")["blocked_clients"], "the wait for the file")
    one.stop()
    assert isinstance(one.results["one"], connect.AWAY)


@patient
def test_an_outage_is_waited_out_with_pauses_that_grow(region_redis, monkeypatch) -> None:
    pauses: list[int] = []
    monkeypatch.setattr(connect, "backoff_seconds", lambda failures: pauses.append(failures) or 0.01)
    monkeypatch.setattr(durable, "IDLE_SECONDS", 0.05)  # between two looks at an idle link
    region_redis.crash()
    one = Settled(region_redis.url)
    for receipt in ("first", "second"):
        until(lambda: len(pauses) >= 3, "tries")
        assert pauses[:3] == [1, 2, 3]
        region_redis.running.start()
        until(lambda: one.durable.is_open, "a connection")
        region_redis.client.config_set("appendfsync", "always")
        one.durable.submit(run_id(region_redis), receipt)
        until(lambda receipt=receipt: one.results.get(receipt, True) is None, "the batch")
        pauses.clear()
        region_redis.crash()
        until(lambda: not one.durable.is_open, "the loss, which nobody's batch has to find")
    one.stop()


@patient
def test_a_lost_connection_is_opened_again_whether_batches_come_or_not(region_redis, monkeypatch) -> None:
    """The bridge pauses until it is open, so none come."""
    tries: list[int] = []
    monkeypatch.setattr(connect, "backoff_seconds", lambda failures: tries.append(failures) or 0.01)
    monkeypatch.setattr(durable, "IDLE_SECONDS", 600.0)
    region_redis.crash()
    one = Settled(region_redis.url)
    until(lambda: tries, "a try")
    region_redis.running.start()
    until(lambda: one.durable.is_open, "a connection")
    one.stop()


def test_a_link_that_is_doubted_is_looked_at_now(region_redis, monkeypatch) -> None:
    monkeypatch.setattr(durable, "IDLE_SECONDS", 600.0)
    one = Settled(region_redis.url)
    until(lambda: one.durable.is_open, "a connection")
    region_redis.crash()
    assert one.durable.is_open
    one.durable.doubt()
    until(lambda: not one.durable.is_open, "the loss")
    one.stop()


@patient
def test_one_doubt_is_one_look(region_redis) -> None:
    client = connect.open_redis(region_redis.url, name="test-durable", block_seconds=BLOCK_SECONDS)
    one: Durable[str] = Durable(client, "test", lambda *_: None)
    one._open()
    region_redis.client.config_resetstat()
    one.doubt()
    one.run_once()
    assert region_redis.client.info("commandstats")["cmdstat_ping"]["calls"] == 1
    assert not one._is_doubted, "else it would look again and again"
    one.stop()
    one.run()
    client.close()
