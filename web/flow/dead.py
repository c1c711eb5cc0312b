"""Dead letters: a message that the broker gave up on ends its task, and is kept at the hub for an operator.

    q.dead ── DeadReader (a thread of each gateway) ─┬─ settle: the task fails with the reason
                                                     ├─ DeadLetters.keep
                                                     └─ ack

A letter is acknowledged after both took effect; doing both twice is harmless. While the hub can't take letters they stay in
q.dead, and no gateway consumes there. ``nearfetch dead`` shows, retries and drops kept letters (scripts.commands.dead).
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
import pika
import redis
from msgspec import Struct
from pika.adapters.blocking_connection import BlockingChannel

from jobs import contract
from jobs.errors import Internal
from regions import connect, logs, names, topology
from regions.loop import Loop
from regions.settings import Settings
from web.hub import scripts
from web.hub.frame import made as frame_made
from web.hub.ledger import Ledger
from web.hub.redis import Hub, HubUnavailable
from web.hub.settlement import Settlement

KEPT_MAX: Final = 1_000  # letters; with their bodies 35 MB at most
BODY_MAX: Final = 16_000  # characters of a body that are kept; a longer message can't be retried from here
GARBAGE_MAX: Final = 1_000  # characters that are kept of a body that is not text
TTL_MS: Final = 7 * 86_400_000
PREFETCH: Final = 50
IDLE_SECONDS: Final = 1.0  # without a letter, until it checks whether it may go on

log = logs.get("dead")


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A message that no bridge took. ``id`` is the task's if it has one; a text is empty if it is not known.

    ``reason`` is the broker's (rejected, delivery_limit, expired, maxlen), ``fault`` what this version finds wrong.
    ``body`` is its first ``BODY_MAX`` characters, with bytes that are not UTF-8 replaced; ``at_ms``: when it was kept (hub ms).
    """

    id: str
    kind: str = ""
    task: str = ""
    request: str = ""
    region: str = ""
    source: str = ""
    queue: str = ""
    reason: str = ""
    fault: str = ""
    deaths: int = 0
    at_ms: int = 0
    body_bytes: int = 0
    body: str = ""

    @property
    def cause(self) -> str:
        """Why it is here, in one sentence."""
        if self.kind == "entry":
            return f"{self.deaths} entries of {self.queue} were {self.reason} ({self.fault})"
        place = f" from {self.queue}" if self.queue else ""
        return f"its message was dead-lettered{place}: {self.reason or 'unknown'}" + (
            f" ({self.fault})" if self.fault else ""
        )


def letter_of(properties: pika.BasicProperties, body: bytes) -> DeadLetter:
    """A message as a letter. Nothing in the message is trusted."""
    deaths: Any = (properties.headers or {}).get("x-death")
    deaths = [one for one in deaths if isinstance(one, dict)] if isinstance(deaths, list) else []
    last = deaths[0] if deaths else {}
    kind, task = properties.type or "", properties.message_id or ""
    digest = hashlib.sha256(repr((kind, task, properties.correlation_id)).encode() + body).hexdigest()[:16]
    return DeadLetter(
        id=task if kind == "task" and task else digest,
        kind=kind,
        task=task,
        request=properties.correlation_id or "",
        queue=str(last.get("queue", ""))[:200],
        reason=str(last.get("reason", ""))[:200],
        fault=fault(kind, body)[:500],
        deaths=sum(count for one in deaths if isinstance(count := one.get("count", 1), int)),
        body_bytes=len(body),
        body=_text(body),
    )


def _text(body: bytes) -> str:
    text = body.decode(errors="replace")[:BODY_MAX]
    is_garbage = len(msgspec.json.encode(text)) > 2 * BODY_MAX  # most of it has to be escaped in JSON
    return text[:GARBAGE_MAX] if is_garbage else text


def fault(kind: str, body: bytes) -> str:
    """What this process finds wrong with a message; empty if nothing."""
    if kind not in ("task", "cancel"):
        return f'expected a message of type "task" or "cancel", found "{kind[:64]}"'
    try:
        contract.decode_task(body) if kind == "task" else contract.decode_cancel(body)
    except (ValueError, RecursionError) as error:
        return str(error)
    return ""


