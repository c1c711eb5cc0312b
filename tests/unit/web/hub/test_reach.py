"""Whose fault a failure on the network was."""

import pytest

from jobs.contract import Run
from web.hub.reach import AROUND_MS, Reach

NOW = 1_732_421_640_000


def reached(source: str, error: str = "") -> Run:
    return Run(source=source, definition="a", error=error, origin="parser" if error else "")


def lost(source: str, host: str = "") -> Run:
    return Run(source=source, definition="a", error="timeout", origin="network", host=host or f"https://{source}:443")


def whose(*noted: tuple[Run, int], region: str = "fra") -> bool:
    """Whether the failure of ``a`` now is its host's, by what else happened then (ms after it)."""
    reach = Reach()
    for run, after_ms in [(lost("a"), 0), *noted]:
        reach.note(region, run, NOW + after_ms)
    return reach.blames_the_host("fra", lost("a"), NOW)


def test_a_host_that_fails_while_others_are_reached_fails_itself():
    assert whose((reached("b"), 1_000))
    assert whose((reached("b"), -1_000), (reached("c"), 1_000))
    assert whose((reached("b", "contract"), 1_000))  # it answered


def test_where_nobody_else_was_asked_nobody_can_tell():
    assert not whose()
    assert not whose((reached("b"), AROUND_MS + 10_000))
    assert not whose((reached("b"), 1_000), region="nyc")
    assert not whose((lost("b", "https://a:443"), 1_000))  # of the same host


def test_a_region_whose_hosts_all_fail_is_to_blame_itself():
    assert not whose((lost("b"), 1_000))
    assert not whose((lost("b"), 1_000), (reached("c"), 1_000))
    assert whose((lost("b"), 1_000), (reached("c"), 1_000), (reached("d"), 1_000))  # two hosts that fail


@pytest.mark.parametrize(("count", "is_the_hosts"), [(1, True), (3, False)])
def test_a_region_that_loses_some_of_everything_is_to_blame_itself(count, is_the_hosts):
    others = [(lost(source), 1_000) for source in "bcd" for _ in range(count)]
    others += [(reached(source), 2_000) for source in "bcd" for _ in range(20 - count)]
    assert whose(*others) is is_the_hosts


def test_another_source_of_the_same_host_that_was_reached_shows_that_the_way_is_free():
    assert whose((reached("b"), 1_000), (lost("c", "https://a:443"), 0))


def test_what_is_long_past_is_forgotten():
    reach = Reach()
    for minute in range(600):
        reach.note("fra", reached("b"), NOW + minute * 60_000)
        reach.note("fra", reached("b"), NOW)  # a late one, of a hub that was away
    assert len(reach._slots["fra"]) < 10
