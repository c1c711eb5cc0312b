"""Which definition a task runs by while definitions change under it."""

import pytest

from jobs.contract import Task
from jobs.definition.catalog import Catalog
from jobs.errors import UnknownSource
from jobs.task import sources
from jobs.task.sources import Sources
from regions.egress import Egress
from regions.settings import Region

FIRST = """
title = "Tiny"
url = 'https://tiny.example/{?page}'
[params]
page = {type = "int"}
[rows]
xpath = "//row"
[fields]
name = {xpath = "name"}
"""
OTHER = FIRST.replace("name = {", "label = {")
FRA = Region(name="fra", egress={"default": Egress()})
MOVED = FIRST.replace("[params]", 'region = "nyc"\n[params]')
CHANGES = {
    "gone": None,
    "broken": "title = 5\n[rows]\nccs = 'x'\n",
    "half written": FIRST[: len(FIRST) // 2],
    "a wrong XPath": FIRST.replace("//row", "//["),
    "another region, with a way out that only that one has": MOVED + '[request]\negress = "far"\n',
    "other params": FIRST.replace("[params]", "[params]\nplace = {required = true}"),
}


@pytest.fixture
def path(tmp_path):
    """The file of the one source."""
    found = tmp_path / "tiny.toml"
    found.write_text(FIRST)
    return found


@pytest.fixture
def worker(path):
    return Sources(Catalog([path.parent], "fra", {"fra": FRA}), FRA)


def accepted(definition, **params) -> Task:
    """A task that a gateway accepted by the definition of this hash."""
    return Task(
        task="T1", request="R1", source="tiny", region="fra", params=params, url="https://tiny.example/",
        definition=definition, accepted_ms=0, deadline_ms=0, expires_ms=0,
    )  # fmt: skip


def hash_of(worker, task) -> str:
    """The hash of the definition that a task runs by."""
    return worker.of(task)[0].definition.hash


def change(path, text):
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


@pytest.mark.parametrize("what", CHANGES)
def test_a_task_that_today_has_no_place_for_runs_by_the_definition_that_it_was_accepted_with(worker, path, what):
    """A change loses no task. One that was accepted with other params fails and says what is wrong."""
    first = hash_of(worker, accepted("", page=1))
    change(path, CHANGES[what])
    assert worker.refresh()
    source, params = worker.of(accepted(first, page=1))
    assert (source.definition.hash, params) == (first, {"page": 1})
    with pytest.raises(UnknownSource, match="tiny"):
        worker.of(accepted("0therone", page=1))


def test_the_last_good_definition_is_remembered_over_a_broken_one(worker, path):
    """Good, broken, then good in another way: tasks of the first and of the last definition run by their own."""
    first = hash_of(worker, accepted(""))
    for text in ("[[[", CHANGES["other params"]):
        path.write_text(text)
        assert worker.refresh()
    assert hash_of(worker, accepted(first)) == first
    assert hash_of(worker, accepted("", place="x")) != first


def test_definitions_before_the_last_one_are_remembered(worker, path):
    """An author who saves often loses no task that is waiting for its turn."""
    first = hash_of(worker, accepted("", page=1))
    for number in range(5):
        path.write_text(CHANGES["other params"].replace("Tiny", f"Tiny {number}"))
        assert worker.refresh()
    assert hash_of(worker, accepted(first, page=1)) == first


def test_a_definition_that_fits_is_taken_by_what_waits_already(worker, path):
    """A corrected selector is used from the next task on, even if that was accepted earlier."""
    first = hash_of(worker, accepted(""))
    path.write_text(OTHER)
    assert worker.refresh()
    assert list(worker.of(accepted(first))[0].definition.fields) == ["label"]


def test_a_source_that_moved_still_runs_where_its_tasks_wait(worker, path):
    """One line has changed, so that its new definition fits here, too."""
    first = hash_of(worker, accepted("", page=1))
    path.write_text(MOVED)
    assert worker.refresh()
    assert hash_of(worker, accepted(first, page=1)) not in ("", first)


def test_a_definition_with_code_is_not_remembered(worker, path):
    """Its ID.py is gone, too: otherwise half of the old and half of the new definition would run."""
    path.with_suffix(".py").write_text("def next_page(page):\n    return None\n")
    worker.refresh()
    with_code = hash_of(worker, accepted(""))
    path.write_text(CHANGES["broken"])
    worker.refresh()
    with pytest.raises(UnknownSource):
        worker.of(accepted(with_code))


def test_a_task_of_a_definition_that_is_not_known_yet_makes_the_worker_look(worker, path, monkeypatch):
    """The gateway may see a change first. For such tasks the files are read again, at most twice a second."""
    monkeypatch.setattr(sources, "REFRESH_SECONDS", 0.0)
    path.write_text(OTHER)
    second = hash_of(worker, accepted("newer"))
    assert list(worker.of(accepted(second))[0].definition.fields) == ["label"]
    monkeypatch.setattr(sources, "REFRESH_SECONDS", 3_600.0)
    path.write_text(FIRST)
    assert hash_of(worker, accepted("newest")) == second


def test_a_definition_is_compiled_once_a_thread(worker):
    """Compiling costs more than parsing a small page."""
    assert worker.of(accepted(""))[0] is worker.of(accepted("other"))[0]
