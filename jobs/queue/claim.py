"""Claim and finish: one Lua script each, so that there is no half-claimed and no half-finished job.

    claim    renews the process's lease; pops; drops what is late, cancelled or gone; begins an execution of the rest
    finish   the mirror (jobs.queue.finish): does nothing for an execution that is no longer this worker's

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
from msgspec import structs

from jobs.contract import LOST, PUT_BACK, Attempt, Outcome, Run, Trail, encode_trail
from jobs.queue.clock import clock_of, machine_ms
from jobs.queue.finish import DUE, FINISH, GIVE_BACK, PLACE, RETRY
from jobs.queue.flight import FLIGHTS, JOIN
from jobs.queue.host import HOSTS
from jobs.queue.retry import Retry, line, read_past
from jobs.queue.script import Script, send
from regions import names
from regions.script import value

CLAIM: Final = Script(
    """
local own, queue, suspects, scheduled, wip, canceled, worker, held, lease, workers, outbox_bytes = unpack(KEYS)
"""
    + PLACE
    + HOSTS
    + FLIGHTS
    + JOIN
    + """
local count, name, nonce, is_alone = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4] == "1"
local lapsed = redis.call("SET", lease, name, "PX", $lease_ms, "GET") == false
redis.call("ZADD", workers, now_ms, name)
local refusal = ""
if redis.call("EXISTS", worker) == 0 or redis.call("HEXISTS", worker, "death") == 1 then refusal = "unregistered"
elseif redis.call("EXISTS", "$suspended") == 1 then refusal = "suspended"
elseif tonumber(redis.call("GET", outbox_bytes) or 0) >= $outbox_max then refusal = "outbox full" end
if is_alone then
  redis.call("ZREMRANGEBYSCORE", "$alone", "-inf", now_ms - $lease_ms)
  redis.call("ZADD", "$alone", now_ms, name)
  if redis.call("ZCARD", "$alone") > $alone_max then
    redis.call("ZREM", "$alone", name)
    refusal = "enough alone"
  end
end
if refusal ~= "" then count = 0 end
local found, skipped, stamp = {}, 0, iso()
if count > 0 and is_waited_for and not joins().is_told(redis.call("LINDEX", own, 0)) then call_due() end
while #found < count and skipped < $skipped_max and carried < $carried_max do
  local id = redis.call("LPOP", own)
  if not id then break end
  local job = "$job" .. id
  local fields = redis.call("HMGET", job, "data", "$deadline", "$request", "$source", "status", "$past", "$deaths", "$bridged",
    "$wanted", "$since", "$key", "$joined_field", "$shared_field", "$asked", "$max_age")
  local deadline, host = tonumber(fields[2] or ""), fields[9] or ""
  local since = tonumber(fields[10] or "")
  if not fields[1] or fields[5] ~= "queued" then
    skipped = skipped + 1
  elseif (deadline and deadline <= now_ms) or redis.call("EXISTS", "$cancel" .. id) == 1 then
    skipped = skipped + 1
    if since then forget(host, id) end
    if redis.call("EXISTS", "$cancel" .. id) == 1 or redis.call("HEXISTS", job, "$kept") == 0 then
      redis.call("HSET", job, "status", "canceled", "ended_at", stamp)
      redis.call("PEXPIRE", job, $keep_ms)
      redis.call("ZADD", canceled, seconds, id)
      keep_latest(canceled)
      if fields[11] then land(fields[11], id, "", -1, 0, "") end
      if (fields[13] or "") ~= "" then flights().taken(fields[13]) end
    end  -- else it failed before, and ends as that (jobs.queue.finish)
  else
    local deaths, refused_ms, is_put_off, trouble, why = tonumber(fields[7] or 0), -1, false, "", ""
    local is_poison, is_joined, told, leader = deaths >= $deaths_max, false, nil, fields[13] or ""
    if leader ~= "" then told = joins().carry(leader) end
    if (fields[12] or "") ~= "" or (leader ~= "" and not told) then
      redis.call("HSET", job, "$joined_field", "", "$shared_field", told and leader or "")
    end
    if fields[11] and not told and not is_poison then
      local held = redis.call("SET", "$flight" .. fields[11], id, "NX", "GET", "PXAT", own_ms((deadline or now_ms) + $keep_ms))
      if held and held ~= id and (flights().parse(held)) ~= id then
        local ms
        is_joined, told, ms, leader = joins().join(fields[11], held, id, host, fields[4] or "", fields[3] or "", deadline, since,
          tonumber(fields[14] or ""), fields[8], fields[15])
        refused_ms = ms or -1
        if leader then redis.call("HSET", job, "$shared_field", leader) end
      end
    end
    if host ~= "" and not (is_poison or is_joined or told) then
      local is_called = since and redis.call("ZSCORE", "$turns" .. host, id)
      local known, most, every = look(host), limit_of(host, fields[4] or "")
      if refused_ms < 0 and not take(host, known, most, every, id, is_called) then
        refused_ms = wait(host, known, most, every, id, fields[3] or "", deadline, is_called) or -1
        is_put_off = refused_ms < 0 or redis.call("HEXISTS", job, "$kept") == 1
      end
      if known.opened > 0 and refused_ms >= 0 then
        local told = redis.call("HMGET", "$host" .. host, "type", "why")
        trouble, why = told[1] or "", told[2] or ""
      elseif known.fails > 0 then
        trouble = "some"
      end
    end
    if is_joined then
      skipped = skipped + 1
    elseif is_put_off then
      skipped = skipped + 1
      if refused_ms < 0 then
        redis.call("HSET", job, "status", "scheduled", "$since", since or now_ms)
      else  -- it failed before, and ends as that
        redis.call("HSET", job, "status", "scheduled", "$since", "")
        redis.call("ZADD", "$retried", now_ms, id)
      end
    else
      local execution = nonce .. #found
      local member = id .. ":" .. execution
      local counts = not (is_poison or told) and refused_ms < 0  -- what is only ended is no attempt
      local attempt = redis.call("HINCRBY", job, "$attempt", counts and 1 or 0)
      redis.call("HSET", job, "status", "started", "worker_name", name, "started_at", stamp, "last_heartbeat", stamp,
        since and "$since" or "status", since and "" or "started")
      redis.call("HSET", "$execution" .. member, "id", execution, "job_id", id, "worker_name", name,
        "created_at", now, "last_heartbeat", now, "$turn", counts and host or "")
      redis.call("ZADD", "$executions" .. id, seconds + $far, execution)
      redis.call("ZADD", wip, seconds + $far, member)
      redis.call("SADD", held, member)
      found[#found + 1] = {id, execution, attempt, fields[1], fields[3] or "", fields[4] or "", fields[6] or "", deaths,
        deadline or 0, tonumber(fields[8] or 0), host, since and now_ms - since or 0, refused_ms, trouble, why,
        told or 0, told and leader or ""}
    end
  end
