"""Private instances of the servers that Nearfetch needs: how each is configured, started, and found to be ready.

``scripts/up`` gives them to its supervisor; tests start them with ``Running``. The distribution's own instances on their
standard ports are never touched.
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from regions import connect, names, topology
from scripts.stack.ports import free_port
from scripts.stack.probes import broker as broker_answers
from scripts.stack.probes import listens, mongo

RABBITMQ_BIN: Final = Path("/usr/lib/rabbitmq/bin")  # the wrapper in sbin drops the environment
STREAM_NODE_BYTES: Final = 512  # what a stream of few entries takes, by default 4,096; a request has one of its own
HASH_VALUE_BYTES: Final = 2_048  # a hash of short values, by default 64 bytes, is one piece of memory: jobs, ledgers
# How often Redis looks after itself; 10 by default, which costs an idle one half as much again. A wait may end 0.25 s late,
# and clients allow 0.5 s.
REDIS_HZ: Final = 4
WRITE_BYTES_MIN: Final = 16_000_000  # of the most that one write to the hub may bring
MEMORY_BYTES: Final = 400_000_000  # of RabbitMQ; above it, it takes no more messages
DISK_FREE_BYTES: Final = 50_000_000  # of RabbitMQ's disk; below it, the same
# Erlang's port mapper (epmd), then the node, in one process group. A node that starts it itself makes a daemon of it, in a group of
# its own: that outlives the node, and comes up even after a node that is killed at this moment.
WITH_EPMD: Final = """
epmd &
until epmd -names >/dev/null 2>&1; do
    kill -0 $! || exit 1
    sleep 0.05
done
exec "$0"
"""
# What a node needs anyway is loaded at once, and where modules are is read once: by itself it loads one after the other, and looks for
# each in a hundred folders. That takes a third of a start's CPU. The cache of paths is of OTP 26, which RabbitMQ 4.0 needs.
PRELOAD: Final = """code:set_path(code:get_path(), cache),
code:ensure_modules_loaded([list_to_atom(filename:basename(File, ".beam"))
    || Of <- [rabbit_common, rabbit, rabbitmq_prelaunch, ra, mnesia, khepri], is_list(code:lib_dir(Of)),
       File <- filelib:wildcard(code:lib_dir(Of) ++ "/ebin/*.beam")])."""
SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"  # a user's PATH has none of them


class Failed(RuntimeError):  # noqa: N818
    """A server did not start. The message says which and why, and shows the end of its log."""


@dataclass(frozen=True)
class Service:
    """One server: its command, its log, and a probe that returns None once it is ready, else why it is not."""

    name: str
    command: list[str]
    log: Path
    not_ready: Callable[[], str | None]
    environment: Mapping[str, str] = field(default_factory=dict)


def path_with_sbin() -> str:
    """PATH extended by the folders where servers are."""
    return f"{os.environ.get('PATH', '/usr/bin:/bin')}:{SBIN}"


def last_lines(log: Path, count: int = 12) -> str:
    """The end of a log file, indented; empty when there is no file."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in lines)


def hub_write_bytes(records_bytes_max: int) -> int:
    """The bytes to which one value of a write to the hub's Redis is bounded. ``records_bytes_max``: of ``[limits]``."""
    return max(WRITE_BYTES_MIN, 2 * records_bytes_max)


def redis_server(
    name: str,
    folder: Path,
    port: int,
    *,
    password: str = "",
    users: Mapping[str, tuple[str, str]] | None = None,
    maxmemory: str = "256mb",
    appendfsync: str = "everysec",
    write_bytes_max: int = 0,
) -> Service:
    """A Redis with an append-only file in ``folder``. ``users``: name → (password, ACL rules).

    ``write_bytes_max`` limits one value; twice as much limits the commands that a client has sent and Redis has not executed
    yet. 0 keeps Redis's own limits, 512 MB and 1 GB, with which one client could fill a small Redis. Large values are
    compressed already, so a rewrite of the file does not compress them again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    acl = folder / "users.acl"
    rules = [f"user default on {'>' + password if password else 'nopass'} ~* &* +@all"]
    rules += [f"user {user} on >{secret} {rule}" for user, (secret, rule) in (users or {}).items()]
    _write_private(acl, "\n".join(rules) + "\n")
    config = folder / "redis.conf"
    bounds = f"proto-max-bulk-len {write_bytes_max}\nclient-query-buffer-limit {2 * write_bytes_max}\n"
    _write_private(
        config,
        f"""bind 127.0.0.1
