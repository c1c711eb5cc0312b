"""Dead letters on a real broker: whatever way a message dies, its task ends once and the letter waits for an operator."""

import json
import os
import subprocess
import threading
import time

import pika
import pytest

from regions import names, topology
from regions.settings import ROOT
from tests import forked
from tests.forked import COMMAND
from tests.service.bridging import bridging, settings_of
from tests.service.gateway import LIST, Stack
from tests.service.hub_parts import new_request, settings
from tests.waiting import until
from tests.wire import ask
from web.flow import dead
from web.flow.dead import DeadLetter, DeadLetters, DeadReader
from web.hub.ledger import Ledger
from web.hub.redis import Hub


@pytest.fixture
def stack(tmp_path, rabbitmq, hub_redis):
    channel = open_channel(rabbitmq)
    for name, _, _ in topology.queues(["fra", "nyc", "sin"]):
        channel.queue_declare(name, durable=True, arguments=topology.QUORUM)
        channel.queue_purge(name)
    channel.connection.close()
    one = Stack(tmp_path, rabbitmq, hub_redis)
    yield one
    one.stop()


def open_channel(rabbitmq):
    channel = pika.BlockingConnection(pika.URLParameters(f"{rabbitmq.url}?heartbeat=0")).channel()
    channel.confirm_delivery()
    return channel


@pytest.fixture
def nearfetch(tmp_path, stack):
    """Runs the command line as an operator at the hub."""
    (tmp_path / "nearfetch.toml").write_text(f'[hub]\nredis = "{stack.hub.url}"\n')
    clean = {key: value for key, value in os.environ.items() if not key.startswith("NEARFETCH")}
    found = {
        **clean,
        "NEARFETCH_CONFIG": str(tmp_path / "nearfetch.toml"),
        "NEARFETCH_URL": f"http://127.0.0.1:{stack.port}",
    }

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = ["-m", "scripts.cli", *words]
        return forked.run(command, imported=COMMAND, cwd=ROOT, env={**found, **variables}, text=True)

    return run


def letters(stack) -> list[DeadLetter]:
    return DeadLetters(stack.hub.client).all()


def posted(stack, sources=(LIST,)) -> tuple[str, list[str]]:
    answer = stack.post({"sources": list(sources)}).json()
    return answer["id"], [task["id"] for task in answer["tasks"]]


def done(stack, request: str) -> dict:
    def read():
        answer = ask(stack.port, "GET", f"/v1/requests/{request}").json()
        return answer if answer.get("done") else None  # or the hub is away

    return until(read, "the request to be done")


def take(rabbitmq, queue: str):
    """Takes a message of a queue and lets it die."""
    channel = open_channel(rabbitmq)

    def get():
        method, properties, body = channel.basic_get(queue)
        return (method, properties, body) if method is not None else None

    method, properties, body = until(get, f"a message in {queue}")
    return channel, method, properties, body


def reject(stack, rabbitmq) -> None:
    channel, method, _, _ = take(rabbitmq, names.work_queue("fra"))
    channel.basic_reject(method.delivery_tag, requeue=False)
    channel.connection.close()


def test_a_rejected_task_fails_at_once_with_its_reason_and_its_letter_is_kept(stack, rabbitmq):
    request, (task,) = posted(stack)
    reject(stack, rabbitmq)
    (result,) = done(stack, request)["results"]
    assert (result["task"], result["source"], result["status"]) == (task, "demo.list", "failed")
    assert (result["error"]["type"], result["error"]["origin"]) == ("internal", "internal")
    assert "dead-lettered from q.fra: rejected" in result["error"]["message"]
    (letter,) = until(lambda: letters(stack), "the letter")
    assert (letter.id, letter.request, letter.region, letter.source) == (task, request, "fra", "demo.list")
    assert json.loads(letter.body)["params"] == {**LIST["params"], "page": 1}
    assert ask(stack.port, "GET", "/v1/regions").json()["dead_letters"] == 1
    until(lambda: is_empty(rabbitmq), "the letter to be acked")


