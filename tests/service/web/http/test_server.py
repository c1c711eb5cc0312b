"""The server itself: parked requests, keep-alive and pipelining, hang-ups, slow readers, refused bodies."""

import socket

import pytest

from tests.service.bare_server import BIG
from tests.waiting import until
from tests.wire import Wire, ask, chunked, request
from web.http import outlet
from web.http.answer import Answer


def test_connection_serves_on_after_a_parked_answer(site):
    with Wire(site.port) as wire:
        for number in range(3):
            wire.send("GET", f"/park/{number}")
            site.waits(number + 1)[number].answer(Answer(200, b"later %d" % number))
            assert wire.reply().body == b"later %d" % number
        assert wire.ask("GET", "/direct").body == b"/direct"


def test_pipelined_requests_are_answered_in_their_order(site):
    with Wire(site.port) as wire:
        wire.socket.sendall(request("GET", "/park/1") + request("GET", "/direct") + request("GET", "/park/2"))
        site.waits()[0].answer(Answer(200, b"first"))
        assert [wire.reply().body, wire.reply().body] == [b"first", b"/direct"]
        site.waits(2)[1].answer(Answer(200, b"third"))
        assert wire.reply().body == b"third"


def test_answer_before_the_worker_lets_go_is_no_race(site):
    """Answered from the handler's own thread, and from another, while the handler still runs."""
    with Wire(site.port) as wire:
        for number in range(200):
            wire.send("GET", f"/park/{number}")
            site.waits(number + 1)[number].answer(Answer(200, str(number).encode()))
            assert wire.reply().body == str(number).encode()


def test_next_request_waits_until_the_worker_lets_go(site):
    with Wire(site.port) as wire:
        wire.socket.sendall(request("GET", "/park/hold") + request("GET", "/pipelined"))
        site.waits()[0].answer(Answer(200, b"early"))
        assert wire.reply().body == b"early"
        for _ in range(20):
            assert ask(site.port, "GET", "/other").status == 200
        assert "/pipelined" not in site.seen
        site.go_on.set()
        assert wire.reply().body == b"/pipelined"


def test_only_the_first_answer_counts(site):
    with Wire(site.port) as wire:
        wire.send("GET", "/park")
        exchange = site.waits()[0]
        assert [exchange.answer(Answer(200, b"one")), exchange.answer(Answer(200, b"two"))] == [True, False]
        assert wire.reply().body == b"one"
        assert wire.ask("GET", "/next").body == b"/next"


def test_client_that_hangs_up_while_parked_is_noticed(site):
    with Wire(site.port) as wire:
        wire.send("GET", "/park")
        exchange = site.waits()[0]
    until(lambda: site.gone == [exchange], "the hang-up")
    assert exchange.answer(Answer(200, b"nobody")) is False
    until(lambda: site.server.outlet.is_idle, "the exchange to be over")
    assert ask(site.port, "GET", "/next").body == b"/next"


def test_hang_up_of_one_does_not_touch_another_on_the_same_descriptor(site):
    for _ in range(50):
        site.parked.clear()
        site.gone.clear()
        with Wire(site.port) as first:
            first.send("GET", "/park/first")
            site.waits(1)
        with Wire(site.port) as second:
            second.send("GET", "/park/second")
            exchange = site.waits(2)[1]
            assert exchange.answer(Answer(200, b"second"))
            assert second.reply().body == b"second"


def test_500_parked_clients_leave_every_thread_free(site):
    wires = [Wire(site.port) for _ in range(500)]
    for wire in wires:
        wire.send("GET", "/park")
    parked = site.waits(500)
    for _ in range(20):
        assert ask(site.port, "GET", "/ok").status == 200
    for exchange in parked:
        exchange.answer(Answer(200, b"done"))
    assert [wire.reply().body for wire in wires] == [b"done"] * 500
    for wire in wires:
        wire.close()


@pytest.mark.parametrize("path", ["/park", "/big"])
def test_slow_reader_of_a_large_answer_holds_no_thread(start_site, path):
    site = start_site(threads=1)
    with Wire(site.port, receive_bytes=16_384) as slow:
        slow.send("GET", path)
        if path == "/park":
            site.waits()[0].answer(Answer(200, BIG))
        assert ask(site.port, "GET", "/other").body == b"/other"
        assert slow.reply().body == BIG
        assert slow.ask("GET", "/next").body == b"/next"


def test_client_that_stops_reading_is_given_up(start_site, monkeypatch):
    monkeypatch.setattr("web.http.exchange.STALL_SECONDS", 0.2)
    monkeypatch.setattr(outlet, "BEAT_SECONDS", 0.05)
    site = start_site()
    with Wire(site.port, receive_bytes=16_384) as stuck:
        stuck.send("GET", "/big")
        until(lambda: "/big" in site.seen and not site.server.connections, "the client to be given up")
        assert site.server.outlet.is_idle


