"""The record that the steps of jobs.task.runner fill, and how a task's life ends."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from msgspec import structs

from jobs import memory, result_frame
from jobs.answers.cache import Cached, Meta
from jobs.answers.raw import Answers
from jobs.contract import Outcome, Result, Run, Task
from jobs.definition.model import Definition
from jobs.errors import TaskError
from jobs.origin import is_plain
from jobs.page import Request
from jobs.parse.source import Parsed, Source
from jobs.queue.claim import Ending
from jobs.queue.clock import machine_ms
from jobs.queue.turn import Turns
from regions.printable import printable

WARNINGS_MAX: Final = 10


@dataclass(slots=True)
class Life:
    """One execution as the steps see and fill it. ``deadline`` is on the monotonic clock."""

    task: Task
    offset_ms: int
    cancelled: Callable[[], bool]
    result: Result
    answers: Answers
    turn: Turns
    definition: Definition = field(init=False)
    source: Source = field(init=False)
    retries: int = 0
    stale_seconds: float = 0.0  # how old an answer may be that replaces a failure
    failure: TaskError | None = None
    deadline: float = 0.0
    params: dict[str, object] = field(default_factory=dict)
    rows: list[dict[str, object]] = field(default_factory=list)
    rows_bytes: int = 0  # in the process's memory
    warnings: list[str] = field(default_factory=list)
    bad_required: list[str] = field(default_factory=list)
    is_absent: bool = False
    is_empty: bool = False
    pages: int = 0
    page_ends: list[tuple[int, int]] = field(default_factory=list)  # of each page: rows up to its end, hash of its body
    has_kept_token: bool = False
    gaps: dict[str, int] = field(default_factory=dict)  # as in contract.Run
    records: bytes = b"[]"
    refusal: TaskError | None = None  # no host has a turn for it in time: it fails with this error and fetches nothing
    meta: Meta | None = None  # what the cache keeps beside its answer
    cached: Cached | None = None  # the older answer that it gives instead of one of its own
    answered_ms: int = 0  # when its source answered, on the hub's clock

    def answer(self, cached: Cached, *, is_asked: bool = False, is_stale: bool = False) -> None:
        """Takes an older answer as its own. ``is_asked``: the target said that it has not changed."""
        self.cached, self.answered_ms = cached, cached.meta.fetched_ms
        cached.fill(self.result, self.hub_ms())
        self.result.cached, self.result.stale = not is_asked, is_stale
        self.warnings = [*self.warnings, *cached.warnings()]
        self.gaps = cached.meta.gaps

    def take(self, parsed: Parsed) -> Request | None:
        """Adds what a page gave. Returns the request of the next one, None at the end.

        Past their last page, many sites send that page again, or the first one. So a page that repeats another one is left
        out and ends the paging. Where pages name the next one, a page with the same rows but other bytes is kept.
        """
        repeated, is_same = self._repeated(parsed)
        number = self.pages + 1
        if repeated and (is_same or parsed.is_counted):
            self.warnings.append(
                f"page {number} repeats page {repeated}: it is left out, and no further one is asked for"
            )
            return None
        if repeated:
            self.warnings.append(f"page {number} repeats the records of page {repeated}")
        self.pages = number
        self.rows += parsed.rows
        self.page_ends.append((len(self.rows), parsed.body_hash))
        self.rows_bytes += memory.rows_bytes(parsed.rows)
        self.warnings += parsed.warnings
        self.bad_required += parsed.bad_required
        self.is_absent, self.is_empty = self.is_absent or parsed.absent, self.is_empty or parsed.empty
        self.result.partial = self.result.partial or parsed.is_cut
        return parsed.next

    def _repeated(self, parsed: Parsed) -> tuple[int, bool]:
        """The number of the page that this one repeats (0 for none), and whether all bytes are the same."""
        start, rows = 0, parsed.rows
        for number, (end, body_hash) in enumerate(self.page_ends, 1):
            if body_hash == parsed.body_hash or (end - start == len(rows) > 0 and self.rows[start:end] == rows):
                return number, body_hash == parsed.body_hash
            start = end
        return 0, False

    def frame(self, result: Result) -> bytes:
        """The frame of a success."""
        if self.cached is None:
            return result_frame.encode(result, self.records)
        return result_frame.reframe(result, self.cached.frame)

    def hub_ms(self) -> int:
        """The time on the hub's clock."""
        return machine_ms() + self.offset_ms


def ended(life: Life, status: str, make: Callable[[Result], bytes], shown: str) -> Ending:
    """The end of a life: completes the result, then has ``make`` make its frame. ``shown`` is the traceback."""
    result, now_ms = life.result, life.hub_ms()
    result.status = status
    result.warnings = shortened(life.warnings)
    timing = result.timing
    timing.turn_ms = round(life.turn.waited_ms, 1)
    timing.fetch_ms, timing.parse_ms = round(timing.fetch_ms, 1), round(timing.parse_ms, 1)
    timing.total_ms = float(max(now_ms - life.task.accepted_ms, 0))
    frame = make(result)
    outcome = Outcome(
        request=life.task.request,
        task=life.task.task,
        status=status,
        finished_ms=now_ms,
        expires_ms=life.task.expires_ms,
        frame=frame,
        run=run_of(life),
    )
    return Ending(outcome, shown, result.bytes.raw, result.bytes.records, result.bytes.wire, timing=timing)


def replaced_by(life: Life, cached: Cached, failed: Ending) -> Ending:
    """The end of a failed life with an older answer in place of the failure.

    The source's health still counts the failure.
    """
    assert life.failure is not None
    life.result.error = None
    life.warnings = [f"{type(life.failure).type}: {life.failure}; an older answer replaces it"]
    life.answer(cached, is_stale=True)
    end = ended(life, "succeeded", life.frame, "")
    end.shared_ms = failed.shared_ms
    if failed.outcome.run is not None:
        sizes = {"records_bytes": end.records_bytes, "wire_bytes": end.wire_bytes}
        sizes["spared_bytes"] = life.result.bytes.spared
        end.outcome = structs.replace(end.outcome, run=structs.replace(failed.outcome.run, **sizes))
    return end


def run_of(life: Life) -> Run:
    """What a life that has ended says about its source's health."""
    result, error = life.result, life.result.error
    return Run(
        source=result.source,
        definition=result.definition,
        error=error.type if error else "",
        origin=error.origin if error else "",
        host=life.task.host if error and error.origin == "network" else "",
        rows=result.count,
        raw_bytes=result.bytes.raw,
        records_bytes=result.bytes.records,
        wire_bytes=result.bytes.wire,
        busy_ms=round(result.timing.fetch_ms + result.timing.parse_ms),
        partial=result.partial,
        own=not (result.cached or result.stale or life.refusal),
        gaps=life.gaps,
        received_bytes=result.bytes.received,
        spared_bytes=result.bytes.spared,
    )


def shortened(warnings: list[str]) -> list[str]:
    """At most ten warnings, each with its count when it came more than once. The last one counts those left out."""
    counts = Counter(warnings)
    texts = [printable(text) if times == 1 else f"{printable(text)} ({times} times)" for text, times in counts.items()]
    if len(texts) <= WARNINGS_MAX:
        return texts
    left = sum(list(counts.values())[WARNINGS_MAX - 1 :])
    return [*texts[: WARNINGS_MAX - 1], f"and {left} more warnings"]


def bare(url: str) -> str:
    """An address without credentials; "" when it can't be parsed."""
    if is_plain(url):
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
