"""Answers that break the protocol, or stretch it: read as the RFCs and curl read them, or refused; never something else.

RFC 9112 is the framing, RFC 9110 the headers.
"""

import contextlib
import gzip
import socket
import threading
import time

import pytest
from requests.cookies import RequestsCookieJar

from jobs.errors import ConnectionFailed, TaskError, TooLarge
from jobs.fetch.answer import INTERIM_MAX
from jobs.fetch.guard import parse_allow
from jobs.page import Request
from regions.egress import Egress
from tests.service.jobs.fetch.asking import FIVE, OK, fetch, said
from tests.service.jobs.fetch.origin import Spoken, certificate

CHUNKS = b"\r\n5\r\nhello\r\n0\r\n\r\n"


# Interim answers


@pytest.mark.parametrize("interim", ["100 Continue", "102 Processing", "103 Early Hints", "199 Odd"])
def test_an_interim_answer_is_not_the_answer(origin, fetcher, interim):
    heads = f"HTTP/1.1 {interim}\r\nX: interim\r\n\r\n".encode() * 3
    page = said(origin, fetcher, heads + OK + b"Y: final\r\n" + FIVE)
    assert (page.status, page.body, dict(page.headers)) == (200, b"hello", {"Y": "final", "Content-Length": "5"})


def test_interim_answers_have_an_end(origin, fetcher):
    with pytest.raises(TooLarge, match=f"at most {INTERIM_MAX} interim answers"):
        said(origin, fetcher, b"HTTP/1.1 100 Continue\r\n\r\n" * (INTERIM_MAX + 1) + OK + FIVE)


def test_another_protocol_is_no_answer(origin, fetcher):
    with pytest.raises(ConnectionFailed, match="another protocol"):
        said(origin, fetcher, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + FIVE)


@pytest.mark.parametrize("beside", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"])
def test_a_proxys_interim_answer_is_not_its_answer(origin, fetcher, beside):
    """Bytes after the proxy's answer are not the target's."""

    def say(spoken: Spoken) -> None:
        if spoken.method == "CONNECT":
            spoken.say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Connected\r\n\r\n" + beside)
        else:
            spoken.answer(b"through")

    proxy = origin(say)
    one = fetcher(egress=Egress(proxy=proxy.url))
    if beside:
        with pytest.raises(ConnectionFailed, match="found more bytes") as caught:
            fetch(one, "http://127.0.0.1:9/", timeout_seconds=30.0)
        assert caught.value.whose == "region"
    else:
        assert fetch(one, "http://127.0.0.1:9/", timeout_seconds=30.0).body == b"through"


# Heads


@pytest.mark.parametrize(
    "line",
    [
        b"X-\xdc: 1",
        b"X Y: 1",
        b"foo",
        b": 1",
        b"X: 1\r",
        b"X:\x00",
        b"X: a\r\n b",
        b"foo\r\n Content-Length: 9",
        b"\x01: 1",
    ],
)
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_an_odd_header_line_loses_no_other(origin, fetcher, line, end):
    """Each of them spoilt the headers after it: raw gzip, or chunks with their framing, became the page."""
    packed = gzip.compress(b"hello")
    head = b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\nETag: z\r\n\r\n%x\r\n" % len(packed)
    page = said(origin, fetcher, OK + line + end + head + packed + b"\r\n0\r\n\r\n")
    assert (page.body, page.headers["etag"]) == (b"hello", "z")


def test_a_blank_before_the_colon_belongs_to_nothing(origin, fetcher):
    assert said(origin, fetcher, OK + b"Transfer-Encoding : chunked\r\n" + CHUNKS).body == b"hello"


@pytest.mark.parametrize("value", [b"a\rSet-Cookie: evil=1", b"a\r\r\nSet-Cookie : good=1\rSet-Cookie: evil=1"])
def test_a_bare_cr_makes_no_header(origin, fetcher, value):
    jar = RequestsCookieJar()
    page = said(origin, fetcher, OK + b"X: " + value + b"\r\n" + FIVE, jar=jar)
    assert page.headers["x"].startswith("a")
    assert "evil" not in [cookie.name for cookie in jar]


def test_a_cookie_that_can_not_be_read_costs_no_other(origin, fetcher):
    jar = RequestsCookieJar()
    lines = ["a=1", "bad=1; Expires=Thu, 01 Jan " + "9" * 5_000 + " 00:00:00 GMT", "b=2; Expires=soon"]
    with pytest.warns(UserWarning, match="cookiejar bug"):
        said(origin, fetcher, OK + "".join(f"Set-Cookie: {line}\r\n" for line in lines).encode() + FIVE, jar=jar)
    assert sorted(cookie.name for cookie in jar) == ["a", "b"]


@pytest.mark.parametrize(
    "unit", [" ", "\t", "\r", " \r", "\r ", "\x00", ":", ",", ";", "=", '"', "a=b; ", "chunked,", "é"]
)
@pytest.mark.parametrize("before", ["X", "Content-Length", "Transfer-Encoding", "Connection", "Content-Encoding"])
def test_no_header_line_holds_the_interpreter(origin, fetcher, before, unit):
    """A line of 60,000 blanks with a CR after it took 25 s, in which no thread of the process did anything."""
    line = before.encode() + b":" + (unit * 60_000)[:60_000].encode("latin-1") + b"\rx\r\n"
    began = time.thread_time()
    with contextlib.suppress(TaskError):
        said(origin, fetcher, OK + line + FIVE, hang_up=True)
    assert time.thread_time() - began < 1.0


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x1b]0;owned\x07" + b"x" * 60_000 + b"\r\n",
        b"SSH-2.0-OpenSSH_10.0\r\n",
        b"HTTP/1.1 2\x1b00 OK\r\n\r\n",
        b"\r\n",
    ],
)
def test_what_is_no_answer_is_told_at_once_in_a_line(origin, fetcher, garbage):
    with pytest.raises(ConnectionFailed, match="broke the protocol: expected an HTTP answer, found") as caught:
        said(origin, fetcher, garbage)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_an_address_keeps_its_slashes(origin, fetcher):
    site = origin(lambda spoken: spoken.answer(b"x"))
    for path in ("//ok/x", "///y?z=//"):
        fetch(fetcher(), site.url + path)
    assert [spoken.target for spoken in site.requests] == ["//ok/x", "///y?z=//"]


