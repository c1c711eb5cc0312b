"""Reports a bridge to the hub, and measures the hub's clock. It has its own thread and connections.

A region's user on the hub's Redis may only append and ask for the time, so nothing else is called here.
"""

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import redis

from jobs import contract
from jobs.queue.script import now_ms
from regions import connect, logs, names

EVERY_SECONDS: Final = 5.0  # between two measurements
STATUS_SECONDS: Final = 2.0  # between two reports; two that are missing are a reason for a takeover (web.flow.takeover)
LOCAL_SECONDS: Final = 1.0  # the same while the region's Redis is away
SAMPLES: Final = 5
FITS_MS: Final = 3.0  # an answer this close to what was measured before is enough alone
WEIGHT: Final = 0.25  # of such an answer


@dataclass(frozen=True, slots=True)
class Clock:
    """``offset_ms`` is the hub's clock less the region Redis's, ``hub_less_monotonic_ms`` less this process's monotonic."""

    offset_ms: int
    hub_less_monotonic_ms: float

    def hub_now_ms(self) -> int:
        """The time on the hub."""
        return round(time.monotonic() * 1000 + self.hub_less_monotonic_ms)


class Status(msgspec.Struct, frozen=True):
    """A bridge's status. Memory is in bytes, ``at_ms`` on the hub's clock; the report fills that in, and ``offset_ms``."""

    at_ms: int = 0
    state: str = "starting"
    reason: str = ""
    fault: str = ""  # the name of that reason (web.hub.faults)
    ready: int = 0
    unacked: int = 0
    offset_ms: int = 0
    redis_used: int = 0
    redis_max: int = 0
    redis_ms: float = 0.0  # that its Redis takes to answer, by the last looks
    redis_lost: int = 0  # how often its Redis was lost within the last minute
    started_ms: int = 0  # when its process started; the report fills that in, too


def less_monotonic_ms(now_ms: Callable[[], int], known_ms: float | None = None) -> float:
    """How far a server's clock is ahead of the monotonic one, in ms.

    It is the median of a few answers. Each is assumed to be given half a round trip after the request. If the first one fits
    ``known_ms``, the result before, no other is asked for, and the new result is a little nearer to this answer.
    """
    samples: list[float] = []
    for _ in range(SAMPLES):
        asked = time.monotonic()
        answer = now_ms()
        samples.append(answer - (asked + time.monotonic()) / 2 * 1000)
        if known_ms is not None and abs(samples[0] - known_ms) <= FITS_MS:
            return known_ms + WEIGHT * (samples[0] - known_ms)
    return statistics.median(samples)


class Report:
    """Sends status and failed outcomes. ``clock`` is the hub's clock, None until the first measurement."""

    def __init__(
        self, hub: redis.Redis, local: redis.Redis, region: str, name: str, changed: Callable[[], None] = lambda: None
    ) -> None:
        """``changed`` is called on the report's thread after the first measurement."""
        self._hub, self._local, self._region, self._name = hub, local, region, name
        self._told_clock = changed
        self._log = logs.get("bridge")
        self._status = Status()
        self._failures: deque[tuple[contract.Outcome, Callable[[], None]]] = deque()
        self._news = threading.Event()
        self._changed = True
        self._due = self._status_due = 0.0
        self._failed_tries = 0  # in a row, to reach the hub
        self._stopping = threading.Event()
        self._began = time.monotonic()
        self._started_ms = 0  # the same, on the hub's clock once that is known
        self._local_ms: float | None = None  # the region Redis's clock less this process's monotonic one
        self.clock: Clock | None = None

    def show(self, status: Status) -> None:
        """Sets the latest status. A new state or reason is sent at once."""
        changed = (status.state, status.reason) != (self._status.state, self._status.reason)
        self._status = status
        if changed:
            self._changed = True
            self._news.set()

    @property
    def status(self) -> Status:
        """The latest status."""
        return self._status

    def fail(self, outcome: contract.Outcome, sent: Callable[[], None]) -> None:
        """Has the thread append a failed outcome as soon as the hub accepts it, then call ``sent``."""
        self._failures.append((outcome, sent))
        self._news.set()

    def stop(self) -> None:
        """Ends ``run`` after its current step."""
        self._stopping.set()
        self._news.set()

    def run(self) -> None:
        """Reports until stopped."""
        while not self._stopping.is_set():
            self._news.clear()
            self.run_once()
            if self._failed_tries:
                # News must not hammer a hub that is away.
                self._stopping.wait(connect.backoff_seconds(self._failed_tries))
            elif not self._stopping.is_set():
                self._news.wait(max(0.0, min(self._due, self._status_due) - time.monotonic()))

    def run_once(self) -> None:
        """Measures and sends what is due."""
        try:
            if time.monotonic() >= self._due:
                self._measure()
            self._send_failures()
            self._send_status()
        except (*connect.AWAY, redis.exceptions.ResponseError) as error:
            if not self._failed_tries:
                self._log.warning("the hub is away", region=self._region, reason=str(error))
            self._failed_tries += 1
        else:
            self._failed_tries = 0

    def _measure(self) -> None:
        known = None if self.clock is None else self.clock.hub_less_monotonic_ms
        hub = less_monotonic_ms(lambda: connect.redis_now_ms(self._hub), known)
        self._due = time.monotonic() + EVERY_SECONDS
        try:
            local = self._local_ms = less_monotonic_ms(lambda: now_ms(self._local), self._local_ms)
        except (*connect.AWAY, redis.exceptions.ResponseError):
            # The watch notices that it is away. The last offset stays, so that the hub can be told.
            self._due = time.monotonic() + LOCAL_SECONDS
            if self.clock is not None:
                self.clock = Clock(self.clock.offset_ms, hub)
        else:
            is_first, self.clock = self.clock is None, Clock(round(hub - local), hub)
            if is_first:
                self._changed = True
                self._told_clock()

    def _send_failures(self) -> None:
        while self._failures:
            outcome, sent = self._failures[0]
            pipe = self._hub.pipeline(transaction=True)
            pipe.set(names.result(self._region, outcome.task), outcome.frame, nx=True, pxat=outcome.expires_ms)
            fields: dict[Any, Any] = {
                "k": "result", "v": contract.VERSION, "q": outcome.request, "t": outcome.task, "s": outcome.status,
                "f": outcome.finished_ms, "b": len(outcome.frame) + 600,
            }  # fmt: skip
            pipe.xadd(names.out_stream(self._region), fields)
            pipe.execute()
            self._failures.popleft()
            sent()

    def _send_status(self) -> None:
        clock = self.clock
        is_due = time.monotonic() >= self._status_due
        if not (self._changed or is_due):
            return
        self._status_due = time.monotonic() + STATUS_SECONDS
        if clock is None:
            return
        self._changed = False
        now_ms = clock.hub_now_ms()
        self._started_ms = self._started_ms or max(1, now_ms - round((time.monotonic() - self._began) * 1000))
        status = msgspec.structs.replace(
            self._status, at_ms=now_ms, offset_ms=clock.offset_ms, started_ms=self._started_ms
        )
        fields: dict[Any, Any] = {
            "k": "status", "v": contract.VERSION, "part": "bridge", "name": self._name,
            "d": msgspec.json.encode(status),
        }  # fmt: skip
        try:
            self._hub.xadd(names.out_stream(self._region), fields)
        except BaseException:
            self._changed = True
            raise
