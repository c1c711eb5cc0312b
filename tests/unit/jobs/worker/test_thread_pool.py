"""How a job's data is read, how many jobs a process takes, and how results are put into batches."""

import json
import signal
import threading
import zlib
from collections import deque
from types import SimpleNamespace

import msgspec
import pytest

from jobs import blocked, contract
from jobs.queue import outbox
from jobs.queue.claim import Claimed, Ending, Job
from jobs.queue.clock import Clock, machine_ms
from jobs.queue.script import LATER
from jobs.worker import executor, thread_pool
from jobs.worker.stop import RETIRE, SECOND_SIGNAL_SECONDS, Stop
from tests.waiting import until


@pytest.fixture(autouse=True)
def _no_job_runs_for_long_by_itself(monkeypatch):
    monkeypatch.setattr(thread_pool, "LONG_MS", 120_000)  # half of which no test takes


TASK = contract.Task(
    task="T", request="R", source="a.b", region="fra", accepted_ms=1, deadline_ms=2, expires_ms=3, params={"q": "ü"}
)


def packed(*parts: object) -> bytes:
    return zlib.compress(json.dumps(list(parts)).encode())


def test_a_job_as_rq_writes_it_gives_its_task_and_the_offset():
    data = packed("jobs.task.run", None, [msgspec.to_builtins(TASK), -12], {})
    assert executor.read(data) == (TASK, -12)


def test_unknown_fields_of_a_task_and_its_neighbouring_versions_are_read():
    later = {**msgspec.to_builtins(TASK), "v": 2, "colour": "red"}
    assert executor.read(packed("jobs.task.run", None, [later, 0], {}))[0].task == "T"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"raw", "expected packed data"),
        (zlib.compress(b"\x80pickle"), "malformed"),
        (packed("os.system", None, ["ls", 1], {}), "expected a job of jobs.task.run, found 'os.system'"),
        (packed("jobs.task.run", None, [{"v": 7}, 0], {}), "version 0 to 2, found 7"),
        (packed("jobs.task.run", None, [{"v": 1}, 0], {}), "missing required field"),
        (packed("jobs.task.run", None, [{"v": 1}, "soon"], {}), "Expected `int`"),
    ],
)
def test_what_is_no_job_of_ours_is_refused_with_the_reason(data, told):
    with pytest.raises(ValueError, match=told):
        executor.read(data)


def idle_pool(threads: int = 4, **options: object) -> thread_pool.ThreadPool:
    """A thread pool whose threads do not run, and whose queue takes every end."""
    caller = SimpleNamespace(expect=lambda call_ms: None)
    claimer = SimpleNamespace(worker="w1", clock=Clock(), finish=lambda ends, *, then_claim: ([""] * len(ends), None))
    return thread_pool.ThreadPool(
        claimer, SimpleNamespace(put=lambda _: None), None, None, caller, region="fra", threads=threads, ttl_seconds=1.0, **options
    )  # fmt: skip


def job(task: str, execution: str) -> Job:
    return Job(task, execution, 1, b"", "R", "a.b", b"", deaths=0, deadline_ms=0, bridged_ms=0, claimed_ms=0)


def claimed(job: Job) -> Claimed:
    return Claimed(now_ms=1, lapsed=False, refusal="", jobs=[job])


@pytest.mark.parametrize("execution", [None, "e2"])
def test_a_stop_finds_its_job_also_where_the_answer_to_its_claim_comes_later(execution):
    """RQ's registry shows a job before its worker has read the reply to its claim. An operator may stop it in between."""
    first, second, other = job("T", "e1"), job("T", "e2"), job("U", "e3")
    parts = idle_pool()
    parts.accept(claimed(other), 1)
    parts.stop("T", execution)
    parts.accept(claimed(second), 1)
    assert [(one.is_stopped, one.is_cancelled) for one in (second, other)] == [(True, True), (False, False)]
    parts.accept(claimed(first), 1)
    assert not first.is_stopped  # a stop stops once


def test_a_stop_that_came_too_late_does_not_wait_for_the_next_attempt(monkeypatch):
    monkeypatch.setattr(thread_pool, "STOP_SECONDS", 0.0)
    parts = idle_pool()
    parts.stop("T", None)
    later = job("T", "e2")
    parts.accept(claimed(later), 1)
    assert not later.is_stopped


def test_a_job_goes_to_the_thread_that_waited_last():
    parts, waiters, got = idle_pool(), [thread_pool._Waiter() for _ in range(3)], []
    threads = [
        threading.Thread(target=lambda waiter=waiter: got.append((waiter, parts._next(waiter)))) for waiter in waiters
    ]
    for number, thread in enumerate(threads):
        thread.start()
        until(lambda n=number: len(parts._waiting) == n + 1, "it to wait")
    for task in "ABC":
        parts.accept(claimed(job(task, "e")), 1)
    for thread in threads:
        thread.join()
    assert {waiter: one.task for waiter, one in got} == dict(zip(reversed(waiters), "ABC", strict=True))


