"""Claim and finish: one Lua script each, so that there is no half-claimed and no half-finished job.

    claim    renews the process's lease; pops; drops what is late, cancelled or gone; begins an execution of the rest
    finish   the mirror: does nothing for an execution that RQ's registry of started jobs no longer holds (the fence),
             else ends it everywhere and puts the outcome into the region's outbox
    requeue  gives executions back to the front of the queue (a cold stop, an answer that never came; jobs.reaper too)

Times come from TIME inside the scripts: an argument would be from before the wait for a job. RQ's scores of started jobs
lie far ahead, since RQ fails what it finds overdue, and no key of an execution expires, since RQ forgets what did.
"""

import os
import zlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import redis

from jobs.contract import Outcome
from jobs.script import Script, send, value
from regions import names

_CLAIM: Final = """
local queue, wip, canceled, worker, held, lease, workers, outbox_bytes = unpack(KEYS)
local count, name, nonce = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local lapsed = redis.call("SET", lease, name, "PX", $lease_ms, "GET") == false
redis.call("ZADD", workers, now_ms, name)
local refusal = ""
if redis.call("EXISTS", worker) == 0 or redis.call("HEXISTS", worker, "death") == 1 then refusal = "unregistered"
elseif redis.call("EXISTS", "$suspended") == 1 then refusal = "suspended"
elseif tonumber(redis.call("GET", outbox_bytes) or 0) >= $outbox_max then refusal = "outbox full" end
if refusal ~= "" then count = 0 end
local found, skipped, stamp = {}, 0, iso()
while #found < count and skipped < $skipped_max do
  local id = redis.call("LPOP", queue)
  if not id then break end
  local job = "$job" .. id
  local fields = redis.call("HMGET", job, "data", "$deadline", "$request", "$source")
  local deadline = tonumber(fields[2] or "")
  if not fields[1] then
    skipped = skipped + 1
  elseif (deadline and deadline <= now_ms) or redis.call("EXISTS", "$cancel" .. id) == 1 then
    skipped = skipped + 1
    redis.call("HSET", job, "status", "canceled", "ended_at", stamp)
    redis.call("PEXPIRE", job, $keep_ms)
    redis.call("ZADD", canceled, seconds, id)
  else
    local execution = nonce .. #found
    local member = id .. ":" .. execution
    local attempt = redis.call("HINCRBY", job, "$attempt", 1)
    redis.call("HSET", job, "status", "started", "worker_name", name, "started_at", stamp, "last_heartbeat", stamp)
    redis.call("HSET", "$execution" .. member, "id", execution, "job_id", id, "worker_name", name,
      "created_at", now, "last_heartbeat", now)
    redis.call("ZADD", "$executions" .. id, seconds + $far, execution)
    redis.call("ZADD", wip, seconds + $far, member)
    redis.call("SADD", held, member)
    found[#found + 1] = {id, execution, attempt, fields[1], fields[3] or "", fields[4] or ""}
  end
end
if refusal ~= "unregistered" then
  local state = refusal == "suspended" and refusal or redis.call("EXISTS", held) == 1 and "busy" or "idle"
  redis.call("HSET", worker, "last_heartbeat", stamp, "state", state)
  redis.call("EXPIRE", worker, $worker_ttl)
end
return {now_ms, lapsed and 1 or 0, refusal, found}
"""

