"""The page of a request: where its time went, hop by hop, with what it waited for."""

import json
import re
from html import escape
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given

from jobs import contract, result_frame
from jobs.contract import LOST, Attempt, Trail
from tests.unit.web.heads import TASK, frames
from web.api import trail
from web.api.trail import Hop, Whereabouts
from web.console import one_request
from web.console.one_request import Told
from web.http.answer import Answer
from web.http.owner import EVERYBODY
from web.http.problems import Problem
from web.hub import frame
from web.hub.faults import Book, Found
from web.hub.view import TaskView, View

BEGAN = 1_795_000_000_000
ID = "01M8KNRTP6XJCP56PH3NGHW8YX"
HOSTILE = "<script>alert(1)</script>\u202e"


def attempt(number: int, start: int, end: int, error: str = "", message: str = "", turn_ms: int = 0) -> Attempt:
    return Attempt(number, BEGAN + start, BEGAN + end, "fra.worker.1", error, message, turn_ms)


def page(*attempts: Attempt, status: str = "succeeded", error: contract.Error | None = None) -> str:
    result = contract.Result(
        task=TASK, source="demo.list", region="fra", status=status, count=0 if error else 3, error=error
    )
    hops = [
        Hop("accepted", BEGAN, "gate:1"),
        Hop("confirmed", BEGAN + 1, "rabbitmq q.fra"),
        *trail._in_region(Trail(BEGAN + 3, list(attempts)), "fra", result),
        Hop("settled", BEGAN + 6_100, "hub"),
    ]
    found = Whereabouts(
        request=ID, task=TASK, source="demo.list", region="fra", status=status, tenant="", created_ms=BEGAN, hops=hops,
        attempts=list(attempts), result=result,
    )  # fmt: skip
    view = view_of(status)
    way = msgspec.to_builtins(trail.document(found))
    return one_request._request(view, [Told(view.tasks[0], 6_100.0, way, result)], "").main.text


def view_of(status: str) -> View:
    ended = int(status not in ("queued", "running"))
    return View(
        id=ID, created_ms=BEGAN, deadline_ms=BEGAN + 30_000, expires_ms=BEGAN + 3_600_000, total=1, completed=ended,
        succeeded=int(status == "succeeded"), cancelled=0, tasks=[TaskView(TASK, "demo.list", "fra", status)], attrs=b"{}",
        results=[], cursors=[], cursor="0-0", more=False,
    )  # fmt: skip


def test_waits_for_a_turn_and_for_another_attempt_stand_there_with_their_time():
    text = page(
        attempt(1, 40, 1_040, "timeout", "no answer within 1 s"),
        attempt(2, 6_000, 6_090, turn_ms=960),
    )
    assert "to be tried again after timeout 4.00 s" in text
    assert "for its host&#x27;s turn 960 ms" in text
    assert "no answer within 1 s" in text
    assert text.count("<tr>") == 1 + 10 + 1 + 2  # hops and attempts, with their headings
    assert "attempt 2" in text


def test_a_task_that_waits_names_what_is_wrong_with_its_region_its_source_and_the_hub_and_nothing_of_others():
    faults, _ = Book().see(
        BEGAN,
        [
            Found("region-rabbitmq-away", "its bridge is starting: RabbitMQ is away", region="fra"),
            Found("hub-redis-slow", "the hub's Redis is slow"),
            Found("source-failing", "demo.list is left alone", region="fra", source="demo.list"),
            Found("source-failing", "other.list is left alone", region="fra", source="other.list"),
            Found("region-down", "nyc says nothing", region="nyc"),
            Found("region-taken-over", "standbys take its new tasks", region="fra"),
            Found("key-expires", "the key of somebody expires"),
        ],
    )
    for status, is_held in (("queued", True), ("running", True), ("succeeded", False)):
        view = view_of(status)
        text = one_request._request(view, [Told(view.tasks[0])], "", faults).main.text
        shown = [one.message for one in faults if escape(one.message) in text]
        wanted = ["its bridge is starting: RabbitMQ is away", "the hub's Redis is slow", "demo.list is left alone"]
        assert sorted(shown) == (sorted(wanted) if is_held else []), status


