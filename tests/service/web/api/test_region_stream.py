"""The event stream of all regions, on a whole gateway: what changes is told once to each client, and read once for all of them."""

import contextlib
import time

import pytest

from regions import connect
from tests.service.gateway import Stack
from tests.waiting import until
from tests.wire import Wire, ask
from web.api import region_stream

STREAM = {"Accept": "text/event-stream"}
REGIONS = {"fra", "nyc", "sin"}


@contextlib.contextmanager
def watching(port: int, **headers: str):
    """A client, and the iterator of its events; comments are left out."""
    with Wire(port) as wire:
        wire.send("GET", "/v1/regions", {**STREAM, **headers})
        status, head = wire.head()
        assert (status, head["content-type"]) == (200, "text/event-stream; charset=utf-8")
        yield (event for event in wire.events() if event.name != ":")


def first(events) -> dict[str, dict]:
    """The regions as they come first."""
    found = [next(events) for _ in REGIONS]
    assert {event.name for event in found} == {"region"}
    return {event.data["name"]: event.data for event in found}


@pytest.fixture
def looks(own_stack, monkeypatch) -> list[float]:
    """When the gateway looked at the hub for its clients."""
    streams, found = own_stack.gateway.region_streams, []
    read = streams._read
    monkeypatch.setattr(streams, "_read", lambda: found.append(time.monotonic()) or read())
    return found


def say(stack: Stack, region: str, *, state: str = "consuming", **said) -> None:
    at_ms = connect.redis_now_ms(stack.region.redis)
    stack.region.say(region, "bridge", "b:1", at_ms=at_ms, state=state, **said)


def test_every_region_comes_first_and_then_what_has_changed(own_stack):
    with watching(own_stack.port) as events:
        views = first(events)
        assert set(views) == REGIONS
        assert "sources" not in views["fra"]
        assert {"p95_ms", "per_second"} <= set(views["fra"]["throughput"])
        say(own_stack, "fra", ready=7)
        told = next(events)
        assert (told.name, told.data["name"], told.data["queue"]["ready"]) == ("region", "fra", 7)
        until(lambda: own_stack.post({"sources": ["demo.plain"]}).status == 202, "a request to be accepted")
        while (told := next(events)).data["name"] != "nyc":
            pass
        assert told.data["queue"]["open"] == 1


def test_the_same_state_is_not_told_again(own_stack, looks):
    """Bridges report every 2 s: a report that says nothing new is no event."""
    say(own_stack, "fra", ready=7)
    until(lambda: _ready(own_stack) == 7, "the report")
    with watching(own_stack.port) as events:
        first(events)
        for _ in range(3):
            say(own_stack, "fra", ready=7, redis_used=int(time.monotonic()))
            before = len(looks)
            until(lambda before=before: len(looks) >= before + 2, "two looks")
        say(own_stack, "fra", ready=9)
        assert next(events).data["queue"]["ready"] == 9


def _ready(stack: Stack) -> int:
    return ask(stack.port, "GET", "/v1/regions/fra").json()["queue"]["ready"]


def test_the_hub_is_read_once_for_any_number_of_clients(own_stack, looks):
    """And not at all without one."""
    streams = own_stack.gateway.region_streams
    assert not looks
    with contextlib.ExitStack() as clients:
        for _ in range(20):
            first(clients.enter_context(watching(own_stack.port)))
        begun, at = len(looks), time.monotonic()
        until(lambda: len(looks) >= begun + 3, "three looks")
        assert len(looks) - begun <= (time.monotonic() - at) / region_stream.EVERY_SECONDS + 1
    until(lambda: not len(streams), "all clients to be gone")
    begun = len(looks)
    with watching(own_stack.port) as events:  # the next look is for this client
        first(events)
        assert len(looks) <= begun + 2


def test_an_outage_of_the_hub_is_told_and_then_every_region_again(own_stack):
    with watching(own_stack.port) as events:
        first(events)
        own_stack.hub.running.kill()
        told = next(events)
        assert told.name == "unavailable"
        assert "Redis" in told.data["reason"]
        own_stack.hub.running.start()
        assert set(first(events)) == REGIONS


def test_more_clients_than_it_serves_are_refused(own_stack, monkeypatch):
    monkeypatch.setattr(region_stream, "CLIENTS_MAX", 2)
    with watching(own_stack.port) as one, watching(own_stack.port) as other:
        first(one)
        first(other)
        assert ask(own_stack.port, "GET", "/v1/regions", STREAM).status == 503
    until(lambda: not len(own_stack.gateway.region_streams), "the clients to be gone")
    with watching(own_stack.port) as again:
        first(again)


def test_a_client_that_does_not_read_holds_nobody_up(own_stack):
    with Wire(own_stack.port, receive_bytes=1) as slow, watching(own_stack.port) as events:
        slow.send("GET", "/v1/regions", STREAM)
        first(events)
        for ready in range(1, 6):
            say(own_stack, "fra", ready=ready)
            assert next(events).data["queue"]["ready"] == ready


def test_streams_end_with_the_gateway(own_stack):
    with watching(own_stack.port) as events:
        first(events)
        own_stack.gateway.region_streams.stop()
        assert list(events) == []
        assert ask(own_stack.port, "GET", "/v1/regions", STREAM).status == 503
