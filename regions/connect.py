"""The only opener of Redis, AMQP and MongoDB connections.

Clients of Redis come without redis-py's own retries (they doubled rpush and xadd) and with explicit time-outs; only
idempotent writes are sent again, by our own code.
"""

import random
from typing import Any, Final

import pika
import pika.exceptions
import redis
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from redis.backoff import NoBackoff
from redis.retry import Retry

TIMEOUT_SECONDS: Final = 0.5  # an outage is an error after this long
HEARTBEAT_SECONDS: Final = 10
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
    """Connects to the first of several hosts that takes a connection; each try has the connect time-out."""

    def __init__(self, *, hosts: list[tuple[str, int]], **options: Any) -> None:
        self._hosts = hosts
        super().__init__(**options)

    def _connect(self) -> Any:
        for host, port in self._hosts[:-1]:
            self.host, self.port = host, port
            try:
                return super()._connect()  # type: ignore[misc]
            except (OSError, *AWAY):
                continue
        self.host, self.port = self._hosts[-1]
        return super()._connect()  # type: ignore[misc]


class _AnyHost(_Hosts, redis.Connection):
    """Over TCP."""


class _AnyHostTLS(_Hosts, redis.SSLConnection):
    """Over TLS."""


def open_redis(url: str, *, name: str, block_seconds: float = 0.0, connections: int = 64) -> redis.Redis:
    """A client of the first reachable host of ``url`` (several, with commas). Nothing is connected yet.

    ``name`` is what ``CLIENT LIST`` shows. A client for blocking calls says how long they block; its time-out is
    longer than that by ``TIMEOUT_SECONDS``. Raises ValueError for what is no Redis URL.
    """
    parsed: list[dict[str, Any]] = [
        redis.connection.parse_url(part.strip())  # type: ignore[no-untyped-call]
        for part in url.split(",")
    ]
    is_tls = parsed[0].pop("connection_class", None) is redis.SSLConnection
    pool = redis.BlockingConnectionPool(  # type: ignore[no-untyped-call]
        **parsed[0],
        connection_class=_AnyHostTLS if is_tls else _AnyHost,
        hosts=[(one.get("host", "localhost"), one.get("port", 6379)) for one in parsed],
        max_connections=connections,
        timeout=TIMEOUT_SECONDS,
        client_name=name,
        socket_timeout=block_seconds + TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,
    )
    return redis.Redis.from_pool(pool)  # so that close() closes the connections


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


def amqp_parameters(url: str, *, name: str) -> list[pika.URLParameters]:
    """Parameters for every host of ``url`` (several, with commas). A frozen broker is noticed by the heartbeat."""
    parameters = []
    for part in url.split(","):
        one = pika.URLParameters(part.strip())
        one.heartbeat = HEARTBEAT_SECONDS
        one.blocked_connection_timeout = HEARTBEAT_SECONDS
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