end
if refusal ~= "unregistered" then
  local state = refusal == "suspended" and refusal or redis.call("EXISTS", held) == 1 and "busy" or "idle"
  redis.call("HSET", worker, "last_heartbeat", stamp, "state", state)
  redis.call("EXPIRE", worker, $worker_ttl)
end
return {now_ms, lapsed and 1 or 0, refusal, found, has_waiting and next_call() or -1, frames}
"""
)


@dataclass(slots=True, eq=False)
class Job:
    """A claimed job: one execution of a task. ``data`` is RQ's; ``claimed_ms`` is on the region Redis's clock.

    ``past``: the attempts before it, a line each. ``deaths``: processes that died while they ran it. ``deadline_ms`` is
    on the region's clock too, 0 where there is none; ``bridged_ms`` is on the hub's. ``turn_ms``: how long it waited for
    the turn of its ``host``; with ``refused_ms`` from 0 on there is none in time, but in so many ms. ``trouble``: "" where the
    host is well, else it wants to hear how a fetch went; of one that is left alone the error's type, and ``why``.
    ``answer``: the frame of ``leader``, which asked the same; such a job is not to be run.
    """

    task: str
    execution: str
    attempt: int
    data: bytes
    request: str
    source: str
    past: bytes
    deaths: int
    deadline_ms: int
    bridged_ms: int
    claimed_ms: int
    host: str = ""
    turn_ms: int = 0
    refused_ms: int = -1
    trouble: str = ""
    why: str = ""
    answer: bytes = b""
    leader: str = ""
    offset_ms: int | None = None  # the hub's clock less the region Redis's, once the data was read
    is_told: bool = False  # the hub knows that it runs
    is_cancelled: bool = False
    is_stopped: bool = False  # by RQ's stop commands
    is_ended: bool = False  # how is known; its thread may still be at it (jobs.worker.thread_pool.ThreadPool.give_up)
    thread: int = 0  # which runs it

    @property
    def member(self) -> str:
        """The execution as RQ's registries name it."""
        return names.execution_member(self.task, self.execution)

    def trail(self, worker: str, ended_ms: int = 0, run: Run | None = None) -> bytes:
        """Where it was, as JSON, and what it showed. ``ended_ms`` is on the hub's clock, 0 while it runs."""
        ahead = self.offset_ms or 0
        past = [
            structs.replace(one, started_ms=one.started_ms + ahead, ended_ms=one.ended_ms + ahead)
            for one in read_past(self.past)
        ]
        note = f"its answer is that of {self.leader}, which asked the same" if self.leader else ""
        last = Attempt(self.attempt, self.claimed_ms + ahead, ended_ms, worker, "", note)
        return encode_trail(Trail(self.bridged_ms, [*past, last], run))

    @property
    def failures(self) -> int:
        """How many attempts before it failed; those whose process was lost, or that were put back, do not count."""
        return sum(attempt.error not in (LOST, PUT_BACK) for attempt in read_past(self.past))


