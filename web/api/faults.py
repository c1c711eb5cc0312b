"""What is wrong now: ``GET /v1/faults``, and a line in the log when a fault begins and when it ends.

A thread of each gateway looks once a second at what the parts of the gateway know, and at what the regions reported.
"""

import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from jobs.contract import rfc3339
from jobs.definition.catalog import Catalog, Entry
from regions import logs, names
from regions.loop import Loop
from regions.script import send, value
from regions.settings import Settings
from web.api.overview import differing, event_view, health_of, unknown_region
from web.api.views import JSON
from web.flow.dead import DeadLetters
from web.flow.takeover import Takeover
from web.http.exchange import Answer, Exchange
from web.http.problems import Problem
from web.hub import events, scripts
from web.hub.events import Event
from web.hub.faults import SILENT_MS, Book, Fault, Found, of_region
from web.hub.ledger import Ledger
from web.hub.redis import Hub, HubUnavailable
from web.hub.region import RegionState
from web.hub.runs import Learned, learned
from web.hub.takeover import DRAINED

EVERY_SECONDS: Final = 1.0
SOURCES_SECONDS: Final = 2.0  # between two looks at the sources
DIFFERS_SECONDS: Final = 5.0  # for how long definitions must differ: a new file reaches some hosts before others
LEASE_MS: Final = 5_000
SHOWN_MAX: Final = 200  # characters of a reason in a message
SILENT: Final = ("region-down", "region-bridge-away", "region-workers-away")  # regions may have reported in vain

Told = Callable[[], Iterable[Found]]

log = logs.get("faults")


