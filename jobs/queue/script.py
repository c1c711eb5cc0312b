"""What the Lua scripts of the region's Redis have in common: our names, limits, the time, and the end of an execution.

Their time is the region's (jobs.queue.clock), also where a Redis was told another one in between.
"""

from collections.abc import Iterable, Sequence
from string import Template
from typing import Any, Final

import redis

from jobs.queue.clock import LEASE_MS, REFUSED, clock_of, machine_ms
from regions import names, script
from regions.script import value

KEEP_MS: Final = 300_000  # a job's record outlives its deadline by this, so that a redelivery is seen
OUTBOX_MAX_BYTES: Final = 64_000_000
SKIPPED_MAX: Final = 1_000  # late or cancelled jobs that one claim drops, so that it never holds its Redis for long
DUE_MAX: Final = 500  # waiting jobs that are moved at once, for the same reason
LATER: Final = "later"  # stands for an entry in the outbox where a job was put off instead
DEATHS_MAX: Final = 3  # of processes that ran a job; then it is poison
ALONE_MAX: Final = 16  # suspects that run at once in a region, each in a process of its own
FAR_SECONDS: Final = 365 * 86_400
WAITING_MAX: Final = 1_000  # tasks that wait for one host
ROOM_MS: Final = 1_000  # between a turn and the deadline at least: less helps nobody
MOST_DEFAULT: Final = 8  # fetches of a host at once where nobody said
TRY_MS: Final = 30_000  # for which an open host's one try keeps all others waiting
SHARE_MAX: Final = 1_000  # tasks that are told of an answer at once, so that an end never holds its Redis for long
SHARE_TTL_MS: Final = 60_000  # of an answer that nobody takes: who comes later asks again
LATE_TTL_MS: Final = 10_000  # the same, where others that want it are known to stand in the queue
CARRIED_MAX_BYTES: Final = 8_000_000  # of answers that one claim brings along
CACHED_MAX_BYTES: Final = 32_000_000  # of good answers that are kept
CACHED_EACH_BYTES: Final = 500  # that one takes beside its frame
CACHED_TTL_MS: Final = 7 * 86_400_000
ASKING: Final = 10**15  # added to a time in a host's turns: a running task that asks for one, and has none yet
HOST_TTL_MS: Final = 2 * 3_600_000  # what is known of a host that nobody asks
# Ended jobs of a kind whose whole records are kept: some 10 MB, of failed ones three times that.
LATEST_MAX: Final = 5_000
WORKER_TTL_SECONDS: Final = 120  # RQ's record of a process that no longer claims

ANY_TIME: Final = b"any time"  # stands for when a call may be run, until it is sent

