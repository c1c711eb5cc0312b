"""Reads the regions' out streams, as one of the gateways, which share them as a consumer group.

    read ──> the entries take effect (web.flow.settle) ──> acknowledged and deleted, in the same write as the next read

Reading an entry twice is harmless. So an entry is acknowledged only after it took effect. Entries that a dead gateway had read
are taken over after 5 s. A region that would delay the others is *read apart*: by itself, and a little at a time.
"""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import redis
import ulid

from regions import logs, names
from regions.link import Link
from regions.script import send, value
from web.hub import scripts
from web.hub.entry import Refused
from web.hub.view import mapping

BLOCK_SECONDS: Final = 1.0
BATCH: Final = 500  # entries of a region that are read at once
BATCH_MIN: Final = 50
TAKE_OVER_MS: Final = 5_000
FORGET_CONSUMER_MS: Final = 60_000
FORGET_EVERY_SECONDS: Final = 10.0
APART_SECONDS: Final = 30.0  # how long a region is read apart after the last reason for it
APART_EVERY_SECONDS: Final = 0.25
APART_BATCH: Final = 100
APART_BYTES: Final = 200_000  # in one batch; after more, the next batch is smaller
# Of a region in one batch. With more it is read apart: 500 entries of 2 MB took all memory.
TOGETHER_BYTES: Final = 16_000_000
LARGE_BYTES: Final = 100_000  # of an entry in the mean; a region whose entries are larger is read apart on
# Bytes of claims, status and lists of sources in so many seconds, and of unusually long trails; a region that tells more is
# read apart: to judge a trail of 16 kB takes 0.3 ms.
TOLD_BYTES_MAX, TOLD_SECONDS = 20_000_000, 10.0
TRAIL_USUAL: Final = 4_000  # bytes; ten attempts with messages have less

Entry = tuple[str, bytes, dict[bytes, bytes]]  # region, entry id, fields
Command = tuple[Any, ...]

log = logs.get("settle")