_FINISH: Final = """
local wip, finished, failed, worker, held, outbox, outbox_bytes, counters = unpack(KEYS)
local name, stamp, answer, frames = ARGV[1], iso(), {}, 0
local sums = {succeeded = 0, failed = 0, raw = 0, records = 0, wire = 0}
local worked = 0

local function record(job, id, execution, status, problem)
  local fields = redis.call("HGETALL", job)
  if #fields == 0 then return end  -- deleted by an operator: writing would make half a job
  -- RQ's packed data and empty fields are most of a record; without them ten times as many are kept in the same memory.
  local slim, deadline = {}, now_ms
  for i = 1, #fields, 2 do
    local field, value = fields[i], fields[i + 1]
    if field == "$deadline" then deadline = tonumber(value) end
    if value ~= "" and field ~= "data" and field ~= "status" and field ~= "ended_at" then
      slim[#slim + 1], slim[#slim + 2] = field, value
    end
  end
  redis.call("DEL", job)
  redis.call("HSET", job, "status", status, "ended_at", stamp, "data", '["$function", null, [], {}]', unpack(slim))
  redis.call("PEXPIREAT", job, deadline + $keep_ms)
  redis.call("ZADD", status == "finished" and finished or failed, math.floor((deadline + $keep_ms) / 1000), id)
  if status ~= "finished" then
    local results = "$results" .. id
    local began = redis.call("HGET", "$execution" .. id .. ":" .. execution, "created_at") or now
    redis.call("XADD", results, "MAXLEN", 10, "*", "type", status == "stopped" and 3 or 2, "worker_name", name,
      "execution_id", execution, "execution_started_at", began, "execution_ended_at", now, "exc_string", problem)
    redis.call("PEXPIREAT", results, deadline + $keep_ms)
  end
end

for i = 2, #ARGV, 13 do
  local id, execution, status, problem = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local member = id .. ":" .. execution
  if redis.call("ZSCORE", wip, member) then
    local began = redis.call("HGET", "$execution" .. member, "created_at")
    if began then worked = worked + math.max(0, tonumber(now) - tonumber(began)) end
    record("$job" .. id, id, execution, status, problem)
    release(wip, held, id, execution)
    local frame = ARGV[i + 9]
    answer[#answer + 1] = redis.call("XADD", outbox, "*", "q", ARGV[i + 4], "t", id, "s", ARGV[i + 5],
      "f", ARGV[i + 6], "x", ARGV[i + 7], "b", ARGV[i + 8], "r", frame)
    frames = frames + #frame
    sums[ARGV[i + 5]] = (sums[ARGV[i + 5]] or 0) + 1
    sums.raw = sums.raw + tonumber(ARGV[i + 10])
    sums.records = sums.records + tonumber(ARGV[i + 11])
    sums.wire = sums.wire + tonumber(ARGV[i + 12])
  else
    answer[#answer + 1] = ""
  end
end
if frames > 0 then
  redis.call("INCRBY", outbox_bytes, frames)
  for field, sum in pairs(sums) do
    if sum > 0 then redis.call("HINCRBY", counters, field, sum) end
  end
  if redis.call("EXISTS", worker) == 1 then
    if sums.succeeded > 0 then redis.call("HINCRBY", worker, "successful_job_count", sums.succeeded) end
    if sums.failed > 0 then redis.call("HINCRBY", worker, "failed_job_count", sums.failed) end
    redis.call("HINCRBYFLOAT", worker, "total_working_time", string.format("%.6f", worked))
  end
end
return answer
"""

# Needs `wip`, `held` and `queue`; true when the execution was one.
REQUEUE: Final = """
local function requeue(member)
  local id, execution = member:match("^(.*):([^:]*)$$")
  if not id or not release(wip, held, id, execution) then
    redis.call("SREM", held, member)
    return false
  end
  local job = "$job" .. id
  if redis.call("EXISTS", job) == 1 then
    redis.call("HSET", job, "status", "queued", "worker_name", "", "started_at", "")
    redis.call("LPUSH", queue, id)
  end
  return true
end
"""

_GIVE_BACK: Final = (
    """
local queue, wip, held = unpack(KEYS)
"""
    + REQUEUE
    + """
local count = 0
for _, member in ipairs(ARGV) do
  if requeue(member) then count = count + 1 end
end
return count
"""
)


CLAIM: Final = Script(_CLAIM)
FINISH: Final = Script(_FINISH)
GIVE_BACK: Final = Script(_GIVE_BACK)


@dataclass(slots=True, eq=False)
class Job:
    """A claimed job: one execution of a task. ``data`` is RQ's; ``claimed_ms`` is on the region Redis's clock."""

    task: str
    execution: str
    attempt: int
    data: bytes
    request: str
    source: str
    claimed_ms: int
    offset_ms: int | None = None  # the hub's clock less the region Redis's, once the data was read
    is_told: bool = False  # the hub knows that it runs
    is_cancelled: bool = False
    is_stopped: bool = False  # by RQ's stop commands

    @property
    def member(self) -> str:
        """The execution as RQ's registries name it."""
        return names.execution_member(self.task, self.execution)


@dataclass(slots=True, frozen=True)
class Claimed:
    """What a claim brought.

    ``refusal``: why it brought nothing, or "": ``suspended``, ``outbox full``, ``unregistered`` (RQ does not know the
    worker, or as dead) or ``no wait`` (there was nothing, and a full Redis refused to wait).
    ``lapsed``: the lease was gone before this call renewed it. ``now_ms``: the region Redis's clock.
    """

    now_ms: int
    lapsed: bool
    refusal: str
    jobs: list[Job]


@dataclass(slots=True, frozen=True)
class End:
    """How an execution ended; sizes as in ``contract.Bytes``; ``traceback`` is what RQ's dashboard shows of a failure."""

    job: Job
    outcome: Outcome
    traceback: str = ""
    raw_bytes: int = 0
    records_bytes: int = 0
    wire_bytes: int = 0

    @property
    def spliced_bytes(self) -> int:
        """About how long the result's JSON will be at the hub."""
        return self.records_bytes + 600


