"""Takes tasks away from regions that can't answer, and gives them to the standbys of their sources.

    run_once, once or twice a second in each gateway   reads the records and the regions' reports, in one round trip
      └ one of the gateways (a lease)          web.flow.region_health.decide → writes a record, or takes it back
          └ of a region that has a record      asks the standbys, too, for its open tasks, some at a time
    route, for each new task                   its source's region, or a standby that is well and ready

The first success of two regions stands (web/hub/lua/settle.lua), and the other one gets a cancel. If a gateway dies between its
note that another region is asked and the message, the next one that decides sends all such messages again: a region enqueues
each once. A source without a standby, or a pinned one, is never moved. It is known beforehand what a standby lacks: a region
reports which sources it could run.
"""

import functools
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis
from msgspec import Struct

from jobs import contract
from jobs.definition.catalog import Catalog, Entry
from regions import logs, names
from regions.loop import Loop
from regions.script import send, value
from regions.settings import Settings
from web.flow import confirms
from web.flow.clean import Cleaner
from web.flow.confirms import Batch
from web.flow.publish import Publisher
from web.flow.region_health import LATE, Memory, calm_ms, decide, see
from web.hub import scripts, takeover
from web.hub.ledger import Ledger
from web.hub.redis import Hub, HubUnavailable
from web.hub.region import report_commands, reports_of
from web.hub.takeover import Moved, Record

EVERY_SECONDS: Final = 0.5
SOON_SECONDS: Final = 0.02  # the same while tasks of a region wait to be asked elsewhere
HEALTHY_SECONDS: Final = 1.0  # the same while nothing can become wrong so soon, in the gateway that decides
CALM_SECONDS: Final = 2.0  # the same while no source has a standby
LEASE_MS: Final = 2_000
SOME: Final = 200  # tasks of a region that are looked at in one turn; the next one begins when the broker has confirmed
AGAIN_SECONDS: Final = 1.0  # until a walk begins again: the hub or the broker may be away
WALK_SECONDS: Final = 5.0  # between two walks through all open tasks of a region

log = logs.get("takeover")


