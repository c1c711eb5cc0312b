"""How a source is, judged by what its runs showed."""

import random

import pytest

from jobs.contract import Run
from jobs.errors import BY_TYPE
from web.hub.verdict import BEFORE, FIELDS_MAX, KEPT, LAST, RUNS_MIN, counts, judge


def run(error: str = "", **fields) -> Run:
    origin = BY_TYPE[error].origin if error else ""
    usual = {"rows": 30, "raw_bytes": 54_000, "busy_ms": 40} if not error else {}
    return Run(**{"source": "demo", "definition": "a", "error": error, "origin": origin, **usual, **fields})


def runs(*kinds: tuple[int, Run]) -> list[Run]:
    """So many of each, newest first."""
    return [one for count, one in kinds for _ in range(count)]


def said(*kinds: tuple[int, Run]) -> list[str]:
    verdict = judge(runs(*kinds))
    assert (verdict.health == "degraded") == bool(verdict.reasons)
    return verdict.reasons


@pytest.mark.parametrize(
    ("error", "origin", "is_counted"),
    [
        ("", "", True), ("http_status", "target", True), ("too_large", "target", True), ("blocked", "target", True),
        ("decode", "parser", True), ("parse", "parser", True), ("contract", "parser", True), ("timeout", "network", True),
        ("connection", "network", True),
        ("timeout", "region", False), ("connection", "policy", False), ("connection", "region", False),
        ("rate_limited", "target", False), ("rate_limited", "region", False), ("blocked_address", "policy", False),
        ("expired", "internal", False), ("cancelled", "policy", False), ("poison", "region", False),
        ("unknown_source", "region", False), ("region_unavailable", "region", False), ("internal", "internal", False),
    ],
)  # fmt: skip
def test_what_is_ours_says_nothing_of_a_source(error, origin, is_counted):
    assert counts(Run(source="demo", definition="a", error=error, origin=origin)) is is_counted


def test_every_type_of_error_is_thought_of():
    """A new type has to be put on one of the two sides above."""
    told = {error for mark in test_what_is_ours_says_nothing_of_a_source.pytestmark for error, *_ in mark.args[1]}
    assert told - {""} == set(BY_TYPE)


def test_another_runs_answer_is_no_run():
    assert not counts(run(own=False))


def test_a_source_that_goes_on_as_before_is_ok():
    verdict = judge(runs((LAST + BEFORE, run())))
    assert (verdict.health, verdict.reasons, verdict.runs, verdict.before) == ("ok", [], 20, 200)
    assert (verdict.success, verdict.rows.last, verdict.raw_bytes.before, verdict.busy_ms.last) == (1.0, 30, 54_000, 40)


@pytest.mark.parametrize(("failed", "is_degraded"), [(4, False), (5, True), (20, True)])
def test_under_eighty_percent_of_success(failed, is_degraded):
    broken = run("contract")
    expected = [f"{20 - failed} of the last 20 runs succeeded, the others failed: {failed} contract"]
    assert said((failed, broken), (20 - failed, run()), (200, run())) == (expected if is_degraded else [])
    assert said((20 - failed, run()), (failed, broken)) == (expected if is_degraded else [])  # nothing before is needed


def test_all_kinds_of_failures_are_told():
    reasons = said((3, run("contract")), (6, run("blocked")), (11, run()))
    assert reasons == ["11 of the last 20 runs succeeded, the others failed: 6 blocked, 3 contract"]


def test_a_field_that_is_gone():
    gone = run(gaps={"author": 30, "text": 3})
    verdict = judge(runs((20, gone), (200, run(gaps={"text": 6}))))
    assert verdict.reasons == ["author stands in 0% of the records, in 100% before"]
    assert (verdict.coverage["author"].last, verdict.coverage["author"].before) == (0, 1)
    assert (verdict.coverage["text"].last, verdict.coverage["text"].before) == (0.9, 0.8)


@pytest.mark.parametrize(("lacking", "is_degraded"), [(8, False), (9, True)])
def test_a_field_thirty_points_down(lacking, is_degraded):
    assert bool(said((20, run(gaps={"author": lacking})), (200, run()))) is is_degraded


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"rows": 9}, "9 records a run, 30 before"),
        ({"rows": 91}, "91 records a run, 30 before"),
        ({"raw_bytes": 17_000}, "17,000 bytes fetched a run, 54,000 before"),
        ({"raw_bytes": 200_000}, "200,000 bytes fetched a run, 54,000 before"),
        ({"rows": 10}, ""), ({"rows": 90}, ""), ({"raw_bytes": 18_000}, ""), ({"busy_ms": 4_000}, ""),
    ],
)  # fmt: skip
def test_rows_and_bytes_outside_a_factor_of_three(fields, reason):
    assert said((20, run(**fields)), (200, run())) == ([reason] if reason else [])


def test_a_change_shows_within_twenty_runs_and_goes_within_twenty():
    """Whatever a broken mark-up does: it fails the contract, empties a field, or brings other rows or bytes."""
    for broken in (run("contract"), run(gaps={"author": 30}), run(rows=3), run(raw_bytes=9_000), run(rows=200)):
        seen = runs((RUNS_MIN, run()))
        shown, gone = [], []
        for _ in range(20):
            seen.insert(0, broken)
            shown.append(judge(seen).health)
        for _ in range(20):
            seen.insert(0, run())
            gone.append(judge(seen).health)
        assert (shown[-1], gone[-1]) == ("degraded", "ok")


