"""Webhooks, from the end of a request to the receiver: a real Redis, the gateway's thread, real processes that call, real receivers."""

import itertools
import json
import os
import signal
import threading
from pathlib import Path

import pytest
import redis
import rq

from jobs.webhook import queue as jobs_queue
from jobs.webhook.queue import open_queue
from regions import connect, names
from tests.service.hub_parts import new_request, settle
from tests.service.jobs.webhook.hub_site import Site
from tests.service.jobs.webhook.receiving import SECRET, Receiver
from tests.waiting import until
from web.api import views
from web.flow import webhooks as enqueuing
from web.hub import scripts, webhooks


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
    before_ms = connect.redis_now_ms(site.client)
    settle(site.ledger, site.client, new, 0)
    (at,) = [score for _, score in site.client.zrange(names.WEBHOOKS, 0, -1, withscores=True)]
    assert at >= before_ms + 1_500  # there is time to take it back
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


@pytest.mark.parametrize("ago_ms", [0, 1_000, 60_000])
def test_a_webhook_is_due_when_its_request_ends_unless_that_was_accepted_a_moment_ago(site, receiver, ago_ms):
    new = site.begin(receiver.url)
    accepted = int(site.client.hget(names.ledger(new.id), "accepted")) - ago_ms
    site.client.hset(names.ledger(new.id), "accepted", accepted)
    settle(site.ledger, site.client, new, 0)
    key = names.webhook(new.id)
    ended, due = map(int, site.client.hmget(key, "ended", "next"))
    assert due == max(ended, accepted + scripts.TAKEN_BACK_MS)
    assert site.client.zscore(names.WEBHOOKS, new.id) == due
    assert site.client.zscore(names.WEBHOOKS_ENDED, new.id) == ended
    assert site.client.pexpiretime(names.webhook_ledger(new.id)) == site.client.pexpiretime(key)


def test_a_webhook_that_somebody_deleted_is_neither_shown_nor_made_due(site, receiver):
    new = site.begin(receiver.url)
    site.client.delete(names.webhook(new.id))
    site.client.zrem(names.WEBHOOKS, new.id)
    assert site.ledger.read(new.id).webhook is None
    settle(site.ledger, site.client, new, 0)
    view = site.ledger.read(new.id)
    assert (view.done, view.webhook) == (True, None)
    assert site.client.keys("nf:webhook*") == []


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
        over.wait(60)

    receiver.answers = [hold, 204]
    request = site.end(receiver.url)
    first = site.send()
    site.meanwhile(held.is_set, "the first call")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    over.set()
    lease = site.client.zscore(names.WEBHOOKS, request) - connect.redis_now_ms(site.client)
    assert 0 < lease <= 45_000
    site.hurry(request)  # as if it were over
    site.send()
    assert site.until(request, "delivered").attempts == 1  # the other one has no end that anybody knows
    assert receiver.ids() == [f"msg_{request}"] * 2


def test_a_paused_process_that_goes_on_undoes_nothing(site, receiver):
    queues = [open_queue(site.redis.url, f"test-{n}", 60_000, 30.0, 2) for n in range(2)]
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


def test_a_claim_looks_at_a_bounded_number_of_jobs_whose_webhooks_have_expired(site, receiver):
    """They are left where no process has called for days: the hub must not stand still while the first one begins."""
    key, looks = names.rq_queue(names.WEBHOOK_QUEUE), jobs_queue.LOOKS_MAX
    site.client.rpush(key, *(f"GONE{number}" for number in range(3 * looks)))
    request = site.end(receiver.url)
    assert site.enqueue() == 1
    queue = open_queue(site.redis.url, "test-bounded", 60_000, 30.0, 2)
    assert queue.claim(5) == []
    assert site.client.llen(key) == 2 * looks + 1
    found = [queue.claim(5) for _ in range(3)]
    assert [one.request for some in found for one in some] == [request]
    queue._client.close()
    queue._blocking.close()


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


def test_webhooks_that_are_due_together_are_made_together(site, receiver, monkeypatch):
    monkeypatch.setattr(enqueuing, "BATCH", 2)
    for _ in range(5):
        site.end(receiver.url)
    site.webhooks._loop.failures = 3
    site.webhooks._turn()
    assert site.client.llen(names.rq_queue(names.WEBHOOK_QUEUE)) == 5
    assert site.webhooks._loop.failures == 0, "the next outage begins with a short wait"