def is_empty(rabbitmq) -> bool:
    channel = open_channel(rabbitmq)
    count = channel.queue_declare(names.DEAD_QUEUE, passive=True).method.message_count
    channel.connection.close()
    return count == 0


def test_what_the_broker_itself_gives_up_on_ends_too(stack, rabbitmq):
    """By a policy that is not ours: a delivery limit, and a message's time to live."""
    policies = {"delivery_limit": {"delivery-limit": 1}, "expired": {"message-ttl": 200}}
    for reason, policy in policies.items():
        rabbitmq.set_policy("dies", "^q.fra$", {**topology.POLICY, **policy})
        try:
            request, (task,) = posted(stack)
            if reason == "delivery_limit":
                until(lambda task=task: gives_back(rabbitmq) or task in ids(stack), "the letter")
            (result,) = done(stack, request)["results"]
            assert f"dead-lettered from q.fra: {reason}" in result["error"]["message"]
            until(lambda task=task: task in ids(stack), "the letter")
        finally:
            rabbitmq.clear_policy("dies")


def ids(stack) -> list[str]:
    return [letter.id for letter in letters(stack)]


def gives_back(rabbitmq) -> None:
    """Takes the task and gives it back, if it is there."""
    channel = open_channel(rabbitmq)
    method, _, _ = channel.basic_get(names.work_queue("fra"))
    if method is not None:
        channel.basic_nack(method.delivery_tag, requeue=True)
    channel.connection.close()


def test_a_message_of_another_version_names_both_versions(stack, rabbitmq, region_redis):
    """By a real bridge, which can't read it: the task ends once, and its letter says what was expected and found."""
    request, _ = posted(stack)
    channel, method, properties, body = take(rabbitmq, names.work_queue("fra"))
    channel.basic_publish(names.TASKS_EXCHANGE, "fra", body.replace(b'"v":1', b'"v":7'), properties)
    channel.basic_ack(method.delivery_tag)
    channel.connection.close()
    with bridging(settings_of(stack.hub, region_redis, rabbitmq, "fra"), "fra"):
        answer = done(stack, request)
    assert answer["completed"] == len(answer["results"]) == 1
    assert "expected a task of version 0 to 2, found 7" in answer["results"][0]["error"]["message"]
    (letter,) = until(lambda: letters(stack), "the letter")
    assert letter.fault == "expected a task of version 0 to 2, found 7"


@pytest.mark.parametrize(
    ("body", "properties"),
    [
        (b"\x00\xff garbage", pika.BasicProperties()),
        (b"{", pika.BasicProperties(type="task", message_id="01UNKNOWN", correlation_id="01NOBODY")),
        (b"[" * 100_000, pika.BasicProperties(type="task", message_id="x" * 255, correlation_id="\n|")),
        (b'{"v":1,"task":"a","request":"b","deadline_ms":1}', pika.BasicProperties(type="cancel", message_id="a")),
        (b"\x00" * 900_000, pika.BasicProperties(type="odd", headers={"x-death": "no list"})),
        (b"?", pika.BasicProperties(type="odd", headers={"x-death": [{"count": "many", "queue": []}]})),
    ],
)
def test_what_nobody_can_read_is_kept_and_never_stops_the_reader(stack, rabbitmq, body, properties):
    channel = open_channel(rabbitmq)
    channel.basic_publish(names.DEAD_EXCHANGE, "", body, properties)
    channel.connection.close()
    (letter,) = until(lambda: letters(stack), "the letter")
    assert letter.body_bytes == len(body)
    assert stack.hub.client.hstrlen(names.DEAD, letter.id) < 36_000
    assert bool(letter.fault) == (properties.type != "cancel")
    request, _ = posted(stack)
    reject(stack, rabbitmq)
    assert done(stack, request)["status"] == "failed"


