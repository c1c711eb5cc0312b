"""Polls, long polls and event streams on a real server and a real Redis."""

import contextlib
import gzip
import json
import os
import threading
import time

import pytest
from backports import zstd
from ulid import ULID

from regions import names
from tests.service.conftest import RedisInstance
from tests.service.waiting_gateway import WaitingGateway
from tests.waiting import until
from tests.wire import Wire, ask
from web.api import events
from web.hub import ledger


@pytest.fixture
def start_gateway(tmp_path, hub_redis):
    gateways = []

    def start(**options) -> WaitingGateway:
        gateways.append(WaitingGateway(tmp_path, hub_redis.url, **options))
        return gateways[-1]

    yield start
    for gateway in gateways:
        gateway.stop()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """Shared by the tests that neither set anything nor hurt anything."""
    folder = tmp_path_factory.mktemp("gateway")
    hub = RedisInstance(folder, "hub")
    gateway = WaitingGateway(folder, hub.url)
    yield gateway
    gateway.stop()
    hub.stop()


def path(new, query: str = "") -> str:
    return f"/v1/requests/{new.id}{query}"


def test_poll_shows_the_request_as_it_is(gateway):
    new, times = gateway.add(2)
    task = gateway.settle(new, 1)
    found = ask(gateway.port, "GET", path(new)).json()
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


def test_poll_since_a_cursor_brings_only_what_is_new(gateway):
    new, _ = gateway.add(3)
    first = gateway.settle(new, 0)
    cursor = ask(gateway.port, "GET", path(new)).json()["cursor"]
    second = gateway.settle(new, 2)
    found = ask(gateway.port, "GET", path(new, f"?after={cursor}")).json()
    assert [result["task"] for result in found["results"]] == [second]
    assert first != second


def test_large_results_come_in_parts(start_gateway):
    gateway = start_gateway(NEARFETCH__LIMITS__ANSWER_BYTES_MAX="2000")
    new, _ = gateway.add(5)
    tasks = [gateway.settle(new, index, b'["%b"]' % (b"x" * 900)) for index in range(5)]
    seen, after, is_more = [], "0-0", True
    while is_more:
        found = ask(gateway.port, "GET", path(new, f"?after={after}")).json()
        seen += [result["task"] for result in found["results"]]
        after, is_more = found["cursor"], found["more"]
        assert found["results"]
    assert seen == tasks


def test_long_poll_with_a_cursor_ends_at_the_first_news(gateway):
    new, _ = gateway.add(2)
    with Wire(gateway.port) as wire:
        wire.send("GET", path(new, "?after=0-0&wait=30"))
        gateway.has_waiters(1)
        task = gateway.settle(new, 0)
        found = wire.reply().json()
        assert [result["task"] for result in found["results"]] == [task]
        assert found["done"] is False


def test_long_poll_without_a_cursor_ends_when_all_is_done(gateway):
    new, _ = gateway.add(2)
    with Wire(gateway.port) as wire:
        wire.send("GET", path(new, "?wait=30"))
        gateway.has_waiters(1)
        first = gateway.settle(new, 0)
        second = gateway.settle(new, 1)
        found = wire.reply().json()
        assert [result["task"] for result in found["results"]] == [first, second]
        assert (found["done"], found["status"]) == (True, "succeeded")


def test_who_waits_for_the_end_reads_nothing_before_it_and_streams_read_each(gateway, monkeypatch):
    """Six tasks are no six reads for a client that wants all of them."""
    monkeypatch.setattr(events, "COMMENT_SECONDS", 600.0)  # with a comment a stream reads by itself
    new, other = gateway.add(6)[0], gateway.add(6)[0]
    read_many, reads = gateway.ledger.read_many, []

    def counted(asked, *arguments, **options):
        reads.extend(request for request, _ in asked)
        return read_many(asked, *arguments, **options)

    monkeypatch.setattr(gateway.ledger, "read_many", counted)
    with Wire(gateway.port) as poll, Wire(gateway.port) as stream:
        poll.send("GET", path(new, "?wait=30"))
        stream.send("GET", f"{path(other)}/events")
        stream.head()
        until(lambda: reads.count(new.id) == reads.count(other.id) == 1, "both to be read once")
        for index in range(5):
            gateway.settle(new, index)
            gateway.settle(other, index)
            until(lambda index=index: reads.count(other.id) == 2 + index, "the stream to be read again")
        assert reads.count(new.id) == 1
        gateway.settle(new, 5)
        assert len(poll.reply().json()["results"]) == 6


