"""The speed of a bridge alone: its queue is filled, it is started, and the jobs in the region's Redis are counted.

No worker takes a job. The bridge may hold 20,000 messages that are not in the append-only file yet, since WAITAOF answers
once a second. In the end RQ's queue must hold every published id exactly once, and no message may be left in RabbitMQ.
"""

import time
from typing import Any, Final

import pika
from ulid import ULID

from jobs import contract
from regions import connect, names
from regions.settings import PREFIX
from scripts.bench import figures, rows, usage
from scripts.bench.extra import Extra
from scripts.bench.load import Wrong
from scripts.bench.ours import REGION, Ours, alone
from scripts.terminal import Progress

PREFETCH: Final = 20_000
TASKS: Final = 60_000
SECONDS: Final = 120.0
LOOK_SECONDS: Final = 0.005
SETTINGS: Final = {
    f"{PREFIX}REGION__FRA__BRIDGE__PREFETCH": str(PREFETCH),
    f"{PREFIX}REGION__FRA__BRIDGE__READY_MAX": "10000000",
}


def run(progress: Progress, rounds: int) -> Extra:
    """Measures in rounds. Raises ``Wrong``."""
    rates, used = [], []
    with alone(progress, SETTINGS) as (ours, _):
        for part in (f"workers-{REGION}", f"bridge-{REGION}", "gateway"):
            ours.stack.stop_part(part)
        for number in range(rounds):
            progress.waiting(f"bridge alone, round {number + 1} of {rounds}")
            rate, cpu = _round(ours)
            rates.append(rate)
            used.append(cpu)
    spread = figures.Spread.of(rates)
    hops = {hop: figures.Spread.of([one[hop] for one in used]).median for hop in used[0]}
    return Extra(
        "the bridge alone",
        [
            f"{spread.median:,.0f} tasks/s ({spread.low:,.0f} to {spread.high:,.0f}), {TASKS:,} tasks, prefetch {PREFETCH:,}",
            "CPU µs a task: " + "   ".join(f"{hop} {us:.0f}" for hop, us in hops.items()),
        ],
        {"tasks_per_second": [spread.median, spread.low, spread.high], "cpu_us_per_task": hops, "prefetch": PREFETCH},
    )


def _round(ours: Ours) -> tuple[float, dict[str, float]]:
    """Returns tasks per second, and CPU µs for each task by hop."""
    queue = names.rq_queue(REGION)
    url = ours.stack.server_url(f"redis-{REGION}")
    client = connect.open_redis(url, name="bench", block_seconds=SECONDS)  # deleting 60,000 jobs takes a moment
    published = _publish(ours)
    ours.stack.start_part(f"bridge-{REGION}")
    hops = ours.hops()
    deadline = time.monotonic() + SECONDS
    first = 0
    while not first:
        first = client.llen(queue)
        _in_time(deadline, first)
    hops["bridge"] = ours.leaders(f"bridge-{REGION}")
    began, before = time.monotonic(), usage.cpu_ms(hops)
    while (found := client.llen(queue)) < len(published):
        _in_time(deadline, found)
        time.sleep(LOOK_SECONDS)
    ended, after = time.monotonic(), usage.cpu_ms(hops)
    jobs: Any = client.lrange(queue, 0, -1)
    arrived = [job.decode() for job in jobs]
    if sorted(arrived) != sorted(published):
        raise Wrong(
            f"bridge: expected each of {len(published)} ids once, found {len(arrived)}, {len(set(arrived))} different"
        )
    while left := _left(ours):
        _in_time(deadline, left)
    ours.stack.stop_part(f"bridge-{REGION}")  # messages that it had not acked return to the queue
    if left := _left(ours):
        raise Wrong(f"bridge: expected every message to be acked, found {left} left")
    client.flushall()
    client.close()
    count = len(published) - first
    return count / (ended - began), {
        hop: 1000 * (after[hop] - before[hop]) / count for hop in ("bridge", "RabbitMQ", "region Redis")
    }


def _publish(ours: Ours) -> list[str]:
    """Fills the work queue and returns the tasks' ids."""
    connection = _connection(ours)
    channel = connection.channel()
    now = time.time_ns() // 1_000_000
    published = []
    for number in range(TASKS):
        task, request = str(ULID()), str(ULID())
        body = contract.encode(
            contract.Task(
                task=task,
                request=request,
                source=rows.source("tiny"),
                region=REGION,
                params={"n": number, "seconds": 0.0},
                url=f"{rows.ORIGIN}{rows.PATHS['tiny']}?n={number}&seconds=0.0",
                host=f"{rows.ORIGIN}:443",
                definition="9f2c01ab",
                accepted_ms=now,
                deadline_ms=now + 3_600_000,
                expires_ms=now + 7_200_000,
            )
        )
        properties = pika.BasicProperties(
            content_type="application/json", delivery_mode=2, type="task", message_id=task, correlation_id=request
        )
        channel.basic_publish(names.TASKS_EXCHANGE, names.routing_key(REGION, fast=False), body, properties)
        published.append(task)
    connection.close()
    deadline = time.monotonic() + SECONDS
    while (ready := _left(ours)) < TASKS:
        _in_time(deadline, ready)
        time.sleep(0.1)
    return published


def _left(ours: Ours) -> int:
    """The number of ready messages in the work queue."""
    connection = _connection(ours)
    try:
        return int(connection.channel().queue_declare(names.work_queue(REGION), passive=True).method.message_count)
    finally:
        connection.close()


def _connection(ours: Ours) -> pika.BlockingConnection:
    return pika.BlockingConnection(connect.amqp_parameters(ours.stack.server_url("rabbitmq"), name="bench")[0])


def _in_time(deadline: float, found: int) -> None:
    if time.monotonic() > deadline:
        raise Wrong(f"bridge: expected {TASKS} tasks within {SECONDS:g} s, found {found}")
