"""What a process knows of its region's clock by the answers that it reads, early or late."""

import time

import pytest

from jobs.queue import clock as clocks
from jobs.queue.clock import Clock, machine_ms


@pytest.fixture
def machine(monkeypatch) -> list[int]:
    """This machine's clock, in ms."""
    at = [1_000]
    monkeypatch.setattr(clocks, "boot_ms", lambda: at[0])
    return at


def answered(clock: Clock, machine: list[int], ahead_ms: int, *, after_ms: int = 1, late_ms: int = 0) -> int:
    """How far ahead the clock is taken to be after an answer that was given so long after it was asked for, and read so late."""
    asked_ms = machine_ms()
    machine[0] += after_ms
    now_ms = machine_ms() + ahead_ms
    machine[0] += late_ms
    clock.note(now_ms, asked_ms)
    return clock.ahead_ms


def test_an_answer_that_is_read_late_changes_nothing(machine):
    clock = Clock()
    assert answered(clock, machine, 500) == 500
    assert answered(clock, machine, 500, late_ms=60_000) == 500
    assert answered(clock, machine, 500, after_ms=1_000, late_ms=60_000) == 500


def test_a_clock_that_goes_slower_or_faster_is_followed(machine):
    clock = Clock()
    for ahead in (500, 510, 900, 880, 100):
        assert ahead <= answered(clock, machine, ahead) <= ahead + 1
    assert answered(clock, machine, 50, after_ms=40) <= 90


def test_before_anything_is_known_a_call_may_run_whenever_it_arrives(machine):
    clock = Clock()
    assert clock.expected(1.0) == ""
    answered(clock, machine, 500)
    now_ms = machine_ms() + 500
    assert clock.expected(1.0) == f"{now_ms - clocks.STEP_MS} {now_ms + 1_000 + clocks.STEP_MS}"


def test_the_machines_clock_is_that_of_its_people_when_the_process_begins():
    assert abs(machine_ms() - time.time() * 1000) < 600_000, "it may have been set since"
    assert 0 <= clocks.boot_ms() - time.clock_gettime(time.CLOCK_BOOTTIME) * 1000 + 60_000 < 120_000
