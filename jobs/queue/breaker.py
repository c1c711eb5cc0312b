"""Hosts in trouble: a breaker for each host, which all workers of a region share, and what hosts ask for in their headers.

    Runner ── SLOW       429 or 503 with Retry-After: no task fetches from the host until then
           ── FAILED     ten failures in a row, or a wall: open. The host is left alone, and its tasks fail with the reason
           ── RECOVERED  the one task that was let through brought an answer: closed

Open and half-open use the same gate as the rate (host_queue.lua): the time of a host's next fetch. When that of an open host
has come, one task is let through, and no other one until it ends, or for 30 s.
"""

import random
from collections.abc import Sequence
from typing import Final

import redis

from jobs.errors import Blocked, TaskError
from jobs.queue.clock import region_ms
from jobs.queue.script import Script, load
from regions import logs, names
from regions.script import send, value

FAILURES_MAX: Final = 10  # in a row; then it opens
FIRST_SECONDS: Final = 5.0  # the ceiling of how long a host is left alone; it doubles with each try that failed
MAX_SECONDS: Final = 300.0
SHARE: Final = (0.5, 1.0)  # of a ceiling, at random: regions and hosts do not come back together
SLOW_MAX_SECONDS: Final = 3_600.0
WHY_MAX: Final = 300  # characters
SHOWN_MAX: Final = 100  # hosts
OPEN_HOSTS: Final = ("ZRANGE", names.OPEN, 0, SHOWN_MAX - 1, "REV")

log = logs.get("breaker")

SLOW: Final = load("slow")
DELAY: Final = load("delay")
FAILED: Final = load("failed")
RECOVERED: Final = load("recovered")


class Breakers:
    """The breakers of a region's hosts, shared by its processes. Raises nothing: if the Redis is away, the next failure counts."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def slow(self, host: str, seconds: float) -> None:
        """The host asked to be left alone for this time, of which an hour at most counts."""
        self._call(SLOW, host, ms=int(min(seconds, SLOW_MAX_SECONDS) * 1000))

    def delay(self, host: str, seconds: float) -> None:
        """The host asks for this time between two fetches."""
        self._call(DELAY, host, ms=int(min(seconds, SLOW_MAX_SECONDS) * 1000))

    def failed(self, host: str, error: TaskError) -> None:
        """A fetch of the host ended with an error that ``is_the_hosts``."""
        kind, is_wall = type(error).type, isinstance(error, Blocked)
        many = "a wall stands before it" if is_wall else f"{FAILURES_MAX} fetches or more failed in a row"
        why = f"{many}, the last one: {kind}: {error}"[:WHY_MAX]
        open_ms = self._call(
            FAILED,
            host,
            kind=kind,
            why=why,
            failures_max=1 if is_wall else FAILURES_MAX,
            first_ms=int(FIRST_SECONDS * 1000),
            max_ms=int(MAX_SECONDS * 1000),
            share=f"{random.uniform(*SHARE):.3f}",
            asked_ms=int(min(error.retry_after or 0.0, SLOW_MAX_SECONDS) * 1000),
        )
        if open_ms:
            log.warning("leaving a host alone", host=host, seconds=round(open_ms / 1000, 1), why=why)

    def recovered(self, host: str) -> None:
        """A fetch of the host brought an answer."""
        if self._call(RECOVERED, host):
            log.info("a host answers again", host=host)

    def _call(self, script: Script, host: str, **arguments: str | int) -> int:
        try:
            return int(script.call(self._client, name=host, **arguments) or 0)
        except redis.exceptions.RedisError as error:
            log.info("can't report the state of a host", host=host, error=str(error))
            return 0


def open_hosts(client: redis.Redis, found: Sequence[bytes] | None = None) -> dict[str, tuple[float, str]]:
    """The hosts that are left alone: for how many seconds more, and why. Raises what redis-py raises.

    ``found``: the reply to ``OPEN_HOSTS``, if the caller has asked that together with other questions.
    """
    if found is None:
        found = value(send(client, [OPEN_HOSTS], [])[0])
    asks = [("HMGET", names.host(host.decode()), "next", "why") for host in found]
    replies = send(client, asks, []) if asks else []
    now_ms = region_ms(client) if asks else 0
    closed = {}
    for host, reply in zip(found, replies, strict=True):
        until, why = value(reply)
        if why is not None:
            closed[host.decode()] = max(0.0, (float(until or 0) - now_ms) / 1000), why.decode("utf-8", "replace")
    return closed