class Faults:
    """The faults that this gateway knows of. ``told``: its parts, each of which says what is wrong with it."""

    def __init__(
        self, settings: Settings, hub: Hub, ledger: Ledger, catalog: Catalog, takeover: Takeover, told: Sequence[Told]
    ) -> None:
        self._regions, self._hub, self._ledger = settings.region, hub, ledger
        self._catalog, self._takeover, self._told = catalog, takeover, told
        self._me = f"gateway {socket.gethostname()}:{settings.gateway.port}"
        self._dead = DeadLetters(hub.client)
        self._book = Book()
        self._of_regions: list[Found] = []  # at the last look that the hub answered
        self._answers_since: float | None = None  # since when the hub answers every look (monotonic)
        self._of_sources: list[Found] = []
        self._sources_at = 0.0
        self._differs: dict[tuple[str, str, str, str], float] = {}  # since when (monotonic)
        self._loop = Loop("faults", self._turn)

    def start(self) -> None:
        """Starts the thread."""
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

    def _turn(self) -> float:
        try:
            self.run_once()
        except Exception:
            log.exception("looking for faults failed")
        return EVERY_SECONDS

    def run_once(self) -> None:
        """Looks once, and logs what began and what ended."""
        found = [one for part in self._told for one in part()]
        try:
            found += self._look_at_regions()
        except HubUnavailable:  # what was wrong with the regions is still so, as far as anybody knows
            self._answers_since = None
            found += [*self._of_regions, *self._of_sources]
        mine = [one if one.region or one.source or one.part else one._replace(part=self._me) for one in found]
        began, ended = self._book.see(round(time.time() * 1000), mine)
        for fault in began:
            tell = log.error if fault.severity == "page" else log.warning
            tell(fault.message, **_labels(fault), mend=fault.mend)
        for fault in ended:
            log.info("over", **_labels(fault), was=fault.message, since=fault.since)
        self._note(began, ended)

    def _note(self, began: Sequence[Fault], ended: Sequence[Fault]) -> None:
        """Notes what happened to regions at the hub, if it is this gateway's turn."""
        at_ms = round(time.time() * 1000)
        noted = [(one.region, Event(at_ms, event_kind(one, 0), one.message)) for one in began if one.region]
        noted += [(one.region, Event(at_ms, event_kind(one, 1), f"over: {one.message}")) for one in ended if one.region]
        try:
            with self._hub.asking() as client:
                hold = scripts.HOLD.command(lease=names.FAULTS_TURN, who=self._me, lease_ms=LEASE_MS)
                if value(send(client, [hold], [scripts.HOLD])[0]):
                    events.note(client, noted)
        except HubUnavailable as error:
            log.debug("events not noted", reason=error.reason)

    def events(self, region: str) -> Answer:
        """``GET /v1/regions/{region}/events``: what happened to a region, newest first."""
        if region not in self._regions:
            raise unknown_region(region, self._regions)
        with self._hub.asking() as client:
            found = [event_view(one) for one in events.read(client, region)]
        return Answer(200, msgspec.json.encode({"events": found}), [JSON, ("Cache-Control", "no-store")])

    def _look_at_regions(self) -> list[Found]:
        with self._hub.asking() as client:
            states = {state.name: state for state in self._ledger.regions(list(self._regions))}
            letters = self._dead.count()
            runs = learned(client)
        now = time.monotonic()
        self._answers_since = self._answers_since or now
        # A region reported in vain while the hub was away, and a gateway that has just started knows nothing of before.
        is_early = now - self._answers_since < SILENT_MS / 1000
        found = [one for state in states.values() for one in of_region(state) if not (is_early and one.name in SILENT)]
        found += self._taken_over(states)
        found += [one for state in states.values() for one in _of_scale(state)]
        if letters:
            found.append(Found("dead-letters", f"messages that nobody could read wait for an operator: {letters}"))
        self._of_regions = found
        if now >= self._sources_at:
            self._sources_at = now + SOURCES_SECONDS
            self._of_sources = list(self._look_at_sources(states, runs))
        return found + self._of_sources

    def _taken_over(self, states: dict[str, RegionState]) -> list[Found]:
        """The regions that lose their tasks, unless an operator wants it."""
        return [
            Found("region-taken-over", f"standbys take its new tasks: {record.reason}", region=region)
            for region, record in self._takeover.records.items()
            if region in states and record.why != DRAINED
        ]

    def _look_at_sources(self, states: dict[str, RegionState], runs: dict[str, Learned]) -> Iterable[Found]:
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
            for standby, why in self._takeover.standby_faults(entry).items():
                message = f"{standby} could not take it over: {why}"[:SHOWN_MAX]
                yield Found("standby-not-ready", message, region=standby, source=entry.id)
        yield from self._differing(states, entries)

    def _differing(self, states: dict[str, RegionState], entries: Sequence[Entry]) -> Iterable[Found]:
        now, differs = time.monotonic(), {}
        for name, state in states.items():
            own = [one for one in entries if one.definition is None or name in one.definition.regions(one.region)]
            for source, one in differing(state, own).items():
                key = (name, source, one["there"], one["here"])
                differs[key] = self._differs.get(key, now)
        self._differs = differs
        for (region, source, there, here), since in differs.items():
            if now - since >= DIFFERS_SECONDS:
                message = f"another definition: {there or 'none'} in {region}, {here or 'none'} at the gateway"
                yield Found("source-differs", message, region=region, source=source)


def event_kind(fault: Fault, which: int) -> str:
    """The kind of the event that a fault begins (0) or ends (1)."""
    return events.KINDS.get(fault.name, events.OTHERS)[which]


def _of_scale(state: RegionState) -> list[Found]:
    scales = [pool["scale"] for key, pool in state.reported.items() if key.startswith("workers:") and "scale" in pool]
    last: dict[str, Any] = max(scales, key=lambda scale: scale["at_ms"], default={})
    fault = last.get("fault")
    return [Found("region-scale-wrong", f"its [scale] is wrong: {fault}", region=state.name)] if fault else []


def _shown(reasons: Sequence[str]) -> str:
    return "; ".join(reasons)[:SHOWN_MAX]


def _labels(fault: Fault) -> dict[str, str]:
    labels = {"fault": fault.name, "region": fault.region, "source": fault.source, "broken": fault.part}
    return {key: of for key, of in labels.items() if of}
