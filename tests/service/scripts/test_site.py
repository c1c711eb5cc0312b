"""The sample site over real sockets: its pages, how it misbehaves on request, and what it counts."""

import contextlib
import gzip
import html
import http.client
import json
import re
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from jobs.fetch.guard import parse_origins
from regions.settings import ROOT
from scripts.site import site
from scripts.site.pages import (
    arxiv,
    bench,
    books,
    charset,
    ecb,
    guardian,
    line,
    nws,
    quakes,
    reel,
    sitemap,
    taste,
    unlocode,
)
from scripts.site.site import Site
from scripts.stack.services import free_port
from tests import forked
from tests.forked import Forked
from tests.waiting import until


@pytest.fixture(scope="module")
def sample() -> Iterator[Site]:
    started = Site().start()
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def _well_behaved(sample: Site) -> Iterator[None]:
    yield
    sample.behaviour.reset()


def ask(port: int, path: str, method: str = "GET", body: str | None = None, **headers: str):
    """One request on a connection of its own: (status, headers, body)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def behave(port: int, **rule) -> None:
    status, _, body = ask(port, "/_site/behave", "POST", json.dumps(rule))
    assert status == 200, body


# path, what each row has, how many rows, about how many bytes
PAGES = [
    ("/www.ecb.europa.eu" + ecb.PATH, b"<Cube currency=", 31, 1_700),
    ("/www.ecb.europa.eu" + ecb.HISTORY, b"<Cube currency=", 65 * 31 + 1, 75_000),
    ("/earthquake.usgs.gov" + quakes.FEED, b'{"type":"Feature",', 146, 110_000),
    ("/news.ycombinator.com/", b'class="titleline"', 30, 31_000),
    ("/news.ycombinator.com/item?id=46000000", b"class='athing comtr'", 100, 155_000),
    ("/books.toscrape.com/catalogue/category/books/poetry_23/index.html", b'class="product_pod"', 20, 51_000),
    ("/quotes.toscrape.com/page/1/", b'<div class="quote" ', 10, 10_500),
    ("/export.arxiv.org" + arxiv.START, b"  <entry>", 10, 21_000),
    ("/www.theguardian.com" + guardian.PATH, b"<item>", 60, 120_000),
    ("/www.sitemaps.org" + sitemap.PATH, b"\t<url>", 84, 12_500),
    ("/api.weather.gov" + nws.START, b'"windSpeed"', 14, 16_700),
    ("/raw.githubusercontent.com" + unlocode.PATH, b"\n", 4_642, 150_000),
    ("/api.crossref.org/works?rows=20&cursor=*", b'"is-referenced-by-count"', 20, 130_000),
    ("/api.line.example" + line.START, b'"rkem_move"', 3, 2_600),
    ("/tracking.reel.example" + reel.START, b"<tr class='Mainlabel4'>\n", 6, 8_600),
    ("/charset.example" + charset.START, b'CLASS="nr"', 60, 21_000),
    ("/www.tasteatlas.com" + taste.START, b"ld+json", 2, 26_000),
    ("/slow.example/?seconds=0", b'class="item"', 3, 4_000),
    ("/bench.example/page", b'class="product_pod"', 20, 54_492),
    ("/bench.example/tiny", b'"id"', 3, 130),
]


@pytest.mark.parametrize(("path", "row", "rows", "about"), PAGES)
def test_a_page_has_the_shape_and_size_of_the_real_one_and_is_always_the_same(sample, path, row, rows, about):
    status, headers, body = ask(sample.port, path)
    assert status == 200
    assert body.count(row) == rows
    assert len(body) == pytest.approx(about, rel=0.08)
    assert ask(sample.port, path)[2] == body
    assert int(headers["Content-Length"]) == len(body)


def test_the_bench_page_has_exactly_the_size_that_was_measured_with(sample):
    assert len(ask(sample.port, "/bench.example/page")[2]) == bench.PAGE_BYTES == 54_492


def test_a_category_of_several_pages_leads_through_all_of_them(sample):
    number = next(number for number in range(2, 52) if books.size(number) == 85)
    folder = f"/books.toscrape.com/catalogue/category/books/{books.CATEGORIES[number - 2].lower()}_{number}/"
    page, links, pages = "index.html", [], 0
    while page:
        status, _, body = ask(sample.port, folder + page)
        assert status == 200
        pages += 1
        links += re.findall(rb'<h3><a href="([^"]+)"', body)
        found = re.search(rb'class="next"><a href="([^"]+)"', body)
        page = found[1].decode() if found else ""
    assert (pages, len(links)) == (5, 85)
    assert len(set(links)) == 85


def test_a_cursor_leads_through_all_works_and_only_one_that_was_given_is_taken(sample):
    cursor, pages, found = "*", 0, []
    while True:
        query = urlencode({"query": "tea", "rows": 100, "cursor": cursor})
        status, _, body = ask(sample.port, f"/api.crossref.org/works?{query}")
        assert status == 200
        message = json.loads(body)["message"]
        if not message["items"]:
            break
        pages += 1
        found += [item["DOI"] for item in message["items"]]
        cursor = message["next-cursor"]
    assert (pages, len(found), len(set(found))) == (3, 250, 250)
    assert ask(sample.port, "/api.crossref.org/works?rows=100&cursor=AoJ%2B%2Fguess")[0] == 400


@pytest.mark.parametrize(
    ("change", "is_in"),
    [
        ({}, True),
        ({"password": "guess"}, False),
        ({"csrf_token": "0" * 32}, False),
        ({"csrf_token": None}, False),
    ],
)
def test_a_login_needs_its_password_and_the_token_of_its_cookie(sample, change, is_in):
    """What is wrong brings the form again, with a new token; a cookie of the form's alone is no login."""
    path = "/quotes.toscrape.com/login"
    _, headers, body = ask(sample.port, path)
    cookie = headers["Set-Cookie"].partition(";")[0]
    token = re.search(rb'name="csrf_token" value="(\w+)"', body)[1].decode()
    form = {"username": "reader", "password": "reader", "csrf_token": token} | change
    sent = urlencode({key: text for key, text in form.items() if text is not None})
    kind = {"Content_Type": "application/x-www-form-urlencoded"}
    status, headers, body = ask(sample.port, path, "POST", sent, Cookie=cookie, **kind)
    assert (status, b'name="password"' in body) == ((302, False) if is_in else (200, True))
    assert token.encode() not in body
    page = ask(sample.port, "/quotes.toscrape.com/", Cookie=headers["Set-Cookie"].partition(";")[0])[2]
    assert (b"Logout" in page, b"(Goodreads page)" in page) == (is_in, is_in)
    assert ask(sample.port, path, "POST", sent, **kind)[0] == 200, "a login without a cookie"


