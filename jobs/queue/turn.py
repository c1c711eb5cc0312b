"""Turns of hosts as a worker process sees them: what sources allow, waiting tasks, and a running task's further fetches.

    Worker ── tell_limits ──> nf:limits     when it registers, and when definitions changed
    Caller (thread)         calls the next tasks of a host's queue when their time comes
    Runner ── Turn.take     before each fetch: a time by the host's rate; for another host also a turn, in exchange for its own

A task's first fetch has its turn from the claim, and asks for nothing.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import redis
from msgspec import Struct

from jobs.blocked import blocked
from jobs.errors import Cancelled, RateLimited, RegionUnavailable, TaskError, is_the_hosts
from jobs.origin import origin_of
from jobs.queue.breaker import Breakers
from jobs.queue.script import load
from regions import logs, names

# Between two looks at the hosts that tasks wait for, if nothing says sooner; no task waits: no look.
CALL_SECONDS: Final = 1.0
SLICE_SECONDS: Final = 0.1  # of a wait, before it looks for a cancel
AWAY_SECONDS: Final = (0.1, 0.5)  # the same while the region's Redis is away
ASK_SECONDS: Final = (0.02, 0.06)  # between two requests for another host's turn

log = logs.get("turn")


class _LimitRow(Struct):
    """What a source or a host allows: "AT_ONCE MS_BETWEEN"."""

    name: str
    allows: str


LIMIT: Final = load("limits", limit=_LimitRow)
CALL: Final = load("call")
TAKE: Final = load("take")


class Turns(Protocol):
    """Makes a task wait before it fetches. Implemented by ``Turn`` and ``Free``."""

    waited_ms: float
    granted: float  # when the last turn was granted, monotonic

    def take(self, url: str, source: str, *, deadline: float, cancelled: Callable[[], bool]) -> None:
        """Waits for the turn of an address's host; ``deadline`` is monotonic. Adds to ``waited_ms``.

        Raises RateLimited if it comes too late, ``NoThread``, Cancelled, RegionUnavailable.
        """

    def slow(self, url: str, seconds: float) -> None:
        """The host of an address asked to be left alone for this time."""

    def delay(self, url: str, seconds: float) -> None:
        """The host of an address asks for this time between two fetches. A turn that was granted before is not used."""

    def ended(self, error: TaskError | None) -> None:
        """The task's last fetch is over, also its answer; ``error``: how it failed."""


class Free:
    """Never waits: for tasks that run outside of a region."""

    waited_ms = 0.0
    granted = 0.0

    def take(self, url: str, source: str, *, deadline: float, cancelled: Callable[[], bool]) -> None:
        """At once."""

    def slow(self, url: str, seconds: float) -> None:
        """Does nothing: no other task asks."""

    def delay(self, url: str, seconds: float) -> None:
        """Does nothing: no other task asks."""

    def ended(self, error: TaskError | None) -> None:
        """Does nothing: no other task asks."""


class NoThread(RateLimited):
    """Too many threads of the process wait for turns: the task goes back."""


class TurnClient:
    """Asks for turns, for all threads of a process; ``threads`` of them may wait at once."""

    def __init__(self, client: redis.Redis, region: str, threads: int) -> None:
        self._client = client
        self._take = TAKE.on(wip=names.rq_registry("wip", region))
        self.breakers = Breakers(client)
        self.waiting = threading.BoundedSemaphore(max(1, threads))

    def ask(self, task: str, execution: str, host: str, source: str, patience_ms: int) -> tuple[str, int]:
        """Calls ``take.lua``. Raises what redis-py raises."""
        said, ms = self._take.call(
            self._client, task=task, execution=execution, host=host, source=source, patience_ms=max(0, patience_ms)
        )
        return said.decode(), ms


