"""Tries mutants on copies of the checkout, several at once, and keeps what came of each.

baseline   the unchanged tests of a file must pass; their time bounds a mutant's
neighbours the tests that killed the nearest mutants come first: most end there, in seconds
all        then every test of the file, until one fails
"""

import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutation.mutants import Mutant
from tests.promises.unguarded import copy

NEIGHBOURS = 4  # tests that are tried before all of them
TEST_SECONDS = 60  # a test that takes longer hangs
SLOWER = 3.0  # than unchanged: a whole run that takes longer hangs


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a mutant. ``by`` is the test that failed, or empty; ``seconds`` is what it took."""

    killed: bool
    by: str
    seconds: float


@dataclass
class Target:
    """A file and the tests that hold it. ``seconds`` is what they take unchanged."""

    path: str
    tests: list[str]
    seconds: float = 0.0
    killers: dict[str, Counter[str]] = field(default_factory=dict)  # by the place of a mutant


class BaselineFails(Exception):  # noqa: N818
    """The tests fail without a mutant: they can tell nothing."""


def run_tests(folder: Path, tests: Iterable[str], limit_seconds: float) -> Outcome:
    """Runs tests until one fails. A run that does not end in time counts as killed, by ``time-out``."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    words = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--timeout={TEST_SECONDS}", f"--junitxml={report}"]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        running = subprocess.Popen(
            ["setpriv", "--pdeathsig", "INT", sys.executable, *words, *tests],  # it ends with us
            cwd=folder,
            env={**os.environ, "TMPDIR": scratch, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = running.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            _end(running)
            return Outcome(True, "time-out", time.monotonic() - started)
    return Outcome(code != 0, _failed(report) if code else "", time.monotonic() - started)


def _end(running: subprocess.Popen[bytes]) -> None:
    """SIGINT first, so that pytest ends its servers."""
    running.send_signal(signal.SIGINT)
    try:
        running.wait(15)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def _failed(report: Path) -> str:
    """The test that failed, as pytest takes it; ``does not load`` when none began."""
    for case in ET.parse(report).iter("testcase") if report.exists() else ():
        if {child.tag for child in case} & {"failure", "error"}:
            module, name = case.get("classname", ""), case.get("name", "")
            path = Path(*module.split(".")).with_suffix(".py")
            return f"{path}::{name}" if module else "does not load"
    return "does not load"


class Results:
    """Outcomes by mutant, kept as lines of JSON, so that a run that was ended goes on where it was."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self.known: dict[str, Outcome] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                kept = json.loads(line)
                self.known[kept["key"]] = Outcome(kept["killed"], kept["by"], kept["seconds"])

    def add(self, mutant: Mutant, outcome: Outcome) -> None:
        """Keeps an outcome at once."""
        kept = {
            "key": key(mutant), "path": mutant.path, "line": mutant.line, "operator": mutant.operator, "was": mutant.was,
            "now": mutant.now, "killed": outcome.killed, "by": outcome.by, "seconds": round(outcome.seconds, 1),
        }  # fmt: skip
        with self._lock:
            self.known[kept["key"]] = outcome
            with self._path.open("a") as file:
                file.write(json.dumps(kept) + "\n")


def key(mutant: Mutant) -> str:
    """Names a mutant by its file's whole text: another commit's outcome counts only where nothing changed."""
    return hashlib.sha256(f"{mutant.path}\0{mutant.text}".encode()).hexdigest()[:24]


@contextmanager
def checkout() -> Iterator[Path]:
    """A copy of the checkout in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="nearfetch-mutation-") as made:
        folder = Path(made) / "checkout"
        folder.mkdir()
        copy(folder)
        yield folder


def measure(target: Target) -> None:
    """Runs the unchanged tests; raises ``BaselineFails``."""
    with checkout() as folder:
        outcome = run_tests(folder, target.tests, 600)
    if outcome.killed:
        raise BaselineFails(f"{target.path}: {outcome.by} fails without a mutant")
    target.seconds = outcome.seconds


def attempt(folder: Path, target: Target, mutant: Mutant) -> Outcome:
    """One mutant, in this copy of the checkout."""
    file = folder / mutant.path
    original = file.read_text()
    limit = SLOWER * target.seconds + TEST_SECONDS
    file.write_text(mutant.text)
    try:
        near = target.killers.setdefault(mutant.place, Counter())
        every = sum(target.killers.values(), Counter[str]())
        first = list(dict.fromkeys([name for name, _ in (*near.most_common(2), *every.most_common(NEIGHBOURS))]))
        outcome = run_tests(folder, first[:NEIGHBOURS], limit) if first else Outcome(False, "", 0.0)
        if not outcome.killed:
            rest = run_tests(folder, target.tests, limit)
            outcome = Outcome(rest.killed, rest.by, outcome.seconds + rest.seconds)
    finally:
        file.write_text(original)
    if outcome.killed and "::" in outcome.by:
        near[outcome.by] += 1
    return outcome


def attempt_all(
    work: Iterable[tuple[Target, Mutant]], jobs: int, results: Results, told: Callable[[Mutant, Outcome], None]
) -> None:
    """Tries every mutant that has no outcome yet, ``jobs`` at once."""
    waiting: queue.SimpleQueue[tuple[Target, Mutant]] = queue.SimpleQueue()
    for one in work:
        waiting.put(one)

    def loop() -> None:
        with checkout() as folder:
            while True:
                try:
                    target, mutant = waiting.get_nowait()
                except queue.Empty:
                    return
                outcome = attempt(folder, target, mutant)
                results.add(mutant, outcome)
                told(mutant, outcome)

    threads = [threading.Thread(target=loop, daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
