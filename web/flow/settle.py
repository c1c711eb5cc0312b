"""Reads the regions' out streams and ends tasks by their results.

    nf:out:{region} ── consumer group of the gateways ── settle (one round trip a batch) ── news to the waiters
                                                       └ claims, status, sources ── stored for the status pages

Reading an entry twice is harmless. So an entry is acknowledged and deleted only after it took effect, in the same write as
the next read. Entries that a dead gateway had read are taken over after 5 s.
"""

import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
import redis
import ulid
from msgspec import Struct

from jobs import result_frame
from jobs.definition.catalog import Catalog
from jobs.errors import Expired, Internal, TaskError, TooLarge
from regions import connect, logs, names
from regions.counts import Labels
from regions.link import Link
from regions.loop import Loop
from regions.script import send, value
from regions.settings import Settings
from web.flow.refusals import Refusals
from web.hub import scripts
from web.hub.entry import Claim, ForeignRun, Refused, Report, judge
from web.hub.frame import made as frame_made
from web.hub.ledger import Ledger
from web.hub.redis import Hub, HubUnavailable
from web.hub.runs import Runs
from web.hub.settlement import Settlement
from web.hub.view import View, mapping

BLOCK_SECONDS: Final = 1.0
BATCH: Final = 500  # entries of a region that are read at once
BATCH_MIN: Final = 50
TAKE_OVER_MS: Final = 5_000
HOUSEKEEPING_SECONDS: Final = 1.0
FORGET_CONSUMER_MS: Final = 60_000
FORGET_EVERY_SECONDS: Final = 10.0
APART_SECONDS: Final = 30.0  # how long a region is read apart after the last reason for it
APART_EVERY_SECONDS: Final = 0.25
APART_BATCH: Final = 100
APART_BYTES: Final = 200_000  # in one batch; after more, the next batch is smaller
# Of a region in one batch. With more it is read apart: 500 entries of 2 MB took all memory.
TOGETHER_BYTES: Final = 16_000_000
LARGE_BYTES: Final = 100_000  # of an entry in the mean; a region whose entries are larger is read apart on
REFUSED_MAX: Final = 10  # refused entries in one batch; a region with more is read apart
PARTS_MAX: Final = 200  # bridges and pools of a region at one time
# Of what they report, which every gateway decodes once or twice a second: 200 parts of 31 kB took a tenth of a processor.
PARTS_BYTES_MAX: Final = 1_000_000
PART_LIVES_SECONDS: Final = 3_600.0  # after its last status, before its place may go to another one
# Bytes of claims, status and lists of sources in so many seconds, and of unusually long trails; a region that tells more is
# read apart: to judge a trail of 16 kB takes 0.3 ms.
TOLD_BYTES_MAX, TOLD_SECONDS = 20_000_000, 10.0
TRAIL_USUAL: Final = 4_000  # bytes; ten attempts with messages have less

