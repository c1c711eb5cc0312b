"""A hub whose clock is seconds ahead of its region's, or behind it: deadlines and times are the hub's, wherever a task runs.

A bridge measures how far the clocks are apart and hands that on; in the tests of a worker the test plays the bridge.
"""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
from rq.job import Job
from rq.serializers import JSONSerializer

from jobs import contract
from jobs.contract import Task
from regions import connect, names
from scripts.chaos import clocks
from tests.service import bridging
from tests.service.jobs.fetch.origin import Origin, Spoken
from tests.service.region_workers import RegionWorkers, of
from tests.service.working import out_entries
from tests.waiting import until

AHEAD_MS = [pytest.param(60_000, id="hub-ahead"), pytest.param(-60_000, id="hub-behind")]
SOON_MS = 30_000  # what a machine with much else to do may add; less than the clocks differ
SOURCE = """
title = "A page"
url = 'ADDRESS'
[fields]
text = "body"
[limits]
timeout_seconds = 60
retries = RETRIES
"""


@pytest.fixture
def site() -> Iterator[Origin]:
    """Answers /quick and /broken at once, and /never with a head alone."""

    def say(spoken: Spoken) -> None:
        if spoken.target == "/never":
            spoken.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        elif spoken.target == "/broken":
            spoken.answer(b"", "503 Service Unavailable")
        else:
            spoken.answer(b"<body>here")

    made = Origin(say)
    yield made
    made.stop()


@pytest.fixture
def workers(tmp_path: Path, region_redis, hub_redis, site) -> Iterator[RegionWorkers]:
    made = RegionWorkers(tmp_path, region_redis.url, hub_redis.client, hub_redis.url)
    files = {
        f"{name}.toml": SOURCE.replace("ADDRESS", f"{site.url}/{name}").replace("RETRIES", retries)
        for name, retries in (("quick", "0"), ("never", "0"), ("broken", "5"))
    }
    made.start(files, pool=False, threads=4, allow="127.0.0.0/8")
    yield made
    made.stop()


def now_ms(ahead_ms: int) -> int:
    """The hub's clock."""
    return time.time_ns() // 1_000_000 + ahead_ms


def accepted(source: str, ahead_ms: int, seconds: float) -> Task:
    """A task that a hub with such a clock has just accepted."""
    now = now_ms(ahead_ms)
    return msgspec.structs.replace(
        of(source), accepted_ms=now, deadline_ms=now + int(1000 * seconds), expires_ms=now + 3_600_000
    )


def finished_ms(workers: RegionWorkers) -> int:
    """When the only task that has ended did, as the region told the hub."""
    (entry,) = out_entries(workers.hub)
    return int(entry[b"f"])


@pytest.mark.parametrize("ahead_ms", AHEAD_MS)
def test_a_task_within_its_deadline_is_fetched_and_its_times_are_the_hubs(workers, ahead_ms):
    """A deadline that is nearer than the clocks are apart: by the region's own clock it would be over, or far away."""
    one = accepted("quick", ahead_ms, 20.0)
    (found,) = workers.results(workers.ask([one], ahead_ms=ahead_ms))
    (entry,) = out_entries(workers.hub)
    trail = msgspec.json.decode(entry[b"h"], type=contract.Trail)
    assert (found["status"], found["error"]) == ("succeeded", None)
    fetched_ms = datetime.fromisoformat(found["fetched_at"]).timestamp() * 1000
    for moment in (trail.attempts[0].started_ms, fetched_ms, int(entry[b"f"])):
        assert one.accepted_ms - 50 <= moment <= one.accepted_ms + SOON_MS
    assert found["timing"]["queued_ms"] <= SOON_MS


@pytest.mark.parametrize("ahead_ms", AHEAD_MS)
def test_a_fetch_is_cut_off_at_the_deadline_on_the_hubs_clock(workers, ahead_ms):
    one = accepted("never", ahead_ms, 3.0)
    (found,) = workers.results(workers.ask([one], ahead_ms=ahead_ms))
    assert found["error"]["type"] == "timeout"
    assert one.deadline_ms - 500 <= finished_ms(workers) <= one.deadline_ms + SOON_MS


@pytest.mark.parametrize("ahead_ms", AHEAD_MS)
def test_no_retry_is_waited_for_past_the_deadline_on_the_hubs_clock(workers, ahead_ms):
    """The last real error is the result, in time for the hub."""
    one = accepted("broken", ahead_ms, 6.0)
    (found,) = workers.results(workers.ask([one], ahead_ms=ahead_ms))
    assert (found["error"]["type"], found["error"]["http_status"]) == ("http_status", 503)
    assert found["attempts"] >= 2
    assert finished_ms(workers) <= one.deadline_ms + 500


@pytest.mark.parametrize("ahead_ms", AHEAD_MS)
def test_what_is_past_its_deadline_on_the_hubs_clock_is_not_fetched(workers, site, ahead_ms):
    late, next_one = accepted("quick", ahead_ms, -1.0), accepted("quick", ahead_ms, 40.0)
    workers.ask([late], ahead_ms=ahead_ms)
    (found,) = workers.results(workers.ask([next_one], ahead_ms=ahead_ms))
    assert found["status"] == "succeeded"
    until(lambda: workers.client.hget(f"rq:job:{late.task}", "status") == b"canceled", "the late one to be dropped")
    assert len(site.requests) == 1


@pytest.mark.parametrize("ahead_seconds", [100, -100])
def test_deadlines_are_corrected_by_how_far_the_hubs_clock_is_ahead(hub_redis, region_redis, rabbitmq, ahead_seconds):
    """The hub's Redis really tells another time; by the region's clock the one would be over, or the other not."""
    region = bridging.Region(f"clock{ahead_seconds}", hub_redis, region_redis, rabbitmq)
    region.broker.declare()
    clocks.step(region.hub.running.process.pid, ahead_seconds)
    now = connect.redis_now_ms(region.hub.client)
    there = now - now_ms(0)
    assert abs(there - 1000 * ahead_seconds) < SOON_MS
    good = bridging.task(region.name, 1, accepted_ms=now, deadline_ms=now + 90_000)
    late = bridging.task(region.name, 2, accepted_ms=now - 9_000, deadline_ms=now - 1_500)
    with region.bridging() as running:
        running.wait_for("consuming")
        region.broker.publish(late, good)
        region.each_once([good])
        region.all_acked(running)
    deadline = int(region.redis.client.hget(names.rq_job(good.task), names.JOB_DEADLINE))
    assert abs(deadline - (good.deadline_ms - 1000 * ahead_seconds)) < SOON_MS
    _, offset_ms = Job.fetch(good.task, connection=region.redis.client, serializer=JSONSerializer).args
    assert abs(offset_ms - 1000 * ahead_seconds) < SOON_MS
