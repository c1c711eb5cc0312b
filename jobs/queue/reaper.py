"""Gives the jobs of dead worker processes to the others.

A worker whose lease lapsed is taken for dead, but only by a reaper that has itself had answers from Redis without a gap
for two leases: after an outage, a freeze or a restart of Redis every lease is gone, and no worker is dead. A process that the
pool saw die needs no such proof. One script reaps. It looks at the lease again, so that a worker that came back meanwhile is
left alone.

A job becomes a suspect if its process crashed while it ran. So does one that ran in two processes whose leases lapsed, if
Redis had no gap in between. A suspect runs alone in a process, so that the next death is its own; the third one is its last.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import redis

from jobs.queue.clock import LEASE_MS
from jobs.queue.script import load
from regions import logs, names
from regions.script import send, value

LOOK_SECONDS: Final = 1.0
PROOF_SECONDS: Final = 2 * LEASE_MS / 1000
GAP_SECONDS: Final = LOOK_SECONDS + 1.5  # a longer time between two answers is a gap: a look, a time-out and some more
NO_KEY: Final = -2  # Redis's PTTL
TRIM_SECONDS: Final = 10.0
TRIM_MAX: Final = 1_000  # canceled jobs, and answers, trimmed at once

log = logs.get("reaper")

REAP: Final = load("reap")
TRIM: Final = load("trim")


class Reaper:
    """A thread of the pool. ``clock`` is in monotonic seconds; ``found`` is called when suspects wait for processes."""

    def __init__(
        self,
        client: redis.Redis,
        region: str,
        clock: Callable[[], float] = time.monotonic,
        found: Callable[[], None] = lambda: None,
    ) -> None:
        self._client, self._region, self._clock, self._found = client, region, clock, found
        self._died: deque[tuple[str, str]] = deque()
        self._suspects: int | None = None
        self._workers: list[str] = []  # at the last look
        self._since: float | None = None  # when the answers began that have no gap until now
        self._answered = 0.0
        self._trimmed = float("-inf")
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self.run, name="reaper", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def died(self, worker: str, *, crashed: bool) -> None:
        """Tells of a process that was seen to end: it is reaped at once, whatever its lease says.

        ``crashed``: it was not asked to end, so that a job of it may be the reason.
        """
        self._died.append((worker, "crashed" if crashed else "left"))
        self._wake.set()

    def suspects(self) -> int | None:
        """How many jobs wait for a process of their own; None if there was no look since the last call."""
        found, self._suspects = self._suspects, None
        return found

    def stop(self) -> None:
        """Ends after reaping the processes that were seen to end."""
        self._stopping = True
        self._wake.set()
        self._thread.join(2 * LOOK_SECONDS)

    def run(self) -> None:
        """Looks every second until it is stopped."""
        while not self._stopping:
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            self.run_once()
        if self._died:  # since the last look
            self.run_once()

    def run_once(self) -> None:
        """One look."""
        try:
            while self._died:
                self._reap(*self._died[0])
                self._died.popleft()
            lapsed, self._suspects = self._look()
            self._note_answer()
            if lapsed and self._is_proven:
                for worker in lapsed:
                    self._reap(worker, "lapsed")
                _, self._suspects = self._look()
            if self._suspects:
                self._found()
            self._trim()
        except redis.exceptions.RedisError as error:
            if self._since is not None:
                log.warning("can't look for dead workers, none is taken for dead", error=str(error))
            self._since = None

    @property
    def _is_proven(self) -> bool:
        return self._since is not None and self._answered - self._since >= PROOF_SECONDS

    def _note_answer(self) -> None:
        now = self._clock()
        if self._since is None or now - self._answered > GAP_SECONDS:
            self._since = now
        self._answered = now

    def _look(self) -> tuple[list[str], int]:
        """The workers without a lease, and how many suspects wait. A suspended region starts no process for them.

        It is one round trip, since a worker that is new has a lease: that is looked at for the first time at the next look.
        No lease may last longer than ``LEASE_MS``: one that does is of a time before the Redis's clock went back, while no
        process was there to see it.
        """
        known, queue = self._workers, names.rq_queue(names.suspects(self._region))
        asked: list[tuple[Any, ...]] = [
            ("ZRANGE", names.WORKERS, 0, -1),
            ("LLEN", queue),
            ("EXISTS", names.RQ_SUSPENDED),
            *(("PTTL", names.lease(worker)) for worker in known),
        ]
        workers, waiting, suspended, *left_ms = map(value, send(self._client, asked, []))
        self._workers = [worker.decode() for worker in workers]
        none = {worker for worker, left in zip(known, left_ms, strict=True) if left == NO_KEY}
        if far := [worker for worker, left in zip(known, left_ms, strict=True) if left > LEASE_MS]:
            send(self._client, [("PEXPIRE", names.lease(worker), LEASE_MS, "LT") for worker in far], [])
            log.warning("leases lasted too long: the clock of the region's Redis went back", workers=len(far))
        return [worker for worker in self._workers if worker in none], 0 if suspended else waiting

    def _reap(self, worker: str, how: str) -> None:
        region = self._region
        urgent, alone = names.urgent(region), names.suspects(region)
        proof_ms = int((self._answered - self._since) * 1000) if self._since is not None else 0
        reply = REAP.call(
            self._client,
            queue=names.rq_queue(region),
            urgent=names.rq_queue(urgent),
            suspects=names.rq_queue(alone),
            wip=names.rq_registry("wip", region),
            held=names.rq_worker_executions(worker),
            lease=names.lease(worker),
            workers=names.WORKERS,
            worker=names.rq_worker(worker),
            all_workers=names.RQ_WORKERS,
            queue_workers=names.rq_workers_of(region),
            urgent_workers=names.rq_workers_of(urgent),
            alone_workers=names.rq_workers_of(alone),
            name=worker,
            how=how,
            proof_ms=proof_ms,
        )
        count = int(reply)
        if count > 0 or (count == 0 and how == "lapsed"):
            log.warning("reaped a worker", worker=worker, jobs=count, how=how)

    def _trim(self) -> None:
        now = self._clock()
        if now - self._trimmed < TRIM_SECONDS:
            return
        registries = {kind: names.rq_registry(kind, self._region) for kind in ("finished", "failed", "canceled")}
        TRIM.call(self._client, **registries, most=TRIM_MAX)
        self._trimmed = now
