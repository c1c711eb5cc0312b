"""``nearfetch scale``, ``workers --dry-run`` and ``day`` on a region's Redis, and how pools react."""

import csv
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import datetime

import pytest
from click.testing import CliRunner, Result

from jobs.pool import scaler
from jobs.pool.day import COLUMNS
from jobs.pool.scaler import CALM_SECONDS, LOOK_SECONDS, Pool, Processes, Scaler, look
from jobs.queue import script
from regions import connect, logs, names, settings
from scripts.cli import main
from scripts.commands import scale
from scripts.commands.options import WRONG_USAGE
from tests.service.working import REGION, enqueue, task
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("patient_clients", "_patient_pools")
SCALE = '\n[scale]\nmin = 2\nmax = 5\n[[scale.schedule]]\ncron = "0 6 * * *"\nmax = 4\n'
Run = Callable[..., Result]


@pytest.fixture
def _patient_pools(monkeypatch):
    """A pool that a busy machine keeps from looking for some seconds is there all the same, and so is what it knows of the load."""
    monkeypatch.setitem(script._constants, "LEASE_MS", 600_000)
    monkeypatch.setattr(scaler, "LOOK", script.load("scale_look"))
    monkeypatch.setattr(scale, "SETTLE_SECONDS", 600.0)


@pytest.fixture
def files(tmp_path, region_redis, monkeypatch):
    (tmp_path / "nearfetch.toml").touch()
    regions = tmp_path / "regions"
    regions.mkdir()
    (regions / f"{REGION}.toml").write_text(
        f'title = "Frankfurt"\n[redis]\nurl = "{region_redis.url}"\n[workers]\nthreads = 4\n{SCALE}'
    )
    monkeypatch.setenv("NEARFETCH_CONFIG", str(tmp_path / "nearfetch.toml"))
    monkeypatch.setenv("NEARFETCH__REGIONS__PATH", str(regions))
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)


@pytest.fixture
def run(files) -> Run:
    return lambda *words: CliRunner().invoke(main, list(words))


@pytest.fixture
def pool(files, region_redis) -> Scaler:
    """The scaler of a pool that reports two processes without having any."""
    return Scaler(settings.load().one(REGION), region_redis.client, "here:1", lambda: Processes(2, 2, {}))


def writes(client) -> int:
    """How many write commands a Redis has executed."""
    return client.info("persistence")["rdb_changes_since_last_save"]


def test_an_operators_number_reaches_the_pools_and_ends_with_the_next_rule(run, pool, region_redis):
    pool.run_once()
    assert pool.share == 2
    done = run("scale", REGION, "4")
    assert done.exit_code == 0
    assert 'when the rule "0 6 * * *" UTC begins' in done.output
    assert 0 < region_redis.client.ttl(names.SCALE_WISH) <= 86_400
    pool.run_once()
    assert pool.share == 4
    shown = run("scale", REGION).output
    assert f"{REGION}: 2 of 4 processes, 2 to 4 allowed; 4 asked for, until " in shown
    assert "2 → 4: nearfetch scale asks for 4, until " in shown
    assert "here:1: 2 processes of 4   decides" in shown
    view = json.loads(run("scale", REGION, "--json").output)
    assert (view["number"], view["asked"]["number"], view["decided_by"]) == (4, 4, "here:1")
    assert run("scale", REGION, "auto").exit_code == 0
    assert region_redis.client.exists(names.SCALE_WISH) == 0


def test_a_number_that_is_taken_up_is_shown_with_its_shares(run, pool, monkeypatch):
    monkeypatch.setattr(scale, "FOLLOWED_SECONDS", 60.0)
    pool.start()
    try:
        assert run("scale", REGION, "3").output.splitlines()[-1] == "  here:1: 3"
    finally:
        pool.stop()
    assert run("scale", REGION).exit_code == 1


