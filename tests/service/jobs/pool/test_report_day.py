"""A pool tells the hub the minutes of its region's day, a few at a time, and each again after a start; and its status, by the hub's clock. On two real Redis servers."""

from collections.abc import Iterator

import msgspec
import pytest

from jobs.contract import MINUTES_MAX, Minute
from jobs.pool import report
from jobs.pool.report import Reporter
from regions import names
from tests.service.working import REGION, settings_for


@pytest.fixture
def reporter(patient_clients, tmp_path, region_redis, hub_redis) -> Iterator[Reporter]:
    settings = settings_for(region_redis.url, hub_redis.url)
    made = Reporter(settings, settings.one(REGION), region_redis.client, "host:1", list, dict, dict)
    yield made
    made._examiner.stop()


def record(client, *at: int) -> None:
    for one in at:
        client.xadd(names.DAY, {"d": msgspec.json.encode(Minute(60.0 * one, arrived=one))})


def told(hub) -> list[list[int]]:
    """The minutes of each status that was sent since the last call."""
    stream = names.out_stream(REGION)
    entries = hub.xrange(stream)
    hub.delete(stream)
    found = [msgspec.json.decode(fields[b"d"]) for _, fields in entries if fields[b"k"] == b"status"]
    return [[minute["arrived"] for minute in one["minutes"]] for one in found]


def test_a_day_is_told_in_parts_and_then_what_is_new(reporter, region_redis, hub_redis, monkeypatch):
    whole = list(range(2 * MINUTES_MAX + 10))
    record(region_redis.client, *whole)
    for _ in range(4):
        reporter.run_once()
    assert told(hub_redis.client) == [
        whole[:MINUTES_MAX],
        whole[MINUTES_MAX : 2 * MINUTES_MAX],
        whole[2 * MINUTES_MAX :],
        [],
    ]
    record(region_redis.client, 500)
    reporter.run_once()
    assert told(hub_redis.client) == [[]]  # it looks now and then
    monkeypatch.setattr(reporter, "_day_due", 0.0)
    reporter.run_once()
    reporter.run_once()
    assert told(hub_redis.client) == [[500], []]


def test_what_the_hub_did_not_get_is_told_again(reporter, region_redis, hub_redis, monkeypatch):
    monkeypatch.setattr(report, "DAY_SECONDS", 0.0)
    record(region_redis.client, 1, 2)
    hub_redis.client.set(names.out_stream(REGION), "no stream")
    reporter.run_once()
    hub_redis.client.delete(names.out_stream(REGION))
    record(region_redis.client, 3)
    reporter.run_once()
    assert told(hub_redis.client) == [[1, 2, 3]]


def test_after_a_step_of_the_hubs_clock_the_status_is_sent_again_by_the_new_time(reporter, hub_redis):
    reporter.run_once()
    reporter._hub_ahead_ms -= 3_600_000  # the hub's clock was an hour behind so far
    reporter.run_once()
    stream = hub_redis.client.xrange(names.out_stream(REGION))
    statuses = [(int(entry.split(b"-")[0]), fields[b"d"]) for entry, fields in stream if fields[b"k"] == b"status"]
    late_ms = [abs(sent_ms - msgspec.json.decode(status)["at_ms"]) for sent_ms, status in statuses]
    assert [late > 1_800_000 for late in late_ms] == [False, True, False]
