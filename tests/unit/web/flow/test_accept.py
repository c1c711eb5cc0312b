"""When the budget of an accept ends, whatever else waits."""

import queue
import time

from tests.service.hub_parts import new_request
from tests.waiting import until
from web.flow.accept import _Clock, _Pending
from web.hub.tally import Tally


def test_a_budget_that_ends_before_those_that_wait_already_ends_in_time():
    """The begin of its request took longer than that of a later one."""
    over: queue.SimpleQueue[_Pending] = queue.SimpleQueue()
    clock = _Clock(over.put)
    clock.start()
    later, earlier = (_Pending(new_request(), lambda _: None, Tally()) for _ in range(2))
    clock.add(time.monotonic() + 3_600, later)
    until(lambda: clock._changed._waiters, "the clock to wait for the later one")
    clock.add(time.monotonic(), earlier)
    assert over.get(timeout=60) is earlier
    with clock._changed:
        clock._heap.clear()
    clock.stop()
