"""A gateway gives memory back after large answers: what it needs for an hour of small ones is what it needed before."""

from concurrent.futures import ThreadPoolExecutor

from regions.process import resident_bytes
from tests.service.gateway import GatewayProcess
from tests.service.hub_parts import accepted, settle
from tests.service.wire import Wire
from tests.waiting import until
from web.hub.ledger import Ledger

ANSWERS, ROUNDS = 20, 3
ANSWER_BYTES = 3_700_000
KEPT_BYTES_MAX = 40_000_000  # more than before them; a gateway that gives nothing back keeps far more


def test_memory_is_given_back_after_large_answers(own_stack):
    ledger, client = Ledger(own_stack.hub.client, own_stack.settings.limits), own_stack.hub.client
    paths = []
    for number in range(ANSWERS):
        new, _ = accepted(ledger)
        settle(ledger, client, new, 0, b'["%b"]' % (b"%07d" % number * (ANSWER_BYTES // 7)))
        paths.append(f"/v1/requests/{new.id}?wait=20")
    with GatewayProcess(own_stack) as gateway:

        def asked(path: str) -> int:
            with Wire(gateway.port, timeout_seconds=60) as wire:
                return len(wire.ask("GET", path).body)

        def rss() -> int:
            return resident_bytes([gateway.pid])[gateway.pid]

        before = most = rss()
        for _ in range(ROUNDS):
            with ThreadPoolExecutor(ANSWERS) as clients:
                assert min(clients.map(asked, paths)) > ANSWER_BYTES
            most = max(most, rss())
        print(f"resident: {before / 1e6:.0f} MB before, then up to {most / 1e6:.0f} MB")
        until(lambda: rss() < before + KEPT_BYTES_MAX, f"memory to be given back of {(most - before) / 1e6:.0f} MB")
        print(f"resident: {rss() / 1e6:.0f} MB at the end")