Entry = tuple[str, bytes, dict[bytes, bytes]]  # region, entry id, fields

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
    """Reads all out streams, in a thread of each gateway. Without a ``catalog`` any region may own any source."""

    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        ledger: Ledger,
        news: News,
        catalog: Catalog | None = None,
    ) -> None:
        self._served = settings.region  # changes while the gateway runs
        self._regions = list(self._served)  # those that are read now
        self._records_max = settings.limits.records_bytes_max + result_frame.HEAD_BYTES_MAX
        self._hub, self._ledger, self._news, self._catalog = hub, ledger, news, catalog
        self._reader: redis.Redis = connect.open_redis(
            settings.hub.redis, name="gateway-settle", block_seconds=BLOCK_SECONDS, connections=2
        )
        self.consumer = f"{socket.gethostname()}:{os.getpid()}:{ulid.ULID()}"
        self._runs = Runs(self._reader)
        self._refusals = Refusals(self._reader)
        self._has_groups = False
        # Acknowledgements use the connection of the read before. A hub that was killed meanwhile may have lost the effect,
        # and the new connection reads the entries again.
        self._link: Link | None = None
        self._took_effect: list[tuple[Any, ...]] = []  # commands that acknowledge it
        self._backlog = True  # entries that this consumer read and did not acknowledge come first
        self._count = BATCH_MIN
        self._apart: dict[str, float] = {}  # regions that are read by themselves, and until when (monotonic)
        self._apart_count, self._apart_at = APART_BATCH, 0.0
        # By region: its bridges and pools, when each sent its last status, and the bytes of that.
        self._parts: dict[str, dict[str, tuple[float, int]]] = {}
        self._told: Counter[str] = Counter()  # by region: bytes that it told since ``_told_at``
        self._told_at = 0.0
        self._housekeeping_at = self._forget_at = 0.0
        self._read_at = 0.0  # when the entries at hand were read (monotonic)
        self._loop = Loop("settle", self._turn, last=self._finish, end_seconds=BLOCK_SECONDS + 5)

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
            self._has_groups, self._backlog, self._took_effect = False, True, []
        except Exception:
            log.exception("settling failed")
        else:
            self._loop.failures = 0
            return 0.0
        return self._loop.backoff_seconds()

    def run_once(self) -> None:
        """One batch: acknowledges the last one, reads, and lets the entries take effect."""
        if (served := list(self._served)) != self._regions:
            self._regions, self._has_groups = served, False
            self._apart = {region: until for region, until in self._apart.items() if region in served}
        if not self._has_groups:
            self._make_groups()
        if time.monotonic() >= self._housekeeping_at:
            self._housekeeping_at = time.monotonic() + HOUSEKEEPING_SECONDS
            self._acknowledge()
            self._take_over()
            self._runs.flush()
            self._refusals.flush()
        self._handle(self._read())
        if self._apart and time.monotonic() >= self._apart_at:
            self._apart_at = time.monotonic() + APART_EVERY_SECONDS
            self._handle(self._read_apart())

    def _connect(self) -> Link:
        if self._link is None or not self._link.is_open:
            self._link, self._took_effect = Link(self._reader), []
        return self._link

    def _finish(self) -> None:
        try:
            self._acknowledge()
            self._refusals.flush()
        except redis.exceptions.RedisError as error:
            log.info("settled entries will be read again", error=str(error))
        self._runs.flush()

    def _acknowledge(self, *then: tuple[Any, ...]) -> Any:
        """Acknowledges what took effect, in one write with another command, whose reply it returns.

        A full Redis refuses to store a region's status. That is only logged, so that the results just read do not wait.
        """
        link = self._connect()
        before, self._took_effect = self._took_effect, []
        answers = send(link, [*before, *then], []) if before or then else []
        for refusal in answers[: len(before)]:
            if isinstance(refusal, Exception):
                log.warning("a region's status was not stored", error=str(refusal))
        return value(answers[-1]) if then else None

    def _read(self) -> list[Entry]:
        """Reads the regions that are not read apart."""
        together = [region for region in self._regions if region not in self._apart]
        if not together:
            self._acknowledge()
            self._loop.stopping.wait(APART_EVERY_SECONDS)
            return []
        block_seconds = APART_EVERY_SECONDS if self._apart else BLOCK_SECONDS
        try:
            command = self._command(together, self._count, "0" if self._backlog else ">", block_seconds)
            entries = _entries(self._acknowledge(command))
        except redis.exceptions.ResponseError as error:
            if not str(error).startswith(("WRONGTYPE", "NOGROUP", "UNBLOCKED")):
                raise
            self._make_groups()
            return []
        self._backlog = self._backlog and bool(entries)
        self._count = min(BATCH, max(BATCH_MIN, 2 * len(entries)))
        return entries

    def _read_apart(self) -> list[Entry]:
        """Reads the other regions, each by itself and a little at a time, so that they delay no other region."""
        for region, until in list(self._apart.items()):
            if time.monotonic() >= until:
                del self._apart[region]
                log.info("a region is read with the others again", region=region)
        regions = list(self._apart)
        replies = send(self._reader, [self._command([region], self._apart_count, ">") for region in regions], [])
        entries: list[Entry] = []
        for region, reply in zip(regions, replies, strict=True):
            if isinstance(reply, Exception):
                self._has_groups = False
                self._set_apart(region, str(reply))
            else:
                entries += _entries(reply)
        sizes = _sizes(entries)
        for region, count in Counter(region for region, _, _ in entries).items():
            if sizes[region] > count * LARGE_BYTES:
                self._set_apart(region, "its entries are large")
        size = sizes.total()
        self._apart_count = (
            max(1, self._apart_count // 2) if size > APART_BYTES else min(APART_BATCH, 2 * self._apart_count)
        )
        return entries

    def _command(self, regions: Sequence[str], count: int, since: str, block_seconds: float = 0.0) -> tuple[Any, ...]:
        wait = ("BLOCK", int(block_seconds * 1000)) if block_seconds else ()
        streams = map(names.out_stream, regions)
        return (
            "XREADGROUP", "GROUP", names.GATEWAYS, self.consumer, "COUNT", count, *wait,
            "STREAMS", *streams, *[since] * len(regions),
        )  # fmt: skip

    def _set_apart(self, region: str, why: str) -> None:
        if region not in self._apart:
            log.warning("a region is read apart from the others", region=region, reason=why)
        self._apart[region] = time.monotonic() + APART_SECONDS

    def _take_over(self) -> None:
        """Takes over entries of gateways that died or hung after they had read them: a few at a time, since they may have died of them."""
        for _ in range(BATCH // BATCH_MIN):
            entries = self._taken_over()
            self._handle(entries)
            if len(entries) < BATCH_MIN:
                return

    def _taken_over(self) -> list[Entry]:
        commands: list[tuple[Any, ...]] = []
        for region in self._regions:
            stream, count = names.out_stream(region), self._apart_count if region in self._apart else BATCH_MIN
            commands.append(("XAUTOCLAIM", stream, names.GATEWAYS, self.consumer, TAKE_OVER_MS, "0-0", "COUNT", count))
        entries: list[Entry] = []
        for region, claimed in zip(self._regions, send(self._reader, commands, []), strict=True):
            if isinstance(claimed, Exception):
                self._has_groups = False  # its stream is checked before the next batch; the others go on
            else:
                entries += [(region, entry, mapping(fields or [])) for entry, fields in claimed[1]]
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + FORGET_EVERY_SECONDS
            self._forget_consumers()
        return entries

    def _forget_consumers(self) -> None:
        """Deletes the consumers of gateways that are gone: each has a new name after a start."""
        commands = [("XINFO", "CONSUMERS", names.out_stream(region), names.GATEWAYS) for region in self._regions]
        gone: list[tuple[Any, ...]] = []
        for region, consumers in zip(self._regions, send(self._reader, commands, []), strict=True):
            if isinstance(consumers, Exception):
                self._has_groups = False
                continue
            for consumer in (dict[bytes, Any](mapping(one)) for one in consumers):
                is_gone = consumer[b"idle"] > FORGET_CONSUMER_MS and consumer[b"pending"] == 0
                if is_gone and consumer[b"name"].decode() != self.consumer:
                    gone.append(("XGROUP", "DELCONSUMER", names.out_stream(region), names.GATEWAYS, consumer[b"name"]))
        if gone:
            send(self._reader, gone, [])

    def _make_groups(self) -> None:
        """Makes the groups, also on a full Redis, which only reading drains. A key of another type is replaced by a stream."""
        wrong = scripts.GROUPS.call(self._reader, group=names.GATEWAYS, streams=map(names.out_stream, self._regions))
        for region, why in zip(self._regions, wrong, strict=True):
            if why:
                self._set_apart(region, why.decode())
                self._refuse(region, "", {}, Refused("stream", f"expected a stream, found {why.decode()}"))
        self._has_groups = True

    def _handle(self, entries: list[Entry]) -> None:
        """Lets all entries take effect, those first for which clients wait here; then they may be acknowledged."""
        self._read_at = time.monotonic()
        for region, size in _sizes(entries).items():
            if size > TOGETHER_BYTES:
                self._set_apart(region, f"its entries had {size:,} bytes at once")
                self._apart_count = 1
        self._count_told(entries)
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
                self._set_apart(region, f"{count} of its entries were refused at once")
        with self._hub.asking():
            self._settle(batch.settlements)
            self._refuse_foreign(batch.foreign)
            for region, started in batch.claims.items():
                self._ledger.mark_running(region, ((one.request, one.task, one.trail) for one in started))
        commands: list[tuple[Any, ...]] = [
            ("HSET", names.region_status(region), part, text) for (region, part), text in batch.reports.items()
        ]
        for region, minutes in batch.minutes.items():
            commands.append(("HSET", names.day_at_hub(region), *(of for minute in minutes.items() for of in minute)))
        by_region: dict[str, list[bytes]] = {}
        for region, entry, _ in entries:
            by_region.setdefault(region, []).append(entry)
        for region, ids in by_region.items():
            commands.append(("XACK", names.out_stream(region), names.GATEWAYS, *ids))
            commands.append(("XDEL", names.out_stream(region), *ids))
        self._took_effect += commands

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

    def _count_told(self, entries: Sequence[Entry]) -> None:
        """Has a region read apart that tells so much that judging it takes this thread from the others."""
        if self._read_at >= self._told_at + TOLD_SECONDS:
            self._told.clear()
            self._told_at = self._read_at
        for region, _, fields in entries:
            trail = len(fields.get(b"h", b""))
            self._told[region] += len(fields.get(b"d", b"")) + (trail if trail > TRAIL_USUAL else 0)
        for region, size in self._told.items():
            if size > TOLD_BYTES_MAX:
                self._set_apart(region, f"it told {size:,} bytes within {TOLD_SECONDS:g} s")

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
    others = [bytes_ for one, (_, bytes_) in parts.items() if one != part]
    return len(others) < PARTS_MAX and sum(others) + size <= PARTS_BYTES_MAX


def _sizes(entries: Sequence[Entry]) -> Counter[str]:
    """The bytes of each region's entries."""
    sizes: Counter[str] = Counter()
    for region, _, fields in entries:
        sizes[region] += sum(map(len, fields.values()))
    return sizes


def _entries(reply: Any) -> list[Entry]:
    """The entries in a reply to XREADGROUP."""
    found: list[Entry] = []
    for stream, entries in reply or ():
        region = names.region_of_stream(stream.decode())
        found += [(region, entry, mapping(fields or [])) for entry, fields in entries]
    return found
