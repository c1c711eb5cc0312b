"""Faults of a whole stack while its servers are well: of rights, queues, definitions, keys, a second gateway, a thread that hangs.

ALL             these and those of tests.stack.faults
NOT_BY_HAND     faults of the table that nobody can cause from outside, with the reason
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import redis

from regions import connect, names
from regions.settings import ROOT
from scripts.stack.own_stack import OwnStack
from scripts.stack.ports import free_port
from tests import broker, site
from tests.stack.faults import CASES, CLEARS_SECONDS, FAR, MARKUP, ONLY_HERE, REGION, SMALL, Case, asked, post, written
from tests.waiting import until
from tests.wire import ask
from web.flow.clean import KEPT_MAX
from web.flow.holdings import BAR_MS
from web.hub.verdict import LAST, RUNS_MIN

NOT_BY_HAND = {
    "region-bridge-paused": "each reason for which a bridge of this version pauses has a name of its own",
}
STANDBY = f"""title = "With a standby that lacks its secret"
url = "https://bench.example/alerts/standby"
region = "{REGION}"
standby = ["nyc"]
[request]
auth = {{bearer = "{{secret.ALERTS_TOKEN}}"}}
[rows]
css = "p"
[fields]
text = "b"
"""
AT_ONCE = 100  # tasks of one request
HUB_BYTES = 256_000_000


def nearfetch(stack: OwnStack, *words: str) -> str:
    """What the command line says beside this stack."""
    done = subprocess.run(
        [sys.executable, "-m", "scripts.cli", *words],
        env={**stack.environ, "NEARFETCH_DATA": str(stack.data.path)}, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def _erlang(expression: str) -> Callable[[OwnStack], object]:
    return lambda stack: stack.broker.evaluate(expression)


# RabbitMQ


def _wrong_password(stack: OwnStack) -> None:
    """The region's user has another password at RabbitMQ, and its connections are closed."""
    _password(stack, "another")
    of_user = f'[{{pid, Pid}}, {{user, <<"{names.hub_user(REGION)}">>}}] <- rabbit_networking:connection_info_all([pid, user])'
    stack.broker.evaluate(f'[ok = rabbit_networking:close_connection(Pid, "a test") || {of_user}].')


def _right_password(stack: OwnStack) -> None:
    _password(stack, stack.data.secret(f"rabbitmq {REGION}"))


def _password(stack: OwnStack, password: str) -> None:
    user = names.hub_user(REGION)
    stack.broker.evaluate(
        f'ok = rabbit_auth_backend_internal:change_password(<<"{user}">>, <<"{password}">>, <<"a test">>).'
    )


def _full_queue(stack: OwnStack) -> float:
    """A queue that may have few messages, and nobody who takes them."""
    stack.stop_part(f"bridge-{REGION}")
    policy = {"max-length": 1, "overflow": "reject-publish"}
    broker.set_policy(stack.broker, "full", f"^{names.work_queue(REGION)}$", policy)
    until(lambda: post(stack, HERE).status == 503, "the queue to be full", CLEARS_SECONDS)
    return time.monotonic()


def _longer_queue(stack: OwnStack) -> None:
    broker.clear_policy(stack.broker, "full")
    stack.start_part(f"bridge-{REGION}")


HERE, ELSEWHERE = "ecb.rates", "quakes.day"  # a source of this region, and one of another; the site has their pages
LEADER = f"'%2F_{names.work_queue(REGION)}'"  # the process of the queue's leader


class StoppedThread:
    """The first thread of a part stands still, and its others go on: by ptrace, since signals stop whole processes."""

    SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17

    def __init__(self, part: str) -> None:
        self._part, self._pid = part, 0
        self._libc = ctypes.CDLL(None, use_errno=True)

    def _ptrace(self, request: int) -> None:
        if self._libc.ptrace(ctypes.c_long(request), ctypes.c_long(self._pid), None, None) != 0:
            raise OSError(ctypes.get_errno(), "ptrace")

    def do(self, stack: OwnStack) -> None:
        """Stops it."""
        self._pid = stack.pid(self._part)
        self._ptrace(self.SEIZE)
        self._ptrace(self.INTERRUPT)
        os.waitpid(self._pid, 0x40000000)  # __WALL: it has stopped

    def undo(self, stack: OwnStack) -> None:
        """Lets it go on, unless its supervisor has another one already."""
        if stack.pid(self._part) == self._pid:
            self._ptrace(self.DETACH)


BRIDGE_LOOP = StoppedThread(f"bridge-{SMALL}")


