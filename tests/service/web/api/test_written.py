"""What the hub has not written to its file yet is not told, on a real Redis whose disk is made to look slow.

A killed hub forgets it: the same result comes again, with a later cursor.
"""

import contextlib

import pytest

from regions import durability
from tests.service.waiting_gateway import WaitingGateway
from tests.waiting import until
from tests.wire import Wire, ask
from web.api import events
from web.hub import ledger

WAYS = ["", "?after=0-0", "?wait=30", "?after=0-0&wait=30"]


class Disk:
    """The hub's file as the gateway sees it; ``looks`` counts how often."""

    def __init__(self, monkeypatch, gateway) -> None:
        self._waiters = gateway.waiters
        self.looks, self._size, self._is_slow = 0, 1, True
        monkeypatch.setattr(ledger.durability, "file_of", self._file_of)

    def _file_of(self, _: bytes) -> durability.File:
        found = durability.File(1, 10, 0, self._size) if self._is_slow else durability.File()
        self.looks += 1  # only now: who has seen this look may let the disk write
        return found

    def writes(self) -> None:
        """What was done by now is in the file; an fsync is pending again."""
        self._size += 1

    def is_seen(self) -> None:
        """Waits until the gateway keeps something back, and has looked at the file twice since: its other threads look, too."""
        until(lambda: self._waiters._unwritten, "something to be kept back")
        before = self.looks
        until(lambda: self.looks >= before + 2, "two looks at the hub's file")


@pytest.fixture
def gateway(tmp_path, hub_redis):
    made = WaitingGateway(tmp_path, hub_redis.url)
    yield made
    made.stop()


@pytest.fixture
def disk(gateway, monkeypatch):
    return Disk(monkeypatch, gateway)


def path(new, query: str = "") -> str:
    return f"/v1/requests/{new.id}{query}"


def tasks_of(reply) -> list[str]:
    return [result["task"] for result in reply.json()["results"]]


@pytest.mark.parametrize("query", WAYS)
def test_poll_is_answered_when_the_hub_has_written_what_it_read(gateway, disk, query):
    new, _ = gateway.add()
    task = gateway.settle(new, 0)
    with Wire(gateway.port) as wire:
        wire.send("GET", path(new, query))
        disk.is_seen()
        assert not wire.has_answer()
        disk.writes()
        assert tasks_of(wire.reply()) == [task]


def test_stream_tells_a_result_when_the_hub_has_written_it(gateway, disk, monkeypatch):
    monkeypatch.setattr(events, "COMMENT_SECONDS", 600.0)  # on a busy machine two looks take longer than 15 s
    new, _ = gateway.add(2)
    with Wire(gateway.port) as wire:
        wire.send("GET", f"{path(new)}/events")
        wire.head()
        assert wire.chunk().startswith(b"retry: ")
        first = gateway.settle(new, 0)
        disk.is_seen()
        assert not wire.has_answer()
        second = gateway.settle(new, 1)
        disk.writes()
        told = wire.events()
        assert next(told).data["task"] == first
        until(lambda: gateway.waiters._unwritten, "the second to be kept back: it came after the file was read")
        disk.is_seen()
        disk.writes()
        assert [next(told).data["task"], next(told).name] == [second, "done"]


@pytest.mark.parametrize("query", WAYS)
def test_result_that_the_hub_forgot_is_told_when_it_comes_again(gateway, disk, hub_redis, query):
    new, _ = gateway.add()
    size = hub_redis.written()
    gateway.settle(new, 0)
    with Wire(gateway.port) as wire:
        wire.send("GET", path(new, query))
        disk.is_seen()
        hub_redis.forget(size)
        disk.writes()  # what started again has read its file
        if "wait" in query:
            until(lambda: gateway.hub.away is None, "the hub to be back")
            task = gateway.settle(new, 0)
            disk.is_seen()
            # What was read before it was forgotten is read again at any time from now on, and is written after that.
            until(lambda: disk.writes() or wire.has_answer(), "the answer")
            assert tasks_of(wire.reply()) == [task]
        else:
            found = wire.reply().json()
            assert (found.get("status"), found.get("results", [])) in [("running", []), (503, [])]


