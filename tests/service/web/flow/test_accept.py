"""Publishing and accepting on a real RabbitMQ and Redis: a 202 after the confirms, a 503 within a second, never both."""

import queue
import signal
import threading
import time
from contextlib import contextmanager

import msgspec
import pika
import pytest

from jobs import contract, result_frame
from regions import connect, durability, names, topology
from tests import broker
from tests.service.gateway import hurry
from tests.service.hub_parts import accepted, new_request, settings, settle
from tests.service.web.conftest import PATIENCE_SECONDS
from tests.waiting import freeze, until
from web.flow import accept, confirms, kept
from web.flow.accept import Accepted, Acceptor, Refused
from web.flow.publish import Publisher
from web.hub import ledger, scripts, webhooks
from web.hub.ledger import Ledger
from web.hub.redis import BROKEN, Hub
from web.hub.settlement import Settlement

# Without a budget it takes as long as a dead connection: six and more. The promise of a second: tests/promises/test_backpressure.py
ANSWER_SECONDS = 5.0

pytestmark = pytest.mark.usefixtures("in_time")


class Half:
    """The hub's half of a gateway, and what it answered."""

    def __init__(self, found):
        self.hub = Hub(found)
        self.ledger = Ledger(self.hub.client, found.limits)
        self.publisher = Publisher(found)
        self.acceptor = Acceptor(self.hub, self.ledger, self.publisher)
        self.answers = queue.SimpleQueue()

    def start(self):
        self.hub.start()
        self.publisher.start()
        self.acceptor.start()
        until(lambda: self.publisher.unavailable is None, "the broker")
        return self

    def stop(self):
        hurry(self.acceptor)
        self.acceptor.stop()
        self.publisher.stop()
        self.hub.stop()

    def submit(self, new):
        """The answer, and how many seconds it took."""
        started = time.monotonic()
        self.acceptor.submit(new, self.answers.put)
        answer = self.answers.get(timeout=60)
        assert answer.new.id == new.id
        return answer, time.monotonic() - started


@pytest.fixture
def half_on(tmp_path, hub_redis):
    """Starts the hub's half of a gateway on a broker."""
    started = []

    def start(rabbitmq):
        purge(rabbitmq)
        with pytest.MonkeyPatch.context() as patch:
            if accept.BUDGET_SECONDS == PATIENCE_SECONDS:
                patch.setattr(connect, "TIMEOUT_SECONDS", PATIENCE_SECONDS)
            started.append(Half(settings(tmp_path, redis=hub_redis.url, amqp=rabbitmq.url)))
        return started[-1].start()

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def half(half_on, rabbitmq):
    return half_on(rabbitmq)


@pytest.fixture
def own_half(half_on, own_rabbitmq):
    """On a broker that is killed, frozen and filled."""
    return half_on(own_rabbitmq)


def open_channel(rabbitmq):
    connection = pika.BlockingConnection(pika.URLParameters(f"{rabbitmq.url}?heartbeat=0"))
    return connection, connection.channel()


def purge(rabbitmq):
    connection, channel = open_channel(rabbitmq)
    for name, _, _ in topology.queues(["fra", "nyc", "sin"]):
        channel.queue_declare(name, durable=True, arguments=topology.QUORUM)
        channel.queue_purge(name)
    connection.close()


def drain(rabbitmq, queue_name):
    """Every message of a queue, as (properties, body)."""
    connection, channel = open_channel(rabbitmq)
    found = []
    while (got := channel.basic_get(queue_name, auto_ack=True))[0] is not None:
        found.append(got[1:])
    connection.close()
    return found


def delete_queue(rabbitmq, queue_name):
    connection, channel = open_channel(rabbitmq)
    channel.queue_delete(queue_name)
    connection.close()


