"""Clock steps: a region's Redis host, an hour forth and back. Nothing expires falsely, nothing stays shut."""

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from regions import names
from scripts.chaos import clocks
from tests.promises.driving import Ledger, Poster, cannot_be_tried
from tests.waiting import until
from tests.wire import ask

HOUR = 3600
QUEUED = 200  # more than a host takes at once, for seconds
PACED = 8
PACED_SECONDS = 90.0  # for those, of which four may be fetched in a second: what is shut stays so for an hour
SOURCE = "clock.paced"
DEFINITION = """
title = "A host that is asked four times a second"
url = 'https://slow.example/?seconds=0.05'
region = "{region}"
[rows]
css = "tr.item"
[fields]
name = {{css = ".name"}}
[limits]
rate = "4/s"
"""


@pytest.fixture
def step(stack) -> Iterator[Callable[[int], None]]:
    """Puts the clock of the first region's Redis so far ahead of all others, or behind them."""
    if not clocks.CAN_STEP:
        cannot_be_tried("the clock of one process can be stepped on x86-64 alone")
    pid = stack.pid(f"redis-{stack.regions[0]}")
    yield lambda seconds: clocks.step(pid, seconds)
    clocks.step(pid, 0)


@pytest.fixture
def paced(stack) -> Iterator[None]:
    """A source whose host has a rate, in the first region."""
    file = stack.sources / f"{SOURCE}.toml"
    file.write_text(DEFINITION.format(region=stack.regions[0]), encoding="utf-8")
    until(
        lambda: ask(stack.port, "GET", f"/v1/sources/{SOURCE}/records?wait=2").status == 200, "the source to be known"
    )
    yield
    file.unlink()


def rest(stack, region: str) -> dict[str, int]:
    """What of a region's work is not done: results on their way home, messages that no bridge acked."""
    found = {"outbox": stack.redis(f"redis-{region}").xlen(names.OUTBOX), "unacked": stack.held(region)}
    return {part: count for part, count in found.items() if count}


@pytest.mark.timeout(600)
def test_an_hour_forth_and_back_expires_nothing_and_keeps_nothing_shut(stack, step, paced):
    """Under load, with tasks that wait in the queue, for a host's rate, and in the workers; each is fetched once."""
    region, ledger = stack.regions[0], Ledger(stack)
    with Poster(ledger, [region] * 2, seconds=0.05) as poster:
        until(lambda: poster.accepted_at, "the first accept")
        for seconds in (HOUR, 0, -HOUR, 0):
            waiting = [ledger.must_post([region] * (QUEUED // 2), seconds=0.1) for _ in range(2)]
            paced = until(lambda: ledger.send([SOURCE] * PACED, deadline=100), "a post to be accepted")
            del ledger.promised[paced]  # its pages have no numbers
            step(seconds)
            stepped = time.monotonic()
            found = ledger.results(paced, PACED_SECONDS)
            assert [one["status"] for one in found] == ["succeeded"] * PACED, [one["error"] for one in found]
            for request in waiting:
                ledger.check_results(request, ledger.results(request), ledger.promised[request])
            until(lambda since=stepped: poster.accepted_since(since), "posts that go on")
            print(f"{seconds:+d} s: all that waited is done after {time.monotonic() - stepped:.1f} s")
    ledger.check()
    until(lambda: not rest(stack, region), "an empty outbox, and every message acked")


def test_what_a_killed_process_left_goes_home_and_runs_again_in_the_other_time(stack, step):
    """Its results lie in the outbox since the hub was away, its lease and its turns ended with it."""
    region, ledger = stack.regions[0], Ledger(stack)
    client, link = stack.redis(f"redis-{region}"), f"workers-{region}>hub"
    for seconds in (HOUR, -HOUR):
        stack.control.swallow(link, b"nf:res:", times=100, cut_seconds=0.2)
        ledger.must_post([region] * 50, seconds=0.2)
        until(lambda: client.xlen(names.OUTBOX) >= 20, "results that wait in the outbox")
        step(seconds)
        ledger.must_post([region] * 50, seconds=0.2)
        stack.signal(f"workers-{region}", signal.SIGKILL)
        stack.control.heal(link)
        ledger.check(fetches=2)
        until(lambda: not rest(stack, region), "an empty outbox, and every message acked")
        step(0)
