"""What happened to each region, kept at the hub: the last hundred events, for people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import redis
from msgspec import Struct

from regions import names
from regions.script import send, value
from web.hub.faults import Fault
from web.hub.region import RegionState, parts_of
from web.hub.takeover import DRAINED, Record

KEPT: Final = 100  # events of a region
KEPT_SECONDS: Final = 30 * 86_400  # after the last one
MESSAGE_MAX: Final = 300  # characters
YOUNG_MS: Final = 60_000  # since its start, for a part that is seen for the first time
PARTS: Final = {"bridge": "a bridge", "workers": "a pool of workers"}

# The kinds of a fault's beginning and end, for those that have a word of their own.
KINDS: Final = {
    "region-taken-over": ("taken-over", "over"),
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


def of_faults(at_ms: int, began: Iterable[Fault], ended: Iterable[Fault]) -> list[tuple[str, Event]]:
    """The events of faults that began or ended, each with its region."""
    noted = [(one, 0, "") for one in began] + [(one, 1, "over: ") for one in ended]
    return [
        (one.region, Event(at_ms, KINDS.get(one.name, OTHERS)[which], begin + of_source(one)))
        for one, which, begin in noted
        if one.region
    ]


def of_source(fault: Fault) -> str:
    """The message of a fault, after the source that it is about."""
    return f"{fault.source}: {fault.message}" if fault.source else fault.message


class Happened:
    """Finds events by comparing reports of regions with earlier ones: they are no faults, or over before anybody looks."""

    def __init__(self) -> None:
        self._lost: dict[tuple[str, str], int] = {}  # worker processes that died, by region and pool
        self._parts: dict[str, set[str]] = {}  # by region
        self._drained: set[str] = set()
        self._away: set[str] = set()  # regions that lost their tasks
        self._is_first = True

    def see(self, states: Mapping[str, RegionState], records: Mapping[str, Record]) -> list[tuple[str, Event]]:
        """What happened since the last call."""
        found: list[tuple[str, Event]] = []
        for region, state in states.items():
            found += [(region, Event(state.now_ms, *one)) for one in self._of_region(state)]
            is_drained = region in records and records[region].why == DRAINED
            if is_drained != (region in self._drained) and not self._is_first:
                how = ("drained", "an operator drains it") if is_drained else ("resumed", "it gets its new tasks again")
                found.append((region, Event(state.now_ms, *how)))
            (self._drained.add if is_drained else self._drained.discard)(region)
            if region in self._away and region not in records:
                found.append((region, Event(state.now_ms, "back", "it gets its new tasks again")))
        self._away = {region for region, record in records.items() if record.why != DRAINED}
        self._is_first = False
        return found

    def _of_region(self, state: RegionState) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        before = self._parts.get(state.name)
        parts = dict(parts_of(state.reported))
        for key, status in sorted(parts.items()):
            place = (state.name, key)
            lost, known = status.get("lost", 0), self._lost.get(place)
            if known is not None and lost > known:
                found.append(("lost-worker", f"lost {lost - known} of its worker processes: {status.get('death', '')}"))
            self._lost[place] = lost
            is_young = state.now_ms - status.get("started_ms", 0) < YOUNG_MS
            if before is not None and key not in before and is_young:
                part, _, name = key.partition(":")
                found.append(("restarted", f"{PARTS[part]} started: {name}"))
        self._parts[state.name] = set(parts)
        self._lost = {place: lost for place, lost in self._lost.items() if place[0] != state.name or place[1] in parts}
        return found


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
