"""``python -m tests.stack.alerts [ALERT…]``: does faults to a stack of its own, and says when Prometheus fires and clears their alerts.

Prometheus is Debian's, with the shipped rules, and scrapes each second. Ends with 1 when an alert did not fire, or was not over, in time.
"""

import sys
import time

from scripts.stack.own_stack import OwnStack
from tests.stack.faults import CLEARS_SECONDS, Case, stack
from tests.stack.prometheus import MISSING, WHY, Prometheus
from tests.stack.rare_faults import ALL
from tests.waiting import until
from tests.wire import ask

FIRES_SECONDS = 240.0
BESIDE_SECONDS = 420.0  # for alerts about the last five minutes
# By these faults no alert fires; promtool tests their rules.
NOT_FIRED = {"region-workers-hang": "the pool has replaced the process before the alert's minute is over"}


def run(names: list[str]) -> int:
    """Does each fault whose alert is named, or all. Returns the exit code."""
    for name in (name for name in names or NOT_FIRED if name in NOT_FIRED):
        print(f"  {name}: not done, {NOT_FIRED[name]}", flush=True)
    cases = [case for case in ALL if case.alert not in NOT_FIRED and (not names or case.alert in names)]
    by_keys = {has: [case for case in cases if case.has_keys == has] for has in (False, True)}
    return 1 if sum(failed(some, has_keys=has) for has, some in by_keys.items()) else 0


def failed(cases: list[Case], *, has_keys: bool) -> int:
    """Does faults to one stack. Returns how many of their alerts did not fire, or were not over, in time."""
    if not cases:
        return 0
    made = stack("alerts", has_keys=has_keys)
    try:
        made.start()
        with Prometheus(made.data.path, made.folder / "prometheus") as prometheus:
            prometheus.wait_for_targets()
            return sum(not tried(made, prometheus, case) for case in cases)
    finally:
        made.stop()


def tried(stack: OwnStack, prometheus: Prometheus, case: Case) -> bool:
    """Does one fault and takes it back; whether its alert fired and was over in time."""
    began, before = time.monotonic(), prometheus.all_firing()  # a source that failed is degraded for some time

    def fires() -> bool:
        case.meanwhile(stack)
        return prometheus.firing(case.alert)

    try:
        since = case.do(stack)
        began = since if isinstance(since, float) else began
        try:
            until(fires, f"{case.alert} to fire", FIRES_SECONDS)
            fired = time.monotonic() - began
            beside = sorted(prometheus.all_firing() - {case.alert})
        finally:
            case.undo(stack)
        began = time.monotonic()
        until(lambda: not fires(), f"{case.alert} to be over", CLEARS_SECONDS + case.lasts_seconds)
        cleared = time.monotonic() - began
        until(lambda: ask(stack.port, "GET", "/readyz").status == 200, "the gateway to be ready", CLEARS_SECONDS)
        until(lambda: prometheus.all_firing() <= before, "what came with it to be over", BESIDE_SECONDS)
    except AssertionError as error:
        print(f"  FAILED  {case.alert:<22} {case.what}: {error}; firing: {sorted(prometheus.all_firing())}", flush=True)
        return False
    others = f"   also {', '.join(beside)}" if beside else ""
    print(
        f"  ok      {case.alert:<22} {case.what}: fired after {fired:.1f} s, over after {cleared:.1f} s{others}",
        flush=True,
    )
    return True


if __name__ == "__main__":
    if MISSING:
        print(WHY)
        sys.exit(2)
    sys.exit(run(sys.argv[1:]))
