"""DESIGN section 8, one region black-holed: the others do not notice, and its tasks end by their deadline and grace."""

import itertools
import time
from statistics import median

from scripts.chaos.points import links
from scripts.chaos.stack import source
from scripts.links import Rule, Way
from tests.promises.driving import GRACE_SECONDS, SWEEP_SECONDS, Ledger, ask
from tests.waiting import until

WINDOWS, CALLS = 6, 120
MOVED = 1.05  # so much an undisturbed p95 may move
CHANCE = 0.01  # so rarely chance alone may look like a slowdown
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


def chance(calm: list[float], disturbed: list[float]) -> float:
    """How often windows that were shared out at random differ as much as these (an exact permutation test of the medians)."""
    both = calm + disturbed
    seen = median(disturbed) - median(calm)
    splits = list(itertools.combinations(range(len(both)), len(disturbed)))
    as_far = 0
    for split in splits:
        chosen = [both[index] for index in split]
        others = [one for index, one in enumerate(both) if index not in split]
        as_far += median(chosen) - median(others) >= seen
    return as_far / len(splits)


def test_a_black_holed_region_ends_its_tasks_and_slows_no_other(stack):
    """Undisturbed and disturbed windows in turn: the p95 moves by 5 % at most, or by no more than undisturbed windows differ."""
    hurt, *others = stack.regions
    own = [link.name for link in links(stack.regions) if link.part.endswith(f"-{hurt}")]
    ledger = Ledger(stack)
    calm, disturbed, requests = [], [], []
    p95(stack, others)
    for _ in range(WINDOWS):
        until(
            lambda: ask(stack, "GET", f"/v1/sources/{source(hurt)}/records?n=0&wait=2")[0] == 200, f"{hurt} to be well"
        )
        calm.append(p95(stack, others))
        for link in own:
            stack.control.rule(link, HOLE)
        requests.append(ledger.must_post([hurt] * 5, deadline=DEADLINE_SECONDS))
        disturbed.append(p95(stack, others))
        if len(requests) < WINDOWS:  # the last one stays, so that its tasks end by their deadline
            for link in own:
                stack.control.heal(link)
    shown = [" ".join(f"{1000 * one:.1f}" for one in found) for found in (calm, disturbed)]
    said = f"p95 in ms: undisturbed {shown[0]}; disturbed {shown[1]}; by chance {chance(calm, disturbed):.3f}"
    print(said)
    results = ledger.results(requests[-1], DEADLINE_SECONDS + GRACE_SECONDS + SWEEP_SECONDS)
    assert {(result["status"], result["error"]["type"]) for result in results} == {("expired", "expired")}
    assert median(disturbed) <= MOVED * median(calm) or chance(calm, disturbed) > CHANCE, (
        f"the others are slower: {said}"
    )
