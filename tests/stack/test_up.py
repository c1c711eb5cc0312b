"""``scripts/up`` as its user sees it: what it says, what it starts again, and that it leaves nothing."""

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request

import pytest

from scripts.ports import port_is_free
from tests.stack.conftest import UP
from tests.waiting import until

REGIONS = ("fra", "nyc", "sin")
FIVE = ("ecb.rates", "quakes.day", "hn.front", "books.list", "category=poetry_23", "slow.example")


def test_it_says_what_is_ready_where_everything_is_and_what_to_try(stack):
    lines = stack.output.splitlines()
    assert re.fullmatch(r"Nearfetch \d+\.\d+\.\d+   data: \S+   log: \S+/log/", lines[0])
    assert lines[0].split()[3] == str(stack.data)
    assert re.match(r"  ok  apt: redis-server [\d.]+, rabbitmq-server [\d.]+ +[\d.]+ s", lines[1])
    assert re.match(r"  ok  python 3\.\d+, virtual environment +[\d.]+ s", lines[2])
    for region in REGIONS:
        assert re.search(rf"  ok  {region}  Redis, bridge, 2 \u00d7 64 workers, dashboard +[\d.]+ s", stack.output)
        assert re.search(
            rf"  {region}  \w.+  \d+ sources? +rq-dashboard http://127\.0\.0\.1:\d+/   ops / [a-z]+-[a-z]+-\d+",
            stack.output,
        )
    assert re.search(r"^Ready after \d+ s", stack.output, re.MULTILINE)
    assert f"  api               {stack.url}/   open on this machine only" in lines
    assert "\x1b" not in stack.output


def test_the_lines_to_try_do_what_they_say(stack):
    curl = next(line for line in stack.output.splitlines() if line.startswith("  curl "))
    path = re.search(r"'http://[^/]+(/\S+)'", curl)[1]
    assert stack.get(path)["status"] == "succeeded"
    words = next(line for line in stack.output.splitlines() if line.startswith("  scripts/nearfetch ")).split()
    done = stack.nearfetch(*words[1:])
    assert re.search(r"^(\d+) of \1 in ", done.stdout, re.MULTILINE)


def test_five_sources_of_three_regions_come_one_by_one_and_small(stack):
    results = [json.loads(line) for line in stack.nearfetch("fetch", *FIVE, "--json").stdout.splitlines()]
    assert {result["source"]: result["status"] for result in results} == dict.fromkeys(
        (word for word in FIVE if "=" not in word), "succeeded"
    )
    assert results[-1]["source"] == "slow.example"
    assert {result["region"] for result in results} == set(REGIONS)
    assert sum(result["bytes"]["raw"] for result in results) > 3 * sum(result["bytes"]["records"] for result in results)


def test_status_says_that_everything_is_up(stack):
    done = stack.nearfetch("status")
    assert f"gateway {stack.url}   ready" in done.stdout
    for region in REGIONS:
        assert re.search(rf"^  {region} .* up .*2 worker processes", done.stdout, re.MULTILINE)
    status = json.loads(stack.nearfetch("status", "--json").stdout)
    assert [region["status"] for region in status["regions"]] == ["up"] * 3


def test_the_private_servers_pass_their_own_check(stack):
    checked = stack.nearfetch("config", "check", "--json", "--data", str(stack.data))
    servers = json.loads(checked.stdout)["servers"]
    assert [(server["fault"], server["shortfalls"]) for server in servers] == [(None, [])] * 6


def test_the_dashboards_answer_to_their_password_only(stack):
    found = re.findall(r"rq-dashboard (http://\S+)   ops / (\S+)", stack.output)
    assert len(found) == len(REGIONS)
    for url, password in found:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=10)
        refused.value.close()
        assert refused.value.code == 401
        manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        manager.add_password(None, url, "ops", password)
        opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))
        with opener.open(url, timeout=10) as page:
            assert page.status == 200


def test_a_second_up_on_the_same_folder_is_refused_and_changes_nothing(stack):
    before = stack.pids()
    done = stack.up("--detach", check=False)
    assert done.returncode == 1
    assert re.search(
        r"Already running on this data folder since \d\d:\d\d \(process \d+\): http://127.0.0.1:\d+/   scripts/up ",
        done.stderr,
    )
    assert stack.url in done.stderr
    assert stack.pids() == before


def test_no_secret_is_in_an_argument_or_readable_by_others(stack):
    kept = json.loads((stack.data / "kept.json").read_text())["secrets"].values()
    arguments = " ".join(stack.processes())
    assert arguments
    assert not [secret for secret in kept if secret in arguments]
    assert stack.data.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "part", ["bridge-fra", "workers-nyc", "redis-sin", "gateway", "rabbitmq", "hub", "dashboard-fra"]
)
def test_a_part_that_is_killed_is_back_by_itself(stack, part):
    before = stack.pids()[part]
    os.kill(before, signal.SIGKILL)
    until(lambda: stack.pids()[part] != before, f"{part} to be started again", 60.0)
    until(
        lambda: stack.nearfetch("status", check=False).returncode == 0,
        f"everything to be up after {part} was killed",
        90.0,
    )
    assert stack.nearfetch("fetch", "ecb.rates", "hn.front", check=False).returncode == 0


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


@pytest.fixture
def other(make_stack):
    """A second stack beside the shared one."""
    stack = make_stack()
    yield stack
    stack.up("--stop")
    assert stack.processes() == []


def test_the_foreground_says_what_died_and_ctrl_c_stops_everything(other):
    shown = Foreground(other)
    shown.read_until(r"^Ctrl-C stops everything\.$")
    bridge = other.pids()["bridge-nyc"]
    os.kill(bridge, signal.SIGKILL)
    shown.read_until(rf"bridge-nyc .*({bridge})?.*started again as process \d+")
    assert shown.end(signal.SIGINT) == 0
    assert shown.lines[-1] == "Stopped.\n"
    assert other.processes() == []
    assert not (other.data / "url").exists()


def test_stop_ends_what_a_killed_supervisor_left_and_the_next_start_keeps_its_data(other):
    other.up("--detach", "--port", str(other.port))
    kept = json.loads((other.data / "kept.json").read_text())
    os.kill(other.pids()["supervisord"], signal.SIGKILL)
    assert "whose supervisor was killed" in other.up("--stop").stdout
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
