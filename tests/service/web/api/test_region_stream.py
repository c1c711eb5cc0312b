"""The event stream of all regions, on a whole gateway: what changes is told once to each client, and read once for all of them."""

import contextlib
import time

import pytest

from regions import connect
from tests.service.gateway import Stack
from tests.waiting import until
from tests.wire import Wire, ask
from web.api import region_stream
from web.api.region_stream import without_ages
from web.hub.redis import HubAway

STREAM = {"Accept": "text/event-stream"}
REGIONS = {"fra", "nyc", "sin"}


@contextlib.contextmanager
def watching(port: int, **headers: str):
    """A client, and the iterator of its events; comments are left out."""
    with Wire(port) as wire:
        wire.send("GET", "/v1/regions", {**STREAM, **headers})
        status, head = wire.head()
        assert (status, head["content-type"]) == (200, "text/event-stream; charset=utf-8")
        yield wire.events()


def first(events) -> dict[str, dict]:
    """The regions as they come first."""
    found = [next(events) for _ in REGIONS]
    assert {event.name for event in found} == {"region"}
    return {event.data["name"]: event.data for event in found}


@pytest.fixture(autouse=True)
def _is_watched_by_nobody(request) -> None:
    """The clients of the test before may not be gone yet."""
    if "stack" in request.fixturenames:
        stack = request.getfixturevalue("stack")
        until(lambda: not len(stack.gateway.region_streams), "the clients before to be gone")


@pytest.fixture
def looks(stack, monkeypatch) -> list[float]:
    """When the gateway looked at the hub for its clients."""
    streams, found = stack.gateway.region_streams, []
    read = streams._read
    monkeypatch.setattr(streams, "_read", lambda: found.append(time.monotonic()) or read())
    return found


def say(stack: Stack, region: str, *, state: str = "consuming", **said) -> None:
    at_ms = connect.redis_now_ms(stack.region.redis)
    stack.region.say(region, "bridge", "b:1", at_ms=at_ms, state=state, **said)


def test_every_region_comes_first_and_then_what_has_changed(stack):
    with watching(stack.port) as events:
        views = first(events)
        assert set(views) == REGIONS
        assert "sources" not in views["fra"]
        assert {"p95_ms", "per_second"} <= set(views["fra"]["throughput"])
        say(stack, "fra", ready=7)
        while not ((told := next(events)).data["name"] == "fra" and told.data["queue"]["ready"] == 7):
            assert told.name == "region"
        until(lambda: stack.post({"sources": ["demo.plain"]}).status == 202, "a request to be accepted")
        while not ((told := next(events)).data["name"] == "nyc" and told.data["queue"]["open"] == 1):
            pass  # faults that begin are events of a region, too


def test_the_same_state_is_not_told_again(stack, looks):
    """Bridges report every 2 s: a report that says nothing new is no event."""
    say(stack, "fra", ready=7)
    until(lambda: _ready(stack) == 7, "the report")
    with watching(stack.port) as events:
        last = first(events)
        for _ in range(3):
            say(stack, "fra", ready=7, redis_used=int(time.monotonic()))
            before = len(looks)
            until(lambda before=before: len(looks) >= before + 2, "two looks")
        say(stack, "fra", ready=9)
        while last["fra"]["queue"]["ready"] != 9:
            told = next(events).data
            assert without_ages(told) != without_ages(last[told["name"]])
            last[told["name"]] = told


def _ready(stack: Stack) -> int:
    return ask(stack.port, "GET", "/v1/regions/fra").json()["queue"]["ready"]


def test_what_is_said_of_a_source_is_news_whatever_its_name_is():
    """``redis_ms`` of a bridge changes all the time; a source may have that name, too."""
    told = {"name": "fra", "bridges": [{"state": "consuming", "redis_ms": 1.0}], "left_alone": {}}
    assert without_ages(told) == without_ages({**told, "bridges": [{"state": "consuming", "redis_ms": 2.0}]})
    assert without_ages(told) != without_ages({**told, "left_alone": {"redis_ms": "10 failures in a row"}})


