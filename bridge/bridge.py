"""Moves a region's tasks from RabbitMQ to RQ on the region's own Redis, each once, and acks those that are durable.

    lane (one channel for each queue) → inbox → _flush, once a turn of the ioloop
        unreadable    → report: a failed outcome to the hub → reject
        past deadline → ack
        task, cancel  → Enqueuer.write, one pipelined write → Durable (a thread, WAITAOF) → _settle → ack

    Watch  (a thread)  the region's Redis: away, full, above a high-water mark → _measured → lanes consume or pause
    Report (a thread)  the hub's clock; sends status and failed outcomes to the hub
    Heartbeat          renewed by the ioloop itself, for bridge.ensure

Nothing on the ioloop blocks longer than a Redis's time-out. There is no batching window: the messages that arrive in one
turn of the ioloop are a batch, even a single one.
"""

import contextlib
import functools
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterable
from typing import Any, Final

import pika
from pika.adapters.select_connection import IOLoop

from bridge import message
from bridge.durable import BLOCK_SECONDS, Durable
from bridge.enqueue import Enqueuer, Message
from bridge.heartbeat import EVERY_SECONDS, STOPPING, Heartbeat
from bridge.lane import Delivery, Inbox, Lane, Receipt, cost, give_back, grouped, settle
from bridge.metrics import Metrics
from bridge.report import Clock, Report, Status
from bridge.watch import NO_REASON, Levels, Measure, Reason, Watch, refused
from jobs import contract
from regions import connect, logs, names
from regions.metrics import Endpoint
from regions.settings import Settings

DRAIN_SECONDS: Final = 0.1  # between two looks whether all is acked, and for pika to close its socket
AWAY, BROKER_AWAY = "region-redis-away", "region-rabbitmq-away"
SILENT: Final = "RabbitMQ is away: it does not answer"
# By the broker: a code, and a text that begins with its name.
CLOSED: Final = re.compile(r"""\(?\d{3}\)?,? ['"]([A-Z_]+ - .+?)['"]?\)?$""")
WRAPPED: Final = re.compile(r"\w+Error\(\d+, '([^']+)'\)")  # a system error's text inside that of another error
ASK_TICKS: Final = 2  # of EVERY_SECONDS, between two questions how long the queues are
CLOSE_SECONDS: Final = 2.0  # for the broker's answer when the connection is closed
STOP_SECONDS: Final = 5.0  # for the last acks
BATCH_MAX: Final = 1000  # messages in one write, so that a Redis answers within its time-out


