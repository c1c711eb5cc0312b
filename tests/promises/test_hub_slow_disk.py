"""DESIGN section 8, hub killed while its disk is slow: what it answered and had not written is gone with it.

With ``appendfsync everysec`` Redis answers while an fsync is pending, and writes up to 2 s later. Here each takes 1.5 s.
"""

import contextlib
import signal
import time

import pytest

from regions import connect
from tests.promises.driving import Ledger, Poster
from tests.waiting import until

POSTERS = 4
ROUNDS = 3
DEADLINE_SECONDS = 30.0
SOON_SECONDS = 1.0  # after a 202 the hub is killed within this


@pytest.fixture(autouse=True)
def hub_as_up_sets_it(stack):
    """No test here would say anything of another setting."""
    assert stack.redis("hub").config_get("appendfsync") == {"appendfsync": "everysec"}


def unwritten(stack) -> int:
    """Bytes that the hub has done, and keeps until an fsync is over."""
    with contextlib.suppress(*connect.AWAY):
        info = stack.redis("hub").info("persistence")
        return info["aof_buffer_length"] if info["aof_pending_bio_fsync"] else 0
    return 0


def kill(stack) -> None:
    """SIGKILL to the hub, and another one is there."""
    pid = stack.pid("hub")
    stack.signal("hub", signal.SIGKILL)
    until(lambda: stack.pid("hub") not in (0, pid), "another hub")


def hurt(stack, ledger: Ledger) -> None:
    """Posts while the disk is slow; kills the hub when an fsync is pending, and a 202 was given within the last second."""
    with contextlib.ExitStack() as opened:
        with stack.slow_disk():
            posters = [
                opened.enter_context(Poster(ledger, stack.regions, deadline=DEADLINE_SECONDS)) for _ in range(POSTERS)
            ]

            def is_moment(since: float) -> bool:
                return bool(unwritten(stack)) and any(one.accepted_since(since) for one in posters)

            until(lambda: unwritten(stack), "an fsync that is pending")
            began = time.monotonic()
            until(lambda: is_moment(max(began, time.monotonic() - SOON_SECONDS)), "a 202 while an fsync is pending")
            kill(stack)
        began = time.monotonic()
        until(lambda: all(one.accepted_since(began) for one in posters), "posts to be accepted again")


def test_no_202_and_no_result_is_lost_when_the_hub_is_killed_within_a_second_of_it(stack):
    ledger = Ledger(stack)
    for _ in range(ROUNDS):
        hurt(stack, ledger)
    print(f"{len(ledger.promised)} requests had a 202, {len(ledger.refused)} a 503")
    ledger.check(fetches=2)
