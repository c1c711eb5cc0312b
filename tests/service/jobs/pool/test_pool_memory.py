"""A worker process that slowly exceeds its memory is drained and replaced, and no task is lost."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from regions import process
from regions.process import Residents
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
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        started.stdout.readline()
        found = Residents().resident_bytes([started.pid, os.getpid(), 2**22 + 1])
        assert set(found) == {started.pid, os.getpid()}
        assert 40_000_000 < found[started.pid] < found[os.getpid()]
        started.stdin.close()


def test_a_look_reads_its_processes_again_and_what_is_new_but_no_stranger_twice(monkeypatch):
    """A child that comes later counts, also that of a child, and a pid that is given out again."""
    read: list[int] = []
    monkeypatch.setattr(process, "stat", lambda pid, its=process.stat: read.append(pid) or its(pid))
    grandchild = "held = b'x' * 30_000_000; print('grown', flush=True); import sys; sys.stdin.read()"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    parent = f"import subprocess, sys; print(flush=True); input(); subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        started.stdout.readline()
        residents = Residents()
        alone = residents.resident_bytes([started.pid])[started.pid]
        strangers, read[:] = set(read) - {started.pid}, []
        assert os.getpid() in strangers
        started.stdin.write("\n")
        started.stdin.flush()
        assert started.stdout.readline() == "grown\n"
        assert residents.resident_bytes([started.pid])[started.pid] > alone + 40_000_000
        assert started.pid in read
        assert len(strangers & set(read)) < len(strangers) / 2  # the system may have forgotten a folder
        assert residents.resident_bytes([started.pid])[started.pid] > alone + 40_000_000
        residents._others |= dict.fromkeys(map(str, read), 1)  # as if other processes had had these pids before
        assert residents.resident_bytes([started.pid])[started.pid] > alone + 40_000_000
        started.stdin.close()


def test_processes_are_listed_only_while_something_is_new_on_the_machine(monkeypatch):
    listed, newest = [], ["7"]
    monkeypatch.setattr(process, "_newest", lambda: newest[0])
    monkeypatch.setattr(
        Residents, "_list", lambda self, pids, its=Residents._list: listed.append(pids) or its(self, pids)
    )
    residents, me = Residents(), os.getpid()
    for now, lists in (("7", 1), ("7", 1), ("8", 2), ("", 3), ("", 4)):  # "": the machine does not tell
        newest[0] = now
        assert residents.resident_bytes([me])[me] > 0
        assert len(listed) == lists
    newest[0] = "8"
    residents.resident_bytes([me])
    assert set(residents.resident_bytes([me, os.getppid()])) == {me, os.getppid()}
    assert len(listed) == 6  # a process that it did not know
