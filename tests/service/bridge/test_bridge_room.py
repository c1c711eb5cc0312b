"""How far a bridge fills its region's Redis: by the last measure, and by its own writes since."""

import os

from bridge import watch
from tests.service.bridging import Region, task
from tests.waiting import until


def test_lanes_close_by_the_memory_of_their_redis(region: Region) -> None:
    client = region.redis.client
    bulk, sync = task(region.name, 1), task(region.name, 2, sync=True)
    with region.bridging() as running:
        running.wait_for("consuming")
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] / 0.78))
        running.wait_for("paused", "70%")
        until(lambda: not running.bridge._watch.is_calm, "its looks to be frequent, to find room")
        until(lambda: running.status.fault == "region-redis-full", "its fault")
        region.broker.publish(bulk, sync)
        until(lambda: region.jobs() == [sync.task], "the fast lane only")
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] / 0.93))
        running.wait_for("paused", "90%")
        client.config_set("maxmemory", "256mb")
        region.each_once([bulk, sync])
        region.all_acked(running)


def test_large_params_do_not_fill_a_region_past_its_mark_between_two_looks(region: Region, monkeypatch) -> None:
    """A thousand large jobs arrive within half a second. Here Redis is measured once, and later writes are counted."""
    client = region.redis.client
    client.config_set("appendfsync", "always")
    tasks = [task(region.name, n, params={"q": os.urandom(50_000).hex()}) for n in range(300)]
    sync = task(region.name, 999, sync=True)
    limit = int(client.info("memory")["used_memory"]) + 8_000_000
    client.config_set("maxmemory", limit)
    looks, look = [], watch.Watch.run_once
    with monkeypatch.context() as never, region.bridging() as running:
        running.wait_for("consuming")
        never.setattr(watch, "INTERVAL_SECONDS", 3_600.0)
        never.setattr(watch.Watch, "run_once", lambda one: look(one) or looks.append(one))
        until(lambda: looks, "the last look")
        region.broker.publish(*tasks)
        running.wait_for("paused", "70%")
        until(lambda: region.broker.ready() + len(region.jobs()) == 300, "the rest to be back in the queue")
        assert 0 < len(region.jobs()) < 150
        until(lambda: used(client) < 0.72 * limit, "what was taken to be in its place")
        region.broker.publish(sync)
        until(lambda: sync.task in region.jobs(), "the fast lane")
    client.config_set("maxmemory", "256mb")
    with region.bridging() as running:
        region.each_once([*tasks, sync])
        region.all_acked(running)


def used(client) -> int:
    return int(client.info("memory")["used_memory"])
