"""DESIGN section 8, ambiguous success: a call took effect and its caller saw none of it, at every point of the one list."""

import importlib

import pytest

from regions import names
from regions.script import Script
from regions.settings import ROOT
from scripts.chaos.points import POINTS
from tests.promises.driving import Ledger, ask, behave
from tests.waiting import until

SILENT_SECONDS = 0.7  # a little longer than the time-out of most callers
TASKS = 3


@pytest.fixture(autouse=True)
def _well_site(stack):
    yield
    behave(stack)


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name.replace(" ", "-"))
def test_a_call_whose_answer_is_lost_loses_and_doubles_nothing(stack, point):
    link = point.links(stack.regions[:1])[0].name
    region = stack.regions[0]
    before = stack.control.counts(link).swallowed
    seconds = 2.5 if point.needs == "a slow page" else 0.0  # each second a worker says what runs
    ledger = Ledger(stack)
    if point.needs == "a failed fetch":
        behave(stack, prefix="/bench.example/numbered", times=1, status=503)
    stack.control.swallow(link, point.request, cut_seconds=SILENT_SECONDS)
    if point.needs == "a cancel":
        _cancel(stack, ledger, region)
    elif point.needs == "a refusal":
        _refuse(stack, ledger, region)
    until(lambda: _post_until_hit(stack, ledger, region, link, before, seconds), f"{point.name} to be hit")
    until(lambda: ledger.post([region] * TASKS), "a post to be accepted again")
    fetches = 2 if point.needs == "a failed fetch" or point.name in MAY_RUN_AGAIN else 1
    ledger.check(fetches=fetches)
    until(lambda: _all_is_read(stack), "the gateway to have done again what it could not know")
    ledger.check(fetches=fetches)


# Their answers tell a worker what it runs: without one it gives back what it might have begun.
MAY_RUN_AGAIN = ("claim",)


def _all_is_read(stack) -> bool:
    """Whether everything that the regions said has taken effect, and the gateway knows so."""
    hub = stack.redis("hub")
    return not any(hub.xpending(names.out_stream(region), names.GATEWAYS)["pending"] for region in stack.regions)


def _post_until_hit(stack, ledger: Ledger, region: str, link: str, before: int, seconds: float) -> bool:
    """Posts, since every point is on the way of some task; a refusal is an answer too."""
    ledger.post([region] * TASKS, seconds=seconds)
    for request in list(ledger.promised)[-1:]:
        ledger.results(request)
    return stack.control.counts(link).swallowed > before


def _cancel(stack, ledger: Ledger, region: str) -> None:
    """A request that is cancelled while its page is in the making; it is none of the ledger's that must succeed."""
    request = ledger.must_post([region], seconds=1.0)
    del ledger.promised[request]
    assert ask(stack, "DELETE", f"/v1/requests/{request}")[1]["status"] == "cancelled"


def _refuse(stack, ledger: Ledger, region: str) -> None:
    """A request that the broker does not confirm."""
    stack.control.swallow("gateway>rabbitmq", _publish(), cut_seconds=0.1)
    until(lambda: ledger.post([region]) is None, "a refusal")


def _publish() -> bytes:
    return next(point.request for point in POINTS if point.name == "publish")


# Scripts that no task's end hangs on.
ELSEWHERE = {
    "web.lua.ARCHIVED": "after the history has it; else it comes again when its lease is over",
    "web.lua.OVERDUE": "what it gave comes again when its lease is over, in 2 s (tests/service/test_sweep.py)",
    "web.lua.JUDGE": "keeps a verdict on a source; judged again with its next runs",
    "web.lua.READ_ONLY": "reads for the archive, which asks again, and for a client where no note can be made",
    "web.lua.KEEP_DEAD": "keeps a dead letter, whose task has ended before; the letter comes again until it is kept",
    "jobs.breaker.DELAY": "said again with the next robots.txt",
    "jobs.breaker.FAILED": "a failure that is not counted",
    "jobs.breaker.RECOVERED": "the next one that is let through says so too",
    "jobs.breaker.SLOW": "the host says it again",
    "jobs.finish.DUE": "moves what waited for its time, in a look of each second",
    "jobs.finish.GIVE_BACK": "a worker that stops; who dies instead leaves the same to the reaper",
    "jobs.reaper.REAP": "after a death, which tests/promises/test_worker_crash.py is about",
    "jobs.reaper.TRIM": "forgets what ended long ago",
    "jobs.scaler.DECIDE": "who decides how many processes there are does so again in a second, from what is written",
    "jobs.scaler.LEAVE": "a pool that stops; the others see it by its lease too",
    "jobs.scaler.LOOK": "asked again in a second",
    "jobs.turn.CALL": "calls who waits for a host; nobody needs its answer",
    "jobs.turn.LIMIT": "what sources allow, said again when a worker registers",
    "jobs.turn.TAKE": "a further fetch of a task that runs; asked again it costs a token",
    "jobs.worker.REGISTER": "a worker's own record",
}


def test_the_list_has_every_script_or_a_reason_why_not():
    """A script that somebody adds is a call that somebody has to think of."""
    named = b" ".join(point.request for point in POINTS)
    scripts = {}
    modules = "web.lua jobs.breaker jobs.claim jobs.finish jobs.outbox jobs.reaper jobs.scaler jobs.turn jobs.worker"
    for module in modules.split():
        for name, value in vars(importlib.import_module(module)).items():
            if (
                isinstance(value, Script)
                and f"{name}: Final = Script(" in (ROOT / f"{module.replace('.', '/')}.py").read_text()
            ):
                scripts[f"{module}.{name}"] = value.sha
    assert len(scripts) > 15
    assert {name for name, sha in scripts.items() if sha.encode() not in named} == set(ELSEWHERE)
    assert len({point.request for point in POINTS}) == len(POINTS)
