"""Publishing on a real RabbitMQ: who publishes sends, and what the socket does not take is not mixed up."""

import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pika
import pytest

from regions import connect, names, topology
from regions.counts import BUCKETS, CELLS
from tests.service.hub_parts import settings
from tests.waiting import until
from web.flow import confirms, publish
from web.flow.confirms import REFUSED, Batch, Lane, Message
from web.flow.publish import Publisher
from web.hub.faults import RESTARTS

QUEUE, KEY = names.work_queue("fra"), names.routing_key("fra", fast=False)


@pytest.fixture
def broker(rabbitmq) -> Iterator[pika.BlockingConnection]:
    """A connection beside the publisher's; the queue is empty."""
    connection = pika.BlockingConnection(pika.URLParameters(f"{rabbitmq.url}?heartbeat=0"))
    channel = connection.channel()
    channel.queue_declare(QUEUE, durable=True, arguments=topology.QUORUM)
    channel.queue_purge(QUEUE)
    yield connection
    connection.close()


@pytest.fixture
def publisher(tmp_path, rabbitmq) -> Iterator[Publisher]:
    made = Publisher(settings(tmp_path, amqp=rabbitmq.url))
    made.start()
    until(lambda: made.unavailable is None, "the broker")
    yield made
    made.stop()


def message(id_: str, body: bytes = b"{}") -> Message:
    return Message(KEY, body, id_, "R", "task")


def test_a_message_leaves_although_the_publishers_thread_does_not_run(broker, publisher):
    ended: list[str | None] = []
    is_held, goes_on = threading.Event(), threading.Event()
    publisher._connection.ioloop.add_callback_threadsafe(lambda: (is_held.set(), goes_on.wait(60)))
    assert is_held.wait(60)
    publisher.publish(Batch([message("M")], ended.append))
    got = until(lambda: (one := broker.channel().basic_get(QUEUE, auto_ack=True))[0] and one, "the message")
    assert (got[1].message_id, ended) == ("M", [])
    goes_on.set()
    until(lambda: ended == [None], "its confirm")
    counts = {labels: sum(cells[:-1]) for name, labels, cells in publisher.samples() if name == "nearfetch_hop_seconds"}
    assert counts == {("publish", region): int(region == "fra") for region in ("fra", "nyc", "sin")}


def test_queues_that_go_while_a_batch_is_on_its_way_end_it_with_a_reason(publisher, monkeypatch):
    """The broker was lost and reached again between the caller's question and the lock."""
    ended: list[str | None] = []
    region = names.region_of(KEY)
    publisher._lanes.pop(region)
    monkeypatch.setattr(publisher, "unavailable_for", lambda _: None)
    publisher.publish(Batch([message("M")], ended.append))
    assert ended == [f"the queues of {region} are not declared yet"]


def test_a_broker_that_refuses_the_queues_is_none_that_is_away_and_is_reached_when_it_takes_them(
    broker, tmp_path, rabbitmq, capfd
):
    channel = broker.channel()
    channel.queue_delete(QUEUE)
    channel.queue_declare(QUEUE, durable=True)  # and no quorum queue
    made = Publisher(settings(tmp_path, amqp=rabbitmq.url))
    made.start()
    try:
        until(lambda: made._loop.failures >= 2, "two tries")
        assert "PRECONDITION_FAILED" in made.unavailable
        channel.queue_delete(QUEUE)
        until(lambda: made.unavailable is None, "the broker")
    finally:
        made.stop()
    (said,) = [line for line in capfd.readouterr().out.splitlines() if "broker away" in line and "Normal" not in line]
    assert "PRECONDITION_FAILED" in said
    assert made.unavailable == "the broker is away"


def test_a_channel_that_the_broker_closes_fails_what_it_carries_and_is_opened_again(publisher):
    lane, ended = publisher._lanes["fra"], list[str | None]()
    lane.expect(Batch([message("M")], ended.append), message("M"))
    publisher._connection.ioloop.add_callback_threadsafe(lambda: lane.channel.basic_publish("nowhere", "", b""))
    until(lambda: ended, "its end")
    assert "NOT_FOUND" in ended[0]
    until(lambda: publisher.unavailable is None, "the broker")
    publisher.publish(Batch([message("N")], ended.append))
    until(lambda: ended[1:] == [None], "its confirm")


def test_a_publisher_that_is_stopped_leaves_the_broker(tmp_path, rabbitmq):
    made = Publisher(settings(tmp_path, amqp=rabbitmq.url))
    made.start()
    until(lambda: made.unavailable is None, "the broker")
    made.stop()
    until(lambda: not made._loop.thread.is_alive(), "its thread to end")
    assert made.unavailable


