"""What a task costs by hop and in each server: the inputs of docs/scale.md.

CPU time is read from /proc before a load and after the history has all of it, and divided by the tasks. Memory and bytes are
the servers' own counters: before and after requests that ended, and with tasks that wait, in RQ and then in RabbitMQ. CPU
time a task depends little on what else the machine does; its load is printed all the same.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import bson
import pika
import pymongo
import redis

from regions import connect, names, topology
from scripts.bench import load, usage
from scripts.bench.extra import Extra
from scripts.bench.load import Busy, Call, Finished, connected
from scripts.bench.ours import REGION, Ours, alone, body
from scripts.bench.rows import ROWS, Row
from scripts.bench.run import done
from scripts.terminal import Progress, size
from web.hub import scripts

SOURCES: Final = 6  # in a request
CPU_REQUESTS: Final = {"tiny": 1_200, "page": 400}  # by kind of page
CLIENTS: Final = 32
REQUESTS: Final = 600  # of which bytes are counted
BUSY_SECONDS: Final = 0.5  # after a 503, before the next try: nothing was accepted
WAITING: Final = 3_000  # tasks
TOGETHER: Final = 100  # of them in a request
DEADLINE_SECONDS: Final = 250
LATEST_SECONDS: Final = 60.0
IDLE_SECONDS: Final = 10.0
QUEUES_OF: Final = 100  # made-up regions, whose queues are declared
READ: Final = (10, 100, 1_000)  # regions whose streams are read at once
READS: Final = 50  # of which the quickest counts
LEVEL_SECONDS: Final = 1.0  # until counters of memory are read that servers change late

Counters = dict[str, float]


def run(progress: Progress, rounds: int) -> Extra:
    """Measures once, whatever ``rounds`` is. Raises ``Wrong``."""
    del rounds
    numbers = itertools.count(1)
    began = os.getloadavg()[0]
    cpu: dict[str, dict[str, float]] = {}
    with alone(progress) as (ours, _):
        for kind, requests in CPU_REQUESTS.items():
            progress.waiting(f"CPU of a task: {ROWS[kind].title}")
            cpu[kind] = _cpu(ours, ROWS[kind], numbers, requests)
        progress.waiting("bytes of requests that ended")
        for server in ("hub", f"redis-{REGION}"):  # a rewrite would make the file smaller
            ours.stack.redis(server).config_set("auto-aof-rewrite-percentage", 0)
        single = _ended(ours, numbers, 1)
        many = _ended(ours, numbers, SOURCES)
        progress.waiting("what a region costs without requests")
        region = _region(ours)
        progress.waiting("bytes of tasks that wait in RQ")
        ours.stack.stop_part(f"workers-{REGION}")
        in_rq = _waiting(ours, numbers, lambda: int(ours.stack.redis(f"redis-{REGION}").llen(names.rq_queue(REGION))))
        progress.waiting("bytes of tasks that wait in RabbitMQ")
        ours.stack.stop_part(f"bridge-{REGION}")
        in_rabbitmq = _waiting(ours, numbers, lambda: _ready(ours))
        message = _message_bytes(ours)
    loads = (round(began, 1), round(os.getloadavg()[0], 1))
    figures = {
        "load_average": loads,
        "processors": len(os.sched_getaffinity(0)),
        "cpu_ms_per_task": cpu,
        "ended_request_of_1": single,
        f"ended_request_of_{SOURCES}": many,
        "waiting_in_rq_per_task": in_rq,
        "waiting_in_rabbitmq_per_task": in_rabbitmq,
        "message_bytes": message,
        "idle_region": region,
    }
    return Extra("what a task costs by hop and in each server", list(_lines(figures)), figures)


def _lines(figures: dict[str, Any]) -> Iterator[str]:
    yield f"load average {figures['load_average'][0]} before and {figures['load_average'][1]} after, {figures['processors']} processors"
    for kind, hops in figures["cpu_ms_per_task"].items():
        shown = "   ".join(f"{hop} {ms:.3f}" for hop, ms in hops.items())
        yield f"{ROWS[kind].title}: {sum(hops.values()):.2f} ms of CPU a task"
        yield f"  {shown}"
    for count in (1, SOURCES):
        one = figures[f"ended_request_of_{count}"]
        yield (
            f"a request of {count} that ended: central Redis {size(one['hub_memory'])}, its file {size(one['hub_file'])}, "
            f"{one['hub_commands']:.1f} commands, {size(one['hub_in'])} in, {size(one['hub_out'])} out; "
            f"region's Redis file {size(one['region_file'])}, {one['region_commands']:.1f} commands; history {size(one['history'])}"
        )
    for place, key in (("RQ", "waiting_in_rq_per_task"), ("RabbitMQ", "waiting_in_rabbitmq_per_task")):
        one = figures[key]
        yield (
            f"a task that waits in {place}: central Redis {size(one['hub_memory'])}, region's Redis {size(one['region_memory'])}, "
            f"RabbitMQ {size(one['rabbitmq_memory'])} of memory, {size(one['rabbitmq_disk'])} on its disk"
        )
    one = figures["idle_region"]
    yield (
        f"a region without requests: {one['connections']} connections to the central Redis, {one['entries_per_second']:.1f} entries a "
        f"second there, {size(one['rabbitmq_memory'])} of RabbitMQ's memory for its two queues"
    )
    reads = ", ".join(f"{count:,} streams {ms:.2f} ms" for count, ms in one["read_ms"].items())
    yield f"one read of the regions' streams by a gateway: {reads}"
    yield f"the message of a task: {size(figures['message_bytes'])} of body and properties"


def _cpu(ours: Ours, row: Row, numbers: Iterator[int], requests: int) -> dict[str, float]:
    """Ms of CPU by hop for each task of a full load."""
    hops = ours.hops()
    before = usage.cpu_ms(hops)
    finished = done(_answered(ours, row, numbers, SOURCES, requests, CLIENTS))
    ours.settle()
    after = usage.cpu_ms(hops)
    tasks = load.check(ours, row, finished)
    return {hop: round((after[hop] - before[hop]) / tasks, 4) for hop in hops}


def _ended(ours: Ours, numbers: Iterator[int], sources: int) -> Counters:
    """What a request with that many sources leaves behind, in bytes, and how much it takes to get there."""
    before = _counters(ours)
    finished = done(_answered(ours, ROWS["tiny"], numbers, sources, REQUESTS, SOURCES))
    ours.settle()
    after = _counters(ours)
    found = {key: round((after[key] - before[key]) / REQUESTS, 1) for key in before}
    return {**found, "history": _document_bytes(ours, [ours.request(one.accepted) for one in finished])}


async def _answered(
    ours: Ours, row: Row, numbers: Iterator[int], sources: int, requests: int, clients: int
) -> list[Finished]:
    """Posts that many requests by some clients. Each client follows one to its end before it posts the next."""
    left, finished = iter(range(requests)), []

    async def follow() -> None:
        async with connected(ours.port) as connection:
            for _ in left:
                wanted = list(itertools.islice(numbers, sources))
                accepted = await _accepted(connection, ours.post(row, wanted))
                finished.append(await load.polled(ours, connection, wanted, accepted))

    await asyncio.gather(*(follow() for _ in range(clients)))
    return finished


async def _accepted(connection: load.Connection, call: Call) -> bytes:
    """The answer to a post that was accepted."""
    while True:
        try:
            return await connection.ask(call, 202)
        except Busy:
            await asyncio.sleep(BUSY_SECONDS)


def _waiting(ours: Ours, numbers: Iterator[int], waiting: Callable[[], int]) -> Counters:
    """What each task takes in each server while it waits. ``waiting`` counts those that wait at the wanted place."""
    before = _levels(ours)
    done(_posted(ours, numbers))
    deadline = time.monotonic() + LATEST_SECONDS
    while waiting() < WAITING:
        if time.monotonic() > deadline:
            raise load.Wrong(f"expected {WAITING} tasks to wait, found {waiting()}")
        time.sleep(0.1)
    after = _levels(ours)
    return {key: round((after[key] - before[key]) / WAITING, 1) for key in before}


async def _posted(ours: Ours, numbers: Iterator[int]) -> None:
    async with connected(ours.port) as connection:
        for _ in range(WAITING // TOGETHER):
            wanted = list(itertools.islice(numbers, TOGETHER))
            await _accepted(connection, Call("POST", "/v1/requests", body(ROWS["tiny"], wanted, DEADLINE_SECONDS)))


def _region(ours: Ours) -> dict[str, Any]:
    """What a region costs the hub while no request comes."""
    hub, stream, user = ours.stack.redis("hub"), names.out_stream(REGION), names.hub_user(REGION)
    connections = sum(one["user"] == user for one in hub.client_list())
    began, before = time.monotonic(), hub.xinfo_stream(stream)["entries-added"]
    time.sleep(IDLE_SECONDS)
    entries = (hub.xinfo_stream(stream)["entries-added"] - before) / (time.monotonic() - began)
    made = [f"made-{number}" for number in range(max(READ))]
    level = _levels(ours)["rabbitmq_memory"]
    with _channel(ours) as channel:
        for queue, exchange, key in topology.queues(made[:QUEUES_OF]):
            channel.queue_declare(queue, durable=True, arguments=topology.QUORUM)
            channel.queue_bind(queue, exchange, key)
    memory = (_levels(ours)["rabbitmq_memory"] - level) / QUEUES_OF
    scripts.GROUPS.call(hub, group=names.GATEWAYS, streams=map(names.out_stream, made))
    read_ms = {count: round(min(_read_ms(hub, made[:count]) for _ in range(READS)), 3) for count in READ}
    return {
        "connections": connections,
        "entries_per_second": round(entries, 2),
        "rabbitmq_memory": round(memory, 1),
        "read_ms": read_ms,
    }


def _read_ms(hub: redis.Redis, regions: list[str]) -> float:
    """How long a read of their streams takes, none of which has an entry."""
    streams: dict[Any, Any] = {names.out_stream(region): ">" for region in regions}
    began = time.perf_counter()
    hub.xreadgroup(names.GATEWAYS, "capacity", streams, count=50)
    return 1000 * (time.perf_counter() - began)


def _counters(ours: Ours) -> Counters:
    """Sums since the servers' start, and the memory of the central Redis."""
    hub, region = ours.stack.redis("hub"), ours.stack.redis(f"redis-{REGION}")
    of_hub, of_region = hub.info("everything"), region.info("everything")
    return {
        "hub_memory": of_hub["used_memory"] - of_hub["mem_clients_normal"] - of_hub["mem_aof_buffer"],
        "hub_file": of_hub["aof_current_size"],
        "hub_commands": of_hub["total_commands_processed"],
        "hub_in": of_hub["total_net_input_bytes"],
        "hub_out": of_hub["total_net_output_bytes"],
        "region_file": of_region["aof_current_size"],
        "region_commands": of_region["total_commands_processed"],
    }


