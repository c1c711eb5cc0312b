"""What the sample site sends when it is told to hurt: each is what it says it is, and the site itself stays small."""

import gzip
import http.client
import json
import socket
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from regions.settings import ROOT
from scripts.site import hostile
from scripts.site.behave import Hostile
from scripts.stack.services import free_port
from tests.forked import Forked
from tests.service.scripts.test_site import answers, ask, behave
from tests.waiting import until

PAGE = "/www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml"
HUGE_BYTES = 60_000_000
SMALL_KB = 160_000  # several times less than the smallest bomb unpacked


@pytest.fixture(scope="module")
def serving() -> Iterator[tuple[int, int]]:
    """A site of its own: (port, process)."""
    port = free_port()
    words, imported = ["-m", "scripts.site", "--port", str(port)], ("scripts.site.site",)
    with Forked(words, imported=imported, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: answers(port), "the site to answer")
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(timeout=60)


@pytest.fixture
def port(serving: tuple[int, int]) -> Iterator[int]:
    yield serving[0]
    ask(serving[0], "/_site/behave", "DELETE")


def hurt(port: int, kind: str):
    behave(port, prefix="/www.ecb.europa.eu/", hostile=kind)
    return ask(port, PAGE)


def unpacked_bytes(body: bytes) -> int:
    """How long a gzip member is, without holding it."""
    engine, length = zlib.decompressobj(wbits=31), 0
    while body:
        length += len(engine.decompress(body, 1_000_000))
        body = engine.unconsumed_tail
    assert engine.eof, "the member has no end"
    return length


def test_a_gzip_bomb_is_a_gigabyte_in_a_megabyte(port):
    _, headers, body = hurt(port, "gzip_bomb")
    assert headers["Content-Encoding"] == "gzip"
    assert len(body) < 1_100_000
    assert unpacked_bytes(body) == 1_073_741_824


def test_a_stacked_bomb_is_the_same_in_kilobytes(port):
    _, headers, body = hurt(port, "stacked_bomb")
    assert headers["Content-Encoding"] == "gzip, gzip"
    assert len(body) < 10_000
    assert gzip.decompress(body) == hurt(port, "gzip_bomb")[2]


def test_stacked_codings_are_eight(port):
    _, headers, body = hurt(port, "stacked")
    for _ in headers["Content-Encoding"].split(", "):
        body = gzip.decompress(body)
    assert (len(headers["Content-Encoding"].split(", ")), body) == (8, b"<p>all this for one line</p>")


@pytest.mark.parametrize(
    ("kind", "content_type", "piece", "count"),
    [
        ("nodes", "text/html; charset=utf-8", b"<i></i>", 1_000_000),
        ("nesting", "text/html; charset=utf-8", b"<div>", 200_000),
        ("json_nesting", "application/json", b"[", 200_000),
        ("attributes", "text/html; charset=utf-8", b"=1 ", 200_000),
        ("entities", "text/xml", b"&l", 101),
        ("external_entity", "text/xml", b"SYSTEM", 2),
    ],
)
def test_a_hostile_document_is_as_large_as_it_says(port, kind, content_type, piece, count):
    status, headers, body = hurt(port, kind)
    assert (status, headers["Content-Type"], body.count(piece)) == (200, content_type, count)


def test_headers_have_no_end(port):
    """More than any client should take arrives and no empty line ends it."""
    behave(port, prefix="/www.ecb.europa.eu/", hostile="headers")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"GET {PAGE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        got = b""
        while len(got) < 3_000_000:
            got += connection.recv(1_000_000)
    assert got.startswith(b"HTTP/1.1 200 OK\r\nX-Filler: ")
    assert b"\r\n\r\n" not in got


def test_a_redirect_loop_never_names_the_same_address_twice(port):
    behave(port, prefix="/www.ecb.europa.eu/", hostile="redirect_loop")
    path, seen = PAGE.removeprefix("/www.ecb.europa.eu"), set()
    for _ in range(30):
        status, headers, _ = ask(port, "/www.ecb.europa.eu" + path)
        assert status == 302
        path = headers["Location"]
        assert path.startswith("/stats/")
        seen.add(path)
    assert len(seen) == 30


def test_a_private_redirect_leads_to_a_link_local_address(port):
    status, headers, _ = hurt(port, "redirect_private")
    assert (status, headers["Location"]) == (302, "http://169.254.169.254/latest/meta-data/")


def test_a_flaky_page_fails_each_nth_time(port):
    behave(port, prefix="/www.ecb.europa.eu/", every=3, status=500, times=2)
    found = [ask(port, PAGE)[0] for _ in range(9)]
    assert found == [200, 200, 500, 200, 200, 500, 200, 200, 200]


def test_a_huge_page_is_the_page_and_blanks(port):
    page = ask(port, PAGE)[2]
    behave(port, prefix="/www.ecb.europa.eu/", huge=HUGE_BYTES)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", PAGE)
    answer = connection.getresponse()
    assert answer.headers["Content-Length"] is None
    assert answer.read(len(page)) == page
    length = len(page)
    while piece := answer.read1(1_000_000):
        length += len(piece)
        assert piece.count(b" ") == len(piece)
    connection.close()
    assert length == HUGE_BYTES


def test_a_page_can_lie_about_its_charset(port):
    behave(port, prefix="/www.ecb.europa.eu/", body="a café", mislabel="charset")
    _, _, body = ask(port, PAGE)
    assert body == b"a caf\xe9"


def test_a_page_can_lie_about_its_type(port):
    behave(port, prefix="/www.ecb.europa.eu/", mislabel="type")
    _, headers, body = ask(port, PAGE)
    assert headers["Content-Type"] == "image/png"
    assert body.startswith(b"<?xml")


def test_a_page_can_lie_about_its_coding(port):
    behave(port, prefix="/www.ecb.europa.eu/", mislabel="encoding")
    _, headers, body = ask(port, PAGE, Accept_Encoding="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert body.startswith(b"<?xml")


def test_a_hostile_rule_stands_alone(port):
    """What bends a page can't bend what is sent instead of it; the refusal names it."""
    rule = {"prefix": "/x", "hostile": "nodes", "cut": 0, "status": 500}
    status, _, body = ask(port, "/_site/behave", "POST", json.dumps(rule))
    assert status == 400
    assert b"found status, cut too" in body


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the site's memory is read from /proc")
def test_the_site_stays_small_while_it_hurts(serving, port):
    for kind in get_args(Hostile):
        if kind != "headers":
            assert hurt(port, kind)[0] in (200, 302)
    status = Path(f"/proc/{serving[1]}/status").read_text()
    peak_kb = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    assert peak_kb < SMALL_KB


def test_every_hostile_kind_has_its_answer():
    assert {*hostile.KINDS} == {*get_args(Hostile)}
