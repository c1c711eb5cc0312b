"""How each kind of fault is done and undone, for real, to processes and links.

    inject(stack, fault) → Window   blocks from the fault's beginning until its part works again

The kill of a worker or a bridge waits for a moment in which it can hit something.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import redis

from regions import connect, names
from scripts.chaos import clocks, hostile
from scripts.chaos.history import Window
from scripts.chaos.plan import Fault, regions_of
from scripts.chaos.points import POINTS
from scripts.chaos.stack import ChaosStack
from scripts.stack import configuration
from scripts.stack.probes import listens
from scripts.stack.services import Failed
from scripts.stack.wan_links import Rule, Way

HELD: Final = 10  # executions that run at least when a worker is killed
MOMENT_SECONDS: Final = 12.0  # how long a kill waits for something to hit
BACK_SECONDS: Final = 30.0
FULL_BYTES: Final = 1_000_000  # less than an empty Redis needs
LITTLE_BYTES: Final = 1_000_000  # less than an idle RabbitMQ has
ROOM_BYTES: Final = 256_000_000  # the limit that scripts.stack.services sets
LOOK_SECONDS: Final = 0.02
STEP_SECONDS: Final = 3600
HOLD: Final = Way(then="hold")
AWAY: Final = (*connect.AWAY, redis.exceptions.ResponseError)


@dataclass
class Doing:
    """A fault in progress: when it began and ended by its own clock, and what it hit."""

    stack: ChaosStack
    fault: Fault
    began: float = 0.0
    ended: float = 0.0
    hits: int | None = None
    note: str = ""

    @property
    def region(self) -> str:
        """The region in the target's name."""
        return self.fault.target.partition("-")[2]

    def begin(self) -> None:
        """Notes that the fault begins now."""
        self.began = time.time()

    def end(self) -> None:
        """Notes that the fault ends now."""
        self.ended = time.time()

    def last(self) -> None:
        """Sleeps for as long as the plan says."""
        time.sleep(self.fault.seconds)


def inject(stack: ChaosStack, fault: Fault) -> Window:
    """Does a fault and undoes it. Returns what happened."""
    doing = Doing(stack, fault)
    doing.begin()
    try:
        _HOW[fault.kind](doing)
    except Exception as error:  # noqa: BLE001 - the report shows a fault that can't be done with the others
        doing.note = f"{type(error).__name__}: {error}"
    doing.ended = doing.ended or time.time()
    back = time.time()
    return Window(
        fault.kind, fault.target, doing.began, doing.ended, frozenset(regions_of(fault, stack.regions)),
        doing.hits, back, doing.note,
    )  # fmt: skip


def _kill(doing: Doing) -> None:
    part = doing.fault.target
    pid = doing.stack.pid(part)
    doing.begin()
    doing.stack.signal(part, signal.SIGKILL)
    doing.end()
    _wait_for_another(doing, pid)


def _kill_slow_hub(doing: Doing) -> None:
    """Kills the hub's Redis when it has answered commands that it has not written: each fsync is slow, and one is pending."""
    stack, pid = doing.stack, 0
    doing.begin()
    with stack.slow_disk():
        deadline = time.monotonic() + MOMENT_SECONDS
        while not doing.hits and time.monotonic() < deadline:
            with contextlib.suppress(*AWAY):
                found: Any = stack.redis("hub").info("persistence")
                if found["aof_pending_bio_fsync"] and found["aof_buffer_length"]:
                    pid = stack.pid("hub")
                    stack.signal("hub", signal.SIGKILL)
                    doing.hits = 1
            time.sleep(LOOK_SECONDS)
    doing.hits = doing.hits or 0
    doing.end()
    if pid:
        _wait_for_another(doing, pid)


def _restart(doing: Doing) -> None:
    part = doing.fault.target
    pid = doing.stack.pid(part)
    doing.begin()
    doing.stack.signal(part, signal.SIGTERM)
    _wait_for_another(doing, pid)
    doing.end()


def _pause(doing: Doing) -> None:
    part = doing.fault.target
    doing.begin()
    doing.stack.signal(part, signal.SIGSTOP)
    doing.last()
    doing.stack.signal(part, signal.SIGCONT)
    doing.end()


def _lose_region(doing: Doing) -> None:
    """All processes of a region stand still, its Redis too."""
    parts = [f"{part}-{doing.region}" for part in ("bridge", "workers", "redis")]
    doing.begin()
    for part in parts:
        doing.stack.signal(part, signal.SIGSTOP)
    doing.last()
    for part in reversed(parts):
        doing.stack.signal(part, signal.SIGCONT)
    doing.end()


def _kill_worker(doing: Doing) -> None:
    pid, doing.hits = _busiest(doing)
    doing.begin()
    if pid:
        _signal(pid, signal.SIGKILL)
    doing.end()


