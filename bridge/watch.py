"""Looks at the region's Redis twice a second and says whether, and how far, the bridge may fill it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import redis

from regions import connect, names

INTERVAL_SECONDS: Final = 0.5

# Shares of maxmemory at which a lane closes, and below which it opens again.
WORK_CLOSES, WORK_OPENS = 0.70, 0.65
FAST_CLOSES, FAST_OPENS = 0.90, 0.85
READY_OPENS: Final = 0.80  # of ready_max


@dataclass(frozen=True, slots=True)
class Measure:
    """``ready``: jobs in RQ's queue; ``used`` and ``limit``: bytes, limit 0 for none.

    ``refusal``: why no job may be written although the Redis answers, or nothing.
    """

    ready: int = 0
    used: int = 0
    limit: int = 0
    refusal: str = ""


class Levels:
    """The high-water marks of a region, with hysteresis. A reason is empty while its lane is open."""

    def __init__(self, ready_max: int) -> None:
        self.ready_max = ready_max
        self.work_reason = ""
        self.fast_reason = ""

    def see(self, measure: Measure) -> None:
        """Opens and closes by a measure."""
        share = measure.used / measure.limit if measure.limit else 0.0
        if measure.ready >= self.ready_max:
            self.close_work()
        elif share >= WORK_CLOSES:
            self.work_reason = f"its Redis is over {WORK_CLOSES:.0%} of its memory"
        elif measure.ready < self.ready_max * READY_OPENS and share < WORK_OPENS:
            self.work_reason = ""
        if share >= FAST_CLOSES:
            self.fast_reason = f"its Redis is over {FAST_CLOSES:.0%} of its memory"
        elif share < FAST_OPENS:
            self.fast_reason = ""

    def close_work(self) -> None:
        """There are as many jobs ready as there may be."""
        self.work_reason = f"{self.ready_max} jobs are ready"


class Watch:
    """``tell`` is called in this thread, with a measure or the error of a Redis that is away.

    ``prepare`` is called before it, to connect what the ioloop must not wait for; ``fail`` when the Redis is too old.
    """

    def __init__(
        self,
        client: redis.Redis,
        region: str,
        *,
        prepare: Callable[[], None],
        tell: Callable[[Measure | Exception], None],
        fail: Callable[[str], None],
    ) -> None:
        self._client, self._region = client, region
        self._prepare, self._tell, self._fail = prepare, tell, fail
        self._stopping = threading.Event()
        self._is_checked = False

    def run(self) -> None:
        """Measures until stopped."""
        while not self._stopping.is_set():
            self.run_once()
            self._stopping.wait(INTERVAL_SECONDS)

    def stop(self) -> None:
        """Ends ``run``."""
        self._stopping.set()

    def run_once(self) -> None:
        """One measure."""
        try:
            if not self._is_checked:
                connect.check_redis(self._client, f"{self._region}'s Redis")
                self._is_checked = True
            self._prepare()
            measure = self._measure()
        except connect.TooOld as error:
            self._fail(str(error))
        except (*connect.AWAY, redis.exceptions.ResponseError) as error:
            self._is_checked = False
            self._tell(error)
        else:
            self._tell(measure)

    def _measure(self) -> Measure:
        pipe = self._client.pipeline(transaction=False)
        pipe.set(names.FENCE, "probe")
        pipe.llen(names.rq_queue(self._region))
        pipe.info("memory")
        pipe.info("persistence")
        replies: list[Any] = pipe.execute(raise_on_error=False)
        wrote, ready, memory, persistence = replies
        for reply in replies[1:]:
            if isinstance(reply, Exception):
                raise reply
        refusal = ""
        if isinstance(wrote, Exception):
            refusal = f"its Redis refuses writes: {wrote}"
        elif not persistence["aof_enabled"]:
            refusal = "its Redis keeps no append-only file: expected appendonly yes, found no"
        return Measure(int(ready), int(memory["used_memory"]), int(memory["maxmemory"]), refusal)