def test_an_accepted_request_stands_in_its_regions_queues(patient, half, rabbitmq):
    new = new_request(("fra", "nyc", "fra"))
    answer, _ = half.submit(new)
    assert isinstance(answer, Accepted)
    assert half.ledger.read(new.id).total == 3
    messages = drain(rabbitmq, "q.fra") + drain(rabbitmq, "q.nyc")
    tasks = {contract.decode_task(body).task: (properties, body) for properties, body in messages}
    assert set(tasks) == {task.id for task in new.tasks}
    for task, (properties, body) in tasks.items():
        assert (properties.message_id, properties.correlation_id, properties.type) == (task, new.id, "task")
        assert properties.delivery_mode == 2
        decoded = contract.decode_task(body)
        assert decoded.deadline_ms == answer.times.deadline_ms
        assert decoded.expires_ms == answer.times.expires_ms


def test_a_synchronous_task_takes_the_fast_lane(patient, half, rabbitmq):
    answer, _ = half.submit(new_request(sync=True))
    assert isinstance(answer, Accepted)
    assert len(drain(rabbitmq, "q.fra.now")) == 1
    assert drain(rabbitmq, "q.fra") == []


def test_what_the_hub_has_of_a_question_ends_its_task_at_the_accept_and_is_not_published(
    patient, half, rabbitmq, hub_redis
):
    first = new_request()
    answer, _ = half.submit(first)
    (task,) = first.tasks
    fetched = contract.Result(
        task=task.id, source=task.source, region="fra", status="succeeded", definition=task.definition,
        fetched_at=contract.rfc3339(answer.times.created_ms),
    )  # fmt: skip
    hub_redis.client.set(names.result("fra", task.id), result_frame.encode(fetched, b"[]"))
    told = Settlement(
        request=first.id,
        task=task.id,
        region="fra",
        status="succeeded",
        finished_ms=answer.times.created_ms + 1,
        size_bytes=700,
    )
    assert half.ledger.settle([told]) == [scripts.LAST]
    drain(rabbitmq, "q.fra")
    again = msgspec.structs.replace(new_request(), max_age=60.0)
    answer, _ = half.submit(again)
    assert (type(answer), answer.reused) == (Accepted, 1)
    assert half.ledger.read(again.id).done
    fresh, _ = half.submit(new_request())
    assert (type(fresh), fresh.reused) == (Accepted, 0)
    assert [properties.correlation_id for properties, _ in drain(rabbitmq, "q.fra")] == [fresh.new.id]


def test_what_can_not_be_published_is_a_refusal_at_once_and_no_region_has_anything_of_it(patient, half, monkeypatch):
    monkeypatch.setattr(half.publisher, "unavailable_for", lambda _: "no broker")
    answer, _ = half.submit(new_request())
    assert answer.reason == "no broker"
    assert not half.hub.client.exists(names.ledger(answer.new.id)), "nor has the hub"
    new = msgspec.structs.replace(new_request(), max_age=60.0)
    assert half.submit(new)[0].reason == "no broker"
    assert not half.acceptor.cleaner._lanes
    until(lambda: half.ledger.states([new.id]) == ["refused"], "its end at the hub")


@contextmanager
def busy(publisher):
    """The publisher's thread reads no confirm meanwhile."""
    begun, done = threading.Event(), threading.Event()
    publisher._connection.ioloop.add_callback_threadsafe(lambda: begun.set() or done.wait(60))
    assert begun.wait(60)
    try:
        yield
    finally:
        done.set()


def test_what_was_not_sent_before_its_refusal_is_not_sent_after_it(half, rabbitmq, monkeypatch):
    def reuse(*_: object) -> set[str]:
        assert isinstance(half.answers.get(timeout=60), Refused)
        return set()

    monkeypatch.setattr(accept, "BUDGET_SECONDS", 0.1)
    monkeypatch.setattr(half.acceptor, "_reuse", reuse)
    new = msgspec.structs.replace(new_request(), max_age=60.0)
    older, _ = accepted(half.ledger)
    settle(half.ledger, half.hub.client, older, 0)
    half.acceptor.submit(new, half.answers.put)
    assert drain(rabbitmq, "q.fra") == []
    until(lambda: half.ledger.states([new.id]) == ["refused"], "its end at the hub")


