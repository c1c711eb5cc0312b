"""Faults of a whole stack, done for real and taken back: for ``tests.stack.alerts`` and ``tests.stack.stopwatch``.

CASES    each fault by the alert or the fault that it must become
stack    the stack on which they are done: its region sin is small, so that little makes it late
"""

import base64
import dataclasses
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pika
import redis

from jobs.queue.breaker import FIRST_SECONDS
from regions import names
from scripts.chaos import letters
from scripts.stack.own_stack import OwnStack
from tests import site
from tests.service.jobs.webhook.receiving import SECRET
from tests.waiting import until
from tests.wire import Reply, ask
from web.api.faults import LATE_SECONDS
from web.flow.dead import DeadLetters
from web.hub.faults import RESTARTS, RESTARTS_MS

CLEARS_SECONDS = 120.0
LEFT_ALONE_SECONDS = 4 * FIRST_SECONDS  # a host, whose breaker has opened and let two tries through that failed
REGION, SMALL = "fra", "sin"
FAR = "/bench.example/alerts/"  # a page of the sample site
# Fetched from nobody's host; a fetch takes as long as the site is told.
SLOW = f"""title = "Slow, for the test of faults"
url = "https://bench.example/alerts/slow?n={{n}}"
region = "{SMALL}"
[params.n]
type = "int"
[rows]
css = "p"
[fields]
text = "b"
[limits]
concurrency = 100
timeout_seconds = 60
"""
# Records that no compression makes smaller.
LARGE = f"""title = "Large, for the test of faults"
url = "https://bench.example/alerts/large?n={{n}}"
region = "{REGION}"
[params.n]
type = "int"
[rows]
css = "p"
[fields]
text = "b"
[limits]
concurrency = 4
"""
# Its pages are what the site is told.
MARKUP = "alerts.markup"
OF_MARKUP = f"""title = "A page that changes, for the test of faults"
url = "https://bench.example/alerts/markup?n={{n}}"
region = "{REGION}"
[params.n]
type = "int"
[rows]
css = "p"
[fields]
text = "b"
[limits]
concurrency = 50
"""
SIZES = {
    "WORKERS__THREADS": "2", "SCALE__MIN": "1", "SCALE__MAX": "1", "BRIDGE__READY_MAX": "5", "BRIDGE__PREFETCH": "20",
}  # fmt: skip
ONLY_HERE = "only-here"  # a folder of definitions that the gateway has and no region
MOVED = f"""title = "With a standby, for the test of faults"
url = "https://bench.example/alerts/moved"
region = "{REGION}"
standby = ["nyc"]
[rows]
css = "p"
[fields]
text = "b"
"""


def stack(purpose: str, *, has_keys: bool = False) -> OwnStack:
    """A stack for these faults, that is not started yet. ``has_keys``: clients need a key."""
    environ = {f"NEARFETCH__REGION__{SMALL.upper()}__{key}": text for key, text in SIZES.items()}
    environ |= {
        "NEARFETCH__WEBHOOKS__PROXY": "socks5h://127.0.0.1:9",
        f"NEARFETCH__REGION__{REGION.upper()}__SECRETS__ALERTS_TOKEN__SOURCES": "alerts.*",
        "NEARFETCH__SECRET__ALERTS_TOKEN": "one",
        "NEARFETCH__GATEWAY__KEYS": "true" if has_keys else "false",
    }
    made = OwnStack(purpose, environ)
    for name, text in (("slow", SLOW), ("large", LARGE), ("moved", MOVED), ("markup", OF_MARKUP)):
        (made.sources / f"alerts.{name}.toml").write_text(text, encoding="utf-8")
    (made.folder / ONLY_HERE).mkdir()
    own = dict(made.parts["gateway"].environment)
    own["NEARFETCH__SOURCES__PATH"] = f"{made.sources}:{made.folder / ONLY_HERE}"
    made.parts["gateway"] = dataclasses.replace(made.parts["gateway"], environment=own)
    parts = [made.parts[part.name] for part in made.stack.parts]
    made.stack = dataclasses.replace(made.stack, parts=parts)
    return made


class Case(NamedTuple):
    """A fault, and what takes it back. ``alert`` must fire by it. ``meanwhile``: what clients do until it is over.

    ``do`` may return since when the fault is there (monotonic seconds), if that is later than its call, and ``undo`` since when it is
    not any more. ``lasts_seconds``: for how long it is one after it was taken back, since it is about the last minute. ``is_told``:
    some gateway can tell it, which the only one can't when it hangs. ``has_keys``: it is one of a stack with keys.
    """

    alert: str
    what: str
    do: Callable[[OwnStack], object]
    undo: Callable[[OwnStack], object]
    meanwhile: Callable[[OwnStack], object] = lambda _: None
    lasts_seconds: float = 0.0
    is_told: bool = True
    has_keys: bool = False


