"""What an answer may cost, whatever its length; and answers that arrive while a body is being sent."""

import socket
import threading
import time

import pytest

from jobs.errors import TimedOut, TooLarge
from jobs.fetch.answer import CHUNKS_FREE, RECEIVES_FREE
from jobs.page import Request
from tests.service.jobs.fetch.asking import FIVE, OK, fetch, said
from tests.service.jobs.fetch.origin import Spoken, certificate

# What it costs


@pytest.mark.parametrize("line", [b"X: " + b"x" * 50_000 + b"\r\n", b"X: y\r\n"])
@pytest.mark.parametrize("before", [b"", b"5\r\nhello\r\n"])
def test_trailers_have_an_end(origin, fetcher, line, before):
    """Earlier they were read without end: 5.9 GB, and no look at the deadline."""
    sent = 0

    def say(spoken: Spoken) -> None:
        nonlocal sent
        spoken.say(OK + b"Transfer-Encoding: chunked\r\n\r\n" + before + b"0\r\n")
        while True:
            spoken.say(line * (60_000 // len(line)))
            sent += 60_000

    with pytest.raises(TooLarge, match="of trailers and chunk extensions"):
        fetch(fetcher(), origin(say).url)
    assert sent < 30_000_000  # what the system takes on the way


def test_chunk_extensions_have_an_end(origin, fetcher):
    def say(spoken: Spoken) -> None:
        spoken.say(OK + b"Transfer-Encoding: chunked\r\n\r\n5;")
        while True:
            spoken.say(b"x" * 60_000)

    with pytest.raises(TooLarge, match="of trailers and chunk extensions"):
        fetch(fetcher(), origin(say).url)


def test_trailers_end_at_the_deadline(origin, fetcher):
    def say(spoken: Spoken) -> None:
        spoken.say(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n")
        while True:
            spoken.say(b"X")
            time.sleep(0.02)

    with pytest.raises(TimedOut, match=r"within 0\.5 s"):
        fetch(fetcher(), origin(say).url, timeout_seconds=0.5)


def test_chunks_of_one_byte_have_an_end(origin, fetcher):
    """Each costs as much as a chunk, whatever its size."""
    small = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * CHUNKS_FREE
    assert said(origin, fetcher, small + b"0\r\n\r\n").body == b"x" * CHUNKS_FREE
    with pytest.raises(TooLarge, match="expected chunks of at least 64 bytes on average"):
        said(origin, fetcher, small + b"1\r\nx\r\n" * CHUNKS_FREE)


def test_segments_of_one_byte_have_an_end(tmp_path, origin, fetcher):
    """Over TLS each record is a receive of its own, however fast they arrive."""
    ca, context = certificate(tmp_path, "right.example")

    def say(spoken: Spoken) -> None:
        spoken.say(OK + b"\r\n")
        while True:
            spoken.say(b"x")

    site = origin(say, context=context)
    one = fetcher(ca_file=str(ca), resolve=lambda host, port: [(socket.AF_INET, ("127.0.0.1", port))])
    with pytest.raises(
        TooLarge, match=f"expected receives of at least 64 bytes on average, found {RECEIVES_FREE // 1_000}"
    ):
        fetch(one, f"https://right.example:{site.port}/", timeout_seconds=60.0)


# While a body is sent


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_refusal_of_a_body_is_read_before_all_is_sent(tmp_path, fetcher, tls, interim):
    """The origin answers, then neither reads on nor closes. The unsent rest is not taken for a next request."""
    ca, context = certificate(tmp_path, "right.example")
    over = threading.Event()

    def say(peer: socket.socket) -> None:
        with context.wrap_socket(peer, server_side=True) if tls else peer as spoken:
            head = b""
            while b"\r\n\r\n" not in head:
                head += spoken.recv(1_000)
            spoken.sendall(interim)
            spoken.sendall(b"HTTP/1.1 413 Too Large\r\n" + FIVE)
            over.wait(60)

    def accept() -> None:
        for _ in range(2):
            threading.Thread(target=say, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        url = f"{'https' if tls else 'http'}://right.example:{listening.getsockname()[1]}/"
        one = fetcher(ca_file=str(ca), resolve=lambda host, port: [(socket.AF_INET, ("127.0.0.1", port))])
        for body in (b"x" * 50_000_000, b"x"):
            page = fetch(one, Request(method="POST", url=url, body=body), timeout_seconds=60.0)
            assert (page.status, page.body) == (413, b"hello")
        over.set()


@pytest.mark.parametrize("tls", [False, True])
def test_a_large_body_arrives_whole(tmp_path, origin, fetcher, tls):
    ca, context = certificate(tmp_path, "right.example")

    def say(spoken: Spoken) -> None:
        spoken.answer(str(len(spoken.body)).encode())

    site = origin(say, **({"context": context} if tls else {}))
    one = fetcher(ca_file=str(ca), resolve=lambda host, port: [(socket.AF_INET, ("127.0.0.1", port))])
    url = f"{'https' if tls else 'http'}://right.example:{site.port}/"
    for _ in range(2):
        assert fetch(one, Request(method="POST", url=url, body=bytes(5_000_000))).body == b"5000000"
    assert site.connections == 1
    assert site.requests[0].body == bytes(5_000_000)