class Takeover:
    """One gateway's part in it. ``route`` and ``why_not`` may be called from any thread."""

    def __init__(
        self, settings: Settings, hub: Hub, ledger: Ledger, catalog: Catalog, publisher: Publisher, cleaner: Cleaner
    ) -> None:
        self._hub, self._ledger, self._catalog = hub, ledger, catalog
        self._publisher, self._cleaner = publisher, cleaner
        self._regions = settings.region  # changes while the gateway runs
        self._well_ms = round(settings.gateway.takeover_well_seconds * 1000)
        self._me = f"{socket.gethostname()}:{os.getpid()}"
        self._memory: dict[str, Memory] = {}
        self._reports: dict[str, dict[str, Any]] = {}  # by region
        self.records: dict[str, Record] = {}  # of regions that lose their tasks
        self._is_mine = False
        self._walks: dict[str, _Walk] = {}  # by region
        self._sent_in_vain = False  # some messages were not confirmed
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
        region = self._well_and_ready(entry, home)
        if not region:
            return home, None
        return region, Moved(home=home, to=region, why=records[home].reason, asked=(region,))

    def _well_and_ready(self, entry: Entry, away: str) -> str:
        """The first region of a source, other than ``away``, that can run it now; "" if there is none."""
        assert entry.definition is not None
        regions, records = entry.definition.regions(entry.region), self.records
        if away not in regions:
            return ""
        found = (one for one in regions if one != away and one not in records and not self.why_not(entry, one))
        return next(found, "")

    def standby_faults(self, entry: Entry) -> dict[str, str]:
        """Each standby of a source that could not take it over, and why."""
        return standby_faults(entry, self._reports)

    def why_it_stays(self, entry: Entry) -> str:
        """Why a source's tasks would stay in its region, whatever happens to the region; empty if a standby is ready."""
        return why_it_stays(entry, self._reports)

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
        now = time.monotonic()
        if any(not walk.unconfirmed and walk.due <= now for walk in self._walks.values()):
            return SOON_SECONDS
        if not self.records and not self._involved():
            return CALM_SECONDS
        if self.records or not self._is_mine or not self._memory:
            return EVERY_SECONDS
        left_seconds = min(map(calm_ms, self._memory.values())) / 1000
        return min(max(EVERY_SECONDS, left_seconds), HEALTHY_SECONDS)

    def _involved(self) -> set[str]:
        """The regions of sources that have a standby, and the standbys."""
        found = (one.definition.regions(one.region) for one in self._catalog.entries() if one.definition is not None)
        return {region for regions in found if len(regions) > 1 for region in regions}

    def run_once(self) -> None:
        """Reads records and reports; decides, if it is this gateway's turn."""
        with self._hub.asking() as client:
            hold = scripts.HOLD.command(lease=names.TAKEOVER_TURN, who=self._me, lease_ms=LEASE_MS)
            regions = list(self._regions)
            is_mine, *replies = send(client, [hold, *report_commands(regions)], [scripts.HOLD])
            self._is_mine = bool(value(is_mine))
            now_ms, fields, self._reports = reports_of(regions, replies)
            decided, drained = takeover.records(fields)
            if self._is_mine:
                decided = self._decide(client, now_ms, decided)
            self.records = {region: one for region, one in {**drained, **decided}.items() if region in self._reports}
            if self._is_mine:
                self._walk(client, now_ms)
            else:
                self._memory, self._walks = {}, {}

    def _walk(self, client: redis.Redis, now_ms: int) -> None:
        """Goes on with a walk through the open tasks of each region that loses its tasks."""
        # A region that begins again is walked through at once.
        self._walks = {region: self._walks.get(region) or _Walk() for region in self.records}
        if self._sent_in_vain:
            self._sent_in_vain = False
            for walk in self._walks.values():
                walk.begin()
        for region, walk in self._walks.items():
            if walk.unconfirmed or walk.due > time.monotonic():
                continue
            if walk.from_ms is None and not self._has_movable(region):
                walk.due = time.monotonic() + WALK_SECONDS
            else:
                self._ask_some(client, region, walk, now_ms)

    def _has_movable(self, region: str) -> bool:
        """Whether a source has a region that is well and ready instead of this one."""
        entries = self._catalog.entries()
        return any(entry.definition is not None and self._well_and_ready(entry, region) for entry in entries)

    def _ask_some(self, client: redis.Redis, region: str, walk: "_Walk", now_ms: int) -> None:
        """Asks standbys for the next open tasks of a region, as far as their sources have one that is well and ready."""
        record = self.records[region]
        # A late region goes on with the oldest ones, so that the two work towards each other instead of doing the same.
        walk.turn(is_newest_first=record.why == LATE)
        found: Any = client.zrange(
            names.open_tasks(region),
            *walk.range,
            desc=walk.is_newest_first,
            byscore=True,
            offset=walk.skip,
            num=SOME,
            withscores=True,
        )
        is_first = walk.is_first
        walk.go_on([int(at_ms) for _, at_ms in found])
        members = [names.task_of_due(member.decode()) for member, _ in found]
        requests = list({request: None for request, _ in members})
        sources = {task: source for tasks in self._ledger.asked(requests) for task, source, _ in tasks or ()}
        wanted = [
            (request, task, moved)
            for request, task in members
            if (moved := self._moved(self._catalog.get(sources.get(task, "")), region, now_ms)) is not None
        ]
        if not wanted:
            return
        is_queued_only = record.why in (LATE, takeover.DRAINED)  # what runs there will end
        try:
            asked = self._ledger.ask_elsewhere(region, wanted, queued_only=is_queued_only, again=is_first)
        except redis.exceptions.RedisError:  # it may have been noted
            self._sent_in_vain = True
            raise
        if asked:
            walk.unconfirmed += 1
            drained = region if record.why == takeover.DRAINED else ""
            messages = [confirms.message(task) for task in asked]
            self._publisher.publish(Batch(messages, functools.partial(self._asked, walk, drained, asked, now_ms)))
            log.info("standbys are asked, too", region=region, tasks=len(asked), why=record.why)

    def _moved(self, entry: Entry | None, region: str, now_ms: int) -> Moved | None:
        """How a task of a source moves away from a region; None if it stays."""
        if entry is None or entry.definition is None:
            return None
        to = self._well_and_ready(entry, region)
        if not to:
            return None
        return Moved(home=region, to=to, why=self.records[region].reason, at_ms=now_ms, asked=(region, to))

    def _asked(
        self, walk: "_Walk", drained: str, asked: Sequence[contract.Task], now_ms: int, reason: str | None
    ) -> None:
        """The broker's answer, on its thread. A drained region is told to drop tasks for which another region was asked."""
        walk.unconfirmed -= 1
        if reason is not None:
            log.warning("standbys could not be asked", reason=reason)
            self._sent_in_vain = True
        elif drained:
            for one in asked:
                self._cleaner.cancel(one.request, [(one.task, drained)], one.deadline_ms, one.deadline_ms - now_ms)
        self._loop.wake()

    def _decide(self, client: redis.Redis, now_ms: int, before: Mapping[str, Record]) -> dict[str, Record]:
        """The records by what is known now; changes are written."""
        after: dict[str, Record] = {}
        commands: list[tuple[Any, ...]] = []
        involved = self._involved()
        for region in self._reports:
            was, record = before.get(region), None
            if region in involved:
                seen = see(now_ms, self._reports[region], self._publisher.silent_in(region) or "")
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


