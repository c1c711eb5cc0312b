"""A lane hears from its broker in any order, and late. Here the test is the broker, and the clock."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, ChannelWrongStateError

from bridge import lane as lane_module
from bridge.lane import (
    ACKED,
    GIVEN_BACK,
    JOB_BYTES,
    MISSING_SECONDS,
    RECEIVED,
    REJECTED,
    UNANSWERED_SECONDS,
    Inbox,
    Lane,
    cost,
    give_back,
    settle,
)
from regions import connect

QUEUE = "q.work"


class Channel:
    """What a lane uses of pika's channel. ``asked``: what was sent to the broker; ``due``: what it has not answered."""

    def __init__(self) -> None:
        self.is_open, self.asked, self.due = True, list[tuple[Any, ...]](), list[Callable[[Any], None]]()
        self.closed: Callable[[Any, Exception], None]
        self.cancelled: Callable[[Any], None]
        self.deliver: Callable[..., None]

    def add_on_close_callback(self, callback: Callable[[Any, Exception], None]) -> None:
        self.closed = callback

    def add_on_cancel_callback(self, callback: Callable[[Any], None]) -> None:
        self.cancelled = callback

    def basic_qos(self, prefetch_count: int) -> None:
        self.asked.append(("qos", prefetch_count))

    def queue_declare(self, queue: str, *, passive: bool, callback: Callable[[Any], None]) -> None:
        self.asked.append(("declare", queue, passive))
        self.due.append(callback)

    def basic_consume(self, queue: str, deliver: Callable[..., None], *, callback: Callable[[Any], None]) -> str:
        self.asked.append(("consume", queue))
        self.due.append(callback)
        self.deliver = deliver
        return f"consumer {len(self.asked)}"

    def basic_cancel(self, consumer: str, *, callback: Callable[[Any], None]) -> None:
        self.asked.append(("cancel", consumer))

    def basic_ack(self, tag: int, *, multiple: bool) -> None:
        self.asked.append(("ack", tag, multiple))

    def basic_nack(self, tag: int, *, multiple: bool, requeue: bool) -> None:
        self.asked.append(("nack", tag, multiple, requeue))

    def basic_reject(self, tag: int, *, requeue: bool) -> None:
        self.asked.append(("reject", tag, requeue))

    def close(self, reply_text: str) -> None:
        if not self.is_open:
            raise ChannelWrongStateError("Channel is closing.")
        self.asked.append(("close", reply_text))
        self.is_open = False


