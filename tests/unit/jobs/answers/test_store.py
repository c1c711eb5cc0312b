"""The folder of raw answers: limits, age, samples, and a disk that fails."""

import os
import threading
from pathlib import Path

import pytest
from structlog.testing import CapturingLogger

from jobs.answers import store
from jobs.answers.store import AnswerStore, Stored, stored, surplus
from regions.settings import Raw
from tests.waiting import until


@pytest.fixture
def make(tmp_path):
    """Makes running stores on one folder; keywords are settings."""
    made: list[AnswerStore] = []

    def start(*, running: bool = True, **settings) -> tuple[AnswerStore, Raw]:
        raw = Raw(path=str(tmp_path / "raw"), **settings)
        made.append(AnswerStore(raw))
        if running:
            made[-1].start()
        return made[-1], raw

    yield start
    for one in made:
        one.close()


@pytest.fixture(autouse=True)
def log(monkeypatch) -> CapturingLogger:
    """The log lines."""
    log = CapturingLogger()
    monkeypatch.setattr(store, "log", log)
    return log


def kept(raw: Raw) -> list[str]:
    try:
        return [f"{one.source} {one.task}" for one in stored(raw)]
    except FileNotFoundError:
        return []


def put(one: AnswerStore, source: str, task: str, size: int = 10, *, is_sample: bool = False) -> None:
    one.put(source, task, 1, b"x" * size, is_sample=is_sample)


def age(raw: Raw, seconds: float) -> None:
    """Makes all files older."""
    for file in Path(raw.path).iterdir():
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - seconds))