def test_who_claims_wakes_nobody_for_the_job_that_it_takes():
    parts = idle_pool()
    waits = threading.Thread(target=parts._next, args=[thread_pool._Waiter()], daemon=True)
    waits.start()
    until(lambda: parts._waiting, "it to wait")
    own = job("A", "e")
    parts.accept(claimed(own), 1, own=1)
    assert len(parts._waiting) == 1
    assert parts._next(thread_pool._Waiter()) is own
    parts.accept(claimed(job("B", "e")), 1, own=1)
    parts.accept(claimed(job("C", "e")), 1, own=1)  # it did not come for the one before
    waits.join()
    assert [one.task for one in parts._jobs] == ["C"]


def outcome(size: int) -> contract.Outcome:
    return contract.Outcome(request="R", task="T", status="succeeded", finished_ms=1, expires_ms=2, frame=b"x" * size)


def test_a_batch_takes_what_fits_and_at_least_one():
    sizes = [outbox.BATCH_MAX_BYTES * 2, 10, 10, outbox.BATCH_MAX_BYTES]
    shipments = deque(outbox.Shipment(str(size), outcome(size), 0) for size in sizes)
    assert [len(outbox._batch(shipments, outbox.BATCH_MAX_BYTES)) for _ in range(4)] == [1, 2, 1, 0]


def test_signals_that_come_together_are_one():
    stop = Stop()
    assert not stop.wait(0)
    stop.request()
    stop.asked += 60  # a test that is held up makes no second signal of it
    stop.request()
    assert stop.wait(0)
    assert not stop.is_cold
    stop.asked -= 60
    stop.asked -= SECOND_SIGNAL_SECONDS
    stop.request()
    assert stop.is_cold


