"""Reports a region's workers to the hub: their status every 2 s, and which sources they have."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import redis

from jobs.contract import MINUTES_MAX, VERSION, Minute
from jobs.definition.catalog import Catalog, Entry, lacking
from jobs.definition.model import Definition, fixed_hosts
from jobs.pool.examiner import Examiner
from jobs.queue.breaker import OPEN_HOSTS, open_hosts
from jobs.queue.script import OUTBOX_MAX_BYTES
from jobs.queue.waits import Wait, first, waits
from regions import connect, logs, names
from regions.script import send, value
from regions.settings import Region, Settings

STEPPED_MS: Final = 500  # a change of the hub's clock that is no drift
STATUS_SECONDS: Final = 2.0  # two that are missing are a reason for a takeover (web.flow.takeover)
REFRESH_SECONDS: Final = 1.0  # the hub hears of a changed definition within 2 s
NEWS_SECONDS, NEWS_EVERY_SECONDS = 12.0, 5.0  # after a change: a gateway may hear of it before it reads the file
SOURCES_SECONDS: Final = 60.0  # sources are sent this often though unchanged, for a hub that lost them
# The region's counters in a status, and their fields in the Redis hash.
COUNTERS: Final = {
    "succeeded": b"succeeded",
    "failed": b"failed",
    "raw_bytes": b"raw",
    "records_bytes": b"records",
    "wire_bytes": b"wire",
}
COUNTED: Final = ("busy", "waiting", "outbox_bytes", *COUNTERS)
FAULT_MAX: Final = 1_000  # characters of a source's faults
DAY_MS: Final = 86_400_000
DAY_SECONDS: Final = 20.0  # between two looks for new minutes of the region's day

_day_minute: Final = msgspec.json.Decoder(Minute)

log = logs.get("workers")


class Reporter:
    """A thread of the pool ``name``. ``workers`` returns the names of the running processes.

    ``scale`` returns the part of the status that says how many there should be, and why; ``life`` that of processes that died.
    ``changed`` is called on the thread when definitions have changed.
    """

    def __init__(
        self,
        settings: Settings,
        region: Region,
        client: redis.Redis,
        name: str,
        workers: Callable[[], Sequence[str]],
        scale: Callable[[], Mapping[str, Any]],
        life: Callable[[], Mapping[str, Any]],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._region, self._client, self._workers = region, client, workers
        self._hub = connect.open_redis(
            settings.hub.redis, name=f"{region.name}.workers", block_seconds=connect.OCEAN_SECONDS
        )
        self._name, self._scale, self._life, self._changed = name, scale, life, changed
        self._began = time.monotonic()
        self._started_ms = 0  # the same, on the hub's clock once that has answered
        self._hub_ahead_ms = 0.0  # the hub's clock less the monotonic one; 0 before it has answered
        self._catalog = Catalog(settings.source_folders, settings.first_region, {region.name: region})
        self._examiner = Examiner(self._examined)
        self._sources_due = 0.0
        self._day_due = 0.0
        self._day_sent = ""  # from which entry of the region's day the hub lacks minutes; "" before the first look
        self._news_until = 0.0
        self._open: dict[str, str] = {}  # hosts with an open breaker, and why
        self._has_news = threading.Event()  # about sources; the examiner's thread sets it, too
        self._failures = 0  # to reach the hub, in a row
        self._counted = dict.fromkeys(COUNTED, 0)  # the last values
        self._scheduled = 0  # jobs that wait for a time, a host or another task's answer
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self.run, name="reporter", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def now(self) -> None:
        """Has the thread report at once, because something changed."""
        self._wake.set()

    def stop(self) -> None:
        """Reports once more and ends."""
        self._stopping = True
        self._wake.set()
        self._examiner.stop()
        self._thread.join(4 * connect.TIMEOUT_SECONDS)

    def run(self) -> None:
        """Reports until it is stopped: every 2 s, when something changed, and when the hub may be back."""
        while True:
            self._wake.clear()
            self.run_once()
            if self._stopping:
                return
            pause = connect.backoff_seconds(self._failures) if self._failures else STATUS_SECONDS
            self._wait(time.monotonic() + pause)

    def _wait(self, until: float) -> None:
        """Waits for the next report. A changed definition ends the wait."""
        while (left := until - time.monotonic()) > 0:
            if self._wake.wait(min(left, REFRESH_SECONDS)):
                return
            if time.monotonic() < until and self._has_changed():  # else the next report looks
                return

    def _has_changed(self) -> bool:
        is_changed = self._catalog.refresh()
        if is_changed:
            self._changed()
            self._has_news.set()
            for entry in self._own():
                if entry.faults:
                    log.warning("a definition is broken", source=entry.id, faults="\n".join(map(str, entry.faults)))
        return is_changed

    def _examined(self) -> None:
        """The examiner knows more about sources."""
        self._has_news.set()
        self._wake.set()

    def run_once(self) -> None:
        """Reports once. If a part of it can't be sent now, the next report has it."""
        self._has_changed()
        self._examiner.look(self._own())
        try:
            minutes, following = self._minutes()
            self._send_status({**self.status(), "minutes": minutes})
            self._day_sent = following
            now = time.monotonic()
            if self._has_news.is_set():
                self._has_news.clear()
                self._sources_due, self._news_until = 0.0, now + NEWS_SECONDS
            if now >= self._sources_due:
                self._sources_due = 0.0  # stays due until it is sent
                self._send("sources", [], self.sources())
                self._sources_due = now + (NEWS_EVERY_SECONDS if now < self._news_until else SOURCES_SECONDS)
        except redis.exceptions.RedisError as error:
            if not self._failures:
                log.warning("can't report", region=self._region.name, error=str(error))
            self._failures += 1
            return
        self._failures = 0

    def status(self) -> dict[str, Any]:
        """The pool's status. ``busy`` threads and ``share`` are this pool's; ``waiting``, ``scheduled``, counters and outbox the region's.

        While the region's Redis is away they keep their last values, and ``reason`` says so.
        """
        workers = list(self._workers())
        reason, tasks = "", list[bytes]()
        try:
            self._counted, hosts, tasks = self._ask(workers)
            self._look_at_hosts(hosts)
        except redis.exceptions.RedisError as error:
            reason = f"its Redis is away: {error}"
        at_ms = self._hub_now_ms()
        self._started_ms = self._started_ms or max(1, at_ms - round((time.monotonic() - self._began) * 1000))
        return {
            "at_ms": at_ms,
            "started_ms": self._started_ms,
            "processes": len(workers),
            "threads": len(workers) * self._region.workers.threads,
            "reason": reason,
            **self._counted,
            "scheduled": self._scheduled,
            "outbox_max": OUTBOX_MAX_BYTES,
            "waits": self._waits(tasks, at_ms),
            **self._life(),
            **self._scale(),
        }

    @property
    def known(self) -> dict[str, float]:
        """What the last report counted, by the names of metrics without their prefix (regions.metrics)."""
        counted, scale, processes = self._counted, self._scale(), len(self._workers())
        return {
            "worker_processes": processes,
            "worker_threads": processes * self._region.workers.threads,
            "worker_share": scale["share"],
            "worker_busy_threads": counted["busy"],
            "waiting_jobs": counted["waiting"],
            "waiting_turns": self._scheduled,
            "oldest_job_seconds": scale["oldest_seconds"],
            "outbox_bytes": counted["outbox_bytes"],
            "open_breakers": len(self._open),
        }

    def _waits(self, tasks: Sequence[bytes], hub_ms: int) -> list[Wait]:
        """What these tasks wait for; nothing while the region's Redis does not answer."""
        try:
            return waits(self._client, self._region.name, hub_ms, tasks)
        except redis.exceptions.RedisError:
            return []

    def _ask(self, workers: Sequence[str]) -> tuple[dict[str, int], list[bytes], list[bytes]]:
        """What the region's Redis counts, its hosts with an open breaker, and the first tasks that wait, in one round trip."""
        commands: list[tuple[Any, ...]] = [
            OPEN_HOSTS,
            first(self._region.name),
            ("LLEN", names.rq_queue(self._region.name)),
            ("LLEN", names.rq_queue(names.urgent(self._region.name))),
            ("HGETALL", names.COUNTERS),
            ("GET", names.OUTBOX_BYTES),
            ("ZCARD", names.rq_registry("scheduled", self._region.name)),
        ]
        commands += [("SCARD", names.rq_worker_executions(worker)) for worker in workers]
        replies = map(value, send(self._client, commands, []))
        hosts, tasks, waiting, urgent, pairs, outbox, self._scheduled, *busy = replies
        counted = dict(zip(pairs[::2], map(int, pairs[1::2]), strict=True))
        found = {
            "busy": sum(busy),
            "waiting": waiting + urgent,
            "outbox_bytes": int(outbox or 0),
            **{name: counted.get(counter, 0) for name, counter in COUNTERS.items()},
        }
        return found, hosts, tasks

    def _minutes(self) -> tuple[list[Minute], str]:
        """Returns (minutes of the region's day that the hub lacks, from which entry it lacks others after these).

        A pool that has just started sends all of them, a few at a time: the hub may have lost some.
        """
        if time.monotonic() < self._day_due:
            return [], self._day_sent
        try:
            # Not older ones: the hub has a place for each minute of the day.
            since = self._day_sent or str(connect.redis_now_ms(self._client) - DAY_MS)
            entries: Any = self._client.xrange(names.DAY, min=since, count=MINUTES_MAX)
        # The status says that it is away, and must not wait for it once more each time.
        except redis.exceptions.RedisError:
            self._day_due = time.monotonic() + DAY_SECONDS
            return [], self._day_sent
        if len(entries) < MINUTES_MAX:
            self._day_due = time.monotonic() + DAY_SECONDS
        if not entries:
            return [], self._day_sent
        return [_day_minute.decode(fields[b"d"]) for _, fields in entries], f"({entries[-1][0].decode()}"

    def sources(self) -> dict[str, dict[str, str | None]]:
        """The sources that the region runs or may take over, as its workers have them: the definition's hash, and its ``fault`` or None.

        ``lacks``, if present, says what this region lacks to take over a source of another one.
        ``trouble``, if present, says why the breaker of one of its hosts is open (jobs.queue.breaker).
        """
        found: dict[str, dict[str, str | None]] = {}
        for entry in self._own():
            definition = entry.definition
            fault = self._examiner.fault(entry) if definition else "\n".join(map(str, entry.faults))
            found[entry.id] = {
                "definition": definition.hash if definition else "",
                "fault": fault and fault[:FAULT_MAX],
            }
            if definition and (trouble := self._trouble(definition)):
                found[entry.id]["trouble"] = trouble
            if definition and entry.region != self._region.name and (lacks := lacking(self._region, definition)):
                found[entry.id]["lacks"] = lacks[:FAULT_MAX]
        return found

    def _look_at_hosts(self, hosts: Sequence[bytes]) -> None:
        """Reads why breakers are open. Other hosts or other reasons are news. Raises ``RedisError``'s."""
        found = {host: f"{host} is left alone: {why}" for host, (_, why) in open_hosts(self._client, hosts).items()}
        if found != self._open:
            self._has_news.set()
        self._open = found

    def _trouble(self, definition: Definition) -> str:
        return "; ".join(self._open[host] for host in sorted(fixed_hosts(definition)) if host in self._open)

    def _own(self) -> list[Entry]:
        own = self._region.name
        return [
            entry
            for entry in self._catalog.entries()
            if entry.region == own or (entry.definition is not None and own in entry.definition.regions(entry.region))
        ]

    def _send_status(self, status: dict[str, Any]) -> None:
        """Sends it once more if it turns out that the hub's clock was stepped: by an old time the pool would look silent."""
        before = self._hub_ahead_ms
        self._send("status", ["part", "workers", "name", self._name], status)
        if abs(self._hub_ahead_ms - before) > STEPPED_MS:
            self._send("status", ["part", "workers", "name", self._name], {**status, "at_ms": self._hub_now_ms()})

    def _send(self, kind: str, fields: Sequence[str], data: object) -> None:
        entry = ["k", kind, "v", VERSION, *fields, "d", msgspec.json.encode(data)]
        self._ask_hub(("XADD", names.out_stream(self._region.name), "*", *entry))

    def _hub_now_ms(self) -> int:
        """The hub's clock, without a round trip once that has told it. Raises ``RedisError``'s."""
        if not self._hub_ahead_ms:
            self._ask_hub()
        return round(time.monotonic() * 1000 + self._hub_ahead_ms)

    def _ask_hub(self, *commands: tuple[Any, ...]) -> None:
        """Sends commands, and learns the hub's time, which was read between the call and its reply: it is off by no more than that."""
        asked_ms = time.monotonic() * 1000
        *_, (seconds, micros) = map(value, send(self._hub, [*commands, ("TIME",)], []))
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        least, most = now_ms - time.monotonic() * 1000, now_ms - asked_ms
        known = self._hub_ahead_ms or (least + most) / 2
        self._hub_ahead_ms = min(max(known, least), most)
