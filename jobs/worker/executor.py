"""Runs one job on a thread: reads it, runs it, and always returns how it ended.

ThreadPool ── job ──> Executor.run ── Execution ──> Runner.run (jobs.task.runner) ──> Ending
           ── a job that computes past its deadline ──> Executor.stuck ──> Ending
"""

import sys
import threading
import traceback
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from msgspec import structs

from jobs import result_frame
from jobs.contract import Outcome, Result, Run, Task, Timing, decode_task
from jobs.errors import BY_TYPE, Internal, Poison, RateLimited, TaskError, TimedOut
from jobs.queue.claim import Ending, Job
from jobs.queue.clock import Clock
from jobs.queue.script import DEATHS_MAX, NO_CALL
from jobs.queue.shared_fetch import FOR_ALL_MS, tell
from jobs.queue.turn import Turn, TurnClient
from jobs.task.execution import Execution
from regions import logs, names

log = logs.get("worker")


class Runner(Protocol):
    """Runs tasks: what ``jobs.task.runner.Runner`` is."""

    def run(self, execution: Execution) -> Ending:
        """One attempt at a task. An error is part of the result, never raised."""

    def refresh(self) -> bool:
        """Reads changed definitions; cheap when there are none. Returns whether something changed."""

    def limits(self) -> Mapping[str, str]:
        """What sources and hosts allow, as ``jobs.definition.model.limits_of``."""


class _Call(msgspec.Struct, array_like=True):
    """A job's data as RQ's JSON serializer writes it."""

    function: str
    instance: None
    arguments: tuple[msgspec.Raw, int]
    keywords: dict[str, Any]


_NO_CALL: Final = NO_CALL.encode()
ENDED: Final = (
    "expected a task that has not ended, found one that RQ put back into the queue after its end: a task ends once, and its record"
    " has no arguments any more. Ask its source again: Requeue of this dashboard makes a new request"
)

_call_decoder: Final = msgspec.json.Decoder(_Call)


def read(data: bytes) -> tuple[Task, int]:
    """The task in a job's data, and the offset from the region Redis's clock to the hub's in ms. Raises ValueError.

    RQ would import and call any function that the data name. Only one name is accepted here, and nothing is imported.
    """
    try:
        unpacked = zlib.decompress(data)
    except zlib.error as error:
        if data == _NO_CALL:
            raise ValueError(ENDED) from error
        raise ValueError(f"expected packed data, found {error}") from error
    if unpacked == _NO_CALL:  # RQ packs it when it puts an ended job back into the queue
        raise ValueError(ENDED)
    call = _call_decoder.decode(unpacked)
    if call.function != names.JOB_FUNCTION:
        raise ValueError(f"expected a job of {names.JOB_FUNCTION}, found {call.function[:100]!r}")
    return decode_task(bytes(call.arguments[0])), call.arguments[1]


def refused(job: Job) -> TaskError:
    """Why a job gets no turn in time. For a host whose breaker is open, the error that opened it."""
    seconds = job.refused_ms / 1000
    kind = BY_TYPE.get(job.trouble)
    if kind is None:
        message = f"expected a turn of {job.host} before the deadline, found none for {seconds:.1f} s"
        return RateLimited(message, retry_after=seconds, origin="region")
    return kind(f"{job.host} is left alone for {seconds:.1f} s more: {job.why}", retry_after=seconds, retryable=True)


