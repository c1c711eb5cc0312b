"""What the hub keeps of the last minutes and the last day, on a real Redis: of any number of gateways, and no longer than it is shown."""

import json

import pytest

from jobs.contract import DAY_MINUTES, Run
from regions import connect, names
from tests.service.hub_parts import Heard, settings
from tests.waiting import Clock, until
from web.flow.settle import Settler
from web.hub import ids, recent
from web.hub.ledger import Ledger
from web.hub.redis import Hub
from web.hub.runs import Runs

SOURCE = "ecb.rates"


def run(error: str = "", source: str = SOURCE, **fields) -> Run:
    return Run(source=source, definition="0a1b2c3d", error=error, origin="parser" if error else "", rows=3, **fields)


def ended(after_ms: int) -> tuple[str, int]:
    """A task's id, and when it ended, so many ms after its accept."""
    task = ids.task(ids.new(), 1)
    return task, ids.made_ms(task) + after_ms


def add(runs: Runs, region: str, one: Run, after_ms: int = 100) -> str:
    task, finished_ms = ended(after_ms)
    runs.add(region, one, finished_ms, task)
    return task


@pytest.fixture
def gateways(hub_redis):
    return [Runs(hub_redis.client, Clock()) for _ in range(2)]


def test_p95_is_of_the_tasks_of_all_gateways(gateways, hub_redis):
    for number in range(100):
        add(gateways[number % 2], "fra", run(), 4_000 if number < 10 else 100)
    for one in gateways:
        one.flush()
    now_ms = connect.redis_now_ms(hub_redis.client)
    took = recent.read_took(hub_redis.client, now_ms, ["fra", "nyc"])
    assert (sum(took["fra"].values()), sum(took["nyc"].values())) == (100, 0)
    assert recent.quantile(took["fra"], 0.5) == pytest.approx(100, rel=0.1)
    assert recent.quantile(took["fra"], 0.95) == pytest.approx(4_000, rel=0.1)
    later_ms = now_ms + (recent.MINUTES + 1) * 60_000
    assert recent.read_took(hub_redis.client, later_ms, ["fra"])["fra"] == {}


def test_runs_are_counted_by_hour_and_source(gateways, hub_redis):
    has_time = lambda: connect.redis_now_ms(hub_redis.client) % 3_600_000 < 3_570_000  # noqa: E731
    until(has_time, "the next hour, if this one is about to end")
    for one in gateways:
        add(one, "fra", run(busy_ms=40))
        add(one, "nyc", run("contract", busy_ms=10))
        add(one, "fra", run(source="other.source"))
        one.flush()
    now_ms = connect.redis_now_ms(hub_redis.client)
    for found in (recent.read_hours(hub_redis.client, now_ms), recent.read_hours(hub_redis.client, now_ms, SOURCE)):
        *before, last = found[SOURCE]
        assert (last.runs, last.failed, last.busy_ms) == (4, 2, 100)
        assert len(before) == recent.HOURS - 1
        assert not any(hour.runs for hour in before)
        assert last.at == now_ms // 3_600_000 * 3_600
    tomorrow_ms = now_ms + 24 * 3_600_000
    assert recent.read_hours(hub_redis.client, tomorrow_ms) == {}


def test_what_is_kept_of_minutes_and_hours_expires(gateways, hub_redis):
    add(gateways[0], "fra", run())
    gateways[0].flush()
    kept = [key for pattern in ("nf:took:*", "nf:hour:*") for key in hub_redis.client.keys(pattern)]
    assert len(kept) == 2
    assert all(0 < hub_redis.client.ttl(key) <= 25 * 3_600 for key in kept)


def test_the_last_failure_of_a_source_is_known(gateways, hub_redis):
    add(gateways[0], "fra", run("blocked"))
    gateways[0].flush()
    task = add(gateways[1], "nyc", run("contract"))
    add(gateways[1], "nyc", run())
    add(gateways[1], "nyc", run("timeout", own=False))  # it only used another task's answer
    gateways[1].flush()
    found = recent.read_failures(hub_redis.client, [SOURCE, "other.source"])
    assert set(found) == {SOURCE}
    assert (found[SOURCE].region, found[SOURCE].error, found[SOURCE].task) == ("nyc", "contract", task)


def test_what_is_of_another_version_is_left_out(hub_redis):
    hub_redis.client.hset(names.FAILURE, SOURCE, b'{"v": 9}')
    assert recent.read_failures(hub_redis.client, [SOURCE]) == {}


@pytest.fixture
def settler(patient_clients, tmp_path, hub_redis):
    found = settings(tmp_path, redis=hub_redis.url)
    hub = Hub(found)
    hub.start()
    yield Settler(found, hub, Ledger(hub.client, found.limits), Heard())
    hub.stop()


def tell(client, *minutes: dict, at_ms: int) -> None:
    said = {"at_ms": at_ms, "processes": 1, "minutes": list(minutes)}
    fields = {"k": "status", "v": 1, "part": "workers", "name": "h:1", "d": json.dumps(said)}
    client.xadd(names.out_stream("fra"), fields)


def test_a_regions_day_has_each_minute_once_and_none_of_the_day_before(settler, hub_redis):
    client, now_ms = hub_redis.client, connect.redis_now_ms(hub_redis.client)
    minute = now_ms // 60_000 * 60
    tell(client, *[{"at": minute - 60 * back, "arrived": back} for back in range(30)], at_ms=now_ms)
    tell(client, {"at": minute - 120, "arrived": 7}, {"at": minute - 86_400 - 3_600, "arrived": 9}, at_ms=now_ms)
    tell(client, {"at": minute + 3_600, "arrived": 9}, at_ms=now_ms)
    until(lambda: settler.run_once() or not client.xlen(names.out_stream("fra")), "the statuses to be read")
    settler._streams.acknowledge()
    found = recent.read_day(client, now_ms, "fra")
    assert [one.at for one in found] == sorted(float(minute - 60 * back) for back in range(30))
    assert {one.at: one.arrived for one in found}[minute - 120] == 7
    assert client.hlen(names.day_at_hub("fra")) <= DAY_MINUTES
    assert b"minutes" not in client.hget(names.region_status("fra"), "workers:h:1")