def _idle(stack: OwnStack) -> float:
    """A bridge whose loop hangs, and messages for it: its other threads report that it consumes."""
    site.behave(stack.ports.site, prefix=FAR, status=200, body="<p><b>quick</b></p>")
    BRIDGE_LOOP.do(stack)
    post(stack, *({"source": "alerts.slow", "params": {"n": n}} for n in range(60)), deadline=290)
    return time.monotonic()


class Cancels:
    """More tasks were cancelled than RabbitMQ, which hangs, lets the gateway tell to their region."""

    def do(self, stack: OwnStack) -> float:
        """Posts them all before. They wait in RabbitMQ, since the region has no bridge."""
        stack.redis("hub").config_set("maxmemory", 4 * HUB_BYTES)
        stack.stop_part(f"bridge-{REGION}")
        ids = []
        for first in range(0, KEPT_MAX + 5 * AT_ONCE, AT_ONCE):
            tasks = [{"source": MARKUP, "params": {"n": n}} for n in range(first, first + AT_ONCE)]
            accepted = until(
                lambda tasks=tasks: (one := post(stack, *tasks, deadline=290)).status == 202 and one, "a 202"
            )
            ids.append(accepted.json()["id"])
        stack.signal("rabbitmq", signal.SIGSTOP)
        for request in ids:
            assert ask(stack.port, "DELETE", f"/v1/requests/{request}").status == 200
        return time.monotonic()

    def undo(self, stack: OwnStack) -> None:
        """RabbitMQ goes on, and forgets the tasks, which have ended. The memory stays: what was posted is kept for a while."""
        stack.signal("rabbitmq", signal.SIGCONT)
        queue = f'rabbit_misc:r(<<"/">>, queue, <<"{names.work_queue(REGION)}">>)'
        stack.broker.evaluate(f"rabbit_amqqueue:with({queue}, fun(Queue) -> rabbit_amqqueue:purge(Queue) end).")
        stack.start_part(f"bridge-{REGION}")


# The hub's Redis


def _as_region(stack: OwnStack) -> redis.Redis:
    """A client of the hub's Redis with the region's credentials, which somebody has stolen."""
    user, password = names.hub_user(REGION), stack.data.secret(f"hub {REGION}")
    return connect.open_redis(
        f"redis://{user}:{password}@127.0.0.1:{stack.ports.hub}/0", name="thief", block_seconds=30.0
    )


def _unwanted(stack: OwnStack) -> float:
    """Results that nobody asked for, of 60 MB."""
    stack.redis("hub").config_set("maxmemory", HUB_BYTES)
    time.sleep(3)  # for the gateway's look at it
    with _as_region(stack) as thief:
        for number in range(30):
            page, now_ms = os.urandom(2_000_000), round(time.time() * 1000)
            try:
                thief.set(names.result(REGION, f"unwanted{number}"), page, nx=True, pxat=now_ms + 600_000)
            except redis.exceptions.RedisError:  # it is kept out by now
                break
    return time.monotonic()


def _nonsense(stack: OwnStack) -> None:
    with _as_region(stack) as thief:
        thief.xadd(names.out_stream(REGION), {"k": "nonsense", "v": 99})


# Files and definitions


def _scale_wrong(stack: OwnStack) -> None:
    file = stack.data.path / "regions" / f"{REGION}.toml"
    file.with_suffix(".was").write_bytes(file.read_bytes())
    with file.open("a", encoding="utf-8") as text:
        text.write('\n[[scale.schedule]]\ncron = "never"\n')


def _scale_right(stack: OwnStack) -> None:
    file = stack.data.path / "regions" / f"{REGION}.toml"
    file.with_suffix(".was").replace(file)


class Runs:
    """A site that changes its mark-up, and enough runs of a source to tell."""

    def __init__(self) -> None:
        self._n = 0

    def _run(self, stack: OwnStack, times: int, tag: str) -> float:
        """``times`` runs of pages with such a field. Returns when the last one has ended."""
        site.behave(stack.ports.site, prefix=FAR, status=200, body=f"<p><{tag}>text</{tag}></p>" * 3)
        numbers, self._n = range(self._n, self._n + times), self._n + times
        accepted = post(stack, *({"source": MARKUP, "params": {"n": n}} for n in numbers), deadline=60)
        assert accepted.status == 202, accepted.body
        path = f"/v1/requests/{accepted.json()['id']}"
        until(lambda: ask(stack.port, "GET", f"{path}?wait=20").json()["done"], "the runs", CLEARS_SECONDS)
        return time.monotonic()

    def do(self, stack: OwnStack) -> float:
        """The field is there, then it is not any more."""
        self._run(stack, LAST + RUNS_MIN, "b")
        return self._run(stack, LAST, "i")

    def undo(self, stack: OwnStack) -> float:
        """It is there again."""
        ended = self._run(stack, LAST, "b")
        site.behave(stack.ports.site)
        return ended


