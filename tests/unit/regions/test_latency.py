"""A server is slow when it answers late again and again, and is not any more when hardly an answer was late."""

import pytest

from regions.latency import LOOKS, QUICK_LOOKS, Latency, uneven


def made(*seconds: float) -> Latency:
    latency = Latency(0.1)
    for one in seconds:
        latency.add(one)
    return latency


@pytest.mark.parametrize(
    ("seconds", "is_slow", "typical"),
    [
        ((), False, 0.0),
        ((0.2, 0.2), False, 0.0),
        ((0.2, 0.2, 0.3), True, 0.3),
        ((0.1,) * LOOKS, False, 0.1),
        ((0.2, 0.01, 0.2, 0.02, 0.03), False, 0.03),
        ((0.2, 0.01, 0.2, 0.02, 0.15), True, 0.2),
        ((0.2, 0.2, 0.2, 0.01, 0.01, 0.01, 0.01), True, 0.2),
        ((0.2, 0.2, 0.2, *[0.01] * (QUICK_LOOKS - 2)), True, 0.2),
        ((0.2, 0.2, 0.2, *[0.01] * (QUICK_LOOKS - 2), 0.2), True, 0.2),
        ((0.2, 0.2, 0.2, *[0.01] * (QUICK_LOOKS - 1)), False, 0.01),
        ((0.2, 0.2, 0.2, *[0.01] * 6, 0.2, *[0.01] * 7), True, 0.2),
        ((0.2, 0.2, 0.2, *[0.01] * 6, 0.2, *[0.01] * 8), False, 0.01),
    ],
)
def test_most_answers_must_be_late_and_then_no_more_than_one_may_be(seconds, is_slow, typical):
    latency = made(*seconds)
    assert (latency.is_slow, latency.seconds) == (is_slow, typical)


@pytest.mark.parametrize(("quick", "is_slow"), [(6, True), (7, False)])
def test_of_few_answers_none_may_be_late(quick, is_slow):
    latency = Latency(0.1, 7)
    for one in (0.2, 0.2, 0.2, *[0.01] * quick):
        latency.add(one)
    assert latency.is_slow is is_slow


def test_after_a_late_answer_the_next_look_does_not_wait_long():
    assert made(0.01).is_quick
    assert not made(0.2, 0.01).is_quick
    assert made(0.2, *[0.01] * LOOKS).is_quick
    assert not made(0.2, 0.2, 0.2, *[0.01] * LOOKS).is_quick  # it is slow


def test_a_server_that_was_lost_begins_anew():
    latency = made(0.2, 0.2, 0.2)
    latency.clear()
    assert (latency.is_slow, latency.seconds, latency.is_quick) == (False, 0.0, True)


@pytest.mark.parametrize("pause", [0.25, 0.5])
def test_a_server_that_stands_still_at_even_times_is_not_met_at_its_best(pause):
    """It stands still for 0.25 s and runs for 0.05 s: half of the calls wait for longer than 0.1 s."""

    def late(pauses: list[float]) -> int:
        at, count = 0.0, 0
        for one in pauses:
            at += one
            waits = max(0.0, 0.25 - at % 0.3)
            at += waits
            count += waits > 0.1
        return count

    assert late([0.25] * 400) == 0
    assert late([uneven(pause) for _ in range(400)]) > 80
