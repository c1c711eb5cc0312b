"""Results on their way home.

    worker ── finish ──> outbox (region's Redis)                     kept until the hub has answered
       └──── put ─────> Shipper ── one MULTI ──> hub ── reply ──> deleted from the outbox
                        Leftovers: what nobody shipped within ORPHAN_SECONDS (a dead process's, or after an outage)

Batches form by themselves while the hub answers; a lone result never waits. Sending a result twice is harmless: its key
is written once, and readers of the out stream bear a repeat.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import redis

from jobs.contract import VERSION, Outcome
from jobs.script import Script
from regions import connect, logs, names
from regions.script import send, value

BATCH_MAX_BYTES: Final = 1_000_000  # of one MULTI: what a slow line carries within the client's time-out
BATCH_MAX: Final = 256
HUB_TIMEOUT_SECONDS: Final = 5.0
ORPHAN_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 1.0
PAGE: Final = 20  # entries of the outbox read at once: a frame can be 5 MB
TURN_MS: Final = 5_000

Started = tuple[str, str, int, int, msgspec.Raw]  # request, task, attempt, started (hub ms), trail

log = logs.get("outbox")

DELIVERED: Final = Script("""
local outbox, outbox_bytes = unpack(KEYS)
local gone = 0
for i = 1, #ARGV, 2 do
  if redis.call("XDEL", outbox, ARGV[i]) == 1 then gone = gone + tonumber(ARGV[i + 1]) end
end
if gone > 0 then redis.call("DECRBY", outbox_bytes, gone) end
return gone
""")

ORPHANS: Final = Script("""
local outbox, turn = unpack(KEYS)
local holder = redis.call("GET", turn)
if holder and holder ~= ARGV[1] then return {} end
local found = redis.call("XRANGE", outbox, "-", string.format("%.0f", now_ms - tonumber(ARGV[2])), "COUNT", ARGV[3])
if #found > 0 then redis.call("SET", turn, ARGV[1], "PX", ARGV[4]) end
return found
""")


@dataclass(slots=True, frozen=True)
class Parcel:
    """An outcome and its entry in the outbox; ``since`` is when it was put there (monotonic seconds)."""

    entry: str
    outcome: Outcome
    spliced_bytes: int
    since: float = 0.0


class Home:
    """The way to the hub: sends, remembers whether it is away, and says for how long not to try."""

    def __init__(self, hub: redis.Redis, region: str) -> None:
        self._hub, self._stream, self._region = hub, names.out_stream(region), region
        self._failures = 0

    def post(self, parcels: Sequence[Parcel], started: Sequence[Started] = ()) -> bool:
        """Sends results, and what was started, in one MULTI; whether the hub has them."""
        commands: list[tuple[Any, ...]] = [("MULTI",)]
        for parcel in parcels:
            outcome = parcel.outcome
            key = names.result(self._region, outcome.task)
            commands.append(("SET", key, outcome.frame, "NX", "PXAT", max(1, outcome.expires_ms)))
            commands.append(
                (
                    "XADD", self._stream, "*", "k", "result", "v", VERSION, "q", outcome.request, "t", outcome.task,
                    "s", outcome.status, "f", outcome.finished_ms, "b", parcel.spliced_bytes, "h", outcome.trail,
                )
            )  # fmt: skip
        if started:
            said = msgspec.json.encode(started)
            commands.append(("XADD", self._stream, "*", "k", "claims", "v", VERSION, "d", said))
        commands.append(("EXEC",))
        try:
            replies = value(send(self._hub, commands, [])[-1])
        except redis.exceptions.RedisError as error:
            self._failed(error)
            return False
        self._succeeded()
        for reply in replies:
            if isinstance(reply, Exception):  # this one only, and again if repeated: the deadline ends its task
                log.error("the hub refused a result", region=self._region, error=str(reply))
        return True

    @property
    def backoff_seconds(self) -> float:
        """How long to wait before the next try; 0 when the last one worked."""
        return connect.backoff_seconds(self._failures) if self._failures else 0.0

    def _failed(self, error: Exception) -> None:
        if not self._failures:
            log.warning("the hub is away, results wait in the outbox", region=self._region, error=str(error))
        self._failures += 1

    def _succeeded(self) -> None:
        if self._failures:
            log.info("the hub is back", region=self._region)
        self._failures = 0


def delete(client: redis.Redis, parcels: Sequence[Parcel]) -> int:
    """Deletes delivered entries from the outbox; the bytes that it held of them. Raises ``RedisError``'s."""
    arguments: list[str | int] = []
    for parcel in parcels:
        arguments += [parcel.entry, len(parcel.outcome.frame)]
    command = DELIVERED.command([names.OUTBOX, names.OUTBOX_BYTES], arguments)
    return int(value(send(client, [command], [DELIVERED])[0]))


