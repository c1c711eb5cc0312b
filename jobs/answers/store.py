"""A folder of raw answers on the region's disk, limited in count, bytes and age. It never delays a task.

    put (task threads) → queue → run_once (its own thread): make room, write a new file, rename it
    stored (any process) → jobs.answers.raw.read

A file is named ``SOURCE@TASK.ATTEMPT.failed.raw`` or ``….sample.raw``. Any number of processes share a folder without a
lock. While it writes, each looks at the folder once a second, and once afterwards. So the limits are exceeded at most by
what the others write in a second.
The answers are on disk because a full Redis stops the region, while a full folder only drops the oldest files.
"""

import contextlib
import os
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from regions import logs
from regions.settings import Raw

QUEUE_BYTES_MAX: Final = 16_000_000  # waiting for the disk; beyond this, answers are dropped
SCAN_SECONDS: Final = 1.0  # between two looks at the folder
TIDY_SECONDS: Final = 60.0  # the same while nothing is written
SAMPLES_MAX: Final = 3  # successes kept for a source: failures say more
ROOM: Final = 0.9  # share of the limits to which the folder is cut down, so that not each new file needs a look at all
UNFINISHED_SECONDS: Final = 60.0  # after this, the process that began a file is gone
NAME: Final = re.compile(r"([a-z0-9_.-]+)@([A-Za-z0-9_-]{1,100})\.(\d{1,9})\.(failed|sample)\.raw(\.\d+\.new)?")

log = logs.get("worker")


@dataclass(frozen=True, slots=True)
class Stored:
    """One file. ``modified`` is in seconds since the epoch. ``is_begun``: it is still being written."""

    path: Path
    source: str
    task: str
    attempt: int
    is_sample: bool
    is_begun: bool
    size: int
    modified: float


class AnswerStore:
    """A worker process's access to the folder. Without a path it keeps nothing."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        self._folder = Path(raw.path).expanduser()
        self.is_open = bool(raw.path)
        self._queue: SimpleQueue[tuple[str, bytes] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0  # bytes not yet on the disk
        self._due: dict[str, float] = {}
        self._count, self._bytes, self._looked = 0, 0, -SCAN_SECONDS
        self._is_failing = self._is_dropping = False
        self._has_written = False  # since the last look at the folder
        self._thread = threading.Thread(target=self.run, name="answer-store", daemon=True)

    def start(self) -> None:
        """Starts the thread; does nothing without a path."""
        if self.is_open:
            self._thread.start()

    def close(self, seconds: float = 2.0) -> None:
        """Writes what waits in the queue, for at most this long."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(seconds)

    def takes_sample(self, source: str) -> bool:
        """Whether to keep a success of a source now. If so, none is kept for the next ``sample_seconds``."""
        now = time.monotonic()
        if now < self._due.get(source, 0.0):
            return False
        with self._lock:
            if now < self._due.get(source, 0.0):
                return False
            self._due[source] = now + self._raw.sample_seconds
        return True

    def put(self, source: str, task: str, attempt: int, data: bytes, *, is_sample: bool) -> None:
        """Has the thread write a file, or drops it when the disk is too slow. Returns at once."""
        name = f"{source}@{task}.{attempt}.{'sample' if is_sample else 'failed'}.raw"
        if not NAME.fullmatch(name):
            log.warning("can't keep an answer under the name of its task", source=source, task=task[:100])
            return
        if len(data) > self._raw.bytes_max:
            return
        with self._lock:
            is_full = self._waiting + len(data) > QUEUE_BYTES_MAX
            if not is_full:
                self._waiting += len(data)
        if not is_full:
            self._queue.put((name, data))
        elif not self._is_dropping:
            log.warning("the disk is too slow for raw answers: some are not kept", folder=str(self._folder))
        self._is_dropping = is_full

    def run(self) -> None:
        """The loop of the thread."""
        self._attempt("", b"")
        while self.run_once():
            pass

    def run_once(self) -> bool:
        """Waits for one file and writes it, or removes old ones. False when it is asked to end."""
        try:
            item = self._queue.get(timeout=SCAN_SECONDS if self._has_written else TIDY_SECONDS)
        except Empty:
            item = ("", b"")
        if item is None:
            return False
        self._attempt(*item)
        with self._lock:
            self._waiting -= len(item[1])
        return True

    def _attempt(self, name: str, data: bytes) -> None:
        """Writes a file, or only removes old ones. Logs the first error of a series; errors have no other effect."""
        try:
            self._make_room(len(data))
            if name:
                self._write(name, data)
            self._has_written = bool(name)
        except Exception as error:  # noqa: BLE001 - without its thread the store would keep nothing any more
            if not self._is_failing:
                log.warning("can't keep raw answers", folder=str(self._folder), error=str(error))
            self._is_failing = True
            return
        if self._is_failing:
            log.info("raw answers are kept again", folder=str(self._folder))
        self._is_failing = False

    def _make_room(self, size: int) -> None:
        now, raw = time.monotonic(), self._raw
        has_room = self._count < raw.count_max and self._bytes + size <= raw.bytes_max
        if size and has_room and now - self._looked < SCAN_SECONDS:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._looked = now
        files = _files(self._folder)
        gone = {*_past(files, raw.ttl_seconds), *_old_samples(files)}
        left = [one for one in files if one not in gone and not one.is_begun]
        if len(left) >= raw.count_max or sum(one.size for one in left) + size > raw.bytes_max:
            count = min(raw.count_max - 1, int(raw.count_max * ROOM))
            gone |= set(surplus(left, count, min(raw.bytes_max - size, int(raw.bytes_max * ROOM))))
        for one in gone:
            one.path.unlink(missing_ok=True)  # another process may have removed it
        left = [one for one in left if one not in gone]
        self._count, self._bytes = len(left), sum(one.size for one in left)

    def _write(self, name: str, data: bytes) -> None:
        beside = self._folder / f"{name}.{os.getpid()}.new"
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
            beside.replace(self._folder / name)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
        self._count += 1
        self._bytes += len(data)


