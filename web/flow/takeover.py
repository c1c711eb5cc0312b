"""Takes tasks away from regions that can't answer, and gives them to the standbys of their sources.

    run_once, twice a second in each gateway   reads the records and the regions' reports, in one round trip
      └ one of the gateways (a lease)          web.flow.region_health.decide → writes a record, or takes it back
    route, for each new task                   its source's region, or a standby that is well and ready

A source without a standby, or a pinned one, is never moved. What a standby lacks is known before it is needed: a region
reports which sources it could run.
"""

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

import redis

from jobs.definition.catalog import Catalog, Entry
from regions import logs, names
from regions.loop import Loop
from regions.script import send, value
from regions.settings import Settings
from web.flow.region_health import Memory, decide, see
from web.hub import scripts, takeover
from web.hub.redis import Hub, HubUnavailable
from web.hub.region import read_reports
from web.hub.takeover import Moved, Record

EVERY_SECONDS: Final = 0.5
CALM_SECONDS: Final = 2.0  # the same while no source has a standby
LEASE_MS: Final = 2_000

Broker = Callable[[str], str | None]  # why a region's queues take no messages, or None

log = logs.get("takeover")


class Takeover:
    """One gateway's part in it. ``route`` and ``why_not`` may be called from any thread."""

    def __init__(self, settings: Settings, hub: Hub, catalog: Catalog, broker: Broker) -> None:
        self._hub, self._catalog, self._broker = hub, catalog, broker
        self._regions = settings.region  # changes while the gateway runs
        self._well_ms = round(settings.gateway.takeover_well_seconds * 1000)
        self._me = f"{socket.gethostname()}:{os.getpid()}"
        self._memory: dict[str, Memory] = {}
        self._reports: dict[str, dict[str, Any]] = {}  # by region
        self.records: dict[str, Record] = {}  # of regions that lose their tasks
        self._is_mine = False
        self._loop = Loop("takeover", self._turn)

    def start(self) -> None:
        """Looks once, so that the first request knows the records; then goes on in a thread."""
        self._loop.start(self._turn())

    def stop(self) -> None:
        """Ends the thread."""
        self._loop.stop()

    def route(self, entry: Entry) -> tuple[str, Moved | None]:
        """Returns (the region to ask for a new task of a source, why it is not the source's own)."""
        home, records = entry.region, self.records
        if home not in records or entry.definition is None:
            return home, None
        for region in entry.definition.regions(home)[1:]:
            if region not in records and not self.why_not(entry, region):
                return region, Moved(home=home, to=region, why=records[home].reason, asked=(region,))
        return home, None

    def standby_faults(self, entry: Entry) -> dict[str, str]:
        """Each standby of a source that could not take it over, and why."""
        standbys = entry.definition.regions(entry.region)[1:] if entry.definition is not None else ()
        return {region: why for region in standbys if (why := self.why_not(entry, region))}

    def why_it_stays(self, entry: Entry) -> str:
        """Why a source's tasks would stay in its region, whatever happens to that; empty if a standby is ready."""
        if entry.definition is None:
            return "its definition is broken"
        if entry.definition.pinned:
            return "it is pinned"
        if not entry.definition.standby:
            return "it has no standby"
        faults = self.standby_faults(entry)
        if len(faults) < len(entry.definition.regions(entry.region)) - 1:
            return ""
        return "; ".join(f"{region}: {why}" for region, why in faults.items())

    def why_not(self, entry: Entry, region: str) -> str:
        """What keeps a region from taking over a source; empty if it is ready."""
        return why_not(entry, region, self._reports)

    def _turn(self) -> float:
        try:
            if self._hub.away is None:
                self.run_once()
        except (HubUnavailable, redis.exceptions.RedisError) as error:
            log.debug("regions not looked at", error=str(error))
        except Exception:
            log.exception("looking at regions failed")
        return EVERY_SECONDS if self.records or self._involved() else CALM_SECONDS

    def _involved(self) -> set[str]:
        """The regions of sources that have a standby, and the standbys."""
        found = (one.definition.regions(one.region) for one in self._catalog.entries() if one.definition is not None)
        return {region for regions in found if len(regions) > 1 for region in regions}

    def run_once(self) -> None:
        """Reads records and reports; decides, if it is this gateway's turn."""
        with self._hub.asking() as client:
            hold = scripts.HOLD.command(lease=names.TAKEOVER_TURN, who=self._me, lease_ms=LEASE_MS)
            self._is_mine = bool(value(send(client, [hold], [scripts.HOLD])[0]))
            now_ms, fields, self._reports = read_reports(client, list(self._regions))
            decided, drained = takeover.records(fields)
            if self._is_mine:
                decided = self._decide(client, now_ms, decided)
            else:
                self._memory = {}
        self.records = {region: one for region, one in {**decided, **drained}.items() if region in self._reports}

    def _decide(self, client: redis.Redis, now_ms: int, before: Mapping[str, Record]) -> dict[str, Record]:
        """The records by what is known now; changes are written."""
        after: dict[str, Record] = {}
        commands: list[tuple[Any, ...]] = []
        involved = self._involved()
        for region in self._reports:
            was, record = before.get(region), None
            if region in involved:
                seen = see(now_ms, self._reports[region], self._broker(region) or "")
                self._memory[region], record = decide(self._memory.get(region), seen, was, self._well_ms)
            if record is not None:
                after[region] = record
            if record is was:
                continue
            if record is None:
                commands.append(("HDEL", names.TAKEOVER, region))
                log.info("a region gets its tasks again", region=region)
            else:
                commands.append(("HSET", names.TAKEOVER, region, takeover.encode(record)))
                if was is None:
                    log.warning("a region loses its tasks to standbys", region=region, reason=record.reason)
        for reply in send(client, commands, []) if commands else ():
            value(reply)
        return after


def why_not(entry: Entry, region: str, reports: Mapping[str, Mapping[str, Any]]) -> str:
    """What keeps a region from running a source, by the regions' reports; empty if nothing does."""
    if entry.definition is None:
        return "its definition is broken"
    if region not in reports:
        return "it is not set up here"
    if "sources" not in reports[region]:
        return "it has not said which sources it has"
    one = reports[region]["sources"].get(entry.id)
    if one is None:
        return "it does not have the source"
    if one.get("fault") or one.get("lacks"):
        return str(one.get("fault") or one.get("lacks"))
    if one["definition"] != entry.definition.hash:
        return f"it has definition {one['definition']}, the gateway has {entry.definition.hash}"
    return ""
