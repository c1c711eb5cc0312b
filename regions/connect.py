"""The only opener of Redis, AMQP and MongoDB connections.

Clients of Redis come without redis-py's own retries (they doubled rpush and xadd) and with explicit time-outs; only
idempotent writes are sent again, by our own code.
"""

import random
import socket
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

TIMEOUT_SECONDS: Final = 0.5  # an outage is an error after this long
# A long connection whose other end is gone without a word ends within 10 s. Where nothing waits for an answer, AMQP's
# heartbeats come twice in HEARTBEAT_SECONDS (pika looks for them once in a second more, RabbitMQ waits for two), a subscription's
# pongs after PING_SECONDS; the kernel ends what a machine that is gone does not acknowledge.
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

# What a Redis raises when it, or the way to it, is away; a full or a loading one raises ResponseError's children.
AWAY: Final = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
# What pika's blocking connection raises likewise; a broker that is stopped in the handshake is none of its AMQPErrors.
BROKER_AWAY: Final = (pika.exceptions.AMQPError, AMQPConnectorException, OSError)


def refuses_writes(error: Exception) -> bool:
    """Whether a Redis that answers says that it takes no writes: it can't write its file, or is a replica."""
    is_replica = isinstance(error, redis.exceptions.ReadOnlyError)
    return is_replica or str(error).startswith(("MISCONF", "NOREPLICAS"))


def is_denied(error: Exception) -> bool:
    """Whether a Redis that answers says that its user may not do this, be it a command or one of a script."""
    return isinstance(error, redis.exceptions.NoPermissionError) or str(error).startswith("ACL failure in script")


def backoff_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row (from 1): full jitter over a ceiling that doubles up to 2 s.

    Everybody who lost a server lost it at once, and must not come back at once.
    """
    ceiling = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(max(failures, 1) - 1, 10))
    return random.uniform(BACKOFF_FIRST_SECONDS / 2, ceiling)


class TooOld(RuntimeError):  # noqa: N818
    """A server below its floor."""


class _Hosts:
    """Connects to the first of several hosts that says that it is a master, and stays with it until it is none.

    Each has the connect time-out, and the same again for its answer: a frozen one takes connections, too. The connections
    of a client share ``hosts``, in which the one that was found comes first.
    """

    def __init__(self, *, hosts: list[tuple[str, int]], **options: Any) -> None:
        self._hosts = hosts
        super().__init__(**options)

    def connect_check_health(self, *arguments: Any, **options: Any) -> None:
        """How redis-py connects, also before a command; raises ConnectionError with every host's reason."""
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
                connection._sock.settimeout(seconds)  # noqa: SLF001 - redis-py gives it the time-out of the connect
                if self._hosts[0] != place:
                    # At once: a list that is being sorted looks empty to the other threads that connect.
                    self._hosts[:] = [place, *(one for one in places if one != place)]
                return
        finally:
            connection.socket_timeout = seconds
        raise redis.exceptions.ConnectionError("; ".join(reasons))

    def on_connect_check_health(self, *arguments: Any, **options: Any) -> None:
        """redis-py's greeting, before it subscribes again; HELLO says to whoever may connect whether it is a master."""
        super().on_connect_check_health(*arguments, **options)  # type: ignore[misc]
        if len(self._hosts) > 1:
            self._check_master()

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """redis-py's; who says that it is a replica is left, so that the next command finds the master."""
        try:
            return super().read_response(*arguments, **options)  # type: ignore[misc]
        except redis.exceptions.ReadOnlyError:
            if len(self._hosts) > 1:
                connection: Any = self
                connection.disconnect()
            raise

    def _check_master(self) -> None:
        """Raises ConnectionError where it is none."""
        connection: Any = self
        connection.send_command("HELLO", check_health=False)
        try:
            said: list[Any] = connection.read_response()
        except redis.exceptions.ResponseError:  # not permitted: the first write will tell
            return
        role = dict(zip(said[::2], said[1::2], strict=True)).get(b"role", b"").decode()
        if role != "master":
            raise redis.exceptions.ConnectionError(
                f"{connection.host}:{connection.port} is a {role}, and takes no writes"
            )


class _AnyHost(_Hosts, redis.Connection):
    """Over TCP."""


class _AnyHostTLS(_Hosts, redis.SSLConnection):
    """Over TLS."""


