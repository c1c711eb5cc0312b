"""How a region is, from what its parts said last."""

import re
import time

import msgspec
import pytest

from tests.unit.web.api.region_states import BRIDGE, NOW, POOL, SUMS, state, told
from web.api.region_view import DIFFERS_MAX, Rates, differing, region_view
from web.hub.faults import Book, Found, Queued
from web.hub.traffic import traffic_view


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"bridge_a": BRIDGE, "workers_a": POOL}, "up"),
        ({"bridge_a": {**BRIDGE, "state": "paused"}, "bridge_b": BRIDGE, "workers_a": POOL}, "up"),
        ({"bridge_a": {**BRIDGE, "state": "paused", "reason": "full"}, "workers_a": POOL}, "degraded"),
        ({"bridge_a": BRIDGE}, "degraded"),
        ({"workers_a": POOL}, "degraded"),
        ({"bridge_a": BRIDGE, "workers_a": {**POOL, "processes": 0}}, "degraded"),
        ({"bridge_a": {**BRIDGE, "at_ms": NOW - 6_001}, "workers_a": POOL}, "degraded"),
        ({"bridge_a": {**BRIDGE, "at_ms": 0}, "workers_a": {**POOL, "at_ms": 0}}, "down"),
        ({}, "down"),
    ],
)
def test_status_names_what_is_away(said, status):
    view = region_view(state(**said), "Frankfurt", Rates())
    assert (view["status"], bool(view["reasons"])) == (status, status != "up")


def test_what_the_gateway_tells_of_a_region_is_named_and_degrades_it_and_what_it_tells_of_its_sources_is_named():
    """A fault that lasts, such as lateness, is not seen in one report."""

    def fires(name: str, **of):
        (one,), _ = Book().see(0, [Found(name, f"why {name}", region="fra", **of)])
        return one

    well = state(bridge_a=BRIDGE, workers_a=POOL)
    view = region_view(well, "Frankfurt", Rates(), told=[fires("region-late"), fires("source-broken", source="a.b")])
    assert (view["status"], view["reasons"]) == ("degraded", ["why region-late"])
    assert view["faults"] == ["region-late", "source-broken"]
    view = region_view(
        well, "Frankfurt", Rates(), told=[fires("region-taken-over"), fires("source-broken", source="a.b")]
    )
    assert (view["status"], view["reasons"], view["faults"]) == ("up", [], ["region-taken-over", "source-broken"])
    view = region_view(state(workers_a=POOL), "Frankfurt", Rates(), told=[fires("region-bridge-away")])
    assert (view["reasons"], view["faults"]) == (["no bridge is alive"], ["region-bridge-away"]), "it is told once"


def test_a_bridge_that_can_not_reach_the_broker_is_alive_and_one_that_says_it_consumes_without_a_consumer_is_not():
    nobody = Queued(ready=1, consumers=0, at=time.monotonic())
    old = {**BRIDGE, "at_ms": NOW - 3_000}
    for said, alive in (({**old, "state": "starting", "reason": "RabbitMQ is away"}, ["a"]), (old, [])):
        view = region_view(state(bridge_a=said, workers_a=POOL), "Frankfurt", Rates(), queued=nobody)
        assert [one["name"] for one in view["bridges"]] == alive


def test_figures_are_those_of_the_living_parts():
    view = region_view(state(bridge_a=BRIDGE, workers_a=POOL, workers_b={**POOL, "at_ms": 0}), "Frankfurt", Rates())
    assert view["queue"] == {
        "open": 4,
        "ready": 7,
        "running": 3,
        "scheduled": 0,
        "oldest_seconds": 2.5,
        "unread": 0,
        "at_broker": None,
    }
    assert view["throughput"] == {"succeeded": 10, "failed": 2, "per_second": None, "p95_ms": None}


def test_totals_are_the_regions_own_however_many_pools_say_them():
    later = {**POOL, "at_ms": NOW - 500, "succeeded": 11}
    view = region_view(state(bridge_a=BRIDGE, workers_a=POOL, workers_b=later), "Frankfurt", Rates())
    assert (view["throughput"]["succeeded"], view["queue"]["running"]) == (11, 6)


def test_times_of_reports_have_the_form_of_all_times():
    view = region_view(state(bridge_a=BRIDGE, workers_a={**POOL, "scale": {"at_ms": 0}}), "Frankfurt", Rates())
    for status in (*view["bridges"], *view["workers"], view["scale"]):
        assert "at_ms" not in status
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", status["reported_at"])


def test_the_number_of_processes_is_what_was_said_last_of_it():
    old, new = ({"at_ms": at, "number": number} for at, number in ((1, 2), (2, 4)))
    pools = {"workers_a": {**POOL, "scale": new}, "workers_b": {**POOL, "scale": old}, "workers_c": POOL}
    view = region_view(state(bridge_a=BRIDGE, **pools), "Frankfurt", Rates())
    assert view["scale"] == {"reported_at": "1970-01-01T00:00:00.002Z", "number": 4}
    assert all("scale" not in pool for pool in view["workers"])
    assert region_view(state(), "Frankfurt", Rates())["scale"] is None


