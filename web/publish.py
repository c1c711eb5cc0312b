"""One publisher for all threads of a gateway: confirmed, persistent, mandatory, pipelined.

A thread of its own runs pika's SelectConnection. ``publish`` hands it a batch and returns; the batch's ``done`` is called
once, on that thread, with None when the broker has confirmed every message, else with the reason why not. After a lost
connection everything unconfirmed is unknown and counts as failed: whoever published takes it back by a cancel.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import pika
from msgspec import Struct
from pika.adapters.select_connection import SelectConnection
from pika.channel import Channel

from regions import connect, logs, names, topology
from regions.settings import Settings

SILENT_SECONDS: Final = 0.9  # a broker that owes a confirm for longer is not asked again until it gives it

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


class Publisher:
    """Publishes batches from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._regions = list(settings.region)
        self._parameters = connect.amqp_parameters(settings.hub.amqp, name="gateway-publisher")
        for parameters in self._parameters:
            # A blocked connection stays, so that it is known to be blocked: a new one would look healthy until asked.
            parameters.blocked_connection_timeout = None
        self._connection: SelectConnection | None = None
        self._channel: Channel | None = None
        self._blocked: str | None = None
        self._down: str | None = "the broker is not reached yet"
        self._waiting: deque[Batch] = deque()
        self._is_flushing = False
        self._tag = 0
        self._unconfirmed: dict[int, tuple[Batch, str]] = {}
        self._progress = 0.0  # when the broker last confirmed, or began to owe a confirm
        self._returned: set[str] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._attempt = 0
        self.regained: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self.run, name="publish", daemon=True)

    @property
    def unavailable(self) -> str | None:
        """None when a publish may be confirmed, else why it will not be."""
        if self._down is not None:
            return self._down
        if self._blocked is not None:
            return f"the broker takes no messages: {self._blocked}"
        if self._unconfirmed and time.monotonic() - self._progress > SILENT_SECONDS:
            return "the broker does not confirm"
        return None

    def start(self) -> None:
        """Starts the thread; it connects by itself."""
        self._thread.start()

    def stop(self) -> None:
        """Closes the connection and ends the thread; what is unconfirmed fails."""
        self._stopping.set()
        connection = self._connection
        if connection is not None:
            connection.ioloop.add_callback_threadsafe(self._close)
        self._thread.join(5)

    def publish(self, batch: Batch) -> None:
        """Hands a batch over. Its ``done`` comes from another thread, or from this one when the broker is away."""
        reason = self.unavailable
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

    def run(self) -> None:
        """Keeps a connection until it is stopped."""
        while not self._stopping.is_set():
            self.run_once()
            if not self._stopping.is_set():
                self._attempt += 1
                self._stopping.wait(connect.backoff_seconds(self._attempt))

    def run_once(self) -> None:
        """One connection, from its opening to its end."""
        parameters = self._parameters[self._attempt % len(self._parameters)]
        self._connection = SelectConnection(
            parameters,
            on_open_callback=self._opened,
            on_open_error_callback=lambda _, error: self._lost(error),
            on_close_callback=lambda _, error: self._lost(error),
        )
        try:
            self._connection.ioloop.start()
        except Exception as error:  # whatever pika raises ends this connection, not the publisher
            log.exception("publisher failed")
            self._lost(error)
        finally:
            connection, self._connection = self._connection, None
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
        self._channel = channel
        self._tag = 0
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(ack_nack_callback=self._on_confirm)
        self._declare(channel)

    def _declare(self, channel: Channel) -> None:
        """Exchanges and queues; pika sends them one after the other, the last one's answer makes us ready."""
        for exchange, kind in topology.exchanges():
            channel.exchange_declare(exchange, exchange_type=kind, durable=True, callback=_ignore)
        found = topology.queues(self._regions)
        for queue, exchange, key in found:
            channel.queue_declare(queue, durable=True, arguments=topology.QUORUM, callback=_ignore)
            is_last = queue == found[-1][0]
            channel.queue_bind(queue, exchange, key, callback=self._ready if is_last else _ignore)

    def _ready(self, _: Any) -> None:
        was, self._down = self._down, None
        self._attempt = 0
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
        channel = self._channel
        for batch in batches:
            if batch.is_withdrawn:
                continue
            if channel is None or not channel.is_open or self._down is not None:
                batch.end(self._down or "the broker's channel is closed")
                continue
            for message in batch.messages:
                self._send(channel, batch, message)

    def _send(self, channel: Channel, batch: Batch, message: Message) -> None:
        self._tag += 1
        if not self._unconfirmed:
            self._progress = time.monotonic()
        self._unconfirmed[self._tag] = (batch, message.message_id)
        channel.basic_publish(
            names.TASKS_EXCHANGE,
            message.routing_key,
            message.body,
            pika.BasicProperties(
                content_type="application/json",
                delivery_mode=2,
                message_id=message.message_id,
                correlation_id=message.correlation_id,
                type=message.kind,
            ),
            mandatory=True,
        )

    def _on_confirm(self, frame: Any) -> None:
        tag, is_ack = frame.method.delivery_tag, isinstance(frame.method, pika.spec.Basic.Ack)
        self._progress = time.monotonic()
        # Tags were put in in order, so those that a multiple confirm covers stand first.
        tags = list(itertools.takewhile(lambda one: one <= tag, self._unconfirmed)) if frame.method.multiple else [tag]
        for one in tags:
            batch, message_id = self._unconfirmed.pop(one)
            batch.unconfirmed -= 1
            if message_id in self._returned:
                self._returned.discard(message_id)
                batch.end("the broker has no queue for the region")
            elif not is_ack:
                batch.end("the broker refused the message: its queue is full or it can't store it")
            elif batch.unconfirmed == 0:
                batch.end(None)

    def _on_return(self, channel: Channel, _method: Any, properties: Any, _body: bytes) -> None:
        # The return comes before the message's ack. A queue that is gone is declared again.
        self._returned.add(properties.message_id)
        self._declare(channel)

    def _on_blocked(self, _: Any, frame: Any) -> None:
        self._blocked = str(frame.method.reason)
        log.warning("broker blocked", reason=self._blocked)
        for batch, _id in list(self._unconfirmed.values()):
            batch.end(f"the broker takes no messages: {self._blocked}")

    def _on_unblocked(self, *_: Any) -> None:
        self._blocked = None
        log.info("broker unblocked")

    def _channel_closed(self, _: Channel, error: Exception) -> None:
        self._fail(f"the broker closed the channel: {error}")
        connection = self._connection
        if connection is not None and connection.is_open:
            connection.close()

    def _lost(self, error: Any) -> None:
        if self._down is None or self._attempt == 0:
            log.warning("broker away", error=str(error))
        self._fail("the broker is away")
        if self._connection is not None:
            self._connection.ioloop.stop()

    def _fail(self, reason: str) -> None:
        self._down, self._blocked, self._channel = reason, None, None
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        self._returned.clear()
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
            self._is_flushing = False
        for batch, _id in unconfirmed.values():
            batch.end(reason)
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
