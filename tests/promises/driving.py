"""What the promises' tests share: posts that may be refused, the ledger over them, and the whole stack's health."""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import NoReturn, Self

import pytest

from scripts.chaos import load
from scripts.chaos.stack import ChaosStack, source
from scripts.stack.probes import listens
from tests import ledger
from tests.waiting import until
from tests.wire import ask

GRACE_SECONDS = 1.0  # of this stack
TAKEOVER_WELL_SECONDS = 8.0  # instead of a minute
SWEEP_SECONDS = 17.0  # a gateway that started or regained a server may wait so long, and one more
SOON_SECONDS = (
    1.5  # promised is 1, on a machine that has nothing else to do: by then a gateway refuses what it can't take
)
CALM_POSTS = 10
TRIES = 5
CALLS = int(os.environ.get("WINDOW_CALLS", "40"))  # of a window
MOVED = 1.05  # so much an undisturbed p95 may move
MOVED_P50 = 1.3  # a p50 moves with each other use of the processors
CHANCE = 0.01  # so rarely chance alone may look like a slowdown in one round of windows
ROUNDS = 3  # what slows others does so in each of them: chance alone once in a million runs
WELL_SECONDS = 200.0
POST_SECONDS = 0.1  # between two posts of one thread: a fault lasts for several, and each result is compared in the end


def cannot_be_tried(why: str) -> NoReturn:
    """This machine lacks what a promise is tried with: that fails in CI (``CI`` in the environment), and is a skip elsewhere."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"a promise was not tried: {why}")
    pytest.skip(why)


@dataclass
class Ledger(ledger.Ledger):
    """The ledger of a stack that is hurt: posts ask for numbered pages, whose records are known, and whose fetches are counted."""

    may_break = True
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(_fresh(), 10**15)))

    def post(
        self, regions: list[str], *, seconds: float = 0.0, apart_seconds: float = 0.0, deadline: float = 120.0
    ) -> str | None:
        """Posts a request of one task a region; its id when it was accepted, None when it was refused with 503.

        The first page takes ``seconds``, each following one ``apart_seconds`` longer than the one before.
        """
        numbers = [next(self.numbers) for _ in regions]
        sources = [
            {"source": source(region), "params": {"n": number, "seconds": seconds + index * apart_seconds}}
            for index, (region, number) in enumerate(zip(regions, numbers, strict=True))
        ]
        return self.send(sources, numbers, deadline=deadline)

    def must_post(self, regions: list[str], **options) -> str:
        """Posts a request until it is accepted, as a client does: a busy broker confirms too late now and then. Its id."""
        return until(lambda: self.post(regions, **options), "a post to be accepted")

    def must_refuse(self, path: str) -> None:
        """Asks for something that can't be told now."""
        started = time.monotonic()
        assert ask(self.stack.port, "GET", path).status == 503, path
        self.refusals.append(time.monotonic() - started)

    def calm(self, regions: list[str]) -> float:
        """The slowest of some posts while nothing is wrong: what this machine adds to whatever the gateway waits for."""
        took = []
        for _ in range(CALM_POSTS):
            started = time.monotonic()
            self.must_post(regions)
            took.append(time.monotonic() - started)
        return max(took)

    def check(self, seconds: float = 150.0, *, fetches: int = 1) -> None:
        """Every promised task succeeded, once, with its own records, fetched ``fetches`` times at most; no refused one is there."""
        for request, numbers in self.promised.items():
            self.check_results(request, self.results(request, seconds), numbers)
        self.check_refused()
        counts = self.fetches()
        most = max((counts.get(n, 0) for numbers in self.promised.values() for n in numbers.values()), default=0)
        assert most <= fetches, f"a page was fetched {most} times"

    def check_results(self, request: str, results: list[dict], numbers: dict[str, int]) -> None:
        """These results are what was promised of a request."""
        ledger.judge(results, numbers)
        for result in results:
            expected = load.expected_digest(numbers[result["task"]])
            assert load.digest_of(result["records"]) == expected, f"changed: {result}"

    def check_refused(self) -> None:
        """No refused request can be read."""
        for request in self.refused:
            assert self._told(request) == 404, request

    def _told(self, request: str) -> int:
        """The status of a request, once the gateway can say: after a cut connection its hub may be away for a moment."""
        statuses: list[int] = []

        def is_told() -> bool:
            statuses.append(ask(self.stack.port, "GET", f"/v1/requests/{request}").status)
            return statuses[-1] != 503

        until(is_told, f"the gateway to say of {request}")
        return statuses[-1]

    def fetches(self) -> dict[int, int]:
        """How often the page of each number was asked for."""
        from scripts.chaos import run

        return run.fetches(self.stack)


