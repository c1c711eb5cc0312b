"""A region as the interface shows it: its status with the reasons, its queue, its parts, and its figures."""

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from jobs.contract import rfc3339
from jobs.definition.catalog import Entry
from web.http.problems import Problem
from web.hub import recent
from web.hub.events import Event
from web.hub.faults import Fault, Queued, are_gone, living, of_region
from web.hub.region import RegionState
from web.hub.traffic import Days, Sums, days_view, total, traffic_view

RATE_WINDOW_MS: Final = 60_000
DIFFERS_MAX: Final = 100  # sources of a region that are named because their definitions differ
LEFT_ALONE_MAX: Final = 100
# Faults that a region's view has members for: its own ones show why, since when and where.
OWN_MEMBERS: Final = frozenset({"region-taken-over", "region-scale-wrong", "region-file-gone"})
Differs = dict[str, dict[str, str]]  # by source: the hash of its definition there and here


def unknown_region(region: str, known: Iterable[str]) -> Problem:
    """The problem of a region that is not there."""
    return Problem("not-found", f'there is no region "{region[:60]}"; expected one of {", ".join(list(known))}')


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
    told: Sequence[Fault] = (),
) -> dict[str, Any]:
    """A region with its status: ``up``, ``degraded`` (with the reasons) or ``down``.

    ``days``: the sums of all its sources by day; ``today``: those of each source today; ``leaving``: why it is served without
    a file; ``took``: how many of its last tasks took how long (web.hub.recent); ``queued``: its queues as the broker has them; ``told``: the
    faults that the gateway tells of it and of its sources.
    """
    bridges, pools = living(state, "bridge"), living(state, "workers")
    consuming = [bridge for bridge in bridges if bridge.get("state") == "consuming"]
    if consuming and are_gone(consuming, queued):
        bridges = [bridge for bridge in bridges if bridge not in consuming]
    scales = [pool.pop("scale") for pool in pools if "scale" in pool]
    for pool in pools:
        pool.pop("waits", None)  # they are shown to clients that ask where a task is
    faults = of_region(state, queued)
    seen = {one.name for one in faults}
    lasting = [one for one in told if one.name not in seen and one.source is None and one.name not in OWN_MEMBERS]
    messages = [*(one.message for one in faults), *(one.message for one in lasting)]
    reasons = [*([leaving] if leaving else []), *messages]
    fault_names = [*(one.name for one in faults), *(one.name for one in told)]
    asked = [pool for pool in pools if not pool.get("reason")] or pools  # others can't reach their Redis now
    latest = max(asked, key=lambda pool: pool["at_ms"], default={})  # every pool sends the totals of the whole region
    sums = traffic_view(total(state.traffic.values()))
    nothing = total(())
    oldest = None if state.oldest_ms is None else round(max(0, state.now_ms - state.oldest_ms) / 1000, 3)
    return {
        "name": state.name,
        "title": title,
        "status": "down" if not bridges and not pools else "degraded" if reasons else "up",
        "reasons": reasons,
        "faults": list(dict.fromkeys(fault_names)),
        "queue": {
            "open": state.open_tasks,
            "ready": max((bridge.get("ready", 0) for bridge in bridges), default=0),
            "running": sum(pool.get("busy", 0) for pool in pools),
            "scheduled": max((pool.get("scheduled", 0) for pool in pools), default=0),
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
