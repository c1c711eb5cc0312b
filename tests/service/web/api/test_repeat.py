"""Posts with an Idempotency-Key, over HTTP: a real gateway; the test plays the region."""

import json
import threading

import pytest
from ulid import ULID

from regions import connect, names
from tests.service.gateway import JSON
from tests.waiting import until
from tests.wire import Wire, ask
from web.flow import accept
from web.hub import ledger

PLAIN = {"sources": ["demo.plain"], "attrs": {"order": 17}}


def key() -> dict[str, str]:
    """The headers of a post with a new key."""
    return {**JSON, "Idempotency-Key": f'"{ULID()}"'}


@pytest.fixture(autouse=True)
def _no_message_is_left(stack):
    yield
    stack.region.purge()


def test_the_same_key_and_body_get_the_first_answer_and_make_no_second_request(stack):
    headers = key()
    first, again = (stack.post(PLAIN, headers) for _ in range(2))
    assert (first.status, again.status, again.body) == (202, 202, first.body)
    assert again.headers["location"] == first.headers["location"]
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    task = stack.region.take("nyc")
    assert stack.region.is_empty("nyc")
    stack.region.finish(task)
    until(lambda: ask(stack.port, "GET", first.headers["location"]).json()["done"], "the end")
    assert stack.post(PLAIN, headers).body == first.body
    bare = {**headers, "Idempotency-Key": headers["Idempotency-Key"].strip('"')}
    assert stack.post(PLAIN, bare).body == first.body


def test_a_client_that_waits_gets_the_result_of_the_first_again(stack):
    headers = {**key(), "Prefer": "wait=20"}
    replies = []

    def post() -> None:
        replies.append(stack.post(PLAIN, headers))

    waiting = threading.Thread(target=post)
    waiting.start()
    task = stack.region.take("nyc", fast=True)
    again = threading.Thread(target=post)
    again.start()
    until(lambda: len(stack.gateway.waiters) == 2, "both to wait")
    stack.region.finish(task)
    waiting.join()
    again.join()
    replies.append(stack.post(PLAIN, headers))
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert len({reply.body for reply in replies}) == 1
    assert sorted(reply.headers.get("idempotency-replayed", "") for reply in replies) == ["", "true", "true"]
    assert replies[2].headers["preference-applied"] == "wait=20"


def test_another_body_with_the_same_key_is_refused(stack):
    headers = key()
    assert stack.post(PLAIN, headers).status == 202
    other = stack.post({**PLAIN, "attrs": {}}, headers)
    assert (other.status, other.json()["type"]) == (422, "/problems/key-reused")
    assert stack.post(PLAIN, key()).status == 202  # another key is another request


def test_a_body_that_is_refused_does_not_use_its_key_up(stack):
    headers = key()
    assert stack.post({"sources": ["no.such"]}, headers).status == 422
    assert stack.post(PLAIN, headers).status == 202


@pytest.mark.parametrize("text", ['""', "a b", "x" * 256, "\xff", '"a', 'a"b'])
def test_a_key_that_can_not_be_one_is_refused(stack, text):
    reply = stack.post(PLAIN, {**JSON, "Idempotency-Key": text})
    assert (reply.status, reply.json()["type"]) == (400, "/problems/bad-request")


def test_while_the_first_is_being_accepted_the_second_is_told_to_come_back(stack, monkeypatch, in_time):
    """And when the first was refused, its key is free."""
    headers = key()
    gate = threading.Event()
    publish = stack.gateway.publisher.publish

    def held(batch):
        gate.wait(60)
        publish(batch)

    monkeypatch.setattr(accept, "BUDGET_SECONDS", 2.0)  # in which the second comes
    monkeypatch.setattr(stack.gateway.publisher, "publish", held)
    replies = []
    posting = threading.Thread(target=lambda: replies.append(stack.post(PLAIN, headers)))
    posting.start()
    with connect.open_redis(stack.hub.url, name="test", block_seconds=30.0) as hub:
        until(lambda: [*hub.scan_iter(names.idempotency("*"))] and hub.zcard(names.ACCEPTING), "the first to begin")
    second = stack.post(PLAIN, headers)
    assert (second.status, second.headers["retry-after"]) == (409, "1")
    assert second.json()["type"] == "/problems/in-flight"
    posting.join()
    assert replies[0].status == 503
    gate.set()
    third = until(lambda: (reply := stack.post(PLAIN, headers)).status == 202 and reply, "the key to be free")
    assert third.json()["id"] != replies[0].json()["request"]
    assert "idempotency-replayed" not in third.headers


def test_another_gateways_accept_is_repeated_once_it_can_no_longer_be_taken_back(stack, monkeypatch):
    headers = key()
    first = stack.post(PLAIN, headers)
    monkeypatch.setattr(ledger, "THIS_GATEWAY", "another:1")
    monkeypatch.setattr(ledger, "TAKEN_BACK_MS", 3_600_000)
    assert stack.post(PLAIN, headers).status == 409
    monkeypatch.setattr(ledger, "TAKEN_BACK_MS", -1)
    assert stack.post(PLAIN, headers).body == first.body


def test_a_key_is_remembered_for_a_day_and_whose_results_are_gone_is_told(stack):
    headers = key()
    request = stack.post(PLAIN, headers).json()["id"]
    with connect.open_redis(stack.hub.url, name="test", block_seconds=30.0) as hub:
        [kept] = [one for one in hub.scan_iter(names.idempotency("*")) if hub.hget(one, "request") == request.encode()]
        assert 86_000_000 < hub.pttl(kept) <= 86_400_000
        hub.delete(names.ledger(request))
    reply = stack.post(PLAIN, headers)
    assert (reply.status, stack.region.take("nyc").request) == (404, request)
    assert stack.region.is_empty("nyc")


def test_a_repeated_begin_of_the_same_request_is_not_taken_for_another(stack):
    """Redis's client repeats a write whose answer was lost."""
    headers = key()
    begin = stack.gateway.ledger.begin

    def twice(new):
        begin(new)
        return begin(new)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack.gateway.ledger, "begin", twice)
        reply = stack.post(PLAIN, headers)
    assert (reply.status, "idempotency-replayed" in reply.headers) == (202, False)


def test_the_key_counts_for_the_whole_head(stack):
    """A bad key is refused before a client sends its body."""
    with Wire(stack.port) as wire:
        body = json.dumps(PLAIN).encode()
        head = {**JSON, "Idempotency-Key": "a b", "Content-Length": str(len(body)), "Expect": "100-continue"}
        wire.send("POST", "/v1/requests", head)
        assert wire.reply().status == 400


def test_a_first_request_that_can_not_be_read_is_a_500_and_no_wait_without_end(stack):
    headers = key()
    first = stack.post(PLAIN, headers).json()["id"]
    stack.hub.client.set(names.events(first), "damaged")
    try:
        reply = stack.post(PLAIN, headers)
        assert (reply.status, reply.json()["type"]) == (500, "/problems/internal")
    finally:
        stack.hub.client.delete(names.events(first))
