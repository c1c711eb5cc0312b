"""``scripts/up`` in the foreground, killed, and in a folder that it can't use: each on a stack of its own."""

import json
import os
import re
import signal
import subprocess

import pytest

from scripts.stack.ports import port_is_free
from tests.stack.conftest import UP
from tests.stack.test_bridges import beating, ensured
from tests.waiting import until
from tests.wire import ask


class Foreground:
    """An ``up`` in the foreground, and what it has said so far."""

    def __init__(self, stack, *words):
        self.process = subprocess.Popen(
            [UP, "--data", stack.data, *words], env=stack.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
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
        return self.process.wait(150)


@pytest.fixture(scope="module")
def with_keys(make_stack, one_region):
    """A stack in the foreground whose gateway needs keys, and what it has said."""
    made = make_stack(NEARFETCH__REGIONS__PATH=one_region)
    shown = Foreground(made, "--port", str(made.port), "--keys")
    shown.read_until(r"^Ctrl-C stops everything\.$")
    yield made, shown
    made.end()


def test_with_keys_it_makes_one_and_prints_it_and_commands_find_it(with_keys):
    stack, shown = with_keys
    said = "".join(shown.lines)
    key = re.search(r"^  key +(nf_\w+) ", said, re.MULTILINE)[1]
    assert "needs a key" in said
    assert f"-H 'Authorization: Bearer KEY' '{stack.url}/v1/sources/" in said
    records = "/v1/sources/ecb.rates/records"
    assert ask(stack.port, "GET", records).status == 401
    assert (
        ask(stack.port, "GET", records, {"Authorization": f"Bearer {key[:-1]}{'a' if key[-1] != 'a' else 'b'}"}).status
        == 401
    )
    until(lambda: ask(stack.port, "GET", records, {"Authorization": f"Bearer {key}"}).status == 200, "an answer")
    assert (stack.data / "key").stat().st_mode & 0o77 == 0
    assert stack.succeeds("status").returncode == 0
    fetched = stack.succeeds("fetch", "ecb.rates", "--json").stdout
    assert stack.nearfetch("where", json.loads(fetched)["task"]).returncode == 0
    assert key.split("_")[1] in stack.nearfetch("key", "list").stdout


def test_the_foreground_says_what_died_and_ctrl_c_stops_everything(with_keys):
    other, shown = with_keys
    bridge = other.pids()["bridge-fra"]
    os.kill(bridge, signal.SIGKILL)
    shown.read_until(rf"bridge-fra .*({bridge})?.*started again as process \d+")
    assert shown.end(signal.SIGINT) == 0
    assert shown.lines[-1] == "Stopped.\n"
    assert other.processes() == []
    assert not (other.data / "url").exists()


@pytest.fixture(scope="module")
def unsupervised(make_stack, one_region):
    """A stack of one region whose supervisor and bridge were killed; what both were, and what its secrets are.

    Its Python parts are forked at its first start, and start as a user's at the next.
    """
    made = make_stack(forks=True, NEARFETCH__REGIONS__PATH=one_region)
    made.up("--detach", "--port", str(made.port))
    kept = json.loads((made.data / "kept.json").read_text())
    pids = made.pids()
    for name in ("supervisord", "bridge-fra"):
        os.kill(pids[name], signal.SIGKILL)
    yield made, pids, kept
    made.end()


def test_without_its_supervisor_cron_keeps_a_bridge_and_stop_ends_all_of_it(unsupervised):
    """What the supervisor started goes on without it."""
    stack, pids, _ = unsupervised
    assert stack.nearfetch("bridges", "ensure", "--data", str(stack.data.parent), check=False).returncode == 2
    did, pid = ensured(stack)["fra"]
    assert did == [f"process {pids['bridge-fra']} had died, started process {pid}"]
    assert beating(stack, "fra") == [pid]
    assert any(line.startswith(f"{pid} ") for line in stack.processes())
    assert "that a killed supervisor had left behind" in stack.up("--stop").stdout
    assert stack.processes() == []
    assert ensured(stack) == {}


def test_the_next_start_keeps_its_data_and_an_up_that_is_killed_takes_its_stack_with_it(unsupervised):
    """Without a port of its own it is where it was before."""
    stack, _, kept = unsupervised
    stack.up("--stop")
    shown = Foreground(stack)
    shown.read_until(r"^Ctrl-C stops everything\.$")
    assert json.loads((stack.data / "kept.json").read_text()) == kept
    assert any(stack.url in line for line in shown.lines)
    assert stack.succeeds("fetch", "ecb.rates").returncode == 0
    shown.end(signal.SIGKILL)
    until(lambda: stack.processes() == [], "every process to end", 150.0)


def test_a_part_that_does_not_start_is_named_with_its_log_and_nothing_is_left(other):
    in_the_way = other.data / "redis-fra" / "appendonlydir"
    in_the_way.parent.mkdir(mode=0o700, parents=True)
    in_the_way.write_text("no folder")
    done = other.up("--detach", "--port", str(other.port), check=False)
    assert done.returncode == 1
    # As it is while it waits for its next try; a busy machine may look while that begins, or miss one.
    assert re.search(
        r"redis-fra does not start: it ended (within 3 s of its start|with code \d+), [3-5] times\.", done.stderr
    )
    assert "appendonly" in done.stderr
    assert f"The whole log: {other.data}/log/redis-fra.log" in done.stderr
    assert other.processes() == []
    assert port_is_free(other.port)