def test_what_was_sent_and_not_confirmed_in_time_is_cancelled(half, rabbitmq, monkeypatch):
    monkeypatch.setattr(accept, "BUDGET_SECONDS", 0.1)
    monkeypatch.setattr(time, "time", lambda late=time.time: late() - 3600)  # only the hub's clock counts
    new = new_request(("fra", "nyc"))
    with busy(half.publisher):
        answer, _ = half.submit(new)
        assert answer.reason == "the broker did not confirm in time"
    until(lambda: half.acceptor.cleaner.kept == 0, "the regions to be told")
    told = [contract.decode_cancel(body) for _, body in drain(rabbitmq, "q.fra.now") + drain(rabbitmq, "q.nyc.now")]
    assert {one.task for one in told} == {task.id for task in new.tasks}
    sent = [contract.decode_task(body) for _, body in drain(rabbitmq, "q.fra") + drain(rabbitmq, "q.nyc")]
    assert min(one.deadline_ms for one in told) >= max(task.deadline_ms for task in sent)


def test_a_stop_ends_its_threads_when_each_request_has_its_answer(half, rabbitmq, monkeypatch):
    monkeypatch.setattr(accept, "BUDGET_SECONDS", 0.1)
    monkeypatch.setattr(confirms, "SILENT_SECONDS", 60.0)  # or the second one is not sent
    acceptor = half.acceptor
    with busy(half.publisher):
        for _ in range(2):
            acceptor.submit(new_request(), half.answers.put)
        acceptor.stop()
        threads = (acceptor._thread, acceptor._clock._thread, acceptor.cleaner._loop.thread)
        until(lambda: not any(thread.is_alive() for thread in threads), "its threads to end")
        assert [type(half.answers.get_nowait()) for _ in range(2)] == [Refused, Refused]
    cancelled = []
    until(lambda: cancelled.extend(drain(rabbitmq, "q.fra.now")) or len(cancelled) == 2, "their cancels")


def test_what_is_confirmed_when_it_stops_is_accepted_before_its_thread_ends(patient, half):
    acceptor = Acceptor(half.hub, half.ledger, half.publisher)
    for _ in range(2):
        acceptor.submit(new_request(), half.answers.put)
    until(lambda: acceptor._confirmed.qsize() == 2, "both to be confirmed")
    acceptor._confirmed.put(None)  # as a stop does
    acceptor._thread.start()
    until(lambda: not acceptor._thread.is_alive(), "its end")
    assert [type(half.answers.get_nowait()) for _ in range(2)] == [Accepted, Accepted]


def test_many_threads_share_one_publisher(patient, half, rabbitmq):
    wanted = [new_request(("fra", "sin")) for _ in range(200)]
    for new in wanted:
        half.acceptor.submit(new, half.answers.put)
    answers = [half.answers.get(timeout=60) for _ in wanted]
    assert {type(answer) for answer in answers} == {Accepted}
    found = {properties.message_id for properties, _ in drain(rabbitmq, "q.fra") + drain(rabbitmq, "q.sin")}
    assert found == {task.id for new in wanted for task in new.tasks}


def test_a_missing_queue_refuses_and_is_declared_again(half, rabbitmq):
    delete_queue(rabbitmq, "q.nyc")
    new = new_request(("fra", "nyc"))
    answer, seconds = half.submit(new)
    assert isinstance(answer, Refused)
    assert seconds < ANSWER_SECONDS
    assert half.ledger.read(new.id) is None
    cancels = until(lambda: drain(rabbitmq, "q.fra.now"), "the cancel of what was published")
    assert contract.decode_cancel(cancels[0][1]).task == new.tasks[0].id
    until(lambda: isinstance(half.submit(new_request(("nyc",)))[0], Accepted), "the queue to be declared again")


def test_a_full_queue_refuses(own_half, own_rabbitmq):
    broker.set_policy(own_rabbitmq, "full", "^q.sin$", {"max-length": 1, "overflow": "reject-publish"})
    try:
        answers = []
        until(
            lambda: answers.append(own_half.submit(new_request(("sin",)))) or answers[-1][0].__class__ is Refused,
            "a refusal",
        )
        assert answers[-1][1] < ANSWER_SECONDS
        assert own_half.ledger.read(answers[-1][0].new.id) is None
    finally:
        broker.clear_policy(own_rabbitmq, "full")


