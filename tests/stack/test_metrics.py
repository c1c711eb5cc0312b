"""Debian's Prometheus on a whole stack: every target is up, every series is known, what was done is counted, alerts fire and clear."""

import signal
from collections.abc import Iterator

import pytest

from tests.stack.driving import Ledger, is_up
from tests.stack.prometheus import MISSING, WHY, Prometheus
from tests.stack.test_outages import hanging
from tests.waiting import until

SECONDS = 120.0
SOURCES = ["ecb.rates", "quakes.day", "hn.front", "slow.example"]
# Metrics that a stack that is well need not show.
QUIET = {
    "nearfetch_fault", "nearfetch_entries_refused_total", "nearfetch_worker_deaths_total",
}  # fmt: skip

pytestmark = pytest.mark.skipif(MISSING, reason=WHY)


@pytest.fixture(scope="module")
def prometheus(stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with Prometheus(stack.data, tmp_path_factory.mktemp("prometheus")) as running:
        running.wait_for_targets()
        yield running


def test_every_part_is_scraped_and_what_was_done_is_counted(stack, prometheus):
    """Twelve tasks: each is counted once, by its source, and each hop of them has a time."""
    until(lambda: is_up(stack), "the stack to be well", SECONDS)
    jobs = [job for job, _ in prometheus.health()]
    assert sorted(jobs) == ["nearfetch-bridge"] * 3 + ["nearfetch-gateway"] + ["nearfetch-workers"] * 3
    before = {source: succeeded(prometheus, source) for source in SOURCES}
    hops = {
        hop: observed(prometheus, hop)
        for hop in ("accept", "publish", "bridge", "claim", "fetch", "parse", "ship", "settle")
    }
    ledger = Ledger(stack)
    for _ in range(3):
        ledger.collect(ledger.post(SOURCES))
    ledger.check()
    for source in SOURCES:
        until(
            lambda source=source: succeeded(prometheus, source) - before[source] == 3, f"3 results of {source}", SECONDS
        )
    for hop, count in hops.items():
        wanted = 3 if hop == "accept" else 12
        until(
            lambda hop=hop, count=count, wanted=wanted: observed(prometheus, hop) - count == wanted,
            f"{wanted} times of {hop}",
            SECONDS,
        )
    assert prometheus.unknown() == set()


def test_every_metric_is_there_and_the_dashboard_s_panels_have_something_to_show(stack, prometheus):
    from regions.metrics import METRICS
    from tests.unit.scripts.stack.test_prometheus import DASHBOARD

    stack.nearfetch("fetch", "ecb.rates")
    names = set(prometheus.get("label/__name__/values"))
    missing = {
        name for name, one in METRICS.items() if (f"{name}_count" if one.kind == "histogram" else name) not in names
    }
    assert missing <= QUIET
    empty = []
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "5m").replace("$region", ".*")
            if not prometheus.query(expression):
                empty.append(target["expr"])
    # Of what is only there while something is wrong.
    assert [
        one
        for one in empty
        if not any(word in one for word in ("fault", 'status!="succeeded"', "[45]..", "deaths", 'health!="ok"'))
    ] == []


def test_a_bridge_that_hangs_fires_its_alert_which_is_over_when_it_goes_on(stack, prometheus):
    with hanging(stack, "bridge-nyc"):
        until(
            lambda: prometheus.firing("region-bridge-away", region="nyc", severity="page"), "the alert to fire", SECONDS
        )
        assert not prometheus.firing("region-bridge-away", region="fra")
    until(lambda: not prometheus.firing("region-bridge-away"), "the alert to be over", SECONDS)


def test_a_worker_that_is_killed_loses_no_count(stack, prometheus, inside):
    """Its pool goes on with what it counted; the process that replaces it adds to that."""
    ledger = Ledger(stack)
    ledger.collect(ledger.post(["ecb.rates"]))
    until(lambda: succeeded(prometheus, "ecb.rates") is not None, "the result to be counted", SECONDS)
    attempts = 'sum(nearfetch_attempts_total{region="fra"})'
    before, starts = prometheus.value(attempts), prometheus.value('sum(nearfetch_worker_starts_total{region="fra"})')
    import os

    for pid in inside.executions("fra"):
        os.kill(pid, signal.SIGKILL)
    until(
        lambda: (prometheus.value('sum(nearfetch_worker_starts_total{region="fra"})') or 0) > starts,
        "new processes",
        SECONDS,
    )
    assert prometheus.value(attempts) >= before
    ledger.collect(ledger.post(["ecb.rates"]))
    until(lambda: prometheus.value(attempts) > before, "its attempt to be counted", SECONDS)
    assert prometheus.value('sum(nearfetch_worker_deaths_total{region="fra",how="crashed"})') >= 1
    until(lambda: is_up(stack), "the stack to be well", SECONDS)
    ledger.check()


def succeeded(prometheus: Prometheus, source: str) -> float:
    return prometheus.value(f'sum(nearfetch_results_total{{source="{source}",status="succeeded"}})') or 0.0


def observed(prometheus: Prometheus, hop: str) -> float:
    return prometheus.value(f'sum(nearfetch_hop_seconds_count{{hop="{hop}"}})') or 0.0
