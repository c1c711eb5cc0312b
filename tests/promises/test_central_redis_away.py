"""DESIGN section 8, central Redis away: 503 within a second, no call hangs, and what was finished in time has succeeded.

The suite keeps it away for some seconds, with a gateway that has just started, since a gateway lets late results win for
15 s in any 60. ``AWAY_SECONDS=60 scripts/test tests/promises/test_central_redis_away.py`` does what the promise says.
"""

import os
import signal
import time

import pytest

from scripts.links import Rule
from tests.promises.driving import SOON, Ledger, ask, well

AWAY_SECONDS = float(os.environ.get("AWAY_SECONDS", "4"))
DEADLINE_SECONDS = 2.0  # and a second of grace: both are over long before it is back
HOME_SECONDS = 2.0  # later than the gateway the regions have it back
PATIENCE_SECONDS = 13.0  # of the 15 s of a gateway that has just started
TRIES = 3


def go_away(stack, how: str) -> None:
    if how == "stopped":
        stack.stop_part("hub")
    else:
        stack.signal("hub", signal.SIGSTOP)


def come_back(stack, how: str) -> None:
    if how == "stopped":
        stack.start_part("hub")
    else:
        stack.signal("hub", signal.SIGCONT)


def be_away(stack, ledger: Ledger, how: str) -> float:
    """One outage; how long it took from the start of the gateway until results could come home."""
    started = time.monotonic()
    if AWAY_SECONDS < 60:
        stack.stop_part("gateway")
        stack.start_part("gateway")
        started = time.monotonic()
        well(stack)
    promised = ledger.must_post(stack.regions * 3, seconds=0.5, deadline=DEADLINE_SECONDS)
    ways = [f"workers-{region}>hub" for region in stack.regions]
    for link in ways:
        stack.control.rule(link, Rule(accepts=False))
        stack.control.cut(link)
    go_away(stack, how)
    ended = time.monotonic() + AWAY_SECONDS
    try:
        while time.monotonic() < ended:
            for path in (f"/v1/requests/{promised}", "/v1/regions", "/readyz"):
                began = time.monotonic()
                assert ask(stack, "GET", path)[0] == 503, path
                ledger.slowest = max(ledger.slowest, time.monotonic() - began)
            assert ledger.post(stack.regions) is None
            assert ask(stack, "GET", "/healthz")[0] == 200
    finally:
        come_back(stack, how)
    time.sleep(HOME_SECONDS)  # the outage of the regions goes on for so long
    for link in ways:
        stack.control.heal(link)
    return time.monotonic() - started


@pytest.mark.timeout(240 + 4 * AWAY_SECONDS)
@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_calls_end_within_a_second_and_what_finished_by_its_deadline_is_succeeded(stack, how):
    for _ in range(TRIES):
        ledger = Ledger(stack)
        took = be_away(stack, ledger, how)
        assert ledger.slowest < SOON
        if AWAY_SECONDS >= 60 or took < PATIENCE_SECONDS:
            break
    else:
        pytest.skip("this machine is too slow to be back within the 15 s of a gateway")
    print(f"slowest answer {ledger.slowest:.2f} s; {len(ledger.refused)} refused")
    ledger.check()
