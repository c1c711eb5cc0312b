"""The hub's half of webhooks, for tests."""

import functools
import os
import subprocess
import sys

import pytest
from msgspec import structs

from regions import connect, names
from regions.settings import ROOT
from tests.forked import Forked
from tests.service.hub_parts import new_request, settings, settle
from tests.service.jobs.webhook.receiving import SECRET
from tests.waiting import until
from web.api import views
from web.flow.webhooks import Webhooks
from web.hub.ledger import Ledger
from web.hub.redis import Hub
from web.hub.webhooks import Webhook

WORDS, SENDER = ["-m", "scripts.cli", "webhooks"], ("scripts.cli", "jobs.webhook.sender")
QUICK = {
    "NEARFETCH__WEBHOOKS__ALLOW": "127.0.0.1",
    "NEARFETCH__WEBHOOKS__TIMEOUT_SECONDS": "30",
    "NEARFETCH__WEBHOOKS__FIRST_WAIT_SECONDS": "0.05",
    "NEARFETCH__WEBHOOKS__WAIT_MAX_SECONDS": "0.2",
}


class Site:
    """The hub's half: a ledger, the gateway's thread that enqueues (called by the test), and processes that call."""

    def __init__(self, folder, redis, **environ: str) -> None:
        self.folder, self.redis = folder, redis
        self.environ = {**QUICK, **environ}
        self.settings = settings(folder, redis=redis.url, **self.environ)
        self.client = connect.open_redis(redis.url, name="test-hub", block_seconds=30.0)
        retry = self.settings.webhooks.retry_seconds
        self.ledger = Ledger(self.client, self.settings.limits, webhook_retry_seconds=retry)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connect, "TIMEOUT_SECONDS", 10.0)  # a hub that is busy for a moment is none that is away
            self.hub = Hub(self.settings)
        self.hub.run_once()
        message = functools.partial(views.webhook_message, base="https://hub.example")
        self.webhooks = Webhooks(self.settings, self.hub, message)
        self.senders: list[subprocess.Popen] = []
        self.is_over = False

    def begin(self, url: str, *, secret: str = SECRET, tenant: str = "", accept: bool = True):
        """A request with a webhook; its one task has not ended."""
        new = structs.replace(new_request(), webhook=Webhook(url, secret), tenant=tenant)
        self.ledger.begin(new)
        if accept:
            assert self.ledger.accept([new.id])[0] == [True]
        return new

    def end(self, url: str, **options) -> str:
        """A request with a webhook that has ended. It is due now: nobody waits two seconds."""
        new = self.begin(url, **options)
        settle(self.ledger, self.client, new, 0)
        assert self.state(new.id).state == "due"
        self.hurry(new.id)
        return new.id

    def hurry(self, request: str) -> None:
        """What would be looked at later is looked at now: a lease is over, or the two seconds after the accept."""
        self.client.zadd(names.WEBHOOKS, {request: 1}, xx=True)

    def enqueue(self) -> int:
        return self.webhooks.run_once()

    def send(self, *, is_forked: bool = True, **environ: str) -> subprocess.Popen:
        """Starts a process that calls. One that is not forked has a command line and an environment of its own in /proc."""
        log = self.folder / "sender.log"
        found = {name: value for name, value in os.environ.items() if not name.startswith("NEARFETCH")}
        found |= {
            **self.environ,
            "NEARFETCH__REGIONS__PATH": str(self.folder / "regions"),
            "NEARFETCH__HUB__REDIS": self.redis.url,
            "NEARFETCH__LOG__FORMAT": "json",
            **environ,
        }
        with log.open("ab") as opened:
            options = {"cwd": ROOT, "env": found, "stdout": opened, "stderr": opened}
            process = (
                Forked(WORDS, imported=SENDER, **options)
                if is_forked
                else subprocess.Popen([sys.executable, *WORDS], **options)
            )
        self.senders.append(process)
        return process

    def state(self, request: str):
        return self.ledger.webhook(request)

    def until(self, request: str, state: str):
        """Plays the gateway's thread until a webhook is so."""

        def is_so():
            found = self.state(request)
            return found if found is not None and found.state == state else None

        return self.meanwhile(is_so, f"the webhook to be {state}")

    def meanwhile(self, condition, what: str):
        """Plays the gateway's thread until something is so."""

        def is_so():
            self.enqueue()
            return condition()

        return until(is_so, what)

    def said(self) -> str:
        log = self.folder / "sender.log"
        return log.read_text() if log.exists() else ""

    def stop(self) -> None:
        for process in self.senders:
            process.kill()
            process.wait()
        self.hub.stop()
        self.client.close()
