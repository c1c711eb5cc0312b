"""The watchdog: it sleeps while no fetch runs, and misses none that begins."""

import math
import socket
import threading
import time

from jobs.fetch import exchange
from jobs.fetch.exchange import Exchange, Watchdog
from tests.waiting import until


class Noted(Watchdog):
    """Notes for how long it waits after each look."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        super().__init__()

    def _turn(self) -> float:
        self.waits.append(super()._turn())
        return self.waits[-1]


def began(seconds: float, cancelled=lambda: False) -> Exchange:
    deadline = time.monotonic() + seconds
    return Exchange(None, deadline, cancelled, deadline)  # type: ignore[arg-type]


def read_until_it_is_cut(watchdog: Watchdog, one: Exchange) -> type | None:
    """Reads from a connection whose other end says nothing. Returns why the watchdog ended that."""
    ours, theirs = socket.socketpair()
    with ours, theirs, watchdog.watching(one):
        one.hold(ours)
        ours.settimeout(30)
        assert ours.recv(1) == b""
        return one.reason()


def test_a_fetch_is_cut_also_if_the_watchdog_slept_and_sleeps_again_between(monkeypatch):
    monkeypatch.setattr(exchange, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(exchange, "QUIET_SECONDS", 0.0)
    watchdog = Noted()
    for _ in range(20):  # also at the moment at which it goes to sleep
        assert read_until_it_is_cut(watchdog, began(0.01)) is exchange.TimedOut
    is_over = threading.Event()
    threading.Timer(0.05, is_over.set).start()
    assert read_until_it_is_cut(watchdog, began(60, is_over.is_set)) is exchange.Cancelled
    watchdog.stop()


def test_it_watches_for_a_while_after_the_last_fetch_and_then_sleeps(monkeypatch):
    monkeypatch.setattr(exchange, "WATCH_SECONDS", 0.001)
    monkeypatch.setattr(exchange, "QUIET_SECONDS", 1.0)
    watchdog = Noted()
    assert read_until_it_is_cut(watchdog, began(0.01)) is exchange.TimedOut
    until(lambda: watchdog.waits[-1] == math.inf, "it to sleep")
    assert watchdog.waits[:-1] == [0.001] * (len(watchdog.waits) - 1)
    assert len(watchdog.waits) > 3
    watchdog.stop()