def test_long_poll_of_what_is_done_ends_at_once(gateway):
    new, _ = gateway.add()
    gateway.settle(new, 0)
    cursor = ask(gateway.port, "GET", path(new, "?wait=60")).json()["cursor"]
    found = ask(gateway.port, "GET", path(new, f"?after={cursor}&wait=60")).json()
    assert (found["done"], found["results"], found["cursor"]) == (True, [], cursor)


def test_long_poll_answers_when_its_time_is_over(gateway):
    new, _ = gateway.add()
    started = time.monotonic()
    found = ask(gateway.port, "GET", path(new, "?wait=0.3")).json()
    assert (found["done"], found["results"]) == (False, [])
    assert time.monotonic() - started >= 0.3


def test_wait_past_its_limit_is_cut(start_gateway):
    gateway = start_gateway(NEARFETCH__LIMITS__WAIT_MAX_SECONDS="0.2")
    new, _ = gateway.add()
    assert ask(gateway.port, "GET", path(new, "?wait=3600")).status == 200


@pytest.mark.parametrize("query", ["after=x", "after=1", "after=1-", "after=18446744073709551615-1", "after="])
def test_bad_cursor_is_a_400(gateway, query):
    new, _ = gateway.add()
    for where in (path(new), f"{path(new)}/events"):
        if query == "after=" and where.endswith("events"):
            continue
        reply = ask(gateway.port, "GET", f"{where}?{query}")
        assert (reply.status, reply.json()["type"]) == (400, "/problems/bad-request")


@pytest.mark.parametrize("wait", ["x", "-1", "nan", "inf", ""])
def test_bad_wait_is_a_400(gateway, wait):
    new, _ = gateway.add()
    assert ask(gateway.port, "GET", path(new, f"?wait={wait}")).status == 400


def test_unknown_malformed_and_old_ids(gateway):
    old = str(ULID.from_timestamp(time.time() - 3700))
    for request, status in ((str(ULID()), 404), ("nonsense", 404), (old, 410), (old.lower(), 410)):
        for suffix in ("", "?wait=5", "/events"):
            reply = ask(gateway.port, "GET", f"/v1/requests/{request}{suffix}")
            assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")


def test_request_that_is_not_accepted_yet_is_not_there(gateway):
    new, _ = gateway.add()
    refused, _ = gateway.add()
    gateway.ledger.refuse(refused.id, [(task.id, task.region) for task in refused.tasks])
    assert ask(gateway.port, "GET", path(refused)).status == 404
    assert ask(gateway.port, "GET", path(new)).status == 200


def test_etag_saves_an_answer_that_did_not_change(gateway):
    new, _ = gateway.add(2)
    etag = ask(gateway.port, "GET", path(new)).headers["etag"]
    same = ask(gateway.port, "GET", path(new), {"If-None-Match": f'"other", {etag}'})
    assert (same.status, same.body, same.headers["etag"]) == (304, b"", etag)
    gateway.settle(new, 0)
    changed = ask(gateway.port, "GET", path(new), {"If-None-Match": etag})
    assert (changed.status, changed.headers["etag"] != etag) == (200, True)


def test_head_of_a_poll_has_no_body(gateway):
    new, _ = gateway.add()
    with Wire(gateway.port) as wire:
        length = int(wire.ask("HEAD", path(new)).headers["content-length"])
        assert length == len(wire.ask("GET", path(new)).body)


def test_news_between_the_first_read_and_the_wait_is_not_lost(start_gateway, monkeypatch):
    """It is settled after the waiter's first read was answered by Redis and before the waiter saw that."""
    gateway = start_gateway(listens=False)
    new, _ = gateway.add()
    read_many, hurry = gateway.ledger.read_many, [True]

    def read_then_settle(asked, bytes_max=None, **options):
        views = read_many(asked, bytes_max, **options)
        if hurry and asked[0][0] == new.id:
            hurry.clear()
            gateway.settle(new, 0)
            gateway.waiters.news([new.id])
        return views

    monkeypatch.setattr(gateway.ledger, "read_many", read_then_settle)
    assert ask(gateway.port, "GET", path(new, "?after=0-0&wait=30")).json()["done"] is True


def test_client_that_hangs_up_does_not_wait_any_more(gateway):
    new, _ = gateway.add()
    with Wire(gateway.port) as poll, Wire(gateway.port) as stream:
        poll.send("GET", path(new, "?wait=60"))
        stream.send("GET", f"{path(new)}/events")
        gateway.has_waiters(2)
    gateway.has_waiters(0)
    until(lambda: gateway.server.outlet.is_idle, "both exchanges to be over")