def test_a_letter_that_comes_twice_is_one_and_ends_nothing_again(stack, rabbitmq):
    request, (task,) = posted(stack)
    channel, method, properties, body = take(rabbitmq, names.work_queue("fra"))
    channel.basic_ack(method.delivery_tag)
    for _ in range(3):
        channel.basic_publish(names.DEAD_EXCHANGE, "", body, properties)
    channel.connection.close()
    answer = done(stack, request)
    until(lambda: is_empty(rabbitmq), "the letters to be acked")
    assert len(answer["results"]) == 1
    assert [letter.id for letter in letters(stack)] == [task]


def test_a_task_that_succeeded_stays_so(stack, rabbitmq):
    request, _ = posted(stack)
    channel, method, properties, body = take(rabbitmq, names.work_queue("fra"))
    channel.basic_nack(method.delivery_tag, requeue=True)
    stack.region.finish(stack.region.take("fra"))
    assert done(stack, request)["status"] == "succeeded"
    channel.basic_publish(names.DEAD_EXCHANGE, "", body, properties)
    channel.connection.close()
    until(lambda: letters(stack), "the letter")
    assert done(stack, request)["status"] == "succeeded"


def test_letters_wait_in_the_broker_while_the_hub_is_away(stack, rabbitmq):
    """And are not delivered over and over meanwhile: a broker's own delivery limit would lose them."""
    request, (task,) = posted(stack)
    stack.hub.running.stop()
    until(lambda: stack.gateway.hub.state, "the outage to be seen")
    reject(stack, rabbitmq)
    assert deliveries(rabbitmq, seconds=3.0) <= 1
    stack.hub.running.start()
    assert done(stack, request)["results"][0]["task"] == task
    assert [letter.id for letter in until(lambda: letters(stack), "the letter")] == [task]


def deliveries(rabbitmq, seconds: float) -> int:
    """How often the letter in q.dead was given back within a time; each look of ours counts too, and is taken off."""
    looks, end = 0, time.monotonic() + seconds
    while True:
        channel, method, properties, _ = take(rabbitmq, names.DEAD_QUEUE)
        channel.basic_nack(method.delivery_tag, requeue=True)
        channel.connection.close()
        count = (properties.headers or {}).get("x-delivery-count", 0) - looks
        looks += 1
        if time.monotonic() > end:
            return count


@pytest.fixture
def reader(patient_clients, tmp_path, hub_redis, rabbitmq):
    """A gateway's reader alone, not started: with its ledger, and whom it told."""
    found = settings(tmp_path, redis=hub_redis.url, amqp=rabbitmq.url)
    hub, told = Hub(found), []
    hub.run_once()
    ledger = Ledger(hub.client, found.limits)
    one = DeadReader(found, hub, ledger, told.extend)
    yield one, ledger, told
    one.stop()
    hub.client.close()


@pytest.mark.parametrize(
    ("kind", "has_task", "has_request", "ends"),
    [
        ("task", True, True, True),
        ("cancel", True, True, False),
        ("task", True, False, False),
        ("task", False, True, False),
    ],
)
def test_only_the_message_of_a_task_ends_it(reader, kind, has_task, has_request, ends, capfd):
    one, ledger, told = reader
    new = new_request()
    ledger.begin(new)
    ledger.accept([new.id])
    task, request = new.tasks[0].id if has_task else None, new.id if has_request else None
    one.bury(pika.BasicProperties(type=kind, message_id=task, correlation_id=request), b"{}")
    assert ledger.read(new.id).done is ends
    assert told == [new.id] * ends
    (letter,) = one._letters.all()
    assert (letter.region, letter.source) == (("fra", "ecb.rates") if ends else ("", ""))
    assert letter.id, "a message without a task has an id, too"
    assert (letter.id == task) is (kind == "task" and has_task), "and no cancel takes the place of its task"
    assert capfd.readouterr().out.count("dead letter ") == 1


