"""Polls, long polls and event streams on a real server and a real Redis."""

import time

import pytest
from ulid import ULID

from tests.service.conftest import RedisInstance
from tests.service.desk import Desk
from tests.service.wire import Wire, ask
from tests.waiting import until
from web.api import events


@pytest.fixture
def start_desk(tmp_path, hub_redis):
    desks = []

    def start(**options) -> Desk:
        desks.append(Desk(tmp_path, hub_redis.url, **options))
        return desks[-1]

    yield start
    for desk in desks:
        desk.stop()


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Shared by the tests that neither set anything nor hurt anything."""
    folder = tmp_path_factory.mktemp("desk")
    hub = RedisInstance(folder, "hub")
    desk = Desk(folder, hub.url)
    yield desk
    desk.stop()
    hub.stop()


def path(new, query: str = "") -> str:
    return f"/v1/requests/{new.id}{query}"


def test_poll_shows_the_request_as_it_is(desk):
    new, times = desk.add(2)
    task = desk.settle(new, 1)
    found = ask(desk.port, "GET", path(new)).json()
    assert (found["id"], found["status"], found["done"]) == (new.id, "running", False)
    assert (found["total"], found["completed"], found["more"]) == (2, 1, False)
    assert [result["task"] for result in found["results"]] == [task]
    assert found["results"][0]["records"] == [{"a": 1}]
    assert [part["status"] for part in found["tasks"]] == ["queued", "succeeded"]
    assert set(found["tasks"][0]) == {"id", "source", "region", "status"}
    assert found["links"] == {"self": path(new), "events": f"{path(new)}/events"}
    assert found["attrs"] == {"a": [1]}
    assert found["created_at"].endswith("Z")
    assert times.expires_ms - times.created_ms == 3_600_000


def test_poll_since_a_cursor_brings_only_what_is_new(desk):
    new, _ = desk.add(3)
    first = desk.settle(new, 0)
    cursor = ask(desk.port, "GET", path(new)).json()["cursor"]
    second = desk.settle(new, 2)
    found = ask(desk.port, "GET", path(new, f"?after={cursor}")).json()
    assert [result["task"] for result in found["results"]] == [second]
    assert first != second


def test_large_results_come_in_parts(start_desk):
    desk = start_desk(NEARFETCH__LIMITS__ANSWER_BYTES_MAX="2000")
    new, _ = desk.add(5)
    tasks = [desk.settle(new, index, b'["%b"]' % (b"x" * 900)) for index in range(5)]
    seen, after, is_more = [], "0-0", True
    while is_more:
        found = ask(desk.port, "GET", path(new, f"?after={after}")).json()
        seen += [result["task"] for result in found["results"]]
        after, is_more = found["cursor"], found["more"]
        assert found["results"]
    assert seen == tasks


def test_long_poll_with_a_cursor_ends_at_the_first_news(desk):
    new, _ = desk.add(2)
    with Wire(desk.port) as wire:
        wire.send("GET", path(new, "?after=0-0&wait=30"))
        desk.has_waiters(1)
        task = desk.settle(new, 0)
        found = wire.reply().json()
        assert [result["task"] for result in found["results"]] == [task]
        assert found["done"] is False


def test_long_poll_without_a_cursor_ends_when_all_is_done(desk):
    new, _ = desk.add(2)
    with Wire(desk.port) as wire:
        wire.send("GET", path(new, "?wait=30"))
        desk.has_waiters(1)
        first = desk.settle(new, 0)
        second = desk.settle(new, 1)
        found = wire.reply().json()
        assert [result["task"] for result in found["results"]] == [first, second]
        assert (found["done"], found["status"]) == (True, "succeeded")


def test_who_waits_for_the_end_reads_nothing_before_it_and_streams_read_each(desk, monkeypatch):
    """Six tasks are no six reads for a client that wants all of them."""
    new, other = desk.add(6)[0], desk.add(6)[0]
    read_many, reads = desk.ledger.read_many, []

    def counted(asked, *arguments, **options):
        reads.extend(request for request, _ in asked)
        return read_many(asked, *arguments, **options)

    monkeypatch.setattr(desk.ledger, "read_many", counted)
    with Wire(desk.port) as poll, Wire(desk.port) as stream:
        poll.send("GET", path(new, "?wait=30"))
        stream.send("GET", f"{path(other)}/events")
        stream.head()
        until(lambda: reads.count(new.id) == reads.count(other.id) == 1, "both to be read once")
        for index in range(5):
            desk.settle(new, index)
            desk.settle(other, index)
            until(lambda index=index: reads.count(other.id) == 2 + index, "the stream to be read again")
        assert reads.count(new.id) == 1
        desk.settle(new, 5)
        assert len(poll.reply().json()["results"]) == 6


def test_long_poll_of_what_is_done_ends_at_once(desk):
    new, _ = desk.add()
    desk.settle(new, 0)
    cursor = ask(desk.port, "GET", path(new, "?wait=60")).json()["cursor"]
    found = ask(desk.port, "GET", path(new, f"?after={cursor}&wait=60")).json()
    assert (found["done"], found["results"], found["cursor"]) == (True, [], cursor)


def test_long_poll_answers_when_its_time_is_over(desk):
    new, _ = desk.add()
    started = time.monotonic()
    found = ask(desk.port, "GET", path(new, "?wait=0.3")).json()
    assert (found["done"], found["results"]) == (False, [])
    assert time.monotonic() - started >= 0.3


def test_wait_past_its_limit_is_cut(start_desk):
    desk = start_desk(NEARFETCH__LIMITS__WAIT_MAX_SECONDS="0.2")
    new, _ = desk.add()
    assert ask(desk.port, "GET", path(new, "?wait=3600")).status == 200


@pytest.mark.parametrize("query", ["after=x", "after=1", "after=1-", "after=18446744073709551615-1", "after="])
def test_bad_cursor_is_a_400(desk, query):
    new, _ = desk.add()
    for where in (path(new), f"{path(new)}/events"):
        if query == "after=" and where.endswith("events"):
            continue
        reply = ask(desk.port, "GET", f"{where}?{query}")
        assert (reply.status, reply.json()["type"]) == (400, "urn:nearfetch:problem:bad-request")


@pytest.mark.parametrize("wait", ["x", "-1", "nan", "inf", ""])
def test_bad_wait_is_a_400(desk, wait):
    new, _ = desk.add()
    assert ask(desk.port, "GET", path(new, f"?wait={wait}")).status == 400


def test_unknown_malformed_and_old_ids(desk):
    old = str(ULID.from_timestamp(time.time() - 3700))
    for request, status in ((str(ULID()), 404), ("nonsense", 404), (old, 410), (old.lower(), 404)):
        for suffix in ("", "?wait=5", "/events"):
            reply = ask(desk.port, "GET", f"/v1/requests/{request}{suffix}")
            assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")


def test_request_that_is_not_accepted_yet_is_not_there(desk):
    new, _ = desk.add()
    refused, _ = desk.add()
    desk.ledger.refuse(refused.id, [(task.id, task.region) for task in refused.tasks])
    assert ask(desk.port, "GET", path(refused)).status == 404
    assert ask(desk.port, "GET", path(new)).status == 200


def test_etag_saves_an_answer_that_did_not_change(desk):
    new, _ = desk.add(2)
    etag = ask(desk.port, "GET", path(new)).headers["etag"]
    same = ask(desk.port, "GET", path(new), {"If-None-Match": f'"other", {etag}'})
    assert (same.status, same.body, same.headers["etag"]) == (304, b"", etag)
    desk.settle(new, 0)
    changed = ask(desk.port, "GET", path(new), {"If-None-Match": etag})
    assert (changed.status, changed.headers["etag"] != etag) == (200, True)


def test_head_of_a_poll_has_no_body(desk):
    new, _ = desk.add()
    with Wire(desk.port) as wire:
        length = int(wire.ask("HEAD", path(new)).headers["content-length"])
        assert length == len(wire.ask("GET", path(new)).body)


def test_news_between_the_first_read_and_the_wait_is_not_lost(start_desk, monkeypatch):
    """It is settled after the waiter's first read was answered by Redis and before the waiter saw that."""
    desk = start_desk(listens=False)
    new, _ = desk.add()
    read_many, hurry = desk.ledger.read_many, [True]

    def read_then_settle(asked, bytes_max=None, **options):
        views = read_many(asked, bytes_max, **options)
        if hurry and asked[0][0] == new.id:
            hurry.clear()
            desk.settle(new, 0)
            desk.waiters.news([new.id])
        return views

    monkeypatch.setattr(desk.ledger, "read_many", read_then_settle)
    assert ask(desk.port, "GET", path(new, "?after=0-0&wait=30")).json()["done"] is True


