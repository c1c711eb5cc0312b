"""The budget of a worker process: who waits, who never does, and that all get through."""

import random
import threading
import time

import pytest

from jobs import memory
from jobs.errors import Cancelled, TimedOut, TooLarge
from jobs.memory import Budget, Share
from tests.waiting import until

MB = 1_000_000


class Holder:
    """A task on a thread of its own: it takes each size in turn when it is told to, and then gives all back."""

    def __init__(self, owner: Budget, *sizes: int, seconds: float = 60.0) -> None:
        self.share: Share | None = None
        self.error: Exception | None = None
        self.cancelled = threading.Event()
        self.is_paused = False
        self.went_on = threading.Semaphore(0)
        self.taken = 0
        deadline = time.monotonic() + seconds
        self._thread = threading.Thread(target=self._run, args=(owner, sizes, deadline), daemon=True)
        self._thread.start()

    def _run(self, owner: Budget, sizes: tuple[int, ...], deadline: float) -> None:
        try:
            with owner.share(deadline, self.cancelled.is_set) as self.share:
                for size in sizes:
                    self.went_on.acquire()
                    memory.reserve(size, "a test")
                    self.taken += 1
                self.went_on.acquire()
        except Exception as error:  # noqa: BLE001 - it is what the test asks for
            self.error = error

    def take(self) -> None:
        """Takes the next; it has it, or waits for it, when this returns."""
        wanted = self.taken + 1
        self.went_on.release()
        until(lambda: self.taken == wanted or self.error or self._waits(), "a take or a wait")

    def _waits(self) -> bool:
        return self.share is not None and self.share in self.share._budget._waiting

    def end(self) -> None:
        self.went_on.release()
        self._thread.join(60)

    def has(self, count: int) -> bool:
        return until(lambda: self.taken == count, f"{count} takes")


@pytest.fixture
def shared() -> Budget:
    return Budget(300 * MB, 64)


def test_the_parts_of_the_default_are_within_the_whole(shared):
    parts = memory.PROCESS_BYTES + 64 * shared.small_bytes + shared.pool_bytes + shared.task_bytes
    assert 240 * MB < parts <= 300 * MB * (1 - memory.SPARE)
    assert shared.task_bytes >= 100 * MB


@pytest.mark.parametrize(("memory_mb", "threads"), [(150, 1), (150, 64), (150, 1024), (300, 1024), (2000, 4)])
def test_any_setting_leaves_every_part_something(memory_mb, threads):
    made = Budget(memory_mb * MB, threads)
    assert min(made.small_bytes, made.pool_bytes, made.task_bytes) > 0
    parts = memory.PROCESS_BYTES + threads * made.small_bytes + made.pool_bytes + made.task_bytes
    assert parts <= memory_mb * MB


def test_a_small_page_waits_for_nobody(shared):
    large = [Holder(shared, shared.pool_bytes), Holder(shared, shared.task_bytes)]
    for one in large:
        one.take()
        one.has(1)
    small = Holder(shared, shared.small_bytes)
    small.take()
    small.has(1)
    assert not shared._waiting
    for one in (*large, small):
        one.end()


def test_what_no_task_may_have_is_too_large(shared):
    with shared.share(time.monotonic() + 60, lambda: False), pytest.raises(TooLarge) as caught:
        memory.reserve(shared.task_bytes + shared.small_bytes + MB, "HTML of 9 bytes")
    most = (shared.task_bytes + shared.small_bytes) / MB
    assert f"at most {most:.1f} MB of memory (workers.memory_mb)" in str(caught.value)
    assert f"found HTML of 9 bytes, which would make it {most + 1:.1f} MB" in str(caught.value)