def test_a_publisher_that_is_stopped_does_not_wait_for_a_broker_that_says_nothing(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        made = Publisher(settings(tmp_path, amqp=f"amqp://127.0.0.1:{deaf.getsockname()[1]}"))
        for parameters in made._parameters:
            parameters.stack_timeout = 3_600.0
        made.start()
        deaf.settimeout(60)
        taken, _ = deaf.accept()
        with taken:
            assert taken.recv(4) == b"AMQP"
            connection = made._connection
            made.stop()
            until(lambda: not made._loop.thread.is_alive(), "its thread to end")
            connection._transport._sock.close()  # as the end of its process does


def test_each_connection_that_is_lost_counts_once_and_another_one_is_made(publisher, capfd):
    for number in range(1, RESTARTS + 1):
        assert "rabbitmq-restarts" not in {one.name for one in publisher.faults()}
        publisher._connection._transport._sock.shutdown(socket.SHUT_RDWR)
        until(lambda number=number: len(publisher._lost_at) == number, "the loss to be seen")
        until(lambda: publisher.unavailable is None, "the broker")
    assert "rabbitmq-restarts" in {one.name for one in publisher.faults()}
    said = capfd.readouterr().out
    assert (said.count("broker away"), said.count("publisher failed")) == (RESTARTS, 0)


def test_a_queue_that_is_gone_is_declared_again_by_the_next_look(broker, publisher):
    broker.channel().queue_delete(QUEUE)
    until(lambda: publisher.look() or set(publisher.queued) == {"fra", "nyc", "sin"}, "a look at all queues")
    until(lambda: publisher.state is None, "the whole answer")


def test_what_a_full_socket_does_not_take_is_sent_in_order_and_whole(broker, publisher):
    """Eight threads send more than a socket holds; each of its sends takes only a part."""
    publisher._connection._transport._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    dice = random.Random(7)
    bodies = {
        f"{thread}.{number}": dice.randbytes(dice.choice((20, 9_000, 70_000)))
        for thread in range(8)
        for number in range(30)
    }
    ended: list[str | None] = []

    def publish(thread: int) -> None:
        for number in range(0, 30, 3):
            ids = [f"{thread}.{one}" for one in range(number, number + 3)]
            publisher.publish(Batch([message(id_, bodies[id_]) for id_ in ids], ended.append))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(ended) == 80, "all confirms", 60)
    assert set(ended) == {None}
    channel, found = broker.channel(), {}
    while (got := channel.basic_get(QUEUE, auto_ack=True))[0] is not None:
        found[got[1].message_id] = got[2]
    assert found == bodies
    for thread in range(8):
        assert [id_ for id_ in found if id_.startswith(f"{thread}.")] == [f"{thread}.{number}" for number in range(30)]


def test_over_tls_and_on_a_closed_socket_the_calling_thread_sends_nothing():
    ours, theirs = socket.socketpair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    wrapped = context.wrap_socket(ours, do_handshake_on_connect=False)
    assert connect._sent(wrapped, b"data") == 0
    wrapped.close()
    theirs.close()
    assert connect._sent(wrapped, b"data") == 0
    left, right = socket.socketpair()
    right.close()
    left.close()
    assert connect._sent(left, b"data") == 4


def expecting(monkeypatch, *sent: tuple[float, Batch, str]) -> Lane:
    """A lane to which messages of batches were sent at these times."""
    lane = Lane(None, [0] * CELLS)
    for at, batch, id_ in sent:
        monkeypatch.setattr(confirms.time, "monotonic", lambda at=at: at)
        lane.expect(batch, message(id_))
    return lane


def test_a_batch_ends_with_its_last_confirm_also_if_one_confirm_is_for_many(monkeypatch):
    first, second = (Batch([message(id_) for id_ in ids], [].append) for ids in ("ab", "cd"))
    lane = expecting(
        monkeypatch,
        *(
            (10.0 + at, one, id_)
            for at, (one, id_) in enumerate(((first, "a"), (first, "b"), (second, "c"), (second, "d")))
        ),
    )
    monkeypatch.setattr(confirms.time, "monotonic", lambda: 13.004)
    assert lane.since == 10.0
    assert lane.confirmed(1, is_ack=True, is_multiple=False) == []
    assert lane.since == 11.0
    assert lane.confirmed(3, is_ack=True, is_multiple=True) == [(first, None)]
    assert (lane.since, lane.confirmed_at) == (13.0, 13.004)
    assert lane.confirmed(4, is_ack=True, is_multiple=False) == [(second, None)]
    assert not lane.unconfirmed
    in_time, late, endless = (lane._took[at] for at in (BUCKETS.index(0.005), BUCKETS.index(2.5), BUCKETS.index(5.0)))
    assert (in_time, late, endless, lane._took[-1]) == (1, 2, 1, pytest.approx(6_016_000, abs=10))


