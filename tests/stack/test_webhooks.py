"""``up`` runs a process that calls webhooks, and starts it again; an operator sees what it does."""

import json
import os
import signal

from tests.stack.driving import Ledger
from tests.waiting import until

WEBHOOK = {"url": "https://shop.example/hook?token=hidden", "secret": "whsec_" + "A" * 32}


def test_webhooks_are_called_by_a_process_of_up(stack):
    """By the proxy of this stack, which is not there: so nothing leaves this machine, and what was tried is shown."""
    ledger = Ledger(stack)
    before = until(lambda: stack.pids().get("webhooks"), "the process")
    os.kill(before, signal.SIGKILL)
    request = ledger.post(["ecb.rates"], webhook=WEBHOOK)
    ledger.collect(request)

    def tried():
        found = stack.get(f"/v1/requests/{request}")["webhook"]
        return found if found["attempts"] else None

    found = until(tried, "an attempt", 150)
    assert (found["url"], found["state"], found["status"]) == ("https://shop.example/hook?…", "due", None)
    assert "the proxy of egress webhooks" in found["error"]
    assert stack.pids()["webhooks"] != before
    listed = json.loads(stack.nearfetch("webhook", "list", "--json").stdout)
    assert {one["request"]: one["state"] for one in listed}[request] == "due"
    said = stack.log("webhooks") + stack.log("gateway")
    assert WEBHOOK["secret"] not in said
    assert "hidden" not in said
