"""Logs: one line a thing, from structlog and the standard library alike, and never a reason to end."""

import io
import json
import os
import subprocess
import sys

import pytest

from regions import logs
from regions.settings import ROOT
from tests.waiting import Clock

PROGRAM = """
import logging
from regions import logs
logs.configure("json", "info")
logs.get("bridge").info("consuming", region="fra", name="Zürich")
logging.getLogger("somebody").warning("said %s", "this")
logs.get("bridge").debug("not shown")
"""


def test_both_ways_of_logging_come_out_as_json_lines():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    first, second = (json.loads(line) for line in done.stderr.splitlines())
    assert (first["part"], first["event"], first["region"], first["name"]) == ("bridge", "consuming", "fra", "Zürich")
    assert (second["logger"], second["event"], second["level"]) == ("somebody", "said this", "warning")


def test_a_process_that_logs_does_not_wait_for_the_import_of_rich():
    program = "import sys; from regions import logs; print('rich' in sys.modules); import rich; print(rich.__name__)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "rich"]


def test_a_reader_that_is_gone_ends_nobody():
    program = f"{PROGRAM}\nprint('went on')"
    read, write = os.pipe()
    with os.fdopen(write, "wb") as stderr:
        os.close(read)
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False
        )
    assert done.stdout == "went on\n"


def test_a_stream_that_is_closed_ends_nobody():
    program = f"{PROGRAM}\nimport sys\nsys.stderr.close()\nlogs.get('a').warning('w')\nprint('went on')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "went on\n"


GATHERING = PROGRAM.replace('"info")', '"info", gathers=True)')


def gathered(rest: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", GATHERING + rest], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    return [line["event"] for line in lines if "logger" not in line]  # the standard library's come between


def test_lines_that_wait_are_written_before_a_warning_and_at_the_end():
    assert gathered("logs.get('a').info('last')") == ["consuming", "last"]
    assert gathered("logs.get('a').warning('w'); import os; os._exit(1)") == ["consuming", "w"]


def test_a_line_that_waits_is_written_soon():
    rest = "import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", GATHERING + rest], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert {json.loads(process.stderr.readline())["event"] for _ in range(2)} == {"said this", "consuming"}
        process.stdin.close()


def test_lines_that_many_threads_write_at_once_are_all_there():
    rest = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda n: (logs.get("a").info(f"i{n}"), n % 10 or logs.get("a").error(f"e{n}")), range(2000)))
"""
    lines = gathered(rest)[1:]
    assert sorted(lines) == sorted([f"i{n}" for n in range(2000)] + [f"e{n}" for n in range(0, 2000, 10)])


def test_no_more_lines_wait_than_memory_has_place_for(monkeypatch):
    monkeypatch.setattr(logs, "GATHER_SECONDS", 3600.0)
    stream = io.StringIO()
    logger = logs._Gathering(stream)
    for number in range(logs.GATHER_MAX):
        logger.info(str(number))
    assert stream.getvalue().splitlines() == [str(number) for number in range(logs.GATHER_MAX)]


def test_a_cause_is_told_once_and_then_counted():
    told: list[str] = []
    once = logs.Once(seconds=0)

    def tell(event: str, **fields: object) -> None:
        told.append(f"{event} {fields}")

    for number in range(4):
        once.tell("a", tell, "it is full", cause=number)
    once.tell("b", tell, "it is away")
    assert told == ["it is full {'cause': 0}", "it is away {}"]
    once.flush()
    assert told[2:] == ["it is full; repeated 3 times {'cause': 3}"]
    once.flush()  # nothing came since
    once.tell("a", tell, "it is full")
    assert told[3:] == ["it is full {}"]


def test_what_may_come_again_is_not_told_before_its_time_but_at_the_end():
    told: list[str] = []
    once = logs.Once(seconds=3_600)
    for _ in range(2):
        once.tell("a", told.append, "x")
    once.flush()
    assert told == ["x"]
    once.flush(is_end=True)
    assert told == ["x", "x; repeated 1 time"]


def test_causes_that_clients_invent_are_told_as_one():
    told: list[str] = []
    once = logs.Once(most=2)
    for cause in ("a", "b", "c", "d"):
        once.tell(cause, told.append, cause)
    assert told == ["a", "b", "c"]


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """The time of the log's lines."""
    made = Clock()
    monkeypatch.setattr(logs.time, "monotonic", made)
    return made


def test_a_state_that_ends_and_begins_again_has_a_line_each_time(clock):
    told: list[str] = []
    changes = logs.Changes()
    for change, event in ((changes.began, "it is away"), (changes.ended, "over: it is away")) * 2:
        change("a", lambda text, **fields: told.append(f"{text} {fields}"), event, region="fra")
        changes.flush()
        clock.now += 10
    assert told == ["it is away {'region': 'fra'}", "over: it is away {'region': 'fra'}"] * 2


def test_a_state_that_comes_and_goes_is_counted_until_it_settles(clock):
    told: list[str] = []
    changes = logs.Changes()

    def flap(times: int) -> None:
        for _ in range(times):
            for change, event in ((changes.began, "away"), (changes.ended, "over")):
                change("a", told.append, event)
                changes.flush()
                clock.now += 1

    flap(5)
    assert told == ["away", "over", "away", "over"]
    clock.now += logs.SETTLED_SECONDS - 1
    changes.flush()
    assert told[4:] == ["over; it began 3 times"]
    changes.began("a", told.append, "away")
    changes.flush()
    clock.now += logs.SETTLED_SECONDS
    changes.flush()
    assert told[5:] == ["away"]
    changes.ended("a", told.append, "over")
    flap(1)
    changes.began("a", told.append, "away")
    changes.flush(is_end=True)
    assert told[6:] == ["away; it began 2 times"]


def test_a_state_that_never_settles_is_told_each_minute(clock):
    told: list[str] = []
    changes = logs.Changes()
    for _ in range(70):
        for change, event in ((changes.began, "away"), (changes.ended, "over")):
            change("a", told.append, event)
            changes.flush()
            clock.now += 1
    assert len(told) == 3 * logs.CHANGES_AT_ONCE
    assert "; it began 29 times" in told[logs.CHANGES_AT_ONCE]


def test_a_state_that_is_over_for_a_minute_is_forgotten(clock):
    changes = logs.Changes()
    changes.began("a", lambda _: None, "away")
    changes.flush()
    changes.ended("a", lambda _: None, "over")
    changes.flush()
    assert changes._states
    clock.now += logs.REPEATED_SECONDS
    changes.flush()
    assert not changes._states


def test_lines_past_the_most_of_one_look_follow_with_the_next(clock):
    told: list[str] = []
    changes = logs.Changes()
    for number in range(logs.LINES_MAX + 1):
        changes.began(str(number), told.append, str(number))
    changes.flush()
    assert len(told) == logs.LINES_MAX
    changes.flush()
    assert told == [str(number) for number in range(logs.LINES_MAX + 1)]