def test_throughput_is_what_a_region_ended_in_the_last_minute():
    rates = Rates()
    assert rates.rate("fra", {"at_ms": 0, "succeeded": 100}) is None
    assert rates.rate("nyc", {"at_ms": 0, "succeeded": 5_000}) is None
    assert rates.rate("fra", {"at_ms": 10_000, "succeeded": 150, "failed": 50}) == 10.0
    assert rates.rate("fra", {"at_ms": 9_000, "succeeded": 140, "failed": 50}) == 10.0  # another pool's, of before
    assert rates.rate("fra", {"at_ms": 70_000, "succeeded": 260}) == 1.0
    assert rates.rate("fra", {"at_ms": 75_000, "succeeded": 9}) is None


@pytest.mark.parametrize(
    ("said", "there"),
    [
        ({"demo_list": "HASH"}, None),
        ({"demo_list": "0ther"}, "0ther"),
        ({}, ""),
        ({"demo_list": "HASH", "demo_broken": "0ther"}, None),  # told as broken
    ],
)
def test_a_region_shows_which_definitions_differ_from_the_gateways(listed, said, there):
    own = listed.get("demo.list").definition.hash
    seen = told(**{source: one.replace("HASH", own) for source, one in said.items()})
    expected = {} if there is None else {"demo.list": {"there": there, "here": own}}
    assert differing(seen, listed.entries()) == expected


def test_a_source_that_only_the_region_has_differs_and_one_that_said_nothing_does_not(listed):
    own = listed.get("demo.list").definition.hash
    assert differing(told(demo_list=own, gone="0ld"), listed.entries()) == {"gone": {"there": "0ld", "here": ""}}
    assert differing(state(bridge_a=BRIDGE), listed.entries()) == {}


def test_differences_are_bounded(listed):
    seen = told(**{f"gone_{number}": "0ld" for number in range(500)})
    assert len(differing(seen, listed.entries())) == DIFFERS_MAX


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"refused": {"trail": 3, "status": 1}, "refused_ms": NOW - 599_000}, "(1 status, 3 trail in all)"),
        ({"barred": "90,000,000 bytes that nobody asked for"}, "90,000,000 bytes that nobody asked for"),
    ],
)
def test_a_region_whose_entries_are_refused_is_degraded_and_says_so(changes, reason):
    seen = msgspec.structs.replace(state(bridge_a=BRIDGE, workers_a=POOL), **changes)
    view = region_view(seen, "Frankfurt", Rates())
    assert view["status"] == "degraded"
    assert reason in view["reasons"][0]


def test_what_was_refused_long_ago_is_counted_and_degrades_nothing():
    seen = state(bridge_a=BRIDGE, workers_a=POOL)
    seen = msgspec.structs.replace(seen, refused={"trail": 3}, refused_ms=NOW - 600_001)
    view = region_view(seen, "Frankfurt", Rates())
    assert (view["status"], view["refused"]) == ("up", {"trail": 3})


def test_a_part_that_speaks_of_a_time_to_come_is_none():
    said = {"bridge_a": {**BRIDGE, "at_ms": NOW + 10**9}, "workers_a": POOL}
    assert region_view(state(**said), "Frankfurt", Rates())["reasons"] == ["no bridge is alive"]


def test_bytes_of_a_source_in_a_region_stand_in_its_view():
    """Its sums since ever, and today's; the region's are those of all its sources."""
    nothing = dict.fromkeys((*SUMS, "kept_off_wan"), 0)
    seen = msgspec.structs.replace(
        state(bridge_a=BRIDGE, workers_a=POOL), traffic={"demo.list": SUMS, "demo.other": SUMS}
    )
    today = {"demo.list": {**SUMS, "received": 50, "spared": 0}}
    view = region_view(seen, "Frankfurt", Rates(), {"2026-11-29": SUMS, "2026-11-27": SUMS}, today)
    assert view["sources"] == {
        "demo.list": {**SUMS, "kept_off_wan": 400, "today": {**today["demo.list"], "kept_off_wan": 0}},
        "demo.other": {**SUMS, "kept_off_wan": 400, "today": nothing},
    }
    assert view["bytes"] == {
        "raw": 1800, "received": 600, "spared": 400, "records": 400, "wire": 200, "kept_off_wan": 800,
    }  # fmt: skip
    assert view["days"] == [{"day": day, **SUMS, "kept_off_wan": 400} for day in ("2026-11-29", "2026-11-27")]
    assert region_view(state(), "Frankfurt", Rates())["bytes"]["kept_off_wan"] == 0


def test_more_sent_than_fetched_keeps_nothing_off_the_wan_and_is_never_negative():
    assert traffic_view({**SUMS, "wire": 501})["kept_off_wan"] == 0
