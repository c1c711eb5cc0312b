"""Webhooks over HTTP: what a post may name, what its request shows, and whose it is. A real gateway, and a real process that calls."""

import json
import os
import signal
import threading

import pytest
from nearfetch_client import Nearfetch, verify_webhook

from regions import connect, names
from regions.settings import ROOT
from tests.forked import Forked
from tests.service.conftest import RedisInstance
from tests.service.gateway import JSON, LIST, GatewayProcess
from tests.service.jobs.webhook.hub_site import SENDER, WORDS
from tests.service.jobs.webhook.receiving import SECRET
from tests.service.web.api.test_keys import Keyed
from tests.waiting import until
from tests.wire import ask
from web.flow import webhooks as enqueuing
from web.flow.webhooks import Webhooks
from web.hub import webhooks as kept

QUICK = {"NEARFETCH__WEBHOOKS__ALLOW": "127.0.0.1", "NEARFETCH__WEBHOOKS__FIRST_WAIT_SECONDS": "0.1"}
PLAIN = {"sources": ["demo.plain"]}


@pytest.fixture(scope="module", autouse=True)
def _looks_often():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enqueuing, "CALM_SECONDS", 0.05)
        patch.setattr(enqueuing, "EVERY_SECONDS", 0.05)
        yield


@pytest.fixture(scope="module")
def told(tmp_path_factory, rabbitmq):
    """A gateway that needs keys, and a process that calls webhooks; ``log`` is what both have said."""
    folder = tmp_path_factory.mktemp("told")
    hub = RedisInstance(folder, "hub")
    made = Keyed(folder, rabbitmq, hub)
    made.region.purge()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("NEARFETCH")}
    environ |= {**QUICK, "NEARFETCH__HUB__REDIS": hub.url, "NEARFETCH__REGIONS__PATH": str(folder / "regions")}
    with (folder / "sender.log").open("wb") as log:
        sender = Forked(WORDS, imported=SENDER, cwd=ROOT, env=environ, stdout=log, stderr=log)
    yield made
    sender.send_signal(signal.SIGTERM)
    assert sender.wait(60) == 0
    made.stop()
    hub.stop()


def hooked(receiver, **more) -> dict:
    return {**PLAIN, "webhook": {"url": receiver.url, "secret": SECRET}, **more}


def called(told, receiver) -> None:
    """Waits for a call; not for the two seconds after the accept. One that has begun would be made twice if it were hurried."""
    hurried = set()

    def is_called() -> bool:
        for request in told.client.zrange(names.WEBHOOKS, 0, -1):
            if request not in hurried and told.client.hget(names.webhook(request.decode()), "state") == b"due":
                told.client.zadd(names.WEBHOOKS, {request: 1}, xx=True, lt=True)
                hurried.add(request)
        return bool(receiver.got)

    until(is_called, "the call")


def finish(told) -> str:
    task = told.region.take("nyc")
    told.region.finish(task)
    return task.request


def test_a_post_with_a_webhook_shows_it_and_its_receiver_is_told(told, receiver):
    key = told.key("shop")
    posted = told.ask(key, "POST", "/v1/requests", hooked(receiver))
    assert posted.status == 202
    request = posted.json()["id"]
    shown = {
        "url": f"http://127.0.0.1:{receiver.port}/hook?…", "state": "pending", "attempts": 0, "last_attempt_at": None, "status": None,
        "error": None, "next_attempt_at": None,
    }  # fmt: skip
    assert posted.json()["webhook"] == shown
    assert told.ask(key, "GET", f"/v1/requests/{request}").json()["webhook"] == shown
    finish(told)

    def delivered():
        found = told.ask(key, "GET", f"/v1/requests/{request}").json()["webhook"]
        return found if found["state"] == "delivered" else None

    called(told, receiver)
    found = until(delivered, "the delivery")
    assert (found["attempts"], found["status"]) == (1, 204)
    (got,) = receiver.got
    assert (got.id, got.message["data"]["id"]) == (f"msg_{request}", request)
    assert verify_webhook(got.headers, got.body, SECRET) == got.message
    for headers, body, secret in (
        ({**got.headers, "webhook-id": "msg_x"}, got.body, SECRET),
        (got.headers, got.body + b" ", SECRET),
        (got.headers, got.body, "whsec_" + "A" * 43 + "="),
        ({**got.headers, "webhook-timestamp": "1"}, got.body, SECRET),
        ({}, got.body, SECRET),
    ):
        with pytest.raises(ValueError, match="expected a webhook-"):
            verify_webhook(headers, body, secret)


