"""What ``nearfetch bench`` makes of what it measured: ratios by round, spreads, and whether the comparison is fair."""

import json
import math
import random

import pytest

from scripts.bench import report
from scripts.bench.figures import (
    Alone,
    Beside,
    Floor,
    Interactive,
    Load,
    Measured,
    Row,
    Spread,
    Unfair,
    check_fair,
    hops,
    median_within,
    percentile,
)
from scripts.bench.key_cost import Cost


def load(rate: float, **cpu_ms_per_job: float) -> Load:
    return Load(rate, cpu_ms_per_job or {"workers": 1.0}, 0.1)


def row(ours: list[float], threads: list[float], prefork: list[float], bare: list[float], **options) -> Row:
    def measured(rates: list[float], ms: float) -> Measured:
        return Measured([load(rate) for rate in rates], [Alone(ms, 2 * ms, 3 * ms) for _ in rates])

    peer = {"threads": measured(threads, 6.0), "prefork": measured(prefork, 5.0)}
    return Row("page", "a page", True, measured(ours, 4.0), peer, [Floor(rate, 0.4) for rate in bare], **options)


def test_a_ratio_is_of_what_stood_beside_each_other_in_a_round():
    """A machine that was twice as quick in one round changes no ratio."""
    found = row([100, 200, 110], [50, 100, 50], [10, 10, 10], [200, 400, 200])
    assert found.rate_ratio() == Spread(2.0, 2.0, 2.2)
    assert found.floor_ratio() == Spread(0.5, 0.5, 0.55)
    assert found.peer_floor_ratio() == Spread(0.25, 0.25, 0.25)


def test_the_peers_best_pool_counts_for_each_figure():
    found = row([100], [50], [40], [200])
    assert found.best == "threads"
    assert found.quickest == "prefork"
    assert found.alone_ratio("p50").median == pytest.approx(4 / 5)
    assert found.alone_ratio("p99").median == pytest.approx(4 / 5)


def test_cpu_over_the_floor_is_of_all_hops():
    found = row([100], [50], [40], [200])
    found.ours.load = [load(100, gateway=0.3, workers=1.1, history=0.2), load(90, gateway=0.5, workers=1.3, history=0)]
    found.floor.append(Floor(200, 0.6))
    assert found.over_floor(found.ours) == Spread(pytest.approx(1.2), pytest.approx(1.2), pytest.approx(1.2))
    assert hops(found.ours) == {"gateway": 0.4, "workers": pytest.approx(1.2), "history": 0.1}


def test_a_comparison_with_a_peer_below_a_quarter_of_the_bare_loops_is_refused():
    check_fair(row([500], [200], [210], [800]))  # the best pool counts
    with pytest.raises(Unfair, match=r"Celery's best pool \(threads\) does only 0\.24 times the bare loops' jobs/s"):
        check_fair(row([500, 500, 500], [190, 189, 300], [1, 1, 1], [800, 800, 800]))


