"""robots.txt: which turns are asked to wait for the crawl delay."""

import time

from jobs.fetch.robots import Robots
from jobs.page import Page, Request

PAGE = Request(url="https://site.example/rows")


def rules(request: Request) -> Page:
    return Page(request=request, url=request.url, status=200, headers={}, body=b"User-agent: *\nCrawl-delay: 2\n")


def test_a_turn_that_is_older_than_the_rules_waits_for_the_crawl_delay():
    robots, asked = Robots(), []
    older = time.monotonic()
    robots.check(PAGE, "nearfetch", rules, asked.append, older)
    robots.check(PAGE, "nearfetch", rules, asked.append, older)
    assert asked == [2, 2]
    robots.check(PAGE, "nearfetch", rules, asked.append, time.monotonic() + 1)
    assert asked == [2, 2]


def test_the_delay_stands_before_other_threads_use_the_rules():
    """Else a turn that is granted in between knows nothing of it, and is not older than the rules."""
    robots, seen = Robots(), []
    robots.check(PAGE, "nearfetch", rules, lambda _: seen.append(len(robots._known)), time.monotonic())
    assert seen == [0]