def test_500_waiters_and_healthz(gateway):
    requests = [gateway.add()[0] for _ in range(50)]
    wires = [Wire(gateway.port) for _ in range(500)]
    for index, wire in enumerate(wires):
        wire.send("GET", path(requests[index % 50], "?wait=60"))
    gateway.has_waiters(500)
    for _ in range(20):
        assert ask(gateway.port, "GET", "/healthz").status == 200
    tasks = [gateway.settle(new, 0) for new in requests]
    for index, wire in enumerate(wires):
        assert wire.reply().json()["results"][0]["task"] == tasks[index % 50]
        wire.close()
    gateway.has_waiters(0)


def test_stream_tells_each_result_and_then_the_end(gateway):
    new, _ = gateway.add(3)
    first = gateway.settle(new, 1)
    with Wire(gateway.port) as wire:
        wire.send("GET", f"{path(new)}/events")
        status, headers = wire.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        stream = wire.events()
        assert next(stream).data["task"] == first
        second = gateway.settle(new, 0)
        assert next(stream).data["task"] == second
        third = gateway.settle(new, 2, status="failed")
        event = next(stream)
        assert (event.name, event.data["task"], event.data["error"]["http_status"]) == ("result", third, 404)
        done = next(stream)
        assert (done.name, done.id, done.data["status"]) == ("done", f"{event.id}.done", "partial")
        assert "results" not in done.data
        assert list(stream) == []
        assert wire.ask("GET", "/healthz").status == 200  # the connection serves on


def test_stream_resumes_by_its_last_id_without_gap_or_repeat(gateway):
    new, _ = gateway.add(12)
    tasks, seen, after = [], [], ""
    for index in range(12):
        tasks.append(gateway.settle(new, index))
        with Wire(gateway.port) as wire:
            headers = {"Last-Event-ID": after} if after else {}
            wire.send("GET", f"{path(new)}/events?after=0-0", headers)
            wire.head()
            stream = wire.events()
            event = next(stream)
            seen.append(event.data["task"])
            after = event.id
            if index == 6:
                cursor = event.id
    assert seen == tasks
    with Wire(gateway.port) as wire:
        wire.send("GET", f"{path(new)}/events?after={cursor}")
        wire.head()
        events = list(wire.events())
        assert [event.data.get("task") for event in events] == [*tasks[7:], None]


def test_stream_resumed_after_its_last_result_says_that_it_is_done(gateway):
    new, _ = gateway.add()
    gateway.settle(new, 0)
    with Wire(gateway.port) as wire:
        wire.send("GET", f"{path(new)}/events")
        wire.head()
        last, done = wire.events()
        wire.send("GET", f"{path(new)}/events", {"Last-Event-ID": last.id})
        wire.head()
        assert [(event.name, event.id) for event in wire.events()] == [("done", done.id)]


def test_who_has_the_end_of_a_stream_gets_a_204(gateway):
    """It makes an EventSource of a browser stop; it would come back for ever."""
    new, _ = gateway.add()
    gateway.settle(new, 0)
    with Wire(gateway.port) as wire:
        wire.send("GET", f"{path(new)}/events")
        wire.head()
        *_, done = wire.events()
        assert wire.ask("GET", f"{path(new)}/events", {"Last-Event-ID": done.id}).status == 204
        assert wire.ask("GET", f"{path(new)}/events?after={done.id}").status == 204
        assert wire.ask("GET", f"{path(new)}/events", {"Last-Event-ID": f"{done.id}.done"}).status == 400


@pytest.mark.parametrize(("coding", "read"), [("gzip", gzip.decompress), ("zstd", zstd.decompress)])
def test_answer_in_pieces_is_coded_as_the_client_accepts(gateway, coding, read):
    new, _ = gateway.add(3)
    for index in range(3):
        gateway.settle(new, index, b'["%b"]' % (b"abc" * 100_000))
    plain = ask(gateway.port, "GET", path(new))
    found = ask(gateway.port, "GET", path(new), {"Accept-Encoding": coding})
    assert (found.headers["content-encoding"], found.headers["transfer-encoding"]) == (coding, "chunked")
    assert read(found.body) == plain.body
    assert len(found.body) < len(plain.body) / 10
    tag = found.headers["etag"]
    assert tag == f"W/{plain.headers['etag']}"
    assert ask(gateway.port, "GET", path(new), {"If-None-Match": tag}).status == 304


def test_large_answer_for_a_client_that_waits_is_coded_on_another_thread(gateway):
    new, _ = gateway.add()
    with Wire(gateway.port) as wire:
        wire.send("GET", path(new, "?wait=30"), {"Accept-Encoding": "gzip"})
        gateway.has_waiters(1)
        gateway.settle(new, 0, b'["%b"]' % (b"abc" * 200_000))
        reply = wire.reply()
        assert json.loads(gzip.decompress(reply.body))["results"][0]["records"] == ["abc" * 200_000]
        assert wire.ask("GET", "/healthz").status == 200


