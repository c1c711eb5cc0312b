"""Webhooks, from the end of a request to the receiver: a real Redis, the gateway's thread, real processes that call, real receivers."""

import functools
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import rq
from click.testing import CliRunner
from msgspec import structs

from jobs.fetch.fetcher import Fetcher
from jobs.fetch.guard import parse_allow
from jobs.webhook import queue as jobs_queue
from jobs.webhook.call import Caller
from jobs.webhook.queue import open_queue
from regions import connect, names
from regions.settings import ROOT
from scripts.cli import main
from scripts.stack.services import free_port
from tests.forked import Forked
from tests.service.hub_parts import new_request, settings, settle
from tests.service.jobs.webhook.receiving import SECRET, Deaf, Receiver
from tests.waiting import until
from web.api import views
from web.flow import webhooks as enqueuing
from web.flow.webhooks import Webhooks
from web.hub import scripts, webhooks
from web.hub.ledger import Ledger
from web.hub.redis import Hub
from web.hub.webhooks import Webhook

WORDS, SENDER = ["-m", "scripts.cli", "webhooks"], ("scripts.cli", "jobs.webhook.sender")
QUICK = {
    "NEARFETCH__WEBHOOKS__ALLOW": "127.0.0.1",
    "NEARFETCH__WEBHOOKS__TIMEOUT_SECONDS": "5",
    "NEARFETCH__WEBHOOKS__FIRST_WAIT_SECONDS": "0.05",
    "NEARFETCH__WEBHOOKS__WAIT_MAX_SECONDS": "0.2",
}


class Site:
    """The hub's half: a ledger, the gateway's thread that enqueues (called by the test), and processes that call."""

    def __init__(self, folder, redis, **environ: str) -> None:
        self.folder, self.redis = folder, redis
        self.environ = {**QUICK, **environ}
        self.settings = settings(folder, redis=redis.url, **self.environ)
        self.client = connect.open_redis(redis.url, name="test-hub")
        retry = self.settings.webhooks.retry_seconds
        self.ledger = Ledger(self.client, self.settings.limits, webhook_retry_seconds=retry)
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


@pytest.fixture
def site(tmp_path, hub_redis):
    made = Site(tmp_path, hub_redis)
    yield made
    made.stop()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()
    assert made.wrong == []


def test_the_end_of_a_request_is_told_once_and_signed_by_the_standard(site, receiver):
    site.send()
    request = site.end(receiver.url)
    found = site.until(request, "delivered")
    assert (found.attempts, found.status, found.error, found.next_attempt_at) == (1, 204, None, None)
    (got,) = receiver.got
    assert got.id == f"msg_{request}"
    assert got.headers["Content-Type"] == "application/json"
    told = got.message
    assert told["type"] == "request.done"
    assert (told["data"]["id"], told["data"]["status"], told["data"]["done"]) == (request, "succeeded", True)
    assert [task["status"] for task in told["data"]["tasks"]] == ["succeeded"]
    assert told["data"]["attrs"] == {"a": [1]}
    assert told["data"]["links"]["self"] == f"https://hub.example/v1/requests/{request}"
    assert not {"results", "webhook"} & told["data"].keys()
    assert told["timestamp"].endswith("Z")
    assert site.client.zcard(names.WEBHOOKS) == 0
    for _ in range(3):
        site.hurry(request)
        site.enqueue()
    assert receiver.ids() == [got.id]


def test_the_request_shows_how_far_its_webhook_is_and_no_secret(site, receiver):
    receiver.answers = [500, 204]
    new = site.begin(receiver.url)
    assert site.ledger.read(new.id).webhook.state == "pending"
    settle(site.ledger, site.client, new, 0)
    site.hurry(new.id)
    view = site.ledger.read(new.id)
    assert view.webhook.state == "due"
    assert view.webhook.next_attempt_at is not None
    site.send()
    site.until(new.id, "delivered")
    view = site.ledger.read(new.id)
    body = views.request_body(view, "")
    assert json.loads(body)["webhook"] == {
        "url": f"http://127.0.0.1:{receiver.port}/hook?…", "state": "delivered", "attempts": 2,
        "last_attempt_at": view.webhook.last_attempt_at, "status": 204, "error": None, "next_attempt_at": None,
    }  # fmt: skip
    assert SECRET.encode() not in body
    assert b"hidden" not in body