def test_what_is_put_is_there_for_its_owner_only(make):
    """A file a task, with source, task and attempt in its name, readable by nobody else."""
    one, raw = make()
    one.put("a.b", "T1", 3, b"bytes", is_sample=False)
    (file,) = until(lambda: kept(raw) and stored(raw), "a file")
    assert (file.source, file.task, file.attempt, file.is_sample, file.size) == ("a.b", "T1", 3, False, 5)
    assert file.path.read_bytes() == b"bytes"
    assert (file.path.stat().st_mode & 0o777, file.path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_no_more_files_than_the_cap_stay_and_the_latest_is_among_them(make):
    """The store makes room before each new file."""
    one, raw = make(count_max=5)
    until(lambda: Path(raw.path).exists(), "the folder")
    begun = Path(raw.path, "a@T.1.failed.raw.99.new")
    begun.write_bytes(b"another process writes this")
    for number in range(40):
        put(one, "a", f"T{number}")
    until(lambda: kept(raw)[-1:] == ["a T39"], "the last one")
    assert 4 <= len(kept(raw)) <= 5
    assert begun.exists()


def test_no_more_bytes_than_the_cap_stay(make):
    """Whatever the sizes are. A file that exceeds the limit by itself is not kept."""
    one, raw = make(bytes_max=1000)
    put(one, "a", "huge", 1001)
    for number in range(40):
        put(one, "a", f"T{number}", 100 + number)
    until(lambda: kept(raw)[-1:] == ["a T39"], "the last one")
    sizes = [file.size for file in stored(raw)]
    assert 700 <= sum(sizes) <= 1000


def test_a_source_that_fails_all_the_time_leaves_the_others_theirs(make):
    """The oldest file of the source with the most files is removed."""
    one, raw = make(count_max=6)
    put(one, "quiet", "Q1")
    for number in range(30):
        put(one, "loud", f"L{number}")
    until(lambda: kept(raw)[-1:] == ["loud L29"], "the last one")
    assert "quiet Q1" in kept(raw)


def test_what_goes_is_the_oldest_of_the_fullest():
    """First by count until that is within its limit, then by bytes."""
    files = [
        Stored(Path(f"{source}{number}"), source, "T", 1, False, False, size, float(number))
        for number, (source, size) in enumerate([("a", 1), ("b", 50), ("a", 1), ("a", 1), ("b", 60)])
    ]
    assert [str(one.path) for one in surplus(files, 4, 1000)] == ["a0"]
    assert [str(one.path) for one in surplus(files, 5, 100)] == ["b1"]
    assert [str(one.path) for one in surplus(files, 4, 60)] == ["a0", "b1", "b4"]
    assert surplus(files, 5, 113) == []
    assert len(surplus(files, 0, 0)) == 5


def test_what_is_past_its_time_goes_and_is_not_found_before(make):
    """Nobody reads an old file, and the next look removes it. Files that another process began and left go, too."""
    one, raw = make(ttl_seconds=100)
    put(one, "a", "old")
    until(lambda: kept(raw), "a file")
    Path(raw.path, "a@T.1.failed.raw.99.new").write_bytes(b"begun")
    Path(raw.path, "notes.txt").write_text("not ours")
    age(raw, 101)
    assert kept(raw) == []
    assert len(list(Path(raw.path).iterdir())) == 3
    one.close()
    again, _ = make(ttl_seconds=100)
    until(lambda: [file.name for file in Path(raw.path).iterdir()] == ["notes.txt"], "an empty folder")
    put(again, "a", "new")
    until(lambda: kept(raw) == ["a new"], "a file")


def test_of_a_sources_successes_the_latest_stay(make):
    """Failures are worth more than any number of samples."""
    one, raw = make()
    put(one, "a", "failed")
    for number in range(9):
        put(one, "a", f"S{number}", is_sample=True)
    one.close()
    make()
    until(lambda: kept(raw) == ["a failed", "a S6", "a S7", "a S8"], "three samples")


def test_a_success_is_sampled_once_in_its_time(make):
    """For each source by itself, and for only one of many threads that ask at the same time."""
    one, _ = make(running=False, sample_seconds=1000)
    answers: list[bool] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        answers.append(one.takes_sample("a"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False] * 7 + [True]
    assert one.takes_sample("b")
    quick, _ = make(running=False, sample_seconds=0.001)
    assert quick.takes_sample("a")
    until(lambda: quick.takes_sample("a"), "the next one")


def test_a_disk_that_does_not_follow_costs_no_memory(make, monkeypatch):
    """The queue for the disk is limited. Further answers are dropped, and ``put`` returns at once."""
    monkeypatch.setattr(store, "QUEUE_BYTES_MAX", 1000)
    one, raw = make(running=False)
    for number in range(50):
        put(one, "a", f"T{number}", 100)
    one.start()
    until(lambda: len(kept(raw)) == 10, "what waited")
    put(one, "a", "later", 100)
    until(lambda: "a later" in kept(raw), "what came later")


def test_a_folder_that_can_not_be_written_is_said_once_and_taken_when_it_can(make, tmp_path, log):
    """No error reaches the caller of ``put``."""
    (tmp_path / "raw").write_text("a file where the folder should be")
    one, raw = make()
    for number in range(5):
        put(one, "a", f"T{number}")
    until(lambda: not one._waiting, "the attempts")
    (tmp_path / "raw").unlink()
    put(one, "a", "last")
    until(lambda: kept(raw)[-1:] == ["a last"], "a file")
    one.close()
    assert [call.args[0] for call in log.calls] == ["can't keep raw answers", "raw answers are kept again"]


def test_after_a_burst_there_is_one_more_look(make, monkeypatch):
    """Files that another process wrote in the second after the last look don't stay above the limit."""
    monkeypatch.setattr(store, "TIDY_SECONDS", 10_000)
    one, raw = make(running=False, count_max=5)
    put(one, "a", "T")
    one.run_once()
    for number in range(20):
        Path(raw.path, f"a@N{number}.1.failed.raw").write_bytes(b"from another process")
    one.run_once()
    assert 4 <= len(kept(raw)) <= 5


def test_a_task_whose_id_is_no_name_of_a_file_is_not_kept(make, tmp_path, log):
    """A message could name any path."""
    one, raw = make()
    one.put("a", "../../T1", 1, b"x", is_sample=False)
    put(one, "a", "T2")
    until(lambda: kept(raw) == ["a T2"], "the other one")
    assert not list(tmp_path.rglob("*T1*"))
    assert log.calls[0].kwargs["task"] == "../../T1"


def test_without_a_path_nothing_is_kept():
    """The default: without a configured folder nothing is written."""
    one = AnswerStore(Raw())
    one.start()
    one.close()
    assert not one.is_open
    assert stored(Raw()) == []


def test_several_writers_share_a_folder(make, log):
    """No process removes a file that another one is writing, and together they keep to the limits."""
    shelves = [make(count_max=10)[0] for _ in range(3)]
    for number in range(60):
        put(shelves[number % 3], "a", f"T{number}")
    for one in shelves:
        until(lambda one=one: not one._waiting, "the writing")
        one.close()
    last, raw = make(count_max=10)
    put(last, "a", "last")
    until(lambda: "a last" in kept(raw), "the last one")
    assert len(kept(raw)) <= 10
    assert log.calls == []