def test_another_tenant_sees_neither_the_request_nor_its_webhook(told, receiver):
    ours, other, admin = told.key("shop"), told.key("bank"), told.key("ops", "admin")
    request = told.ask(ours, "POST", "/v1/requests", hooked(receiver)).json()["id"]
    for path in ("", "/events", f"/tasks/{request}"):
        answer = told.ask(other, "GET", f"/v1/requests/{request}{path}")
        assert answer.status == 404
        assert b"hook" not in answer.body.replace(b"webhook", b"")
    assert told.ask(admin, "GET", f"/v1/requests/{request}").json()["webhook"]["state"] == "pending"
    finish(told)
    called(told, receiver)
    assert "tenant" not in receiver.got[0].message["data"]


def test_a_tenant_lists_its_webhooks_and_has_one_called_again(told, receiver):
    """Under the same id. Nobody else's; and one whose request has not ended is left as it is."""
    ours, reader, other, admin = (
        told.key("shop"),
        told.key("shop", "read"),
        told.key("bank"),
        told.key("ops", "read", "admin"),
    )
    running, request = (told.ask(ours, "POST", "/v1/requests", hooked(receiver)).json()["id"] for _ in range(2))
    resend, listed = f"/v1/requests/{request}/webhook", "/v1/webhooks?state=delivered&limit=1"

    def state(of: str = request) -> dict:
        return told.ask(ours, "GET", f"/v1/requests/{of}").json()["webhook"]

    pending = told.ask(ours, "POST", f"/v1/requests/{running}/webhook")
    assert (pending.status, pending.json()) == (200, state(running))
    for _ in range(2):
        task = told.region.take("nyc")
        if task.request == request:
            told.region.finish(task)
    called(told, receiver)
    until(lambda: state()["state"] == "delivered", "the delivery")
    (one,) = told.ask(ours, "GET", listed).json()["webhooks"]
    assert one == {"request": request, "ended_at": one["ended_at"], **state()}
    assert told.ask(admin, "GET", listed).json()["webhooks"] == [one]
    assert told.ask(reader, "GET", listed).json()["webhooks"] == [one]
    for key, status in ((other, 404), (reader, 403), (ours, 200)):
        assert told.ask(key, "POST", resend.lower()).status == status
    until(lambda: state()["attempts"] == 2, "the second call")
    assert receiver.ids() == [f"msg_{request}"] * 2
    assert SECRET not in told.ask(ours, "GET", "/v1/webhooks").body.decode()
    assert told.ask(other, "GET", "/v1/webhooks").json() == {"webhooks": [], "cursor": None}
    without = told.ask(ours, "POST", "/v1/requests", {"sources": [LIST]}).json()["id"]
    assert told.ask(ours, "POST", f"/v1/requests/{without}/webhook").status == 404
    for query in ("state=pending", "limit=0", "cursor=x", "status=failed"):
        assert told.ask(ours, "GET", f"/v1/webhooks?{query}").status == 400
    told.region.purge()