class Executor:
    """Runs the jobs of a worker process. All threads share it."""

    def __init__(
        self, runner: Runner, turns: TurnClient, clock: Clock, *, region: str, worker: str, ttl_seconds: float
    ) -> None:
        """``ttl_seconds`` is how long the hub keeps the result of a job that can't be read."""
        self._runner, self._turns, self._clock = runner, turns, clock
        self._region, self._worker, self._ttl_ms = region, worker, int(ttl_seconds * 1000)

    def run(self, job: Job) -> Ending:
        """Runs an attempt and returns how it ended. Never raises."""
        task: Task | None = None
        job.thread = threading.get_ident()
        try:
            task, offset_ms = read(job.data)
            job.offset_ms = offset_ms
            if job.deaths >= DEATHS_MAX:
                error = Poison(
                    f"{job.deaths} processes died while they ran this task; all but the first ran nothing else"
                )
                return self._unrun(job, task, error, str(error), shared_ms=FOR_ALL_MS)
            if job.answer:
                return self._shared(job, task, offset_ms)
            turn = Turn(
                self._turns, job.task, job.execution, job.host, float(job.turn_ms), is_in_trouble=bool(job.trouble)
            )
            ending = self._runner.run(
                Execution(
                    task,
                    offset_ms=offset_ms + self._clock.ahead_ms,
                    attempt=job.attempt,
                    failures=job.failures,
                    queued_ms=_queued_ms(job, task, offset_ms),
                    cancelled=lambda: job.is_cancelled,
                    turn=turn,
                    refusal=refused(job) if job.refused_ms >= 0 else None,
                )
            )
        except BaseException as error:  # noqa: BLE001 - a thread that dies would hold its execution for ever
            return self._failed(job, task, error)
        ending.outcome, ending.is_urgent = self._traced(job, ending.outcome), task.sync
        self._log_sampled(job, task, ending)
        if job.is_cancelled:
            ending.retry = None
            if ending.outcome.status != "succeeded":
                ending.shared_ms = -1
        return ending

    def _shared(self, job: Job, task: Task, offset_ms: int) -> Ending:
        """The end of a task that got the answer of another one."""
        ending = tell(
            task,
            job.leader,
            job.answer,
            attempts=job.attempt,
            timing=Timing(queued_ms=_queued_ms(job, task, offset_ms)),
            now_ms=self._clock.now_ms() + offset_ms,
        )
        job.answer = b""
        ending.outcome = self._traced(job, ending.outcome)
        self._log_sampled(job, task, ending)
        return ending

    def _log_sampled(self, job: Job, task: Task, ending: Ending) -> None:
        """Logs how an attempt ended if its client records the trace."""
        if task.is_sampled:
            outcome = ending.outcome
            log.info(
                "attempt ended",
                worker=self._worker,
                task=task.task,
                request=task.request,
                source=task.source,
                attempt=job.attempt,
                status=outcome.status,
                error=outcome.run.error if outcome.run is not None else "",
                **task.traced,
            )

    def _failed(self, job: Job, task: Task | None, error: BaseException) -> Ending:
        log.error(
            "a job failed because of a fault of ours",
            task=job.task,
            is_readable=task is not None,
            error=str(error),
            **(task.traced if task is not None else {}),
        )
        what = "the job can't be read" if task is None else "the worker failed"
        public = Internal(f"{what}: {type(error).__name__}: {error}")
        return self._unrun(job, task, public, "".join(traceback.format_exception(error)))

    def _unrun(
        self, job: Job, task: Task | None, error: TaskError, shown: str, *, shared_ms: int = -1, run: Run | None = None
    ) -> Ending:
        """The end of a task that the runner did not end."""
        now_ms = self._clock.now_ms() + (job.offset_ms or 0)
        result = Result(
            task=job.task,
            source=task.source if task else job.source,
            region=self._region,
            status="failed",
            attempts=job.attempt,
        )
        frame = result_frame.failed(result, error)
        outcome = Outcome(
            request=task.request if task else job.request,
            task=job.task,
            status="failed",
            finished_ms=now_ms,
            expires_ms=task.expires_ms if task else now_ms + self._ttl_ms,
            frame=frame,
            run=run,
        )
        return Ending(
            self._traced(job, outcome),
            shown,
            records_bytes=result.bytes.records,
            wire_bytes=result.bytes.wire,
            shared_ms=shared_ms,
        )

    def _traced(self, job: Job, outcome: Outcome) -> Outcome:
        return structs.replace(outcome, trail=job.trail(self._worker, outcome.finished_ms, outcome.run))

    def stuck(self, job: Job, late_seconds: float) -> Ending:
        """The end of a job whose thread still computes this long after its deadline."""
        shown, where = _stack(job.thread)
        error = TimedOut(
            f"expected the task to end by its deadline, found it still computing {late_seconds:.1f} s later, at {where}; its process ends",
            origin="parser",
            retryable=False,
        )
        try:
            task, job.offset_ms = read(job.data)
        except (ValueError, msgspec.MsgspecError):
            task = None
        run = Run(source=job.source, definition=task.definition if task else "", error=error.type, origin=error.whose)
        return self._unrun(job, task, error, f"{error}\n{shown}", shared_ms=FOR_ALL_MS, run=run)


def _stack(thread: int) -> tuple[str, str]:
    """Where a thread is now: its stack as a traceback shows it, and its innermost frame alone."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - the one way to ask, and documented
    if frame is None:
        return "", "a place that is not known"
    stack = traceback.extract_stack(frame)
    last = stack[-1]
    return "".join(stack.format()), f"{last.name} ({Path(last.filename).name}, line {last.lineno})"


def _queued_ms(job: Job, task: Task, offset_ms: int) -> float:
    return float(max(0, job.claimed_ms + offset_ms - task.accepted_ms - job.turn_ms))
