"""``python -m tests.stack.alerts [ALERT…]``: does faults to a stack of its own, and says when Prometheus fires and clears their alerts.

Prometheus is Debian's, with the shipped rules, and scrapes each second. Ends with 1 when an alert did not fire, or was not over, in time.
"""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pika
import redis

from regions import names
from scripts.chaos import letters
from scripts.stack.own_stack import OwnStack
from tests import site
from tests.stack.prometheus import MISSING, WHY, Prometheus
from tests.waiting import until
from tests.wire import ask
from web.flow.dead import DeadLetters

FIRES_SECONDS = 240.0
CLEARS_SECONDS = 120.0
REGION = "fra"


class Case(NamedTuple):
    """A fault, and what takes it back. ``alert`` must fire by it. ``meanwhile``: what clients do until it is over."""

    alert: str
    what: str
    do: Callable[[OwnStack], object]
    undo: Callable[[OwnStack], object]
    meanwhile: Callable[[OwnStack], object] = lambda _: None


def frozen(alert: str, part: str) -> Case:
    """A part that hangs."""
    return Case(
        alert,
        f"{part} hangs",
        lambda stack: stack.signal(part, signal.SIGSTOP),
        lambda stack: stack.signal(part, signal.SIGCONT),
    )


def stopped(alert: str, part: str) -> Case:
    """A part that an operator stopped."""
    return Case(alert, f"{part} is stopped", lambda stack: stack.stop_part(part), lambda stack: stack.start_part(part))


def full(alert: str, server: str, share: float) -> Case:
    """A Redis without room."""

    def do(stack: OwnStack) -> None:
        stack.redis(server).config_set("maxmemory", int(_used(stack.redis(server)) / share))

    def undo(stack: OwnStack) -> None:
        stack.redis(server).config_set("maxmemory", 256_000_000)

    return Case(alert, f"{server} has only {1 / share - 1:.0%} of room", do, undo)


def _used(client: redis.Redis) -> int:
    """The memory that a Redis uses, once that is steady: after a fault before, buffers of its clients still shrink."""
    seen = [0]

    def steady() -> bool:
        time.sleep(1)
        seen.append(client.info("memory")["used_memory"])
        return abs(seen[-1] - seen[-2]) < seen[-1] / 200

    until(steady, "the memory to be steady", CLEARS_SECONDS)
    return seen[-1]


def _alarm(stack: OwnStack) -> None:
    """The broker says that it takes nothing when somebody publishes."""
    _disk("1000000GB")(stack)
    _post(stack)


def _post(stack: OwnStack, source: str = "ecb.rates", **options: object) -> None:
    ask(stack.port, "POST", "/v1/requests", body={"sources": [source], **options})
    time.sleep(0.2)  # a client that asks now and then


def _config(server: str, name: str, value: str) -> Callable[[OwnStack], object]:
    return lambda stack: stack.redis(server).config_set(name, value)


def _not_durable(alert: str, server: str) -> Case:
    return Case(
        alert, f"{server} keeps no file", _config(server, "appendonly", "no"), _config(server, "appendonly", "yes")
    )


def _stop_region(stack: OwnStack) -> None:
    stack.stop_part(f"bridge-{REGION}")
    stack.stop_part(f"workers-{REGION}")


def _start_region(stack: OwnStack) -> None:
    stack.start_part(f"workers-{REGION}")
    stack.start_part(f"bridge-{REGION}")


def _killed(part: str) -> Callable[[OwnStack], object]:
    """Kills a part each time that its supervisor has started it again."""

    def do(stack: OwnStack) -> None:
        before = 0
        for _ in range(4):
            before = until(
                lambda last=before: (pid := stack.pid(part)) != last and pid, f"{part} to run", CLEARS_SECONDS
            )
            time.sleep(3)  # for its first report
            stack.signal(part, signal.SIGKILL)

    return do


def _kill_workers(stack: OwnStack) -> None:
    """Kills the processes of a pool, and those that replace them."""
    pool = stack.pid(f"workers-{REGION}")
    for _ in range(6):
        for pid in Path(f"/proc/{pool}/task/{pool}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        time.sleep(4)


def _nothing(_: OwnStack) -> None:
    """Its supervisor has started it again."""


def _file(name: str, text: str) -> tuple[Callable[[OwnStack], object], Callable[[OwnStack], object]]:
    """Writes a file below the stack's folder, and takes it away."""
    return (
        lambda stack: (stack.folder / name).write_text(text, encoding="utf-8"),
        lambda stack: (stack.folder / name).unlink(),
    )


def _letter(stack: OwnStack) -> None:
    """A message that no bridge can read."""
    kind, body = letters.body("garbage")
    with pika.BlockingConnection(pika.URLParameters(stack.broker.url)) as connection:
        properties = pika.BasicProperties(type=kind, delivery_mode=2)
        connection.channel().basic_publish(
            names.TASKS_EXCHANGE, names.routing_key(REGION, fast=False), body, properties
        )


def _drop_letters(stack: OwnStack) -> None:
    kept = DeadLetters(stack.redis("hub"))
    kept.drop([one.id for one in kept.all()])


def _few_files(stack: OwnStack) -> None:
    """The gateway may have few open files more than it has."""
    pid, counts = stack.pid("gateway"), []
    for _ in range(5):
        counts.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
        time.sleep(0.5)
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (int(min(counts) / 0.85), hard))


