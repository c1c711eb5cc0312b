"""One publisher for all threads of a gateway: confirmed, persistent, mandatory, pipelined.

A thread of its own runs pika's SelectConnection. ``publish`` hands it a batch and returns; the batch's ``done`` is called
once, on that thread, with None when the broker has confirmed every message, else with the reason why not. After a lost
connection everything unconfirmed is unknown and counts as failed: whoever published takes it back by a cancel.

Each region has a channel of its own: a queue without a leader blocks the channel that sends to it, whole regions at a time.
"""

import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import pika
from msgspec import Struct
from pika.adapters.select_connection import SelectConnection
from pika.channel import Channel

from regions import connect, frames, logs, names, topology
from regions.loop import Loop
from regions.settings import Settings

SILENT_SECONDS: Final = 0.9  # a region's queues that owe a confirm for longer are not sent to until they give it

log = logs.get("publish")


class Message(Struct, frozen=True):
    """One message to ``x.tasks``; ``kind`` is AMQP's type, task or cancel."""

    routing_key: str
    body: bytes
    message_id: str
    correlation_id: str
    kind: str


class Batch:
    """Messages that count only together. Touched by the publisher's thread alone once it is handed over."""

    def __init__(self, messages: list[Message], done: Callable[[str | None], None]) -> None:
        self.messages, self._done = messages, done
        self.unconfirmed = len(messages)
        self.is_withdrawn = False
        self._is_ended = False

    def end(self, reason: str | None) -> None:
        """Tells the outcome, the first time."""
        if not self._is_ended:
            self._is_ended = True
            self._done(reason)


class _Lane:
    """One region's channel, and what is not confirmed on it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.unconfirmed: dict[int, tuple[Batch, str, float]] = {}  # a message's id, and when it was sent
        self.since = 0.0  # when the oldest message that it owes a confirm for was sent
        self.confirmed_at = 0.0
        self._tag = 0
        self._returned: set[str] = set()

    @property
    def is_silent(self) -> bool:
        """Whether there is no hope of a confirm within an accept's budget."""
        return bool(self.unconfirmed) and time.monotonic() - self.since > SILENT_SECONDS

    def frames(self, batch: Batch, message: Message, frame_max: int) -> bytes:
        """One message of a batch, to be sent now and in this order: its confirm is awaited from here on."""
        self._tag += 1
        now = time.monotonic()
        if not self.unconfirmed:
            self.since = now
        self.unconfirmed[self._tag] = (batch, message.message_id, now)
        return frames.published(
            self.channel.channel_number,
            names.TASKS_EXCHANGE,
            message.routing_key,
            message.body,
            message_id=message.message_id,
            correlation_id=message.correlation_id,
            kind=message.kind,
            frame_max=frame_max,
        )

    def returned(self, message_id: str) -> None:
        """No queue took it; the return comes before the message's ack."""
        self._returned.add(message_id)

    def confirmed(self, tag: int, *, is_ack: bool, is_multiple: bool) -> None:
        """The broker's word on one message, or on all up to it."""
        self.confirmed_at = time.monotonic()
        # Tags were put in in order, so those that a multiple confirm covers stand first.
        tags = list(itertools.takewhile(lambda one: one <= tag, self.unconfirmed)) if is_multiple else [tag]
        for one in tags:
            batch, message_id, _ = self.unconfirmed.pop(one)
            batch.unconfirmed -= 1
            if message_id in self._returned:
                self._returned.discard(message_id)
                batch.end("the broker has no queue for the region")
            elif not is_ack:
                batch.end("the broker refused the message: its queue is full or it can't store it")
            elif batch.unconfirmed == 0:
                batch.end(None)
        self.since = next((sent for _, _, sent in self.unconfirmed.values()), self.since)

    def fail(self, reason: str) -> None:
        """What is not confirmed counts as failed."""
        for batch, _, _ in list(self.unconfirmed.values()):
            batch.end(reason)