def test_percentiles_are_values_that_were_seen():
    values = [float(one) for one in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert percentile([3.0], 0.99) == 3.0
    assert Alone.of([0.001, 0.003, 0.002]) == Alone(2.0, 3.0, 3.0)


def test_memory_is_for_100_fetches_in_flight():
    assert Load(100, {}, 0.1, memory_bytes=200_000_000, held=125).memory_bytes_per_100 == 160_000_000
    assert Load(100, {}, 0.1).memory_bytes_per_100 is None


def test_the_table_and_the_json_say_the_same():
    found = row([100, 200, 110], [50, 100, 50], [10, 10, 10], [200, 400, 200])
    text = "\n".join(report.lines([found], [], [], {"ours": 30.0}))
    assert "ours to threads: 2.00 (2.00 to 2.20) times the jobs/s" in text
    assert "to the bare loops: ours 0.50 (0.50 to 0.55), threads 0.25 (0.25 to 0.25)" in text
    assert "a lone call to prefork: p50 0.80" in text
    told = json.loads(json.dumps(report.as_json([found], [], [], {"ours": 30.0}, {"ours": ["x"]})))
    assert told["rows"][0]["ratios"]["jobs_per_second"] == {"median": 2.0, "low": 2.0, "high": 2.2}
    assert [one["jobs_per_second"] for one in told["rows"][0]["ours"]["load"]] == [100, 200, 110]
    assert told["rows"][0]["best"] == "threads"


def test_bare_loops_are_not_compared_with_a_page_that_is_late():
    found = row([100], [50], [40], [200])
    found.is_at_once = False
    assert "to the bare loops" not in "\n".join(report.lines([found], [], [], {}))
    assert report.as_json([found], [], [], {}, {})["rows"][0]["ratios"]["peer_to_floor"] is None


def beside(idle: float, busy: float, rate: float, refused: int = 0) -> Beside:
    return Beside(Alone(idle, 2 * idle, 3 * idle), Alone(busy, 2 * busy, 3 * busy), 100, refused, rate)


def test_calls_beside_a_load_are_compared_by_round_and_with_the_idle_ones():
    ours = [beside(5, 10, 600), beside(10, 40, 300, 2), beside(5, 15, 500)]
    found = Interactive(
        "interactive-page", "a page", ours, [beside(4, 40, 300), beside(8, 80, 150), beside(4, 45, 250)]
    )
    assert found.ratio("p99").median == pytest.approx(1 / 3)
    assert found.rate_ratio() == Spread(2.0, 2.0, 2.0)
    text = "\n".join(report.lines([], [found], [], {}))
    assert "a page   3 rounds" in text
    (line,) = [one.split() for one in text.splitlines() if one.startswith("  ours   ")]
    assert line == ["ours", "5.0", "15.0", "30.0", "45.0", "3.00", "300", "2", "500"]
    assert "ours to Celery: p50 0.33 (0.25 to 0.50)" in text
    (told,) = json.loads(json.dumps(report.as_json([], [found], [], {}, {})))["interactive"]
    assert told["ratios"]["p50"]["high"] == 0.5
    assert told["times_idle"] == [2.0, 4.0, 3.0]
    assert [one["busy"]["p99"] for one in told["ours"]] == [30.0, 120.0, 45.0]


def test_without_celery_nothing_is_compared_with_it():
    found = row([100], [], [], [200])
    found.peer = {}
    full = Interactive("interactive-page", "a page", [beside(5, 10, 600)])
    text = "\n".join(report.lines([found], [full], [], {"ours": 30.0}))
    assert "to the bare loops: ours 0.50 (0.50 to 0.50) times the jobs/s" in text
    assert "ours to" not in text
    told = report.as_json([found], [full], [], {}, {})
    assert told["rows"][0]["ratios"]["p50"] is None
    assert told["interactive"][0]["ratios"] == {}


def test_calls_in_a_whole_up_are_compared_with_the_quickest_pool():
    found = row([], [], [], [])
    found.ours.alone = [Alone(3.0, 6.0, 9.0), Alone(8.0, 16.0, 24.0)]
    found.peer = {"threads": Measured([], [Alone(6, 12, 18)] * 2), "prefork": Measured([], [Alone(4, 8, 12)] * 2)}
    text = "\n".join(report.lines([], [], [found], {}))
    assert "in a whole up of three regions: a page   2 rounds" in text
    assert "a lone call to prefork: p50 1.38 (0.75 to 2.00)" in text
    (told,) = json.loads(json.dumps(report.as_json([], [], [found], {}, {})))["up"]
    assert told["quickest"] == "prefork"
    assert told["ratios"]["p99"]["low"] == 0.75
    assert told["ours"][1]["p95"] == 16.0


def test_the_interval_of_a_median_has_the_true_one_in_19_of_20_cases():
    """Of a skewed distribution, as costs are."""
    chance = random.Random(20261129)
    hits = sum(
        low <= math.log(2) <= high
        for _, low, high in (median_within([chance.expovariate(1) for _ in range(300)]) for _ in range(400))
    )
    assert 370 <= hits < 400
    assert median_within([3.0]) == (3.0, 3.0, 3.0)


def test_what_keys_cost_is_found_among_what_changes_meanwhile():
    """A machine that gets slower, and bursts of other work, are in what is measured and not in what is told."""
    chance = random.Random(20261129)
    blocks = [
        1_000 + 0.5 * at + chance.gauss(0, 60) + (500 if chance.random() < 0.05 else 0) + (20 if at % 4 == 0 else 0)
        for at in range(3_600)
    ]
    cost = Cost.of(blocks)
    assert cost.keys[1] < 20 < cost.keys[2] < 30
    assert cost.nothing[1] < 0 < cost.nothing[2]