def test_a_receiver_that_is_down_for_a_while_is_told_later(site):
    port = free_port()
    request = site.end(f"http://127.0.0.1:{port}/hook")
    site.send()
    site.meanwhile(lambda: site.state(request).attempts >= 3, "three attempts")
    found = site.state(request)
    assert (found.state, found.status) == ("due", None)
    assert found.error.startswith("connection: ")
    receiver = Receiver(port=port)
    try:
        site.until(request, "delivered")
        assert receiver.ids() == [f"msg_{request}"]
    finally:
        receiver.close()


def test_every_attempt_has_the_same_id_and_body_and_is_signed_anew(site, receiver):
    receiver.answers = [500, 302, 404, 503, 200]
    request = site.end(receiver.url)
    site.send()
    assert site.until(request, "delivered").attempts == 5
    assert receiver.ids() == [f"msg_{request}"] * 5
    assert len({got.body for got in receiver.got}) == 1


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_a_success(site, receiver, status):
    receiver.answers = [status]
    request = site.end(receiver.url)
    site.send()
    assert site.until(request, "delivered").status == status


def test_a_receiver_that_wants_no_more_is_told_no_more(site, receiver):
    receiver.answers = [410]
    request = site.end(receiver.url)
    site.send()
    found = site.until(request, "failed")
    assert (found.attempts, found.status, found.next_attempt_at) == (1, 410, None)
    assert "410" in found.error


def test_a_redirect_is_not_followed(site, receiver):
    elsewhere = Deaf()
    away = {"Location": f"http://127.0.0.1:{elsewhere.port}/"}
    receiver.answers = [(307, away), (303, away), (308, {"Location": "/other"}), 204]
    request = site.end(receiver.url)
    site.send()
    assert site.until(request, "delivered").attempts == len(receiver.got) == 4
    assert elsewhere.connected == 0
    elsewhere.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "0177.0.0.1", "2130706433", "[::ffff:127.0.0.1]"])
def test_nobody_connects_to_an_address_that_is_not_public(tmp_path, hub_redis, host):
    site, private = Site(tmp_path, hub_redis, NEARFETCH__WEBHOOKS__ALLOW=""), Deaf()
    try:
        site.send(NEARFETCH__FETCH__ALLOW="127.0.0.0/8")  # for sources, whose authors the operator knows
        request = site.end(f"http://{host}:{private.port}/hook")
        found = site.until(request, "failed")
        assert (found.attempts, found.status) == (1, None)
        assert found.error.startswith("blocked_address: expected a public address")
        assert private.connected == 0
    finally:
        site.stop()
        private.close()


def test_a_name_that_leads_elsewhere_by_the_next_call_is_judged_again(site, receiver):
    """DNS rebinding: between two calls the name changes from a permitted address to another one."""
    places = ["127.0.0.1", "127.0.0.2"]
    everywhere = Receiver((500, {"Connection": "close"}), 204, host="0.0.0.0")
    asked = []

    def resolve(host, port):
        asked.append(host)
        return [(socket.AF_INET, (places[min(len(asked), 2) - 1], port))]

    fetcher = Fetcher(allow=parse_allow("127.0.0.1"), resolve=resolve)
    queue = open_queue(site.redis.url, "test", 60_000, 1.0, 2)
    try:
        request = site.end(f"http://shop.example:{everywhere.port}/")
        site.enqueue()
        for how in ("again", "failed"):
            (job,) = queue.claim(1, 1.0)
            answer = Caller(site.settings, fetcher).call(job)
            assert answer.how == how
            queue.ended(job, answer.how, status=answer.status, error=answer.error)
            site.hurry(request)
            site.enqueue()
        assert len(asked) == 2
        assert len(everywhere.got) == 1
        assert "127.0.0.2" in site.state(request).error
    finally:
        fetcher.close()
        everywhere.close()


def test_a_slow_receiver_is_cut_off_and_told_again(tmp_path, hub_redis, receiver):
    site = Site(tmp_path, hub_redis, NEARFETCH__WEBHOOKS__TIMEOUT_SECONDS="0.3")
    over = threading.Event()
    receiver.answers = [lambda _: over.wait(30), 204]
    try:
        request = site.end(receiver.url)
        site.send()
        found = site.until(request, "delivered")
        assert found.attempts == 2
        assert receiver.ids() == [f"msg_{request}"] * 2
    finally:
        over.set()
        site.stop()