port {port}
dir "{folder}"
aclfile "{acl}"
daemonize no
appendonly yes
appendfsync {appendfsync}
save ""
maxmemory {maxmemory}
maxmemory-policy noeviction
stream-node-max-bytes {STREAM_NODE_BYTES}
hash-max-listpack-value {HASH_VALUE_BYTES}
rdbcompression no
latency-tracking no
hz {REDIS_HZ}
tcp-backlog 511
logfile ""
{bounds if write_bytes_max else ""}""",
    )
    secret = f"default:{password}@" if password else ""
    url = f"redis://{secret}127.0.0.1:{port}/0"

    def not_ready() -> str | None:
        client = connect.open_redis(url, name="probe", connections=1)
        try:
            client.ping()
        except connect.AWAY as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - loading, or another server on this port: not ours yet
            return str(error)
        finally:
            client.close()
        return None

    binary = shutil.which("redis-server", path=path_with_sbin()) or "redis-server"
    return Service(name, [binary, str(config)], folder / "redis.log", not_ready)


def document_store(folder: Path, port: int) -> Service:
    """A document store that speaks MongoDB's protocol (SecantusDB), without a password, on the loopback address."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ("--host", "127.0.0.1", "--port", str(port), "--storage-path", str(folder / "data"), "--standalone")
    command = [sys.executable, "-m", "secantus", *options, "--cache-size", "64M", "--sync-on-commit"]

    return Service("store", command, folder / "store.log", mongo(f"mongodb://127.0.0.1:{port}/"))


