"""A crowd of waiting clients, at a small scale: what each of them holds, what disturbs others, and how all of them leave.

``nearfetch bench --rows waiters`` measures the large scale.
"""

import contextlib
import gc
import itertools
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from tests.service.waiting_gateway import WaitingGateway
from tests.waiting import until
from tests.wire import Wire, ask
from web.api import events, wait
from web.api.events import Stream
from web.api.long_poll import Wait
from web.http.exchange import Exchange
from web.http.receive import Receiver
from web.http.server import Connection

CROWD = 300
# What is measured is 1,700 for a long poll, and 1,500 for a stream. It was 8,500 while each kept its environment and readers.
WAITER_BYTES_MAX = 3_000
KINDS = (Connection, Exchange, Wait, Stream, Receiver)


@pytest.fixture
def gateway(tmp_path, hub_redis, request) -> Iterator[WaitingGateway]:
    """A test marked ``deaf`` tells the news itself."""
    one = WaitingGateway(tmp_path, hub_redis.url, listens=not hasattr(request, "param"))
    yield one
    one.stop()


deaf = pytest.mark.parametrize("gateway", ["deaf"], indirect=True)


@pytest.fixture
def crowd(gateway) -> Iterator[Callable[..., list[Wire]]]:
    """Lets clients come, half of them by long polls and half by streams, each for one of ``requests``."""
    with contextlib.ExitStack() as stack:

        def come(requests: list[str], count: int = CROWD) -> list[Wire]:
            wires = [stack.enter_context(Wire(gateway.port)) for _ in range(count)]
            for number, wire in enumerate(wires):
                suffix = "?wait=60" if number % 2 else "/events"
                wire.send("GET", f"/v1/requests/{requests[number % len(requests)]}{suffix}")
            gateway.has_waiters(count)
            until(lambda: not gateway.waiters._due, "their first reads")
            return wires

        yield come


def alive() -> list[object]:
    return [one for one in gc.get_objects() if isinstance(one, KINDS)]


def test_a_waiting_client_holds_little(gateway, crowd):
    """Neither the environment of its call nor a reader, a writer or a timer of its own."""
    requests = [gateway.add()[0].id for _ in range(CROWD)]
    crowd(requests[:2], 2)  # what is made once
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        clients = [Wire(gateway.port) for _ in range(CROWD)]
        own = tracemalloc.get_traced_memory()[0] - before
        for number, (wire, request) in enumerate(zip(clients, requests, strict=True)):
            wire.send("GET", f"/v1/requests/{request}{'?wait=60' if number % 2 else '/events'}")
        gateway.has_waiters(CROWD + 2)
        until(lambda: not gateway.waiters._due, "their first reads")
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before - own
    finally:
        tracemalloc.stop()
        for wire in clients:
            wire.close()
    assert held / CROWD < WAITER_BYTES_MAX
    assert not any(isinstance(one, Receiver) for one in alive())


def test_what_a_client_held_is_free_when_it_has_gone(gateway, crowd):
    """Without the garbage collector: what it has to look for would be there until then, and looking stops all threads."""
    new, _ = gateway.add()
    gc.collect()
    known = alive()  # of other tests of this process; they are kept, so that nothing new gets the identity of one
    others = set(map(id, known))
    gc.disable()
    try:
        wires = crowd([new.id])
        assert len(alive()) - len(known) >= 3 * CROWD
        for wire in wires:
            wire.close()
        until(lambda: not gateway.server.connections, "all of them to be gone")
        # A thread's local names may hold the last one.
        until(lambda: sum(id(one) not in others for one in alive()) < 10, "what they held to be free")
    finally:
        gc.enable()


@deaf
def test_comments_read_only_the_requests_that_have_changed(gateway, crowd, monkeypatch):
    monkeypatch.setattr(events, "COMMENT_SECONDS", 0.2)
    requests = [gateway.add()[0] for _ in range(10)]
    read_many, reads = gateway.ledger.read_many, []

    def noted(asked, *arguments, **options):
        reads.extend(request for request, _ in asked)
        return read_many(asked, *arguments, **options)

    wires = crowd([new.id for new in requests], 40)[::2]  # the streams: four for each second request
    monkeypatch.setattr(gateway.ledger, "read_many", noted)
    streams = []
    for wire in wires:
        wire.head()
        streams.append(wire.events(comments=True))
    for stream in streams:
        assert [next(stream).name for _ in range(3)] == [":", ":", ":"]
    assert reads == []
    changed = requests[4]
    task = gateway.settle(changed, 0)
    for number, stream in enumerate(streams):
        told = next(event for event in itertools.islice(stream, 50) if event.name != ":" or number % 5 != 2)
        assert (told.data["task"] if told.name == "result" else told.name) == (task if number % 5 == 2 else ":")
    assert set(reads) == {changed.id}


