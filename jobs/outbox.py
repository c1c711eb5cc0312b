"""Results on their way home.

    worker ── finish ──> outbox (region's Redis)                     kept until the hub has it in its file
       └──── put ─────> Shipper ── one MULTI ──> hub ── reply, WAITAOF ──> deleted from the outbox
                        Leftovers: what nobody shipped within ORPHAN_SECONDS (a dead process's, or after an outage)

Batches form by themselves while the hub answers; a lone result never waits. What piled up during an outage goes home in
several batches at once, since an ocean lies in between. Sending a result twice is harmless: its key is written once, and
readers of the out stream bear a repeat.
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
from regions.link import Link
from regions.script import value

BATCH_MAX_BYTES: Final = 1_000_000  # under way at once: what a slow line carries within the client's time-out
BATCH_MAX: Final = 256
FLYING_MAX: Final = 8  # batches under way at once, where there is much to ship
PART_BYTES: Final = 250_000  # of one of them
HUB_TIMEOUT_SECONDS: Final = 5.0
DELETED_MAX: Final = 1_000  # entries at once, so that it never holds its Redis for long
STOP_SECONDS: Final = 2.0  # for the hub's file; what it does not have by then is sent again by others
FILE_MS: Final = 2_000  # of one WAITAOF; with everysec it answers within about one
ORPHAN_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 1.0
PAGE: Final = 1_000  # entries of the outbox read at once, in few bytes: a frame can be 5 MB
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
local worker, from, most, most_bytes = ARGV[1], ARGV[5], tonumber(ARGV[3]), tonumber(ARGV[6])
local holder = redis.call("GET", turn)
if holder and holder ~= worker then return {} end
local till = string.format("%.0f", now_ms - tonumber(ARGV[2]))
local found, bytes, count = {}, 0, 4
while #found < most and bytes < most_bytes do
  local some = redis.call("XRANGE", outbox, from, till, "COUNT", count)
  for _, entry in ipairs(some) do
    found[#found + 1] = entry
    for i = 1, #entry[2], 2 do bytes = bytes + #entry[2][i + 1] end
  end
  if #some < count then break end
  from = "(" .. some[#some][1]
  -- As many more as have room, by what those so far took.
  count = math.max(1, math.min(256, most - #found, math.floor((most_bytes - bytes) * #found / bytes)))
end
if #found > 0 then redis.call("SET", turn, worker, "PX", ARGV[4]) end
return found
""")


@dataclass(slots=True, frozen=True)
class Parcel:
    """An outcome and its entry in the outbox; ``since`` is when it was put there (monotonic seconds)."""

    entry: str
    outcome: Outcome
    spliced_bytes: int
    since: float = 0.0