class Broker:
    """One end of a connection whose other end is a lane, with a loop whose timers run when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.is_open, self.wanted = 1000.0, True, True
        self.channels, self.timers = list[Channel](), list[Callable[[], None]]()
        self.failures, self.told = list[int](), list[str]()
        monkeypatch.setattr(lane_module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(connect, "backoff_seconds", lambda count: self.failures.append(count) or 0.0)
        loop: Any = SimpleNamespace(call_later=lambda _seconds, call: self.timers.append(call))
        self.came = 0
        self.lane = Lane(QUEUE, 7, loop, came=self._came, changed=self._changed)

    def _came(self) -> None:
        self.came += 1

    def _changed(self) -> None:
        self.lane.want(self.wanted)
        self.told.append(self.lane.reason)

    def channel(self, on_open_callback: Callable[[Any], None]) -> None:
        self.channels.append(Channel())
        on_open_callback(self.channels[-1])

    @property
    def last(self) -> Channel:
        """The channel that was opened last."""
        return self.channels[-1]

    def asked(self) -> list[tuple[Any, ...]]:
        """What the lane asked since the last look."""
        asked, self.last.asked = self.last.asked, []
        return asked

    def answer(self, **said: object) -> None:
        """Answers what was asked first."""
        self.last.due.pop(0)(SimpleNamespace(method=SimpleNamespace(**said)))

    def open(self) -> Lane:
        """Opens the lane, up to the answers to its first question and to its consumer."""
        self.lane.open(self)  # type: ignore[arg-type]
        self.answer()
        if self.wanted:
            self.answer(consumer_tag=self.lane._consumer)
        self.asked()
        return self.lane

    def count(self, ready: int) -> None:
        """Is asked how many messages are ready, and answers."""
        self.lane.ask_count()
        self.answer(message_count=ready)

    def deliver(self, *tags: int) -> None:
        for tag in tags:
            self.last.deliver(self.last, SimpleNamespace(delivery_tag=tag), pika.BasicProperties(), b"a message")

    def lose(self, reason: Exception) -> None:
        """Closes the channel."""
        self.last.is_open = False
        self.last.closed(self.last, reason)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    return Broker(monkeypatch)


def test_a_lane_consumes_as_soon_as_its_queue_is_there(broker: Broker) -> None:
    """At once, not at the next look of its bridge; until the broker has confirmed the consumer it says what is waited for."""
    lane = broker.lane
    lane.open(broker)  # type: ignore[arg-type]
    lane.want(True)
    assert broker.asked() == [("qos", 7), ("declare", QUEUE, True)]
    broker.answer()
    assert broker.asked() == [("consume", QUEUE)]
    assert lane.reason == f"waiting for RabbitMQ to start a consumer of {QUEUE}"
    broker.answer(consumer_tag=lane._consumer)
    assert broker.told[-1] == lane.reason == ""
    lane.want(True)
    assert broker.asked() == []


def test_a_lane_that_is_not_wanted_opens_without_a_consumer(broker: Broker) -> None:
    broker.wanted = False
    lane = broker.open()
    assert (lane.reason, broker.told[-1]) == ("", "")
    lane.want(False)
    assert broker.asked() == []


def test_a_lane_that_stopped_and_began_waits_for_its_new_consumer(broker: Broker) -> None:
    lane = broker.open()
    old = lane._consumer
    lane.want(False)
    lane.want(False)
    lane.want(True)
    assert broker.asked() == [("cancel", old), ("consume", QUEUE)]
    assert lane.reason
    broker.answer(consumer_tag=old)  # late
    assert lane.reason
    lane.want(False)
    assert not lane.reason


def test_a_broker_that_delivers_nothing_though_messages_are_ready_gets_another_channel(broker: Broker) -> None:
    broker.open()
    broker.count(5)
    broker.now += MISSING_SECONDS
    broker.count(5)
    assert broker.last.is_open
    broker.now += 0.1
    broker.count(5)
    assert broker.asked()[-1] == ("close", "the broker delivers nothing although messages are ready")
    broker.lane.ask_count()
    assert broker.asked() == []


def test_an_answer_that_comes_while_the_channel_is_being_closed_closes_it_no_second_time(broker: Broker) -> None:
    """A queue that lost its leader delivers nothing, and then the broker cancels its consumer."""
    broker.open()
    broker.count(5)
    broker.now += 2 * MISSING_SECONDS
    broker.lane.ask_count()
    broker.last.cancelled(None)
    broker.answer(message_count=5)
    assert [asked[0] for asked in broker.asked()].count("close") == 1


@pytest.mark.parametrize("why", ["none is ready", "it is not wanted", "it holds some", "its consumer is not confirmed"])
def test_a_lane_to_which_nothing_has_to_come_keeps_its_channel(broker: Broker, why: str) -> None:
    broker.wanted = why != "it is not wanted"
    lane = broker.open()
    if why == "it holds some":
        broker.deliver(1)
    if why == "its consumer is not confirmed":
        lane.want(False)
        lane.want(True)
        broker.last.due.clear()
    for _ in range(3):
        broker.count(0 if why == "none is ready" else 5)
        broker.now += MISSING_SECONDS
    assert broker.last.is_open


def test_what_comes_late_is_not_missing(broker: Broker) -> None:
    """Neither where a message came meanwhile, nor where none was ready."""
    broker.open()
    broker.count(5)
    broker.now += MISSING_SECONDS
    broker.deliver(1)
    broker.lane.inbox.ack([1])  # type: ignore[union-attr]
    for ready in (5, 5, 0, 5, 5):
        broker.count(ready)
        broker.now += 0.6 * MISSING_SECONDS
    assert broker.last.is_open


def test_a_broker_is_asked_one_question_at_a_time_and_hangs_if_it_owes_an_answer(broker: Broker) -> None:
    lane = broker.open()
    lane.ask_count()
    lane.ask_count()
    assert broker.asked() == [("declare", QUEUE, True)]
    broker.now += UNANSWERED_SECONDS
    assert lane.is_answered
    broker.now += 0.1
    assert not lane.is_answered
    before = len(broker.told)
    broker.answer(message_count=3)
    assert (lane.is_answered, lane.waiting, len(broker.told)) == (True, 3, before + 1)
    broker.count(4)
    assert (lane.waiting, len(broker.told)) == (4, before + 1)


def test_nothing_is_asked_before_the_queue_is_there(broker: Broker) -> None:
    broker.lane.ask_count()
    broker.lane.open(broker)  # type: ignore[arg-type]
    broker.asked()
    broker.lane.ask_count()
    assert broker.asked() == []


def test_a_cancelled_consumer_and_a_closed_channel_lead_to_a_new_one(broker: Broker) -> None:
    """Later and later, until the queue is there again; what was asked on the old channel is forgotten."""
    lane = broker.open()
    lane.ask_count()
    broker.asked()
    broker.last.cancelled(None)
    assert broker.asked() == [("close", "the broker cancelled the consumer")]
    broker.last.cancelled(None)
    assert broker.asked() == []
    broker.lose(ChannelClosedByBroker(404, "NOT_FOUND"))
    assert broker.told[-1] == f"waiting for the hub to declare {QUEUE}"
    broker.now += 2 * UNANSWERED_SECONDS
    assert (lane.inbox, lane.waiting, lane.is_answered) == (None, None, True)
    for number in (2, 3):
        broker.timers.pop()()
        assert len(broker.channels) == number
        broker.lose(ChannelClosedByBroker(406, "PRECONDITION_FAILED"))
        assert broker.told[-1].startswith(f"{QUEUE} can't be consumed: (406")
    broker.timers.pop()()
    broker.answer()
    broker.lose(ChannelClosedByBroker(404, "NOT_FOUND"))
    assert broker.failures == [1, 2, 3, 1]


def test_of_a_lost_connection_no_channel_is_opened_any_more(broker: Broker) -> None:
    """The bridge opens the lane on the next one, once."""
    lane = broker.lane
    lane.open(broker)  # type: ignore[arg-type]
    broker.lose(ChannelClosedByBroker(404, "NOT_FOUND"))
    assert broker.failures == [1]
    lane.open(broker)  # type: ignore[arg-type]
    assert len(broker.channels) == 2
    broker.timers.pop()()
    assert len(broker.channels) == 2
    broker.lose(ChannelClosedByBroker(404, "NOT_FOUND"))
    broker.is_open = False
    broker.timers.pop()()
    assert len(broker.channels) == 2
    broker.is_open = True
    lane.open(broker)  # type: ignore[arg-type]
    told = len(broker.told)
    broker.is_open = False
    broker.lose(ConnectionResetError())
    assert (lane.reason, len(broker.told), broker.timers) == ("no channel yet", told, [])


def test_a_timer_of_an_old_connection_opens_nothing_on_the_new_one(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane, other = broker.open(), Broker(monkeypatch)
    broker.lose(ChannelClosedByBroker(404, "NOT_FOUND"))
    lane.open(other)  # type: ignore[arg-type]
    other.channels.clear()
    lane.inbox = None
    broker.timers.pop()()
    assert len(broker.channels) == 1
    assert other.channels == []


def test_a_job_takes_more_of_its_redis_than_its_message_has_bytes(broker: Broker) -> None:
    lane = broker.open()
    broker.deliver(1)
    assert lane.inbox is not None
    (delivery,) = lane.inbox.take()
    assert cost(delivery) > cost(replace(delivery, body=b"")) >= JOB_BYTES


def test_messages_are_settled_on_their_own_channel_while_it_is_open(broker: Broker) -> None:
    lane = broker.open()
    broker.deliver(1, 2, 3, 4)
    assert broker.came == 4
    inbox = lane.inbox
    assert inbox is not None
    deliveries = inbox.take()
    assert inbox.take() == []
    assert [(one.tag, one.body) for one in deliveries] == [(tag, b"a message") for tag in (1, 2, 3, 4)]
    settle(deliveries[:2], Inbox.ack)
    inbox.reject(3)
    inbox.reject(3)
    assert broker.asked() == [("ack", 2, True), ("reject", 3, False)]
    broker.deliver(5)
    give_back([deliveries[3], *inbox.take()])
    assert broker.asked() == [("nack", 5, True, True)]
    broker.deliver(6, 7)
    old = broker.last
    broker.lose(ChannelClosedByBroker(404, "NOT_FOUND"))
    broker.timers.pop()()
    inbox.ack([6])
    inbox.give_back([6])
    inbox.reject(7)
    assert old.asked == []
    assert broker.asked() == [("qos", 7), ("declare", QUEUE, True)]
    counts = {RECEIVED: 7, ACKED: 2, GIVEN_BACK: 2, REJECTED: 1}
    assert lane.counts == [counts[of] for of in range(len(counts))]
