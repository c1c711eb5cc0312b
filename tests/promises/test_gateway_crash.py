"""Gateway crash: ``kill -9`` with waiters and half-sent requests; clients go on where they were."""

import contextlib
import json
import os
import signal
import socket
import threading

import pytest

from regions import connect, names
from scripts.chaos import load
from scripts.chaos.points import POINTS
from tests.promises.driving import Ledger, losing, well
from tests.waiting import until
from tests.wire import Wire, ask

REQUESTS = 12
TRIES = 5
HALF = b"POST /v1/requests HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"


class Follower(threading.Thread):
    """A client with an event stream that goes on with its last id whenever it breaks."""

    def __init__(self, stack, request: str) -> None:
        super().__init__(daemon=True)
        self.client, self.request = load.Client(stack.port), request
        self.results: list[dict] = []
        self.breaks = 0
        self.is_done = False
        self.start()

    def run(self) -> None:
        last = ""
        while not self.is_done:
            try:
                for event in self.client.events(f"/v1/requests/{self.request}/events", last):
                    last = event.id or last
                    if event.name == "result":
                        self.results.append(event.data)
                    self.is_done = event.name == "done"
            except load.GONE:
                self.breaks += 1
                threading.Event().wait(0.1)


def unacknowledged(stack) -> int:
    """Entries of the regions' news that a gateway read and has not acknowledged."""
    with connect.open_redis(stack.server_url("hub"), name="test", block_seconds=30.0) as hub:
        return sum(hub.xpending(names.out_stream(region), names.GATEWAYS)["pending"] for region in stack.regions)


def test_no_202_is_broken_and_clients_go_on_without_a_gap_or_a_repeat(stack):
    """What the dead gateway had read of the regions' news and not settled is taken over by the next one."""
    ledger, gateway = Ledger(stack), stack.pid("gateway")
    half = [socket.create_connection(("127.0.0.1", stack.port), 60) for _ in range(5)]
    for connection in half:
        connection.sendall(HALF)
    requests = [ledger.must_post([*stack.regions, *stack.regions], seconds=index * 0.2) for index in range(REQUESTS)]
    followers = [Follower(stack, request) for request in requests]
    until(lambda: sum(len(follower.results) for follower in followers) >= 6, "the first results")
    is_lost = losing(stack, "gateway>hub")
    stack.control.swallow("gateway>hub", b"XREADGROUP", times=9)  # read, and never settled
    followers.append(Follower(stack, ledger.must_post(stack.regions)))  # at least its stream breaks
    until(lambda: is_lost() and unacknowledged(stack), "news to be read")
    os.killpg(gateway, signal.SIGKILL)
    stack.control.heal("gateway>hub")
    for connection in half:
        with contextlib.suppress(
            ConnectionError
        ):  # nothing was promised; after ten seconds it was told that it is slow
            assert connection.recv(100)[:12] in (b"", b"HTTP/1.1 408")
        connection.close()
    for follower in followers:
        follower.join(150)
        assert follower.is_done, f"{follower.request} is not done; {len(follower.results)} results"
        ledger.check_results(follower.request, follower.results, ledger.promised[follower.request])
    assert sum(follower.breaks for follower in followers) >= 1
    ledger.check()


def test_a_post_whose_gateway_died_after_its_accept_is_answered_by_its_key(stack):
    """Its client never learned the id; the same key brings the 202 of the same request, and nothing is fetched twice."""
    ledger = Ledger(stack)
    accept = next(point.request for point in POINTS if point.name == "accept")
    region = stack.regions[0]
    for _ in range(TRIES):
        well(stack)
        gateway = stack.pid("gateway")
        number = next(ledger.numbers)
        body = json.dumps(
            {"sources": [{"source": f"chaos.{region}", "params": {"n": number}}], "deadline": 60}
        ).encode()
        head = {"Content-Type": "application/json", "Idempotency-Key": f"order-{number}"}
        is_lost = losing(stack, "gateway>hub")
        stack.control.swallow("gateway>hub", accept, times=1)
        with Wire(stack.port) as wire:
            wire.send("POST", "/v1/requests", head, body)
            until(is_lost, "the accept to succeed")
            os.killpg(gateway, signal.SIGKILL)
            stack.control.heal("gateway>hub")
            with contextlib.suppress(ConnectionError):
                wire.head()
                continue  # this machine was slow, and the gateway has refused it in time
        break
    else:
        pytest.fail("the gateway was not killed between accept and answer")
    reply = until(lambda: _posted(stack.port, head, body), "the key to be answered", 150)
    assert (reply.status, reply.headers["idempotency-replayed"]) == (202, "true")
    promised = reply.json()
    ledger.promised[promised["id"]] = {promised["tasks"][0]["id"]: number}
    ledger.check()


def _posted(port: int, head: dict[str, str], body: bytes):
    """The answer of a post, once there is a gateway that can say whether it is true."""
    try:
        reply = ask(port, "POST", "/v1/requests", head, body)
    except OSError:
        return None
    return None if reply.status in (409, 503) else reply


def test_a_half_sent_request_is_no_request(stack):
    """It asked for nothing that could be promised, so nothing of it is fetched."""
    ledger = Ledger(stack)
    number = next(ledger.numbers)
    body = json.dumps({"sources": [{"source": f"chaos.{stack.regions[0]}", "params": {"n": number}}]}).encode()
    with Wire(stack.port) as wire:
        wire.socket.sendall(HALF.replace(b" 90", b" %d" % (len(body) + 1))[:-1] + body)
        ledger.must_post(stack.regions)
        wire.socket.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            assert wire.head()[0] in (400, 408)  # after ten seconds it was told that it is slow
    ledger.check()
    assert number not in ledger.fetches()