def test_the_hub_is_read_once_for_any_number_of_clients(stack, looks):
    """And not at all without one."""
    streams = stack.gateway.region_streams
    assert not looks
    with contextlib.ExitStack() as clients:
        for _ in range(20):
            first(clients.enter_context(watching(stack.port)))
        begun, at = len(looks), time.monotonic()
        until(lambda: len(looks) >= begun + 3, "three looks")
        assert len(looks) - begun <= (time.monotonic() - at) / region_stream.EVERY_SECONDS + 1
    until(lambda: not len(streams), "all clients to be gone")
    begun = len(looks)
    at = time.monotonic()
    with watching(stack.port) as events:  # the next look is for this client
        first(events)
        assert len(looks) - begun <= (time.monotonic() - at) / region_stream.EVERY_SECONDS + 2


def test_an_outage_of_the_hub_is_told_and_then_every_region_again(own_stack):
    with watching(own_stack.port) as events:
        first(events)
        own_stack.hub.running.kill()
        while (told := next(events)).name == "region":
            pass
        assert told.name == "unavailable"
        assert "Redis" in told.data["reason"]
        own_stack.hub.running.start()
        while (told := next(events)).name == "unavailable":
            pass
        assert {told.data["name"], *(next(events).data["name"] for _ in range(2))} == REGIONS


def test_a_region_that_has_not_changed_is_told_again_after_an_outage(stack, monkeypatch):
    """Whoever heard that the hub is away must hear that it is back."""
    streams = stack.gateway.region_streams
    view = streams._read()[0]
    answers = iter([[view], HubAway("away"), [view]])

    def read() -> list[dict]:
        answer = next(answers, [view])
        if isinstance(answer, HubAway):
            raise answer
        return answer

    monkeypatch.setattr(streams, "_read", read)
    with watching(stack.port) as events:
        assert [next(events).name for _ in range(3)] == ["region", "unavailable", "region"]


def test_a_region_that_is_served_no_more_is_gone_for_those_who_saw_it(stack, monkeypatch):
    streams = stack.gateway.region_streams
    one, other, *_ = streams._read()
    served = [one, other]
    monkeypatch.setattr(streams, "_read", lambda: list(served))
    with watching(stack.port) as events:
        assert {next(events).data["name"] for _ in range(2)} == {one["name"], other["name"]}
        served.remove(other)
        told = next(events)
        assert (told.name, told.data) == ("gone", {"name": other["name"]})
        served[:] = [{**one, "title": "Another"}]
        with watching(stack.port) as later:  # has never heard of the other one
            assert (next(later).name, next(events).name) == ("region", "region")


def test_more_clients_than_it_serves_are_refused(stack, monkeypatch):
    monkeypatch.setattr(region_stream, "CLIENTS_MAX", 2)
    with watching(stack.port) as one, watching(stack.port) as other:
        first(one)
        first(other)
        assert ask(stack.port, "GET", "/v1/regions", STREAM).status == 503
    until(lambda: not len(stack.gateway.region_streams), "the clients to be gone")
    with watching(stack.port) as again:
        first(again)


def test_a_client_that_does_not_read_holds_nobody_up(stack):
    with Wire(stack.port, receive_bytes=1) as slow, watching(stack.port) as events:
        slow.send("GET", "/v1/regions", STREAM)
        first(events)
        for ready in range(1, 4):
            say(stack, "fra", ready=ready)
            while next(events).data["queue"]["ready"] != ready:
                pass


def test_streams_end_with_the_gateway(own_stack):
    with watching(own_stack.port) as events:
        first(events)
        own_stack.gateway.region_streams.stop()
        assert list(events) == []
        assert ask(own_stack.port, "GET", "/v1/regions", STREAM).status == 503