@pytest.mark.parametrize("path", ["/a/%2e%2e/x", "/a/.%2E/./x", "/%2e%2e/%2e/x"])
def test_dots_that_are_escaped_are_dots(origin, fetcher, path):
    """They are relative to the page's address, not to the address that its origin is mapped to."""
    site = origin(lambda spoken: spoken.answer(b"x"))
    one = fetcher(origins={"https://www.example.org:443": f"{site.url}/www.example.org"})
    fetch(one, site.url + path)
    fetch(one, f"https://www.example.org{path}")
    assert [spoken.target for spoken in site.requests] == ["/x", "/www.example.org/x"]


def test_an_interface_is_no_part_of_an_address_that_is_the_same_on_all(fetcher):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:

        def say() -> None:
            peer, _ = listening.accept()
            with peer:
                head = peer.recv(65_536)
                peer.sendall(OK + FIVE if b"\r\nHost: [::1]:" in head else b"")

        threading.Thread(target=say, daemon=True).start()
        url = f"http://[::1%25lo]:{listening.getsockname()[1]}/"
        assert fetch(fetcher(allow=parse_allow("::1")), url).body == b"hello"


# Framing


@pytest.mark.parametrize(
    "lines",
    [
        b"Transfer-Encoding: chunked \r\n",
        b"Transfer-Encoding:chunked\t\r\n",
        b"Transfer-Encoding: Chunked,\r\n",
        b"Transfer-Encoding: ,chunked\r\n",
        b"Transfer-Encoding: identity, chunked\r\n",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Content-Length: 300\r\ntransfer-encoding: chunked\r\n",
    ],
)
def test_chunked_is_chunked_however_it_is_written(origin, fetcher, lines):
    assert said(origin, fetcher, OK + lines + CHUNKS).body == b"hello"


@pytest.mark.parametrize("coding", [b"identity", b"identity,", b","])
def test_a_coding_that_is_none_is_none(origin, fetcher, coding):
    assert said(origin, fetcher, OK + b"Transfer-Encoding: " + coding + b"\r\n" + FIVE).body == b"hello"


@pytest.mark.parametrize(
    "lines",
    [
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: chunked;q=1\r\n",
        b'Transfer-Encoding: "chunked"\r\n',
        b"Transfer-Encoding: x\x0bchunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: 5 5\r\n",
        b"Content-Length: five\r\n",
        b"Content-Length: \r\n",
        b"Content-Length: \xb2\r\n",
        b"Content-Length: " + b"1" * 21 + b"\r\n",
    ],
)
def test_framing_that_could_be_read_in_two_ways_is_refused(origin, fetcher, lines):
    with pytest.raises(
        ConnectionFailed, match=r"broke the protocol: expected (one Content-Length|chunked as the only)"
    ):
        said(origin, fetcher, OK + lines + CHUNKS, hang_up=True)