def test_a_broker_alarm_refuses_at_once_and_ends(own_half, own_rabbitmq):
    own_rabbitmq.limit_memory(1)
    try:
        answers = []
        until(
            lambda: answers.append(own_half.submit(new_request())) or answers[-1][0].__class__ is Refused, "a refusal"
        )
        until(lambda: "takes no messages" in (own_half.publisher.unavailable or ""), "the alarm to be known")
        answer, seconds = own_half.submit(new_request())
        assert isinstance(answer, Refused)
        assert max(seconds, *(one for _, one in answers)) < ANSWER_SECONDS
    finally:
        own_rabbitmq.limit_memory()
    until(lambda: isinstance(own_half.submit(new_request())[0], Accepted), "the end of the alarm")


def test_a_frozen_broker_is_a_refusal_within_a_second_and_nothing_is_delivered_for_it(own_half, own_rabbitmq):
    freeze(own_rabbitmq.running.process.pid)
    try:
        refused = [own_half.submit(new_request()) for _ in range(3)]
        assert own_half.publisher.unavailable == "the broker does not confirm"  # so the next ones need not wait for it
    finally:
        own_rabbitmq.running.signal(signal.SIGCONT)
    assert {type(answer) for answer, _ in refused} == {Refused}
    assert max(seconds for _, seconds in refused) < ANSWER_SECONDS
    until(lambda: isinstance(own_half.submit(new_request(("nyc",)))[0], Accepted), "the broker to go on", 60)
    ids = {answer.new.id for answer, _ in refused}
    assert all(own_half.ledger.read(request) is None for request in ids)
    published = {properties.correlation_id for properties, _ in drain(own_rabbitmq, "q.fra")}
    cancelled = set()
    until(
        lambda: (
            published <= cancelled or cancelled.update(p.correlation_id for p, _ in drain(own_rabbitmq, "q.fra.now"))
        ),
        "a cancel for everything that reached the broker",
    )


def test_a_queue_without_a_leader_refuses_its_own_region_and_no_other(own_half, own_rabbitmq):
    """It takes messages and says nothing, as when its members have lost each other."""
    member = 'whereis(list_to_atom("%2F_q.sin"))'
    own_rabbitmq.evaluate(f"sys:suspend({member}).")
    try:
        answer, seconds = own_half.submit(new_request(("sin",)))
        assert isinstance(answer, Refused)
        assert seconds < ANSWER_SECONDS
        until(lambda: isinstance(own_half.submit(new_request(("fra", "nyc")))[0], Accepted), "others to be accepted")
        assert own_half.publisher.unavailable is None
        until(
            lambda: own_half.publisher.unavailable_for(["sin"]), "the lane to be late"
        )  # it was sent after its accept began
        answer, seconds = own_half.submit(new_request(("fra", "sin")))
        assert answer.reason == "the broker does not confirm for sin"
        assert seconds < ANSWER_SECONDS
        until(lambda: isinstance(own_half.submit(new_request(("fra",)))[0], Accepted), "others to be accepted")
    finally:
        own_rabbitmq.evaluate(f"sys:resume({member}).")
    until(lambda: isinstance(own_half.submit(new_request(("sin",)))[0], Accepted), "the queue to be well", 60)


def test_a_restarted_broker_is_found_again_and_keeps_what_was_confirmed(own_half, own_rabbitmq):
    new = until(lambda: isinstance((answer := own_half.submit(new_request())[0]), Accepted) and answer.new, "an accept")
    own_rabbitmq.running.kill()
    answer, seconds = own_half.submit(new_request())
    assert isinstance(answer, Refused)
    assert seconds < ANSWER_SECONDS
    own_rabbitmq.running.start()
    until(lambda: own_half.publisher.unavailable is None, "the broker", 60)
    until(lambda: isinstance(own_half.submit(new_request(("nyc",)))[0], Accepted), "another one")
    assert new.tasks[0].id in {properties.message_id for properties, _ in drain(own_rabbitmq, "q.fra")}


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_a_hub_that_is_away_is_a_refusal_within_a_second_for_everybody(half, hub_redis, how):
    hub_redis.running.signal(how)
    started = time.monotonic()
    wanted = [new_request() for _ in range(20)]
    for new in wanted:
        half.acceptor.submit(new, half.answers.put)
    answers = [half.answers.get(timeout=60) for _ in wanted]
    assert time.monotonic() - started < ANSWER_SECONDS
    assert {type(answer) for answer in answers} == {Refused}
    if how == signal.SIGSTOP:
        hub_redis.running.signal(signal.SIGCONT)
    else:
        hub_redis.running.process.wait(60)
        hub_redis.running.start()
    until(lambda: half.hub.state is None, "the hub to be regained")
    until(lambda: isinstance(half.submit(new_request())[0], Accepted), "a request to be accepted")
    until(lambda: not half.hub.client.zcard(names.ACCEPTING), "what was refused to be cleaned up")
    assert all(half.ledger.read(new.id) is None for new in wanted)