def test_a_message_that_no_queue_took_or_that_is_refused_ends_its_batch_as_failed(monkeypatch):
    returned, refused = (Batch([message(id_)], [].append) for id_ in "ab")
    lane = expecting(monkeypatch, (1.0, returned, "a"), (1.0, refused, "b"), (1.0, returned, "a"))
    lane.returned("a")
    assert lane.confirmed(1, is_ack=True, is_multiple=False) == [(returned, "the broker has no queue for the region")]
    assert lane.confirmed(2, is_ack=False, is_multiple=False) == [(refused, REFUSED)]
    returned.unconfirmed = 1  # the same message, sent again
    assert lane.confirmed(3, is_ack=True, is_multiple=False) == [(returned, None)]


def test_a_lane_is_silent_that_owes_a_confirm_for_long(monkeypatch):
    lane = expecting(monkeypatch, (10.0, Batch([message("a")], [].append), "a"))
    for now, is_silent in (
        (10.0 + confirms.SILENT_SECONDS - 0.01, False),
        (10.0 + confirms.SILENT_SECONDS + 0.01, True),
    ):
        monkeypatch.setattr(confirms.time, "monotonic", lambda now=now: now)
        assert lane.is_silent is is_silent
    lane.confirmed(1, is_ack=True, is_multiple=False)
    assert not lane.is_silent
    monkeypatch.setattr(confirms.time, "monotonic", lambda: 100.0)
    lane.expect(Batch([message("b")], [].append), message("b"))
    assert not lane.is_silent  # it was idle, which is another thing


def test_a_batch_is_told_of_its_first_end_alone():
    ended: list[str | None] = []
    batch = Batch([message("a")], ended.append)
    batch.end("lost")
    batch.end(None)
    assert ended == ["lost"]


@pytest.fixture
def alone(tmp_path, monkeypatch) -> Publisher:
    """A publisher that has reached its broker; it is not started, and the time stands still."""
    monkeypatch.setattr(confirms.time, "monotonic", lambda: 1_000.0)
    made = Publisher(settings(tmp_path))
    made._down = None
    for region in ("fra", "nyc", "sin"):
        made._lanes[region] = Lane(None, [0] * CELLS)
    return made


class Wire:
    """A connection, or a channel of it, that only notes what is asked; ``answer`` calls back."""

    is_open = True

    def __init__(self) -> None:
        self.channels: list[Wire] = []
        self.asked: list[tuple[str, Callable[[Any], None]]] = []
        self.is_closed = False

    def channel(self, on_open_callback: Callable[[Any], None]) -> None:
        self.channels.append(Wire())
        on_open_callback(self.channels[-1])

    def add_on_close_callback(self, call: Callable[..., None]) -> None:
        """No channel of a test is closed by the broker."""

    add_on_return_callback = add_on_close_callback

    def confirm_delivery(self, *, ack_nack_callback: object, callback: Callable[[Any], None]) -> None:
        callback(None)

    def exchange_declare(self, exchange: str, **of: object) -> None:
        """It is declared."""

    def queue_declare(self, queue: str, *, callback: Callable[[Any], None], **of: object) -> None:
        self.asked.append((queue, callback))

    def queue_bind(self, queue: str, exchange: str, key: str, *, callback: Callable[[Any], None]) -> None:
        self.asked.append(("", callback))

    def close(self) -> None:
        self.is_closed = True

    def basic_qos(self, *, prefetch_count: int, callback: Callable[[Any], None]) -> None:
        self.asked.append(("", callback))

    def answer(self, ready: int = 0, consumers: int = 0) -> list[str]:
        """Answers all that was asked, with figures of each queue; returns the queues."""
        asked, self.asked = self.asked, []
        for _, call in asked:
            call(SimpleNamespace(method=SimpleNamespace(message_count=ready, consumer_count=consumers)))
        return [queue for queue, _ in asked if queue]


