"""The heads of requests and answers: as http.client writes and reads them, and nothing that could be taken for two."""

import http.client
import io

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.connection import read_headers, request_head
from jobs.origin import host_header, origin_of

NAMES = st.text("abXY-_09.!", min_size=1, max_size=8)
VALUES = st.text("ab :;,=\t\"'/é\xff", max_size=12)
LINES = st.one_of(
    st.tuples(NAMES, VALUES).map(lambda pair: f"{pair[0]}: {pair[1]}"),
    st.tuples(NAMES, VALUES).map(lambda pair: f"{pair[0]}:{pair[1]}"),
    st.tuples(NAMES, VALUES, VALUES).map(lambda part: f"{part[0]}: {part[1]}\r\n \t{part[2]}"),
    st.text("ab :\t\r", max_size=8).filter(lambda text: text.strip("\r")),
)


def wire(lines: list[str], end: str) -> bytes:
    return "".join(line + end for line in [*lines, ""]).encode("latin-1")


@given(st.lists(LINES, max_size=6), st.sampled_from(["\r\n", "\n"]))
@example(["Set-Cookie: a=1", "set-cookie: b=2", "X: y"], "\r\n")
@example(["X: a\r\n b\r\n\tc", "Y: z"], "\r\n")
@example(["From me", "X: y"], "\r\n")
@example(["no header at all", "X: y"], "\n")
def test_headers_are_those_that_http_client_reads(lines, end):
    """But one that stands in several lines is one line."""
    data = wire(lines, end)
    ours = read_headers(io.BytesIO(data)).items()
    theirs = http.client.parse_headers(io.BytesIO(data)).items()
    unfolded = [(name, " ".join(part.strip(" \t") for part in value.splitlines())) for name, value in theirs]
    assert [(name, " ".join(value.split())) for name, value in ours] == [
        (name, " ".join(value.split())) for name, value in unfolded
    ]
    assert all("\n" not in value for _, value in ours)


def test_too_many_or_too_long_headers_are_refused():
    with pytest.raises(http.client.HTTPException, match="more than 100"):
        read_headers(io.BytesIO(wire([f"X-{number}: 1" for number in range(101)], "\r\n")))
    with pytest.raises(http.client.LineTooLong):
        read_headers(io.BytesIO(wire([f"X: {'x' * 70_000}"], "\r\n")))


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
