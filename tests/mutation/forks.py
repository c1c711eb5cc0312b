"""A process in a copy of the checkout that has imported all but the checkout, and forks for each run of its tests.

    python -m tests.mutation.forks       a line with test files, then one of ``Asked`` in and one of ``Ran`` out, as JSON

Starting Python and importing redis, pika, lxml and pytest costs more than most tests. What stands in the checkout is imported
by each fork anew: it may have been changed. The servers that a fork leaves end with it (scripts.stack.services.Guard).
"""

import contextlib
import ctypes
import importlib
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
WAIT_SECONDS, TEST_SECONDS = (
    4.0,
    15.0,
)  # what a wait of a test, and a test, may last besides four times its own duration
SIGKILL_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Asked(msgspec.Struct, frozen=True):
    """Tests to run until one fails: ids as pytest's, in this order; all of ``files`` where ``tests`` is empty.

    ``seconds``: how long each lasted; ``watched``: files of the checkout whose lines and scripts are noted.
    """

    files: list[str]
    tests: list[str] = []
    seconds: dict[str, float] = {}
    watched: list[str] = []
    limit_seconds: float = 600.0


class Seen(msgspec.Struct):
    """What a test did: its seconds, the lines that it ran of each watched file, the ``.lua`` files of the scripts that it called.

    ``starts``: whether it started Python, which may have run more of them.
    """

    seconds: float = 0.0
    lines: dict[str, list[int]] = {}
    scripts: list[str] = []
    starts: bool = False


class Ran(msgspec.Struct):
    """What came of a run. ``failed``: the test that failed, with why.

    ``code`` is pytest's, -1 past the limit. It tells of more than tests: of a socket that nobody closed, found at the end.
    """

    code: int
    failed: str = ""
    why: str = ""
    tests: dict[str, Seen] = {}


class Watch:
    """A plugin of pytest: which tests run, how long they may take, and what they did."""

    def __init__(self, asked: Asked) -> None:
        self._asked, self.ran = asked, Ran(0)
        self._watched = {str(ROOT / path): path for path in asked.watched}
        self._lines: dict[str, set[int]] = {}
        self._called: set[str] = set()
        self._starts = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items) -> None:
        if self._asked.tests:
            order = {name: at for at, name in enumerate(self._asked.tests)}
            items[:] = sorted((one for one in items if one.nodeid in order), key=lambda one: order[one.nodeid])
        for one in items:
            if one.nodeid in self._asked.seconds:
                one.add_marker(pytest.mark.timeout(TEST_SECONDS + 4 * self._asked.seconds[one.nodeid]))
        if self._watched:
            self._note_scripts()

    def _note_scripts(self) -> None:
        from regions.script import Script

        real, called = Script.command, self._called

        def command(script, **arguments):
            called.update(str(path.relative_to(ROOT)) for path in script.lua.files)
            return real(script, **arguments)

        Script.command = command
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments) -> None:
        if event == "subprocess.Popen" and any("python" in str(word) for word in (arguments[0], *arguments[1])):
            self._starts = True

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        from tests import waiting

        if item.nodeid in self._asked.seconds:
            waiting.longest_seconds = WAIT_SECONDS + 4 * self._asked.seconds[item.nodeid]
        began = time.monotonic()
        if self._watched:
            self._lines = {path: set() for path in self._asked.watched}
            self._called.clear()
            self._starts = False
            if not all(path.endswith(".lua") for path in self._watched):  # scripts are noted in any case
                threading.settrace(self._trace)
                sys.settrace(self._trace)
        yield
        sys.settrace(None)
        threading.settrace(None)
        seen = self.ran.tests[item.nodeid] = Seen(round(time.monotonic() - began, 3))
        if self._watched:
            seen.lines = {path: sorted(lines) for path, lines in self._lines.items() if lines}
            seen.scripts, seen.starts = sorted(self._called), self._starts

    def _trace(self, frame, _event, _argument):
        path = self._watched.get(frame.f_code.co_filename)
        if path is None:
            return None
        self._lines[path].add(frame.f_lineno)

        def line(frame, _event, _argument):
            self._lines[path].add(frame.f_lineno)
            return line

        return line

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed and not self.ran.failed:
            self._fails(report.nodeid, report)

    def pytest_collectreport(self, report) -> None:
        if report.failed and not self.ran.failed:
            self._fails("does not load", report)

    def _fails(self, name: str, report) -> None:
        said = getattr(getattr(report.longrepr, "reprcrash", None), "message", "") or str(report.longrepr)[-300:]
        self.ran.failed, self.ran.why = name, said[:300]


def run(asked: Asked) -> Ran:
    """Runs tests in a fork; what a run past its limit leaves is killed."""
    with tempfile.TemporaryDirectory(dir=ROOT.parent) as scratch:
        told = Path(scratch) / "ran.json"
        child = os.fork()
        if not child:
            _be_child(asked, scratch, told)
        deadline = time.monotonic() + asked.limit_seconds
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return Ran(-1, "time-out")
            time.sleep(0.005)
        if not told.exists():
            return Ran(ended[1] or 1, "does not load", f"its process ended with {ended[1]}")
        return msgspec.json.decode(told.read_bytes(), type=Ran)


def _be_child(asked: Asked, scratch: str, told: Path) -> None:
    """Never returns."""
    ctypes.CDLL(None).prctl(SIGKILL_WITH_PARENT, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    watch = Watch(asked)
    code = 3
    try:
        code = int(pytest.main([*WORDS, *asked.files], plugins=[watch]))
    except BaseException as error:  # noqa: BLE001 (what ends a run must not end in this process's loop)
        watch.ran.why = watch.ran.why or repr(error)[:300]
    if code not in (0, 1) and not watch.ran.tests:  # a conftest that can't be imported has no report
        watch.ran.failed = watch.ran.failed or "does not load"
    watch.ran.code = code
    told.with_suffix(".part").write_bytes(msgspec.json.encode(watch.ran))
    told.with_suffix(".part").rename(told)
    os._exit(0)


def preload(files: list[str]) -> None:
    """Imports what the tests import and is none of the checkout's."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        with contextlib.suppress(BaseException):
            pytest.main([*WORDS, "--collect-only", *files])
        own = str(ROOT)
        foreign = [
            name
            for name, module in list(sys.modules.items())
            if name != "__main__" and not str(getattr(module, "__file__", None) or own).startswith(own)
        ]
        with os.fdopen(writing, "w") as out:
            out.write("\n".join(foreign))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        names = told.read().split("\n")
    os.waitpid(child, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def main() -> int:
    """Serves until the input ends. The first line are the files whose imports are wanted."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    preload(msgspec.json.decode(sys.stdin.buffer.readline(), type=list[str]))
    for text in sys.stdin.buffer:
        out.write(msgspec.json.encode(run(msgspec.json.decode(text, type=Asked))) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
