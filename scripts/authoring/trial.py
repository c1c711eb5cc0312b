"""Runs a source here like a worker would, but without a stack, for authors who want to see pages and records.

    trial.run → jobs.task.runner.Runner.lived, the worker's own steps, on Watched fetchers → Trial

The region's own fetcher answers, or files (``Files``), or the answers of a sample (``scripts.authoring.samples``).
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec

from jobs import result_frame
from jobs.contract import Task
from jobs.definition.catalog import Entry
from jobs.definition.model import Definition
from jobs.errors import ConnectionFailed, TaskError
from jobs.fetch.egress import Fetches, fetchers_of
from jobs.fetch.fetcher import Terms
from jobs.page import Page, Request
from jobs.task.execution import Execution
from jobs.task.runner import Runner
from jobs.text import values
from regions.folders import Folders
from regions.settings import Settings

NAME: Final = "trial"  # takes the place of a task's and a request's id
RESULT_TTL_MS: Final = 3_600_000

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Exchange:
    """One fetch of a trial: the request, and the page or the error."""

    request: Request
    page: Page | None
    error: TaskError | None
    seconds: float


@dataclass(slots=True)
class Trial:
    """The outcome of a trial: the result that clients would get, and the rows, also those of a failed task."""

    definition: Definition
    params: Mapping[str, object]
    result: dict[str, Any]
    rows: list[dict[str, Any]]
    exchanges: list[Exchange]
    traceback: str  # of a failure; empty without one

    @property
    def is_failed(self) -> bool:
        """Whether the task failed."""
        return bool(self.result["status"] != "succeeded")

    def fields(self) -> list["Hits"]:
        """How often each field has a value, in the order of the definition, without helper fields."""
        names = [name for name in self.definition.fields if not name.startswith("_")]
        names = names or list(dict.fromkeys(name for row in self.rows for name in row))
        return [Hits.of(name, self.rows) for name in names]


@dataclass(frozen=True, slots=True)
class Hits:
    """In how many rows a field has a value, and the numbers (from 1) of those in which it has none."""

    name: str
    found: int
    misses: list[int]

    @classmethod
    def of(cls, name: str, rows: Sequence[Mapping[str, Any]]) -> "Hits":
        """Counts as empty what the contract counts as empty: null, an empty text, an empty list."""
        misses = [number for number, row in enumerate(rows, 1) if row.get(name) in (None, "", [])]
        return cls(name, len(rows) - len(misses), misses)


@dataclass(slots=True)
class Watched:
    """A fetcher that reports each fetch, before and after it."""

    inner: Fetches
    begun: Callable[[Request], None]
    done: Callable[[Exchange], None]

    def fetch(self, request: Request, terms: Terms, /) -> Page:
        """Fetches with the inner fetcher."""
        self.begun(request)
        began = time.perf_counter()
        try:
            page = self.inner.fetch(request, terms)
        except TaskError as error:
            self.done(Exchange(request, None, error, time.perf_counter() - began))
            raise
        self.done(Exchange(request, page, None, time.perf_counter() - began))
        return page

    def close(self) -> None:
        """Closes the inner fetcher."""
        self.inner.close()


@dataclass(slots=True)
class Files:
    """Answers with files, in the order in which pages are requested. A page of ``[before]`` is the first."""

    paths: Sequence[Path]
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    _count: int = 0

    def fetch(self, request: Request, _terms: Terms, /) -> Page:
        """The next file as a page; ``url`` is the URL of the first. Raises ConnectionFailed after the last file."""
        number = self._count
        self._count += 1
        if number >= len(self.paths):
            asked = f"{request.method} {request.url}"
            raise ConnectionFailed(f"expected a --file for {asked} too, found {len(self.paths)}", retryable=False)
        url = self.url if self.url and not number else request.url
        return Page(request, url, self.status, dict(self.headers), self.paths[number].read_bytes(), request.params)

    def close(self) -> None:
        """Does nothing: there are no connections."""


def run(
    settings: Settings,
    entry: Entry,
    params: Mapping[str, object],
    *,
    answers: Fetches | None = None,
    secrets: Mapping[str, str] | None = None,
    deadline_seconds: float | None = None,
    begun: Callable[[Request], None] = lambda _: None,
    done: Callable[[Exchange], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Trial:
    """Runs a source with bound params. ``answers`` and ``secrets`` replace those of its region.

    Raises ``Faults`` when the settings for fetching or the region are wrong, ValueError when the params give no valid URL.
    """
    assert entry.definition is not None
    region = settings.one(entry.region)
    exchanges: list[Exchange] = []

    def keep(exchange: Exchange) -> None:
        exchanges.append(exchange)
        done(exchange)

    inner = (
        dict.fromkeys(region.egress, answers) if answers is not None else fetchers_of(settings, region, elsewhere=True)
    )
    fetchers = {name: Watched(one, begun, keep) for name, one in inner.items()}
    runner = Runner(with_folder(settings, entry.path.parent), region, fetchers=fetchers, secrets=secrets)
    seconds = settings.limits.deadline_seconds if deadline_seconds is None else deadline_seconds
    try:
        life, end = runner.lived(Execution(task_of(entry, params, seconds), cancelled=cancelled))
    finally:
        runner.close()
    rows = msgspec.json.decode(_encoder.encode(life.rows))
    found = msgspec.json.decode(result_frame.splice(end.outcome.frame))
    return Trial(entry.definition, params, found, rows, exchanges, end.traceback)


def task_of(entry: Entry, params: Mapping[str, object], seconds: float) -> Task:
    """The task that a gateway would make. Raises ValueError when the params give no valid URL."""
    assert entry.definition is not None
    now_ms = time.time_ns() // 1_000_000
    return Task(
        task=NAME,
        request=NAME,
        source=entry.id,
        region=entry.region,
        params=dict(params),
        url=entry.definition.expand(params),
        definition=entry.definition.hash,
        accepted_ms=now_ms,
        deadline_ms=now_ms + int(seconds * 1000),
        expires_ms=now_ms + RESULT_TTL_MS,
    )


def with_folder(settings: Settings, folder: Path) -> Settings:
    """The settings with one more folder of definitions, which takes precedence over the others."""
    folder = folder.absolute()
    if folder == settings.source_folders[-1].absolute():
        return settings
    path = ":".join([*filter(None, [settings.sources.path]), str(folder)])
    return msgspec.structs.replace(settings, sources=Folders(path))


def bound(definition: Definition, texts: Mapping[str, str]) -> tuple[dict[str, object], dict[str, str]]:
    """Params from texts, and those among them that are examples, for required params that were not given.

    Raises ``BadParams``.
    """
    examples = {
        name: values.shown(param.example)
        for name, param in definition.params.items()
        if param.required and param.example is not None and name not in texts
    }
    return definition.bind({**examples, **texts}, text=True), examples


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether Ctrl-C was pressed. The first one ends the task, a second one the program."""
    pressed = threading.Event()

    def press(_: int, __: FrameType | None) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
