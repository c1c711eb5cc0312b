"""How executions end: Lua scripts, each whole or not at all, so that no job is half-finished.

    FINISH     ends an execution everywhere and puts its task's outcome into the region's outbox
    RETRY      ends an execution, keeps its outcome, and puts its job into RQ's scheduled registry
    DUE        moves jobs whose time has come to the queue, looks after who waits for another's answer (jobs.queue.flight), and
               ends as kept what could not be tried again in time
    GIVE_BACK  puts executions back to the front of the queue (a cold stop, an answer that never came; jobs.queue.reaper too)

The fence: FINISH, RETRY and GIVE_BACK do nothing for an execution that RQ's registry of started jobs no longer holds.
"""

from typing import Final

from jobs.queue.flight import FLIGHTS
from jobs.queue.script import Script

# Needs `queue` and `suspects`. Who is poison goes to the queue: any worker ends it, none runs it.
PLACE: Final = """
local function place(id, deaths, push)
  local count = tonumber(deaths or 0)
  if count > 0 and count < $deaths_max then
    redis.call("SADD", "$queues", suspects)
    redis.call(push, suspects, id)
  else
    redis.call(push, queue, id)
  end
end
"""

# Needs `finished`, `failed`, `outbox`, `outbox_bytes` and `counters`, and what PLACE and FLIGHTS need. An end is {status and
# traceback for RQ, request, state, finished ms, expires ms, bytes of the JSON, frame, raw, records and wire bytes, trail,
# by how many ms the deadlines may be later of those for whom it is the answer too, or -1, what is kept of it (jobs.answers.cache),
# when the source gave that answer (hub ms) or ""}.
_CONCLUDE: Final = (
    PLACE
    + FLIGHTS
    + """
local sums, frames = {succeeded = 0, failed = 0, raw = 0, records = 0, wire = 0}, 0
local stamp = iso()

-- Ends a job in RQ's terms; its deadline, its question's key, and whose answer it took, as far as there were any.
local function record(id, execution, worker, began, status, problem)
  local job = "$job" .. id
  local before, deadline, kept, key, leader = unpack(redis.call("HMGET", job, "status", "$deadline", "$kept", "$key", "$shared_field"))
  if not before then return now_ms end  -- deleted by an operator: writing would make half a job
  deadline = tonumber(deadline or now_ms)
  if kept then
    redis.call("ZREM", "$retried", id)
    redis.call("HDEL", job, "$kept")
  end
  -- RQ's packed data is most of a record.
  redis.call("HSET", job, "status", status, "ended_at", stamp, "data", nothing_asked)
  redis.call("PEXPIREAT", job, own_ms(deadline + $keep_ms))
  if status ~= "finished" then
    local results = "$results" .. id
    redis.call("XADD", results, "MAXLEN", 10, "*", "type", status == "stopped" and 3 or 2, "worker_name", worker,
      "execution_id", execution, "execution_started_at", began, "execution_ended_at", now, "exc_string", problem)
    redis.call("PEXPIREAT", results, own_ms(deadline + $keep_ms))
  end
  local registry = status == "finished" and finished or failed
  redis.call("ZADD", registry, math.floor((deadline + $keep_ms) / 1000), id)
  keep_latest(registry)
  return deadline, key or nil, leader and leader ~= "" and leader or nil
end

-- Keeps a good answer; the oldest ones go for it.
local function keep(key, meta, frame)
  local grown = #frame - redis.call("HSTRLEN", "$cache" .. key, "frame")
  redis.call("HSET", "$cache" .. key, "meta", meta, "frame", frame)
  grown = grown + redis.call("ZADD", "$cached", now_ms, key) * $cached_each
  local total = redis.call("INCRBY", "$cached_bytes", grown)
  while total > $cached_max do
    local oldest = redis.call("ZPOPMIN", "$cached")[1]
    if not oldest then return end
    total = redis.call("DECRBY", "$cached_bytes", redis.call("HSTRLEN", "$cache" .. oldest, "frame") + $cached_each)
    redis.call("DEL", "$cache" .. oldest)
  end
end

-- Adds an entry to the outbox. Its id tells when, by the region's clock; where that is a little behind, by the last one's.
local function put(...)
  local entry = redis.pcall("XADD", outbox, string.format("%.0f-*", now_ms), ...)
  if type(entry) == "string" then return entry end
  local told = redis.call("XINFO", "STREAM", outbox)
  for i = 1, #told, 2 do
    if told[i] == "last-generated-id" then return redis.call("XADD", outbox, told[i + 1]:match("^%d+") .. "-*", ...) end
  end
end

local function conclude(id, execution, worker, began, ending)
  local status, problem, request, state, finished_ms, expires_ms, size, frame, raw, records, wire, trail, later,
    meta, of = unpack(ending)
  local deadline, key, leader = record(id, execution, worker, began, status, problem)
  later = tonumber(later or -1)
  if leader then flights().taken(leader)
  elseif key then land(key, id, frame, later < 0 and -1 or deadline + later, math.floor(tonumber(began) * 1000), of or "") end
  if key and (meta or "") ~= "" then keep(key, meta, frame) end
  frames = frames + #frame
  sums[state] = (sums[state] or 0) + 1
  sums.raw = sums.raw + tonumber(raw)
  sums.records = sums.records + tonumber(records)
  sums.wire = sums.wire + tonumber(wire)
  return put("q", request, "t", id, "s", state, "f", finished_ms, "x", expires_ms, "b", size, "r", frame, "h", trail)
end

local function account()
  if frames == 0 then return end
  redis.call("INCRBY", outbox_bytes, frames)
  for field, sum in pairs(sums) do
    if sum > 0 then redis.call("HINCRBY", counters, field, sum) end
  end
end
"""
)

