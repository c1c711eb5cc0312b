"""The client of the hub's Redis, and its state: answering, away, full or refusing. A probing thread keeps the state current.

When the Redis freezes, the first callers run into their time-out (0.5 s) and mark it as away. All later calls are refused at
once, until the probe gets an answer. So a gateway of eight threads answers 503 within a second, however many clients ask.
"""

import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import redis

from regions import connect, durability, logs, names
from regions.latency import Latency, uneven
from regions.loop import Loop
from regions.script import send, value
from regions.settings import Settings
from web.hub.faults import RESTARTS, Found

FULL_AT: Final = 0.85  # of maxmemory, including the results that open tasks may still bring
FULL: Final = f"the hub's Redis is {FULL_AT:.0%} full, what open tasks bring included"
PROBE_SECONDS: Final = 0.25
CALM_SECONDS: Final = 1.0  # the same while all is well and no request came since the last probe
REQUEST_BYTES: Final = 3_300  # of a request without its attrs; docs/reference.md
TASK_BYTES: Final = 1_300  # of each of its tasks, without the result
FIRST_MEAN_BYTES: Final = 2_000.0  # of a result, before any have come
MEAN_WEIGHT: Final = 0.02  # of one result in the running mean of their sizes
LATE_SECONDS: Final = 0.1  # for the answer to a probe
LOST_SECONDS: Final = 60.0  # for which losses are counted
SHORT_OF_FILES: Final = "this gateway can open no more files, and so no connection to the hub's Redis"
BROKEN: Final = "the hub's Redis answered something unexpected"

log = logs.get("hub")


class HubUnavailable(Exception):  # noqa: N818
    """The hub's Redis can't take a request now: a 503. ``reason`` is for clients.

    ``is_refusal``: the server's error means that nothing was done.
    """

    is_refusal = False

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class HubAway(HubUnavailable):
    """The hub's Redis does not answer."""


class HubFull(HubUnavailable):
    """The hub's Redis has no room for the request."""

    is_refusal = True


class HubRefuses(HubUnavailable):
    """The hub's Redis answers, but takes no writes, or would lose them in a crash."""

    is_refusal = True


class HubDenied(HubUnavailable):
    """The gateway's Redis user lacks a right. A script may have done a part of its work before."""


