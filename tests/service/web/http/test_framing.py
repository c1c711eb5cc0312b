"""What a client may send, byte by byte: framing that two readers could read differently, and bodies without an end."""

import contextlib
import time

import pytest

from tests.wire import Wire, ask, chunked, request

HOST = b"Host: 127.0.0.1\r\n"
POST = b"POST /body HTTP/1.1\r\n" + HOST
GET = b"GET /seen HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"


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
    "a target with a user": b"GET http://me@evil.example/seen HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target of another scheme": b"GET ftp://evil.example/seen HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target without a host": b"GET http:///seen HTTP/1.1\r\n" + HOST + b"\r\n",
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
    "a trailer that is folded": CHUNKED + b"\r\n0\r\nX: 1\r\n 2\r\n\r\n",
}
ENDLESS = {
    "an extension": CHUNKED + b"\r\n3;" + b"a" * 70_000,
    "an extension in pieces": CHUNKED + b"\r\n" + b"3;a=1;b=2;c=3\r\nabc\r\n" * 5_000,
    "trailers": CHUNKED + b"\r\n0\r\n" + b"X: 1\r\n" * 12_000,
    "chunks of a byte": CHUNKED + b"\r\n" + b"1\r\na\r\n" * 20_000,
}


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_framing_that_can_be_read_in_two_ways_is_a_400_and_ends_the_connection(site, sent):
    with Wire(site.port) as wire:
        with contextlib.suppress(ConnectionError):  # the refusal may come first
            wire.socket.sendall(sent + SMUGGLED)
        reply = wire.reply()
        assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json")
        assert (reply.json()["type"], reply.json()["status"]) == ("/problems/protocol", 400)
        assert len(reply.json()["detail"]) > 10
        assert reply.headers["connection"] == "close"
        assert wire.is_closed()
    assert site.seen == []
    assert ask(site.port, "GET", "/next").status == 200


@pytest.mark.parametrize("sent", ENDLESS.values(), ids=ENDLESS)
def test_what_stands_around_chunks_has_an_end(site, sent):
    with Wire(site.port) as wire:
        with contextlib.suppress(ConnectionError):
            wire.socket.sendall(sent)
        reply = wire.reply()
        assert (reply.status, reply.json()["type"]) == (400, "/problems/protocol")
        assert "around the chunks" in reply.json()["detail"]
        assert wire.is_closed()
    assert site.seen == []


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
        assert (reply.status, reply.json()["type"]) == (status, "/problems/protocol")
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
            while sent < 100_000_000 and not wire.has_answer():
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
        assert wire.is_closed()


def test_client_that_waits_before_it_sends_chunks_of_a_body_that_nobody_takes_is_answered_at_once(site):
    """It got neither: it waited for the end of its patience."""
    with Wire(site.port, timeout_seconds=10) as wire:  # two thirds of what it would wait for the rest of its body
        wire.send("POST", "/takes-none", {"Transfer-Encoding": "chunked", "Expect": "100-continue"})
        assert wire.reply().status == 200
        assert wire.is_closed()
