"""RQ's queue of webhooks on the hub's Redis: claims, and how calls ended. Its scripts stand in ``jobs/webhook/lua``.

RQ's tools see each job as queued, started, scheduled for its next attempt, finished or failed. But what counts is the webhook's own
hash and its place in ``nf:webhooks``: a job that is lost is made again by a gateway (web.flow.webhooks).
"""

import os
import time
from pathlib import Path
from typing import Any, Final, Literal

import redis
from msgspec import Struct

from jobs import contract
from regions import connect, names
from regions.lua_files import Folder
from regions.script import Script, send, value

FAR_SECONDS: Final = 365 * 86_400  # RQ would fail a started job whose time is over
LOOKS_MAX: Final = 1_000  # jobs that one claim looks at

How = Literal["delivered", "failed", "again", "put off"]

_folder: Final = Folder(
    Path(__file__).with_name("lua"),
    {
        "WEBHOOKS": names.WEBHOOKS,
        "WEBHOOK": names.webhook(""),
        "JOB": names.rq_job(""),
        "FAR_SECONDS": FAR_SECONDS,
        "LOOKS_MAX": LOOKS_MAX,
    },
)


class _Claimed(Struct, frozen=True):
    request: bytes
    tenant: bytes
    url: bytes
    secret: bytes
    body: bytes
    attempt: int


class Job(Struct, frozen=True):
    """A webhook that is to be called now. ``body`` is packed by zlib; ``attempt`` counts from 1."""

    request: str
    nonce: str
    tenant: str
    url: str
    secret: str
    body: bytes
    attempt: int

    def __repr__(self) -> str:
        return f"Job({self.request!r}, attempt={self.attempt})"


def _load(name: str, **rows: type[Any]) -> Script:
    return Script(_folder.read(name, flags="", **rows))


CLAIM: Final = _load("claim", claimed=_Claimed)
ENDED: Final = _load("ended")


class Queue:
    """The queue for one process, which calls itself ``name``. ``lease_ms``: how long a call may take. Raises what redis-py raises."""

    def __init__(self, client: redis.Redis, blocking: redis.Redis, name: str, lease_ms: int) -> None:
        """``blocking`` waits for jobs; its time-out must be longer than any wait."""
        self._client, self._blocking, self._name, self._lease_ms = client, blocking, name, lease_ms
        self._queue = names.rq_queue(names.WEBHOOK_QUEUE)
        self._registries = {
            kind: names.rq_registry(kind, names.WEBHOOK_QUEUE) for kind in ("wip", "finished", "failed", "scheduled")
        }

    def claim(self, count: int, wait_seconds: float = 0.0) -> list[Job]:
        """Waits for a job without taking it, then takes up to ``count``. A job whose claim had no answer is called after the lease."""
        nonce = os.urandom(8).hex()
        claim = CLAIM.command(
            queue=self._queue,
            wip=self._registries["wip"],
            senders=names.WEBHOOK_SENDERS,
            name=self._name,
            count=count,
            lease_ms=self._lease_ms,
            nonce=nonce,
            sender_ms=names.WEBHOOK_SENDER_MS,
            stamp=contract.rq_time(time.time()),
        )
        wait: list[tuple[Any, ...]] = (
            [("BLMOVE", self._queue, self._queue, "LEFT", "LEFT", wait_seconds)] if wait_seconds else []
        )
        *waited, reply = send(self._blocking if wait else self._client, [*wait, claim], [CLAIM])
        found = [_job(_Claimed(*row), nonce) for row in value(reply)]
        if not found and waited and isinstance(waited[0], Exception):
            raise waited[0]  # a full Redis can't wait
        return found

    def ended(
        self,
        job: Job,
        how: How,
        *,
        status: int | None,
        error: str,
        took_seconds: float = 0.0,
        wait_seconds: float = 0.0,
    ) -> str:
        """Notes how a call ended; sending that again is harmless. Returns what the webhook is then, "" if the call did not count."""
        found = ENDED.call(
            self._client,
            webhook=names.webhook(job.request),
            job=names.rq_job(job.request),
            **self._registries,
            request=job.request,
            nonce=job.nonce,
            how=how,
            status="" if status is None else status,
            error=error,
            took_ms=int(took_seconds * 1000),
            wait_ms=int(wait_seconds * 1000),
            kept_ms=names.WEBHOOK_KEPT_MS,
            stamp=contract.rq_time(time.time()),
        )
        return str(found.decode())

    def leave(self) -> None:
        """Says that the process is gone."""
        self._client.zrem(names.WEBHOOK_SENDERS, self._name)


def open_queue(url: str, name: str, lease_ms: int, wait_seconds: float, threads: int) -> Queue:
    """The queue on the hub's Redis at ``url``, for waits of up to ``wait_seconds``."""
    blocking = connect.open_redis(url, name=name, block_seconds=wait_seconds, connections=1)
    return Queue(connect.open_redis(url, name=name, connections=threads + 1), blocking, name, lease_ms)


def _job(row: _Claimed, nonce: str) -> Job:
    told = (one.decode() for one in (row.tenant, row.url, row.secret))
    tenant, url, secret = told
    return Job(row.request.decode(), nonce, tenant, url, secret, row.body, row.attempt)