class _Line:
    """A connection to the hub, and the entries that it took (id, bytes), which may be in the hub's memory alone."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.flying = 0  # batches without a reply yet
        self.taken: list[tuple[str, int]] = []

    def open(self, hub: redis.Redis) -> Link:
        """Its connection; what one that was lost had taken stays in the outbox, and is sent again."""
        if self.link is None or (not self.flying and self.link.is_lost()):
            self.taken = []
            self.link = Link(hub)
        return self.link

    def drop(self) -> None:
        """Nothing is known any more of what it took."""
        self.flying, self.taken = 0, []
        if self.link is not None:
            self.link.close()
            self.link = None


class Home:
    """The way to the hub: sends, remembers whether it is away, says for how long not to try, and clears the outbox.

    It has two connections: while one waits until the hub has in its file what it took (``WAITAOF`` counts the writes of its
    own connection), the other takes more. One thread sends, one of its own waits.
    """

    def __init__(self, hub: redis.Redis, region: str, client: redis.Redis, *, waits: bool = True) -> None:
        """``client``: the region's Redis. ``waits``: for the hub's file; a relaxed one may have none."""
        self._hub, self._stream, self._region, self._client = hub, names.out_stream(region), region, client
        self._waits = waits
        self._failures = 0
        self._batches: deque[tuple[_Line, Sequence[Parcel], int]] = deque()  # under way: line, what, replies
        self._lines = _Line(), _Line()
        self._current = self._lines[0]
        self._waiting: _Line | None = None  # the line whose file is waited for
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def flying(self) -> int:
        """Batches under way."""
        return len(self._batches)

    @property
    def flying_bytes(self) -> int:
        """Of the frames under way."""
        return sum(len(parcel.outcome.frame) for _, parcels, _ in self._batches for parcel in parcels)

    @property
    def is_clear(self) -> bool:
        """Whether nothing that it sent waits for the hub's file: what is in the outbox now is to be sent."""
        with self._changed:
            return self._waiting is None and not any(line.taken for line in self._lines)

    def post(self, parcels: Sequence[Parcel], started: Sequence[Started] = ()) -> bool:
        """Sends results, and what was started, in one MULTI; whether the hub has them."""
        return self.begin(parcels, started) and self.end()

    def begin(self, parcels: Sequence[Parcel], started: Sequence[Started] = ()) -> bool:
        """Sends a batch and does not wait for its reply, which ``end`` takes; False where the hub is away."""
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
        with self._changed:
            line = self._current
        try:
            line.open(self._hub).send(commands)
        except redis.exceptions.RedisError as error:
            self._failed(error)
            return False
        line.flying += 1
        self._batches.append((line, parcels, len(commands)))
        return True

    def end(self) -> bool:
        """Takes the reply to the oldest batch; whether the hub has it. Of all others under way nothing is known where not."""
        line, parcels, count = self._batches[0]
        try:
            assert line.link is not None
            replies = value(line.link.receive(count)[-1])
        except redis.exceptions.RedisError as error:
            self._failed(error)
            return False
        self._batches.popleft()
        self._succeeded()
        for reply in replies:
            if isinstance(reply, Exception):  # this one only, and again if repeated: the deadline ends its task
                log.error("the hub refused a result", region=self._region, error=str(reply))
        with self._changed:
            line.flying -= 1
            line.taken += [(parcel.entry, len(parcel.outcome.frame)) for parcel in parcels]
            self._turn()
            self._changed.notify_all()
        return True

    @property
    def backoff_seconds(self) -> float:
        """How long to wait before the next try; 0 when the last one worked."""
        return connect.backoff_seconds(self._failures) if self._failures else 0.0

    def stop(self, seconds: float) -> None:
        """Waits for the hub's file for up to ``seconds``; what is not in it by then stays in the outbox for others."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is None and not any(one.taken for one in self._lines), seconds)

    def _turn(self) -> None:
        """The line that took something goes to wait for the file, and the other takes what comes, unless that waits itself.

        What is still under way on it is taken first. The condition's lock is held.
        """
        line = self._current
        if self._waiting is not None or not line.taken:
            return
        self._waiting = line
        self._current = self._lines[1] if line is self._lines[0] else self._lines[0]
        if self._thread is None:
            self._thread = threading.Thread(target=self.run, name="hub-file", daemon=True)
            self._thread.start()

    def run(self) -> None:
        """Clears the outbox for as long as there is something to send."""
        while True:
            self.run_once()

    def run_once(self) -> None:
        """Clears the outbox of what one line took, once the hub has it in its file."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None and not self._waiting.flying)
            line = self._waiting
            assert line is not None
            link = line.link
        try:
            if link is not None:
                self._wait_for_file(link)
                delete(self._client, line.taken)
        except redis.exceptions.RedisError as error:  # sent again by whoever finds them
            log.info("delivered results stay in the outbox", results=len(line.taken), error=str(error))
            line.drop()
        finally:
            with self._changed:
                line.taken, self._waiting = [], None
                self._turn()
                self._changed.notify_all()

    def _wait_for_file(self, link: Link) -> None:
        """Raises where it will not be known."""
        is_slow = False
        try:
            while self._waits and int(link.one("WAITAOF", 1, 0, FILE_MS)[0]) < 1:
                if not is_slow:
                    log.warning("the hub's file is slow, results stay in the outbox", region=self._region)
                is_slow = True
        except redis.exceptions.ResponseError as refusal:
            # It has no file, or its user may not ask: then its reply is all that there is.
            log.error("the hub does not say when it has results in its file", region=self._region, error=str(refusal))

    def _failed(self, error: Exception) -> None:
        """Of what is under way nothing is known."""
        if not self._failures:
            log.warning("the hub is away, results wait in the outbox", region=self._region, error=str(error))
        self._failures += 1
        with self._changed:
            for line in {id(one): one for one, _, _ in self._batches}.values():
                line.drop()
            self._batches.clear()
            if self._current is not self._waiting:
                self._current.drop()
            self._changed.notify_all()

    def _succeeded(self) -> None:
        if self._failures:
            log.info("the hub is back", region=self._region)
        self._failures = 0


