"""The fetcher against real sockets: hops, guard, deadlines, caps, codings, and who gets to see credentials."""

import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import brotli
import pytest
from backports import zstd
from requests.cookies import RequestsCookieJar

from jobs.errors import (
    BlockedAddress,
    Cancelled,
    ConnectionFailed,
    DecodeFailed,
    HttpStatus,
    TimedOut,
    TooLarge,
)
from jobs.fetch import Fetcher, retry_after, shown
from jobs.guard import parse_allow
from jobs.page import Page, Request
from tests.service.origin import Origin, Say, Spoken, certificate

LOOPBACK = parse_allow("127.0.0.0/8")


@pytest.fixture
def origin() -> Iterator[Callable[..., Origin]]:
    """Starts origins by what they say."""
    started: list[Origin] = []

    def start(say: Say, **options) -> Origin:
        started.append(Origin(say, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def fetcher() -> Iterator[Callable[..., Fetcher]]:
    """Makes fetchers that may connect to loopback, unless a test says otherwise."""
    made: list[Fetcher] = []

    def make(**options) -> Fetcher:
        made.append(Fetcher(**{"allow": LOOPBACK, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def fetch(fetcher: Fetcher, url: str | Request, **options) -> Page:
    request = url if isinstance(url, Request) else get(url)
    defaults = {"deadline": time.monotonic() + 60, "timeout_seconds": 30.0, "max_bytes": 1_000_000}
    return fetcher.fetch(request, **{**defaults, "cancelled": lambda: False, **options})


def get(url: str, **options) -> Request:
    return Request(**{"method": "GET", "url": url, **options})


def names_of_loopback(*names: str, asked: list[str] | None = None) -> Callable:
    """A resolver that finds these names on this machine, and nothing else."""

    def resolve(host: str, port: int):
        if asked is not None:
            asked.append(host)
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, ("127.0.0.1", port))]

    return resolve


# What comes back


def test_a_page_comes_with_its_status_headers_and_body(origin, fetcher):
    page = fetch(fetcher(), origin(lambda spoken: spoken.answer(b"hello", "404 Not Found", X_Kind="a")).url + "/x?y=1")
    assert (page.status, page.body, page.headers["x-kind"]) == (404, b"hello", "a")
    assert page.url.endswith("/x?y=1")


def test_the_origin_sees_our_name_and_the_codings_that_are_opened(origin, fetcher):
    site = origin(lambda spoken: spoken.answer())
    fetch(fetcher(user_agent="nearfetch/test"), get(site.url, headers={"Accept": "text/html"}))
    headers = site.requests[0].headers
    assert headers["user-agent"] == "nearfetch/test"
    assert headers["accept"] == "text/html"
    assert headers["accept-encoding"] == "gzip, deflate, br, zstd"
    assert headers["host"] == f"127.0.0.1:{site.port}"


def test_a_posted_body_arrives(origin, fetcher):
    site = origin(lambda spoken: spoken.answer())
    fetch(fetcher(), Request(method="POST", url=site.url, headers={"Content-Type": "text/plain"}, body=b"abc"))
    assert (site.requests[0].method, site.requests[0].body) == ("POST", b"abc")


def test_connections_are_kept_and_shared_by_threads(origin, fetcher):
    site, one = origin(lambda spoken: spoken.answer(b"x")), fetcher()
    for _ in range(3):
        thread = threading.Thread(target=fetch, args=(one, site.url))
        thread.start()
        thread.join()
    assert (len(site.requests), site.connections) == (3, 1)


def test_an_early_hint_is_not_the_answer(origin, fetcher):
    def say(spoken: Spoken) -> None:
        spoken.say(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        spoken.answer(spoken.target.encode())

    site, one = origin(say), fetcher()
    assert fetch(one, site.url + "/1").body == b"/1"
    assert fetch(one, site.url + "/2").body == b"/2"


# Origins that are mapped


def test_a_mapped_origin_changes_only_where_we_connect(origin, fetcher):
    def say(spoken: Spoken) -> None:
        if spoken.target.endswith("/a/start"):
            spoken.answer(status="302 Found", Location="/a/end?x=1", Set_Cookie="k=v; Secure")
        else:
            spoken.answer(b"there")

    site = origin(say)
    one = fetcher(origins={"https://www.example.org": f"{site.url}/www.example.org"})
    jar = RequestsCookieJar()
    page = fetch(one, "https://www.example.org/a/start", jar=jar)
    assert page.url == "https://www.example.org/a/end?x=1"
    assert [spoken.target for spoken in site.requests] == ["/www.example.org/a/start", "/www.example.org/a/end?x=1"]
    assert {spoken.headers["host"] for spoken in site.requests} == {"www.example.org"}
    assert [(cookie.domain, cookie.value) for cookie in jar] == [("www.example.org", "v")]
    assert site.requests[1].headers["cookie"] == "k=v"


def test_a_mapping_does_not_pass_the_guard(origin, fetcher):
    site = origin(lambda spoken: spoken.answer())
    with pytest.raises(BlockedAddress):
        fetch(fetcher(allow=(), origins={"https://www.example.org": site.url}), "https://www.example.org/")
    assert site.connections == 0


# The guard


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "[::ffff:127.0.0.1]"]
)
def test_no_connection_is_made_to_this_machine_however_it_is_spelled(origin, fetcher, host):
    site = origin(lambda spoken: spoken.answer())
    with pytest.raises((BlockedAddress, ConnectionFailed)):
        fetch(fetcher(allow=()), f"http://{host}:{site.port}/")
    assert site.connections == 0


def test_a_redirect_to_an_inner_address_is_refused(origin, fetcher):
    inner = origin(lambda spoken: spoken.answer(b"secret"))
    outer = origin(lambda spoken: spoken.answer(status="302 Found", Location=inner.url))
    with pytest.raises(BlockedAddress):
        fetch(fetcher(allow=parse_allow(f"127.0.0.1:{outer.port}")), outer.url)
    assert inner.connections == 0


def test_a_name_that_changes_its_address_is_judged_at_each_connection(origin, fetcher):
    inner = origin(lambda spoken: spoken.answer())
    answers = [[(socket.AF_INET, ("127.0.0.1", inner.port))], [(socket.AF_INET, ("127.0.0.2", inner.port))]]
    one = fetcher(allow=parse_allow("127.0.0.1"), resolve=lambda host, port: answers.pop(0))
    assert fetch(one, get(f"http://rebinding.example:{inner.port}/", headers={"Connection": "close"})).status == 200
    one._adapter.close()
    with pytest.raises(BlockedAddress):
        fetch(one, f"http://rebinding.example:{inner.port}/")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example/",
        "file:///etc/passwd",
        "gopher://a.example/",
        "//a.example/",
        "",
        "http:///x",
        "http://[::1/",
        "http://a:b/",
    ],
)
def test_an_address_that_is_no_http_address_is_refused(fetcher, url):
    with pytest.raises(BlockedAddress):
        fetch(fetcher(), url)