def test_comment_is_when_a_stream_reads_what_nobody_told_it(start_gateway, monkeypatch):
    monkeypatch.setattr(events, "COMMENT_SECONDS", 0.2)
    gateway = start_gateway(listens=False)
    new, _ = gateway.add()
    with Wire(gateway.port) as wire:
        wire.send("GET", f"{path(new)}/events")
        wire.head()
        stream = wire.events(comments=True)
        assert [next(stream).name, next(stream).name] == [":", ":"]
        task = gateway.settle(new, 0)
        told = [event for event in stream if event.name != ":"]
        assert [told[0].data["task"], told[1].name] == [task, "done"]


def test_slow_reader_of_a_stream_misses_nothing(start_gateway, monkeypatch):
    monkeypatch.setattr(events, "COMMENT_SECONDS", 600.0)  # it goes on because what it had was taken, not by the clock
    gateway = start_gateway(NEARFETCH__LIMITS__ANSWER_BYTES_MAX="400000")
    new, _ = gateway.add(20)
    with Wire(gateway.port, receive_bytes=16_384) as slow:
        slow.send("GET", f"{path(new)}/events")
        slow.head()
        tasks = [gateway.settle(new, index, b'["%b"]' % (b"x" * 300_000)) for index in range(20)]
        told = list(slow.events())
        assert [event.data["task"] for event in told[:-1]] == tasks
        assert told[-1].name == "done"


def test_news_that_comes_while_a_stream_is_written_to_is_told_at_once(start_gateway, monkeypatch):
    monkeypatch.setattr(events, "COMMENT_SECONDS", 600.0)  # which would read what was missed
    gateway = start_gateway()
    new, _ = gateway.add()
    write, has_written, has_news = os.write, threading.Event(), threading.Event()

    def held(descriptor: int, data: bytes) -> int:
        """The thread that writes is interrupted when the kernel has taken the stream's first bytes."""
        written = write(descriptor, data)
        if events.BEGIN in bytes(data):
            has_written.set()
            assert has_news.wait(60)
        return written

    told = gateway.listener._news
    monkeypatch.setattr(gateway.listener, "_news", lambda requests: (told(requests), has_news.set()))
    monkeypatch.setattr(os, "write", held)
    with Wire(gateway.port) as wire:
        wire.send("GET", f"{path(new)}/events")
        assert has_written.wait(60)
        task = gateway.settle(new, 0)
        wire.head()
        assert [event.data["task"] for event in wire.events() if event.name == "result"] == [task]


def test_long_poll_outlives_a_restart_of_the_hub(start_gateway, hub_redis):
    gateway = start_gateway()
    new, _ = gateway.add()
    with Wire(gateway.port) as poll, Wire(gateway.port) as stream:
        poll.send("GET", path(new, "?wait=60"))
        stream.send("GET", f"{path(new)}/events")
        stream.head()
        gateway.has_waiters(2)
        hub_redis.running.stop()
        until(lambda: gateway.hub.away, "the outage to be seen")
        assert ask(gateway.port, "GET", path(new)).status == 503
        assert ask(gateway.port, "GET", path(new, "?wait=0.1")).status == 503
        assert ask(gateway.port, "GET", f"{path(new)}/events").status == 503
        hub_redis.running.start()
        until(lambda: not gateway.hub.away, "the hub to be back")
        task = gateway.settle(new, 0)
        assert poll.reply().json()["results"][0]["task"] == task
        assert next(stream.events()).data["task"] == task


def test_stop_answers_whoever_waits(start_gateway):
    gateway = start_gateway()
    new, _ = gateway.add()
    with Wire(gateway.port) as poll, Wire(gateway.port) as stream:
        poll.send("GET", path(new, "?wait=60"))
        stream.send("GET", f"{path(new)}/events")
        stream.head()
        gateway.has_waiters(2)
        gateway.server.outlet.is_closing = True
        gateway.waiters.close()
        reply = poll.reply()
        assert (reply.status, reply.json()["done"], reply.headers["connection"]) == (200, False, "close")
        assert list(stream.events()) == []


def test_fault_of_a_handler_is_a_500_problem(gateway):
    reply = ask(gateway.port, "GET", "/broken")
    assert (reply.status, reply.json()["type"]) == (500, "/problems/internal")
    assert ask(gateway.port, "GET", "/healthz").status == 200


