"""Ends tasks by the entries of the regions' out streams, which ``web.flow.out_streams`` reads.

    entries ── judge (web.hub.entry) ─┬─ results ── settle, one round trip a batch ── news to the waiters
                                      └─ claims, status, sources ── stored for the status pages

What breaks the rules is refused and counted (web.flow.refusals).
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

import msgspec
import redis
from msgspec import Struct

from jobs import result_frame
from jobs.definition.catalog import Catalog
from jobs.errors import Expired, Internal, TaskError, TooLarge
from regions import connect, logs, names
from regions.counts import Labels
from regions.loop import Loop
from regions.settings import Settings
from web.flow.out_streams import BLOCK_SECONDS, Command, Entry, OutStreams
from web.flow.refusals import Refusals
from web.hub import scripts
from web.hub.entry import Claim, ForeignRun, Refused, Report, judge
from web.hub.frame import made as frame_made
from web.hub.ledger import Ledger
from web.hub.redis import Hub, HubUnavailable
from web.hub.runs import Runs
from web.hub.settlement import Settlement
from web.hub.view import View

HOUSEKEEPING_SECONDS: Final = 1.0
REFUSED_MAX: Final = 10  # refused entries in one batch; a region with more is read apart
PARTS_MAX: Final = 200  # bridges and pools of a region at one time
# Of what they report, which every gateway decodes once or twice a second: 200 parts of 31 kB took a tenth of a processor.
PARTS_BYTES_MAX: Final = 1_000_000
PART_LIVES_SECONDS: Final = 3_600.0  # after its last status, before its place may go to another one

log = logs.get("settle")


class _Foreign(Struct):
    """A run of a source that the catalogue does not have in the region, and the entry that brought it."""

    region: str
    entry: str
    fields: dict[bytes, bytes]
    of: Settlement
    run: ForeignRun


class _Batch(Struct):
    """The meaning of the entries of one batch, by kind."""

    settlements: list[Settlement] = msgspec.field(default_factory=list)
    claims: dict[str, list[Claim]] = msgspec.field(default_factory=dict)  # by region
    reports: dict[tuple[str, str], bytes] = msgspec.field(default_factory=dict)  # by region and bridge or pool
    minutes: dict[str, dict[int, bytes]] = msgspec.field(default_factory=dict)  # by region and minute of the day
    foreign: list[_Foreign] = msgspec.field(default_factory=list)


class News(Protocol):
    """Gets the news of requests whose tasks ended. Implemented by ``web.api.wait.Waiters``."""

    def wanted(self, requests: Iterable[str]) -> list[str]:
        """Those of the requests that a client reads at once when they have ended."""

    def news(self, requests: Iterable[str], views: Mapping[str, View] | None = None) -> None:
        """These requests have news, as ``names.WAKE`` carries it. ``views``: those that were read already."""


class Settler:
    """Lets the entries of all out streams take effect, in a thread of each gateway. Without a ``catalog`` any region may own any source."""

    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        ledger: Ledger,
        news: News,
        catalog: Catalog | None = None,
    ) -> None:
        self._records_max = settings.limits.records_bytes_max + result_frame.HEAD_BYTES_MAX
        self._hub, self._ledger, self._news, self._catalog = hub, ledger, news, catalog
        self._reader: redis.Redis = connect.open_redis(
            settings.hub.redis, name="gateway-settle", block_seconds=BLOCK_SECONDS, connections=2
        )
        self._runs = Runs(self._reader)
        self._refusals = Refusals(self._reader)
        # By region: its bridges and pools, when each sent its last status, and the bytes of that.
        self._parts: dict[str, dict[str, tuple[float, int]]] = {}
        self._housekeeping_at = 0.0
        self._read_at = 0.0  # when the entries at hand were read (monotonic)
        self._loop = Loop("settle", self._turn, last=self._finish, end_seconds=BLOCK_SECONDS + 5)
        self._streams = OutStreams(settings.region, self._reader, self._loop.stopping, self._refuse)

    def start(self) -> None:
        """Starts the thread."""
        self._loop.start()

    def stop(self) -> None:
        """Finishes the batch at hand and ends the thread."""
        self._loop.stop()
        self._reader.close()

    def _turn(self) -> float:
        try:
            self.run_once()
        except (redis.exceptions.RedisError, HubUnavailable) as error:
            if isinstance(error, connect.AWAY):
                self._hub.lost(error)
            elif not self._loop.failures:
                log.warning("settling failed", error=str(error))
            self._streams.begin_anew()
        except Exception:
            log.exception("settling failed")
        else:
            self._loop.failures = 0
            return 0.0
        return self._loop.backoff_seconds()

    def run_once(self) -> None:
        """One batch: acknowledges the last one, reads, and lets the entries take effect."""
        self._streams.prepare()
        if time.monotonic() >= self._housekeeping_at:
            self._housekeeping_at = time.monotonic() + HOUSEKEEPING_SECONDS
            self._streams.acknowledge()
            for entries in self._streams.taken_over():
                self._handle(entries)
            self._runs.flush()
            self._refusals.flush()
        self._handle(self._streams.read())
        if apart := self._streams.read_apart():
            self._handle(apart)

    def _finish(self) -> None:
        try:
            self._streams.acknowledge()
            self._refusals.flush()
        except redis.exceptions.RedisError as error:
            log.info("settled entries will be read again", error=str(error))
        self._runs.flush()

    def _handle(self, entries: list[Entry]) -> None:
        """Lets all entries take effect, those first for which clients wait here; then they may be acknowledged."""
        self._read_at = time.monotonic()
        self._streams.weigh(entries)
        of = [fields.get(b"q", b"").decode("ascii", "replace") for _, _, fields in entries]
        wanted = set(self._news.wanted(set(of)) if len(entries) > 1 else ())
        first = [entry for entry, request in zip(entries, of, strict=True) if request in wanted]
        others = [entry for entry, request in zip(entries, of, strict=True) if request not in wanted]
        for some in (first, others):
            if some:
                self._take_effect(some)

    def _take_effect(self, entries: list[Entry]) -> None:
        batch = _Batch()
        refused: dict[str, int] = {}
        for region, entry, fields in entries:
            try:
                self._sort(region, entry.decode(), fields, batch)
            except Refused as error:
                refused[region] = refused.get(region, 0) + 1
                self._refuse(region, entry.decode(), fields, error)
        for region, count in refused.items():
            if count > REFUSED_MAX:
                self._streams.set_apart(region, f"{count} of its entries were refused at once")
        with self._hub.asking():
            self._settle(batch.settlements)
            self._refuse_foreign(batch.foreign)
            for region, started in batch.claims.items():
                self._ledger.mark_running(region, ((one.request, one.task, one.trail) for one in started))
        writes: list[Command] = [
            ("HSET", names.region_status(region), part, text) for (region, part), text in batch.reports.items()
        ]
        for region, minutes in batch.minutes.items():
            writes.append(("HSET", names.day_at_hub(region), *(of for minute in minutes.items() for of in minute)))
        self._streams.took_effect(entries, writes)

    def _sort(self, region: str, entry: str, fields: dict[bytes, bytes], batch: _Batch) -> None:
        """Adds an entry to the batch; raises ``Refused``."""
        if not fields:  # it was deleted meanwhile
            return
        doubts: list[Refused] = []
        found = judge(region, entry, fields, self._owns, doubts.append)
        for doubt in doubts:
            if isinstance(doubt, ForeignRun) and isinstance(found, Settlement):
                batch.foreign.append(_Foreign(region, entry, fields, found, doubt))
            else:
                self._refuse(region, entry, fields, doubt)
        if isinstance(found, Settlement):
            batch.settlements.append(msgspec.structs.replace(found, held_max=self._hub.region_bytes_max))
        elif isinstance(found, Report):
            self._note_part(region, found.field, 0 if found.field == "sources" else len(found.text))
            batch.reports[region, found.field] = found.text
            if found.minutes:
                batch.minutes.setdefault(region, {}).update(found.minutes)
        else:
            batch.claims.setdefault(region, []).extend(found)

    def _owns(self, region: str, source: str) -> bool:
        if self._catalog is None:
            return True
        entry = self._catalog.get(source)
        return entry is not None and (
            entry.region == region or (entry.definition is not None and region in entry.definition.standby)
        )

    def _note_part(self, region: str, part: str, size: int) -> None:
        """Bounds a region's bridges and pools, whose names the region invents, and the bytes that they report; raises ``Refused``."""
        parts, now = self._parts.setdefault(region, {}), time.monotonic()
        if not _has_room(parts, part, size):
            for gone in [one for one, (at, _) in parts.items() if at < now - PART_LIVES_SECONDS]:
                del parts[gone]
            if not _has_room(parts, part, size):
                most = f"{PARTS_MAX} bridges and pools and {PARTS_BYTES_MAX} bytes of their reports"
                raise Refused("status", f"expected {most} at most, found more")
        parts[part] = now, size

    def _refuse(self, region: str, entry: str, fields: dict[bytes, bytes], refused: Refused) -> None:
        self._refusals.add(region, entry, fields, refused)
        self._ledger.tally.refused.add(region, refused.what)

    def _settle(self, settlements: list[Settlement]) -> None:
        if not settlements:
            return
        unusual = [(one, scripts.TOO_LARGE) for one in settlements if not self._is_usual(one)]
        settlements = [*filter(self._is_usual, settlements), *self._instead(unusual)]
        wanted = set(self._news.wanted({one.request for one in settlements}))
        answers, views = self._ledger.settle_and_read(settlements, wanted)
        settled_at = time.monotonic()
        refused: list[tuple[Settlement, int]] = []
        news: list[str] = []
        for one, answer in zip(settlements, answers, strict=True):
            if answer in scripts.ENDED:
                news.append(one.request if answer == scripts.LAST else one.request + names.MORE)
                self._hub.observe(one.region, one.size_bytes)
            elif answer not in (scripts.NOTHING, scripts.OUT):
                refused.append((one, answer))
            elif one.request in wanted:  # it may have ended by a call whose answer was lost, and nobody was told
                news.append(one.request)
            if answer in scripts.ENDED and one.run is not None:  # not counted again for an entry that was read before
                self._runs.add(one.region, one.run, one.finished_ms, one.task)
        if news:
            self._news.news(news, views)
        self._time(settlements, answers, views, settled_at)
        self._settle(self._instead(refused))

    def _time(
        self, settlements: Sequence[Settlement], answers: Sequence[int], views: Mapping[str, View], settled_at: float
    ) -> None:
        """Counts how long the last hops of these tasks took: their end, and the answer where a client of this gateway waited."""
        taken, answered = settled_at - self._read_at, time.monotonic() - settled_at
        hops: list[tuple[Labels, float]] = []
        for one, answer in zip(settlements, answers, strict=True):
            if answer in scripts.ENDED:
                hops.append((("settle", one.region), taken))
                if one.request in views:
                    hops.append((("answer", one.region), answered))
        self._ledger.tally.hops.add_all(hops)

    def _refuse_foreign(self, foreign: Sequence[_Foreign]) -> None:
        """Refuses runs of sources for which the hub did not ask their region. None of them is counted.

        A source that an operator has deleted or moved still has tasks that run, and the ledger knows which region it asked.
        """
        runs = [(one.of.request, one.of.task, one.run.source, one.region) for one in foreign]
        for one, was_asked in zip(foreign, self._ledger.were_asked(runs), strict=True):
            if not was_asked:
                self._refuse(one.region, one.entry, one.fields, one.run)

    def _is_usual(self, one: Settlement) -> bool:
        """Whether a result's stated size is allowed. That size also counts towards the limit of its request."""
        return bool(one.frame) or one.size_bytes <= (
            self._records_max if one.status == "succeeded" else result_frame.HEAD_BYTES_MAX
        )

    def _instead(self, refused: Sequence[tuple[Settlement, int]]) -> list[Settlement]:
        """Failures for tasks whose own results were refused. One round trip reads the names of their sources."""
        if not refused:
            return []
        asked = self._ledger.asked(list({one.request: None for one, _ in refused}))
        sources = {task: source for tasks in asked for task, source, _ in tasks or ()}
        instead = []
        for one, answer in refused:
            error = _why(answer)
            if answer == scripts.NO_FRAME:
                found = {b"t": one.task.encode(), b"b": str(one.size_bytes).encode()}
                self._refuse(one.region, "", found, Refused("frame", str(error)))
            status = "expired" if answer == scripts.LATE else "failed"
            source = sources.get(one.task, "")
            frame = frame_made(one.task, source, one.region, status, error)
            instead.append(
                msgspec.structs.replace(
                    one,
                    status=status,
                    frame=frame,
                    size_bytes=len(frame),
                    held_max=0,
                    source=source,
                    origin=error.whose,
                )
            )
        return instead


def _why(answer: int) -> TaskError:
    match answer:
        case scripts.LATE:
            return Expired("the task finished after its deadline")
        case scripts.TOO_LARGE:
            return TooLarge("the records of the task, or of its whole request, exceed their limit")
        case scripts.NO_FRAME:
            return Internal("the region sent no result, or one larger than it stated")
        case _:
            return Internal("the region's room at the hub is used up")


def _has_room(parts: Mapping[str, tuple[float, int]], part: str, size: int) -> bool:
    """Whether a region's parts and their reports stay within their bounds with this one."""
    others = [taken for one, (_, taken) in parts.items() if one != part]
    return len(others) < PARTS_MAX and sum(others) + size <= PARTS_BYTES_MAX