def _pause_worker(doing: Doing) -> None:
    pid, held = _busiest(doing, least=1)
    doing.note = f"{held} executions"
    if pid:
        doing.begin()
        _signal(pid, signal.SIGSTOP)
        doing.last()
        _signal(pid, signal.SIGCONT)
    doing.end()


def _busiest(doing: Doing, least: int = HELD) -> tuple[int, int]:
    """(pid, executions) of the region's worker process that runs most tasks; (0, 0) when none runs enough in time."""
    deadline = time.monotonic() + MOMENT_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(*AWAY):
            found = doing.stack.executions(doing.region)
            pid = max(found, key=lambda one: found[one], default=0)
            if pid and found[pid] >= least:
                return pid, found[pid]
        time.sleep(LOOK_SECONDS)
    return 0, 0


def _kill_bridge(doing: Doing) -> None:
    """Kills a bridge that holds messages whose jobs are on the region's Redis already; their acks wait for the file.

    It is stopped for each look. So it acks nothing between the look that sees it wait and its end.
    """
    stack, part, region = doing.stack, doing.fault.target, doing.region
    deadline = time.monotonic() + MOMENT_SECONDS
    while not doing.hits and time.monotonic() < deadline:
        pid = stack.pid(part)
        stack.signal(part, signal.SIGSTOP)
        is_hit = False
        try:
            is_hit = bool(pid) and _is_enqueueing(stack, region)
        finally:
            if not is_hit:
                stack.signal(part, signal.SIGCONT)
        if not is_hit:
            time.sleep(LOOK_SECONDS)
            continue
        doing.begin()
        stack.signal(part, signal.SIGKILL)
        doing.end()
        doing.hits = 1  # or more, unless another bridge takes them before the look
        with contextlib.suppress(*connect.BROKER_AWAY):
            doing.hits = max(1, stack.redelivered(region))
        _wait_for_another(doing, pid)
    doing.hits = doing.hits or 0


def _is_enqueueing(stack: ChaosStack, region: str) -> bool:
    with contextlib.suppress(*AWAY):
        return stack.waits_for_the_file(region)
    return False


def _cut(doing: Doing) -> None:
    doing.begin()
    doing.stack.control.cut(doing.fault.target)
    doing.end()


def _silence(doing: Doing) -> None:
    """Every connection of the link loses its other end silently. New connections pass."""
    doing.begin()
    doing.stack.control.cut(doing.fault.target, "silence")
    doing.end()


def _hostile_clients(doing: Doing) -> None:
    doing.begin()
    clients = hostile.Clients(doing.stack.port)
    clients.run(doing.fault.seconds)
    doing.note = f"{len(clients)} sockets"
    clients.close()
    doing.end()


def _hostile_region(doing: Doing) -> None:
    """Acts as the region's own user, which may write to no other region."""
    stack, region = doing.stack, doing.region
    url = configuration.hub_url(stack.data, stack.ports, region)
    before = _refused(doing)
    others = hostile.open_tasks(stack.redis("hub"), [one for one in stack.regions if one != region])
    doing.begin()
    with connect.open_redis(url, name="chaos") as client:
        for command in hostile.commands(region):
            with contextlib.suppress(redis.exceptions.ResponseError):  # as it must be
                client.execute_command(*command)
        stored = 0
        for entry in hostile.entries(others):
            with contextlib.suppress(redis.exceptions.ResponseError):  # a full hub stores none of it
                stored += client.xadd(names.out_stream(region), entry) is not None
    doing.note = f"{stored} entries stored, {len(others)} tasks of others"
    doing.end()
    deadline = time.monotonic() + BACK_SECONDS
    while stored and not doing.hits and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        doing.hits = max(0, _refused(doing) - before)


def _refused(doing: Doing) -> int:
    """How many of the region's entries were refused so far, by the hub's count; 0 while the hub is away."""
    with contextlib.suppress(*AWAY):
        found: Any = doing.stack.redis("hub").hgetall(names.refused(doing.region))
        return sum(int(count) for what, count in found.items() if what != b"at")
    return 0


def _stuck(doing: Doing) -> None:
    """The load posts the task (scripts.chaos.plan). Its process ends after the tasks beside it."""
    doing.begin()
    doing.last()
    doing.end()


def _step_clock(doing: Doing) -> None:
    """Sets the wall clock of a region's Redis off by an hour, ahead or behind depending on the fault, for some time."""
    part = doing.fault.target
    seconds = STEP_SECONDS if sum(f"{part}{doing.fault.at}".encode()) % 2 else -STEP_SECONDS
    pid = doing.stack.pid(part)
    doing.begin()
    clocks.step(pid, seconds)
    doing.note = f"{seconds:+d} s"
    doing.last()
    # Killed meanwhile, and the next process has a true clock.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        clocks.step(pid, 0)
    doing.end()


