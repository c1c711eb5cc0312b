"""``scripts/up --wan``: a region across an ocean."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from functools import partial

import msgspec
import pytest

from regions import connect, names
from scripts.stack import distance
from scripts.stack.wan_links import Control, Way
from tests.stack.driving import Inside, is_up, is_up_by_status
from tests.waiting import until
from tests.wire import ask

FAR = "60:jitter=2"


class Ocean:
    """A stack of one region behind its links, and what it said when it was ready."""

    def __init__(self, stack) -> None:
        self.stack = stack
        self.said = stack.up("--detach", "--port", str(stack.port), "--wan", f"fra={FAR}").stdout
        self.inside = Inside(stack)
        self.hub, self.region = self.inside.redis("hub"), self.inside.redis("fra")
        self.control = Control(self.inside.ports["wan"])

    def close(self) -> None:
        self.control.close()
        self.inside.close()
        self.stack.end()

    def counts(self) -> dict:
        return {of: self.control.counts(f"fra.{of}") for of in ("rabbitmq", "redis")}

    def ask(self) -> dict:
        """The result of a synchronous call. A broker on a busy machine may confirm too late: nothing was accepted then."""
        asked = partial(ask, self.stack.port, "GET", "/v1/sources/ecb.rates/records?wait=15")
        answer = until(lambda: answer if (answer := asked()).status != 503 else None, "the gateway to accept a call")
        assert answer.status == 200, answer.body
        return answer.json()

    @contextlib.contextmanager
    def only_one_round_trip(self) -> Iterator[None]:
        """Tasks go out over AMQP and results home over Redis; whatever else crosses the ocean is held meanwhile."""
        rule, held = distance.read(FAR).rule, Way(then="hold")
        self.control.rule("fra.rabbitmq", msgspec.structs.replace(rule, there=held))
        self.control.rule("fra.redis", msgspec.structs.replace(rule, back=held))
        try:
            yield
        finally:
            for of in ("rabbitmq", "redis"):
                self.control.heal(f"fra.{of}")

    def is_ready(self) -> bool:
        """Whether the bridge consumes, and the process for urgent tasks has its two connections to the hub."""
        if not is_up(self.stack):
            return False
        (region,) = self.stack.get("/v1/regions")["regions"]
        pid = self.stack.pids()["bridge-fra"]
        consumes = any(one["name"].endswith(f":{pid}") and one["state"] == "consuming" for one in region["bridges"])
        keys = self.region.smembers(names.rq_workers_of(names.urgent("fra")))
        workers = [names.worker_of(key.decode()) for key in keys]
        living = [one for one in workers if self.region.exists(names.lease(one))]
        connected = [one["name"] for one in self.hub.client_list()]
        return consumes and self.consumers() == 1 and len(living) == 1 and connected.count(living[0]) == 2

    def consumers(self) -> int:
        """How many bridges take urgent tasks, as the broker knows it."""
        url = f"amqp://nearfetch:{self.inside.secrets['rabbitmq']}@127.0.0.1:{self.inside.ports['broker']}/%2F"
        with connect.open_broker(connect.amqp_parameters(url, name="test")) as connection:
            return connection.channel().queue_declare(names.fast_queue("fra"), passive=True).method.consumer_count

    def forget_connections(self) -> None:
        """Closes all connections across the ocean, as a firewall does that finds them idle. The region opens them again."""
        before = self.counts()
        for of, counts in before.items():
            self.control.cut(f"fra.{of}", "close")
            until(
                lambda of=of, seen=counts: self.control.counts(f"fra.{of}").accepted > seen.accepted,
                f"{of} to be connected again",
            )


@pytest.fixture(scope="module")
def ocean(make_stack, one_region):
    made = Ocean(make_stack(forks=True, NEARFETCH__REGIONS__PATH=one_region))
    yield made
    made.close()


def test_a_far_region_works_as_a_near_one_and_its_links_count_what_crosses(ocean):
    assert "  hub to region     fra  60 ms (±2 ms each way)\n" in ocean.said
    site = json.loads((ocean.stack.data / "kept.json").read_text())["ports"]["wan fra.site"]
    assert f"  The sample site from as far: http://127.0.0.1:{site}/ (fra)\n" in ocean.said
    before = ocean.counts()
    result = ocean.ask()
    assert result["status"] == "succeeded"
    assert result["timing"]["total_ms"] >= 20  # the task's way there
    after = ocean.counts()
    assert after["rabbitmq"].back > before["rabbitmq"].back
    assert after["redis"].there - before["redis"].there >= result["bytes"]["wire"]
    until(lambda: is_up_by_status(ocean.stack), "nearfetch status to say that all is well", 150.0)
    assert ocean.stack.nearfetch("where", result["task"]).returncode == 0
    assert ocean.stack.succeeds("fetch", "ecb.rates").returncode == 0


@pytest.mark.parametrize("new", ["", "workers-fra", "bridge-fra", "gateway"])
def test_a_synchronous_request_takes_one_round_trip_also_a_new_parts_first(ocean, new):
    """No reply of the hub is waited for in the region, and none of the region's at the hub but the result."""
    if new:
        before = ocean.stack.pids()[new]
        os.kill(before, signal.SIGKILL)
        until(lambda: ocean.stack.pids()[new] != before, f"{new} to be started again", 150.0)
    until(ocean.is_ready, "everything to be ready", 150.0)
    take_two_calls(ocean)


def test_a_request_after_idle_connections_were_closed_takes_one_round_trip(ocean):
    until(ocean.is_ready, "everything to be ready", 150.0)
    ocean.forget_connections()
    until(ocean.is_ready, "everything to be connected again", 150.0)
    take_two_calls(ocean)


def take_two_calls(ocean: Ocean) -> None:
    """Both are answered while nothing but their one round trip can cross the ocean."""
    with ocean.only_one_round_trip():
        assert [ocean.ask()["status"] for _ in range(2)] == ["succeeded"] * 2