class Turn:
    """One execution's turns. ``host``: the one of which its claim took a turn; ``waited_ms``: how long it waited for turns."""

    def __init__(
        self, turns: TurnClient, task: str, execution: str, host: str, waited_ms: float, *, is_in_trouble: bool = False
    ) -> None:
        """``is_in_trouble``: the host's breaker must hear of an answer, not only of failures."""
        self._turns, self._task, self._execution = turns, task, execution
        self.host, self.waited_ms, self.granted = host, waited_ms, time.monotonic()
        self._has_token, self._is_in_trouble = bool(host), is_in_trouble
        self._asked = ""

    def take(self, url: str, source: str, *, deadline: float, cancelled: Callable[[], bool]) -> None:
        """As ``Turns`` says."""
        try:
            host = origin_of(url)
        except ValueError:
            return  # the fetch says what is wrong with it
        if self._is_in_trouble and self._asked == self.host != host:  # which led elsewhere, so it is well
            self._is_in_trouble = False
            self._turns.breakers.recovered(self.host)
        self._asked = host
        had_token, self._has_token = self._has_token, False
        if had_token and host == self.host:
            return
        began = time.monotonic()
        try:
            self._take(host, source, deadline, cancelled)
        finally:
            self.granted = time.monotonic()
            self.waited_ms += (self.granted - began) * 1000

    def slow(self, url: str, seconds: float) -> None:
        """As ``Turns`` says."""
        self._turns.breakers.slow(origin_of(url), seconds)

    def delay(self, url: str, seconds: float) -> None:
        """As ``Turns`` says."""
        self._has_token = False
        self._turns.breakers.delay(origin_of(url), seconds)

    def ended(self, error: TaskError | None) -> None:
        """As ``Turns`` says. Ends that say nothing about the host (a cancel, a fault of ours) are not passed on."""
        if error is not None and is_the_hosts(error):
            self._turns.breakers.failed(self._asked, error)
        elif (
            self._is_in_trouble and self._asked == self.host and (error is None or error.whose in ("target", "parser"))
        ):
            self._turns.breakers.recovered(self.host)

    def _take(self, host: str, source: str, deadline: float, cancelled: Callable[[], bool]) -> None:
        may_wait = self._turns.waiting.acquire(blocking=False)
        try:
            while True:
                left = deadline - time.monotonic()
                try:
                    patience_ms = int(left * 1000) if may_wait else 0
                    said, ms = self._turns.ask(self._task, self._execution, host, source, patience_ms)
                except redis.exceptions.RedisError as error:  # if it asked twice, a time passes unused
                    if left <= 0:
                        raise RegionUnavailable(f"the region's Redis says nothing of {host}: {error}") from error
                    _sleep(min(left, random.uniform(*AWAY_SECONDS)), cancelled)
                    continue
                if said == "go":
                    _sleep(ms / 1000, cancelled)
                    return
                if said == "gone":
                    raise Cancelled("it was taken back while it waited for a turn")
                if not may_wait:
                    raise NoThread(f"too many tasks wait for turns, of {host} too", origin="region")
                if said == "late" or left <= 0:
                    raise RateLimited(
                        f"expected a turn of {host} before the deadline, found none for {ms / 1000:.1f} s",
                        retry_after=ms / 1000,
                        origin="region",
                    )
                _sleep(min(left, random.uniform(*ASK_SECONDS)), cancelled)
        finally:
            if may_wait:
                self._turns.waiting.release()


class Caller:
    """A thread that calls tasks which wait for a host's rate, to the ms. Turns that are given back are seen by the next claims.

    It looks while tasks wait. When none does, it sleeps until a claim of this process finds that one does. Claims of the
    other processes call what a process that died had waited for.
    """

    def __init__(self, client: redis.Redis, region: str) -> None:
        self._client = client
        self._call = CALL.on(
            queue=names.rq_queue(region),
            urgent=names.rq_queue(names.urgent(region)),
            suspects=names.rq_queue(names.suspects(region)),
            scheduled=names.rq_registry("scheduled", region),
        )
        self._at = math.inf  # when to look (monotonic)
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self.run, name="caller", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def expect(self, ms: int) -> None:
        """In that many ms a task may be called; -1: none waits."""
        if ms >= 0:
            self._look_at(time.monotonic() + ms / 1000)

    def run(self) -> None:
        """Calls until the process ends."""
        while True:
            self.run_once()
            with self._changed:
                while (left := self._at - time.monotonic()) > 0:
                    self._changed.wait(min(left, threading.TIMEOUT_MAX))
                self._at = math.inf  # first: during the look, a claim may say that one waits

    def run_once(self) -> None:
        """Looks once. If it fails, another process or the next look does it."""
        try:
            ms = self._call.call(self._client)
        except redis.exceptions.RedisError as error:
            log.debug("can't call waiting tasks", error=str(error))
            self._look_at(time.monotonic() + CALL_SECONDS)
        else:
            if ms >= 0:
                self._look_at(time.monotonic() + min(CALL_SECONDS, ms / 1000))

    def _look_at(self, when: float) -> None:
        with self._changed:
            if when < self._at:
                self._at = when
                self._changed.notify()


def tell_limits(client: redis.Redis, limits: Mapping[str, str]) -> None:
    """Writes the limits that claims keep to. Raises what redis-py raises."""
    LIMIT.call(client, limits=[_LimitRow(name, limit) for name, limit in limits.items()])


def _sleep(seconds: float, cancelled: Callable[[], bool]) -> None:
    """Raises Cancelled."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if cancelled():
            raise Cancelled("cancelled while it waited for a turn")
        with blocked():
            time.sleep(min(left, SLICE_SECONDS))