@dataclass(slots=True, frozen=True)
class Claimed:
    """What a claim brought.

    ``refusal``: why it brought nothing, or "": ``suspended``, ``outbox full``, ``unregistered`` (RQ does not know the
    worker, or as dead), ``enough alone`` (the region has as many such processes as it may) or ``no wait`` (there was
    nothing, and a full Redis refused to wait).
    ``lapsed``: the lease was gone before this call renewed it. ``now_ms``: the region Redis's clock. ``call_ms``: -1, or
    in how many ms the next one of those that wait for a host may be called (jobs.queue.turn).
    """

    now_ms: int
    lapsed: bool
    refusal: str
    jobs: list[Job]
    call_ms: int = -1


@dataclass(slots=True, frozen=True)
class End:
    """How an execution ended; sizes as in ``contract.Bytes``; ``traceback`` is what RQ's dashboard shows of a failure.

    With ``retry`` its task has not ended: it is tried again later, at the front of the queue where ``is_urgent``.
    ``shared_ms``: for whom it is the answer too, as ``jobs.queue.flight.shared_ms``; ``meta``: as ``jobs.answers.cache.packed``;
    ``answered_ms``: as ``jobs.task.life.Ended``'s.
    """

    job: Job
    outcome: Outcome
    traceback: str = ""
    raw_bytes: int = 0
    records_bytes: int = 0
    wire_bytes: int = 0
    retry: Retry | None = None
    is_urgent: bool = False
    shared_ms: int = -1
    meta: bytes = b""
    answered_ms: int = 0

    @property
    def spliced_bytes(self) -> int:
        """About how long the result's JSON will be at the hub."""
        return self.records_bytes + 600


