"""DESIGN section 8, one region black-holed: the others do not notice, and its tasks end by their deadline and grace."""

import time

from scripts.chaos.points import links
from scripts.chaos.stack import source
from scripts.links import Rule, Way
from tests.promises.driving import GRACE_SECONDS, SWEEP_SECONDS, Ledger, ask

WINDOWS, CALLS = 5, 60
DEADLINE_SECONDS = 3.0
HOLE = Rule(there=Way(then="hold"), back=Way(then="hold"))


def p95(stack, regions: list[str]) -> float:
    """Of synchronous calls to these regions, in seconds."""
    took = []
    for number in range(CALLS):
        path = f"/v1/sources/{source(regions[number % len(regions)])}/records?n={number}"
        started = time.monotonic()
        assert ask(stack, "GET", path)[0] == 200
        took.append(time.monotonic() - started)
    return sorted(took)[int(0.95 * CALLS)]


def test_a_black_holed_region_ends_its_tasks_and_slows_no_other(stack):
    """Disturbed and undisturbed windows in turn: the best disturbed one is as good as the worst undisturbed one."""
    hurt, *others = stack.regions
    own = [link.name for link in links(stack.regions) if link.part.endswith(f"-{hurt}")]
    ledger = Ledger(stack)
    calm, disturbed, requests = [], [], []
    p95(stack, others)
    for _ in range(WINDOWS):
        calm.append(p95(stack, others))
        for link in own:
            stack.control.rule(link, HOLE)
        requests.append(ledger.must_post([hurt] * 5, deadline=DEADLINE_SECONDS))
        disturbed.append(p95(stack, others))
        if len(requests) < WINDOWS:  # the last one stays, so that its tasks end by their deadline
            for link in own:
                stack.control.heal(link)
    shown = [" ".join(f"{1000 * one:.1f}" for one in found) for found in (calm, disturbed)]
    print(f"p95 in ms: undisturbed {shown[0]}; disturbed {shown[1]}")
    assert min(disturbed) <= 1.05 * max(calm)
    results = ledger.results(requests[-1], DEADLINE_SECONDS + GRACE_SECONDS + SWEEP_SECONDS)
    assert {(result["status"], result["error"]["type"]) for result in results} == {("expired", "expired")}
