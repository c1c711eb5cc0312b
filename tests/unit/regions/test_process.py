"""Processes of this host."""

import os
import subprocess
import sys

from regions import process
from regions.process import may_raise_priority, renice, settle_on_processor


def test_a_new_process_is_kept_on_one_of_its_processors():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        settle_on_processor(child.pid)
        kept = os.sched_getaffinity(child.pid)
        assert len(kept) == 1
        assert kept <= os.sched_getaffinity(0)
        own = os.sched_getscheduler(0)  # who runs the tests may have chosen one, and then the child keeps it
        assert os.sched_getscheduler(child.pid) == (os.SCHED_BATCH if own == os.SCHED_OTHER else own)
        child.communicate(b"\n")


def test_whose_policy_was_chosen_keeps_it():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        os.sched_setscheduler(child.pid, os.SCHED_IDLE, os.sched_param(0))
        settle_on_processor(child.pid)
        assert os.sched_getscheduler(child.pid) == os.SCHED_IDLE
        child.communicate(b"\n")


def test_one_that_has_gone_is_left_alone():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    settle_on_processor(child.pid)


THREADS = """
import threading
for _ in range(3):
    threading.Thread(target=input, daemon=True).start()
print(flush=True)
threading.Event().wait()
"""


def nice_values(pid: int) -> list[int]:
    return [os.getpriority(os.PRIO_PROCESS, int(one.name)) for one in (process.PROC / str(pid) / "task").iterdir()]


def test_a_nice_value_is_that_of_all_threads(monkeypatch):
    with subprocess.Popen(
        [sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    ) as child:
        child.stdout.readline()
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert nice_values(child.pid) == [own] * 4
        assert renice(child.pid, 17)
        assert nice_values(child.pid) == [17] * 4

        def refuse(*_):
            raise PermissionError

        monkeypatch.setattr(process.os, "setpriority", refuse)
        assert not renice(child.pid, 0)
        child.kill()
    monkeypatch.undo()
    assert renice(child.pid, 17)  # it has ended


def test_whether_a_priority_may_be_raised_is_found_without_changing_any(monkeypatch):
    own = os.getpriority(os.PRIO_PROCESS, 0)
    told, set_priority = [], os.setpriority

    def only_down(which, who, nice):
        told.append(nice)
        if nice <= own:
            raise PermissionError
        set_priority(which, who, nice)

    with monkeypatch.context() as patched:
        patched.setattr(process.os, "setpriority", only_down)
        assert not may_raise_priority()
        patched.setattr(process.os, "setpriority", lambda *told: None)
        assert may_raise_priority()
    assert told == [own + 1, own]
    may_raise_priority()
    assert os.getpriority(os.PRIO_PROCESS, 0) == own  # of this thread; the system may still show the one that tried


def test_the_processor_is_the_one_where_the_fewest_are_kept(tmp_path, monkeypatch):
    """Threads of the kernel, without a command line, are kept everywhere and say nothing; who may go anywhere is not kept."""
    allowed = {1: {0}, 2: {0}, 3: {2}, 4: {2}, 5: {3}, 6: {0, 1, 2, 3}, 7: {1}, 8: {1}, 9: {0, 1, 2, 3}}
    commands = {pid: b"" if pid in (7, 8) else b"worker\0" for pid in allowed}
    for pid, command in commands.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes(command)
    (tmp_path / "self").mkdir()
    chosen = []
    monkeypatch.setattr(process, "PROC", tmp_path)
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_BATCH)
    monkeypatch.setattr(os, "sched_getaffinity", allowed.__getitem__)
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, kept: chosen.append((pid, kept)))
    settle_on_processor(9)
    allowed[9] = {0, 2}
    settle_on_processor(9)
    allowed[9] = {2}
    settle_on_processor(9)  # somebody has chosen already
    assert chosen == [(9, {1}), (9, {0})]
