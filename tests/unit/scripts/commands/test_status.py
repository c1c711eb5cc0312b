"""What `nearfetch status` says of regions."""

import click

from scripts.commands import status as status_command
from scripts.terminal import shown
from tests.unit.web.api.region_states import POOL, SUMS, state
from web.api.region_view import Rates, region_view
from web.hub.traffic import traffic_view


def test_status_names_the_definitions_that_differ():
    lines = status_command.differs_lines(
        {"demo.list": {"there": "0ld", "here": "n3w"}, "gone": {"there": "", "here": "x"}}
    )
    assert lines[0].strip() == "demo.list: definition 0ld there, n3w at the gateway"
    assert lines[1].strip() == "gone: definition none there, x at the gateway"
    many = {f"s.{number}": {"there": "a", "here": "b"} for number in range(9)}
    assert status_command.differs_lines(many)[-1].strip() == "and 4 more sources that differ: --json"


def test_status_tells_the_sources_that_fetched_most():
    sums = traffic_view({**SUMS, "runs": 1, "received": 109_800, "spared": 20_000, "wire": 14_200})
    sums["today"] = {**sums, "kept_off_wan": 5_000}
    lines = status_command.traffic_lines({f"s.{number}": {**sums, "received": number * 1000} for number in range(1, 8)})
    assert [line.split()[0] for line in lines] == ["s.7", "s.6", "s.5", "s.4", "s.3", "and"]
    assert "2 more sources" in lines[-1]
    assert status_command.traffic_lines({}) == []
    line = status_command.traffic_lines({"quakes.day": sums})[0]
    assert " ".join(line.split()) == (
        "quakes.day 1 run 109.8 kB fetched, 20.0 kB not again → 14.2 kB home, 115.6 kB kept off the WAN, 5.0 kB of it today"
    )


def test_status_tells_what_a_region_kept_off_the_wan_by_day():
    days = [{"day": day, **SUMS, "kept_off_wan": kept} for day, kept in (("2026-11-29", 5_000), ("2026-11-27", 900))]
    assert [line.strip() for line in status_command.day_lines(days)] == [
        "kept off the WAN: 5.0 kB on 2026-11-29, 5.9 kB in 2 days"
    ]
    assert status_command.day_lines([]) == []


def test_status_says_how_many_processes_are_wanted_and_why():
    decision = {"at": "2026-11-24T06:50:00.000Z", "was": 1, "number": 3, "reason": "the rule asks for at least 3"}
    said = {"number": 3, "min": 3, "max": 4, "decisions": [decision]}
    line = "3 processes wanted, 3 to 4 allowed; 06:50:00Z 1 → 3: the rule asks for at least 3"
    assert status_command.scale_line(said).strip() == line
    first, second = status_command.scale_line(said | {"fault": "fra.toml:2: scale.max: expected"}).splitlines()
    assert first.strip() == line
    assert (
        click.unstyle(second).strip()
        == "degraded its [scale] is wrong, so the previous one applies: fra.toml:2: scale.max: expected"
    )


def test_status_tells_a_fault_by_its_name_and_reason_then_figures():
    fault = {
        "name": "region-redis-away", "severity": "page", "region": "fra", "source": None, "part": "redis-fra",
        "since": "2026-11-29T11:40:00.000Z", "message": "its Redis is away: Timeout", "cost": "its tasks wait",
        "mend": "start it",
    }  # fmt: skip
    first, second, third = click.unstyle(shown(status_command.fault_line(fault))).splitlines()
    assert first == "PAGE   region-redis-away fra: its Redis is away: Timeout"
    assert (second.strip(), third.strip()) == ("since 11:40:00Z; it costs: its tasks wait", "mend: start it")
    hub = {**fault, "name": "hub-redis-full", "region": None, "part": "redis-hub", "message": "full\x1b[2J"}
    assert click.unstyle(shown(status_command.fault_line(hub))).startswith(
        "PAGE   hub-redis-full (redis-hub): full\\x1b[2J"
    )


def test_the_reason_of_a_region_stands_before_its_figures():
    view = region_view(state(workers_a=POOL), "Frankfurt", Rates())
    first, second = click.unstyle(status_command.region_line(view, [])).splitlines()
    assert first.split() == ["fra", "Frankfurt", "degraded", "no", "bridge", "is", "alive"]
    assert "4 open" in second