class RabbitMQ:
    """A private RabbitMQ node with its own node name, ports, cookie, port mapper (epmd) and folders."""

    def __init__(
        self,
        folder: Path,
        port: int,
        *,
        user: str = "nearfetch",
        password: str = "",
        regions: Mapping[str, str] | None = None,
    ) -> None:
        """``regions``: each region's password.

        The region's user, which may only consume from its own queues, is made when the node starts.
        """
        self.folder, self.port, self.user = folder, port, user
        self._region_passwords = regions or {}
        folder.mkdir(parents=True, exist_ok=True)
        self.password = password or secrets.token_urlsafe(18)
        self._ports = self._read_ports()
        self.node = f"nearfetch-{port}@localhost"

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"amqp://{self.user}:{self.password}@127.0.0.1:{self.port}/%2F"

    def region_url(self, region: str, port: int = 0) -> str:
        """The URL for a region's bridge. ``port``: of a link, instead of the node's own."""
        return f"amqp://{names.hub_user(region)}:{self._region_passwords[region]}@127.0.0.1:{port or self.port}/%2F"

    def service(self, *, has_epmd: bool = False) -> Service:
        """The node as a service. Writes its configuration, with our policy and all users.

        ``has_epmd``: its port mapper is a service of its own.
        """
        self._configure()
        node = [str(RABBITMQ_BIN / "rabbitmq-server")]
        return Service(
            "rabbitmq",
            node if has_epmd else ["/bin/sh", "-c", WITH_EPMD, *node],
            self.folder / "rabbitmq.log",
            broker_answers(self.url),
            {**self.environment(), "ERL_AFLAGS": f"-eval '{PRELOAD}'"},  # what it starts with; rabbitmqctl does without
        )

    def epmd(self) -> Service:
        """The node's port mapper as a service. The node ends when it finds none, so it has to be ready before."""
        program = shutil.which("epmd", path=path_with_sbin()) or "epmd"
        port = self._ports[1]
        return Service("epmd", [program], self.folder / "epmd.log", listens(port), self.environment())

    def environment(self) -> dict[str, str]:
        """The environment by which the node and rabbitmqctl find each other and no other node."""
        folder = self.folder
        return {
            "PATH": path_with_sbin(),
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._ports[0]),
            "ERL_EPMD_PORT": str(self._ports[1]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_FLAGS": "-start_epmd false",  # neither the node nor rabbitmqctl makes a daemon of it
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(folder / "plugins.conf"),  # there is none
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "data" / "feature_flags"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "data"),
            "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
            ),
            "RABBITMQ_CTL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def ctl(self, *arguments: str, timeout_seconds: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Runs rabbitmqctl against this node."""
        return subprocess.run(
            [str(RABBITMQ_BIN / "rabbitmqctl"), "-q", *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )

    def evaluate(self, expressions: str) -> str:
        """The node's answer to Erlang expressions, like ``{ok, TERM}``. Raises ``Failed``.

        Uses erl_call, which comes with Erlang: rabbitmqctl would start a virtual machine, which takes a second of CPU.
        """
        words = ["erl_call", "-R", "-timeout", "30", "-address", f"127.0.0.1:{self._ports[0]}", "-e"]
        environment = self.environment()
        done = subprocess.run(
            words, env=environment, input=f"{expressions}\n", capture_output=True, text=True, timeout=40, check=False
        )
        if done.returncode != 0 or not done.stdout.startswith("{ok"):
            raise Failed(f"RabbitMQ did not evaluate {expressions}: {done.stdout.strip()} {done.stderr.strip()}")
        return done.stdout.strip()

    def take_definitions(self) -> None:
        """Makes the running node take its definitions file: users that were added, and what it has already. Raises ``Failed``."""
        file = json.dumps(str(self.folder / "definitions.json"), ensure_ascii=False)
        said = self.evaluate(f"{{ok, Read}} = file:read_file(<<{file}/utf8>>), rabbit_definitions:import_raw(Read).")
        if said != "{ok, ok}":
            raise Failed(f"RabbitMQ did not take its definitions: {said}")

    def delete_user(self, user: str) -> None:
        """Deletes a user of the running node, if there is one. Raises ``Failed``."""
        self.evaluate(f"""rabbit_auth_backend_internal:delete_user(<<"{user}">>, <<"scripts/up">>).""")

    def limit_memory(self, count: int = MEMORY_BYTES) -> None:
        """Changes how many bytes of memory the node may have before it takes no more messages."""
        self.evaluate(f"ok = vm_memory_monitor:set_vm_memory_high_watermark({{absolute, {count}}}).")

    def limit_disk(self, count: int = DISK_FREE_BYTES) -> None:
        """Changes how many bytes have to be free on the node's disk for it to take messages."""
        self.evaluate(f"ok = rabbit_disk_monitor:set_disk_free_limit({count}).")

    def keep_queues(self) -> None:
        """Makes the node write to disk which queues it has. Until then a ``kill -9`` can make it forget its member of a new queue.

        That queue would never have a leader again (RabbitMQ 4.0.5: "configured member … was not found on this node").
        """
        self.evaluate("[dets:sync(Table) || Table <- dets:all()].")

    def _read_ports(self) -> tuple[int, int]:
        """The ports of Erlang's distribution and of epmd. They are stored, since rabbitmqctl and a later start need the same."""
        file = self.folder / "ports"
        if file.exists():
            distribution, epmd = file.read_text(encoding="ascii").split()
            return int(distribution), int(epmd)
        ports = (free_port(), free_port())
        file.write_text(f"{ports[0]} {ports[1]}\n", encoding="ascii")
        return ports

    def _configure(self) -> None:
        folder = self.folder
        cookie = folder / ".erlang.cookie"
        if not cookie.exists():
            _write_private(cookie, secrets.token_hex(20))
            cookie.chmod(0o400)
        # Erlang's own form: to read a rabbitmq.conf, a node first reads what may stand in one, for a second of CPU.
        terms = f"""[{{rabbit, [
    {{tcp_listeners, [{{"127.0.0.1", {self.port}}}]}},
    {{default_user, <<"{self.user}">>}},
    {{default_pass, <<"{self.password}">>}},
    {{loopback_users, []}},
    {{log, [{{console, [{{enabled, true}}, {{level, warning}}]}}]}},
    {{disk_free_limit, {DISK_FREE_BYTES}}},
    {{load_definitions, {json.dumps(str(folder / "definitions.json"), ensure_ascii=False)}}},
    {{vm_memory_high_watermark, {{absolute, {MEMORY_BYTES}}}}}
]}}].
"""
        _write_private(folder / "advanced.config", terms)
        (folder / "enabled_plugins").write_text("[].\n", encoding="ascii")
        _write_private(
            folder / "definitions.json",
            json.dumps(topology.definitions(self.user, self.password, self._region_passwords)),
        )


class Guard:
    """Runs a command when this process ends in any way, by waiting for the end of a pipe that only this process holds."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r nothing; exec "$@"', "guard", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Cancels the command."""
        self._process.kill()
        self.end()

    def end(self) -> None:
        """Runs the command now, and returns when it has ended."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


class Running:
    """A service that this process starts, for tests and benchmarks. It is ended with this process, whatever happens."""

    def __init__(self, service: Service, *, ready_seconds: float = 180.0) -> None:
        self.service, self.ready_seconds = service, ready_seconds
        self.process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    def start(self) -> "Running":
        """Starts the service and waits until it is ready. Raises ``Failed``."""
        self.kill()  # nothing, unless a test killed it by a signal of its own
        service = self.service
        with service.log.open("ab") as log:
            self.process = subprocess.Popen(
                service.command,
                env={**os.environ, **service.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if self._guard is not None:  # its process was killed from outside
            self._guard.dismiss()
        self._guard = Guard(["/bin/sh", "-c", 'kill -KILL -"$1"', "guard", str(self.process.pid)])
        deadline = time.monotonic() + self.ready_seconds
        reason: str | None = "not tried"
        while reason is not None:
            if self.process.poll() is not None:
                self.kill()
                raise Failed(f"{service.name} ended with code {self.process.returncode}:\n{last_lines(service.log)}")
            if time.monotonic() > deadline:
                self.stop()
                raise Failed(f"{service.name} is not ready: {reason}\n{last_lines(service.log)}")
            reason = service.not_ready()
            if reason is not None:
                time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Ends the service and everything that it started."""
        if self.process is None:
            return
        self.signal(15)
        self.signal(18)  # a stopped process does not hear SIGTERM
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        self.kill()

    def kill(self) -> None:
        """Sends SIGKILL to the whole group. RabbitMQ's wrapper would otherwise leave its beam process behind."""
        if self.process is not None:
            self.signal(9)
            self.process.wait(60)
        self.let_go()

    def let_go(self) -> None:
        """Lets the service outlive this process. The caller has to end it."""
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None

    def signal(self, number: int) -> None:
        """Sends a signal to the whole group."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return


def _write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, from the first byte on."""
    if path.exists():
        path.unlink()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
