"""Calls of webhooks: what their receivers see, and what becomes of their answers."""

import json
import socket
import threading

import pytest
from click.testing import CliRunner

from jobs.fetch.fetcher import Fetcher
from jobs.fetch.guard import parse_allow
from jobs.webhook.call import Caller
from jobs.webhook.queue import open_queue
from regions import connect, names
from scripts.cli import main
from scripts.stack.services import free_port
from tests.service.jobs.webhook.hub_site import Site
from tests.service.jobs.webhook.receiving import SECRET, Deaf, Receiver
from tests.waiting import until


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
        assert found.error == "blocked_address: expected a public address, found another one"
        until(lambda: f"port {private.port}" in site.said(), "the operator to be told which")
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
    queue = open_queue(site.redis.url, "test", 60_000, 30.0, 2)
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
        assert "127.0.0." not in site.state(request).error, (
            "nobody learns by it what a name of the hub's network leads to"
        )
    finally:
        fetcher.close()
        everywhere.close()


def test_a_slow_receiver_is_cut_off_and_told_again(tmp_path, hub_redis, receiver):
    site = Site(tmp_path, hub_redis, NEARFETCH__WEBHOOKS__TIMEOUT_SECONDS="0.3")
    over = threading.Event()
    receiver.answers = [lambda _: over.wait(120), 204]
    try:
        request = site.end(receiver.url)
        site.send()
        found = site.until(request, "delivered")
        assert found.attempts >= 2
        assert receiver.got[1:]
        assert set(receiver.ids()) == {f"msg_{request}"}
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


@pytest.mark.parametrize(("answer", "seconds"), [(drips, "2"), (floods, "30")])
def test_an_answer_counts_by_its_status_whatever_its_body_is(tmp_path, hub_redis, receiver, answer, seconds):
    site = Site(tmp_path, hub_redis, NEARFETCH__WEBHOOKS__TIMEOUT_SECONDS=seconds)
    receiver.answers = [answer]
    try:
        request = site.end(receiver.url)
        site.send()
        assert site.until(request, "delivered").status == 200
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


@pytest.mark.usefixtures("patient_clients")
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


def test_a_receiver_that_hangs_delays_no_other(tmp_path, hub_redis, receiver):
    site = Site(tmp_path, hub_redis, NEARFETCH__WEBHOOKS__THREADS="8", NEARFETCH__WEBHOOKS__TIMEOUT_SECONDS="60")
    over = threading.Event()
    hanging = Receiver(lambda _: over.wait(120))
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
