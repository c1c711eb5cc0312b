"""How a region is, from what its parts said last."""

import re
from collections.abc import Sequence

import click
import msgspec
import pytest

from jobs.definition.catalog import Catalog
from regions.settings import Region, Settings
from scripts.commands import status as status_command
from scripts.terminal import shown
from tests import sources
from web.api.overview import (
    DIFFERS_MAX,
    Overview,
    Rates,
    differing,
    health_of,
    learned_view,
    region_view,
    source_view,
    traffic_view,
)
from web.app import host_name
from web.hub.region import RegionState
from web.hub.runs import Learned
from web.hub.verdict import Figure, Verdict

NOW = 1_000_000
BRIDGE = {"at_ms": NOW - 1_000, "state": "consuming", "reason": "", "ready": 7}
POOL = {
    "at_ms": NOW - 1_000,
    "processes": 2,
    "busy": 3,
    "succeeded": 10,
    "failed": 2,
}
SUMS = {"runs": 3, "failed": 1, "raw": 900, "received": 300, "spared": 200, "records": 200, "wire": 100}


def state(**said) -> RegionState:
    parts = {key.replace("_", ":", 1): value for key, value in said.items()}
    return RegionState(name="fra", now_ms=NOW, reported=parts, open_tasks=4, oldest_ms=NOW - 2_500, unread=0)


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


def test_figures_are_those_of_the_living_parts():
    view = region_view(state(bridge_a=BRIDGE, workers_a=POOL, workers_b={**POOL, "at_ms": 0}), "Frankfurt", Rates())
    assert view["queue"] == {"open": 4, "ready": 7, "running": 3, "oldest_seconds": 2.5, "unread": 0, "at_broker": None}
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
    ("host", "name"),
    [
        ("localhost", "localhost"), ("LOCALHOST.:8080", "localhost"), ("127.0.0.1:80", "127.0.0.1"), ("[::1]:8080", "::1"),
        ("a@127.0.0.1", ""), ("127.0.0.1/x", ""), ("127.0.0.1:x", ""), ("", ""), ("::1", ""), ("a b", ""),
    ],
)  # fmt: skip
def test_name_in_a_host_header(host, name):
    assert host_name(host) == name


def told(region="fra", **sources) -> RegionState:
    """A region that said which sources it has: their definition's hash, or a fault."""
    said = {
        source.replace("_", "."): {"definition": "", "fault": one} if " " in one else {"definition": one, "fault": None}
        for source, one in sources.items()
    }
    return RegionState(name=region, now_ms=NOW, reported={"sources": said}, open_tasks=0, oldest_ms=None, unread=0)


@pytest.fixture
def listed(tmp_path):
    """The gateway's own: demo.list in fra, and demo.broken."""
    catalog = Catalog([sources.write(tmp_path)], "fra")
    catalog.refresh()
    return catalog


def test_a_source_whose_region_has_the_same_definition_is_ok(listed):
    """Same hash, in the region that the gateway sends its tasks to."""
    entry = listed.get("demo.list")
    assert health_of(entry, {"fra": told(demo_list=entry.definition.hash), "nyc": told("nyc")}) == ("ok", [])


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"fra": told(demo_list="0ther")}, "fra has definition 0ther, the gateway has HASH for fra"),
        ({"fra": told(demo_plain="0ther")}, "fra does not have it; the gateway has definition HASH"),
        ({"fra": told(demo_list="HASH"), "nyc": told("nyc", demo_list="0ther")}, "nyc has definition 0ther, the gateway has HASH for fra"),
    ],
)  # fmt: skip
def test_a_region_with_another_definition_degrades_a_source_and_is_named(listed, said, reason):
    """Both hashes stand in the reason, so that whoever reads it knows which of the two to deploy."""
    entry = listed.get("demo.list")
    own = entry.definition.hash
    for state in said.values():
        for one in state.reported["sources"].values():
            one["definition"] = one["definition"].replace("HASH", own)
    assert health_of(entry, said) == ("degraded", [reason.replace("HASH", own)])


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


class Telling(Overview):
    """An overview that is told what regions said."""

    def __init__(self, catalog) -> None:
        self.said, self._catalog, self._differs, self._told = told(), catalog, {}, {}
        self._settings = Settings(region={"fra": Region(name="fra")})

    def _states(self):
        return {"fra": self.said}, {}


def test_a_difference_that_lasts_is_logged_once_and_so_is_its_end(listed, capsys):
    """A deploy reaches the hosts one after the other, so that one look is not enough."""
    own, telling = listed.get("demo.list").definition.hash, Telling(listed)

    def logged(definition: str) -> list[str]:
        telling.said = told(demo_list=definition)
        telling.tell()
        return re.findall(r"other definitions|same definitions", capsys.readouterr().out)

    seen = [logged(one) for one in ("0ther", own, "0ther", "0ther", "0ther", "an0ther", "an0ther", own, own)]
    assert seen == [[], [], [], ["other definitions"], [], [], ["other definitions"], ["same definitions"], []]


def test_status_names_the_definitions_that_differ():
    lines = status_command.differs_lines(
        {"demo.list": {"there": "0ld", "here": "n3w"}, "gone": {"there": "", "here": "x"}}
    )
    assert lines[0].strip() == "demo.list: definition 0ld there, n3w at the gateway"
    assert lines[1].strip() == "gone: definition none there, x at the gateway"
    many = {f"s.{number}": {"there": "a", "here": "b"} for number in range(9)}
    assert status_command.differs_lines(many)[-1].strip() == "and 4 more sources that differ: --json"