def test_a_reader_takes_some_letters_leaves_the_rest_to_others_and_ends_when_it_is_stopped(
    reader, rabbitmq, monkeypatch
):
    one, _, _ = reader
    begun, goes_on = threading.Event(), threading.Event()
    monkeypatch.setattr(one, "bury", lambda *_: (begun.set(), goes_on.wait(60)))
    channel = open_channel(rabbitmq)
    dead._declare(channel)
    channel.queue_purge(names.DEAD_QUEUE)

    def ready() -> int:
        return channel.queue_declare(names.DEAD_QUEUE, passive=True).method.message_count

    for _ in range(dead.PREFETCH + 5):
        channel.basic_publish(names.DEAD_EXCHANGE, "", b"?")
    one._loop.failures = 3
    one.start()
    assert begun.wait(60)
    until(lambda: ready() <= 5, "the first letters to be taken")
    assert ready() == 5
    assert one._loop.failures == 0, "the next outage begins with a short wait"
    goes_on.set()
    until(lambda: ready() == 0, "the rest")
    one.stop()
    until(lambda: not one._loop.thread.is_alive(), "its thread to end")
    channel.connection.close()


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ('"' * 8_000 + "x" * 9_000, dead.BODY_MAX),  # half of it is escaped where it is kept
        ('"' * 16_000, dead.GARBAGE_MAX),
        ("x" * 500, 500),
    ],
)
def test_a_body_is_kept_as_far_as_it_is_text(body, kept):
    letter = dead.letter_of(pika.BasicProperties(type="task"), body.encode())
    assert (letter.body, letter.body_bytes) == (body[:kept], len(body))


def test_a_reader_that_comes_before_the_publisher_misses_no_letter(reader, rabbitmq):
    one, _, _ = reader
    channel = open_channel(rabbitmq)
    channel.queue_delete(names.DEAD_QUEUE)
    channel.exchange_delete(names.DEAD_EXCHANGE)
    channel.connection.close()
    one.start()

    def is_taken() -> bool:
        channel = open_channel(rabbitmq)
        try:
            channel.basic_publish(names.DEAD_EXCHANGE, "", b"?", mandatory=True)
        except (pika.exceptions.UnroutableError, pika.exceptions.ChannelClosedByBroker):
            return False
        finally:
            channel.connection.close()
        return True

    until(is_taken, "the exchange to have a queue")
    until(one._letters.count, "the letter")


def test_the_oldest_letters_go_where_there_are_too_many_or_they_are_too_old(hub_redis, monkeypatch):
    monkeypatch.setattr(dead, "KEPT_MAX", 3)
    kept = DeadLetters(hub_redis.client)
    for number in range(5):
        assert kept.keep(DeadLetter(id=str(number)))
        assert not kept.keep(DeadLetter(id=str(number), reason="again"))
        assert kept.count() == min(number + 1, 3)
    assert [one.id for one in kept.all()] == ["2", "3", "4"]
    assert hub_redis.client.hlen(names.DEAD) == 3
    hub_redis.client.zincrby(names.DEAD_AT, -dead.TTL_MS - 1, "3")
    kept.keep(DeadLetter(id="5"))
    assert [one.id for one in kept.all()] == ["2", "4", "5"]
    for key in (names.DEAD, names.DEAD_AT):
        assert dead.TTL_MS - 60_000 < hub_redis.client.pttl(key) <= dead.TTL_MS
    assert [one.id for one in kept.some(["5", "0", "2"])] == ["5", "2"]
    assert (kept.drop(["5", "0"]), kept.drop([]), kept.count()) == (1, 0, 2)
    hub_redis.client.hset(names.refused("fra"), mapping={"result": 3, "version": 1, "at": 5})
    kept.keep(DeadLetter(id="fra:result"))
    assert kept.drop(["fra:result"]) == 1
    assert hub_redis.client.hgetall(names.refused("fra")) == {b"version": b"1", b"at": b"5"}
    assert hub_redis.client.hlen(names.DEAD) == 2
    hub_redis.client.zincrby(names.DEAD_AT, -dead.TTL_MS - 1, "2")
    kept.keep(DeadLetter(id="6"))
    assert [one.id for one in kept.all()] == ["4", "6"], "also where there is room"