_COMMON: Final = """
local clock, added_ms = redis.call("TIME"), tonumber(redis.call("GET", "$clock") or 0)
local seconds, micros = tonumber(clock[1]), tonumber(clock[2])
if added_ms ~= 0 then
  micros = micros + added_ms % 1000 * 1000
  seconds = seconds + math.floor(added_ms / 1000) + math.floor(micros / 1000000)
  micros = micros % 1000000
end
local now_ms = seconds * 1000 + math.floor(micros / 1000)
local earliest, latest = (table.remove(ARGV) or ""):match("^(%d+) (%d+)$$")
if latest and (now_ms < tonumber(earliest) or now_ms > tonumber(latest)) then
  return redis.error_reply("$refused expected " .. earliest .. " to " .. latest .. ", found " .. string.format("%.0f", now_ms))
end
local exact_ms = seconds * 1000 + micros / 1000
local now = string.format("%d.%06d", seconds, micros)

-- A time of the region's as Redis's own expiry reads it.
local function own_ms(at) return string.format("%.0f", at - added_ms) end

-- The time as RQ writes it; days to a date by Howard Hinnant's civil_from_days.
local function iso()
  local shifted = math.floor(seconds / 86400) + 719468
  local era = math.floor(shifted / 146097)
  local doe = shifted - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local rest = seconds % 86400
  return string.format("%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", year, month, day,
    math.floor(rest / 3600), math.floor(rest % 3600 / 60), rest % 60, micros)
end

-- Gives a task's turn back. Who waits for the host gets it from the next claim. How long turns take is asked of every one
-- while somebody waits, else of one in eight: the mean moves by a tenth of the way.
local function leave(host, id)
  local is_waited_for = redis.call("ZADD", "$hosts", "XX", "CH", now_ms, host) == 1
  local since = (is_waited_for or micros % 8 == 0) and tonumber(redis.call("ZSCORE", "$turns" .. host, id) or 0) or 0
  redis.call("ZREM", "$turns" .. host, id)
  if since <= 0 or since >= $asking then return end
  local mean = tonumber(redis.call("HGET", "$host" .. host, "mean") or now_ms - since)
  redis.call("HSET", "$host" .. host, "mean", string.format("%.1f", mean + (now_ms - since - mean) / 10))
  redis.call("PEXPIRE", "$host" .. host, $host_ttl)
end

-- A task no longer waits for a host, nor has it a turn that nobody took up.
local function forget(host, id)
  redis.call("ZREM", "$line" .. host, id)
  leave(host, id)
end

-- What RQ reads as a job that asks for nothing.
local nothing_asked = '["$function", null, [], {}]'

-- Operators look at the latest of a registry of ended jobs. Of those before it stays only that they ended, so that they are
-- never enqueued again: else a region's memory, and not its work, would be what limits its rate. RQ can still read them.
local function keep_latest(registry)
  if redis.call("ZCARD", registry) <= $latest_max then return end
  local oldest = redis.call("ZPOPMIN", registry, 2)  -- by what expires first; two, so that one that is too long gets shorter
  for i = 1, #oldest, 2 do
    local job, expires_ms = "$job" .. oldest[i], tonumber(oldest[i + 1]) * 1000
    local status = redis.call("HGET", job, "status") or ""
    if status == "finished" or status == "failed" or status == "stopped" or status == "canceled" then
      redis.call("DEL", job, "$results" .. oldest[i])
      redis.call("HSET", job, "status", status, "data", nothing_asked)
      -- RQ's own cancel leaves a record for ever.
      redis.call("PEXPIREAT", job, own_ms(expires_ms > now_ms and expires_ms < math.huge and expires_ms or now_ms + $keep_ms))
    end
  end
end

-- Ends an execution everywhere, if it still is one: when it began, in seconds.
local function release(wip, held, id, execution)
  local member = id .. ":" .. execution
  if redis.call("ZREM", wip, member) == 0 then return nil end
  local began, host = unpack(redis.call("HMGET", "$execution" .. member, "created_at", "$turn"))
  redis.call("DEL", "$execution" .. member)
  redis.call("ZREM", "$executions" .. id, execution)
  redis.call("SREM", held, member)
  if host and host ~= "" then leave(host, id) end
  return began or now
end
"""