def test_fresh_connections_that_say_nothing_hold_no_thread(start_site):
    site = start_site(threads=1)
    idle = [Wire(site.port) for _ in range(20)]
    assert ask(site.port, "GET", "/direct").body == b"/direct"
    assert idle[0].ask("GET", "/late").body == b"/late"
    for wire in idle:
        wire.close()


def test_stream_is_chunked_and_the_connection_serves_on(site):
    with Wire(site.port) as wire:
        wire.send("GET", "/park")
        exchange = site.waits()[0]
        exchange.open_stream(Answer(200))
        assert exchange.send(b"one")
        assert exchange.send(b"two")
        exchange.close_stream()
        reply = wire.reply()
        assert (reply.headers["transfer-encoding"], reply.body) == ("chunked", b"onetwo")
        assert wire.ask("GET", "/next").body == b"/next"


def test_http_1_0_gets_its_answer_and_a_close(site):
    with Wire(site.port) as wire:
        wire.send("GET", "/park", version="1.0")
        site.waits()[0].answer(Answer(200, b"old"))
        reply = wire.reply()
        assert (reply.body, reply.headers["connection"]) == (b"old", "close")
        assert wire.is_closed()


def test_http_1_0_can_keep_alive(site):
    with Wire(site.port) as wire:
        wire.send("GET", "/park", {"Connection": "Keep-Alive"}, version="1.0")
        site.waits()[0].answer(Answer(200, b"old"))
        assert wire.reply().headers["connection"] == "keep-alive"
        wire.send("GET", "/next", version="1.0")
        assert wire.reply().body == b"/next"


def test_http_1_0_stream_ends_with_the_connection(site):
    with Wire(site.port) as wire:
        wire.send("GET", "/park", version="1.0")
        exchange = site.waits()[0]
        exchange.open_stream(Answer(200))
        exchange.send(b"one")
        exchange.close_stream()
        assert wire.reply().body == b"one"


def test_head_has_the_length_and_no_body(site):
    with Wire(site.port) as wire:
        wire.send("HEAD", "/park")
        site.waits()[0].answer(Answer(200, b"12345"))
        assert wire.reply(is_head=True).headers["content-length"] == "5"
        assert wire.ask("GET", "/next").body == b"/next"


def test_connection_close_is_honoured_for_a_parked_answer(site):
    with Wire(site.port) as wire:
        wire.send("GET", "/park", {"Connection": "close"})
        site.waits()[0].answer(Answer(200, b"last"))
        assert wire.reply().headers["connection"] == "close"
        assert wire.is_closed()


def test_chunked_body_is_read_and_the_connection_serves_on(start_site):
    site = start_site(threads=1)
    with Wire(site.port) as wire:
        wire.send("POST", "/body", {"Transfer-Encoding": "chunked"}, chunked(b"ab", b"cd"))
        assert wire.reply().body == b"abcd"
        assert ask(site.port, "GET", "/other").body == b"/other"
        assert wire.ask("GET", "/next").body == b"/next"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_sender_of_a_body_too_large_reads_the_refusal(site, is_chunked):
    body = b"x" * 8_000_000
    with Wire(site.port) as wire:
        if is_chunked:
            pieces = chunked(*[body[:100_000]] * 80)
            wire.send("POST", "/body", {"Transfer-Encoding": "chunked"}, pieces)
        else:
            wire.send("POST", "/body", body=body)
        assert wire.reply().status == 413
        assert wire.is_closed()


def test_one_chunk_larger_than_the_server_takes_is_refused(site):
    with Wire(site.port) as wire:
        wire.send("POST", "/body", {"Transfer-Encoding": "chunked"}, b"ffffffff\r\nabc")
        assert wire.reply().status == 413


def test_body_that_nobody_reads_is_not_taken_for_a_request(site):
    smuggled = request("GET", "/smuggled")
    with Wire(site.port) as wire:
        for headers, body in (({}, smuggled), ({"Transfer-Encoding": "chunked"}, chunked(smuggled))):
            wire.send("POST", "/ignores", headers, body)
            assert wire.reply().body == b"/ignores"
            assert wire.ask("GET", "/next").body == b"/next"
    assert "/smuggled" not in site.seen


def test_body_of_a_call_that_takes_none_ends_the_connection(site):
    smuggled = request("GET", "/smuggled")
    for headers, body in (({}, smuggled), ({"Transfer-Encoding": "chunked"}, chunked(smuggled))):
        with Wire(site.port) as wire:
            wire.send("POST", "/takes-none", headers, body)
            assert wire.reply().headers["connection"] == "close"
            assert wire.is_closed()
    assert "/smuggled" not in site.seen


def test_body_cut_short_is_a_400(site):
    with Wire(site.port) as wire:
        wire.send("POST", "/body", {"Content-Length": "100"}, b"only this")
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.reply().status == 400
    assert site.seen == []