def stored(raw: Raw) -> list[Stored]:
    """The files of a folder that are not too old, oldest first. Raises OSError when the folder can't be read."""
    files = _files(Path(raw.path).expanduser()) if raw.path else []
    past = set(_past(files, raw.ttl_seconds))
    left = [one for one in files if not one.is_begun and one not in past]
    return sorted(left, key=lambda one: (one.modified, one.task, one.attempt))


def surplus(files: Sequence[Stored], count_max: int, bytes_max: int) -> list[Stored]:
    """The files to remove until all is within the limits: always the oldest of the source that has the most.

    So a source that fails all the time does not displace the files of others.
    """
    by_source: dict[str, deque[Stored]] = defaultdict(deque)
    sizes: dict[str, int] = defaultdict(int)
    for one in sorted(files, key=lambda one: one.modified):
        by_source[one.source].append(one)
        sizes[one.source] += one.size
    count, total = len(files), sum(sizes.values())
    gone = []
    while count > count_max or total > bytes_max:
        fullest = max(by_source, key=lambda name: len(by_source[name]) if count > count_max else sizes[name])
        one = by_source[fullest].popleft()
        gone.append(one)
        count, total, sizes[fullest] = count - 1, total - one.size, sizes[fullest] - one.size
        if not by_source[fullest]:
            del by_source[fullest]
    return gone


def _old_samples(files: Sequence[Stored]) -> Iterator[Stored]:
    """All samples but the latest of each source."""
    seen: dict[str, int] = defaultdict(int)
    for one in sorted(files, key=lambda one: one.modified, reverse=True):
        if one.is_sample:
            seen[one.source] += 1
            if seen[one.source] > SAMPLES_MAX:
                yield one


def _past(files: Sequence[Stored], ttl_seconds: float) -> Iterator[Stored]:
    """Files that are too old, and files that were begun and never finished."""
    now = time.time()
    for one in files:
        if now - one.modified > (UNFINISHED_SECONDS if one.is_begun else ttl_seconds):
            yield one


def _files(folder: Path) -> list[Stored]:
    """Our files in a folder, which may have others."""
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            named = NAME.fullmatch(entry.name)
            if named is None:
                continue
            try:
                stat = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # another process removed it
            source, task, attempt, kind, begun = named.groups()
            is_sample, is_begun = kind == "sample", begun is not None
            file = Path(entry.path)
            files.append(Stored(file, source, task, int(attempt), is_sample, is_begun, stat.st_size, stat.st_mtime))
    return files
