"""Bombs: memory stays below its limit, the worker lives, its neighbours succeed.

One real worker process with the default of 64 threads and 300 MB fetches every bomb several times, at the same time as
its neighbours; /proc tells the most that it ever had.
"""

import gzip
from collections.abc import Iterator
from functools import cache
from typing import Final

import brotli
import pytest
from backports import zstd

from scripts.site.behave import Drip, Rule
from scripts.site.site import Site, origins
from tests.service.jobs.fetch.origin import Spoken
from tests.service.region_workers import RegionWorkers, of, peak_bytes, started
from tests.service.working import results
from tests.waiting import until

MEMORY_MB: Final = 300
EACH: Final = 2  # times every bomb
NEIGHBOURS: Final = 200
BOMB_BYTES: Final = 200_000_000

SOURCE = """
title = "A page"
url = 'ADDRESS'
format = "FORMAT"
[limits]
retries = 0
timeout_seconds = SECONDS
[contract]
min_rows = 0
"""
ROWS = {
    "html": '[fields]\ntext = {xpath = "string-length(string())"}\n',
    "xml": '[fields]\ntext = {xpath = "string-length(string())"}\n',
    "json": '[fields]\nfirst = {jmes = "[0]"}\n',
    "csv": "",
    "feed": "",
    "words": '[fields]\ntext = "p"\n',
    "many_words": '[fields]\ntext = {css = "p", many = true}\n',
    "typed_words": '[fields]\ntext = {css = "p", type = "int"}\n',
    "lines": '[fields]\ntext = {css = "pre", lines = true}\n',
}
# What the site can do, the format it is read in, and how it has to end.
HOSTILE = {
    "gzip_bomb": ("html", "too_large"),
    "stacked_bomb": ("html", "too_large"),
    "stacked": ("html", "decode"),
    "nodes": ("html", "parse"),
    "nesting": ("html", "parse"),
    "json_nesting": ("json", "parse"),
    "attributes": ("html", "parse"),
    "entities": ("xml", "parse"),
    "external_entity": ("xml", "parse"),
    "headers": ("html", "too_large"),
    "redirect_loop": ("html", "http_status"),
    "redirect_private": ("html", "blocked_address"),
}
TARGET = {
    "too_large": "target", "http_status": "target", "decode": "parser", "parse": "parser", "timeout": "network",
    "blocked_address": "policy",
}  # fmt: skip


@cache
def packed(kind: str) -> tuple[str, str, bytes]:
    """Content type, coding and body of what the site has not."""
    blanks = b" " * BOMB_BYTES
    return {
        "br_bomb": lambda: ("text/html", "br", brotli.compress(blanks, quality=5)),
        "zstd_bomb": lambda: ("text/html", "zstd", zstd.compress(blanks)),
        "zstd_in_br_in_gzip": lambda: (
            "text/html", "zstd, br, gzip", gzip.compress(brotli.compress(zstd.compress(blanks), quality=5)),
        ),
        "json_values": lambda: ("application/json", "gzip", gzip.compress(b"[" + b"1.5," * 4_000_000 + b"1]")),
        "json_text": lambda: ("application/json", "gzip", gzip.compress(b'["' + b"a" * 19_000_000 + '\U0001f600"]'.encode())),
        "words": lambda: ("text/html", "gzip", gzip.compress(b"<p>" + b"ab " * 6_000_000)),
        "json_words": lambda: ("application/json", "gzip", gzip.compress(b'["' + b"ab " * 6_000_000 + b'"]')),
        "lines": lambda: ("text/html", "gzip", gzip.compress(b"<pre>" + b"\n" * 19_000_000)),
        "cells": lambda: ("text/csv", "gzip", gzip.compress(b"a,b\n" + b",\n" * 5_000_000)),
        "long_cell": lambda: ("text/csv", "gzip", gzip.compress(b'a,b\n1,"' + b"a" * 14_000_000 + b'"\n')),
        "rows": lambda: ("text/csv", "gzip", gzip.compress(b"a,b\n" + b"1,2\n" * 450_000)),
        "short_attributes": lambda: ("text/html", "gzip", gzip.compress(b"<p a b c d e f g h i j k l m n>" * 60_000)),
        "bad_feed": lambda: ("text/xml", "gzip", gzip.compress(b"<rss><channel>" + b"<item>&</item>" * 199_000)),
        # Within every cap of one document, 80 MB each: all of them at once would be far over the limit.
        "heavy": lambda: ("text/html", "gzip", gzip.compress(b"<p>a" * 280_000)),
    }["words" if kind in ("many_words", "typed_words") else kind]()  # fmt: skip