def test_a_gateway_makes_jobs_until_it_stops(site, receiver):
    request, queue = site.end(receiver.url), names.rq_queue(names.WEBHOOK_QUEUE)
    site.webhooks.start()
    until(lambda: site.client.lrange(queue, 0, -1) == [request.encode()], "the job")
    site.webhooks.stop()
    until(lambda: not site.webhooks._loop.thread.is_alive(), "its thread to end")


def test_what_is_told_does_not_need_the_ledger_any_more(site, receiver):
    """No gateway and no process that calls ran for an hour."""
    new = site.begin(receiver.url)
    settle(site.ledger, site.client, new, 0)
    site.client.delete(names.ledger(new.id), names.events(new.id))
    site.hurry(new.id)
    site.send()
    site.until(new.id, "delivered")
    assert receiver.got[0].message["data"]["id"] == new.id


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


def registry(site, kind: str) -> list[str]:
    found = site.client.zrange(names.rq_registry(kind, names.WEBHOOK_QUEUE), 0, -1)
    return [one.decode() for one in found]


def where(site, request: str) -> set[str]:
    """Where RQ's tools see a webhook's job."""
    kinds = {kind for kind in ("scheduled", "finished", "failed") if request in registry(site, kind)}
    kinds |= {"started"} & {"started" for one in registry(site, "wip") if one.startswith(request)}
    return kinds | ({"queued"} if site.client.lpos(names.rq_queue(names.WEBHOOK_QUEUE), request) is not None else set())


def test_rq_shows_each_job_in_one_place_from_its_first_call_to_its_last(site):
    """Also after a resend; what is over for long leaves the registries."""
    queue = open_queue(site.redis.url, "test", 60_000, 30.0, 2)
    old = {"01OLD": 1}
    for kind in ("finished", "failed"):
        site.client.zadd(names.rq_registry(kind, names.WEBHOOK_QUEUE), old)
    request = site.end("http://127.0.0.1:9/hook")

    def call(how: str, attempt: int, **told) -> None:
        site.hurry(request)
        site.enqueue()
        assert where(site, request) == {"queued"}
        (job,) = queue.claim(1)
        assert (job.request, job.attempt, where(site, request)) == (request, attempt, {"started"})
        (ends,) = [
            at for _, at in site.client.zrange(names.rq_registry("wip", names.WEBHOOK_QUEUE), 0, -1, withscores=True)
        ]
        assert ends * 1000 > connect.redis_now_ms(site.client) + 86_400_000  # RQ's clean-up leaves it alone
        queue.ended(job, how, status=500, error="x", **told)

    call("again", 1, wait_seconds=60)
    assert where(site, request) == {"scheduled"}
    call("again", 2, wait_seconds=60)
    call("failed", 3)
    assert (where(site, request), registry(site, "failed")) == ({"failed"}, [request])
    assert webhooks.resend(site.client, request, 60)
    call("delivered", 1)  # as if it were its first
    assert (where(site, request), registry(site, "finished")) == ({"finished"}, [request])
    assert site.state(request).attempts == 4
    assert webhooks.resend(site.client, request, 60)
    call("failed", 1)
    assert where(site, request) == {"failed"}
    assert site.client.pttl(names.rq_job(request)) == pytest.approx(names.WEBHOOK_KEPT_MS, rel=0.1)


def test_a_resend_calls_at_once_what_waits_and_leaves_alone_what_is_being_called(site):
    queue = open_queue(site.redis.url, "test", 60_000, 30.0, 2)
    request = site.end("http://127.0.0.1:9/hook")
    site.enqueue()
    (job,) = queue.claim(1)
    assert webhooks.resend(site.client, request, 60)
    site.enqueue()
    assert queue.claim(1) == []
    queue.ended(job, "again", status=500, error="x", wait_seconds=3_600)
    site.enqueue()
    assert queue.claim(1) == []
    assert webhooks.resend(site.client, request, 2 * 86_400)
    site.enqueue()
    (job,) = queue.claim(1)
    assert job.request == request
    # It is kept for as long as it is called again, and for a day after that.
    assert site.client.pttl(names.webhook(request)) > 2.9 * 86_400_000
    assert site.client.hget(names.webhook(request), "since") == b"1"
    queue.ended(job, "again", status=500, error="x", wait_seconds=86_400)
    assert site.state(request).state == "due"