def drips(handler) -> None:
    """A 200 whose body has no end."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x")
        handler.wfile.flush()
        threading.Event().wait(0.05)


def floods(handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65_536)


@pytest.mark.parametrize("answer", [drips, floods])
def test_an_answer_counts_by_its_status_whatever_its_body_is(tmp_path, hub_redis, receiver, answer):
    site = Site(tmp_path, hub_redis, NEARFETCH__WEBHOOKS__TIMEOUT_SECONDS="0.5")
    receiver.answers = [answer]
    try:
        request = site.end(receiver.url)
        site.send()
        assert site.until(request, "delivered").attempts == 1
    finally:
        site.stop()


def test_a_receiver_may_say_when_it_wants_to_be_told_again(tmp_path, hub_redis, receiver):
    site = Site(tmp_path, hub_redis, NEARFETCH__WEBHOOKS__WAIT_MAX_SECONDS="14400")
    receiver.answers = [(503, {"Retry-After": "3600"})]
    try:
        request = site.end(receiver.url)
        site.send()
        site.meanwhile(lambda: site.state(request).status == 503, "the first attempt")
        (score,) = [at for _, at in site.client.zrange(names.WEBHOOKS, 0, -1, withscores=True)]
        assert 3_500_000 < score - connect.redis_now_ms(site.client) < 3_700_000
    finally:
        site.stop()


def test_after_the_last_attempt_it_has_failed_and_can_be_sent_again(tmp_path, hub_redis, receiver, monkeypatch):
    site = Site(tmp_path, hub_redis, NEARFETCH__WEBHOOKS__RETRY_SECONDS="0.4")
    receiver.answers = [500]
    try:
        site.send()
        request = site.end(receiver.url, tenant="shop")
        found = site.until(request, "failed")
        assert found.attempts >= 1
        assert found.error == "expected a status of 2xx, found 500"
        attempts = found.attempts
        monkeypatch.setenv("NEARFETCH_CONFIG", str(write_settings(site)))
        listed = CliRunner().invoke(main, ["webhook", "list", "--state", "failed", "--json"])
        assert listed.exit_code == 0, listed.output
        (one,) = json.loads(listed.output)
        assert (one["request"], one["tenant"], one["state"], one["attempts"]) == (request, "shop", "failed", attempts)
        shown = CliRunner().invoke(main, ["webhook", "list"]).output
        assert request in shown
        assert SECRET not in listed.output + shown
        assert "hidden" not in listed.output + shown
        assert json.loads(CliRunner().invoke(main, ["webhook", "list", "--tenant", "bank", "--json"]).output) == []
        receiver.answers = [204]
        sent = CliRunner().invoke(main, ["webhook", "resend", request.lower()])
        assert (sent.exit_code, sent.output) == (0, f"{request}  will be called again\n")
        assert site.until(request, "delivered").attempts == attempts + 1
        assert CliRunner().invoke(main, ["webhook", "resend", request]).exit_code == 0
        site.meanwhile(lambda: site.state(request).attempts == attempts + 2, "one that was delivered, again")
        assert set(receiver.ids()) == {f"msg_{request}"}
        unknown = CliRunner().invoke(main, ["webhook", "resend", "01M87RTYV9Y5XD88GQ9E7T7S17"])
        assert unknown.exit_code == 1
        assert CliRunner().invoke(main, ["webhook", "resend"]).exit_code == 2
    finally:
        site.stop()


def write_settings(site):
    path = site.folder / "nearfetch.toml"
    path.write_text(
        f'[hub]\nredis = "{site.redis.url}"\n[regions]\npath = "{site.folder}/regions"\n[webhooks]\nretry_seconds = 0.4\n'
    )
    return path


def test_a_request_that_ends_before_it_is_accepted_is_told_after_that(site, receiver):
    new = site.begin(receiver.url, accept=False)
    settle(site.ledger, site.client, new, 0)
    assert site.state(new.id).state == "pending"
    assert site.ledger.accept([new.id])[0] == [True]
    assert site.state(new.id).state == "due"
    site.hurry(new.id)
    site.send()
    site.until(new.id, "delivered")
    assert len(receiver.got) == 1


def test_a_request_that_an_older_gateway_has_ended_is_told_too(site, receiver):
    """While gateways are upgraded, one whose script knows no webhooks may end a request that has one."""
    new = site.begin(receiver.url)
    key, ledger = names.webhook(new.id), names.ledger(new.id)
    assert site.client.zscore(names.WEBHOOKS, new.id) > connect.redis_now_ms(site.client) + 30_000
    site.hurry(new.id)
    site.enqueue()
    assert site.client.zscore(names.WEBHOOKS, new.id) > connect.redis_now_ms(site.client)  # it has not ended
    site.client.hdel(ledger, "webhook")
    settle(site.ledger, site.client, new, 0)
    site.client.hset(ledger, "webhook", key)
    assert site.state(new.id).state == "pending"
    site.hurry(new.id)
    site.send()
    site.until(new.id, "delivered")
    assert len(receiver.got) == 1


def test_a_request_that_is_refused_after_all_tells_nobody(site, receiver):
    """Its gateway answered 503, and the accept got through later."""
    new = site.begin(receiver.url)
    settle(site.ledger, site.client, new, 0)
    (at,) = [score for _, score in site.client.zrange(names.WEBHOOKS, 0, -1, withscores=True)]
    assert at >= connect.redis_now_ms(site.client) + 500  # there is time to take it back
    site.hurry(new.id)
    taken = site.webhooks
    found, _, _, _ = scripts.TAKE_WEBHOOKS.call(
        site.client, queue="q", senders="s", lease_ms=10_000, most=10, retry_ms=1_000, kept_ms=1_000, sender_ms=1_000
    )
    assert site.ledger.refuse(new.id, [(task.id, task.region) for task in new.tasks])
    taken._enqueue([taken._made(request.decode(), int(ended), fields) for request, ended, fields in found])
    assert site.client.llen(names.rq_queue(names.WEBHOOK_QUEUE)) == 0
    assert not site.client.exists(names.webhook(new.id), names.webhook_ledger(new.id))
    assert site.client.zcard(names.WEBHOOKS) == site.client.zcard(names.WEBHOOKS_ENDED) == 0


def test_a_request_without_a_webhook_leaves_nothing_at_the_hub(site):
    new = new_request()
    site.ledger.begin(new)
    site.ledger.accept([new.id])
    settle(site.ledger, site.client, new, 0)
    assert site.client.keys("nf:webhook*") == []
    assert site.ledger.read(new.id).webhook is None


def test_a_process_that_is_killed_in_the_middle_of_a_call_is_made_good(site, receiver):
    held, over = threading.Event(), threading.Event()

    def hold(_handler) -> None:
        held.set()
        over.wait(30)

    receiver.answers = [hold, 204]
    request = site.end(receiver.url)
    first = site.send()
    site.meanwhile(held.is_set, "the first call")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    over.set()
    lease = site.client.zscore(names.WEBHOOKS, request) - connect.redis_now_ms(site.client)
    assert 0 < lease <= 20_000
    site.hurry(request)  # as if it were over
    site.send()
    assert site.until(request, "delivered").attempts == 1  # the other one has no end that anybody knows
    assert receiver.ids() == [f"msg_{request}"] * 2


def test_a_paused_process_that_goes_on_undoes_nothing(site, receiver):
    queues = [open_queue(site.redis.url, f"test-{n}", 60_000, 1.0, 2) for n in range(2)]
    request = site.end(receiver.url)
    site.enqueue()
    (paused,) = queues[0].claim(1, 1.0)
    site.hurry(request)
    site.enqueue()
    (other,) = queues[1].claim(1, 1.0)
    assert queues[0].ended(paused, "again", status=None, error="late", wait_seconds=60) == ""
    assert site.state(request).error is None
    assert queues[1].ended(other, "delivered", status=200, error="") == "delivered"
    assert queues[0].ended(paused, "again", status=None, error="late", wait_seconds=60) == ""
    assert (
        queues[0].ended(paused, "delivered", status=202, error="") == "delivered"
    )  # it was told twice, which is no failure
    assert site.state(request).state == "delivered"


def test_a_gateway_that_dies_between_take_and_enqueue_is_made_good_by_another(site, receiver, monkeypatch):
    request = site.end(receiver.url)
    monkeypatch.setattr(enqueuing, "is_written", lambda *_: False)
    assert site.enqueue() == 1  # and there its process ends
    monkeypatch.undo()
    assert site.client.llen(names.rq_queue(names.WEBHOOK_QUEUE)) == 0
    assert site.enqueue() == 0  # the lease of the dead one
    lease = site.client.zscore(names.WEBHOOKS, request) - connect.redis_now_ms(site.client)
    assert 0 < lease <= enqueuing.LEASE_MS
    site.hurry(request)
    site.send()
    site.until(request, "delivered")
    assert len(receiver.got) == 1


def test_that_nobody_calls_is_a_fault_with_a_name(site, receiver):
    assert site.webhooks.faults() == []
    request = site.end(receiver.url)
    for _ in range(2):  # the first look makes the job
        site.enqueue()
        site.hurry(request)
    (fault,) = site.webhooks.faults()
    assert (fault.name, fault.message) == (
        "webhooks-away",
        "no process calls them: 1 wait; is nearfetch webhooks running?",
    )
    site.send()
    site.until(request, "delivered")
    site.enqueue()
    assert site.webhooks.faults() == []


def test_a_job_that_somebody_deleted_is_made_again(site, receiver):
    request = site.end(receiver.url)
    site.enqueue()
    rq.Queue(names.WEBHOOK_QUEUE, connection=site.client).empty()
    site.hurry(request)
    site.send()
    site.until(request, "delivered")


def test_a_job_that_waits_is_not_made_twice(site):
    request = site.end("http://127.0.0.1:9/hook")
    for _ in range(3):
        site.enqueue()
        site.hurry(request)
    assert site.client.lrange(names.rq_queue(names.WEBHOOK_QUEUE), 0, -1) == [request.encode()]


def test_a_hub_that_is_killed_forgets_no_webhook(tmp_path, start_redis, receiver):
    redis = start_redis("hub")
    site = Site(tmp_path, redis)
    try:
        before = site.end(receiver.url)
        site.enqueue()
        pending = site.begin(receiver.url)
        redis.crash()
        redis.running.start()
        until(lambda: site.hub.run_once() or site.hub.away is None, "the hub to be back")
        settle(site.ledger, site.client, pending, 0)
        site.hurry(pending.id)
        sender = site.send()
        site.until(before, "delivered")
        site.until(pending.id, "delivered")
        redis.crash()
        redis.running.start()
        until(lambda: site.hub.run_once() or site.hub.away is None, "the hub to be back")
        later = site.end(receiver.url)
        site.until(later, "delivered")  # by the same process
        assert sender.poll() is None
        assert sorted(set(receiver.ids())) == sorted(f"msg_{one}" for one in (before, pending.id, later))
    finally:
        site.stop()


def test_no_kill_loses_a_webhook(tmp_path, start_redis):
    """Processes that call and the hub's Redis are killed in the middle of it, and some answers are 500; ids are compared."""
    redis = start_redis("hub")
    site = Site(tmp_path, redis)
    numbers = itertools.count()

    def answer(handler) -> None:
        handler.send_response(500 if next(numbers) % 5 == 0 else 204)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    receiver = Receiver(answer)
    try:
        told: list[str] = []
        for round_ in range(4):
            told += [site.end(receiver.url) for _ in range(15)]
            sender, before = site.send(), len(receiver.got)
            site.meanwhile(lambda b=before: len(receiver.got) >= b + 4, "some calls")
            os.kill(sender.pid, signal.SIGKILL)
            if round_ == 1:
                redis.crash()
                redis.running.start()
                until(lambda: site.hub.run_once() or site.hub.away is None, "the hub to be back")
        site.send()
        for request in told:
            site.hurry(request)  # leases of the dead, as if they were over
        for request in told:
            site.until(request, "delivered")
        assert set(receiver.ids()) == {f"msg_{request}" for request in told}
        assert receiver.wrong == []
        assert len({got.body for got in receiver.got}) == len(told)  # each told the same, however often
    finally:
        site.stop()
        receiver.close()


