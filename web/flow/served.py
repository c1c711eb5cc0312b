"""The regions that a gateway serves, whose files come and go while it runs.

    a new file     its queues are declared; then it takes tasks, and its stream is read
    a file gone    the region is still served while a source names it or a task of it is open, also by gateways that start meanwhile

Every part of the gateway reads ``settings.region`` anew in each of its turns. This is the only place that changes it. Each
gateway notes in the hub which regions it has files of. So a gateway without a region's file finds its open tasks.
"""

import time
from collections.abc import Callable
from typing import Final

from jobs.definition.catalog import Catalog
from regions import connect, logs, names
from regions.faults import Faults
from regions.script import send, value
from regions.settings import Region, Settings
from web.flow.publish import Publisher
from web.hub.faults import Found
from web.hub.redis import Hub, HubUnavailable

NOTE_SECONDS: Final = 10.0  # between two notes in the hub
KEPT_MS: Final = 3_600_000  # a note is older than any deadline by then
AGAIN_SECONDS: Final = 5.0  # until files are read again that were wrong
SHOWN_MAX: Final = 5  # sources in a reason

log = logs.get("regions")


class Served:
    """The regions of one gateway. ``reload`` reads the settings again; it raises ``Faults`` while a file is wrong.

    ``leaving``: the regions that are served without a file, and why.
    """

    def __init__(
        self, settings: Settings, hub: Hub, catalog: Catalog, publisher: Publisher, reload: Callable[[], Settings]
    ) -> None:
        self._regions, self._hub, self._catalog, self._publisher = settings.region, hub, catalog, publisher
        self._reload = reload
        self._first_region = settings.first_region
        self._faults = ""
        self._files_at = self._note_at = 0.0  # when to read, and to note again
        self._files: dict[str, Region] = dict(settings.region)
        self._strays: set[str] = set()  # without a file here, which another gateway had one of
        self._idle: set[str] = set()  # regions without a file that nothing needed at the last look
        self.leaving: dict[str, str] = {}

    def look(self) -> None:
        """Looks at the files once. Steps that fail are repeated at a later look. Raises nothing."""
        self._read()
        try:
            if time.monotonic() >= self._note_at:
                self._note()
                self._note_at = time.monotonic() + NOTE_SECONDS
            self._take()
            self._let_go()
        except HubUnavailable as error:
            log.debug("regions not looked at", reason=error.reason)

    def faults(self) -> list[Found]:
        """The files that are wrong, and the regions whose file is gone, by name."""
        wrong = [Found("region-files-wrong", self._faults)] if self._faults else []
        gone = [Found("region-file-gone", why, region=region) for region, why in self.leaving.copy().items()]
        return wrong + gone

    def _read(self) -> None:
        """Reads changed files. The regions stay as they are while a file is wrong."""
        if time.monotonic() < self._files_at:
            return
        try:
            found, faults = self._reload().region, ""
        except Faults as error:
            found, faults = self._files, str(error)
            self._files_at = time.monotonic() + AGAIN_SECONDS
        if faults and faults != self._faults:
            log.error("the regions stay as they are: their files are wrong", faults=faults)
        self._faults = faults
        if found.keys() - self._files.keys():
            self._note_at = 0.0  # before the region gets a task
            if (first := next(iter(found))) != self._first_region and first not in self._files:
                note = f"sources without a region stay in {self._first_region} until the gateways and workers restart"
                log.warning("a new region is the first one", region=first, note=note)
        self._files = found

    def _note(self) -> None:
        """Notes the regions with files, and finds those without one."""
        with self._hub.asking() as client:
            now_ms = connect.redis_now_ms(client)
            scores = [part for region in self._files for part in (now_ms, region)]
            commands = [
                ("ZADD", names.REGIONS, *scores),
                ("ZREMRANGEBYSCORE", names.REGIONS, "-inf", now_ms - KEPT_MS),
                ("ZRANGE", names.REGIONS, 0, -1),
            ]
            *_, noted = map(value, send(client, commands, []))
        self._strays = {region.decode() for region in noted} - self._files.keys()

    def _take(self) -> None:
        """Serves regions with a new or changed file, once their queues are declared, and strays that have open tasks."""
        for name, region in self._files.items():
            if name in self._regions:
                self._regions[name] = region
                if self.leaving.pop(name, None):
                    log.info("a region's file is back", region=name)
            elif self._has_queues(name):
                self._regions[name] = region
                log.info("a region is served", region=name)
        strays = sorted(self._strays - self._regions.keys())
        for name, count in zip(strays, self._open(strays), strict=True):
            if count and self._has_queues(name):
                self._regions[name] = Region(name=name, title=name)

    def _has_queues(self, region: str) -> bool:
        if not self._publisher.serves(region):
            self._publisher.declare(region)
        return self._publisher.serves(region)

    def _let_go(self) -> None:
        """Ends serving regions without a file that nothing has needed since the last look."""
        gone = [region for region in list(self._regions) if region not in self._files]
        idle = set()
        for name, count in zip(gone, self._open(gone), strict=True):
            reasons = [*_named_by(self._sources_of(name)), *([f"{count} of its tasks are open"] if count else [])]
            if reasons:
                if name not in self.leaving:
                    log.warning(
                        "a region's file is gone, it is served until nothing needs it", region=name, why=reasons
                    )
                self.leaving[name] = f"its file is gone, and it is served because {', '.join(reasons)}"
            elif name in self._idle:
                del self._regions[name]
                self.leaving.pop(name, None)
                log.info("a region is not served any more", region=name)
            else:
                idle.add(name)
        self._idle = idle

    def _sources_of(self, region: str) -> list[str]:
        """The sources that name a region, as theirs or as a standby."""
        return [
            entry.id
            for entry in self._catalog.entries()
            if entry.region == region
            or (entry.definition is not None and region in entry.definition.regions(entry.region))
        ]

    def _open(self, regions: list[str]) -> list[int]:
        """How many tasks are open in each region. Raises HubUnavailable."""
        if not regions:
            return []
        with self._hub.asking() as client:
            return list(map(value, send(client, [("ZCARD", names.open_tasks(region)) for region in regions], [])))


def _named_by(sources: list[str]) -> list[str]:
    """The reason that these sources are, if there are any."""
    if not sources:
        return []
    more = f" and {len(sources) - SHOWN_MAX} more" if len(sources) > SHOWN_MAX else ""
    return [f"sources name it ({', '.join(sources[:SHOWN_MAX])}{more})"]
