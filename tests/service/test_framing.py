"""What a client may send, byte by byte: framing that two readers could read differently, sizes, times, and the room for it."""

import contextlib
import socket
import time

import pytest

from tests.service.bare_server import BIG, Site
from tests.service.wire import Wire, ask, chunked, request
from tests.waiting import until
from web import exchange, inlet, outlet
from web.exchange import Answer
from web.quota import FREE_BYTES
from web.server import Bounds

HOST = b"Host: 127.0.0.1\r\n"
POST = b"POST /body HTTP/1.1\r\n" + HOST
GET = b"GET /seen HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.fixture
def start_site():
    sites = []

    def start(**options) -> Site:
        sites.append(Site(**options))
        return sites[-1]

    yield start
    for site in sites:
        site.stop()


@pytest.fixture
def site(start_site) -> Site:
    return start_site()


@pytest.fixture
def _soon(monkeypatch):
    """Every time limit of what is received is over at once."""
    monkeypatch.setattr(inlet, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(inlet, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(inlet, "BEAT_SECONDS", 0.05)


AMBIGUOUS = {
    "two lengths that differ": POST + b"Content-Length: 3\r\nContent-Length: 40\r\n\r\nabc",
    "two lengths alike": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "length and chunks": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\nabc",
    "a length with a plus": POST + b"Content-Length: +3\r\n\r\nabc",
    "a length with an underscore": POST + b"Content-Length: 1_0\r\n\r\n0123456789",
    "a length with a blank inside": POST + b"Content-Length: 1 0\r\n\r\n0123456789",
    "a hexadecimal length": POST + b"Content-Length: 0x3\r\n\r\nabc",
    "an empty length": POST + b"Content-Length:\r\n\r\nabc",
    "a length past 64 bits": POST + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "a length that is no number": POST + b"Content-Length: many\r\n\r\nabc",
    "a blank before the colon": POST + b"Content-Length : 3\r\n\r\nabc",
    "a blank in a name": GET + b"X Y: 1\r\n\r\n",
    "a line without a colon": GET + b"foo\r\n\r\n",
    "a name that is empty": GET + b": 1\r\n\r\n",
    "a folded line": GET + b"X: 1\r\n 2\r\n\r\n",
    "a folded line, by a tab": GET + b"X: 1\r\n\t2\r\n\r\n",
    "a fold of the request line": b"GET / HTTP/1.1\r\n X: 1\r\n" + HOST + b"\r\n",
    "a folded length": POST + b"Content-Length: 1\r\n 0\r\n\r\n0123456789",
    "NUL": GET + b"X: 1\x002\r\n\r\n",
    "NUL in a name": GET + b"X\x00: 1\r\n\r\n",
    "another control character": GET + b"X: 1\x072\r\n\r\n",
    "a bare CR": GET + b"X: 1\rY: 2\r\n\r\n",
    "a bare LF": GET + b"X: 1\nY: 2\r\n\r\n",
    "a bare LF after the request line": b"GET /seen HTTP/1.1\n" + HOST + b"\r\n",
    "a bare LF before the request line": b"\n" + GET + b"\r\n",
    "no Host": b"GET /seen HTTP/1.1\r\n\r\n",
    "two Hosts": GET + HOST + b"\r\n",
    "another coding": POST + b"Transfer-Encoding: gzip\r\n\r\n",
    "a coding before chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding after chunked": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
    "chunked twice": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked with a parameter": POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "nearly chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked by a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "an empty coding": POST + b"Transfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc",
    "chunks in HTTP/1.0": b"POST /body HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two blanks in the request line": b"GET  /seen HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tab in the request line": b"GET\t/seen HTTP/1.1\r\n" + HOST + b"\r\n",
    "a blank in the target": b"GET /seen me HTTP/1.1\r\n" + HOST + b"\r\n",
    "a blank after the version": b"GET /seen HTTP/1.1 \r\n" + HOST + b"\r\n",
    "no target": b"GET HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target of another host": b"GET http://evil.example/seen HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target of an authority": b"CONNECT evil.example:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a fragment": b"GET /seen#it HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target that is not ASCII": b"GET /seen?q=Z\xc3\xbcrich HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with NUL": b"GET /seen\x00 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method in small letters": b"get /seen HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method that nobody knows": b"FETCH /seen HTTP/1.1\r\n" + HOST + b"\r\n",
    "another protocol": b"GET /seen RTSP/1.0\r\n" + HOST + b"\r\n",
    "what is no HTTP": b"nonsense\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a version that is none": b"GET /seen HTTP/1.2\r\n" + HOST + b"\r\n",
    "a chunk size with a plus": CHUNKED + b"\r\n+3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with a minus": CHUNKED + b"\r\n-3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with an underscore": CHUNKED + b"\r\n1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + b"\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with a blank": CHUNKED + b"\r\n3 \r\nabc\r\n0\r\n\r\n",
    "a chunk size after a blank": CHUNKED + b"\r\n 3\r\nabc\r\n0\r\n\r\n",
    "a chunk size that is empty": CHUNKED + b"\r\n\r\nabc\r\n0\r\n\r\n",
    "a chunk size past 64 bits": CHUNKED + b"\r\n11111111111111111\r\nabc\r\n0\r\n\r\n",
    "a chunk size before a bare LF": CHUNKED + b"\r\n3\nabc\r\n0\r\n\r\n",
    "a chunk before a bare LF": CHUNKED + b"\r\n3\r\nabc\n0\r\n\r\n",
    "a chunk longer than its size": CHUNKED + b"\r\n3\r\nabcd\r\n0\r\n\r\n",
    "a NUL in a chunk's extension": CHUNKED + b"\r\n3;a\x00=1\r\nabc\r\n0\r\n\r\n",
    "a bare LF in a chunk's extension": CHUNKED + b"\r\n3;a\nabc\r\n0\r\n\r\n",
    "extensions without an end": CHUNKED + b"\r\n3;" + b"a" * 70_000,
    "trailers without an end": CHUNKED + b"\r\n0\r\n" + b"X: 1\r\n" * 12_000,
    "a trailer that is folded": CHUNKED + b"\r\n0\r\nX: 1\r\n 2\r\n\r\n",
    "a million chunks": CHUNKED + b"\r\n" + b"1\r\na\r\n" * 20_000,
}


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_framing_that_can_be_read_in_two_ways_is_a_400_and_ends_the_connection(site, sent):
    with Wire(site.port) as wire:
        with contextlib.suppress(ConnectionError):  # the refusal may come first
            wire.socket.sendall(sent + SMUGGLED)
        reply = wire.reply()
        assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json")
        assert (reply.json()["type"], reply.json()["status"]) == ("urn:nearfetch:problem:protocol", 400)
        assert len(reply.json()["detail"]) > 10
        assert reply.headers["connection"] == "close"
        assert wire.is_closed()
    assert site.seen == []
    assert ask(site.port, "GET", "/next").status == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
        (b"GET / HTTP/0.9\r\n" + HOST + b"\r\n", 505),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /" + b"a" * 70_000, 414),
        (GET + b"X: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (GET + b"X: 1\r\n" * 20_000, 431),
    ],
)
def test_other_versions_and_heads_without_an_end_have_a_status_of_their_own(site, sent, status):
    with Wire(site.port) as wire:
        with contextlib.suppress(ConnectionError):
            wire.socket.sendall(sent)
        reply = wire.reply()
        assert (reply.status, reply.json()["type"]) == (status, "urn:nearfetch:problem:protocol")
        assert wire.is_closed()
    assert site.seen == []


def test_what_is_odd_and_clear_is_answered(site):
    with Wire(site.port) as wire:
        wire.socket.sendall(b"\r\n\r\n" + GET + b"X:\r\nX-Tab:\t1\t\r\nX-Latin: \xfc\r\ncOnTeNt-LeNgTh: 0\r\n\r\n")
        assert wire.reply().body == b"/seen"
        wire.socket.sendall(CHUNKED + b'\r\n003;a=1;b="c"\r\nabc\r\n2\r\nde\r\n0\r\nX: 1\r\n\r\n')
        assert wire.reply().body == b"abcde"
        wire.socket.sendall(GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n")
        assert wire.reply().body == b"/seen"
    assert ask(site.port, "GET", "/a%2Fb%20c").body == b"/a%2Fb c"


def test_name_with_an_underscore_is_no_other_spelling_of_a_field(site):
    seen = []
    site.on_request = lambda found: seen.append(dict(found.environ))
    with Wire(site.port) as wire:
        wire.socket.sendall(GET + b"Content_Length: 3\r\nX_Y: 1\r\nX-Z: 2\r\n\r\n")
        assert wire.reply().status == 200
    assert "HTTP_X_Y" not in seen[0]
    assert "CONTENT_LENGTH" not in seen[0]
    assert seen[0]["HTTP_X_Z"] == "2"


def test_any_cut_of_pipelined_requests_is_the_same_to_the_app(site):
    whole = (
        request("POST", "/body", body=b"first")
        + request("POST", "/body", {"Transfer-Encoding": "chunked"}, chunked(b"sec", b"ond"))
        + request("GET", "/third")
    )
    with Wire(site.port) as wire:
        for at in range(1, len(whole), 7):
            wire.socket.sendall(whole[:at])
            time.sleep(0.002)  # another segment; whichever way they come, the answers are the same
            wire.socket.sendall(whole[at:])
            assert [wire.reply().body for _ in range(3)] == [b"first", b"second", b"/third"]


def test_endless_chunks_end_at_the_limit_of_the_body(site):
    with Wire(site.port) as wire:
        wire.socket.sendall(CHUNKED + b"\r\n")
        sent, piece = 0, b"%x\r\n%b\r\n" % (50_000, b"x" * 50_000)
        with contextlib.suppress(ConnectionError):
            while sent < 100_000_000 and not _has_answer(wire):
                wire.socket.sendall(piece)
                sent += len(piece)
        assert wire.reply().status == 413
        assert wire.is_closed()
    assert sent < 20_000_000  # what is read on, so that the refusal arrives, has an end too


def test_body_too_long_is_refused_before_it_is_sent(site):
    for headers in ({"Content-Length": "1000001"}, {"Content-Length": "300000000", "Expect": "100-continue"}):
        with Wire(site.port) as wire:
            wire.send("POST", "/body", headers)
            assert wire.reply().status == 413
            assert wire.is_closed()


def test_client_that_waits_for_100_continue_gets_it_only_where_the_body_is_taken(site):
    with Wire(site.port) as wire:
        wire.send("POST", "/body", {"Content-Length": "3", "Expect": "100-continue"})
        assert wire.head()[0] == 100
        wire.socket.sendall(b"abc")
        assert wire.reply().body == b"abc"
        wire.send("POST", "/takes-none", {"Content-Length": "3", "Expect": "100-continue"})
        assert wire.reply().status == 200


@pytest.mark.parametrize(("sent", "status"), [(GET, 408), (POST + b"Content-Length: 3\r\n\r\na", 408)])
@pytest.mark.usefixtures("_soon")
def test_head_and_body_have_an_end_that_no_further_byte_moves(site, sent, status):
    with Wire(site.port) as wire:
        wire.socket.sendall(sent)
        more = b"X: 1\r\n" if sent is GET else b""
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while not _has_answer(wire):
                assert time.monotonic() - started < 20, "each byte gives it more time"
                wire.socket.sendall(more)
                time.sleep(0.01)
        reply = wire.reply()
        assert (reply.status, reply.json()["type"]) == (status, "urn:nearfetch:problem:protocol")
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
    monkeypatch.setattr(inlet, "IDLE_SECONDS", 0.2)
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
        assert ask(site.port, "GET", "/healthz").status == 200
        slow[1].socket.sendall(b"12345678")
        assert slow[1].reply().body == b"x12345678"
    finally:
        for wire in slow:
            wire.close()
    until(lambda: not site.server.connections, "all to be closed")


def test_room_for_what_is_received_is_bounded_for_an_address_and_for_all(start_site):
    body = b"x" * 500_000
    site = start_site(bounds=Bounds(receiving_bytes_max=4_000_000, address_share=0.5))
    quota = site.server.receiving
    half = POST + b"Content-Length: 1000000\r\n\r\n" + body
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(Wire(site.port)) for _ in range(3)]
        for number, wire in enumerate(taken, 1):
            wire.socket.sendall(half)
            until(lambda number=number: quota.held == number * (500_000 - FREE_BYTES), "the half to be held")
        with Wire(site.port) as fifth:
            with contextlib.suppress(ConnectionError):
                fifth.socket.sendall(POST + b"Content-Length: 1000000\r\n\r\n" + body + body[:-1])
            reply = fifth.reply()
            assert (reply.status, reply.json()["type"]) == (429, "urn:nearfetch:problem:too-many")
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
        until(lambda: site.server.receiving.held, "the first to be held")
        with contextlib.suppress(ConnectionError):
            second.socket.sendall(POST + b"Content-Length: 900001\r\n\r\n" + body)
        reply = second.reply()
        assert (reply.status, reply.json()["type"]) == (503, "urn:nearfetch:problem:unavailable")
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
        assert (refused.status, refused.json()["type"]) == (429, "urn:nearfetch:problem:too-many")
        assert refused.headers["retry-after"] == "1"
        assert ask(site.port, "GET", "/small").body == b"/small"
        others = []
        for number in (2, 3):
            others.append(stack.enter_context(Wire(site.port, receive_bytes=16_384, address=f"127.0.0.{number}")))
            others[-1].send("GET", "/big")
            held = number * len(BIG)
            until(lambda held=held: site.server.outlet.quota.held == held, "the others to be held")
        full = stack.enter_context(Wire(site.port, address="127.0.0.4")).ask("GET", "/big")
        assert (full.status, full.json()["type"]) == (503, "urn:nearfetch:problem:unavailable")
        assert taken.reply().body == BIG
        assert ask(site.port, "GET", "/big").body == BIG
    until(lambda: site.server.outlet.quota.held == 0, "all to be given back")


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


@pytest.mark.parametrize("bytes_a_look", [0, 10])
def test_reader_of_a_byte_at_a_time_is_given_up_and_a_slow_one_is_not(start_site, monkeypatch, bytes_a_look):
    monkeypatch.setattr(exchange, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(exchange, "RATE_MIN", 50_000)
    monkeypatch.setattr(outlet, "BEAT_SECONDS", 0.02)
    site = start_site()
    with Wire(site.port, receive_bytes=16_384) as slow, Wire(site.port, receive_bytes=16_384) as fair:
        slow.send("GET", "/big")
        fair.send("GET", "/big")
        until(lambda: len(site.server.outlet.open) == 2, "both answers to begin")
        until(
            lambda: _reads(fair, 100_000) and _reads(slow, bytes_a_look) and len(site.server.outlet.open) == 1, "a cut"
        )
        fair.socket.settimeout(20)
        read = 0
        with contextlib.suppress(ConnectionError):
            while piece := slow.socket.recv(1_000_000):
                read += len(piece)
        assert read < len(BIG)
        assert len(site.server.outlet.open) == 1
        assert _reads(fair, 1_000_000)


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


def _has_answer(wire: Wire) -> bool:
    wire.socket.setblocking(False)
    try:
        return bool(wire.socket.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        wire.socket.settimeout(20)


def _reads(wire: Wire, size: int) -> bool:
    wire.socket.settimeout(0.0)
    with contextlib.suppress(OSError):
        wire.socket.recv(size)
    return True