class Claimer:
    """One worker process's claims and finishes. ``blocking`` is a client of its own for the wait for a job.

    Who ``is_alone`` claims suspects, and claims one at a time.
    """

    def __init__(
        self, client: redis.Redis, blocking: redis.Redis, *, region: str, worker: str, is_alone: bool = False
    ) -> None:
        self._client, self._blocking, self.worker, self._is_alone = client, blocking, worker, is_alone
        self.clock = clock_of(client)
        queue, suspects = names.rq_queue(region), names.rq_queue(names.suspects(region))
        self._queue = suspects if is_alone else queue
        wip, held = names.rq_registry("wip", region), names.rq_worker_executions(worker)
        self._held = held
        scheduled = names.rq_registry("scheduled", region)
        self._claim_keys = [
            self._queue, queue, suspects, scheduled, wip, names.rq_registry("canceled", region), names.rq_worker(worker), held, names.lease(worker),
            names.WORKERS, names.OUTBOX_BYTES,
        ]  # fmt: skip
        self._finish_keys = [
            wip, names.rq_registry("finished", region), names.rq_registry("failed", region), names.rq_worker(worker),
            held, names.OUTBOX, names.OUTBOX_BYTES, names.COUNTERS, queue, suspects, scheduled,
        ]  # fmt: skip
        self._due_keys = [queue, suspects, scheduled, *self._finish_keys[1:3], *self._finish_keys[5:8]]
        self._give_back_keys = [queue, suspects, wip, held]

    def claim(self, count: int, *, wait_seconds: float = 0.0) -> Claimed:
        """Renews the lease and claims up to ``count`` jobs, after waiting for one, in the same write.

        A full Redis refuses the wait, not the claim. Raises ``RedisError``'s.
        """
        claim, asked_ms = self._claim_command(count), machine_ms()
        if not wait_seconds:
            return self._claimed(send(self._client, [claim], [CLAIM])[0], asked_ms)
        wait = ("BLMOVE", self._queue, self._queue, "LEFT", "LEFT", wait_seconds)
        waited, reply = send(self._blocking, [wait, claim], [CLAIM], wait_seconds=wait_seconds)
        claimed = self._claimed(reply, asked_ms)
        no_wait = isinstance(waited, Exception) and not claimed.jobs and not claimed.refusal
        return replace(claimed, refusal="no wait") if no_wait else claimed

    def finish(self, ends: Sequence[End], *, then_claim: int) -> tuple[list[str], Claimed | None]:
        """Ends executions, and claims in the same write unless ``then_claim`` is 0.

        Gives for each end the id of its entry in the outbox, ``LATER`` where it is tried again instead, "" where the
        execution was no longer this worker's. Sending the same ends again is harmless. Raises like ``claim``; a refused
        claim alone is None.
        """
        last = [end for end in ends if end.retry is None]
        others = [end for end in ends if end.retry is not None]
        commands = []
        if last:
            arguments = [argument for end in last for argument in (end.job.task, end.job.execution, *_ending(end))]
            commands.append(FINISH.command(self._finish_keys, [self.worker, *arguments]))
        if others:
            arguments = [argument for end in others for argument in self._retry_arguments(end)]
            commands.append(RETRY.command(self._finish_keys, [self.worker, *arguments]))
        endings = len(commands)
        if then_claim:
            commands.append(self._claim_command(then_claim))
        asked_ms = machine_ms()
        replies = send(self._client, commands, [FINISH, RETRY, CLAIM])
        entries = [entry.decode() for reply in replies[:endings] for entry in value(reply)]
        found = dict(zip(map(id, [*last, *others]), entries, strict=True))
        refused = not then_claim or isinstance(replies[-1], Exception)
        return [found[id(end)] for end in ends], None if refused else self._claimed(replies[-1], asked_ms)

    def move_due(self) -> list[tuple[str, Outcome, int]]:
        """Moves jobs whose time has come to the queue, and ends what failed and was not tried again by its deadline.

        Gives of what ended the entry in the outbox, the outcome, and about how long its JSON will be.
        """
        reply = DUE.call(self._client, self._due_keys)
        return [
            (
                entry.decode(),
                Outcome(
                    request=request.decode(), task=task.decode(), status=state.decode(), finished_ms=int(finished),
                    expires_ms=int(expires), frame=frame, trail=trail,
                ),
                int(size),
            )
            for entry, task, _, _, request, state, finished, expires, size, frame, _, _, _, trail, *_ in reply
        ]  # fmt: skip

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
        gone = [("ZREM", key, self.worker) for key in (names.WORKERS, names.ALONE)]
        for reply in send(self._client, [("DEL", names.lease(self.worker)), *gone], []):
            value(reply)

    def _retry_arguments(self, end: End) -> list[str | bytes | int]:
        job, retry = end.job, end.retry
        assert retry is not None
        ended_ms = end.outcome.finished_ms - (job.offset_ms or 0)
        failed = Attempt(job.attempt, job.claimed_ms, ended_ms, self.worker, retry.error, retry.message)
        wait_ms = int(retry.wait_seconds * 1000)
        return [job.task, job.execution, wait_ms, "1" if end.is_urgent else "", line(failed), *_ending(end)]

    def _claim_command(self, count: int) -> tuple[Any, ...]:
        return CLAIM.command(self._claim_keys, [count, self.worker, os.urandom(8).hex(), int(self._is_alone)])

    def _claimed(self, reply: Any, asked_ms: int) -> Claimed:
        claimed = _claimed(reply)
        self.clock.note(claimed.now_ms, asked_ms)
        return claimed


def _claimed(reply: Any) -> Claimed:
    now_ms, lapsed, refusal, found, call_ms, frames = value(reply)
    jobs = [
        Job(
            task.decode(), execution.decode(), attempt, data, request.decode(), source.decode(), past, deaths,
            deadline_ms, bridged_ms, now_ms, host.decode(), turn_ms, refused_ms,
            trouble.decode(), why.decode("utf-8", "replace"), frames[told - 1] if told else b"", leader.decode(),
        )
        for (
            task, execution, attempt, data, request, source, past, deaths, deadline_ms, bridged_ms, host, turn_ms, refused_ms,
            trouble, why, told, leader,
        ) in found
    ]  # fmt: skip
    return Claimed(now_ms, bool(lapsed), refusal.decode(), jobs, call_ms)


def _ending(end: End) -> list[str | bytes | int]:
    job, outcome = end.job, end.outcome
    succeeded = outcome.status == "succeeded"
    status = "finished" if succeeded else "stopped" if job.is_stopped else "failed"
    problem = b"" if succeeded else b64encode(zlib.compress(end.traceback.encode("utf-8", "replace")))
    return [
        status, problem, outcome.request, outcome.status, outcome.finished_ms, outcome.expires_ms, end.spliced_bytes, outcome.frame,
        end.raw_bytes, end.records_bytes, end.wire_bytes, outcome.trail, end.shared_ms, end.meta,
        end.answered_ms or "",
    ]  # fmt: skip
