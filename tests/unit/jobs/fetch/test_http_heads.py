"""Heads of requests and answers, and the framing of bodies: read as other libraries read them, and never ambiguous."""

import http.client
import io
import socket

import httptools
import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.errors import ConnectionFailed, TooLarge
from jobs.fetch.answer import Malformed, Response, headers_of, is_answer
from jobs.fetch.connection import _sent, request_head
from jobs.fetch.exchange import Exchange, Watchdog
from jobs.origin import host_header, origin_of

NAMES = st.text("abXY-_09.!", min_size=1, max_size=8)
VALUES = st.text("ab :;,=\t\"'/é\xff", max_size=12)
LINES = st.one_of(
    st.tuples(NAMES, VALUES).map(lambda pair: f"{pair[0]}: {pair[1]}"),
    st.tuples(NAMES, VALUES).map(lambda pair: f"{pair[0]}:{pair[1]}"),
)
FOLDED = st.tuples(NAMES, VALUES, VALUES).map(lambda part: f"{part[0]}: {part[1]}\r\n \t{part[2]}")
ODD = st.sampled_from(["X-Ü: 1", "X Y: 1", "foo", ": 1", "\x01: 1", "", "a\x00b: 1"]).filter(bool)


def text(lines: list[str], end: str = "\r\n") -> str:
    return "".join(line + end for line in lines)


def seen(headers) -> list[tuple[str, str]]:
    """Names and values, with runs of blanks as one."""
    return [(name, " ".join(value.split())) for name, value in headers]


@given(st.lists(LINES | FOLDED, max_size=6), st.sampled_from(["\r\n", "\n"]))
@example(["Set-Cookie: a=1", "set-cookie: b=2", "X: y"], "\r\n")
@example(["X: a\r\n b\r\n\tc", "Y: z"], "\r\n")
def test_headers_are_those_that_http_client_reads(lines, end):
    """A header that continues over several lines becomes one line."""
    wire = (text(lines, end) + end).encode("latin-1")
    ours = list(headers_of(text(lines, end)).items())
    assert seen(ours) == seen(http.client.parse_headers(io.BytesIO(wire)).items())
    assert all("\n" not in value for _, value in ours)


@given(st.lists(LINES | FOLDED | ODD | st.text("ab :\t\r\0é", max_size=8), max_size=6))
def test_headers_are_those_that_llhttp_reads_where_it_reads_them(lines):
    """The peer refuses a head with an odd line, as servers must."""
    theirs: list[tuple[str, str]] = []

    class Found:
        def on_header(self, name: bytes, value: bytes) -> None:
            theirs.append((name.decode("latin-1"), value.decode("latin-1")))

    try:
        httptools.HttpResponseParser(Found()).feed_data(f"HTTP/1.1 200 OK\r\n{text(lines)}\r\n".encode("latin-1"))
    except httptools.HttpParserError:
        return
    if "" not in lines:
        assert seen(headers_of(text(lines)).items()) == seen(theirs)


@given(st.lists(st.tuples(LINES, ODD), max_size=6))
def test_an_odd_line_loses_no_other(pairs):
    clean, dirty = [line for line, _ in pairs], [line for pair in pairs for line in pair]
    assert list(headers_of(text(dirty)).items()) == list(headers_of(text(clean)).items())


def test_a_line_that_continues_an_odd_one_is_none():
    found = headers_of("foo\r\n Content-Length: 9\r\nX: a\r\n\tb \r\n")
    assert list(found.items()) == [("X", "a b")]


def test_too_many_headers_are_refused():
    with pytest.raises(TooLarge, match="at most 100 headers"):
        headers_of(text([f"X-{number}: 1" for number in range(101)]))


# Framing

BODIES = st.lists(st.binary(min_size=1, max_size=20), max_size=6)
SIZES = st.sampled_from(["%x", "%X", "0%x", "%x ", "%x;a=b", '%x ;a="b;c"'])
TRAILERS = st.sampled_from(["", "X: y\r\n", "X: y\r\nZ: a\r\n"])


def read(data: bytes, cuts: list[int]) -> tuple[int, bytes]:
    """Status and body of an answer that arrives in these pieces, each as one receive, before the connection ends."""
    places = sorted({cut for cut in cuts if 0 < cut < len(data)})
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for start, end in zip([0, *places], [*places, len(data)], strict=True):
            theirs.send(data[start:end])
        theirs.shutdown(socket.SHUT_WR)
        answer = Response(ours, "GET")
        answer.begin()
        body = b""
        while piece := answer.piece(65_536):
            body += piece
        return answer.status, body