def test_queues_are_looked_at_now_and_then_over_one_channel_and_sooner_after_a_late_answer(alone, monkeypatch):
    now, wire = [1_000.0], Wire()
    alone._connection = wire
    monkeypatch.setattr(publish.time, "monotonic", lambda: now[0])

    def looks_after(seconds: float) -> bool:
        """Whether it asks anything so much later."""
        now[0] += seconds
        before = [len(one.asked) for one in wire.channels]
        alone._look()
        return before != [len(one.asked) for one in wire.channels]

    regions = ("fra", "nyc", "sin")
    queues = [queue for region in regions for queue in (names.fast_queue(region), names.work_queue(region))]
    assert looks_after(0.0)
    assert not looks_after(publish.UNANSWERED_SECONDS + 1.0)  # the answer is owed
    now[0] = 1_000.0
    (channel,) = wire.channels
    assert channel.answer(3, 1) == queues
    assert {region: (one.ready, one.consumers) for region, one in alone.queued.items()} == dict.fromkeys(
        regions, (6, 2)
    )
    assert not looks_after(publish.LOOK_SECONDS - 0.1)
    assert looks_after(0.1)
    now[0] += publish.SLOW_SECONDS + 0.1
    assert channel.answer() == queues
    assert kinds(alone) == []  # one late answer makes no broker slow
    assert looks_after(1.5 * publish.SUSPECT_SECONDS)
    assert channel.answer() == queues
    assert wire.channels == [channel]
    now[0] += publish.UNANSWERED_SECONDS + 1.0
    assert alone.state is None  # it owes nothing
    alone._down = "the broker is away"
    assert not looks_after(0.0)


def test_a_batch_whose_connection_closes_or_is_lost_meanwhile_is_not_sent(alone, monkeypatch):
    ended: list[str | None] = []
    monkeypatch.setattr(alone, "unavailable_for", lambda _: None)  # as it was when the caller asked
    alone._connection = SimpleNamespace(is_open=False)
    alone.publish(Batch([message("M")], ended.append))
    alone._fail("the broker is away")
    alone._connection = SimpleNamespace(is_open=True)
    alone.publish(Batch([message("M")], ended.append))
    assert ended == ["the connection to the broker closes", "the broker is away"]


