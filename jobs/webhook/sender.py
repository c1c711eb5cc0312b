"""``nearfetch webhooks``: a process that calls webhooks on its threads. Any number of them may run, on any host of the hub.

    run_once ── claim (jobs.webhook.queue) ── a place (jobs.webhook.places) ── thread: call (jobs.webhook.call) ── how it ended

A process that dies loses nothing: a gateway has its calls made again when their leases are over.
"""

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import redis

from jobs.webhook.call import Answer, Caller, fetcher_of
from jobs.webhook.places import Places
from jobs.webhook.queue import Job, Queue, open_queue
from jobs.worker.stop import Stop
from regions import connect, logs
from regions.settings import Settings

WAIT_SECONDS: Final = 2.0  # for a job; a stop is noticed after that
FULL_SECONDS: Final = 1.0  # between two looks for a free thread
LEASE_SECONDS: Final = 15.0  # more than a call may take
TRIES_MAX: Final = 5  # to note how a call ended; then it is called again after its lease

log = logs.get("webhooks")


class Sender:
    """A process. ``run`` works until it is asked to stop, then lets running calls end."""

    def __init__(self, settings: Settings, queue: Queue, caller: Caller) -> None:
        self._queue, self._caller = queue, caller
        threads = settings.webhooks.threads
        self._places = Places(threads, settings.webhooks.timeout_seconds)
        self._pool = ThreadPoolExecutor(threads, "webhook")
        self._ended = threading.Event()  # a call has ended
        self._failures = 0
        self.stop = Stop()

    def run(self) -> int:
        """Returns the exit code."""
        log.info("calling webhooks")
        while self.stop.asked is None:
            self.run_once()
        for job in self._places.leave():
            self._note(job, Answer("put off", None, ""))
        self._pool.shutdown()
        try:
            self._queue.leave()
        except redis.exceptions.RedisError as error:
            log.info("can't say goodbye: the hub's Redis is away", error=str(error))
        return 0

    def run_once(self) -> None:
        """Claims as many jobs as there is room for, and has them called."""
        self._ended.clear()
        room = self._places.room()
        jobs = self._claim(room, WAIT_SECONDS if room else 0.0)
        for job in jobs:
            self._places.add(job)
        self._start()
        for job, wait_seconds in self._places.put_off():
            self._note(job, Answer("put off", None, "", wait_seconds))
        if self._failures:
            self.stop.wait(connect.backoff_seconds(self._failures))
        elif not room:
            self._ended.wait(FULL_SECONDS)

    def _claim(self, count: int, wait_seconds: float) -> list[Job]:
        """Up to that many jobs; none if the hub does not answer. It says that this process lives."""
        try:
            jobs = self._queue.claim(count, wait_seconds)
        except redis.exceptions.RedisError as error:
            if not self._failures:
                log.warning("can't claim webhooks", error=str(error))
            self._failures += 1
            return []
        self._failures = 0
        return jobs

    def _start(self) -> None:
        """Calls all that may be called now."""
        while (job := self._places.start()) is not None:
            self._pool.submit(self._work, job)

    def _work(self, job: Job) -> None:
        try:
            self._call(job)
        except Exception:  # its lease lapses, and it is called again
            log.exception("a call of a webhook failed", request=job.request)
        finally:
            self._places.end(job)
            self._ended.set()
            if self.stop.asked is None:
                self._start()

    def _call(self, job: Job) -> None:
        began = time.monotonic()
        answer = self._caller.call(job)
        found = self._note(job, answer, time.monotonic() - began)
        said = {"request": job.request, "attempt": job.attempt, "status": answer.status, "state": found}
        if answer.how == "delivered":
            log.info("webhook delivered", **said)
        else:
            log.warning("webhook not delivered", **said, error=answer.error)

    def _note(self, job: Job, answer: Answer, took_seconds: float = 0.0) -> str:
        """Notes how a call ended, also after a short outage of the hub: else its receiver would be told again."""
        for tried in range(1, TRIES_MAX + 1):
            try:
                return self._queue.ended(
                    job,
                    answer.how,
                    status=answer.status,
                    error=answer.error,
                    took_seconds=took_seconds,
                    wait_seconds=answer.wait_seconds,
                )
            except redis.exceptions.RedisError as failure:
                log.warning("can't note how a webhook was answered", request=job.request, error=str(failure))
                self.stop.wait(connect.backoff_seconds(tried))
        return "due"


def run(settings: Settings) -> int:
    """Calls webhooks until SIGTERM or SIGINT. Returns the exit code. Raises ``Faults`` for wrong settings."""
    fetcher = fetcher_of(settings)
    name = f"webhooks:{socket.gethostname()}:{os.getpid()}"
    lease_ms = int((settings.webhooks.timeout_seconds + LEASE_SECONDS) * 1000)
    queue = open_queue(settings.hub.redis, name, lease_ms, WAIT_SECONDS, settings.webhooks.threads)
    sender = Sender(settings, queue, Caller(settings, fetcher))
    sender.stop.install()
    code = sender.run()
    sender.stop.ignore()
    fetcher.close()
    return code
