"""Looks at the region's Redis twice a second, less often while nothing happens, to find out whether the bridge may write jobs, and how many.

no job at all        an error of the Redis, or Measure.refusal → the bridge closes both lanes
it is nearly full    Levels → one lane closes, and opens again when there is room

Each says why by a ``Reason``, which the status and the log have.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import redis

from regions import connect, durability, logs, names
from regions.latency import Latency, uneven
from regions.script import send, value
from regions.settings import RegionRedis

INTERVAL_SECONDS: Final = 0.5
CALM_SECONDS: Final = 2.0  # the same while the bridge consumes and no job waits; a write notices sooner what is wrong
LATE_SECONDS: Final = 0.1  # for the answer to a look
SUSPECT_SECONDS: Final = 0.25  # between two looks after a late answer

# Shares of maxmemory at which a lane closes, and below which it opens again.
WORK_CLOSES, WORK_OPENS = 0.70, 0.65
FAST_CLOSES, FAST_OPENS = 0.90, 0.85
LOST_SECONDS, LOST_MAX = 60.0, 100
NOT_DURABLE: Final = "region-redis-not-durable"
FULL: Final = "region-redis-full"
READY_OPENS: Final = 0.80  # of ready_max


class Reason(NamedTuple):
    """Why a bridge does not consume, in a sentence for people; without one there is no reason.

    ``fault``: its name (web.hub.faults), "" if it has none: then gateways report ``region-bridge-paused``.
    """

    text: str = ""
    fault: str = ""

    def __bool__(self) -> bool:
        return bool(self.text)


NO_REASON: Final = Reason()


@dataclass(frozen=True, slots=True)
class Measure:
    """One look. ``ready`` counts jobs in RQ's queue. ``used`` and ``limit`` are bytes of memory; limit 0 means none.

    ``refusal``: why no job may be written although the Redis answers.
    """

    ready: int = 0
    used: int = 0
    limit: int = 0
    refusal: Reason = NO_REASON


def refused(error: object) -> str:
    """The name of the fault that a Redis's refusal of a write shows (web.hub.faults)."""
    is_full = isinstance(error, redis.exceptions.OutOfMemoryError) or str(error).startswith("OOM")
    return FULL if is_full else "region-redis-refuses-writes"


class Levels:
    """Opens and closes the lanes at high-water marks, with hysteresis. A lane is open while it has no reason."""

    def __init__(self, ready_max: int) -> None:
        self.ready_max = ready_max
        self.work_reason = self.fast_reason = NO_REASON

    def see(self, measure: Measure) -> None:
        """Opens and closes lanes according to a measure."""
        share = measure.used / measure.limit if measure.limit else 0.0
        if measure.ready >= self.ready_max:
            self.close_work()
        elif share >= WORK_CLOSES:
            self.work_reason = Reason(f"its Redis is over {WORK_CLOSES:.0%} of its memory", FULL)
        elif measure.ready < self.ready_max * READY_OPENS and share < WORK_OPENS:
            self.work_reason = NO_REASON
        if share >= FAST_CLOSES:
            self.fast_reason = Reason(f"its Redis is over {FAST_CLOSES:.0%} of its memory", FULL)
        elif share < FAST_OPENS:
            self.fast_reason = NO_REASON

    def close_work(self) -> None:
        """Closes the work lane: as many jobs are ready as permitted."""
        self.work_reason = Reason(f"{self.ready_max} jobs are ready", "region-backlog")


