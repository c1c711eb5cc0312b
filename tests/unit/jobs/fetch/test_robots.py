"""robots.txt: which turns are asked to wait for the crawl delay."""

import time

import pytest
from protego import Protego

from jobs.errors import BlockedAddress, HttpStatus, TooLarge
from jobs.fetch.robots import Robots, rules_in
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


class Host:
    """A host whose robots.txt is as given, and who counts how often it was asked for."""

    def __init__(self, status: int = 200, body: bytes = b"User-agent: *\nDisallow: /private\n") -> None:
        self.status, self.body, self.asked = status, body, []

    def get(self, request: Request) -> Page:
        """What it answers."""
        self.asked.append(request.url)
        return Page(request=request, url=request.url, status=self.status, headers={}, body=self.body)

    def check(self, robots: Robots, url: str = PAGE.url) -> None:
        """Asks whether that page may be fetched."""
        robots.check(Request(url=url), "nearfetch", self.get, lambda _: None, time.monotonic())


def test_an_address_that_is_disallowed_is_refused_and_the_others_are_not():
    host, robots = Host(), Robots()
    host.check(robots)
    with pytest.raises(BlockedAddress, match=r"robots.txt of site.example keeps 'nearfetch' from this address"):
        host.check(robots, "https://site.example/private/rows")
    assert host.asked == ["https://site.example:443/robots.txt"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_robots_txt_that_can_not_be_had_now_refuses_for_now(status):
    host, robots = Host(status), Robots()
    with pytest.raises(HttpStatus, match=f"found status {status}") as caught:
        host.check(robots)
    assert (caught.value.is_retryable, caught.value.http_status) == (True, status)
    host.status = 200
    host.check(robots)
    assert len(host.asked) == 2  # the failure was not kept


@pytest.mark.parametrize("status", [300, 401, 404])
def test_what_is_no_answer_with_rules_forbids_nothing(status):
    host = Host(status)
    host.check(Robots(), "https://site.example/private/rows")


def test_rules_are_read_again_after_an_hour(monkeypatch):
    host, robots = Host(), Robots()
    host.check(robots)
    began = time.monotonic()
    for hours, asked in ((0.9, 1), (1.1, 2), (1.9, 2)):
        monkeypatch.setattr(time, "monotonic", lambda at=began + hours * 3600: at)
        host.check(robots)
        assert len(host.asked) == asked


def test_no_more_hosts_are_kept_than_fit(monkeypatch):
    monkeypatch.setattr("jobs.fetch.robots.HOSTS_MAX", 2)
    host, robots = Host(), Robots()
    for name in ("a", "b", "a", "b", "c", "c"):
        host.check(robots, f"https://{name}.example/rows")
        assert len(robots._known) <= 2
    assert [url[8] for url in host.asked] == ["a", "b", "c"]
    host.check(robots, "https://a.example/rows")
    assert len(host.asked) == 4


def robots_txt(agents: int, rules: int, between: str = "") -> str:
    """A group of so many user agents and rules."""
    return "".join(f"User-agent: a{one}\n{between}" for one in range(agents)) + "".join(
        f"Disallow: /{one}\n" for one in range(rules)
    )


@pytest.mark.parametrize(
    "between", ["", "\n", "# no rule\n", "Sitemap: https://site.example/\n", "disallowed\n", "x\n"]
)
def test_a_robots_txt_whose_rules_would_fill_the_memory_is_refused(between):
    """Its rules count once for each of its user agents."""
    host = Host(body=robots_txt(400, 300, between).encode())
    with pytest.raises(TooLarge, match=r"robots.txt of https://site.example:443 with at most 100000 rules"):
        host.check(Robots())


@pytest.mark.parametrize(
    "text",
    [
        robots_txt(30, 40),
        robots_txt(30, 40, "Crawl-delay: 1\n"),
        robots_txt(3, 4) * 5,
        "USER AGENT: a\nuser-agent b\nUserAgent: c\nallow : /\nAllow:/a$\n\nUser-agent: *\nDisallow:\n",
    ],
)
def test_no_rule_is_left_out_of_the_count(text):
    made = sum(len(rules._rules) for rules in Protego.parse(text)._user_agents.values())
    assert made <= rules_in(text) + text.count("$") * 3


def test_no_more_rules_are_kept_than_fit(monkeypatch):
    monkeypatch.setattr("jobs.fetch.robots.KEPT_RULES_MAX", 2)
    host, robots = Host(), Robots()  # one rule each
    for name, kept in (("a", 1), ("b", 2), ("b", 2), ("c", 1), ("a", 2)):
        host.check(robots, f"https://{name}.example/rows")
        assert len(robots._known) == kept


def test_without_a_crawl_delay_no_turn_is_asked_to_wait():
    robots, asked = Robots(), []
    robots.check(PAGE, "nearfetch", Host().get, asked.append, time.monotonic())
    assert asked == []
