"""A loop's turns, waits and end."""

import threading
from queue import SimpleQueue

from regions.loop import Loop
from tests.waiting import until


def test_turns_follow_each_other_until_the_stop_and_then_comes_the_last_call():
    turns: list[str] = []
    loop = Loop("turns", lambda: turns.append("turn") or 0.0, last=lambda: turns.append("last"))
    loop.start()
    until(lambda: len(turns) > 3, "some turns")
    loop.stop()
    assert not loop.thread.is_alive()
    assert set(turns[:-1]) == {"turn"}
    assert turns[-1] == "last"


def test_a_stop_ends_a_long_wait_before_and_between_turns():
    turns: SimpleQueue[None] = SimpleQueue()
    waiting = Loop("waiting", lambda: turns.put(None) or 3600.0)
    waiting.start(3600.0)
    waiting.stop()
    assert not waiting.thread.is_alive()
    assert turns.empty()
    between = Loop("between", lambda: turns.put(None) or 3600.0)
    between.start()
    turns.get(timeout=30)
    between.stop()
    assert not between.thread.is_alive()


def test_a_turn_can_ask_whether_the_stop_has_come():
    begun = threading.Event()

    def turn() -> float:
        begun.set()
        loop.stopping.wait()
        return 0.0

    loop = Loop("asks", turn)
    loop.start()
    assert begun.wait(30)
    loop.stop()
    assert not loop.thread.is_alive()


def test_a_loop_that_never_started_can_be_stopped():
    Loop("never", lambda: 0.0).stop()


def test_waits_after_failures_grow_until_a_success():
    loop = Loop("failing", lambda: 0.0)
    for _ in range(20):
        assert 0 <= loop.backoff_seconds() <= 2.0
    assert loop.failures == 20


def test_a_loop_that_is_woken_waits_no_longer():
    turns: SimpleQueue[None] = SimpleQueue()
    loop = Loop("woken", lambda: turns.put(None) or float("inf"))
    loop.start(3600.0)
    for _ in range(3):
        loop.wake()
        turns.get(timeout=30)
    loop.stop()
    assert not loop.thread.is_alive()
    assert turns.empty()


def test_a_wake_during_a_turn_is_not_lost():
    begun, goes_on = threading.Event(), threading.Event()
    turns: list[int] = []

    def turn() -> float:
        turns.append(1)
        begun.set()
        assert goes_on.wait(30)
        return 3600.0

    loop = Loop("busy", turn)
    loop.start()
    assert begun.wait(30)
    loop.wake()
    goes_on.set()
    until(lambda: len(turns) == 2, "the next turn")
    loop.stop()
