"""The only place that opens Redis, AMQP and MongoDB connections.

Redis clients have explicit time-outs and none of redis-py's own retries, which doubled rpush and xadd. Our own code
repeats only idempotent writes.
"""

import contextlib
import functools
import queue
import random
import re
import socket
import ssl
import threading
import time
from typing import Any, Final

import pika
import pika.exceptions
import pika.heartbeat
import redis
from pika.adapters.select_connection import SelectConnection
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from redis.backoff import NoBackoff
from redis.retry import Retry

from regions import hosts

TIMEOUT_SECONDS: Final = 0.5  # a server that takes longer counts as away
OCEAN_SECONDS: Final = 1.5  # more for what a region tells the hub: a far round trip, and a lost packet
# A long-lived connection whose other end vanished silently must end within 10 s. Three mechanisms see to it:
# - AMQP heartbeats, when no reply is due: each side sends two in HEARTBEAT_SECONDS. pika checks for them once every
#   HEARTBEAT_SECONDS + 1; RabbitMQ gives up after it missed two.
# - a subscription's pings, every PING_SECONDS.
# - the kernel, when a dead machine does not acknowledge what was sent.
HEARTBEAT_SECONDS: Final = 3
BLOCKED_SECONDS: Final = 10
PING_SECONDS: Final = 2.0
DEAF_SECONDS: Final = 6.0
KEEPALIVE: Final = {"TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": 8_000}
MONGO_SECONDS: Final = 1.0
BACKOFF_FIRST_SECONDS: Final = 0.1
BACKOFF_MAX_SECONDS: Final = 2.0
REDIS_FLOOR: Final = (7, 2)
RABBITMQ_FLOOR: Final = (4, 0)
_PASSWORD: Final = re.compile(r"([?&]\w*password=)[^&\s]*", re.IGNORECASE)  # in a URL's query

# What redis-py raises when a Redis can't be reached. A full or loading Redis answers, with a child of ResponseError.
AWAY: Final = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
# What pika's blocking connection raises likewise. A broker that stops during the handshake raises no AMQPError.
BROKER_AWAY: Final = (pika.exceptions.AMQPError, AMQPConnectorException, OSError)


def refuses_writes(error: Exception) -> bool:
    """Whether the error says that a Redis answers but takes no writes: it can't write its file, or it is a replica."""
    is_replica = isinstance(error, redis.exceptions.ReadOnlyError)
    return is_replica or str(error).startswith(("MISCONF", "NOREPLICAS"))


def is_denied(error: Exception) -> bool:
    """Whether the error says that the Redis user lacks the right to this command, called directly or in a script."""
    return isinstance(error, redis.exceptions.NoPermissionError) or str(error).startswith("ACL failure in script")


def backoff_seconds(failures: int) -> float:
    """How long to wait after this many failures in a row (from 1): full jitter below a ceiling that doubles up to 2 s.

    All clients of a server lose it at the same moment; the jitter keeps them from coming back at the same moment.
    """
    ceiling = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(max(failures, 1) - 1, 10))
    return random.uniform(BACKOFF_FIRST_SECONDS / 2, ceiling)


class TooOld(RuntimeError):  # noqa: N818
    """A server is older than the oldest supported version."""