def test_a_process_that_claims_no_more_does_not_count_as_one_that_calls(site):
    queue, other = (open_queue(site.redis.url, name, 60_000, 30.0, 2) for name in ("test", "other"))
    requests = [site.end(f"http://127.0.0.1:9/{number}") for number in range(3)]
    site.enqueue()
    assert len(queue.claim(1)) == 1
    site.webhooks.run_once()
    assert site.webhooks.faults() == []
    site.client.zincrby(names.WEBHOOK_SENDERS, -names.WEBHOOK_SENDER_MS - 1, "test")
    site.webhooks.run_once()
    assert [fault.name for fault in site.webhooks.faults()] == ["webhooks-away"]
    assert len(other.claim(len(requests))) == 2
    assert webhooks.senders(site.client) == ["other"]
    assert site.client.zrange(names.WEBHOOK_SENDERS, 0, -1) == [b"other"]
    other.leave()
    assert webhooks.senders(site.client) == []


def test_what_a_call_was_like_is_shown_for_an_hour_and_for_as_long_as_its_request(site):
    queue = open_queue(site.redis.url, "test", 60_000, 30.0, 2)
    for expires_in_ms, least in ((1_000, 3_500_000), (7_200_000, 7_100_000)):
        request = site.end("http://127.0.0.1:9/hook")
        now = connect.redis_now_ms(site.client)
        site.client.hset(names.webhook(request), "expires", now + expires_in_ms)
        site.enqueue()
        (job,) = queue.claim(1)
        queue.ended(job, "delivered", status=200, error="", took_seconds=5.0)
        for key in (names.webhook(request), names.rq_job(request)):
            assert least < site.client.pttl(key) <= least + 200_000
        (sent,) = site.client.hmget(names.webhook(request), "sent")
        assert now - 6_000 < int(sent) <= connect.redis_now_ms(site.client) - 5_000  # when it began


def test_a_look_ends_at_what_is_not_to_be_called_and_a_job_that_waits_is_looked_at_a_minute_later(site):
    gone, waiting = site.begin("http://127.0.0.1:9/hook"), site.end("http://127.0.0.1:9/hook")
    site.client.delete(names.ledger(gone.id))  # it expired, and nothing ended it
    site.hurry(gone.id)
    site.client.zadd(names.WEBHOOKS, {"01NONE": 1})  # its hash has expired
    site.client.zadd(names.WEBHOOKS_ENDED, {"01OLD": 1})
    now = connect.redis_now_ms(site.client)
    assert site.enqueue() == 1
    ((request, at),) = site.client.zrange(names.WEBHOOKS, 0, -1, withscores=True)
    assert (request.decode(), now + enqueuing.LOOK_MS <= at <= now + 2 * enqueuing.LOOK_MS) == (waiting, True)
    assert site.client.zrange(names.WEBHOOKS_ENDED, 0, -1) == [waiting.encode()]


def test_everything_of_a_webhook_expires(site, receiver):
    request = site.end(receiver.url)
    keys = [names.webhook(request), names.webhook_ledger(request)]
    assert all(
        86_400_000 < site.client.pttl(key) < 3 * 86_400_000 for key in keys
    )  # as long as it is called, and a day
    site.enqueue()
    assert 0 < site.client.pttl(names.rq_job(request)) <= 3 * 86_400_000
    assert not site.client.exists(names.webhook_ledger(request))


def test_a_claim_that_waits_has_a_connection_of_its_own(hub_redis):
    """One that does not wait would otherwise stand behind it, and time out sooner than it."""
    there, nowhere = (
        connect.open_redis(url, name="test", block_seconds=30.0) for url in (hub_redis.url, "redis://127.0.0.1:1")
    )
    assert jobs_queue.Queue(nowhere, there, "test", 60_000).claim(1, 0.01) == []
    assert jobs_queue.Queue(there, nowhere, "test", 60_000).claim(1) == []
    there.close()


def test_each_thread_that_calls_and_the_claim_need_not_wait_for_a_connection(hub_redis):
    queue = open_queue(hub_redis.url, "test", 60_000, 30.0, 2)
    assert len({queue._client.connection_pool.get_connection() for _ in range(3)}) == 3
    queue._client.close()


def test_a_full_hub_can_not_be_waited_on_and_still_gives_its_jobs(site):
    queue = open_queue(site.redis.url, "test", 60_000, 30.0, 2)
    request = site.end("http://127.0.0.1:9/hook")
    site.enqueue()
    site.client.config_set("maxmemory", 1)
    assert [job.request for job in queue.claim(1, 0.01)] == [request]
    with pytest.raises(redis.exceptions.ResponseError, match="maxmemory"):
        queue.claim(1, 0.01)


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