class Bridge:
    """``run`` blocks until ``stop`` is called. Any thread may call them, and a signal handler may call ``stop``."""

    def __init__(self, settings: Settings, region: str, *, kept: bool = False) -> None:
        one = settings.one(region)
        self.region = region
        folder = settings.bridges.folder
        self._heartbeat = Heartbeat(folder, region, kept=kept) if folder is not None else None
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._log = logs.get("bridge")
        self._ttl_ms = round(settings.limits.result_ttl_seconds * 1000)
        self._parameters = connect.amqp_parameters(settings.hub.amqp, name=f"bridge-{region}@{self.name}")
        self._ioloop = IOLoop()
        # A signal handler may take no lock, and so may not call the ioloop.
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._ioloop.add_handler(self._woken.fileno(), self._wake_up, IOLoop.READ)
        self._connection: pika.SelectConnection | None = None
        self._broker_reason = Reason("not connected to RabbitMQ yet", BROKER_AWAY)
        self._attempts = 0
        self.fast, self.work = (
            Lane(queue, one.bridge.prefetch, self._ioloop, came=self._came, changed=self._refresh)
            for queue in (names.fast_queue(region), names.work_queue(region))
        )
        self._flush_is_due = False
        self._ticks = 0
        self._once = logs.Once()
        self._has_consumed = False  # before that, what is missing is no fault
        self._measure = Measure()
        self._redis_reason = Reason("not connected to its Redis yet", AWAY)
        self._levels = Levels(one.bridge.ready_max)
        self._stopping, self._ended, self._code = False, False, 0
        self._shown: tuple[str, str] = ("", "")

        hub = connect.open_redis(
            settings.hub.redis,
            name=f"bridge-{region}@{self.name}",
            block_seconds=connect.OCEAN_SECONDS,
            connections=2,
        )
        local = functools.partial(connect.open_redis, one.redis.url, connections=2)
        writes, looks, tells = (local(name=f"bridge{part}@{self.name}") for part in ("", "-watch", "-clock"))
        waits = local(name=f"bridge-durable@{self.name}", block_seconds=BLOCK_SECONDS)
        self._clients = (hub, writes, looks, tells, waits)
        self._enqueuer = Enqueuer(writes, region)
        self._durable: Durable[Receipt] = Durable(waits, self.name, self._durable_settled)
        self._watch = Watch(looks, region, one.redis, prepare=self._prepare, tell=self._tell, fail=self._fail)
        self._report = Report(hub, tells, region, self.name, self._wake)
        self._threads = [self._thread(part) for part in (self._durable, self._watch, self._report)]
        self._metrics = Metrics(region, self.fast, self.work, self._durable, self._report)
        self._endpoint = Endpoint(one.metrics.host, one.metrics.bridge_port, self._metrics.samples)

    # Life

    def run(self) -> int:
        """Runs until stopped. Returns 0, or 1 when something is wrong that waiting does not mend."""
        for thread in self._threads:
            thread.start()
        self._endpoint.start()
        self._connect()
        self._tick()
        try:
            self._ioloop.start()
        finally:
            for part in (self._durable, self._watch, self._report, self._endpoint):
                part.stop()
            for thread in self._threads:
                thread.join()
            for client in self._clients:
                client.close()
            self._ioloop.close()
            self._waker.close()
            self._woken.close()
            if self._heartbeat is not None:
                self._heartbeat.close()
        self._log.info("stopped", region=self.region)
        return self._code

    def stop(self) -> None:
        """Asks for a warm stop: no more messages; those that are enqueued are acked, the others go back to RabbitMQ."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        """Has the ioloop look at once. Any thread and a signal handler may call it."""
        with contextlib.suppress(OSError):  # it has ended, or was told often enough
            self._waker.send(b".")

    def _wake_up(self, _descriptor: int, _events: int) -> None:
        self._woken.recv(4096)
        self._look()

    def _tick(self) -> None:
        self._look()
        self._ticks += 1
        if self._ticks % ASK_TICKS == 0:
            self.fast.ask_count()
            self.work.ask_count()
            self._once.flush()
        self._ioloop.call_later(EVERY_SECONDS, self._tick)

    def _look(self) -> None:
        """Once a second, and when something changed: renews the heartbeat, and goes on with a stop."""
        self._beat()
        if self._stopping and not self._ended:
            self._ended = True
            self._log.info("stopping", region=self.region, unacked=self._unacked())
            self._refresh()
            self._ioloop.call_later(STOP_SECONDS, self._close)
            self._drain()
        self._refresh()

    def _drain(self) -> None:
        if not self._unacked():
            self._close()
        self._ioloop.call_later(DRAIN_SECONDS, self._drain)

    def _beat(self) -> None:
        """Renews the heartbeat. Stops when its file was taken away: another bridge has taken over."""
        state = STOPPING if self._stopping else self._status().state
        if self._heartbeat is not None and not self._heartbeat.beat(state) and not self._stopping:
            self._log.warning("its heartbeat file was removed: another bridge has taken over", region=self.region)
            self._stopping = True

    def _close(self) -> None:
        """The last step of a stop. Closes the connection, or ends the loop if there is none.

        A connection that is being opened first opens or fails within its time-outs: pika raises if it is closed earlier.
        """
        connection = self._connection
        if connection is None or connection.is_closed:
            self._ioloop.stop()
        elif connection.is_open:
            connection.close()
            self._ioloop.call_later(CLOSE_SECONDS, self._ioloop.stop)

    def _thread(self, part: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                part.run()
            except Exception:  # noqa: BLE001 - logged, and it ends the process
                # A bridge without this thread would hold its messages for ever. It is better to end and be started again.
                self._log.exception("a thread died", thread=type(part).__name__)
                self._fail(f"{type(part).__name__} died")

        return threading.Thread(target=guarded, name=type(part).__name__.lower(), daemon=True)

    def _fail(self, reason: str) -> None:
        """Ends the bridge with code 1. Any thread may call it."""
        self._log.error(reason, region=self.region)
        self._code = 1
        self.stop()

    # RabbitMQ

    def _connect(self) -> None:
        if self._ended:
            self._ioloop.stop()
            return
        parameters = self._parameters[self._attempts % len(self._parameters)]
        self._attempts += 1
        self._connection = connect.Broker(
            parameters,
            on_open_callback=self._connected,
            on_open_error_callback=self._disconnected,
            on_close_callback=self._disconnected,
            custom_ioloop=self._ioloop,
        )

    def _connected(self, connection: pika.SelectConnection) -> None:
        try:
            connect.check_rabbitmq(connection.server_properties or {})
        except connect.TooOld as error:
            self._fail(str(error))
            return
        self._attempts = 0
        self._broker_reason = NO_REASON
        self.fast.open(connection)
        self.work.open(connection)
        self._refresh()

    def _disconnected(self, _connection: pika.SelectConnection, error: BaseException | str) -> None:
        if self._ended:
            self._ioloop.call_later(DRAIN_SECONDS, self._ioloop.stop)  # pika closes its socket after this callback
            return
        why = innermost(error)
        how = "RabbitMQ does not let it in" if why.startswith("ACCESS_REFUSED") else "RabbitMQ is away"
        self._broker_reason = Reason(f"{how}: {why}", BROKER_AWAY)
        self._refresh()
        self._ioloop.call_later(connect.backoff_seconds(self._attempts), self._connect)

    # Messages

    def _came(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._ioloop.call_later(0, self._flush)  # timers run after all that this turn still reads

    def _flush(self) -> None:
        self._flush_is_due = False
        fast = self.fast.inbox.take() if self.fast.inbox else []
        work = self.work.inbox.take() if self.work.inbox else []
        clock = self._report.clock
        if clock is None or self._redis_reason:
            give_back(fast + work)
            return
        if self._levels.fast_reason:
            give_back(fast)
            fast = []
        if self._levels.work_reason:
            give_back(work)
            work = []
        room = max(0, self._levels.ready_max - self._measure.ready)
        if len(work) > room:
            self._levels.close_work()
            self._refresh()
            give_back(work[room:])
            work = work[:room]
        both = fast + work
        for start in range(0, len(both), BATCH_MAX):
            self._write(both[start : start + BATCH_MAX], clock)

    def _write(self, deliveries: list[Delivery], clock: Clock) -> None:
        now_ms = clock.hub_now_ms()
        messages: list[Message] = []
        written: list[Delivery] = []
        late: list[Delivery] = []
        for delivery in deliveries:
            try:
                content = message.read(self.region, delivery.properties, delivery.body)
            except message.Unreadable as error:
                self._refuse(delivery, str(error), now_ms)
                continue
            if content.deadline_ms <= now_ms:
                late.append(delivery)
            else:
                messages.append(content)
                written.append(delivery)
        settle(late, Inbox.ack)
        self._metrics.late(len(late))
        if messages:
            self._enqueue(messages, written, clock, now_ms)

    def _enqueue(self, messages: list[Message], deliveries: list[Delivery], clock: Clock, now_ms: int) -> None:
        run_id = self._enqueuer.run_id
        if self._redis_reason:  # an earlier batch of this turn failed
            give_back(deliveries)
            return
        try:
            result = self._enqueuer.write(messages, offset_ms=clock.offset_ms, now_ms=now_ms)
        except connect.AWAY as error:
            self._pause(Reason(f"its Redis is away: {error}", AWAY))
            give_back(deliveries)
            return
        back = [delivery for delivery, refusal in zip(deliveries, result.refusals, strict=True) if refusal]
        done = [delivery for delivery, refusal in zip(deliveries, result.refusals, strict=True) if not refusal]
        if back:
            first = next(filter(None, result.refusals))
            self._pause(Reason(f"its Redis refuses writes: {first}", refused(first)))
            give_back(back)
        else:
            used = self._measure.used + sum(map(cost, done))  # until the next measure, which is half a second away
            self._measured(Measure(result.ready, used, self._measure.limit))
        if done:
            self._durable.submit(run_id, grouped(done))
            self._count(messages, result.refusals, clock)

    def _count(self, messages: list[Message], refusals: Iterable[object], clock: Clock) -> None:
        """Counts how long after their accept tasks were enqueued, and logs those whose clients record their traces."""
        now_ms = clock.hub_now_ms()
        for content, refusal in zip(messages, refusals, strict=True):
            if refusal is None and isinstance(content, contract.Task):
                self._metrics.enqueued((now_ms - content.accepted_ms) / 1000)
                if content.is_sampled:
                    ids = {"task": content.task, "request": content.request, "source": content.source}
                    self._log.info("enqueued", region=self.region, **ids, **content.traced)

    def _refuse(self, delivery: Delivery, reason: str, now_ms: int) -> None:
        """Handles an unreadable message: its task fails at the hub, and only then the message leaves the queue."""
        properties = delivery.properties
        task, request = properties.message_id, properties.correlation_id
        of = {"region": self.region, "reason": reason, "task": task, "request": request}
        self._once.tell(f"unreadable {reason}", self._log.error, "unreadable message", **of)
        reject = functools.partial(delivery.inbox.reject, delivery.tag)
        outcome = message.failed(self.region, properties, reason, now_ms=now_ms, ttl_ms=self._ttl_ms)
        if outcome is None:
            reject()
        else:
            self._report.fail(outcome, lambda: self._ioloop.add_callback_threadsafe(reject))

    def _durable_settled(self, receipts: list[Receipt], error: Exception | None) -> None:
        """The thread that waits for the append-only file calls this."""
        self._ioloop.add_callback_threadsafe(lambda: self._settle(receipts, error))

    def _settle(self, receipts: list[Receipt], error: Exception | None) -> None:
        if error is not None:
            fault = AWAY if isinstance(error, connect.AWAY) else refused(error)
            self._pause(Reason(f"its Redis did not keep a batch: {error}", fault))
        by_inbox: dict[Inbox, list[int]] = {}
        for receipt in receipts:
            for inbox, tags in receipt:
                by_inbox.setdefault(inbox, []).extend(tags)
        for inbox, tags in by_inbox.items():
            if error is None:
                inbox.ack(tags)
            else:
                inbox.give_back(tags)

    # The region's Redis

    def _prepare(self, keeps_file: bool) -> None:
        """Runs in the watch's thread.

        The ioloop uses a connection only after the watch has reported that all is well.
        """
        self._durable.waits = keeps_file
        if not self._enqueuer.is_open:
            self._enqueuer.open()

    def _tell(self, measure: Measure | Exception) -> None:
        if isinstance(measure, Exception):
            self._durable.doubt()
        self._ioloop.add_callback_threadsafe(lambda: self._take_measure(measure))

    def _take_measure(self, measure: Measure | Exception) -> None:
        if isinstance(measure, Exception):
            self._pause(Reason(f"its Redis is away: {measure}", AWAY))
        elif measure.refusal:
            self._pause(measure.refusal)
            self._measured(measure)
        elif not self._enqueuer.is_open or not self._durable.is_open:
            self._pause(Reason("its Redis is back, connections are not yet", AWAY))
        else:
            self._redis_reason = NO_REASON
            self._measured(measure)
            may_consume = not self._levels.fast_reason and not self._levels.work_reason
            self._watch.is_calm = may_consume and not measure.ready and not self._unacked()

    def _measured(self, measure: Measure) -> None:
        self._measure = measure
        self._levels.see(measure)
        self._refresh()

    def _pause(self, reason: Reason) -> None:
        """Ends the consumers. Only then may messages be given back, or they would return at once."""
        self._watch.is_calm = False
        self._redis_reason = reason
        self._refresh()

    # State

    def _refresh(self) -> None:
        can = self._report.clock is not None and not self._redis_reason and not self._ended
        self.fast.want(can and not self._levels.fast_reason)
        self.work.want(can and not self._levels.work_reason)
        status = self._status()
        self._report.show(status)
        if (status.state, status.reason) != self._shown:
            self._shown = (status.state, status.reason)
            self._beat()
            self._tell_state(status)

    def _tell_state(self, status: Status) -> None:
        """Logs a new state, the reason first; a reason that is a fault wakes somebody."""
        fields = {"region": self.region, "state": status.state, "ready": status.ready}
        if status.fault and self._has_consumed:
            self._log.warning(status.reason, fault=status.fault, **fields)
        else:
            self._log.info(status.reason or status.state, **fields)
        self._has_consumed = self._has_consumed or status.state == "consuming"

    def _status(self) -> Status:
        state, reason = self._state()
        measure = self._measure
        return Status(
            state=state,
            reason=reason.text,
            fault=reason.fault,
            ready=measure.ready,
            unacked=self._unacked(),
            redis_used=measure.used,
            redis_max=measure.limit,
            redis_ms=self._watch.took_ms,
            redis_lost=self._watch.lost,
        )

    def _state(self) -> tuple[str, Reason]:
        """What it does, and why it does not consume: the reason that must be mended first."""
        if self._ended:
            return "paused", Reason("stopping")
        is_answered = self.fast.is_answered and self.work.is_answered
        broker = self._broker_reason or (NO_REASON if is_answered else Reason(SILENT, BROKER_AWAY))
        if self._report.clock is None:
            return "starting", broker or self._redis_reason or Reason("waiting for the hub's clock")
        if starting := broker or Reason(self.fast.reason or self.work.reason, "region-queue-away"):
            return "starting", starting
        paused = self._redis_reason or self._levels.fast_reason or self._levels.work_reason
        return "paused" if paused else "consuming", paused

    def _unacked(self) -> int:
        return sum(len(lane.inbox.held) for lane in (self.fast, self.work) if lane.inbox)


def innermost(error: BaseException | str) -> str:
    """The reason inside pika's errors, which wrap it up to four times, some of them as a text: ``Connection reset by peer``."""
    while isinstance(error, BaseException):
        inside = [*getattr(error, "exceptions", ()), getattr(error, "exception", None), *error.args]
        causes = [cause for cause in inside if isinstance(cause, BaseException)]
        error = causes[-1] if causes else _told(error)
    found = WRAPPED.search(error) or CLOSED.search(error)
    return found[1] if found else error


def _told(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def run(settings: Settings, region: str, *, kept: bool = False) -> int:
    """Bridges a region until SIGTERM or SIGINT. Returns the exit code. Raises ``Faults`` for an unknown region.

    ``kept``: bridge.ensure started this process.
    """
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # the state's reason says in one line what pika says in six
    bridge = Bridge(settings, region, kept=kept)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: bridge.stop())
    return bridge.run()