class Publisher:
    """Publishes batches from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._regions = list(settings.region)
        self._parameters = connect.amqp_parameters(settings.hub.amqp, name="gateway-publisher")
        for parameters in self._parameters:
            # A blocked connection stays, so that it is known to be blocked: a new one would look healthy until asked.
            parameters.blocked_connection_timeout = None
        self._connection: SelectConnection | None = None
        self._declarer: Channel | None = None
        self._lanes: dict[str, _Lane] = {}  # by region
        self._blocked: str | None = None
        self._down: str | None = "the broker is not reached yet"
        self._waiting: deque[Batch] = deque()
        self._is_flushing = False
        self._lock = threading.Lock()
        self.regained: list[Callable[[], None]] = []
        self._loop = Loop("publish", self._turn)

    @property
    def unavailable(self) -> str | None:
        """None when a publish may be confirmed, else why none will be."""
        if self._down is not None:
            return self._down
        if self._blocked is not None:
            return f"the broker takes no messages: {self._blocked}"
        lanes = list(self._lanes.copy().values())
        silent = [lane.since for lane in lanes if lane.is_silent]
        if silent and not any(lane.confirmed_at > max(silent) for lane in lanes if not lane.is_silent):
            return "the broker does not confirm"
        return None

    def unavailable_for(self, regions: Iterable[str]) -> str | None:
        """None when a publish to these regions may be confirmed, else why it will not be."""
        if self._down is not None or self._blocked is not None:
            return self.unavailable
        for region in regions:
            lane = self._lanes.get(region)
            if lane is not None and lane.is_silent:
                return self.unavailable or f"the broker does not confirm for {region}"
        return None

    def start(self) -> None:
        """Starts the thread; it connects by itself."""
        self._loop.start()

    def stop(self) -> None:
        """Closes the connection and ends the thread; what is unconfirmed fails."""
        self._loop.stopping.set()
        connection = self._connection
        if connection is not None:
            connection.ioloop.add_callback_threadsafe(self._close)
        self._loop.join()

    def publish(self, batch: Batch) -> None:
        """Hands a batch over. Its ``done`` comes from another thread, or from this one when the broker is away."""
        reason = self.unavailable_for({names.region_of(message.routing_key) for message in batch.messages})
        connection = self._connection
        if reason is not None or connection is None:
            batch.end(reason or "the broker is not reached yet")
            return
        with self._lock:
            self._waiting.append(batch)
            is_first, self._is_flushing = not self._is_flushing, True
        if is_first:
            connection.ioloop.add_callback_threadsafe(self._flush)

    def withdraw(self, batch: Batch) -> None:
        """What of it was not sent yet never will be."""
        batch.is_withdrawn = True

    def _turn(self) -> float:
        self.run_once()
        return self._loop.backoff_seconds()

    def run_once(self) -> None:
        """One connection, from its opening to its end."""
        parameters = self._parameters[self._loop.failures % len(self._parameters)]
        connection: SelectConnection | None = None
        try:
            connection = self._connection = connect.Broker(
                parameters,
                on_open_callback=self._opened,
                on_open_error_callback=lambda _, error: self._lost(error),
                on_close_callback=lambda _, error: self._lost(error),
            )
            connection.ioloop.start()
        except Exception as error:  # whatever pika raises ends this connection, not the publisher
            log.exception("publisher failed")
            self._lost(error)
        finally:
            self._connection = None
            if connection is not None:
                connection.ioloop.close()  # its sockets would stay open otherwise

    def _opened(self, connection: Any) -> None:
        try:
            connect.check_rabbitmq(connection.server_properties)
        except connect.TooOld as error:
            log.error("broker too old", error=str(error))
            connection.close(reply_text=str(error))
            return
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Channel) -> None:
        """The channel of declarations; then one for each region, as the broker opens them."""
        channel.add_on_close_callback(self._channel_closed)
        self._declarer = channel
        self._declare(channel)

    def _open_lanes(self, _: Any) -> None:
        connection = self._connection
        if connection is None or self._lanes:  # it was a queue that had to be declared again
            return
        for region in self._regions:
            connection.channel(on_open_callback=functools.partial(self._lane_opened, region))

    def _lane_opened(self, region: str, channel: Channel) -> None:
        lane = self._lanes[region] = _Lane(channel)
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(functools.partial(self._on_return, lane))
        channel.confirm_delivery(
            ack_nack_callback=functools.partial(self._on_confirm, lane),
            callback=self._ready if len(self._lanes) == len(self._regions) else _ignore,
        )

    def _declare(self, channel: Channel) -> None:
        """Exchanges and queues; pika sends them one after the other, the last one's answer opens the regions' channels."""
        for exchange, kind in topology.exchanges():
            channel.exchange_declare(exchange, exchange_type=kind, durable=True, callback=_ignore)
        found = topology.queues(self._regions)
        for queue, exchange, key in found:
            channel.queue_declare(queue, durable=True, arguments=topology.QUORUM, callback=_ignore)
            is_last = queue == found[-1][0]
            channel.queue_bind(queue, exchange, key, callback=self._open_lanes if is_last else _ignore)

    def _ready(self, _: Any) -> None:
        was, self._down = self._down, None
        self._loop.failures = 0
        if was is not None:
            log.info("broker reached", was=was)
            for call in self.regained:
                call()
        self._flush()  # what was handed over while the connection changed

    def _flush(self) -> None:
        """On the connection's thread: everything that waits goes out."""
        with self._lock:
            batches, self._waiting = self._waiting, deque()
            self._is_flushing = False
        found: list[bytes] = []
        for batch in batches:
            if batch.is_withdrawn:
                continue
            if self._down is not None or self._connection is None or not self._connection.is_open:
                batch.end(self._down or "the connection to the broker closes")
                continue
            for message in batch.messages:
                lane = self._lanes[names.region_of(message.routing_key)]
                found.append(lane.frames(batch, message, self._connection.params.frame_max))
        if found:
            frames.send(self._connection, found)

    def _on_confirm(self, lane: _Lane, frame: Any) -> None:
        method = frame.method
        lane.confirmed(method.delivery_tag, is_ack=isinstance(method, pika.spec.Basic.Ack), is_multiple=method.multiple)

    def _on_return(self, lane: _Lane, _channel: Channel, _method: Any, properties: Any, _body: bytes) -> None:
        """A queue that is gone is declared again."""
        lane.returned(properties.message_id)
        if self._declarer is not None:
            self._declare(self._declarer)

    def _on_blocked(self, _: Any, frame: Any) -> None:
        self._blocked = str(frame.method.reason)
        log.warning("broker blocked", reason=self._blocked)
        for lane in self._lanes.values():
            lane.fail(f"the broker takes no messages: {self._blocked}")

    def _on_unblocked(self, *_: Any) -> None:
        self._blocked = None
        log.info("broker unblocked")

    def _channel_closed(self, _: Channel, error: Exception) -> None:
        self._fail(f"the broker closed the channel: {error}")
        connection = self._connection
        if connection is not None and connection.is_open:
            connection.close()

    def _lost(self, error: Any) -> None:
        if self._down is None or self._loop.failures == 0:
            log.warning("broker away", error=str(error))
        self._fail("the broker is away")
        if self._connection is not None:
            self._connection.ioloop.stop()

    def _fail(self, reason: str) -> None:
        self._down, self._blocked, self._declarer = reason, None, None
        lanes, self._lanes = self._lanes, {}
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
            self._is_flushing = False
        for lane in lanes.values():
            lane.fail(reason)
        for batch in waiting:
            batch.end(reason)

    def _close(self) -> None:
        connection = self._connection
        if connection is not None and connection.is_open:
            connection.close()
        elif connection is not None:
            connection.ioloop.stop()


def _ignore(_: Any) -> None:
    """An answer that needs no action: a refusal closes the channel, which is handled there."""
