"""One publisher for all threads of a gateway: confirmed, persistent, mandatory, pipelined.

``publish`` sends a batch on the calling thread and returns. A thread of its own runs pika's SelectConnection, and reads the
confirms. The batch's ``done`` is called once, on that thread: with None when the broker has confirmed every message, otherwise
with the reason. After a lost connection nobody knows what became of unconfirmed messages. They count as failed, and the caller
takes them back by cancels.

Each region has a channel of its own, since a queue without a leader blocks the channel that sends to it. A region that is
added while the connection is open gets its queues over a channel of its own too: a refusal closes that channel alone.

``look`` asks how long the queues are and how many consumers they have. So a broker that hangs is noticed without a publish, too.
"""

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import pika
from pika.channel import Channel

from regions import connect, frames, logs, names, topology
from regions.counts import CELLS
from regions.latency import Latency, uneven
from regions.loop import Loop
from regions.metrics import Sample
from regions.settings import Settings
from web.flow.confirms import REFUSED, Batch, Lane
from web.hub.faults import RESTARTS, Found, Queued

LOOK_SECONDS: Final = 2.0  # between two questions how long the queues are
UNANSWERED_SECONDS: Final = 3.0  # a broker that owes their answer for longer hangs
NOT_FOUND: Final = 404
FULL_SECONDS: Final = 5.0  # for how long a fault says that a queue refused a message
LOST_SECONDS: Final = 60.0  # for which losses are counted
SLOW_SECONDS: Final = 0.25  # for the answer to a question
SUSPECT_SECONDS: Final = 0.5  # between two questions after a late answer; ``look`` is called once a second
QUICK_LOOKS: Final = 7  # that a slow broker must have answered in time

log = logs.get("publish")


