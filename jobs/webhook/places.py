"""Which of the claimed webhooks may be called now, so that a receiver that does not answer delays no other.

A receiver gets a quarter of a process's threads at most, and a tenant half of them. The other webhooks wait here, up to a limit. Past it,
webhooks of the receiver that has most of them are put off for as long as they would have to wait. So only they pay for its slowness.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from jobs.origin import origin_or_none
from jobs.webhook.queue import Job

OF_A_HOST: Final = 4  # the part of the threads
OF_A_TENANT: Final = 2
HELD: Final = 4  # jobs for each thread that are claimed at most
WAITS_SECONDS: Final = 7.0  # here, at most: well within the lease of a claim
FIRST_MEAN_SECONDS: Final = 0.2  # of a call, before any has ended
WEIGHT: Final = 0.3  # of one call in the mean


class Places:
    """The claimed jobs of a process. Used by all threads. ``clock``: seconds."""

    def __init__(self, threads: int, call_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._threads, self._call_seconds, self._clock = threads, call_seconds, clock
        self._most_host, self._most_tenant = max(1, threads // OF_A_HOST), max(1, threads // OF_A_TENANT)
        self._waiting: list[tuple[Job, float]] = []  # with the time of the claim, in its order
        self._running: dict[int, tuple[Job, float]] = {}  # with the time of the start
        self._counts: Counter[str] = Counter()  # running calls by receiver and tenant
        self._means: dict[str, float] = {}  # seconds of a call, of receivers that are known now
        self._put_off: dict[str, deque[float]] = {}  # by receiver: when each of those that were put off comes back
        self._lock = threading.Lock()

    def room(self) -> int:
        """How many more jobs may be claimed."""
        with self._lock:
            held = len(self._waiting) + len(self._running)
            return max(0, min(self._threads - len(self._running), HELD * self._threads - held))

    def add(self, job: Job) -> None:
        """Takes a claimed job."""
        with self._lock:
            self._waiting.append((job, self._clock()))

    def start(self) -> Job | None:
        """The next job that is to be called now; None if none may be."""
        with self._lock:
            if len(self._running) >= self._threads:
                return None
            for at, (job, _) in enumerate(self._waiting):
                if all(self._counts[key] < most for key, most in self._limits(job)):
                    del self._waiting[at]
                    self._running[id(job)] = (job, self._clock())
                    self._counts.update(key for key, _ in self._limits(job))
                    return job
            return None

    def end(self, job: Job) -> None:
        """A call has ended."""
        with self._lock:
            _, began = self._running.pop(id(job))
            host = _host(job)
            mean = self._means.get(host, FIRST_MEAN_SECONDS)
            self._means[host] = mean + WEIGHT * (self._clock() - began - mean)
            for key, _ in self._limits(job):
                self._counts[key] -= 1
                if not self._counts[key]:
                    del self._counts[key]
            self._forget(self._clock())

    def put_off(self) -> list[tuple[Job, float]]:
        """Takes out those that can't wait here, each with the seconds after which it may find a place."""
        with self._lock:
            now = self._clock()
            gone = {id(job) for job, at in self._waiting if now - at >= WAITS_SECONDS}
            is_full = len(self._waiting) + len(self._running) >= HELD * self._threads
            # Threads are free, but none of the waiting jobs may run now: room is made for others.
            if is_full and len(self._running) < self._threads:
                hosts = Counter(_host(job) for job, _ in self._waiting)
                ((most, count),) = hosts.most_common(1)
                gone.update([id(job) for job, _ in self._waiting if _host(job) == most][count // 2 :])
            leaving = [job for job, _ in self._waiting if id(job) in gone]
            self._waiting = [one for one in self._waiting if id(one[0]) not in gone]
            self._forget(now)
            return [(job, self._seconds(job, now)) for job in leaving]

    def leave(self) -> list[Job]:
        """Takes out all that wait."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            return [job for job, _ in waiting]

    def _seconds(self, job: Job, now: float) -> float:
        """How long the calls before a job will take; it counts as one of them from now on. The lock is held."""
        host = _host(job)
        longest = max((now - began for other, began in self._running.values() if _host(other) == host), default=0.0)
        each = min(self._call_seconds, max(self._means.get(host, FIRST_MEAN_SECONDS), longest))
        seconds = each * (1 + self._coming(host, now) // self._most_host)
        self._put_off.setdefault(host, deque()).append(now + seconds)
        return seconds

    def _coming(self, host: str, now: float) -> int:
        """How many that were put off are still to come back. The lock is held."""
        back = self._put_off.get(host, deque())
        while back and back[0] <= now:
            back.popleft()
        return len(back)

    def _forget(self, now: float) -> None:
        """Forgets receivers that are not called and of which nothing comes back: clients choose them. The lock is held."""
        for host in [one for one in self._put_off if not self._coming(one, now)]:
            del self._put_off[host]
        for host in self._means.keys() - self._counts.keys() - self._put_off.keys():
            del self._means[host]

    def _limits(self, job: Job) -> list[tuple[str, int]]:
        host = [(_host(job), self._most_host)]
        return [*host, (f"tenant {job.tenant}", self._most_tenant)] if job.tenant else host


def _host(job: Job) -> str:
    return f"host {origin_or_none(job.url)}"
