"""Manners of real worker processes, counted at the site: pauses that it asks for, robots.txt, the breaker."""

import email.utils
import time

import pytest

from regions import names
from tests.service.counting import Rule
from tests.service.jobs.queue.test_turn_workers import SLOW, asked, definition, site, start
from tests.waiting import until

__all__ = ["site", "start"]

HOST = f"https://{SLOW}:443"


def in_seconds(seconds: int) -> str:
    """An HTTP date so far from now."""
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize(("status", "wait"), [(429, "3"), (503, lambda: in_seconds(4))], ids=["seconds", "date"])
def test_retry_after_slows_the_host_for_everybody(start, site, status, wait):
    """One answer in two processes: until its time is over nothing is fetched that had not begun."""
    running = start(2, slow=definition(SLOW, concurrency=1))
    site.rules[SLOW] = Rule(status=status, headers={"Retry-After": wait}, times=1)
    found = running.results(running.ask(asked(10, "slow", SLOW)))
    assert {one["status"] for one in found} == {"succeeded"}
    first, second, *_ = site.of(SLOW)
    assert second.began - first.over >= 2.5
    assert sorted(one["attempts"] for one in found) == [1] * 9 + [2]
    assert max(one["timing"]["turn_ms"] for one in found) >= 2_000


def test_robots_txt_is_honoured_where_the_source_asks_for_it(start, site):
    rules = b"User-agent: *\nDisallow: /rows?n=1\nCrawl-delay: 1\n"
    site.rules[f"{SLOW}/robots.txt"] = Rule(body=rules, headers={"Content-Type": "text/plain"})
    running = start(1, slow=definition(SLOW, robots=True).replace("robots = True", "robots = true"))
    began = time.monotonic()
    found = running.results(running.ask(asked(4, "slow", SLOW)))
    refused = found[1]
    assert [one["status"] for one in found] == ["succeeded", "failed", "succeeded", "succeeded"]
    assert (refused["error"]["type"], refused["error"]["origin"]) == ("blocked_address", "policy")
    assert refused["error"]["message"].startswith(f"robots.txt of {SLOW} keeps 'nearfetch/0.1' from this address")
    pages = site.of(SLOW, "/rows")
    assert sorted(one.params["n"] for one in pages) == ["0", "2", "3"]
    assert pages[2].began - began >= 2
    assert float(running.client.hget(names.host(HOST), "delay")) == 1000


def test_without_robots_txt_everything_is_allowed(start, site):
    site.rules[f"{SLOW}/robots.txt"] = Rule(status=404, body=b"")
    running = start(1, slow=definition(SLOW, robots=True, retries=0).replace("robots = True", "robots = true"))
    (one,) = running.results(running.ask(asked(1, "slow", SLOW)))
    assert one["status"] == "succeeded"


def test_a_robots_txt_that_can_not_be_had_allows_nothing(start, site):
    site.rules[f"{SLOW}/robots.txt"] = Rule(status=500, body=b"")
    running = start(1, slow=definition(SLOW, robots=True, retries=0).replace("robots = True", "robots = true"))
    (one,) = running.results(running.ask(asked(1, "slow", SLOW)))
    assert (one["status"], one["error"]["type"], one["error"]["http_status"]) == ("failed", "http_status", 500)
    assert site.of(SLOW, "/rows") == []


def test_a_source_that_does_not_ask_for_it_reads_no_robots_txt(start, site):
    running = start(1, slow=definition(SLOW))
    running.results(running.ask(asked(1, "slow", SLOW)))
    assert site.of(SLOW, "/robots.txt") == []


def test_the_breaker_opens_says_why_and_closes_by_itself(start, site):
    running = start(2, slow=definition(SLOW, retries=0))
    site.rules[SLOW] = Rule(status=500)
    failed = running.results(running.ask(asked(40, "slow", SLOW, deadline_seconds=15)))
    assert {one["error"]["type"] for one in failed} == {"http_status"}
    before = [one for one in failed if one["attempts"]]
    alone = [one["error"] for one in failed if not one["attempts"]]
    assert len(before) == len(site.of(SLOW)) < 40
    assert {error["message"].partition(" for ")[0] for error in alone} == {f"{HOST} is left alone"}
    assert (
        "10 fetches or more failed in a row, the last one: http_status: expected a page, found status 500"
        in alone[0]["message"]
    )
    assert all(0 < error["retry_after"] <= 20 for error in alone)
    del site.rules[SLOW]
    found = running.results(running.ask(asked(5, "slow", SLOW)))
    assert {one["status"] for one in found} == {"succeeded"}
    until(lambda: not running.client.exists(names.OPEN), "the breaker to close")


def test_a_wall_opens_the_breaker_and_is_told_to_the_hub(start, site, workers):
    text = definition(SLOW, retries=0) + '[contract]\nblocked = "wall"\n'
    running = start(1, pool=True, slow=text)
    site.rules[SLOW] = Rule(body=b'{"wall": true}')
    (first,) = running.results(running.ask(asked(1, "slow", SLOW)))
    assert first["error"]["type"] == "blocked"
    until(lambda: running.client.exists(names.OPEN), "the breaker to open")

    def told():
        said = [fields[b"d"] for _, fields in running.hub.xrange(names.out_stream("fra")) if fields[b"k"] == b"sources"]
        return f"{HOST} is left alone: a wall stands before it".encode() in b"".join(said[-1:])

    until(told, "the region's report")
