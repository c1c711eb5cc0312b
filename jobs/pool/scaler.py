"""Lets the pools of a region agree on the number of worker processes, through the region's Redis, on whatever host they are.

    run_once ── look: registers this pool and its processes; reads the other pools, which one leads, and the load
      ├ the leader: jobs.pool.scale.decide, then writes number, reason and each pool's share in one fenced write
      └ every pool: takes its share of the last decision

Leadership is a lease: when the leader dies, another pool goes on from what is written. While the Redis is away, every pool
keeps its share.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import redis
from msgspec import Struct

from jobs.contract import DAY_MINUTES, Minute, rfc3339
from jobs.pool.day import Tally, count
from jobs.pool.scale import Decision, Observation, State, Wish, decide, describe, share
from jobs.queue.clock import clock_of, machine_ms
from jobs.queue.script import load
from regions import logs, names
from regions.faults import Faults
from regions.loop import Loop
from regions.schedule import Scale, bounds_at, next_change
from regions.settings import Region

LOOK_SECONDS: Final = 1.0
CALM_SECONDS: Final = 2.0  # the same while no task waits or runs and all processes are there
READ_SECONDS: Final = 2.0  # between two reads of the region's file
WRITE_SECONDS: Final = 5.0  # between two writes of a decision that changes nothing, while it is calm
PROCESSORS: Final = len(os.sched_getaffinity(0))
SAMPLES: Final = 16  # jobs of the queue that are looked at to find the oldest; urgent tasks stand before older ones

log = logs.get("workers")

LOOK: Final = load("scale_look")
DECIDE: Final = load("scale_decide")
LEAVE: Final = load("scale_leave")


class Pool(Struct, frozen=True):
    """What a pool reports: how many of its processes claim, how many it has, and its region's ``[scale]`` table.

    ``computing``: processors that its processes use. ``processors``: those that its machine has for it.
    """

    ready: int
    processes: int
    scale: Scale
    computing: float = 0.0
    processors: int = 0


@dataclass(frozen=True, slots=True)
class Processes:
    """A pool's processes: how many claim, how many there are, and the CPU seconds that each has used, by its pid."""

    ready: int
    count: int
    cpu_seconds: dict[int, float]


class Decided(Struct, frozen=True):
    """What the leader writes to the region's Redis: the state, each pool's share, and the current minute."""

    state: State
    shares: dict[str, int]
    tally: Tally | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """A region as its Redis shows it. ``leader`` is the pool that decides, or "". ``has_urgent``: it had urgent tasks lately."""

    seen: Observation
    leader: str
    pools: dict[str, Pool]
    decided: Decided | None
    wish: Wish | None
    has_urgent: bool


_pool: Final = msgspec.json.Decoder(Pool)
_decided: Final = msgspec.json.Decoder(Decided)
_wish: Final = msgspec.json.Decoder(Wish)


def look(client: redis.Redis, region: str, threads: int, name: str = "", report: Pool | None = None) -> Look:
    """A region's load and pools. With a name, it also registers that pool. Raises ``RedisError``'s."""
    asked_ms = machine_ms()
    reply = LOOK.call(
        client,
        pools=names.POOLS,
        turn=names.SCALE_TURN,
        scale=names.SCALE,
        wish=names.SCALE_WISH,
        queue=names.rq_queue(region),
        urgent=names.rq_queue(names.urgent(region)),
        urgent_seen=names.URGENT_SEEN,
        wip=names.rq_registry("wip", region),
        counters=names.COUNTERS,
        outbox_bytes=names.OUTBOX_BYTES,
        name=name,
        about=msgspec.json.encode(report) if report else b"",
        samples=SAMPLES,
    )
    now_ms, leader, alive, decided, wish, waiting, running, ended, hold, times, has_urgent = reply
    clock_of(client).note(now_ms, asked_ms)
    pools = {key.decode(): _report_of(text) for key, text in zip(alive[::2], alive[1::2], strict=True)}
    began = [when for text in times if (when := _when(text.decode())) is not None]
    at = now_ms / 1000
    seen = Observation(
        at=at,
        waiting=waiting,
        oldest_seconds=round(max(0.0, at - min(began)), 3) if began else 0.0,
        running=running,
        ended=ended,
        ready=sum(pool.ready for pool in pools.values()),
        threads=threads,
        hold=hold.decode(),
        computing=sum(pool.computing for pool in pools.values()),
        processors=sum(pool.processors for pool in pools.values()),
    )
    return Look(
        seen,
        (leader or b"").decode(),
        pools,
        _read(_decided, decided),
        _read(_wish, wish),
        bool(has_urgent),
    )


