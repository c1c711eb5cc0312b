"""Clients that send or read slowly, or too much at once: what they may hold, and for how long."""

import contextlib
import errno
import fcntl
import os
import socket
import sys
import termios
import time

import pytest

from tests.service.bare_server import BIG
from tests.waiting import until
from tests.wire import Wire, ask, request
from web.http import exchange, inlet, outlet
from web.http.answer import Answer
from web.http.quota import FREE_BYTES
from web.http.server import Bounds

HOST = b"Host: 127.0.0.1\r\n"
POST = b"POST /body HTTP/1.1\r\n" + HOST
GET = b"GET /seen HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"


@pytest.fixture
def _soon(monkeypatch):
    """Every time limit of what is received is over at once."""
    monkeypatch.setattr(inlet, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(inlet, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(inlet, "BEAT_SECONDS", 0.05)


@pytest.mark.parametrize(
    ("sent", "more"),
    [
        (GET, b"X: 1\r\n"),
        (POST + b"Content-Length: 900000\r\n\r\n", b"a"),
        (CHUNKED + b"\r\n", b"1\r\na\r\n"),
    ],
)
@pytest.mark.usefixtures("_soon")
def test_head_and_body_have_an_end_that_no_further_byte_moves(site, sent, more):
    with Wire(site.port) as wire:
        wire.socket.sendall(sent)
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while not wire.has_answer():
                assert time.monotonic() - started < 20, "each byte gives it more time"
                wire.socket.sendall(more)
                time.sleep(0.01)
        reply = wire.reply()
        assert (reply.status, reply.json()["type"]) == (408, "/problems/protocol")
        assert wire.is_closed()


@pytest.mark.usefixtures("_soon")
def test_clock_of_a_head_begins_with_its_first_byte(site):
    """Also for one that came behind another request; who says nothing is left in peace."""
    with Wire(site.port) as quiet, Wire(site.port) as piped:
        piped.socket.sendall(GET + b"\r\n" + b"GET /ha")
        assert piped.reply().body == b"/seen"
        assert piped.reply().status == 408
        assert quiet.ask("GET", "/next").body == b"/next"


def test_silent_connections_end(start_site, monkeypatch):
    monkeypatch.setattr(inlet, "IDLE_SECONDS", 2.0)
    monkeypatch.setattr(inlet, "BEAT_SECONDS", 0.05)
    site = start_site()
    with Wire(site.port) as silent, Wire(site.port) as kept, Wire(site.port) as lines:
        assert kept.ask("GET", "/a").status == 200
        assert silent.is_closed()
        assert kept.is_closed()
        with contextlib.suppress(ConnectionError):
            lines.socket.sendall(b"\r\n")
        assert lines.is_closed()
    until(lambda: not site.server.connections, "all to be closed")


def test_slow_senders_hold_no_thread(start_site):
    site = start_site(threads=1)
    slow = [Wire(site.port) for _ in range(300)]
    try:
        for number, wire in enumerate(slow):
            wire.socket.sendall((GET, POST + b"Content-Length: 9\r\n\r\nx", CHUNKED + b"\r\n5\r\nab")[number % 3])
        until(lambda: len(site.server.connections) == 300, "all of them")
        assert ask(site.port, "GET", "/ok").status == 200
        slow[1].socket.sendall(b"12345678")
        assert slow[1].reply().body == b"x12345678"
    finally:
        for wire in slow:
            wire.close()
    until(lambda: not site.server.connections, "all to be closed")


def test_one_address_that_asks_for_much_waits_for_itself(start_site):
    """Requests are taken in turn between addresses."""
    site = start_site(threads=1)
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(Wire(site.port))
        busy.send("GET", "/park/hold")
        site.waits()
        crowd = [stack.enter_context(Wire(site.port)) for _ in range(50)]
        for number, wire in enumerate(crowd):
            wire.send("GET", f"/crowd/{number}")
        until(lambda: sum(one.received is not None for one in site.server.connections) == 51, "all to wait")
        others = [stack.enter_context(Wire(site.port, address=f"127.0.0.{number}")) for number in (2, 3)]
        for wire in others:
            wire.send("GET", "/other")
        until(lambda: sum(one.received is not None for one in site.server.connections) == 53, "the others, too")
        site.go_on.set()
        assert [wire.reply().body for wire in others] == [b"/other"] * 2
        assert [wire.reply().body for wire in crowd] == [b"/crowd/%d" % number for number in range(50)]
    assert max(at for at, path in enumerate(site.seen) if path == "/other") <= 4  # behind three of the crowd


def test_room_for_what_is_received_is_bounded_for_an_address_and_for_all(start_site):
    body = b"x" * 500_000
    site = start_site(bounds=Bounds(receiving_bytes_max=4_000_000, address_share=0.5))
    quota = site.server.receiving
    half = POST + b"Content-Length: 1000000\r\n\r\n" + body
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(Wire(site.port)) for _ in range(3)]
        for number, wire in enumerate(taken, 1):
            wire.socket.sendall(half)
            bodies = number * (500_000 - FREE_BYTES)  # the heads come besides
            until(lambda bodies=bodies: bodies <= quota.held < bodies + 10_000, "the half to be held")
        with Wire(site.port) as fifth:
            with contextlib.suppress(ConnectionError):
                fifth.socket.sendall(POST + b"Content-Length: 1000000\r\n\r\n" + body + body[:-1])
            reply = fifth.reply()
            assert (reply.status, reply.json()["type"]) == (429, "/problems/too-many")
            assert reply.headers["retry-after"] == "1"
            assert fifth.is_closed()
        with Wire(site.port, address="127.0.0.2") as other:
            assert other.ask("POST", "/body", body=body).body == body
        assert ask(site.port, "POST", "/body", body=b"small").body == b"small"
        taken[0].socket.sendall(body)
        assert taken[0].reply().body == body + body
    until(lambda: quota.held == 0, "all to be given back")


def test_room_of_the_gateway_is_not_one_address_more(start_site):
    body = b"x" * 900_000
    site = start_site(bounds=Bounds(receiving_bytes_max=1_000_000, address_share=1.0))
    with Wire(site.port) as first, Wire(site.port, address="127.0.0.2") as second:
        first.socket.sendall(POST + b"Content-Length: 900001\r\n\r\n" + body)
        until(lambda: site.server.receiving.held >= len(body) - FREE_BYTES, "all of the first to be held")
        with contextlib.suppress(ConnectionError):
            second.socket.sendall(POST + b"Content-Length: 900001\r\n\r\n" + body)
        reply = second.reply()
        assert (reply.status, reply.json()["type"]) == (503, "/problems/unavailable")
        assert reply.headers["retry-after"] == "1"


def test_who_waits_for_an_answer_holds_no_room_for_what_it_sent(start_site):
    site = start_site()
    with Wire(site.port) as wire:
        wire.socket.sendall(request("POST", "/park/body", body=b"x" * 900_000))
        parked = site.waits()[0]
        until(lambda: site.server.receiving.held == 0, "the room to be given back")
        parked.answer(Answer(200, b"done"))
        assert wire.reply().body == b"done"


def test_room_for_answers_is_bounded_and_small_answers_go_on(start_site):
    """Who does not read what it asked for gets no more of it; others, and small answers, do not notice."""
    site = start_site(bounds=Bounds(sending_bytes_max=3 * len(BIG), address_share=0.5))
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(Wire(site.port, receive_bytes=16_384))
        taken.send("GET", "/big")
        until(lambda: site.server.outlet.quota.held == len(BIG), "the first to be held")
        refused = ask(site.port, "GET", "/big")
        assert (refused.status, refused.json()["type"]) == (429, "/problems/too-many")
        assert refused.headers["retry-after"] == "1"
        assert ask(site.port, "GET", "/small").body == b"/small"
        others = []
        for number in (2, 3):
            others.append(stack.enter_context(Wire(site.port, receive_bytes=16_384, address=f"127.0.0.{number}")))
            others[-1].send("GET", "/big")
            held = number * len(BIG)
            until(lambda held=held: site.server.outlet.quota.held == held, "the others to be held")
        full = stack.enter_context(Wire(site.port, address="127.0.0.4")).ask("GET", "/big")
        assert (full.status, full.json()["type"]) == (503, "/problems/unavailable")
        assert taken.reply().body == BIG
        assert ask(site.port, "GET", "/big").body == BIG
    until(lambda: site.server.outlet.is_idle, "all to be over")
    assert site.server.outlet.quota.held == 0


def test_stream_that_there_is_no_room_for_is_cut(start_site):
    site = start_site(bounds=Bounds(sending_bytes_max=len(BIG), address_share=0.5))
    with Wire(site.port) as wire:
        wire.send("GET", "/park")
        stream = site.waits()[0]
        assert stream.open_stream(Answer(200))
        assert not stream.send(BIG)
        wire.head()
        assert wire.is_closed()
    until(lambda: site.gone == [stream], "it to be told")


def test_reader_of_nothing_is_given_up_and_one_that_reads_is_not(start_site, monkeypatch):
    monkeypatch.setattr(exchange, "STALL_SECONDS", 6.0)  # longer than a busy machine keeps this test from reading
    monkeypatch.setattr(outlet, "BEAT_SECONDS", 0.02)
    site = start_site()
    with Wire(site.port, receive_bytes=16_384) as stuck, Wire(site.port, receive_bytes=16_384) as fair:
        stuck.send("GET", "/big")
        fair.send("GET", "/big")
        until(lambda: len(site.server.outlet.open) == 2, "both answers to begin")
        until(lambda: fair.socket.recv(100_000) and len(site.server.outlet.open) == 1, "one to be cut off")
        with contextlib.suppress(ConnectionError):
            assert len(stuck.file.read()) < len(BIG)
        assert fair.socket.recv(100_000)


def test_reader_of_a_byte_now_and_then_is_too_slow(start_site, monkeypatch):
    """What counts is how much its machine took, not that it took something."""
    monkeypatch.setattr(outlet, "BEAT_SECONDS", 600.0)  # only this test looks
    site = start_site()
    with Wire(site.port, receive_bytes=16_384) as slow:
        slow.send("GET", "/big")
        until(lambda: len(site.server.outlet.open) == 1, "the answer to begin")
        (found,) = site.server.outlet.open
        until(lambda: found.backlog, "the backlog")
        now = time.monotonic()

        def taken() -> int:
            left = bytearray(4)
            fcntl.ioctl(found.fileno(), termios.TIOCOUTQ, left)
            return found.written_bytes - int.from_bytes(left, sys.byteorder)

        def read_until_taken(size: int) -> None:
            before = taken()
            until(lambda: taken() - before >= size or not slow.socket.recv(2_000), "its machine to take so much")

        assert not found.is_stalled(now)  # it began just now
        found.is_stalled(now + 31)  # what was taken by now counts no more
        read_until_taken(1)
        assert found.is_stalled(now + 62)
        read_until_taken(100_000)
        assert not found.is_stalled(now + 93)


def test_kernel_keeps_little_of_an_answer_that_nobody_reads(site):
    """Else megabytes of each answer wait there, uncounted."""
    with Wire(site.port, receive_bytes=16_384) as slow:
        slow.send("GET", "/big")
        until(lambda: len(site.server.outlet.open) == 1, "the answer to begin")
        (found,) = site.server.outlet.open
        until(lambda: found.backlog, "the backlog")
        assert found.written_bytes < 2_000_000
        assert slow.reply().body == BIG


def test_idle_connections_make_room_for_new_ones(start_site, monkeypatch):
    site = start_site()
    monkeypatch.setattr(site.server.inlet, "_connections_max", 20)
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(Wire(site.port))
        busy.send("GET", "/park")
        parked = site.waits()[0]
        begun = stack.enter_context(Wire(site.port))
        begun.socket.sendall(GET)
        until(lambda: any(one.receiver.held for one in site.server.connections), "the half of a head")
        idle = [stack.enter_context(Wire(site.port)) for _ in range(40)]
        until(lambda: ask(site.port, "GET", "/next").status == 200, "an answer")
        assert idle[0].is_closed()
        begun.socket.sendall(b"\r\n")
        assert begun.reply().body == b"/seen"
        parked.answer(Answer(200, b"done"))
        assert busy.reply().body == b"done"
        assert len(site.server.connections) <= 20


def test_slow_heads_make_room_if_no_connection_is_idle(start_site, monkeypatch):
    site = start_site()
    monkeypatch.setattr(site.server.inlet, "_connections_max", 20)
    monkeypatch.setattr(inlet, "HEAD_SECONDS", 600.0)
    monkeypatch.setattr(inlet, "SLOW_HEAD_SECONDS", 600.0)
    with contextlib.ExitStack() as stack:
        begun = [stack.enter_context(Wire(site.port)) for _ in range(20)]
        for one in begun:
            one.socket.sendall(GET)
        until(lambda: sum(bool(one.receiver.held) for one in site.server.connections) == 20, "the halves of heads")
        with Wire(site.port) as refused:
            assert refused.is_closed()  # they have only begun
        monkeypatch.setattr(inlet, "SLOW_HEAD_SECONDS", 0.0)
        assert ask(site.port, "GET", "/next").status == 200
        assert begun[0].is_closed()
        begun[1].socket.sendall(b"\r\n")
        assert begun[1].reply().body == b"/seen"


class LastDescriptor:
    """A listener that gets one connection more. Linux looks for a descriptor first, so accept then fails also if nobody waits."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener, self._left = listener, 1

    def __getattr__(self, name: str):
        return getattr(self._listener, name)

    def accept(self):
        if not self._left:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self._left -= 1
        return self._listener.accept()


def test_the_client_that_got_the_last_descriptor_is_answered(start_site, monkeypatch):
    site = start_site()
    monkeypatch.setattr(site.server.inlet, "_listener", LastDescriptor(site.server.socket))
    assert ask(site.port, "GET", "/last").status == 200


@pytest.fixture
def _calm(monkeypatch):
    """While there is nothing to do, nothing is looked at."""
    monkeypatch.setattr(inlet, "CALM_SECONDS", 600.0)
    monkeypatch.setattr(outlet, "CALM_SECONDS", 600.0)
    monkeypatch.setattr(outlet, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr(inlet, "HEAD_SECONDS", 0.1)


@pytest.mark.usefixtures("_calm")
def test_time_limits_hold_also_for_the_first_connection_after_a_calm(site):
    for sent, status in ((b"no HTTP\r\n\r\n", 400), (b"GET /seen", 408)):
        with Wire(site.port) as wire:
            wire.socket.sendall(sent)
            assert wire.reply().status == status
            until(lambda: not site.server.connections, "the server to close it, though its client does not")
