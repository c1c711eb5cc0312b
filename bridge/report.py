"""What a bridge says to the hub, and what it learns of it: the clock. Its own thread, its own connections.

The hub's user of a region may only append and ask the time; nothing else is called here.
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

EVERY_SECONDS: Final = 5.0  # status and clock
LOCAL_SECONDS: Final = 1.0  # while the region's Redis is away
SAMPLES: Final = 5


@dataclass(frozen=True, slots=True)
class Clock:
    """``offset_ms``: the hub's clock less the region Redis's; ``hub_less_monotonic_ms``: less this process's monotonic."""

    offset_ms: int
    hub_less_monotonic_ms: float

    def hub_now_ms(self) -> int:
        """The time on the hub."""
        return round(time.monotonic() * 1000 + self.hub_less_monotonic_ms)


class Status(msgspec.Struct, frozen=True):
    """What a bridge says of itself; bytes of memory, milliseconds on the hub's clock."""

    at_ms: int
    state: str
    reason: str
    ready: int
    unacked: int
    offset_ms: int
    redis_used: int
    redis_max: int


def less_monotonic_ms(now_ms: Callable[[], int]) -> float:
    """How far a server's clock is ahead of the monotonic one, in ms.

    The median of a few answers, each taken to be given half a round trip after it was asked for.
    """
    samples = []
    for _ in range(SAMPLES):
        asked = time.monotonic()
        answer = now_ms()
        samples.append(answer - (asked + time.monotonic()) / 2 * 1000)
    return statistics.median(samples)


class Report:
    """The hub's clock as ``clock``, None until it was first measured; sends status and failed outcomes."""

    def __init__(self, hub: redis.Redis, local: redis.Redis, region: str, name: str) -> None:
        self._hub, self._local, self._region, self._name = hub, local, region, name
        self._log = logs.get("bridge")
        self._status = Status(0, "starting", "", 0, 0, 0, 0, 0)
        self._failures: deque[tuple[contract.Outcome, Callable[[], None]]] = deque()
        self._news = threading.Event()
        self._changed = True
        self._due = 0.0
        self._failed_tries = 0  # in a row, of the hub
        self._stopping = threading.Event()
        self.clock: Clock | None = None

    def show(self, status: Status) -> None:
        """Takes the latest status; a new state or reason is sent at once."""
        changed = (status.state, status.reason) != (self._status.state, self._status.reason)
        self._status = status
        if changed:
            self._changed = True
            self._news.set()

    def fail(self, outcome: contract.Outcome, sent: Callable[[], None]) -> None:
        """Appends a failed outcome as soon as the hub takes it, then calls ``sent`` in this thread."""
        self._failures.append((outcome, sent))
        self._news.set()

    def stop(self) -> None:
        """Ends ``run`` after what it is at."""
        self._stopping.set()
        self._news.set()

    def run(self) -> None:
        """Reports until stopped."""
        while not self._stopping.is_set():
            self._news.clear()
            self.run_once()
            if self._failed_tries:
                self._stopping.wait(
                    connect.backoff_seconds(self._failed_tries)
                )  # news must not hammer a hub that is away
            elif not self._stopping.is_set():
                self._news.wait(max(0.0, self._due - time.monotonic()))

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
        hub = less_monotonic_ms(lambda: connect.redis_now_ms(self._hub))
        self._due = time.monotonic() + EVERY_SECONDS
        self._changed = True
        try:
            local = less_monotonic_ms(lambda: now_ms(self._local))
        except (*connect.AWAY, redis.exceptions.ResponseError):
            # The watch says that it is away; the hub must hear so, by the offset that was last measured.
            self._due = time.monotonic() + LOCAL_SECONDS
            if self.clock is not None:
                self.clock = Clock(self.clock.offset_ms, hub)
        else:
            self.clock = Clock(round(hub - local), hub)

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
        if not self._changed or clock is None:
            return
        self._changed = False
        status = msgspec.structs.replace(self._status, at_ms=clock.hub_now_ms(), offset_ms=clock.offset_ms)
        fields: dict[Any, Any] = {
            "k": "status", "v": contract.VERSION, "part": "bridge", "name": self._name,
            "d": msgspec.json.encode(status),
        }  # fmt: skip
        try:
            self._hub.xadd(names.out_stream(self._region), fields)
        except BaseException:
            self._changed = True
            raise