def test_cancel_is_told_when_the_hub_has_written_it(gateway, disk):
    new, _ = gateway.add(2)
    task = gateway.settle(new, 0)
    with Wire(gateway.port) as wire:
        wire.send("DELETE", path(new))
        disk.is_seen()
        assert not wire.has_answer()
        disk.writes()
        found = wire.reply()
        assert (found.status, found.json()["status"]) == (200, "cancelled")
        assert tasks_of(found)[0] == task


def test_cancel_that_the_hub_forgot_is_refused(gateway, disk, hub_redis):
    new, _ = gateway.add()
    size = hub_redis.written()
    with Wire(gateway.port) as wire:
        wire.send("DELETE", path(new))
        disk.is_seen()
        hub_redis.forget(size)
        disk.writes()  # what started again has read its file
        assert wire.reply().status == 503
    until(lambda: gateway.hub.away is None, "the hub to be back")
    assert ask(gateway.port, "GET", path(new)).json()["status"] == "running"


def test_poll_whose_time_is_over_is_answered_when_the_hub_has_written(gateway, disk):
    new, _ = gateway.add(2)
    task = gateway.settle(new, 0)
    with Wire(gateway.port) as wire:
        wire.send("GET", path(new, "?wait=0.1"))
        until(lambda: len(gateway.waiters) == 1, "the poll to wait")
        disk.is_seen()
        until(lambda: not gateway.waiters._timers._by_tick, "its time to be over")
        disk.is_seen()
        assert not wire.has_answer()
        disk.writes()
        assert tasks_of(wire.reply()) == [task]


def test_closing_gateway_answers_when_the_hub_has_written(gateway, disk):
    new, _ = gateway.add(2)
    task = gateway.settle(new, 0)
    with Wire(gateway.port) as poll, Wire(gateway.port) as other:
        poll.send("GET", path(new, "?after=0-0&wait=30"))
        other.send("GET", path(gateway.add()[0], "?wait=30"))
        gateway.has_waiters(2)
        disk.is_seen()
        gateway.waiters.close()
        assert other.reply().json()["results"] == []
        disk.writes()
        assert tasks_of(poll.reply()) == [task]


def test_client_that_hangs_up_meanwhile_does_not_wait_any_more(gateway, disk):
    new, _ = gateway.add()
    gateway.settle(new, 0)
    with Wire(gateway.port) as wire:
        wire.send("GET", path(new, "?after=0-0&wait=30"))
        disk.is_seen()
    gateway.has_waiters(0)
    assert ask(gateway.port, "GET", path(gateway.add()[0])).json()["status"] == "running"
    until(lambda: not gateway.waiters._unwritten, "nobody to wait for the file")


def test_hub_that_goes_away_meanwhile_is_waited_for(gateway, disk, hub_redis):
    new, _ = gateway.add(2)
    task = gateway.settle(new, 0)
    with Wire(gateway.port) as wire:
        wire.send("GET", path(new, "?after=0-0&wait=60"))
        disk.is_seen()
        hub_redis.crash()
        until(lambda: gateway.hub.away, "the hub to be away")
        hub_redis.running.start()
        until(lambda: not gateway.hub.away, "the hub to be back")
        disk.is_seen()
        disk.writes()
        assert tasks_of(wire.reply()) == [task]


def test_results_are_looked_up_when_they_can_be_shown(gateway, disk):
    """A slow disk lets thousands wait, and a look comes every 20 ms: it asks for the file alone."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(gateway.port)) for _ in range(5)]
        for wire in wires:
            new, _ = gateway.add()
            gateway.settle(new, 0)
            wire.send("GET", path(new, "?after=0-0&wait=30"))
        until(lambda: len(gateway.waiters._unwritten) == len(wires), "all to wait for the file")
        gateway.hub.client.config_resetstat()
        disk.is_seen()
        assert "cmdstat_xrange" not in gateway.hub.client.info("commandstats")
        disk.writes()
        assert all(wire.reply().status == 200 for wire in wires)
