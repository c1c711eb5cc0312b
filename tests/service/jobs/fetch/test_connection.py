"""Connections with real sockets: deadlines, cancels, failures, TLS."""

import socket
import threading
import time

import pytest

from jobs.errors import Cancelled, ConnectionFailed, TimedOut, is_the_hosts
from jobs.fetch.guard import parse_allow
from jobs.page import Request
from regions.egress import Egress
from tests.service.jobs.fetch.asking import fetch, names_of_loopback
from tests.service.jobs.fetch.origin import Spoken, certificate

ANY = parse_allow("127.0.0.0/8,::1")


def test_an_origin_that_says_nothing_ends_at_the_time_out(origin, fetcher):
    began = time.monotonic()
    with pytest.raises(TimedOut):
        fetch(fetcher(), origin(lambda spoken: None).url, timeout_seconds=0.3)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("part", ["status", "headers", "body"])
def test_a_dripped_answer_ends_at_the_deadline(origin, fetcher, part):
    def say(spoken: Spoken) -> None:
        text = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\nX-Padding: "
        if part != "status":
            spoken.say(text)
        if part == "body":
            spoken.say(b"\r\n\r\n")
        while True:
            for index in range(len(text)):
                spoken.say(text[index : index + 1] if part == "status" else b"x")
                time.sleep(0.02)

    with pytest.raises(TimedOut):
        fetch(fetcher(), origin(say).url, deadline=time.monotonic() + 0.5)


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_cancel_is_noticed_while_nothing_arrives(origin, fetcher, part):
    asked = threading.Event()

    def say(spoken: Spoken) -> None:
        if part == "body":
            spoken.say(b"HTTP/1.1 200 OK\r\n\r\nbegin")
        asked.set()

    with pytest.raises(Cancelled):
        fetch(fetcher(), origin(say).url, cancelled=asked.is_set)


def test_a_body_that_nobody_takes_ends_at_the_time_out_or_a_cancel(fetcher):
    """No socket has a time-out of its own: the watchdog must wake sending threads, too."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        post = Request(method="POST", url=f"http://127.0.0.1:{deaf.getsockname()[1]}/", body=b"x" * 50_000_000)
        with pytest.raises(TimedOut):
            fetch(fetcher(), post, timeout_seconds=0.3)
        cancel_at = time.monotonic() + 0.2
        with pytest.raises(Cancelled):
            fetch(fetcher(), post, cancelled=lambda: time.monotonic() > cancel_at)


def test_a_kept_connection_waits_no_longer_than_each_of_its_fetches(origin, fetcher, tmp_path):
    ca, context = certificate(tmp_path, "right.example")
    for options in ({}, {"context": context}):
        site = origin(lambda spoken: spoken.answer(b"x") if spoken.target == "/says" else None, **options)
        one = fetcher(ca_file=str(ca), resolve=names_of_loopback("right.example"))
        url = f"{'https' if options else 'http'}://right.example:{site.port}"
        assert fetch(one, f"{url}/says", timeout_seconds=30).body == b"x"
        with pytest.raises(TimedOut, match=r"the whole answer within 0\.3 s"):
            fetch(one, f"{url}/nothing", timeout_seconds=0.3)
        assert site.connections == 1


def test_a_look_that_fails_leaves_all_fetches_watched(origin, fetcher):
    failed = threading.Event()

    def cancelled() -> bool:
        if threading.current_thread().name == "fetch-watchdog" and not failed.is_set():
            failed.set()
            raise RuntimeError("no")
        return False

    one, silent = fetcher(), origin(lambda spoken: None)
    for _ in range(2):
        with pytest.raises(TimedOut):
            fetch(one, silent.url, timeout_seconds=0.3, cancelled=cancelled)
    assert failed.is_set()


def test_a_cancelled_task_connects_to_nothing(origin, fetcher):
    site = origin(lambda spoken: spoken.answer())
    with pytest.raises(Cancelled):
        fetch(fetcher(), site.url, cancelled=lambda: True)
    assert site.connections == 0


def test_a_name_look_up_that_hangs_ends_at_the_deadline(fetcher):
    over = threading.Event()

    def resolve(host: str, port: int):
        over.wait(60)
        return []

    with pytest.raises(TimedOut):
        fetch(fetcher(resolve=resolve), "http://hanging.example/", timeout_seconds=0.3)
    over.set()


# What breaks


def test_a_name_that_does_not_resolve_is_a_connection_error(fetcher):
    with pytest.raises(ConnectionFailed, match=r"the name nobody\.example could not be resolved: Name or service"):
        fetch(fetcher(resolve=names_of_loopback()), "http://nobody.example/")


def test_a_refused_connection_says_so(origin, fetcher):
    site = origin(lambda spoken: None)
    site.stop()
    with pytest.raises(ConnectionFailed, match=r"could not connect to 127\.0\.0\.1 port \d+: Connection refused"):
        fetch(fetcher(), site.url)


def test_the_next_address_is_taken_when_one_is_away(origin, fetcher):
    site = origin(lambda spoken: spoken.answer(b"x"))
    found = [(socket.AF_INET, ("127.0.0.9", site.port)), (socket.AF_INET, ("127.0.0.1", site.port))]
    page = fetch(fetcher(resolve=lambda host, port: found), f"http://two.example:{site.port}/")
    assert page.body == b"x"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nxx",
    ],
)
def test_an_answer_that_is_cut_short_is_a_connection_error(origin, fetcher, answer):
    def say(spoken: Spoken) -> None:
        spoken.say(answer)
        spoken.hang_up()

    with pytest.raises(ConnectionFailed) as caught:
        fetch(fetcher(), origin(say).url)
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize(
    ("head", "is_kept"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\n\r\n", False),
    ],
)
def test_a_connection_is_kept_where_the_answer_says_where_it_ends(origin, fetcher, head, is_kept):
    def say(spoken: Spoken) -> None:
        spoken.say(head + b"hello")
        if not is_kept:
            spoken.hang_up()

    site, one = origin(say), fetcher()
    assert [fetch(one, site.url).body for _ in range(2)] == [b"hello", b"hello"]
    assert [spoken.number for spoken in site.requests] == ([1, 1] if is_kept else [1, 2])


@pytest.mark.parametrize("tls", [False, True])
def test_a_reset_kept_connection_is_tried_once_more(tmp_path, origin, fetcher, tls):
    """Also over TLS without a close notification."""
    ca, context = certificate(tmp_path, "right.example")

    def say(spoken: Spoken) -> None:
        if spoken.number == 1 and len(site.requests) == 2:
            spoken.hang_up()
        else:
            spoken.answer(b"x")

    site = origin(say, **({"context": context} if tls else {}))
    one = fetcher(ca_file=str(ca), resolve=names_of_loopback("right.example"))
    url = f"{'https' if tls else 'http'}://right.example:{site.port}/"
    fetch(one, url)
    assert fetch(one, url).body == b"x"
    assert [spoken.number for spoken in site.requests] == [1, 1, 2]


def test_a_new_connection_or_a_post_is_not_tried_again(origin, fetcher):
    def say(spoken: Spoken) -> None:
        if spoken.target == "/keep":
            spoken.answer()
        else:
            spoken.hang_up()

    site, one = origin(say), fetcher()
    with pytest.raises(ConnectionFailed):
        fetch(one, site.url + "/drop")
    fetch(one, site.url + "/keep")
    with pytest.raises(ConnectionFailed):
        fetch(one, Request(method="POST", url=site.url + "/drop", body=b"x"))
    assert len(site.requests) == 3


# Where connections come from


def peers(site) -> list[str]:
    return [spoken.connection.getpeername()[0] for spoken in site.requests]


def test_connections_come_from_the_egresss_address(origin, fetcher):
    """Only those of a name's addresses are used that can be reached from the source address."""
    site = origin(lambda spoken: spoken.answer(b"x"))
    found = [(socket.AF_INET6, ("::1", site.port, 0, 0)), (socket.AF_INET, ("127.0.0.1", site.port))]
    one = fetcher(egress=Egress(source_address="127.0.0.2"), resolve=lambda host, port: found, allow=ANY)
    for _ in range(2):
        assert fetch(one, f"http://two.example:{site.port}/").body == b"x"
    assert (peers(site), site.connections) == (["127.0.0.2"] * 2, 1)