def open_redis(url: str, *, name: str, block_seconds: float = 0.0, connections: int = 64) -> redis.Redis:
    """A client of the first host of ``url`` (``regions.hosts``) that is a master. Nothing is connected yet.

    ``name`` is what ``CLIENT LIST`` shows. A client for blocking calls says how long they block; its time-out is
    longer than that by ``TIMEOUT_SECONDS``. Raises ValueError for what is no Redis URL.
    """
    parsed: list[dict[str, Any]] = [
        redis.connection.parse_url(one)  # type: ignore[no-untyped-call]
        for one in hosts.split(url, "redis")
    ]
    places = [(one.pop("host"), one.pop("port", 6379)) for one in parsed]
    is_tls = parsed[0].pop("connection_class", None) is redis.SSLConnection
    pool = redis.BlockingConnectionPool(  # type: ignore[no-untyped-call]
        **parsed[0],
        host=places[0][0],
        port=places[0][1],
        connection_class=_AnyHostTLS if is_tls else _AnyHost,
        hosts=places,
        max_connections=connections,
        timeout=TIMEOUT_SECONDS,
        client_name=name,
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
    """A subscription of ``client`` that asks whether the other end is there: it would never send anything otherwise."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client.connection_pool)
        self._heard = self._asked = time.monotonic()

    def get_message(self, ignore_subscribe_messages: bool = False, timeout: float = 0.0) -> Any:
        """redis-py's. Raises ConnectionError, and connects and subscribes again with the next call, where nothing is heard."""
        message = super().get_message(ignore_subscribe_messages, timeout)
        now = time.monotonic()
        if now - self._heard > DEAF_SECONDS:
            self._heard = now
            if self.connection is not None:
                self.connection.disconnect()
            raise redis.exceptions.ConnectionError("nothing was heard from the other end")
        if now - self._asked > PING_SECONDS:
            self._asked = now
            self.ping()
        return message

    def handle_message(self, response: Any, ignore_subscribe_messages: bool = False) -> Any:
        """redis-py's; pongs come here, too."""
        self._heard = time.monotonic()
        return super().handle_message(response, ignore_subscribe_messages)  # type: ignore[no-untyped-call]


def redis_now_ms(client: redis.Redis) -> int:
    """The server's clock in milliseconds since the epoch."""
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def check_redis(client: redis.Redis, what: str) -> None:
    """Refuses a server below the floor."""
    version = str(client.info("server")["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < REDIS_FLOOR:
        floor = ".".join(map(str, REDIS_FLOOR))
        raise TooOld(f"{what}: expected Redis {floor} or later, found {version}")


class _Heartbeat(pika.heartbeat.HeartbeatChecker):
    """pika's, which looks every HEARTBEAT_SECONDS and five more, and so would need up to 16 s."""

    _timeout: float

    @property
    def _check_interval(self) -> float:
        return self._timeout + 1

    @_check_interval.setter
    def _check_interval(self, _pikas: float) -> None:
        """There is no setting for it."""


class Broker(SelectConnection):
    """A connection to RabbitMQ that notices within 10 s that nobody is there; also ``BlockingConnection``'s inner one."""

    def _create_heartbeat_checker(self) -> pika.heartbeat.HeartbeatChecker | None:
        heartbeat = self.params.heartbeat
        return _Heartbeat(self, heartbeat) if isinstance(heartbeat, int) and heartbeat > 0 else None


def open_broker(parameters: list[pika.URLParameters]) -> pika.BlockingConnection:
    """A blocking connection to the first of these that answers; raises ``BROKER_AWAY``'s."""
    inner: Any = Broker
    return pika.BlockingConnection(parameters, _impl_class=inner)


def amqp_parameters(url: str, *, name: str) -> list[pika.URLParameters]:
    """Parameters for every host of ``url`` (``regions.hosts``). Raises ValueError for what is no AMQP URL."""
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
    """Refuses a broker below the floor, by what it says of itself when a connection opens."""
    found = properties.get("version", b"0")
    version = found.decode() if isinstance(found, bytes) else str(found)
    if tuple(int(part) for part in version.split(".")[:2]) < RABBITMQ_FLOOR:
        floor = ".".join(map(str, RABBITMQ_FLOOR))
        raise TooOld(f"broker: expected RabbitMQ {floor} or later, found {version}")


def open_mongo(url: str, *, name: str) -> Any:
    """A ``pymongo.MongoClient`` of ``url``. Nothing is connected yet; what it writes is on a majority's disks.

    It raises what pymongo raises, after ``MONGO_SECONDS`` when nobody answers. Raises ValueError for what is no URL.
    """
    import pymongo  # noqa: PLC0415 - only the gateway needs it, and every part would pay for it

    milliseconds = int(MONGO_SECONDS * 1000)
    try:
        return pymongo.MongoClient(
            url,
            appname=name,
            connect=False,
            maxPoolSize=8,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            retryWrites=False,  # our own code writes again, by ids
            retryReads=False,
            w="majority",
            journal=True,
            tz_aware=True,
        )
    except pymongo.errors.PyMongoError as error:
        raise ValueError(f"expected a MongoDB URL: {without_password(str(error))}") from error


def without_password(url: str) -> str:
    """A URL (or several, with commas) as logs and people may see it."""
    shown = []
    for part in url.split(","):
        scheme, separator, rest = part.strip().rpartition("://")
        shown.append(scheme + separator + rest.rpartition("@")[2])
    return ",".join(shown)