def test_client_that_hangs_up_does_not_wait_any_more(desk):
    new, _ = desk.add()
    with Wire(desk.port) as poll, Wire(desk.port) as stream:
        poll.send("GET", path(new, "?wait=60"))
        stream.send("GET", f"{path(new)}/events")
        desk.has_waiters(2)
    desk.has_waiters(0)
    until(lambda: desk.server.outlet.is_idle, "both exchanges to be over")


def test_500_waiters_and_healthz(desk):
    requests = [desk.add()[0] for _ in range(50)]
    wires = [Wire(desk.port) for _ in range(500)]
    for index, wire in enumerate(wires):
        wire.send("GET", path(requests[index % 50], "?wait=60"))
    desk.has_waiters(500)
    for _ in range(20):
        assert ask(desk.port, "GET", "/healthz").status == 200
    tasks = [desk.settle(new, 0) for new in requests]
    for index, wire in enumerate(wires):
        assert wire.reply().json()["results"][0]["task"] == tasks[index % 50]
        wire.close()
    desk.has_waiters(0)


def test_stream_tells_each_result_and_then_the_end(desk):
    new, _ = desk.add(3)
    first = desk.settle(new, 1)
    with Wire(desk.port) as wire:
        wire.send("GET", f"{path(new)}/events")
        status, headers = wire.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        stream = wire.events()
        assert next(stream).json()["task"] == first
        second = desk.settle(new, 0)
        assert next(stream).json()["task"] == second
        third = desk.settle(new, 2, status="failed")
        event = next(stream)
        assert (event.kind, event.json()["task"], event.json()["error"]["http_status"]) == ("result", third, 404)
        done = next(stream)
        assert (done.kind, done.id, done.json()["status"]) == ("done", event.id, "partial")
        assert "results" not in done.json()
        assert list(stream) == []
        assert wire.ask("GET", "/healthz").status == 200  # the connection serves on


