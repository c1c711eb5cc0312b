-- Looks at a region's load and pools. With a name it also says that this pool is there, and takes the turn to decide if
-- no other pool has it.
-- Returns {now_ms, the pool that decides, [pool, what it says of itself, …], what was decided, what an operator asked
-- for, jobs in the queue, executions, tasks that ended, why the region is held up or "", times at which some jobs were
-- enqueued, 1 if clients wait for tasks of this region or did a moment ago}.
-- keys: pools, turn, scale, wish, queue, urgent, urgent_seen, wip, counters, outbox_bytes
-- args: name, about, samples
-- constants: LEASE_MS, JOB, RQ_SUSPENDED, OUTBOX_MAX_BYTES
-- flags: allow-oom

if name ~= "" then
  redis.call("HSET", pools, name, now_ms .. " " .. about)
  if redis.call("SET", turn, name, "NX", "PX", LEASE_MS) == false and redis.call("GET", turn) == name then
    redis.call("PEXPIRE", turn, LEASE_MS)
  end
end
local alive, all = {}, redis.call("HGETALL", pools)
for i = 1, #all, 2 do
  local seen, rest = all[i + 1]:match("^(%d+) (.*)")
  if tonumber(seen) >= now_ms - LEASE_MS then
    alive[#alive + 1], alive[#alive + 2] = all[i], rest
  elseif name ~= "" then
    redis.call("HDEL", pools, all[i])
  end
end
local length, times, looked = redis.call("LLEN", queue), {}, {}
local function look(index)
  if index >= length or looked[index] then return end
  looked[index] = true
  local id = redis.call("LINDEX", queue, index)
  times[#times + 1] = redis.call("HGET", JOB .. id, "enqueued_at") or ""
end
local near = 1
for i = 0, samples - 1 do
  look(math.floor(i * length / samples))
  look(near - 1)
  near = near * 2
end
local succeeded, failed = unpack(redis.call("HMGET", counters, "succeeded", "failed"))
local hold = ""
if redis.call("EXISTS", RQ_SUSPENDED) == 1 then hold = "the region is suspended"
elseif tonumber(redis.call("GET", outbox_bytes) or 0) >= OUTBOX_MAX_BYTES then hold = "the outbox is full" end
return {now_ms, redis.call("GET", turn), alive, redis.call("GET", scale), redis.call("GET", wish), length + redis.call("LLEN", urgent),
  redis.call("ZCARD", wip), tonumber(succeeded or 0) + tonumber(failed or 0), hold, times,
  redis.call("EXISTS", urgent_seen)}
