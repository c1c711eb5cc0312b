"""Which tasks wait in the region's Redis, and for what. The hub tells this to clients that ask where a task is."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import redis
from msgspec import Struct

from jobs.contract import PUT_BACK
from jobs.queue.clock import clock_of
from jobs.queue.retry import read_past
from regions import names
from regions.script import send, value

TOLD_MAX: Final = 50  # tasks in one report
LEAST_MS: Final = 1_000  # for how long a task must have waited
HOST_MAX: Final = 100  # characters
FIELDS: Final = (
    "status", names.JOB_REQUEST, names.JOB_SINCE, names.JOB_JOINED, names.JOB_BRIDGED, names.JOB_HOST, names.JOB_PAST,
)  # fmt: skip


class Wait(Struct, array_like=True, frozen=True):
    """A task that waits since ``since_ms`` (hub ms); ``why`` is for people."""

    task: str
    since_ms: int
    why: str


def first(region: str) -> tuple[Any, ...]:
    """The command that finds these tasks."""
    return ("ZRANGE", names.rq_registry("scheduled", region), 0, TOLD_MAX - 1)


def waits(client: redis.Redis, region: str, hub_ms: int, found: Sequence[bytes] | None = None) -> list[Wait]:
    """Some tasks that wait, in the order in which their waits end. ``hub_ms``: the hub's clock now. Raises ``RedisError``'s.

    ``found``: the reply to ``first``, if the caller has asked that together with other questions.
    """
    if found is None:
        found = value(send(client, [first(region)], [])[0])
    if not found:
        return []
    replies = send(client, [("HMGET", names.rq_job(task.decode()), *FIELDS) for task in found], [])
    ahead_ms = hub_ms - clock_of(client).now_ms()
    told = [_wait(task.decode(), value(reply), ahead_ms) for task, reply in zip(found, replies, strict=True)]
    return [one for one in told if one is not None and hub_ms - one.since_ms >= LEAST_MS]


def _wait(task: str, fields: Sequence[Any], ahead_ms: int) -> Wait | None:
    status, request, since, joined, bridged, host, past = (field or b"" for field in fields)
    if status != b"scheduled" or not request:
        return None
    if since:
        return Wait(task, int(since) + ahead_ms, f"for the turn of {host.decode()[:HOST_MAX]}")
    if joined:
        return Wait(task, int(bridged or 0), "for the answer of another task that asks the same")
    try:
        attempts = read_past(past)
    except msgspec.DecodeError:
        return None
    if not attempts:
        return None
    last = attempts[-1]
    why = "to be claimed again" if last.error == PUT_BACK else f"to be tried again after {last.error}"
    return Wait(task, last.ended_ms + ahead_ms, why)
