"""Ambiguous success: a call took effect and its caller saw none of it, at every point of the one list.

A point is hit on each of its links: a region's in all three regions, at the same time. The points of a kind of link are hit
one after the other, and what came of all of them is looked at once.
"""

import contextlib
import itertools
import os
import re
import signal
from collections import Counter

import pytest

from regions import names
from regions.settings import ROOT
from scripts.chaos import archive, letters
from scripts.chaos.history import History
from scripts.chaos.plan import Letter
from scripts.chaos.points import POINTS, Link, Point
from tests import lua
from tests.ledger import GONE
from tests.promises.driving import Ledger, well
from tests.site import behave
from tests.waiting import until
from tests.wire import ask

SILENT_SECONDS = 0.7  # a little longer than the time-out of most callers
TASKS = 3
PAGES = "/bench.example/numbered"
# After these a task may be fetched again: it failed, its worker died, or its worker can't know whether it began.
MAY_RUN_AGAIN = (
    "a failed fetch", "a host that wants a pause", "a killed worker", "a lost claim", "a stop of the workers",
)  # fmt: skip


def groups() -> dict[str, list[Point]]:
    """The points of each test, of one kind of link and led to in one way; those after which a task may be fetched again apart."""
    found: dict[str, list[Point]] = {}
    for point in POINTS:
        why = point.needs or ("a lost claim" if point.name == "claim" else "")
        found.setdefault(f"{point.part} to {point.server}{why and f', {why}'}", []).append(point)
    return found


@pytest.fixture
def _well_site(stack):
    yield
    behave(stack.ports.site)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_well_site")
@pytest.mark.parametrize("points", groups().values(), ids=[re.sub(r"\W+", "-", name) for name in groups()])
def test_a_call_whose_answer_is_lost_loses_and_doubles_nothing(stack, points):
    ledger = Ledger(stack)
    for point in points:
        hits = Hits(stack, point)
        for link in hits.links:
            stack.control.swallow(link.name, point.request, cut_seconds=SILENT_SECONDS)
        until(lambda hits=hits: _is_hit(stack, ledger, hits), f"{point.name} to be hit", 120)
    until(lambda: ledger.post(stack.regions * TASKS), "a post to be accepted again")
    fetches = 2 if any(point.needs in MAY_RUN_AGAIN or point.name == "claim" for point in points) else 1
    ledger.check(fetches=fetches)
    until(lambda: _all_is_read(stack), "the gateway to have done again what it could not know")
    ledger.check(fetches=fetches)
    until(lambda: _in_the_history(stack, ledger), "the history to have each task once", 100)


class Hits:
    """Where a point is made, and where its answer was lost by now."""

    def __init__(self, stack, point) -> None:
        self.point = point
        self._control, self.links = stack.control, point.links(stack.regions)
        self._before = {link.name: self._count(link) for link in self.links}

    def _count(self, link: Link) -> int:
        return self._control.counts(link.name).swallowed

    def left(self, regions: list[str]) -> list[str]:
        """The regions in which it was not hit: of a link of the gateway all of them."""
        left = [link for link in self.links if self._count(link) == self._before[link.name]]
        return (
            regions if any(link.part == "gateway" for link in left) else [link.part.partition("-")[2] for link in left]
        )


def _is_hit(stack, ledger: Ledger, hits: Hits) -> bool:
    """Does what leads to the point wherever it was not hit; a refusal of a post is an answer too."""
    regions = hits.left(stack.regions)
    if regions:
        _LEADS[hits.point.needs](stack, ledger, regions)
        for request in list(ledger.promised)[-1:]:
            ledger.results(request)
    return not hits.left(stack.regions)


def _post(stack, ledger: Ledger, regions: list[str]) -> None:
    ledger.post(regions * TASKS)


def _slow_page(stack, ledger: Ledger, regions: list[str]) -> None:
    """Each second a worker says what runs."""
    ledger.post(regions * TASKS, seconds=2.5)


def _failed_fetch(stack, ledger: Ledger, regions: list[str]) -> None:
    behave(stack.ports.site, prefix=PAGES, times=1, status=503)
    ledger.post(regions[:1] * TASKS)


def _pause(stack, ledger: Ledger, regions: list[str]) -> None:
    behave(stack.ports.site, prefix=PAGES, times=1, status=503, headers={"Retry-After": "1"})
    ledger.post(regions[:1] * TASKS)


def _cancel(stack, ledger: Ledger, regions: list[str]) -> None:
    """Requests that are cancelled while their pages are in the making, or a little later on a busy machine.

    Those that were are none of the ledger's that must succeed.
    """
    request = ledger.post(regions, seconds=1.0)
    if request is not None:
        status = ask(stack.port, "DELETE", f"/v1/requests/{request}").json()["status"]
        assert status in ("cancelled", "succeeded")
        if status == "cancelled":
            del ledger.promised[request]


def _refuse(stack, ledger: Ledger, regions: list[str]) -> None:
    """A request that the broker does not confirm."""
    publish = next(point.request for point in POINTS if point.name == "publish")
    stack.control.swallow("gateway>rabbitmq", publish, cut_seconds=0.1)
    until(lambda: ledger.post(regions) is None, "a refusal")


def _unreadable(stack, ledger: Ledger, regions: list[str]) -> None:
    letter = Letter(0.0, f"letter-{next(ledger.numbers)}", regions[0], "garbage")
    letters.Postman(stack, History())._send(letter)
    until(lambda: letter.name in letters.shown(stack, History(letters={letter.name: True})), "the dead letter")


