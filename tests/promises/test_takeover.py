"""Takeover: a region stops, vanishes behind its links, loses its broker or its bridge. Sources with a standby are answered, once each; pinned ones stay."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Self

import pytest

from regions import names
from scripts.chaos.points import links
from scripts.chaos.stack import ChaosStack, source
from scripts.stack.wan_links import Rule, Way
from tests.ledger import GONE
from tests.promises.driving import Ledger, well
from tests.waiting import until
from tests.wire import ask

HOME, STANDBY = "fra", "nyc"
MOVES, PINNED = source(HOME, "moves"), source(HOME, "pinned")
BEFORE = 15  # requests before the fault
AFTER = 15  # and after the standby has begun
DEADLINE_SECONDS = 240.0  # of pinned tasks, which wait until the region is back
WAIT_SECONDS = 150.0  # for what a quiet machine does in some
OUT_SECONDS = 90.0  # by which the tasks with a standby have to be answered, while their region is still away


@pytest.fixture
def both(stack) -> Iterator[ChaosStack]:
    """The region and its standby are well."""
    path = f"/v1/sources/{MOVES}"
    until(
        lambda: ask(stack.port, "GET", path).json().get("standby_faults") == {}, "the standby to be ready", WAIT_SECONDS
    )
    until(lambda: not _taken(stack), "both regions to be well", WAIT_SECONDS)
    yield stack
    until(lambda: not _taken(stack), "both regions to be well again", WAIT_SECONDS)


def _taken(stack) -> set[str]:
    """Which of the two regions lose their tasks; something else while the hub does not answer, as on a busy machine."""
    reply = ask(stack.port, "GET", "/v1/regions")
    if reply.status != 200:
        return {"unknown"}
    return {one["name"] for one in reply.json()["regions"] if one["takeover"]} & {HOME, STANDBY}


@contextlib.contextmanager
def stopped(stack) -> Iterator[None]:
    """All processes of the region stand still."""
    parts = [f"bridge-{HOME}", f"workers-{HOME}", f"redis-{HOME}"]
    for part in parts:
        stack.signal(part, signal.SIGSTOP)
    try:
        yield
    finally:
        for part in reversed(parts):
            stack.signal(part, signal.SIGCONT)


@contextlib.contextmanager
def black_holed(stack) -> Iterator[None]:
    """Every connection of the region is accepted and kept, and nothing comes through."""
    own = [link.name for link in links(stack.regions) if link.part.endswith(f"-{HOME}")]
    for link in own:
        stack.control.rule(link, Rule(there=Way(then="hold"), back=Way(then="hold")))
    try:
        yield
    finally:
        for link in own:
            stack.control.heal(link)


@contextlib.contextmanager
def without_broker(stack) -> Iterator[None]:
    """The region's connections to the broker are cut, and it gets no new ones."""
    link = f"bridge-{HOME}>rabbitmq"
    stack.control.rule(link, Rule(accepts=False))
    stack.control.cut(link)
    try:
        yield
    finally:
        stack.control.heal(link)


@contextlib.contextmanager
def without_bridge(stack) -> Iterator[None]:
    """The region's bridge is killed, and nobody starts it again."""
    try:
        stack.signal(f"bridge-{HOME}", signal.SIGKILL)
        stack.stop_part(f"bridge-{HOME}")
        yield
    finally:
        stack.start_part(f"bridge-{HOME}")


class Load:
    """Posts a task of each source in turn, a request each, until it is told to stop."""

    def __init__(self, stack) -> None:
        self.ledgers = {one: Ledger(stack) for one in (MOVES, PINNED)}
        self.posted: list[str] = []  # requests of the source with a standby
        self._stack, self._stopping = stack, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stopping.wait(0.1):
            for one in (MOVES, PINNED):
                with contextlib.suppress(*GONE):
                    request = self.post(one)
                    if request is not None and one == MOVES:
                        self.posted.append(request)

    def post(self, of: str, seconds: float = 0.2) -> str | None:
        ledger = self.ledgers[of]
        number = next(ledger.numbers)
        return ledger.send(
            [{"source": of, "params": {"n": number, "seconds": seconds}}], [number], deadline=DEADLINE_SECONDS
        )

    def regions(self, request: str) -> set[str]:
        """The regions that were asked for a request's task; none while the hub does not answer."""
        found: set[str] = set()
        for task in ask(self._stack.port, "GET", f"/v1/requests/{request}").json().get("tasks", []):
            found |= set(task["moved"]["asked"]) if "moved" in task else {task["region"]}
        return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("hurt", [stopped, black_holed, without_broker, without_bridge])
def test_a_region_that_can_not_answer_is_taken_over_and_gets_its_tasks_again(both, hurt):
    stack = both
    before = ask(stack.port, "GET", f"/v1/regions/{HOME}").json()["refused"]  # by tests of this stack that attack it
    with Load(stack) as load:
        until(lambda: len(load.posted) >= BEFORE, "the load", WAIT_SECONDS)
        assert HOME not in _taken(stack)
        began = time.monotonic()
        with hurt(stack):
            until(lambda: HOME in _taken(stack), "the region to be taken over", WAIT_SECONDS)
            print(f"taken over {time.monotonic() - began:.1f} s after the fault")
            until(
                lambda: STANDBY in load.regions(load.posted[-1]), "the standby to be asked for new tasks", WAIT_SECONDS
            )
            so_far = len(load.posted)
            until(lambda: len(load.posted) >= so_far + AFTER, "more load")
            cancelled = until(lambda: load.post(PINNED), "a post to be accepted")
            load.ledgers[PINNED].promised.pop(cancelled)
            path = f"/v1/requests/{cancelled}"
            until(lambda: ask(stack.port, "DELETE", path).json()["status"] == "cancelled", "the cancel")
            waiting = load.posted[: so_far + AFTER]
            ledger = load.ledgers[MOVES]
            results = [one for request in waiting for one in ledger.results(request, OUT_SECONDS)]
            bad = [(one["task"], one["status"], one["error"]) for one in results if one["status"] != "succeeded"]
            assert not bad, f"not answered by the standby: {bad}"
        until(lambda: not _taken(stack), "the region to get its tasks again", WAIT_SECONDS)
        until(lambda: load.regions(load.posted[-1]) == {HOME}, "new tasks to go to the region again", WAIT_SECONDS)
    for ledger in load.ledgers.values():
        ledger.check(fetches=2)  # both regions may have fetched; the result is one
    _nothing_left_its_place(stack, load, cancelled)
    until(lambda: not stack.redis("hub").zcard(names.open_tasks(HOME)), "nothing to be open")
    view = ask(stack.port, "GET", f"/v1/regions/{HOME}").json()
    assert view["refused"] == before, "late results are held against the region"
    well(stack)


def _nothing_left_its_place(stack, load: Load, cancelled: str) -> None:
    """Every result of the pinned source is its region's; no other one had a job of it or a cancel."""
    redis = stack.redis(f"redis-{STANDBY}")
    ledger = load.ledgers[PINNED]
    for request, tasks in ledger.promised.items():
        regions = {one["region"] for one in ledger.results(request)}
        assert regions == {HOME}, f"a pinned task was answered by {regions}"
        strayed = [task for task in tasks if redis.exists(names.rq_job(task), names.cancel_mark(task))]
        assert not strayed, f"a pinned task was in {STANDBY}: {strayed}"
    for task in ask(stack.port, "GET", f"/v1/requests/{cancelled}").json()["tasks"]:
        assert not redis.exists(names.rq_job(task["id"]), names.cancel_mark(task["id"])), (
            "a pinned cancel left its place"
        )
