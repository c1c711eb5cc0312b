"""The list of requests: what Redis has of it and what the history has, page by page."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from regions import names
from tests.waiting import until
from web.api.recall import LISTED_AT_ONCE, LOOKS_MAX, THREADS, Recall
from web.flow.history import Wanted
from web.http.answer import Answer
from web.hub.ledger import Ledger
from web.hub.view import TaskView, View


def view(request: str, source: str = "demo.plain") -> View:
    task = TaskView(id="T", region="fra", status="queued", source=source)
    return View(
        id=request, created_ms=0, deadline_ms=0, expires_ms=0, total=1, completed=0, succeeded=0, cancelled=0, tasks=[task],
        attrs=b"{}", results=[], cursors=[], cursor="0-0", more=False,
    )  # fmt: skip


class Hub(Ledger):
    """A hub's Redis that lists these requests."""

    def __init__(self, requests: list[View]) -> None:
        self.requests, self.reads = {one.id: one for one in requests}, 0

    def listed(self, tenant):
        return sorted((names.listed_member("t", one) for one in self.requests), reverse=True)

    def read_many(self, asked, bytes_max=None, **_):
        self.reads += 1
        return [self.requests[request] for request, _ in asked], None

    def states(self, requests):
        return ["accepted" for _ in requests]


class Kept:
    """A history that has these requests."""

    is_on = True

    def __init__(self, requests: list[View]) -> None:
        self.requests = sorted(requests, key=lambda one: one.id, reverse=True)

    def search(self, wanted):
        found = [
            one
            for one in self.requests
            if (wanted.before is None or one.id < wanted.before)
            and one.tasks[0].source == (wanted.source or one.tasks[0].source)
        ]
        page = found[: wanted.limit]
        return page, page[-1].id if len(found) > wanted.limit else None


def pages(recall: Recall, wanted: Wanted) -> list[list[str]]:
    """All pages of a search, as ids."""
    found = []
    while True:
        views, cursor = recall.found(wanted)
        found.append([one.id for one in views])
        if cursor is None:
            return found
        wanted = Wanted(source=wanted.source, limit=wanted.limit, before=cursor)


@pytest.fixture
def numbers() -> list[str]:
    """More ids than a search looks at."""
    return [f"{number:08}" for number in range(LOOKS_MAX * 2 + 100)]


def test_a_search_reads_a_bounded_number_of_requests(numbers):
    hub = Hub([view(one) for one in numbers])
    found, cursor = Recall(Kept([]), hub, "", 60).found(Wanted(source="no.such"))
    assert (found, cursor) == ([], numbers[-LOOKS_MAX])
    assert hub.reads == LOOKS_MAX // LISTED_AT_ONCE


def test_the_cursor_of_a_bounded_search_leads_to_all_that_is_wanted(numbers):
    """Among many that it looks at in vain; those of the history come in their place."""
    rare = {numbers[0], numbers[5], numbers[LOOKS_MAX], numbers[-1]}
    hub = Hub([view(one, "demo.rare" if one in rare else "demo.plain") for one in numbers])
    kept = [f"{numbers[at]}+" for at in (1, 4, LOOKS_MAX + 1, LOOKS_MAX * 2)]
    recall = Recall(Kept([view(one, "demo.rare") for one in kept]), hub, "", 60)
    for limit in (1, 2, 3, 50):
        found = pages(recall, Wanted(source="demo.rare", limit=limit))
        assert [one for page in found for one in page] == sorted([*rare, *kept], reverse=True)
        assert max(map(len, found)) <= limit


def test_a_call_whose_client_has_hung_up_is_not_made():
    """Clients that ask and go filled the memory, and kept the history from others."""
    recall, gate, made = Recall(Kept([]), Hub([]), "", 60), threading.Event(), list[str]()
    hang_up: dict[str, Callable[[], None]] = {}

    def ask(name: str) -> None:
        def look() -> Answer:
            made.append(name)
            gate.wait(60)
            return Answer(200)

        def watch(watcher: Recall, what: Any) -> None:
            hang_up[name] = lambda: watcher.forget(what)

        exchange = SimpleNamespace(is_parked=True, whose="a client", path="", watch=watch, answer=lambda _: True)
        recall.later(cast("Any", exchange), look)

    for number in range(THREADS):
        ask(f"begun {number}")
    until(lambda: len(made) == THREADS, "both threads to be taken")
    for name in ("gone", "there", "gone, too"):
        ask(name)
    hang_up["gone"]()
    hang_up["gone, too"]()
    hang_up["begun 0"]()
    gate.set()
    recall._threads.shutdown()
    assert made[THREADS:] == ["there"]