@pytest.mark.parametrize(("source", "host", "version"), [("::1", "127.0.0.1", 6), ("127.0.0.2", "[::1]", 4)])
def test_a_target_that_can_not_be_reached_from_there_is_the_regions_error(fetcher, source, host, version):
    text = rf"expected an IPv{version} address of \S+, as the egress's source_address is one, found none"
    with pytest.raises(ConnectionFailed, match=text) as caught:
        fetch(fetcher(egress=Egress(source_address=source), allow=ANY), f"http://{host}:9/")
    assert (caught.value.whose, caught.value.is_retryable) == ("region", False)


def test_an_address_that_this_machine_has_no_more_is_the_regions_error(origin, fetcher):
    site = origin(lambda spoken: spoken.answer())
    with pytest.raises(ConnectionFailed, match="source_address to be one of this machine's, found: Cannot") as caught:
        fetch(fetcher(egress=Egress(source_address="192.0.2.7")), site.url)
    assert (caught.value.whose, is_the_hosts(caught.value), site.connections) == ("region", False, 0)


# TLS


def test_the_certificate_is_checked_for_the_name_whatever_is_connected_to(tmp_path, origin, fetcher):
    ca, context = certificate(tmp_path, "right.example")
    site = origin(lambda spoken: spoken.answer(b"x"), context=context)
    one = fetcher(ca_file=str(ca), resolve=names_of_loopback("right.example", "wrong.example"))
    assert fetch(one, f"https://right.example:{site.port}/").body == b"x"
    assert fetch(one, f"https://right.example:{site.port}/").body == b"x"
    assert site.connections == 1
    with pytest.raises(ConnectionFailed, match=r"the certificate of wrong\.example was refused") as caught:
        fetch(one, f"https://wrong.example:{site.port}/")
    assert not caught.value.is_retryable


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path, origin, fetcher):
    _, context = certificate(tmp_path, "right.example")
    site = origin(lambda spoken: spoken.answer(b"x"), context=context)
    with pytest.raises(ConnectionFailed, match="self-signed certificate"):
        fetch(fetcher(resolve=names_of_loopback("right.example")), f"https://right.example:{site.port}/")
    assert site.requests == []


def test_a_handshake_that_hangs_ends_at_the_deadline_or_a_cancel(origin, fetcher):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(TimedOut):
            fetch(fetcher(), url, timeout_seconds=0.3)
        cancel_at = time.monotonic() + 0.2
        with pytest.raises(Cancelled):
            fetch(fetcher(), url, cancelled=lambda: time.monotonic() > cancel_at)


def test_what_speaks_no_tls_is_a_connection_error(origin, fetcher):
    site = origin(lambda spoken: None)
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def babble() -> None:
            peer, _ = plain.accept()
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            peer.close()

        threading.Thread(target=babble, daemon=True).start()
        with pytest.raises(ConnectionFailed, match=r"TLS with 127\.0\.0\.1 failed|broke"):
            fetch(fetcher(), f"https://127.0.0.1:{plain.getsockname()[1]}/")
    assert site.connections == 0
