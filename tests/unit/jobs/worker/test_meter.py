"""What worker processes count in memory that they share with their pool."""

import os
import signal

from jobs.contract import Outcome, Run, Timing
from jobs.errors import TYPES
from jobs.queue.claim import Ending, Job
from jobs.queue.retry import Retry
from jobs.worker.meter import HOPS, OUTCOMES, PAGE, Meter, Pages
from regions.counts import CELLS


def job(**changes) -> Job:
    known = {
        "task": "t", "execution": "e", "attempt": 1, "data": b"", "request": "q", "source": "s", "past": b"", "deaths": 0,
        "deadline_ms": 0, "bridged_ms": 1_000, "claimed_ms": 1_030, "offset_ms": 0,
    }  # fmt: skip
    return Job(**{**known, **changes})


def ending(status: str = "succeeded", error: str = "", *, timing: Timing | None = None, **changes) -> Ending:
    run = Run(source="s", definition="d", error=error)
    outcome = Outcome(request="q", task="t", status=status, finished_ms=2, expires_ms=3, frame=b"", run=run)
    return Ending(outcome, raw_bytes=100, wire_bytes=10, timing=timing, **changes)


def observed(cells) -> tuple[int, float]:
    """How many durations, and their sum in seconds."""
    assert len(cells) == CELLS
    return sum(cells[:-1]), cells[-1] / 1e6


def test_an_attempt_is_counted_with_its_hops_and_bytes() -> None:
    pages = Pages()
    meter = Meter((pages.descriptor, pages.take()))
    meter.ended(job(turn_ms=10), ending(timing=Timing(turn_ms=10.0, fetch_ms=41.0, parse_ms=2.0)))
    meter.ended(job(), ending("failed", "timeout", timing=Timing(fetch_ms=1_000.0)))
    meter.ended(job(bridged_ms=0), ending("failed", "connection", retry=Retry(1.0, "connection", "why")))
    meter.shipped(0.5)
    sums = pages.sums()
    assert observed(sums.hops["claim"]) == (2, 0.05)  # 20 and 30 ms; nothing is known of the third
    assert observed(sums.hops["turn"]) == (1, 0.01)
    assert observed(sums.hops["fetch"]) == (2, 1.041)
    assert observed(sums.hops["parse"]) == (2, 0.002)
    assert observed(sums.hops["ship"]) == (1, 0.5)
    assert {outcome: count for outcome, count in sums.outcomes.items() if count} == {
        "succeeded": 1, "timeout": 1, "connection": 1,
    }  # fmt: skip
    assert sums.retries == 1
    assert sums.bytes == {"raw": 300, "home": 30}


def test_an_error_without_a_run_or_of_an_unknown_type_is_internal() -> None:
    pages = Pages()
    meter = Meter((pages.descriptor, pages.take()))
    without = ending("failed")
    meter.ended(job(), Ending(Outcome(request="q", task="t", status="failed", finished_ms=2, expires_ms=3, frame=b"")))
    meter.ended(job(), ending("failed", "of a later version"))
    meter.ended(job(), without)
    assert pages.sums().outcomes["internal"] == 3
    assert set(OUTCOMES) == {"succeeded", *TYPES}


def test_the_counts_of_a_killed_process_stay_and_the_next_one_goes_on() -> None:
    pages = Pages()
    mine, other = pages.take(), pages.take()

    def process(page: int, shipped: int) -> int:
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            meter = Meter((pages.descriptor, page))
            for _ in range(shipped):
                meter.shipped(0.002)
            os.write(write, b".")
            signal.pause()
        os.read(read, 1)
        os.close(read)
        os.close(write)
        return pid

    def kill(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    first, second = process(mine, 3), process(other, 4)
    assert observed(pages.sums().hops["ship"]) == (7, 0.014)  # while both live
    kill(first)
    pages.give_back(mine)
    assert pages.take() == mine  # no page more for the process that replaces it
    third = process(mine, 5)
    assert observed(pages.sums().hops["ship"]) == (12, 0.024)
    kill(second)
    kill(third)
    assert observed(pages.sums().hops["ship"]) == (12, 0.024)


def test_no_process_can_take_the_memory_from_the_others() -> None:
    pages = Pages()
    pages.take()
    try:
        os.ftruncate(pages.descriptor, 0)
    except PermissionError:
        return
    raise AssertionError("the memory shrank")


def test_without_pages_there_is_nothing() -> None:
    sums = Pages().sums()
    assert set(sums.hops) == set(HOPS)
    assert not any(sum(cells) for cells in sums.hops.values())
    assert sums.retries == 0
    assert PAGE >= 4096


def test_a_process_without_a_pool_counts_for_itself() -> None:
    Meter().ended(job(), ending())