def frozen(alert: str, part: str, *, is_told: bool = True) -> Case:
    """A part that hangs."""
    return Case(
        alert,
        f"{part} hangs",
        lambda stack: stack.signal(part, signal.SIGSTOP),
        lambda stack: stack.signal(part, signal.SIGCONT),
        is_told=is_told,
    )


def stopped(alert: str, part: str) -> Case:
    """A part that an operator stopped."""
    return Case(alert, f"{part} is stopped", lambda stack: stack.stop_part(part), lambda stack: stack.start_part(part))


def full(alert: str, server: str, share: float) -> Case:
    """A Redis without room."""

    def do(stack: OwnStack) -> float:
        stack.redis(server).config_set("maxmemory", int(_used(stack.redis(server)) / share))
        return time.monotonic()

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
    asked(stack)


def post(stack: OwnStack, *sources: object, **options: object) -> Reply:
    """The gateway's answer to a request that is not wrong: such a one makes no fault."""
    body = {"sources": list(sources) or ["ecb.rates"], **options}
    answer = ask(stack.port, "POST", "/v1/requests", headers_of(stack), body)
    assert answer.status not in {400, 401, 422}, answer.body
    return answer


def asked(stack: OwnStack, *sources: object, **options: object) -> None:
    """Posts as a client that asks now and then."""
    post(stack, *sources, **options)
    time.sleep(0.2)


def headers_of(stack: OwnStack) -> dict[str, str]:
    """What its clients send, if it has keys."""
    return {"Authorization": f"Bearer {stack.data.key}"} if stack.settings.gateway.keys else {}


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


def _killed(part: str, steady: Callable[[OwnStack], bool] = lambda _: True) -> Callable[[OwnStack], float]:
    """Kills a part each time that its supervisor has started it again, and it is ``steady``, until it was restarted three times."""

    def do(stack: OwnStack) -> float:
        before = 0
        for _ in range(RESTARTS):
            before = until(
                lambda last=before: (pid := stack.pid(part)) != last and steady(stack) and pid,
                f"{part} to run",
                CLEARS_SECONDS,
            )
            stack.signal(part, signal.SIGKILL)
        until(lambda: stack.pid(part) not in (0, before), f"{part} to run again", CLEARS_SECONDS)
        return time.monotonic()

    return do


def _reports(part: str) -> Callable[[OwnStack], bool]:
    """Whether a bridge or a pool of workers of the region has reported at the hub since it started."""

    def is_so(stack: OwnStack) -> bool:
        names_of = [key.decode() for key in stack.redis("hub").hkeys(names.region_status(REGION))]
        return f"{part}:{socket.gethostname()}:{stack.pid(f'{part}-{REGION}')}" in names_of

    return is_so


def _answers(server: str) -> Callable[[OwnStack], bool]:
    """Whether a Redis answers, and the gateway sees it; then for two looks more."""

    def is_so(stack: OwnStack) -> bool:
        try:
            stack.redis(server).ping()
        except redis.exceptions.RedisError:
            return False
        time.sleep(2)  # for those who look every two seconds while all is calm
        return ask(stack.port, "GET", "/readyz").status == 200

    return is_so