def test_an_end_that_the_hub_has_not_in_its_file_is_not_told(site, receiver, monkeypatch):
    """A hub that is killed would forget it."""
    request = site.end(receiver.url)
    looks = []
    written = enqueuing.durability.File.has

    def has(self, since):
        looks.append(since)
        return len(looks) > 3 and written(self, since)

    monkeypatch.setattr(enqueuing.durability.File, "has", has)
    site.enqueue()
    assert len(looks) > 3
    assert site.client.llen(names.rq_queue(names.WEBHOOK_QUEUE)) == 1
    assert request


def test_the_next_look_is_when_the_next_one_is_due(site, receiver):
    assert site.webhooks._turn() == enqueuing.CALM_SECONDS
    new = site.begin(receiver.url)
    assert site.webhooks._turn() == enqueuing.CALM_SECONDS
    settle(site.ledger, site.client, new, 0)
    site.client.zadd(names.WEBHOOKS, {new.id: connect.redis_now_ms(site.client) + 900})
    assert 0 < site.webhooks._turn() <= 0.9
    site.hurry(new.id)
    assert site.webhooks._turn() == enqueuing.EVERY_SECONDS


def test_what_is_told_does_not_need_the_ledger_any_more(site, receiver):
    """No gateway and no process that calls ran for an hour."""
    new = site.begin(receiver.url)
    settle(site.ledger, site.client, new, 0)
    site.client.delete(names.ledger(new.id), names.events(new.id))
    site.hurry(new.id)
    site.send()
    site.until(new.id, "delivered")
    assert receiver.got[0].message["data"]["id"] == new.id


