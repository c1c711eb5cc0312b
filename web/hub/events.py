"""What happened to each region, kept at the hub: the last hundred events, for people."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import redis
from msgspec import Struct

from regions import names
from regions.script import send, value

KEPT: Final = 100  # events of a region
KEPT_SECONDS: Final = 30 * 86_400  # after the last one
MESSAGE_MAX: Final = 300  # characters

# The kinds of a fault's beginning and end, for those that have a word of their own.
KINDS: Final = {
    "region-taken-over": ("taken-over", "back"),
    "region-barred": ("quarantined", "let-in"),
    "region-bridge-paused": ("paused", "resumed"),
    "region-redis-away": ("paused", "resumed"),
    "region-redis-full": ("paused", "resumed"),
    "region-redis-refuses-writes": ("paused", "resumed"),
    "region-redis-not-durable": ("paused", "resumed"),
    "region-backlog": ("paused", "resumed"),
    "region-rabbitmq-away": ("paused", "resumed"),
    "region-bridge-restarts": ("restarted", "over"),
    "region-workers-restarts": ("restarted", "over"),
    "source-failing": ("breaker-opened", "breaker-closed"),
}
OTHERS: Final = ("fault", "over")


class Event(Struct, frozen=True):
    """One event: when (hub ms), of which kind, and a sentence."""

    at_ms: int
    kind: str
    message: str


_event: Final = msgspec.json.Decoder(Event)


def note(client: redis.Redis, noted: Sequence[tuple[str, Event]]) -> None:
    """Adds events, each to its region's. Raises what redis-py raises."""
    commands: list[tuple[Any, ...]] = []
    for region, event in noted:
        key, kept = names.region_events(region), msgspec.structs.replace(event, message=event.message[:MESSAGE_MAX])
        commands += [
            ("LPUSH", key, msgspec.json.encode(kept)),
            ("LTRIM", key, 0, KEPT - 1),
            ("EXPIRE", key, KEPT_SECONDS),
        ]
    for reply in send(client, commands, []) if commands else ():
        value(reply)


def read(client: redis.Redis, region: str) -> list[Event]:
    """The events of a region, newest first. Raises what redis-py raises."""
    found: Any = value(send(client, [("LRANGE", names.region_events(region), 0, KEPT - 1)], [])[0])
    return [_event.decode(text) for text in found]


def read_latest(client: redis.Redis, regions: Sequence[str], most: int) -> dict[str, list[Event]]:
    """The latest events of each region, in one round trip. Raises what redis-py raises."""
    replies = send(client, [("LRANGE", names.region_events(region), 0, most - 1) for region in regions], [])
    return {
        region: [_event.decode(text) for text in value(reply)] for region, reply in zip(regions, replies, strict=True)
    }