@pytest.mark.parametrize(
    "path",
    [
        "/books.toscrape.com/catalogue/category/books/poetry_22/index.html",
        "/books.toscrape.com/catalogue/category/books/poetry_23/page-2.html",
        "/www.ecb.europa.eu/other",
        "/nobody.example/",
    ],
)
def test_what_the_origin_does_not_have_is_404(sample, path):
    assert ask(sample.port, path)[0] == 404


def test_a_page_is_compressed_for_those_who_ask(sample):
    path = "/news.ycombinator.com/"
    plain = ask(sample.port, path)[2]
    _, headers, packed = ask(sample.port, path, Accept_Encoding="gzip, br")
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Vary"] == "Accept-Encoding"
    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain) / 3


def test_a_page_that_the_client_has_is_304(sample):
    path = "/news.ycombinator.com/"
    headers = ask(sample.port, path)[1]
    assert ask(sample.port, path, If_None_Match=headers["ETag"])[0] == 304
    assert ask(sample.port, path, If_None_Match='"other"')[0] == 200
    assert ask(sample.port, path, If_Modified_Since=headers["Last-Modified"])[0] == 304
    assert ask(sample.port, path, If_Modified_Since="Mon, 01 Jan 2024 00:00:00 GMT")[0] == 200


def test_sixty_four_slow_answers_starve_nobody(sample):
    before = sample.fetches.since(0)[0]
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", sample.port), 60)) for _ in range(64)]
        for number, one in enumerate(slow):
            one.sendall(f"GET /slow.example/?seconds=30&n={number} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        until(lambda: sample.fetches.since(0)[0] >= before + 64, "64 requests to have arrived")
        assert ask(sample.port, "/www.ecb.europa.eu" + ecb.PATH)[0] == 200
        assert select.select(slow, [], [], 0)[0] == [], "the quick answer came after slow ones"


def test_fetches_are_counted_by_address_since_a_cursor(sample):
    cursor = json.loads(ask(sample.port, "/_site/fetches")[2])["cursor"]
    for path in ("/bench.example/tiny?n=1", "/bench.example/tiny?n=1", "/bench.example/tiny?n=2"):
        ask(sample.port, path)
    found = json.loads(ask(sample.port, f"/_site/fetches?since={cursor}")[2])
    assert found == {"cursor": cursor + 3, "fetches": {"/bench.example/tiny?n=1": 2, "/bench.example/tiny?n=2": 1}}
    assert ask(sample.port, "/_site/fetches?since=x")[0] == 400


def test_a_rule_bends_its_prefix_as_often_as_it_says(sample):
    behave(sample.port, prefix="/bench.example/", times=2, status=503, headers={"Retry-After": "7"}, body="away")
    for _ in range(2):
        status, headers, body = ask(sample.port, "/bench.example/tiny")
        assert (status, headers["Retry-After"], body) == (503, "7", b"away")
    assert ask(sample.port, "/bench.example/tiny")[0] == 200
    assert json.loads(ask(sample.port, "/_site/behave")[2]) == []


def test_a_rule_leaves_other_prefixes_alone_until_it_is_reset(sample):
    behave(sample.port, prefix="/slow.example/", status=500)
    assert ask(sample.port, "/bench.example/tiny")[0] == 200
    assert ask(sample.port, "/slow.example/?seconds=0")[0] == 500
    assert ask(sample.port, "/_site/behave", "DELETE")[0] == 200
    assert ask(sample.port, "/slow.example/?seconds=0")[0] == 200


@pytest.mark.parametrize("header", [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_page_that_a_browser_shows_makes_no_rules(sample, method, header):
    connection = http.client.HTTPConnection("127.0.0.1", sample.port, timeout=30)
    connection.request(method, "/_site/behave", json.dumps({"prefix": "/", "status": 500}), dict([header]))
    assert connection.getresponse().status == 403
    connection.close()
    assert ask(sample.port, "/bench.example/tiny")[0] == 200


def test_a_rule_can_redirect(sample):
    behave(sample.port, prefix="/bench.example/tiny", redirect="/page")
    status, headers, _ = ask(sample.port, "/bench.example/tiny")
    assert (status, headers["Location"]) == (302, "/page")


def test_a_rule_can_cut_the_body(sample):
    behave(sample.port, prefix="/bench.example/page", cut=1000)
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(sample.port, "/bench.example/page")
    assert len(caught.value.partial) == 1000


def test_a_rule_can_delay_and_drip(sample):
    behave(sample.port, prefix="/bench.example/tiny", delay_seconds=0.2, drip={"bytes": 40, "seconds": 0.1})
    began = time.monotonic()
    _, _, body = ask(sample.port, "/bench.example/tiny")
    assert json.loads(body)["rows"]
    assert time.monotonic() - began >= 0.2 + 0.1 * (len(body) // 41)


@pytest.mark.parametrize(
    "rule", ['{"prefix": "x"}', '{"prefix": "/x", "typo": 1}', "no JSON", '{"prefix": "/x", "times": 0}']
)
def test_a_bad_rule_is_refused(sample, rule):
    assert ask(sample.port, "/_site/behave", "POST", rule)[0] == 400


def test_origins_send_every_host_here_by_either_scheme(sample):
    found = parse_origins(site.origins(8099))
    assert found["https://news.ycombinator.com:443"] == "http://127.0.0.1:8099/news.ycombinator.com"
    assert found["http://slow.example:80"] == "http://127.0.0.1:8099/slow.example"
    assert len(found) == 2 * len(site.HOSTS)


def test_the_index_links_to_pages_that_are_there(sample):
    links = [html.unescape(link.decode()) for link in re.findall(rb'href="([^"]+)"', ask(sample.port, "/")[2])]
    assert len(links) == len(site.HOSTS)
    at_once = [f"{link}?seconds=0" if link == "/slow.example/" else link for link in links]
    assert {ask(sample.port, link)[0] for link in at_once} == {200}


def test_it_serves_this_machine_only():
    with pytest.raises(ValueError, match="loopback"):
        Site("0.0.0.0")


def test_as_a_process_it_serves_until_told_to_stop_and_says_that_a_port_is_taken():
    port = free_port()
    words, imported = ["-m", "scripts.site", "--port", str(port)], ("scripts.site.site",)
    with Forked(words, imported=imported, cwd=ROOT, stderr=subprocess.PIPE) as serving:
        until(lambda: answers(port), "the site to answer")
        second = forked.run(words, imported=imported, cwd=ROOT, timeout=60)
        assert second.returncode == 1
        assert b"cannot listen" in second.stderr
        serving.terminate()
        assert serving.wait(timeout=60) == 0


def answers(port: int) -> bool:
    try:
        return ask(port, "/")[0] == 200
    except ConnectionRefusedError:
        return False


def test_what_a_client_that_left_did_not_take_is_dropped(sample: Site):
    """Else the garbage collector sends it to a closed descriptor, and Python 3.13 says so to whoever runs then."""
    ours, theirs = socket.socketpair()
    theirs.close()
    connection = site._Connection(sample._server, ours)
    with pytest.raises(BrokenPipeError):
        connection.wfile.write(b"the rest of a page")
    connection.close()
    assert connection.wfile.closed