def test_a_receiver_that_hangs_delays_no_other(tmp_path, hub_redis, receiver):
    site = Site(tmp_path, hub_redis, NEARFETCH__WEBHOOKS__THREADS="8", NEARFETCH__WEBHOOKS__TIMEOUT_SECONDS="20")
    over = threading.Event()
    hanging = Receiver(lambda _: over.wait(60))
    try:
        stuck = [site.end(f"http://127.0.0.1:{hanging.port}/{n}") for n in range(20)]
        site.enqueue()
        site.send()
        site.meanwhile(lambda: len(hanging.got) == 2, "a quarter of the threads to hang")
        others = [site.end(receiver.url) for _ in range(10)]
        for one in others:
            site.until(one, "delivered")
        assert len(hanging.got) == 2
        waiting = [site.state(one) for one in stuck]
        assert {one.attempts for one in waiting} == {0}
        assert {one.state for one in waiting} == {"due"}
    finally:
        over.set()
        site.stop()
        hanging.close()


def test_rq_shows_the_jobs_and_nothing_shows_the_secret(site, receiver):
    receiver.answers = [500, 204]
    request = site.end(receiver.url)
    site.enqueue()
    queue = rq.Queue(names.WEBHOOK_QUEUE, connection=site.client, serializer="json")
    assert [one.name for one in rq.Queue.all(connection=site.client)] == [names.WEBHOOK_QUEUE]
    (job,) = queue.jobs
    assert (job.id, job.func_name, job.args) == (request, names.WEBHOOK_FUNCTION, [request])
    assert job.get_status() == "queued"
    sender = site.send(is_forked=False)
    site.until(request, "delivered")
    assert rq.job.Job.fetch(request, connection=site.client, serializer="json").get_status() == "finished"
    assert site.client.zcard(names.rq_registry("wip", names.WEBHOOK_QUEUE)) == 0
    until(lambda: "webhook delivered" in site.said(), "the log")
    assert "webhook not delivered" in site.said()
    shown = site.said() + "".join(Path(f"/proc/{sender.pid}/{of}").read_text() for of in ("cmdline", "environ"))
    kept = {key.decode(): site.client.dump(key) for key in site.client.keys("*")}
    bare = SECRET.removeprefix("whsec_").encode()
    assert [key for key, value in kept.items() if bare in value or bare[:-1] in value] in ([], [names.webhook(request)])
    holders = [key for key in kept if site.client.type(key) == b"hash" and SECRET.encode() in site.client.hvals(key)]
    assert holders == [names.webhook(request)]
    for text in ("hidden", SECRET, bare.decode()):
        assert text not in shown
    assert 0 < site.client.pttl(names.webhook(request)) <= 3_700_000