def test_stream_resumes_by_its_last_id_without_gap_or_repeat(desk):
    new, _ = desk.add(12)
    tasks, seen, after = [], [], ""
    for index in range(12):
        tasks.append(desk.settle(new, index))
        with Wire(desk.port) as wire:
            headers = {"Last-Event-ID": after} if after else {}
            wire.send("GET", f"{path(new)}/events?after=0-0", headers)
            wire.head()
            stream = wire.events()
            event = next(stream)
            seen.append(event.json()["task"])
            after = event.id
            if index == 6:
                cursor = event.id
    assert seen == tasks
    with Wire(desk.port) as wire:
        wire.send("GET", f"{path(new)}/events?after={cursor}")
        wire.head()
        events = list(wire.events())
        assert [event.json().get("task") for event in events] == [*tasks[7:], None]


def test_stream_resumed_after_its_end_says_so_again(desk):
    new, _ = desk.add()
    desk.settle(new, 0)
    with Wire(desk.port) as wire:
        wire.send("GET", f"{path(new)}/events")
        wire.head()
        last = list(wire.events())[-1]
        wire.send("GET", f"{path(new)}/events", {"Last-Event-ID": last.id})
        wire.head()
        assert [(event.kind, event.id) for event in wire.events()] == [("done", last.id)]


def test_comment_is_when_a_stream_reads_what_nobody_told_it(start_desk, monkeypatch):
    monkeypatch.setattr(events, "COMMENT_SECONDS", 0.2)
    desk = start_desk(listens=False)
    new, _ = desk.add()
    with Wire(desk.port) as wire:
        wire.send("GET", f"{path(new)}/events")
        wire.head()
        stream = wire.events()
        assert [next(stream).kind, next(stream).kind] == [":", ":"]
        task = desk.settle(new, 0)
        told = [event for event in stream if event.kind != ":"]
        assert [told[0].json()["task"], told[1].kind] == [task, "done"]


def test_slow_reader_of_a_stream_misses_nothing(start_desk, monkeypatch):
    monkeypatch.setattr(events, "COMMENT_SECONDS", 600.0)  # it goes on because what it had was taken, not by the clock
    desk = start_desk(NEARFETCH__LIMITS__ANSWER_BYTES_MAX="400000")
    new, _ = desk.add(20)
    with Wire(desk.port, receive_bytes=16_384) as slow:
        slow.send("GET", f"{path(new)}/events")
        slow.head()
        tasks = [desk.settle(new, index, b'["%b"]' % (b"x" * 300_000)) for index in range(20)]
        told = list(slow.events())
        assert [event.json()["task"] for event in told[:-1]] == tasks
        assert told[-1].kind == "done"


def test_long_poll_outlives_a_restart_of_the_hub(start_desk, hub_redis):
    desk = start_desk()
    new, _ = desk.add()
    with Wire(desk.port) as poll, Wire(desk.port) as stream:
        poll.send("GET", path(new, "?wait=60"))
        stream.send("GET", f"{path(new)}/events")
        stream.head()
        desk.has_waiters(2)
        hub_redis.running.stop()
        until(lambda: desk.hub.away, "the outage to be seen")
        assert ask(desk.port, "GET", path(new)).status == 503
        assert ask(desk.port, "GET", path(new, "?wait=0.1")).status == 503
        assert ask(desk.port, "GET", f"{path(new)}/events").status == 503
        hub_redis.running.start()
        until(lambda: not desk.hub.away, "the hub to be back")
        task = desk.settle(new, 0)
        assert poll.reply().json()["results"][0]["task"] == task
        assert next(stream.events()).json()["task"] == task


def test_stop_answers_whoever_waits(start_desk):
    desk = start_desk()
    new, _ = desk.add()
    with Wire(desk.port) as poll, Wire(desk.port) as stream:
        poll.send("GET", path(new, "?wait=60"))
        stream.send("GET", f"{path(new)}/events")
        stream.head()
        desk.has_waiters(2)
        desk.server.outlet.is_closing = True
        desk.waiters.close()
        reply = poll.reply()
        assert (reply.status, reply.json()["done"], reply.headers["connection"]) == (200, False, "close")
        assert list(stream.events()) == []


def test_fault_of_a_handler_is_a_500_problem(desk):
    reply = ask(desk.port, "GET", "/broken")
    assert (reply.status, reply.json()["type"]) == (500, "urn:nearfetch:problem:internal")
    assert ask(desk.port, "GET", "/healthz").status == 200
