"""What tests of a bridge share: the hub's queues, a publisher, a bridge in a thread or as a process."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pika

from bridge import bridge as bridge_module
from bridge.bridge import Bridge
from jobs import contract
from regions import names, settings, topology
from tests.forked import BRIDGE, Forked
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
# A busy machine's broker answers late, and a connection that a bridge leaves open fails a later test.
bridge_module.CLOSE_SECONDS = 60.0

RUN = """
import sys
from bridge.bridge import run
from regions import logs, settings
logs.configure("json", "debug")
sys.exit(run(settings.load(), sys.argv[1]))
"""


def settings_of(hub_redis, region_redis, rabbitmq, region: str, **bridge) -> settings.Settings:
    one = settings.Region(
        name=region, redis=settings.RegionRedis(url=region_redis.url), bridge=settings.Bridge(**bridge)
    )
    return settings.Settings(hub=settings.Hub(redis=hub_redis.url, amqp=rabbitmq.url), region={region: one})


class Broker:
    """The hub's side of the broker for one region."""

    def __init__(self, rabbitmq, region: str) -> None:
        self.url, self.region = rabbitmq.url, region

    @contextlib.contextmanager
    def channel(self):
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            yield channel
        finally:
            connection.close()

    def declare(self) -> None:
        with self.channel() as channel:
            for name, kind in topology.exchanges():
                channel.exchange_declare(name, kind, durable=True)
            for queue, exchange, key in topology.queues([self.region]):
                channel.queue_declare(queue, durable=True, arguments=topology.QUORUM)
                channel.queue_bind(queue, exchange, key)

    def publish(self, *messages: contract.Task | contract.Cancel) -> None:
        with self.channel() as channel:
            for message in messages:
                kind = "task" if isinstance(message, contract.Task) else "cancel"
                fast = kind == "cancel" or message.sync
                self._send(channel, contract.encode(message), message.task, message.request, kind, fast)

    def publish_raw(
        self, body: bytes, *, task: str | None, request: str | None, kind: str = "task", fast=False
    ) -> None:
        with self.channel() as channel:
            self._send(channel, body, task, request, kind, fast)

    def _send(self, channel, body, task, request, kind, fast) -> None:
        properties = pika.BasicProperties(
            content_type="application/json", delivery_mode=2, type=kind, message_id=task, correlation_id=request
        )
        channel.basic_publish(
            names.TASKS_EXCHANGE, names.routing_key(self.region, fast=fast), body, properties, mandatory=True
        )

    def ready(self, queue: str | None = None) -> int:
        """Messages ready in the queue (the work queue by default), without the unacked ones."""
        with self.channel() as channel:
            return channel.queue_declare(queue or names.work_queue(self.region), passive=True).method.message_count

    def drain(self, queue: str | None = None) -> list[pika.BasicProperties]:
        """Empties a queue without consumers."""
        taken = []
        with self.channel() as channel:
            while True:
                method, properties, _ = channel.basic_get(queue or names.work_queue(self.region), auto_ack=True)
                if method is None:
                    return taken
                taken.append(properties)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def task(region: str, number: int = 0, **changes) -> contract.Task:
    now = now_ms()
    fields = {
        "task": f"01TASK{number:08d}",
        "request": "01REQUEST",
        "source": "ecb.rates",
        "region": region,
        "params": {"day": "2026-11-24", "n": number},
        "url": "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml",
        "host": "https://www.ecb.europa.eu:443",
        "definition": "9f2c01ab",
        "accepted_ms": now,
        "deadline_ms": now + 120_000,
        "expires_ms": now + 3_600_000,
    }
    return contract.Task(**{**fields, **changes})


class InThread:
    """A bridge in a thread of this process."""

    def __init__(self, config: settings.Settings, region: str) -> None:
        self.bridge = Bridge(config, region)
        self.code: int | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.code = self.bridge.run()

    @property
    def status(self):
        return self.bridge._status()

    def wait_for(self, state: str, reason: str = "") -> None:
        until(lambda: self.status.state == state and reason in self.status.reason, f"{state} {reason}: {self.status}")

    def stop(self) -> None:
        self.bridge.stop()
        self.thread.join(60)
        assert not self.thread.is_alive(), "the bridge did not stop"


