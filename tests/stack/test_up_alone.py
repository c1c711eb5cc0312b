"""``scripts/up`` in the foreground, killed, and in a folder that it can't use: each on a stack of its own."""

import json
import os
import re
import signal
import subprocess

from scripts.stack.ports import port_is_free
from tests.stack.conftest import UP
from tests.waiting import until


class Foreground:
    """An ``up`` in the foreground, and what it has said so far."""

    def __init__(self, stack):
        self.process = subprocess.Popen(
            [UP, "--data", stack.data, "--port", str(stack.port)], env=stack.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, text=True, start_new_session=True,
        )  # fmt: skip
        self.lines = []

    def read_until(self, pattern):
        while not (self.lines and re.search(pattern, self.lines[-1])):
            line = self.process.stdout.readline()
            assert line, "".join(self.lines)
            self.lines.append(line)

    def end(self, number):
        os.kill(self.process.pid, number)
        self.lines += self.process.stdout.readlines()
        self.process.stdout.close()
        return self.process.wait(60)


def test_the_foreground_says_what_died_and_ctrl_c_stops_everything(other):
    shown = Foreground(other)
    shown.read_until(r"^Ctrl-C stops everything\.$")
    bridge = other.pids()["bridge-fra"]
    os.kill(bridge, signal.SIGKILL)
    shown.read_until(rf"bridge-fra .*({bridge})?.*started again as process \d+")
    assert shown.end(signal.SIGINT) == 0
    assert shown.lines[-1] == "Stopped.\n"
    assert other.processes() == []
    assert not (other.data / "url").exists()


def test_stop_ends_what_a_killed_supervisor_left_and_the_next_start_keeps_its_data(other):
    other.up("--detach", "--port", str(other.port))
    kept = json.loads((other.data / "kept.json").read_text())
    os.kill(other.pids()["supervisord"], signal.SIGKILL)
    assert "that a killed supervisor had left behind" in other.up("--stop").stdout
    assert other.processes() == []
    again = other.up("--detach")
    assert json.loads((other.data / "kept.json").read_text()) == kept
    seconds = int(re.search(r"^Ready after (\d+) s", again.stdout, re.MULTILINE)[1])
    print(f"warm start: ready after {seconds} s")
    assert other.nearfetch("fetch", "ecb.rates").returncode == 0


def test_an_up_that_is_killed_takes_its_stack_with_it(other):
    shown = Foreground(other)
    shown.read_until(r"^Ctrl-C stops everything\.$")
    shown.end(signal.SIGKILL)
    until(lambda: other.processes() == [], "every process to end", 60.0)


def test_a_part_that_does_not_start_is_named_with_its_log_and_nothing_is_left(other):
    in_the_way = other.data / "redis-fra" / "appendonlydir"
    in_the_way.parent.mkdir(mode=0o700, parents=True)
    in_the_way.write_text("no folder")
    done = other.up("--detach", "--port", str(other.port), check=False)
    assert done.returncode == 1
    assert "redis-fra does not start: it ended within 3 s of its start, 3 times." in done.stderr
    assert "appendonly" in done.stderr
    assert f"The whole log: {other.data}/log/redis-fra.log" in done.stderr
    assert other.processes() == []
    assert port_is_free(other.port)
