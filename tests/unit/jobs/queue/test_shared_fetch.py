"""What a task makes of another one's answer, and for whom an end is the answer."""

import msgspec
import pytest

from jobs import contract, result_frame
from jobs.errors import Cancelled, ConnectionFailed, HttpStatus, Internal, TimedOut
from jobs.queue import shared_fetch
from jobs.queue.retry import ROOM_SECONDS

TASK = contract.Task(
    task="T", request="R", source="test.source", region="fra", accepted_ms=1_795_493_638_000,
    deadline_ms=1_795_493_668_000, expires_ms=1_795_497_238_000, params={"a": 1, "b": 2},
)  # fmt: skip


def test_the_same_question_has_the_same_key():
    other = msgspec.structs.replace
    assert contract.key_of(TASK) == contract.key_of(other(TASK, task="U", request="S", params={"b": 2, "a": 1}))
    different = [other(TASK, params={"a": 1}), other(TASK, definition="0"), other(TASK, source="a")]
    assert len({contract.key_of(one) for one in [TASK, *different]}) == 4


def test_a_result_of_anothers_answer_is_a_tasks_own():
    asked = contract.Result(
        task="A", source="test.source", region=TASK.region, status="succeeded", count=1, warnings=["w"], url="https://x/",
        definition="d", fetched_at="2026-11-24T04:14:00.000Z",
    )  # fmt: skip
    asked.bytes.raw, asked.bytes.received = 5_000, 1_200
    frame = result_frame.encode(asked, b'[{"id": 1}]' + b" " * 600)
    timing = contract.Timing(queued_ms=4.0)
    told = shared_fetch.tell(TASK, "A", frame, attempts=0, timing=timing, now_ms=1_795_493_641_500)
    found = msgspec.json.decode(result_frame.splice(told.outcome.frame))
    assert (found["task"], found["attempts"], found["records"]) == (TASK.task, 0, [{"id": 1}])
    assert (found["fetched_at"], found["age"], found["cached"], found["stale"]) == (asked.fetched_at, 1.5, False, False)
    assert (found["url"], found["definition"], found["warnings"]) == ("https://x/", "d", ["w"])
    sizes = {"records": asked.bytes.records, "wire": len(told.outcome.frame)}
    assert found["bytes"] == {"raw": 0, **sizes, "received": 0, "spared": 1_200}, (
        "the page did not cross for it, either"
    )
    assert (told.outcome.run.received_bytes, told.outcome.run.spared_bytes) == (0, 1_200)
    assert (found["timing"]["queued_ms"], found["timing"]["total_ms"]) == (4.0, 3500.0)
    assert (told.outcome.task, told.outcome.request, told.traceback) == (TASK.task, TASK.request, "")
    assert not told.outcome.run.own, "it says nothing more of the source"


def test_a_task_that_was_accepted_by_a_later_clock_took_no_time():
    frame = result_frame.encode(contract.Result(task="A", source="a", region="fra", status="succeeded"), b"[]")
    timing = contract.Timing()
    shared_fetch.tell(TASK, "A", frame, attempts=0, timing=timing, now_ms=TASK.accepted_ms - 500)
    assert timing.total_ms == 0.0


@pytest.mark.parametrize(
    ("error", "left_seconds", "failures", "shared"),
    [
        (None, 0.0, 0, shared_fetch.FOR_ALL_MS),
        (HttpStatus("404", http_status=404), 10.0, 0, shared_fetch.FOR_ALL_MS),
        (ConnectionFailed("reset"), 10.0, 2, shared_fetch.FOR_ALL_MS),
        (ConnectionFailed("reset"), 10.0, 1, 1_000),  # there was no time for another try
        (TimedOut("slow"), 0.2, 2, 1_000),
        (TimedOut("slow"), ROOM_SECONDS, 2, 1_000),
        (TimedOut("no memory", origin="region"), 10.0, 2, -1),
        (Cancelled("stop"), 10.0, 0, -1),
        (Internal("a fault of ours"), 10.0, 0, -1),
    ],
)
def test_for_whom_an_end_is_the_answer(error, left_seconds, failures, shared):
    assert shared_fetch.shared_ms(error, left_seconds, failures=failures, retries=2) == shared
