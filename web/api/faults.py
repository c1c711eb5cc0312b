"""What is wrong now: ``GET /v1/faults``, and a line in the log when a fault begins and when it ends.

A thread of each gateway looks every second or two at what the parts of the gateway know, and at what the regions reported.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import redis

from jobs.contract import rfc3339
from jobs.definition.catalog import Catalog, Entry
from regions import logs, names
from regions.loop import Loop
from regions.script import send, value
from regions.settings import Settings
from web.api.region_view import differing, event_view, unknown_region
from web.api.source_view import health_of
from web.api.views import JSON
from web.flow.publish import Publisher
from web.flow.takeover import Takeover
from web.http.answer import Answer
from web.http.exchange import Exchange, refused
from web.http.problems import Problem
from web.hub import events, scripts
from web.hub.events import Event, Happened
from web.hub.faults import GONE, SILENT, SILENT_MS, Book, Fault, Found, Queued, is_idle, is_late, of_region
from web.hub.gateways import Presence, name_of
from web.hub.ledger import Ledger
from web.hub.redis import Hub, HubUnavailable
from web.hub.region import RegionState
from web.hub.runs import Learned, learned_of
from web.hub.takeover import DRAINED, Record
from web.hub.view import mapping

EVERY_SECONDS: Final = 1.0
CALM_SECONDS: Final = 2.0  # the same while nothing is wrong, nor seems to be
SOURCES_SECONDS: Final = 2.0  # between two looks at the sources, at least
DIFFERS_SECONDS: Final = 4.0  # for how long definitions must differ: a new file reaches some hosts before others
LATE_SECONDS: Final = 5.0  # for how long a region must be late
IDLE_SECONDS: Final = 4.0  # for how long a bridge must get nothing
GAP_SECONDS: Final = 4.0  # a gateway that stood still for longer has not read what regions reported meanwhile
LEASE_MS: Final = 5_000
SHOWN_MAX: Final = 200  # characters of a reason in a message
# A bridge that has just started says for a moment that it is not connected yet.
SETTLING: Final = ("region-bridge-paused", "region-rabbitmq-away", "region-queue-away")
SETTLING_SECONDS: Final = 1.5

Told = Callable[[], Iterable[Found]]

log = logs.get("faults")


class Faults:
    """The faults that this gateway knows of. ``told``: its parts, each of which says what is wrong with it."""

    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        ledger: Ledger,
        catalog: Catalog,
        takeover: Takeover,
        publisher: Publisher,
        told: Sequence[Told],
    ) -> None:
        self._regions, self._hub, self._ledger = settings.region, hub, ledger
        self._catalog, self._takeover, self._told = catalog, takeover, told
        self._publisher = publisher
        self._presence = Presence(name_of(settings))
        self._me = f"gateway {self._presence.name}"
        self._book, self._happened = Book(), Happened()
        self._of_hub: list[Found] = []  # what the hub knew at the last look that it answered
        self._answers_since: float | None = None  # since when it answers every look (monotonic)
        self._looked_at = 0.0  # when it last answered
        self._of_sources: list[Found] = []
        self._sources_at = 0.0
        self._passing: dict[Found, float] = {}  # what is no fault yet: since when it is so (monotonic)
        self._changes = logs.Changes()
        self._loop = Loop("faults", self._turn, last=self._leave)

    def start(self) -> None:
        """Notes that this gateway starts, and starts the thread. One that ends a moment later has started all the same."""
        with contextlib.suppress(redis.exceptions.RedisError):
            self._presence.say(self._hub.client)
        self._loop.start(EVERY_SECONDS)

    def stop(self) -> None:
        """Ends the thread."""
        self._loop.stop()

    @property
    def now(self) -> tuple[Fault, ...]:
        """The faults at the last look: those that wake somebody first, then the oldest."""
        return self._book.faults

    def answer(self, exchange: Exchange) -> Answer:
        """``GET /v1/faults``. With keys, only for an admin."""
        if not exchange.owner.sees_all:
            raise Problem("forbidden", "expected a key with the scope admin")
        body = msgspec.json.encode({"faults": self.now, "at": rfc3339(round(time.time() * 1000))})
        return Answer(200, body, [JSON, ("Cache-Control", "no-store")])

    def events(self, region: str) -> Answer:
        """``GET /v1/regions/{region}/events``: what happened to a region, newest first."""
        if region not in self._regions:
            raise unknown_region(region, self._regions)
        with self._hub.asking() as client:
            found = [event_view(one) for one in events.read(client, region)]
        return Answer(200, msgspec.json.encode({"events": found}), [JSON, ("Cache-Control", "no-store")])

    def _turn(self) -> float:
        try:
            self.run_once()
        except Exception:
            log.exception("looking for faults failed")
        return EVERY_SECONDS if self._book.faults or self._passing else CALM_SECONDS

    def _leave(self) -> None:
        self._changes.flush(is_end=True)
        refused.flush(is_end=True)
        with contextlib.suppress(HubUnavailable), self._hub.asking() as client:
            self._presence.leave(client)

    def run_once(self) -> None:
        """Looks once, and logs what began and what ended."""
        self._publisher.look()
        found = [one for part in self._told for one in part()]
        happened: list[tuple[str, Event]] = []
        try:
            of_hub, happened = self._look_at_hub()
        except HubUnavailable:  # what was wrong is still so, as far as anybody knows
            self._answers_since = None
            of_hub = self._of_hub
        self._of_hub = of_hub
        mine = [one._replace(part=one.part or self._me) if _is_own(one) else one for one in (*found, *of_hub)]
        at_ms = round(time.time() * 1000)
        began, ended = self._book.see(at_ms, mine)
        for fault in began:
            tell = log.error if fault.severity == "page" else log.warning
            self._changes.began(_identity(fault), tell, fault.message, **_labels(fault), mend=fault.mend)
        for fault in ended:
            over = f"over: {fault.message}"
            self._changes.ended(_identity(fault), log.info, over, **_labels(fault), since=fault.since)
        self._changes.flush()
        refused.flush()
        self._note([*happened, *events.of_faults(at_ms, began, ended)])

    def _note(self, noted: Sequence[tuple[str, Event]]) -> None:
        """Notes what happened to regions at the hub, unless another gateway did a moment ago, which sees the same."""
        if not noted:
            return
        try:
            with self._hub.asking() as client:
                hold = scripts.HOLD.command(lease=names.FAULTS_TURN, who=self._me, lease_ms=LEASE_MS)
                if value(send(client, [hold], [scripts.HOLD])[0]):
                    events.note(client, noted)
        except (HubUnavailable, redis.exceptions.RedisError) as error:
            log.debug("events not noted", reason=str(error))

    def _look_at_hub(self) -> tuple[list[Found], list[tuple[str, Event]]]:
        """What the hub knows to be wrong, and what happened to regions since the last look. Raises ``HubUnavailable``."""
        is_due = time.monotonic() >= self._sources_at  # to look at the sources, too
        with self._hub.asking() as client:
            asked = [("ZCARD", names.DEAD_AT), *([("HGETALL", names.HEALTH)] if is_due else [])]
            found, (letters, *kept) = self._presence.say(client, asked)
            states = {state.name: state for state in self._ledger.regions(list(self._regions), has_traffic=False)}
            runs = learned_of(mapping(kept[0])) if kept else {}
        now = time.monotonic()
        if self._answers_since is None or now - self._looked_at > GAP_SECONDS:
            self._answers_since = now
        self._looked_at = now
        queued = self._publisher.queued
        # While the hub was away it got no reports of regions, and a gateway that has just started knows none.
        is_early = now - self._answers_since < SILENT_MS / 1000
        for name, state in states.items():
            of = of_region(state, queued.get(name))
            found += [one for one in of if one.name not in SETTLING and not (is_early and _is_silence(one))]
            found += _of_scale(state)
        found += self._taken_over(states)
        found += self._lasting(self._passing_faults(states, queued))
        if letters:
            found.append(Found("dead-letters", f"messages that nobody could read wait for an operator: {letters}"))
        if is_due:
            self._sources_at = now + SOURCES_SECONDS
            self._of_sources = list(self._look_at_sources(states, runs))
        return found + self._of_sources, self._happened.see(states, self._takeover.records)

    def _passing_faults(
        self, states: Mapping[str, RegionState], queued: Mapping[str, Queued]
    ) -> Iterable[tuple[Found, float]]:
        """Conditions that are a fault only if they last, with the seconds for which they must last."""
        for name, state in states.items():
            for one in of_region(state, queued.get(name)):
                if one.name in SETTLING:
                    yield one, SETTLING_SECONDS
            if why := is_late(state):
                yield Found("region-late", why, region=name), LATE_SECONDS
            if why := is_idle(state, queued.get(name)):
                yield Found("region-bridge-idle", why, region=name), IDLE_SECONDS
            for source, hashes in differing(state, self._own(name)).items():
                there, here = hashes["there"] or "none", hashes["here"] or "none"
                message = f"another definition: {there} in {name}, {here} at the gateway"
                yield Found("source-differs", message, region=name, source=source), DIFFERS_SECONDS
        for entry in self._catalog.entries():
            for standby, why in self._takeover.standby_faults(entry).items():
                message = f"{standby} could not take it over: {why}"[:SHOWN_MAX]
                yield Found("standby-not-ready", message, region=standby, source=entry.id), DIFFERS_SECONDS

    def _lasting(self, seen: Iterable[tuple[Found, float]]) -> list[Found]:
        """Those that were seen for long enough."""
        now, before = time.monotonic(), self._passing
        self._passing, lasting = {}, []
        for one, least in seen:
            key = one if one.name == "source-differs" else one._replace(message="")
            since = self._passing[key] = before.get(key, now)
            if now - since >= least:
                lasting.append(one)
        return lasting

    def _own(self, region: str) -> list[Entry]:
        """The sources that a region runs or may take over, and the broken ones."""
        entries = self._catalog.entries()
        return [one for one in entries if one.definition is None or region in one.definition.regions(one.region)]

    def _taken_over(self, states: Mapping[str, RegionState]) -> list[Found]:
        """The regions that lose their tasks while something is wrong with them, unless an operator wants it."""
        return [
            Found("region-taken-over", f"standbys take its new tasks, since it {_what_it_does(record)}", region=region)
            for region, record in self._takeover.records.items()
            if region in states and record.why != DRAINED and not record.well_ms
        ]

    def _look_at_sources(self, states: Mapping[str, RegionState], runs: Mapping[str, Learned]) -> Iterable[Found]:
        entries = self._catalog.entries()
        by_health = {"broken": "source-broken", "failing": "source-failing"}
        for entry in entries:
            health, reasons = health_of(entry, states, runs.get(entry.id))
            if health in by_health:
                yield Found(by_health[health], _shown(reasons), region=entry.region, source=entry.id)
            learnt, definition = runs.get(entry.id), entry.definition
            is_same = learnt is not None and definition is not None and learnt.verdict.definition == definition.hash
            if learnt is not None and is_same and learnt.verdict.reasons:
                yield Found("source-degraded", _shown(learnt.verdict.reasons), region=entry.region, source=entry.id)


def _is_silence(one: Found) -> bool:
    """Whether it is told because nothing was reported."""
    return one.name in SILENT and one.message != GONE


def _is_own(one: Found) -> bool:
    """Whether it is about this gateway."""
    return one.name.startswith("gateway-") and one.part is None


def _identity(fault: Fault) -> str:
    return f"{fault.name} {fault.region} {fault.source} {fault.part}"


def _of_scale(state: RegionState) -> list[Found]:
    scales = [pool["scale"] for key, pool in state.reported.items() if key.startswith("workers:") and "scale" in pool]
    last: dict[str, Any] = max(scales, key=lambda scale: scale["at_ms"], default={})
    fault = last.get("fault")
    return [Found("region-scale-wrong", f"its [scale] is wrong: {fault}", region=state.name)] if fault else []


def _what_it_does(record: Record) -> str:
    return record.reason if record.why.startswith("consumes") else f"is {record.reason}"


def _shown(reasons: Sequence[str]) -> str:
    return "; ".join(reasons)[:SHOWN_MAX]


def _labels(fault: Fault) -> dict[str, str]:
    labels = {"fault": fault.name, "region": fault.region, "source": fault.source, "broken": fault.part}
    return {key: of for key, of in labels.items() if of}
