-- Ends jobs: in RQ's records, in the region's outbox, for the tasks that share the answer, and in the cache.
-- needs: finished, failed, outbox, outbox_bytes, counters, queue, urgent, suspects, scheduled
-- uses: kept, shared_fetch, iso, latest
-- constants: JOB, JOB_DEADLINE, JOB_KEPT, JOB_KEY, JOB_SHARED, RETRIED, NO_CALL, KEEP_MS, RESULTS, CACHE, CACHED,
--   CACHED_BYTES, CACHED_EACH_BYTES, CACHED_MAX_BYTES

local sums, frames_bytes = {succeeded = 0, failed = 0, raw = 0, records = 0, wire = 0}, 0
local stamp = iso()

-- Ends a job in RQ's terms. Returns its deadline, the key of its question, and the leader whose answer it took; nil for
-- what it has not.
local function record(id, execution, worker, began, ending)
  local job, status = JOB .. id, ending.status
  local before, deadline, kept, key, leader = unpack(redis.call("HMGET", job, "status", JOB_DEADLINE, JOB_KEPT, JOB_KEY, JOB_SHARED))
  if not before then return now_ms end  -- deleted by an operator: writing would make half a job
  deadline = tonumber(deadline or now_ms)
  if kept then
    redis.call("ZREM", RETRIED, id)
    redis.call("HDEL", job, JOB_KEPT)
  end
  -- RQ's packed data is most of a record.
  redis.call("HSET", job, "status", status, "ended_at", stamp, "data", NO_CALL)
  redis.call("PEXPIREAT", job, own_ms(deadline + KEEP_MS))
  if status ~= "finished" then
    local results = RESULTS .. id
    redis.call("XADD", results, "MAXLEN", 10, "*", "type", status == "stopped" and 3 or 2, "worker_name", worker,
      "execution_id", execution, "execution_started_at", began, "execution_ended_at", now, "exc_string", ending.problem)
    redis.call("PEXPIREAT", results, own_ms(deadline + KEEP_MS))
  end
  local registry = status == "finished" and finished or failed
  redis.call("ZADD", registry, math.floor((deadline + KEEP_MS) / 1000), id)
  keep_latest(registry)
  return deadline, key or nil, leader and leader ~= "" and leader or nil
end

-- Keeps a good answer. The oldest answers go if there are too many bytes.
local function keep(key, meta, frame)
  local grown = #frame - redis.call("HSTRLEN", CACHE .. key, "frame")
  redis.call("HSET", CACHE .. key, "meta", meta, "frame", frame)
  grown = grown + redis.call("ZADD", CACHED, now_ms, key) * CACHED_EACH_BYTES
  local total = redis.call("INCRBY", CACHED_BYTES, grown)
  while total > CACHED_MAX_BYTES do
    local oldest = redis.call("ZPOPMIN", CACHED)[1]
    if not oldest then return end
    total = redis.call("DECRBY", CACHED_BYTES, redis.call("HSTRLEN", CACHE .. oldest, "frame") + CACHED_EACH_BYTES)
    redis.call("DEL", CACHE .. oldest)
  end
end

-- Adds an entry to the outbox. Its id is the region's time or, where that is a little behind, that of the last entry.
local function put(...)
  local entry = redis.pcall("XADD", outbox, string.format("%.0f-*", now_ms), ...)
  if type(entry) == "string" then return entry end
  local info = redis.call("XINFO", "STREAM", outbox)
  for i = 1, #info, 2 do
    if info[i] == "last-generated-id" then return redis.call("XADD", outbox, info[i + 1]:match("^%d+") .. "-*", ...) end
  end
end

-- Ends a task, and returns its entry in the outbox. The ending is a row as in kept.lua.
local function conclude(id, execution, worker, began, ending)
  local deadline, key, leader = record(id, execution, worker, began, ending)
  local frame, shared_ms = ending.frame, tonumber(ending.shared_ms or -1)
  if leader then sharing().taken(leader)
  elseif key then
    local last_deadline = shared_ms < 0 and -1 or deadline + shared_ms
    share(key, id, frame, last_deadline, math.floor(tonumber(began) * 1000), ending.answered_ms or "")
  end
  if key and (ending.meta or "") ~= "" then keep(key, ending.meta, frame) end
  frames_bytes = frames_bytes + #frame
  sums[ending.state] = (sums[ending.state] or 0) + 1
  sums.raw = sums.raw + tonumber(ending.raw_bytes)
  sums.records = sums.records + tonumber(ending.records_bytes)
  sums.wire = sums.wire + tonumber(ending.wire_bytes)
  return put("q", ending.request, "t", id, "s", ending.state, "f", ending.finished_ms, "x", ending.expires_ms, "b", ending.size_bytes,
    "r", frame, "h", ending.trail)
end

-- Counts what was concluded.
local function account()
  if frames_bytes == 0 then return end
  redis.call("INCRBY", outbox_bytes, frames_bytes)
  for field, sum in pairs(sums) do
    if sum > 0 then redis.call("HINCRBY", counters, field, sum) end
  end
end

