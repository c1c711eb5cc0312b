"""Small graphs: the share of failed runs is seen, and said."""

import re

from jobs.contract import Run
from web.console import graphs
from web.hub.recent import Hour


def heights(text: str, kind: str) -> list[float]:
    found = re.search(rf'class="{kind}" d="([^"]*)"', text)
    return [abs(float(height)) for height in re.findall(r"v(-?[\d.]+)h", found[1])] if found else []


def test_failed_runs_stand_on_those_that_succeeded():
    made = graphs.spark([Hour(0, runs=10, failed=0), Hour(3_600, runs=20, failed=10), Hour(7_200)]).text
    assert heights(made, "good") == [11, 11]
    assert heights(made, "bad") == [11]


def test_a_single_failure_among_many_runs_is_seen():
    made = graphs.spark([Hour(0, runs=100_000, failed=1)]).text
    assert heights(made, "bad") == [graphs.LOW]


def test_a_graph_says_what_it_shows():
    hours = [Hour(0, runs=10, failed=0), Hour(3_600, runs=20, failed=10)]
    assert graphs.told(hours) == "30 runs in the last day, 10 failed; most of them, 20, from 01:00 UTC."
    assert 'aria-label="30 runs in the last day' in graphs.by_hour(hours).text
    assert graphs.told([Hour(0)]) == "No runs in the last day."


def test_single_runs_show_how_long_each_took_and_which_failed():
    runs = [Run(source="a", definition="1", busy_ms=100), Run(source="a", definition="1", busy_ms=50), Run(source="a", definition="1", error="contract")]  # fmt: skip
    made = graphs.single_runs(runs).text
    assert heights(made, "good") == [48, 24]
    assert heights(made, "bad") == [48]
    assert "The last 3 runs, oldest first: 1 failed" in made


def test_a_share_is_between_nothing_and_all():
    assert 'width="100.0"' in graphs.share(7.0).text
    assert graphs.share(-1.0).text.count("<rect") == graphs.share(None).text.count("<rect") == 1
