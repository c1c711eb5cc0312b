"""A gateway gives memory back after large answers: what it needs for an hour of small ones is what it needed before."""

import contextlib
import os

from regions.process import Residents
from tests.service.gateway import GatewayProcess
from tests.service.hub_parts import accepted, settle
from tests.waiting import until
from tests.wire import Wire
from web.hub.ledger import Ledger

ANSWERS, ROUNDS = 16, 3
ANSWER_BYTES = 3_700_000
KEPT_BYTES_MAX = 30_000_000  # more than before them; a gateway that gives nothing back keeps twice that


def test_memory_is_given_back_after_large_answers(own_stack):
    ledger, client = Ledger(own_stack.hub.client, own_stack.settings.limits), own_stack.hub.client
    with GatewayProcess(own_stack) as gateway:

        def rss() -> int:
            return Residents().resident_bytes([gateway.pid])[gateway.pid]

        before = most = rss()
        for _ in range(ROUNDS):
            with contextlib.ExitStack() as stack:
                wires = [stack.enter_context(Wire(gateway.port, timeout_seconds=60)) for _ in range(ANSWERS)]
                waiting = [accepted(ledger)[0] for _ in wires]
                for wire, new in zip(wires, waiting, strict=True):
                    wire.send("GET", f"/v1/requests/{new.id}?wait=60")
                for new in waiting:
                    settle(ledger, client, new, 0, b'["%b"]' % os.urandom(ANSWER_BYTES // 2).hex().encode())
                assert min(len(wire.reply().body) for wire in wires) > ANSWER_BYTES
            most = max(most, rss())
        print(f"resident: {before / 1e6:.0f} MB before, {most / 1e6:.0f} MB after {ANSWERS} answers of 3.7 MB")
        until(lambda: rss() < before + KEPT_BYTES_MAX, f"memory to be given back of {(most - before) / 1e6:.0f} MB")
        print(f"resident: {rss() / 1e6:.0f} MB at the end")
