"""One call of a webhook, by Standard Webhooks (https://www.standardwebhooks.com, 1.0.0): a POST, signed, guarded and bounded.

It connects only to addresses that the guard permits, at each connection, and follows no redirect. The answer's status counts as soon as
its head has come; most of its body is not read. ``webhook-id`` is made of the request's id, so it stays the same for all calls.
"""

import base64
import hashlib
import hmac
import random
import time
import zlib
from typing import Final

from msgspec import Struct

from jobs.errors import BlockedAddress, TaskError
from jobs.fetch.egress import collected
from jobs.fetch.fetcher import Fetcher, Terms, retry_after
from jobs.fetch.guard import parse_allow
from jobs.page import Request
from jobs.webhook.queue import How, Job
from regions import logs
from regions.egress import Egress, wrong_in_egress
from regions.faults import Fault, Faults
from regions.settings import Settings

ANSWER_BYTES_MAX: Final = 16_384  # of an answer's body; what is longer ends the connection, not the delivery
GONE: Final = 410
GROWS: Final = 4.0  # each wait is longer than the last one by this factor
JITTER: Final = 0.2  # of a wait, up or down: receivers that come back are not called by all at once
ERROR_CHARACTERS_MAX: Final = 300
# What a client is told. The address stays in the log: else a client could ask the hub's name servers for the names of its network.
NOT_PERMITTED: Final = "blocked_address: expected a public address, found another one"

log = logs.get("webhooks")


class Answer(Struct, frozen=True):
    """How a call ended: its HTTP status, if there was one, else an error; when to call again, if so."""

    how: How
    status: int | None
    error: str
    wait_seconds: float = 0.0


def id_of(request: str) -> str:
    """The ``webhook-id`` of a request: receivers know by it what they were told before."""
    return f"msg_{request}"


def signature(secret: str, message: str, timestamp: int, body: bytes) -> str:
    """The ``webhook-signature``: ``v1,`` and HMAC-SHA256 over id, timestamp and body, in base64."""
    key = base64.b64decode(secret.removeprefix("whsec_") + "==")  # more padding than it needs is ignored
    signed = b"%b.%d.%b" % (message.encode(), timestamp, body)
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"


def fetcher_of(settings: Settings) -> Fetcher:
    """What makes the calls of a process. Raises ``Faults`` with all that is wrong in ``[webhooks]``."""
    faults: list[Fault] = []
    allow = collected(faults, lambda text: parse_allow(text, "webhooks.allow"), settings.webhooks.allow)
    egress = Egress(proxy=settings.webhooks.proxy)
    faults += [Fault("settings", None, f"webhooks.{key}", message) for key, message in wrong_in_egress(egress)]
    if faults:
        raise Faults(faults)
    threads = settings.webhooks.threads
    return Fetcher(
        allow=allow, egress=egress, name="webhooks", connections=threads, ca_file=settings.fetch.ca_file or None
    )


class Caller:
    """Makes the calls of a process, on any thread."""

    def __init__(self, settings: Settings, fetcher: Fetcher) -> None:
        self._settings, self._fetcher = settings.webhooks, fetcher

    def call(self, job: Job) -> Answer:
        """Calls a webhook once. Never raises for what a receiver does."""
        body, message, timestamp = zlib.decompress(job.body), id_of(job.request), int(time.time())
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "webhook-id": message,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(job.secret, message, timestamp, body),
        }
        seconds = self._settings.timeout_seconds
        terms = Terms(
            deadline=time.monotonic() + seconds,
            timeout_seconds=seconds,
            max_bytes=ANSWER_BYTES_MAX,
            cancelled=lambda: False,
            follows=False,
        )
        try:
            page = self._fetcher.fetch(Request(method="POST", url=job.url, headers=headers, body=body), terms)
        except BlockedAddress as error:
            log.warning("webhook leads to an address that is not permitted", request=job.request, reason=str(error))
            return Answer("failed", None, NOT_PERMITTED)
        except TaskError as error:
            if error.http_status is None:
                return Answer("again", None, f"{error.type}: {error}"[:ERROR_CHARACTERS_MAX], self._wait(job.attempt))
            return self._judged(job, error.http_status, None)  # its head came; the rest does not matter
        return self._judged(job, page.status, retry_after(page.headers))

    def _judged(self, job: Job, status: int, asked_seconds: float | None) -> Answer:
        if 200 <= status < 300:
            return Answer("delivered", status, "")
        if status == GONE:
            return Answer("failed", status, "the receiver wants no more (410)")
        wait = max(self._wait(job.attempt), min(asked_seconds or 0.0, self._settings.wait_max_seconds))
        return Answer("again", status, f"expected a status of 2xx, found {status}", wait)

    def _wait(self, attempt: int) -> float:
        """The seconds until the next attempt after this one."""
        settings = self._settings
        wait = min(settings.wait_max_seconds, settings.first_wait_seconds * GROWS ** min(attempt - 1, 20))
        return wait * random.uniform(1 - JITTER, 1 + JITTER)
