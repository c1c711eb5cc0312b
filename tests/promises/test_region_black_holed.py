"""One region black-holed: the others do not notice, and its tasks end by their deadline and grace."""

import pytest

from scripts.chaos.points import links
from scripts.chaos.stack import source
from scripts.stack.wan_links import Rule, Way
from tests.promises.driving import Ledger, compared, slow_nobody, window
from tests.waiting import until
from tests.wire import ask

WINDOWS = 6
DEADLINE_SECONDS = 3.0
END_SECONDS = 60.0  # for tasks that end by their deadline, a second of grace, and a sweep within 17 s
HOLE = Rule(there=Way(then="hold"), back=Way(then="hold"))


@pytest.mark.timeout(600)
def test_a_black_holed_region_ends_its_tasks_and_slows_no_other(stack):
    """Undisturbed and disturbed windows in turn: p50 and p95 move no more than they may."""
    hurt, *others = stack.regions
    own = [link.name for link in links(stack.regions) if link.part.endswith(f"-{hurt}")]
    ledger, requests = Ledger(stack), []

    def heal() -> None:
        for link in own:
            stack.control.heal(link)

    def ended() -> None:
        """The tasks of the last window have: what they still do is no part of a calm one."""
        for path in (f"/v1/requests/{request}" for request in requests[-1:]):
            until(lambda one=path: ask(stack.port, "GET", one).json().get("done"), "its tasks to end")

    def measured() -> tuple[bool, str]:
        calm, disturbed = [], []
        window(stack, others)
        for _ in range(WINDOWS):
            heal()
            ended()
            until(
                lambda: ask(stack.port, "GET", f"/v1/sources/{source(hurt)}/records?n=0&wait=2").status == 200,
                f"{hurt} to be well",
            )
            calm.append(window(stack, others))
            for link in own:
                stack.control.rule(link, HOLE)
            requests.append(ledger.must_post([hurt] * 5, deadline=DEADLINE_SECONDS))
            disturbed.append(window(stack, others))
        return compared(calm, disturbed, has_p50=True)

    slow_nobody(measured)
    results = ledger.results(requests[-1], END_SECONDS)  # the hole is still there: its tasks end by their deadline
    assert {(result["status"], result["error"]["type"]) for result in results} == {("expired", "expired")}
