"""How a process was asked to stop."""

import time

import pytest

from jobs.worker import stop
from jobs.worker.stop import RETIRE, Stop


def test_a_process_that_is_told_twice_that_it_is_not_needed_still_takes_its_time():
    asked = Stop()
    asked.request(RETIRE)
    asked.request(RETIRE)
    assert (asked.asked is not None, asked.is_unhurried, asked.is_cold) == (True, True, False)


def test_a_stop_hurries_a_process_that_is_not_needed(monkeypatch: pytest.MonkeyPatch):
    asked = Stop()
    asked.request(RETIRE)
    asked.request()
    asked.request(RETIRE)
    assert (asked.is_unhurried, asked.is_cold) == (False, False)
    later = time.monotonic() + stop.SECOND_SIGNAL_SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: later)
    asked.request()
    assert asked.is_cold
