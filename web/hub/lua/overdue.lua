-- Takes requests whose accept has lapsed, and tasks that are past their deadline and grace. No other gateway gets them
-- until the lease is over. Returns the time in ms, the requests, and the tasks as REQUEST/TASK.
-- keys: accepting, due
-- args: lease_ms, most
-- uses: now
-- flags: allow-oom

local now = now_ms()
local function take(key)
  local found = redis.call("ZRANGEBYSCORE", key, "-inf", now, "LIMIT", 0, most)
  for _, member in ipairs(found) do redis.call("ZADD", key, now + lease_ms, member) end
  return found
end
return {now, take(accepting), take(due)}