def test_pages_of_webhooks_have_each_once(told, monkeypatch):
    """Also those that ended in the same millisecond, and where a page looks at others' alone."""
    monkeypatch.setattr(kept, "LOOKED_AT", 3)
    monkeypatch.setattr(kept, "AT_ONCE", 2)
    key, now = told.key("pages"), connect.redis_now_ms(told.client)
    made = {f"01M87RTYV9Y5XD88GQ9E7T7S{number:02}": now + number // 4 for number in range(20)}
    for number, (request, ended) in enumerate(made.items()):
        tenant = "pages" if number in (0, 5, 6, 7, 17) else "bank"
        fields = {"url": "https://shop.example/", "tenant": tenant, "state": "failed", "attempts": 1, "ended": ended}
        told.client.hset(names.webhook(request), mapping=fields)
    told.client.zadd(names.WEBHOOKS_ENDED, made)
    found, cursor, pages = [], "", 0
    while cursor is not None:
        answer = told.ask(key, "GET", f"/v1/webhooks?limit=2{cursor and f'&cursor={cursor}'}").json()
        found += [one["request"][-2:] for one in answer["webhooks"]]
        cursor, pages = answer["cursor"], pages + 1
    assert found == ["17", "07", "06", "05", "00"]
    assert pages > 5
    assert [one.request[-2:] for one in kept.listed(told.client, "pages")] == found
    assert [one.request[-2:] for one in kept.listed(told.client, "pages", "failed", 2)] == found[:2]
    told.client.delete(*map(names.webhook, made))
    told.client.zrem(names.WEBHOOKS_ENDED, *made)


def test_a_cancelled_request_has_ended_too(told, receiver):
    key = told.key("shop")
    asked = hooked(receiver, sources=[LIST])  # of another region: the others' messages are not in its queues
    request = told.ask(key, "POST", "/v1/requests", asked).json()["id"]
    assert told.ask(key, "DELETE", f"/v1/requests/{request}").json()["webhook"]["state"] == "due"
    called(told, receiver)
    assert receiver.got[0].message["data"]["status"] == "cancelled"


def test_a_post_that_is_repeated_calls_once(told, receiver):
    key = told.key("shop")
    headers = {"Idempotency-Key": "one"}
    first = told.ask(key, "POST", "/v1/requests", hooked(receiver), **headers).json()
    request = finish(told)
    called(told, receiver)

    def again():
        answer = told.ask(key, "POST", "/v1/requests", hooked(receiver), **headers)
        return answer if answer.status == 202 else None

    repeated = until(again, "the same answer")
    assert repeated.json() == first
    assert repeated.headers["idempotency-replayed"] == "true"
    other = told.ask(key, "POST", "/v1/requests", hooked(receiver, attrs={"n": 1}), **headers)
    assert other.status == 422
    assert SECRET not in other.body.decode()
    assert receiver.ids() == [f"msg_{request}"]


def test_a_request_of_one_source_may_be_waited_for_as_well(told, receiver):
    key = told.key("shop")
    answers = []
    waiting = threading.Thread(
        target=lambda: answers.append(told.ask(key, "POST", "/v1/requests", hooked(receiver), Prefer="wait=20"))
    )
    waiting.start()
    told.region.finish(told.region.take("nyc", fast=True))
    waiting.join()
    assert answers[0].status == 200
    assert answers[0].json()["webhook"]["state"] == "due"
    called(told, receiver)


@pytest.mark.parametrize(
    ("webhook", "pointers"),
    [
        ("https://shop.example/", ["/webhook"]),
        (None, ["/webhook"]),
        ({}, ["/webhook/url", "/webhook/secret"]),
        ({"url": "https://shop.example/", "secret": "whsec_c2hvcnQ="}, ["/webhook/secret"]),
        ({"url": "http://shop.example/", "secret": SECRET}, ["/webhook/url"]),
        ({"url": 5, "secret": [SECRET]}, ["/webhook/url", "/webhook/secret"]),
        ({"url": "https://shop.example/", "secret": SECRET, "events": []}, ["/webhook/events"]),
        ({"url": "https://u:p@shop.example/", "secret": SECRET[:30]}, ["/webhook/url", "/webhook/secret"]),
    ],
)
def test_a_wrong_webhook_is_refused_with_all_faults_and_without_its_secret(told, webhook, pointers):
    answer = told.ask(told.key("shop"), "POST", "/v1/requests", {"sources": ["no.such"], "webhook": webhook})
    assert answer.status == 422
    found = [one["pointer"] for one in answer.json()["errors"]]
    assert sorted(found) == sorted(["/sources/0", *pointers])
    assert SECRET[6:20] not in answer.body.decode()
    assert "u:p" not in answer.body.decode()


def test_the_python_client_names_a_webhook(told, receiver):
    client = Nearfetch(f"http://127.0.0.1:{told.port}", told.key("shop"))
    request = client.submit("demo.plain", webhook=(receiver.url, SECRET))
    finish(told)
    called(told, receiver)
    assert receiver.ids() == [f"msg_{request.id}"]


def test_a_gateway_that_is_killed_between_the_end_and_the_job_is_made_good(own_stack, receiver):
    """It dies when it has taken what is due; the settle that made it due was its own last deed."""
    own_stack.gateway.webhooks.stop()
    own_stack.gateway.settler.stop()
    dies = "import os; from web.flow import webhooks; webhooks.is_written = lambda *_: os.kill(os.getpid(), 9)"
    with GatewayProcess(own_stack, patch=dies) as other:
        body = json.dumps(hooked(receiver)).encode()
        request = ask(other.port, "POST", "/v1/requests", JSON, body).json()["id"]
        finish(own_stack)
        assert other.process.wait(60) == -signal.SIGKILL
    client = connect.open_redis(own_stack.hub.url, name="test", block_seconds=30.0)
    assert client.hget(names.webhook(request), "state") == b"due"
    assert client.llen(names.rq_queue(names.WEBHOOK_QUEUE)) == 0
    client.zadd(names.WEBHOOKS, {request: 1}, xx=True)  # as if the lease of the dead one were over
    gateway = own_stack.gateway
    again = Webhooks(own_stack.settings, gateway.hub, gateway.webhooks._message)
    assert again.run_once() == 1
    assert client.lrange(names.rq_queue(names.WEBHOOK_QUEUE), 0, -1) == [request.encode()]
    client.close()
