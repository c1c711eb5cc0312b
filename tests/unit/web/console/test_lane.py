"""A lane says what stands still and why, whatever the region writes."""

import copy
import re

from web.console.frame import TEXT_MAX, cut, seconds_text
from web.console.regions import lane, shown

HOSTILE = '<script>alert(1)</script>" onload="x' + "\u202e" + "y" * 5_000
VIEW = {
    "name": "fra", "title": "Frankfurt", "status": "up", "reasons": [],
    "queue": {"open": 12, "ready": 3, "running": 14, "scheduled": 21, "oldest_seconds": 3.21, "unread": 0},
    "throughput": {"succeeded": 10, "failed": 1, "per_second": 12.5, "p95_ms": 430.5},
    "bytes": {"kept_off_wan": 54_000_000}, "days": [{"day": "2026-11-29", "kept_off_wan": 1_200_000}],
    "left_alone": {}, "refused": {}, "held_bytes": 0,
    "scale": {
        "at_ms": 1, "number": 3, "ready": 2, "needed": 3, "min": 2, "max": 4, "load": "12 tasks wait", "decided_by": "a",
        "asked": None, "decisions": [{"at": "2026-11-29T11:40:00.000Z", "was": 2, "number": 3, "reason": "the oldest waits 3.2 s"}],
    },
    "bridges": [{"name": "b", "state": "consuming", "age_seconds": 1.0}],
    "workers": [{"name": "w", "processes": 2, "threads": 128, "age_seconds": 1.0}],
    "takeover": None, "not_movable": {}, "differs": {}, "dashboard": "http://127.0.0.1:9181/",
    "events": [{"at": "2026-11-29T11:40:00.000Z", "kind": "resumed", "message": "over: its Redis was away"}],
}  # fmt: skip


def changed(**changes) -> dict:
    return {**copy.deepcopy(VIEW), **changes}


def words(view: dict) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", lane(view).text))


def test_a_lane_has_its_figures_and_why_there_are_so_many_workers():
    text = words(VIEW)
    for said in (
        "12 open",
        "oldest 3.2 s",
        "1 consuming",
        "14 in flight",
        "threads 128",
        "2 of 3 wanted",
        "430 ms",
        "1.2 MB",
        "54 MB",
    ):
        assert said in text, said
    assert "2 to 4 allowed, 3 needed for the load: 12 tasks wait." in text
    assert "2 to 3: the oldest waits 3.2 s." in text
    assert 'href="http://127.0.0.1:9181/"' in lane(VIEW).text


def test_the_stage_that_stands_still_is_marked_and_the_reason_comes_first():
    view = changed(status="degraded", reasons=["no bridge is alive"], bridges=[])
    assert lane(view).text.count('class="stage bad"') == 1
    assert words(view).index("no bridge is alive") < words(view).index("Queue")


def test_what_is_paused_is_said_with_its_reason():
    trouble = "https://a.example:443 is left alone: 5 failures in a row"
    view = changed(
        left_alone={"a.one": trouble, "a.two": trouble},
        takeover={
            "why": "late",
            "detail": "the oldest task waits",
            "since": "2026-11-29T11:40:00.000Z",
            "well_since": None,
        },
        not_movable={"a.three": "pinned"},
    )
    text = words(view)
    assert "(late): the oldest task waits" in text
    view["reasons"] = ["its tasks are late: the oldest task waits"]
    assert words(view).count("the oldest task waits") == 1, "it is said once"
    assert text.count("https://a.example:443 is left alone") == 1
    assert "a.one" in text
    assert "a.two" in text
    assert "No standby could take over a.three" in text


def test_an_operators_wish_is_told():
    scale = {**VIEW["scale"], "asked": {"number": 4, "until": "12:00Z, when the rule night begins"}}
    assert "An operator asked for 4 until 12:00Z, when the rule night begins." in words(changed(scale=scale))


def test_texts_of_a_region_are_escaped_and_cut():
    view = changed(
        title=HOSTILE,
        reasons=[HOSTILE] * 500,
        bridges=[{"name": HOSTILE, "state": HOSTILE, "reason": HOSTILE}],
        scale={**VIEW["scale"], "load": HOSTILE, "fault": HOSTILE, "decisions": [{"at": HOSTILE, "was": 10**15, "number": 0, "reason": HOSTILE}]},
        left_alone={f"a.{number}": HOSTILE + str(number) for number in range(100)},
        takeover={"why": HOSTILE, "detail": HOSTILE, "since": HOSTILE, "well_since": HOSTILE},
        events=[{"at": HOSTILE, "kind": HOSTILE, "message": HOSTILE}] * 100,
        queue={"open": 10**15, "ready": 10**15, "running": 10**15, "scheduled": 10**15, "oldest_seconds": 1e12, "unread": 0},
    )  # fmt: skip
    text = lane(view).text
    assert "<script" not in text
    assert ' onload="' not in text
    assert "\u202e" not in text
    assert len(text) < 60_000
    assert "and 480 more" in text


def test_a_region_that_never_reported_has_a_lane():
    text = words(changed(status="down", reasons=["nothing is heard"], bridges=[], workers=[], scale=None, days=[], events=[], dashboard=None))  # fmt: skip
    assert "down" in text
    assert "0 consuming" in text


def test_an_event_has_the_lane_and_its_status():
    assert shown(VIEW) == {"name": "fra", "title": "Frankfurt", "status": "up", "html": lane(VIEW).text}


def test_durations_and_texts_are_short():
    assert [seconds_text(count) for count in (0, 9.94, 10, 119.4, 200, 7_500)] == [
        "0.0 s", "9.9 s", "10 s", "119 s", "3 min 20 s", "2 h 5 min",
    ]  # fmt: skip
    assert len(cut("x" * 10_000)) == TEXT_MAX + 1