def _levels(ours: Ours) -> Counters:
    """What the servers hold now, in bytes."""
    time.sleep(LEVEL_SECONDS)
    hub, region = ours.stack.redis("hub").info("memory"), ours.stack.redis(f"redis-{REGION}").info("memory")
    return {
        "hub_memory": hub["used_memory"] - hub["mem_clients_normal"] - hub["mem_aof_buffer"],
        "region_memory": region["used_memory"] - region["mem_clients_normal"] - region["mem_aof_buffer"],
        "rabbitmq_memory": float(usage.memory_bytes(usage.members(ours.leaders("rabbitmq")))),
        "rabbitmq_disk": float(_disk_bytes(ours.stack.data.path / "rabbitmq" / "data")),
    }


@contextmanager
def _channel(ours: Ours) -> Iterator[Any]:
    parameters = connect.amqp_parameters(ours.stack.server_url("rabbitmq"), name="bench")[0]
    with pika.BlockingConnection(parameters) as connection:
        yield connection.channel()


def _ready(ours: Ours) -> int:
    """How many messages wait in the region's work queue."""
    with _channel(ours) as channel:
        return int(channel.queue_declare(names.work_queue(REGION), passive=True).method.message_count)


def _message_bytes(ours: Ours) -> int:
    """The bytes of one of them as it crosses the WAN: its body and its properties."""
    with _channel(ours) as channel:
        method, properties, content = channel.basic_get(names.work_queue(REGION))
        channel.basic_nack(method.delivery_tag, requeue=True)
        return len(content) + len(b"".join(properties.encode()))


def _disk_bytes(folder: Path) -> int:
    """Bytes of all files that take room: files of the log are larger than what is written of them."""
    return sum(512 * path.stat().st_blocks for path in folder.rglob("*") if path.is_file())


def _document_bytes(ours: Ours, ids: list[str]) -> float:
    """The bytes of a request's documents in the history, without its indexes."""
    with pymongo.MongoClient[dict[str, Any]](ours.stack.server_url("store")) as client:
        database = client[names.DATABASE]
        found = [
            *database[names.REQUESTS_COLLECTION].find({"_id": {"$in": ids}}),
            *database[names.RESULTS_COLLECTION].find({"_id": {"$in": [f"{one}/0" for one in ids]}}),
        ]
    return round(sum(len(bson.encode(document)) for document in found) / len(ids), 1)
