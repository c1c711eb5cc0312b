"""What pytest's worker processes are forked from: its import reads all tests of a run, which then are read once and not by each.

    tests.conftest, in the process that runs the others ── fork ──> forked.serve ("tests.collected") ── fork ──> a worker process

A worker still collects the tests, from modules that are there: that takes a third of the time.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

WORDS = "TEST_COLLECTED"  # in the environment: the run's arguments of pytest, as JSON


class Reports:
    """A plugin of pytest: the files that say of themselves that they are skipped, and whether anything could not be read."""

    def __init__(self) -> None:
        self.skipped: set[str] = set()
        self.is_faulty = False

    def pytest_configure(self, config: pytest.Config) -> None:
        self._root = config.rootpath

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.is_faulty |= report.failed
        if report.skipped:
            self.skipped.add(str(self._root / report.nodeid))


def read(words: list[str]) -> None:
    """Imports the tests. A module whose import did not come to its end is forgotten, so that a worker tells what is wrong with it."""
    reports = Reports()
    options = ["--collect-only", "-qq", "-n0", "-p", "no:cacheprovider"]
    code = pytest.main([*words, *options], plugins=[reports])
    is_whole = code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and not reports.is_faulty
    own = {name: module for name, module in sys.modules.items() if name.startswith("tests.")}
    for name in own.keys() - {__name__, "tests.forked"}:
        if not is_whole or own[name].__file__ in reports.skipped:
            del sys.modules[name]


@contextlib.contextmanager
def silence() -> Iterator[None]:
    said = [os.dup(number) for number in (1, 2)]
    with Path(os.devnull).open("w") as nowhere:
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
    yield
    for number, one in zip((1, 2), said, strict=True):
        os.dup2(one, number)
        os.close(one)


if WORDS in os.environ:
    with silence():
        read(json.loads(os.environ[WORDS]))
