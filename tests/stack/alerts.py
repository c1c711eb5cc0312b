"""``python -m tests.stack.alerts [ALERT…]``: does faults to a stack of its own, and says when Prometheus fires and clears their alerts.

Prometheus is Debian's, with the shipped rules, and scrapes each second. Ends with 1 when an alert did not fire, or was not over, in time.
"""

import signal
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import redis

from scripts.stack.own_stack import OwnStack
from tests.stack.prometheus import MISSING, WHY, Prometheus
from tests.waiting import until
from tests.wire import ask

FIRES_SECONDS = 120.0
CLEARS_SECONDS = 120.0
REGION = "fra"


class Case(NamedTuple):
    """A fault, and what takes it back. ``alert`` must fire by it."""

    alert: str
    what: str
    do: Callable[[OwnStack], None]
    undo: Callable[[OwnStack], None]


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
    ask(stack.port, "POST", "/v1/requests", body={"sources": ["ecb.rates"]})


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
)


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
    began = time.monotonic()
    try:
        case.do(stack)
        try:
            until(lambda: prometheus.firing(case.alert), f"{case.alert} to fire", FIRES_SECONDS)
            fired = time.monotonic() - began
            beside = sorted(prometheus.all_firing() - {case.alert})
        finally:
            case.undo(stack)
        began = time.monotonic()
        until(lambda: not prometheus.firing(case.alert), f"{case.alert} to be over", CLEARS_SECONDS)
        cleared = time.monotonic() - began
        until(lambda: ask(stack.port, "GET", "/readyz").status == 200, "the gateway to be ready", CLEARS_SECONDS)
        until(lambda: not prometheus.all_firing(), "no alert to fire", 2 * CLEARS_SECONDS)
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
