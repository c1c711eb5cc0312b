"""The task threads of a worker process: they run jobs, finish them in batches, and claim what a batch freed.

Worker.run ── accept ──> queue ──> thread: read the job, Runner.run ──> ends
                                      └─ whoever gets the lock: [finish the ends + claim as many] in one write

A job goes to the thread that waits for the shortest time: its stack, parser and heap are still in the processor's caches.
"""

import threading
import time
import traceback
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import msgspec
import redis
from msgspec import structs

from jobs.claim import Claimed, Claimer, End, Job
from jobs.contract import Outcome, Result, Task, Timing, decode_task, failed_frame
from jobs.errors import KINDS, Internal, Poison, RateLimited, TaskError
from jobs.flight import FOR_ALL_MS, tell
from jobs.outbox import Parcel, Shipper
from jobs.retry import Retry
from jobs.script import DEATHS_MAX, LATER
from jobs.turn import Caller, Desk, Turn, Turns
from regions import logs, names

FINISH_MAX_BYTES: Final = 8_000_000  # of frames in one write to the region's Redis
SKEWS: Final = 64  # claims whose measure of the clocks is remembered
STOP_SECONDS: Final = 5.0  # at most, that a stop waits for the claim of its job to arrive
STOPS_MAX: Final = 64  # stops that wait so

log = logs.get("worker")


class Ended(Protocol):
    """How a task ended: what ``jobs.life.Ended`` is. Sizes as in ``contract.Bytes``."""

    outcome: Outcome
    traceback: str
    raw_bytes: int
    records_bytes: int
    wire_bytes: int
    retry: Retry | None
    shared_ms: int
    meta: bytes


class Runner(Protocol):
    """Runs tasks: what ``jobs.task.Runner`` is. ``offset_ms``: the hub's clock less this machine's."""

    def run(
        self,
        task: Task,
        *,
        offset_ms: int,
        attempt: int,
        failures: int,
        queued_ms: float,
        turn: Turns,
        cancelled: Callable[[], bool],
        refusal: TaskError | None,
    ) -> Ended:
        """An attempt. What goes wrong is part of how it ended; ``failures`` attempts before it failed.

        With a ``refusal`` there is no turn for it: it asks nobody, and fails with that.
        """

    def refresh(self) -> bool:
        """Reads changed definitions, cheap when there are none; whether something changed."""

    def limits(self) -> Mapping[str, str]:
        """What sources and hosts allow, as ``jobs.turn.limits_of``."""


class _Call(msgspec.Struct, array_like=True):
    """A job's data as RQ's JSON serializer writes it."""

    function: str
    instance: None
    arguments: tuple[msgspec.Raw, int]
    keywords: dict[str, Any]


_call_decoder: Final = msgspec.json.Decoder(_Call)


def read(data: bytes) -> tuple[Task, int]:
    """The task of a job's data, and the hub's clock less the region Redis's in ms. Raises ValueError, saying why not.

    RQ would import and call any function that is named there; one is allowed, and it is not imported either.
    """
    try:
        call = _call_decoder.decode(zlib.decompress(data))
    except zlib.error as error:
        raise ValueError(f"expected packed data, found {error}") from error
    if call.function != names.JOB_FUNCTION:
        raise ValueError(f"expected a job of {names.JOB_FUNCTION}, found {call.function[:100]!r}")
    return decode_task(bytes(call.arguments[0])), call.arguments[1]


def refused(job: Job) -> TaskError:
    """Why a job has no turn in time. Of a host that is left alone it is what its fetches failed with."""
    seconds = job.refused_ms / 1000
    kind = KINDS.get(job.trouble)
    if kind is None:
        message = f"expected a turn of {job.host} before the deadline, found none for {seconds:.1f} s"
        return RateLimited(message, retry_after=seconds, origin="region")
    return kind(f"{job.host} is left alone for {seconds:.1f} s more: {job.why}", retry_after=seconds, retryable=True)


class _Seat:
    """Where a thread waits for a job."""

    __slots__ = ("job", "taken")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.taken = threading.Lock()
        self.taken.acquire()


