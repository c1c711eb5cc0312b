"""The region's clock: the time of its Redis, without the steps that somebody made it take. It never jumps.

    a script ── TIME + nf:clock ──> now_ms                    the same for all callers (clock.lua)
    jobs.queue.script.send ── the time that the caller expects ──> a script that finds another one refuses, before it does anything
       └ refused ── Clock.mend: measures; if the Redis's clock was stepped, nf:clock takes that back; the call is sent again

A step of an hour would expire waiting tasks, shut hosts, end leases or keep those of dead workers. So each process compares
the region's clock with a clock of its machine that nobody can step (CLOCK_BOOTTIME). The first process whose call is refused
takes the step back, unless another one has used the region's time since: then its own clock is the wrong one. A step
of less than ``STEP_MS``, and one that no process was there to see, is taken as the time.
"""

import math
import time
import weakref
from pathlib import Path
from typing import Any, Final

import redis

from regions import logs, names
from regions.lua_files import Folder
from regions.script import Script

LEASE_MS: Final = 5_000  # of a worker process
STEP_MS: Final = 3_000  # less than a lease, and more than a stalled machine delays a call
TURN_MS: Final = 5_000  # for which a process may hold a turn (jobs.queue.outbox, jobs.pool.scaler)
REFUSED: Final = "CLOCK"  # how a refusal begins

log = logs.get("clock")

_folder: Final = Folder(Path(__file__).with_name("lua"))
MEASURE: Final = Script(_folder.read("measure"))
TAKE_BACK: Final = Script(_folder.read("take_back"))


def boot_ms() -> int:
    """Milliseconds since this machine started, sleep included: nothing steps it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


_AHEAD_MS: Final = time.time_ns() // 1_000_000 - boot_ms()


def machine_ms() -> int:
    """The machine's clock when the process began, plus the time since: it ignores later steps."""
    return boot_ms() + _AHEAD_MS


class Clock:
    """A region's clock as a process knows it. Threads share it."""

    def __init__(self) -> None:
        self._is_known = False
        self.ahead_ms = 0  # how far it is ahead of this machine's; 0 before anything is known

    def note(self, now_ms: int, asked_ms: int, *, is_anew: bool = False) -> None:
        """Learns the region's time from a reply to a question of ``asked_ms`` (``machine_ms``). ``is_anew``: forget what was known.

        The reply was made between then and now, which may be long: a process that was stopped reads late. So the known
        offset changes only as much as it must to fit.
        """
        least, most = now_ms - machine_ms(), now_ms - asked_ms
        known = self.ahead_ms if self._is_known and not is_anew else least
        self.ahead_ms = min(max(known, least), most)
        self._is_known = True

    @property
    def ahead_of_boot_ms(self) -> int | None:
        """How far it is ahead of the time since this machine started, which all its processes have; None before it is known."""
        return self.ahead_ms + _AHEAD_MS if self._is_known else None

    def inherit(self, ahead_of_boot_ms: int) -> None:
        """Learns what another process of this machine knows. Else a step just before the first call would be taken as the time."""
        self.ahead_ms, self._is_known = ahead_of_boot_ms - _AHEAD_MS, True

    def now_ms(self) -> int:
        """The region's time."""
        return machine_ms() + self.ahead_ms

    def expected(self, wait_seconds: float) -> str:
        """When a call that is sent now may be run, as scripts read it; empty before anything is known."""
        if not self._is_known:
            return ""
        now_ms = self.now_ms()
        return f"{now_ms - STEP_MS} {now_ms + math.ceil(wait_seconds * 1000) + STEP_MS}"

    def mend(self, client: redis.Redis) -> None:
        """After a refusal: takes a step of the Redis's clock back, or learns that this process was wrong. Raises what redis-py raises."""
        for is_last in (False, True):
            asked_ms = machine_ms()
            own_ms, added = MEASURE.call(client, clock=names.CLOCK)
            unsure_ms = (machine_ms() - asked_ms) // 2
            now_ms = own_ms + added
            step = now_ms - (self.now_ms() - unsure_ms)
            is_wrong = False
            if abs(step) - unsure_ms < STEP_MS:
                break  # the call was late, or another process was quicker
            if step < 0:
                _sync_again(client)  # first: once the step is taken back no call is refused, and nobody would come here
            if _take_back(client, added, step):
                log.warning("the clock of the region's Redis was stepped", seconds=round(step / 1000, 1))
                return
            if is_last:
                log.warning(
                    "this process's clock was wrong; it follows the region's now", seconds=round(step / 1000, 1)
                )
                is_wrong = True
        self.note(now_ms, asked_ms, is_anew=is_wrong)


_clocks: dict[tuple[object, ...], Clock] = {}
_of_pools: weakref.WeakKeyDictionary[Any, Clock] = weakref.WeakKeyDictionary()


def clock_of(client: redis.Redis) -> Clock:
    """The clock of this Redis's region; all clients of one Redis have the same."""
    pool = client.connection_pool
    if (clock := _of_pools.get(pool)) is None:
        options = pool.connection_kwargs
        # Connections put their master first.
        there = sorted(options.get("hosts") or [(options.get("host"), options.get("port"))])
        clock = _clocks.setdefault((str(there), options.get("path"), options.get("db")), Clock())
        _of_pools[pool] = clock
    return clock


def region_ms(client: redis.Redis) -> int:
    """The region's time now, from its Redis. Raises what redis-py raises."""
    own_ms, added = MEASURE.call(client, clock=names.CLOCK)
    return int(own_ms + added)


def _take_back(client: redis.Redis, added: int, step: int) -> bool:
    is_taken = TAKE_BACK.call(
        client,
        clock=names.CLOCK,
        living=names.WORKERS,
        outbox_turn=names.OUTBOX_TURN,
        scale_turn=names.SCALE_TURN,
        added=added,
        step=step,
        least_ms=STEP_MS,
        lease_ms=LEASE_MS,
        turn_ms=TURN_MS,
        lease=names.lease(""),
    )
    return bool(is_taken)


def _sync_again(client: redis.Redis) -> None:
    """Makes a Redis whose clock went back sync its file: with everysec it would wait until its clock has caught up.

    Until then WAITAOF would not answer, and no bridge could ack. A sync at each write, for one write, sets that right
    (aof.c: ``flushAppendOnlyFile``).
    """
    try:
        said: Any = client.config_get("appendfsync")
        if said.get("appendfsync") != "everysec":
            return
        client.config_set("appendfsync", "always")
        try:
            client.set(names.FENCE, "clock")
        finally:
            client.config_set("appendfsync", "everysec")
    except redis.exceptions.ResponseError as error:
        mend = "CONFIG SET appendfsync always, then everysec"
        log.error(
            "the region's Redis does not sync its file until its clock has caught up", mend=mend, error=str(error)
        )
