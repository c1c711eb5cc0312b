"""Tries mutants on copies of the checkout, several at once, and keeps what came of each.

measure   runs the unchanged tests once: they must pass; how long each takes, which lines it runs and which scripts it calls
choose    of a mutant the tests that run its line, or call its script: those that killed its neighbours first, then as targets.toml has them
attempt   runs them in a fork (tests.mutation.forks) until one fails
"""

import hashlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.mutation.forks import Asked, Ran, Seen
from tests.mutation.mutants import Mutant
from tests.promises.unguarded import ROOT, copy

CHOSEN_SECONDS = 120  # of tests that one mutant meets; those that are slower still are left out
FIRST = 8  # tests that a mutant meets first, alone: importing the files of all others takes longer than most tests


class Outcome(msgspec.Struct, frozen=True):
    """What came of a mutant. ``by`` is the test that failed, or empty, and ``why`` what it said; ``seconds`` what it took."""

    killed: bool
    by: str
    seconds: float
    why: str = ""


@dataclass
class Target:
    """A file, and the tests that hold it: files and folders of them."""

    path: str
    tests: list[str]
    seen: dict[str, Seen] = field(default_factory=dict)  # by the test's id
    killers: dict[str, Counter[str]] = field(default_factory=dict)  # by the place of a mutant

    @property
    def files(self) -> list[str]:
        """Its test files."""
        found: list[str] = []
        for path in self.tests:
            below = sorted((ROOT / path).glob("**/test_*.py")) if (ROOT / path).is_dir() else [ROOT / path]
            found += [str(one.relative_to(ROOT)) for one in below]
        return found


class BaselineFails(Exception):  # noqa: N818
    """The tests fail without a mutant: they can tell nothing."""


class Forks:
    """A copy of the checkout, and the process in it that runs tests in forks of its own."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.folder, self._written = folder, 0
        words = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "tests.mutation.forks"]
        compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # is kept
        self._running = subprocess.Popen(
            words, cwd=folder, env=compiled, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._send(files)

    def _send(self, what: list[str] | Asked) -> None:
        assert self._running.stdin is not None
        self._running.stdin.write(msgspec.json.encode(what) + b"\n")
        self._running.stdin.flush()

    def run(self, asked: Asked) -> Ran:
        """Runs tests."""
        self._send(asked)
        assert self._running.stdout is not None
        return msgspec.json.decode(self._running.stdout.readline(), type=Ran)

    def write(self, path: str, text: str) -> None:
        """Changes a file, seen by Python also where its size stays and a second has not passed."""
        self._written += 1
        file = self.folder / path
        file.write_text(text)
        stamp = 1_000_000_000 + self._written
        os.utime(file, (stamp, stamp))

    def stop(self) -> None:
        """Ends the process."""
        assert self._running.stdin is not None
        self._running.stdin.close()
        self._running.wait()


@contextmanager
def forks(files: list[str]) -> Iterator[Forks]:
    """A copy of the checkout in a folder of its own, with its process."""
    with tempfile.TemporaryDirectory(prefix="nearfetch-mutation-") as made:
        folder = Path(made) / "checkout"
        folder.mkdir()
        copy(folder)
        one = Forks(folder, files)
        try:
            yield one
        finally:
            one.stop()


class Results:
    """Outcomes by mutant, and what tests do unchanged: lines of JSON, so that a run that was ended goes on where it was."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self.known: dict[str, Outcome] = {}
        self._measured: dict[str, dict[str, dict[str, Seen]]] = {}  # by test file, then by its and the target's text
        for line in path.read_text().splitlines() if path.exists() else ():
            kept = json.loads(line)
            if "file" in kept:
                tests = msgspec.convert(kept["tests"], dict[str, Seen])
                self._measured.setdefault(kept["file"], {}).update(dict.fromkeys(kept["for"], tests))
            else:
                self.known[kept["key"]] = Outcome(kept["killed"], kept["by"], kept["seconds"], kept["why"])

    def _write(self, kept: dict[str, object]) -> None:
        with self._lock, self._path.open("a") as file:
            file.write(json.dumps(kept) + "\n")

    def add(self, mutant: Mutant, outcome: Outcome) -> None:
        """Keeps an outcome at once."""
        self.known[mutant.key] = outcome
        self._write({
            "key": mutant.key, "path": mutant.path, "line": mutant.line, "operator": mutant.operator, "was": mutant.was,
            "now": mutant.now, "killed": outcome.killed, "by": outcome.by, "seconds": round(outcome.seconds, 1),
            "why": outcome.why,
        })  # fmt: skip

    def measured(self, file: str, target: str) -> dict[str, Seen] | None:
        """What the tests of a file did with a target, as both stand now; None where nobody looked."""
        return self._measured.get(file, {}).get(_both(file, target))

    def note(self, file: str, targets: list[str], tests: dict[str, Seen]) -> None:
        """Keeps what the tests of a file did."""
        told = [_both(file, target) for target in targets]
        self._measured.setdefault(file, {}).update(dict.fromkeys(told, tests))
        self._write({"file": file, "for": told, "tests": msgspec.to_builtins(tests)})