class OutStreams:
    """The streams of the regions that are ``served``, which change while the gateway runs."""

    def __init__(
        self,
        served: Mapping[str, object],
        client: redis.Redis,
        stopping: threading.Event,
        refuse: Callable[[str, str, dict[bytes, bytes], Refused], None],
    ) -> None:
        self._served = served
        self._regions = list(served)  # those that are read now
        self._client, self._stopping, self._refuse = client, stopping, refuse
        self.consumer = f"{socket.gethostname()}:{os.getpid()}:{ulid.ULID()}"
        self._has_groups = False
        # Acknowledgements use the connection of the read before. A hub that was killed meanwhile may have lost the effect,
        # and the new connection reads the entries again.
        self._link: Link | None = None
        self._took_effect: list[Command] = []  # commands that acknowledge it
        self._backlog = True  # entries that this consumer read and did not acknowledge come first
        self._count = BATCH_MIN
        self._apart: dict[str, float] = {}  # regions that are read by themselves, and until when (monotonic)
        self._apart_count, self._apart_at = APART_BATCH, 0.0
        self._told: Counter[str] = Counter()  # by region: bytes that it told since ``_told_at``
        self._told_at = 0.0
        self._forget_at = 0.0

    def prepare(self) -> None:
        """Follows the regions as they come and go, and makes groups where they may be missing."""
        if (served := list(self._served)) != self._regions:
            self._regions, self._has_groups = served, False
            self._apart = {region: until for region, until in self._apart.items() if region in served}
        if not self._has_groups:
            self._make_groups()

    def begin_anew(self) -> None:
        """After an error: what was read and not acknowledged is read again."""
        self._has_groups, self._backlog, self._took_effect = False, True, []

    def took_effect(self, entries: Iterable[Entry], writes: Iterable[Command]) -> None:
        """Acknowledges entries in the next write, behind what these commands are to store because of them."""
        self._took_effect += writes
        by_region: dict[str, list[bytes]] = {}
        for region, entry, _ in entries:
            by_region.setdefault(region, []).append(entry)
        for region, ids in by_region.items():
            self._took_effect.append(("XACK", names.out_stream(region), names.GATEWAYS, *ids))
            self._took_effect.append(("XDEL", names.out_stream(region), *ids))

    def acknowledge(self, *then: Command) -> Any:
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

    def read(self) -> list[Entry]:
        """Reads the regions that are not read apart. Waits a moment for entries."""
        together = [region for region in self._regions if region not in self._apart]
        if not together:
            self.acknowledge()
            self._stopping.wait(APART_EVERY_SECONDS)
            return []
        block_seconds = APART_EVERY_SECONDS if self._apart else BLOCK_SECONDS
        try:
            command = self._command(together, self._count, "0" if self._backlog else ">", block_seconds)
            entries = _entries(self.acknowledge(command))
        except redis.exceptions.ResponseError as error:
            if not str(error).startswith(("WRONGTYPE", "NOGROUP", "UNBLOCKED")):
                raise
            self._make_groups()
            return []
        self._backlog = self._backlog and bool(entries)
        self._count = min(BATCH, max(BATCH_MIN, 2 * len(entries)))
        return entries

    def read_apart(self) -> list[Entry]:
        """Reads the other regions from time to time, each by itself and a little at a time, so that they delay no other region."""
        if not self._apart or time.monotonic() < self._apart_at:
            return []
        self._apart_at = time.monotonic() + APART_EVERY_SECONDS
        return self._read_apart()

    def _read_apart(self) -> list[Entry]:
        for region, until in list(self._apart.items()):
            if time.monotonic() >= until:
                del self._apart[region]
                log.info("a region is read with the others again", region=region)
        regions = list(self._apart)
        replies = send(self._client, [self._command([region], self._apart_count, ">") for region in regions], [])
        entries: list[Entry] = []
        for region, reply in zip(regions, replies, strict=True):
            if isinstance(reply, Exception):
                self._has_groups = False
                self.set_apart(region, str(reply))
            else:
                entries += _entries(reply)
        sizes = _sizes(entries)
        for region, count in Counter(region for region, _, _ in entries).items():
            if sizes[region] > count * LARGE_BYTES:
                self.set_apart(region, "its entries are large")
        size = sizes.total()
        self._apart_count = (
            max(1, self._apart_count // 2) if size > APART_BYTES else min(APART_BATCH, 2 * self._apart_count)
        )
        return entries

    def set_apart(self, region: str, why: str) -> None:
        """Has a region read apart for half a minute from now on."""
        if region not in self._apart:
            log.warning("a region is read apart from the others", region=region, reason=why)
        self._apart[region] = time.monotonic() + APART_SECONDS

    def weigh(self, entries: Sequence[Entry]) -> None:
        """Has a region read apart if its entries take much memory, or if judging them takes this thread from the others."""
        for region, size in _sizes(entries).items():
            if size > TOGETHER_BYTES:
                self.set_apart(region, f"its entries had {size:,} bytes at once")
                self._apart_count = 1
        if (now := time.monotonic()) >= self._told_at + TOLD_SECONDS:
            self._told.clear()
            self._told_at = now
        for region, _, fields in entries:
            trail = len(fields.get(b"h", b""))
            self._told[region] += len(fields.get(b"d", b"")) + (trail if trail > TRAIL_USUAL else 0)
        for region, size in self._told.items():
            if size > TOLD_BYTES_MAX:
                self.set_apart(region, f"it told {size:,} bytes within {TOLD_SECONDS:g} s")

    def taken_over(self) -> Iterator[list[Entry]]:
        """Takes over entries of gateways that died or hung after they had read them: a few at a time, since they may have died of them."""
        for _ in range(BATCH // BATCH_MIN):
            entries = self._take_over()
            yield entries
            if len(entries) < BATCH_MIN:
                return

    def _take_over(self) -> list[Entry]:
        commands: list[Command] = []
        for region in self._regions:
            stream, count = names.out_stream(region), self._apart_count if region in self._apart else BATCH_MIN
            commands.append(("XAUTOCLAIM", stream, names.GATEWAYS, self.consumer, TAKE_OVER_MS, "0-0", "COUNT", count))
        entries: list[Entry] = []
        for region, claimed in zip(self._regions, send(self._client, commands, []), strict=True):
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
        gone: list[Command] = []
        for region, consumers in zip(self._regions, send(self._client, commands, []), strict=True):
            if isinstance(consumers, Exception):
                self._has_groups = False
                continue
            for consumer in (dict[bytes, Any](mapping(one)) for one in consumers):
                is_gone = consumer[b"idle"] > FORGET_CONSUMER_MS and consumer[b"pending"] == 0
                if is_gone and consumer[b"name"].decode() != self.consumer:
                    gone.append(("XGROUP", "DELCONSUMER", names.out_stream(region), names.GATEWAYS, consumer[b"name"]))
        if gone:
            send(self._client, gone, [])

    def _make_groups(self) -> None:
        """Makes the groups, also on a full Redis, which only reading drains. A key of another type is replaced by a stream."""
        wrong = scripts.GROUPS.call(self._client, group=names.GATEWAYS, streams=map(names.out_stream, self._regions))
        for region, why in zip(self._regions, wrong, strict=True):
            if why:
                self.set_apart(region, why.decode())
                self._refuse(region, "", {}, Refused("stream", f"expected a stream, found {why.decode()}"))
        self._has_groups = True

    def _connect(self) -> Link:
        if self._link is None or not self._link.is_open:
            self._link, self._took_effect = Link(self._client), []
        return self._link

    def _command(self, regions: Sequence[str], count: int, since: str, block_seconds: float = 0.0) -> Command:
        wait = ("BLOCK", int(block_seconds * 1000)) if block_seconds else ()
        streams = map(names.out_stream, regions)
        return (
            "XREADGROUP", "GROUP", names.GATEWAYS, self.consumer, "COUNT", count, *wait,
            "STREAMS", *streams, *[since] * len(regions),
        )  # fmt: skip


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