def test_everything_of_a_webhook_expires(site, receiver):
    request = site.end(receiver.url)
    keys = [names.webhook(request), names.webhook_ledger(request)]
    assert all(site.client.pttl(key) > 0 for key in keys)
    site.enqueue()
    assert 0 < site.client.pttl(names.rq_job(request)) <= 3 * 86_400_000
    assert not site.client.exists(names.webhook_ledger(request))


def test_a_full_hub_still_calls(tmp_path, start_redis, receiver):
    redis = start_redis("hub")
    site = Site(tmp_path, redis)
    try:
        request = site.end(receiver.url)
        redis.client.config_set("maxmemory", 1)
        site.send()
        site.until(request, "delivered")
    finally:
        redis.client.config_set("maxmemory", 0)
        site.stop()


# A call whose answer is lost may have taken effect.

LOST = scripts.TAKE_WEBHOOKS, scripts.ENQUEUE_WEBHOOKS, scripts.RESEND_WEBHOOK


def lossy(site, far_hub):
    """The same, by a link that loses answers."""
    message = functools.partial(views.webhook_message, base="")
    found = settings(site.folder, redis=far_hub.url, **site.environ)
    hub = Hub(found)
    hub.run_once()
    for script in (*LOST, jobs_queue.CLAIM, jobs_queue.ENDED):
        site.client.script_load(script.text)  # else what is lost is the answer that it is not known
    return SimpleNamespace(
        webhooks=Webhooks(found, hub, message), queue=open_queue(far_hub.url, "test-far", 60_000, 1.0, 2), hub=hub
    )