def _both(file: str, target: str) -> str:
    texts = f"{(ROOT / file).read_text()}\0{target}\0{(ROOT / target).read_text()}"
    return hashlib.sha256(texts.encode()).hexdigest()[:24]


def measure(targets: list[Target], results: Results, told: Callable[[str], None]) -> None:
    """Runs the unchanged tests whose doings nobody knows; raises ``BaselineFails``."""
    wanted: dict[str, list[str]] = {}
    for target in targets:
        for file in target.files:
            wanted.setdefault(file, []).append(target.path)
    found = {(file, path): results.measured(file, path) for file, paths in wanted.items() for path in paths}
    left = [file for file, paths in wanted.items() if any(found[file, path] is None for path in paths)]
    if left:
        with forks(left) as one:
            for file in left:
                ran = one.run(Asked([file], watched=wanted[file]))
                if ran.failed:
                    raise BaselineFails(f"{ran.failed} fails without a mutant: {ran.why}")
                results.note(file, wanted[file], ran.tests)
                found |= {(file, path): ran.tests for path in wanted[file]}
                told(
                    f"{file}: {len(ran.tests)} tests pass unchanged, in {sum(s.seconds for s in ran.tests.values()):.1f} s"
                )
    for target in targets:
        for file in target.files:
            target.seen |= found[file, target.path] or {}


def choose(target: Target, mutant: Mutant) -> list[str]:
    """The tests that can tell a mutant, best first.

    Slow ones are left out if there is no time for all. On a busy machine each takes several times as long, and with the
    closest file's alone a survivor would mean little.
    """
    seen = target.seen
    is_lua = mutant.operator.startswith("Lua")
    touching = [name for name, one in seen.items() if is_lua and mutant.path in one.scripts] or [
        name for name, one in seen.items() if not is_lua and mutant.line in one.lines.get(target.path, ())
    ]
    # What runs when a module is loaded, or in processes that the tests start, no line tells.
    touching = touching or [name for name, one in seen.items() if one.lines.get(target.path)] or list(seen)
    touching = list(dict.fromkeys([*touching, *(name for name, one in seen.items() if one.starts)]))
    near = target.killers.setdefault(mutant.place, Counter())
    files = target.files
    order = sorted(
        touching,
        key=lambda name: (-near[name], seen[name].starts, files.index(name.partition("::")[0]), seen[name].seconds),
    )
    chosen, seconds = {order[0]} if order else set(), 0.0
    for name in sorted(order, key=lambda name: (-near[name], seen[name].seconds)):
        seconds += seen[name].seconds
        if seconds > CHOSEN_SECONDS:
            break
        chosen.add(name)
    return [name for name in order if name in chosen]


def attempt(one: Forks, target: Target, mutant: Mutant) -> Outcome:
    """One mutant, in this copy of the checkout."""
    tests, started = choose(target, mutant), time.monotonic()
    original = (one.folder / mutant.path).read_text()  # the checkout itself may be another one by now
    one.write(mutant.path, mutant.text)
    try:
        ran = run_tests(one, target, tests[:FIRST])
        if not ran.failed and tests[FIRST:]:
            ran = run_tests(one, target, tests[FIRST:])
    finally:
        one.write(mutant.path, original)
    if ran.failed in target.seen:
        target.killers[mutant.place][ran.failed] += 1
    return Outcome(bool(ran.failed), ran.failed, time.monotonic() - started, ran.why)


def run_tests(one: Forks, target: Target, tests: list[str]) -> Ran:
    """Runs some tests of a target in a copy of the checkout, until one fails."""
    seconds = {name: target.seen[name].seconds for name in tests}
    files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
    return one.run(Asked(files, tests, seconds, limit_seconds=30 + 5 * sum(seconds.values())))


def attempt_all(
    work: Iterable[tuple[Target, Mutant]], jobs: int, results: Results, told: Callable[[Mutant, Outcome], None]
) -> None:
    """Tries these mutants, ``jobs`` at once."""
    waiting: queue.SimpleQueue[tuple[Target, Mutant]] = queue.SimpleQueue()
    files: dict[str, None] = {}
    for target, mutant in work:
        waiting.put((target, mutant))
        files |= dict.fromkeys(target.files)

    def loop() -> None:
        with forks(list(files)) as one:
            while True:
                try:
                    target, mutant = waiting.get_nowait()
                except queue.Empty:
                    return
                outcome = attempt(one, target, mutant)
                results.add(mutant, outcome)
                told(mutant, outcome)

    threads = [threading.Thread(target=loop, daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
