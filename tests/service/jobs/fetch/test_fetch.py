"""The fetcher with real sockets: pages, the guard on every hop, and which hosts see credentials."""

import socket
import threading

import pytest
from requests.cookies import RequestsCookieJar

from jobs.errors import BlockedAddress, ConnectionFailed, HttpStatus
from jobs.fetch.fetcher import _may_see_credentials, retry_after, shown
from jobs.fetch.guard import parse_allow
from jobs.page import Request
from regions.egress import Egress
from tests.service.jobs.fetch.asking import fetch, get, names_of_loopback
from tests.service.jobs.fetch.origin import Spoken


def test_a_page_comes_with_its_status_headers_and_body(origin, fetcher):
    page = fetch(fetcher(), origin(lambda spoken: spoken.answer(b"hello", "404 Not Found", X_Kind="a")).url + "/x?y=1")
    assert (page.status, page.body, page.headers["x-kind"]) == (404, b"hello", "a")
    assert page.url.endswith("/x?y=1")


def test_the_origin_sees_our_name_and_the_codings_that_are_opened(origin, fetcher):
    site = origin(lambda spoken: spoken.answer())
    fetch(fetcher(egress=Egress(user_agent="nearfetch/test")), get(site.url, headers={"Accept": "text/html"}))
    headers = site.requests[0].headers
    assert headers["user-agent"] == "nearfetch/test"
    assert headers["accept"] == "text/html"
    assert headers["accept-encoding"] == "gzip, deflate, br, zstd"
    assert headers["host"] == f"127.0.0.1:{site.port}"


def test_a_posted_body_arrives(origin, fetcher):
    site = origin(lambda spoken: spoken.answer())
    fetch(fetcher(), Request(method="POST", url=site.url, headers={"Content-Type": "text/plain"}, body=b"abc"))
    assert (site.requests[0].method, site.requests[0].body) == ("POST", b"abc")


@pytest.mark.parametrize("value", ["10 €", "a\0b", "a\nB: c"])
def test_a_header_that_can_not_be_sent_ends_the_task_before_anything_is(origin, fetcher, value):
    site = origin(lambda spoken: spoken.answer())
    with pytest.raises(ConnectionFailed, match=r"expected .*header") as caught:
        fetch(fetcher(), get(site.url, headers={"X-Price": value}))
    assert (caught.value.whose, caught.value.is_retryable, site.connections) == ("policy", False, 0)


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
    one = fetcher(origins={"https://www.example.org:443": f"{site.url}/www.example.org"})
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
        fetch(fetcher(allow=(), origins={"https://www.example.org:443": site.url}), "https://www.example.org/")
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


# Redirects, and what other hosts see


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
    with pytest.raises(HttpStatus, match="without a Location") as caught:
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


@pytest.mark.parametrize(
    ("url", "following", "may"),
    [
        ("http://a.example/", "http://A.example:80/x", True),
        ("http://a.example/", "https://a.example/", True),
        ("http://a.example:80/", "https://a.example:443/", True),
        ("https://a.example/", "http://a.example/", False),
        ("http://a.example/", "https://a.example:8443/", False),
        ("http://a.example:8080/", "https://a.example:8080/", False),
        ("http://a.example/", "https://b.a.example/", False),
        ("http://a.example/", "https://a.example:99999/", False),
    ],
)
def test_credentials_go_along_to_the_same_origin_and_over_to_tls_only(url, following, may):
    """A change to TLS means from port 80 to port 443 of one name, however the ports are written."""
    assert _may_see_credentials(url, following) is may


def test_credentials_in_an_address_are_neither_sent_nor_shown(origin, fetcher):
    site = origin(lambda spoken: spoken.answer())
    page = fetch(fetcher(), f"http://user:pass@127.0.0.1:{site.port}/x#part")
    assert page.url == site.url + "/x"
    assert "authorization" not in site.requests[0].headers
    assert shown("http://user:pass@a.example/x?token=1") == '"http://a.example/x"'


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