def refuses_soon(ledger: Ledger, regions: list[str], hurt: Callable[[], None]) -> None:
    """``hurt`` breaks something, is refused, and mends it: each 503 came within a second.

    A machine that has much else to do adds what it adds to any post, and may stall: the best of some tries counts.
    """
    seen = []
    for _ in range(TRIES):
        calm = ledger.calm(regions)
        ledger.refusals.clear()
        hurt()
        seen.append((max(ledger.refusals), calm))
        if seen[-1][0] <= SOON_SECONDS + calm:
            break
    shown = "; ".join(f"{slowest:.2f} s, posts without a fault {calm:.2f} s" for slowest, calm in seen)
    print(f"slowest of {len(ledger.refusals)} refusals: {shown}")
    assert seen[-1][0] <= SOON_SECONDS + seen[-1][1], shown


_numbers_lock = threading.Lock()
_last_number = [0]


def _fresh() -> int:
    """Where a ledger's numbers begin: no other ledger of this process has them."""
    with _numbers_lock:
        _last_number[0] += 1_000_000
        return _last_number[0]


def losing(stack: ChaosStack, link: str) -> Callable[[], bool]:
    """Says whether an answer on a link was lost since now: a link counts those of all tests."""
    before = stack.control.counts(link).swallowed
    return lambda: stack.control.counts(link).swallowed > before


def well(stack: ChaosStack) -> None:
    """Waits until every part runs, the gateway takes requests, and every region answers."""
    until(lambda: _is_well(stack), "everything to be up", WELL_SECONDS)


def _is_well(stack: ChaosStack) -> bool:
    states = stack.supervisor.states() or {}
    if not states or not all(state.pid for state in states.values()) or listens(stack.port)():
        return False
    with contextlib.suppress(*ledger.GONE):
        if ask(stack.port, "GET", "/readyz").status != 200:
            return False
        paths = [f"/v1/sources/{source(region)}/records?n=0&wait=2" for region in stack.regions]
        return all(ask(stack.port, "GET", path).status == 200 for path in paths)
    return False


class Poster:
    """Posts again and again, in a thread, until it is told to stop; every answer is in its ledger."""

    def __init__(self, ledger: Ledger, regions: list[str], **options) -> None:
        self.ledger, self._regions, self._options = ledger, regions, options
        self.accepted_at: list[float] = []
        self.unanswered = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.wait(POST_SECONDS):
            try:
                if self.ledger.post(self._regions, **self._options) is not None:
                    self.accepted_at.append(time.monotonic())
            except ledger.GONE:
                self.unanswered += 1

    def accepted_since(self, moment: float) -> bool:
        """Whether a post was accepted after this moment."""
        return any(at > moment for at in self.accepted_at)


def window(stack, regions: list[str]) -> list[float]:
    """The seconds of synchronous calls to these regions, in their order of size.

    One that is refused takes until it is answered: a busy broker confirms too late now and then.
    """
    took = []
    for number in range(CALLS):
        path = f"/v1/sources/{source(regions[number % len(regions)])}/records?n={number}"
        started = time.monotonic()
        reply = until(lambda one=path: (found := ask(stack.port, "GET", one)).status != 503 and found, path)
        assert reply.status == 200, reply
        took.append(time.monotonic() - started)
    return sorted(took)


def slow_nobody(measured: Callable[[], tuple[bool, str]]) -> None:
    """Each round measures windows, as ``compared`` says: the others are slower if they are in each of some rounds."""
    seen = []
    for _ in range(ROUNDS):
        is_noise, said = measured()
        seen.append(said)
        print(said)
        if is_noise:
            return
    pytest.fail("the others are slower: " + "; ".join(seen))


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


def compared(calm: list[list[float]], disturbed: list[list[float]], *, has_p50: bool = False) -> tuple[bool, str]:
    """Whether the p95 of disturbed windows moved by 5 % at most, or by no more than undisturbed windows differ; and the figures.

    ``has_p50``: the same of the p50, which may move by 30 %. A busy machine hides less in it, but what disturbs must not
    run in this process.
    """
    are_noise, said = [], []
    for share, factor in ((0.95, MOVED), *([(0.5, MOVED_P50)] if has_p50 else [])):
        moved = [[one[int(share * len(one))] for one in windows] for windows in (calm, disturbed)]
        by_chance = chance(*moved)
        shown = [" ".join(f"{1000 * one:.1f}" for one in found) for found in moved]
        said.append(
            f"p{100 * share:.0f} in ms: undisturbed {shown[0]}; disturbed {shown[1]}; by chance {by_chance:.3f}"
        )
        are_noise.append(median(moved[1]) <= factor * median(moved[0]) or by_chance > CHANCE)
    return all(are_noise), "\n".join(said)
