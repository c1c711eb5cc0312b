"""A source as the interface shows it: its params, its health with the reasons, and the figures of its runs."""

import contextlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from jobs.contract import rfc3339
from jobs.definition.catalog import Entry
from jobs.definition.model import Definition, fixed_hosts
from jobs.definition.params import Param
from jobs.origin import is_reserved
from web.hub import ids
from web.hub.recent import Failure, Hour
from web.hub.region import RegionState
from web.hub.runs import Learned
from web.hub.verdict import OF_THE_SOURCE


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
