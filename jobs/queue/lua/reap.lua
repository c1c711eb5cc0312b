-- Gives back the executions of a dead worker, and forgets the worker. `how` it was found: "crashed", "left" or "lapsed".
-- `proof_ms`: for how long the reaper has had answers without a gap. Returns how many executions it gave back, -1 if the
-- worker's lease is there after all.
-- keys: queue, urgent, suspects, wip, held, lease, workers, worker, all_workers, queue_workers, urgent_workers, alone_workers
-- args: name, how, proof_ms
-- uses: requeue, past
-- constants: JOB, JOB_LAPSED, JOB_DEATHS, ALONE
-- flags: allow-oom

if redis.call("EXISTS", lease) == 1 and how == "lapsed" then return -1 end
local reasons = {crashed = "its process died", lapsed = "its process stopped claiming", left = "its process ended"}

-- Writes down that an attempt was lost, and whether that makes its job a suspect.
local function blame(member)
  local id = member:match("^(.*):[^:]*$")
  if not id or not redis.call("ZSCORE", wip, member) then return end
  if not note_attempt(member, name, "lost", reasons[how]) then return end
  local job = JOB .. id
  local lapsed = redis.call("HGET", job, JOB_LAPSED)
  if how == "crashed" or (how == "lapsed" and tonumber(lapsed or 0) >= now_ms - proof_ms) then
    redis.call("HINCRBY", job, JOB_DEATHS, 1)
  elseif how == "lapsed" then
    redis.call("HSET", job, JOB_LAPSED, now_ms)
  end
end

local count = 0
for _, member in ipairs(redis.call("SMEMBERS", held)) do
  blame(member)
  if requeue(member) then count = count + 1 end
end
redis.call("DEL", held, lease, worker)
redis.call("ZREM", workers, name)
redis.call("ZREM", ALONE, name)
redis.call("SREM", all_workers, worker)
redis.call("SREM", queue_workers, worker)
redis.call("SREM", urgent_workers, worker)
redis.call("SREM", alone_workers, worker)
return count