PACKED = {
    "br_bomb": ("html", "too_large"),
    "zstd_bomb": ("html", "too_large"),
    "zstd_in_br_in_gzip": ("html", "too_large"),
    "json_values": ("json", "parse"),
    "json_text": ("json", "too_large"),
    "words": ("words", "too_large"),
    "many_words": ("many_words", "too_large"),
    "typed_words": ("typed_words", "too_large"),
    "json_words": ("json", "too_large"),
    "lines": ("lines", ""),
    "cells": ("csv", "parse"),
    "long_cell": ("csv", "too_large"),
    "rows": ("csv", "too_large"),
    "short_attributes": ("html", "parse"),
    "bad_feed": ("feed", "too_large"),
    "heavy": ("html", ""),
}
SLOW = {"byte_a_second": ("html", "timeout"), "endless_page": ("html", "too_large")}
BOMBS = {**HOSTILE, **PACKED, **SLOW}
HEAVY_TIMES: Final = 16
# Why a pool takes another worker.
REPLACED: Final = {
    "a worker died", "draining a worker with too much memory", "killing a worker whose loop hangs",
    "replacing a worker with a stuck thread, which drains",
}  # fmt: skip


@pytest.fixture
def site() -> Iterator[Site]:
    running = Site().start()
    for kind in HOSTILE:
        running.behaviour.add(Rule(prefix=f"/bench.example/{kind}/", hostile=kind))
    running.behaviour.add(Rule(prefix="/bench.example/byte_a_second/", body="x" * 100, drip=Drip(bytes=1, seconds=1)))
    running.behaviour.add(Rule(prefix="/bench.example/endless_page/", body="x", status=200, huge=5_000_000_000))
    yield running
    running.stop()


def definition(address: str, form: str, seconds: float = 60) -> str:
    text = (
        SOURCE.replace("ADDRESS", address)
        .replace("FORMAT", form if form in ("xml", "json", "csv", "feed") else "html")
        .replace("SECONDS", str(seconds))
    )
    return text + ROWS[form]


@pytest.mark.timeout(600)
def test_bombs_stay_below_the_memory_and_hurt_no_neighbour(workers: RegionWorkers, site, origin):
    def say(spoken: Spoken) -> None:
        kind, coding, body = packed(spoken.target.strip("/"))
        spoken.answer(body, Content_Type=kind, Content_Encoding=coding)

    for kind in PACKED:
        packed(kind)
    other = origin(say).url
    definitions = {"neighbour.toml": definition("https://bench.example/page", "html")}
    for kind, (form, _) in BOMBS.items():
        address = f"{other}/{kind}" if kind in PACKED else f"https://bench.example/{kind}/"
        definitions[f"{kind}.toml"] = definition(address, form, 4 if kind == "byte_a_second" else 100)
    workers.start(definitions, memory_mb=MEMORY_MB, allow="127.0.0.0/8", origins=origins(site.port))
    (pid,) = workers.pids().values()
    since = started(pid)

    asked = [kind for kind in BOMBS for _ in range(HEAVY_TIMES if kind == "heavy" else EACH)]
    beside = NEIGHBOURS // len(asked) + 1
    kinds = [one for kind in asked for one in (kind, *["neighbour"] * beside)]
    ids = workers.ask([of(kind, deadline_seconds=240) for kind in kinds])

    def why() -> set[str]:
        return REPLACED & {line["event"] for line in workers.log}

    until(lambda: why() or set(ids) <= set(results(workers.hub)), f"{len(ids)} results", 240)
    assert not why(), f"the worker was replaced: {why()}"
    found = workers.results(ids)

    assert kinds.count("neighbour") >= NEIGHBOURS
    assert list(workers.pids().values()) == [pid], f"the worker was replaced: {why()}"
    assert started(pid) == since
    peak_mb = peak_bytes(pid) / 1e6
    print(f"{len(ids)} tasks, {len(ids) - kinds.count('neighbour')} bombs of {len(BOMBS)} kinds; peak {peak_mb:.0f} MB")
    assert peak_mb < MEMORY_MB, f"the worker had {peak_mb:.0f} MB"
    assert [one["task"] for one in found] == ids
    for kind, one in zip(kinds, found, strict=True):
        expected = BOMBS.get(kind, ("", ""))[1]
        error = one["error"] or {"type": "", "origin": TARGET.get(expected, "")}
        assert (kind, error["type"]) == (kind, expected), one["error"]
        assert error["origin"] == TARGET.get(expected, "")
        assert (kind, one["status"], one["attempts"]) == (kind, "failed" if expected else "succeeded", 1)
