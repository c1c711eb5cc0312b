"""The catalogue of sources, and the regions with their status."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import structs

from jobs.contract import Minute, Run, rfc3339
from jobs.definition.catalog import Catalog, Entry
from regions import logs
from regions.settings import Settings
from web.api import submit
from web.api.region_view import Differs, Rates, differing, event_view, region_view, unknown_region
from web.api.source_view import failure_view, hour_view, learned_view, regions_of, source_view
from web.api.views import JSON
from web.flow.dead import DeadLetters
from web.flow.takeover import Takeover
from web.http import problems
from web.http.answer import Answer
from web.http.exchange import Exchange
from web.hub import events, recent
from web.hub.faults import Fault, Queued
from web.hub.ledger import Ledger
from web.hub.recent import Failure, Hour
from web.hub.redis import Hub, HubUnavailable
from web.hub.region import RegionState
from web.hub.runs import Learned, last_runs, learned
from web.hub.takeover import view as taken_view
from web.hub.traffic import ALL, Days, Sums, days_view, read_days, read_today, traffic_view

EVENTS_STREAMED: Final = 8  # of a region
STATES_KEPT_SECONDS: Final = 1.0  # so that not every call for the catalogue costs round trips
HOURS_KEPT_SECONDS: Final = 5.0
States = tuple[dict[str, RegionState], dict[str, Learned]]  # the regions by name, the verdicts by source

log = logs.get("regions")


class Overview:
    """Answers of ``/v1/sources`` and ``/v1/regions``."""

    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        ledger: Ledger,
        catalog: Catalog,
        takeover: Takeover,
        leaving: Mapping[str, str] = MappingProxyType({}),
        queued: Callable[[], Mapping[str, Queued]] = dict,
        faults: Callable[[], Sequence[Fault]] = tuple,
    ) -> None:
        """``leaving``: regions without a file, and why they are served (web.flow.served). ``queued``: the broker's queues.

        ``faults``: what the gateway tells now.
        """
        self._faults = faults
        self._settings, self._hub, self._ledger = settings, hub, ledger
        self._takeover, self._leaving, self._queued = takeover, leaving, queued
        self._catalog = catalog
        self._dead = DeadLetters(hub.client)
        self._rates = Rates()
        self._differs: dict[str, Differs] = {}  # by region, at the last ``tell``
        self._told: dict[str, Differs] = {}  # those that were logged
        self._hours_kept: tuple[float, dict[str, list[Hour]]] = (float("-inf"), {})  # since when (monotonic)
        self._states_kept: tuple[float, States] = (float("-inf"), ({}, {}))  # since when (monotonic)

    def sources(self) -> Answer:
        """The catalogue."""
        states = self._states()
        return _json({"sources": [self._source_view(entry, states) for entry in self._catalog.entries()]})

    def source(self, exchange: Exchange, source: str) -> Answer:
        """One source, with its schema, its definition's hash, its faults, and the figures of its runs."""
        entry = self._catalog.get(source)
        if entry is None:
            raise submit.unknown_source(source, self._catalog)
        regions, runs = states = self._states()
        document = self._source_view(entry, states) | {
            "regions": regions_of(entry.id, regions),
            "learned": learned_view(runs.get(entry.id)),
            "traffic": self._traffic(entry.id, regions),
            **self._recent(entry.id, regions, with_task=exchange.owner.sees_all),
        }
        if entry.definition is not None:
            document |= {"schema": entry.definition.schema(), "definition": entry.definition.hash}
        else:
            document |= {"schema": {}, "definition": "", "faults": [str(fault) for fault in entry.faults]}
        return _json(document)

    def lanes(self) -> list[dict[str, Any]]:
        """Every region as the event stream shows it. Raises ``HubUnavailable``."""
        states = self._read_regions(list(self._settings.region))
        entries, regions = self._entries_by_region(), [state.name for state in states]
        with self._hub.asking() as client:
            days = read_days(client, states[0].now_ms, [(region, ALL) for region in regions]) if states else {}
            latest = events.read_latest(client, regions, EVENTS_STREAMED)
        took = self._took(states)
        views = [self._region_view(one, entries, days[one.name, ALL], took=took[one.name]) for one in states]
        for view in views:
            del view["sources"]  # too long to be sent each time something changes
            view["events"] = [event_view(one) for one in latest[view["name"]]]
        return views

    def regions(self) -> Answer:
        """Every region with its status, the faults that are no region's, and how many dead letters wait for an operator."""
        faults = sorted({one.name for one in self._faults() if one.region is None})
        try:
            states = self._read_regions(list(self._settings.region))
            sums_of = self._sums_of(states)
            with self._hub.asking():
                dead_letters = self._dead.count()
        except HubUnavailable as error:
            raise problems.unavailable(error.reason, faults=faults) from error
        entries = self._entries_by_region()
        views = [self._region_view(state, entries, *sums_of[state.name]) for state in states]
        return _json({"regions": views, "faults": faults, "dead_letters": dead_letters})

    def region(self, region: str) -> Answer:
        """One region with its status."""
        self.check_region(region)
        states = self._read_regions([region])
        return _json(self._region_view(states[0], self._entries_by_region(), *self._sums_of(states)[region]))

    def tell(self) -> None:
        """Logs once which definitions differ between a region and this gateway. Call it every ten seconds or so.

        A difference counts if it was there at the call before, too: a new file reaches some hosts before others.
        """
        regions, _ = self._states()
        entries = self._entries_by_region()
        for name, state in regions.items():
            before, now = self._differs.get(name, {}), differing(state, entries.get(name, ()))
            self._differs[name] = now
            found = {source: one for source, one in now.items() if before.get(source) == one}
            told, self._told[name] = self._told.get(name, {}), found
            if new := {source: one for source, one in found.items() if told.get(source) != one}:
                log.warning("a region has other definitions than this gateway", region=name, differs=new)
            elif told and not now:
                log.info("a region has the same definitions as this gateway again", region=name)

    def known(self) -> tuple[list[tuple[RegionState, dict[str, Any]]], list[dict[str, Any]]]:
        """What ``/v1/regions`` and ``/v1/sources`` show of each region and source, at most a second old; no region while the hub is away."""
        states = self._states()
        entries = self._entries_by_region()
        regions = [(state, self._region_view(state, entries)) for state in states[0].values()]
        return regions, [self._source_view(entry, states) for entry in self._catalog.entries()]

    def _source_view(self, entry: Entry, states: States) -> dict[str, Any]:
        view = source_view(entry, *states)
        if entry.definition is not None and entry.region not in self._settings.region:
            return {**view, "health": "broken", "reasons": [f"its region is not set up here: {entry.region}"]}
        return {**view, "standby_faults": self._takeover.standby_faults(entry)}

    def _read_regions(self, regions: list[str]) -> list[RegionState]:
        with self._hub.asking():
            return self._ledger.regions(regions)

    def _states(self) -> States:
        """The states, at most a second old; empty while the hub is away, so that the catalogue can still be read."""
        at, states = self._states_kept
        if time.monotonic() - at > STATES_KEPT_SECONDS:
            try:
                regions = {state.name: state for state in self._read_regions(list(self._settings.region))}
                with self._hub.asking() as client:
                    states = regions, learned(client)
            except HubUnavailable:
                states = {}, {}
            self._states_kept = (time.monotonic(), states)
        return states

    def _sums_of(self, states: list[RegionState]) -> dict[str, tuple[Days, dict[str, Sums], Counter[int]]]:
        """The days of each region, today's sums of its sources, and how long its tasks took."""
        if not states:
            return {}
        now_ms, regions = states[0].now_ms, [state.name for state in states]
        with self._hub.asking() as client:
            days = read_days(client, now_ms, [(region, ALL) for region in regions])
            today = read_today(client, now_ms, regions)
        took = self._took(states)
        return {region: (days[region, ALL], today[region], took[region]) for region in regions}

    def _took(self, states: list[RegionState]) -> dict[str, Counter[int]]:
        """How long the tasks of each region took."""
        if not states:
            return {}
        with self._hub.asking() as client:
            return recent.read_took(client, states[0].now_ms, [state.name for state in states])

    def _traffic(self, source: str, regions: Mapping[str, RegionState]) -> dict[str, dict[str, Any]]:
        """The sums of a source in each region that ran it, and those of its days; without days while the hub is away."""
        asked = [(name, source) for name, state in regions.items() if source in state.traffic]
        days: dict[tuple[str, str], Days] = {}
        if asked:
            with contextlib.suppress(HubUnavailable), self._hub.asking() as client:
                days = read_days(client, regions[asked[0][0]].now_ms, asked)
        return {
            name: {**traffic_view(regions[name].traffic[source]), "days": days_view(days.get((name, source), {}))}
            for name, _ in asked
        }

    def _recent(self, source: str, regions: Mapping[str, RegionState], *, with_task: bool) -> dict[str, Any]:
        """A source's runs by hour, and its last failure; empty while the hub is away. The task of a failure may be anybody's."""
        hours: list[Hour] = []
        failure: Failure | None = None
        now_ms = next((state.now_ms for state in regions.values()), 0)
        with contextlib.suppress(HubUnavailable), self._hub.asking() as client:
            hours = recent.read_hours(client, now_ms, source).get(source, [])
            failure = recent.read_failures(client, [source]).get(source)
        return {
            "hours": [hour_view(hour) for hour in hours],
            "last_failure": failure_view(failure, with_task=with_task) if failure is not None else None,
        }

    def day(self, region: str) -> Answer:
        """The minutes of a region's last day, as ``nearfetch day`` has them."""
        self.check_region(region)
        minutes = [{**structs.asdict(one), "at": rfc3339(round(one.at * 1000))} for one in self.day_of(region)]
        return _json({"region": region, "minutes": minutes})

    def day_of(self, region: str) -> list[Minute]:
        """These minutes, oldest first; none from a region of an earlier version. Raises ``HubUnavailable``."""
        with self._hub.asking() as client:
            return recent.read_day(client, self._ledger.now_ms(), region)

    def last_runs(self, source: str) -> list[Run]:
        """The last runs of a source that say something about it, oldest first; none while the hub is away."""
        with contextlib.suppress(HubUnavailable), self._hub.asking() as client:
            return last_runs(client, source)[::-1]
        return []

    def hours_of_all(self) -> dict[str, list[Hour]]:
        """The runs of all sources by hour; at most ``HOURS_KEPT_SECONDS`` old, empty while the hub is away."""
        at, hours = self._hours_kept
        if time.monotonic() - at > HOURS_KEPT_SECONDS:
            with contextlib.suppress(HubUnavailable), self._hub.asking() as client:
                hours = recent.read_hours(client, self._ledger.now_ms())
            self._hours_kept = time.monotonic(), hours
        return hours

    def check_region(self, region: str) -> None:
        """Raises ``Problem`` (404) for a region that is not served."""
        if region not in self._settings.region:
            raise unknown_region(region, self._settings.region)

    def _entries_by_region(self) -> dict[str, list[Entry]]:
        """The sources that each region runs or may take over, and in each those whose definition is broken."""
        found: dict[str, list[Entry]] = {region: [] for region in list(self._settings.region)}
        for entry in self._catalog.entries():
            regions = found if entry.definition is None else entry.definition.regions(entry.region)
            for region in regions:
                if region in found:
                    found[region].append(entry)
        return found

    def _region_view(
        self,
        state: RegionState,
        entries: Mapping[str, Sequence[Entry]],
        days: Days | None = None,
        today: Mapping[str, Sums] | None = None,
        took: Mapping[int, int] | None = None,
    ) -> dict[str, Any]:
        own = entries.get(state.name, ())
        region = self._settings.region.get(state.name)  # None if it went a moment ago
        title = state.name if region is None else region.title
        stay = {
            entry.id: why for entry in own if entry.region == state.name and (why := self._takeover.why_it_stays(entry))
        }
        leaving, queued = self._leaving.get(state.name, ""), self._queued().get(state.name)
        told = [one for one in self._faults() if one.region == state.name]
        view = region_view(state, title, self._rates, days, today, leaving, took, queued, told)
        taken = taken_view(self._takeover.records.get(state.name))
        differs = differing(state, own)
        dashboard = (region.dashboard.address if region is not None else "") or None
        return {**view, "takeover": taken, "not_movable": stay, "differs": differs, "dashboard": dashboard}


def _json(document: Any) -> Answer:
    return Answer(200, msgspec.json.encode(document, enc_hook=str), [JSON, ("Cache-Control", "no-store")])