class _Hosts:
    """Connects to the first of several hosts that reports the role master, and keeps to it while it has that role.

    Each host has TIMEOUT_SECONDS to connect and again to answer, since a frozen server still accepts connections. All
    connections of a client share ``hosts``; the master that was found stands first.
    """

    def __init__(self, *, hosts: list[tuple[str, int]], **options: Any) -> None:
        self._hosts = hosts
        super().__init__(**options)

    def connect_check_health(self, *arguments: Any, **options: Any) -> None:
        """redis-py's way to connect, also used before a command. Raises ConnectionError with the reason of every host."""
        connection: Any = self
        if connection.is_connected or len(self._hosts) == 1:
            super().connect_check_health(*arguments, **options)  # type: ignore[misc]
            return
        reasons = []
        seconds, connection.socket_timeout = connection.socket_timeout, TIMEOUT_SECONDS
        try:
            places = list(self._hosts)
            for place in places:
                connection.host, connection.port = place
                try:
                    super().connect_check_health(*arguments, **options)  # type: ignore[misc]
                except AWAY as error:
                    reasons.append(str(error))
                    continue
                connection._sock.settimeout(seconds)  # noqa: SLF001 - redis-py leaves the connect time-out on it
                if self._hosts[0] != place:
                    # One assignment: a list that is being sorted looks empty to other threads that connect.
                    self._hosts[:] = [place, *(one for one in places if one != place)]
                return
        finally:
            connection.socket_timeout = seconds
        raise redis.exceptions.ConnectionError("; ".join(reasons))

    def on_connect_check_health(self, *arguments: Any, **options: Any) -> None:
        """redis-py's greeting, before it subscribes again. HELLO, which every user may call, tells whether this is a master."""
        super().on_connect_check_health(*arguments, **options)  # type: ignore[misc]
        if len(self._hosts) > 1:
            self._check_master()

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """redis-py's. A server that says that it is a replica is disconnected, so that the next command finds the master."""
        try:
            return super().read_response(*arguments, **options)  # type: ignore[misc]
        except redis.exceptions.ReadOnlyError:
            if len(self._hosts) > 1:
                connection: Any = self
                connection.disconnect()
            raise

    def _check_master(self) -> None:
        """Raises ConnectionError when the server is not a master."""
        connection: Any = self
        connection.send_command("HELLO", check_health=False)
        try:
            reply: list[Any] = connection.read_response()
        except redis.exceptions.ResponseError:  # HELLO is not permitted: the first write will tell
            return
        role = dict(zip(reply[::2], reply[1::2], strict=True)).get(b"role", b"").decode()
        if role != "master":
            raise redis.exceptions.ConnectionError(
                f"{connection.host}:{connection.port} is a {role}, and takes no writes"
            )


class _AnyHost(_Hosts, redis.Connection):
    """Over TCP."""


class _AnyHostTLS(_Hosts, redis.SSLConnection):
    """Over TLS."""


class _Lifo:
    """The parts of ``queue.LifoQueue`` that a pool uses, at a quarter of its cost."""

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self.queue: list[Any] = []
        self._there: queue.SimpleQueue[None] = queue.SimpleQueue()  # one item for each in the list

    def put_nowait(self, one: Any) -> None:
        """Adds one. Raises ``queue.Full``."""
        if len(self.queue) >= self._maxsize:
            raise queue.Full
        self.queue.append(one)
        self._there.put(None)

    def get(self, timeout: float) -> Any:
        """Waits for one, and takes the one that was added last. Raises ``queue.Empty``."""
        self._there.get(timeout=timeout)
        return self.queue.pop()


class _Pool(redis.BlockingConnectionPool):
    """redis-py's, without the metrics that it keeps of each connection: they took longer than a command and its reply."""

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """redis-py's: a connection that is connected, and on which no reply is left over."""
        self._checkpid()
        try:
            connection = self.pool.get(timeout=self.timeout)
        except queue.Empty:
            raise redis.exceptions.ConnectionError("No connection available.") from None
        connection = connection or self.make_connection()  # type: ignore[no-untyped-call]
        try:
            if not _is_fresh(connection):
                connection.disconnect()
                connection.connect()
        except BaseException:
            self.release(connection)
            raise
        return connection

    def release(self, connection: Any) -> None:
        """redis-py's. A connection that was made before a fork is not this process's."""
        self._checkpid()
        if not self.owns_connection(connection):
            connection.disconnect()
            connection = None
        self.pool.put_nowait(connection)


def _is_fresh(connection: Any) -> bool:
    try:
        return connection.is_connected and not connection.can_read(timeout=0)
    except (*AWAY, OSError):
        return False


def open_redis(url: str, *, name: str, block_seconds: float = 0.0, connections: int = 64) -> redis.Redis:
    """A client of the first host in ``url`` (``regions.hosts``) that is a master. It connects on first use.

    ``name`` is shown by ``CLIENT LIST``. ``block_seconds`` is how long the client's blocking calls may block; its time-out
    is ``TIMEOUT_SECONDS`` longer. Raises ValueError when ``url`` is not a Redis URL.
    """
    parsed: list[dict[str, Any]] = [
        redis.connection.parse_url(one)  # type: ignore[no-untyped-call]
        for one in hosts.split(url, "redis")
    ]
    places = [(one.pop("host"), one.pop("port", 6379)) for one in parsed]
    is_tls = parsed[0].pop("connection_class", None) is redis.SSLConnection
    pool = _Pool(  # type: ignore[no-untyped-call]
        **parsed[0],
        host=places[0][0],
        port=places[0][1],
        connection_class=_AnyHostTLS if is_tls else _AnyHost,
        queue_class=_Lifo,
        hosts=places,
        max_connections=connections,
        timeout=TIMEOUT_SECONDS,
        client_name=name,
        driver_info=None,  # to say it takes two round trips
        socket_timeout=block_seconds + TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        socket_keepalive=True,
        socket_keepalive_options={getattr(socket, option): value for option, value in KEEPALIVE.items()},
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,
    )
    return redis.Redis.from_pool(pool)  # so that close() closes the connections


