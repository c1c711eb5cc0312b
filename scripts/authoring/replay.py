"""Parses a task's stored raw answers again with today's definition: the worker's own steps, but no fetches.

replay → jobs.task.runner.Runner.lived on Answering fetchers → Replay: before, now, and how their records differ
"""

import time
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from requests.structures import CaseInsensitiveDict

from jobs import result_frame
from jobs.answers.raw import Answer, Kept
from jobs.contract import Error
from jobs.definition.catalog import Catalog
from jobs.errors import ConnectionFailed, TaskError
from jobs.fetch.fetcher import Terms
from jobs.page import Page, Request
from jobs.task.execution import Execution
from jobs.task.runner import Runner
from regions.settings import Region, Settings
from scripts.authoring.record_diff import Difference, differences
from scripts.authoring.samples import stand_ins

SECONDS: Final = 300.0  # for parsing everything again

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Replay:
    """``before`` and ``now`` are results with their records; ``notes`` are requests that differ from those of then."""

    kept: Kept
    before: Result
    now: Result
    notes: list[str]
    differences: list[Difference]

    @property
    def is_same(self) -> bool:
        """Whether the task would end with the same records, or with the same error."""
        return not self.differences and ending(self.before) == ending(self.now)


def ending(result: Result) -> tuple[Any, ...]:
    """How a result ended, apart from its records."""
    error = result["error"] or {}
    return result["status"], result["partial"], error.get("type"), error.get("message")


@dataclass(slots=True)
class Answering:
    """Answers requests from the stored answers: the one for the same URL, else the next one, with a note."""

    left: list[Answer]
    notes: list[str] = field(default_factory=list)

    def fetch(self, request: Request, _terms: Terms, /) -> Page:
        """The stored answer as a page. Raises what the fetch raised then, or ConnectionFailed when nothing is stored."""
        asked = f"{request.method} {request.url}"
        answer = self._next(request, asked)
        if answer.error is not None:
            raise error_of(answer.error)
        if answer.note:
            raise ConnectionFailed(f"expected a kept body of {asked}, found none: {answer.note}", retryable=False)
        headers: CaseInsensitiveDict[str] = CaseInsensitiveDict(answer.headers)
        return Page(request, answer.final_url, answer.status, headers, answer.unpacked(), request.params)

    def close(self) -> None:
        """Does nothing: there are no connections."""

    def _next(self, request: Request, asked: str) -> Answer:
        if not self.left:
            self.notes.append(f"{asked} was not requested then")
            raise ConnectionFailed(f"expected a kept answer to {asked}, found none", retryable=False)
        for answer in self.left:
            if (answer.method, answer.url) == (request.method, request.url):
                self.left.remove(answer)
                return answer
        answer = self.left.pop(0)
        self.notes.append(
            f"{asked} is requested now; the stored answer to {answer.method} {answer.url} was used for it"
        )
        return answer


def error_of(stored: Error) -> TaskError:
    """A stored error as an exception of its type, with all its details."""
    kind = next((kind for kind in TaskError.__subclasses__() if kind.type == stored.type), ConnectionFailed)
    return kind(
        stored.message,
        http_status=stored.http_status,
        retry_after=stored.retry_after,
        retryable=stored.retryable,
        origin=stored.origin,
    )


class Replayer:
    """Parses a region's stored answers with the current definitions. It needs and reads no secrets."""

    def __init__(self, settings: Settings, region: Region) -> None:
        self._answering = Answering([])
        fetchers = dict.fromkeys(region.egress, self._answering)
        self._runner = Runner(settings, region, fetchers=fetchers, secrets=_secrets(settings))

    def replay(self, kept: Kept) -> Replay:
        """The result of today's definition for a task's stored answers."""
        answering = self._answering
        answering.left, answering.notes = list(kept.answers), []
        now_ms = time.time_ns() // 1_000_000
        task = msgspec.structs.replace(kept.task, accepted_ms=now_ms, deadline_ms=now_ms + int(SECONDS * 1000))
        _, end = self._runner.lived(Execution(task, attempt=kept.attempt))
        before, now = kept.unpacked_result(), msgspec.json.decode(result_frame.splice(end.outcome.frame))
        notes = answering.notes + [f"{one.method} {one.url} is not requested any more" for one in answering.left]
        return Replay(kept, before, now, notes, differences(before["records"], now["records"]))


def _secrets(settings: Settings) -> dict[str, str]:
    """Stand-ins for the secrets that definitions need."""
    needed: dict[str, str] = {}
    catalog = Catalog(settings.source_folders, settings.first_region)
    catalog.refresh()
    for definition in filter(None, (entry.definition for entry in catalog.entries())):
        needed |= stand_ins(definition)
    return needed