def test_a_redirect_to_another_scheme_is_refused(origin, fetcher):
    site = origin(lambda spoken: spoken.answer(status="302 Found", Location="file:///etc/passwd"))
    with pytest.raises(BlockedAddress, match="expected an http or https address"):
        fetch(fetcher(), site.url)


def test_a_connection_outside_a_fetch_connects_to_nothing(fetcher):
    with pytest.raises(RuntimeError, match="expected a fetch on this thread"):
        fetcher()._adapter.poolmanager.connection_from_url("http://127.0.0.1:9/").urlopen("GET", "/", retries=False)


# Redirects, and who sees what


def test_redirects_are_followed_up_to_ten(origin, fetcher):
    def say(spoken: Spoken) -> None:
        left = int(spoken.target[1:])
        if left:
            spoken.answer(b"moved", "302 Found", Location=f"/{left - 1}")
        else:
            spoken.answer(b"there")

    site, one = origin(say), fetcher()
    assert fetch(one, site.url + "/10").body == b"there"
    assert site.connections == 1
    with pytest.raises(HttpStatus, match="at most 10 redirects") as caught:
        fetch(one, site.url + "/11")
    assert caught.value.http_status == 302


def test_a_redirect_without_an_address_is_an_http_status(origin, fetcher):
    with pytest.raises(HttpStatus, match="without saying where to") as caught:
        fetch(fetcher(), origin(lambda spoken: spoken.answer(status="301 Moved")).url)
    assert caught.value.http_status == 301