def test_a_hub_that_freezes_between_the_confirm_and_the_accept_is_a_refusal_that_stays(half, hub_redis, monkeypatch):
    real = half.ledger.accept

    def freeze_first(requests, by_ms):
        hub_redis.running.signal(signal.SIGSTOP)
        return real(requests, by_ms)

    monkeypatch.setattr(half.ledger, "accept", freeze_first)
    new = new_request()
    answer, seconds = half.submit(new)
    assert half.acceptor.cleaner.is_refused(new.id)  # so that no read of it gets through meanwhile
    hub_redis.running.signal(signal.SIGCONT)  # and now the accept script runs after all
    assert isinstance(answer, Refused)
    assert seconds < ANSWER_SECONDS
    until(lambda: half.hub.client.hget(names.ledger(new.id), "state") == b"refused", "the refusal to count")
    assert half.ledger.read(new.id) is None
    until(lambda: not half.acceptor.cleaner.is_refused(new.id), "the hub to be told")


def test_an_accept_that_outlasts_its_budget_is_a_refusal_that_stays(half, monkeypatch):
    real = half.ledger.accept
    answered = []

    def accept_after_the_answer(requests, by_ms):
        until(lambda: answered, "the budget to end")
        return real(requests, by_ms)

    monkeypatch.setattr(half.ledger, "accept", accept_after_the_answer)
    new = new_request()
    half.acceptor.submit(new, answered.append)
    until(lambda: answered, "an answer")
    assert isinstance(answered[0], Refused)
    until(lambda: half.hub.client.hget(names.ledger(new.id), "state") == b"refused", "the refusal to count")
    assert half.ledger.read(new.id) is None
    assert len(answered) == 1


def test_an_accept_that_reaches_the_hub_after_its_503_has_no_effect(half, monkeypatch):
    """Also when the gateway can't take it back: it reaches the hub no more, and is killed."""
    real = half.ledger.accept
    answered, said = [], []

    def accept_after_the_answer(requests, by_ms):
        until(lambda: answered, "the budget to end")
        said.append(real(requests, by_ms)[0])
        return [False], durability.File()

    monkeypatch.setattr(half.ledger, "accept", accept_after_the_answer)
    monkeypatch.setattr(half.acceptor.cleaner, "_refuse_some", lambda: None)
    new = new_request()
    half.acceptor.submit(new, answered.append)
    until(lambda: said, "the accept")
    assert isinstance(answered[0], Refused)
    assert said == [[False]]
    assert half.hub.client.hget(names.ledger(new.id), "state") == b"accepting"


def test_a_hub_that_fails_at_the_accept_is_a_refusal_at_once_that_says_so(patient, half, monkeypatch):
    def fail(*_):
        raise ValueError("no answer of the script")

    monkeypatch.setattr(half.ledger, "accept", fail)
    assert half.submit(new_request())[0].reason == BROKEN


def test_what_the_hub_has_forgotten_when_it_is_to_accept_it_is_a_refusal_at_once(patient, half, monkeypatch):
    real = half.ledger.accept

    def forget_first(requests, by_ms):
        half.hub.client.delete(*map(names.ledger, requests))
        return real(requests, by_ms)

    monkeypatch.setattr(half.ledger, "accept", forget_first)
    assert half.submit(new_request())[0].reason == "the accept took too long"


