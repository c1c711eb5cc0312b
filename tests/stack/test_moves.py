"""Regions that come and go under a running stack, and sources that move between them: under load, with ids compared."""

import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regions.settings import ROOT
from scripts.stack.ports import free_port
from tests.forked import GATEWAY, Forked
from tests.stack.conftest import Stack, write_region
from tests.stack.driving import Inside, Ledger, is_up
from tests.waiting import until
from tests.wire import ask

NEW = "ams"
SOURCE = """
title = "Moving"
region = "fra"
url = 'https://bench.example/tiny{?seconds}'
[params]
seconds = {}
[rows]
jmes = "rows"
[fields]
id = {type = "int"}
[limits]
concurrency = 1000
"""
MOVES = 4
SECONDS = 150.0


class Load:
    """Posts three tasks at a time to each gateway in turn; what was promised stands in a ledger outside the stack."""

    def __init__(self, stack, *ports: int) -> None:
        self.ledger, self.ports = Ledger(stack), ports or (stack.port,)
        self.regions: dict[str, str] = {}  # of each task, as its acceptance said
        self._strange: list[object] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._is_over.set()
        self._thread.join(60)

    def _run(self) -> None:
        count = 0
        while not self._is_over.wait(0.1):
            self._post(self.ports[count % len(self.ports)])
            count += 1

    def _post(self, port: int) -> None:
        tasks = [{"source": "moving", "params": {"seconds": seconds}} for seconds in ("0", "0.4", "1.2")]
        reply = ask(port, "POST", "/v1/requests", body={"sources": tasks, "deadline": 60})
        if reply.status == 202:
            self.ledger.note(reply.json())
            self.regions |= {task["id"]: task["region"] for task in reply.json()["tasks"]}
        elif reply.status == 503:  # a busy machine: nothing was accepted
            self.ledger.refused += [reply.json()["request"]] if "request" in reply.json() else []
        else:
            self._strange.append(reply)

    def more(self, count: int = 5) -> None:
        """Waits for so many requests more."""
        wanted = len(self.ledger.promised) + count
        until(lambda: len(self.ledger.promised) >= wanted, "more requests", SECONDS)

    def check(self) -> set[str]:
        """Every accepted task succeeded, once, in the region that it was accepted for. The regions."""
        assert self._strange == []
        for path in (f"/v1/requests/{one}" for one in self.ledger.refused):
            until(lambda one=path: ask(self.ports[0], "GET", one).status == 404, f"{path} to be nothing")
        for request in self.ledger.promised:
            self.ledger.collect(request)
        self.ledger.check()
        answered = {result["task"]: result["region"] for result in self.ledger.delivered}
        assert answered == self.regions
        return set(answered.values())


@pytest.fixture(scope="module")
def places(own):
    """Folders of regions, and of sources, of which one is there."""
    (own.sources / "moving.toml").write_text(SOURCE, encoding="utf-8")
    return own.regions, own.sources


@pytest.fixture(scope="module")
def stack(own, places):
    """A stack that knows this source."""

    def is_known() -> bool:
        reply = ask(own.stack.port, "GET", "/v1/sources/moving")
        return reply.status == 200 and reply.json()["health"] == "ok"

    until(is_known, "the region to say what it has", SECONDS)
    return own.stack


@contextmanager
def second_gateway(stack: Stack, sources: Path) -> Iterator[int]:
    """Its port, once it is ready. It reads the stack's settings, but these sources."""
    port = free_port()
    described = json.loads((stack.data / "run" / "gateway.json").read_text(encoding="utf-8"))
    environment = {
        **described["environment"],
        "NEARFETCH__GATEWAY__PORT": str(port),
        "NEARFETCH__SOURCES__PATH": str(sources),
    }
    with (stack.data / "log" / "second-gateway.log").open("ab") as log:
        process = Forked(
            ["-m", "scripts.cli", "gateway"], imported=GATEWAY, env=environment, cwd=ROOT, stdout=log, stderr=log
        )
    try:
        until(lambda: _is_ready(port), "the second gateway to be ready", SECONDS)
        yield port
    finally:
        process.terminate()
        process.wait(SECONDS)


def _is_ready(port: int) -> bool:
    try:
        return ask(port, "GET", "/readyz").status == 200
    except OSError:
        return False


def region_of(stack, port: int | None = None) -> str:
    return ask(port or stack.port, "GET", "/v1/sources/moving").json()["region"]


def regions_of(stack) -> dict[str, dict]:
    return {one["name"]: one for one in stack.get("/v1/regions")["regions"]}


def move(path, region: str) -> None:
    path.write_text(re.sub('region = "[a-z]+"', f'region = "{region}"', SOURCE), encoding="utf-8")