def delete(client: redis.Redis, entries: Sequence[tuple[str, int]]) -> int:
    """Deletes delivered entries (id, bytes of the frame) from the outbox; the bytes that it held of them. Raises ``RedisError``'s."""
    gone = 0
    for at in range(0, len(entries), DELETED_MAX):
        arguments: list[str | int] = [part for entry in entries[at : at + DELETED_MAX] for part in entry]
        gone += int(DELIVERED.call(client, [names.OUTBOX, names.OUTBOX_BYTES], arguments))
    return gone


class Shipper:
    """Ships this process's results from memory, straight after they were finished."""

    def __init__(self, home: Home) -> None:
        self._home = home
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
        began = time.monotonic()
        self._thread.join(seconds)
        self._home.stop(max(0.0, min(STOP_SECONDS, seconds - time.monotonic() + began)))

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
            return True
        self._keep(parcels)
        time.sleep(self._home.backoff_seconds)
        return not self._stopping

    def _take(self) -> tuple[list[Parcel], list[Started]]:
        with self._news:
            self._news.wait_for(lambda: self._parcels or self._started or self._stopping)
            started, self._started = self._started, []
            return _batch(self._parcels, BATCH_MAX_BYTES), started

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
        self._from = "-"  # where in the outbox it goes on: what it has sent lies there until the hub has it in its file

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
        """Sends orphans while few bytes are under way, and takes one reply; whether there may be more."""
        try:
            while self._home.flying < FLYING_MAX and self._home.flying_bytes + PART_BYTES <= BATCH_MAX_BYTES:
                parcels = self._next()
                if parcels and not self._home.begin(parcels):
                    self._begin_anew()
                    return False
                if not parcels:
                    break
        except redis.exceptions.RedisError as error:
            log.info("can't look for left results", error=str(error))
            self._begin_anew()
        if not self._home.flying:
            if self._home.is_clear:
                self._begin_anew()
            return False
        if not self._home.end():
            self._begin_anew()
            return False
        return True

    def _begin_anew(self) -> None:
        """By the next try another process may have sent what was found."""
        self._found.clear()
        self._from = "-"

    def _next(self) -> list[Parcel]:
        """The next batch; empty where there are no more."""
        if not self._found:
            self._found.extend(self._orphans())
        if self._found:
            self._from = f"({self._found[-1].entry}"
        return _batch(self._found, PART_BYTES)

    def _orphans(self) -> list[Parcel]:
        arguments: list[str | int] = [
            self._worker, int(ORPHAN_SECONDS * 1000), PAGE, TURN_MS, self._from, BATCH_MAX_BYTES,
        ]  # fmt: skip
        found = ORPHANS.call(self._client, [names.OUTBOX, names.OUTBOX_TURN], arguments)
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


def _batch(parcels: deque[Parcel], bytes_max: int) -> list[Parcel]:
    """Takes from the left what fits into one MULTI, at least one where there is any."""
    batch: list[Parcel] = []
    size = 0
    while parcels and len(batch) < BATCH_MAX and (not batch or size + len(parcels[0].outcome.frame) <= bytes_max):
        parcel = parcels.popleft()
        size += len(parcel.outcome.frame)
        batch.append(parcel)
    return batch


def open_hub(url: str, name: str) -> redis.Redis:
    """A client of the hub for results, with time for a batch on a slow line."""
    return connect.open_redis(url, name=name, block_seconds=HUB_TIMEOUT_SECONDS - connect.TIMEOUT_SECONDS)