@pytest.mark.parametrize("number", ["1", "5", "many", "-1", "²"])
def test_a_number_outside_the_bounds_is_refused(run, region_redis, number):
    done = run("scale", REGION, "--", number)
    assert done.exit_code == WRONG_USAGE
    assert f'expected "auto" or 2 to 4, as the rule "0 6 * * *" UTC allows now, found "{number}"' in done.output
    assert region_redis.client.dbsize() == 0


def test_a_dry_run_says_what_it_would_do_and_does_nothing(run, pool, region_redis):
    enqueue(region_redis.client, [task() for _ in range(400)])
    before = writes(region_redis.client)
    done = run("workers", REGION, "--dry-run")
    assert done.exit_code == 0
    assert "0 processes in 0 pools; the rule " in done.output
    assert writes(region_redis.client) == before
    assert "would stay at 2" in done.output  # no task ever ran here: nobody knows how long one takes
    pool.run_once()
    text = json.loads(region_redis.client.get(names.SCALE))
    text["state"]["load"]["left"], text["state"]["load"]["held"] = 100, 200
    region_redis.client.set(names.SCALE, json.dumps(text))
    region_redis.client.persist(names.SCALE_TURN)  # its end would be a write
    before = writes(region_redis.client)
    told = run("workers", REGION, "--dry-run").output
    assert writes(region_redis.client) == before
    assert "400 wait, the oldest for " in told
    assert "would go from 2 to 4: " in told
    assert "a pool started here would have 2 of them; nothing was started" in told


