"""Gives what dead worker processes held to the others.

A worker whose lease lapsed is taken for dead, but only by a reaper that has itself had answers from Redis without a gap
for two leases: after an outage, a freeze or a restart of Redis every lease is gone and nobody is dead. A process that the
pool saw die needs no such proof. One script does the reaping; it looks at the lease again, so a worker that came back
meanwhile is left alone.

What was in flight when its process crashed is a suspect, and so is what was in flight in two processes whose leases lapsed,
without a gap of Redis's between: it runs again alone in a process, where the next death is its own. The third is its last.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import redis

from jobs.queue.clock import LEASE_MS
from jobs.queue.finish import REQUEUE
from jobs.queue.script import KEEP_MS, Script
from regions import logs, names
from regions.script import send, value

LOOK_SECONDS: Final = 1.0
PROOF_SECONDS: Final = 2 * LEASE_MS / 1000
GAP_SECONDS: Final = 2.5  # more between two answers is a gap: a look, a time-out and some
TRIM_SECONDS: Final = 10.0
TRIM_MAX: Final = 1_000  # canceled jobs, and answers, trimmed at once

log = logs.get("reaper")

REAP: Final = Script(
    """
local queue, suspects, wip, held, lease, workers, worker, all_workers, queue_workers, alone_workers = unpack(KEYS)
local name, how, proof_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
if redis.call("EXISTS", lease) == 1 and how == "lapsed" then return -1 end
"""
    + REQUEUE
    + """
local told = {crashed = "its process died", lapsed = "its process stopped claiming", left = "its process ended"}

-- Writes down that an attempt was lost, and whether that speaks against its job.
local function blame(member)
  local id = member:match("^(.*):[^:]*$$")
  if not id or not redis.call("ZSCORE", wip, member) then return end
  local job = "$job" .. id
  local fields = redis.call("HMGET", job, "$attempt", "$past", "$lapsed")
  if not fields[1] then return end
  local began = tonumber(redis.call("HGET", "$execution" .. member, "created_at") or now) * 1000
  local line = cjson.encode({tonumber(fields[1]), math.floor(began), now_ms, name, "lost", told[how]})
  redis.call("HSET", job, "$past", (fields[2] or "") .. line .. "\\n")
  if how == "crashed" or (how == "lapsed" and tonumber(fields[3] or 0) >= now_ms - proof_ms) then
    redis.call("HINCRBY", job, "$deaths", 1)
  elseif how == "lapsed" then
    redis.call("HSET", job, "$lapsed", now_ms)
  end
end

local count = 0
for _, member in ipairs(redis.call("SMEMBERS", held)) do
  blame(member)
  if requeue(member) then count = count + 1 end
end
redis.call("DEL", held, lease, worker)
redis.call("ZREM", workers, name)
redis.call("ZREM", "$alone", name)
redis.call("SREM", all_workers, worker)
redis.call("SREM", queue_workers, worker)
redis.call("SREM", alone_workers, worker)
return count
"""
)

# What RQ's clean-ups would do besides failing jobs; RQ never trims its registry of canceled jobs. And answers that nobody
# asked for in a week (jobs.answers.cache).
TRIM: Final = Script("""
local finished, failed, canceled = unpack(KEYS)
redis.call("ZREMRANGEBYSCORE", finished, "-inf", seconds)
redis.call("ZREMRANGEBYSCORE", failed, "-inf", seconds)
for _, id in ipairs(redis.call("ZRANGE", canceled, "-inf", seconds - tonumber(ARGV[1]), "BYSCORE", "LIMIT", 0, ARGV[2])) do
  redis.call("ZREM", canceled, id)
  if redis.call("TTL", "$job" .. id) == -1 then redis.call("PEXPIRE", "$job" .. id, $keep_ms) end
end
for _, key in ipairs(redis.call("ZRANGE", "$cached", "-inf", now_ms - $cached_ttl, "BYSCORE", "LIMIT", 0, ARGV[2])) do
  redis.call("ZREM", "$cached", key)
  redis.call("DECRBY", "$cached_bytes", redis.call("HSTRLEN", "$cache" .. key, "frame") + $cached_each)
  redis.call("DEL", "$cache" .. key)
