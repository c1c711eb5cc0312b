"""A task and its process's memory: it waits for memory, is refused in the end, and gives everything back."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from jobs import result_frame
from jobs.contract import Result
from jobs.page import Page
from jobs.task.execution import Execution
from jobs.task.runner import Runner
from regions import settings
from tests.service.jobs.fetch.origin import Origin
from tests.unit.jobs.task.test_runner import make_task
from tests.waiting import until

PAGE = b"<ul>" + b"<li>x</li>" * 40_000
SOURCE = """
title = "A large page"
url = 'URL'
[rows]
css = "li"
[fields]
text = "XPATH"
[limits]
timeout_seconds = 2
retries = 0
"""


@pytest.fixture
def runner(tmp_path) -> Iterator[Runner]:
    """A runner with three sources: ``large`` fits into memory, ``vast`` never does, ``broken`` has an unreadable page."""
    bodies = {"/large": PAGE, "/vast": b"<ul>" + b"<li>x" * 380_000, "/broken": b"<div>" * 100_000}
    bodies["/linked"] = b"<script type='application/ld+json'>[" + b"{}," * 300_000 + b"{}]</script>"
    origin = Origin(lambda spoken: spoken.answer(bodies[spoken.target]))
    bodies["/cell"] = b'a,b\n1,"' + b"a" * 14_000_000 + b'"\n'
    for name in ("large", "vast", "broken"):
        text = SOURCE.replace("URL", f"{origin.url}/{name}").replace('"XPATH"', '{xpath = "string()"}')
        if name != "large":
            text = text.replace("timeout_seconds = 2", "timeout_seconds = 60")
        (tmp_path / f"{name}.toml").write_text(text)
    text = SOURCE.replace("URL", f"{origin.url}/linked").replace('css = "li"', 'jsonld = "A"')
    text = text.replace("timeout_seconds = 2", "timeout_seconds = 60")
    (tmp_path / "linked.toml").write_text(text.replace('"XPATH"', "{}"))
    text = f'title = "A"\nurl = "{origin.url}/cell"\nformat = "csv"\n[limits]\ntimeout_seconds = 60\n'
    (tmp_path / "cell.toml").write_text(text)
    found = settings.load({"NEARFETCH__SOURCES__PATH": str(tmp_path), "NEARFETCH__FETCH__ALLOW": "127.0.0.0/8"})
    made = Runner(found, found.one("fra"))
    yield made
    made.close()
    origin.stop()


def run(
    runner: Runner,
    source: str,
    seconds: float = 60.0,
    cancelled: Callable[[], bool] = lambda: False,
    ahead_ms: int = 0,
) -> Result:
    """The result of a task, of a hub whose clock is ``ahead_ms`` ahead."""
    wanted = make_task(source, seconds + ahead_ms / 1000)
    ended = runner.run(Execution(wanted, offset_ms=ahead_ms, cancelled=cancelled))
    return result_frame.head(ended.outcome.frame)


@contextmanager
def taken(runner: Runner) -> Iterator[threading.Event]:
    """Other tasks hold all shared memory until the event is set."""
    over, held = threading.Event(), threading.Semaphore(0)

    def hold(size: int) -> None:
        with runner._budget.share(time.monotonic() + 100, lambda: False) as share:
            share.grow(size, "a test")
            held.release()
            over.wait(100)

    sizes = (runner._budget.pool_bytes + runner._budget.small_bytes, runner._budget.task_bytes)
    threads = [threading.Thread(target=hold, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
        held.acquire()
    yield over
    over.set()
    for thread in threads:
        thread.join()


def is_free(runner: Runner) -> bool:
    budget = runner._budget
    return (budget._pooled, budget._exclusive, list(budget._waiting)) == (0, None, [])


@pytest.mark.parametrize("ahead_ms", [0, 7_000, -7_000])
def test_a_task_that_gets_no_memory_in_time_ends_as_a_time_out_of_the_region(runner, ahead_ms):
    """It waits until its deadline on the hub's clock."""
    started = time.monotonic()
    with taken(runner):
        result = run(runner, "large", seconds=2.5, ahead_ms=ahead_ms)
    assert 2.4 <= time.monotonic() - started <= 30.0  # without an end it would be the test's
    assert (result.error.type, result.error.origin, result.error.retryable) == ("timeout", "region", True)
    assert "expected memory for a body of" in result.error.message
    assert is_free(runner)


def test_the_fetchs_own_time_out_stands_still_while_there_is_no_memory(runner):
    with taken(runner) as over:
        results: list[Result] = []
        thread = threading.Thread(target=lambda: results.append(run(runner, "large")))
        thread.start()
        until(lambda: runner._budget._waiting, "the task to wait")
        past = time.monotonic() + 2.3
        until(lambda: time.monotonic() > past, "its time-out to be over")
        over.set()
        thread.join(60)
    assert (results[0].error, results[0].count) == (None, 40_000)
    assert is_free(runner)


def test_a_cancel_ends_a_wait_for_memory(runner):
    with taken(runner):
        result = run(runner, "large", cancelled=lambda: bool(runner._budget._waiting))
    assert result.error.type == "cancelled"
    assert is_free(runner)


def test_what_never_fits_is_too_large_and_says_what_it_takes(runner):
    result = run(runner, "vast")
    assert (result.error.type, result.error.origin) == ("too_large", "target")
    most = (runner._budget.task_bytes + runner._budget.small_bytes) / 1e6
    assert f"expected a task that takes at most {most:.1f} MB of memory (workers.memory_mb)" in result.error.message
    assert "found HTML of 1900004 bytes with 380001 tags, which would make it" in result.error.message
    assert is_free(runner)


def test_json_in_a_page_takes_its_memory_like_any_other(runner):
    """Twenty megabytes of empty objects in a script would become half a gigabyte."""
    result = run(runner, "linked")
    assert (result.error.type, result.error.origin) == ("too_large", "target")
    assert "found JSON of 600002 values" in result.error.message
    assert is_free(runner)


def test_a_record_that_goes_on_and_on_takes_its_memory(runner):
    """A quote that is never closed: the reader keeps four bytes for each character, and doubles its buffer."""
    result = run(runner, "cell")
    assert (result.error.type, result.error.origin) == ("too_large", "target")
    assert "found a CSV record of 14000009 characters, which would make it" in result.error.message
    assert is_free(runner)


@pytest.mark.parametrize("source", ["large", "vast", "broken"])
def test_nothing_of_a_page_is_kept_when_its_task_is_over(runner, source):
    gc.collect()
    gc.disable()
    try:
        run(runner, source)
        assert not [one for one in gc.get_objects() if type(one) is Page and one.url.endswith(source)]
    finally:
        gc.enable()
    assert is_free(runner)
