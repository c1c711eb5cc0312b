"""One region black-holed: the others do not notice, and its tasks end by their deadline and grace."""

from scripts.chaos.points import links
from scripts.chaos.stack import source
from scripts.stack.wan_links import Rule, Way
from tests.promises.driving import GRACE_SECONDS, SWEEP_SECONDS, Ledger, compared, window
from tests.waiting import until
from tests.wire import ask

WINDOWS = 6
DEADLINE_SECONDS = 3.0
HOLE = Rule(there=Way(then="hold"), back=Way(then="hold"))


def test_a_black_holed_region_ends_its_tasks_and_slows_no_other(stack):
    """Undisturbed and disturbed windows in turn: p50 and p95 move no more than they may."""
    hurt, *others = stack.regions
    own = [link.name for link in links(stack.regions) if link.part.endswith(f"-{hurt}")]
    ledger = Ledger(stack)
    calm, disturbed, requests = [], [], []
    window(stack, others)
    for _ in range(WINDOWS):
        for request in requests[-1:]:  # what it still does is no part of a calm window
            until(
                lambda request=request: ask(stack.port, "GET", f"/v1/requests/{request}").json()["done"],
                "its tasks to end",
            )
        until(
            lambda: ask(stack.port, "GET", f"/v1/sources/{source(hurt)}/records?n=0&wait=2").status == 200,
            f"{hurt} to be well",
        )
        calm.append(window(stack, others))
        for link in own:
            stack.control.rule(link, HOLE)
        requests.append(ledger.must_post([hurt] * 5, deadline=DEADLINE_SECONDS))
        disturbed.append(window(stack, others))
        if len(requests) < WINDOWS:  # the last one stays, so that its tasks end by their deadline
            for link in own:
                stack.control.heal(link)
    is_noise, said = compared(calm, disturbed, has_p50=True)
    print(said)
    results = ledger.results(requests[-1], DEADLINE_SECONDS + GRACE_SECONDS + SWEEP_SECONDS)
    assert {(result["status"], result["error"]["type"]) for result in results} == {("expired", "expired")}
    assert is_noise, f"the others are slower: {said}"
