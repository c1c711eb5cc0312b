"""What a bridge's watch finds in a region's Redis that goes, comes back, and is set otherwise meanwhile."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import redis

from bridge import watch
from bridge.watch import Measure, Watch
from regions import connect, names, settings
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("patient_clients")


class Watching:
    """A running watch, and what it told, in order."""

    def __init__(self, url: str, durability: settings.Durability) -> None:
        self.told: list[Measure | Exception] = []
        self.failed: list[str] = []
        self.prepared: list[bool] = []  # whether acks can wait for a file
        self.client = connect.open_redis(url, name="test-watch")
        region = settings.RegionRedis(url=url, durability=durability)
        self.watch = Watch(
            self.client, "fra", region, prepare=self.prepared.append, tell=self.told.append, fail=self.failed.append
        )

    def refusals(self) -> list[str]:
        return [one.refusal.text for one in self.told if isinstance(one, Measure) and one.refusal]

    def next(self, wanted: Callable[[Measure | Exception], bool], what: str) -> Measure | Exception:
        """The first of what it tells from now on that is wanted."""
        begin = len(self.told)
        return until(lambda: next(filter(wanted, self.told[begin:]), None), what)


@contextlib.contextmanager
def watching(region_redis, durability: settings.Durability = "strict") -> Iterator[Watching]:
    one = Watching(region_redis.url, durability)
    thread = threading.Thread(target=one.watch.run, daemon=True)
    thread.start()
    try:
        yield one
    finally:
        one.watch.stop()
        thread.join(60)
        assert not thread.is_alive()
        one.client.close()


def is_away(told: Measure | Exception) -> bool:
    return isinstance(told, Exception)


def is_well(told: Measure | Exception) -> bool:
    return isinstance(told, Measure) and not told.refusal


def is_refusal(told: Measure | Exception) -> bool:
    return isinstance(told, Measure) and bool(told.refusal)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After how many failures in a row it paused."""
    found: list[int] = []
    monkeypatch.setattr(connect, "backoff_seconds", lambda failures: found.append(failures) or 0.01)
    monkeypatch.setattr(watch, "INTERVAL_SECONDS", 0.01)
    return found


def test_an_outage_is_waited_out_with_pauses_that_grow(region_redis, pauses: list[int]) -> None:
    region_redis.crash()
    with watching(region_redis) as one:
        for _ in range(2):
            until(lambda: len(pauses) >= 3, "pauses")
            assert pauses[:3] == [1, 2, 3]
            region_redis.running.start()
            one.next(is_well, "a measure")
            pauses.clear()
            one.next(is_well, "another one")
            assert pauses == []
            region_redis.crash()
            one.next(is_away, "the outage")


def test_a_redis_that_comes_back_with_other_settings_is_judged_by_them(region_redis) -> None:
    with watching(region_redis) as one:
        one.next(is_well, "a measure")
        with (region_redis.folder / "redis.conf").open("a") as config:
            config.write("maxmemory-policy allkeys-lru\n")
        region_redis.crash()
        one.next(is_away, "the outage")
        region_redis.running.start()
        told = one.next(is_refusal, "the fault")
        assert "maxmemory-policy: expected noeviction, found allkeys-lru" in told.refusal.text


def test_a_file_that_is_switched_off_is_told_with_its_remedy_and_logged_once(region_redis, capfd) -> None:
    with watching(region_redis) as one:
        one.next(is_well, "a measure")
        region_redis.client.config_set("appendonly", "no")
        first, *then = until(lambda: found if len(found := one.refusals()) >= 4 else [], "the fault")
        assert first == "its Redis keeps no append-only file any more"
        assert {"appendonly: expected yes, found no" in refusal for refusal in then} == {True}
        region_redis.client.config_set("appendonly", "yes")
        one.next(is_well, "a measure")
    assert capfd.readouterr().out.count("CONFIG SET appendonly yes") == 1


def test_a_relaxed_region_says_once_what_its_redis_does_not_keep(region_redis, capfd) -> None:
    with watching(region_redis, "relaxed") as one:
        one.next(is_well, "a measure")
        assert {*one.prepared} == {True}
    region_redis.client.config_set("appendonly", "no")
    with watching(region_redis, "relaxed") as one:
        until(lambda: len(one.told) >= 3, "measures")
        assert {*one.prepared} == {False}
        assert one.refusals() == []
    logged = capfd.readouterr().out
    assert logged.count("not durable; redis.durability is relaxed") == 1
    assert "not durable; redis.durability is relaxed: appendonly: expected yes, found no" in logged


def test_a_redis_that_is_full_refuses_and_is_measured(region_redis) -> None:
    with watching(region_redis) as one:
        one.next(is_well, "a measure")
        region_redis.client.rpush(names.rq_queue("fra"), "01TASK")
        region_redis.client.config_set("maxmemory", 1)
        told = one.next(is_refusal, "the refusal")
        assert told.refusal.text.startswith("its Redis refuses writes: command not allowed")
        assert (told.ready, told.limit) == (1, 1)
        region_redis.client.config_set("maxmemory", "256mb")
        one.next(is_well, "a measure")


def test_a_queue_that_is_none_is_an_error_and_no_measure(region_redis) -> None:
    with watching(region_redis) as one:
        one.next(is_well, "a measure")
        region_redis.client.set(names.rq_queue("fra"), "x")
        assert isinstance(one.next(is_away, "the error"), redis.exceptions.ResponseError)
        region_redis.client.delete(names.rq_queue("fra"))
        one.next(is_well, "a measure")


def test_a_redis_that_is_too_old_is_told_by_its_version(region_redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "REDIS_FLOOR", (99, 0))
    with watching(region_redis) as one:
        until(lambda: one.failed, "the refusal")
    assert one.failed[0].startswith("fra's Redis: expected Redis 99.0 or later")
    assert one.told == []


def test_a_calm_watch_looks_less_often_and_still_sees_an_outage(region_redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "INTERVAL_SECONDS", 600.0)
    monkeypatch.setattr(watch, "CALM_SECONDS", 0.05)
    with watching(region_redis) as one:
        until(lambda: any(map(is_well, one.told)), "a measure")
        one.watch.stop()
    with watching(region_redis) as one:
        one.watch.is_calm = True
        until(lambda: len(one.told) > 3, "measures")
        region_redis.crash()
        one.next(is_away, "the outage")


def test_how_long_an_answer_takes_and_another_process_that_gives_it_are_told(region_redis, monkeypatch) -> None:
    ticks = itertools.count(1_000)
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: next(ticks) * 0.05))
    one = Watching(region_redis.url, "strict")
    for _ in range(5):
        one.watch.run_once()
    assert (one.watch.took_ms, one.watch.lost) == (50.0, 0)
    for run_id, lost in (("another", 1), ("another", 1), ("a third", 2)):
        one.watch._meet(run_id)
        assert one.watch.lost == lost
    one.client.close()
