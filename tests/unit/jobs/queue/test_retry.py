"""Which failures are tried again, and when."""

import random

import pytest

from jobs.errors import (
    RETRIED,
    Blocked,
    ConnectionFailed,
    ContractBroken,
    HttpStatus,
    Internal,
    RateLimited,
    TaskError,
    TimedOut,
    is_passing,
)
from jobs.queue.retry import MESSAGE_MAX, Attempt, Retry, decide, line, read_past


def highest(low: float, high: float) -> float:
    return high


def wait(error: TaskError, *, failures: int = 0, retries: int = 2, left_seconds: float = 300.0, draw=highest):
    found = decide(error, failures=failures, retries=retries, left_seconds=left_seconds, draw=draw)
    return found and found.wait_seconds


def test_the_ceiling_doubles_up_to_the_longest_wait_of_its_type():
    assert [wait(TimedOut("x"), failures=n, retries=10) for n in range(7)] == [0.5, 1, 2, 4, 8, 10, 10]
    assert [wait(RateLimited("x"), failures=n, retries=10) for n in range(7)] == [2, 4, 8, 16, 32, 60, 60]


def test_jitter_is_full():
    rng = random.Random(7)
    waits = [wait(TimedOut("x"), failures=4, retries=5, draw=rng.uniform) for _ in range(1000)]
    assert min(waits) < 0.1
    assert max(waits) > 7.9
    assert 3.7 < sum(waits) / len(waits) < 4.3


def test_a_source_says_how_often():
    assert wait(TimedOut("x"), failures=1, retries=2) is not None
    assert wait(TimedOut("x"), failures=2, retries=2) is None
    assert wait(TimedOut("x"), failures=0, retries=0) is None


@pytest.mark.parametrize("error", [Blocked("x"), ContractBroken("x"), Internal("x"), HttpStatus("x", http_status=404)])
def test_what_the_next_attempt_would_not_change_is_not_tried_again(error):
    assert wait(error) is None


def test_an_error_that_says_so_is_not_tried_again():
    assert wait(ConnectionFailed("a refused certificate", retryable=False)) is None
    assert wait(HttpStatus("x", http_status=503, retryable=is_passing(503))) == 1


def test_retry_after_is_waited_out_and_some_more():
    assert wait(RateLimited("x", retry_after=7.0)) == 9.0
    assert wait(RateLimited("x", retry_after=7.0), draw=min) == 7.0


def test_a_retry_fits_before_the_deadline_or_is_none():
    assert wait(TimedOut("x"), failures=4, retries=5, left_seconds=4.0) == 3.0
    assert wait(TimedOut("x"), left_seconds=0.9) is None
    assert wait(TimedOut("x"), left_seconds=1.0) == 0.0
    assert wait(TimedOut("x"), left_seconds=1.25) == 0.25
    assert wait(RateLimited("x", retry_after=7.0), left_seconds=7.9) is None
    assert wait(RateLimited("x", retry_after=7.0), left_seconds=8.5) == 7.5


def test_a_retry_says_what_the_attempt_failed_with():
    found = decide(TimedOut("no answer"), failures=0, retries=1, left_seconds=9.0, draw=highest)
    assert found == Retry(0.5, "timeout", "no answer")


def test_an_attempt_is_a_short_line():
    first = Attempt(1, 10, 20, "w1", "timeout", "two\nlines")
    second = Attempt(2, 30, 40, "w2", "connection", "y" * 5000)
    found = read_past(line(first) + line(second))
    assert found[0] == first
    assert (found[1].attempt, len(found[1].message)) == (2, MESSAGE_MAX)
    assert read_past(b"") == []


def test_only_known_types_are_in_the_table():
    assert all(0 < first <= longest for first, longest in RETRIED.values())
