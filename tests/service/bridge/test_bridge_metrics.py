"""``/metrics`` of a bridge, on a real broker and a real Redis."""

import msgspec
import pytest

from regions.settings import Metrics
from scripts.stack.ports import free_port
from tests.scraping import Scrape
from tests.service.bridging import Region, bridging, now_ms, task
from tests.waiting import until
from tests.wire import ask


@pytest.mark.usefixtures("patient_clients")  # a bridge that pauses meanwhile gives messages back
def test_what_a_bridge_does_with_messages_is_counted(region: Region) -> None:
    port = free_port()
    config = region.settings()
    one = msgspec.structs.replace(config.one(region.name), metrics=Metrics(bridge_port=port))
    config = msgspec.structs.replace(config, region={region.name: one})
    tasks = region.tasks(20)
    with bridging(config, region.name) as running:
        running.wait_for("consuming")
        until(lambda: Scrape(port).get("bridge_consuming", region=region.name) == 1, "it to say that it consumes")
        region.broker.publish(*tasks, task(region.name, 99, sync=True))
        region.broker.publish(task(region.name, 100, deadline_ms=now_ms() - 60_000))
        region.broker.publish_raw(b"nonsense", task=None, request=None)

        def outcomes() -> dict[tuple[str, str], float | None]:
            found = Scrape(port)
            return {
                (lane, outcome): found.get("bridge_messages_total", region=region.name, lane=lane, outcome=outcome)
                for lane in ("now", "work")
                for outcome in ("received", "acked", "given_back", "rejected")
            }

        expected = {
            ("now", "received"): 1, ("now", "acked"): 1, ("now", "given_back"): 0, ("now", "rejected"): 0,
            ("work", "received"): 22, ("work", "acked"): 21, ("work", "given_back"): 0, ("work", "rejected"): 1,
        }  # fmt: skip
        until(lambda: outcomes() == expected, "every message to be acked or rejected")
        found = Scrape(port)
        assert found.get("bridge_late_messages_total") == 1
        assert found.hops() == {"bridge": 21}
        assert found.get("bridge_durable_seconds_count") >= 1
        assert found.get("bridge_unacked_messages") == 0
        assert found.get("bridge_redis_used_bytes") > 0
        until(lambda: Scrape(port).get("bridge_ready_jobs") == 20, "a look that began after the last write")
        for lane in ("now", "work"):
            until(
                lambda lane=lane: Scrape(port).get("bridge_queue_messages", lane=lane) == 0,
                "the broker to say that nothing waits",
            )
    try:
        ask(port, "GET", "/metrics")
    except OSError:
        return
    raise AssertionError("the endpoint outlived its bridge")


def test_messages_that_a_paused_bridge_leaves_at_the_broker_are_counted(region: Region) -> None:
    port = free_port()
    config = region.settings(ready_max=1)
    one = msgspec.structs.replace(config.one(region.name), metrics=Metrics(bridge_port=port))
    config = msgspec.structs.replace(config, region={region.name: one})
    with bridging(config, region.name) as running:
        running.wait_for("consuming")
        region.broker.publish(*region.tasks(30))
        running.wait_for("paused")
        until(
            lambda: (Scrape(port).get("bridge_queue_messages", lane="work") or 0) >= 20,
            "the waiting messages to be counted",
        )
        assert Scrape(port).get("bridge_consuming") == 0