class _Walk(Struct):
    """How far a walk through a region's open tasks came: to those accepted at ``from_ms``, of which ``skip`` were seen."""

    is_newest_first: bool = False
    from_ms: int | None = None
    skip: int = 0
    due: float = 0.0  # when the next step is (monotonic)
    is_first: bool = True  # what was noted before may not have been sent
    unconfirmed: int = 0  # batches

    def begin(self) -> None:
        """Begins a first walk again in a moment, since the hub or the broker may be away."""
        self.from_ms, self.skip, self.is_first = None, 0, True
        self.due = time.monotonic() + AGAIN_SECONDS

    def turn(self, *, is_newest_first: bool) -> None:
        """Begins again if the walk has to go the other way."""
        if self.is_newest_first != is_newest_first:
            self.is_newest_first, self.from_ms, self.skip = is_newest_first, None, 0

    @property
    def range(self) -> tuple[int | str, int | str]:
        """Where the next step begins and ends, by the times of accept."""
        first, last = ("+inf", "-inf") if self.is_newest_first else ("-inf", "+inf")
        return (first if self.from_ms is None else self.from_ms), last

    def go_on(self, times_ms: Sequence[int]) -> None:
        """Notes what a step found, by the times of accept; after the last one the next walk begins in a while."""
        if len(times_ms) < SOME:
            self.from_ms, self.skip, self.is_first = None, 0, False
            self.due = time.monotonic() + WALK_SECONDS
            return
        last_ms = times_ms[-1]
        seen = sum(one == last_ms for one in times_ms)
        self.skip = seen + (self.skip if last_ms == self.from_ms else 0)
        self.from_ms = last_ms


def standby_faults(entry: Entry, reports: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Each standby of a source that could not take it over, and why, by the regions' reports."""
    standbys = entry.definition.regions(entry.region)[1:] if entry.definition is not None else ()
    return {region: why for region in standbys if (why := why_not(entry, region, reports))}


def why_it_stays(entry: Entry, reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Why a source's tasks stay in its region, whatever happens to the region; empty if a standby is ready."""
    if entry.definition is None:
        return "its definition is broken"
    if entry.definition.pinned:
        return "it is pinned"
    if not entry.definition.standby:
        return "it has no standby"
    faults = standby_faults(entry, reports)
    if len(faults) < len(entry.definition.regions(entry.region)) - 1:
        return ""
    return "; ".join(f"{region}: {why}" for region, why in faults.items())


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
