"""The catalogue of sources, and the regions with their status."""

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import structs

from jobs.contract import Minute, Run, rfc3339
from jobs.definition.catalog import Catalog, Entry
from jobs.definition.model import Definition, fixed_hosts
from jobs.definition.params import Param
from jobs.origin import is_reserved
from regions import logs
from regions.settings import Settings
from web.api import submit
from web.api.views import JSON
from web.flow.dead import DeadLetters
from web.flow.takeover import Takeover
from web.http.exchange import Answer, Exchange
from web.http.problems import Problem
from web.hub import events, ids, recent
from web.hub.events import Event
from web.hub.faults import Queued, are_gone, living, of_region
from web.hub.ledger import Ledger
from web.hub.recent import Failure, Hour
from web.hub.redis import Hub, HubUnavailable
from web.hub.region import RegionState
from web.hub.runs import Learned, last_runs, learned
from web.hub.takeover import view as taken_view
from web.hub.traffic import ALL, Days, Sums, kept_off_wan, read_days, read_today, total
from web.hub.verdict import OF_THE_SOURCE

RATE_WINDOW_MS: Final = 60_000
DIFFERS_MAX: Final = 100  # sources of a region that are named because their definitions differ
LEFT_ALONE_MAX: Final = 100
EVENTS_STREAMED: Final = 8  # of a region
STATES_KEPT_SECONDS: Final = 1.0  # so that not every call for the catalogue costs round trips
HOURS_KEPT_SECONDS: Final = 5.0
Differs = dict[str, dict[str, str]]  # by source: the hash of its definition there and here
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
    ) -> None:
        """``leaving``: regions without a file, and why they are served (web.flow.served). ``queued``: the broker's queues."""
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
        """Every region with its status, and how many dead letters wait for an operator."""
        states = self._read_regions(list(self._settings.region))
        sums_of = self._sums_of(states)
        with self._hub.asking():
            dead_letters = self._dead.count()
        entries = self._entries_by_region()
        views = [self._region_view(state, entries, *sums_of[state.name]) for state in states]
        return _json({"regions": views, "dead_letters": dead_letters})

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
        view = region_view(state, title, self._rates, days, today, leaving, took, queued)
        taken = taken_view(self._takeover.records.get(state.name))
        differs = differing(state, own)
        dashboard = (region.dashboard.address if region is not None else "") or None
        return {**view, "takeover": taken, "not_movable": stay, "differs": differs, "dashboard": dashboard}


def unknown_region(region: str, known: Iterable[str]) -> Problem:
    """The problem of a region that is not there."""
    return Problem("not-found", f'there is no region "{region[:60]}"; expected one of {", ".join(list(known))}')


def source_view(
    entry: Entry, regions: Mapping[str, RegionState], runs: Mapping[str, Learned] = MappingProxyType({})
) -> dict[str, Any]:
    """A source as the catalogue lists it. ``regions``: their states by name; ``runs``: the verdicts by source."""
    definition = entry.definition
    status, reasons = health_of(entry, regions, runs.get(entry.id))
    if definition is None:
        return {
            "id": entry.id, "title": entry.id, "region": entry.region, "standby": [], "pinned": False, "params": {},
            "limits": {}, "health": status, "reasons": reasons, "test": False,
        }  # fmt: skip
    params = {name: param_view(param) for name, param in definition.params.items()}
    return {
        "id": entry.id,
        "title": definition.title,
        "region": entry.region,
        "standby": list(definition.standby),
        "pinned": definition.pinned,
        "params": params,
        "limits": msgspec.to_builtins(definition.limits, enc_hook=str),
        "health": status,
        "reasons": reasons,
        "test": is_for_tests(definition),
    }


def is_for_tests(definition: Definition) -> bool:
    """Whether nobody has the hosts of a source: their names are reserved for examples, or they are this machine."""
    hosts = fixed_hosts(definition)
    return bool(hosts) and all(map(is_reserved, hosts))


def param_view(param: Param) -> dict[str, Any]:
    """A param as the catalogue shows it, with those limits that it has."""
    limits = {
        "title": param.title,
        "enum": list(param.enum),
        "pattern": param.pattern,
        "hosts": list(param.hosts),
        "min": param.min,
        "max": param.max,
    }
    return {
        "type": param.type, "required": param.required, "default": param.default, "example": param.example,
        **{key: value for key, value in limits.items() if value not in ("", None, [])},
    }  # fmt: skip


def regions_of(source: str, regions: Mapping[str, RegionState]) -> dict[str, dict[str, Any]]:
    """The regions that have a source: the hash of the definition there ("" for none), and its fault."""
    return {
        name: state.reported["sources"][source]
        for name, state in regions.items()
        if source in state.reported.get("sources", {})
    }


