"""Whose clock is off: that of one server, or this host's own, by what most clocks say."""

import pytest

from scripts.checks.clocks import THIS, Clocks


@pytest.mark.parametrize(
    ("ahead", "off"),
    [
        ({"hub": 5}, {}),
        ({"hub": 5_000}, {"hub": ("better", "5.000 s ahead")}),
        ({"hub": 10, "fra": -20, "nyc": -90_000}, {"nyc": ("wrong", "89.980 s behind")}),
        ({"hub": 90_010, "fra": 90_000}, {THIS: ("wrong", "90.000 s behind")}),
        ({"hub": 0, "fra": 1_400}, {}),
        ({"hub": 0, "fra": 1_700}, {"fra": ("better", "1.700 s ahead")}),
    ],
)
def test_the_clock_that_differs_from_most_is_named(ahead, off):
    """Give or take half a second, which the answers took here."""
    clocks = Clocks()
    for what, ms in ahead.items():
        clocks.note(what, f"redis://{what}", float(ms), 500.0)
    found = list(clocks.findings())
    assert {one.what for one in found} == {THIS, *ahead}
    assert {one.what: (one.severity, one.found) for one in found if one.severity != "fine"} == off


def test_without_a_server_that_answers_there_is_nothing_to_say():
    assert list(Clocks().findings()) == []