@pytest.mark.timeout(600)
def test_a_new_region_is_one_file_and_up_and_the_tasks_of_others_go_on(stack, places, monkeypatch):
    """The stack keeps the settings of its start, whatever the environment of the second ``up`` says."""
    regions, _ = places
    before, settings = stack.pids(), (stack.data / "nearfetch.toml").read_text(encoding="utf-8")
    with Load(stack) as load:
        load.more()
        write_region(regions, NEW)
        monkeypatch.setitem(stack.environment, "NEARFETCH__LIMITS__TASKS_MAX", "7")
        done = stack.up("--detach")
        assert (stack.data / "nearfetch.toml").read_text(encoding="utf-8") == settings
        assert "Added ams. Everything else went on." in done.stdout
        load.more()
    load.check()
    after = stack.pids()
    assert {part: after[part] for part in before} == before
    assert {part for part in after if part not in before} == {
        f"{kind}-{NEW}" for kind in ("bridge", "dashboard", "redis", "workers")
    }
    until(lambda: is_up(stack), "the stack to be well", SECONDS)
    assert regions_of(stack).keys() == {"fra", NEW}
    checked = json.loads(stack.nearfetch("config", "check", "--json", "--data", str(stack.data)).stdout)["servers"]
    assert [(server["fault"], server["shortfalls"]) for server in checked] == [(None, [])] * len(checked)
    assert stack.up("--detach", check=False).returncode == 1  # nothing has changed


@pytest.mark.timeout(600)
def test_a_source_moves_by_one_line_under_load_and_each_task_is_answered_where_it_was_accepted(stack, places):
    """There and back, while pages are on their way. Nothing is refused, and no region is said to send what is not its own."""
    _, sources = places
    assert NEW in regions_of(stack)
    with Load(stack) as load:
        for number in range(MOVES):
            load.more()
            to = (NEW, "fra")[number % 2]
            move(sources / "moving.toml", to)
            until(lambda to=to: region_of(stack) == to, f"the source to be in {to}", SECONDS)
            until(lambda to=to: to in list(load.regions.values())[-3:], f"tasks to go to {to}", SECONDS)
        load.more()
    assert load.check() == {"fra", NEW}

    def has_run() -> bool:
        return all(one["sources"].get("moving", {}).get("runs") for one in regions_of(stack).values())

    until(has_run, "the runs to be counted", SECONDS)
    assert [one["refused"] for one in regions_of(stack).values()] == [{}, {}]
    until(
        lambda: ask(stack.port, "GET", "/v1/sources/moving").json()["health"] == "ok",
        "the region to say what it has",
        SECONDS,
    )


@pytest.mark.timeout(600)
def test_gateways_that_hear_of_a_move_at_different_times_lose_nothing(stack, places, tmp_path):
    """A second gateway has a folder of its own, whose file changes later."""
    _, sources = places
    late = tmp_path / "late"
    shutil.copytree(sources, late)
    with second_gateway(stack, late) as port, Load(stack, stack.port, port) as load:
        for to in (NEW, "fra"):
            load.more()
            move(sources / "moving.toml", to)
            until(lambda to=to: region_of(stack) == to, f"the source to be in {to}", SECONDS)
            assert region_of(stack, port) != to
            load.more()
            move(late / "moving.toml", to)
            until(lambda to=to: region_of(stack, port) == to, f"the other gateway to know of {to}", SECONDS)
            load.more()
    assert load.check() == {"fra", NEW}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("change", "ends"), [("title", "succeeded"), ("param", "unknown_source")])