def test_a_stream_whose_request_is_gone_ends_at_its_comment(gateway, crowd, monkeypatch):
    monkeypatch.setattr(events, "COMMENT_SECONDS", 0.2)
    new, _ = gateway.add()
    [wire] = crowd([new.id], 1)
    gateway.ledger.refuse(new.id, [(task.id, task.region) for task in new.tasks])
    wire.head()
    assert {event.name for event in wire.events(comments=True)} <= {":"}
    gateway.has_waiters(0)


def test_comments_come_while_the_hub_is_away_and_news_after_it(gateway, crowd, hub_redis, monkeypatch):
    monkeypatch.setattr(events, "COMMENT_SECONDS", 0.2)
    new, _ = gateway.add()
    [wire] = crowd([new.id], 1)
    wire.head()
    stream = wire.events(comments=True)
    hub_redis.running.stop()
    until(lambda: gateway.hub.away, "the outage to be seen")
    assert [next(stream).name for _ in range(5)] == [":"] * 5
    hub_redis.running.start()
    until(lambda: not gateway.hub.away, "the hub to be back")
    task = gateway.settle(new, 0)
    assert next(event for event in stream if event.name != ":").data["task"] == task


@deaf
def test_a_synchronous_call_is_not_behind_a_crowd(gateway, crowd, monkeypatch):
    """The crowd is answered in turns. The call is answered in the next one, though its news came last."""
    shared, own = gateway.add()[0], gateway.add()[0]
    wires = crowd([shared.id])
    with Wire(gateway.port) as wire:
        wire.send("GET", f"/call/{own.id}")
        gateway.has_waiters(CROWD + 1)
        until(lambda: not gateway.waiters._calls, "its first read")
        monkeypatch.setattr(wait, "ANSWER_AT_ONCE", 10)
        take, order = Wait.take, []

        def noted(waiter, view, why):
            order.append(waiter.request)
            return take(waiter, view, why)

        monkeypatch.setattr(Wait, "take", noted)
        for new in (shared, own):
            gateway.settle(new, 0)
        gateway.waiters.news([shared.id, own.id])
        assert wire.reply().body == b"called"
    for poll in wires[1::2]:
        assert poll.reply().status == 200
    assert order.index(own.id) <= 10 * 2  # a turn may have begun before


def test_a_crowd_is_told_of_one_result_each_once(gateway, crowd):
    new, _ = gateway.add()
    wires = crowd([new.id])
    task = gateway.settle(new, 0)
    for poll in wires[1::2]:
        assert [result["task"] for result in poll.reply().json()["results"]] == [task]
    for stream in wires[::2]:
        stream.head()
        assert [event.name for event in stream.events()] == ["result", "done"]
    gateway.has_waiters(0)
    assert all(not kept for kept in (gateway.waiters._takers, gateway.waiters._by_request))


def test_a_crowd_that_hangs_up_leaves_nothing_and_others_are_answered(gateway, crowd):
    kept, left = gateway.add()[0], gateway.add()[0]
    stays = crowd([kept.id], 2)
    with contextlib.ExitStack() as stack:
        for number in range(CROWD):
            wire = stack.enter_context(Wire(gateway.port))
            wire.send("GET", f"/v1/requests/{left.id}{'?wait=60' if number % 2 else '/events'}")
        gateway.has_waiters(CROWD + 2)
    gateway.has_waiters(2)
    assert ask(gateway.port, "GET", "/healthz").status == 200
    timers = itertools.chain.from_iterable(gateway.waiters._timers._by_tick.values())
    assert {waiter.request for waiter in timers} == {kept.id}
    task = gateway.settle(kept, 0)
    assert stays[1].reply().json()["results"][0]["task"] == task