def test_what_a_task_does_since_its_last_hop_lasts_until_now():
    waits = {
        "hop": "waited",
        "where": "fra",
        "after_ms": 900,
        "note": "for the turn of https://a.example:443: 2.0 s so far",
    }
    for last, said in (
        ({"hop": "confirmed", "where": "rabbitmq", "after_ms": 10}, "waiting for its region&#x27;s bridge 2.99 s"),
        ({"hop": "claimed", "where": "fra.worker", "after_ms": 1_000}, "fetching and parsing 2.00 s"),
        (waits, "for the turn of https://a.example:443 2.10 s"),
    ):
        hops = [{"hop": "accepted", "where": "gate:1", "after_ms": 0}, last]
        hops.append(one_request._now(hops, 3_000.4))
        view = view_of("running")
        told = Told(view.tasks[0], None, {"hops": hops, "attempts": []})
        assert said in one_request._request(view, [told], "").main.text


def test_a_lost_attempt_is_named():
    text = page(attempt(1, 40, 5_040, LOST, "its process died"), attempt(2, 5_100, 6_090))
    assert "in a process that died 5.00 s" in text
    assert "its process died" in text


def test_what_a_target_said_stays_text():
    error = contract.Error(type="blocked", message=HOSTILE, origin="target")
    text = page(attempt(1, 40, 90), status="failed", error=error)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e" in text


def test_the_name_of_a_csv_is_the_source_that_was_asked_whatever_the_result_says():
    """A region could put headers of its own into the answer, such as a cookie."""
    result = contract.Result(task=TASK, source='x"\r\nSet-Cookie: nearfetch=mine', region="fra", status="succeeded")
    answer = csv_of(result_frame.splice(result_frame.encode(result, b'[{"a":1}]')))
    assert answer.body == b"a\r\n1\r\n"
    assert dict(answer.headers)["Content-Disposition"] == 'attachment; filename="demo.list.csv"'


def csv_of(result: bytes) -> Answer:
    """The answer of a result's CSV; raises its ``Problem``."""
    view = msgspec.structs.replace(view_of("succeeded"), results=[result], cursors=["1-0"])
    answers: list[Answer] = []
    parts = SimpleNamespace(
        ledger=SimpleNamespace(read=lambda *_: view),
        catalog=SimpleNamespace(get=lambda _: None),
        recall=SimpleNamespace(later=lambda _exchange, look, _told: answers.append(look())),
        files=None,
    )
    exchange = SimpleNamespace(query=list, owner=EVERYBODY, request="")
    one_request.csv(cast("Any", parts), cast("Any", exchange), ID, TASK)
    return answers[0]


@given(frames())
def test_of_any_result_the_page_shows_what_can_be_shown_and_says_what_can_not_be_read(raw):
    result = frame.spliced(raw, TASK, "fra", 1_000)
    head = result_frame.head_of(result)
    view = view_of("succeeded")
    hops = trail._in_region(Trail(BEGAN + 3, [attempt(1, 40, 90)]), "fra", head)
    found = Whereabouts(
        request=ID, task=TASK, source="demo.list", region="fra", status="succeeded", tenant="", created_ms=BEGAN, hops=hops,
        attempts=[attempt(1, 40, 90)], result=head,
    )  # fmt: skip
    way = msgspec.to_builtins(trail.document(found))
    msgspec.json.encode(trail.document(found))  # as the API shows it
    for told in (Told(view.tasks[0], 90.0, way, head), one_request._kept(view.tasks[0], head)):
        text = one_request._request(view, [told], "").main.text
        text.encode()
        assert TASK in text
        assert "<script" not in text
        assert not re.search(r'="-?(nan|inf)"', text)
        assert head.error is None or escape(head.error.message) in text or "\\u" in text
    if head.error is not None:
        with pytest.raises(Problem, match="no records"):
            csv_of(result)
    elif all(isinstance(one, dict) for one in json.loads(result)["records"]):
        assert csv_of(result).status == 200
    else:
        with pytest.raises(Problem, match="objects"):
            csv_of(result)
