-- Takes requests whose accept has lapsed, and tasks that are past their deadline and grace. No other gateway gets them
-- until the lease is over. Returns the time in ms, the requests, the tasks as REQUEST/TASK, and in how many ms the next of
-- either is due, -1 if there is none.
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
local lapsed, overdue, next_ms = take(accepting), take(due), -1
for _, key in ipairs({accepting, due}) do
  local first = redis.call("ZRANGE", key, 0, 0, "WITHSCORES")[2]
  if first and (next_ms < 0 or first - now < next_ms) then next_ms = math.max(0, first - now) end
end
return {now, lapsed, overdue, next_ms}
