"""The comparison of chaos on made-up histories: each kind of violation is found, and what a fault explains is none."""

import json

import pytest

from scripts.chaos.history import Archived, Cancel, Delivery, History, Promise, Reader, Scaled, Window
from scripts.chaos.ledger import compare, is_obliged, state_of
from scripts.chaos.scaling import count
from scripts.chaos.verdict import VIOLATIONS

NOW = 1_000_000.0
EVERYWHERE = frozenset({"fra", "nyc"})


def digest(number: int) -> str:
    return f"digest {number}"


def promise(
    number: int = 1, *, region: str = "fra", accepted: float = 0.0, deadline: float = 240.0, trouble: str = ""
) -> Promise:
    return Promise(f"task {number}", f"request {number}", number, region, NOW + accepted, NOW + deadline, trouble)


def result(number: int = 1, *, settled: float = 2.0, status: str = "succeeded", **changes) -> Delivery:
    fields = {
        "task": f"task {number}", "request": f"request {number}", "status": status, "digest": digest(number), "error": "",
        "attempts": 1, "queued_ms": 1.0, "at": NOW + settled, "settled": NOW + settled,
    }  # fmt: skip
    return Delivery(**{**fields, **changes})


def window(kind: str = "pause-hub", began: float = 1.0, ended: float = 5.0, **changes) -> Window:
    fields = {"kind": kind, "target": "hub", "began": NOW + began, "ended": NOW + ended, "regions": EVERYWHERE}
    return Window(**{**fields, "back": NOW + ended, **changes})


def history(*promises: Promise, windows=(), **results: Delivery) -> History:
    """Everything as it should be: each task fetched and read once, found at the end and archived; ``results`` by request."""
    made = History(windows=list(windows))
    made.promise(list(promises))
    for one in promises:
        found = results.get(f"of_{one.number}", result(one.number, settled=one.accepted - NOW + 2.0))
        made.posted[one.number] = one.region
        made.fetches[one.number] = 1
        made.readers.append(Reader(one.request, "poll", [found], ended=found.at))
        made.audited[one.request] = [found]
        made.archived.append(Archived(one.request, state_of([found.status]), [(one.task, found.status)]))
    return made


def violations(made: History) -> dict[str, int]:
    verdict = compare(made, digest)
    return {name: len(getattr(verdict, name)) for name in VIOLATIONS if getattr(verdict, name)}


def test_a_run_without_a_fault_passes():
    verdict = compare(history(promise(1), promise(2)), digest)
    assert verdict.faults == []
    assert (verdict.promised, verdict.obliged, verdict.statuses) == (2, 2, {"succeeded": 2})


def test_a_promised_task_without_a_result_is_lost():
    made = history(promise(1))
    made.audited["request 1"] = []
    assert violations(made)["lost"] == 1


def test_a_request_that_is_unknown_at_the_end_is_lost():
    made = history(promise(1))
    made.audited["request 1"] = None
    assert violations(made)["lost"] == 2  # its task, too


def test_a_reader_that_was_told_it_is_all_and_lacks_a_task_lost_it():
    made = history(promise(1))
    made.readers[0].got.clear()
    assert violations(made) == {"lost": 1}
    made.readers[0].ended = 0.0  # it gave up itself: what is true stands in the stream
    assert violations(made) == {}


def test_an_accepted_request_that_was_unknown_for_a_while_is_lost():
    made = history(promise(1))
    made.readers[0].vanished = 1
    assert violations(made) == {"lost": 1}


def test_a_result_that_came_twice_is_doubled():
    made = history(promise(1))
    made.readers[0].got *= 2
    assert violations(made) == {"doubled": 1}
    made = history(promise(1))
    made.audited["request 1"] *= 2
    assert violations(made) == {"doubled": 1}


def test_other_records_are_changed():
    assert violations(history(promise(1), of_1=result(1, digest=digest(2)))) == {"changed": 1}


def test_another_state_or_other_records_later_are_changed():
    made = history(promise(1))
    made.readers[0].got = [result(1, status="expired")]
    assert violations(made) == {"changed": 1}
    made.readers[0].got = [result(1, digest="other")]
    assert violations(made) == {"changed": 1}


