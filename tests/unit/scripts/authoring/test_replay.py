"""``nearfetch source replay``: kept answers read again with another definition, never a fetch."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from jobs.answers.store import AnswerStore
from jobs.contract import Error
from jobs.errors import TYPES
from jobs.task.execution import Execution
from jobs.task.runner import Runner
from regions import settings
from scripts.authoring.replay import error_of
from scripts.cli import main
from scripts.site.behave import Rule
from scripts.site.site import Site, origins
from tests.service.jobs.fetch.origin import Origin
from tests.unit.jobs.answers.test_raw import LOGIN, SECRET, led_to, parrot
from tests.unit.jobs.task.test_runner import BIG_CATEGORY, BOOKS, TINY, make_task
from tests.waiting import until

ID = "01JDFQ3M1XK2V9Q0S8ZC4T7B5N"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    started = Site().start()
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def sources(site: Site, tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """The user's own folder of sources; all settings stand in the environment."""
    for variable in [name for name in os.environ if name.startswith("NEARFETCH")]:
        monkeypatch.delenv(variable)
    folder = tmp_path / "sources"
    folder.mkdir()
    for name, text in {"books": BOOKS.replace("MAX", "3"), "tiny": TINY, "login": LOGIN}.items():
        (folder / f"{name}.toml").write_text(text)
    monkeypatch.setenv("NEARFETCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NEARFETCH__SOURCES__PATH", str(folder))
    monkeypatch.setenv("NEARFETCH__REGION__NYC__RAW__PATH", str(tmp_path / "raw"))
    yield folder
    site.behaviour.reset()


@pytest.fixture
def ran(site: Site) -> Callable[..., None]:
    """Runs a source as a worker of nyc does; keywords are params."""

    def run(source: str, *, attempt: int = 1, task: str = ID, **params) -> None:
        own = {"NEARFETCH__FETCH__ALLOW": "127.0.0.0/8", "NEARFETCH__FETCH__ORIGINS": origins(site.port)}
        found = settings.load({**os.environ, **own})
        store = AnswerStore(found.one("nyc").raw)
        store.start()
        runner = Runner(found, found.one("nyc"), secrets={"PASSWORD": SECRET}, store=store)
        wanted = msgspec.structs.replace(make_task(source, **params), task=task)
        runner.run(Execution(wanted, attempt=attempt))
        until(lambda: not store._waiting, "the writing")
        store.close()
        runner.close()

    return run


