"""Reads what the regions have to say and ends tasks by it.

    nf:out:{region} ── consumer group of the gateways ── settle (one round trip a batch) ── news to the waiters
                                                       └ claims, status, sources ── where the views read them

Reading an entry twice is harmless, so an entry is acknowledged and deleted only after it took effect: with the next read, in
the same write. What a dead gateway had read is taken over after 5 s.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
import redis
import ulid

from jobs import contract
from jobs.errors import Expired, Internal, TaskError, TooLarge
from regions import connect, logs, names
from regions.script import send, value
from regions.settings import Settings
from web import lua
from web.hub import Hub, HubUnavailable
from web.ledger import Ledger, Settlement, mapping
from web.runs import Runs

BLOCK_SECONDS: Final = 1.0
BATCH: Final = 500
TAKE_OVER_MS: Final = 5_000
HOUSEKEEPING_SECONDS: Final = 1.0
FORGET_CONSUMER_MS: Final = 60_000

Entry = tuple[str, bytes, dict[bytes, bytes]]  # region, entry id, fields

log = logs.get("settle")
_trails: Final = msgspec.json.Decoder(contract.Trail)


def hub_frame(task: str, source: str, region: str, status: str, error: TaskError) -> bytes:
    """A result that the hub itself makes: the task got none from its region."""
    result = contract.Result(task=task, source=source, region=region, status=status, attempts=0)
    return contract.failed_frame(result, error)


class Settler:
    """One reader of all out streams in a gateway."""

    def __init__(self, settings: Settings, hub: Hub, ledger: Ledger, news: Callable[[Iterable[str]], None]) -> None:
        self._regions = list(settings.region)
        self._hub, self._ledger, self._news = hub, ledger, news
        self._reader: redis.Redis = connect.open_redis(
            settings.hub.redis, name="gateway-settle", block_seconds=BLOCK_SECONDS, connections=2
        )
        self.consumer = f"{socket.gethostname()}:{os.getpid()}:{ulid.ULID()}"
        self._runs = Runs(self._reader)
        self._has_groups = False
        self._took_effect: list[tuple[Any, ...]] = []  # commands that say so
        self._backlog = True  # what this consumer read before and did not finish comes first
        self._housekeeping_at = 0.0
        self._failures = 0  # in a row
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.run, name="settle", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finishes the batch at hand and ends the thread."""
        self._stopping.set()
        self._thread.join(BLOCK_SECONDS + 5)
        self._reader.close()

    def run(self) -> None:
        """Reads until it is stopped; an outage of the hub is waited out."""
        while not self._stopping.is_set():
            try:
                self.run_once()
            except (redis.exceptions.RedisError, HubUnavailable) as error:
                if isinstance(error, connect.AWAY):
                    self._hub.lost(error)
                elif not self._failures:
                    log.warning("settling failed", error=str(error))
                self._has_groups, self._backlog, self._took_effect = False, True, []
            except Exception:
                log.exception("settling failed")
            else:
                self._failures = 0
                continue
            self._failures += 1
            self._stopping.wait(connect.backoff_seconds(self._failures))
        self._finish()

    def run_once(self) -> None:
        """One batch: acknowledge what took effect, read, take effect."""
        if not self._has_groups:
            self._make_groups()
        if time.monotonic() >= self._housekeeping_at:
            self._housekeeping_at = time.monotonic() + HOUSEKEEPING_SECONDS
            self._acknowledge()
            self._handle(self._taken_over())
            self._runs.flush()
        self._handle(self._read())

    def _finish(self) -> None:
        try:
            self._acknowledge()
        except redis.exceptions.RedisError as error:
            log.info("what was settled will be read again", error=str(error))
        self._runs.flush()

    def _acknowledge(self, *then: tuple[Any, ...]) -> Any:
        """Says what took effect, in one write with another command; the answer to that.

        A full Redis refuses what a region says of itself; that must not keep the results waiting that were just read.
        """
        before, self._took_effect = self._took_effect, []
        answers = send(self._reader, [*before, *then], []) if before or then else []
        for refusal in answers[: len(before)]:
            if isinstance(refusal, Exception):
                log.warning("not kept", error=str(refusal))
        return value(answers[-1]) if then else None

    def _read(self) -> list[Entry]:
        streams = [names.out_stream(region) for region in self._regions]
        since = ["0" if self._backlog else ">"] * len(streams)
        wait = ("BLOCK", int(BLOCK_SECONDS * 1000))
        command = (
            "XREADGROUP",
            "GROUP",
            names.GATEWAYS,
            self.consumer,
            "COUNT",
            BATCH,
            *wait,
            "STREAMS",
            *streams,
            *since,
        )
        entries: list[Entry] = []
        for stream, found in self._acknowledge(command) or ():
            region = stream.decode().removeprefix(names.out_stream(""))
            entries += [(region, entry, mapping(fields or [])) for entry, fields in found]
        self._backlog = self._backlog and bool(entries)
        return entries

    def _taken_over(self) -> list[Entry]:
        """Entries that a gateway read and did not finish: it is dead, or has hung for long."""
        pipeline = self._reader.pipeline(transaction=False)
        for region in self._regions:
            stream = names.out_stream(region)
            pipeline.xautoclaim(stream, names.GATEWAYS, self.consumer, TAKE_OVER_MS, "0-0", count=BATCH)
            pipeline.xinfo_consumers(stream, names.GATEWAYS)
        answers = pipeline.execute()
        entries: list[Entry] = []
        for index, region in enumerate(self._regions):
            claimed, consumers = answers[2 * index], answers[2 * index + 1]
            entries += [(region, entry, fields or {}) for entry, fields in claimed[1]]
            for consumer in consumers:
                is_gone = consumer["idle"] > FORGET_CONSUMER_MS and consumer["pending"] == 0
                if is_gone and consumer["name"].decode() != self.consumer:
                    self._reader.xgroup_delconsumer(names.out_stream(region), names.GATEWAYS, consumer["name"])
        return entries

    def _make_groups(self) -> None:
        for region in self._regions:
            try:
                self._reader.xgroup_create(names.out_stream(region), names.GATEWAYS, id="0", mkstream=True)
            except redis.exceptions.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
        self._has_groups = True

    def _handle(self, entries: list[Entry]) -> None:
        """Everything that a batch says takes effect; then it may be acknowledged."""
        if not entries:
            return
        settlements: list[Settlement] = []
        claims: dict[str, list[tuple[str, str, bytes]]] = {}
        said: list[tuple[str, str, bytes]] = []
        for region, _, fields in entries:
            try:
                self._sort(region, fields, settlements, claims, said)
            except (KeyError, ValueError, TypeError) as error:
                log.error("entry not understood", region=region, fields=sorted(map(repr, fields)), error=str(error))
        with self._hub.asking():
            self._settle(settlements)
            for region, told in claims.items():
                self._ledger.mark_running(region, told)
        commands: list[tuple[Any, ...]] = [
            ("HSET", names.region_status(region), part, text) for region, part, text in said
        ]
        by_region: dict[str, list[bytes]] = {}
        for region, entry, _ in entries:
            by_region.setdefault(region, []).append(entry)
        for region, ids in by_region.items():
            commands.append(("XACK", names.out_stream(region), names.GATEWAYS, *ids))
            commands.append(("XDEL", names.out_stream(region), *ids))
        self._took_effect += commands

    def _sort(
        self,
        region: str,
        fields: dict[bytes, bytes],
        settlements: list[Settlement],
        claims: dict[str, list[tuple[str, str, bytes]]],
        said: list[tuple[str, str, bytes]],
    ) -> None:
        """Puts an entry where it belongs; raises KeyError, ValueError or TypeError when it can't be understood."""
        if not fields:  # deleted meanwhile
            return
        kind, version = fields[b"k"], int(fields[b"v"])
        is_known = contract.VERSION - 1 <= version <= contract.VERSION + 1
        if not is_known and kind != b"result":
            raise contract.UnknownVersion(kind.decode(), version)
        if kind == b"result":
            settlements.append(self._settlement(region, fields, version if not is_known else None))
        elif kind == b"claims":
            for request, task, *rest in msgspec.json.decode(fields[b"d"], type=list[list[msgspec.Raw]]):
                trail = bytes(rest[2]) if len(rest) > 2 else b""
                claims.setdefault(region, []).append((_text(request), _text(task), trail))
        elif kind == b"status":
            msgspec.json.decode(fields[b"d"])
            said.append((region, f"{fields[b'part'].decode()}:{fields[b'name'].decode()}", fields[b"d"]))
        elif kind == b"sources":
            msgspec.json.decode(fields[b"d"])
            said.append((region, "sources", fields[b"d"]))
        else:
            raise ValueError(f"expected k to be result, claims, status or sources, found {kind!r}")

    def _settlement(self, region: str, fields: dict[bytes, bytes], bad_version: int | None) -> Settlement:
        task, status, trail = fields[b"t"].decode(), fields[b"s"].decode(), fields.get(b"h", b"")
        frame = b""
        if bad_version is not None:  # never silent: the task ends, with both versions named
            error = Internal(str(contract.UnknownVersion("result", bad_version)))
            status, frame = "failed", hub_frame(task, "", region, "failed", error)
        elif status not in contract.FINAL:
            raise ValueError(f"expected a final status, found {status!r}")
        return Settlement(
            request=fields[b"q"].decode(),
            task=task,
            region=region,
            status=status,
            finished_ms=int(fields[b"f"]),
            size_bytes=int(fields[b"b"]),
            frame=frame,
            trail=trail,
            run=_run(trail),
        )

    def _settle(self, settlements: list[Settlement]) -> None:
        if not settlements:
            return
        answers = self._ledger.settle(settlements)
        again: list[Settlement] = []
        news: list[str] = []
        for one, answer in zip(settlements, answers, strict=True):
            if answer in lua.ENDED:
                news.append(one.request if answer == lua.LAST else one.request + names.MORE)
                self._hub.observe(one.size_bytes)
            elif answer in (lua.LATE, lua.TOO_LARGE):
                again.append(self._instead(one, answer))
            if answer in lua.ENDED and one.run is not None:  # and not for an entry that was read before
                self._runs.add(one.region, one.run, one.finished_ms)
        if news:
            self._news(news)
        if again:
            self._settle(again)

    def _instead(self, one: Settlement, answer: int) -> Settlement:
        """What a task ends as whose own result may not count."""
        error: TaskError
        source = next((task.source for task in self._ledger.tasks(one.request) or () if task.id == one.task), "")
        if answer == lua.LATE:
            status, error = "expired", Expired("it finished after its deadline")
        else:
            status, error = "failed", TooLarge("the records of the request passed their limit in all")
        frame = hub_frame(one.task, source, one.region, status, error)
        return msgspec.structs.replace(one, status=status, frame=frame, size_bytes=len(frame))


def _run(trail: bytes) -> contract.Run | None:
    """What a result's run showed, where its region says so; no fault of that may cost the result."""
    try:
        return _trails.decode(trail).run if trail else None
    except msgspec.DecodeError as error:
        log.error("trail not understood", trail=trail[:200].decode("utf-8", "replace"), error=str(error))
        return None


def _text(raw: msgspec.Raw) -> str:
    return msgspec.json.decode(raw, type=str)