def test_how_long_an_accept_took_is_counted_for_its_region_if_it_has_one(patient, half):
    began = time.monotonic()
    for regions in (("fra",), ("fra", "nyc"), ("fra", "fra")):
        assert isinstance(half.submit(new_request(regions))[0], Accepted)
    counted = {labels: sum(cells[:-1]) for labels, cells in half.ledger.tally.hops.counts()}
    assert counted == {("accept", "fra"): 2, ("accept", ""): 1}
    took_seconds = sum(cells[-1] for _, cells in half.ledger.tally.hops.counts()) / 1e6
    assert 0 < took_seconds <= time.monotonic() - began
    assert half.ledger.tally.requests.counts() == [(("accepted",), 3)]


def test_the_room_that_a_request_needs_at_the_hub_has_its_attrs_and_its_webhook_in_it(patient, half, monkeypatch):
    needed = []
    monkeypatch.setattr(half.hub, "admit", lambda _, extra_bytes: needed.append(extra_bytes))
    plain, told = (
        new_request(),
        msgspec.structs.replace(new_request(), webhook=webhooks.Webhook("https://a.example", "s")),
    )
    for new in (plain, told):
        half.submit(new)
    assert needed == [len(plain.attrs), len(told.attrs) + webhooks.BYTES]


def test_a_hub_near_its_limit_refuses_before_it_is_full(half, hub_redis):
    used = hub_redis.client.info("memory")["used_memory"]
    hub_redis.client.config_set("maxmemory", int(used * 1.1))
    until(lambda: "full" in (half.hub.state or ""), "the limit to be seen")
    answer, seconds = half.submit(new_request())
    assert isinstance(answer, Refused)
    assert "full" in answer.reason
    assert seconds < ANSWER_SECONDS
    hub_redis.client.config_set("maxmemory", "256mb")
    until(lambda: isinstance(half.submit(new_request())[0], Accepted), "room again")


class SlowFile:
    """What the hub says of its file, as if an fsync were pending, until it is told otherwise."""

    def __init__(self, monkeypatch) -> None:
        self.written, self.looks = 0, 0
        monkeypatch.setattr(kept, "WRITE_SECONDS", 60.0)
        monkeypatch.setattr(ledger.durability, "file_of", self._of)

    def _of(self, _):
        self.looks += 1
        return durability.File(1, 10, 0, self.written)


def accepted_in_time(half):
    """A request that the hub accepts within its budget, for which a busy machine may need some tries. It has no answer yet."""

    def is_accepted() -> bool:
        new = new_request()
        half.acceptor.submit(new, half.answers.put)
        state = lambda: half.hub.client.hget(names.ledger(new.id), "state")  # noqa: E731
        until(lambda: state() == b"accepted" or not half.answers.empty(), "the hub to accept")
        return half.answers.empty() or not half.answers.get()

    until(is_accepted, "a request to be accepted within its budget")


def test_a_202_waits_until_the_hub_has_written_what_it_accepted(patient, half, monkeypatch):
    file, began = SlowFile(monkeypatch), time.monotonic()
    monkeypatch.setattr(accept, "BUDGET_SECONDS", 2.0)
    accepted_in_time(half)
    with pytest.raises(queue.Empty):
        half.answers.get(timeout=accept.BUDGET_SECONDS + 0.2)
    assert file.looks <= (time.monotonic() - began) / accept.FILE_LOOK_SECONDS + 3  # and asks now and then
    file.written = 1
    assert isinstance(half.answers.get(timeout=60), Accepted)


def test_a_hub_that_has_written_it_is_not_asked_for_that_again(patient, half, monkeypatch):
    looks = []
    monkeypatch.setattr(half.acceptor._unwritten, "look", lambda: looks.append(1))
    for _ in range(2):  # after the second answer the first accept is over
        assert isinstance(half.submit(new_request())[0], Accepted)
    assert looks == []


