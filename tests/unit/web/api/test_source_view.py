"""What the interface shows of a source."""

from collections.abc import Sequence

import pytest

from tests.unit.web.api.region_states import NOW, told
from web.api.source_view import health_of, learned_view, source_view
from web.hub.region import RegionState
from web.hub.runs import Learned
from web.hub.verdict import Figure, Verdict


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


def test_what_another_region_says_of_a_source_is_nothing_to_it(listed):
    """Its credentials may be stolen: it can say that a source of another one is broken, failing, or another one."""
    entry = listed.get("demo.list")
    sin = told("sin", demo_list="it has a fault")
    sin.reported["sources"]["demo.list"]["trouble"] = "its host is away"
    assert health_of(entry, {"fra": told(demo_list=entry.definition.hash), "sin": sin}) == ("ok", [])


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


def test_what_a_standby_lacks_or_finds_wrong_does_not_break_a_source_of_another_region(listed):
    """It says why it could not take the source over; the source's own region runs it."""
    entry = listed.get("demo.list")
    own = told(demo_list=entry.definition.hash)
    broken = told("nyc", demo_list="demo.list.py:1: no module is there")
    lacking = told("nyc", demo_list=entry.definition.hash)
    lacking.reported["sources"]["demo.list"] |= {"lacks": "expected a secret", "trouble": "its host is left alone"}
    for standby in (broken, lacking):
        assert health_of(entry, {"fra": own, "nyc": standby}) == ("ok", [])
