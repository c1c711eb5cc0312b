"""The broker's exchanges and queues.

The hub alone declares them. Arguments of a queue can never be changed, so there is one, ``x-queue-type``, and everything
else is one policy, set by rabbitmqctl, since policies can't be set over AMQP.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from regions import names

POLICY_NAME: Final = "nearfetch"
POLICY_PATTERN: Final = r"^q\."
QUEUE_LENGTH_MAX: Final = 1_000_000

POLICY: Final[dict[str, Any]] = {
    "delivery-limit": -1,  # deaths of consumers count as deliveries: a message was gone after 21
    "overflow": "reject-publish",  # without it at-least-once dead-lettering is silently at-most-once
    "max-length": QUEUE_LENGTH_MAX,
    "dead-letter-exchange": names.DEAD_EXCHANGE,
    "dead-letter-strategy": "at-least-once",
}

QUORUM: Final[dict[str, Any]] = {"x-queue-type": "quorum"}


def policy_command(vhost: str = "/") -> list[str]:
    """The rabbitmqctl arguments that set the policy."""
    return ["set_policy", "-p", vhost, POLICY_NAME, POLICY_PATTERN, json.dumps(POLICY), "--apply-to", "queues"]


def region_rights(region: str) -> dict[str, str]:
    """What a region's user may do on the broker, as RabbitMQ's patterns: read its own two queues, and nothing else."""
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