def replay(*words: str) -> Result:
    """The command; what it raises fails the test."""
    done = CliRunner().invoke(main, ["source", "replay", *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def of_json(*words: str) -> tuple[int, dict]:
    done = replay(*words, "--json")
    return done.exit_code, json.loads(done.stdout)


def test_an_unchanged_definition_gives_the_same_without_a_fetch(ran, site):
    """All pages are read again, and the site is not asked."""
    ran("books", category=BIG_CATEGORY)
    before = site.fetches.since(0)[0]
    code, found = of_json(ID)
    assert (code, found["same"], found["differences"], found["notes"]) == (0, True, [], [])
    assert len(found["answers"]) == 3
    assert found["now"]["records"] == found["before"]["records"]
    assert len(found["now"]["records"]) == 60
    assert site.fetches.since(0)[0] == before
    assert replay(ID).stdout.endswith("  the same\n")


def test_a_changed_selector_shows_as_its_field(ran, site, sources):
    """By record and field, with both values; the definitions' hashes differ."""
    ran("tiny")
    before = site.fetches.since(0)[0]
    (sources / "tiny.toml").write_text(TINY.replace("name = {}", 'name = {jmes = "value"}'))
    code, found = of_json(ID)
    assert (code, found["same"]) == (1, False)
    assert found["differences"][0] == {"record": 1, "field": "name", "expected": "row 1", "found": 1.5}
    assert len(found["differences"]) == 3
    assert found["before"]["definition"] != found["now"]["definition"]
    shown = replay(ID)
    assert shown.exit_code == 1
    assert 'record 1: name: expected "row 1", found 1.5' in shown.stdout
    assert shown.stdout.endswith("  different\n")
    assert site.fetches.since(0)[0] == before


def test_a_failure_that_today_is_none_shows_what_it_would_have_given(ran, site, sources):
    """The error before, the records now."""
    (sources / "tiny.toml").write_text(TINY.replace('jmes = "rows"', 'jmes = "items"'))
    ran("tiny")
    (sources / "tiny.toml").write_text(TINY)
    code, found = of_json(ID)
    assert code == 1
    assert (found["before"]["error"]["type"], found["now"]["error"]) == ("contract", None)
    assert [one["found"]["name"] for one in found["differences"]] == ["row 1", "row 2", "row 3"]
    shown = replay(ID).stdout
    assert "failed  contract: " in shown
    assert "succeeded, 3 records" in shown


def test_an_error_that_is_the_same_is_the_same(ran, site):
    """A status is judged again; what could not be read is told as it was then."""
    site.behaviour.add(Rule(prefix="/bench.example/", status=503))
    ran("tiny")
    assert replay(ID).exit_code == 0
    site.behaviour.add(Rule(prefix="/bench.example/", cut=20))
    ran("tiny")
    code, found = of_json(ID)
    assert (code, found["now"]["error"]["type"]) == (0, "connection")
    assert found["now"]["error"] == found["before"]["error"]


def test_a_status_that_means_nothing_is_there_today_is_a_success(ran, site, sources):
    """The contract is today's too."""
    site.behaviour.add(Rule(prefix="/bench.example/", status=404))
    ran("tiny")
    (sources / "tiny.toml").write_text(TINY + "[contract]\nabsent = [404]\n")
    code, found = of_json(ID)
    assert (code, found["now"]["status"], found["now"]["count"]) == (1, "succeeded", 0)


def test_pages_behind_a_login_are_read_without_its_secrets(ran, sources):
    """No secret is in the environment, and the token is only a shape; yet all is read as it was."""
    started = Origin(parrot)
    login = led_to(started.url)
    (sources / "login.toml").write_text(login)
    ran("login", base=started.url)
    started.stop()
    code, found = of_json(ID)
    assert (code, found["notes"], len(found["answers"])) == (0, [], 2)
    (sources / "login.toml").write_text(login.replace('css = "li"', 'css = "li:last-child"'))
    code, found = of_json(ID)
    assert (code, found["now"]["records"]) == (1, [{"said": "rows"}])


def test_what_is_asked_otherwise_today_is_said(ran, sources):
    """Another address gets the answer of then; a page more has none; one less is left over."""
    ran("books", category=BIG_CATEGORY)
    (sources / "books.toml").write_text(BOOKS.replace("MAX", "2"))
    code, found = of_json(ID)
    assert (code, len(found["now"]["records"])) == (1, 40)
    assert found["notes"] == [
        f"GET https://books.toscrape.com/catalogue/category/books/{BIG_CATEGORY}/page-3.html is not requested any more"
    ]
    (sources / "books.toml").write_text(BOOKS.replace("MAX", "4"))
    code, found = of_json(ID)
    assert (code, found["now"]["partial"]) == (1, True)
    assert found["notes"][0].endswith("page-4.html was not requested then")
    (sources / "books.toml").write_text(BOOKS.replace("MAX", "3").replace("/index.html", "/index.html?new=1"))
    code, found = of_json(ID)
    assert (code, len(found["now"]["records"])) == (0, 60)
    assert "index.html?new=1 is requested now; the stored answer to GET https://" in found["notes"][0]


def test_a_source_that_is_broken_or_gone_today_says_so(ran, sources):
    """As a worker would."""
    ran("tiny")
    (sources / "tiny.toml").write_text("titel = 1")
    code, found = of_json(ID)
    assert (code, found["now"]["error"]["type"]) == (1, "unknown_source")
    assert "tiny.toml" in found["now"]["error"]["message"]
    (sources / "tiny.toml").unlink()
    assert of_json(ID)[0] == 1


def test_all_that_is_kept_of_a_source_is_read_again(ran, site, sources):
    """One end for all of it."""
    ran("tiny")
    site.behaviour.add(Rule(prefix="/bench.example/", status=500))
    ran("tiny", task="T2")
    ran("books", task="T3", category="poetry_23")
    done = replay("--source", "tiny")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "all 2 came out the same")
    (sources / "tiny.toml").write_text(TINY.replace("name = {}", 'label = {jmes = "name"}'))
    done = replay("--source", "tiny")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (1, "1 of 2 came out differently")


def test_of_several_attempts_the_last_is_read(ran, site):
    """It is the one whose result clients have."""
    site.behaviour.add(Rule(prefix="/bench.example/", status=500, times=1))
    ran("tiny", attempt=1)
    ran("tiny", attempt=2)
    code, found = of_json(ID)
    assert (code, found["attempt"], found["before"]["status"]) == (0, 2, "succeeded")


def test_what_is_kept_is_listed(ran, site):
    """Task, region, kind, size, age and source; one a line."""
    ran("tiny")
    site.behaviour.add(Rule(prefix="/bench.example/", status=500))
    ran("tiny", task="T2")
    done = replay()
    first, second = done.stdout.splitlines()
    assert done.exit_code == 0
    assert (first.split()[:3], first.split()[-1]) == ([ID, "nyc", "sample"], "tiny")
    assert second.split()[:3] == ["T2", "nyc", "failure"]
    assert [json.loads(line)["task"] for line in replay("--json").stdout.splitlines()] == [ID, "T2"]


def test_a_kept_body_is_printed_as_it_came(ran):
    """Nothing but its bytes on standard output."""
    ran("tiny")
    done = replay(ID, "--page", "1")
    assert (done.exit_code, json.loads(done.stdout)["rows"][0]["value"]) == (0, 1.5)
    assert "GET https://bench.example/tiny" in done.stderr
    assert replay(ID, "--page", "2").exit_code == 2


def test_wrong_usage_and_nothing_kept_are_told_apart(ran, tmp_path, monkeypatch):
    """2 and 4; where it was looked for is said."""
    assert replay(ID).exit_code == 4
    ran("tiny")
    done = replay("01JDFQ3M1XK2V9Q0S8ZC4T7B5X")
    assert done.exit_code == 4
    assert str(tmp_path / "raw") in done.stderr
    assert replay(ID, "--source", "tiny").exit_code == 2
    assert replay("--page", "1").exit_code == 2
    file = next((tmp_path / "raw").glob("*.raw"))
    file.write_bytes(b"\x01")
    assert replay(ID).exit_code == 2
    monkeypatch.delenv("NEARFETCH__REGION__NYC__RAW__PATH")
    done = replay(ID)
    assert (done.exit_code, "set raw.path" in done.stderr) == (4, True)


def test_the_settings_of_a_data_folder_are_taken(ran, tmp_path, monkeypatch):
    """As scripts/up writes them."""
    ran("tiny")
    monkeypatch.delenv("NEARFETCH__REGION__NYC__RAW__PATH")
    data = tmp_path / "up"
    (data / "regions").mkdir(parents=True)
    (data / "nearfetch.toml").write_text(f'[regions]\npath = "{data}/regions"\n')
    (data / "regions" / "nyc.toml").write_text(f'[raw]\npath = "{tmp_path}/raw"\n')
    assert replay(ID).exit_code == 4
    assert replay(ID, "--data", str(data)).exit_code == 0


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_error_is_raised_again(kind):
    """With all that it said."""
    told = Error(type=kind, message="why", origin="policy", retryable=True, retry_after=7.0, http_status=500)
    assert Error.of(error_of(told)) == told