def differing(state: RegionState, entries: Iterable[Entry]) -> Differs:
    """The sources whose definition in a region is not the gateway's: the hash ``there`` and ``here``, "" for none; 100 at most."""
    if "sources" not in state.reported:
        return {}
    there = {source: str(one["definition"]) for source, one in state.reported["sources"].items()}
    here = {}
    for entry in entries:
        if entry.definition is None:
            there.pop(entry.id, None)  # it is told as broken
        elif state.name == entry.region or (entry.id in there and state.name in entry.definition.regions(entry.region)):
            here[entry.id] = entry.definition.hash
    found = [source for source in sorted(there.keys() | here.keys()) if there.get(source) != here.get(source)]
    return {source: {"there": there.get(source, ""), "here": here.get(source, "")} for source in found[:DIFFERS_MAX]}


def left_alone(state: RegionState) -> dict[str, str]:
    """The sources of a region whose host it leaves alone after failures, and why; ``LEFT_ALONE_MAX`` at most."""
    found = {
        source: str(one["trouble"]) for source, one in state.reported.get("sources", {}).items() if one.get("trouble")
    }
    return dict(sorted(found.items())[:LEFT_ALONE_MAX])


def event_view(event: Event) -> dict[str, Any]:
    """An event of a region."""
    return {"at": rfc3339(event.at_ms), "kind": event.kind, "message": event.message}


def hour_view(hour: Hour) -> dict[str, Any]:
    """A source's runs in an hour."""
    return {"hour": rfc3339(hour.at * 1000), "runs": hour.runs, "failed": hour.failed, "busy_ms": hour.busy_ms}


def failure_view(failure: Failure, *, with_task: bool) -> dict[str, Any]:
    """A source's last failure. Without ``with_task`` it does not say whose request it was."""
    view: dict[str, Any] = {
        "at": rfc3339(failure.at_ms),
        "region": failure.region,
        "type": failure.error,
        "origin": failure.origin,
        "page_kept": failure.error in OF_THE_SOURCE,
    }
    if with_task:
        with contextlib.suppress(ValueError):
            view |= {"task": failure.task, "request": ids.request_of(failure.task)}
    return view


def learned_view(found: Learned | None) -> dict[str, Any] | None:
    """The figures of a source's runs; None before the first run."""
    if found is None:
        return None
    return {"since": rfc3339(found.since_ms), **msgspec.to_builtins(found.verdict)}


def traffic_view(sums: Mapping[str, int]) -> dict[str, int]:
    """A source's sums in a region, and how many bytes did not cross the WAN."""
    return {**sums, "kept_off_wan": kept_off_wan(sums)}


def days_view(days: Days) -> list[dict[str, Any]]:
    """Sums by day, the latest first."""
    return [{"day": day, **traffic_view(sums)} for day, sums in days.items()]


def health_of(entry: Entry, regions: Mapping[str, RegionState], found: Learned | None = None) -> tuple[str, list[str]]:
    """Returns (the health of a source, the reasons why it is not ``ok``).

    ``broken``: the definition is wrong, at the gateway or in its region; ``failing``: a region leaves its host alone after
    failures; ``degraded``: a region has another definition than the gateway, or the runs have changed; ``unknown``: its
    region has not said which sources it has. An ``ok`` source may have a reason, too: its region saves nothing.
    """
    if entry.definition is None:
        return "broken", [str(fault) for fault in entry.faults]
    own_regions = {entry.region, *entry.definition.standby}  # other regions may send anything about it
    there = {region: one for region, one in regions_of(entry.id, regions).items() if region in own_regions}
    own_reports = {region: one for region, one in there.items() if region == entry.region}
    faults = [f"{region}: {one['fault']}" for region, one in own_reports.items() if one.get("fault")]
    if faults:
        return "broken", faults
    troubles = [f"{region}: {one['trouble']}" for region, one in own_reports.items() if one.get("trouble")]
    if troubles:
        return "failing", troubles
    own = entry.definition.hash
    state = regions.get(entry.region)
    if state is None or "sources" not in state.reported:
        return "unknown", [f"{entry.region} has not said which sources it has"]
    reasons = [] if entry.region in there else [f"{entry.region} does not have it; the gateway has definition {own}"]
    for region, one in there.items():
        if one["definition"] != own and not one.get("fault"):  # a standby's fault is in ``standby_faults``
            reasons.append(f"{region} has definition {one['definition']}, the gateway has {own} for {entry.region}")
    notes: list[str] = []
    if found is not None and found.verdict.definition == own:  # runs of another definition say nothing about this one
        reasons += found.verdict.reasons
        notes = found.verdict.notes
    return "degraded" if reasons else "ok", [*reasons, *notes]


