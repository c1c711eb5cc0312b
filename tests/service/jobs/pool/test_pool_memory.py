"""A worker process that slowly exceeds its memory is drained and replaced, and no task is lost."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from regions.process import resident_bytes
from scripts.site.site import Site, origins
from tests.service.region_workers import of
from tests.service.working import results
from tests.waiting import until

MEMORY_MB = 150
LEAK = """
title = "Keeps a part of every page"
url = 'https://bench.example/tiny?seconds=0.2'
format = "json"
[fields]
id = {type = "int"}
"""
LEAK_CODE = """
import builtins
builtins.kept = getattr(builtins, "kept", [])

def parse(page):
    builtins.kept.append(b"x" * 4_000_000)
    yield from page.json["rows"]
"""


@pytest.fixture
def site() -> Iterator[Site]:
    started = Site().start()
    yield started
    started.stop()


def test_a_process_that_leaks_is_drained_and_replaced_and_no_task_is_lost(workers, site):
    definitions = {"leak.toml": LEAK, "leak.py": LEAK_CODE}
    workers.start(definitions, threads=2, memory_mb=MEMORY_MB, allow="127.0.0.0/8", origins=origins(site.port))
    first = workers.pids()
    ids = workers.ask([of("leak") for _ in range(60)])
    found = workers.results(ids)
    assert [one["task"] for one in found] == ids
    assert {one["status"] for one in found} == {"succeeded"}
    assert {one["attempts"] for one in found} == {1}
    assert set(Counter(results(workers.hub)).values()) == {1}
    drains = [line for line in workers.log if line["event"] == "draining a worker with too much memory"]
    assert drains
    assert drains[0]["worker"] in first
    assert drains[0]["memory_mb"] > drains[0]["most_mb"] == MEMORY_MB
    until(lambda: set(workers.pids()).isdisjoint(first), "the first to be gone")
    assert not [line for line in workers.log if line["event"] == "a worker died"]


def test_a_process_is_weighed_with_its_children():
    code = "import subprocess, sys; held = b'x' * 30_000_000; print(flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        found = resident_bytes([process.pid, os.getpid(), 2**22 + 1])
        assert set(found) == {process.pid, os.getpid()}
        assert 40_000_000 < found[process.pid] < found[os.getpid()]
        process.stdin.close()