def test_what_another_region_says_of_a_source_is_nothing_to_it(listed):
    """Its credentials may be stolen: it can say that a source of another one is broken, failing, or another one."""
    entry = listed.get("demo.list")
    sin = told("sin", demo_list="it has a fault")
    sin.reported["sources"]["demo.list"]["trouble"] = "its host is away"
    assert health_of(entry, {"fra": told(demo_list=entry.definition.hash), "sin": sin}) == ("ok", [])


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


def test_a_definition_that_is_broken_here_or_there_breaks_its_source(listed):
    """Its faults are the reasons, with file and line."""
    how, reasons = health_of(listed.get("demo.broken"), {})
    assert how == "broken"
    assert "demo.broken.toml" in reasons[0]
    entry = listed.get("demo.list")
    there = health_of(entry, {"fra": told(demo_list="demo.list.toml:4: url: expected a text")})
    assert there == ("broken", ["fra: demo.list.toml:4: url: expected a text"])


def test_a_source_whose_host_is_left_alone_is_failing_and_says_why(listed):
    """The region said so; the definition is as good as before."""
    entry = listed.get("demo.list")
    state = told(demo_list=entry.definition.hash)
    state.reported["sources"]["demo.list"]["trouble"] = "https://x.example:443 is left alone: a wall stands before it"
    assert health_of(entry, {"fra": state}) == (
        "failing",
        ["fra: https://x.example:443 is left alone: a wall stands before it"],
    )


def learned(definition: str, *reasons: str, notes: Sequence[str] = ()) -> Learned:
    figure = Figure(30, 30)
    verdict = Verdict(
        health="degraded" if reasons else "ok", reasons=list(reasons), definition=definition, runs=20, before=200,
        success=1.0, rows=figure, raw_bytes=figure, busy_ms=figure, coverage={"author": Figure(0.1, 1.0)},
        notes=list(notes),
    )  # fmt: skip
    return Learned(NOW, verdict)


def test_a_source_whose_runs_are_not_what_they_were_is_degraded_and_says_why(listed):
    entry = listed.get("demo.list")
    said = {"fra": told(demo_list=entry.definition.hash)}
    bad = learned(entry.definition.hash, "9 records a run, 30 before")
    assert health_of(entry, said, bad) == ("degraded", ["9 records a run, 30 before"])
    assert health_of(entry, said, learned(entry.definition.hash)) == ("ok", [])
    view = source_view(entry, said, {"demo.list": bad})
    assert (view["health"], view["reasons"]) == ("degraded", ["9 records a run, 30 before"])
    assert source_view(entry, said, {"demo.other": bad})["health"] == "ok"


def test_what_runs_of_another_definition_showed_says_nothing_of_this_one(listed):
    """Its author mended it; the next runs will show whether that helped."""
    entry = listed.get("demo.list")
    said = {"fra": told(demo_list=entry.definition.hash)}
    assert health_of(entry, said, learned("0ther", "9 records a run, 30 before")) == ("ok", [])


def test_what_was_learned_is_shown_with_its_figures():
    assert learned_view(None) is None
    view = learned_view(learned("0123", "9 records a run, 30 before"))
    assert (view["since"], view["success"], view["rows"]) == (
        "1970-01-01T00:16:40.000Z",
        1.0,
        {"last": 30, "before": 30},
    )
    assert view["coverage"] == {"author": {"last": 0.1, "before": 1.0}}


def test_a_source_that_is_well_and_saves_nothing_says_so(listed):
    entry = listed.get("demo.list")
    said = {"fra": told(demo_list=entry.definition.hash)}
    assert health_of(entry, said, learned(entry.definition.hash, notes=["it saves nothing"])) == (
        "ok",
        ["it saves nothing"],
    )
    assert health_of(entry, said, learned("0ther", notes=["it saves nothing"])) == ("ok", [])


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


def test_a_source_of_a_region_that_said_nothing_yet_is_unknown(listed):
    """Nobody knows what it has: neither good nor bad."""
    silent = RegionState(name="fra", now_ms=NOW, reported={}, open_tasks=0, oldest_ms=None, unread=0)
    entry = listed.get("demo.list")
    assert health_of(entry, {})[0] == health_of(entry, {"fra": silent})[0] == "unknown"


def test_a_param_is_shown_with_what_limits_it(listed):
    """What limits nothing is left out."""
    params = source_view(listed.get("demo.list"), {})["params"]
    assert params["category"] == {
        "type": "str", "required": True, "default": None, "example": "poetry", "pattern": "[a-z_0-9]+",
    }  # fmt: skip
    assert (params["page"]["min"], params["page"]["max"], "pattern" in params["page"]) == (1, 50, False)


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


def test_what_a_standby_lacks_or_finds_wrong_does_not_break_a_source_of_another_region(listed):
    """It says why it could not take the source over; the source's own region runs it."""
    entry = listed.get("demo.list")
    own = told(demo_list=entry.definition.hash)
    broken = told("nyc", demo_list="demo.list.py:1: no module is there")
    lacking = told("nyc", demo_list=entry.definition.hash)
    lacking.reported["sources"]["demo.list"] |= {"lacks": "expected a secret", "trouble": "its host is left alone"}
    for standby in (broken, lacking):
        assert health_of(entry, {"fra": own, "nyc": standby}) == ("ok", [])


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