def _many_files(stack: OwnStack) -> None:
    pid = stack.pid("gateway")
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


def _disk(limit: str) -> Callable[[OwnStack], None]:
    return lambda stack: stack.broker.evaluate(f'rabbit_disk_monitor:set_disk_free_limit("{limit}").')


CASES = (
    frozen("region-bridge-away", f"bridge-{REGION}"),
    stopped("region-bridge-away", f"bridge-{REGION}"),
    stopped("region-workers-away", f"workers-{REGION}"),
    frozen("region-redis-away", f"redis-{REGION}"),
    full("region-redis-full", f"redis-{REGION}", 0.95),
    full("region-redis-fills", f"redis-{REGION}", 0.65),
    frozen("rabbitmq-away", "rabbitmq"),
    Case("rabbitmq-blocked", "RabbitMQ's disk has no room", _alarm, _disk("50MB")),
    frozen("hub-redis-away", "hub"),
    full("hub-redis-full", "hub", 0.95),
    full("hub-redis-fills", "hub", 0.75),
    stopped("history-away", "store"),
    frozen("gateway-away", "gateway"),
    stopped("metrics-away", f"bridge-{REGION}"),
    Case("region-down", f"bridge and workers of {REGION} are stopped", _stop_region, _start_region),
    _not_durable("hub-redis-not-durable", "hub"),
    _not_durable("region-redis-not-durable", f"redis-{REGION}"),
    Case("source-broken", "a definition is wrong", *_file("sources/alerts.wrong.toml", "title = 5\n")),
    Case("region-files-wrong", "a region's file is wrong", *_file("data/regions/wrong.toml", "title = 5\n")),
    Case(
        "source-failing", "a site answers 503",
        lambda stack: site.behave(stack.ports.site, prefix="/www.ecb.europa.eu/", status=503),
        lambda stack: site.behave(stack.ports.site),
        lambda stack: _post(stack, deadline=5),
    ),
    Case("region-bridge-restarts", f"bridge-{REGION} is killed again and again", _killed(f"bridge-{REGION}"), _nothing),
    Case("region-workers-restarts", f"worker processes of {REGION} are killed again and again", _kill_workers, _nothing),
    Case("dead-letters", "nobody can read a message", _letter, _drop_letters),
    Case(
        "requests-refused", "RabbitMQ hangs while clients ask",
        lambda stack: stack.signal("rabbitmq", signal.SIGSTOP), lambda stack: stack.signal("rabbitmq", signal.SIGCONT), _post,
    ),
    Case("open-files-short", "the gateway may open few files more", _few_files, _many_files),
)  # fmt: skip


def run(names: list[str]) -> int:
    """Does each fault whose alert is named, or all. Returns the exit code."""
    cases = [case for case in CASES if not names or case.alert in names]
    stack = OwnStack("alerts")
    failures = 0
    try:
        stack.start()
        with Prometheus(stack.data.path, stack.folder / "prometheus") as prometheus:
            prometheus.wait_for_targets()
            for case in cases:
                failures += not tried(stack, prometheus, case)
    finally:
        stack.stop()
    return 1 if failures else 0


def tried(stack: OwnStack, prometheus: Prometheus, case: Case) -> bool:
    """Does one fault and takes it back; whether its alert fired and was over in time."""
    began, before = time.monotonic(), prometheus.all_firing()  # a source that failed is degraded for some time

    def fires() -> bool:
        case.meanwhile(stack)
        return prometheus.firing(case.alert)

    try:
        case.do(stack)
        try:
            until(fires, f"{case.alert} to fire", FIRES_SECONDS)
            fired = time.monotonic() - began
            beside = sorted(prometheus.all_firing() - {case.alert})
        finally:
            case.undo(stack)
        began = time.monotonic()
        until(lambda: not fires(), f"{case.alert} to be over", CLEARS_SECONDS)
        cleared = time.monotonic() - began
        until(lambda: ask(stack.port, "GET", "/readyz").status == 200, "the gateway to be ready", CLEARS_SECONDS)
        until(lambda: prometheus.all_firing() <= before, "what came with it to be over", 2 * CLEARS_SECONDS)
    except AssertionError as error:
        print(f"  FAILED  {case.alert:<22} {case.what}: {error}; firing: {sorted(prometheus.all_firing())}", flush=True)
        return False
    others = f"   also {', '.join(beside)}" if beside else ""
    print(
        f"  ok      {case.alert:<22} {case.what}: fired after {fired:.1f} s, over after {cleared:.1f} s{others}",
        flush=True,
    )
    return True


if __name__ == "__main__":
    if MISSING:
        print(WHY)
        sys.exit(2)
    sys.exit(run(sys.argv[1:]))
