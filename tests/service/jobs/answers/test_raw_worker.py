"""Real worker processes keep the raw answers of their tasks, and end the tasks also when that fails."""

import json
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from jobs import result_frame
from jobs.answers import raw
from jobs.answers.store import stored
from jobs.contract import Task
from regions import names
from regions.secret import Secret
from regions.settings import ROOT, Egress, Fetch, Folders, Raw, Settings
from scripts.cli import main
from scripts.site.behave import Rule
from scripts.site.site import Site, origins
from tests.forked import Forked
from tests.service.jobs.fetch.origin import Origin
from tests.service.working import REGION, enqueue, results, settings_for, task
from tests.unit.jobs.answers.test_raw import LOGIN, SECRET, TOKEN, everything, led_to, parrot
from tests.unit.jobs.task.test_runner import TINY as RETRIED
from tests.waiting import until

TINY = RETRIED.replace("[limits]", "[limits]\nretries = 0")
Start = Callable[..., subprocess.Popen]


@pytest.fixture
def site() -> Iterator[Site]:
    started = Site().start()
    yield started
    started.stop()


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    for name, text in {"tiny": TINY, "login": LOGIN}.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


@pytest.fixture
def settings(region_redis, hub_redis, site, sources, tmp_path) -> Settings:
    found = settings_for(region_redis.url, hub_redis.url)
    kept = Raw(path=str(tmp_path / "raw"), count_max=50)
    region = msgspec.structs.replace(
        found.one(REGION), raw=kept, egress={"default": Egress()}, secrets={"PASSWORD": Secret(("login",), SECRET)}
    )
    return msgspec.structs.replace(
        found,
        region={REGION: region},
        sources=Folders(path=str(sources)),
        fetch=Fetch(allow="127.0.0.0/8", origins=origins(site.port)),
    )


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Starts a worker process by name, with a secret among its settings."""
    started: list[subprocess.Popen] = []

    def begin(name: str = "w1") -> subprocess.Popen:
        process = Forked(
            ["-m", "jobs.worker", REGION, name, "--settings", "-"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        process.stdin.write(msgspec.json.encode(settings))
        process.stdin.close()
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def of(source: str, **params) -> Task:
    return msgspec.structs.replace(task(**params), source=source)


def ended(hub, ids: list[str]) -> list[dict]:
    """The results of some tasks, after waiting for all of them."""
    until(lambda: set(ids) <= set(results(hub)), "all results")
    return [json.loads(result_frame.splice(hub.get(names.result(REGION, id_)))) for id_ in ids]


def kept(settings: Settings) -> list[str]:
    try:
        return [one.task for one in stored(settings.one(REGION).raw)]
    except FileNotFoundError:
        return []


def replay(monkeypatch, settings: Settings, *words: str) -> tuple[int, str]:
    monkeypatch.setattr("regions.settings.load", lambda *_: settings)
    done = CliRunner().invoke(main, ["source", "replay", *words])
    return done.exit_code, done.stdout


def test_failures_and_a_sample_are_kept_and_read_again_without_a_fetch(
    start, settings, site, sources, region_redis, hub_redis, monkeypatch
):
    """One of ten successes and all of ten failures are kept; a replay with a changed selector shows the difference."""
    start()
    good = enqueue(region_redis.client, [of("tiny") for _ in range(10)])
    assert {result["status"] for result in ended(hub_redis.client, good)} == {"succeeded"}
    site.behaviour.add(Rule(prefix="/bench.example/", status=503))
    bad = enqueue(region_redis.client, [of("tiny") for _ in range(10)])
    assert {result["error"]["type"] for result in ended(hub_redis.client, bad)} == {"http_status"}
    until(lambda: len(kept(settings)) == 11, "eleven files")
    assert len(set(kept(settings)) & set(good)) == 1
    assert set(bad) < set(kept(settings))
    (sample,) = set(kept(settings)) & set(good)
    fetches = site.fetches.since(0)[0]
    assert replay(monkeypatch, settings, sample)[0] == 0
    (sources / "tiny.toml").write_text(TINY.replace("name = {}", 'name = {jmes = "value"}'))
    code, shown = replay(monkeypatch, settings, sample)
    assert code == 1
    assert 'record 1: name: expected "row 1", found 1.5' in shown
    assert replay(monkeypatch, settings, bad[0])[0] == 0
    assert site.fetches.since(0)[0] == fetches == 20


def test_no_secret_is_in_the_folder(start, settings, sources, region_redis, hub_redis, tmp_path):
    """The origin repeats all secrets. Clients get what it sent, but the folder does not."""
    origin = Origin(parrot)
    (sources / "login.toml").write_text(led_to(origin.url))
    start()
    (result,) = ended(hub_redis.client, enqueue(region_redis.client, [of("login", base=origin.url)]))
    assert SECRET in json.dumps(result["records"])
    until(lambda: kept(settings), "a file")
    origin.stop()
    found = everything(tmp_path / "raw")
    assert b"removed" in found
    for hidden in (SECRET, TOKEN):
        assert hidden.encode() not in found
    assert len(raw.read(stored(settings.one(REGION).raw)[0].path.read_bytes()).answers) == 2


def test_processes_keep_to_the_cap_together(start, settings, site, region_redis, hub_redis):
    """After a storm of failures in two processes the folder is within its limits."""
    start("w1")
    start("w2")
    site.behaviour.add(Rule(prefix="/bench.example/", status=503))
    ended(hub_redis.client, enqueue(region_redis.client, [of("tiny") for _ in range(400)]))
    (last,) = enqueue(region_redis.client, [of("tiny")])
    ended(hub_redis.client, [last])
    until(lambda: last in kept(settings) and len(kept(settings)) <= 50, "the cap, with the last one kept")


@pytest.mark.parametrize("is_full", [True, False], ids=["full", "unwritable"])
def test_a_disk_that_takes_nothing_fails_no_task(start, settings, site, region_redis, hub_redis, tmp_path, is_full):
    """All results arrive as usual, and one warning is logged."""
    if not is_full:
        (tmp_path / "raw").write_text("a file where the folder should be")
    process = start()
    if is_full:  # every write to a file fails
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
    good = enqueue(region_redis.client, [of("tiny") for _ in range(10)])
    assert {result["status"] for result in ended(hub_redis.client, good)} == {"succeeded"}
    site.behaviour.add(Rule(prefix="/bench.example/", status=503))
    bad = enqueue(region_redis.client, [of("tiny") for _ in range(10)])
    assert {result["error"]["type"] for result in ended(hub_redis.client, bad)} == {"http_status"}
    process.terminate()
    assert process.wait(60) == 0
    said = process.stderr.read().decode()
    assert said.count("can't keep raw answers") == 1
    if is_full:
        assert list((tmp_path / "raw").iterdir()) == []


def test_what_waits_for_the_disk_is_written_when_a_worker_is_stopped(start, settings, site, region_redis, hub_redis):
    """The last failures before a stop are the ones that operators ask about."""
    process = start()
    site.behaviour.add(Rule(prefix="/bench.example/", status=503))
    bad = enqueue(region_redis.client, [of("tiny") for _ in range(20)])
    ended(hub_redis.client, bad)
    process.terminate()
    assert process.wait(60) == 0
    assert set(kept(settings)) == set(bad)