def test_a_take_whose_answer_is_lost_is_made_good_after_its_lease(site, far_hub, receiver):
    far = lossy(site, far_hub)
    request = site.end(receiver.url)
    far_hub.lose(scripts.TAKE_WEBHOOKS)
    far.webhooks._turn()
    assert far_hub.lost == 1
    assert site.client.llen(names.rq_queue(names.WEBHOOK_QUEUE)) == 0
    site.hurry(request)
    assert site.enqueue() == 1
    assert site.client.llen(names.rq_queue(names.WEBHOOK_QUEUE)) == 1
    far.hub.stop()


def test_a_job_whose_making_had_no_answer_is_made_once(site, far_hub, receiver):
    far = lossy(site, far_hub)
    request = site.end(receiver.url)
    far_hub.lose(scripts.ENQUEUE_WEBHOOKS)
    far.webhooks._turn()
    assert far_hub.lost == 1
    site.hurry(request)
    site.enqueue()
    assert site.client.lrange(names.rq_queue(names.WEBHOOK_QUEUE), 0, -1) == [request.encode()]
    far.hub.stop()


def test_a_claim_whose_answer_is_lost_is_made_again_after_its_lease(site, far_hub, receiver):
    far = lossy(site, far_hub)
    request = site.end(receiver.url)
    site.enqueue()
    far_hub.lose(jobs_queue.CLAIM)
    with pytest.raises(connect.AWAY):
        far.queue.claim(1)
    assert far_hub.lost == 1
    site.hurry(request)
    site.send()
    assert site.until(request, "delivered").attempts == 1
    assert len(receiver.got) == 1
    assert site.client.zcard(names.rq_registry("wip", names.WEBHOOK_QUEUE)) == 0
    far.hub.stop()


def test_an_end_whose_answer_is_lost_may_be_said_again(site, far_hub):
    far = lossy(site, far_hub)
    request = site.end("http://127.0.0.1:9/hook")
    site.enqueue()
    (job,) = far.queue.claim(1)
    far_hub.lose(jobs_queue.ENDED)
    with pytest.raises(connect.AWAY):
        far.queue.ended(job, "again", status=500, error="x", wait_seconds=60)
    assert far_hub.lost == 1
    assert far.queue.ended(job, "again", status=500, error="x", wait_seconds=60) == ""  # it counted the first time
    found = site.state(request)
    assert (found.state, found.attempts, found.status) == ("due", 1, 500)
    far.hub.stop()


def test_a_resend_whose_answer_is_lost_may_be_asked_again(site, far_hub, receiver):
    request = site.end(receiver.url)
    site.send()
    site.until(request, "delivered")
    site.client.script_load(scripts.RESEND_WEBHOOK.text)
    far_hub.lose(scripts.RESEND_WEBHOOK)
    with pytest.raises(connect.AWAY):
        webhooks.resend(far_hub.client, request, 60)
    assert far_hub.lost == 1
    assert webhooks.resend(far_hub.client, request, 60)
    assert site.until(request, "delivered").attempts == 2
    assert receiver.ids() == [f"msg_{request}"] * 2
