"""Bridge crash: ``kill -9`` between enqueue and ack; what comes again is seen to be there."""

import os
import signal

from tests.promises.driving import Ledger
from tests.waiting import freeze, until

REQUESTS, EACH = 5, 60
TRIES = 20  # requests at most, until a bridge was killed before it acked one: it does so within a second


def killed(stack, region: str) -> int:
    """Kills the bridge while it waits for the file. How many of its messages are in the queue again, before another bridge takes them."""
    bridge, supervisor = stack.pid(f"bridge-{region}"), stack.data.supervisor.pid
    freeze(supervisor)  # it starts no other bridge meanwhile
    try:
        until(lambda: stack.waits_for_the_file(region), "the bridge to wait for the append-only file")
        os.killpg(bridge, signal.SIGKILL)
        until(lambda: stack.held(region) == 0, "the broker to see that the bridge is gone")
        found = stack.redelivered(region)
    finally:
        os.killpg(supervisor, signal.SIGCONT)
    until(lambda: stack.pid(f"bridge-{region}") not in (0, bridge), "the bridge to be started again")
    return found


def test_a_killed_bridge_loses_nothing_and_what_is_redelivered_runs_once(stack):
    region = stack.regions[0]
    ledger = Ledger(stack)
    redelivered = 0
    while len(ledger.promised) < (REQUESTS if redelivered else TRIES):
        ledger.must_post([region] * EACH)
        if not redelivered:
            redelivered = killed(stack, region)
    print(f"{redelivered} messages were delivered again")
    assert redelivered >= 1
    ledger.check()
