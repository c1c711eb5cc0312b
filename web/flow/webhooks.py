"""Gives the webhooks of ended requests to the processes that call them (jobs.webhook), as RQ jobs on the hub's Redis.

    settle or accept ── nf:webhooks ── run_once: take, make the message, wait for the hub's file ── job in RQ's queue
                             └──────── the next look: after a failed call, or where the job, its process or this gateway was lost

A webhook leaves ``nf:webhooks`` only by an answer of its receiver, or when no attempt is left. So it is called at least once. A job
names the request alone: address, secret and message stay in the webhook's hash.
"""

import time
import zlib
from collections.abc import Callable
from typing import Final

import msgspec
import redis

from jobs import contract
from regions import durability, logs, names
from regions.loop import Loop
from regions.script import send, value
from regions.settings import Settings
from web.flow.kept import is_written
from web.hub import scripts
from web.hub.faults import Found
from web.hub.redis import Hub, HubUnavailable
from web.hub.view import View, view_without_results

EVERY_SECONDS: Final = 0.5
CALM_SECONDS: Final = 2.0  # the same after a look that found nothing, unless something is due earlier
LEAST_SECONDS: Final = 0.05
LEASE_MS: Final = 10_000  # longer than one batch can take
LOOK_MS: Final = 60_000  # until a webhook whose job waits in the queue is looked at again
BATCH: Final = 100

log = logs.get("webhooks")


class Webhooks:
    """The thread of a gateway that does so. ``message`` makes a webhook's message of a request and of the time of its end (ms)."""

    def __init__(self, settings: Settings, hub: Hub, message: Callable[[View, int], bytes]) -> None:
        self._hub, self._message = hub, message
        self._retry_ms = int(settings.webhooks.retry_seconds * 1000)
        self._queue = names.rq_queue(names.WEBHOOK_QUEUE)
        self._next_seconds = CALM_SECONDS  # until the next look
        self._nobody = ""  # why nobody is told, at the last look
        self._loop = Loop("webhooks", self._turn)

    def faults(self) -> list[Found]:
        """What is wrong with webhooks."""
        return [Found("webhooks-away", self._nobody)] if self._nobody else []

    def start(self) -> None:
        """Starts the thread."""
        self._loop.start(EVERY_SECONDS)

    def stop(self) -> None:
        """Ends the thread after the batch at hand."""
        self._loop.stop()

    def _turn(self) -> float:
        try:
            taken = self.run_once()
            while taken == BATCH and not self._loop.stopping.is_set():
                taken = self.run_once()
        except (HubUnavailable, redis.exceptions.RedisError) as error:
            log.debug("webhooks were not enqueued", error=str(error))
        except Exception:
            log.exception("enqueuing webhooks failed")
        else:
            self._loop.failures = 0
            return EVERY_SECONDS if taken else self._next_seconds
        return self._loop.backoff_seconds()

    def run_once(self) -> int:
        """Enqueues one batch; returns how many webhooks it took."""
        with self._hub.asking() as client:
            command = scripts.TAKE_WEBHOOKS.command(
                queue=self._queue,
                senders=names.WEBHOOK_SENDERS,
                lease_ms=LEASE_MS,
                most=BATCH,
                retry_ms=self._retry_ms,
                kept_ms=self._retry_ms + names.WEBHOOK_KEPT_MS,
                sender_ms=names.WEBHOOK_SENDER_MS,
            )
            found, info = send(client, [command, durability.LOOK], [scripts.TAKE_WEBHOOKS])
        taken, waiting, senders, next_ms = value(found)
        self._next_seconds = CALM_SECONDS if next_ms < 0 else min(CALM_SECONDS, max(LEAST_SECONDS, next_ms / 1000))
        self._nobody = (
            f"no process calls them: {waiting} wait; is nearfetch webhooks running?" if waiting and not senders else ""
        )
        # A hub that is killed forgets an end that its file does not hold, and may have another one later.
        if taken and is_written(self._hub, durability.file_of(value(info)), self._loop.stopping):
            messages = [self._made(request.decode(), int(ended), ledger) for request, ended, ledger in taken]
            self._enqueue([one for one in messages if one is not None])
        return len(taken)

    def _made(self, request: str, ended_ms: int, ledger: list[bytes]) -> scripts.Message | None:
        """The message for a webhook, and its job. None if it can't be made: it is taken again after the lease."""
        body = b""
        try:
            if ledger:
                view = view_without_results(request, ledger)
                body = zlib.compress(self._message(view, ended_ms)) if view is not None else b""
        except Exception:  # one that can't be made must not keep back the others
            log.exception("the message for a webhook can't be made", request=request)
            return None
        data = zlib.compress(msgspec.json.encode([names.WEBHOOK_FUNCTION, None, [request], {}]))
        return scripts.Message(request, body, data, f"webhook of request {request}")

    def _enqueue(self, messages: list[scripts.Message]) -> None:
        with self._hub.asking() as client:
            enqueued = scripts.ENQUEUE_WEBHOOKS.call(
                client,
                queue=self._queue,
                queues=names.RQ_QUEUES,
                **{kind: names.rq_registry(kind, names.WEBHOOK_QUEUE) for kind in ("scheduled", "finished", "failed")},
                look_ms=LOOK_MS,
                origin=names.WEBHOOK_QUEUE,
                stamp=contract.rq_time(time.time()),
                messages=messages,
            )
        log.debug("webhooks enqueued", jobs=enqueued, looked_at=len(messages))
