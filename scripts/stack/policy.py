"""Checks the queues' policy through RabbitMQ's management plugin, since AMQP itself can't read policies."""

import base64
import http.client
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

from regions import connect, topology
from regions.durability import Shortfall
from regions.settings import Settings

SECONDS: Final = 5.0
A_LIMIT: Final = ("max-length", "max-length-bytes")  # the operator chooses the value


class Unreadable(RuntimeError):  # noqa: N818
    """The management API does not answer, or does not answer as expected."""


class NoQueue(Unreadable):
    """There is no such queue."""


def virtual_host(amqp: str) -> str:
    """The virtual host of an AMQP URL."""
    return str(connect.amqp_parameters(amqp, name="check")[0].virtual_host)


def shortfalls(settings: Settings, mend: str) -> list[Shortfall]:
    """The keys that each queue's effective policy lacks. Operators' policies are part of that. Raises ``Unreadable``.

    ``mend``: the command that sets the policy.
    """
    vhost = urllib.parse.quote(virtual_host(settings.hub.amqp), safe="")
    found = []
    for queue, _, _ in topology.queues(settings.region):
        found += wrong_in(queue, effective(settings.hub.management_url, vhost, queue), mend)
    return found


def effective(url: str, vhost: str, queue: str) -> dict[str, Any]:
    """A queue's effective policy, operators' policies included. Raises ``Unreadable``, and ``NoQueue`` when there is none."""
    shown = get(url, f"/api/queues/{vhost}/{queue}")
    definition = shown.get("effective_policy_definition") if isinstance(shown, dict) else None
    # no policy, or an empty one, which RabbitMQ shows as a list
    return definition if isinstance(definition, dict) else {}


def wrong_in(queue: str, policy: Mapping[str, Any], mend: str) -> list[Shortfall]:
    """The keys that a queue's effective policy lacks, or has with another value."""
    found = []
    for key, expected in topology.POLICY.items():
        value = policy.get(key)
        is_kept = isinstance(value, int) and value > 0 if key in A_LIMIT else value == expected
        if not is_kept:
            shown = "a limit" if key in A_LIMIT else str(expected)
            found.append(Shortfall(f"{queue}: {key}", shown, "nothing" if value is None else str(value), mend))
    return found


def get(url: str, path: str) -> Any:
    """What a path of the management API shows: an object or a list. Raises ``Unreadable``."""
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    user, password = (urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    connection = kind(parts.netloc.rpartition("@")[2], timeout=SECONDS)
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers={"Authorization": f"Basic {credentials}"})
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unreadable(f"it does not answer: {error}") from error
    finally:
        connection.close()
    if response.status == http.client.NOT_FOUND:
        raise NoQueue(f"there is no queue {path.rpartition('/')[2]} yet; a gateway declares it when it starts")
    if response.status != http.client.OK:
        raise Unreadable(f"expected 200, found {response.status} {response.reason}")
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict | list):
        raise Unreadable(f"expected a JSON object or list, found {content[:60]!r}")
    return answer