class Claimer:
    """One worker process's claims and finishes. ``blocking`` is a client of its own for the wait for a job."""

    def __init__(self, client: redis.Redis, blocking: redis.Redis, *, region: str, worker: str) -> None:
        self._client, self._blocking, self._worker = client, blocking, worker
        self._queue = names.rq_queue(region)
        wip, held = names.rq_registry("wip", region), names.rq_worker_executions(worker)
        self._held = held
        self._claim_keys = [
            self._queue, wip, names.rq_registry("canceled", region), names.rq_worker(worker), held, names.lease(worker),
            names.WORKERS, names.OUTBOX_BYTES,
        ]  # fmt: skip
        self._finish_keys = [
            wip, names.rq_registry("finished", region), names.rq_registry("failed", region), names.rq_worker(worker),
            held, names.OUTBOX, names.OUTBOX_BYTES, names.COUNTERS,
        ]  # fmt: skip
        self._give_back_keys = [self._queue, wip, held]

    def claim(self, count: int, *, wait_seconds: float = 0.0) -> Claimed:
        """Renews the lease and claims up to ``count`` jobs, after waiting for one, in the same write.

        A full Redis refuses the wait, not the claim. Raises ``RedisError``'s.
        """
        claim = self._claim_command(count)
        if not wait_seconds:
            return _claimed(send(self._client, [claim], [CLAIM])[0])
        wait = ("BLMOVE", self._queue, self._queue, "LEFT", "LEFT", wait_seconds)
        waited, reply = send(self._blocking, [wait, claim], [CLAIM])
        claimed = _claimed(reply)
        no_wait = isinstance(waited, Exception) and not claimed.jobs and not claimed.refusal
        return replace(claimed, refusal="no wait") if no_wait else claimed

    def finish(self, ends: Sequence[End], *, then_claim: int) -> tuple[list[str], Claimed | None]:
        """Ends executions, and claims in the same write unless ``then_claim`` is 0.

        Gives for each end the id of its entry in the outbox, "" where the execution was no longer this worker's.
        Sending the same ends again is harmless. Raises like ``claim``; a refused claim alone is None.
        """
        arguments: list[str | bytes | int] = [self._worker]
        for end in ends:
            arguments += _finish_arguments(end)
        commands = [FINISH.command(self._finish_keys, arguments)]
        if then_claim:
            commands.append(self._claim_command(then_claim))
        replies = send(self._client, commands, [FINISH, CLAIM])
        ids = [entry.decode() for entry in value(replies[0])]
        refused = not then_claim or isinstance(replies[1], Exception)
        return ids, None if refused else _claimed(replies[1])

    def give_back(self, members: Iterable[str]) -> int:
        """Puts executions back to the front of the queue; how many of them still were executions."""
        command = GIVE_BACK.command(self._give_back_keys, members)
        return int(value(send(self._client, [command], [GIVE_BACK])[0]))

    def look(self, tasks: Sequence[str]) -> tuple[set[str], set[str]]:
        """(those of ``tasks`` that are marked as cancelled, what the region holds for this worker, as members)."""
        commands: list[tuple[Any, ...]] = [("SMEMBERS", self._held)]
        if tasks:
            commands.append(("MGET", *map(names.cancel_mark, tasks)))
        replies = send(self._client, commands, [])
        marks = value(replies[1]) if tasks else []
        cancelled = {task for task, mark in zip(tasks, marks, strict=True) if mark is not None}
        return cancelled, {member.decode() for member in value(replies[0])}

    def leave(self) -> None:
        """Gives up the lease, so that nobody waits for it to lapse."""
        for reply in send(
            self._client, [("DEL", names.lease(self._worker)), ("ZREM", names.WORKERS, self._worker)], []
        ):
            value(reply)

    def _claim_command(self, count: int) -> tuple[Any, ...]:
        return CLAIM.command(self._claim_keys, [count, self._worker, os.urandom(8).hex()])


def _claimed(reply: Any) -> Claimed:
    now_ms, lapsed, refusal, found = value(reply)
    jobs = [
        Job(task.decode(), execution.decode(), attempt, data, request.decode(), source.decode(), now_ms)
        for task, execution, attempt, data, request, source in found
    ]
    return Claimed(now_ms, bool(lapsed), refusal.decode(), jobs)


def _finish_arguments(end: End) -> list[str | bytes | int]:
    job, outcome = end.job, end.outcome
    succeeded = outcome.status == "succeeded"
    status = "finished" if succeeded else "stopped" if job.is_stopped else "failed"
    problem = b"" if succeeded else b64encode(zlib.compress(end.traceback.encode("utf-8", "replace")))
    return [
        job.task, job.execution, status, problem,
        outcome.request, outcome.status, outcome.finished_ms, outcome.expires_ms, end.spliced_bytes, outcome.frame,
        end.raw_bytes, end.records_bytes, end.wire_bytes,
    ]  # fmt: skip