def test_a_region_gets_one_channel_however_often_its_queues_are_declared(alone, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(alone, "_lane_opened", lambda region, _: opened.append(region))
    alone._connection = Wire()
    del alone._lanes["fra"]
    for _ in range(2):
        alone._open_lanes(["fra", "nyc"], None)
    assert opened == ["fra"]


def test_a_region_that_is_added_is_declared_once_over_a_channel_that_is_closed_then(alone, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(alone, "_lane_opened", lambda region, _: opened.append(region))
    wire = alone._connection = Wire()
    for region in ("ams", "ams", "fra"):  # it is on its way, and fra has its channel
        alone._add(region)
    (channel,) = wire.channels
    assert channel.answer() == [queue for queue, _, _ in topology.queues(["ams"])]
    assert (opened, channel.is_closed, len(wire.channels)) == (["ams"], True, 2)
    alone._down = "the broker is away"
    alone._add("lon")
    assert len(wire.channels) == 2


def test_a_broker_is_reached_when_all_regions_have_their_channels(alone):
    opens: list[Callable[[Any], None]] = []
    regained: list[int] = []
    alone._fail("the broker is away")

    def channel(*, on_open_callback: Callable[[Any], None]) -> None:
        opens.append(on_open_callback)

    alone._connection = SimpleNamespace(channel=channel)
    alone._open_lanes(["fra", "nyc"], None)
    alone.regained.append(lambda: regained.append(1))
    alone._loop.failures = 3
    opens[0](Wire())
    assert (alone.unavailable, regained) == ("the broker is away", [])
    opens[1](Wire())
    assert (alone.unavailable, regained, alone._loop.failures) == (None, [1], 0)
    alone._ready(None)  # as when a region is added
    assert regained == [1]


def test_a_broker_that_blocks_fails_what_waits_for_it_and_owes_no_answer_until_it_blocks_no_more(alone, monkeypatch):
    blocked = SimpleNamespace(method=SimpleNamespace(reason="memory"))
    for asked_at, said in ((900.0, "RabbitMQ does not answer"), (0.0, None)):
        alone._asked_at = asked_at
        alone._on_blocked(None, blocked)
        monkeypatch.setattr(publish.time, "monotonic", lambda: 1_000.0)
        alone._on_unblocked()
        assert alone.state is None
        monkeypatch.setattr(publish.time, "monotonic", lambda: 1_000.1 + publish.UNANSWERED_SECONDS)
        assert alone.state == said
    ended: list[str | None] = []
    alone._lanes["fra"].expect(Batch([message("M")], ended.append), message("M"))
    alone._on_blocked(None, blocked)
    assert ended == ["the broker takes no messages: memory"]


def test_a_broker_that_is_reached_again_is_not_slow_for_what_was_before(alone):
    for _ in range(3):
        alone._latency.add(publish.SLOW_SECONDS + 0.1)
    alone._look_in = publish.SUSPECT_SECONDS
    assert kinds(alone) == [("rabbitmq-slow", None)]
    lanes = alone._lanes
    alone._fail("the broker is away")
    alone._lanes, alone._down = lanes, None
    assert kinds(alone) == []
    assert alone._look_in == publish.LOOK_SECONDS


def test_a_broker_that_is_too_old_gets_no_channel(alone):
    told: list[str] = []

    def close(*, reply_text: str) -> None:
        told.append(reply_text)

    alone._opened(SimpleNamespace(server_properties={"version": "3.13.7"}, close=close))
    assert "found 3.13.7" in told[0]


def kinds(publisher: Publisher) -> list[tuple[str, str | None]]:
    return [(one.name, one.region) for one in publisher.faults()]


def test_what_is_wrong_with_a_broker_has_a_name(alone):
    assert kinds(alone) == []
    for answers, found in (
        ((0.3, 0.26), []),
        ((0.3, 0.2, 0.3), []),
        ((0.3, 0.26, 0.2, 0.3), [("rabbitmq-slow", None)]),
    ):
        alone._latency.clear()
        for seconds in answers:
            alone._latency.add(seconds)
        assert kinds(alone) == found
    alone._latency.clear()
    for ago, found in ((publish.FULL_SECONDS - 1, [("region-queue-full", "nyc")]), (publish.FULL_SECONDS, [])):
        alone._refused_at["nyc"] = 1_000.0 - ago
        assert kinds(alone) == found
    alone._lost_at.extend([1_000.0 - publish.LOST_SECONDS, *[1_000.0 - publish.LOST_SECONDS + 1] * (RESTARTS - 1)])
    assert kinds(alone) == []
    alone._lost_at.append(999.0)
    assert kinds(alone) == [("rabbitmq-restarts", None)]
    alone._asked_at = 1_000.0 - publish.UNANSWERED_SECONDS
    assert kinds(alone) == [("rabbitmq-restarts", None)]
    alone._asked_at -= 0.1
    assert kinds(alone) == [("rabbitmq-restarts", None), ("rabbitmq-away", None)]
    assert alone.state == "RabbitMQ does not answer"
    alone._blocked = "memory"
    assert kinds(alone)[1:] == [("rabbitmq-blocked", None)]
    assert alone.unavailable_for(["fra"]) == alone.state == "the broker takes no messages: memory"
    alone._blocked, alone._down = None, "the broker is away"
    assert kinds(alone)[1:] == [("rabbitmq-away", None)]
    assert alone.unavailable_for(["fra"]) == alone.state == "the broker is away"


def test_the_queues_of_one_region_may_be_silent_while_the_broker_answers_for_others(alone, monkeypatch):
    def sent(region: str, at: float) -> Lane:
        alone._lanes[region] = expecting(monkeypatch, (at, Batch([message("m")], [].append), "m"))
        monkeypatch.setattr(confirms.time, "monotonic", lambda: 1_000.0)
        return alone._lanes[region]

    del alone._lanes["fra"]
    assert alone.unavailable_for(["fra"]) == alone.silent_in("fra") == "the queues of fra are not declared yet"
    alone._lanes.clear()
    sent("fra", 990.0)
    assert alone.unavailable == alone.unavailable_for(["fra"]) == "the broker does not confirm"
    assert alone.silent_in("fra") is None  # nothing of it alone
    nyc = sent("nyc", 985.0)
    monkeypatch.setattr(confirms.time, "monotonic", lambda: 989.0)
    nyc.confirmed(1, is_ack=True, is_multiple=False)
    monkeypatch.setattr(confirms.time, "monotonic", lambda: 1_000.0)
    assert alone.unavailable == "the broker does not confirm"  # it confirmed nothing since
    nyc.confirmed_at = 991.0
    assert alone.unavailable is None
    assert alone.unavailable_for(["nyc"]) is None
    assert alone.unavailable_for(["nyc", "fra"]) == alone.silent_in("fra") == "the broker does not confirm for fra"
    assert kinds(alone) == [("region-queue-away", region) for region in ("fra", "sin")]  # sin's are not declared
