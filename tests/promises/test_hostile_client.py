"""Hostile client: whatever a client sends, or does not read, others are answered, and memory is bounded.

A quiet machine shows 50 ms:

    HEALTHZ_P99_SECONDS=0.05 python -m pytest -s tests/promises/test_hostile_client.py
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest

from regions.settings import ROOT
from tests.ledger import GONE
from tests.promises import attacker
from tests.promises.driving import Ledger, cannot_be_tried
from tests.promises.meter import Meter
from tests.waiting import until
from tests.wire import Wire, ask

pytestmark = pytest.mark.timeout(600)

# A gateway that reads where handlers wait answers when the attackers' time is over, after 10 s; a busy machine stands for less.
P99_SECONDS = float(os.environ.get("HEALTHZ_P99_SECONDS", "2"))
CALLS = 200
ATTACK_SECONDS = 36.0  # longer than a body may take: those that began with it are cut off while it goes on
PAUSE_SECONDS = 0.5  # between two requests that mean well
GROWTH_BYTES_MAX = 250_000_000  # of the gateway, for 4,508 connections of which 500 want 8 MB each
LARGE = """
title = "A page for each of its links"
url = "https://bench.example/page{?n}"
region = "REGION"
[params]
n = {type = "int", required = true, example = 1}
[rows]
css = "li"
[fields]
text = {xpath = "string(/html)"}
[limits]
concurrency = 1000
"""
HOST = b"Host: 127.0.0.1\r\n"
POST = b"POST /v1/requests HTTP/1.1\r\nContent-Type: application/json\r\n" + HOST
FRAMINGS = {
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 20\r\n\r\n{}",
    "length and chunks": POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n{}",
    "a length with a sign": POST + b"Content-Length: +2\r\n\r\n{}",
    "a length with an underscore": POST + b"Content-Length: 1_0\r\n\r\n{}        ",
    "a blank before the colon": POST + b"Content-Length : 2\r\n\r\n{}",
    "a folded line": POST + b"X: 1\r\n Content-Length: 2\r\n\r\n{}",
    "NUL": POST + b"X: \x00\r\nContent-Length: 2\r\n\r\n{}",
    "a bare CR": POST + b"X: 1\rContent-Length: 2\r\n\r\n{}",
    "a bare LF": POST + b"X: 1\nContent-Length: 2\r\n\r\n{}",
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /healthz HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "a coding that is nearly chunked": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a chunk with a sign": POST + b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n",
    "a chunk with an underscore": POST + b"Transfer-Encoding: chunked\r\n\r\n0_2\r\n{}\r\n0\r\n\r\n",
}
SMUGGLED = b"DELETE /v1/requests HTTP/1.1\r\n" + HOST + b"\r\n"


class Attack:
    """The attacker's process; ``answered`` is what it was answered, once it has ended."""

    def __init__(self, port: int, path: str) -> None:
        words = [sys.executable, "-m", "tests.promises.attacker", str(port), path]
        self._process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answered: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def stands(self) -> None:
        assert self._process.stdout.readline() == "standing\n"

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        with contextlib.suppress(json.JSONDecodeError):
            self.answered = json.loads(self._process.stdout.read() or "{}")
        self._process.wait(60)
        self._process.stdout.close()


@pytest.fixture
def _many_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < attacker.FILES + 500:
        cannot_be_tried(f"a process may have {hard} open files, expected {attacker.FILES + 500}")


@pytest.fixture
def large(stack) -> str:
    """The path of an answer of 8 MB."""
    region = stack.regions[0]
    file = stack.sources / f"large.{region}.toml"
    file.write_text(LARGE.replace("REGION", region))
    sources = [{"source": f"large.{region}", "params": {"n": number}} for number in range(100)]

    def succeeded():
        """The request; each process of the region reads the new source in its own time, and fails its tasks until then."""
        reply = ask(stack.port, "POST", "/v1/requests", body={"sources": sources, "deadline": 120})
        if reply.status != 202:
            return None
        request = reply.json()["id"]
        until(
            lambda: ask(stack.port, "GET", f"/v1/requests/{request}?after=99999999999999-0").json()["done"],
            "its end",
            120,
        )
        answer = ask(stack.port, "GET", f"/v1/requests/{request}").json()
        return request if answer["more"] else None

    request = until(succeeded, "an answer of more than 8 MB", 120)
    yield f"/v1/requests/{request}"
    file.unlink()


@pytest.mark.usefixtures("_many_files")
def test_others_are_answered_and_memory_is_bounded_while_clients_attack(stack, large):
    """1,000 slow senders, 3,000 silent sockets, 500 that want 8 MB and read nothing, bodies without an end, at once."""
    ledger, rss, lost = Ledger(stack), [_rss(stack)], []
    with Meter(stack.port, "/healthz") as meter:
        alone = [_calm(meter)]
        with Attack(stack.port, large) as attack:
            began = time.monotonic()
            attack.stands()
            stood = time.monotonic()
            while time.monotonic() - began < ATTACK_SECONDS:
                try:
                    ledger.results(ledger.must_post(stack.regions))
                    until(lambda: ask(stack.port, "GET", "/readyz").status == 200, "the gateway to be ready")
                except GONE as error:
                    lost.append(repr(error))
                rss.append(_rss(stack))
                time.sleep(PAUSE_SECONDS)
            over = time.monotonic()
        alone.append(_calm(meter))
        found, rising = _p99(meter.took(began, over)), meter.took(began, stood)
    shown = [f"{1000 * one:.1f}" for one in (*alone, found)]
    said = (
        f"/healthz p99 in ms: alone {shown[0]} and {shown[1]}, attacked {shown[2]}"
        f" (at most {1000 * max(rising):.0f} while {len(rising)} calls saw it rise); the gateway grew by"
        f" {(max(rss) - rss[0]) / 1e6:.0f} MB; {len(ledger.promised)} requests; {attack.answered}"
    )
    print(said)
    assert max(rss) - rss[0] <= GROWTH_BYTES_MAX, f"memory was not bounded: {said}"
    assert found <= max(P99_SECONDS, *alone), f"/healthz was slow: {said}"
    assert not lost, f"requests that mean well were not answered: {lost[:3]}; {said}"
    told = {kind for kind in attack.answered if not kind.endswith(" began")}
    assert {"slow 408", "endless 413", "endless 400"} <= told, said
    ledger.check()


@pytest.mark.parametrize("sent", FRAMINGS.values(), ids=FRAMINGS)
def test_ambiguous_framing_is_a_400_and_ends_the_connection(stack, sent):
    with Wire(stack.port) as wire:
        with contextlib.suppress(ConnectionError):
            wire.socket.sendall(sent + SMUGGLED)
        reply = wire.reply()
        assert reply.status == 400, f"expected 400, found {reply.status}"
        assert reply.json()["type"] == "/problems/protocol"
        assert wire.is_closed()


def _rss(stack) -> int:
    """The gateway's resident memory in bytes."""
    lines = Path(f"/proc/{stack.pid('gateway')}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def _p99(found: list[float]) -> float:
    return sorted(found)[int(0.99 * len(found))]


def _calm(meter: Meter) -> float:
    """The p99 of the next calls."""
    since = time.monotonic()
    until(lambda: len(meter.took(since)) >= CALLS, "calls without an attack", 150)
    return _p99(meter.took(since))
