"""Answers with more results than one piece: read from the hub as their client takes them."""

import contextlib
import json

import pytest

from tests.service.waiting_gateway import WaitingGateway
from tests.waiting import until
from tests.wire import Wire, ask
from web.api import events, pieces
from web.hub.view import STATE_ONLY

RECORDS = b'["%b"]' % (b"x" * 100_000)


@pytest.fixture
def start_gateway(tmp_path, hub_redis):
    gateways = []

    def start(**environ) -> WaitingGateway:
        gateways.append(WaitingGateway(tmp_path, hub_redis.url, **environ))
        return gateways[-1]

    yield start
    for gateway in gateways:
        gateway.stop()


@pytest.fixture
def gateway(start_gateway) -> WaitingGateway:
    return start_gateway()


def path(new, query: str = "") -> str:
    return f"/v1/requests/{new.id}{query}"


def settled(gateway: WaitingGateway, tasks: int, of: int | None = None):
    """A request with so many results of 100 kB, and their tasks."""
    new, _ = gateway.add(of or tasks)
    return new, [gateway.settle(new, index, RECORDS) for index in range(tasks)]


@pytest.mark.parametrize("query", ["", "?wait=20", "?after=0-0&wait=20"])
def test_large_answer_is_one_document_and_the_connection_serves_on(gateway, query):
    new, tasks = settled(gateway, 12)
    with Wire(gateway.port) as wire:
        reply = wire.ask("GET", path(new, query))
        assert (reply.status, reply.headers["transfer-encoding"]) == (200, "chunked")
        found = reply.json()
        assert [result["task"] for result in found["results"]] == tasks
        assert all(result["records"] == json.loads(RECORDS) for result in found["results"])
        assert (found["done"], found["more"], found["completed"], found["total"]) == (True, False, 12, 12)
        rest = wire.ask("GET", path(new, f"?after={found['cursor']}")).json()
        assert {**found, "results": []} == rest


def test_answer_in_pieces_ends_at_the_limit_of_an_answer(start_gateway):
    gateway = start_gateway(NEARFETCH__LIMITS__ANSWER_BYTES_MAX="750000")
    new, tasks = settled(gateway, 20)
    seen, after, answers, is_more = [], "0-0", 0, True
    while is_more:
        reply = ask(gateway.port, "GET", path(new, f"?after={after}"))
        assert len(reply.body) < 760_000
        found = reply.json()
        seen += [result["task"] for result in found["results"]]
        after, is_more = found["cursor"], found["more"]
        answers += 1
    assert seen == tasks
    assert answers == 3  # of seven, seven and six results


def test_what_is_settled_meanwhile_belongs_to_the_next_answer(gateway):
    new, tasks = settled(gateway, 12, of=14)
    with Wire(gateway.port, receive_bytes=16_384) as slow:
        slow.send("GET", path(new))
        until(lambda: len(gateway.waiters) == 1, "the rest of the answer to wait")
        later = [gateway.settle(new, 12), gateway.settle(new, 13)]
        found = slow.reply().json()
        assert [result["task"] for result in found["results"]] == tasks
        assert (found["done"], found["completed"], found["more"]) == (False, 12, False)
        rest = slow.ask("GET", path(new, f"?after={found['cursor']}")).json()
        assert [result["task"] for result in rest["results"]] == later
        assert rest["done"]


def test_etag_saves_a_large_answer_that_did_not_change(gateway):
    new, _ = settled(gateway, 12, of=13)
    with Wire(gateway.port) as wire:
        etag = wire.ask("GET", path(new)).headers["etag"]
        assert wire.ask("GET", path(new)).headers["etag"] == etag
        assert wire.ask("GET", path(new), {"If-None-Match": etag}).status == 304
        gateway.settle(new, 12, RECORDS)
        changed = wire.ask("GET", path(new), {"If-None-Match": etag})
        assert (changed.status, len(changed.json()["results"])) == (200, 13)
        assert changed.headers["etag"] != etag


def test_head_and_http_1_0_of_a_large_answer(gateway):
    new, tasks = settled(gateway, 12)
    with Wire(gateway.port) as wire:
        assert wire.ask("HEAD", path(new)).status == 200
        wire.send("GET", path(new), version="1.0")
        assert [result["task"] for result in wire.reply().json()["results"]] == tasks
        assert wire.is_closed()
    until(lambda: len(gateway.waiters) == 0, "the gateway to have let go of it")