class Watch:
    """A thread that calls ``tell`` with a measure, or with the error of a Redis that is away.

    Before that it calls ``prepare``, which opens connections so that the ioloop need not wait for them. Its argument says
    whether acks can wait for the append-only file. ``fail`` is called when the Redis is too old. If the Redis's settings
    are not durable, they are checked again until they are. ``is_calm`` is set by the bridge.
    """

    def __init__(
        self,
        client: redis.Redis,
        region: str,
        settings: RegionRedis,
        *,
        prepare: Callable[[bool], None],
        tell: Callable[[Measure | Exception], None],
        fail: Callable[[str], None],
    ) -> None:
        self._client, self._region = client, region
        self._prepare, self._tell, self._fail = prepare, tell, fail
        self._durability = settings.durability
        self._log = logs.get("bridge")
        self.is_calm = False
        self._stopping = threading.Event()
        self._found: durability.Found | None = None  # settings of the server that answers now
        self._logged = ""
        self._failures = 0
        self._latency = Latency(LATE_SECONDS)
        self._lost: deque[float] = deque(maxlen=LOST_MAX)  # when it was lost (monotonic)
        self._restarted: deque[float] = deque(maxlen=LOST_MAX)  # when another process answered
        self._run_id = ""

    def run(self) -> None:
        """Measures until stopped."""
        while not self._stopping.is_set():
            self.run_once()
            self._stopping.wait(self._pause_seconds())

    def stop(self) -> None:
        """Ends ``run``."""
        self._stopping.set()

    def _pause_seconds(self) -> float:
        if self._failures:
            return connect.backoff_seconds(self._failures)
        if not self._latency.is_quick:
            return uneven(SUSPECT_SECONDS)
        return CALM_SECONDS if self.is_calm else INTERVAL_SECONDS

    @property
    def took_ms(self) -> float:
        """How long the Redis takes to answer, from the last looks."""
        return round(self._latency.seconds * 1000, 1)

    @property
    def lost(self) -> int:
        """How often the Redis was lost within the last minute: it did not answer, or was another process at the next look."""
        since = time.monotonic() - LOST_SECONDS
        return max(sum(at > since for at in tuple(times)) for times in (self._lost, self._restarted))

    def _meet(self, run_id: str) -> None:
        """Counts another Redis process than before: redis-py reconnects in silence."""
        if self._run_id and run_id != self._run_id:
            self._restarted.append(time.monotonic())
        self._run_id = run_id

    def run_once(self) -> None:
        """Looks once."""
        try:
            if self._found is None:
                connect.check_redis(self._client, f"{self._region}'s Redis")
                self._found = self._check()
            self._prepare(self._found.keeps_file)
            measure = self._measure(self._found)
        except connect.TooOld as error:
            self._fail(str(error))
        except durability.NotDurable as error:
            self._log_once(str(error))
            self._tell(Measure(refusal=Reason(error.reason, NOT_DURABLE)))
        except (*connect.AWAY, redis.exceptions.ResponseError) as error:
            if not self._failures:
                self._lost.append(time.monotonic())
            self._failures += 1
            self._found = None
            self._latency.clear()
            self._tell(error)
        else:
            self._failures = 0
            self._tell(measure)

    def _check(self) -> durability.Found:
        found = durability.check(self._client, "its Redis", self._durability, "redis.durability")
        shortfalls = "; ".join(map(str, found.shortfalls))
        self._log_once(f"not durable; redis.durability is relaxed: {shortfalls}" if shortfalls else "")
        return found

    def _log_once(self, text: str) -> None:
        if text and text != self._logged:
            self._log.error(text, region=self._region)
        self._logged = text

    def _measure(self, found: durability.Found) -> Measure:
        asked = [
            ("SET", names.FENCE, "probe"),
            ("LLEN", names.rq_queue(self._region)),
            ("INFO", "memory", "persistence", "server"),
        ]
        began = time.monotonic()
        wrote, ready, reply = send(self._client, asked, [])
        self._latency.add(time.monotonic() - began)
        info = connect.info(value(reply))
        self._meet(info["run_id"])
        refusal = NO_REASON
        if isinstance(wrote, Exception):
            refusal = Reason(f"its Redis refuses writes: {wrote}", refused(wrote))
        elif found.keeps_file and info["aof_enabled"] == "0":
            self._found = None  # the setting was changed; the next look reports all that is wrong
            refusal = Reason("its Redis keeps no append-only file any more", NOT_DURABLE)
        return Measure(value(ready), int(info["used_memory"]), int(info["maxmemory"]), refusal)
