"""Processes by pid and start time, their groups, who listens, and what a part's last life left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from regions.process import Process
from regions.settings import ROOT
from scripts.stack import processes
from tests.waiting import until

# A leader with a child in its group, as a wrapper with its broker is; both say their pid.
FAMILY = "sleep 600 & echo $!; echo $$; wait"


@pytest.fixture
def start():
    started = []

    def run(script):
        process = subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return process

    yield run
    for process in started:
        processes.signal_group(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def family(process):
    child, leader = int(process.stdout.readline()), int(process.stdout.readline())
    return child, Process.of(leader)


def test_a_process_is_its_pid_and_its_start(start):
    _, leader = family(start(FAMILY))
    assert leader.alive
    assert not Process(leader.pid, leader.started + 1).alive
    assert processes.group(Process(leader.pid, leader.started + 1)) == []


def test_a_pid_file_names_a_process_also_when_it_has_gone(tmp_path):
    me = Process.own()
    me.write(tmp_path / "a.pid")
    assert Process.read(tmp_path / "a.pid") == me
    (tmp_path / "b.pid").write_text("half of")
    assert Process.read(tmp_path / "b.pid") is None
    assert Process.read(tmp_path / "none.pid") is None


def test_a_group_is_ended_after_its_leader_was_killed(start):
    process = start(FAMILY)
    child, leader = family(process)
    process.kill()
    process.wait()
    assert processes.group(leader) == [child]
    assert processes.end_groups([leader], 60.0) == 1
    assert Process.of(child) is None


def test_a_group_that_hears_nothing_is_killed(start):
    process = start("trap '' TERM; " + FAMILY)
    child, leader = family(process)
    assert processes.end_groups([leader], 0.2) == 2
    assert Process.of(child) is None


def test_a_stopped_group_is_ended(start):
    process = start(FAMILY)
    leader = family(process)[1]
    processes.signal_group(leader.pid, signal.SIGSTOP)
    assert processes.end_groups([leader], 60.0) == 2


def test_a_listener_has_a_name():
    with socket.create_server(("127.0.0.1", 0)) as server:
        comm = Path("/proc/self/comm").read_text().strip()
        assert processes.listener(server.getsockname()[1]) == f"process {os.getpid()} ({comm})"
    assert processes.listener(1) == "another process"


def launch(data, name):
    return subprocess.Popen(
        [sys.executable, "-S", "-m", "scripts.stack.launch", str(data), name], cwd=ROOT, start_new_session=True
    )


def describe(data, name, script, *, parent=0):
    (data / "run").mkdir(exist_ok=True)
    part = {
        "command": ["/bin/sh", "-c", script], "environment": {"GREETING": "hello"}, "folder": str(data),
        "ends_with_parent": bool(parent), "parent": parent,
    }  # fmt: skip
    (data / "run" / f"{name}.json").write_text(json.dumps(part))


def test_a_part_gets_its_own_environment_and_folder_and_notes_its_pid(tmp_path):
    describe(tmp_path, "part", 'echo "$GREETING ${PATH_OF_US-none}" > said')
    process = launch(tmp_path, "part")
    assert process.wait(60) == 0
    assert (tmp_path / "said").read_text() == "hello none\n"
    assert Process.read(tmp_path / "run" / "part.pid").pid == process.pid


def test_a_part_that_starts_again_ends_what_its_last_life_left(tmp_path):
    describe(tmp_path, "part", "sleep 600 & echo $! > child; wait")
    first = launch(tmp_path, "part")
    child = int(until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text(), "the first child"))
    first.kill()
    first.wait()
    assert Process.of(child) is not None
    second = launch(tmp_path, "part")
    until(lambda: Process.of(child) is None, "the first child's end")
    processes.signal_group(second.pid, signal.SIGKILL)
    second.wait()


def test_a_part_that_ends_with_its_parent_does_not_start_without_it(tmp_path):
    describe(tmp_path, "part", "echo started > said", parent=1)
    assert launch(tmp_path, "part").wait(60) == 1
    assert not (tmp_path / "said").exists()
