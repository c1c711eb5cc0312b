"""Real servers for tests, private, on free ports, in temporary folders; they are gone when their test is."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from jobs.queue import clock
from regions import connect
from regions.script import Script, send, value
from scripts.stack import services
from scripts.stack.probes import listens
from scripts.stack.services import RabbitMQ, Running, Service, free_port, redis_server
from scripts.stack.wan_links import Control
from tests import broker, forked
from tests.service.jobs.webhook.receiving import Receiver
from tests.service.region_workers import RegionWorkers
from tests.waiting import until


def popen(command: list[str], **options) -> subprocess.Popen:
    """``subprocess.Popen`` for servers: those that are Python programs are forked from one that has the imports."""
    if command[:2] == [sys.executable, "-m"]:
        # No more than the program, since a run of one process starts a server just for these.
        imported = forked.STORE if command[2] == "secantus" else (command[2],)
        return forked.Forked(command[1:], imported=imported, **options)
    return subprocess.Popen(command, **options)


services.subprocess = forked.starting(popen)

AOF_BYTES_MAX = 8_000_000  # a Redis that is to read more when it starts is slow to come back


class RedisInstance:
    """A running Redis: its URL, a client, and the process to hurt."""

    def __init__(self, folder: Path, name: str, **options) -> None:
        self.port, self.folder = free_port(), folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._running = Running(redis_server(name, folder, self.port, **options)).start()
        self.client = self._client()
        self.is_hurt = False
        self._settings, _ = self._changeable()

    @property
    def running(self) -> Running:
        """Its process. Who asks for it may do anything with it, so no other test gets this Redis."""
        self.is_hurt = True
        return self._running

    def renew(self) -> bool:
        """Makes it as good as new for another test. False if it can't be: it was hurt, has other settings, or somebody is connected."""
        if self.is_hurt:
            return False
        self.client.close()  # the test may have left it in any state
        clock._clocks.clear()  # what this process knows of the time at each address
        self.client = self._client()
        try:
            settings, connected = self._changeable()
            if settings != self._settings or connected > 1 or self._file().stat().st_size > AOF_BYTES_MAX:
                return False
            for reply in send(self.client, [("FLUSHALL",), ("SCRIPT", "FLUSH"), ("CONFIG", "RESETSTAT")], []):
                value(reply)
        except (redis.RedisError, OSError):
            return False
        return True

    def _client(self) -> "redis.Redis[bytes]":
        """A test waits for a Redis that is busy for a moment; the product's own clients take it for away."""
        return connect.open_redis(self.url, name="test", block_seconds=30.0)

    def _changeable(self) -> tuple[object, int]:
        """Its settings and users as it sends them, since making objects of 200 takes longer than all else; how many are connected."""
        *settings, clients = send(self.client, [("CONFIG", "GET", "*"), ("ACL", "LIST"), ("CLIENT", "LIST")], [])
        return settings, bytes(value(clients)).count(b"\n")

    def crash(self) -> None:
        """Kills it with all that it answered in its file; by itself it answers sooner while the file is being synced."""
        self.client.config_set("appendfsync", "always")  # until it starts again
        self.running.kill()

    def written(self) -> int:
        """Bytes of its file, once all that it did is in there."""
        until(lambda: not self.client.info("persistence")["aof_buffer_length"], "the file to be written")
        return self._file().stat().st_size

    def forget(self, size: int) -> None:
        """Kills it, and starts another one that knows only so many bytes of its file: the rest was done and not written."""
        self.running.kill()
        with self._file().open("r+b") as opened:
            opened.truncate(size)
        self.running.start()

    def _file(self) -> Path:
        return max((self.folder / "appendonlydir").glob("*.incr.aof"), key=lambda file: file.stat().st_mtime)

    def stop(self) -> None:
        self.client.close()
        self._running.kill()  # nobody wants what it holds: no need to be gentle, and slow


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisInstance]]:
    """Starts a Redis by name; keywords are those of ``redis_server``."""
    started: list[RedisInstance] = []

    def start(name: str = "redis", **options) -> RedisInstance:
        started.append(RedisInstance(tmp_path / name, name, **options))
        return started[-1]

    yield start
    for instance in reversed(started):
        instance.stop()