end
""")


class Reaper:
    """A thread of the pool. ``clock`` is in monotonic seconds."""

    def __init__(self, client: redis.Redis, region: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._region, self._clock = client, region, clock
        self._died: deque[tuple[str, str]] = deque()
        self._suspects: int | None = None
        self._since: float | None = None  # when the answers began that have no gap until now
        self._answered = 0.0
        self._trimmed = float("-inf")
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self.run, name="reaper", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def died(self, worker: str, *, crashed: bool) -> None:
        """Names a process that was seen to end: it is reaped at once, whatever its lease says.

        ``crashed``: nobody asked it to, so that what it ran may be why.
        """
        self._died.append((worker, "crashed" if crashed else "left"))
        self._wake.set()

    def suspects(self) -> int | None:
        """How many jobs wait for a process of their own; None when nobody looked since the last call."""
        found, self._suspects = self._suspects, None
        return found

    def stop(self) -> None:
        """Ends after reaping who was seen to die."""
        self._stopping = True
        self._wake.set()
        self._thread.join(2 * LOOK_SECONDS)

    def run(self) -> None:
        """Looks every second until it is stopped."""
        while not self._stopping:
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            self.run_once()
        if self._died:  # since the last look
            self.run_once()

    def run_once(self) -> None:
        """One look."""
        try:
            while self._died:
                self._reap(*self._died[0])
                self._died.popleft()
            lapsed = self._lapsed()
            self._note_answer()
            if self._is_proven:
                for worker in lapsed:
                    self._reap(worker, "lapsed")
            self._look_for_suspects()
            self._trim()
        except redis.exceptions.RedisError as error:
            if self._since is not None:
                log.warning("can't look for dead workers, nobody is taken for dead", error=str(error))
            self._since = None

    @property
    def _is_proven(self) -> bool:
        return self._since is not None and self._answered - self._since >= PROOF_SECONDS

    def _note_answer(self) -> None:
        now = self._clock()
        if self._since is None or now - self._answered > GAP_SECONDS:
            self._since = now
        self._answered = now

    def _lapsed(self) -> list[str]:
        workers = [worker.decode() for worker in value(send(self._client, [("ZRANGE", names.WORKERS, 0, -1)], [])[0])]
        if not workers:
            return []
        leases = value(send(self._client, [("MGET", *map(names.lease, workers))], [])[0])
        return [worker for worker, lease in zip(workers, leases, strict=True) if lease is None]

    def _look_for_suspects(self) -> None:
        """A suspended region starts nobody."""
        queue = names.rq_queue(names.suspects(self._region))
        waiting, suspended = map(value, send(self._client, [("LLEN", queue), ("EXISTS", names.RQ_SUSPENDED)], []))
        self._suspects = 0 if suspended else waiting

    def _reap(self, worker: str, how: str) -> None:
        region, alone = self._region, names.suspects(self._region)
        keys = [
            names.rq_queue(region), names.rq_queue(alone), names.rq_registry("wip", region),
            names.rq_worker_executions(worker), names.lease(worker), names.WORKERS, names.rq_worker(worker),
            names.RQ_WORKERS, names.rq_workers_of(region), names.rq_workers_of(alone),
        ]  # fmt: skip
        proof_ms = int((self._answered - self._since) * 1000) if self._since is not None else 0
        count = int(REAP.call(self._client, keys, [worker, how, proof_ms]))
        if count > 0 or (count == 0 and how == "lapsed"):
            log.warning("reaped a worker", worker=worker, jobs=count, how=how)

    def _trim(self) -> None:
        now = self._clock()
        if now - self._trimmed < TRIM_SECONDS:
            return
        keys = [names.rq_registry(kind, self._region) for kind in ("finished", "failed", "canceled")]
        TRIM.call(self._client, keys, [KEEP_MS // 1000, TRIM_MAX])
        self._trimmed = now