@pytest.mark.parametrize(
    ("status", "method", "body"),
    [(301, "GET", b""), (302, "GET", b""), (303, "GET", b""), (307, "POST", b"x"), (308, "POST", b"x")],
)
def test_a_redirected_post_keeps_its_body_only_where_the_status_says_so(origin, fetcher, status, method, body):
    def say(spoken: Spoken) -> None:
        if spoken.target == "/":
            spoken.answer(status=f"{status} Moved", Location="/there")
        else:
            spoken.answer()

    site = origin(say)
    fetch(fetcher(), Request(method="POST", url=site.url + "/", headers={"Content-Type": "text/plain"}, body=b"x"))
    assert (site.requests[1].method, site.requests[1].body) == (method, body)
    assert ("content-type" in site.requests[1].headers) == (method == "POST")


def test_another_host_gets_no_credentials_cookies_or_secret_headers(origin, fetcher):
    other = origin(lambda spoken: spoken.answer(b"there"))

    def say(spoken: Spoken) -> None:
        spoken.answer(status="302 Found", Location=f"http://other.example:{other.port}/", Set_Cookie="session=1")

    first = origin(say)
    one = fetcher(resolve=names_of_loopback("first.example", "other.example"))
    headers = {"Authorization": "Bearer t", "X-Api-Key": "k", "Accept-Language": "de"}
    page = fetch(one, get(f"http://first.example:{first.port}/", headers=headers, cookies={"a": "b"}))
    assert page.body == b"there"
    assert first.requests[0].headers["authorization"] == "Bearer t"
    assert first.requests[0].headers["cookie"] == "a=b"
    seen = other.requests[0].headers
    assert set(seen) == {"host", "user-agent", "accept", "accept-encoding", "accept-language"}


def test_a_body_is_not_sent_on_to_another_host(origin, fetcher):
    other = origin(lambda spoken: spoken.answer())
    first = origin(lambda spoken: spoken.answer(status="307 Moved", Location=other.url))
    with pytest.raises(HttpStatus, match="with its body to another host"):
        fetch(fetcher(), Request(method="POST", url=first.url, body=b"password=x"))
    assert other.connections == 0


def test_the_same_host_keeps_credentials_and_cookies(origin, fetcher):
    def say(spoken: Spoken) -> None:
        if spoken.target == "/":
            spoken.answer(status="302 Found", Location="/next", Set_Cookie="session=1")
        else:
            spoken.answer()

    site = origin(say)
    fetch(fetcher(), get(site.url + "/", headers={"Authorization": "Bearer t"}, cookies={"a": "b"}))
    assert site.requests[1].headers["authorization"] == "Bearer t"
    assert site.requests[1].headers["cookie"] == "a=b; session=1"


def test_credentials_in_an_address_are_neither_sent_nor_shown(origin, fetcher):
    site = origin(lambda spoken: spoken.answer())
    page = fetch(fetcher(), f"http://user:pass@127.0.0.1:{site.port}/x#part")
    assert page.url == site.url + "/x"
    assert "authorization" not in site.requests[0].headers
    assert shown("http://user:pass@a.example/x?token=1") == '"http://a.example/x"'


# Time


def test_an_origin_that_says_nothing_ends_at_the_time_out(origin, fetcher):
    began = time.monotonic()
    with pytest.raises(TimedOut):
        fetch(fetcher(), origin(lambda spoken: None).url, timeout_seconds=0.3)
    assert time.monotonic() - began < 10


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
    ],
)
def test_an_answer_that_is_cut_short_is_a_connection_error(origin, fetcher, answer):
    def say(spoken: Spoken) -> None:
        spoken.say(answer)
        spoken.hang_up()

    with pytest.raises(ConnectionFailed) as caught:
        fetch(fetcher(), origin(say).url)
    assert "0x" not in str(caught.value)


def test_a_reset_kept_connection_is_tried_once_more(origin, fetcher):
    def say(spoken: Spoken) -> None:
        if spoken.number == 1 and len(site.requests) == 2:
            spoken.hang_up()
        else:
            spoken.answer(b"x")

    site, one = origin(say), fetcher()
    fetch(one, site.url)
    assert fetch(one, site.url).body == b"x"
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


# Caps


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


# The rest


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("120", 120, 120),
        ("Thu, 01 Jan 2099 00:00:00 GMT", 86_400, 86_400),
        ("Thu, 01 Jan 2015 00:00:00 GMT", 0, 0),
        ("999999999", 86_400, 86_400),
    ],
)
def test_retry_after_is_seconds_or_a_date(text, low, high):
    assert low <= (retry_after({"retry-after": text}) or 0.0) <= high


@pytest.mark.parametrize("text", ["", "soon", "-5", "1.5"])
def test_a_retry_after_that_says_nothing_is_none(text):
    assert retry_after({"retry-after": text}) is None