@contextlib.contextmanager
def bridging(config: settings.Settings, region: str) -> Iterator[InThread]:
    running = InThread(config, region)
    try:
        yield running
    finally:
        running.stop()


def start_process(config: settings.Settings, region: str, folder: Path) -> subprocess.Popen:
    """A bridge as a process of its own; its log is in ``folder``."""
    regions = folder / "regions"
    regions.mkdir(exist_ok=True)
    one = config.one(region)
    (regions / f"{region}.toml").write_text(
        f'[redis]\nurl = "{one.redis.url}"\n[bridge]\nprefetch = {one.bridge.prefetch}\nready_max = {one.bridge.ready_max}\n'
    )
    environment = {
        **os.environ,
        "NEARFETCH__HUB__REDIS": config.hub.redis,
        "NEARFETCH__HUB__AMQP": config.hub.amqp,
        "NEARFETCH__REGIONS__PATH": str(regions),
    }
    with (folder / "bridge.log").open("ab") as log:
        return Forked(["-c", RUN, region], imported=BRIDGE, cwd=ROOT, env=environment, stdout=log, stderr=log)


def entries(hub_redis, region: str, kind: str) -> list[dict[str, str]]:
    """The entries of a kind in a region's out stream; frames are looked up by the caller."""
    found = []
    for _, fields in hub_redis.client.xrange(names.out_stream(region)):
        entry = {key.decode(): value.decode() for key, value in fields.items()}
        if entry["k"] == kind:
            found.append(entry)
    return found


def last_status(hub_redis, region: str) -> dict:
    found = entries(hub_redis, region, "status")
    return msgspec.json.decode(found[-1]["d"]) if found else {}


class Region:
    """One region of a test, with a name of its own, since the broker is shared."""

    def __init__(self, name: str, hub_redis, region_redis, rabbitmq) -> None:
        self.name, self.hub, self.redis, self.rabbitmq = name, hub_redis, region_redis, rabbitmq
        self.broker = Broker(rabbitmq, name)

    def settings(self, **bridge):
        return settings_of(self.hub, self.redis, self.rabbitmq, self.name, **bridge)

    def bridging(self, **bridge):
        return bridging(self.settings(**bridge), self.name)

    def tasks(self, count: int, **changes) -> list[contract.Task]:
        return [task(self.name, number, **changes) for number in range(count)]

    def jobs(self) -> list[str]:
        """The jobs of both queues; those for which clients wait come first."""
        queues = map(names.rq_queue, (names.urgent(self.name), self.name))
        return [job.decode() for queue in queues for job in self.redis.client.lrange(queue, 0, -1)]

    def in_queues(self) -> int:
        """Messages ready in both queues; without consumers, these are all that were not acked."""
        return sum(self.broker.ready(queue(self.name)) for queue in (names.work_queue, names.fast_queue))

    def consumers(self) -> int:
        """Consumers of both queues."""
        with self.broker.channel() as channel:
            queues = (queue(self.name) for queue in (names.work_queue, names.fast_queue))
            return sum(channel.queue_declare(queue, passive=True).method.consumer_count for queue in queues)

    def each_once(self, tasks: list[contract.Task]) -> None:
        """Waits until every task is a job. Fails when one is there twice."""
        wanted = sorted(one.task for one in tasks)
        until(lambda: len(self.jobs()) >= len(wanted), "every task to be a job")
        assert sorted(self.jobs()) == wanted

    def all_acked(self, *bridges: InThread) -> None:
        """Waits until no message is unacked, then ends the bridges and asks the broker, which would have unacked ones back."""
        until(lambda: self.in_queues() + sum(one.status.unacked for one in bridges) == 0, "every message to be acked")
        for one in bridges:
            one.stop()
        assert self.in_queues() == 0