def test_a_change_that_stays_becomes_the_usual():
    changed = [judge(runs((count, run(rows=3)), (KEPT, run()))).health for count in range(20, KEPT)]
    assert changed[0] == changed[80] == "degraded"
    assert changed[-1] == "ok"


def test_before_there_are_enough_runs_nothing_is_said():
    assert said((RUNS_MIN - 1, run("contract"))) == []
    assert said((20, run(rows=3)), (RUNS_MIN - 1, run())) == []
    verdict = judge(runs((3, run())))
    assert (verdict.health, verdict.runs, verdict.success, verdict.rows.last) == ("ok", 3, None, None)


def test_an_edited_definition_begins_anew():
    """Its author changed what it gives, or mended it."""
    edited = run(definition="b", rows=3)
    assert said((20, edited), (200, run())) == []
    assert said((1, edited), (20, run("contract"))) == []


def test_rightly_no_records_and_later_pages_that_failed_change_no_figures():
    nothing, partial = run(rows=0, raw_bytes=900), run(rows=3, partial=True)
    assert said((20, nothing), (200, run())) == []
    assert said((20, partial), (200, run())) == []
    assert said((10, nothing), (10, run()), (200, run())) == []


def test_a_page_that_has_not_changed_gives_the_same_records_and_no_bytes():
    same = run(raw_bytes=0, busy_ms=3)
    assert said((20, same), (200, run())) == []
    assert said((20, run(raw_bytes=0, gaps={"author": 30})), (200, same)) == [
        "author stands in 0% of the records, in 100% before"
    ]
    verdict = judge(runs((11, same), (9, run()), (150, same), (50, run())))
    assert (verdict.raw_bytes.last, verdict.raw_bytes.before, verdict.rows.last) == (None, 54_000, 30)


def sized(page: int, wire: int, *, spared: int = 0, **fields) -> Run:
    return run(received_bytes=page, spared_bytes=spared, wire_bytes=wire, **fields)


def test_a_source_whose_pages_are_no_longer_much_larger_than_what_goes_home_is_told():
    usual = sized(9_000, 900)
    assert said((20, sized(9_000, 1_800)), (200, usual)) == [], "half of its usual is not below it"
    assert said((20, sized(9_000, 2_000)), (200, usual)) == [
        "its pages are 4.5 times what goes home, 10.0 times before"
    ]
    assert said((9, sized(9_000, 2_000)), (200, usual)) == [], "too few"
    assert said((20, sized(9_000, 2_000)), (9, usual)) == [], "too few before"
    assert said((20, sized(9_000, 2_000)), (120, usual), (80, sized(9_000, 2_000))) == [], "not unusual for it"
    verdict = judge(runs((20, sized(9_000, 2_000)), (200, usual)))
    assert (verdict.health, verdict.ratio.last, verdict.ratio.before) == ("degraded", 4.5, 10.0)


def test_a_page_that_was_not_sent_again_has_the_ratio_that_it_had():
    same = sized(300, 900, spared=9_000, raw_bytes=0)
    assert said((20, same), (200, sized(9_000, 900))) == []
    assert judge(runs((20, same))).ratio.last == 10.0


def test_a_source_whose_pages_are_smaller_than_what_goes_home_is_well_and_says_that_it_saves_nothing():
    verdict = judge(runs((10, sized(600, 800))))
    assert (verdict.health, verdict.reasons) == ("ok", [])
    assert verdict.notes == [
        "more goes home than its pages have: they are 0.75 times that, so its region saves nothing"
    ]
    assert judge(runs((9, sized(600, 800)))).notes == [], "too few"
    assert judge(runs((220, sized(900, 900)))).notes == []
    fallen = judge(runs((20, sized(600, 800)), (200, sized(9_000, 900))))
    assert (len(fallen.reasons), fallen.notes) == (1, []), "told once"
    assert judge(runs((20, sized(0, 800)))).notes == [], "a region of an earlier version does not say what a page had"
    assert judge(runs((20, sized(0, 400, error="timeout")))).notes == []


def test_params_that_ask_for_very_different_things_do_not_flap():
    """Of such a source little is said, however its runs follow each other; of one that is steady, the same is told."""
    small = run(rows=2, raw_bytes=4_000, gaps={"price": 2})
    for seed in range(4):
        chance = random.Random(seed)
        seen = [chance.choice((small, run())) for _ in range(600)]
        assert {judge(seen[start : start + KEPT]).health for start in range(len(seen) - KEPT)} == {"ok"}
    batches = runs((20, small), (50, run()), (50, small), (50, run()), (50, small))
    assert judge(batches).health == "ok"
    assert len(said((20, small), (200, run()))) == 3


def test_a_break_soon_after_another_one_is_seen():
    assert said((20, run(rows=3)), (100, run()), (30, run(rows=3)), (70, run())) == ["3 records a run, 30 before"]


def test_fields_without_end_that_a_region_names_cost_little_and_hide_none():
    """It may name a thousand others in each run. A verdict of 220,000 took ten seconds and was 10 MB at the hub."""
    named = [run(gaps={"price": 15, **{f"x{number}.{other}": 1 for other in range(100)}}) for number in range(LAST)]
    verdict = judge([*named, *runs((BEFORE, run()))])
    assert len(verdict.coverage) == FIELDS_MAX
    assert verdict.reasons == ["price stands in 50% of the records, in 100% before"]
