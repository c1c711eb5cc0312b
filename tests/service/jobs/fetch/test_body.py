"""Bodies and headers at their limits, and content codings."""

import contextlib
import gzip
import time
import zlib
from collections.abc import Callable

import brotli
import pytest
from backports import zstd

from jobs.errors import ConnectionFailed, DecodeFailed, TaskError, TooLarge
from jobs.fetch.fetcher import Terms
from tests.service.jobs.fetch.asking import fetch, get
from tests.service.jobs.fetch.origin import Spoken


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_past_the_cap_is_too_large(origin, fetcher, announced):
    def say(spoken: Spoken) -> None:
        spoken.say(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 200000\r\n" if announced else b"") + b"\r\n")
        spoken.say(b"x" * 200_000)
        spoken.hang_up()

    with pytest.raises(TooLarge) as caught:
        fetch(fetcher(), origin(say).url, max_bytes=100_000)
    assert caught.value.http_status == 200


def test_a_body_of_exactly_the_cap_passes(origin, fetcher):
    assert len(fetch(fetcher(), origin(lambda spoken: spoken.answer(b"x" * 1000)).url, max_bytes=1000).body) == 1000


@pytest.mark.parametrize(
    "line", [b"X-Many: 1\r\n" * 101, b"X-Long: " + b"x" * 70_000 + b"\r\n", (b"X-Big: " + b"x" * 900 + b"\r\n") * 90]
)
def test_too_many_or_too_long_headers_are_too_large(origin, fetcher, line):
    def say(spoken: Spoken) -> None:
        spoken.say(b"HTTP/1.1 200 OK\r\n" + line + b"Content-Length: 0\r\n\r\n")

    with pytest.raises(TooLarge):
        fetch(fetcher(), origin(say).url)


def test_early_hints_without_end_are_too_large(origin, fetcher):
    def say(spoken: Spoken) -> None:
        while True:
            spoken.say(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)

    with pytest.raises(TooLarge):
        fetch(fetcher(), origin(say).url)


# Codings

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
}
PAGE = "".join(f"<p>row {number} of a page" for number in range(20_000)).encode()


def bare_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(data) + engine.flush()


def packed(origin, fetcher, coding: str, body: bytes, **options) -> bytes:
    return fetch(fetcher(), origin(lambda spoken: spoken.answer(body, Content_Encoding=coding)).url, **options).body


@pytest.mark.parametrize("coding", PACKERS)
def test_every_coding_is_opened(origin, fetcher, coding):
    assert packed(origin, fetcher, coding, PACKERS[coding](PAGE)) == PAGE


def test_codings_are_opened_three_deep_and_no_deeper(origin, fetcher):
    body = zstd.compress(brotli.compress(gzip.compress(PAGE)))
    assert packed(origin, fetcher, "gzip, br , identity,zstd", body) == PAGE
    with pytest.raises(DecodeFailed, match="at most 3 content codings, found 4"):
        packed(origin, fetcher, "gzip, br, zstd, gzip", gzip.compress(body))


def test_bare_deflate_several_gzip_members_and_zstd_frames_are_opened(origin, fetcher):
    assert packed(origin, fetcher, "deflate", bare_deflate(PAGE)) == PAGE
    assert packed(origin, fetcher, "gzip", gzip.compress(PAGE) + gzip.compress(b"more") + b"\0" * 100) == PAGE + b"more"
    assert packed(origin, fetcher, "zstd", zstd.compress(PAGE) + zstd.compress(b"more")) == PAGE + b"more"


@pytest.mark.parametrize("coding", PACKERS)
def test_an_empty_body_is_empty_in_any_coding(origin, fetcher, coding):
    assert packed(origin, fetcher, coding, b"") == b""


@pytest.mark.parametrize("coding", PACKERS)
def test_a_stream_that_is_cut_off_is_a_connection_error_though_its_length_is_right(origin, fetcher, coding):
    whole = PACKERS[coding](PAGE)
    with pytest.raises(ConnectionFailed, match=f"its {coding} stream has no end"):
        packed(origin, fetcher, coding, whole[: len(whole) * 2 // 3])


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_what_is_not_in_its_coding_is_a_decode_error(origin, fetcher, coding):
    with pytest.raises(DecodeFailed, match=f"expected a body in {coding}"):
        packed(origin, fetcher, coding, b"\x07 plain text that is in no coding at all" * 50)


def test_an_unknown_coding_is_a_decode_error(origin, fetcher):
    with pytest.raises(DecodeFailed, match='found "exi"'):
        packed(origin, fetcher, "exi", b"x")


@pytest.mark.parametrize(
    ("coding", "bomb"),
    [
        ("gzip", lambda: gzip.compress(b"\0" * 50_000_000)),
        ("br", lambda: brotli.compress(b"\0" * 50_000_000, quality=5)),
        ("zstd", lambda: zstd.compress(b"\0" * 50_000_000)),
        ("gzip, gzip", lambda: gzip.compress(gzip.compress(b"\0" * 50_000_000))),
        ("gzip, gzip, gzip", lambda: gzip.compress(gzip.compress(gzip.compress(b"\0" * 50_000_000)))),
    ],
)
def test_a_bomb_is_refused_at_the_cap(origin, fetcher, coding, bomb):
    with pytest.raises(TooLarge, match="when it was unpacked"):
        packed(origin, fetcher, coding, bomb(), max_bytes=1_000_000)


def test_a_redirect_with_a_bomb_is_not_opened(origin, fetcher):
    bomb = gzip.compress(b"\0" * 20_000_000)

    def say(spoken: Spoken) -> None:
        if spoken.target == "/":
            spoken.answer(bomb, "302 Found", Location="/there", Content_Encoding="gzip")
        else:
            spoken.answer(b"there")

    assert fetch(fetcher(), origin(say).url + "/", max_bytes=1000).body == b"there"


# What came


def received_bytes(one, url: str, **options) -> int:
    """What the fetch of an address received."""
    terms = Terms(
        deadline=time.monotonic() + 60, timeout_seconds=30.0, cancelled=bool, **{"max_bytes": 1_000_000, **options}
    )
    with contextlib.suppress(TaskError):
        one.fetch(get(url), terms)
    return terms.received_bytes


def test_bytes_count_as_they_came_with_heads_and_redirects(origin, fetcher):
    """Packed, that is; and the same over a kept connection, whose earlier answers do not count again."""
    heads = {
        "/": b"HTTP/1.1 302 Found\r\nLocation: /page\r\nContent-Length: 5\r\n\r\n",
        "/page": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n",
        "/chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    }
    packed = gzip.compress(b"x" * 100_000)
    whole = {
        "/": heads["/"] + b"moved",
        "/page": heads["/page"] % len(packed) + packed,
        "/chunks": heads["/chunks"] + b"5\r\nhello\r\n0\r\n\r\n",
    }
    site, one = origin(lambda spoken: spoken.say(whole[spoken.target])), fetcher()
    for _ in range(2):
        assert received_bytes(one, site.url + "/page") == len(whole["/page"])
        assert received_bytes(one, site.url + "/") == len(whole["/"]) + len(whole["/page"])
        assert received_bytes(one, site.url + "/chunks") == len(whole["/chunks"])
    assert site.connections == 1


def test_bytes_of_a_fetch_that_fails_count_too(origin, fetcher):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n"

    def say(spoken: Spoken) -> None:
        spoken.say(head + b"x" * 20_000)
        spoken.hang_up()

    assert received_bytes(fetcher(), origin(say).url) == len(head) + 20_000