def test_a_gateway_with_another_definition_than_the_region_tells_it_and_its_tasks_end_by_a_named_one(
    stack, places, tmp_path, change, ends
):
    """The region's definition answers if it fits, and the result names it; otherwise the error names both."""
    here = (
        SOURCE.replace("Moving", "Moved")
        if change == "title"
        else SOURCE.replace("seconds = {}", "seconds = {}\nplace = {}")
    )
    (tmp_path / "moving.toml").write_text(here, encoding="utf-8")
    move(places[1] / "moving.toml", "fra")
    until(lambda: region_of(stack) == "fra", "the source to be in fra", SECONDS)
    there = ask(stack.port, "GET", "/v1/sources/moving").json()["definition"]
    with second_gateway(stack, tmp_path) as port:
        other = ask(port, "GET", "/v1/sources/moving").json()["definition"]
        params = {"place": "x"} if change == "param" else {}
        words = ("POST", "/v1/requests", {"Prefer": "wait=30"}, {"sources": [{"source": "moving", "params": params}]})
        answer = until(lambda: (found := ask(port, *words)).status == 200 and found, "an answer", SECONDS)
        (result,) = answer.json()["results"]
        if ends == "succeeded":
            assert (result["status"], result["definition"]) == ("succeeded", there)
        else:
            assert (result["status"], result["error"]["type"], result["error"]["origin"]) == ("failed", ends, "region")
            assert there in result["error"]["message"]
            assert other in result["error"]["message"]

        def differs() -> dict | None:
            found = ask(port, "GET", "/v1/regions").json().get("regions", ())
            return next((one["differs"].get("moving") for one in found if one["name"] == "fra"), None)

        # A region that has not reported the source since it moved there has "" for it.
        until(lambda: differs() == {"there": there, "here": other}, "the difference to be shown", SECONDS)
        said = "a region has other definitions than this gateway"
        until(lambda: said in stack.log("second-gateway"), "the difference to be logged", SECONDS)
    (stack.data / "log" / "second-gateway.log").unlink()
    until(lambda: "moving" not in regions_of(stack)["fra"]["differs"], "the stack to have no difference", SECONDS)


@pytest.mark.timeout(600)
def test_a_region_goes_when_no_source_names_it_and_no_task_is_open(stack, places):
    regions, sources = places
    move(sources / "moving.toml", NEW)
    until(lambda: region_of(stack) == NEW, "the source to be in the region", SECONDS)
    (regions / f"{NEW}.toml").unlink()
    refused = stack.up("--detach", check=False)
    assert refused.returncode == 1
    assert "Region ams can't go: sources name it: moving." in refused.stderr
    assert "bridge-ams" in stack.pids()
    ledger = Ledger(stack)
    bridge = stack.pids()[f"bridge-{NEW}"]
    os.kill(bridge, signal.SIGSTOP)  # its task stays open for as long as it takes to ask
    try:
        request = ledger.post([{"source": "moving", "params": {"seconds": "0"}}], deadline=250)
        move(sources / "moving.toml", "fra")
        until(lambda: region_of(stack) == "fra", "the source to be elsewhere", SECONDS)
        refused = stack.up("--detach", check=False)
        assert "Region ams can't go: 1 of its tasks are open." in refused.stderr
    finally:
        os.kill(bridge, signal.SIGCONT)
    ledger.collect(request)
    ledger.check()
    with Load(stack) as load:
        load.more()
        assert "Removed ams." in stack.up("--detach").stdout
        load.more()
    load.check()
    assert regions_of(stack).keys() == {"fra"}
    assert not [part for part in stack.pids() if part.endswith(NEW)]
    until(lambda: not [line for line in stack.processes() if f"-{NEW}" in line], "its processes to end", SECONDS)
    inside = Inside(stack)
    assert "region-ams" not in str(inside.redis("hub").acl_list())
    inside.close()


@pytest.mark.timeout(600)
def test_a_region_that_was_removed_comes_back(stack, places):
    regions, sources = places
    write_region(regions, NEW)
    assert "Added ams." in stack.up("--detach").stdout
    move(sources / "moving.toml", NEW)
    until(lambda: region_of(stack) == NEW, "the source to be in the region", SECONDS)
    with Load(stack) as load:
        load.more()
    assert load.check() == {NEW}


@pytest.mark.timeout(600)
def test_a_region_that_does_not_start_is_taken_out_again_and_the_others_go_on(stack, places):
    regions, _ = places
    in_the_way = stack.data / "redis-bad" / "appendonlydir"
    in_the_way.parent.mkdir(mode=0o700)
    in_the_way.write_text("no folder")
    before = stack.pids()
    with Load(stack) as load:
        load.more()
        write_region(regions, "bad")
        refused = stack.up("--detach", check=False)
        assert refused.returncode == 1
        assert "redis-bad does not start" in refused.stderr
        assert "The regions are as they were." in refused.stderr
        load.more()
    load.check()
    until(lambda: "bad" not in regions_of(stack), "the gateway to let it go", SECONDS)
    assert stack.pids() == before
    in_the_way.unlink()
    (regions / "bad.toml").unlink()
    assert stack.up("--detach", check=False).returncode == 1  # nothing has changed
    until(lambda: is_up(stack), "the stack to be well", SECONDS)


@pytest.mark.timeout(600)
def test_a_stopped_stack_starts_with_a_region_more(stack, places):
    regions, _ = places
    stack.up("--stop")
    write_region(regions, "osl")
    stack.up("--detach")
    until(lambda: is_up(stack), "the stack to be well", SECONDS)
    assert regions_of(stack).keys() == {"fra", NEW, "osl"}
