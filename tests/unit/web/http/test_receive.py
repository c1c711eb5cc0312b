"""Receiving requests: however the bytes are cut, what comes out is the same."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regions.gateway import Gateway
from regions.settings import Settings
from tests.wire import chunked, request
from web import gateway
from web.http.quota import network_of
from web.http.receive import FIELDS_MAX, Malformed, Receiver

BODY_MAX = 1_000

requests = st.lists(
    st.one_of(
        st.builds(lambda path: request("GET", f"/{path}"), st.text("ab%2/", max_size=8)),
        st.builds(lambda body: request("POST", "/body", body=body), st.binary(max_size=60)),
        st.builds(
            lambda pieces: request("POST", "/body", {"Transfer-Encoding": "chunked"}, chunked(*pieces)),
            st.lists(st.binary(min_size=1, max_size=20), max_size=5),
        ),
    ),
    min_size=1,
    max_size=4,
)
cuts = st.lists(st.integers(0, 10_000), max_size=12)


def received(pieces: list[bytes]) -> list[tuple[object, ...]]:
    """What a connection that sends these pieces asks; the last is what was wrong, if anything was."""
    receiver = Receiver(lambda *_: BODY_MAX)
    found: list[tuple[object, ...]] = []
    try:
        for piece in pieces:
            one = receiver.feed(piece)
            while one is not None:
                found.append((one.method, one.target, one.fields, one.body, one.keep, one.is_http11))
                if one.body is None:
                    return found
                one = receiver.feed(b"")
    except Malformed as error:
        found.append((error.status,))
    return found


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(whole) + 1) for place in places} | {0, len(whole)})
    return [whole[start:end] for start, end in itertools.pairwise(ends)]


@given(requests, cuts)
def test_cuts_change_nothing(sent, places):
    whole = b"".join(sent)
    together = received([whole])
    assert len(together) == len(sent)
    assert received(cut(whole, places)) == together


@given(requests, st.integers(0, 10_000), st.binary(min_size=1, max_size=6), cuts)
def test_cuts_of_what_is_broken_change_nothing(sent, place, noise, places):
    """Nor does any byte raise anything but Malformed."""
    whole = b"".join(sent)
    at = place % len(whole)
    broken = whole[:at] + noise + whole[at + 1 :]
    assert received(cut(broken, places)) == received([broken])


@pytest.mark.parametrize("size", [BODY_MAX, BODY_MAX + 1])
def test_longest_body_is_taken_and_the_next_is_not(size):
    for sent in (
        request("POST", "/body", body=b"x" * size),
        request("POST", "/body", {"Transfer-Encoding": "chunked"}, chunked(b"x" * size)),
        request("POST", "/body", {"Transfer-Encoding": "chunked"}, chunked(*[b"x"] * size)),
    ):
        (one,) = received([sent])
        assert one[3] == (b"x" * size if size == BODY_MAX else None)


def test_a_connection_between_requests_holds_nothing():
    """A client that asks with a megabyte and stays held it, counted by nobody, in as many connections as it liked."""
    for head in ({"Transfer-Encoding": "chunked"}, {"X": "y" * 5_000}):
        receiver = Receiver(lambda *_: BODY_MAX)
        body = chunked(b"x" * BODY_MAX) if "X" not in head else b"x" * BODY_MAX
        sent = request("POST", "/body", head, body)
        at = len(sent) - 10
        assert receiver.feed(sent[:at]) is None
        assert receiver.held > at - 30  # the framing of a chunk is not kept
        assert receiver.feed(sent[at:]) is not None
        assert receiver.held == 0
        kept = [getattr(receiver, name) for name in Receiver.__slots__]
        assert sum(len(one) for one in kept if isinstance(one, bytes | bytearray | list)) == 0


def test_blank_lines_before_a_request_are_few():
    """Each costs the thread that hears everybody: 64 kB of them took 13 ms of it."""
    whole = b"\r\n" * 3 + request("GET", "/")
    for place in range(8):
        ((method, *_),) = received(cut(whole, [place]))
        assert method == "GET"
    assert received([b"\r\n" * 100 + request("GET", "/")]) == [(400,)]


def test_fields_of_a_head_are_few():
    """A head of 64 kB of fields of four bytes took 30 ms of the thread that hears everybody."""
    others = len(received([request("GET", "/")])[0][2])
    most = {f"X{number}": "" for number in range(FIELDS_MAX - others)}
    ((_, _, fields, *_),) = received([request("GET", "/", most)])
    assert len(fields) == FIELDS_MAX
    assert received([request("GET", "/", {**most, "One": "more"})]) == [(431,)]


@pytest.mark.parametrize(
    "host", ["example.org", "a_b:8080", "127.0.0.1:", "[::1]:80", "[v7.a:b]", "a%20b", "", ":", "x.:1"]
)
def test_host_that_can_be_read_is_taken(host):
    ((_, _, fields, *_),) = received([request("GET", "/", {"Host": host})])
    assert fields[b"Host"] == host.encode()


@pytest.mark.parametrize("host", ["a b", "127.0.0.1::", "::1", "[::1", "a/b", "a@b", "a:b", "a%2", 'a"b', "\xe4"])
def test_host_that_can_not_be_read_is_refused(host):
    """RFC 9112, 3.2; whatever the target is."""
    for target in ("/", "http://127.0.0.1/"):
        sent = request("GET", target, {"Host": "HERE"}).replace(b"HERE", host.encode("latin-1"))
        assert received([sent]) == [(400,)]


@pytest.mark.parametrize("address", ["http://a@127.0.0.1/", "http://127.0.0.1::/", "http://:a/"])
def test_target_whose_host_can_not_be_read_is_refused(address):
    assert received([request("GET", address)]) == [(400,)]


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_addresses_that_one_client_has_share_a_part(address, origin):
    assert network_of(address) == origin


@pytest.mark.parametrize(
    ("host", "is_refused"),
    [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("::", True), ("10.0.0.5", True)],
)
def test_gateway_that_others_reach_does_not_start_without_keys(host, is_refused):
    assert bool(gateway.why_not_open(Settings(gateway=Gateway(host=host)))) is is_refused
    assert gateway.why_not_open(Settings(gateway=Gateway(host=host, keys=True))) == ""


@pytest.mark.parametrize(
    "framing",
    [{"Content-Length": "3"}, {"Content-Length": "2000"}, {"Transfer-Encoding": "chunked"}],
    ids=["short", "long", "chunked"],
)
@pytest.mark.parametrize("is_refused", [True, False])
def test_who_waits_before_the_body_is_told_to_send_it_or_is_refused_and_never_both(framing, is_refused):
    asked = []
    receiver = Receiver(lambda *_: 1_000, lambda received: asked.append(received.header("Host")) or is_refused)
    found = receiver.feed(request("POST", "/body", {"Expect": "100-continue", **framing}))
    is_taken = not is_refused and framing != {"Content-Length": "2000"}
    assert receiver.wants_continue is is_taken
    assert (found is None) is is_taken
    assert is_taken or (found.body, found.keep, receiver.held) == (None, False, 0)
    assert asked in ([], ["127.0.0.1"])


def test_who_does_not_wait_is_not_asked_about():
    asked = []
    receiver = Receiver(lambda *_: 1_000, lambda received: asked.append(received) or True)
    assert receiver.feed(request("POST", "/body", body=b"abc")).body == b"abc"
    with_body = receiver.feed(request("POST", "/body", {"Expect": "100-continue"}, b"abc"))  # it did not wait after all
    assert with_body.body == b"abc"
    assert asked == []