class Subscription(redis.client.PubSub):
    """A subscription that notices a server that is gone, though it never sends anything by itself: it pings, and may be told to doubt."""

    def __init__(self, client: redis.Redis, *, ping_seconds: float = PING_SECONDS) -> None:
        """``ping_seconds``: between two pings at least."""
        self._resetting = threading.Lock()
        self._ping_seconds = ping_seconds
        super().__init__(client.connection_pool)
        self._heard = self._asked = time.monotonic()

    def get_message(self, ignore_subscribe_messages: bool = False, timeout: float = 0.0) -> Any:
        """redis-py's. Raises ConnectionError when the server was silent for DEAF_SECONDS.

        The next call then connects and subscribes again.
        """
        message = super().get_message(ignore_subscribe_messages, timeout)
        now = time.monotonic()
        if self._asked > self._heard < now - DEAF_SECONDS:
            self._heard = now
            if self.connection is not None:
                self.connection.disconnect()
            raise redis.exceptions.ConnectionError(f"the server was silent for {DEAF_SECONDS:g} s")
        if now - self._asked > self._ping_seconds:
            self._asked = now
            self.ping()
        return message

    def doubt(self) -> None:
        """The server did not answer elsewhere: the thread that reads connects and subscribes again. Any thread may call it."""
        connection: Any = self.connection
        sock = connection._sock if connection is not None else None  # noqa: SLF001 - redis-py has no public way
        if sock is not None:
            with contextlib.suppress(OSError):  # it was lost at this moment
                sock.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """redis-py's. The thread that reads calls it at its end, and the owner may call it at the same moment."""
        with self._resetting:
            super().reset()

    def handle_message(self, response: Any, ignore_subscribe_messages: bool = False) -> Any:
        """redis-py's. Pongs arrive here, too."""
        self._heard = time.monotonic()
        return super().handle_message(response, ignore_subscribe_messages)  # type: ignore[no-untyped-call]


def redis_now_ms(client: redis.Redis) -> int:
    """The server's clock in milliseconds since the epoch."""
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def info(reply: bytes) -> dict[str, str]:
    """The lines of a reply to INFO, by their names. redis-py's own parser takes ten times as long, and some call it each second."""
    lines = (line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)
    return {name: text for name, text in lines}  # noqa: C416 - mypy takes a list for no pair