def test_what_nobody_asked_for_is_unexpected():
    made = history(promise(1))
    made.audited["request 1"].append(result(7, request="request 1"))
    assert violations(made) == {"unexpected": 1}
    made = history(promise(1))
    made.fetches[99] = 1
    assert violations(made) == {"unexpected": 1}
    made = history(promise(1))
    made.fetches[1] = 0
    assert violations(made) == {"unexpected": 1}


def test_a_refused_request_that_can_be_read_is_unexpected_unless_its_gateway_died_while_the_hub_was_away():
    made = history(promise(1))
    made.refused["request 5"] = NOW + 3.0
    made.came_back.append("request 5")
    assert violations(made) == {"unexpected": 1}
    made.windows = [window("kill-gateway", 4.0, 4.0, target="gateway")]
    assert violations(made) == {"unexpected": 1}
    made.windows.append(window("pause-hub", 2.0, 6.0))
    verdict = compare(made, digest)
    assert verdict.left == ["request 5"]
    assert verdict.unexpected == []


@pytest.mark.parametrize("error", ["expired", "timeout", "connection", "region_unavailable", "internal"])
def test_a_failure_near_its_deadline_is_excused_by_a_fault_that_explains_it_and_by_nothing_else(error):
    short = promise(1, deadline=20.0)
    failed = result(1, settled=21.0, status="failed", error=error)
    assert violations(history(short, of_1=failed)) == {"uncaused": 1}
    made = history(short, *map(promise, range(2, 12)), windows=[window()], of_1=failed)
    verdict = compare(made, digest)
    assert (verdict.faults, verdict.excused, verdict.obliged) == ([], {error: 1}, 10)


@pytest.mark.parametrize("error", ["contract", "poison", "cancelled", "http_status", "rate_limited", "unknown_source"])
def test_a_failure_of_another_type_is_explained_by_no_fault(error):
    failed = result(1, settled=21.0, status="failed", error=error)
    assert violations(history(promise(1, deadline=20.0), windows=[window()], of_1=failed)) == {"uncaused": 1}


def test_a_failure_of_an_obliged_task_is_never_excused():
    failed = result(1, settled=246.0, status="expired", error="expired")
    assert violations(history(promise(1), windows=[window()], of_1=failed)) == {"uncaused": 1}


def test_a_fault_of_another_region_explains_nothing():
    failed = result(1, settled=21.0, status="expired", error="expired")
    elsewhere = window(regions=frozenset({"nyc"}))
    assert violations(history(promise(1, deadline=20.0), windows=[elsewhere], of_1=failed)) == {"uncaused": 1}


def test_a_task_is_obliged_when_there_were_30_seconds_of_peace_before_its_deadline():
    storm = [window(began=start, ended=start + 5.0) for start in (1.0, 20.0, 40.0)]
    assert is_obliged(promise(deadline=76.0), storm)
    assert not is_obliged(promise(deadline=74.0), storm)
    assert is_obliged(promise(region="sin", deadline=31.0), storm)
    assert is_obliged(promise(accepted=0.0, deadline=60.0), [window(began=31.0, ended=59.0)])
    assert not is_obliged(promise(accepted=40.0, deadline=69.0), [])


def test_too_few_obliged_tasks_fail_the_run():
    made = history(*(promise(number, deadline=20.0 if number < 3 else 240.0) for number in range(10)))
    assert compare(made, digest).faults == ["only 7 of 10 tasks were obliged to succeed"]
    assert compare(History(), digest).faults == ["nothing was accepted"]


def test_a_page_is_fetched_again_only_by_a_fault_that_touched_its_task():
    made = history(promise(1))
    made.fetches[1] = 2
    assert violations(made) == {"refetched": 1}
    made.windows = [window(began=1.0)]
    verdict = compare(made, digest)
    assert (verdict.faults, verdict.refetches) == ([], 1)
    made.windows = [window(began=60.0, ended=61.0)]  # settled long before
    assert violations(made) == {"refetched": 1}


