"""What a bridge tells the hub, and how it learns the hub's time, between real Redis servers that go and come back."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from bridge import report
from bridge.report import Report, Status
from jobs import contract
from regions import connect, names
from tests.service.bridging import entries, last_status, now_ms
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("patient_clients")

NAME = "host:1"
FAILED = contract.Outcome(
    task="01TASK", request="01REQUEST", status="failed", finished_ms=1, expires_ms=4 * 10**12, frame=b"{}\n[]"
)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After how many failures in a row it paused. Nothing is due by itself for ten minutes."""
    found: list[int] = []
    monkeypatch.setattr(connect, "backoff_seconds", lambda failures: found.append(failures) or 0.01)
    monkeypatch.setattr(report, "EVERY_SECONDS", 600.0)
    monkeypatch.setattr(report, "STATUS_SECONDS", 600.0)
    return found


@contextlib.contextmanager
def reporting(hub_redis, region_redis) -> Iterator[Report]:
    hub, local = (connect.open_redis(one.url, name="test-report") for one in (hub_redis, region_redis))
    one = Report(hub, local, "fra", NAME)
    thread = threading.Thread(target=one.run, daemon=True)
    thread.start()
    try:
        yield one
    finally:
        one.stop()
        thread.join(60)
        assert not thread.is_alive()
        hub.close()
        local.close()


def test_an_outage_of_the_hub_is_told_once_and_waited_out_with_pauses_that_grow(
    hub_redis, region_redis, pauses, capfd
) -> None:
    hub_redis.crash()
    with reporting(hub_redis, region_redis) as one:
        until(lambda: len(pauses) >= 3, "pauses")
        assert pauses[:3] == [1, 2, 3]
        hub_redis.running.start()
        one.show(Status(state="consuming"))
        until(lambda: last_status(hub_redis, "fra").get("state") == "consuming", "the status")
        pauses.clear()
        hub_redis.crash()
        one.show(Status(state="paused"))
        until(lambda: pauses, "a pause")
        assert pauses[0] == 1
        hub_redis.running.start()
        until(lambda: last_status(hub_redis, "fra").get("state") == "paused", "the other status")
    assert capfd.readouterr().out.count("the hub is away") == 2


def test_a_status_is_told_once_and_again_if_the_hub_did_not_take_it(
    hub_redis, region_redis, pauses, monkeypatch
) -> None:
    turns, real = [], Report.run_once
    monkeypatch.setattr(Report, "run_once", lambda self: turns.append(1) or real(self))
    hub_redis.client.set(names.out_stream("fra"), "no stream")
    with reporting(hub_redis, region_redis) as one:
        one.show(Status(state="consuming"))
        until(lambda: len(pauses) >= 2, "the hub to refuse it")
        hub_redis.client.delete(names.out_stream("fra"))
        until(lambda: last_status(hub_redis, "fra").get("state") == "consuming", "the status")
        one.show(Status(state="consuming", ready=5))  # no news
        sent = threading.Event()
        one.fail(FAILED, sent.set)
        assert sent.wait(60)
        (entry,) = entries(hub_redis, "fra", "status")
        assert len(turns) <= len(pauses) + 4  # its start, two news, and one that came during a turn: then it waits
    assert (entry["part"], entry["name"], entry["v"]) == ("bridge", NAME, "1")
    assert abs(last_status(hub_redis, "fra")["at_ms"] - now_ms()) < 60_000
    (entry,) = entries(hub_redis, "fra", "result")
    assert (entry["t"], int(entry["b"]) >= len(FAILED.frame)) == ("01TASK", True)
    assert hub_redis.client.get(names.result("fra", "01TASK")) == FAILED.frame
    assert hub_redis.client.info("commandstats")["cmdstat_exec"]["calls"] == 1, "a result and its entry are one step"


def test_without_the_regions_redis_the_hubs_time_is_renewed_and_the_difference_kept(
    hub_redis, region_redis, pauses, monkeypatch
) -> None:
    monkeypatch.setattr(report, "LOCAL_SECONDS", 0.01)
    monkeypatch.setattr(report, "STATUS_SECONDS", 0.01)
    region_redis.crash()
    with reporting(hub_redis, region_redis) as one:
        until(lambda: one._due, "a measurement")
        assert one.clock is None
        monkeypatch.setattr(report, "EVERY_SECONDS", 0.01)
        region_redis.running.start()
        until(lambda: one.clock, "both clocks")
        assert abs(one.clock.offset_ms) < 60_000  # both are this machine's
        until(lambda: len(entries(hub_redis, "fra", "status")) >= 3, "its status, again and again")
        region_redis.crash()
        before = one.clock
        until(lambda: one.clock is not before, "the hub's time")
        assert one.clock.offset_ms == before.offset_ms
    assert pauses == []


@pytest.mark.parametrize(("is_away", "least", "most"), [(False, 500, 600), (True, 200, 300)])
def test_the_clocks_are_measured_again_sooner_while_the_regions_is_away(
    hub_redis, region_redis, pauses, monkeypatch, is_away, least, most
) -> None:
    monkeypatch.setattr(report, "LOCAL_SECONDS", 300.0)
    if is_away:
        region_redis.crash()
    hub, local = (connect.open_redis(one.url, name="test-report") for one in (hub_redis, region_redis))
    one = Report(hub, local, "fra", NAME)
    one.run_once()
    assert least < one._due - time.monotonic() <= most
    hub.close()
    local.close()


def test_a_failure_replaces_no_result_that_the_hub_has(hub_redis, region_redis, pauses) -> None:
    hub_redis.client.set(names.result("fra", "01TASK"), b"a worker's")
    with reporting(hub_redis, region_redis) as one:
        sent = threading.Event()
        one.fail(FAILED, sent.set)
        assert sent.wait(60)
    assert hub_redis.client.get(names.result("fra", "01TASK")) == b"a worker's"


def test_a_status_says_since_when_its_bridge_runs(hub_redis, region_redis, pauses) -> None:
    """By the hub's clock as it was first known, though that may be set meanwhile."""
    hub, local = (connect.open_redis(one.url, name="test-report") for one in (hub_redis, region_redis))
    one = Report(hub, local, "fra", NAME)
    one._began -= 3_600.0
    one.run_once()
    first = last_status(hub_redis, "fra")
    assert 3_600_000 <= first["at_ms"] - first["started_ms"] < 7_200_000
    one._began -= 3_600.0
    one.show(Status(state="paused"))
    one.run_once()
    second = last_status(hub_redis, "fra")
    assert (second["state"], second["started_ms"]) == ("paused", first["started_ms"])
    hub.close()
    local.close()
