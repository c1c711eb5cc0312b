"""As many clients as a gateway may hold, on a whole gateway: what it says at its start, who is refused, and how it ends."""

import contextlib
import signal

from tests.service.gateway import GatewayProcess
from tests.service.hub_parts import accepted
from tests.waiting import until
from tests.wire import Wire, ask
from web.hub.ledger import Ledger

FILES = 400
CLIENTS = FILES // 2  # the rest is left for the gateway's own files
LOWER_LIMIT = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES // 4}, {FILES}))"


def crowd(stack: contextlib.ExitStack, port: int, requests: list[str]) -> list[Wire]:
    """Clients that wait, half by long polls and half by streams."""
    wires = [stack.enter_context(Wire(port)) for _ in requests]
    for number, (wire, request) in enumerate(zip(wires, requests, strict=True)):
        wire.send("GET", f"/v1/requests/{request}{'?wait=60' if number % 2 else '/events'}")
    for wire in wires[::2]:
        assert wire.head()[0] == 200
    return wires


def test_a_gateway_says_how_many_clients_it_can_hold_and_refuses_only_more(own_stack):
    ledger = Ledger(own_stack.hub.client, own_stack.settings.limits)
    with GatewayProcess(own_stack, patch=LOWER_LIMIT) as gateway, contextlib.ExitStack() as stack:
        [line] = [line for line in gateway.said().splitlines() if '"few connections possible"' in line]
        assert f'"found":{CLIENTS},' in line
        assert f'"connections_max":{CLIENTS},' in gateway.said()
        health = stack.enter_context(Wire(gateway.port))
        assert health.ask("GET", "/healthz").status == 200
        request = accepted(ledger)[0].id
        health.send("GET", f"/v1/requests/{request}/events")  # else it would make room for the last of them
        assert health.head()[0] == 200
        wires = crowd(stack, gateway.port, [request] * (CLIENTS - 1))
        more = stack.enter_context(Wire(gateway.port))
        until(more.is_closed, "the client that is one too many to be refused")
        wires[0].close()
        until(lambda: _is_answered(gateway.port), "a client to take the place of one that left")
        assert not any(wire.is_closed() for wire in wires[2::2])


def test_a_gateway_that_stops_answers_a_crowd_or_ends_its_streams(own_stack):
    ledger = Ledger(own_stack.hub.client, own_stack.settings.limits)
    with GatewayProcess(own_stack) as gateway, contextlib.ExitStack() as stack:
        requests = [accepted(ledger)[0].id for _ in range(CLIENTS)]
        wires = crowd(stack, gateway.port, requests)
        gateway.process.send_signal(signal.SIGTERM)
        for number, (wire, request) in enumerate(zip(wires, requests, strict=True)):
            if number % 2:
                reply = wire.reply()
                assert (reply.json()["id"], reply.json()["done"], reply.headers["connection"]) == (
                    request,
                    False,
                    "close",
                )
            else:
                assert list(wire.events()) == []
        assert gateway.process.wait(60) == 0


def _is_answered(port: int) -> bool:
    with contextlib.suppress(ConnectionError):
        return ask(port, "GET", "/healthz").status == 200
    return False
