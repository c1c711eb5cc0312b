"""How a region is, from what its parts said last."""

import pytest

from web.app import host_name
from web.ledger import RegionState
from web.overview import Rates, region_view

NOW = 1_000_000
BRIDGE = {"at_ms": NOW - 1_000, "state": "consuming", "reason": "", "ready": 7}
POOL = {
    "at_ms": NOW - 1_000,
    "processes": 2,
    "busy": 3,
    "succeeded": 10,
    "failed": 2,
    "raw_bytes": 900,
    "wire_bytes": 100,
}


def state(**said) -> RegionState:
    parts = {key.replace("_", ":", 1): value for key, value in said.items()}
    return RegionState(name="fra", now_ms=NOW, said=parts, open_tasks=4, oldest_ms=NOW - 2_500, unread=0)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"bridge_a": BRIDGE, "workers_a": POOL}, "up"),
        ({"bridge_a": {**BRIDGE, "state": "paused"}, "bridge_b": BRIDGE, "workers_a": POOL}, "up"),
        ({"bridge_a": {**BRIDGE, "state": "paused", "reason": "full"}, "workers_a": POOL}, "degraded"),
        ({"bridge_a": BRIDGE}, "degraded"),
        ({"workers_a": POOL}, "degraded"),
        ({"bridge_a": BRIDGE, "workers_a": {**POOL, "processes": 0}}, "degraded"),
        ({"bridge_a": {**BRIDGE, "at_ms": NOW - 15_001}, "workers_a": POOL}, "degraded"),
        ({"bridge_a": {**BRIDGE, "at_ms": 0}, "workers_a": {**POOL, "at_ms": 0}}, "down"),
        ({}, "down"),
    ],
)
def test_status_names_what_is_away(said, status):
    view = region_view(state(**said), "Frankfurt", Rates())
    assert (view["status"], bool(view["reasons"])) == (status, status != "up")


def test_figures_are_those_of_the_living_parts():
    view = region_view(state(bridge_a=BRIDGE, workers_a=POOL, workers_b={**POOL, "at_ms": 0}), "Frankfurt", Rates())
    assert view["queue"] == {"open": 4, "ready": 7, "running": 3, "oldest_seconds": 2.5, "unread": 0}
    assert view["bytes"]["kept_off_wan"] == 800
    assert view["throughput"] == {"succeeded": 10, "failed": 2, "per_second": None}


def test_throughput_is_what_each_pool_ended_in_the_last_minute():
    rates = Rates()
    first = [{"name": "a", "at_ms": 0, "succeeded": 100}, {"name": "b", "at_ms": 0, "succeeded": 5_000}]
    assert rates.rate(first) is None
    assert rates.rate([{"name": "a", "at_ms": 10_000, "succeeded": 150, "failed": 50}]) == 10.0
    # b was away meanwhile: what it had ended before does not count as ended now
    both = [
        {"name": "a", "at_ms": 10_000, "succeeded": 150, "failed": 50},
        {"name": "b", "at_ms": 100_000, "succeeded": 9},
    ]
    assert rates.rate(both) == 10.0
    assert rates.rate([{"name": "a", "at_ms": 70_000, "succeeded": 260}]) == 1.0


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost", "localhost"), ("LOCALHOST.:8080", "localhost"), ("127.0.0.1:80", "127.0.0.1"), ("[::1]:8080", "::1"),
        ("a@127.0.0.1", ""), ("127.0.0.1/x", ""), ("127.0.0.1:x", ""), ("", ""), ("::1", ""), ("a b", ""),
    ],
)  # fmt: skip
def test_name_in_a_host_header(host, name):
    assert host_name(host) == name