def _kill_workers(stack: OwnStack) -> float:
    """Kills three processes of a pool, one after the other, each by its name a normal one."""
    pool, killed = stack.pid(f"workers-{REGION}"), set[int]()

    def living() -> int:
        for text in Path(f"/proc/{pool}/task/{pool}/children").read_text().split():
            try:
                words = Path(f"/proc/{text}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if int(text) not in killed and any(word.startswith(f"{REGION}.worker.".encode()) for word in words):
                return int(text)
        return 0

    for _ in range(RESTARTS):
        pid = until(living, "a worker process", CLEARS_SECONDS)
        killed.add(pid)
        os.kill(pid, signal.SIGKILL)
    return time.monotonic()


class Stutter:
    """A server that stands still most of the time, and answers late: stopped for ``still`` seconds, then it runs for ``runs``."""

    def __init__(self, part: str, still: float, runs: float) -> None:
        self._part, self._still, self._runs = part, still, runs
        self._over = threading.Event()

    def do(self, stack: OwnStack) -> None:
        """Begins."""
        self._over = threading.Event()
        threading.Thread(target=self._run, args=(stack, self._over), daemon=True).start()

    def undo(self, stack: OwnStack) -> None:
        """Ends it."""
        self._over.set()
        time.sleep(self._still + self._runs)
        stack.signal(self._part, signal.SIGCONT)

    def _run(self, stack: OwnStack, over: threading.Event) -> None:
        pid = stack.pid(self._part)
        while not over.is_set():
            for number, seconds in ((signal.SIGSTOP, self._still), (signal.SIGCONT, self._runs)):
                os.killpg(pid, number)
                time.sleep(seconds)


def slow(alert: str, part: str, still: float) -> Case:
    """A server that answers late."""
    stutter = Stutter(part, still, 0.05)
    return Case(alert, f"{part} is slow", stutter.do, stutter.undo)


def replica(alert: str, server: str) -> Case:
    """A Redis that takes no writes, since somebody made it a replica of a server that is not there."""
    return Case(
        alert, f"{server} is a replica",
        lambda stack: stack.redis(server).execute_command("REPLICAOF", "127.0.0.1", "9"),
        lambda stack: stack.redis(server).execute_command("REPLICAOF", "NO", "ONE"),
    )  # fmt: skip


def _late(stack: OwnStack) -> None:
    """Many slow tasks for a region with two threads."""
    site.behave(stack.ports.site, prefix=FAR, status=200, delay_seconds=6.0, body="<p><b>slow</b></p>")
    asked(stack, *({"source": "alerts.slow", "params": {"n": n}} for n in range(60)), deadline=290)


def _late_for_long(stack: OwnStack) -> float:
    """Late tasks are a fault once a region has been late for some time."""
    _late(stack)
    return time.monotonic() + LATE_SECONDS


def _quick(stack: OwnStack) -> None:
    """What is left of them succeeds at once: a source whose runs fail would be degraded for long."""
    site.behave(stack.ports.site, prefix=FAR, status=200, body="<p><b>quick</b></p>")


def _worked_off(stack: OwnStack) -> float:
    """Since when none of them is left: so long a region has more than it can do."""
    _quick(stack)
    until(
        lambda: not stack.redis("hub").zcard(names.open_tasks(SMALL)),
        f"{SMALL} to have worked off its tasks",
        CLEARS_SECONDS,
    )
    return time.monotonic()


def _no_results(stack: OwnStack) -> None:
    """The region's user may not write results at the hub any more; and the region has 70 MB of them."""
    user = names.hub_user(REGION)
    only_stream = f"(%W~{names.out_stream(REGION)} -@all +xadd)"
    stack.redis("hub").execute_command("ACL", "SETUSER", user, "clearselectors", only_stream)
    stack.redis("hub").execute_command("CLIENT", "KILL", "USER", user)
    page = f"<p><b>{base64.b64encode(os.urandom(3_600_000)).decode()}</b></p>"
    site.behave(stack.ports.site, prefix=FAR, status=200, body=page)
    for n in range(22):
        asked(stack, {"source": "alerts.large", "params": {"n": n}}, deadline=300)


def _results_again(stack: OwnStack) -> None:
    user = names.hub_user(REGION)
    results, stream = f"(%W~{names.result(REGION, '*')} -@all +set)", f"(%W~{names.out_stream(REGION)} -@all +xadd)"
    stack.redis("hub").execute_command("ACL", "SETUSER", user, "clearselectors", results, stream)
    _quick(stack)


class Connections:
    """More clients than a gateway has open files for: each sends the beginning of a request, so that nobody's place is free."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def do(self, stack: OwnStack) -> None:
        """Opens them."""
        pid = stack.pid("gateway")
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 10, hard))
        for _ in range(20):
            self._more(stack)

    def _more(self, stack: OwnStack) -> None:
        one = socket.create_connection(("127.0.0.1", stack.port), 5)
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0")
        one.setblocking(False)
        self._sockets.append(one)

    def again(self, stack: OwnStack) -> None:
        """Opens others for those that the gateway has closed."""
        for one in list(self._sockets):
            try:
                is_closed = not one.recv(1)
            except BlockingIOError:
                is_closed = False
            except OSError:
                is_closed = True
            if is_closed:
                one.close()
                self._sockets.remove(one)
                self._more(stack)

    def undo(self, stack: OwnStack) -> None:
        """Closes them."""
        for one in self._sockets:
            one.close()
        self._sockets.clear()
        _many_files(stack)


def _refused_webhook(stack: OwnStack) -> None:
    """Nobody calls webhooks, and one is due."""
    stack.stop_part("webhooks")
    asked(stack, "ecb.rates", webhook={"url": "https://hook.example/", "secret": SECRET})


def _hang_worker(stack: OwnStack) -> None:
    pool = stack.pid(f"workers-{REGION}")
    for text in Path(f"/proc/{pool}/task/{pool}/children").read_text().split():
        if f"{REGION}.worker.".encode() in Path(f"/proc/{text}/cmdline").read_bytes():
            os.kill(int(text), signal.SIGSTOP)
            return


def _takes_tasks(stack: OwnStack) -> bool:
    """Whether the gateway and RabbitMQ have each other again; a gateway that has just lost it may still say that it is ready."""
    return post(stack).status == 202


def _serves(stack: OwnStack) -> bool:
    try:
        return ask(stack.port, "GET", "/healthz").status == 200
    except OSError:
        return False


CONNECTIONS = Connections()


def _away(name: str) -> tuple[Callable[[OwnStack], object], Callable[[OwnStack], object]]:
    """Moves a file below the stack's folder away, and back."""
    return (
        lambda stack: (stack.folder / name).rename(stack.folder / "away"),
        lambda stack: (stack.folder / "away").rename(stack.folder / name),
    )


def _nothing(_: OwnStack) -> None:
    """Its supervisor has started it again."""


def written(name: str, text: str) -> tuple[Callable[[OwnStack], object], Callable[[OwnStack], object]]:
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
    frozen("gateway-away", "gateway", is_told=False),
    stopped("metrics-away", f"bridge-{REGION}"),
    Case("region-down", f"bridge and workers of {REGION} are stopped", _stop_region, _start_region),
    _not_durable("hub-redis-not-durable", "hub"),
    _not_durable("region-redis-not-durable", f"redis-{REGION}"),
    Case("source-broken", "a definition is wrong", *written("sources/alerts.wrong.toml", "title = 5\n")),
    Case("region-files-wrong", "a region's file is wrong", *written("data/regions/wrong.toml", "title = 5\n")),
    Case(
        "source-failing", "a site answers 503",
        lambda stack: site.behave(stack.ports.site, prefix="/www.ecb.europa.eu/", status=503),
        lambda stack: site.behave(stack.ports.site),
        lambda stack: asked(stack, *["ecb.rates"] * 5, deadline=5),  # it takes ten failures in a row
        lasts_seconds=LEFT_ALONE_SECONDS,
    ),
    Case(
        "region-bridge-restarts", f"bridge-{REGION} is killed again and again",
        _killed(f"bridge-{REGION}", _reports("bridge")), _nothing, lasts_seconds=RESTARTS_MS / 1000),
    Case("region-workers-restarts", f"worker processes of {REGION} are killed again and again", _kill_workers, _nothing, lasts_seconds=RESTARTS_MS / 1000),
    Case("region-redis-restarts", f"redis-{REGION} is killed again and again", _killed(f"redis-{REGION}", _answers(f"redis-{REGION}")), _nothing, lasts_seconds=RESTARTS_MS / 1000),
    Case("hub-redis-restarts", "the hub's Redis is killed again and again", _killed("hub", _answers("hub")), _nothing, lasts_seconds=RESTARTS_MS / 1000),
    Case("rabbitmq-restarts", "RabbitMQ is killed again and again", _killed("rabbitmq", _takes_tasks), _nothing, lasts_seconds=RESTARTS_MS / 1000),
    Case("gateway-restarts", "the gateway is killed again and again", _killed("gateway", _serves), _nothing, lasts_seconds=RESTARTS_MS / 1000),
    Case("gateway-connections-full", "clients open more connections than the gateway may", CONNECTIONS.do, CONNECTIONS.undo, CONNECTIONS.again),
    Case("region-outbox-full", f"{REGION} may write no results at the hub", _no_results, _results_again),
    Case("region-late", f"{SMALL} gets more slow tasks than it has threads for", _late_for_long, _quick),
    Case("region-backlog", f"{SMALL} gets more tasks than its Redis may hold", _late, _worked_off),
    Case("region-workers-hang", f"a worker process of {REGION} stands still", _hang_worker, _nothing),
    slow("hub-redis-slow", "hub", 0.25),
    slow("region-redis-slow", f"redis-{REGION}", 0.25),
    slow("rabbitmq-slow", "rabbitmq", 0.6),
    replica("hub-redis-refuses-writes", "hub"),
    replica("region-redis-refuses-writes", f"redis-{REGION}"),
    Case(
        "hub-redis-denied", "the gateways' user lacks a right",
        lambda stack: stack.redis("hub").execute_command("ACL", "SETUSER", "default", "-zadd"),
        lambda stack: stack.redis("hub").execute_command("ACL", "SETUSER", "default", "+zadd"),
        asked,
    ),
    Case("webhooks-away", "what calls webhooks is stopped", _refused_webhook, lambda stack: stack.start_part("webhooks")),
    Case("region-taken-over", f"bridge and workers of {REGION} are stopped", _stop_region, _start_region),
    Case("region-file-gone", "the file of a region is deleted", *_away(f"data/regions/{REGION}.toml")),
    Case("dead-letters", "nobody can read a message", _letter, _drop_letters),
    Case(
        "requests-refused", "RabbitMQ hangs while clients ask",
        lambda stack: stack.signal("rabbitmq", signal.SIGSTOP), lambda stack: stack.signal("rabbitmq", signal.SIGCONT), asked,
    ),
    Case("open-files-short", "the gateway may open few files more", _few_files, _many_files),
)  # fmt: skip
