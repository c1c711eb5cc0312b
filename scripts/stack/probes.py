"""Probes that tell whether a server is ready: each returns None once it is, else the reason why it is not."""

import http.client
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pika
import pymongo.errors
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout

from regions import connect

Probe = Callable[[], str | None]
PROBE_SECONDS: Final = 1.0


def always() -> str | None:
    """For a part without a port. The gateway reports whether it is there."""
    return None


def noted(pid_file: Path) -> Probe:
    """Ready when a part without a port has begun: it then notes its process."""
    return lambda: None if pid_file.exists() else "it has not begun"


def listens(port: int) -> Probe:
    """Ready when something accepts connections on this port."""

    def probe() -> str | None:
        try:
            socket.create_connection(("127.0.0.1", port), PROBE_SECONDS).close()
        except OSError as error:
            return f"port {port}: {error.strerror or error}"
        return None

    return probe


def answers(port: int, path: str) -> Probe:
    """Ready when this path answers 200."""

    def probe() -> str | None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            text = response.read(400).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return f"port {port}: {error}"
        finally:
            connection.close()
        return None if response.status == http.client.OK else f"{path} answers {response.status}: {text}"

    return probe


def broker(url: str) -> Probe:
    """Ready when a client can log in to one of the hosts. A node opens its listener last; RabbitMQ's own check takes seconds."""

    def probe() -> str | None:
        try:
            candidates = connect.amqp_parameters(url, name="probe")
        except ValueError as error:
            return str(error)
        faults = []
        for parameters in candidates:
            try:
                # pika does not say why a host can't be reached.
                socket.create_connection((parameters.host, parameters.port), PROBE_SECONDS).close()
                connection = pika.BlockingConnection(parameters)
            except AMQPConnectorStackTimeout:
                faults.append(
                    f"expected AMQP at {parameters.host}:{parameters.port}, found a server that accepts connections and sends nothing"
                )
                continue
            except connect.BROKER_AWAY as error:
                faults.append(str(error) or type(error).__name__)
                continue
            try:
                connect.check_rabbitmq(connection._impl.server_properties)  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
            except connect.TooOld as error:
                return str(error)
            finally:
                connection.close()
            return None
        return "; ".join(faults)

    return probe


def mongo(url: str) -> Probe:
    """Ready when a MongoDB, or a server that speaks its protocol, answers."""

    def probe() -> str | None:
        try:
            client = connect.open_mongo(url, name="probe")
        except ValueError as error:
            return str(error)
        with client:
            try:
                client.admin.command("ping")
            except pymongo.errors.PyMongoError as error:
                return connect.without_password(str(error)[:200])
        return None

    return probe
