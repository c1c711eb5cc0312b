"""DESIGN section 8, central Redis crash: results that come home while it is dead wait in their regions."""

import signal

from tests.promises.driving import Ledger, Poster
from tests.waiting import until


def test_nothing_is_lost_when_the_central_redis_is_killed_while_results_come_home(stack):
    ledger = Ledger(stack)
    with Poster(ledger, stack.regions, seconds=0.3) as poster:
        until(lambda: len(poster.accepted_at) > 10, "accepts")
        stack.signal("hub", signal.SIGSTOP)  # results are sent to it from now on, and are not answered
        until(lambda: len(ledger.refused) >= 2, "refusals")
        stack.signal("hub", signal.SIGKILL)
        count = len(poster.accepted_at)
        until(lambda: len(poster.accepted_at) > count, "posts to be accepted again")
    ledger.check()
