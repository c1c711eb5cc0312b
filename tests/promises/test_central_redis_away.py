"""Central Redis away: 503 within a second, no call hangs, and what was finished in time has succeeded.

The gateway that regains it has long been up, so that the grace of its own start is over, and all of regaining's is there.
In the suite it is away for some seconds, long past the deadlines of what it does not get; the promise's 60 s:

    AWAY_SECONDS=60 python -m pytest -s tests/promises/test_central_redis_away.py
"""

import json
import os
import signal
import time
from datetime import UTC, datetime

import pytest

from scripts.stack.wan_links import Rule
from tests.promises.driving import SOON_SECONDS, Ledger
from tests.waiting import until
from tests.wire import ask
from web.flow.sweep import GRACE_WINDOW_SECONDS

AWAY_SECONDS = float(os.environ.get("AWAY_SECONDS", "4"))
DEADLINE_SECONDS = 2.0  # and a second of grace: both are over long before it is back
HOME_SECONDS = 2.0  # later than the gateway the regions have it back: time for eight sweeps
BEGIN_A_GRACE = ("serving", "redis reached", "broker reached")  # events of its log
PAUSE_SECONDS = 0.05  # between two rounds of calls


def steady_seconds(stack) -> float:
    """How long ago the gateway began, or regained a server."""
    lines = (stack.data.log / "gateway.log").read_text(encoding="utf-8").splitlines()
    said = [json.loads(line) for line in lines if line.startswith("{")]
    last = max(line["timestamp"] for line in said if line["event"] in BEGIN_A_GRACE)
    return (datetime.now(UTC) - datetime.fromisoformat(last)).total_seconds()


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


def be_away(stack, ledger: Ledger, how: str) -> None:
    """One outage; every call during it is refused, and noted with the time that it took."""
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
                ledger.must_refuse(path)
            assert ledger.post(stack.regions) is None
            assert [ask(stack.port, "GET", path).status for path in ("/healthz", "/v1/sources")] == [200, 200]
            time.sleep(PAUSE_SECONDS)
    finally:
        come_back(stack, how)
    until(lambda: ask(stack.port, "GET", "/readyz").status == 200, "the gateway to have it back")
    back = time.monotonic()
    until(lambda: time.monotonic() - back > HOME_SECONDS, "the outage of the regions to end")
    for link in ways:
        stack.control.heal(link)


@pytest.mark.timeout(400 + 2 * AWAY_SECONDS)
@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_calls_end_within_a_second_and_what_finished_by_its_deadline_is_succeeded(stack, how):
    ledger = Ledger(stack)
    calm = ledger.calm(stack.regions)
    again = time.monotonic() + GRACE_WINDOW_SECONDS - steady_seconds(stack)
    until(
        lambda: time.monotonic() > again and steady_seconds(stack) > GRACE_WINDOW_SECONDS,
        "a grace to begin again",
        2 * GRACE_WINDOW_SECONDS,
    )
    be_away(stack, ledger, how)
    calm = max(calm, ledger.calm(stack.regions))
    slowest = max(ledger.refusals)
    print(f"slowest of {len(ledger.refusals)} refusals: {slowest:.2f} s; posts without a fault {calm:.2f} s")
    assert slowest <= SOON_SECONDS + calm
    ledger.check()
