"""DESIGN section 8, hub killed while its disk is slow: what it answered and had not written is gone with it.

With ``appendfsync everysec`` Redis answers while an fsync is pending, and writes up to 2 s later. Here each takes 1.5 s.
"""

import contextlib
import signal
import time

import pytest

from regions import connect, names
from tests.promises.driving import Ledger, Poster
from tests.waiting import until

POSTERS = 4
ROUNDS = 3
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


def test_no_202_is_lost_when_the_hub_is_killed_within_a_second_of_it(stack):
    ledger = Ledger(stack)
    for _ in range(ROUNDS):
        with contextlib.ExitStack() as opened:
            with stack.slow_disk():
                posters = [opened.enter_context(Poster(ledger, stack.regions, deadline=30.0)) for _ in range(POSTERS)]
                began = time.monotonic()
                until(
                    lambda: unwritten(stack) and any(one.accepted_since(began) for one in posters),
                    "202s of a slow disk",
                )
                began = time.monotonic()
                until(
                    lambda: (
                        unwritten(stack) and any(one.accepted_since(time.monotonic() - SOON_SECONDS) for one in posters)
                    ),
                    "a 202 while an fsync is pending",
                )
                kill(stack)
            began = time.monotonic()
            until(lambda: all(one.accepted_since(began) for one in posters), "posts to be accepted again")
    print(f"{len(ledger.promised)} requests had a 202, {len(ledger.refused)} a 503")
    ledger.check(fetches=2)