class Scaler:
    """A thread of the pool. ``share`` is how many processes the pool should have; ``has_urgent`` as in ``Look``."""

    def __init__(
        self,
        region: Region,
        client: redis.Redis,
        name: str,
        processes: Callable[[], Processes],
        *,
        reload: Callable[[], Scale] | None = None,
        clock: Callable[[], float] = time.time,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """``processes`` returns the pool's. ``reload`` reads the region's ``[scale]`` again.

        Schedule rules follow ``clock``, in seconds since the epoch. ``changed`` is called when the number, or this pool's share of it, changed,
        and when ``has_urgent`` did.
        """
        self._region, self._client, self._name = region.name, client, name
        self._threads, self._scale = region.workers.threads, region.scale
        self._processes, self._reload, self._clock, self._changed = processes, reload, clock, changed
        self._fault = ""
        self._cpu: dict[int, float] = {}
        self._cpu_at = time.monotonic()
        self._read_at = time.monotonic()
        self._differ: list[str] = []
        self._logged: tuple[Decision, ...] = ()
        self._is_away = self._is_calm = False
        self._view: dict[str, Any] = {}
        self._oldest_seconds = 0.0
        self.share, self.has_urgent = 0, False
        self._loop = Loop("scaler", self._turn, end_seconds=5 * LOOK_SECONDS)

    def start(self) -> None:
        """Joins the region's pools, then goes on in a thread."""
        self._loop.start(self._turn())

    def stop(self) -> None:
        """Leaves the region's pools, so that the others take over this pool's share at once."""
        self._loop.stop()
        try:
            LEAVE.call(self._client, pools=names.POOLS, turn=names.SCALE_TURN, name=self._name)
        except redis.exceptions.RedisError as error:
            log.info("can't leave the region's pools", region=self._region, error=str(error))

    def _turn(self) -> float:
        self.run_once()
        return CALM_SECONDS if self._is_calm else LOOK_SECONDS

    def run_once(self) -> None:
        """Looks once, and decides if this pool leads. While the Redis is away the share stays."""
        self._is_calm = False
        self._read_file()
        report = self._report()
        try:
            found = look(self._client, self._region, self._threads, self._name, report)
            if found.leader == self._name:
                decided = self._decide(found)
            else:
                decided = found.decided
                self._logged = decided.state.recent[-1:] if decided else ()  # the leader logs it
        except redis.exceptions.RedisError as error:
            if not self._is_away:
                log.warning("can't scale, the number of processes stays", region=self._region, error=str(error))
            self._is_away = True
            return
        self._is_away = False
        self._oldest_seconds = found.seen.oldest_seconds
        if found.has_urgent != self.has_urgent:
            self.has_urgent = found.has_urgent
            self._changed()
        if decided is not None:
            self._view = view(found, decided)
            was, self.share = self.share, decided.shares.get(self._name, self.share)
            if self.share != was:
                self._changed()
            self._is_calm = self.share == was and _is_calm(found.seen, decided.state)

    def _report(self) -> Pool:
        found, now = self._processes(), time.monotonic()
        used = sum(seconds - self._cpu.get(pid, seconds) for pid, seconds in found.cpu_seconds.items())
        passed, self._cpu, self._cpu_at = now - self._cpu_at, found.cpu_seconds, now
        return Pool(found.ready, found.count, self._scale, round(used / max(passed, 0.1), 2), PROCESSORS)

    def status(self) -> dict[str, Any]:
        """What the hub is told of the number of processes, and of how long the oldest task waits."""
        fault = {"fault": self._fault} if self._fault else {}
        return {
            "oldest_seconds": self._oldest_seconds,
            "target_seconds": self._scale.target_wait_seconds,
            "share": self.share,
            **({"scale": self._view | fault} if self._view else {}),
        }

    def _decide(self, found: Look) -> Decided | None:
        """Decides and writes the decision. None when another pool leads by now."""
        before = found.decided.state if found.decided else None
        bounds = bounds_at(self._scale, self._clock())
        state = decide(before, found.seen, bounds, self._scale, found.wish)
        tally, minute = count(found.decided.tally if found.decided else None, found.seen, state)
        shares = share(state.number, {name: pool.processes for name, pool in found.pools.items()})
        decided = Decided(state, shares, tally)
        over = msgspec.json.encode(minute) if minute else b""
        self._compare(found.pools)
        if not over and _says_nothing(decided, found):
            return found.decided
        is_written = DECIDE.call(
            self._client,
            turn=names.SCALE_TURN,
            scale=names.SCALE,
            day=names.DAY,
            name=self._name,
            decided=msgspec.json.encode(decided),
            minute=over,
            minutes_kept=DAY_MINUTES,
        )
        if not is_written:
            return None
        self._log_decision(state.recent[-1:])
        return decided

    def _log_decision(self, last: tuple[Decision, ...]) -> None:
        """Logs each decision once, also when the reply to its write was lost."""
        if last and last != self._logged:
            log.info("scaled", region=self._region, was=last[0].was, number=last[0].number, reason=last[0].reason)
            self._changed()
        self._logged = last

    def _compare(self, pools: dict[str, Pool]) -> None:
        """Logs a warning when other pools have another ``[scale]`` than this one, the leader."""
        differ = sorted(name for name, pool in pools.items() if pool.scale != self._scale)
        if differ and differ != self._differ:
            log.warning("pools have another [scale] than the one that decides", region=self._region, pools=differ)
        self._differ = differ

    def _read_file(self) -> None:
        if self._reload is None or time.monotonic() - self._read_at < READ_SECONDS:
            return
        self._read_at = time.monotonic()
        try:
            scale = self._reload()
        except Faults as faults:
            if str(faults) != self._fault:
                log.error("the settings are wrong; [scale] stays as it was", region=self._region, faults=str(faults))
            self._fault = str(faults)
            return
        if scale != self._scale:
            log.info("read a changed [scale]", region=self._region, scale=msgspec.to_builtins(scale))
        self._scale, self._fault = scale, ""


def _is_calm(seen: Observation, state: State) -> bool:
    """Whether a region has nothing to do, and all its processes."""
    return not seen.waiting and not seen.running and seen.ready == state.number


def _says_nothing(decided: Decided, found: Look) -> bool:
    """Whether a decision need not be written: the last one is recent and says the same except for averages, and all is calm."""
    last, new = found.decided, decided.state
    if last is None or not _is_calm(found.seen, new) or found.seen.at - last.state.load.at >= WRITE_SECONDS:
        return False
    before = (last.state.number, last.state.bounds, last.state.recent, last.shares)
    return before == (new.number, new.bounds, new.recent, decided.shares)


def view(found: Look, decided: Decided) -> dict[str, Any]:
    """How many processes a region has and why, as ``/v1/regions/{region}`` shows it."""
    state, wish = decided.state, found.wish
    least, most = state.bounds
    return {
        "at_ms": round(found.seen.at * 1000),
        "number": state.number,
        "ready": found.seen.ready,
        "needed": state.needed,
        "min": least,
        "max": most,
        "load": describe(found.seen, state.load),
        "decided_by": found.leader,
        "asked": {"number": wish.number, "until": wish.shown_until} if wish else None,
        "decisions": [
            {"at": rfc3339(round(one.at * 1000)), "was": one.was, "number": one.number, "reason": one.reason}
            for one in reversed(state.recent)
        ],
    }


def ask(client: redis.Redis, scale: Scale, number: int, now: float) -> Wish:
    """Asks for a number of processes until the next rule begins. Returns what it wrote. Raises ``RedisError``'s."""
    change = next_change(scale, now)
    if change is None:
        wish = Wish(number)
        client.set(names.SCALE_WISH, msgspec.json.encode(wish))
        return wish
    when, rule = change
    wish = Wish(number, when, f"{rfc3339(round(when * 1000))[:16]}Z, when the rule {rule} begins")
    client.set(names.SCALE_WISH, msgspec.json.encode(wish), px=max(1, round((when - now) * 1000)))
    return wish


def day(client: redis.Redis) -> list[Minute]:
    """The recorded minutes of the region's last day. Raises ``RedisError``'s."""
    entries: Any = client.xrange(names.DAY)
    return [msgspec.json.decode(fields[b"d"], type=Minute) for _, fields in entries][-DAY_MINUTES:]


def _when(text: str) -> float | None:
    """A time as RQ writes it, in seconds since the epoch; None for anything else."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _report_of(text: bytes) -> Pool:
    """A pool's report. One that another version wrote may have keys that are not known here: such a pool counts without processes."""
    try:
        return _pool.decode(text)
    except msgspec.MsgspecError:
        return Pool(0, 0, Scale())


def _read(decoder: Any, text: bytes | None) -> Any:
    """The value of a key. None when there is none, or when another version wrote it."""
    try:
        return None if text is None else decoder.decode(text)
    except msgspec.MsgspecError as error:
        log.warning("can't read the stored number of processes", error=str(error))
        return None