def check_redis(client: redis.Redis, what: str) -> None:
    """Raises ``TooOld`` for a server older than ``REDIS_FLOOR``."""
    version = str(client.info("server")["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < REDIS_FLOOR:
        floor = ".".join(map(str, REDIS_FLOOR))
        raise TooOld(f"{what}: expected Redis {floor} or later, found {version}")


class _Heartbeat(pika.heartbeat.HeartbeatChecker):
    """pika's own checks only every HEARTBEAT_SECONDS + 5, and so would need up to 16 s to notice a dead broker."""

    _timeout: float

    @property
    def _check_interval(self) -> float:
        return self._timeout + 1

    @_check_interval.setter
    def _check_interval(self, _pikas: float) -> None:
        """Ignores pika's value, for which there is no setting."""


class Broker(SelectConnection):
    """A RabbitMQ connection that notices a dead broker within 10 s; ``BlockingConnection`` uses it inside, too."""

    def _create_heartbeat_checker(self) -> pika.heartbeat.HeartbeatChecker | None:
        heartbeat = self.params.heartbeat
        return _Heartbeat(self, heartbeat) if isinstance(heartbeat, int) and heartbeat > 0 else None


class SharedBroker(Broker):
    """A connection on which any thread may send. Its own thread sends the bytes that the socket does not take at once.

    pika's own way has that thread send everything, which costs a wake and a turn of its loop. Over TLS it is so here, too: OpenSSL
    permits no thread to write while another one reads.
    """

    _transport: Any  # pika's, None once it is lost

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._sending = threading.Lock()
        self._handed = 0  # to its own thread, which has not taken them yet
        super().__init__(*arguments, **options)

    def _adapter_emit_data(self, data: bytes) -> None:
        """pika's, called for all that is sent."""
        with self._sending:
            transport = self._transport
            if transport is None:  # it is lost: its own thread will say so
                return
            if not self._handed and not transport.get_write_buffer_size():
                data = data[_sent(transport._sock, data) :]  # noqa: SLF001 - pika shows it to nobody
            if data:
                self._handed += 1
                self.ioloop.add_callback_threadsafe(functools.partial(self._hand_over, data))

    def _hand_over(self, data: bytes) -> None:
        """Has pika send it."""
        with self._sending:
            self._handed -= 1
            if self._transport is not None:
                self._transport.write(data)


def _sent(sock: socket.socket | None, data: bytes) -> int:
    """Sends what a socket that does not block takes at once; returns how many bytes need no other way."""
    if isinstance(sock, ssl.SSLSocket):
        return 0
    try:
        return sock.send(data) if sock is not None else len(data)
    except BlockingIOError:
        return 0
    except OSError:  # the connection is lost: its own thread will say so
        return len(data)


def open_broker(parameters: list[pika.URLParameters]) -> pika.BlockingConnection:
    """A blocking connection to the first broker that answers. Raises what ``BROKER_AWAY`` lists."""
    inner: Any = Broker
    return pika.BlockingConnection(parameters, _impl_class=inner)


def amqp_parameters(url: str, *, name: str) -> list[pika.URLParameters]:
    """Parameters for every host in ``url`` (``regions.hosts``). Raises ValueError when it is not an AMQP URL."""
    parameters = []
    for part in hosts.split(url, "amqp"):
        one = pika.URLParameters(part)
        one.heartbeat = HEARTBEAT_SECONDS
        one.blocked_connection_timeout = BLOCKED_SECONDS
        one.tcp_options = KEEPALIVE
        one.socket_timeout = 2.0
        one.stack_timeout = 4.0
        one.connection_attempts = 1
        one.client_properties = {"connection_name": name}
        parameters.append(one)
    return parameters


def check_rabbitmq(properties: dict[str, Any]) -> None:
    """Raises ``TooOld`` for a broker older than ``RABBITMQ_FLOOR``. ``properties`` are those that it sends on connecting."""
    found = properties.get("version", b"0")
    version = found.decode() if isinstance(found, bytes) else str(found)
    if tuple(int(part) for part in version.split(".")[:2]) < RABBITMQ_FLOOR:
        floor = ".".join(map(str, RABBITMQ_FLOOR))
        raise TooOld(f"broker: expected RabbitMQ {floor} or later, found {version}")


def open_mongo(url: str, *, name: str) -> Any:
    """A ``pymongo.MongoClient`` of ``url``. It connects on first use; a write returns once a majority has it on disk.

    Calls raise pymongo's errors, after ``MONGO_SECONDS`` when no server answers. Raises ValueError when ``url`` is not a URL.
    """
    import pymongo  # noqa: PLC0415 - slow to import, and only the gateway needs it

    milliseconds = int(MONGO_SECONDS * 1000)
    try:
        return pymongo.MongoClient(
            url,
            appname=name,
            connect=False,
            maxPoolSize=8,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            retryWrites=False,  # our own code repeats writes, by id
            retryReads=False,
            serverMonitoringMode="poll",  # streams keep two threads here and one there awake; whoever calls notices a change anyway
            w="majority",
            journal=True,
            tz_aware=True,
        )
    except (pymongo.errors.PyMongoError, OSError) as error:  # OSError: a file of a certificate that can't be read
        raise ValueError(f"expected a MongoDB URL: {without_password(str(error))}") from error


def without_password(url: str) -> str:
    """A URL, or several with commas, without passwords, for logs and people. Those of keys stand in its query."""
    shown = []
    for part in url.split(","):
        scheme, separator, rest = part.strip().rpartition("://")
        shown.append(scheme + separator + _PASSWORD.sub(r"\1***", rest.rpartition("@")[2]))
    return ",".join(shown)
