"""Whether a task costs more when many others wait: the same steady load with a backlog of 1,000, 100,000 and 1,000,000.

The workers are stopped while the backlog grows. Then they run, and as many tasks are posted as end, so the backlog stays
the same. The CPU time that all processes use meanwhile is divided by the number of tasks that ended. Deadlines, the hub's
memory and RabbitMQ's queue lengths are raised, and the pool is kept at two processes, which it would exceed over a
backlog. Everything else is set like ``up`` sets it.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any, Final

import pika

from regions import connect, names, topology
from regions.settings import PREFIX
from scripts.bench import load, usage
from scripts.bench.extra import Extra
from scripts.bench.load import Busy, Call, Finished, connected
from scripts.bench.ours import REGION, Ours, alone, body
from scripts.bench.rows import ROWS
from scripts.bench.run import done
from scripts.stack.services import Failed
from scripts.terminal import Progress, size

SIZES: Final = (1_000, 100_000, 1_000_000)
TASKS: Final = 100  # in each request
FILLERS: Final = 8  # clients that post while the backlog grows
WARM_SECONDS: Final = 8.0
SECONDS: Final = 20.0
LOOK_SECONDS: Final = 0.05
BUSY_SECONDS: Final = 0.5
DEADLINE_SECONDS: Final = 20_000
CHECKED: Final = 100  # requests of which every answer is checked
SETTINGS: Final = {
    f"{PREFIX}LIMITS__DEADLINE_MAX_SECONDS": str(DEADLINE_SECONDS),
    f"{PREFIX}LIMITS__RESULT_TTL_SECONDS": str(2 * DEADLINE_SECONDS),
    f"{PREFIX}REGION__{REGION.upper()}__SCALE__MAX": "2",
}
ROW: Final = ROWS["tiny"]

Posted = tuple[bytes, list[int]]  # the answer to a request, and the numbers of its pages


def run(progress: Progress, rounds: int) -> Extra:
    """Measures once, whatever ``rounds`` is. Raises ``Wrong``."""
    del rounds
    numbers = itertools.count(1)
    found: list[dict[str, Any]] = []
    posted: list[Posted] = []
    with alone(progress, SETTINGS) as (ours, _):
        _raise_limits(ours)
        for count in SIZES:
            ours.stack.stop_part(f"workers-{REGION}")
            done(_fill(ours, count, numbers, posted, progress))
            where = _where(ours)
            ours.stack.start_part(f"workers-{REGION}")
            progress.waiting(f"{count:,} tasks wait; measuring for {SECONDS:.0f} s")
            found.append({"queued": count, **where, **done(_steady(ours, count, numbers))})
        checked = load.check(ours, ROW, done(_first(ours, posted[:CHECKED])))
    base = found[0]["cpu_ms_per_task"]
    lines = [line for one in found for line in _lines(one, base)]
    return Extra(f"a task's cost over a backlog ({checked:,} answers looked at)", lines, {"backlogs": found})


def _lines(one: dict[str, Any], base: float) -> list[str]:
    hops = "   ".join(f"{hop} {ms:.2f}" for hop, ms in one["cpu_ms_per_task_by_hop"].items())
    cost = f"{one['cpu_ms_per_task']:.2f} ms a task ({one['cpu_ms_per_task'] / base:.2f} times)"
    places = f"{one['in_rq']:,} in RQ, {one['in_rabbitmq']:,} in RabbitMQ ({size(one['rabbitmq_bytes'])})"
    return [
        f"{one['queued']:>9,} queued: {cost}, {one['tasks_per_second']:.0f} tasks/s",
        f"{'':11}they wait: {places}; central Redis {size(one['hub_bytes'])}",
        f"{'':11}{hops}",
    ]


def _raise_limits(ours: Ours) -> None:
    ours.stack.redis("hub").config_set("maxmemory", "16gb")
    policy = json.dumps({**topology.POLICY, "max-length": 4 * max(SIZES)})
    command = [*topology.policy_command()[:-3], policy, *topology.policy_command()[-2:]]
    completed = ours.stack.broker.ctl(*command)
    if completed.returncode != 0:
        raise Failed(f"rabbitmqctl {' '.join(command)}: {completed.stderr.strip()}")
    ours.stack.broker.limit_memory(6_000_000_000)


async def _post(connection: load.Connection, numbers: Iterator[int]) -> Posted:
    wanted = list(itertools.islice(numbers, TASKS))
    call = Call("POST", "/v1/requests", body(ROW, wanted, DEADLINE_SECONDS))
    while True:
        try:
            return await connection.ask(call, 202), wanted
        except Busy:  # nothing was accepted, so try again
            await asyncio.sleep(BUSY_SECONDS)


async def _fill(ours: Ours, count: int, numbers: Iterator[int], posted: list[Posted], progress: Progress) -> None:
    """Posts until this many tasks are open."""
    left = iter(range((count - _open(ours)) // TASKS))

    async def post() -> None:
        async with connected(ours.port) as connection:
            for number in left:
                answer = await _post(connection, numbers)
                if len(posted) < CHECKED:
                    posted.append(answer)
                if not number % 50:
                    progress.waiting(f"posting {count:,} tasks; {number * TASKS:,} posted")

    await asyncio.gather(*(post() for _ in range(FILLERS)))


async def _steady(ours: Ours, count: int, numbers: Iterator[int]) -> dict[str, Any]:
    """Keeps the size of the backlog, and measures."""
    hops: dict[str, list[int]] = {}
    marks: list[tuple[float, dict[str, float], int]] = []
    posted = 0
    async with connected(ours.port) as connection:
        began = time.monotonic()
        while (spent := time.monotonic() - began) < WARM_SECONDS + SECONDS:
            if not marks and spent >= WARM_SECONDS:
                hops = ours.hops()
                marks.append((time.monotonic(), usage.cpu_ms(hops), posted - _open(ours)))
            if _open(ours) < count:
                await _post(connection, numbers)
                posted += TASKS
            else:
                await asyncio.sleep(LOOK_SECONDS)
    marks.append((time.monotonic(), usage.cpu_ms(hops), posted - _open(ours)))
    (at, before, gone), (until, after, gone_then) = marks
    tasks = gone_then - gone
    used = {hop: (after[hop] - before[hop]) / tasks for hop in hops}
    return {
        "cpu_ms_per_task": sum(used.values()),
        "cpu_ms_per_task_by_hop": used,
        "tasks_per_second": tasks / (until - at),
    }


async def _first(ours: Ours, posted: list[Posted]) -> list[Finished]:
    """The requests that were posted first, once they are done. They finish first, since RabbitMQ and RQ keep the order."""
    found = []
    async with connected(ours.port) as connection:
        for accepted, wanted in posted:
            found.append(await load.polled(ours, connection, wanted, accepted))
    return found


def _open(ours: Ours) -> int:
    """The number of tasks that were accepted and have not ended."""
    return int(ours.stack.redis("hub").zcard(names.open_tasks(REGION)))


def _where(ours: Ours) -> dict[str, int]:
    """Where the tasks wait, and how much memory that takes."""
    parameters = connect.amqp_parameters(ours.stack.server_url("rabbitmq"), name="bench")[0]
    with pika.BlockingConnection(parameters) as connection:
        ready = connection.channel().queue_declare(names.work_queue(REGION), passive=True).method.message_count
    hub: dict[str, Any] = ours.stack.redis("hub").info("memory")
    return {
        "in_rq": int(ours.stack.redis(f"redis-{REGION}").llen(names.rq_queue(REGION))),
        "in_rabbitmq": int(ready),
        "rabbitmq_bytes": usage.memory_bytes(usage.members(ours.leaders("rabbitmq"))),
        "hub_bytes": int(hub["used_memory"]),
    }