def test_slow_readers_hold_a_piece_each_and_no_result_is_read_before_it_is_wanted(gateway, monkeypatch):
    monkeypatch.setattr(pieces, "AWAY_MAX_SECONDS", 0.1)  # nor by the clock
    new, tasks = settled(gateway, 60)  # 6 MB
    read_many, read = gateway.ledger.read_many, []

    def reads(asked, *arguments, **options):
        found = read_many(asked, *arguments, **options)
        # A poll that waits for the hub's file reads the state alone at first.
        read.extend(view.cursor for view in found[0] if view is not None and view.cursor != STATE_ONLY)
        return found

    monkeypatch.setattr(gateway.ledger, "read_many", reads)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Wire(gateway.port, receive_bytes=16_384)) for _ in range(20)]
        for wire in slow:
            wire.send("GET", path(new))
        until(
            lambda: len(gateway.waiters) == 20 and all(one.backlog for one in gateway.server.outlet.open),
            "all to be stuck",
        )
        looked = len(read)
        until(lambda: len(read) > looked + 60, "the clock to have looked a few times")
        assert gateway.server.outlet.quota.held <= 20 * 300_000
        assert ask(gateway.port, "GET", "/healthz").status == 200
        assert max(read) < gateway.ledger.read(new.id, bytes_max=10_000_000).cursors[20]
        for wire in slow:
            assert [result["task"] for result in wire.reply().json()["results"]] == tasks
    until(lambda: gateway.server.outlet.quota.held == 0, "the room to be given back")
    gateway.has_waiters(0)


def test_news_are_not_read_for_who_is_behind(gateway, monkeypatch):
    """An event stream whose client reads nothing is not read again and again for what it can't be sent."""
    monkeypatch.setattr(events, "COMMENT_SECONDS", 600.0)
    new, tasks = settled(gateway, 40, of=60)
    with Wire(gateway.port, receive_bytes=16_384) as stuck:
        stuck.send("GET", f"{path(new)}/events")
        until(lambda: any(one.backlog for one in gateway.server.outlet.open), "the stream to be stuck")
        read_many, read = gateway.ledger.read_many, []

        def reads(asked, *arguments, **options):
            read.extend(asked)
            return read_many(asked, *arguments, **options)

        monkeypatch.setattr(gateway.ledger, "read_many", reads)
        tasks += [gateway.settle(new, number, RECORDS) for number in range(40, 60)]
        assert ask(gateway.port, "GET", path(new, "?after=99999999999999-0&wait=0")).json()["done"]
        assert [cursor for _, cursor in read if cursor != "99999999999999-0"] == []
        stuck.head()
        told = list(stuck.events())
        assert [event.data["task"] for event in told[:-1]] == tasks
        assert told[-1].name == "done"


def test_client_that_hangs_up_in_the_middle_does_not_wait_any_more(gateway):
    new, _ = settled(gateway, 60)
    with Wire(gateway.port, receive_bytes=16_384) as wire:
        wire.send("GET", path(new))
        gateway.has_waiters(1)
    gateway.has_waiters(0)
    until(lambda: gateway.server.outlet.quota.held == 0, "the room to be given back")


def test_answer_goes_on_after_a_restart_of_the_hub(gateway, hub_redis, monkeypatch):
    monkeypatch.setattr(pieces, "AWAY_MAX_SECONDS", 600.0)
    new, tasks = settled(gateway, 60)
    with Wire(gateway.port, receive_bytes=16_384) as wire:
        wire.send("GET", path(new))
        gateway.has_waiters(1)
        hub_redis.crash()
        read = wire.file.read(200_000)
        until(lambda: gateway.hub.state, "the outage to be noticed")
        hub_redis.running.start()
        wire.file = _Joined(read, wire.file)
        assert [result["task"] for result in wire.reply().json()["results"]] == tasks


def test_hub_that_stays_away_cuts_the_answer(gateway, hub_redis, monkeypatch):
    monkeypatch.setattr(pieces, "AWAY_MAX_SECONDS", 0.2)
    new, _ = settled(gateway, 60)
    with Wire(gateway.port, receive_bytes=16_384) as wire:
        wire.send("GET", path(new))
        gateway.has_waiters(1)
        hub_redis.crash()
        wire.head()
        with pytest.raises((ValueError, ConnectionError)):  # no chunk where one should be
            list(wire.chunks())
    gateway.has_waiters(0)


class _Joined:
    """What was read of a file already, and its rest."""

    def __init__(self, read: bytes, file) -> None:
        self._read, self._file = read, file

    def read(self, size: int = -1) -> bytes:
        found, self._read = self._read[:size], self._read[size:]
        return found + self._file.read(size - len(found)) if len(found) < size else found

    def readline(self) -> bytes:
        at = self._read.find(b"\n") + 1
        if at:
            return self.read(at)
        return self.read(len(self._read)) + self._file.readline()

    def close(self) -> None:
        self._file.close()
