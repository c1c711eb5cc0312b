"""The threads of a worker process: they run jobs, finish them in batches, and claim as many as they finished.

Worker.run ── accept ──> queue ──> thread: Executor.run ──> ends
                                      └─ the thread that gets the lock: finish all ends and claim as many, in one write

A job goes to the thread that became idle last: its stack, parser and heap are still in the processor's caches. No more jobs are
claimed than can compute at once; threads that wait for a host do not count (jobs.blocked).
"""

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

import redis

from jobs import blocked
from jobs.queue.claim import Claimed, Claimer, Ending, Job
from jobs.queue.home import Shipment
from jobs.queue.outbox import Shipper
from jobs.queue.script import LATER
from jobs.queue.turn import Caller, TurnClient
from jobs.worker.executor import Executor, Runner
from jobs.worker.meter import Meter
from regions import logs

FINISH_MAX_BYTES: Final = 8_000_000  # of frames in one write to the region's Redis
STOP_SECONDS: Final = 5.0  # how long a stop request waits for the claim of its job to arrive
STOPS_MAX: Final = 64  # stop requests that wait
# Threads that compute at once. An interpreter runs one thread at a time; more of them only wait for each other.
COMPUTING_MAX: Final = 8
BUSY: Final = 2  # jobs; with more, single results need not hurry
LONG_MS: Final = 1_000  # a job that has run for longer counts no more: large pages must not keep out all others
LOOK_SECONDS: Final = 0.01  # between two looks at how many compute: a thread that begins to wait tells nobody

log = logs.get("worker")


class _Waiter:
    """A thread that waits for a job."""

    __slots__ = ("job", "woken")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.woken = threading.Lock()
        self.woken.acquire()