class DeadLetters:
    """The kept letters, on a client of the hub's Redis. Raises what redis-py raises."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def keep(self, letter: DeadLetter) -> bool:
        """Keeps a letter once; returns whether it was new. Past ``KEPT_MAX`` the oldest go. A full Redis refuses it."""
        is_new = scripts.KEEP_DEAD.call(
            self._client,
            letters=names.DEAD,
            times=names.DEAD_AT,
            id=letter.id,
            letter=msgspec.json.encode(letter),
            kept_max=KEPT_MAX,
            ttl_ms=TTL_MS,
        )
        return bool(is_new)

    def all(self) -> list[DeadLetter]:
        """Every letter, oldest first."""
        found: Any = self._client.zrange(names.DEAD_AT, 0, -1, withscores=True)
        return self._read([(one, int(at_ms)) for one, at_ms in found])

    def some(self, ids: Sequence[str]) -> list[DeadLetter]:
        """The letters with these ids, as far as they are kept."""
        if not ids:
            return []
        scores: Any = self._client.zmscore(names.DEAD_AT, list(ids))
        return self._read([(one, int(at)) for one, at in zip(ids, scores, strict=True) if at is not None])

    def count(self) -> int:
        """How many letters are kept."""
        return int(self._client.zcard(names.DEAD_AT))

    def drop(self, ids: Sequence[str]) -> int:
        """Deletes letters; returns how many there were.

        The examples of refused entries have ids, too. Dropping one begins their count anew, since an operator has seen it.
        """
        pipeline = self._client.pipeline(transaction=True)
        for region, colon, what in (one.partition(":") for one in ids):
            if colon:  # an example of refused entries (web.flow.refusals)
                pipeline.hdel(names.refused(region), what)
        pipeline.hdel(names.DEAD, *ids)
        pipeline.zrem(names.DEAD_AT, *ids)
        return int(pipeline.execute()[-2]) if ids else 0

    def _read(self, found: Sequence[tuple[Any, int]]) -> list[DeadLetter]:
        texts: Any = self._client.hmget(names.DEAD, [one for one, _ in found]) if found else []
        letters = []
        for (_, at_ms), text in zip(found, texts, strict=True):
            if text is not None:
                letters.append(msgspec.structs.replace(msgspec.json.decode(text, type=DeadLetter), at_ms=at_ms))
        return letters


class DeadReader:
    """The consumer of q.dead in a gateway. Any number of gateways share the queue."""

    def __init__(self, settings: Settings, hub: Hub, ledger: Ledger, news: Callable[[Iterable[str]], None]) -> None:
        self._hub, self._ledger, self._news = hub, ledger, news
        self._letters = DeadLetters(hub.client)
        self._parameters = connect.amqp_parameters(settings.hub.amqp, name="gateway-dead")
        self._once = logs.Once()
        self._loop = Loop("dead", self._turn)

    def start(self) -> None:
        """Starts the thread; it connects by itself."""
        self._loop.start()

    def stop(self) -> None:
        """Ends the thread after the letter at hand."""
        self._loop.stop()

    def _turn(self) -> float:
        """Keeps a connection as long as the hub takes letters."""
        self._once.flush()
        try:
            if self._hub.state is None:
                self.run_once()
        except (*connect.BROKER_AWAY, HubUnavailable, redis.exceptions.RedisError) as error:
            if not self._loop.failures:
                log.info("dead letters wait", reason=str(error) or type(error).__name__)
        except Exception:
            log.exception("reading dead letters failed")
        return self._loop.backoff_seconds()

    def run_once(self) -> None:
        """Reads on one connection, until that or the hub is lost."""
        connection = connect.open_broker(self._parameters)
        try:
            channel = connection.channel()
            _declare(channel)
            channel.basic_qos(prefetch_count=PREFETCH)
            self._loop.failures = 0
            for method, properties, body in channel.consume(names.DEAD_QUEUE, inactivity_timeout=IDLE_SECONDS):
                if self._loop.stopping.is_set() or self._hub.state is not None:
                    return
                if method is not None and properties is not None:
                    self.bury(properties, body or b"")
                    channel.basic_ack(method.delivery_tag or 0)
        finally:
            if connection.is_open:
                connection.close()

    def bury(self, properties: pika.BasicProperties, body: bytes) -> None:
        """Ends the letter's task and keeps the letter. Raises ``HubUnavailable``; then both may be done again."""
        letter = letter_of(properties, body)
        with self._hub.asking():
            if letter.kind != "cancel" and letter.task and letter.request:
                letter = self._settle(letter)
            is_new = self._letters.keep(letter)
        if is_new:
            of = {"id": letter.id, "request": letter.request, "region": letter.region, "cause": letter.cause}
            self._once.tell(f"{letter.region} {letter.cause}", log.error, "dead letter", **of)

    def _settle(self, letter: DeadLetter) -> DeadLetter:
        """Fails the letter's task, unless it has ended; returns the letter with the task's region and source."""
        task = next((one for one in self._ledger.tasks(letter.request) or () if one.id == letter.task), None)
        if task is None:
            return letter
        queue = names.region_of_queue(letter.queue)
        if task.moved is not None and queue in task.moved.asked:
            task = msgspec.structs.replace(task, region=queue)  # another region may still answer
        error = Internal(f"the task did not reach its region: {letter.cause}")
        frame = frame_made(task.id, task.source, task.region, "failed", error)
        one = Settlement(
            request=letter.request,
            task=task.id,
            region=task.region,
            status="failed",
            finished_ms=self._ledger.now_ms(),
            size_bytes=len(frame),
            frame=frame,
            source=task.source,
            origin=error.whose,
        )
        if self._ledger.settle([one])[0] in scripts.ENDED:
            self._news([letter.request])
        return msgspec.structs.replace(letter, region=task.region, source=task.source)


def _declare(channel: BlockingChannel) -> None:
    """Declares what the publisher declares too, since that may start later."""
    channel.exchange_declare(names.DEAD_EXCHANGE, dict(topology.exchanges())[names.DEAD_EXCHANGE], durable=True)
    channel.queue_declare(names.DEAD_QUEUE, durable=True, arguments=topology.QUORUM)
    channel.queue_bind(names.DEAD_QUEUE, names.DEAD_EXCHANGE, "")