RUNS = Runs()


def _differs(stack: OwnStack) -> None:
    """The gateway alone has another definition."""
    text = (stack.sources / f"{MARKUP}.toml").read_text(encoding="utf-8")
    (stack.folder / ONLY_HERE / f"{MARKUP}.toml").write_text(f"{text}# another\n", encoding="utf-8")


# Gateways and keys


class SecondGateway:
    """A second gateway of the same hub, which is killed and then started again, and stops in peace."""

    def __init__(self) -> None:
        self._port = 0

    def _started(self, stack: OwnStack) -> subprocess.Popen[bytes]:
        self._port = self._port or free_port()
        part = stack.parts["gateway"]
        environment = {**part.environment, "NEARFETCH__GATEWAY__PORT": str(self._port)}
        with (stack.folder / "second.log").open("ab") as log:
            process = subprocess.Popen(part.command, env=environment, cwd=part.folder, stdout=log, stderr=log)
        until(lambda: _serves(self._port), "the second gateway", CLEARS_SECONDS)
        return process

    def do(self, stack: OwnStack) -> float:
        """Starts it and kills it."""
        process = self._started(stack)
        process.kill()
        process.wait()
        return time.monotonic()

    def undo(self, stack: OwnStack) -> float:
        """Starts it again: from then on it is not lost. It stops when it was seen."""
        process = self._started(stack)
        process.terminate()
        process.wait()
        return time.monotonic()


def _serves(port: int) -> bool:
    try:
        return ask(port, "GET", "/readyz").status == 200
    except OSError:
        return False


SECOND = SecondGateway()


class ShortKey:
    """A key that is told in the last third of its life, which is longer than its alert waits."""

    LIVES_SECONDS = 270

    def __init__(self) -> None:
        self._id = ""

    def do(self, stack: OwnStack) -> float:
        """Makes it, and waits for that third."""
        words = ("key", "create", "a test", "--tenant", "shop", "--expires", f"{self.LIVES_SECONDS}s")
        text = nearfetch(stack, *words).strip()
        made = time.monotonic()
        self._id = text.split("_")[1]
        time.sleep(self.LIVES_SECONDS * 2 / 3)
        return made + self.LIVES_SECONDS * 2 / 3

    def undo(self, stack: OwnStack) -> None:
        """As the runbook says."""
        nearfetch(stack, "key", "rotate", self._id)


KEY = ShortKey()


def _posts(stack: OwnStack) -> None:
    """Clients of this region and of another one, whose messages RabbitMQ confirms: so it is not all of RabbitMQ."""
    for one in (HERE, ELSEWHERE):
        asked(stack, one)


RARE = (
    Case(
        "region-rabbitmq-away", f"RabbitMQ does not let {REGION}'s bridge in",
        _wrong_password, _right_password,
    ),
    Case("region-queue-away", f"the leader of {REGION}'s queue hangs", _erlang(f"sys:suspend({LEADER})."), _erlang(f"sys:resume({LEADER})."), _posts),
    Case("region-queue-full", f"{REGION}'s queue has no room", _full_queue, _longer_queue, _posts),
    Case("region-bridge-idle", f"the loop of {SMALL}'s bridge hangs", _idle, BRIDGE_LOOP.undo),
    Case("region-barred", f"somebody fills the hub in the name of {REGION}", _unwanted, lambda _: None, lasts_seconds=BAR_MS / 1000),
    Case("region-entries-refused", f"somebody writes nonsense in the name of {REGION}", _nonsense, lambda stack: nearfetch(stack, "dead", "drop", "--all")),
    Case("region-scale-wrong", f"[scale] of {REGION} is wrong", _scale_wrong, _scale_right),
    Case("source-degraded", "a site changes its mark-up", RUNS.do, RUNS.undo),
    Case("source-differs", "the gateway has another definition", _differs, lambda stack: (stack.folder / ONLY_HERE / f"{MARKUP}.toml").unlink()),
    Case("standby-not-ready", "a standby lacks a secret", *written("sources/alerts.standby.toml", STANDBY)),
    Case("gateway-away", "a second gateway is killed", SECOND.do, SECOND.undo),
    Case("key-expires", "a key expires and has no successor", KEY.do, KEY.undo, has_keys=True),
)  # fmt: skip

CANCELS = Cancels()
LAST_ONE = Case("gateway-clean-up-full", "many tasks are cancelled while RabbitMQ hangs", CANCELS.do, CANCELS.undo)
ALL = (*RARE, *CASES, LAST_ONE)
