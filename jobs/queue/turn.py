"""Turns of hosts, from a worker process: what sources allow, who waits for a turn, and a running task's further fetches.

    Worker ── limits_of ──> nf:limits       when it registers, and when definitions changed
    Caller (thread)         calls the next ones in line when their time comes
    Runner ── Turn.take     before each fetch: a token of the rate; of another host its lease too, in exchange for its own

A task's first fetch has its turn from the claim, and asks nobody.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import redis

from jobs.definition.model import Definition
from jobs.errors import Cancelled, RateLimited, RegionUnavailable, TaskError, is_the_hosts
from jobs.origin import fixed_origin, origin_of
from jobs.queue.breaker import Breakers
from jobs.queue.finish import PLACE
from jobs.queue.host import HOSTS
from jobs.queue.script import Script
from regions import logs, names

CALL_SECONDS: Final = 1.0  # between two looks at the hosts that are waited for, where nothing says sooner
SLICE_SECONDS: Final = 0.1  # of a wait, before a cancel is looked at
AWAY_SECONDS: Final = (0.1, 0.5)  # the same while the region's Redis is away
ASK_SECONDS: Final = (0.02, 0.06)  # between two askings for another host's turn

log = logs.get("turn")

LIMIT: Final = Script("""
redis.call("DEL", "$limits")
for i = 1, #ARGV, 2 do redis.call("HSET", "$limits", ARGV[i], ARGV[i + 1]) end
""")

CALL: Final = Script(
    """
local queue, suspects, scheduled = unpack(KEYS)
"""
    + PLACE
    + HOSTS
    + """
call_due()
return next_call()
"""
)

# ARGV: task, execution, host, source, ms that it may wait. Gives what became of it and a number of ms: {"go", until then},
# {"late", until its turn}, {"full", 0} (ask again), {"gone", 0} (the execution is no longer one).
TAKE: Final = Script(
    """
local wip = KEYS[1]
local id, execution, name, source, patience = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
"""
    + HOSTS
    + """
local member = id .. ":" .. execution
if not redis.call("ZSCORE", wip, member) then return {"gone", 0} end
local turns, had = "$turns" .. name, redis.call("HGET", "$execution" .. member, "$turn") or ""
local most, every = limit_of(name, source)
if had ~= name then
  if had ~= "" then leave(had, id) end
  redis.call("HSET", "$execution" .. member, "$turn", name)
  redis.call("ZADD", turns, $asking + now_ms, id)  -- which counts for those who claim: they come after it
end
if tonumber(redis.call("ZSCORE", turns, id) or $asking) >= $asking then
  if redis.call("ZCOUNT", turns, "-inf", "(" .. string.format("%.0f", $asking)) >= most then return {"full", 0} end
  redis.call("ZADD", turns, now_ms, id)
  had = ""  -- until now it was no fetch of this host
end
local host = look(name)
local start = math.max(exact_ms, host.next)
local ms = math.ceil(start - exact_ms)
if had == name and host.opened > 0 and host.is_tried then ms = math.ceil(every) end  -- further fetches of the one try
if ms > patience then return {"late", ms} end
every = math.max(every, host.delay)
if host.opened > 0 then return {"go", math.ceil(every)} end
if every > 0 then hold(name, host, start + every) end
return {"go", ms}
"""
)


class Turns(Protocol):
    """What lets a task fetch: ``Turn``, or ``Free``."""

    waited_ms: float

    def take(self, url: str, source: str, *, deadline: float, cancelled: Callable[[], bool]) -> None:
        """Waits for the turn of an address's host; ``deadline`` is monotonic. Adds to ``waited_ms``.

        Raises RateLimited where it comes too late, ``NoThread``, Cancelled, RegionUnavailable.
        """

    def slow(self, url: str, seconds: float) -> None:
        """An address's host asked to be left alone for so long."""

    def delay(self, url: str, seconds: float) -> None:
        """It asks for so much time between two fetches."""

    def ended(self, error: TaskError | None) -> None:
        """How the task's last fetch went, its answer included."""


class Free:
    """Never waits: for what runs outside of a region."""

    waited_ms = 0.0

    def take(self, url: str, source: str, *, deadline: float, cancelled: Callable[[], bool]) -> None:
        """At once."""

    def slow(self, url: str, seconds: float) -> None:
        """Nobody else asks."""

    def delay(self, url: str, seconds: float) -> None:
        """Nobody else asks."""

    def ended(self, error: TaskError | None) -> None:
        """Nobody else asks."""


class NoThread(RateLimited):
    """Too many threads of the process wait for turns: the task goes back."""


class TurnClient:
    """Where the threads of a process ask; ``threads`` of them may wait at once."""

    def __init__(self, client: redis.Redis, region: str, threads: int) -> None:
        self._client = client
        self._keys = [names.rq_registry("wip", region)]
        self.breakers = Breakers(client)
        self.waiting = threading.BoundedSemaphore(max(1, threads))

    def ask(self, task: str, execution: str, host: str, source: str, patience_ms: int) -> tuple[str, int]:
        """As the script. Raises ``RedisError``'s."""
        said, ms = TAKE.call(self._client, self._keys, [task, execution, host, source, max(0, patience_ms)])
        return said.decode(), ms


