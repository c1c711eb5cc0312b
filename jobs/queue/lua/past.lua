-- Attempts that ended without an end of their job, in the job's record (jobs.queue.retry.line).
-- constants: JOB, JOB_ATTEMPT, JOB_PAST, EXECUTION

-- Notes how an execution ended, TASK:EXECUTION of a worker; times are the region's.
local function note_attempt(member, worker, how, why)
  local id = member:match("^(.*):[^:]*$")
  local attempt, past = unpack(redis.call("HMGET", JOB .. (id or ""), JOB_ATTEMPT, JOB_PAST))
  if not attempt then return false end
  local began = tonumber(redis.call("HGET", EXECUTION .. member, "created_at") or now) * 1000
  local line = cjson.encode({tonumber(attempt), math.floor(began), now_ms, worker, how, why})
  redis.call("HSET", JOB .. id, JOB_PAST, (past or "") .. line .. "\n")
  return true
end

-- A kept outcome's trail (jobs.contract.Trail), with the attempts that `past` has behind its last one. Their times become
-- the hub's: the last attempt's are known on both clocks.
local function with_later(trail, past)
  if trail == "" or not past then return trail end
  local found = cjson.decode(trail)
  local attempts = found[2]
  local last, count = attempts[#attempts], #attempts
  local ahead_ms
  for text in past:gmatch("[^\n]+") do
    local one = cjson.decode(text)
    if last and one[1] == last[1] then
      ahead_ms = last[2] - one[2]
      last[5], last[6] = one[5], one[6]
    elseif ahead_ms and one[1] > last[1] then
      one[2], one[3] = one[2] + ahead_ms, one[3] + ahead_ms
      attempts[#attempts + 1] = one
    end
  end
  return #attempts > count and cjson.encode(found) or trail
end