class ThreadPool:
    """A fixed number of threads. A slot is a thread that can run a job; a claim reserves slots first."""

    def __init__(
        self,
        claimer: Claimer,
        shipper: Shipper,
        runner: Runner,
        turns: TurnClient,
        caller: Caller,
        *,
        region: str,
        threads: int,
        ttl_seconds: float,
        meter: Meter | None = None,
    ) -> None:
        """``ttl_seconds`` is how long the hub keeps the result of a job that can't be read."""
        self._claimer, self._shipper, self._caller = claimer, shipper, caller
        self._meter = meter or Meter()
        self._executor = Executor(
            runner, turns, claimer.clock, region=region, worker=claimer.worker, ttl_seconds=ttl_seconds
        )
        self._jobs: deque[Job] = deque()  # claimed, and no thread has them yet
        self._waiting: list[_Waiter] = []
        self._ends: deque[tuple[Job, Ending]] = deque()
        self._sending = threading.Lock()
        self._slots = threading.Condition()
        self._idle = self._threads = threads
        self._running: dict[str, Job] = {}
        self._stops: deque[tuple[str, str | None, float]] = deque(maxlen=STOPS_MAX)  # task, execution, until
        self._has_claimed = False
        self.is_stopping = False

    def start(self) -> None:
        """Starts the threads."""
        for number in range(self._threads):
            threading.Thread(target=self.run, name=f"task-{number}", daemon=True).start()

    def reserve(self, limit: int, wait_seconds: float) -> int:
        """Waits for idle slots that may compute, then takes up to ``limit`` of them. Returns how many."""
        until = time.monotonic() + wait_seconds
        with self._slots:
            while not (taken := min(limit, self._idle, self._may_compute())) and time.monotonic() < until:
                self._slots.wait(LOOK_SECONDS if self._idle else until - time.monotonic())
            self._idle -= taken
            return taken

    def _may_compute(self) -> int:
        """How many more jobs may begin to compute; the condition's lock is held."""
        began_ms = self._claimer.clock.now_ms() - LONG_MS
        computing = sum(
            not job.is_ended and job.thread not in blocked.threads and job.claimed_ms > began_ms
            for job in self._running.values()
        )
        return max(0, COMPUTING_MAX - computing)

    def release(self, slots: int) -> None:
        """Returns reserved slots."""
        with self._slots:
            self._idle += slots
            self._slots.notify_all()

    def wait_until_idle(self, wait_seconds: float) -> bool:
        """Waits until no job runs. Returns whether that came in time."""
        with self._slots:
            return self._slots.wait_for(lambda: not self._running, wait_seconds)

    def accept(self, claimed: Claimed, reserved: int, own: int = 0) -> None:
        """Runs claimed jobs on reserved slots, and returns the slots that are left.

        For ``own`` of the jobs no thread is woken: the calling thread takes them at once.
        """
        if claimed.lapsed and self._has_claimed:
            log.warning("the lease had expired; jobs that were taken back meanwhile are not finished here")
        self._has_claimed = True
        self._caller.expect(claimed.call_ms)
        with self._slots:
            self._running.update({job.member: job for job in claimed.jobs})
            if self._stops:
                self._stop_late(claimed.jobs)
            self._jobs.extend(claimed.jobs)
            self._wake(len(self._jobs) - own)
        if reserved > len(claimed.jobs):
            self.release(reserved - len(claimed.jobs))

    @property
    def is_busy(self) -> bool:
        """Whether several jobs run."""
        return len(self._running) > BUSY

    def running(self) -> list[Job]:
        """The jobs that were claimed and have not been finished."""
        with self._slots:
            return list(self._running.values())

    def stop(self, task: str, execution: str | None) -> None:
        """Stops a job, or one execution of it, also when the answer to its claim has not arrived yet."""
        with self._slots:
            if not _stop(self._running.values(), task, execution):
                self._stops.append((task, execution, time.monotonic() + STOP_SECONDS))

    def _stop_late(self, jobs: list[Job]) -> None:
        for _ in range(len(self._stops)):
            task, execution, until = self._stops.popleft()
            if time.monotonic() < until and not _stop(jobs, task, execution):
                self._stops.append((task, execution, until))

    def run(self) -> None:
        """The loop of each thread."""
        waiter = _Waiter()
        while True:
            self.run_once(self._next(waiter))

    def run_once(self, job: Job) -> None:
        """Runs one job, and finishes what has ended unless another thread is about to."""
        if self._end(job, self._executor.run(job)):
            self.settle(own=1)

    def give_up(self, job: Job, late_seconds: float) -> bool:
        """Ends a job whose thread still computes this long after its deadline. False when it has ended already.

        A thread can't be stopped: it holds its memory and a processor until the process ends. Nothing more is claimed.
        """
        self.is_stopping = True
        return self._end(job, self._executor.stuck(job, late_seconds))

    def _end(self, job: Job, ending: Ending) -> bool:
        """Records the end of a job. False when it has one already: a thread that was given up may still end its job."""
        with self._slots:
            if job.is_ended:
                return False
            job.is_ended = True
        self._ends.append((job, ending))
        return True

    def settle(self, own: int = 0) -> None:
        """Finishes jobs that ended, unless another thread is about to. After an error the next call tries again.

        ``own`` as in ``accept``.
        """
        while self._ends and self._sending.acquire(blocking=False):
            try:
                with self._slots:
                    self._wake(len(self._jobs))  # this thread takes none of them yet: it finishes others first
                if not self._finish(own):
                    return
            finally:
                self._sending.release()

    def _next(self, waiter: _Waiter) -> Job:
        with self._slots:
            if self._jobs:
                return self._jobs.popleft()
            self._waiting.append(waiter)
        waiter.woken.acquire()
        job, waiter.job = waiter.job, None
        assert job is not None
        return job

    def _wake(self, jobs: int) -> None:
        """Gives jobs to waiting threads; the thread that became idle last comes first."""
        for _ in range(min(jobs, len(self._waiting))):
            waiter = self._waiting.pop()
            waiter.job = self._jobs.popleft()
            waiter.woken.release()

    def _finish(self, own: int) -> bool:
        ends = self._take_ends()
        try:
            with self._slots:
                count = 0 if self.is_stopping else min(len(ends), self._may_compute())
            entries, claimed = self._claimer.finish(ends, then_claim=count)
        except redis.exceptions.RedisError as error:
            self._ends.extendleft(reversed(ends))
            log.warning("can't finish jobs, will try again", jobs=len(ends), error=str(error))
            return False
        now = time.monotonic()
        found = list(zip(entries, ends, strict=True))
        self._shipper.put(
            [
                Shipment(entry, ending.outcome, ending.spliced_bytes, now)
                for entry, (_, ending) in found
                if entry not in ("", LATER)
            ]
        )
        if claimed is None:
            self.release(len(ends))
        else:
            self.accept(claimed, len(ends), own)
        with self._slots:
            for job, _ in ends:
                del self._running[job.member]
            self._slots.notify_all()
        for entry, (job, ending) in found:
            if entry:
                self._meter.ended(job, ending)
            else:
                log.info("finished a job that was taken back", task=job.task, attempt=job.attempt)
        return True

    def _take_ends(self) -> list[tuple[Job, Ending]]:
        ends: list[tuple[Job, Ending]] = []
        size = 0
        while self._ends and size < FINISH_MAX_BYTES:
            ends.append(self._ends.popleft())
            size += len(ends[-1][1].outcome.frame)
        return ends


def _stop(jobs: Iterable[Job], task: str, execution: str | None) -> bool:
    """Stops a task's job among these, if it is there. Returns whether it was."""
    found = [job for job in jobs if job.task == task and execution in (None, job.execution)]
    for job in found:
        job.is_stopped = job.is_cancelled = True
    return bool(found)