# ARGV: the worker, then for each end: task, execution, and the end.
FINISH: Final = Script(
    """
local wip, finished, failed, worker, held, outbox, outbox_bytes, counters, queue, suspects, scheduled = unpack(KEYS)
"""
    + _CONCLUDE
    + """
local name, answer, worked = ARGV[1], {}, 0
for i = 2, #ARGV, 17 do
  local id, execution = ARGV[i], ARGV[i + 1]
  local began = release(wip, held, id, execution)
  if began then
    worked = worked + math.max(0, tonumber(now) - tonumber(began))
    answer[#answer + 1] = conclude(id, execution, name, began, {unpack(ARGV, i + 2, i + 16)})
  else
    answer[#answer + 1] = ""
  end
end
account()
if frames > 0 and redis.call("EXISTS", worker) == 1 then
  if sums.succeeded > 0 then redis.call("HINCRBY", worker, "successful_job_count", sums.succeeded) end
  if sums.failed > 0 then redis.call("HINCRBY", worker, "failed_job_count", sums.failed) end
  redis.call("HINCRBYFLOAT", worker, "total_working_time", string.format("%.6f", worked))
end
return answer
"""
)

# ARGV: the worker, then for each end: task, execution, ms to wait, "1" for the front of the queue or "", a line of what
# failed, and the end. Where an operator deleted the record there is nothing to try again: that is an end.
RETRY: Final = Script(
    """
local wip, finished, failed, worker, held, outbox, outbox_bytes, counters, queue, suspects, scheduled = unpack(KEYS)
"""
    + _CONCLUDE
    + """
local name, answer = ARGV[1], {}
for i = 2, #ARGV, 20 do
  local id, execution = ARGV[i], ARGV[i + 1]
  local job = "$job" .. id
  local ending = {unpack(ARGV, i + 5, i + 19)}
  local began = release(wip, held, id, execution)
  if not began then
    answer[#answer + 1] = ""
  else
    local fields = redis.call("HMGET", job, "status", "$deadline", "$past")
    if not fields[1] then
      answer[#answer + 1] = conclude(id, execution, name, began, ending)
    else
      redis.call("HSET", job, "status", "scheduled", "worker_name", "", "started_at", "", "$front", ARGV[i + 3],
        "$past", (fields[3] or "") .. ARGV[i + 4], "$kept", cmsgpack.pack({execution, name, began, ending}))
      redis.call("ZADD", scheduled, string.format("%.3f", (now_ms + tonumber(ARGV[i + 2])) / 1000), id)
      redis.call("ZADD", "$retried", fields[2] or now_ms, id)
      answer[#answer + 1] = "$later"
    end
  end
end
account()
return answer
"""
)

# Gives {entry in the outbox, task, and the end} of each task that ended as kept. What runs past its deadline ends by
# itself, or is given back and looked at again. An ended one may still stand in the queue: claims skip what is not queued.
DUE: Final = Script(
    """
local queue, suspects, scheduled, finished, failed, outbox, outbox_bytes, counters = unpack(KEYS)
"""
    + _CONCLUDE
    + """
for _, id in ipairs(redis.call("ZRANGE", scheduled, "-inf", now, "BYSCORE", "LIMIT", 0, $due_max)) do
  redis.call("ZREM", scheduled, id)
  local job = "$job" .. id
  local fields = redis.call("HMGET", job, "status", "$front", "$deaths", "$wanted", "$since", "$joined_field")
  if fields[1] == "scheduled" then
    if (fields[5] or "") ~= "" then forget(fields[4], id) end  -- no turn came: the claim says so
    redis.call("HSET", job, "status", "queued", "enqueued_at", stamp, fields[6] and "$joined_field" or "status",
      fields[6] and "" or "queued")
    place(id, fields[3], fields[2] == "1" and "LPUSH" or "RPUSH")
  end
end
flights().look_after()
local answer = {}
for _, id in ipairs(redis.call("ZRANGE", "$retried", "-inf", now_ms, "BYSCORE", "LIMIT", 0, $due_max)) do
  local fields = redis.call("HMGET", "$job" .. id, "status", "$kept", "$wanted", "$since")
  if fields[1] == "started" then
    redis.call("ZADD", "$retried", now_ms + 1000, id)
  else
    redis.call("ZREM", "$retried", id)
    if (fields[1] == "queued" or fields[1] == "scheduled") and fields[2] then
      redis.call("ZREM", scheduled, id)
      if (fields[4] or "") ~= "" then forget(fields[3], id) end
      local execution, worker, began, ending = unpack(cmsgpack.unpack(fields[2]))
      answer[#answer + 1] = {conclude(id, execution, worker, began, ending), id, unpack(ending)}
    end
  end
end
account()
return answer
"""
)

# Needs `wip`, `held`, `queue` and `suspects`; true when the execution was one.
REQUEUE: Final = (
    PLACE
    + """
local function requeue(member)
  local id, execution = member:match("^(.*):([^:]*)$$")
  if not id or not release(wip, held, id, execution) then
    redis.call("SREM", held, member)
    return false
  end
  local job = "$job" .. id
  local fields = redis.call("HMGET", job, "status", "$deaths")
  if fields[1] then
    redis.call("HSET", job, "status", "queued", "worker_name", "", "started_at", "")
    place(id, fields[2], "LPUSH")
  end
  return true
end
"""
)

GIVE_BACK: Final = Script(
    """
local queue, suspects, wip, held = unpack(KEYS)
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