class Rates:
    """How many tasks a second each region ends, from the totals that its pools of workers sent within the last minute."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[tuple[int, int]]] = {}
        self._lock = threading.Lock()

    def rate(self, region: str, status: Mapping[str, Any]) -> float | None:
        """Tasks a second; None before the second total. ``status``: a pool's last one, whose totals are those of the region."""
        at_ms, total = status.get("at_ms", 0), status.get("succeeded", 0) + status.get("failed", 0)
        with self._lock:
            samples = self._samples.setdefault(region, deque(maxlen=100))
            if samples and total < samples[-1][1] and at_ms > samples[-1][0]:  # the region's Redis lost its counters
                samples.clear()
            if not samples or samples[-1][0] < at_ms:
                samples.append((at_ms, total))
            while samples[-1][0] - samples[0][0] > RATE_WINDOW_MS:
                samples.popleft()
            if len(samples) < 2:
                return None
            return round((samples[-1][1] - samples[0][1]) * 1000 / (samples[-1][0] - samples[0][0]), 1)


def region_view(
    state: RegionState,
    title: str,
    rates: Rates,
    days: Days | None = None,
    today: Mapping[str, Sums] | None = None,
    leaving: str = "",
    took: Mapping[int, int] | None = None,
    queued: Queued | None = None,
) -> dict[str, Any]:
    """A region with its status: ``up``, ``degraded`` (with the reasons) or ``down``.

    ``days``: the sums of all its sources by day; ``today``: those of each source today; ``leaving``: why it is served without
    a file; ``took``: how many of its last tasks took how long (web.hub.recent); ``queued``: its queues as the broker has them.
    """
    bridges, pools = living(state, "bridge"), living(state, "workers")
    if are_gone(bridges, queued):
        bridges = []
    scales = [pool.pop("scale") for pool in pools if "scale" in pool]
    for pool in pools:
        pool.pop("waits", None)  # who asks where a task is is told of them
    faults = of_region(state, queued)
    reasons = [*([leaving] if leaving else []), *(one.message for one in faults)]
    asked = [
        pool for pool in pools if not pool.get("reason")
    ] or pools  # without pools that can't reach their Redis now
    latest = max(asked, key=lambda pool: pool["at_ms"], default={})  # every pool sends the totals of the whole region
    sums = traffic_view(total(state.traffic.values()))
    nothing = total(())
    oldest = None if state.oldest_ms is None else round(max(0, state.now_ms - state.oldest_ms) / 1000, 3)
    return {
        "name": state.name,
        "title": title,
        "status": "down" if not bridges and not pools else "degraded" if reasons else "up",
        "reasons": reasons,
        "faults": [one.name for one in faults],
        "queue": {
            "open": state.open_tasks,
            "ready": max((bridge.get("ready", 0) for bridge in bridges), default=0),
            "running": sum(pool.get("busy", 0) for pool in pools),
            "oldest_seconds": oldest,
            "unread": state.unread,
            "at_broker": queued.ready if queued is not None else None,
        },
        "throughput": {
            "succeeded": latest.get("succeeded", 0),
            "failed": latest.get("failed", 0),
            "per_second": rates.rate(state.name, latest) if latest else None,
            "p95_ms": recent.quantile(took or {}, 0.95),
        },
        "bytes": {key: count for key, count in sums.items() if key not in ("runs", "failed")},
        "days": days_view(days or {}),
        "left_alone": left_alone(state),
        "refused": state.refused,
        "held_bytes": state.held_bytes,
        "sources": {
            source: {**traffic_view(sums), "today": traffic_view((today or {}).get(source, nothing))}
            for source, sums in sorted(state.traffic.items())
        },
        "scale": _timed(max(scales, key=lambda scale: scale["at_ms"])) if scales else None,
        "bridges": [_timed(bridge) for bridge in bridges],
        "workers": [_timed(pool) for pool in pools],
    }


def _timed(status: Mapping[str, Any]) -> dict[str, Any]:
    """What a part reported, with its times in the form that all times have here."""
    times = {"reported_at": rfc3339(status["at_ms"])}
    if "started_ms" in status:
        times["started_at"] = rfc3339(status["started_ms"])
    return {**times, **{name: one for name, one in status.items() if name not in ("at_ms", "started_ms")}}


def _json(document: Any) -> Answer:
    return Answer(200, msgspec.json.encode(document, enc_hook=str), [JSON, ("Cache-Control", "no-store")])