def _kill(stack, ledger: Ledger, regions: list[str]) -> None:
    """A worker process of each region dies with what it runs; the next one comes in its place."""
    request = ledger.must_post(regions * TASKS, seconds=4.0)
    for region in regions:
        for pid in _running(stack, region, request)[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _running(stack, region: str, request: str) -> list[int]:
    """The worker processes of a region that run something; none where the request was done before this was seen, on a busy machine."""
    found: list[int] = []

    def is_seen() -> bool:
        found.extend(pid for pid, count in stack.executions(region).items() if count)
        return bool(found) or ask(stack.port, "GET", f"/v1/requests/{request}").json().get("done", False)

    until(is_seen, "a running task")
    return found


def _lost_claim(stack, ledger: Ledger, regions: list[str]) -> None:
    """What a worker may have claimed without knowing it gives back."""
    claim = next(point for point in POINTS if point.name == "claim")
    for link in claim.links(regions):
        stack.control.swallow(link.name, claim.request, cut_seconds=SILENT_SECONDS)
    ledger.post(regions * TASKS)


def _stop(stack, ledger: Ledger, regions: list[str]) -> None:
    """The pools of the regions end by themselves while their workers run something, and are started again."""
    before = {region: stack.pid(f"workers-{region}") for region in regions}
    request = ledger.must_post(regions * TASKS, seconds=1.0)
    for region, pid in before.items():
        _running(stack, region, request)
        os.killpg(pid, signal.SIGTERM)
    for region, pid in before.items():
        until(lambda one=region, old=pid: stack.pid(f"workers-{one}") not in (0, old), "the pool to start again", 120)


def _cut(stack, ledger: Ledger, regions: list[str]) -> None:
    """The gateway loses the hub, and looks for its streams again."""
    stack.control.cut("gateway>hub")
    well(stack)
    ledger.post(regions)


_LEADS = {
    "": _post,
    "a slow page": _slow_page,
    "a failed fetch": _failed_fetch,
    "a host that wants a pause": _pause,
    "a cancel": _cancel,
    "a refusal": _refuse,
    "an unreadable message": _unreadable,
    "a killed worker": _kill,
    "a lost claim": _lost_claim,
    "a stop of the workers": _stop,
    "a cut": _cut,
}


def _all_is_read(stack) -> bool:
    """Whether everything that the regions said has taken effect, and the gateway knows so."""
    hub = stack.redis("hub")
    return not any(hub.xpending(names.out_stream(region), names.GATEWAYS)["pending"] for region in stack.regions)


def _in_the_history(stack, ledger: Ledger) -> bool:
    """Whether each promised task is there; fails where one is there twice. After a lost answer the store is away for a moment.

    The latest requests come first, so what is older than the ledger's is not read.
    """
    oldest = min(ledger.promised)
    try:
        found = itertools.takewhile(lambda one: one.request >= oldest, archive.pages(stack.port))
        counts = Counter(task for one in found for task, _ in one.tasks)
    except GONE:
        return False
    assert max(counts.values(), default=0) <= 1, "doubled in the history"
    return {task for tasks in ledger.promised.values() for task in tasks} <= set(counts)


# Calls that no task's end hangs on, and the test that shows what a lost answer of each does.
ELSEWHERE = {
    "jobs.queue.script.NOW": "service/jobs/queue/test_clock.py::test_a_question_for_the_time_that_had_no_answer_may_be_asked_again",
    "jobs.queue.clock.TAKE_BACK": "service/jobs/queue/test_clock.py::test_a_step_that_was_taken_back_without_an_answer_is_taken_back_once",
    "jobs.queue.turn.CALL": "service/jobs/queue/test_turn.py::test_a_call_whose_answer_is_lost_calls_nobody_twice",
    "jobs.queue.turn.TAKE": "service/jobs/queue/test_further_turns.py::test_a_turn_whose_answer_is_lost_is_asked_for_again",
    "jobs.queue.breaker.DELAY": "service/jobs/queue/test_breaker.py::test_what_a_host_asks_for_may_be_said_twice",
    "web.hub.scripts.ASK": "service/web/flow/test_takeover.py::test_a_note_whose_answer_is_lost_is_read_again",
    "web.hub.scripts.TAKE_WEBHOOKS": "service/jobs/webhook/test_lost_answers.py::test_a_take_whose_answer_is_lost_is_made_good_after_its_lease",
    "web.hub.scripts.ENQUEUE_WEBHOOKS": "service/jobs/webhook/test_lost_answers.py::test_a_job_whose_making_had_no_answer_is_made_once",
    "web.hub.scripts.RESEND_WEBHOOK": "service/jobs/webhook/test_lost_answers.py::test_a_resend_whose_answer_is_lost_may_be_asked_again",
    "jobs.webhook.queue.CLAIM": "service/jobs/webhook/test_lost_answers.py::test_a_claim_whose_answer_is_lost_is_made_again_after_its_lease",
    "jobs.webhook.queue.ENDED": "service/jobs/webhook/test_lost_answers.py::test_an_end_whose_answer_is_lost_may_be_said_again",
    "web.hub.scripts.BAR": "service/web/flow/test_holdings.py::test_a_region_whose_bar_had_no_answer_is_kept_out_by_the_next_look_and_let_in",
}


def test_the_list_has_every_script_or_a_test_of_its_own():
    """A script that somebody adds is a call that somebody has to think of, unless Redis lets it write nothing."""
    named = b" ".join(point.request for point in POINTS)
    scripts = lua.scripts()
    assert len(scripts) > 30
    missing = {name for name, script in scripts.items() if script.sha.encode() not in named}
    reads = {name for name in missing if b"flags=no-writes" in scripts[name].text.splitlines()[0]}
    assert missing - reads == set(ELSEWHERE)
    assert len({(point.part, point.server, point.request) for point in POINTS}) == len(POINTS)
    for place in ELSEWHERE.values():
        file, test = place.split("::")
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), place
