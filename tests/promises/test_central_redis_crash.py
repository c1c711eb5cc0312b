"""Central Redis crash: it is killed in the middle of things, as it is set; what comes home meanwhile waits."""

import signal

from tests.promises.driving import Ledger, Poster
from tests.waiting import until

KILLS = 2
DEADLINE_SECONDS = 60.0


def test_nothing_is_lost_when_the_central_redis_is_killed_while_results_come_home(stack):
    """Nobody freezes it first, or lets it write: what it has answered it must have."""
    ledger = Ledger(stack)
    assert stack.redis("hub").config_get("appendfsync") == {"appendfsync": "everysec"}
    with Poster(ledger, stack.regions, seconds=0.3, deadline=DEADLINE_SECONDS) as poster:
        for _ in range(KILLS):
            count = len(poster.accepted_at)
            until(lambda least=count: len(poster.accepted_at) > least + 10, "accepts")
            pid = stack.pid("hub")
            stack.signal("hub", signal.SIGKILL)
            until(lambda dead=pid: stack.pid("hub") not in (0, dead), "another hub")
    ledger.check(fetches=2)