class Hub:
    """The client of the hub's Redis, and its state.

    ``regained``: called on the probe's thread when the server is back after it was away or took no writes. ``rehearse`` does
    what an accept does, and raises if a right is missing. It is called after every outage, and repeatedly after an accept
    was denied.
    """

    def __init__(self, settings: Settings) -> None:
        self.client: redis.Redis = connect.open_redis(settings.hub.redis, name="gateway")
        self.regained: list[Callable[[], None]] = []
        self.rehearse: Callable[[], None] | None = None
        self._mean_bytes: dict[str, float] = {}  # of results, by region
        self.region_bytes_max = settings.limits.region_bytes_max  # 0 before the first probe: no limit then
        self._regions = settings.region  # changes while the gateway runs
        self._is_shared = not settings.limits.region_bytes_max  # the regions' room is a share of maxmemory
        self._probe: redis.Redis = connect.open_redis(settings.hub.redis, name="gateway-probe", connections=1)
        self._durability = settings.hub.durability
        self._away: str | None = "not reached yet"
        self._full: str | None = None
        self._refusal: str | None = None  # why it takes no writes
        self._short: str | None = None  # why it would lose accepted requests in a crash
        self._denied: str | None = None  # why it denies an accept
        self._used = 0  # bytes in use at the last probe
        self._expected = 0.0  # the same with those that open tasks bring
        self._limit = 0.0  # maxmemory, in bytes
        self._admitted = 0.0  # bytes of requests since then
        self._latency = Latency(LATE_SECONDS)
        self._lost_at: deque[float] = deque(maxlen=100)  # when it was lost (monotonic)
        self._restarted_at: deque[float] = deque(maxlen=100)  # when another process than before answered
        self._run_id = ""
        self._lock = threading.Lock()
        self._is_calm = False
        self._loop = Loop("hub-probe", self._turn)

    @property
    def state(self) -> str | None:
        """None when requests can be taken, otherwise why not."""
        return self._away or self._denied or self._refusal or self._short or self._full

    def faults(self) -> list[Found]:
        """What is wrong with the server, by name; the gravest fault alone."""
        away = "gateway-connections-full" if self._away == SHORT_OF_FILES else "hub-redis-away"
        known = (
            (away, self._away),
            ("hub-redis-denied", self._denied),
            ("hub-redis-refuses-writes", self._refusal),
            ("hub-redis-not-durable", self._short),
            ("hub-redis-full", self._full),
        )
        found = [Found(name, reason) for name, reason in known if reason is not None][:1]
        now = time.monotonic()
        lost = max(sum(at > now - LOST_SECONDS for at in tuple(of)) for of in (self._lost_at, self._restarted_at))
        if lost >= RESTARTS:
            found.append(
                Found("hub-redis-restarts", f"the hub's Redis comes and goes: it was lost {lost} times in a minute")
            )
        if self._away is None and self._latency.is_slow:
            slow = f"the hub's Redis is slow: it takes up to {self._latency.seconds * 1000:.0f} ms to answer"
            found.append(Found("hub-redis-slow", slow))
        return found

    @property
    def away(self) -> str | None:
        """None when the server answers, otherwise why it counts as away."""
        return self._away

    @property
    def memory(self) -> tuple[int, float, float]:
        """Bytes at the last probe: those in use, the same with what open tasks bring, and maxmemory (0 for no limit)."""
        with self._lock:
            return self._used, self._expected, self._limit

    def check(self) -> None:
        """Raises a ``HubUnavailable`` at once when no request can be taken now."""
        if self._away is not None:
            raise HubAway(self._away)
        if (reason := self._denied or self._refusal or self._short) is not None:
            raise HubRefuses(reason)
        if self._full is not None:
            raise HubFull(self._full)

    def mean_result_bytes(self, region: str) -> float:
        """The expected size of a task's result: a running mean for each region, so that no region distorts another's."""
        return self._mean_bytes.get(region, FIRST_MEAN_BYTES)

    def admit(self, regions: Sequence[str], extra_bytes: int) -> None:
        """Raises like ``check``, and ``HubFull`` if the request with its results would fill the server past ``FULL_AT``.

        ``regions``: the region of each task; ``extra_bytes``: of its attrs and its webhook. Requests that were admitted since the last probe count as well.
        """
        self.check()
        cost = REQUEST_BYTES + extra_bytes + sum(TASK_BYTES + self.mean_result_bytes(region) for region in regions)
        with self._lock:
            if self._limit and self._expected + self._admitted + cost > FULL_AT * self._limit:
                raise HubFull(FULL)
            self._admitted += cost

    @contextmanager
    def asking(self) -> Iterator[redis.Redis]:
        """The client, for calls that may fail: redis-py's errors become ``HubUnavailable``."""
        if self._away is not None:
            raise HubAway(self._away)
        try:
            yield self.client
        except connect.AWAY as error:
            self.lost(error)
            raise HubAway(self._away or "does not answer") from error
        except redis.exceptions.OutOfMemoryError as error:
            self._full = "the hub's Redis is full"
            raise HubFull(self._full) from error
        except redis.exceptions.ResponseError as error:
            if connect.is_denied(error):
                raise HubDenied(denial(error)) from error
            if not connect.refuses_writes(error):
                raise
            self._refusal = f"the hub's Redis takes no writes: {error}"
            raise HubRefuses(self._refusal) from error

    @contextmanager
    def accepting(self) -> Iterator[redis.Redis]:
        """Like ``asking``. After a denied accept, all further ones are refused until the probe finds that they are permitted."""
        try:
            with self.asking() as client:
                yield client
        except HubDenied as error:
            if self._denied is None:
                log.error("redis denies an accept", reason=error.reason)
            self._denied = error.reason
            raise

    def lost(self, error: Exception) -> None:
        """Marks the server as away. Called by code whose call got no answer."""
        is_short = _is_short_of_files(error)
        if self._away is None:
            if not is_short:
                self._lost_at.append(time.monotonic())
            log.warning("redis away", error=str(error))
        was, self._away = self._away, SHORT_OF_FILES if is_short else "the hub's Redis does not answer"
        if was is None:
            self._loop.wake()  # the probe sleeps for long while all is calm

    def observe(self, region: str, result_bytes: int) -> None:
        """Counts the size of a result, for the estimate of what open tasks will bring."""
        mean = self.mean_result_bytes(region)
        self._mean_bytes[region] = mean + MEAN_WEIGHT * (result_bytes - mean)

    def start(self) -> None:
        """Probes once, so that the state is known, then goes on in a thread."""
        self.run_once()
        self._loop.start(self._pause_seconds())

    def stop(self) -> None:
        """Ends the probe and closes the connections."""
        self._loop.stop()
        self._probe.close()
        self.client.close()

    def _turn(self) -> float:
        try:
            self.run_once()
        except Exception:
            self._loop.failures += 1
            log.exception("probing failed")
        return self._pause_seconds()

    def _pause_seconds(self) -> float:
        if self._loop.failures:
            return connect.backoff_seconds(self._loop.failures)
        return CALM_SECONDS if self._is_calm else uneven(PROBE_SECONDS)

    def run_once(self) -> None:
        """Probes once whether the server answers, has room, and would keep its data."""
        admitted = self._admitted  # the reply may not include later ones
        self._is_calm = False
        try:
            regions = list(self._regions)
            counts = [("ZCARD", names.open_tasks(region)) for region in regions]
            asked = [("INFO", "memory", "persistence", "replication", "server"), *counts]
            began = time.monotonic()
            reply, *open_tasks = map(value, send(self._probe, asked, []))
            self._latency.add(time.monotonic() - began)
            info = connect.info(reply)
            if self._away is not None or self._short is not None or info["aof_enabled"] == "0":
                self._short = self._shortfall()
        except redis.exceptions.RedisError as error:
            self._loop.failures += 1
            self._latency.clear()
            self.lost(error)
            return
        self._loop.failures = 0
        if self._run_id not in ("", info["run_id"]):
            self._restarted_at.append(time.monotonic())
        self._run_id = info["run_id"]
        refused, self._refusal = self._refusal, refusal(info)
        if info["role"] != "master":  # another host of the list is the master, or will be
            self._probe.connection_pool.disconnect()
            self.client.connection_pool.disconnect(inuse_connections=False)
        if self._refusal is not None and refused is None:
            log.warning("redis takes no writes", reason=self._refusal)
        used, limit = int(info["used_memory"]), int(info["maxmemory"])
        if self._is_shared:
            # A maxmemory below the used memory already makes the hub full for all regions. A share of it would also fail
            # the results that regions have sent.
            room = max(limit, used) if limit else 0
            is_lowered = 0 < limit < used
            share = int(share_of_region(len(regions)) * room)
            self.region_bytes_max = max(share, self.region_bytes_max if is_lowered else 0)
        brought = [count * self.mean_result_bytes(region) for region, count in zip(regions, open_tasks, strict=True)]
        coming = sum(min(of, self.region_bytes_max or of) for of in brought)  # no region may hold more
        with self._lock:
            self._used, self._expected, self._limit = used, used + coming, limit
            self._admitted -= admitted
        is_full = limit > 0 and used + coming > FULL_AT * limit
        self._full = FULL if is_full else None
        was = self._away or (refused if self._refusal is None else None)
        if was is not None:
            self.client.connection_pool.disconnect(inuse_connections=False)  # they were made before the outage
        if self._away is not None or self._denied is not None:
            self._rehearse()  # on a new connection, which is then ready for the first request
        if was is not None:
            log.info("redis reached", was=was)
            self._away = None
            for call in self.regained:
                call()
        self._is_calm = not admitted and self.state is None and self._latency.is_quick

    def _rehearse(self) -> None:
        was, found = self._denied, None
        try:
            if self.rehearse is not None:
                self.rehearse()
        except redis.exceptions.RedisError as error:  # for other errors, the next call finds out why
            found = denial(error) if connect.is_denied(error) else None
        self._denied = found
        if was is None and found is not None:
            log.error("redis denies an accept", reason=found)
        elif was is not None and found is None:
            log.info("redis permits accepts again", was=was)

    def _shortfall(self) -> str | None:
        """Why the server would lose accepted requests, logged when it is new. None if it would not, or is permitted to."""
        try:
            check_durability(self._probe, self._durability)
        except durability.NotDurable as error:
            if error.reason != self._short:
                log.error("redis not durable", reason=str(error))
            return error.reason
        return None


