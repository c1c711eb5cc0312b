"""Real worker processes whose name server is silent for one domain: few threads wait, and other tasks go on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from regions import names
from tests.name_server import NameServer
from tests.service.jobs.fetch.origin import Origin
from tests.service.region_workers import of
from tests.waiting import until

TASKS = 60
LED = """
title = "To names of one domain"
url = 'http://{name}.silent.example/'
[params]
name = {required = true}
[fields]
said = "b"
[limits]
timeout_seconds = 3
retries = 0
concurrency = 100
"""
OTHER = """
title = "To another one"
url = 'http://www.quick.example:PORT/'
[fields]
said = "b"
[limits]
timeout_seconds = 20
"""


@pytest.fixture
def name_server(monkeypatch) -> Iterator[NameServer]:
    made = NameServer(lambda name, _: None if name.endswith("silent.example") else ["127.0.0.1"])
    monkeypatch.setenv("NAME_SERVER", str(made.port))
    yield made
    made.stop()


@pytest.fixture
def site() -> Iterator[Origin]:
    made = Origin(lambda spoken: spoken.answer(b"<b>quick</b>"))
    yield made
    made.stop()


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def test_a_silent_name_server_piles_up_no_threads_and_stops_nobody_else(workers, site, name_server):
    definitions = {"led.toml": LED, "other.toml": OTHER.replace("PORT", str(site.port))}
    workers.start(
        definitions,
        allow=f"127.0.0.1:{site.port}",
        worker=("-m", "tests.promises.attacked_worker"),
        threads=16,
        pool=False,
    )
    (pid,) = workers.pids().values()
    workers.results(workers.ask([of("other", deadline_seconds=60)]), 60)
    # The thread that clears the outbox starts with the first result, after the hub has it.
    until(lambda: workers.client.xlen(names.OUTBOX) == 0, "the process to have all threads that results need")
    before = threads_of(pid)
    silent = workers.ask([of("led", deadline_seconds=60, name=f"n{number}") for number in range(TASKS)])
    quick = workers.ask([of("other", deadline_seconds=60) for _ in range(5)])
    assert [one["records"] for one in workers.results(quick, 60)] == [[{"said": "quick"}]] * 5
    found = workers.results(silent, 60)
    assert {one["error"]["type"] for one in found} == {"timeout"}
    assert all("could not be looked up" in one["error"]["message"] for one in found)
    assert threads_of(pid) <= before + 8