class Crew:
    """``threads`` threads. A slot is a thread that could run a job; whoever claims reserves slots first."""

    def __init__(
        self,
        claimer: Claimer,
        shipper: Shipper,
        runner: Runner,
        desk: Desk,
        caller: Caller,
        *,
        region: str,
        threads: int,
        ttl_seconds: float,
    ) -> None:
        """``ttl_seconds``: how long a result is kept when its job can't be read."""
        self._desk, self._caller = desk, caller
        self._claimer, self._shipper, self._runner = claimer, shipper, runner
        self._region, self._ttl_ms = region, int(ttl_seconds * 1000)
        self._jobs: deque[Job] = deque()  # for which no thread waits
        self._seats: list[_Seat] = []
        self._ends: deque[End] = deque()
        self._sending = threading.Lock()
        self._slots = threading.Condition()
        self._idle = self._threads = threads
        self._running: dict[str, Job] = {}
        self._stops: deque[tuple[str, str | None, float]] = deque(maxlen=STOPS_MAX)  # and until when
        self._skews: deque[int] = deque(maxlen=SKEWS)
        self.is_stopping = False

    def start(self) -> None:
        """Starts the threads."""
        for number in range(self._threads):
            threading.Thread(target=self.run, name=f"task-{number}", daemon=True).start()

    def reserve(self, limit: int, wait_seconds: float) -> int:
        """Takes up to ``limit`` idle slots, after waiting for the first; how many."""
        with self._slots:
            self._slots.wait_for(lambda: self._idle, wait_seconds)
            taken = min(limit, self._idle)
            self._idle -= taken
            return taken

    def release(self, slots: int) -> None:
        """Gives slots back."""
        with self._slots:
            self._idle += slots
            self._slots.notify_all()

    def wait_until_idle(self, wait_seconds: float) -> bool:
        """Whether nothing runs, after waiting for that."""
        with self._slots:
            return self._slots.wait_for(lambda: not self._running, wait_seconds)

    def accept(self, claimed: Claimed, reserved: int, own: int = 0) -> None:
        """Runs claimed jobs on reserved slots and gives back the slots that are left.

        ``own`` jobs wake nobody: the caller comes for them at once.
        """
        if claimed.lapsed and self._skews:
            log.warning("the lease had lapsed; what was taken back meanwhile will not be finished here")
        self._caller.expect(claimed.call_ms)
        self._skews.append(claimed.now_ms - time.time_ns() // 1_000_000)
        with self._slots:
            self._running.update({job.member: job for job in claimed.jobs})
            if self._stops:
                self._stop_late(claimed.jobs)
            self._jobs.extend(claimed.jobs)
            self._wake(len(self._jobs) - own)
        if reserved > len(claimed.jobs):
            self.release(reserved - len(claimed.jobs))

    def running(self) -> list[Job]:
        """What was claimed and has not been finished."""
        with self._slots:
            return list(self._running.values())

    def stop(self, task: str, execution: str | None) -> None:
        """Stops a job, or one execution of it; also one whose claim was answered and has not arrived yet."""
        with self._slots:
            if not _stop(self._running.values(), task, execution):
                self._stops.append((task, execution, time.monotonic() + STOP_SECONDS))

    def _stop_late(self, jobs: list[Job]) -> None:
        for _ in range(len(self._stops)):
            task, execution, until = self._stops.popleft()
            if time.monotonic() < until and not _stop(jobs, task, execution):
                self._stops.append((task, execution, until))

    def run(self) -> None:
        """A thread's life."""
        seat = _Seat()
        while True:
            self.run_once(self._next(seat))

    def run_once(self, job: Job) -> None:
        """Runs one job and sees to it that it is finished."""
        self._ends.append(self._run(job))
        self.settle(own=1)

    def settle(self, own: int = 0) -> None:
        """Finishes what ended, unless another thread is about to; on an error the ends are kept for the next call.

        ``own`` as in ``accept``.
        """
        while self._ends and self._sending.acquire(blocking=False):
            try:
                with self._slots:
                    self._wake(len(self._jobs))  # this thread does not come at once: it finishes others
                if not self._finish(own):
                    return
            finally:
                self._sending.release()

    def _next(self, seat: _Seat) -> Job:
        with self._slots:
            if self._jobs:
                return self._jobs.popleft()
            self._seats.append(seat)
        seat.taken.acquire()
        job, seat.job = seat.job, None
        assert job is not None
        return job

    def _wake(self, jobs: int) -> None:
        """Gives so many jobs to threads that wait, the last one first."""
        for _ in range(min(jobs, len(self._seats))):
            seat = self._seats.pop()
            seat.job = self._jobs.popleft()
            seat.taken.release()

    def _finish(self, own: int) -> bool:
        ends = self._take_ends()
        try:
            entries, claimed = self._claimer.finish(ends, then_claim=0 if self.is_stopping else len(ends))
        except redis.exceptions.RedisError as error:
            self._ends.extendleft(reversed(ends))
            log.warning("can't finish jobs, will try again", jobs=len(ends), error=str(error))
            return False
        now = time.monotonic()
        found = list(zip(entries, ends, strict=True))
        self._shipper.put(
            [Parcel(entry, end.outcome, end.spliced_bytes, now) for entry, end in found if entry not in ("", LATER)]
        )
        if claimed is None:
            self.release(len(ends))
        else:
            self.accept(claimed, len(ends), own)
        with self._slots:
            for end in ends:
                del self._running[end.job.member]
            self._slots.notify_all()
        for entry, end in found:
            if not entry:
                log.info("finished a job that was taken back", task=end.job.task, attempt=end.job.attempt)
        return True

    def _take_ends(self) -> list[End]:
        ends: list[End] = []
        size = 0
        while self._ends and size < FINISH_MAX_BYTES:
            ends.append(self._ends.popleft())
            size += len(ends[-1].outcome.frame)
        return ends

    def _run(self, job: Job) -> End:
        task: Task | None = None
        try:
            task, offset_ms = read(job.data)
            job.offset_ms = offset_ms
            if job.deaths >= DEATHS_MAX:
                error = Poison(f"{job.deaths} processes died while they ran it, all but the first ran nothing else")
                return self._unrun(job, task, error, str(error), shared_ms=FOR_ALL_MS)
            if job.answer:
                return self._told(job, task, offset_ms)
            ended = self._runner.run(
                task,
                offset_ms=offset_ms + self._skew_ms,
                attempt=job.attempt,
                failures=job.failures,
                queued_ms=_queued_ms(job, task, offset_ms),
                turn=Turn(
                    self._desk,
                    job.task,
                    job.execution,
                    job.host,
                    float(job.turn_ms),
                    is_in_trouble=bool(job.trouble),
                ),
                cancelled=lambda: job.is_cancelled,
                refusal=refused(job) if job.refused_ms >= 0 else None,
            )
        except BaseException as error:  # noqa: BLE001 - whatever it was: a thread that dies holds its execution for ever
            return self._failed(job, task, error)
        return End(
            job,
            self._traced(job, ended.outcome),
            ended.traceback,
            ended.raw_bytes,
            ended.records_bytes,
            ended.wire_bytes,
            retry=None if job.is_cancelled else ended.retry,
            is_urgent=task.sync,
            shared_ms=-1 if job.is_cancelled and ended.outcome.status != "succeeded" else ended.shared_ms,
            meta=ended.meta,
        )

    def _told(self, job: Job, task: Task, offset_ms: int) -> End:
        """The end of a task whose answer another one brought."""
        told = tell(
            task,
            job.leader,
            job.answer,
            attempts=job.attempt,
            timing=Timing(queued_ms=_queued_ms(job, task, offset_ms)),
            now_ms=self.region_now_ms() + offset_ms,
        )
        job.answer = b""
        return End(job, self._traced(job, told.outcome), told.traceback, 0, told.records_bytes, told.wire_bytes)

    def _failed(self, job: Job, task: Task | None, error: BaseException) -> End:
        log.error("a job failed by a fault of ours", task=job.task, is_readable=task is not None, error=str(error))
        what = "the job can't be read" if task is None else "the worker failed"
        public = Internal(f"{what}: {type(error).__name__}: {error}")
        return self._unrun(job, task, public, "".join(traceback.format_exception(error)))

    def _unrun(self, job: Job, task: Task | None, error: TaskError, shown: str, shared_ms: int = -1) -> End:
        """The end of a task that the runner did not end."""
        now_ms = self.region_now_ms() + (job.offset_ms or 0)
        result = Result(
            task=job.task,
            source=task.source if task else job.source,
            region=self._region,
            status="failed",
            attempts=job.attempt,
        )
        frame = failed_frame(result, error)
        outcome = Outcome(
            request=task.request if task else job.request,
            task=job.task,
            status="failed",
            finished_ms=now_ms,
            expires_ms=task.expires_ms if task else now_ms + self._ttl_ms,
            frame=frame,
        )
        sizes = (0, result.bytes.records, result.bytes.wire)
        return End(job, self._traced(job, outcome), shown, *sizes, shared_ms=shared_ms)

    def _traced(self, job: Job, outcome: Outcome) -> Outcome:
        return structs.replace(outcome, trail=job.trail(self._claimer.worker, outcome.finished_ms, outcome.run))

    def region_now_ms(self) -> int:
        """The region Redis's clock."""
        return time.time_ns() // 1_000_000 + self._skew_ms

    @property
    def _skew_ms(self) -> int:
        """The region Redis's clock less this machine's; an answer that took long makes it look smaller than it is."""
        return max(self._skews, default=0)


def _stop(jobs: Iterable[Job], task: str, execution: str | None) -> bool:
    """Stops what is meant of the jobs; whether it was among them."""
    found = [job for job in jobs if job.task == task and execution in (None, job.execution)]
    for job in found:
        job.is_stopped = job.is_cancelled = True
    return bool(found)


def _queued_ms(job: Job, task: Task, offset_ms: int) -> float:
    return float(max(0, job.claimed_ms + offset_ms - task.accepted_ms - job.turn_ms))