def test_two_that_hold_and_want_more_both_get_it(shared):
    """Neither waits for the other for ever: one is alone, then the other."""
    first, second = (Holder(shared, shared.pool_bytes // 2, shared.task_bytes // 2) for _ in range(2))
    for one in (first, second):
        one.take()
        one.has(1)
    first.take()
    first.has(2)
    second.take()
    assert second.taken == 1
    first.end()
    second.has(2)
    second.end()
    assert (shared._pooled, shared._exclusive, list(shared._waiting)) == (0, None, [])


def test_who_is_alone_may_take_more_while_others_wait(shared):
    alone = Holder(shared, shared.pool_bytes + shared.small_bytes + 1, MB, MB)
    waiting = Holder(shared, shared.pool_bytes + shared.small_bytes + 1)
    alone.take()
    alone.has(1)
    waiting.take()
    assert waiting.taken == 0
    for count in (2, 3):
        alone.take()
        alone.has(count)
    alone.end()
    waiting.has(1)
    waiting.end()


def test_those_who_wait_come_in_the_order_they_asked(shared):
    holders = [Holder(shared, shared.task_bytes) for _ in range(5)]
    for one in holders:
        one.take()
    for one in holders:
        one.has(1)
        assert sum(other.taken for other in holders) == holders.index(one) + 1
        one.end()


def test_a_wait_ends_at_the_deadline_as_a_fault_of_the_region(shared):
    first, second = Holder(shared, shared.task_bytes), Holder(shared, shared.task_bytes, seconds=0.3)
    first.take()
    second.take()
    error = until(lambda: second.error, "the end of the wait")
    assert isinstance(error, TimedOut)
    assert (error.whose, error.is_retryable) == ("region", True)
    assert "expected memory for a test before the deadline" in str(error)
    first.end()


def test_a_cancel_ends_a_wait(shared):
    first, second = Holder(shared, shared.task_bytes), Holder(shared, shared.task_bytes)
    first.take()
    second.take()
    second.cancelled.set()
    assert isinstance(until(lambda: second.error, "the end of the wait"), Cancelled)
    first.end()


def test_a_page_that_is_gone_gives_its_part_to_others(shared):
    with shared.share(time.monotonic() + 60, lambda: False) as share:
        memory.reserve(shared.task_bytes, "a test")
        other = Holder(shared, shared.task_bytes)
        other.take()
        assert other.taken == 0
        memory.keep(MB)
        assert share.held == MB
        other.has(1)
    other.end()


def test_taking_now_never_waits(shared):
    first = Holder(shared, shared.task_bytes)
    first.take()
    first.has(1)
    with shared.share(time.monotonic() + 60, lambda: False) as share:
        assert memory.reserve_now(shared.small_bytes)
        assert not memory.reserve_now(shared.pool_bytes + 1)
        assert share.held == shared.small_bytes
    first.end()


def test_documents_inside_a_page_take_turns_with_their_memory(shared):
    with shared.share(time.monotonic() + 60, lambda: False) as share:
        memory.reserve(MB, "a page")
        for size in (2 * MB, 5 * MB, 3 * MB):
            with memory.inside():
                memory.reserve(size, "a document in it")
        assert share.held == 6 * MB


def test_outside_a_task_nothing_is_counted():
    memory.reserve(10**12, "anything")
    memory.keep(0)
    with memory.inside():
        assert memory.reserve_now(10**12)
    assert memory.held() == 0


@pytest.fixture(params=range(3))
def chance(request) -> random.Random:
    print(f"seed {request.param}")
    return random.Random(request.param)


def test_many_that_grow_in_steps_all_end_and_never_hold_too_much(shared, chance):
    """32 threads grow by chance and give back by chance; the sum is watched, and every one ends."""
    most = 32 * shared.small_bytes + shared.pool_bytes + shared.task_bytes
    shares: set[Share] = set()
    ended, over = [], []

    def live(own: random.Random) -> None:
        with shared.share(time.monotonic() + 100, lambda: False) as share:
            shares.add(share)
            for _ in range(20):
                size = own.choice((1000, 100_000, MB, 10 * MB, 40 * MB))
                if share.held + size < shared.task_bytes:
                    memory.reserve(size, "a test")
                else:
                    memory.keep(own.choice((0, 1000, 2 * MB)))
                if sum(one.held for one in list(shares)) > most:
                    over.append(share.held)
        shares.discard(share)
        ended.append(share)

    threads = [threading.Thread(target=live, args=(random.Random(chance.random()),)) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert len(ended) == 32
    assert not over
    assert (shared._pooled, shared._exclusive, list(shared._waiting)) == (0, None, [])