class _Wire:
    """The socket that ``http.client`` reads from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._data)


def by_http_client(data: bytes) -> tuple[int, bytes]:
    answer = http.client.HTTPResponse(_Wire(data))  # type: ignore[arg-type]
    answer.begin()
    return answer.status, answer.read()


@given(BODIES, SIZES, TRAILERS, st.lists(st.integers(0, 400), max_size=8))
def test_chunks_are_those_that_http_client_reads_however_they_come(parts, size, trailers, cuts):
    chunks = b"".join((size % len(part)).encode() + b"\r\n" + part + b"\r\n" for part in parts)
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailers.encode() + b"\r\n"
    assert read(data, cuts) == by_http_client(data) == (200, b"".join(parts))


LINES_OF_BYTES = [
    b"HTTP/1.1 200 OK\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 3, 3\r\n",
]
PARTS = [b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\n", b"hello", b"\r\n", b"\n", b"\r", b" ", b";", b"\0"]
WIRE = st.lists(st.sampled_from([*LINES_OF_BYTES, *PARTS]) | st.binary(max_size=3), max_size=10).map(b"".join)
BEGINS = st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 Hints\r\nX: y\r\n\r\n"])


@given(BEGINS, WIRE, st.lists(st.integers(0, 200)))
@example(b"", b"\r\n", [1])
def test_any_bytes_are_an_answer_or_an_error_and_the_same_however_they_come(begin, rest, cuts):
    """No other exception is raised."""
    data = begin + rest
    found = []
    for places in ([], cuts, list(range(len(data)))):
        try:
            with watched():
                found.append(read(data, places))
        except (Malformed, ConnectionFailed, http.client.IncompleteRead, http.client.RemoteDisconnected):
            found.append("connection")
        except TooLarge:
            found.append("too_large")
    assert found[0] == found[1] == found[2]


watchdog = Watchdog()


def watched():
    """An exchange that nobody ends."""
    return watchdog.watching(Exchange(None, float("inf"), lambda: False, float("inf")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "begins"),
    [
        (b"", False),
        (b"HTTP/1.1 20", False),
        (b"HTTP/1.1 200", True),
        (b"HTTP/1.1 100 Continue\r\n", False),
        (b"HTTP/1.1 100 Continue\r\n\r\n", False),
        (b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 413 No", True),
        (b"HTTP/1.1 101 Switching", True),
        (b"no HTTP at all", True),
    ],
)
def test_an_answer_begins_after_the_interim_ones(data, begins):
    assert is_answer(data) is begins


# Requests


def test_a_request_is_the_line_and_the_headers_in_their_order():
    head = request_head("GET", "/a?b=c", {"Host": "a.example", "X": "é"})
    assert head == b"GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nX: \xe9\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", "/a b", {}),
        ("GET", "/\r\nX: y", {}),
        ("GET /b", "/", {}),
        ("GET", "/", {"X": "a\r\nY: b"}),
        ("GET", "/", {"X": "a\nY: b"}),
        ("GET", "/", {"X": "a\rb"}),
        ("GET", "/", {"X\r\nY": "b"}),
        ("GET", "/", {"X": "a\0b"}),
    ],
)
def test_what_would_be_another_request_is_refused(method, target, headers):
    with pytest.raises(requests.exceptions.InvalidHeader):
        request_head(method, target, headers)


def test_what_an_answer_began_with_is_not_lost_when_its_sender_takes_no_more_of_the_body():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/")
        theirs.shutdown(socket.SHUT_RD)
        assert _sent(ours, b"x" * 100_000) == (b"HTTP/", False)


def test_a_header_of_other_characters_is_named_without_what_it_holds():
    with pytest.raises(requests.exceptions.InvalidHeader, match=r"in the header X-Price, found others$"):
        request_head("GET", "/", {"Host": "a.example", "X-Price": "10 €", "X-Other": "é"})


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://a.example/b", "a.example"),
        ("http://a.example:80/b", "a.example"),
        ("https://a.example:443/", "a.example"),
        ("https://a.example:80/", "a.example:80"),
        ("http://A.example.:8080/", "a.example:8080"),
        ("http://[2001:db8::1]/", "[2001:db8::1]"),
        ("http://[2001:db8::1]:81/", "[2001:db8::1]:81"),
        ("http://[fe80::1%25eth0]:81/", "[fe80::1]:81"),
    ],
)
def test_the_host_has_no_port_of_its_scheme_and_no_interface(url, host):
    assert host_header(origin_of(url)) == host
