"""One of a region's two queues, as a bridge uses it: a channel, a consumer, and the unacked messages.

    open → passive declare → (wanted) consume → deliveries → ack | give back | reject
      ↑ after a moment, when the queue does not exist yet or the channel was lost, or when nothing comes although messages are ready

``ask_count`` has the broker say how long the queue is. So a broker that hangs, or has forgotten the consumer, is
noticed within seconds.

All of it runs on the ioloop.
"""

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import pika
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel
from pika.spec import Basic

from regions import connect, logs

UNANSWERED_SECONDS: Final = 3.0  # a broker that owes an answer for longer hangs
MISSING_SECONDS: Final = 3.5  # how long messages may be ready without one coming; then the channel is opened anew
JOB_BYTES: Final = 2_000  # that a job takes in Redis in addition to its message
OUTCOMES: Final = ("received", "acked", "given_back", "rejected")
RECEIVED, ACKED, GIVEN_BACK, REJECTED = range(len(OUTCOMES))

log = logs.get("bridge")


class Held:
    """The unacked delivery tags of a channel, in the order of delivery."""

    def __init__(self) -> None:
        self._tags: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._tags)

    def add(self, tag: int) -> None:
        """Adds a delivery."""
        self._tags[tag] = None

    def settle(self, tags: Iterable[int]) -> list[tuple[int, bool]]:
        """Removes tags. Returns the (tag, multiple) pairs to send for them.

        "Multiple" settles everything up to its tag, so it must end before the first tag that stays.
        """
        going = [tag for tag in tags if tag in self._tags]
        for tag in going:
            del self._tags[tag]
        first_staying = next(iter(self._tags), None)
        below = [tag for tag in going if first_staying is None or tag < first_staying]
        above = [tag for tag in going if first_staying is not None and tag > first_staying]
        return ([(max(below), len(below) > 1)] if below else []) + [(tag, False) for tag in above]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message, with the channel on which it must be settled."""

    inbox: "Inbox"
    tag: int
    properties: pika.BasicProperties
    body: bytes


class Inbox:
    """The deliveries of a channel. When the channel is lost, RabbitMQ puts the unacked ones back into the queue."""

    def __init__(self, channel: Channel, counts: list[int]) -> None:
        """``counts``: how many messages met each of ``OUTCOMES``."""
        self.channel, self._counts = channel, counts
        self.held = Held()
        self.pending: list[Delivery] = []

    def take(self) -> list[Delivery]:
        """The deliveries since the last call."""
        taken, self.pending = self.pending, []
        return taken

    def ack(self, tags: Iterable[int]) -> None:
        """Acks messages."""
        if self.channel.is_open:
            for tag, multiple in self._settle(tags, ACKED):
                self.channel.basic_ack(tag, multiple=multiple)

    def give_back(self, tags: Iterable[int]) -> None:
        """Puts messages back into their queue."""
        if self.channel.is_open:
            for tag, multiple in self._settle(tags, GIVEN_BACK):
                self.channel.basic_nack(tag, multiple=multiple, requeue=True)

    def reject(self, tag: int) -> None:
        """Sends a message to the dead letters."""
        if self.channel.is_open:
            for one, _ in self._settle([tag], REJECTED):
                self.channel.basic_reject(one, requeue=False)

    def _settle(self, tags: Iterable[int], how: int) -> list[tuple[int, bool]]:
        before = len(self.held)
        going = self.held.settle(tags)
        self._counts[how] += before - len(self.held)
        return going


Receipt = list[tuple[Inbox, list[int]]]


def grouped(deliveries: Iterable[Delivery]) -> Receipt:
    """The tags of deliveries, by their inbox."""
    tags: dict[Inbox, list[int]] = {}
    for delivery in deliveries:
        tags.setdefault(delivery.inbox, []).append(delivery.tag)
    return list(tags.items())


def settle(deliveries: Iterable[Delivery], how: Callable[[Inbox, list[int]], None]) -> None:
    """Acks or gives back deliveries, each on its channel."""
    for inbox, tags in grouped(deliveries):
        how(inbox, tags)


def give_back(deliveries: Iterable[Delivery]) -> None:
    """Puts deliveries back into their queues."""
    settle(deliveries, Inbox.give_back)


def cost(delivery: Delivery) -> int:
    """About how many bytes a message takes in Redis."""
    return JOB_BYTES + len(delivery.body)


class Lane:
    """One queue. ``came`` is called for each delivery.

    ``changed`` is called when the lane opens or closes, and when its broker answers again; the bridge then calls ``want``.
    """

    def __init__(
        self, queue: str, prefetch: int, ioloop: IOLoop, *, came: Callable[[], None], changed: Callable[[], None]
    ) -> None:
        self.queue, self._prefetch, self._ioloop = queue, prefetch, ioloop
        self._came, self._changed = came, changed
        self._connection: pika.SelectConnection | None = None
        self._consumer = ""
        self._failures = 0  # to open a channel, in a row
        self._closed_reason = "no channel yet"
        self._answered = ""  # the consumer that the broker confirmed
        self.counts = [0] * len(OUTCOMES)  # of messages
        self.waiting: int | None = None  # messages in the queue, at the broker's last answer
        self._asked_at = 0.0  # when the broker was asked what it has not answered (monotonic); 0: nothing
        # Since when messages are ready, while this consumer holds none and gets none; 0: it does.
        self._missing_since = 0.0
        self.inbox: Inbox | None = None

    @property
    def is_answered(self) -> bool:
        """Whether the broker answers in time."""
        return not 0 < self._asked_at < time.monotonic() - UNANSWERED_SECONDS

    @property
    def reason(self) -> str:
        """Why no messages can arrive although they are wanted; empty when they can."""
        if not self._closed_reason and self._consumer != self._answered:
            # A queue without a leader does not answer.
            return f"waiting for RabbitMQ to start a consumer of {self.queue}"
        return self._closed_reason

    def open(self, connection: pika.SelectConnection) -> None:
        """Opens a channel on an open connection."""
        self._connection = connection
        connection.channel(on_open_callback=self._opened)

    def ask_count(self) -> None:
        """Asks the broker how many messages wait, unless an answer is still due. Call it every two seconds or so."""
        if self.inbox is not None and self.inbox.channel.is_open and not self._closed_reason and not self._asked_at:
            self._asked_at = time.monotonic()
            self.inbox.channel.queue_declare(
                self.queue, passive=True, callback=functools.partial(self._counted, self.inbox)
            )

    def _counted(self, inbox: Inbox, frame: Any) -> None:
        was_answered, self._asked_at = self.is_answered, 0.0
        self.waiting = frame.method.message_count
        is_missing = bool(self.waiting and self._consumer and self._consumer == self._answered and not inbox.held)
        now = time.monotonic()
        self._missing_since = (self._missing_since or now) if is_missing else 0.0
        # The broker answers also while the channel is being closed.
        if is_missing and now - self._missing_since > MISSING_SECONDS and inbox.channel.is_open:
            reason = "the broker delivers nothing although messages are ready"
            log.error(reason, queue=self.queue, ready=self.waiting)
            inbox.channel.close(reply_text=reason)
        if not was_answered:
            self._changed()

    def want(self, wanted: bool) -> None:
        """Starts or stops consuming. Does nothing while no channel is open: ``changed`` tells when one is."""
        inbox = self.inbox
        if inbox is None or not inbox.channel.is_open or self._closed_reason:
            return
        if wanted and not self._consumer:
            self._consumer = inbox.channel.basic_consume(
                self.queue, functools.partial(self._deliver, inbox), callback=self._consuming
            )
        elif not wanted and self._consumer:
            # pika itself gives back messages that arrive before the broker's answer.
            inbox.channel.basic_cancel(self._consumer, callback=lambda _frame: None)
            self._consumer = self._answered = ""

    def _consuming(self, frame: Any) -> None:
        if frame.method.consumer_tag == self._consumer:
            self._answered = self._consumer
            self._changed()

    def _opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._closed)
        channel.add_on_cancel_callback(self._cancelled)
        self.inbox = Inbox(channel, self.counts)
        channel.basic_qos(prefetch_count=self._prefetch)
        channel.queue_declare(self.queue, passive=True, callback=self._declared)

    def _declared(self, _frame: Any) -> None:
        self._closed_reason, self._failures = "", 0
        self._changed()

    def _cancelled(self, _frame: Any) -> None:
        """The broker ended the consumer: the queue was deleted, or lost its leader. A new channel finds out which."""
        if self.inbox is not None and self.inbox.channel.is_open:
            self.inbox.channel.close(reply_text="the broker cancelled the consumer")

    def _closed(self, _channel: Channel, reason: Exception) -> None:
        self.inbox, self._consumer, self._answered = None, "", ""
        self.waiting, self._asked_at, self._missing_since = None, 0.0, 0.0
        connection = self._connection
        if connection is None or not connection.is_open:
            self._closed_reason = "no channel yet"
            return
        self._closed_reason = f"{self.queue} can't be consumed: {reason}"
        if getattr(reason, "reply_code", 0) == 404:
            self._closed_reason = f"waiting for the hub to declare {self.queue}"
        self._changed()
        self._failures += 1
        self._ioloop.call_later(connect.backoff_seconds(self._failures), lambda: self._reopen(connection))

    def _reopen(self, connection: pika.SelectConnection) -> None:
        if connection is self._connection and connection.is_open and self.inbox is None:
            self.open(connection)

    def _deliver(
        self, inbox: Inbox, _: Channel, method: Basic.Deliver, properties: pika.BasicProperties, body: bytes
    ) -> None:
        self.counts[RECEIVED] += 1
        self._missing_since = 0.0
        tag = int(method.delivery_tag or 0)
        inbox.held.add(tag)
        inbox.pending.append(Delivery(inbox, tag, properties, body))
        self._came()
