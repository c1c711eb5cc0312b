"""Sources as a worker would compile them, examined by a process of their own whenever their files change.

    Reporter.run_once → Examiner.look → (thread) → python -m jobs.pool.examine … → fault
                                          └ changed: the reporter tells the hub

An author's code runs when it is loaded, and may never end or take its process with it: neither reaches the pool.
"""

import contextlib
import os
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
from regions import logs
from regions.settings import ROOT

SECONDS: Final = 30.0  # for one source; what computes all the time is ended before (jobs.pool.examine)
AGAIN_SECONDS: Final = 60.0  # after a process that died: it may not have been the source's fault
COMMAND: Final = (sys.executable, "-m", "jobs.pool.examine")

Key = tuple[Path, str]  # a source's file, and the hash of what stood in it

log = logs.get("workers")


class Examiner:
    """What is wrong with sources whose files read well. ``changed`` is called, from its thread, when more is known."""

    def __init__(self, changed: Callable[[], None], *, seconds: float = SECONDS) -> None:
        self._changed, self._seconds = changed, seconds
        self._known: dict[Key, tuple[str, float]] = {}  # the faults, "" for none, and until when (monotonic) they hold
        self._is_busy = self._is_stopping = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    def fault(self, entry: Entry) -> str | None:
        """What is wrong with a source, a line each; None for nothing, and as long as that is not known."""
        found, _ = self._known.get(_key(entry), ("", 0.0))
        return found or None

    def look(self, entries: Iterable[Entry]) -> None:
        """Examines those that are new or changed, without waiting for it. Only one thread may call it."""
        if self._is_busy or self._is_stopping:
            return  # it calls ``changed`` at its end, and whoever hears that looks again
        wanted = {_key(entry): entry for entry in entries if entry.definition is not None}
        self._known = {key: known for key, known in self._known.items() if key in wanted}
        now = time.monotonic()
        unknown = [entry for key, entry in wanted.items() if self._known.get(key, ("", 0.0))[1] < now]
        if unknown:
            self._is_busy = True
            self._thread = threading.Thread(target=self._run, args=(unknown,), name="examiner", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends what runs."""
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
        """Examines sources in one process, until it dies of one or all are done."""
        # It needs none of our settings, and an author's code none of our secrets.
        environ = {key: value for key, value in os.environ.items() if not key.startswith("NEARFETCH")}
        pipe = subprocess.PIPE
        with subprocess.Popen(COMMAND, cwd=ROOT, env=environ, stdin=pipe, stdout=pipe) as process:
            self._process = process
            if self._is_stopping:
                process.kill()
            while left and (found := self._asked(process, left[0])) is not None:
                self._note(left.popleft(), found, float("inf"))
            process.kill()  # what an author's code does at its end is not waited for
        if left and not self._is_stopping:
            entry = left.popleft()
            self._note(entry, died(entry, process.returncode), time.monotonic() + AGAIN_SECONDS)

    def _asked(self, process: subprocess.Popen[bytes], entry: Entry) -> str | None:
        """The process's answer; None where it died, or did not answer in time and was ended."""
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
    """What is wrong with a source whose examination took its process with it."""
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"{entry.path.with_suffix('.py').name}: expected to be loaded, found that its process was ended by {how}"


def _key(entry: Entry) -> Key:
    return entry.path, entry.definition.hash if entry.definition is not None else ""