class Shipper:
    """Ships this process's results from memory, straight after they were finished."""

    def __init__(self, client: redis.Redis, home: Home) -> None:
        self._client, self._home = client, home
        self._parcels: deque[Parcel] = deque()
        self._started: list[Started] = []
        self._news = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self.run, name="shipper", daemon=True)

    def start(self) -> None:
        """Begins to ship."""
        self._thread.start()

    def put(self, parcels: Sequence[Parcel]) -> None:
        """Hands over finished results; never waits for the hub."""
        with self._news:
            self._parcels.extend(parcels)
            self._news.notify()

    def tell(self, started: Sequence[Started]) -> None:
        """Says what runs, with the next batch; lost when the hub is away."""
        with self._news:
            self._started = list(started)
            self._news.notify()

    def stop(self, seconds: float) -> None:
        """Ships what is there, for up to ``seconds``; the rest stays in the outbox for others."""
        with self._news:
            self._stopping = True
            self._news.notify()
        self._thread.join(seconds)

    def run(self) -> None:
        """Ships until it is stopped and nothing is left."""
        while self.run_once():
            pass

    def run_once(self) -> bool:
        """Ships one batch; False when nothing is left and it was stopped."""
        parcels, started = self._take()
        if not parcels and not started:
            return not self._stopping
        if self._home.post(parcels, started):
            try:
                delete(self._client, parcels)
            except redis.exceptions.RedisError as error:  # its own outage; sent again by whoever finds them
                log.info("delivered results stay in the outbox", results=len(parcels), error=str(error))
            return True
        self._keep(parcels)
        time.sleep(self._home.backoff_seconds)
        return not self._stopping

    def _take(self) -> tuple[list[Parcel], list[Started]]:
        with self._news:
            self._news.wait_for(lambda: self._parcels or self._started or self._stopping)
            started, self._started = self._started, []
            return _batch(self._parcels), started

    def _keep(self, parcels: list[Parcel]) -> None:
        """Tries the young ones again from memory; older ones are orphans by now, which others ship too."""
        oldest = time.monotonic() - ORPHAN_SECONDS
        with self._news:
            self._parcels.extendleft(parcel for parcel in reversed(parcels) if parcel.since > oldest)


class Leftovers:
    """Ships what nobody shipped; one process of a region at a time, each looks every second."""

    def __init__(self, client: redis.Redis, home: Home, worker: str) -> None:
        self._client, self._home, self._worker = client, home, worker
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.run, name="leftovers", daemon=True)
        self._found: deque[Parcel] = deque()

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the batch that is being sent."""
        self._stopping.set()

    def run(self) -> None:
        """Looks until it is stopped."""
        pause = 0.0
        while not self._stopping.wait(pause):
            more = self.run_once()
            pause = self._home.backoff_seconds or (0.0 if more else LOOK_SECONDS)

    def run_once(self) -> bool:
        """Ships one batch of orphans; whether there may be more."""
        try:
            if not self._found:
                self._found.extend(self._orphans())
            parcels = _batch(self._found)
            if not parcels:
                return False
            if self._home.post(parcels):
                delete(self._client, parcels)
                return True
        except redis.exceptions.RedisError as error:
            log.info("can't look for left results", error=str(error))
        self._found.clear()  # by the next try another process may have sent them
        return False

    def _orphans(self) -> list[Parcel]:
        arguments: list[str | int] = [self._worker, int(ORPHAN_SECONDS * 1000), PAGE, TURN_MS]
        command = ORPHANS.command([names.OUTBOX, names.OUTBOX_TURN], arguments)
        found = value(send(self._client, [command], [ORPHANS])[0])
        return [_parcel(entry.decode(), fields) for entry, fields in found]


def _parcel(entry: str, pairs: list[bytes]) -> Parcel:
    fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
    outcome = Outcome(
        request=fields[b"q"].decode(),
        task=fields[b"t"].decode(),
        status=fields[b"s"].decode(),
        finished_ms=int(fields[b"f"]),
        expires_ms=int(fields[b"x"]),
        frame=fields[b"r"],
        trail=fields.get(b"h", b""),
    )
    return Parcel(entry, outcome, int(fields[b"b"]))


def _batch(parcels: deque[Parcel]) -> list[Parcel]:
    """Takes from the left what fits into one MULTI, at least one."""
    batch: list[Parcel] = []
    size = 0
    while parcels and len(batch) < BATCH_MAX and (not batch or size + len(parcels[0].outcome.frame) <= BATCH_MAX_BYTES):
        parcel = parcels.popleft()
        size += len(parcel.outcome.frame)
        batch.append(parcel)
    return batch


def open_hub(url: str, name: str) -> redis.Redis:
    """A client of the hub for results, with time for a batch on a slow line."""
    return connect.open_redis(url, name=name, block_seconds=HUB_TIMEOUT_SECONDS - connect.TIMEOUT_SECONDS)
