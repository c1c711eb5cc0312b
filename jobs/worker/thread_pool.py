"""The task threads of a worker process: they run jobs, finish them in batches, and claim what a batch freed.

Worker.run ── accept ──> queue ──> thread: read the job, Runner.run ──> ends
                                      └─ whoever gets the lock: [finish the ends + claim as many] in one write

A job goes to the thread that waits for the shortest time: its stack, parser and heap are still in the processor's caches.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

import redis

from jobs.queue.claim import Claimed, Claimer, End, Job
from jobs.queue.home import Shipment
from jobs.queue.outbox import Shipper
from jobs.queue.script import LATER
from jobs.queue.turn import Caller, TurnClient
from jobs.worker.executor import Executor, Runner
from regions import logs

FINISH_MAX_BYTES: Final = 8_000_000  # of frames in one write to the region's Redis
STOP_SECONDS: Final = 5.0  # at most, that a stop waits for the claim of its job to arrive
STOPS_MAX: Final = 64  # stops that wait so

log = logs.get("worker")


class _Waiter:
    """Where a thread waits for a job."""

    __slots__ = ("job", "woken")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.woken = threading.Lock()
        self.woken.acquire()


class ThreadPool:
    """``threads`` threads. A slot is a thread that could run a job; whoever claims reserves slots first."""

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
    ) -> None:
        """``ttl_seconds``: how long a result is kept when its job can't be read."""
        self._claimer, self._shipper, self._caller = claimer, shipper, caller
        self._executor = Executor(
            runner, turns, claimer.clock, region=region, worker=claimer.worker, ttl_seconds=ttl_seconds
        )
        self._jobs: deque[Job] = deque()  # for which no thread waits
        self._waiting: list[_Waiter] = []
        self._ends: deque[End] = deque()
        self._sending = threading.Lock()
        self._slots = threading.Condition()
        self._idle = self._threads = threads
        self._running: dict[str, Job] = {}
        self._stops: deque[tuple[str, str | None, float]] = deque(maxlen=STOPS_MAX)  # and until when
        self._has_claimed = False
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
        if claimed.lapsed and self._has_claimed:
            log.warning("the lease had lapsed; what was taken back meanwhile will not be finished here")
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
        waiter = _Waiter()
        while True:
            self.run_once(self._next(waiter))

    def run_once(self, job: Job) -> None:
        """Runs one job and sees to it that it is finished."""
        if self._end(job, self._executor.run(job)):
            self.settle(own=1)

    def give_up(self, job: Job, late_seconds: float) -> bool:
        """Ends a job whose thread computes on, so late after its deadline; whether it had not ended.

        A thread can't be stopped: it holds its memory, and a processor, until its process ends. Nothing is claimed any more.
        """
        self.is_stopping = True
        return self._end(job, self._executor.stuck(job, late_seconds))

    def _end(self, job: Job, end: End) -> bool:
        """Whether this is its end: a thread that was given up may come back with another one."""
        with self._slots:
            if job.is_ended:
                return False
            job.is_ended = True
        self._ends.append(end)
        return True

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
        """Gives so many jobs to threads that wait, the last one first."""
        for _ in range(min(jobs, len(self._waiting))):
            waiter = self._waiting.pop()
            waiter.job = self._jobs.popleft()
            waiter.woken.release()

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
            [Shipment(entry, end.outcome, end.spliced_bytes, now) for entry, end in found if entry not in ("", LATER)]
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


def _stop(jobs: Iterable[Job], task: str, execution: str | None) -> bool:
    """Stops what is meant of the jobs; whether it was among them."""
    found = [job for job in jobs if job.task == task and execution in (None, job.execution)]
    for job in found:
        job.is_stopped = job.is_cancelled = True
    return bool(found)
