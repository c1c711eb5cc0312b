"""Which gateways are lost, and which start again and again, by what each of them said."""

import pytest

from web.hub.gateways import LOST_MS, Gateway, faults_of

NOW = 1_000_000_000


def told(*ages_seconds: float, said_seconds: float = 1.0) -> list[str]:
    """What is told of a gateway whose processes started so long ago."""
    starts = tuple(NOW - round(age * 1000) for age in ages_seconds)
    return [one.name for one in faults_of({"here:80": Gateway(NOW - round(said_seconds * 1000), starts)}, NOW)]


@pytest.mark.parametrize(
    ("ages", "names"),
    [
        ((3600, 40, 20, 1), ["gateway-restarts"]),
        ((50, 40, 20, 1), ["gateway-restarts"]),
        ((40, 20, 1), []),  # the first one is no restart
        ((3600, 70, 20, 1), []),
        ((3600,), []),
    ],
)
def test_three_restarts_within_a_minute_are_a_fault_however_long_it_ran_before(ages, names):
    assert told(*ages) == names


def test_one_that_says_nothing_more_is_lost():
    assert told(3600, said_seconds=LOST_MS / 1000) == []
    assert told(3600, said_seconds=LOST_MS / 1000 + 1) == ["gateway-away"]