def test_signals_may_come_in_the_midst_of_each_other():
    """A signal handler that takes a lock might wait for its own thread for ever."""
    stop = Stop()
    before = signal.signal(signal.SIGALRM, lambda *_: [stop.request() for _ in range(20)])
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
    try:
        for _ in range(20_000):
            stop.request()
            stop.wait(0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stop.wait(0)


def test_a_process_that_retires_takes_its_time_until_it_is_told_to_hurry():
    stop = Stop()
    stop.request(RETIRE)
    assert (stop.wait(0), stop.is_unhurried, stop.is_cold) == (True, True, False)
    stop.asked -= SECOND_SIGNAL_SECONDS
    stop.request(signal.SIGTERM)
    assert (stop.is_unhurried, stop.is_cold) == (False, False)
    stop.request(RETIRE)
    assert not stop.is_unhurried
    stop.asked -= SECOND_SIGNAL_SECONDS
    stop.request(signal.SIGTERM)
    assert stop.is_cold


def running(parts: thread_pool.ThreadPool, count: int, *, for_ms: int = 0) -> list[Job]:
    """Jobs that have run for so long, on threads that are not this one."""
    jobs = [job(f"J{number}", "e") for number in range(len(parts._running), len(parts._running) + count)]
    for one in jobs:
        one.claimed_ms = machine_ms() - for_ms
        parts.accept(claimed(one), 1)
    return jobs


MAX = thread_pool.COMPUTING_MAX


def test_no_more_jobs_are_claimed_than_compute_at_once():
    parts = idle_pool(threads=64)
    assert parts.reserve(16, 0.0) == MAX
    running(parts, MAX - 1)
    assert parts.reserve(16, 0.0) == 1
    for _ in range(2):  # as many as may, and one more
        running(parts, 1)
        assert parts.reserve(16, 0.0) == 0


def test_a_job_that_waits_makes_room_for_another_one():
    parts = idle_pool(threads=64)
    first, *_ = running(parts, MAX)
    first.thread = threading.get_ident()
    assert parts.reserve(16, 0.0) == 0
    with blocked.blocked():
        with blocked.blocked():
            assert parts.reserve(16, 0.0) == 1
        assert parts.reserve(16, 0.0) == 1
    assert parts.reserve(16, 0.0) == 0


def test_who_waits_to_claim_sees_soon_that_a_job_began_to_wait():
    parts = idle_pool(threads=64)
    first, *_ = running(parts, MAX)
    first.thread = threading.get_ident()
    got: list[int] = []
    claims = threading.Thread(target=lambda: got.append(parts.reserve(16, 60.0)))
    claims.start()
    with blocked.blocked():
        claims.join(60)
    assert got == [1]


def test_jobs_that_compute_for_long_keep_no_other_job_out():
    """A handful of pages that take their whole time to parse would hold up a region otherwise."""
    parts = idle_pool(threads=64)
    running(parts, MAX, for_ms=thread_pool.LONG_MS + 1)
    running(parts, 1, for_ms=thread_pool.LONG_MS // 2)
    assert parts.reserve(16, 0.0) == MAX - 1


def test_an_end_brings_no_new_job_while_too_many_compute():
    """A wave of answers that come at the same time: the process ends some before it takes more."""
    parts = idle_pool(threads=64)
    asked: list[int] = []

    def finish(ends: list[object], *, then_claim: int) -> tuple[list[str], None]:
        asked.append(then_claim)
        return ["" for _ in ends], None

    parts._claimer.finish = finish
    jobs = running(parts, MAX + 2)
    for ended in ([jobs[0], jobs[1]], [jobs[2]], [jobs[3], jobs[4]]):
        for one in ended:
            parts._end(one, Ending(outcome(1), ""))
        parts.settle()
    assert asked == [0, 1, 2]


def test_a_thread_that_ends_a_job_does_not_wait_for_one_that_is_sending():
    """It is free for the next job; the thread that sends takes this end along, or the claim loop does."""
    parts = idle_pool()
    sent: list[int] = []
    parts._claimer.finish = lambda ends, *, then_claim: (sent.append(len(ends)) or ["" for _ in ends], None)
    first, second = running(parts, 2)
    parts._end(first, Ending(outcome(1), ""))
    with parts._sending:
        settles = threading.Thread(target=parts.settle, daemon=True)
        settles.start()
        settles.join(60)
        assert not settles.is_alive()
        assert sent == []
    parts._end(second, Ending(outcome(1), ""))
    parts.settle()
    assert sent == [2]


def test_what_is_finished_at_once_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(thread_pool, "FINISH_MAX_BYTES", 100)
    parts, sent = idle_pool(), list[int]()
    parts._claimer.finish = lambda ends, *, then_claim: (sent.append(len(ends)) or ["" for _ in ends], None)
    sizes = (60, 40), (60, 39, 10), (150,), (10,)
    for size in sum(sizes, ()):
        parts._end(*running(parts, 1), Ending(outcome(size), ""))
    parts.settle()
    assert sent == [len(one) for one in sizes]


def test_what_the_queue_took_as_ended_is_counted_and_goes_home_unless_it_was_put_off():
    counted, shipped = list[Job](), list[str]()
    parts = idle_pool(meter=SimpleNamespace(ended=lambda job, _: counted.append(job)))
    parts._shipper.put = lambda found: shipped.extend(one.entry for one in found)
    parts._claimer.finish = lambda ends, *, then_claim: (["1-0", "", LATER], None)
    jobs = running(parts, 3)
    for one in jobs:
        parts._end(one, Ending(outcome(1), ""))
    parts.settle()
    assert (shipped, counted) == (["1-0"], [jobs[0], jobs[2]])


def test_who_waits_until_nothing_runs_is_told_at_the_last_end(monkeypatch):
    parts, told = idle_pool(), list[bool]()
    monkeypatch.setattr(parts, "release", lambda _: None)  # which wakes it before that
    (one,) = running(parts, 1)
    waits = threading.Thread(target=lambda: told.append(parts.wait_until_idle(600.0)), daemon=True)
    waits.start()
    until(lambda: parts._slots._waiters, "it to wait")
    parts._end(one, Ending(outcome(1), ""))
    parts.settle()
    waits.join(60)
    assert told == [True]


def test_a_thread_takes_the_job_that_its_end_brings_and_gives_it_away_where_it_has_to_finish_others():
    parts = idle_pool()
    first, second = running(parts, 2)
    parts._jobs.clear()  # threads have them
    parts._executor.run = lambda _: Ending(outcome(1), "")
    waits = threading.Thread(target=parts._next, args=[thread_pool._Waiter()], daemon=True)
    waits.start()
    until(lambda: parts._waiting, "another one to wait")
    finish = parts._claimer.finish
    parts._claimer.finish = lambda ends, *, then_claim: ([""], claimed(job("next", "e")))
    parts.run_once(first)
    assert (len(parts._waiting), [one.task for one in parts._jobs]) == (1, ["next"])
    parts._claimer.finish = finish
    parts._end(second, Ending(outcome(1), ""))
    parts.settle()
    waits.join(60)
    assert not waits.is_alive()


def test_a_job_that_was_given_up_ends_once():
    parts = idle_pool()
    parts._executor.stuck = lambda *_: Ending(outcome(1), "")
    (one,) = running(parts, 1)
    assert parts.give_up(one, 1.0)
    assert not parts.give_up(one, 1.0)


def test_a_lapsed_lease_is_told_from_the_second_claim_on(capfd):
    """Before its first claim a process had none."""
    parts = idle_pool()
    for task in "AB":
        parts.accept(Claimed(now_ms=1, lapsed=True, refusal="", jobs=[job(task, "e")]), 1)
    assert capfd.readouterr().out.count("the lease had expired") == 1


def test_results_of_a_busy_process_gather_and_a_single_one_leaves_at_once():
    sent: list[list[str]] = []
    home = SimpleNamespace(
        begin=lambda found, _: sent.append([one.entry for one in found]) or True,
        flying_bytes=0,
    )
    first, second = (outbox.Shipment(entry, outcome(10), 0) for entry in "12")
    busy = outbox.Shipper(home, lambda: busy.put([second]) or True)
    busy.put([first])
    busy.run_once()
    alone = outbox.Shipper(home)
    alone.put([first])
    alone.run_once()
    assert sent == [["1", "2"], ["1"]]