def share_of_region(regions: int) -> float:
    """The share of maxmemory that one region may hold: twice an equal share of the room, or all of it for a single region.

    However much one region takes, each other one keeps at least half of an equal share; and one region can do most of the work.
    """
    return FULL_AT * 2 / (regions + 1)


def check_durability(client: redis.Redis, kind: str) -> durability.Found:
    """How durable the hub's Redis is. Raises ``NotDurable``, or what redis-py raises."""
    return durability.check(client, "the hub's Redis", kind, "hub.durability")


def reason_of(error: Exception) -> str:
    """The reason that clients get for an error at the hub. An unexpected error is logged."""
    if isinstance(error, HubUnavailable):
        return error.reason
    log.error("unexpected reply of the hub", exc_info=error)
    return BROKEN


def denial(error: Exception) -> str:
    """The reason that clients get for a NOPERM."""
    return f"the hub's Redis does not permit it: {error}"


def refusal(info: Mapping[str, Any]) -> str | None:
    """Why a Redis takes no writes, from its INFO; None when it does."""
    if info["role"] != "master":
        return "the hub's Redis is a replica and takes no writes"
    if info["aof_last_write_status"] != "ok":
        return "the hub's Redis can't write its append-only file; is its disk full?"
    return None


def _is_short_of_files(error: BaseException) -> bool:
    """Whether a connection failed because this process, or its host, may open no more files."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in (errno.EMFILE, errno.ENFILE):
            return True
        found = found.__cause__ or found.__context__
    return False