def test_a_task_that_ends_long_after_its_deadline_is_late():
    ended = result(1, settled=28.0, status="expired", error="expired")
    elsewhere = window(began=1.0, ended=2.0)
    assert violations(history(promise(1, deadline=20.0), windows=[elsewhere], of_1=ended)) == {"late": 1}
    near = window(began=10.0, ended=15.0)  # a gateway may wait 16 s after it
    assert violations(history(promise(1, deadline=20.0), windows=[near], of_1=ended)) == {}


def test_an_odd_answer_is_told():
    made = history(promise(1))
    made.wonder("a poll was answered 500")
    assert violations(made) == {"odd": 1}


def test_kills_that_hit_nothing_fail_the_run_where_none_did():
    missed = window("kill-worker", 1.0, 1.0, hits=0)
    assert compare(history(promise(1), windows=[missed]), digest).faults == ["no kill-worker hit anything"]
    assert compare(history(promise(1), windows=[missed, window("kill-worker", 2.0, 2.0, hits=12)]), digest).faults == []


def test_recovery_is_from_the_end_of_a_fault_to_the_next_success_of_what_was_asked_for_after_it():
    made = history(promise(1, accepted=0.0), promise(2, accepted=6.0), promise(3, accepted=7.0), windows=[window()])
    assert compare(made, digest).recovery == {"pause-hub": [pytest.approx(3.0)]}


def test_second_starts_are_measured_from_the_death_and_bound():
    killed = window("kill-worker", 3.0, 3.0, hits=12, regions=frozenset({"fra"}))
    again = result(1, settled=9.0, attempts=2, queued_ms=7_000.0)
    verdict = compare(history(promise(1), windows=[killed], of_1=again), digest)
    assert verdict.second_starts == [pytest.approx(4.0)]
    assert verdict.faults == []
    slow = result(1, settled=30.0, attempts=2, queued_ms=25_000.0)
    assert "second starts: p99 22.0 s" in compare(history(promise(1), windows=[killed], of_1=slow), digest).faults[0]


@pytest.mark.parametrize("trouble", ["http_status", "parse", "contract"])
def test_a_page_with_a_planned_trouble_has_to_end_its_task_so_and_obliges_nobody_to_succeed(trouble):
    failed = result(1, status="failed", error=trouble)
    verdict = compare(history(promise(1, trouble=trouble), *map(promise, range(2, 12)), of_1=failed), digest)
    assert (verdict.faults, verdict.planned, verdict.obliged) == ([], {trouble: 1}, 10)
    assert violations(history(promise(1, trouble=trouble))) == {"uncaused": 1}  # it succeeded
    assert violations(history(promise(1), of_1=failed)) == {"uncaused": 1}
    late = result(1, settled=246.0, status="expired", error="expired")
    made = history(promise(1, trouble=trouble), windows=[window()], of_1=late)
    assert violations(made) == {"uncaused": 1}


def test_a_page_that_fails_once_is_fetched_twice_and_its_task_succeeds():
    made = history(promise(1, trouble="once"))
    made.fetches[1] = 2
    assert violations(made) == {}
    made.fetches[1] = 3
    assert violations(made) == {"refetched": 1}


def test_what_a_client_cancelled_is_cancelled_from_its_answer_on():
    gone = result(1, settled=2.0, status="cancelled", error="cancelled")
    made = history(promise(1), *map(promise, range(2, 12)), of_1=gone)
    assert violations(made) == {"uncaused": 1}
    made.cancels["request 1"] = Cancel(NOW + 1.9, NOW + 2.1)
    verdict = compare(made, digest)
    assert (verdict.faults, verdict.planned, verdict.obliged) == ([], {"cancelled": 1}, 10)
    made.cancels["request 1"] = Cancel(NOW + 2.5, NOW + 2.6)  # before anybody asked
    assert violations(made) == {"uncaused": 1}


