"""Redirects to another host, in real workers: its turn is taken, and its limits and robots.txt are obeyed."""

import threading
from collections.abc import Iterator

import pytest

from tests.service.jobs.fetch.origin import Origin, Spoken
from tests.service.region_workers import RegionWorkers, of
from tests.waiting import until

TASKS, AT_ONCE = 50, 2
SOURCE = """
title = "Led elsewhere"
url = 'HOST/PATH{?n}'
[params]
n = {type = "int"}
[rows]
css = "b"
[fields]
said = {xpath = "string(.)"}
[limits]
retries = 0
robots = ROBOTS
concurrency = LIMIT
"""


class Second(Origin):
    """The target host: it answers when permitted, and knows how many requests were there at once."""

    def __init__(self) -> None:
        self.lock, self.gate = threading.Lock(), threading.Event()
        self.now = self.most = 0
        super().__init__(self._held)

    def _held(self, spoken: Spoken) -> None:
        if spoken.target == "/robots.txt":
            spoken.answer(b"User-agent: *\nDisallow: /kept\n")
            return
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.gate.wait(60)
        with self.lock:
            self.now -= 1
        spoken.answer(b"<b>led</b>")


@pytest.fixture
def second() -> Iterator[Second]:
    made = Second()
    yield made
    made.gate.set()
    made.stop()


@pytest.fixture
def first(second) -> Iterator[Origin]:
    def lead(spoken: Spoken) -> None:
        if spoken.target == "/robots.txt":
            spoken.answer(b"", "404 Not Found")
        else:
            spoken.answer(b"", "302 Found", Location=f"{second.url}{spoken.target}")

    made = Origin(lead)
    yield made
    made.stop()


def start(workers: RegionWorkers, first: Origin, second: Origin, path: str = "page", robots: str = "false") -> None:
    text = SOURCE.replace("ROBOTS", robots)
    led = text.replace("HOST", first.url).replace("LIMIT", str(TASKS)).replace("PATH", path)
    own = text.replace("HOST", second.url).replace("LIMIT", str(AT_ONCE)).replace("PATH", "own")
    allow = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
    workers.start({"led.toml": led, "own.toml": own}, pool=False, allow=allow)


def test_redirects_keep_to_the_limit_of_the_host_that_they_lead_to(workers, first, second):
    """One host redirects fifty tasks to another; two at once arrive there, as the other's own source permits."""
    start(workers, first, second)
    ids = workers.ask([of("led", deadline_seconds=100, n=number) for number in range(TASKS)])
    until(lambda: second.now == AT_ONCE and len(first.requests) >= TASKS, "all to be led on, and two to arrive", 60)
    second.gate.set()
    found = workers.results(ids, 90)
    assert [(one["status"], one["error"]) for one in found] == [("succeeded", None)] * TASKS
    assert second.most == AT_ONCE
    assert all(one["timing"]["fetch_ms"] >= 0 for one in found)
    assert max(one["timing"]["turn_ms"] for one in found) > 0


def test_a_redirect_to_another_host_obeys_its_robots_txt(workers, first, second):
    second.gate.set()
    start(workers, first, second, path="kept", robots="true")
    (result,) = workers.results(workers.ask([of("led", deadline_seconds=60)]))
    assert (result["error"]["type"], result["error"]["origin"]) == ("blocked_address", "policy")
    assert "robots.txt of 127.0.0.1 keeps" in result["error"]["message"]
    assert [one.target for one in first.requests] == ["/robots.txt", "/kept"]
    assert [one.target for one in second.requests] == ["/robots.txt"]
