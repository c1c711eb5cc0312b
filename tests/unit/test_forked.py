"""Forked processes are like those of ``subprocess``, and end with the process of the tests."""

import os
import signal
import subprocess
import sys

import pytest

from regions.process import Process
from tests import forked
from tests.forked import ROOT, Forked
from tests.waiting import until

FEW = ("json",)


def test_it_has_its_own_streams_folder_environment_and_words(tmp_path):
    code = "import os, sys; print(sys.argv, os.getcwd(), os.environ['OWN'], sys.stdin.read()); sys.exit('no')"
    with Forked(
        ["-c", code, "one", "two"], imported=FEW, cwd=tmp_path, env={"OWN": "set"}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.communicate("given") == (f"['-c', 'one', 'two'] {tmp_path} set given\n", "no\n")
    assert process.returncode == 1


def test_a_module_is_run_as_the_main_one():
    done = forked.run(["-m", "json.tool", "--help"], imported=FEW, text=True, check=True)
    assert "usage" in done.stdout


def test_its_command_line_is_its_own():
    code = "print(open('/proc/self/cmdline').read())"
    said = forked.run(["-c", code, "one"], imported=FEW, text=True, check=True).stdout
    assert said.strip("\n\0").split("\0") == [sys.executable, "-c", code, "one"]


def test_a_descriptor_is_passed_under_its_number():
    ours, theirs = os.pipe()
    forked.run(["-c", f"import os; os.write({theirs}, b'heard')"], imported=FEW, pass_fds=[theirs], check=True)
    os.close(theirs)
    assert os.read(ours, 10) == b"heard"
    os.close(ours)


def test_a_signal_ends_it_and_is_its_exit_code():
    with Forked(["-c", "import time; time.sleep(600)"], imported=FEW, start_new_session=True) as process:
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize("is_shared", [False, True], ids=["its own server", "the run's server"])
def test_tests_that_are_killed_take_what_they_forked_with_them(is_shared):
    environ = {**os.environ, **(forked.share(FEW) if is_shared else {})}
    code = "import os; from tests.forked import Forked; one = Forked(['-c', 'import time; time.sleep(600)'], imported=('json',), start_new_session=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}; print(one.pid, flush=True); input()"], cwd=ROOT, env=environ, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as tests:  # fmt: skip
        process = Process.of(int(tests.stdout.readline()))
        assert process.alive
        tests.kill()
    until(lambda: not process.alive, "its end")


def test_processes_of_tests_that_make_one_run_have_one_server():
    environ = {**os.environ, **forked.share(FEW)}
    code = "from tests import forked; print(forked.run(['-c', 'import os; print(os.getppid())'], imported=('json',)).stdout)"
    runs = [
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1] != b""