def test_what_ended_before_its_cancel_was_answered_may_have_succeeded_and_nothing_ends_later():
    made = history(promise(1))
    made.cancels["request 1"] = Cancel(NOW + 1.0, NOW + 3.0)
    assert violations(made) == {}
    made.cancels["request 1"] = Cancel(NOW + 1.0, NOW + 1.5)
    assert violations(made) == {"uncaused": 1}
    made.cancels["request 1"] = Cancel(NOW + 1.0)  # nobody ever answered
    assert violations(made) == {}


def test_an_unreadable_message_is_one_dead_letter_and_nothing_else_is():
    made = history(promise(1))
    made.letters = {"a": True, "b": False}
    assert violations(made) == {"lost": 1}
    made.shown = ["a"]
    verdict = compare(made, digest)
    assert (verdict.faults, verdict.letters) == ([], 1)
    made.shown = ["a", "a", "b"]
    assert violations(made) == {"doubled": 1}
    made.shown = ["a", "task 1"]
    assert violations(made) == {"unexpected": 1}


def test_the_history_has_every_task_once_in_its_final_state():
    made = history(promise(1))
    whole = made.archived[0]
    made.archived = []
    assert violations(made) == {"lost": 1}
    made.archived = [whole, whole]
    assert violations(made) == {"doubled": 1}
    made.archived = [Archived("request 1", "failed", [("task 1", "failed")])]
    assert violations(made) == {"changed": 1}
    made.archived = [Archived("request 1", "partial", [("task 1", "succeeded")])]
    assert violations(made) == {"changed": 1}


def test_a_refused_request_in_the_history_is_unexpected():
    made = history(promise(1))
    made.refused["request 5"] = NOW
    made.archived.append(Archived("request 5", "cancelled", [("task 5", "cancelled")]))
    assert violations(made) == {"unexpected": 1}


@pytest.mark.parametrize(
    ("tasks", "state"),
    [(["succeeded"], "succeeded"), (["succeeded", "failed"], "partial"), (["expired"], "failed"),
     (["succeeded", "cancelled"], "cancelled")],
)  # fmt: skip
def test_a_request_is_what_its_tasks_are(tasks, state):
    assert state_of(tasks) == state


def test_a_region_that_was_to_scale_and_never_grew_or_never_shrank_fails_the_run():
    made = history(promise(1))
    made.scaled = {"fra": Scaled(grew=2, shrank=1), "nyc": Scaled(grew=1), "sin": Scaled(shrank=3)}
    assert compare(made, digest).faults == ["sin never grew", "nyc never shrank"]


def test_what_pools_decided_is_read_from_their_logs_and_their_first_number_is_no_growth(tmp_path):
    said = [(0, 1, "begins with 0 that run"), (1, 3, "3 needed to keep the wait below 1 s"), (3, 1, "no more than 1 needed"),
            (1, 2, "the rule asks for at least 2"), (2, 3, "nearfetch scale asks for 3")]  # fmt: skip
    lines = [json.dumps({"event": "scaled", "was": was, "number": to, "reason": why}) for was, to, why in said]
    (tmp_path / "workers-fra.log").write_text("\n".join(['{"event": "starting"}', *lines, '{"event": "scaled", cut']))
    assert count(tmp_path, "fra", [1, 3, 2]) == Scaled(
        grew=3, by_load=1, by_clock=1, by_command=1, shrank=1, least=1, most=3
    )


@pytest.mark.parametrize("trouble", ["", "pinned", "once"])
def test_a_task_without_a_standby_that_another_region_answered_has_strayed(trouble):
    """Also while its region is lost: no fault explains it."""
    one = promise(trouble=trouble)
    made = history(one, windows=[window("lose-region", target="region-fra")], of_1=result(region="nyc"))
    assert violations(made) == {"strayed": 1}
    assert violations(history(one, of_1=result(region="fra"))) == {}


def test_a_task_that_a_standby_answered_may_have_been_fetched_twice():
    one = promise(trouble="moves")
    made = history(one, of_1=result(region="nyc"))
    made.fetches[1] = 2
    verdict = compare(made, digest)
    assert (verdict.faults, verdict.moved, verdict.refetches) == ([], 1, 1)
