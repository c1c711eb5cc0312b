"""Compiles changed definitions as a worker would, in a process of their own, and finds what is wrong with them.

    Reporter.run_once → Examiner.look → thread ── path ──> serve (python -m jobs.pool.examiner): jobs.parse.examine
                          Examiner.fault <── faults ──┘  └ changed: the reporter tells the hub

Loading a definition runs its author's code, which may never end or may take its process with it. The pool is not affected.
"""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from jobs.definition.catalog import Entry
from jobs.worker.fork_server import environment
from jobs.worker.stop import follow_parent
from regions import logs
from regions.settings import ROOT

SECONDS: Final = 30.0  # for one source; code that computes all the time ends earlier, after CPU_SECONDS
CPU_SECONDS: Final = 10  # of processor time, for one source
AGAIN_SECONDS: Final = 60.0  # until a source whose examination died is examined again: it may not have been its fault
COMMAND: Final = (sys.executable, "-m", "jobs.pool.examiner")

Key = tuple[Path, str]  # a source's file, and the hash of what stood in it

log = logs.get("workers")


class Examiner:
    """The pool's side: knows what is wrong with sources whose files could be read.

    ``changed`` is called from the examiner's thread when more is known.
    """

    def __init__(self, changed: Callable[[], None], *, seconds: float = SECONDS) -> None:
        self._changed, self._seconds = changed, seconds
        # Faults ("" for none), and until when they are valid (monotonic).
        self._known: dict[Key, tuple[str, float]] = {}
        self._is_busy = self._is_stopping = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    def fault(self, entry: Entry) -> str | None:
        """What is wrong with a source, one fault a line. None when nothing is, or when it was not examined yet."""
        found, _ = self._known.get(_key(entry), ("", 0.0))
        return found or None

    def look(self, entries: Iterable[Entry]) -> None:
        """Begins to examine new and changed sources, and returns at once. Only one thread may call it."""
        if self._is_busy or self._is_stopping:
            return  # at its end ``changed`` is called, and the caller looks again
        wanted = {_key(entry): entry for entry in entries if entry.definition is not None}
        self._known = {key: known for key, known in self._known.items() if key in wanted}
        now = time.monotonic()
        unknown = [entry for key, entry in wanted.items() if self._known.get(key, ("", 0.0))[1] < now]
        if unknown:
            self._is_busy = True
            self._thread = threading.Thread(target=self._run, args=(unknown,), name="examiner", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends an examination that runs."""
        self._is_stopping = True
        if self._process is not None:
            self._process.kill()
        if self._thread is not None:
            self._thread.join(self._seconds)

    def _run(self, entries: Sequence[Entry]) -> None:
        left = deque(entries)
        try:
            while left and not self._is_stopping:
                self._examine(left)
        except OSError as error:
            log.warning("can't examine definitions", error=str(error))  # the next look tries again
        self._is_busy = False
        self._changed()

    def _examine(self, left: deque[Entry]) -> None:
        """Examines sources in one process, until all are done or one of them ends the process."""
        pipe = subprocess.PIPE
        with subprocess.Popen(COMMAND, cwd=ROOT, env=environment(), stdin=pipe, stdout=pipe) as process:
            self._process = process
            if self._is_stopping:
                process.kill()
            while left and (found := self._asked(process, left[0])) is not None:
                self._note(left.popleft(), found, float("inf"))
            process.kill()  # does not wait for what an author's code does at exit
        if left and not self._is_stopping:
            entry = left.popleft()
            self._note(entry, died(entry, process.returncode), time.monotonic() + AGAIN_SECONDS)

    def _asked(self, process: subprocess.Popen[bytes], entry: Entry) -> str | None:
        """The process's answer. None when it died, or was killed because no answer came in time."""
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(self._seconds, process.kill)
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(msgspec.json.encode(str(entry.path)) + b"\n")
                process.stdin.flush()
            line = process.stdout.readline()
        finally:
            timer.cancel()
        try:
            return "\n".join(msgspec.json.decode(line, type=list[str]))
        except msgspec.DecodeError:
            return None

    def _note(self, entry: Entry, found: str, until: float) -> None:
        self._known[_key(entry)] = found, until
        if found:
            log.warning("a definition is broken", source=entry.id, faults=found)


def died(entry: Entry, code: int) -> str:
    """The fault of a source that ended the process that examined it."""
    try:
        how = signal.Signals(-code).name
    except ValueError:  # most real-time signals have no name
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
    return f"{entry.path.with_suffix('.py').name}: expected to be loaded, found that its process was ended by {how}"


def _key(entry: Entry) -> Key:
    return entry.path, entry.definition.hash if entry.definition is not None else ""


def serve() -> int:
    """The other side: reads one path a line, as JSON, and writes for each a line with a list of faults."""
    from jobs.parse.examine import faults  # noqa: PLC0415 - lxml is for this process, not for the pool

    follow_parent()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what an ID.py prints while it is loaded is no answer
    for line in sys.stdin.buffer:
        _limit_processor_time(CPU_SECONDS)
        found = faults(Path(msgspec.json.decode(line, type=str)))
        answers.write(msgspec.json.encode([str(fault) for fault in found]) + b"\n")
        answers.flush()
    return 0


def _limit_processor_time(seconds: int) -> None:
    """Has the kernel end this process when it computes for longer than this from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    sys.exit(serve())