class Script(script.Script):
    """A Lua script with our key names in it, called by its hash. It runs also at ``maxmemory``: it lets a Redis drain."""

    def __init__(self, body: str) -> None:
        text = Template("#!lua flags=allow-oom\n" + _COMMON + body).substitute(
            job=names.rq_job(""),
            execution=names.rq_execution("", "").rstrip(":") + ":",
            executions=names.rq_executions(""),
            results=names.rq_results(""),
            cancel=names.cancel_mark(""),
            clock=names.CLOCK,
            refused=REFUSED,
            suspended=names.RQ_SUSPENDED,
            function=names.JOB_FUNCTION,
            deadline=names.JOB_DEADLINE,
            request=names.JOB_REQUEST,
            source=names.JOB_SOURCE,
            attempt=names.JOB_ATTEMPT,
            bridged=names.JOB_BRIDGED,
            max_age=names.JOB_MAX_AGE,
            past=names.JOB_PAST,
            kept=names.JOB_KEPT,
            front=names.JOB_FRONT,
            deaths=names.JOB_DEATHS,
            lapsed=names.JOB_LAPSED,
            since=names.JOB_SINCE,
            wanted=names.JOB_HOST,
            turn=names.EXECUTION_TURN,
            limits=names.LIMITS,
            hosts=names.HOSTS,
            host=names.host(""),
            turns=names.turns(""),
            line=names.line(""),
            rounds=names.rounds(""),
            asking=ASKING,
            host_ttl=HOST_TTL_MS,
            waiting_max=WAITING_MAX,
            room=ROOM_MS,
            most_default=MOST_DEFAULT,
            try_ms=TRY_MS,
            key=names.JOB_KEY,
            joined_field=names.JOB_JOINED,
            shared_field=names.JOB_SHARED,
            flight=names.flight(""),
            joined=names.joined(""),
            flights=names.FLIGHTS,
            shared=names.shared(""),
            landing=names.landing(""),
            cache=names.cache(""),
            cached=names.CACHED,
            cached_bytes=names.CACHED_BYTES,
            cached_max=CACHED_MAX_BYTES,
            cached_each=CACHED_EACH_BYTES,
            cached_ttl=CACHED_TTL_MS,
            share_max=SHARE_MAX,
            share_ttl=SHARE_TTL_MS,
            late_ttl=LATE_TTL_MS,
            asked=names.JOB_ASKED,
            carried_max=CARRIED_MAX_BYTES,
            open=names.OPEN,
            alone=names.ALONE,
            queues=names.RQ_QUEUES,
            deaths_max=DEATHS_MAX,
            alone_max=ALONE_MAX,
            retried=names.RETRIED,
            later=LATER,
            lease_ms=LEASE_MS,
            keep_ms=KEEP_MS,
            outbox_max=OUTBOX_MAX_BYTES,
            skipped_max=SKIPPED_MAX,
            due_max=DUE_MAX,
            far=FAR_SECONDS,
            worker_ttl=WORKER_TTL_SECONDS,
            latest_max=LATEST_MAX,
        )
        super().__init__(text)

    def command(  # type: ignore[override]
        self, keys: Sequence[str], arguments: Iterable[script.Argument] = ()
    ) -> tuple[Any, ...]:
        """The command that calls it, whenever it arrives; ``send`` says when that is to be."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments, ANY_TIME)

    def call(  # type: ignore[override]
        self, client: redis.Redis, keys: Sequence[str], arguments: Iterable[script.Argument] = ()
    ) -> Any:
        """As the other scripts', by the region's clock."""
        return value(send(client, [self.command(keys, arguments)], [self])[0])


def send(
    client: redis.Redis,
    commands: Sequence[tuple[Any, ...]],
    scripts: Sequence[script.Script],
    *,
    wait_seconds: float = 0.0,
) -> list[Any]:
    """As ``regions.script.send``, with scripts that refuse to run at another time than the one that it is.

    ``wait_seconds``: for which the commands before them may block. After a refusal the region's clock is mended, and what
    was refused is sent again.
    """
    clock = clock_of(client)
    replies = script.send(client, _timed(commands, clock.expected(wait_seconds)), scripts)
    refused = [i for i, reply in enumerate(replies) if _is_refusal(reply)]
    if refused:
        clock.mend(client)
        again = _timed([commands[i] for i in refused], clock.expected(0.0))
        for i, reply in zip(refused, script.send(client, again, scripts), strict=True):
            replies[i] = reply
    return replies


NOW: Final = Script("return now_ms")


def now_ms(client: redis.Redis) -> int:
    """The region's time, which this process then knows. Raises ``RedisError``'s."""
    asked_ms = machine_ms()
    found = int(NOW.call(client, []))
    clock_of(client).note(found, asked_ms)
    return found


def _timed(commands: Sequence[tuple[Any, ...]], expected: str) -> list[tuple[Any, ...]]:
    return [(*command[:-1], expected) if command[-1] is ANY_TIME else command for command in commands]


def _is_refusal(reply: Any) -> bool:
    return isinstance(reply, redis.exceptions.ResponseError) and str(reply).startswith(REFUSED)