class Publisher:
    """Publishes batches from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._regions = settings.region  # changes while the gateway runs
        self._parameters = connect.amqp_parameters(settings.hub.amqp, name="gateway-publisher")
        for parameters in self._parameters:
            # A blocked connection is kept: a new one would look healthy until it is used.
            parameters.blocked_connection_timeout = None
        self._connection: connect.SharedBroker | None = None
        self._declarer: Channel | None = None
        self._lanes: dict[str, Lane] = {}  # by region
        self._opening: set[str] = set()  # regions whose channels are on their way
        self._refusals: dict[str, str] = {}  # by region: why the broker did not declare its queues
        self._blocked: str | None = None
        self._down: str | None = "the broker is not reached yet"
        self._refusal = ""  # why the broker closed a channel of the connection at hand
        self._looker: Channel | None = None
        # When it was asked what it has not answered (monotonic; 0: it owes nothing), and when it was asked last.
        self._asked_at = self._looked_at = 0.0
        self._look_in = LOOK_SECONDS  # after the last look
        self._latency = Latency(SLOW_SECONDS, QUICK_LOOKS)
        self._lost_at: deque[float] = deque(maxlen=100)  # when it was lost (monotonic)
        self._refused_at: dict[str, float] = {}  # by region: when its queue refused a message
        self.queued: dict[str, Queued] = {}  # by region, at the last look; empty while the broker is away
        self._lock = threading.Lock()  # of the lanes; held while frames are sent, so that tags count them
        self._took: dict[str, list[int]] = {}  # by region: how long confirms took (regions.counts)
        self.regained: list[Callable[[], None]] = []
        self._loop = Loop("publish", self._turn)

    @property
    def unavailable(self) -> str | None:
        """None when a publish may be confirmed, otherwise why none will be."""
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
        """None when a publish to these regions may be confirmed, otherwise why it will not be."""
        if self._down is not None or self._blocked is not None:
            return self.unavailable
        for region in regions:
            lane = self._lanes.get(region)
            if lane is None:
                return f"the queues of {region} are not declared yet"
            if lane.is_silent:
                return self.unavailable or f"the broker does not confirm for {region}"
        return None

    def samples(self) -> list[Sample]:
        """How long confirms took, and how many are owed."""
        with self._lock:
            took = {region: tuple(cells) for region, cells in self._took.items()}
            owed = {region: len(lane.unconfirmed) for region, lane in self._lanes.items()}
        return [
            ("nearfetch_rabbitmq_up", (), int(self.unavailable is None)),
            *(("nearfetch_hop_seconds", ("publish", region), cells) for region, cells in took.items()),
            *(("nearfetch_rabbitmq_unconfirmed_messages", (region,), count) for region, count in owed.items()),
        ]

    def silent_in(self, region: str) -> str | None:
        """Why this region's queues take no messages while those of others may; None when they may, too."""
        if self.unavailable is not None:
            return None
        return self.unavailable_for((region,))

    def faults(self) -> list[Found]:
        """What is wrong with the broker, or with the queues of single regions, by name."""
        now, found = time.monotonic(), list[Found]()
        if (lost := sum(at > now - LOST_SECONDS for at in tuple(self._lost_at))) >= RESTARTS:
            found.append(Found("rabbitmq-restarts", f"RabbitMQ comes and goes: it was lost {lost} times in a minute"))
        if (reason := self.state) is not None:
            return [*found, Found("rabbitmq-blocked" if self._is_blocked else "rabbitmq-away", reason)]
        if self._latency.is_slow:
            slow = f"RabbitMQ is slow: it takes up to {self._latency.seconds:.1f} s to answer"
            found.append(Found("rabbitmq-slow", slow))
        for region in list(self._regions):
            if why := self.silent_in(region):
                found.append(Found("region-queue-away", why, region=region))
            if now - self._refused_at.get(region, -FULL_SECONDS) < FULL_SECONDS:
                ready = self.queued.get(region, Queued()).ready
                found.append(Found("region-queue-full", f"{REFUSED} ({ready} messages are ready)", region=region))
        return found

    @property
    def state(self) -> str | None:
        """Why requests can't be taken; None if they can. A broker that hangs is noticed even while nothing is published."""
        if (reason := self.unavailable) is not None:
            return reason
        is_owed = 0 < self._asked_at < time.monotonic() - UNANSWERED_SECONDS
        return "RabbitMQ does not answer" if is_owed else None

    @property
    def _is_blocked(self) -> bool:
        return self._down is None and self._blocked is not None

    def look(self) -> None:
        """Asks for the length of all queues, unless the last answer is owed or young. Call it every second or so."""
        connection = self._connection
        if connection is not None and self._down is None:
            connection.ioloop.add_callback_threadsafe(self._look)

    def start(self) -> None:
        """Starts the thread; it connects by itself."""
        self._loop.start()

    def serves(self, region: str) -> bool:
        """Whether a region has a channel, which takes its messages once the broker is reached."""
        return region in self._lanes

    def declare(self, region: str) -> None:
        """Declares the queues of a region that was added, and opens its channel, if the broker is reached now.

        Call it again while ``serves`` is false: the broker may be away, or may refuse.
        """
        connection = self._connection
        if connection is not None and self._down is None:
            connection.ioloop.add_callback_threadsafe(functools.partial(self._add, region))

    def stop(self) -> None:
        """Closes the connection and ends the thread; unconfirmed batches fail."""
        self._loop.ask_to_stop()
        connection = self._connection
        if connection is not None:
            connection.ioloop.add_callback_threadsafe(self._close)
        self._loop.join()

    def publish(self, batch: Batch) -> None:
        """Sends a batch. Its ``done`` is called by the publisher's thread, or by this one when the broker is away."""
        reason = self.unavailable_for({names.region_of(message.routing_key) for message in batch.messages})
        if reason is None:
            with self._lock:
                reason = self._send(batch)
        if reason is not None:
            batch.end(reason)

    def _send(self, batch: Batch) -> str | None:
        """Sends a batch; returns why not, if it could not."""
        connection = self._connection
        if self._down is not None or connection is None or not connection.is_open:
            return self._down or "the connection to the broker closes"
        regions = [names.region_of(message.routing_key) for message in batch.messages]
        for region in regions:  # ``publish`` asked without the lock, and the broker may be lost and reached again since
            if region not in self._lanes:
                return f"the queues of {region} are not declared yet"
        lanes = [self._lanes[region] for region in regions]
        frame_max = connection.params.frame_max
        found = [lane.frames(message, frame_max) for lane, message in zip(lanes, batch.messages, strict=True)]
        for lane, message in zip(lanes, batch.messages, strict=True):
            lane.expect(batch, message)
        frames.send(connection, found)
        return None

    def _turn(self) -> float:
        self.run_once()
        return self._loop.backoff_seconds()

    def run_once(self) -> None:
        """Opens one connection, and serves it until its end."""
        parameters = self._parameters[self._loop.failures % len(self._parameters)]
        connection: connect.SharedBroker | None = None
        self._refusal = ""
        try:
            connection = self._connection = connect.SharedBroker(
                parameters,
                on_open_callback=self._opened,
                on_open_error_callback=lambda _, error: self._lost(error),
                on_close_callback=lambda _, error: self._lost(error),
            )
            connection.ioloop.start()
        except Exception as error:  # an error of pika ends this connection, not the publisher
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
        """The channel for declarations is open; the regions' channels follow."""
        channel.add_on_close_callback(self._channel_closed)
        self._declarer = channel
        self._declare_all()

    def _declare_all(self) -> None:
        regions = list(self._regions)
        if self._declarer is not None:
            self._declare(self._declarer, regions, functools.partial(self._open_lanes, regions))

    def _open_lanes(self, regions: Iterable[str], _: Any) -> None:
        connection = self._connection
        if connection is None:
            return
        for region in regions:
            if region not in self._lanes and region not in self._opening:  # a missing queue may be declared again
                self._opening.add(region)
                connection.channel(on_open_callback=functools.partial(self._lane_opened, region))

    def _lane_opened(self, region: str, channel: Channel) -> None:
        lane = Lane(channel, self._took.setdefault(region, [0] * CELLS))
        self._opening.discard(region)
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(functools.partial(self._on_return, lane))
        channel.confirm_delivery(
            ack_nack_callback=functools.partial(self._on_confirm, region, lane),
            callback=_ignore if self._opening else self._ready,
        )
        self._lanes[region] = lane  # last: from now on other threads send on it

    def _declare(self, channel: Channel, regions: list[str], then: Callable[[Any], None]) -> None:
        """Declares exchanges, and queues of regions. pika sends one after the other; after the last reply it calls ``then``."""
        for exchange, kind in topology.exchanges():
            channel.exchange_declare(exchange, exchange_type=kind, durable=True, callback=_ignore)
        found = topology.queues(regions)
        for queue, exchange, key in found:
            channel.queue_declare(queue, durable=True, arguments=topology.QUORUM, callback=_ignore)
            is_last = queue == found[-1][0]
            channel.queue_bind(queue, exchange, key, callback=then if is_last else _ignore)

    def _add(self, region: str) -> None:
        connection = self._connection
        if connection is None or self._down is not None or region in self._lanes or region in self._opening:
            return
        self._opening.add(region)
        connection.channel(on_open_callback=functools.partial(self._added, region))

    def _added(self, region: str, channel: Channel) -> None:
        def declared(_: Any) -> None:
            self._opening.discard(region)
            self._refusals.pop(region, None)
            self._open_lanes([region], None)
            channel.close()

        def closed(_: Channel, error: Exception) -> None:
            if isinstance(error, pika.exceptions.ChannelClosedByBroker):
                self._opening.discard(region)
                if self._refusals.get(region) != str(error):
                    log.error("a region's queues can't be declared", region=region, error=str(error))
                self._refusals[region] = str(error)

        channel.add_on_close_callback(closed)
        self._declare(channel, [region], declared)

    def _look(self) -> None:
        connection, now = self._connection, time.monotonic()
        if connection is None or self._down is not None or self._asked_at or now - self._looked_at < self._look_in:
            return
        self._asked_at = self._looked_at = now
        if self._looker is None:
            connection.channel(on_open_callback=self._look_opened)
        else:
            self._ask(self._looker)

    def _look_opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._look_closed)
        self._looker = channel
        self._ask(channel)

    def _look_closed(self, _: Channel, error: Exception) -> None:
        """A queue is gone, which closes the channel, or the connection is lost."""
        self._looker, self._asked_at = None, 0.0
        if getattr(error, "reply_code", 0) == NOT_FOUND:
            self._declare_all()

    def _ask(self, channel: Channel) -> None:
        regions = [region for region in list(self._regions) if region in self._lanes]
        counts: dict[str, Queued] = {}

        def answered(region: str, frame: Any) -> None:
            if not counts:
                self._latency.add(time.monotonic() - self._asked_at)
                self._look_in = LOOK_SECONDS if self._latency.is_quick else uneven(SUSPECT_SECONDS)
            before, method = counts.get(region, Queued()), frame.method
            ready, consumers = before.ready + method.message_count, before.consumers + method.consumer_count
            counts[region] = Queued(ready, consumers, time.monotonic())
            if region == regions[-1]:
                self.queued = dict(counts)

        def last(_: Any) -> None:
            self._asked_at = 0.0

        for region in regions:
            for queue in (names.fast_queue(region), names.work_queue(region)):
                channel.queue_declare(queue, passive=True, callback=functools.partial(answered, region))
        channel.basic_qos(prefetch_count=1, callback=last)  # answered after all of them

    def _ready(self, _: Any) -> None:
        was, self._down = self._down, None
        self._loop.failures = 0
        if was is not None:
            log.info("broker reached", was=was)
            for call in self.regained:
                call()

    def _on_confirm(self, region: str, lane: Lane, frame: Any) -> None:
        method = frame.method
        is_ack = isinstance(method, pika.spec.Basic.Ack)
        if not is_ack:
            self._refused_at[region] = time.monotonic()
        with self._lock:
            ends = lane.confirmed(method.delivery_tag, is_ack=is_ack, is_multiple=method.multiple)
        for batch, reason in ends:
            batch.end(reason)

    def _on_return(self, lane: Lane, _channel: Channel, _method: Any, properties: Any, _body: bytes) -> None:
        """The message's queue is gone: it is declared again."""
        lane.returned(properties.message_id)
        self._declare_all()

    def _on_blocked(self, _: Any, frame: Any) -> None:
        self._blocked = str(frame.method.reason)
        log.warning("broker blocked", reason=self._blocked)
        with self._lock:
            lanes = list(self._lanes.values())
        self._fail_all(lanes, f"the broker takes no messages: {self._blocked}")

    def _on_unblocked(self, *_: Any) -> None:
        self._blocked = None
        self._asked_at = self._asked_at and time.monotonic()  # it answered nothing meanwhile
        log.info("broker unblocked")

    def _channel_closed(self, _: Channel, error: Exception) -> None:
        reason = f"the broker closed the channel: {error}"
        if isinstance(error, pika.exceptions.ChannelClosedByBroker):  # and not because the connection is lost
            self._refusal = reason
        self._fail(reason)
        connection = self._connection
        if connection is not None and connection.is_open:
            connection.close()

    def _lost(self, error: Any) -> None:
        if self._down is None or self._loop.failures == 0:
            log.warning("broker away", error=self._refusal or str(error))
        self._fail(self._refusal or "the broker is away")
        if self._connection is not None:
            self._connection.ioloop.stop()

    def _fail(self, reason: str) -> None:
        if self._down is None:  # of a lost connection the channels hear first, then ``_lost``
            self._lost_at.append(time.monotonic())
        with self._lock:  # whatever is sent before has its place in a lane, and what comes later is not sent
            self._down, self._blocked, self._declarer = reason, None, None
            lanes, self._lanes, self._opening = list(self._lanes.values()), {}, set()
            self._looker, self._asked_at, self.queued = None, 0.0, {}
            self._latency.clear()
            self._look_in = LOOK_SECONDS
        self._fail_all(lanes, reason)

    def _fail_all(self, lanes: Iterable[Lane], reason: str) -> None:
        """Fails all batches with unconfirmed messages."""
        with self._lock:
            unconfirmed = [batch for lane in lanes for batch, _, _ in lane.unconfirmed.values()]
        for batch in unconfirmed:
            batch.end(reason)

    def _close(self) -> None:
        connection = self._connection
        if connection is not None and connection.is_open:
            connection.close()
        elif connection is not None:
            connection.ioloop.stop()


def _ignore(_: Any) -> None:
    """Ignores a reply. A refusal would close the channel instead, and ``_channel_closed`` handles that."""