@pytest.mark.parametrize("cursor", ["%D9%A1-0", "1795921387913-%EF%BC%91", "1_0-0", "+1-0"])
@pytest.mark.parametrize("way", ["?after={}", "?after={}&wait=1", "/events?after={}"])
def test_a_cursor_of_other_digits_than_ours_is_refused(gateway, cursor, way):
    """Redis refuses it, and others who are read for at the same time were answered 500."""
    new, _ = gateway.add()
    assert ask(gateway.port, "GET", path(new, way.format(cursor))).status == 400


@pytest.mark.parametrize(
    "query", ["?wait=%D9%A3", "?wait=1_0", "?wait=1%0A", "?wait=-1", "?wait=inf", "?after=0-0&after=1-0"]
)
def test_an_odd_query_is_refused(gateway, query):
    assert ask(gateway.port, "GET", path(gateway.add()[0], query)).status == 400


def test_a_request_that_can_not_be_read_is_nobody_elses_fault(start_gateway):
    """Waiters are read for together: the data of one may be damaged."""
    gateway = start_gateway(listens=False)
    broken, whole = gateway.add()[0], gateway.add(2)[0]
    gateway.settle(whole, 0)
    with Wire(gateway.port) as first, Wire(gateway.port) as second:
        first.send("GET", path(broken, "?after=0-0&wait=30"))
        second.send("GET", path(whole, "?after=99999999999999-0&wait=30"))
        gateway.has_waiters(2)
        gateway.hub.client.set(names.events(broken.id), "damaged")
        gateway.waiters.news([broken.id, whole.id])
        assert first.reply().status == 500
        gateway.has_waiters(1)
        gateway.waiters.close()
        assert second.reply().status == 200
    assert ask(gateway.port, "GET", path(broken)).status == 500


def test_large_results_are_read_one_at_a_time_and_small_ones_before_them(start_gateway, monkeypatch):
    """The hub answers nobody while it reads, and all results of a read are in memory together: 32 of 3 MB took a gigabyte."""
    monkeypatch.setattr(ledger, "PIECE_BYTES", 2_000)
    monkeypatch.setattr(ledger, "TOGETHER_BYTES", 20_000)  # a share of 2,000 for each of ten
    gateway = start_gateway(listens=False)
    read_many, reads = gateway.ledger.read_many, []

    def noted(asked, *arguments, **options):
        found = read_many(asked, *arguments, **options)
        reads.append((len(asked), [len(result) for view in found[0] for result in view.results]))
        return found

    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(gateway.port)) for _ in range(10)]
        waiting = [gateway.add()[0] for _ in wires]
        for wire, new in zip(wires, waiting, strict=True):
            wire.send("GET", path(new, "?after=0-0&wait=60"))
        gateway.has_waiters(len(wires))
        until(lambda: not gateway.waiters._due, "their first reads")
        monkeypatch.setattr(gateway.ledger, "read_many", noted)
        for new in waiting:
            gateway.settle(new, 0, b'["%b"]' % (b"x" * (10 if new is waiting[9] else 30_000)))
        gateway.waiters.news([new.id for new in waiting])
        for wire, new in zip(wires, waiting, strict=True):
            (result,) = wire.reply().json()["results"]
            assert (result["task"], len(result["records"][0])) == (new.tasks[0].id, 10 if new is waiting[9] else 30_000)
    assert reads[0][0] == 10
    assert [len(reads[0][1]), *(len(found) for _, found in reads[1:])] == [1] * 10
    assert [count for count, _ in reads[1:]] == [1] * 9


def test_a_large_result_that_many_wait_for_is_read_once(start_gateway, monkeypatch):
    monkeypatch.setattr(ledger, "PIECE_BYTES", 2_000)
    monkeypatch.setattr(ledger, "TOGETHER_BYTES", 4_000)
    gateway = start_gateway(listens=False)
    large, other = gateway.add()[0], gateway.add()[0]
    read_many, reads = gateway.ledger.read_many, []
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(gateway.port)) for _ in range(9)]
        for wire, new in zip(wires, [other, *[large] * 8], strict=True):
            wire.send("GET", path(new, "?after=0-0&wait=60"))
        gateway.has_waiters(len(wires))
        until(lambda: not gateway.waiters._due, "their first reads")
        monkeypatch.setattr(
            gateway.ledger, "read_many", lambda asked, **more: reads.append(len(asked)) or read_many(asked, **more)
        )
        gateway.settle(large, 0, b'["%b"]' % (b"x" * 30_000))
        gateway.waiters.news([other.id, large.id])
        for wire in wires[1:]:
            assert len(wire.reply().json()["results"]) == 1
        assert reads == [2, 1]
        gateway.has_waiters(1)  # whose request had no news
