"""Hub killed while its disk is slow: what it answered and had not written is gone with it.

With ``appendfsync everysec`` Redis answers while an fsync is pending, and writes up to 2 s later. Here each takes 1.5 s.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import pytest

from regions import connect, names
from tests.promises.driving import Ledger, Poster
from tests.waiting import until

POSTERS = 4
ROUNDS = 3
DEADLINE_SECONDS = 60.0
SOON_SECONDS = 1.0  # after a 202 the hub is killed within this
RESULTS = 3
PAGE_SECONDS = 2.0  # so that results come after the 202 of their requests
CLEAR_SECONDS = 0.3
READERS_MAX = 200

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def hub_as_up_sets_it(stack):
    """No test here would say anything of another setting."""
    assert stack.redis("hub").config_get("appendfsync") == {"appendfsync": "everysec"}


class File:
    """The hub's append-only file, as seen now and at the last look before."""

    def __init__(self, stack) -> None:
        self._hub = stack.redis("hub")
        self._size = 0
        self._written: set[str] = set()
        self._results: set[str] = set()

    def look(self) -> bool:
        """Whether the hub has done something that it keeps until an fsync is over."""
        with contextlib.suppress(*connect.AWAY):
            info = self._hub.info("persistence")
            found = self._hub.scan_iter(names.result("*", "*"), count=10_000)
            self._results = {key.decode().rpartition(":")[2] for key in found}
            if info["aof_current_size"] != self._size:
                self._size, self._written = info["aof_current_size"], self._results
            return info["aof_pending_bio_fsync"] > 0 and info["aof_buffer_length"] > 0
        return False

    def unwritten(self, ledger: Ledger) -> int:
        """Results of promised tasks that came after the last write."""
        promised = {task for tasks in list(ledger.promised.values()) for task in tasks}
        return len(promised & self._results - self._written)


class Followers:
    """Clients that read each promised request by cursor, from its 202 until it is done."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._threads = ThreadPoolExecutor(READERS_MAX)
        self._readings: dict[str, Future[list[dict]]] = {}
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._watch.join(60)
        self._threads.shutdown()

    def _run(self) -> None:
        while not self._stopping.wait(0.01):
            self._follow()
        self._follow()

    def _follow(self) -> None:
        for request in list(self._ledger.promised):
            if request not in self._readings:
                self._readings[request] = self._threads.submit(self._ledger.results, request)

    def check(self) -> None:
        """Each was told each of its tasks once, with its own records."""
        assert self._readings.keys() == self._ledger.promised.keys()
        for request, reading in self._readings.items():
            self._ledger.check_results(request, reading.result(), self._ledger.promised[request])


def clears(stack) -> None:
    """Gives the regions the time in which they would clear their outboxes, if they did at the hub's reply."""
    outboxes = [stack.redis(f"redis-{region}") for region in stack.regions]
    with contextlib.suppress(AssertionError):
        until(lambda: not any(one.xlen(names.OUTBOX) for one in outboxes), "empty outboxes", CLEAR_SECONDS)


def kill(stack) -> None:
    """SIGKILL to the hub, and another one is there."""
    pid = stack.pid("hub")
    stack.signal("hub", signal.SIGKILL)
    until(lambda: stack.pid("hub") not in (0, pid), "another hub")


def hurt(stack, ledger: Ledger, is_moment: Callable[[File, list[Poster]], bool], **pages: float) -> None:
    """Posts while the disk is slow, for such ``pages``; kills the hub at a moment when an fsync is pending."""
    file = File(stack)
    with contextlib.ExitStack() as opened:
        with stack.slow_disk():
            until(file.look, "an fsync that is pending")
            options = {"deadline": DEADLINE_SECONDS, **pages}
            posters = [opened.enter_context(Poster(ledger, stack.regions, **options)) for _ in range(POSTERS)]
            until(lambda: file.look() and is_moment(file, posters), "the moment", 150.0)
            kill(stack)
        began = time.monotonic()
        until(lambda: all(one.accepted_since(began) for one in posters), "posts to be accepted again")


def test_no_202_is_lost_when_the_hub_is_killed_within_a_second_of_it(stack):
    ledger = Ledger(stack)

    def is_moment(_: File, posters: list[Poster]) -> bool:
        return any(one.accepted_since(time.monotonic() - SOON_SECONDS) for one in posters)

    for _ in range(ROUNDS):
        hurt(stack, ledger, is_moment)
    print(f"{len(ledger.promised)} requests had a 202, {len(ledger.refused)} a 503")
    ledger.check(fetches=2)


def has_unwritten_results(file: File, ledger: Ledger, stack) -> bool:
    """Whether results came to the hub that it has not written, though what could happen by its reply alone has."""
    if file.unwritten(ledger) < RESULTS:
        return False
    clears(stack)
    return file.look() and file.unwritten(ledger) >= RESULTS


def test_no_result_is_lost_when_the_hub_is_killed_within_a_second_of_it(stack):
    ledger = Ledger(stack)
    for _ in range(ROUNDS):
        hurt(stack, ledger, lambda file, _: has_unwritten_results(file, ledger, stack), seconds=PAGE_SECONDS)
    print(f"{len(ledger.promised)} requests had a 202, {len(ledger.refused)} a 503")
    ledger.check(fetches=2)


def test_no_result_is_told_twice_when_the_hub_is_killed_within_a_second_of_it(stack):
    """A killed hub forgets what it had not written; the same result comes again, behind what a reader has read."""
    ledger = Ledger(stack)
    with Followers(ledger) as followers:
        for _ in range(ROUNDS):
            pages = {"seconds": PAGE_SECONDS, "apart_seconds": PAGE_SECONDS}
            hurt(stack, ledger, lambda file, _: has_unwritten_results(file, ledger, stack), **pages)
    followers.check()
