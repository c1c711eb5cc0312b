"""The broker's exchanges and queues.

Only the hub declares them. A queue's arguments can never be changed, so it has one, ``x-queue-type``. Everything else is in
one policy. AMQP can't set policies: rabbitmqctl does, or the definitions file that a node loads.
"""

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final

from regions import names

POLICY_NAME: Final = "nearfetch"
POLICY_PATTERN: Final = r"^q\."
QUEUE_LENGTH_MAX: Final = 1_000_000
QUEUE_BYTES_MAX: Final = 1_000_000_000  # bodies only; a message of the shipped sources has about 600 bytes
CONNECTIONS_MAX: Final = 200  # for the bridges of one region

POLICY: Final[dict[str, Any]] = {
    "delivery-limit": -1,  # a death of the consumer counts as a delivery: with the default limit a message was gone after 21
    "overflow": "reject-publish",  # without it, at-least-once dead-lettering silently becomes at-most-once
    "max-length": QUEUE_LENGTH_MAX,
    "max-length-bytes": QUEUE_BYTES_MAX,
    "dead-letter-exchange": names.DEAD_EXCHANGE,
    "dead-letter-strategy": "at-least-once",
}

QUORUM: Final[dict[str, Any]] = {"x-queue-type": "quorum"}


def policy_command(vhost: str = "/") -> list[str]:
    """The rabbitmqctl arguments that set the policy."""
    return ["set_policy", "-p", vhost, POLICY_NAME, POLICY_PATTERN, json.dumps(POLICY), "--apply-to", "queues"]


def region_rights(region: str) -> dict[str, str]:
    """What a region's user may do on the broker, as RabbitMQ's patterns: read the region's two queues, and nothing else."""
    queues = "|".join(re.escape(queue) for queue in (names.work_queue(region), names.fast_queue(region)))
    return {"configure": "^$", "write": "^$", "read": f"^({queues})$"}


def exchanges() -> list[tuple[str, str]]:
    """(name, type) of every exchange; all are durable."""
    return [(names.TASKS_EXCHANGE, "direct"), (names.DEAD_EXCHANGE, "fanout")]


def queues(regions: Iterable[str]) -> list[tuple[str, str, str]]:
    """(queue, exchange, routing key) of every queue; all are durable quorum queues."""
    found = [(names.DEAD_QUEUE, names.DEAD_EXCHANGE, "")]
    for region in regions:
        found.append((names.work_queue(region), names.TASKS_EXCHANGE, names.routing_key(region, fast=False)))
        found.append((names.fast_queue(region), names.TASKS_EXCHANGE, names.routing_key(region, fast=True)))
    return found


def definitions(owner: str, password: str, regions: Mapping[str, str]) -> dict[str, Any]:
    """A RabbitMQ definitions file (``load_definitions``): the policy, the gateways' user and a user for each region.

    ``regions``: each region's password.
    """
    rights = {owner: {"configure": ".*", "write": ".*", "read": ".*"}}
    found: list[dict[str, Any]] = [{**_hashed(password), "name": owner, "tags": ["administrator"]}]
    for region, word in regions.items():
        user = names.hub_user(region)
        found.append({**_hashed(word), "name": user, "tags": [], "limits": {"max-connections": CONNECTIONS_MAX}})
        rights[user] = region_rights(region)
    permissions = [{"user": user, "vhost": "/", **of} for user, of in rights.items()]
    policy = {
        "vhost": "/", "name": POLICY_NAME, "pattern": POLICY_PATTERN, "definition": POLICY, "priority": 0, "apply-to": "queues",
    }  # fmt: skip
    return {"vhosts": [{"name": "/"}], "users": found, "permissions": permissions, "policies": [policy]}


def _hashed(password: str) -> dict[str, str]:
    """The hash that RabbitMQ stores: rabbitmq.com/docs/passwords#computing-password-hash."""
    salt = secrets.token_bytes(4)
    made = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
    return {"password_hash": made, "hashing_algorithm": "rabbit_password_hashing_sha256"}
