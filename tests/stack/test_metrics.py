"""Debian's Prometheus on a whole stack: every target is up, every series is known, what was done is counted, alerts fire and clear."""

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from tests.stack.driving import Ledger, is_up
from tests.stack.prometheus import MISSING, WHY, Prometheus
from tests.stack.test_outages import hanging
from tests.waiting import until

SECONDS = 120.0
HOPS = ("accept", "publish", "bridge", "claim", "fetch", "parse", "ship", "settle")
SOURCES = ["ecb.rates", "quakes.day", "hn.front", "slow.example"]
# Metrics that a stack that is well need not show.
QUIET = {
    "nearfetch_fault", "nearfetch_entries_refused_total", "nearfetch_worker_deaths_total",
}  # fmt: skip

pytestmark = pytest.mark.skipif(MISSING, reason=WHY)


@pytest.fixture(scope="module")
def stack(forked_stack):
    return forked_stack


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
    sources, hops = until(lambda: steady(prometheus), "what tests before have done to be counted", SECONDS)
    ledger = Ledger(stack)
    for _ in range(3):
        ledger.collect(ledger.post(SOURCES))
    ledger.check()
    for source in SOURCES:
        until(
            lambda source=source: succeeded(prometheus, source) - sources[source] == 3,
            f"3 results of {source}",
            SECONDS,
        )
    tries = len(ledger.refusals)  # which a busy machine makes; what they published is cancelled
    for hop, count in hops.items():
        wanted = 3 if hop == "accept" else 12
        until(
            lambda hop=hop, count=count, wanted=wanted: (
                wanted <= observed(prometheus, hop) - count <= wanted + tries * len(SOURCES)
            ),
            f"{wanted} times of {hop}",
            SECONDS,
        )
    assert prometheus.unknown() == set()


def test_every_metric_is_there_and_the_dashboard_s_panels_have_something_to_show(stack, prometheus):
    from regions.metrics import METRICS
    from tests.unit.scripts.stack.test_prometheus import DASHBOARD

    stack.succeeds("fetch", "ecb.rates")

    def missing() -> set[str]:
        names = set(prometheus.get("label/__name__/values"))
        series = {name: f"{name}_count" if one.kind == "histogram" else name for name, one in METRICS.items()}
        return {name for name, one in series.items() if one not in names} - QUIET

    def empty() -> list[str]:
        """Panels without anything, but for what is only there while something is wrong."""
        found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
        wrong = ("fault", 'status!="succeeded"', "[45]..", "deaths", 'health!="ok"')
        usual = [one for one in found if not any(word in one for word in wrong)]
        shown = {one: one.replace("$__rate_interval", "5m").replace("$region", ".*") for one in usual}
        return [one for one, expression in shown.items() if not prometheus.query(expression)]

    # Once each target was scraped twice, and a page of each kind was fetched.
    until(lambda: not missing(), "all metrics", SECONDS)
    until(lambda: not empty(), "something in each panel", SECONDS)


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
    attempts = 'sum(nearfetch_attempts_total{region="fra"})'
    began = 'sum(nearfetch_worker_starts_total{region="fra"})'
    died = 'sum(nearfetch_worker_deaths_total{region="fra",how="crashed"})'
    before, starts = counted(prometheus, attempts), counted(prometheus, began)
    for pid in inside.executions("fra"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: counted(prometheus, began) > starts, "new processes", SECONDS)
    assert counted(prometheus, attempts) >= before
    ledger.collect(ledger.post(["ecb.rates"]))
    until(lambda: counted(prometheus, attempts) > before, "its attempt to be counted", SECONDS)
    until(lambda: counted(prometheus, died) >= 1, "its death to be counted", SECONDS)
    until(lambda: is_up(stack), "the stack to be well", SECONDS)
    ledger.check()


def counted(prometheus: Prometheus, expression: str) -> float:
    """The value of an expression; there is none while a busy target was not scraped in time."""
    return float(until(lambda: prometheus.query(expression), expression, SECONDS)[0]["value"][1])


def steady(prometheus: Prometheus) -> tuple[dict[str, float], dict[str, float]] | None:
    """The results of each source and the times of each hop, if no more came within the last seconds."""
    now, before = (
        (
            {source: succeeded(prometheus, source, since) for source in SOURCES},
            {hop: observed(prometheus, hop, since) for hop in HOPS},
        )
        for since in ("", " offset 3s")
    )
    return now if now == before else None


def succeeded(prometheus: Prometheus, source: str, since: str = "") -> float:
    series = f'nearfetch_results_total{{source="{source}",status="succeeded"}}{since}'
    return prometheus.value(f"sum({series})") or 0.0


def observed(prometheus: Prometheus, hop: str, since: str = "") -> float:
    return prometheus.value(f'sum(nearfetch_hop_seconds_count{{hop="{hop}"}}{since})') or 0.0