def _pause_fork_server(doing: Doing) -> None:
    """Kills a worker while the fork server is stopped, from which the processes for suspects are forked."""
    pid = doing.stack.fork_server(doing.region)
    doing.begin()
    if pid:
        _signal(pid, signal.SIGSTOP)
    busiest, held = _busiest(doing, least=1)
    if busiest:
        _signal(busiest, signal.SIGKILL)
    doing.note = f"{held} executions" if pid else "no fork server"
    doing.last()
    if pid:
        _signal(pid, signal.SIGCONT)
    doing.end()


def _rule(rule: Rule) -> Callable[[Doing], None]:
    def do(doing: Doing) -> None:
        control, link = doing.stack.control, doing.fault.target
        doing.begin()
        control.rule(link, rule)
        doing.last()
        control.rule(link, Rule())
        doing.end()

    return do


def _half_open(doing: Doing) -> None:
    """Loses one direction of the link, either requests or answers, depending on the target's name."""
    is_there = sum(doing.fault.target.encode()) % 2
    _rule(Rule(there=Way(then="drop")) if is_there else Rule(back=Way(then="drop")))(doing)


def _swallow(doing: Doing) -> None:
    name, _, link = doing.fault.target.rpartition(" ")
    point = next(point for point in POINTS if point.name == name)
    control = doing.stack.control
    before = control.counts(link).swallowed
    doing.begin()
    control.swallow(link, point.request)
    deadline = time.monotonic() + doing.fault.seconds
    while time.monotonic() < deadline and control.counts(link).swallowed == before:
        time.sleep(LOOK_SECONDS)
    doing.note = f"{control.counts(link).swallowed - before} swallowed"
    time.sleep(1.0)  # until the connection was reset
    control.heal(link)
    doing.end()


def _alarm(doing: Doing) -> None:
    _limit_memory(doing, LITTLE_BYTES)
    doing.begin()
    doing.last()
    _limit_memory(doing)
    doing.end()


def _limit_memory(doing: Doing, *bytes_max: int) -> None:
    """Sets RabbitMQ's limit of memory as soon as it answers, or the one that it had."""
    deadline = time.monotonic() + BACK_SECONDS
    while True:
        try:
            doing.stack.broker.limit_memory(*bytes_max)
            return
        except Failed:
            if time.monotonic() > deadline:
                raise
        time.sleep(LOOK_SECONDS)


def _full(doing: Doing) -> None:
    """Sets the memory limit below what is used. The old limit is restored even if the Redis was killed or stopped meanwhile."""
    _limit(doing, FULL_BYTES)
    doing.begin()
    doing.last()
    _limit(doing, ROOM_BYTES)
    doing.end()


def _limit(doing: Doing, maxmemory: int) -> None:
    """Sets a Redis's maxmemory as soon as it answers."""
    client = doing.stack.redis(doing.fault.target)
    deadline = time.monotonic() + BACK_SECONDS
    while True:
        try:
            client.config_set("maxmemory", maxmemory)
            return
        except AWAY:
            if time.monotonic() > deadline:
                raise
        time.sleep(LOOK_SECONDS)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait_for_another(doing: Doing, pid: int) -> None:
    """Waits until the supervisor has restarted the part. A gateway must listen, too."""
    deadline = time.monotonic() + BACK_SECONDS
    while doing.stack.pid(doing.fault.target) in (0, pid) or not _serves(doing):
        if time.monotonic() > deadline:
            doing.note = f"not back within {BACK_SECONDS:.0f} s"
            return
        time.sleep(0.1)


def _serves(doing: Doing) -> bool:
    """Whether a restarted gateway listens. For other parts, a new process is enough."""
    return doing.fault.target != "gateway" or not listens(doing.stack.port)()


_HOW: Final[dict[str, Callable[[Doing], None]]] = {
    "kill-worker": _kill_worker,
    "kill-bridge": _kill_bridge,
    "kill-slow-hub": _kill_slow_hub,
    **dict.fromkeys(("kill-gateway", "kill-rabbitmq", "kill-redis", "kill-hub", "kill-store"), _kill),
    "pause-worker": _pause_worker,
    **dict.fromkeys(
        ("pause-bridge", "pause-gateway", "pause-rabbitmq", "pause-redis", "pause-hub", "pause-store"), _pause
    ),
    **dict.fromkeys(("restart-bridge", "restart-workers", "restart-gateway"), _restart),
    "lose-region": _lose_region,
    "cut": _cut,
    "silence": _silence,
    "stuck": _stuck,
    "step-clock": _step_clock,
    "hostile-clients": _hostile_clients,
    "hostile-region": _hostile_region,
    "pause-fork-server": _pause_fork_server,
    "delay": _rule(Rule(there=Way(delay_ms=100, jitter_ms=60), back=Way(delay_ms=100, jitter_ms=60))),
    "black-hole": _rule(Rule(there=HOLD, back=HOLD)),
    "half-open": _half_open,
    "swallow": _swallow,
    "alarm": _alarm,
    **dict.fromkeys(("full-redis", "full-hub"), _full),
}
