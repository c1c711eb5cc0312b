"""``scripts/up`` as its user sees it: what it says, what it starts again, and that it leaves nothing."""

import json
import os
import re
import signal
import urllib.error
import urllib.request

import pytest

from tests.stack.driving import in_order, is_up_by_status
from tests.waiting import until

REGIONS = ("fra", "nyc", "sin")
SECONDS = 150.0
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
            rf"  {region}  \w.+  \d+ sources? +rq-dashboard http://127\.0\.0\.1:\d+/   ops / [a-z]+-[a-z]+-[a-z0-9]{{8}}",
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
    done = stack.script(*words[1:])
    assert re.search(r"^(\d+) of \1 in ", done.stdout, re.MULTILINE)


def test_five_sources_of_three_regions_come_one_by_one_and_small(stack):
    results = [json.loads(line) for line in stack.succeeds("fetch", *FIVE, "--json").stdout.splitlines()]
    assert {result["source"]: result["status"] for result in results} == dict.fromkeys(
        (word for word in FIVE if "=" not in word), "succeeded"
    )
    in_order(results)  # on a busy machine any of them may be slow
    assert {result["region"] for result in results} == set(REGIONS)
    fetched = [result["bytes"] for result in results if result["bytes"]["raw"]]  # a page that is unchanged is not
    assert sum(size["raw"] for size in fetched) >= 3 * sum(size["records"] for size in fetched)


def test_status_says_that_everything_is_up(stack):
    until(lambda: is_up_by_status(stack), "everything to be up", SECONDS)  # after what the tests before have hurt
    done = stack.nearfetch("status")
    assert f"gateway {stack.url}   ready" in done.stdout
    for region in REGIONS:
        assert re.search(rf"^  {region} .* up .*[2-4] worker processes", done.stdout, re.MULTILINE)
    status = json.loads(stack.nearfetch("status", "--json").stdout)
    assert [region["status"] for region in status["regions"]] == ["up"] * 3
    for region in status["regions"]:
        where = f"[dashboard] in {stack.data / 'regions' / region['name']}.toml"
        assert f"        rq-dashboard {region['dashboard']}   user and password: {where}\n" in done.stdout
        assert region["dashboard"] in stack.output


def test_the_gateways_sources_are_listed_with_their_health(stack):
    listed = json.loads(stack.nearfetch("source", "list", "list", "fra", "--json").stdout)
    assert listed["gateway"] == stack.url
    assert {"books.list", "quotes.list", "price.list"} <= {one["id"] for one in listed["sources"]}
    assert {one["health"] for one in listed["sources"]} <= {"ok", "unknown"}


def test_the_private_servers_pass_their_own_check(stack):
    checked = stack.nearfetch("config", "check", "--json", "--data", str(stack.data))
    servers = json.loads(checked.stdout)["servers"]
    assert all((server["fault"], server["shortfalls"]) == (None, []) for server in servers), servers
    assert len([server for server in servers if not server["what"].startswith("standby")]) == 9


def test_an_author_tries_a_shipped_source_on_the_sample_site(stack):
    """Without a word about it: the stack that runs on this machine has one."""
    done = stack.nearfetch("source", "try", "books.list", "category=poetry_23", "--json")
    assert json.loads(done.stdout)["count"] == 20
    assert "The sample site of scripts/up answers" in done.stderr


def test_doctor_finds_nothing_wrong_with_a_stack_beside_it(stack):
    """Without a setting but the folder; it looks into RabbitMQ by the node's own command, and asks the gateway."""
    until(lambda: is_up_by_status(stack), "everything to be up", SECONDS)  # after what the tests before have hurt
    done = stack.nearfetch("doctor", "--json", "--data", str(stack.data))
    shown = json.loads(done.stdout)
    assert [one for one in shown["findings"] if one["severity"] == "wrong"] == []
    assert done.returncode == 0
    fine = {(one["check"], one["what"]) for one in shown["findings"] if one["severity"] == "fine"}
    assert {
        ("policy", "RabbitMQ"),
        ("permission", "RabbitMQ"),
        ("disk", "RabbitMQ"),
        ("connection", "gateway"),
        ("definition", "sources"),
    } <= fine
    for region in REGIONS:
        assert {
            ("connection", f"Redis of {region}"),
            ("clock", f"Redis of {region}"),
            ("permission", f"hub's user of {region}"),
        } <= fine
    secrets = json.loads((stack.data / "kept.json").read_text())["secrets"].values()
    assert [secret for secret in secrets if secret in done.stdout] == []


def test_the_dashboards_answer_to_their_password_only(stack):
    found = re.findall(r"rq-dashboard (http://\S+)   ops / (\S+)", stack.output)
    assert len(found) == len(REGIONS)
    for url, password in found:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=60)
        refused.value.close()
        assert refused.value.code == 401
        manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        manager.add_password(None, url, "ops", password)
        opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))
        with opener.open(url, timeout=60) as page:
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
    until(lambda: stack.pids()[part] != before, f"{part} to be started again", SECONDS)
    until(lambda: is_up_by_status(stack), f"everything to be up after {part} was killed", SECONDS)
    # What is told of a part may be older than its death: a first call may be refused.
    assert stack.succeeds("fetch", "ecb.rates", "hn.front").returncode == 0