def test_an_operator_lists_shows_retries_and_drops(stack, rabbitmq, nearfetch):
    request, (task,) = posted(stack)
    reject(stack, rabbitmq)
    until(lambda: letters(stack), "the letter")
    listed = nearfetch("dead", "list")
    assert (listed.returncode, "1 dead letter." in listed.stdout, task in listed.stdout) == (0, True, True)
    shown = nearfetch("dead", "show", task)
    assert f"request  {request}" in shown.stdout
    assert '"category":"poetry"' in shown.stdout
    assert json.loads(nearfetch("dead", "show", task, "--json").stdout)["reason"] == "rejected"
    assert "1 dead letter: nearfetch dead list" in nearfetch("status").stdout

    retried = nearfetch("dead", "retry", task, "--json")
    assert retried.returncode == 0
    (told,) = json.loads(retried.stdout)
    again = stack.region.take("fra")
    assert (again.request, again.source, again.params) == (
        told["retried_as"],
        "demo.list",
        {**LIST["params"], "page": 1},
    )
    answer = ask(stack.port, "GET", f"/v1/requests/{again.request}").json()
    assert answer["attrs"] == {"retry_of": {"request": request, "task": task}}
    assert json.loads(nearfetch("dead", "list", "--json").stdout) == []
    assert nearfetch("dead", "show", task).returncode == 1

    posted(stack)
    reject(stack, rabbitmq)
    until(lambda: letters(stack), "the next letter")
    assert nearfetch("dead", "drop", "--all").returncode == 0
    assert nearfetch("dead", "drop", task).returncode == 1
    assert letters(stack) == []


def test_what_can_not_be_retried_says_why_and_stays(stack, nearfetch):
    kept = DeadLetters(stack.hub.client)
    bodies = {
        "cut": ('{"source": "demo', 10_000),
        "garbage": ("{", 1),
        "gone": ('{"source": "no.such", "params": {}}', 35),
        "cancelled": ("{}", 2),
    }
    for identifier, (body, size) in bodies.items():
        kind = "cancel" if identifier == "cancelled" else "task"
        kept.keep(DeadLetter(id=identifier, kind=kind, body=body, body_bytes=size))
    tried = nearfetch("dead", "retry", *bodies, "unknown", "--json")
    assert tried.returncode == 1
    faults = {one["id"]: one["fault"] for one in json.loads(tried.stdout)}
    expected = {
        "cut": "too long to be kept",
        "garbage": "can't be read",
        "gone": "no.such",
        "cancelled": "expected a task, found a cancel",
        "unknown": "no such dead letter",
    }
    assert all(words in faults[identifier] for identifier, words in expected.items())
    assert kept.count() == len(bodies)


def test_wrong_usage_is_2_and_an_outage_is_3(stack, nearfetch):
    for command in ("retry", "drop"):
        assert nearfetch("dead", command).returncode == 2
        assert nearfetch("dead", command, "a", "--all").returncode == 2
    DeadLetters(stack.hub.client).keep(DeadLetter(id="a", kind="task", body='{"source": "demo.list"}'))
    assert nearfetch("dead", "retry", "a", NEARFETCH_URL="http://127.0.0.1:1").returncode == 3
    assert [letter.id for letter in letters(stack)] == ["a"]
    stack.hub.running.stop()
    away = nearfetch("dead", "list")
    assert (away.returncode, "does not answer" in away.stderr) == (3, True)


def test_ids_are_completed(stack, nearfetch):
    for identifier in ("01AA", "01AB", "02"):
        DeadLetters(stack.hub.client).keep(DeadLetter(id=identifier))
    asked = {"_NEARFETCH_COMPLETE": "bash_complete", "COMP_LINE": "nearfetch dead show 01", "COMP_CWORD": "3"}
    assert nearfetch(**asked).stdout.split() == ["plain,01AB", "plain,01AA"]
    stack.hub.running.stop()
    assert nearfetch(**asked).stdout.split() == []