def test_a_day_is_recorded_and_can_be_drawn_and_played_again(run, pool, region_redis, tmp_path):
    pool.run_once()
    text = json.loads(region_redis.client.get(names.SCALE))
    for back in (180, 120, 60):  # as if the last look had been in an earlier minute
        kept = json.loads(region_redis.client.get(names.SCALE))
        kept["tally"]["minute"] = {"at": text["tally"]["minute"]["at"] - back, "arrived": back}
        region_redis.client.set(names.SCALE, json.dumps(kept))
        pool.run_once()
    printed = run("day", REGION).output
    rows = list(csv.DictReader(printed.splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert [row["arrived"] for row in rows] == ["180", "120", "60"]
    assert [datetime.fromisoformat(row["at"]).timestamp() for row in rows] == [
        text["tally"]["minute"]["at"] - back for back in (180, 120, 60)
    ]
    assert all(row["at"].endswith(":00Z") for row in rows), "times for people and spreadsheets, in UTC"
    picture, later, file = tmp_path / "day.svg", tmp_path / "later.svg", tmp_path / "day.csv"
    file.write_text(printed)
    assert run("day", REGION, "-o", str(picture)).output == f"{picture}: 3 minutes, 0 with a wait above the target\n"
    assert run("day", REGION, "--replay", str(file), "-o", str(later)).exit_code == 0
    for one, word in ((picture, "as recorded"), (later, "simulated with the arrivals of day.csv")):
        root = ET.fromstring(one.read_text())
        assert word in "".join(root.itertext())
        assert {path.get("class") for path in root.iter("{http://www.w3.org/2000/svg}path")} == {
            "grid", "axis", "area-a", "area-b", "area-c", "line-a", "level",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at,arrived\n1,2\n", "day.csv:1: expected the columns at, arrived, task_seconds, found all but task_seconds"),
        ("at,arrived,task_seconds\n", "day.csv:1: expected at least one minute, found none"),
        (
            "at,arrived,task_seconds\n2026-11-29T06:00:00,1,2\n",
            "day.csv:2: expected a minute, found: expected a time with its zone",
        ),
        ("at,arrived,task_seconds\nyesterday,1,2\n", "day.csv:2: expected a minute, found: "),
        ("at,arrived,task_seconds\n1,x,2\n60,1,1\n120,1,y\n", "day.csv:4: expected a minute, found: "),
    ],
)
def test_a_day_that_can_not_be_read_says_why(run, tmp_path, text, expected):
    (tmp_path / "day.csv").write_text(text)
    done = run("day", REGION, "--replay", str(tmp_path / "day.csv"))
    assert done.exit_code == WRONG_USAGE
    assert expected in done.output


def test_nothing_recorded_and_a_redis_that_is_away_are_said(run, region_redis):
    done = run("day", REGION)
    assert (done.exit_code, "nothing is recorded yet" in done.output) == (1, True)
    region_redis.running.kill()
    for words in (("day", REGION), ("scale", REGION), ("scale", REGION, "3"), ("workers", REGION, "--dry-run")):
        done = run(*words)
        assert (done.exit_code, f"the Redis of {REGION} refused, or did not answer" in done.output) == (1, True)
    region_redis.running.start()


def test_pools_with_another_table_are_named(files, region_redis, monkeypatch, caplog):
    one = settings.load().one(REGION)
    monkeypatch.setenv(f"NEARFETCH__REGION__{REGION.upper()}__SCALE__MAX", "9")
    other = settings.load().one(REGION)
    said = []
    monkeypatch.setattr("jobs.pool.scaler.log.warning", lambda event, **more: said.append((event, more.get("pools"))))
    first, second = (
        Scaler(region, region_redis.client, name, lambda: Processes(0, 0, {}))
        for region, name in ((one, "a"), (other, "b"))
    )
    for _ in range(2):
        first.run_once()
        second.run_once()
    assert said == [("pools have another [scale] than the one that decides", ["b"])]


def test_a_pool_of_another_version_is_counted_though_its_report_can_not_be_read(pool, region_redis):
    report = json.dumps({"ready": 2, "processes": 2, "scale": {"min": 1, "new": 7}})
    now_ms = connect.redis_now_ms(region_redis.client)
    region_redis.client.hset(names.POOLS, "newer:1", f"{now_ms} {report}")
    pool.run_once()
    assert json.loads(region_redis.client.get(names.SCALE))["shares"].keys() == {"here:1", "newer:1"}


def test_a_pool_whose_turn_is_over_writes_nothing_and_goes_by_what_the_other_decided(pool, region_redis):
    client = region_redis.client
    pool.run_once()
    enqueue(client, [task()])
    found = look(client, REGION, 4, "here:1", Pool(2, 2, pool._scale))
    client.set(names.SCALE_TURN, "there:1")  # it was paused meanwhile
    theirs = json.loads(client.get(names.SCALE))
    theirs["shares"] = {"here:1": 1, "there:1": 3}
    client.set(names.SCALE, json.dumps(theirs))
    assert pool._decide(found) is None
    assert json.loads(client.get(names.SCALE)) == theirs
    pool.run_once()
    assert pool.share == 1


def test_a_decision_that_changes_nothing_is_written_seldom(pool, region_redis, monkeypatch):
    client = region_redis.client

    def is_written() -> bool:
        before = client.get(names.SCALE)
        pool.run_once()
        return client.get(names.SCALE) != before

    monkeypatch.setattr(scaler, "WRITE_SECONDS", 3_600.0)
    assert is_written()
    until(lambda: not is_written(), "a look without a write; one writes the minute that is over")
    monkeypatch.setattr(scaler, "WRITE_SECONDS", 0.0)
    until(is_written, "a write of the averages")
    monkeypatch.setattr(scaler, "WRITE_SECONDS", 3_600.0)
    enqueue(client, [task()])
    assert is_written()


def test_a_pool_looks_less_often_while_its_region_has_nothing_to_do(files, region_redis):
    ready = 0
    region = settings.load().one(REGION)
    here = Scaler(region, region_redis.client, "here:1", lambda: Processes(ready, 2, {}))
    assert [here._turn(), here._turn()] == [LOOK_SECONDS] * 2  # its processes are not there yet
    ready = 2
    until(lambda: here._turn() == CALM_SECONDS, "it to be calm")
    enqueue(region_redis.client, [task()])
    assert here._turn() == LOOK_SECONDS
    region_redis.client.delete(names.rq_queue(REGION))
    assert here._turn() == CALM_SECONDS
    region_redis.running.kill()
    assert here._turn() == LOOK_SECONDS
    region_redis.running.start()
