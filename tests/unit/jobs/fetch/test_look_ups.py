"""Look-ups of names in a process that is out of threads; tests/service/jobs/fetch/test_look_ups.py asks name servers."""

import socket
import threading
import time

import pytest

from jobs.fetch.exchange import Exchange
from jobs.fetch.route import LookUps


def test_whatever_a_look_up_raises_is_raised_where_the_name_was_asked_for():
    """In its own thread it would end the process, and all its tasks."""

    def resolve(_host: str, _port: int) -> list:
        raise ValueError("embedded null character")

    end = time.monotonic() + 60
    with pytest.raises(ValueError, match="embedded null"):
        LookUps().addresses(Exchange(None, end, lambda: False, end), resolve, "a.example", 80)


def test_a_look_up_that_gets_no_thread_takes_nobodys_place(monkeypatch):
    found = [(socket.AF_INET, ("192.0.2.1", 80))]
    look_ups = LookUps()

    def resolve(_host: str, _port: int) -> list:
        return found

    def addresses() -> list:
        end = time.monotonic() + 60
        return look_ups.addresses(Exchange(None, end, lambda: False, end), resolve, "a.example", 80)

    def refuse(_thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            addresses()
    assert addresses() == found
