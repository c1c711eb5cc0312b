-- Keeps the whole records of only the latest ended jobs.
-- constants: LATEST_MAX, JOB, RESULTS, NO_CALL, KEEP_MS

-- Operators look at the latest jobs of a registry. Of the earlier ones only the fact that they ended is kept, so that
-- they are never enqueued again: otherwise a region's memory would limit its rate, and not its work. RQ can still read
-- what is left.
local function keep_latest(registry)
  if redis.call("ZCARD", registry) <= LATEST_MAX then return end
  local oldest = redis.call("ZPOPMIN", registry, 2)  -- by what expires first; two, so that one that is too long gets shorter
  for i = 1, #oldest, 2 do
    local job, expires_ms = JOB .. oldest[i], tonumber(oldest[i + 1]) * 1000
    local status = redis.call("HGET", job, "status") or ""
    if status == "finished" or status == "failed" or status == "stopped" or status == "canceled" then
      redis.call("DEL", job, RESULTS .. oldest[i])
      redis.call("HSET", job, "status", status, "data", NO_CALL)
      -- RQ's own cancel leaves a record that never expires.
      redis.call("PEXPIREAT", job, own_ms(expires_ms > now_ms and expires_ms < math.huge and expires_ms or now_ms + KEEP_MS))
    end
  end
end