class Turn:
    """One execution's turns; ``host`` is the one that its claim took a turn of, ``waited_ms`` how long that took."""

    def __init__(
        self, turns: TurnClient, task: str, execution: str, host: str, waited_ms: float, *, is_in_trouble: bool = False
    ) -> None:
        """``is_in_trouble``: the host's breaker wants to hear of an answer, not only of failures."""
        self._turns, self._task, self._execution = turns, task, execution
        self.host, self.waited_ms = host, waited_ms
        self._has_token, self._is_in_trouble = bool(host), is_in_trouble
        self._asked = ""

    def take(self, url: str, source: str, *, deadline: float, cancelled: Callable[[], bool]) -> None:
        """As ``Turns`` says."""
        try:
            host = origin_of(url)
        except ValueError:
            return  # the fetch says what is wrong with it
        if self._is_in_trouble and self._asked == self.host != host:  # which has led elsewhere, so it is well
            self._is_in_trouble = False
            self._turns.breakers.recovered(self.host)
        self._asked = host
        had_token, self._has_token = self._has_token, False
        if had_token and host == self.host:
            return
        began = time.monotonic()
        try:
            self._take(host, source, deadline, cancelled)
        finally:
            self.waited_ms += (time.monotonic() - began) * 1000

    def slow(self, url: str, seconds: float) -> None:
        """As ``Turns`` says."""
        self._turns.breakers.slow(origin_of(url), seconds)

    def delay(self, url: str, seconds: float) -> None:
        """As ``Turns`` says."""
        self._turns.breakers.delay(origin_of(url), seconds)

    def ended(self, error: TaskError | None) -> None:
        """As ``Turns`` says. What says nothing of the host (a cancel, a fault of ours) is not told."""
        if error is not None and is_the_hosts(error):
            self._turns.breakers.failed(self._asked, error)
        elif (
            self._is_in_trouble and self._asked == self.host and (error is None or error.whose in ("target", "parser"))
        ):
            self._turns.breakers.recovered(self.host)

    def _take(self, host: str, source: str, deadline: float, cancelled: Callable[[], bool]) -> None:
        may_wait = self._turns.waiting.acquire(blocking=False)
        try:
            while True:
                left = deadline - time.monotonic()
                try:
                    patience_ms = int(left * 1000) if may_wait else 0
                    said, ms = self._turns.ask(self._task, self._execution, host, source, patience_ms)
                except redis.exceptions.RedisError as error:  # asked twice, it is a token that nobody uses
                    if left <= 0:
                        raise RegionUnavailable(f"the region's Redis says nothing of {host}: {error}") from error
                    _sleep(min(left, random.uniform(*AWAY_SECONDS)), cancelled)
                    continue
                if said == "go":
                    _sleep(ms / 1000, cancelled)
                    return
                if said == "gone":
                    raise Cancelled("it was taken back while it waited for a turn")
                if not may_wait:
                    raise NoThread(f"too many tasks wait for turns, of {host} too", origin="region")
                if said == "late" or left <= 0:
                    raise RateLimited(
                        f"expected a turn of {host} before the deadline, found none for {ms / 1000:.1f} s",
                        retry_after=ms / 1000,
                        origin="region",
                    )
                _sleep(min(left, random.uniform(*ASK_SECONDS)), cancelled)
        finally:
            if may_wait:
                self._turns.waiting.release()


class Caller:
    """A thread that calls who waits for a host's rate, to the ms; releases are seen by the claims after them."""

    def __init__(self, client: redis.Redis, region: str) -> None:
        self._client = client
        queue, suspects = names.rq_queue(region), names.rq_queue(names.suspects(region))
        self._keys = [queue, suspects, names.rq_registry("scheduled", region)]
        self._at = 0.0
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self.run, name="caller", daemon=True)

    def start(self) -> None:
        """Begins to call."""
        self._thread.start()

    def expect(self, ms: int) -> None:
        """Somebody may be called in so many ms; -1 for nobody."""
        if 0 <= ms < (self._at - time.monotonic()) * 1000:
            self._at = time.monotonic() + ms / 1000
            self._wake.set()

    def run(self) -> None:
        """Calls for the life of the process."""
        while True:
            self.run_once()
            while (left := self._at - time.monotonic()) > 0:
                self._wake.wait(left)
                self._wake.clear()

    def run_once(self) -> None:
        """One look; what fails here is done by another process, or by the next look."""
        ms = -1
        try:
            ms = CALL.call(self._client, self._keys)
        except redis.exceptions.RedisError as error:
            log.debug("can't call who waits", error=str(error))
        self._at = time.monotonic() + (min(CALL_SECONDS, ms / 1000) if ms >= 0 else CALL_SECONDS)


def hosts_of(definition: Definition) -> set[str]:
    """The hosts that a source is sure to ask, whatever its params; the one of ``[before]`` too."""
    asks = [definition.ask] if definition.before is None else [definition.ask, definition.before.ask]
    return {fixed_origin(ask.url) for ask in asks} - {""}


def limits_of(definitions: Iterable[Definition]) -> dict[str, str]:
    """What sources allow, by source and by host: "AT_ONCE MS_BETWEEN", of a host the strictest of its sources.

    A source whose params decide its host has only its own; it holds at every host that it is asked of.
    """
    found: dict[str, tuple[int, float]] = {}
    for one in definitions:
        rate = one.limits.rate_per_second
        mine = (one.limits.concurrency, 1000 / rate if rate else 0.0)
        for name in (one.id, *hosts_of(one)):
            most, every = found.get(name, mine)
            found[name] = min(most, mine[0]), max(every, mine[1])
    return {name: f"{most} {every:.3f}" for name, (most, every) in found.items()}


def tell_limits(client: redis.Redis, limits: Mapping[str, str]) -> None:
    """Makes them what claims go by. Raises ``RedisError``'s."""
    arguments = [text for pair in limits.items() for text in pair]
    LIMIT.call(client, [], arguments)


def _sleep(seconds: float, cancelled: Callable[[], bool]) -> None:
    """Raises Cancelled."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if cancelled():
            raise Cancelled("cancelled while it waited for a turn")
        time.sleep(min(left, SLICE_SECONDS))
