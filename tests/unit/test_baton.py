"""One thread of a process parses at a time, and nobody waits long for one that does not come to an end."""

import threading
import time

import pytest

from jobs.baton import LONG_SECONDS, Baton
from jobs.budget import Budget, reserve
from tests.waiting import until

THREADS = 12


class Counted:
    """How many threads are inside, and the most that were."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = self.most = self.all = 0

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            self.all += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1


def started(*lives) -> list[threading.Thread]:
    threads = [threading.Thread(target=life, daemon=True) for life in lives]
    for thread in threads:
        thread.start()
    return threads


def joined(threads) -> None:
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def test_one_thread_at_a_time_has_it():
    baton, counted = Baton(), Counted()

    def life() -> None:
        for _ in range(50):
            with baton.carried(), counted:
                time.sleep(0)  # an invitation to all others

    joined(started(*[life] * THREADS))
    assert (counted.most, counted.all) == (1, 50 * THREADS)


def test_it_is_given_back_where_something_goes_wrong():
    baton = Baton()
    with pytest.raises(ValueError, match="broken"), baton.carried():
        raise ValueError("broken")
    began = time.monotonic()
    with baton.carried():
        pass
    assert time.monotonic() - began < LONG_SECONDS


def test_who_keeps_it_is_left_behind_and_the_others_go_on_one_at_a_time():
    baton, counted, over = Baton(), Counted(), threading.Event()

    def keep() -> None:
        with baton.carried():
            over.wait(20)

    def life() -> None:
        for _ in range(20):
            with baton.carried(), counted:
                time.sleep(0.0005)

    keeping = started(keep)
    until(baton._lock.locked, "the one that keeps it")
    began = time.monotonic()
    joined(started(*[life] * THREADS))
    took = time.monotonic() - began
    over.set()
    joined(keeping)
    # Several may have taken new ones at the same moment; they do not go on doing so.
    assert counted.all == 20 * THREADS
    assert counted.most < THREADS
    assert took < 20 * THREADS * LONG_SECONDS / 4, "each wait is not a long one"
    with baton.carried():
        assert baton._lock.locked()


def test_who_waits_for_memory_does_not_keep_it_from_those_who_have_the_memory():
    """Else one would wait for the other's memory, and that one for the baton, until their deadlines."""
    budget, baton = Budget(150_000_000, 1), Baton()
    has_it, parsed = threading.Event(), threading.Event()
    most = budget.task_bytes

    def first() -> None:
        with budget.share(time.monotonic() + 20, lambda: False):
            reserve(most, "the first page")
            has_it.set()
            until(lambda: budget._waiting, "the second one, which waits for memory")
            with baton.carried():
                parsed.set()

    def second() -> None:
        has_it.wait(20)
        with budget.share(time.monotonic() + 20, lambda: False), baton.carried():
            reserve(most, "the second page")
            assert parsed.is_set()

    joined(started(first, second))
    assert parsed.is_set()