def test_a_synchronous_request_waits_only_for_its_202(patient, half, monkeypatch):
    file = SlowFile(monkeypatch)
    answer, _ = half.submit(new_request(sync=True))
    assert isinstance(answer, Accepted)
    assert not answer.kept.is_known
    half.acceptor.promise(answer, half.answers.put)
    with pytest.raises(queue.Empty):
        half.answers.get(timeout=0.2)
    file.written = 1
    assert half.answers.get(timeout=60) is answer
    half.acceptor.promise(answer, half.answers.put)
    assert half.answers.get_nowait() is answer


def test_a_202_that_the_hubs_disk_does_not_keep_takes_back_the_synchronous_request(
    patient, half, rabbitmq, monkeypatch
):
    SlowFile(monkeypatch)
    monkeypatch.setattr(kept, "WRITE_SECONDS", 0.1)
    answer, _ = half.submit(new_request(sync=True))
    half.acceptor.promise(answer, half.answers.put)
    refused = half.answers.get(timeout=60)
    assert (type(refused), refused.new) == (Refused, answer.new)
    assert "disk" in refused.reason
    until(lambda: half.hub.client.hget(names.ledger(answer.new.id), "state") == b"refused", "it to be taken back")
    sent = set()
    until(
        lambda: sent.update((one.type, one.message_id) for one, _ in drain(rabbitmq, "q.fra.now")) or len(sent) == 2,
        "both",
    )
    assert sent == {(kind, answer.new.tasks[0].id) for kind in ("task", "cancel")}


def test_a_stop_waits_for_the_hubs_disk(patient, half, monkeypatch):
    file = SlowFile(monkeypatch)
    monkeypatch.setattr(accept, "BUDGET_SECONDS", 2.0)
    accepted_in_time(half)
    stopping = threading.Thread(target=half.acceptor.stop)
    stopping.start()
    until(lambda: not half.acceptor._clock._thread.is_alive(), "the budgets to end")
    file.written = 1
    stopping.join(60)
    assert isinstance(half.answers.get(timeout=60), Accepted)


def test_what_the_hub_accepted_and_forgot_is_refused(half, hub_redis, monkeypatch, patient):
    """It was killed before it had written it, and another one is there at once: it says truly that its file is written."""
    file = SlowFile(monkeypatch)
    size = hub_redis.written()
    monkeypatch.setattr(accept, "FILE_LOOK_SECONDS", 2.0)  # nobody looks while it is away
    new = new_request()
    half.acceptor.submit(new, half.answers.put)
    until(lambda: half.hub.client.hget(names.ledger(new.id), "state") == b"accepted", "the hub to accept")
    hub_redis.forget(size)
    file.written = 1
    answer = half.answers.get(timeout=60)
    assert isinstance(answer, Refused)
    until(lambda: half.acceptor.cleaner.kept == 0, "it to be taken back")


def test_a_hub_that_does_not_write_in_time_is_a_refusal(patient, half, monkeypatch):
    SlowFile(monkeypatch)
    monkeypatch.setattr(kept, "WRITE_SECONDS", 0.5)
    new = new_request()
    answer, _ = half.submit(new)
    assert isinstance(answer, Refused)
    assert "disk" in answer.reason
    until(lambda: half.hub.client.hget(names.ledger(new.id), "state") == b"refused", "it to be taken back")


def test_a_hub_that_hangs_while_its_disk_is_waited_for_is_a_refusal_within_a_second(
    half, hub_redis, monkeypatch, patient
):
    SlowFile(monkeypatch)
    new = new_request()
    half.acceptor.submit(new, half.answers.put)
    until(lambda: half.hub.client.hget(names.ledger(new.id), "state") == b"accepted", "the hub to accept")
    freeze(hub_redis.running.process.pid)
    began = time.monotonic()
    try:
        assert isinstance(half.answers.get(timeout=60), Refused)
        assert time.monotonic() - began < ANSWER_SECONDS
    finally:
        hub_redis.running.signal(signal.SIGCONT)


def test_an_answer_that_can_not_be_given_keeps_nobody_elses(half):
    """Each of the threads that answer serves everybody."""

    def broken(_):
        raise RuntimeError("its connection is in no state to be answered")

    for _ in range(3):
        half.acceptor.submit(new_request(), broken)
        until(lambda: isinstance(half.submit(new_request())[0], Accepted), "another's answer")
