"""Bridge crash: ``kill -9`` between enqueue and ack; what comes again is seen to be there."""

import signal

from tests.promises.driving import Ledger
from tests.waiting import until

REQUESTS, EACH = 5, 60


def test_a_killed_bridge_loses_nothing_and_what_is_redelivered_runs_once(stack):
    region = stack.regions[0]
    ledger = Ledger(stack)
    redelivered = 0
    for _ in range(REQUESTS):
        ledger.must_post([region] * EACH)
        if not redelivered:
            until(lambda: stack.waits_for_the_file(region), "the bridge to wait for the append-only file")
            pid = stack.pid(f"bridge-{region}")
            stack.signal(f"bridge-{region}", signal.SIGKILL)
            redelivered = stack.redelivered(region)
            until(lambda before=pid: stack.pid(f"bridge-{region}") not in (0, before), "the bridge to be started again")
    print(f"{redelivered} messages were delivered again")
    assert redelivered >= 1
    ledger.check()