@pytest.mark.parametrize(
    "body",
    [
        b"0",
        b"0\r\n",
        b"5\r\nhello\r\n0\r\n",
        b"5\r\nhello\r\n0\r\nX: tr",
        b"5\r\nhello\r\n0\r\nX: trailer\r\n",
        b"5\r\nhello",
        b"5\r\nhello\r\n5",
        b"FFFFFFFFFFFFFFF\r\nhello",
    ],
)
def test_chunks_that_break_off_are_cut_short(origin, fetcher, body):
    with pytest.raises(ConnectionFailed, match="was cut short"):
        said(origin, fetcher, OK + b"Transfer-Encoding: chunked\r\n\r\n" + body, hang_up=True)


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"five\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
    ],
)
def test_chunks_that_are_none_are_refused(origin, fetcher, body):
    with pytest.raises(ConnectionFailed, match="expected chunks, found other data"):
        said(origin, fetcher, OK + b"Transfer-Encoding: chunked\r\n\r\n" + body, hang_up=True)


@pytest.mark.parametrize(
    "body",
    [
        b"5;a=b\r\nhello\r\n0;c\r\nX: trailer\r\nY: trailer\r\n\r\n",
        b"005  \r\nhello\r\n000\r\n\r\n",
    ],
)
def test_chunks_come_with_extensions_blanks_and_trailers(origin, fetcher, body):
    page = said(origin, fetcher, OK + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert (page.body, "x" in page.headers) == (b"hello", False)


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n"])
def test_a_status_without_a_body_has_none(origin, fetcher, status, framing):
    assert said(origin, fetcher, b"HTTP/1.1 %d X\r\n%b\r\n" % (status, framing)).body == b""


def test_the_answer_to_a_head_has_no_body(origin, fetcher):
    site, one = origin(lambda spoken: spoken.say(OK + b"Content-Length: 5\r\n\r\n")), fetcher()
    for _ in range(2):
        assert fetch(one, Request(method="HEAD", url=site.url)).body == b""
    assert site.connections == 1


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [
        (OK + b"Connection: x\r\nConnection: close\r\n" + FIVE, False),
        (OK + b"Connection: x, Close\r\n" + FIVE, False),
        (OK + b"Connection: keep-alive\r\n" + FIVE, True),
        (OK + b"Transfer-Encoding: chunked\r\n" + CHUNKS, True),
        (OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n" + CHUNKS, False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nTransfer-Encoding: chunked\r\n" + CHUNKS, False),
        (OK + FIVE + OK + b"Content-Length: 7\r\n\r\nanother", False),
        (OK + b"Transfer-Encoding: chunked\r\n" + CHUNKS + OK + b"Content-Length: 7\r\n\r\nanother", False),
        (b"HTTP/1.1 204 None\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
        (b"HTTP/1.1 204 None\r\nTransfer-Encoding: chunked\r\n\r\n", False),  # the chunk may come later
    ],
)
def test_a_connection_is_kept_only_where_the_next_answer_can_be_told(origin, fetcher, answer, is_kept):
    site, one = origin(lambda spoken: spoken.say(answer)), fetcher()
    assert len({fetch(one, site.url, timeout_seconds=30.0).body for _ in range(3)}) == 1
    assert site.connections == (1 if is_kept else 3)


@pytest.mark.parametrize("says_so", [True, False])
def test_a_body_that_only_the_end_of_tls_ends_is_whole_where_tls_says_so(tmp_path, origin, fetcher, says_so):
    """Anybody on the way can close the TCP connection."""
    ca, context = certificate(tmp_path, "right.example")

    def say(spoken: Spoken) -> None:
        spoken.say(OK + b"\r\nhello")
        if says_so:
            with contextlib.suppress(OSError):
                spoken.connection.unwrap()
        spoken.hang_up()

    site = origin(say, context=context)
    one = fetcher(ca_file=str(ca), resolve=lambda host, port: [(socket.AF_INET, ("127.0.0.1", port))])
    url = f"https://right.example:{site.port}/"
    if says_so:
        assert fetch(one, url).body == b"hello"
    else:
        with pytest.raises(ConnectionFailed, match="was cut short"):
            fetch(one, url)
