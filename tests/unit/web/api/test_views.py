"""Bodies of requests, cursors, waits, ids."""

import json
import time

import pytest
from ulid import ULID

from web.api import events, views
from web.hub.new_request import New, NewTask, Times
from web.hub.view import TaskView, View

TASK = NewTask(id="T", source="a.b", region="fra", params={}, url="https://x.example/", host="h", definition="d")
TIMES = Times(1_000, 31_000, 3_601_000)


def view(**changes) -> View:
    fields = {
        "id": "R", "created_ms": 1_000, "deadline_ms": 31_000, "expires_ms": 3_601_000, "total": 2, "completed": 1,
        "succeeded": 1, "cancelled": 0, "tasks": [TaskView("T", "a.b", "fra", "succeeded")],
        "attrs": b'{"price": 1.10}', "results": [b'{"records":[{"n":1.10}]}'], "cursors": ["5-0"], "cursor": "5-0",
        "more": False,
    }  # fmt: skip
    return View(**{**fields, **changes})


def test_first_view_is_a_request_of_which_nothing_has_ended():
    body = json.loads(views.request_body(views.first_view(New(id="R", tasks=[TASK], deadline_ms=1), TIMES), ""))
    assert (body["status"], body["completed"], body["results"], body["cursor"]) == ("running", 0, [], "0-0")
    assert body["tasks"] == [{"id": "T", "source": "a.b", "region": "fra", "status": "queued"}]
    assert (body["created_at"], body["expires_at"]) == ("1970-01-01T00:00:01.000Z", "1970-01-01T01:00:01.000Z")


def test_results_and_attrs_are_spliced_byte_for_byte():
    body = views.request_body(view(), "")
    assert b'{"records":[{"n":1.10}]}' in body
    assert b'{"price": 1.10}' in body


def test_links_begin_with_the_public_url():
    body = json.loads(views.request_body(view(), "https://api.example"))
    assert body["links"]["events"] == "https://api.example/v1/requests/R/events"
    assert ("Location", "https://api.example/v1/requests/R") in views.accepted(view(), "https://api.example").headers


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "running"),
        ({"completed": 2, "succeeded": 2}, "succeeded"),
        ({"completed": 2, "succeeded": 1}, "partial"),
        ({"completed": 2, "succeeded": 0}, "failed"),
        ({"completed": 2, "succeeded": 1, "cancelled": 1}, "cancelled"),
    ],
)
def test_status_of_a_request(changes, status):
    assert json.loads(views.request_body(view(**changes), ""))["status"] == status


@pytest.mark.parametrize("known", ['"{tag}"', 'W/"{tag}"', '"x", "{tag}"', "*"])
def test_known_etag_is_a_304(known):
    tag = dict(views.polled(view(), "", "").headers)["ETag"].strip('"')
    answer = views.polled(view(), "", known.format(tag=tag))
    assert (answer.status, answer.body, dict(answer.headers)["ETag"]) == (304, b"", f'"{tag}"')


def test_id_that_is_not_there_is_gone_only_when_it_is_old():
    young, old = str(ULID()), str(ULID.from_timestamp(time.time() - 3601))
    assert views.not_there(young, 3600).kind == "not-found"
    assert views.not_there(old, 3600).kind == "expired"
    assert views.not_there("8" + "0" * 25, 3600).kind == "not-found"
    assert views.not_there("O" * 26, 3600).kind == "not-found"


def test_event_with_line_breaks_in_its_json_stays_one_event():
    assert events._event(b"result", "5-0", b'{"a":\n1}') == b'id: 5-0\nevent: result\ndata: {"a":\ndata: 1}\n\n'