class KeptRedis:
    """A Redis for one test after the other: starting one for each takes twenty times as long as making one empty."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name, self._started = folder, name, 0
        self._kept: RedisInstance | None = None

    def new(self) -> RedisInstance:
        if self._kept is None or not self._kept.renew():
            self.stop()
            self._started += 1
            self._kept = RedisInstance(self._folder / f"{self._name}-{self._started}", self._name)
        return self._kept

    def stop(self) -> None:
        if self._kept is not None:
            self._kept.stop()
            self._kept = None


@pytest.fixture(scope="session")
def kept_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, KeptRedis]]:
    """The central Redis and a region's, for the tests of this process."""
    folder = tmp_path_factory.mktemp("redis")
    kept = {name: KeptRedis(folder, name) for name in ("hub", "region")}
    yield kept
    for one in kept.values():
        one.stop()


@pytest.fixture
def hub_redis(kept_redis: dict[str, KeptRedis]) -> RedisInstance:
    """The central Redis."""
    return kept_redis["hub"].new()


@pytest.fixture
def region_redis(kept_redis: dict[str, KeptRedis]) -> RedisInstance:
    """A region's Redis."""
    return kept_redis["region"].new()


@pytest.fixture
def patient_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that the product opens in this process wait for a server that is busy for a moment, which else counts as away."""
    monkeypatch.setattr(connect, "TIMEOUT_SECONDS", 10.0)


@pytest.fixture
def workers(tmp_path: Path, region_redis: RedisInstance, hub_redis: RedisInstance) -> Iterator[RegionWorkers]:
    """The region's real workers, not started."""
    made = RegionWorkers(tmp_path, region_redis.url, hub_redis.client, hub_redis.url)
    yield made
    made.stop()


class Lossy:
    """A Redis at ``url``, behind the link "redis" of scripts.stack.wan, which loses the answers that a test names."""

    def __init__(self, folder: Path, behind: RedisInstance) -> None:
        port, control = free_port(), free_port()
        words = [sys.executable, "-m", "scripts.stack.wan", "--control", str(control), f"redis={port}:{behind.port}"]
        self._running = Running(Service("proxy", words, folder / "proxy.log", listens(control))).start()
        self.control = Control(control)
        self.url = f"redis://127.0.0.1:{port}/0"
        self.client: redis.Redis[bytes] = connect.open_redis(self.url, name="test-lossy", block_seconds=30.0)

    def lose(self, script: Script) -> None:
        """The next call of a script takes effect, and its caller hears nothing."""
        self.control.swallow("redis", script.sha.encode(), cut_seconds=0.1)

    @property
    def lost(self) -> int:
        """Answers so far that were lost."""
        return self.control.counts("redis").swallowed

    def stop(self) -> None:
        self.client.close()
        self.control.close()
        self._running.stop()


@pytest.fixture
def far_hub(tmp_path: Path, hub_redis: RedisInstance) -> Iterator[Lossy]:
    """The central Redis, as a region has it: behind a link that is no farther than a test sets it."""
    made = Lossy(tmp_path, hub_redis)
    yield made
    made.stop()


@pytest.fixture
def lossy_region(tmp_path: Path, region_redis: RedisInstance) -> Iterator[Lossy]:
    """The region's Redis, as a worker has it whose network loses answers."""
    made = Lossy(tmp_path, region_redis)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def rabbitmq(request: pytest.FixtureRequest) -> Iterator[broker.VirtualHost]:
    """A virtual host for a module's tests, of the node that everybody shares: nobody may hurt that."""
    made = broker.VirtualHost(broker.node(), request.path.stem)
    yield made
    made.delete()


@pytest.fixture(scope="session")
def own_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A node of this process alone, for tests that kill it, stop it or fill it; each leaves it well."""
    regions = {"fra": "one", "us-east": "two"}  # and their passwords
    node = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"), free_port(), regions=regions)
    running = Running(node.service()).start()
    node.running = running
    yield node
    running.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of webhooks, which finds nothing wrong with what it gets."""
    made = Receiver()
    yield made
    made.close()
    assert made.wrong == []
